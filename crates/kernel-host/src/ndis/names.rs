//! Names of adapters, interface indexes and LUIDs, the configuration of protocols by name.

use std::sync::Arc;

use ndis::NdisStatus;
use nt_types::UNICODE_STRING;

use super::port::Port;
use super::{Ndis, configuration};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::pool::{PoolKind, Request};
use crate::nt::raw::Raw;
use crate::nt::unicode;

exports! { pub(super) EXPORTS in "ndis.sys":
    NdisMQueryAdapterInstanceName(max 0, fails NDIS_RESOURCES) = of_adapter;
    NdisQueryAdapterInstanceName(max 2, fails NDIS_RESOURCES) = of_binding;
    NdisQueryBindInstanceName(max 2, fails NDIS_RESOURCES) = of_operation;
    NdisInitializeString(max 0) = initialize_string;
    NdisOpenProtocolConfiguration(max 0, fails NDIS_FAILURE) = open_protocol_configuration;
    NdisIfGetInterfaceIndexFromNetLuid(max 0) = index_of_luid;
    NdisIfGetNetLuidFromInterfaceIndex(max 0) = luid_of_index;
    NdisIfQueryBindingIfIndex(max 0) = interface_of_binding;
    NdisIfAllocateNetLuidIndex(max 0, fails NDIS_RESOURCES) = allocate_luid_index;
    NdisIfFreeNetLuidIndex(max 0) = free_luid_index;
}

/// Tag of strings that drivers free with `NdisFreeMemory`.
const TAG: u32 = u32::from_le_bytes(*b"NDst");

extern "efiapi" fn of_adapter(name_out: Raw<UNICODE_STRING>, handle: usize) -> NdisStatus {
    let call = Call::enter();
    let port = call.machine().ndis.port(&call, handle);
    give_name(&call, name_out, &port.name)
}

extern "efiapi" fn of_binding(name_out: Raw<UNICODE_STRING>, handle: usize) -> NdisStatus {
    let call = Call::enter();
    let binding = call.machine().ndis.binding(&call, handle);
    give_name(&call, name_out, &binding.port.name)
}

extern "efiapi" fn of_operation(name_out: Raw<UNICODE_STRING>, context: usize) -> NdisStatus {
    let call = Call::enter();
    let operation = call.machine().ndis.lock().operations.get(&context).cloned();
    let Some(operation) = operation.filter(|operation| Arc::ptr_eq(&operation.protocol.driver, call.driver())) else {
        call.stop(Rule::InvalidHandle, format!("{context:#x} is no BindContext, or one whose operation is complete"));
    };
    give_name(&call, name_out, &operation.port.name)
}

fn give_name(call: &Call, name_out: Raw<UNICODE_STRING>, name: &str) -> NdisStatus {
    let is_given = give_units(call, name_out, &name.encode_utf16().collect::<Vec<u16>>());
    if is_given { NdisStatus::SUCCESS } else { NdisStatus::RESOURCES }
}

/// Allocates a terminated string, which the driver frees; false when memory is short.
fn give_units(call: &Call, string: Raw<UNICODE_STRING>, units: &[u16]) -> bool {
    let Ok(length) = u16::try_from(units.len() * 2) else { return false };
    let Some(room) = length.checked_add(2) else { return false };
    let request =
        Request { kind: PoolKind::NonPaged, length: room.into(), tag: TAG, zeroed: true, cache_aligned: false };
    let address = call.machine().nt.pool().allocate(call, request);
    if address == 0 {
        return false;
    }
    for (index, unit) in units.iter().enumerate() {
        Raw::<u16>::at(address).index(index).write(*unit);
    }
    string.write(UNICODE_STRING { Length: length, MaximumLength: room, Buffer: Raw::at(address).pointer() });
    true
}

extern "efiapi" fn initialize_string(target: Raw<UNICODE_STRING>, source: Raw<u8>) {
    let call = Call::enter();
    if source.is_null() {
        call.stop(Rule::BadArgument, "the source is NULL");
    }
    let bytes = (0..usize::from(u16::MAX) / 2 - 1).map(|index| source.index(index).read());
    // The code page of the machine is Latin-1.
    let units: Vec<u16> = bytes.take_while(|byte| *byte != 0).map(u16::from).collect();
    if !give_units(&call, target, &units) {
        target.write(UNICODE_STRING { Length: 0, MaximumLength: 0, Buffer: std::ptr::null_mut() });
    }
}

extern "efiapi" fn open_protocol_configuration(
    status_out: Raw<NdisStatus>,
    handle_out: Raw<usize>,
    section: Raw<UNICODE_STRING>,
) {
    let call = Call::enter();
    let section = unicode::name(section).unwrap_or_default();
    call.detail(&*section);
    let opened = configuration::open_section(&call, &section);
    status_out.write(opened.err().unwrap_or(NdisStatus::SUCCESS));
    if let Ok(handle) = opened {
        handle_out.write(handle);
    }
}

impl Ndis {
    fn port_where(&self, is_it: impl Fn(&Port) -> bool) -> Option<Arc<Port>> {
        self.lock().ports.values().find(|port| is_it(port)).cloned()
    }
}

extern "efiapi" fn index_of_luid(luid: u64, index_out: Raw<u32>) -> NdisStatus {
    let call = Call::enter();
    let Some(port) = call.machine().ndis.port_where(|port| port.luid() == luid) else {
        return NdisStatus::INTERFACE_NOT_FOUND;
    };
    index_out.write(port.index);
    NdisStatus::SUCCESS
}

extern "efiapi" fn luid_of_index(index: u32, luid_out: Raw<u64>) -> NdisStatus {
    let call = Call::enter();
    let Some(port) = call.machine().ndis.port_where(|port| port.index == index) else {
        return NdisStatus::INTERFACE_NOT_FOUND;
    };
    luid_out.write(port.luid());
    NdisStatus::SUCCESS
}

extern "efiapi" fn interface_of_binding(
    handle: usize,
    bound_index: Raw<u32>,
    bound_luid: Raw<u64>,
    lowest_index: Raw<u32>,
    lowest_luid: Raw<u64>,
) -> NdisStatus {
    let call = Call::enter();
    let port = Arc::clone(&call.machine().ndis.binding(&call, handle).port);
    bound_index.write_if_some(port.index);
    bound_luid.write_if_some(port.luid());
    lowest_index.write_if_some(port.index);
    lowest_luid.write_if_some(port.luid());
    NdisStatus::SUCCESS
}

/// Indexes of interfaces that are no adapters begin here, out of the way of those.
const FIRST_LUID_INDEX: u32 = 0x8000;
/// The index is a field of 24 bits.
const LAST_LUID_INDEX: u32 = 0x00FF_FFFF;

extern "efiapi" fn allocate_luid_index(if_type: u16, index_out: Raw<u32>) -> NdisStatus {
    let call = Call::enter();
    let mut state = call.machine().ndis.lock();
    let taken = &mut state.luid_indexes;
    let index = (FIRST_LUID_INDEX..=LAST_LUID_INDEX).find(|index| !taken.contains(&(if_type, *index)));
    let index = index.inspect(|index| {
        taken.insert((if_type, *index));
    });
    drop(state);
    let Some(index) = index else { return NdisStatus::RESOURCES };
    index_out.write(index);
    NdisStatus::SUCCESS
}

extern "efiapi" fn free_luid_index(if_type: u16, index: u32) -> NdisStatus {
    let call = Call::enter();
    let is_freed = call.machine().ndis.lock().luid_indexes.remove(&(if_type, index));
    if !is_freed {
        let message = format!("{index:#x} is no NET_LUID index of interface type {if_type}, or one that is freed");
        call.stop(Rule::BadArgument, message);
    }
    NdisStatus::SUCCESS
}
