//! Strings, as NDIS names the Rtl functions, and lists under a spin lock.

use nt_types::UNICODE_STRING;

use ndis::NdisStatus;

use crate::ddi::{Call, exports};
use crate::nt::raw::{Raw, field};
use crate::nt::unicode;

exports! { pub(super) EXPORTS in "ndis.sys":
    NdisInitUnicodeString(max 31) = init_unicode_string;
    NdisInitAnsiString(max 31) = init_ansi_string;
    NdisEqualString(max 0) = equal_string;
    NdisUpcaseUnicodeString(max 0) = upcase_unicode_string;
    NdisAnsiStringToUnicodeString(max 0) = ansi_to_unicode;
    NdisUnicodeStringToAnsiString(max 0) = unicode_to_ansi;
}

/// Longest string that the 16-bit length of a counted string can hold with a terminator, in bytes.
const LONGEST: u16 = 0xFFFC;

/// The function of this name is what the macro `NdisInitUnicodeString` expands to on most systems; drivers built otherwise import it.
extern "efiapi" fn init_unicode_string(target: Raw<UNICODE_STRING>, source: Raw<u16>) {
    let _call = Call::enter();
    let mut length: u16 = 0;
    if !source.is_null() {
        while length < LONGEST && source.index(usize::from(length / 2)).read() != 0 {
            length += 2;
        }
    }
    let terminated = if source.is_null() { 0 } else { length + 2 };
    target.write(UNICODE_STRING { Length: length, MaximumLength: terminated, Buffer: source.pointer() });
}

/// An `ANSI_STRING` has the layout of a `UNICODE_STRING`.
extern "efiapi" fn init_ansi_string(target: Raw<UNICODE_STRING>, source: Raw<u8>) {
    let _call = Call::enter();
    let mut length: u16 = 0;
    if !source.is_null() {
        while length < LONGEST && source.index(usize::from(length)).read() != 0 {
            length += 1;
        }
    }
    let terminated = if source.is_null() { 0 } else { length + 1 };
    target.write(UNICODE_STRING { Length: length, MaximumLength: terminated, Buffer: source.cast().pointer() });
}

extern "efiapi" fn equal_string(one: Raw<UNICODE_STRING>, two: Raw<UNICODE_STRING>, ignore_case: u8) -> u8 {
    let _call = Call::enter();
    let (one, two) = (unicode::units(one), unicode::units(two));
    let same = if ignore_case == 0 {
        one == two
    } else {
        one.iter().copied().map(unicode::upcase).eq(two.iter().copied().map(unicode::upcase))
    };
    u8::from(same)
}

extern "efiapi" fn upcase_unicode_string(target: Raw<UNICODE_STRING>, source: Raw<UNICODE_STRING>) -> NdisStatus {
    let _call = Call::enter();
    let units: Vec<u16> = unicode::units(source).into_iter().map(unicode::upcase).collect();
    store(target, &units)
}

extern "efiapi" fn ansi_to_unicode(target: Raw<UNICODE_STRING>, source: Raw<UNICODE_STRING>) -> NdisStatus {
    let _call = Call::enter();
    let source = source.read();
    let bytes = Raw::<u8>::of(source.Buffer.cast()).read_bytes(usize::from(source.Length));
    // The code page of the machine is Latin-1.
    let units: Vec<u16> = bytes.into_iter().map(u16::from).collect();
    store(target, &units)
}

extern "efiapi" fn unicode_to_ansi(target: Raw<UNICODE_STRING>, source: Raw<UNICODE_STRING>) -> NdisStatus {
    let _call = Call::enter();
    let units = unicode::units(source);
    let room = usize::from(target.read().MaximumLength);
    if room < units.len() {
        return NdisStatus::FAILURE;
    }
    let bytes: Vec<u8> = units.into_iter().map(|unit| u8::try_from(unit).unwrap_or(b'?')).collect();
    let buffer = Raw::<u8>::of(target.read().Buffer.cast());
    buffer.write_bytes(&bytes);
    field!(target, UNICODE_STRING, Length).write(bytes.len() as u16);
    NdisStatus::SUCCESS
}

/// Copies into the caller's own buffer, which must be large enough.
fn store(target: Raw<UNICODE_STRING>, units: &[u16]) -> NdisStatus {
    let room = usize::from(target.read().MaximumLength / 2);
    if room < units.len() {
        return NdisStatus::FAILURE;
    }
    let buffer = Raw::<u16>::of(target.read().Buffer);
    for (index, unit) in units.iter().enumerate() {
        buffer.index(index).write(*unit);
    }
    field!(target, UNICODE_STRING, Length).write((units.len() * 2) as u16);
    NdisStatus::SUCCESS
}
