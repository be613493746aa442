//! Conversions to upper-case, counted and sized 8-bit strings, which file systems use for short names.
//!
//! The OEM code page is the ANSI one here (1252): see [`super::ansi`]. A counted string has no terminator, also in memory.

use nt_types::{NtStatus, UNICODE_STRING};

use super::ansi::{bytes, deliver, narrow, widen};
use super::raw::{Raw, field};
use super::unicode::{units, upcase};
use crate::ddi::{Call, exports};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    RtlUpcaseUnicodeStringToOemString(max 0, fails NO_MEMORY) = rtl_upcase_unicode_string_to_oem_string;
    RtlUpcaseUnicodeStringToAnsiString(max 0, fails NO_MEMORY) = rtl_upcase_unicode_string_to_oem_string;
    RtlUnicodeStringToCountedOemString(max 0, fails NO_MEMORY) = rtl_unicode_string_to_counted_oem_string;
    RtlUpcaseUnicodeStringToCountedOemString(max 0, fails NO_MEMORY) = rtl_upcase_unicode_string_to_counted_oem_string;
    RtlOemStringToCountedUnicodeString(max 0, fails NO_MEMORY) = rtl_oem_string_to_counted_unicode_string;
    RtlUpcaseUnicodeToOemN(max 0) = rtl_upcase_unicode_to_oem_n;
    RtlUpcaseUnicodeToMultiByteN(max 0) = rtl_upcase_unicode_to_multi_byte_n;
    RtlOemStringToUnicodeSize(max 0) = rtl_oem_string_to_unicode_size;
    RtlUnicodeStringToOemSize(max 0) = rtl_unicode_string_to_oem_size;
    RtlInitAnsiStringEx(max 31) = rtl_init_ansi_string_ex;
    RtlAnsiCharToUnicodeChar(max 0) = rtl_ansi_char_to_unicode_char;
    RtlGetDefaultCodePage(max 0) = rtl_get_default_code_page;
}

/// `STRING`.
type String8 = Raw<UNICODE_STRING>;

/// The system's ANSI and OEM code page.
const CODE_PAGE: u16 = 1252;
/// Most bytes that a counted string can have with its terminator.
const MOST_BYTES: usize = 0xFFFE;

fn upper(text: &[u16]) -> Vec<u8> {
    text.iter().map(|unit| narrow(upcase(*unit))).collect()
}

extern "efiapi" fn rtl_upcase_unicode_string_to_oem_string(
    target: String8,
    source: Raw<UNICODE_STRING>,
    allocate: u8,
) -> NtStatus {
    let call = Call::enter();
    let mut text = upper(&units(source));
    text.push(0);
    deliver(&call, target, &text, text.len() - 1, allocate, NtStatus::BUFFER_OVERFLOW)
}

/// Puts a counted string where the caller wants it; nothing is allocated for an empty one.
fn deliver_counted(call: &Call, target: String8, text: &[u8], allocate: u8) -> NtStatus {
    if text.is_empty() {
        target.write(UNICODE_STRING::EMPTY);
        return NtStatus::SUCCESS;
    }
    deliver(call, target, text, text.len(), allocate, NtStatus::BUFFER_OVERFLOW)
}

/// The bytes of a string without a character that the code page lacks.
fn mapped(source: &[u16], map: fn(u16) -> u16) -> Result<Vec<u8>, NtStatus> {
    let byte = |unit: &u16| {
        let unit = map(*unit);
        let byte = narrow(unit);
        if widen(byte) == unit { Ok(byte) } else { Err(NtStatus::UNMAPPABLE_CHARACTER) }
    };
    source.iter().map(byte).collect()
}

fn counted_oem(target: String8, source: Raw<UNICODE_STRING>, allocate: u8, map: fn(u16) -> u16) -> NtStatus {
    let call = Call::enter();
    match mapped(&units(source), map) {
        Ok(text) => deliver_counted(&call, target, &text, allocate),
        Err(status) => status,
    }
}

extern "efiapi" fn rtl_unicode_string_to_counted_oem_string(
    target: String8,
    source: Raw<UNICODE_STRING>,
    allocate: u8,
) -> NtStatus {
    counted_oem(target, source, allocate, std::convert::identity)
}

extern "efiapi" fn rtl_upcase_unicode_string_to_counted_oem_string(
    target: String8,
    source: Raw<UNICODE_STRING>,
    allocate: u8,
) -> NtStatus {
    counted_oem(target, source, allocate, upcase)
}

extern "efiapi" fn rtl_oem_string_to_counted_unicode_string(
    target: Raw<UNICODE_STRING>,
    source: String8,
    allocate: u8,
) -> NtStatus {
    let call = Call::enter();
    let text: Vec<u8> = bytes(source).into_iter().map(widen).flat_map(u16::to_le_bytes).collect();
    deliver_counted(&call, target, &text, allocate)
}

/// Converts into a buffer that may be too small for all; what fits, and whether that is all of it.
fn convert_n(target: Raw<u8>, room: u32, written: Raw<u32>, source: Raw<u16>, length: u32) -> bool {
    let count = (length / 2).min(room);
    target.write_bytes(&upper(&source.read_slice(count as usize)));
    written.write_if_some(count);
    count == length / 2
}

extern "efiapi" fn rtl_upcase_unicode_to_oem_n(
    target: Raw<u8>,
    room: u32,
    written: Raw<u32>,
    source: Raw<u16>,
    length: u32,
) -> NtStatus {
    let _call = Call::enter();
    if convert_n(target, room, written, source, length) { NtStatus::SUCCESS } else { NtStatus::BUFFER_OVERFLOW }
}

extern "efiapi" fn rtl_upcase_unicode_to_multi_byte_n(
    target: Raw<u8>,
    room: u32,
    written: Raw<u32>,
    source: Raw<u16>,
    length: u32,
) -> NtStatus {
    let _call = Call::enter();
    // The page knows no other status, also where the text was cut.
    let _ = convert_n(target, room, written, source, length);
    NtStatus::SUCCESS
}

extern "efiapi" fn rtl_oem_string_to_unicode_size(string: String8) -> u32 {
    let _call = Call::enter();
    2 * (u32::from(field!(string, UNICODE_STRING, Length).read()) + 1)
}

extern "efiapi" fn rtl_unicode_string_to_oem_size(string: Raw<UNICODE_STRING>) -> u32 {
    let _call = Call::enter();
    u32::from(field!(string, UNICODE_STRING, Length).read()) / 2 + 1
}

extern "efiapi" fn rtl_init_ansi_string_ex(target: String8, source: Raw<u8>) -> NtStatus {
    let _call = Call::enter();
    target.write(UNICODE_STRING::EMPTY);
    let Some(text) = source.some() else { return NtStatus::SUCCESS };
    let Some(length) = (0..=MOST_BYTES).find(|at| text.index(*at).read() == 0) else {
        return NtStatus::NAME_TOO_LONG;
    };
    let (length, buffer) = (length as u16, source.pointer().cast());
    target.write(UNICODE_STRING { Length: length, MaximumLength: length + 1, Buffer: buffer });
    NtStatus::SUCCESS
}

/// Moves the caller's pointer behind the character that it takes.
extern "efiapi" fn rtl_ansi_char_to_unicode_char(source: Raw<Raw<u8>>) -> u16 {
    let _call = Call::enter();
    let at = source.read();
    source.write(at.index(1));
    widen(at.read())
}

extern "efiapi" fn rtl_get_default_code_page(ansi: Raw<u16>, oem: Raw<u16>) {
    let _call = Call::enter();
    ansi.write(CODE_PAGE);
    oem.write(CODE_PAGE);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;
    use crate::nt::strings::release;

    type Convert = extern "efiapi" fn(String8, Raw<UNICODE_STRING>, u8) -> NtStatus;

    /// Converts into a buffer that the routine allocates, or one of `room` bytes.
    fn convert(routine: Convert, text: &str, room: Option<u16>) -> Result<(Vec<u8>, u16), NtStatus> {
        let text: Vec<u16> = text.encode_utf16().collect();
        let mut source = UNICODE_STRING::from_utf16(&text).expect("short");
        let mut memory = [0xEE_u8; 32];
        let buffer = if room.is_some() { memory.as_mut_ptr().cast() } else { std::ptr::null_mut() };
        let mut target = UNICODE_STRING { Length: 0, MaximumLength: room.unwrap_or(0), Buffer: buffer };
        let target = Raw::of(&raw mut target);
        let status = routine(target, Raw::of(&raw mut source), u8::from(room.is_none()));
        let result = (bytes(target), target.read().MaximumLength);
        if room.is_none() && status.is_success() && !target.read().Buffer.is_null() {
            release(&Call::enter(), target);
        }
        if status == NtStatus::SUCCESS { Ok(result) } else { Err(status) }
    }

    fn works(body: impl FnOnce()) {
        let bench = Bench::new();
        bench.run(body).unwrap();
        assert_eq!(bench.machine().inner().nt.pool().usage(), (0, 0));
    }

    #[test]
    fn text_becomes_upper_case_and_what_the_code_page_lacks_a_question_mark() {
        conforms!(
            "ntifs/nf-ntifs-rtlupcaseunicodestringtooemstring.md",
            "The string is translated to upper case and terminated; a default character stands for unknown ones."
        );
        works(|| {
            let oem = rtl_upcase_unicode_string_to_oem_string;
            assert_eq!(convert(oem, "aä中", None), Ok((b"A\xC4?".to_vec(), 4)));
            assert_eq!(convert(oem, "abc", Some(4)), Ok((b"ABC".to_vec(), 4)));
            assert_eq!(convert(oem, "abc", Some(3)), Err(NtStatus::BUFFER_OVERFLOW));
        });
    }

    #[test]
    fn a_counted_string_has_no_terminator_and_no_unknown_characters() {
        conforms!(
            "ntifs/nf-ntifs-rtlunicodestringtocountedoemstring.md",
            "The result has no terminator; STATUS_UNMAPPABLE_CHARACTER is returned for a character without translation."
        );
        works(|| {
            let oem = rtl_unicode_string_to_counted_oem_string;
            assert_eq!(convert(oem, "aB", None), Ok((b"aB".to_vec(), 2)));
            assert_eq!(convert(oem, "aB", Some(2)), Ok((b"aB".to_vec(), 2)));
            assert_eq!(convert(oem, "a中", None), Err(NtStatus::UNMAPPABLE_CHARACTER));
            assert_eq!(convert(rtl_upcase_unicode_string_to_counted_oem_string, "aB", None), Ok((b"AB".to_vec(), 2)));
            assert_eq!(convert(oem, "", None), Ok((vec![], 0)));
        });
    }

    #[test]
    fn an_oem_string_becomes_a_counted_unicode_string() {
        conforms!(
            "ntifs/nf-ntifs-rtloemstringtocountedunicodestring.md",
            "The translated string has no terminator; the routine allocates its buffer when told to."
        );
        works(|| {
            let mut text = *b"a\x80";
            let mut source = UNICODE_STRING { Length: 2, MaximumLength: 2, Buffer: text.as_mut_ptr().cast() };
            let mut target = UNICODE_STRING::EMPTY;
            let target = Raw::of(&raw mut target);
            let status = rtl_oem_string_to_counted_unicode_string(target, Raw::of(&raw mut source), 1);
            assert_eq!(
                (status, units(target), target.read().MaximumLength),
                (NtStatus::SUCCESS, vec![0x61, 0x20AC], 4)
            );
            release(&Call::enter(), target);
        });
    }

    #[test]
    fn a_conversion_into_too_few_bytes_says_so() {
        conforms!(
            "ntifs/nf-ntifs-rtlupcaseunicodetooemn.md",
            "STATUS_BUFFER_OVERFLOW is returned when the string was cut, with the bytes that fit."
        );
        works(|| {
            let mut text = [0x61_u16, 0x62, 0x63];
            let mut out = [0_u8; 4];
            let mut written = 0;
            let (source, target) = (Raw::<u16>::of((&raw mut text).cast()), Raw::<u8>::of((&raw mut out).cast()));
            let written = Raw::of(&raw mut written);
            assert_eq!(rtl_upcase_unicode_to_oem_n(target, 4, written, source, 6), NtStatus::SUCCESS);
            assert_eq!((target.read_bytes(4), written.read()), (b"ABC\0".to_vec(), 3));
            assert_eq!(rtl_upcase_unicode_to_oem_n(target, 2, written, source, 6), NtStatus::BUFFER_OVERFLOW);
            assert_eq!(written.read(), 2);
            assert_eq!(rtl_upcase_unicode_to_multi_byte_n(target, 2, written, source, 6), NtStatus::SUCCESS);
        });
    }

    #[test]
    fn a_character_is_taken_from_an_ansi_string() {
        works(|| {
            let mut text = *b"\x80b";
            let mut at = Raw::<u8>::of((&raw mut text).cast());
            let before = at;
            assert_eq!(rtl_ansi_char_to_unicode_char(Raw::of(&raw mut at)), 0x20AC);
            assert_eq!(at.address(), before.address() + 1);
        });
    }
}
