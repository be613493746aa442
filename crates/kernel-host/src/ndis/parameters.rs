//! More of the configuration: writing, subkeys, the network address.
#![expect(non_upper_case_globals, reason = "matches on constants in the spelling of ndis.h")]

use ndis::NdisStatus;
use ndis::raw::{
    NDIS_CONFIGURATION_PARAMETER, NdisParameterBinary, NdisParameterHexInteger, NdisParameterInteger,
    NdisParameterMultiString, NdisParameterString,
};
use nt_types::UNICODE_STRING;

use super::configuration::{hand_out_bytes, opened, subkey};
use crate::ddi::{Call, exports};
use crate::nt::hive::Value;
use crate::nt::raw::{Raw, field};
use crate::nt::unicode;

exports! { pub(super) EXPORTS in "ndis.sys":
    NdisWriteConfiguration(max 0, fails NDIS_FAILURE) = write;
    NdisReadNetworkAddress(max 0, fails NDIS_FAILURE) = read_network_address;
    NdisOpenConfigurationKeyByName(max 1) = open_key_by_name;
    NdisOpenConfigurationKeyByIndex(max 1) = open_key_by_index;
}

/// `REG_BINARY`, `REG_MULTI_SZ`.
const REG_BINARY: u32 = 3;
const REG_MULTI_SZ: u32 = 7;

extern "efiapi" fn write(
    status: Raw<NdisStatus>,
    handle: usize,
    keyword: Raw<UNICODE_STRING>,
    parameter: Raw<NDIS_CONFIGURATION_PARAMETER>,
) {
    let call = Call::enter();
    let name = unicode::name(keyword).unwrap_or_default();
    call.detail(&*name);
    let (_, _, key) = opened(&call, handle);
    let Some(value) = value_of(parameter) else { return status.write(NdisStatus::NOT_SUPPORTED) };
    let written = key.set_value(&name, value);
    status.write(if written.is_ok() { NdisStatus::SUCCESS } else { NdisStatus::FAILURE });
}

/// What a parameter stands for in the registry; `None` for a type that does not exist.
fn value_of(parameter: Raw<NDIS_CONFIGURATION_PARAMETER>) -> Option<Value> {
    let data = field!(parameter, NDIS_CONFIGURATION_PARAMETER, ParameterData);
    let string = data.cast::<UNICODE_STRING>();
    match field!(parameter, NDIS_CONFIGURATION_PARAMETER, ParameterType).read() {
        NdisParameterInteger | NdisParameterHexInteger => Some(Value::dword(data.cast::<u32>().read())),
        NdisParameterString => Some(Value::text(&String::from_utf16_lossy(&unicode::units(string)))),
        NdisParameterMultiString => Some(Value { kind: REG_MULTI_SZ, data: bytes_of(string) }),
        // BINARY_DATA has length and buffer where a string has them.
        NdisParameterBinary => Some(Value { kind: REG_BINARY, data: bytes_of(string) }),
        _ => None,
    }
}

fn bytes_of(counted: Raw<UNICODE_STRING>) -> Vec<u8> {
    let counted = counted.read();
    Raw::<u8>::of(counted.Buffer.cast()).read_bytes(usize::from(counted.Length))
}

extern "efiapi" fn read_network_address(
    status: Raw<NdisStatus>,
    address_out: Raw<usize>,
    length_out: Raw<u32>,
    handle: usize,
) {
    let call = Call::enter();
    let (_, _, key) = opened(&call, handle);
    let text = key.value("NetworkAddress").ok().and_then(|value| value.as_text());
    let Some(address) = text.and_then(|text| digits(&text)) else { return status.write(NdisStatus::FAILURE) };
    match hand_out_bytes(&call, handle, &address) {
        Ok(at) => {
            address_out.write(at);
            length_out.write(address.len() as u32);
            status.write(NdisStatus::SUCCESS);
        }
        Err(refused) => status.write(refused),
    }
}

/// Hexadecimal digits in pairs, with or without hyphens between them, as bytes; `None` when there are none, or other characters.
fn digits(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .trim()
        .chars()
        .filter(|character| *character != '-')
        .map(|character| character.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect::<Option<_>>()?;
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    (!bytes.is_empty()).then_some(bytes)
}

/// A named subkey of an open configuration.
extern "efiapi" fn open_key_by_name(
    status: Raw<NdisStatus>,
    handle: usize,
    name: Raw<UNICODE_STRING>,
    handle_out: Raw<usize>,
) {
    let call = Call::enter();
    let name = unicode::name(name).unwrap_or_default();
    call.detail(&*name);
    answer(status, handle_out, subkey(&call, handle, |key| key.open(&name).ok()));
}

/// A subkey of an open configuration by its place, from 0; its name goes to the caller's buffer.
extern "efiapi" fn open_key_by_index(
    status: Raw<NdisStatus>,
    handle: usize,
    index: u32,
    name_out: Raw<UNICODE_STRING>,
    handle_out: Raw<usize>,
) {
    let call = Call::enter();
    let found = subkey(&call, handle, |key| {
        let name = key.subkeys().ok()?.into_iter().nth(index as usize)?;
        let units: Vec<u16> = name.encode_utf16().collect();
        let target = name_out.read();
        if usize::from(target.MaximumLength / 2) < units.len() {
            return None;
        }
        for (place, unit) in units.iter().enumerate() {
            Raw::<u16>::of(target.Buffer).index(place).write(*unit);
        }
        field!(name_out, UNICODE_STRING, Length).write((units.len() * 2) as u16);
        key.open(&name).ok()
    });
    answer(status, handle_out, found);
}

fn answer(status: Raw<NdisStatus>, handle_out: Raw<usize>, found: Result<usize, NdisStatus>) {
    match found {
        Ok(handle) => {
            handle_out.write(handle);
            status.write(NdisStatus::SUCCESS);
        }
        Err(refused) => status.write(refused),
    }
}

#[cfg(test)]
mod tests {
    use super::digits;

    #[test]
    fn an_address_is_read_with_or_without_hyphens() {
        assert_eq!(digits("02-AA-bb-0c"), Some(vec![2, 0xAA, 0xBB, 0x0C]));
        assert_eq!(digits("02AAbb0c"), Some(vec![2, 0xAA, 0xBB, 0x0C]));
        assert_eq!(digits("02:AA"), None);
        assert_eq!(digits(""), None);
    }
}
