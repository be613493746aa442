//! `Rtl*` string routines.

use nt_types::{NtStatus, UNICODE_STRING};

use super::pool::{PoolKind, Request};
use super::raw::{Raw, field};
use super::unicode::{downcase, units, upcase};
use crate::ddi::{Call, exports};
use crate::finding::Rule;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    RtlInitUnicodeString(max 31) = rtl_init_unicode_string;
    RtlInitAnsiString(max 31) = rtl_init_ansi_string;
    RtlCopyUnicodeString(max 31) = rtl_copy_unicode_string;
    RtlCompareUnicodeString(max 0) = rtl_compare_unicode_string;
    RtlEqualUnicodeString(max 0) = rtl_equal_unicode_string;
    RtlPrefixUnicodeString(max 0) = rtl_prefix_unicode_string;
    RtlUpcaseUnicodeChar(max 1) = rtl_upcase_unicode_char;
    RtlDowncaseUnicodeChar(max 0) = rtl_downcase_unicode_char;
    RtlUpcaseUnicodeString(max 1) = rtl_upcase_unicode_string;
    RtlUnicodeStringToInteger(max 0) = rtl_unicode_string_to_integer;
    RtlAppendUnicodeToString(max 31) = rtl_append_unicode_to_string;
    RtlAppendUnicodeStringToString(max 31) = rtl_append_unicode_string_to_string;
    RtlFreeUnicodeString(max 1) = rtl_free_unicode_string;
}

/// Tag of buffers that `Rtl` routines allocate for their callers.
pub(super) const STRING_TAG: u32 = u32::from_le_bytes(*b"Strg");

/// Longest counted string in bytes whose terminated form still fits the 16-bit `MaximumLength`.
const MAX_BYTES: usize = 65_532;

/// Elements before the terminator. A text without one ends in a fault, at the guard page behind it.
fn length_of<T: Copy>(text: Raw<T>, is_terminator: impl Fn(T) -> bool) -> usize {
    let mut length = 0;
    while !is_terminator(text.index(length).read()) {
        length += 1;
    }
    length
}

extern "efiapi" fn rtl_init_unicode_string(target: Raw<UNICODE_STRING>, source: Raw<u16>) {
    let _call = Call::enter();
    let characters = source.some().map_or(0, |text| length_of(text, |unit| unit == 0));
    // A longer text is cut, as the 16-bit lengths demand.
    let bytes = (characters * 2).min(MAX_BYTES) as u16;
    let maximum = if source.is_null() { 0 } else { bytes + 2 };
    target.write(UNICODE_STRING { Length: bytes, MaximumLength: maximum, Buffer: source.pointer() });
}

/// `STRING` has the layout of `UNICODE_STRING`, with 8-bit characters behind the pointer.
extern "efiapi" fn rtl_init_ansi_string(target: Raw<UNICODE_STRING>, source: Raw<u8>) {
    let _call = Call::enter();
    let characters = source.some().map_or(0, |text| length_of(text, |byte| byte == 0));
    let bytes = characters.min(65_534) as u16;
    let maximum = if source.is_null() { 0 } else { bytes + 1 };
    target.write(UNICODE_STRING { Length: bytes, MaximumLength: maximum, Buffer: source.pointer().cast() });
}

extern "efiapi" fn rtl_copy_unicode_string(target: Raw<UNICODE_STRING>, source: Raw<UNICODE_STRING>) {
    let _call = Call::enter();
    let to = target.read();
    let text = units(source);
    let room = usize::from(to.MaximumLength / 2);
    let copied = text.len().min(room);
    for (at, unit) in text.iter().take(copied).enumerate() {
        Raw::of(to.Buffer).index(at).write(*unit);
    }
    if copied < room {
        Raw::of(to.Buffer).index(copied).write(0);
    }
    field!(target, UNICODE_STRING, Length).write((copied * 2) as u16);
}

fn folded(string: Raw<UNICODE_STRING>, fold: u8) -> Vec<u16> {
    let text = units(string);
    if fold == 0 { text } else { text.into_iter().map(upcase).collect() }
}

extern "efiapi" fn rtl_compare_unicode_string(left: Raw<UNICODE_STRING>, right: Raw<UNICODE_STRING>, fold: u8) -> i32 {
    let _call = Call::enter();
    let (left, right) = (folded(left, fold), folded(right, fold));
    let difference = left.iter().zip(&right).find(|(left, right)| left != right);
    match difference {
        Some((left, right)) => i32::from(*left) - i32::from(*right),
        // At most 32,767 characters each.
        None => i32::from(left.len() as u16) - i32::from(right.len() as u16),
    }
}

extern "efiapi" fn rtl_equal_unicode_string(left: Raw<UNICODE_STRING>, right: Raw<UNICODE_STRING>, fold: u8) -> u8 {
    let _call = Call::enter();
    u8::from(folded(left, fold) == folded(right, fold))
}

extern "efiapi" fn rtl_prefix_unicode_string(prefix: Raw<UNICODE_STRING>, string: Raw<UNICODE_STRING>, fold: u8) -> u8 {
    let _call = Call::enter();
    u8::from(folded(string, fold).starts_with(&folded(prefix, fold)))
}

extern "efiapi" fn rtl_upcase_unicode_char(unit: u16) -> u16 {
    let _call = Call::enter();
    upcase(unit)
}

extern "efiapi" fn rtl_downcase_unicode_char(unit: u16) -> u16 {
    let _call = Call::enter();
    downcase(unit)
}

extern "efiapi" fn rtl_upcase_unicode_string(
    target: Raw<UNICODE_STRING>,
    source: Raw<UNICODE_STRING>,
    allocate: u8,
) -> NtStatus {
    let call = Call::enter();
    let text = units(source);
    let length = text.len() * 2;
    if allocate != 0 {
        let request = Request {
            kind: PoolKind::Paged,
            length: length.max(2),
            tag: STRING_TAG,
            zeroed: true,
            cache_aligned: false,
        };
        let buffer = call.machine().nt.pool().allocate(&call, request);
        if buffer == 0 {
            return NtStatus::NO_MEMORY;
        }
        let buffer = Raw::<u16>::at(buffer).pointer();
        target.write(UNICODE_STRING { Length: 0, MaximumLength: length as u16, Buffer: buffer });
    } else if length > usize::from(target.read().MaximumLength) {
        return NtStatus::BUFFER_OVERFLOW;
    }
    let buffer = Raw::of(target.read().Buffer);
    for (at, unit) in text.into_iter().enumerate() {
        buffer.index(at).write(upcase(unit));
    }
    field!(target, UNICODE_STRING, Length).write(length as u16);
    NtStatus::SUCCESS
}

extern "efiapi" fn rtl_unicode_string_to_integer(string: Raw<UNICODE_STRING>, base: u32, value: Raw<u32>) -> NtStatus {
    let _call = Call::enter();
    let text = String::from_utf16_lossy(&units(string));
    let text = text.trim_start_matches(|unit: char| unit <= ' ');
    let (negative, text) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    // The page: with base 0 the prefix decides; a prefix does not count with an explicit base.
    let (radix, digits) = match base {
        0 => ["0x", "0o", "0b"]
            .iter()
            .zip([16, 8, 2])
            .find_map(|(prefix, radix)| Some((radix, text.strip_prefix(prefix)?)))
            .unwrap_or((10, text)),
        2 | 8 | 10 | 16 => (base, text),
        _ => return NtStatus::INVALID_PARAMETER,
    };
    let mut number = 0_u32;
    for digit in digits.chars().map_while(|unit| unit.to_digit(radix)) {
        number = number.wrapping_mul(radix).wrapping_add(digit);
    }
    value.write(if negative { number.wrapping_neg() } else { number });
    NtStatus::SUCCESS
}

fn append(target: Raw<UNICODE_STRING>, text: &[u16]) -> NtStatus {
    let string = target.read();
    let used = usize::from(string.Length / 2);
    let room = usize::from(string.MaximumLength / 2);
    let Some(spare) = room.checked_sub(used + text.len()) else { return NtStatus::BUFFER_TOO_SMALL };
    let buffer = Raw::of(string.Buffer);
    for (at, unit) in text.iter().enumerate() {
        buffer.index(used + at).write(*unit);
    }
    if spare > 0 {
        buffer.index(used + text.len()).write(0);
    }
    field!(target, UNICODE_STRING, Length).write(((used + text.len()) * 2) as u16);
    NtStatus::SUCCESS
}

extern "efiapi" fn rtl_append_unicode_to_string(target: Raw<UNICODE_STRING>, source: Raw<u16>) -> NtStatus {
    let _call = Call::enter();
    let Some(source) = source.some() else { return NtStatus::SUCCESS };
    append(target, &source.read_slice(length_of(source, |unit| unit == 0)))
}

extern "efiapi" fn rtl_append_unicode_string_to_string(
    target: Raw<UNICODE_STRING>,
    source: Raw<UNICODE_STRING>,
) -> NtStatus {
    let _call = Call::enter();
    append(target, &units(source))
}

extern "efiapi" fn rtl_free_unicode_string(string: Raw<UNICODE_STRING>) {
    release(&Call::enter(), string);
}

/// Frees the buffer of a string that an `Rtl` routine allocated; the string is empty then.
pub(super) fn release(call: &Call, string: Raw<UNICODE_STRING>) {
    let Some(string) = string.some() else { call.stop(Rule::BadArgument, "no string") };
    let buffer = Raw::of(string.read().Buffer);
    if !buffer.is_null() {
        call.machine().nt.pool().free(call, buffer.address(), STRING_TAG);
        string.write(UNICODE_STRING::EMPTY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;

    /// Runs `body` with counted strings made of `texts`.
    fn with<R, const N: usize>(texts: [&str; N], body: impl FnOnce([Raw<UNICODE_STRING>; N]) -> R) -> R {
        let mut buffers = texts.map(|text| text.encode_utf16().collect::<Vec<_>>());
        let mut strings = buffers.each_mut().map(|buffer| UNICODE_STRING::from_utf16(buffer).expect("short"));
        let raws = strings.each_mut().map(|string| Raw::of(&raw mut *string));
        Bench::new().run(|| body(raws)).expect("no rule is broken")
    }

    #[test]
    fn initialising_counts_bytes_without_the_terminator() {
        conforms!(
            "wdm/nf-wdm-rtlinitunicodestring.md",
            "Lengths are in bytes, the maximum includes the terminator; a NULL source gives zeros."
        );
        Bench::new()
            .run(|| {
                let mut text: Vec<u16> = "abc\0".encode_utf16().collect();
                let mut string = UNICODE_STRING::EMPTY;
                rtl_init_unicode_string(Raw::of(&raw mut string), Raw::of(text.as_mut_ptr()));
                assert_eq!((string.Length, string.MaximumLength), (6, 8));
                rtl_init_unicode_string(Raw::of(&raw mut string), Raw::NULL);
                assert_eq!((string.Length, string.MaximumLength, string.Buffer.is_null()), (0, 0, true));
            })
            .unwrap();
    }

    #[test]
    fn a_copy_is_cut_to_the_target() {
        conforms!("wdm/nf-wdm-rtlcopyunicodestring.md", "At most MaximumLength bytes are copied.");
        with(["xxxx", "abcdef"], |[target, source]| {
            rtl_copy_unicode_string(target, source);
            assert_eq!(units(target), "abcd".encode_utf16().collect::<Vec<_>>());
        });
    }

    #[test]
    fn comparison_folds_case_only_when_asked() {
        conforms!("wdm/nf-wdm-rtlequalunicodestring.md", "Case is ignored when CaseInSensitive is TRUE.");
        with(["FwBroker", "fwbroker"], |[left, right]| {
            assert_eq!(rtl_equal_unicode_string(left, right, 1), 1);
            assert_eq!(rtl_equal_unicode_string(left, right, 0), 0);
            assert_eq!(rtl_compare_unicode_string(left, right, 1), 0);
            assert!(rtl_compare_unicode_string(left, right, 0) < 0);
        });
    }

    #[test]
    fn a_prefix_is_found_at_the_start_only() {
        conforms!(
            "ntddk/nf-ntddk-rtlprefixunicodestring.md",
            "TRUE is returned when the first string is a prefix of the second."
        );
        with(["\\Device", "\\device\\x", "x"], |[prefix, string, short]| {
            assert_eq!(rtl_prefix_unicode_string(prefix, string, 1), 1);
            assert_eq!(rtl_prefix_unicode_string(prefix, string, 0), 0);
            assert_eq!(rtl_prefix_unicode_string(prefix, short, 1), 0);
        });
    }

    #[test]
    fn numbers_are_read_in_the_base_their_prefix_names() {
        conforms!(
            "wdm/nf-wdm-rtlunicodestringtointeger.md",
            "With base 0 a prefix names the base; a base that is not allowed gives STATUS_INVALID_PARAMETER."
        );
        with(["0x1Fz", " -12", "0b101", "77"], |[hex, negative, binary, plain]| {
            let mut value = 0;
            let out = Raw::of(&raw mut value);
            let read = |string, base| {
                let status = rtl_unicode_string_to_integer(string, base, out);
                (status, out.read())
            };
            assert_eq!(read(hex, 0), (NtStatus::SUCCESS, 0x1F));
            assert_eq!(read(negative, 0), (NtStatus::SUCCESS, 12_u32.wrapping_neg()));
            assert_eq!(read(binary, 0), (NtStatus::SUCCESS, 5));
            assert_eq!(read(plain, 8), (NtStatus::SUCCESS, 0o77));
            assert_eq!(read(plain, 3).0, NtStatus::INVALID_PARAMETER);
        });
    }

    #[test]
    fn appending_needs_room() {
        conforms!(
            "wdm/nf-wdm-rtlappendunicodestringtostring.md",
            "A target without room gives STATUS_BUFFER_TOO_SMALL."
        );
        with(["ab", "cd"], |[target, source]| {
            assert_eq!(rtl_append_unicode_string_to_string(target, source), NtStatus::BUFFER_TOO_SMALL);
            assert_eq!(units(target).len(), 2);
        });
    }

    #[test]
    fn upcasing_allocates_a_buffer_that_has_to_be_freed() {
        conforms!(
            "ntddk/nf-ntddk-rtlupcaseunicodestring.md",
            "With AllocateDestinationString a buffer is allocated, which RtlFreeUnicodeString frees."
        );
        let bench = Bench::new();
        bench
            .run(|| {
                let mut text: Vec<u16> = "aä".encode_utf16().collect();
                let mut source = UNICODE_STRING::from_utf16(&text).expect("short");
                let mut target = UNICODE_STRING::EMPTY;
                let raw = Raw::of(&raw mut target);
                assert_eq!(rtl_upcase_unicode_string(raw, Raw::of(&raw mut source), 1), NtStatus::SUCCESS);
                assert_eq!(units(raw), "AÄ".encode_utf16().collect::<Vec<_>>());
                let pool = Call::enter().machine().nt.pool().usage();
                assert_eq!(pool.0, 1);
                rtl_free_unicode_string(raw);
                text.clear();
            })
            .unwrap();
        assert_eq!(bench.machine().inner().nt.pool().usage(), (0, 0));
    }
}
