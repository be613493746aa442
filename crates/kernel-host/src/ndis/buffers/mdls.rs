//! MDLs from NDIS.

use std::sync::Arc;

use nt_types::MDL;

use super::{give_back, own};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Driver;
use crate::ndis::memory::check_handle;
use crate::nt::mdl;
use crate::nt::raw::Raw;

exports! { pub(in crate::ndis) EXPORTS in "ndis.sys":
    NdisAllocateMdl(max 2, fails NULL) = allocate;
    NdisFreeMdl(max 2) = free;
}

/// An MDL that NDIS allocated, or had a driver allocate.
#[derive(Clone, Debug)]
pub(super) struct Mdl {
    pub(super) driver: Arc<Driver>,
    pub(super) made: Made,
}

/// Who frees an MDL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Made {
    /// The driver, with `NdisFreeMdl`.
    ForDriver,
    /// A retreat, which allocated the data at this address too.
    Retreat(usize),
    /// A derived list, with which it goes.
    Derived,
}

extern "efiapi" fn allocate(handle: usize, address: usize, length: u32) -> Raw<MDL> {
    let call = Call::enter();
    check_handle(&call, handle);
    let nt = &call.machine().nt;
    let fault = if nt.pool().is_paged(address) {
        Some("paged pool")
    } else if crate::image::find(address).is_some() {
        Some("the driver's own global data")
    } else if !nt.arena().contains(address) {
        Some("no memory of the kernel")
    } else {
        None
    };
    if let Some(fault) = fault {
        let message =
            format!("{address:#x} is {fault}; only non-paged pool is described, other memory takes IoAllocateMdl");
        call.stop(Rule::BadArgument, message);
    }
    let list = mdl::describe(&call, address, length as usize);
    if !list.is_null() {
        remember(&call, list, Made::ForDriver);
    }
    list
}

pub(super) fn remember(call: &Call, list: Raw<MDL>, made: Made) {
    let mdl = Mdl { driver: Arc::clone(call.driver()), made };
    call.machine().ndis.lock().buffers.mdls.insert(list.address(), mdl);
}

/// Whether a driver's handler gave the MDL, which is so from now on, or not any more.
pub(super) fn set_handled(call: &Call, list: Raw<MDL>, is_handled: bool) {
    let handled = &mut call.machine().ndis.lock().buffers.handled;
    if is_handled {
        handled.insert(list.address());
    } else {
        handled.remove(&list.address());
    }
}

/// Whether a driver's handler gave the MDL.
pub(super) fn is_handled(call: &Call, list: Raw<MDL>) -> bool {
    call.machine().ndis.lock().buffers.handled.contains(&list.address())
}

/// Who frees the MDL, if NDIS knows it.
pub(super) fn made(call: &Call, list: Raw<MDL>) -> Option<Made> {
    call.machine().ndis.lock().buffers.mdls.get(&list.address()).map(|mdl| mdl.made)
}

/// From now on the MDL is nobody's business here.
pub(super) fn forget(call: &Call, list: Raw<MDL>) {
    call.machine().ndis.lock().buffers.mdls.remove(&list.address());
}

extern "efiapi" fn free(list: Raw<MDL>) {
    let call = Call::enter();
    let found = call.machine().ndis.lock().buffers.mdls.get(&list.address()).cloned();
    let mdl = own(&call, found, |mdl| &mdl.driver, list.address(), "MDL of NdisAllocateMdl");
    if mdl.made != Made::ForDriver {
        call.stop(Rule::BadPoolFree, format!("the MDL {list:?} came about otherwise ({:?}), and goes so", mdl.made));
    }
    forget(&call, list);
    give_back(&call, list.address());
}
