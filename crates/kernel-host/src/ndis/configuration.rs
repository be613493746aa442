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

/// Where services keep their parameters.
const SERVICES: &str = r"\Registry\Machine\System\CurrentControlSet\Services";

/// An open configuration.
#[derive(Debug)]
pub(super) struct OpenConfiguration {
    pub(super) driver: Arc<Driver>,
    /// Name of the adapter, or of the driver's service.
    pub(super) owner: String,
    /// The NDIS handle that it was opened with.
    pub(super) handle: usize,
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
    let ndis_handle = object.NdisHandle.addr();
    let Some((owner, key)) = parameters_of(&call, ndis_handle) else {
        return NdisStatus::FAILURE;
    };
    call.detail(&*owner);
    match keep(&call, owner, ndis_handle, key) {
        Ok(handle) => {
            handle_out.write(handle);
            NdisStatus::SUCCESS
        }
        Err(status) => status,
    }
}

/// A handle for an open key.
fn keep(call: &Call, owner: String, ndis_handle: usize, key: Arc<Key>) -> Result<usize, NdisStatus> {
    let handle = new_handle(call.machine());
    if handle == 0 {
        return Err(NdisStatus::RESOURCES);
    }
    let driver = Arc::clone(call.driver());
    let opened = OpenConfiguration { driver, owner, handle: ndis_handle, key, values: Vec::new() };
    call.machine().ndis.lock().configurations.insert(handle, opened);
    Ok(handle)
}

/// A handle for the parameters below a service that a `ProtocolSection` names: the protocol's name and, maybe, an adapter's.
pub(super) fn open_section(call: &Call, section: &str) -> Result<usize, NdisStatus> {
    let path = format!(r"{SERVICES}\{section}");
    let key = call.machine().nt.hive().create(&path).map_err(|_| NdisStatus::FAILURE)?;
    keep(call, section.to_owned(), 0, key)
}

/// A handle for a subkey of an open configuration.
pub(super) fn subkey(
    call: &Call,
    handle: usize,
    find: impl FnOnce(&Arc<Key>) -> Option<Arc<Key>>,
) -> Result<usize, NdisStatus> {
    let (owner, ndis_handle, key) = opened(call, handle);
    let key = find(&key).ok_or(NdisStatus::FAILURE)?;
    keep(call, owner, ndis_handle, key)
}

/// Owner, NDIS handle and key of an open configuration. Stops on a handle that is none.
pub(super) fn opened(call: &Call, handle: usize) -> (String, usize, Arc<Key>) {
    let state = call.machine().ndis.lock();
    let open = state.configurations.get(&handle);
    let found = open.map(|open| (open.owner.clone(), open.handle, Arc::clone(&open.key)));
    drop(state);
    found.unwrap_or_else(|| {
        call.stop(Rule::InvalidHandle, format!("{handle:#x} is no open configuration, or one that is closed"))
    })
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
    if let Some(miniport) = miniport {
        let path = format!(r"{SERVICES}\{}\Parameters", miniport.service);
        return Some((miniport.service.clone(), call.machine().nt.hive().open(&path).ok()?));
    }
    filter_parameters(call, handle).or_else(|| protocol_parameters(call, handle))
}

/// A filter's parameters are below its service, those of a module below these, by the adapter's name and its own.
fn filter_parameters(call: &Call, handle: usize) -> Option<(String, Arc<Key>)> {
    let state = call.machine().ndis.lock();
    let module = state.modules.get(&handle).cloned();
    let filter = state.filters.get(&handle).cloned();
    drop(state);
    let (name, path) = match (&module, &filter) {
        (Some(module), _) => {
            let adapter = module.port.device_name.rsplit('\\').next().unwrap_or_default();
            (&module.filter.name, format!(r"{SERVICES}\{}\Parameters\Adapters\{adapter}", module.filter.name))
        }
        (None, Some(filter)) => (&filter.name, format!(r"{SERVICES}\{}\Parameters", filter.name)),
        (None, None) => return None,
    };
    // The configuration of a filter is made when it is bound.
    Some((name.clone(), call.machine().nt.hive().create(&path).ok()?))
}

/// A protocol's parameters are below its service, those of a binding below these, by the adapter's name.
fn protocol_parameters(call: &Call, handle: usize) -> Option<(String, Arc<Key>)> {
    let state = call.machine().ndis.lock();
    let protocol = state.protocols.get(&handle).map(|protocol| (protocol.name.clone(), None));
    let binding = state.bindings.iter().find(|binding| binding.handle == handle);
    let binding = binding.map(|binding| (binding.protocol.name.clone(), Some(binding.port.device_name.clone())));
    // A bind operation under way is named by its parameters.
    let operation = state.operations.values().find(|operation| operation.parameters == handle && handle != 0);
    let operation =
        operation.map(|operation| (operation.protocol.name.clone(), Some(operation.port.device_name.clone())));
    drop(state);
    let Some((name, adapter)) = protocol.or(binding).or(operation) else {
        call.stop(Rule::InvalidHandle, format!("NdisHandle {handle:#x} is no driver's, adapter's or binding's handle"));
    };
    let mut path = format!(r"{SERVICES}\{name}\Parameters");
    if let Some(adapter) = adapter {
        path = format!(r"{path}\Adapters\{}", adapter.rsplit('\\').next().unwrap_or_default());
    }
    // The configuration of a binding is made with the binding.
    Some((name, call.machine().nt.hive().create(&path).ok()?))
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
    let (_, _, key) = opened(&call, handle);
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

/// Memory with `bytes` that dies with the configuration handle; its address.
pub(super) fn hand_out_bytes(call: &Call, handle: usize, bytes: &[u8]) -> Result<usize, NdisStatus> {
    let pages = pages_for(bytes.len()).max(1);
    let run = call.machine().nt.arena().allocate(pages, Access::ReadWrite).ok_or(NdisStatus::RESOURCES)?;
    let address = run + pages * PAGE - bytes.len();
    Raw::<u8>::at(address).write_bytes(bytes);
    if let Some(open) = call.machine().ndis.lock().configurations.get_mut(&handle) {
        open.values.push(HandedOut { address, run, pages });
    }
    Ok(address)
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
