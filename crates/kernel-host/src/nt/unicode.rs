//! UTF-16 the way NT compares and counts it.

use nt_types::{NtStatus, UNICODE_STRING};

use super::raw::Raw;

/// `RtlUpcaseUnicodeChar`: NT's table maps one UTF-16 unit to one.
///
/// Unicode's simple mappings, but for the letters whose upper case would be ASCII or leave Latin-1: NT's table keeps
/// those, and comparisons of names depend on it.
pub(crate) fn upcase(unit: u16) -> u16 {
    match unit {
        0x61..=0x7A => unit - 0x20,
        0..0x80 | 0xB5 | 0xDF => unit,
        _ => single(unit, char::to_uppercase).filter(|upper| *upper >= 0x80).unwrap_or(unit),
    }
}

/// `RtlDowncaseUnicodeChar`.
pub(crate) fn downcase(unit: u16) -> u16 {
    match unit {
        0x41..=0x5A => unit + 0x20,
        0..0x80 => unit,
        _ => single(unit, char::to_lowercase).filter(|lower| *lower >= 0x80).unwrap_or(unit),
    }
}

/// The mapping of a unit when it is one character to one character of the basic plane.
fn single<I: Iterator<Item = char>>(unit: u16, map: impl Fn(char) -> I) -> Option<u16> {
    let mut mapped = map(char::from_u32(u32::from(unit))?);
    let first = mapped.next()?;
    if mapped.next().is_some() { None } else { u16::try_from(u32::from(first)).ok() }
}

/// Upcases a name for use as a key.
pub(crate) fn upcase_str(text: &str) -> String {
    let units: Vec<u16> = text.encode_utf16().map(upcase).collect();
    String::from_utf16_lossy(&units)
}

/// Whether two names are the same in NT's eyes.
pub(crate) fn same_name(left: &str, right: &str) -> bool {
    left.encode_utf16().map(upcase).eq(right.encode_utf16().map(upcase))
}

/// The characters of a driver's `UNICODE_STRING`; empty for NULL.
pub(crate) fn units(string: Raw<UNICODE_STRING>) -> Vec<u16> {
    let Some(string) = string.some() else { return Vec::new() };
    let string = string.read();
    Raw::of(string.Buffer).read_slice(usize::from(string.Length / 2))
}

/// A driver's `UNICODE_STRING` as text.
///
/// # Errors
/// `STATUS_OBJECT_NAME_INVALID` when it is not UTF-16 or has an odd number of bytes.
pub(crate) fn name(string: Raw<UNICODE_STRING>) -> Result<String, NtStatus> {
    let odd = string.some().is_some_and(|string| !string.read().Length.is_multiple_of(2));
    if odd {
        return Err(NtStatus::OBJECT_NAME_INVALID);
    }
    String::from_utf16(&units(string)).map_err(|_| NtStatus::OBJECT_NAME_INVALID)
}

/// UTF-16 bytes of `text`, as registry values and messages carry them.
pub(crate) fn bytes_of(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::{downcase, same_name, upcase};

    #[test]
    fn upcasing_never_turns_a_foreign_letter_into_ascii() {
        for unit in 0x80..=u16::MAX {
            assert!(upcase(unit) >= 0x80, "{unit:#x}");
            assert!(downcase(unit) >= 0x80, "{unit:#x}");
        }
    }

    #[test]
    fn letters_outside_ascii_are_mapped_and_the_exceptions_are_kept() {
        assert_eq!(upcase(u16::from(b'a')), u16::from(b'A'));
        assert_eq!(upcase(0xE4), 0xC4); // ä
        assert_eq!(upcase(0xFF), 0x178); // ÿ
        assert_eq!(upcase(0xDF), 0xDF); // ß has no single capital
        assert_eq!(downcase(0xC4), 0xE4);
        assert!(same_name("\\Device\\FwBroker", "\\DEVICE\\fwbroker"));
    }
}
