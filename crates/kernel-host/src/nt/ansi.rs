//! 8-bit strings (`ANSI_STRING`, `STRING`) and their conversion from and to Unicode.
//!
//! The system's code page is 1252 here, as on a Western Windows; each character is one byte. The layout of the string
//! structures is that of `UNICODE_STRING`.

use nt_types::{NtStatus, UNICODE_STRING};

use super::pool::{PoolKind, Request};
use super::raw::{Raw, field};
use super::strings::STRING_TAG;
use super::unicode::units;
use crate::ddi::{Call, exports};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    RtlInitString(max 31) = rtl_init_string;
    RtlCopyString(max 31) = rtl_copy_string;
    RtlCompareString(max 31) = rtl_compare_string;
    RtlEqualString(max 31) = rtl_equal_string;
    RtlPrefixString(max 31) = rtl_prefix_string;
    RtlUpperString(max 31) = rtl_upper_string;
    RtlUpperChar(max 31) = rtl_upper_char;
    RtlAppendStringToString(max 31) = rtl_append_string_to_string;
    RtlAppendAsciizToString(max 31) = rtl_append_asciiz_to_string;
    RtlFreeAnsiString(max 0) = rtl_free_ansi_string;
    RtlFreeOemString(max 0) = rtl_free_ansi_string;
    RtlAnsiStringToUnicodeString(max 0, fails NO_MEMORY) = rtl_ansi_string_to_unicode_string;
    RtlOemStringToUnicodeString(max 0, fails NO_MEMORY) = rtl_ansi_string_to_unicode_string;
    RtlUnicodeStringToAnsiString(max 0, fails NO_MEMORY) = rtl_unicode_string_to_ansi_string;
    RtlUnicodeStringToOemString(max 0, fails NO_MEMORY) = rtl_unicode_string_to_ansi_string;
    RtlxAnsiStringToUnicodeSize(max 0) = rtlx_ansi_string_to_unicode_size;
    RtlxOemStringToUnicodeSize(max 0) = rtlx_ansi_string_to_unicode_size;
    RtlAnsiStringToUnicodeSize(max 0) = rtlx_ansi_string_to_unicode_size;
    RtlxUnicodeStringToAnsiSize(max 0) = rtlx_unicode_string_to_ansi_size;
    RtlxUnicodeStringToOemSize(max 0) = rtlx_unicode_string_to_ansi_size;
    RtlUnicodeStringToAnsiSize(max 0) = rtlx_unicode_string_to_ansi_size;
    RtlMultiByteToUnicodeN(max 0) = rtl_multi_byte_to_unicode_n;
    RtlOemToUnicodeN(max 0) = rtl_multi_byte_to_unicode_n;
    RtlMultiByteToUnicodeSize(max 0) = rtl_multi_byte_to_unicode_size;
    RtlUnicodeToMultiByteN(max 0) = rtl_unicode_to_multi_byte_n;
    RtlUnicodeToOemN(max 0) = rtl_unicode_to_multi_byte_n;
    RtlUnicodeToMultiByteSize(max 0) = rtl_unicode_to_multi_byte_size;
}

/// `STRING`.
type String8 = Raw<UNICODE_STRING>;

/// What code page 1252 has at 0x80 to 0x9F; 0 where it has nothing.
const CODE_PAGE_1252: [u16; 32] = [
    0x20AC, 0, 0x201A, 0x192, 0x201E, 0x2026, 0x2020, 0x2021, 0x2C6, 0x2030, 0x160, 0x2039, 0x152, 0, 0x17D, 0, 0,
    0x2018, 0x2019, 0x201C, 0x201D, 0x2022, 0x2013, 0x2014, 0x2DC, 0x2122, 0x161, 0x203A, 0x153, 0, 0x17E, 0x178,
];

pub(super) fn widen(byte: u8) -> u16 {
    let special = byte.checked_sub(0x80).and_then(|index| CODE_PAGE_1252.get(usize::from(index)));
    special.copied().filter(|unit| *unit != 0).unwrap_or(u16::from(byte))
}

/// The byte for a character; a question mark for what the code page lacks.
pub(super) fn narrow(unit: u16) -> u8 {
    match (u8::try_from(unit), CODE_PAGE_1252.iter().position(|known| *known == unit && unit != 0)) {
        (_, Some(index)) => 0x80 + index as u8,
        (Ok(byte), None) => byte,
        _ => b'?',
    }
}

/// Characters of a string; empty for NULL.
pub(super) fn bytes(string: String8) -> Vec<u8> {
    let Some(string) = string.some() else { return Vec::new() };
    let string = string.read();
    Raw::of(string.Buffer.cast::<u8>()).read_bytes(usize::from(string.Length))
}

fn folded(string: String8, fold: u8) -> Vec<u8> {
    let text = bytes(string);
    if fold == 0 { text } else { text.into_iter().map(upper).collect() }
}

/// Upper case by the code page: through Unicode.
fn upper(byte: u8) -> u8 {
    match narrow(super::unicode::upcase(widen(byte))) {
        b'?' => byte,
        upper => upper,
    }
}

extern "efiapi" fn rtl_init_string(target: String8, source: Raw<u8>) {
    let _call = Call::enter();
    let length = source.some().map_or(0, |text| (0..65_534).find(|at| text.index(*at).read() == 0).unwrap_or(65_534));
    let maximum = if source.is_null() { 0 } else { length as u16 + 1 };
    target.write(UNICODE_STRING { Length: length as u16, MaximumLength: maximum, Buffer: source.pointer().cast() });
}

extern "efiapi" fn rtl_copy_string(target: String8, source: String8) {
    let _call = Call::enter();
    let to = target.read();
    let mut text = bytes(source);
    text.truncate(usize::from(to.MaximumLength));
    Raw::of(to.Buffer.cast::<u8>()).write_bytes(&text);
    field!(target, UNICODE_STRING, Length).write(text.len() as u16);
}

extern "efiapi" fn rtl_compare_string(left: String8, right: String8, fold: u8) -> i32 {
    let _call = Call::enter();
    let (left, right) = (folded(left, fold), folded(right, fold));
    match left.iter().zip(&right).find(|(left, right)| left != right) {
        Some((left, right)) => i32::from(*left) - i32::from(*right),
        None => left.len().cmp(&right.len()) as i32,
    }
}

extern "efiapi" fn rtl_equal_string(left: String8, right: String8, fold: u8) -> u8 {
    let _call = Call::enter();
    u8::from(folded(left, fold) == folded(right, fold))
}

extern "efiapi" fn rtl_prefix_string(prefix: String8, string: String8, fold: u8) -> u8 {
    let _call = Call::enter();
    u8::from(folded(string, fold).starts_with(&folded(prefix, fold)))
}

extern "efiapi" fn rtl_upper_string(target: String8, source: String8) {
    let _call = Call::enter();
    let to = target.read();
    let mut text = folded(source, 1);
    text.truncate(usize::from(to.MaximumLength));
    Raw::of(to.Buffer.cast::<u8>()).write_bytes(&text);
    field!(target, UNICODE_STRING, Length).write(text.len() as u16);
}

extern "efiapi" fn rtl_upper_char(byte: u8) -> u8 {
    let _call = Call::enter();
    upper(byte)
}

fn append(target: String8, text: &[u8]) -> NtStatus {
    let string = target.read();
    let used = usize::from(string.Length);
    if used + text.len() > usize::from(string.MaximumLength) {
        return NtStatus::BUFFER_TOO_SMALL;
    }
    Raw::of(string.Buffer.cast::<u8>()).index(used).write_bytes(text);
    field!(target, UNICODE_STRING, Length).write((used + text.len()) as u16);
    NtStatus::SUCCESS
}

extern "efiapi" fn rtl_append_string_to_string(target: String8, source: String8) -> NtStatus {
    let _call = Call::enter();
    append(target, &bytes(source))
}

extern "efiapi" fn rtl_append_asciiz_to_string(target: String8, source: Raw<u8>) -> NtStatus {
    let _call = Call::enter();
    let Some(source) = source.some() else { return NtStatus::SUCCESS };
    let length = (0..usize::from(u16::MAX)).find(|at| source.index(*at).read() == 0).unwrap_or(usize::from(u16::MAX));
    append(target, &source.read_bytes(length))
}

extern "efiapi" fn rtl_free_ansi_string(string: String8) {
    let call = Call::enter();
    super::strings::release(&call, string);
}

/// Puts converted text where the caller wants it: into a buffer of its own, or a new one. `length` is without, `text` with a
/// terminator.
pub(super) fn deliver(
    call: &Call,
    target: String8,
    text: &[u8],
    length: usize,
    allocate: u8,
    small: NtStatus,
) -> NtStatus {
    if text.len() > usize::from(u16::MAX) {
        return NtStatus::INVALID_PARAMETER_2;
    }
    if allocate != 0 {
        let request =
            Request { kind: PoolKind::Paged, length: text.len(), tag: STRING_TAG, zeroed: true, cache_aligned: false };
        let buffer = call.machine().nt.pool().allocate(call, request);
        if buffer == 0 {
            return NtStatus::NO_MEMORY;
        }
        let buffer = Raw::<u16>::at(buffer).pointer();
        target.write(UNICODE_STRING { Length: 0, MaximumLength: text.len() as u16, Buffer: buffer });
    }
    let room = usize::from(target.read().MaximumLength);
    let buffer = Raw::of(target.read().Buffer.cast::<u8>());
    if length > room || (text.len() > room && small == NtStatus::BUFFER_OVERFLOW) {
        return small;
    }
    buffer.write_bytes(text.get(..room.min(text.len())).unwrap_or_default());
    field!(target, UNICODE_STRING, Length).write(length as u16);
    NtStatus::SUCCESS
}

extern "efiapi" fn rtl_ansi_string_to_unicode_string(target: String8, source: String8, allocate: u8) -> NtStatus {
    let call = Call::enter();
    let text: Vec<u8> = bytes(source).into_iter().map(widen).chain([0]).flat_map(u16::to_le_bytes).collect();
    deliver(&call, target, &text, text.len() - 2, allocate, NtStatus::BUFFER_OVERFLOW)
}

extern "efiapi" fn rtl_unicode_string_to_ansi_string(target: String8, source: String8, allocate: u8) -> NtStatus {
    let call = Call::enter();
    let text: Vec<u8> = units(source).into_iter().map(narrow).chain([0]).collect();
    deliver(&call, target, &text, text.len() - 1, allocate, NtStatus::BUFFER_OVERFLOW)
}

extern "efiapi" fn rtlx_ansi_string_to_unicode_size(string: String8) -> u32 {
    let _call = Call::enter();
    2 * (u32::from(string.read().Length) + 1)
}

extern "efiapi" fn rtlx_unicode_string_to_ansi_size(string: String8) -> u32 {
    let _call = Call::enter();
    u32::from(string.read().Length) / 2 + 1
}

extern "efiapi" fn rtl_multi_byte_to_unicode_n(
    target: Raw<u16>,
    room: u32,
    written: Raw<u32>,
    source: Raw<u8>,
    length: u32,
) -> NtStatus {
    let _call = Call::enter();
    let count = length.min(room / 2);
    for (index, byte) in source.read_bytes(count as usize).into_iter().enumerate() {
        target.index(index).write(widen(byte));
    }
    written.write_if_some(2 * count);
    NtStatus::SUCCESS
}

extern "efiapi" fn rtl_multi_byte_to_unicode_size(size: Raw<u32>, _source: Raw<u8>, length: u32) -> NtStatus {
    let _call = Call::enter();
    size.write(2 * length);
    NtStatus::SUCCESS
}

extern "efiapi" fn rtl_unicode_to_multi_byte_n(
    target: Raw<u8>,
    room: u32,
    written: Raw<u32>,
    source: Raw<u16>,
    length: u32,
) -> NtStatus {
    let _call = Call::enter();
    let count = (length / 2).min(room);
    let text: Vec<u8> = source.read_slice(count as usize).into_iter().map(narrow).collect();
    target.write_bytes(&text);
    written.write_if_some(count);
    // The page: also where the text was cut.
    NtStatus::SUCCESS
}

extern "efiapi" fn rtl_unicode_to_multi_byte_size(size: Raw<u32>, _source: Raw<u16>, length: u32) -> NtStatus {
    let _call = Call::enter();
    size.write(length / 2);
    NtStatus::SUCCESS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;

    fn string(text: &mut [u8]) -> UNICODE_STRING {
        let length = text.len() as u16;
        UNICODE_STRING { Length: length, MaximumLength: length, Buffer: text.as_mut_ptr().cast() }
    }

    #[test]
    fn conversion_allocates_a_terminated_buffer_or_needs_room_for_one() {
        conforms!(
            "wdm/nf-wdm-rtlansistringtounicodestring.md",
            "With AllocateDestinationString a buffer is allocated, which the caller frees."
        );
        conforms!(
            "wdm/nf-wdm-rtlunicodestringtoansistring.md",
            "A buffer that is too small gives STATUS_BUFFER_OVERFLOW."
        );
        let bench = Bench::new();
        bench
            .run(|| {
                let mut text = *b"a\x80z";
                let mut source = string(&mut text);
                let mut wide = UNICODE_STRING::EMPTY;
                let wide = Raw::of(&raw mut wide);
                assert_eq!(rtl_ansi_string_to_unicode_string(wide, Raw::of(&raw mut source), 1), NtStatus::SUCCESS);
                assert_eq!((units(wide), wide.read().MaximumLength), (vec![0x61, 0x20AC, 0x7A], 8));
                assert_eq!(
                    (
                        rtlx_unicode_string_to_ansi_size(wide),
                        rtlx_ansi_string_to_unicode_size(Raw::of(&raw mut source))
                    ),
                    (4, 8)
                );
                let mut room = [0xEE_u8; 4];
                let mut target = string(&mut room);
                let target = Raw::of(&raw mut target);
                assert_eq!(rtl_unicode_string_to_ansi_string(target, wide, 0), NtStatus::SUCCESS);
                assert_eq!(bytes(target), b"a\x80z");
                field!(target, UNICODE_STRING, MaximumLength).write(3);
                assert_eq!(rtl_unicode_string_to_ansi_string(target, wide, 0), NtStatus::BUFFER_OVERFLOW);
                rtl_free_ansi_string(wide);
            })
            .unwrap();
        assert_eq!(bench.machine().inner().nt.pool().usage(), (0, 0));
    }

    #[test]
    fn counted_8_bit_strings_are_compared_and_appended() {
        conforms!(
            "ntddk/nf-ntddk-rtlcomparestring.md",
            "Zero, less or more than zero is returned, with case ignored when asked."
        );
        Bench::new()
            .run(|| {
                let (mut one, mut other) = (*b"Abc", *b"aBd");
                let (mut left, mut right) = (string(&mut one), string(&mut other));
                let (left, right) = (Raw::of(&raw mut left), Raw::of(&raw mut right));
                assert!(rtl_compare_string(left, right, 1) < 0);
                assert_eq!((rtl_equal_string(left, right, 1), rtl_equal_string(left, left, 0)), (0, 1));
                assert_eq!(rtl_append_string_to_string(left, right), NtStatus::BUFFER_TOO_SMALL);
            })
            .unwrap();
    }
}
