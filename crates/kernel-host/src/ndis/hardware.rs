//! What an adapter without hardware answers to questions about it.
//!
//! The adapters of this machine sit on no bus and own no interrupt, no I/O range and no DMA channel. The calls that claim such
//! resources fail as their pages let them fail; what can only be done after a claim is a finding.

use std::sync::Arc;

use ndis::NdisStatus;
use ndis::raw::NdisHaltDeviceFailed;

use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::raw::Raw;
use crate::thread::Thread;

exports! { pub(super) EXPORTS in "ndis.sys":
    NdisMGetDeviceProperty(max 0) = get_device_property;
    NdisMGetBusData(max 31) = bus_data;
    NdisMSetBusData(max 31) = bus_data;
    NdisMMapIoSpace(max 0) = map_io_space;
    NdisMUnmapIoSpace(max 0) = unmap_io_space;
    NdisMRegisterIoPortRange(max 0) = register_io_port_range;
    NdisMDeregisterIoPortRange(max 0) = deregister_io_port_range;
    NdisMRegisterInterruptEx(max 0) = register_interrupt;
    NdisMDeregisterInterruptEx(max 0) = deregister_interrupt;
    NdisMGetDmaAlignment(max 0) = dma_alignment;
    NdisMRemoveMiniport(max 2) = remove_miniport;
    NdisMResetMiniport(max 2) = reset_miniport;
}

/// Bytes of a cache line, which is what DMA has to respect.
const CACHE_LINE: u32 = 64;

/// No bus, so no device objects and no resources: every out parameter that is there gets NULL.
extern "efiapi" fn get_device_property(
    handle: usize,
    physical: Raw<usize>,
    functional: Raw<usize>,
    next: Raw<usize>,
    resources: Raw<usize>,
    translated: Raw<usize>,
) {
    let call = Call::enter();
    call.machine().ndis.port(&call, handle);
    for out in [physical, functional, next, resources, translated] {
        out.write_if_some(0);
    }
}

/// The number of bytes moved: none.
extern "efiapi" fn bus_data(handle: usize, _space: u32, _offset: u32, _buffer: usize, _length: u32) -> u32 {
    let call = Call::enter();
    call.machine().ndis.port(&call, handle);
    0
}

extern "efiapi" fn map_io_space(address_out: Raw<usize>, handle: usize, _physical: u64, _length: u32) -> NdisStatus {
    let call = Call::enter();
    check_claim(&call, handle);
    address_out.write(0);
    NdisStatus::FAILURE
}

extern "efiapi" fn unmap_io_space(handle: usize, address: usize, _length: u32) {
    let call = Call::enter();
    call.machine().ndis.port(&call, handle);
    call.stop(Rule::BadArgument, format!("{address:#x} is no mapped I/O space"));
}

extern "efiapi" fn register_io_port_range(
    offset_out: Raw<usize>,
    handle: usize,
    _first: u32,
    _count: u32,
) -> NdisStatus {
    let call = Call::enter();
    check_claim(&call, handle);
    offset_out.write(0);
    NdisStatus::RESOURCE_CONFLICT
}

extern "efiapi" fn deregister_io_port_range(handle: usize, _first: u32, _count: u32, offset: usize) {
    let call = Call::enter();
    call.machine().ndis.port(&call, handle);
    call.stop(Rule::BadArgument, format!("{offset:#x} is no registered port range"));
}

extern "efiapi" fn register_interrupt(
    handle: usize,
    _context: usize,
    _characteristics: usize,
    interrupt_out: Raw<usize>,
) -> NdisStatus {
    let call = Call::enter();
    check_claim(&call, handle);
    interrupt_out.write(0);
    NdisStatus::RESOURCE_CONFLICT
}

extern "efiapi" fn deregister_interrupt(interrupt: usize) {
    let call = Call::enter();
    call.stop(Rule::InvalidHandle, format!("{interrupt:#x} is no registered interrupt"));
}

/// Hardware is claimed within `MiniportInitializeEx`, after the attributes are set.
fn check_claim(call: &Call, handle: usize) {
    let port = call.machine().ndis.port(call, handle);
    if !port.is_initialized_by(call.thread()) {
        call.stop(Rule::BadState, "hardware is claimed within MiniportInitializeEx");
    }
    if port.attributes().context.is_none() {
        call.stop(Rule::BadState, "hardware is claimed after NdisMSetMiniportAttributes");
    }
}

extern "efiapi" fn dma_alignment(handle: usize) -> u32 {
    let call = Call::enter();
    call.machine().ndis.port(&call, handle);
    CACHE_LINE
}

/// The miniport gives its device up: the adapter is removed on a thread of NDIS's own.
extern "efiapi" fn remove_miniport(handle: usize) -> NdisStatus {
    let call = Call::enter();
    let port = call.machine().ndis.port(&call, handle);
    let machine = Arc::clone(call.machine());
    // A stop is recorded in the machine; the thread just ends.
    std::thread::spawn(move || Thread::enter(&machine, |thread| port.remove(thread, NdisHaltDeviceFailed).ok()));
    NdisStatus::SUCCESS
}

/// The miniport asks for its reset, which happens on a thread of NDIS's own.
extern "efiapi" fn reset_miniport(handle: usize) {
    let call = Call::enter();
    let port = call.machine().ndis.port(&call, handle);
    if port.miniport.callbacks.0.ResetHandlerEx.is_none() {
        call.stop(Rule::BadState, "the miniport registered no MiniportResetEx");
    }
    let machine = Arc::clone(call.machine());
    std::thread::spawn(move || Thread::enter(&machine, |thread| port.reset(thread).ok()));
}
