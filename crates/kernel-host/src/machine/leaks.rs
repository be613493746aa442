//! Gathers what a driver holds, from every subsystem.

use std::sync::Arc;

use super::{Driver, Inner};
use crate::leak::{LeakReport, LeakSource};

impl Inner {
    /// Everything that `driver` has not given back at this moment.
    pub(crate) fn leaks_of(self: &Arc<Self>, driver: &Driver) -> LeakReport {
        let sources: [&dyn LeakSource; 3] = [&self.nt, &self.flt, &self.ndis];
        let mut leaks: Vec<_> = sources.into_iter().flat_map(|source| source.leaks(driver)).collect();
        for leak in &mut leaks {
            leak.detail = name_addresses(&leak.detail);
        }
        LeakReport { driver: driver.name.clone(), leaks }
    }
}

/// Puts `image!function+offset` in place of each address in `text` that lies in a driver's image.
///
/// Done here, for all sources at once: they note addresses while drivers run, and symbols are only read when there is
/// something to report.
pub(crate) fn name_addresses(text: &str) -> String {
    let mut named = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("0x") {
        let (before, number) = rest.split_at(at);
        let digits = number[2..].find(|digit: char| !digit.is_ascii_hexdigit()).map_or(number.len(), |end| end + 2);
        let (number, after) = number.split_at(digits);
        named.push_str(before);
        let address = usize::from_str_radix(&number[2..], 16).ok();
        match address.and_then(|address| Some((address, crate::image::find(address)?))) {
            Some((address, module)) => named.push_str(&module.name_address(address)),
            None => named.push_str(number),
        }
        rest = after;
    }
    named.push_str(rest);
    named
}

#[cfg(test)]
mod tests {
    use super::name_addresses;

    #[test]
    fn addresses_outside_of_drivers_stay_as_they_are() {
        for text in ["", "IRP 0x10 of nobody", "0x", "tag 0xzz, 0xffffffffffffffffff", "timer 0x7f00 is set"] {
            assert_eq!(name_addresses(text), text);
        }
    }
}
