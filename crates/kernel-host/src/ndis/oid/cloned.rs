//! Copies of requests that filters pass on: `NdisAllocateCloneOidRequest`.

use std::sync::Arc;

use ndis::NdisStatus;
use ndis::raw::{NDIS_OBJECT_HEADER, NDIS_OID_REQUEST};

use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Driver;
use crate::nt::pool::{PoolKind, Request as PoolRequest};
use crate::nt::raw::{Raw, field};

exports! { pub(in crate::ndis) EXPORTS in "ndis.sys":
    NdisAllocateCloneOidRequest(max 2, fails RETURNS_NDIS_FAILURE) = allocate;
    NdisFreeCloneOidRequest(max 2) = free;
}

/// A copy of a request.
#[derive(Clone, Debug)]
pub(in crate::ndis) struct Clone {
    driver: Arc<Driver>,
    /// The handle that it was made with.
    source: usize,
}

extern "efiapi" fn allocate(
    source: usize,
    request: Raw<NDIS_OID_REQUEST>,
    tag: u32,
    clone_out: Raw<usize>,
) -> NdisStatus {
    let call = Call::enter();
    clone_out.write(0);
    if !is_source(&call, source) {
        return NdisStatus::INVALID_PARAMETER;
    }
    let NDIS_OBJECT_HEADER { Size, .. } = field!(request, NDIS_OID_REQUEST, Header).read();
    // The whole structure, of whatever revision: the driver below may know more than the one above.
    let length = size_of::<NDIS_OID_REQUEST>();
    let block = PoolRequest { kind: PoolKind::NonPaged, length, tag, zeroed: true, cache_aligned: false };
    let address = call.machine().nt.pool().allocate(&call, block);
    if address == 0 {
        return NdisStatus::RESOURCES;
    }
    let bytes = request.cast::<u8>().read_bytes(length.min(usize::from(Size)));
    Raw::<u8>::at(address).write_bytes(&bytes);
    let clone = Clone { driver: Arc::clone(call.driver()), source };
    call.machine().ndis.lock().clones.insert(address, clone);
    clone_out.write(address);
    NdisStatus::SUCCESS
}

/// Whether a handle is a module's or a binding's of the calling driver.
fn is_source(call: &Call, handle: usize) -> bool {
    let state = call.machine().ndis.lock();
    let is_module = state.modules.get(&handle).is_some_and(|module| Arc::ptr_eq(&module.filter.driver, call.driver()));
    let is_its = |binding: &&Arc<crate::ndis::protocol::Binding>| {
        binding.handle == handle && Arc::ptr_eq(&binding.protocol.driver, call.driver())
    };
    is_module || state.bindings.iter().any(|binding| is_its(&binding))
}

extern "efiapi" fn free(source: usize, request: Raw<NDIS_OID_REQUEST>) {
    let call = Call::enter();
    let clone = call.machine().ndis.lock().clones.get(&request.address()).cloned();
    let Some(clone) = clone.filter(|clone| Arc::ptr_eq(&clone.driver, call.driver())) else {
        call.stop(Rule::BadPoolFree, format!("{request:?} is no cloned request of this driver, or one that is freed"));
    };
    if clone.source != source {
        let message = format!("SourceHandle is {source:#x}, but the clone was made with {:#x}", clone.source);
        call.stop(Rule::BadArgument, message);
    }
    // A request that is under way is found here: the pool asks who uses the memory.
    call.machine().nt.pool().free(&call, request.address(), 0);
    call.machine().ndis.lock().clones.remove(&request.address());
}
