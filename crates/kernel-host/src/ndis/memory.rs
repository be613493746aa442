//! NDIS's own names for pool.

use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::pool::{PoolKind, Request};

exports! { pub(super) EXPORTS in "ndis.sys":
    NdisAllocateMemoryWithTagPriority(max 2, fails NULL) = allocate;
    NdisFreeMemory(max 2) = free;
    NdisFreeMemoryWithTagPriority(max 2) = free_with_tag;
    NdisFreeMemoryWithTag(max 2) = free_by_tag;
}

extern "efiapi" fn allocate(handle: usize, length: u32, tag: u32, _priority: u32) -> usize {
    let call = Call::enter();
    check_handle(&call, handle);
    if length == 0 {
        call.stop(Rule::BadArgument, "an allocation of 0 bytes");
    }
    let request =
        Request { kind: PoolKind::NonPaged, length: length as usize, tag, zeroed: false, cache_aligned: false };
    call.machine().nt.pool().allocate(&call, request)
}

extern "efiapi" fn free(address: usize, _length: u32, flags: u32) {
    let call = Call::enter();
    if flags != 0 {
        call.stop(Rule::BadArgument, format!("MemoryFlags is {flags:#x}; memory of NDIS 6 is freed with 0"));
    }
    call.machine().nt.pool().free(&call, address, 0);
}

extern "efiapi" fn free_with_tag(handle: usize, address: usize, tag: u32) {
    let call = Call::enter();
    check_handle(&call, handle);
    call.machine().nt.pool().free(&call, address, tag);
}

extern "efiapi" fn free_by_tag(address: usize, tag: u32) {
    let call = Call::enter();
    call.machine().nt.pool().free(&call, address, tag);
}

/// An NDIS handle is a driver's, an adapter's, a binding's or a filter module's. Stops on any other.
pub(super) fn check_handle(call: &Call, handle: usize) {
    let state = call.machine().ndis.lock();
    let known = state.miniports.contains_key(&handle)
        || state.ports.contains_key(&handle)
        || state.protocols.contains_key(&handle)
        || state.filters.contains_key(&handle)
        || state.modules.contains_key(&handle)
        || state.generic.contains_key(&handle)
        || state.bindings.iter().any(|binding| binding.handle == handle);
    drop(state);
    if !known {
        call.stop(Rule::InvalidHandle, format!("{handle:#x} is no handle that NDIS gave out, or one that is over"));
    }
}
