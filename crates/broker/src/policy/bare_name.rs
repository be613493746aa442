//! Names as NIC drivers ask for them.

use super::MAX_NAME_UNITS;
use super::component::check_components;
use crate::Error;

/// A file name without a place, or a path below an unnamed place: `e1000.rom`, `intel\e1000.rom`.
///
/// Where it lies is decided by the [`SearchPath`](super::SearchPath); it cannot leave the root it is looked for in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BareName<'a> {
    units: &'a [u16],
}

impl<'a> BareName<'a> {
    /// Checks a name from a driver.
    ///
    /// Errors are those of [`Error`] whose names start with `Name`: [`Error::NameTraversal`] for `..`,
    /// [`Error::NameStream`] for anything with a colon, [`Error::NameComponent`] for a backslash in front.
    pub fn parse(units: &'a [u16]) -> Result<Self, Error> {
        if units.is_empty() {
            return Err(Error::NameEmpty);
        }
        if units.len() > MAX_NAME_UNITS {
            return Err(Error::NameTooLong);
        }
        check_components(units)?;
        Ok(Self { units })
    }

    /// The name.
    #[must_use]
    pub const fn units(&self) -> &'a [u16] {
        self.units
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn bare_names_stay_below_their_root() {
        let parse = |name: &str| BareName::parse(&name.encode_utf16().collect::<Vec<_>>()).map(|_| ());
        assert_eq!(parse("e1000.rom"), Ok(()));
        assert_eq!(parse(r"intel\e1000.rom"), Ok(()));
        assert_eq!(parse(""), Err(Error::NameEmpty));
        assert_eq!(parse(r"..\e1000.rom"), Err(Error::NameTraversal));
        assert_eq!(parse(r"\e1000.rom"), Err(Error::NameComponent));
        assert_eq!(parse(r"C:\e1000.rom"), Err(Error::NameStream));
        assert_eq!(parse("*.rom"), Err(Error::NameWildcard));
    }
}
