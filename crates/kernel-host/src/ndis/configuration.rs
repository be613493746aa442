//! Registry parameters: `NdisOpenConfigurationEx`, `NdisReadConfiguration`, `NdisCloseConfiguration`.
#![expect(non_upper_case_globals, reason = "matches on constants in the spelling of ndis.h")]

use std::sync::Arc;

use ndis::NdisStatus;
use ndis::raw::{
    BINARY_DATA, NDIS_CONFIGURATION_OBJECT, NDIS_CONFIGURATION_PARAMETER, NDIS_OBJECT_TYPE_CONFIGURATION_OBJECT,
    NDIS_PARAMETER_DATA, NDIS_SIZEOF_CONFIGURATION_OBJECT_REVISION_1, NdisParameterBinary, NdisParameterHexInteger,
    NdisParameterInteger, NdisParameterMultiString, NdisParameterString,
};
use nt_types::UNICODE_STRING;

use super::{VERSION, end_handle, new_handle};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Driver;
use crate::nt::arena::{Access, PAGE, pages_for};
use crate::nt::hive::{Key, Value};
use crate::nt::raw::Raw;
use crate::nt::unicode;

exports! { pub(super) EXPORTS in "ndis.sys":
    NdisOpenConfigurationEx(max 0, fails NDIS_RESOURCES) = open;
    NdisReadConfiguration(max 0, fails NDIS_FAILURE) = read;
    NdisCloseConfiguration(max 0) = close;
}

/// An open configuration.
#[derive(Debug)]
pub(super) struct OpenConfiguration {
    pub(super) driver: Arc<Driver>,
    /// Name of the adapter, or of the driver's service.
    pub(super) owner: String,
    key: Arc<Key>,
    values: Vec<HandedOut>,
}

/// Memory that `NdisReadConfiguration` handed out.
#[derive(Debug)]
struct HandedOut {
    /// The structure.
    address: usize,
    /// The pages it lies on.
    run: usize,
    pages: usize,
}

/// `NdisProcessorAmd64`.
const PROCESSOR_AMD64: u32 = 4;

extern "efiapi" fn open(object: Raw<NDIS_CONFIGURATION_OBJECT>, handle_out: Raw<usize>) -> NdisStatus {
    let call = Call::enter();
    let object = object.read();
    let header = object.Header;
    if header.Type != NDIS_OBJECT_TYPE_CONFIGURATION_OBJECT
        || header.Revision == 0
        || header.Size < NDIS_SIZEOF_CONFIGURATION_OBJECT_REVISION_1
    {
        return NdisStatus::FAILURE;
    }
    let Some((owner, key)) = parameters_of(&call, object.NdisHandle.addr()) else {
        return NdisStatus::FAILURE;
    };
    call.detail(&*owner);
    let handle = new_handle(call.machine());
    if handle == 0 {
        return NdisStatus::RESOURCES;
    }
    let opened = OpenConfiguration { driver: Arc::clone(call.driver()), owner, key, values: Vec::new() };
    call.machine().ndis.lock().configurations.insert(handle, opened);
    handle_out.write(handle);
    NdisStatus::SUCCESS
}

/// An adapter's parameters are in its software key, a driver's below its service.
fn parameters_of(call: &Call, handle: usize) -> Option<(String, Arc<Key>)> {
    let state = call.machine().ndis.lock();
    let port = state.ports.get(&handle).cloned();
    let miniport = state.miniports.get(&handle).cloned();
    drop(state);
    if let Some(port) = port {
        return Some((port.name.clone(), Arc::clone(&port.parameters)));
    }
    let Some(miniport) = miniport else {
        call.stop(Rule::InvalidHandle, format!("NdisHandle {handle:#x} is no driver's and no adapter's handle"));
    };
    let services = r"\Registry\Machine\System\CurrentControlSet\Services";
    let path = format!(r"{services}\{}\Parameters", miniport.service);
    let key = call.machine().nt.hive().open(&path).ok()?;
    Some((miniport.service.clone(), key))
}

extern "efiapi" fn read(
    status: Raw<NdisStatus>,
    value_out: Raw<usize>,
    handle: usize,
    keyword: Raw<UNICODE_STRING>,
    kind: u32,
) {
    let call = Call::enter();
    let name = unicode::name(keyword).unwrap_or_default();
    call.detail(&*name);
    let key = call.machine().ndis.lock().configurations.get(&handle).map(|open| Arc::clone(&open.key));
    let Some(key) = key else {
        call.stop(Rule::InvalidHandle, format!("{handle:#x} is no open configuration, or one that is closed"));
    };
    let answer = find(&key, &name, kind).ok_or(NdisStatus::FAILURE).and_then(|found| found.hand_out(&call));
    match answer {
        Ok(value) => {
            let address = value.address;
            let mut state = call.machine().ndis.lock();
            if let Some(open) = state.configurations.get_mut(&handle) {
                open.values.push(value);
            }
            drop(state);
            value_out.write(address);
            status.write(NdisStatus::SUCCESS);
        }
        Err(refused) => status.write(refused),
    }
}

extern "efiapi" fn close(handle: usize) {
    let call = Call::enter();
    let closed = call.machine().ndis.lock().configurations.remove(&handle);
    let Some(closed) = closed else {
        call.stop(Rule::InvalidHandle, format!("{handle:#x} is no open configuration, or one that is closed"));
    };
    call.detail(&*closed.owner);
    for value in closed.values {
        call.machine().nt.arena().release(value.run, value.pages);
    }
    end_handle(call.machine(), handle);
}

/// A value in the form in which NDIS hands it out.
#[derive(Debug, PartialEq, Eq)]
enum Parameter {
    Integer(u32),
    /// `NdisParameterString` or `NdisParameterMultiString`, UTF-16LE without the last terminator.
    Text(u32, Vec<u8>),
    Binary(Vec<u8>),
}

fn find(key: &Key, name: &str, kind: u32) -> Option<Parameter> {
    if unicode::same_name(name, "ProcessorType") {
        return Some(Parameter::Integer(PROCESSOR_AMD64));
    }
    if unicode::same_name(name, "NdisVersion") {
        return Some(Parameter::Integer(u32::from(VERSION.0) << 16 | u32::from(VERSION.1)));
    }
    convert(key.value(name).ok()?, kind)
}

/// The registry's type decides, except that numbers kept as text, as the Advanced page of an adapter keeps them, are
/// converted for who asks for a number.
fn convert(value: Value, kind: u32) -> Option<Parameter> {
    const REG_BINARY: u32 = 3;
    const REG_MULTI_SZ: u32 = 7;
    if let Some(number) = value.as_dword() {
        return Some(Parameter::Integer(number));
    }
    if let Some(text) = value.as_text() {
        let text = text.trim();
        return match kind {
            NdisParameterInteger => text.parse().ok().map(Parameter::Integer),
            NdisParameterHexInteger => {
                u32::from_str_radix(text.trim_start_matches("0x"), 16).ok().map(Parameter::Integer)
            }
            _ => Some(Parameter::Text(NdisParameterString, unicode::bytes_of(text))),
        };
    }
    match value.kind {
        REG_MULTI_SZ => Some(Parameter::Text(NdisParameterMultiString, value.data)),
        REG_BINARY => Some(Parameter::Binary(value.data)),
        _ => None,
    }
}

impl Parameter {
    /// Writes the structure, and what it points at, to memory of its own, which dies with the configuration handle.
    fn hand_out(self, call: &Call) -> Result<HandedOut, NdisStatus> {
        let (kind, bytes) = match self {
            Self::Integer(number) => (NdisParameterInteger, number.to_le_bytes().to_vec()),
            Self::Text(kind, bytes) => (kind, bytes),
            Self::Binary(bytes) => (NdisParameterBinary, bytes),
        };
        let head = size_of::<NDIS_CONFIGURATION_PARAMETER>();
        // Strings of NDIS are terminated, although they are counted.
        let room = head + bytes.len() + 2;
        let length = u16::try_from(bytes.len()).map_err(|_| NdisStatus::RESOURCES)?;
        let pages = pages_for(room);
        let run = call.machine().nt.arena().allocate(pages, Access::ReadWrite).ok_or(NdisStatus::RESOURCES)?;
        // As far back as alignment lets it: what reads past the end faults.
        let address = run + (pages * PAGE - room) / 8 * 8;
        let data = Raw::<u8>::at(address + head);
        data.write_bytes(&bytes);
        let data_out = match kind {
            NdisParameterInteger => {
                NDIS_PARAMETER_DATA { IntegerData: u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) }
            }
            NdisParameterBinary => {
                NDIS_PARAMETER_DATA { BinaryData: BINARY_DATA { Length: length, Buffer: data.cast().pointer() } }
            }
            _ => NDIS_PARAMETER_DATA {
                StringData: UNICODE_STRING {
                    Length: length,
                    MaximumLength: length.saturating_add(2),
                    Buffer: data.cast().pointer(),
                },
            },
        };
        Raw::at(address).write(NDIS_CONFIGURATION_PARAMETER { ParameterType: kind, ParameterData: data_out });
        Ok(HandedOut { address, run, pages })
    }
}
