//! Memory that an adapter's device could reach: `NdisMAllocateSharedMemory`.

use std::sync::Arc;

use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Driver;
use crate::nt::arena::{Access, PAGE, pages_for};
use crate::nt::physical::Owner;
use crate::nt::raw::Raw;

exports! { pub(super) EXPORTS in "ndis.sys":
    NdisMAllocateSharedMemory(max 0) = allocate;
    NdisMFreeSharedMemory(max 2) = free;
}

/// A block of shared memory.
#[derive(Clone, Debug)]
pub(super) struct SharedMemory {
    pub(super) driver: Arc<Driver>,
    /// The adapter.
    pub(super) owner: usize,
    /// In bytes.
    pub(super) length: usize,
    is_cached: bool,
    frames: Vec<u64>,
}

impl SharedMemory {
    fn physical_address(&self) -> u64 {
        self.frames.first().map_or(0, |frame| frame * PAGE as u64)
    }
}

extern "efiapi" fn allocate(handle: usize, length: u32, cached: u8, address_out: Raw<usize>, physical_out: Raw<u64>) {
    let call = Call::enter();
    let port = call.machine().ndis.port(&call, handle);
    if !port.is_initialized_by(call.thread()) {
        call.stop(Rule::BadState, "legal only within MiniportInitializeEx");
    }
    if port.attributes().context.is_none() {
        call.stop(Rule::BadState, "the registration attributes come first");
    }
    address_out.write(0);
    let nt = &call.machine().nt;
    let pages = pages_for(length as usize).max(1);
    let site = call.site();
    let owner =
        Owner { driver: Arc::clone(call.driver()), ddi: site.export.name, site: crate::origin::Origin::of(site) };
    let runs = nt.physical().take(pages as u64, 1, u64::MAX / PAGE as u64, &owner);
    let frames: Vec<u64> = runs.iter().flat_map(|(first, count)| *first..first + count).collect();
    // A device sees one range of addresses: what is not contiguous is no shared memory.
    let is_whole = runs.len() == 1 && frames.len() == pages;
    let address = if is_whole { nt.physical().map(nt.arena(), &frames, Access::ReadWrite) } else { None };
    let Some(address) = address else {
        // The frames are in use: this call took them.
        let _ = nt.physical().give_back(&frames);
        return;
    };
    call.bytes(length.into());
    let memory = SharedMemory {
        driver: Arc::clone(call.driver()),
        owner: handle,
        length: length as usize,
        is_cached: cached != 0,
        frames,
    };
    physical_out.write(memory.physical_address());
    call.machine().ndis.lock().shared_memory.insert(address, memory);
    address_out.write(address);
}

extern "efiapi" fn free(handle: usize, length: u32, cached: u8, address: usize, physical: u64) {
    let call = Call::enter();
    let memory = call.machine().ndis.lock().shared_memory.get(&address).cloned();
    let Some(memory) = memory.filter(|memory| Arc::ptr_eq(&memory.driver, call.driver())) else {
        call.stop(Rule::BadPoolFree, format!("{address:#x} is no shared memory of this driver, or freed already"));
    };
    let asked = (handle, length as usize, cached != 0, physical);
    let made = (memory.owner, memory.length, memory.is_cached, memory.physical_address());
    if asked != made {
        let message = format!("freed as (adapter, length, cached, physical) {asked:x?}, but allocated as {made:x?}");
        call.stop(Rule::BadArgument, message);
    }
    call.machine().ndis.lock().shared_memory.remove(&address);
    call.machine().nt.arena().release(address, pages_for(memory.length).max(1));
    // The frames are in use: the allocation took them.
    let _ = call.machine().nt.physical().give_back(&memory.frames);
}
