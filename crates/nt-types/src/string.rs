//! Counted UTF-16 strings.

use core::ptr;

/// `UNICODE_STRING`: a counted UTF-16 string that need not end in NUL.
///
/// Lengths are in **bytes**, at most 65,534 (so 32,767 characters). The structure does not own
/// its buffer. DDI page: `ntdef/ns-ntdef-_unicode_string`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct UNICODE_STRING {
    /// Bytes in use.
    pub Length: u16,
    /// Bytes that the buffer can hold.
    pub MaximumLength: u16,
    /// The characters; may be NULL when both lengths are 0.
    pub Buffer: *mut u16,
}

crate::assert_layout!(UNICODE_STRING, 16, { Length: 0, MaximumLength: 2, Buffer: 8 });

impl UNICODE_STRING {
    /// The empty string.
    pub const EMPTY: Self = Self { Length: 0, MaximumLength: 0, Buffer: ptr::null_mut() };

    /// Longest string in characters.
    pub const MAX_CHARS: usize = 32_767;

    /// Describes `text`, for calls that only read the string (`PCUNICODE_STRING`).
    ///
    /// `None` when `text` is longer than [`MAX_CHARS`](Self::MAX_CHARS). The result borrows
    /// nothing in the type system: the caller keeps `text` alive for as long as it is used.
    #[must_use]
    pub const fn from_utf16(text: &[u16]) -> Option<Self> {
        if text.len() > Self::MAX_CHARS {
            return None;
        }
        // At most 65,534: checked above.
        let bytes = (text.len() as u16).wrapping_mul(2);
        Some(Self { Length: bytes, MaximumLength: bytes, Buffer: text.as_ptr().cast_mut() })
    }

    /// Length in characters. An odd byte count, which is malformed, rounds down.
    #[must_use]
    pub const fn chars(&self) -> usize {
        (self.Length / 2) as usize
    }
}

/// A NUL-less UTF-16 copy of an ASCII literal, made at compile time: `utf16!(r"\Device\FwBroker")`.
///
/// Gives `&'static [u16; N]`. A character above 0x7F stops the build: names of kernel objects
/// that a driver spells out are ASCII.
#[macro_export]
macro_rules! utf16 {
    ($text:expr) => {{
        const TEXT: &str = $text;
        const UNITS: [u16; TEXT.len()] = $crate::ascii_to_utf16(TEXT);
        &UNITS
    }};
}

/// What [`utf16!`] expands to. `N` must be the length of `text`, which must be ASCII.
#[doc(hidden)]
#[must_use]
#[expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "evaluated by the compiler only: a failure stops the build"
)]
pub const fn ascii_to_utf16<const N: usize>(text: &str) -> [u16; N] {
    let bytes = text.as_bytes();
    let mut units = [0; N];
    let mut i = 0;
    while i < N {
        assert!(bytes[i].is_ascii(), "utf16! takes ASCII only");
        units[i] = bytes[i] as u16;
        i += 1;
    }
    units
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::UNICODE_STRING;

    #[test]
    fn lengths_count_bytes() {
        let name = crate::utf16!(r"\Firmware");
        let string = UNICODE_STRING::from_utf16(name).unwrap();
        assert_eq!((string.Length, string.chars()), (18, 9));
        assert_eq!(name[1], u16::from(b'F'));
    }

    #[test]
    fn a_text_of_32768_characters_is_refused() {
        let text = std::vec![65u16; 32_768];
        assert!(UNICODE_STRING::from_utf16(&text[..32_767]).is_some());
        assert!(UNICODE_STRING::from_utf16(&text).is_none());
    }
}
