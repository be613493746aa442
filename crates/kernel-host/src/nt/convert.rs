//! Numbers, GUIDs and UTF-8 as text, and back.

use std::fmt::Write as _;

use nt_types::{NtStatus, UNICODE_STRING};

use super::ansi::deliver;
use super::raw::{Raw, field};
use super::unicode::units;
use crate::ddi::{Call, exports};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    RtlIntegerToUnicodeString(max 0) = rtl_integer_to_unicode_string;
    RtlInt64ToUnicodeString(max 0) = rtl_int64_to_unicode_string;
    RtlCharToInteger(max 0) = rtl_char_to_integer;
    RtlStringFromGUID(max 0, fails NO_MEMORY) = rtl_string_from_guid;
    RtlGUIDFromString(max 0) = rtl_guid_from_string;
    RtlUTF8ToUnicodeN(max 0) = rtl_utf8_to_unicode_n;
    RtlUnicodeToUTF8N(max 0) = rtl_unicode_to_utf8_n;
    RtlUTF8StringToUnicodeString(max 0, fails NO_MEMORY) = rtl_utf8_string_to_unicode_string;
    RtlUnicodeStringToUTF8String(max 0, fails NO_MEMORY) = rtl_unicode_string_to_utf8_string;
    RtlUlongByteSwap(max 31) = rtl_ulong_byte_swap;
    RtlUshortByteSwap(max 31) = rtl_ushort_byte_swap;
    RtlUlonglongByteSwap(max 31) = rtl_ulonglong_byte_swap;
}

/// Characters of `{xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx}`.
const GUID_TEXT: usize = 38;

/// Digits of a number in one of the bases that the pages list (0 means 10); `None` for others.
fn digits(mut value: u64, base: u32) -> Option<Vec<u16>> {
    let base = if base == 0 { 10 } else { base };
    if !matches!(base, 2 | 8 | 10 | 16) {
        return None;
    }
    let mut text = Vec::new();
    loop {
        text.insert(0, u16::from(b"0123456789ABCDEF"[(value % u64::from(base)) as usize]));
        value /= u64::from(base);
        if value == 0 {
            return Some(text);
        }
    }
}

fn write_number(value: u64, base: u32, target: Raw<UNICODE_STRING>) -> NtStatus {
    let Some(text) = digits(value, base) else { return NtStatus::INVALID_PARAMETER };
    let string = target.read();
    if text.len() * 2 > usize::from(string.MaximumLength) {
        return NtStatus::BUFFER_OVERFLOW;
    }
    let buffer = Raw::of(string.Buffer);
    for (at, unit) in text.iter().enumerate() {
        buffer.index(at).write(*unit);
    }
    if text.len() * 2 + 2 <= usize::from(string.MaximumLength) {
        buffer.index(text.len()).write(0);
    }
    field!(target, UNICODE_STRING, Length).write((text.len() * 2) as u16);
    NtStatus::SUCCESS
}

extern "efiapi" fn rtl_integer_to_unicode_string(value: u32, base: u32, target: Raw<UNICODE_STRING>) -> NtStatus {
    let _call = Call::enter();
    write_number(value.into(), base, target)
}

extern "efiapi" fn rtl_int64_to_unicode_string(value: u64, base: u32, target: Raw<UNICODE_STRING>) -> NtStatus {
    let _call = Call::enter();
    write_number(value, base, target)
}

extern "efiapi" fn rtl_char_to_integer(text: Raw<u8>, base: u32, value: Raw<u32>) -> NtStatus {
    let _call = Call::enter();
    let mut at = 0;
    let byte = |at: usize| text.index(at).read();
    while (1..=b' ').contains(&byte(at)) {
        at += 1;
    }
    let negative = byte(at) == b'-';
    if negative || byte(at) == b'+' {
        at += 1;
    }
    let prefix = if byte(at) == b'0' { byte(at + 1) } else { 0 };
    let radix = match (base, prefix) {
        (0, b'x') => 16,
        (0, b'o') => 8,
        (0, b'b') => 2,
        (0, _) => 10,
        (2 | 8 | 10 | 16, _) => base,
        _ => return NtStatus::INVALID_PARAMETER,
    };
    if base == 0 && radix != 10 {
        at += 2;
    }
    let mut number = 0_u32;
    while let Some(digit) = char::from(byte(at)).to_digit(radix) {
        number = number.wrapping_mul(radix).wrapping_add(digit);
        at += 1;
    }
    value.write(if negative { number.wrapping_neg() } else { number });
    NtStatus::SUCCESS
}

extern "efiapi" fn rtl_string_from_guid(guid: Raw<[u8; 16]>, target: Raw<UNICODE_STRING>) -> NtStatus {
    let call = Call::enter();
    let g = guid.read();
    let hex = |bytes: &[u8]| {
        bytes.iter().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02X}");
            text
        })
    };
    let text = format!(
        "{{{}-{}-{}-{}-{}}}\0",
        hex(&[g[3], g[2], g[1], g[0]]),
        hex(&[g[5], g[4]]),
        hex(&[g[7], g[6]]),
        hex(&g[8..10]),
        hex(&g[10..])
    );
    let bytes: Vec<u8> = text.encode_utf16().flat_map(u16::to_le_bytes).collect();
    deliver(&call, target, &bytes, bytes.len() - 2, 1, NtStatus::NO_MEMORY)
}

fn parse_guid(text: &[u16]) -> Option<[u8; 16]> {
    if text.len() != GUID_TEXT {
        return None;
    }
    let text = String::from_utf16(text).ok()?;
    let inner = text.strip_prefix('{')?.strip_suffix('}')?;
    let parts: Vec<&str> = inner.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    if lengths != [8, 4, 4, 4, 12] {
        return None;
    }
    let number = |index: usize| u64::from_str_radix(parts[index], 16).ok();
    let mut guid = [0; 16];
    guid[..4].copy_from_slice(&(number(0)? as u32).to_le_bytes());
    guid[4..6].copy_from_slice(&(number(1)? as u16).to_le_bytes());
    guid[6..8].copy_from_slice(&(number(2)? as u16).to_le_bytes());
    guid[8..10].copy_from_slice(&(number(3)? as u16).to_be_bytes());
    guid[10..].copy_from_slice(&number(4)?.to_be_bytes()[2..]);
    Some(guid)
}

extern "efiapi" fn rtl_guid_from_string(source: Raw<UNICODE_STRING>, guid: Raw<[u8; 16]>) -> NtStatus {
    let _call = Call::enter();
    parse_guid(&units(source)).map_or(NtStatus::INVALID_PARAMETER, |parsed| {
        guid.write(parsed);
        NtStatus::SUCCESS
    })
}

/// Converted text, and whether something had to be replaced on the way.
fn decode(bytes: &[u8]) -> (Vec<u16>, NtStatus) {
    let text = String::from_utf8_lossy(bytes);
    let status =
        if matches!(text, std::borrow::Cow::Borrowed(_)) { NtStatus::SUCCESS } else { NtStatus::SOME_NOT_MAPPED };
    (text.encode_utf16().collect(), status)
}

fn encode(units: &[u16]) -> (Vec<u8>, NtStatus) {
    match String::from_utf16(units) {
        Ok(text) => (text.into_bytes(), NtStatus::SUCCESS),
        Err(_) => (String::from_utf16_lossy(units).into_bytes(), NtStatus::SOME_NOT_MAPPED),
    }
}

extern "efiapi" fn rtl_utf8_to_unicode_n(
    target: Raw<u16>,
    room: u32,
    written: Raw<u32>,
    source: Raw<u8>,
    length: u32,
) -> NtStatus {
    let _call = Call::enter();
    if source.is_null() {
        return NtStatus::INVALID_PARAMETER_4;
    }
    let (text, status) = decode(&source.read_bytes(length as usize));
    // The page: without a target, the size that it would need is told.
    let count = if target.is_null() { text.len() } else { text.len().min(room as usize / 2) };
    if !target.is_null() {
        text.iter().take(count).enumerate().for_each(|(at, unit)| target.index(at).write(*unit));
    }
    written.write_if_some(2 * count as u32);
    if count < text.len() { NtStatus::BUFFER_TOO_SMALL } else { status }
}

extern "efiapi" fn rtl_unicode_to_utf8_n(
    target: Raw<u8>,
    room: u32,
    written: Raw<u32>,
    source: Raw<u16>,
    length: u32,
) -> NtStatus {
    let _call = Call::enter();
    if source.is_null() {
        return NtStatus::INVALID_PARAMETER_4;
    }
    let (text, status) = encode(&source.read_slice(length as usize / 2));
    let mut count = text.len();
    if !target.is_null() {
        count = count.min(room as usize);
        // No character is cut in two.
        while count < text.len() && count > 0 && text[count] & 0xC0 == 0x80 {
            count -= 1;
        }
        target.write_bytes(&text[..count]);
    }
    written.write_if_some(count as u32);
    if count < text.len() { NtStatus::BUFFER_TOO_SMALL } else { status }
}

extern "efiapi" fn rtl_utf8_string_to_unicode_string(
    target: Raw<UNICODE_STRING>,
    source: Raw<UNICODE_STRING>,
    allocate: u8,
) -> NtStatus {
    let call = Call::enter();
    let (text, status) = decode(&super::ansi::bytes(source));
    let bytes: Vec<u8> = text.into_iter().chain([0]).flat_map(u16::to_le_bytes).collect();
    let delivered = deliver(&call, target, &bytes, bytes.len() - 2, allocate, NtStatus::BUFFER_OVERFLOW);
    if delivered == NtStatus::SUCCESS { status } else { delivered }
}

extern "efiapi" fn rtl_unicode_string_to_utf8_string(
    target: Raw<UNICODE_STRING>,
    source: Raw<UNICODE_STRING>,
    allocate: u8,
) -> NtStatus {
    let call = Call::enter();
    let (mut bytes, status) = encode(&units(source));
    bytes.push(0);
    let delivered = deliver(&call, target, &bytes, bytes.len() - 1, allocate, NtStatus::BUFFER_OVERFLOW);
    if delivered == NtStatus::SUCCESS { status } else { delivered }
}

extern "efiapi" fn rtl_ulong_byte_swap(value: u32) -> u32 {
    let _call = Call::enter();
    value.swap_bytes()
}

extern "efiapi" fn rtl_ushort_byte_swap(value: u16) -> u16 {
    let _call = Call::enter();
    value.swap_bytes()
}

extern "efiapi" fn rtl_ulonglong_byte_swap(value: u64) -> u64 {
    let _call = Call::enter();
    value.swap_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;

    fn with(room: usize, body: impl FnOnce(Raw<UNICODE_STRING>)) {
        let mut buffer = vec![0xEEEE_u16; room];
        let mut string = UNICODE_STRING { Length: 0, MaximumLength: 2 * room as u16, Buffer: buffer.as_mut_ptr() };
        let raw = Raw::of(&raw mut string);
        let bench = Bench::new();
        bench.run(|| body(raw)).unwrap();
        assert_eq!(bench.machine().inner().nt.pool().usage(), (0, 0));
    }

    fn text(string: Raw<UNICODE_STRING>) -> String {
        String::from_utf16(&units(string)).unwrap()
    }

    #[test]
    fn numbers_are_written_in_the_bases_of_the_page() {
        conforms!(
            "wdm/nf-wdm-rtlintegertounicodestring.md",
            "A string that is too short gives STATUS_BUFFER_OVERFLOW."
        );
        conforms!(
            "wdm/nf-wdm-rtlintegertounicodestring.md",
            "A base other than 2, 8, 10 and 16 (or 0 for 10) gives STATUS_INVALID_PARAMETER."
        );
        with(8, |string| {
            for (base, expected) in [(0, "3000"), (10, "3000"), (16, "BB8"), (8, "5670")] {
                assert_eq!(rtl_integer_to_unicode_string(3000, base, string), NtStatus::SUCCESS);
                assert_eq!(text(string), expected);
            }
            assert_eq!(rtl_integer_to_unicode_string(3000, 2, string), NtStatus::BUFFER_OVERFLOW);
            assert_eq!(rtl_integer_to_unicode_string(1, 3, string), NtStatus::INVALID_PARAMETER);
        });
    }

    #[test]
    fn a_guid_becomes_text_and_a_guid_again() {
        conforms!("wdm/nf-wdm-rtlstringfromguid.md", "The text has braces, and its buffer is the caller's to free.");
        conforms!("wdm/nf-wdm-rtlguidfromstring.md", "Text that is no GUID in braces gives STATUS_INVALID_PARAMETER.");
        with(0, |string| {
            let mut guid: [u8; 16] = std::array::from_fn(|index| index as u8 + 0xA0);
            let guid = Raw::of(&raw mut guid);
            let before = guid.read();
            assert_eq!(rtl_string_from_guid(guid, string), NtStatus::SUCCESS);
            assert_eq!(text(string), "{A3A2A1A0-A5A4-A7A6-A8A9-AAABACADAEAF}");
            guid.write([0; 16]);
            assert_eq!(rtl_guid_from_string(string, guid), NtStatus::SUCCESS);
            assert_eq!(guid.read(), before);
            field!(string, UNICODE_STRING, Length).write(74);
            assert_eq!(rtl_guid_from_string(string, guid), NtStatus::INVALID_PARAMETER);
            super::super::strings::release(&Call::enter(), string);
        });
    }

    #[test]
    fn utf_8_is_converted_both_ways_and_bad_sequences_are_told() {
        conforms!("wdm/nf-wdm-rtlutf8tounicoden.md", "Without a target the needed size is told.");
        conforms!(
            "wdm/nf-wdm-rtlunicodetoutf8n.md",
            "A target that is too small is filled as far as whole characters fit, with STATUS_BUFFER_TOO_SMALL."
        );
        with(0, |_| {
            let mut source = *b"a\xE2\x82\xAC!";
            let from = Raw::of(source.as_mut_ptr());
            let (mut wide, mut size) = ([0_u16; 8], 0_u32);
            let (to, written) = (Raw::of(wide.as_mut_ptr()), Raw::of(&raw mut size));
            assert_eq!(rtl_utf8_to_unicode_n(Raw::NULL, 0, written, from, 5), NtStatus::SUCCESS);
            assert_eq!(written.read(), 6);
            assert_eq!(rtl_utf8_to_unicode_n(to, 16, written, from, 5), NtStatus::SUCCESS);
            assert_eq!(to.read_slice(3), [0x61, 0x20AC, 0x21]);
            assert_eq!(rtl_utf8_to_unicode_n(to, 16, written, from, 2), NtStatus::SOME_NOT_MAPPED);
            to.index(1).write(0x20AC);
            let mut narrow = [0_u8; 8];
            assert_eq!(
                rtl_unicode_to_utf8_n(Raw::of(narrow.as_mut_ptr()), 3, written, to, 6),
                NtStatus::BUFFER_TOO_SMALL
            );
            assert_eq!(written.read(), 1, "the euro sign does not fit");
        });
    }
}
