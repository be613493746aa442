//! Altitudes: decimal numbers of any length, as text, that order the instances on a volume.

use std::cmp::Ordering;

/// A parsed altitude. Higher is farther from the file system.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Altitude {
    /// Digits before the point, without leading zeros.
    whole: String,
    /// Digits behind the point, without trailing zeros.
    fraction: String,
    /// As the registry has it.
    text: String,
}

impl Altitude {
    /// Parses `370030` or `370030.5`; `None` for anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) {
            return None;
        }
        Some(Self {
            whole: whole.trim_start_matches('0').to_owned(),
            fraction: fraction.trim_end_matches('0').to_owned(),
            text: text.to_owned(),
        })
    }

    /// As the registry has it.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// Whether both are the same number, however they are written.
    pub(crate) fn collides(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Ord for Altitude {
    fn cmp(&self, other: &Self) -> Ordering {
        let whole = self.whole.len().cmp(&other.whole.len()).then_with(|| self.whole.cmp(&other.whole));
        whole.then_with(|| self.fraction.cmp(&other.fraction))
    }
}

impl PartialOrd for Altitude {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Altitude {
        Altitude::parse(text).unwrap()
    }

    #[test]
    fn altitudes_compare_as_numbers_of_any_length() {
        assert!(at("99999") < at("370030"));
        assert!(at("370030") < at("370030.5"));
        assert!(at("370030.45") < at("370030.5"));
        assert!(at("00370030.50").collides(&at("370030.5")));
    }

    #[test]
    fn what_is_no_decimal_number_is_no_altitude() {
        for text in ["", ".5", "1.2.3", "-1", "1e5", " 1"] {
            assert!(Altitude::parse(text).is_none(), "{text}");
        }
    }
}
