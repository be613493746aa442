//! OID requests of filters.

use ndis::NdisStatus;
use ndis::raw::{
    NDIS_OBJECT_HEADER, NDIS_OBJECT_TYPE_OID_REQUEST, NDIS_OID_REQUEST, NDIS_SIZEOF_OID_REQUEST_REVISION_1,
};

use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::ndis::oid::{Source, cancel_all, complete, submit};
use crate::nt::raw::{Raw, field};

exports! { pub(in crate::ndis) EXPORTS in "ndis.sys":
    NdisFOidRequest(max 2, fails NDIS_RESOURCES) = oid_request;
    NdisFOidRequestComplete(max 2) = oid_request_complete;
    NdisFCancelOidRequest(max 2) = cancel_oid_request;
    NdisFDirectOidRequest(max 2, fails NDIS_RESOURCES) = direct_oid_request;
    NdisFDirectOidRequestComplete(max 2) = direct_oid_request_complete;
    NdisFCancelDirectOidRequest(max 2) = cancel_direct_oid_request;
}

extern "efiapi" fn oid_request(handle: usize, request: Raw<NDIS_OID_REQUEST>) -> NdisStatus {
    pass(&Call::enter(), handle, request, false)
}

extern "efiapi" fn direct_oid_request(handle: usize, request: Raw<NDIS_OID_REQUEST>) -> NdisStatus {
    pass(&Call::enter(), handle, request, true)
}

fn pass(call: &Call, handle: usize, request: Raw<NDIS_OID_REQUEST>, is_direct: bool) -> NdisStatus {
    let module = call.machine().ndis.module(call, handle);
    module.check_attached(call, "an OID request");
    let NDIS_OBJECT_HEADER { Type, Size, .. } = field!(request, NDIS_OID_REQUEST, Header).read();
    if Type != NDIS_OBJECT_TYPE_OID_REQUEST || Size < NDIS_SIZEOF_OID_REQUEST_REVISION_1 {
        return NdisStatus::INVALID_PARAMETER;
    }
    let callbacks = module.callbacks();
    let (is_ready, callback) = if is_direct {
        (callbacks.DirectOidRequestCompleteHandler.is_some(), "FilterDirectOidRequestComplete")
    } else {
        (callbacks.OidRequestCompleteHandler.is_some(), "FilterOidRequestComplete")
    };
    if !is_ready {
        call.stop(Rule::BadState, format!("the filter registered no {callback}, which such requests need"));
    }
    submit(call, &Source::Filter(module), request, is_direct)
}

extern "efiapi" fn oid_request_complete(handle: usize, request: usize, status: NdisStatus) {
    finish(&Call::enter(), handle, request, status, false);
}

extern "efiapi" fn direct_oid_request_complete(handle: usize, request: usize, status: NdisStatus) {
    finish(&Call::enter(), handle, request, status, true);
}

fn finish(call: &Call, handle: usize, request: usize, status: NdisStatus, is_direct: bool) {
    let module = call.machine().ndis.module(call, handle);
    complete(call, &module.requests, &module.name, request, status, is_direct);
}

extern "efiapi" fn cancel_oid_request(handle: usize, id: usize) {
    cancel(&Call::enter(), handle, id, false);
}

extern "efiapi" fn cancel_direct_oid_request(handle: usize, id: usize) {
    cancel(&Call::enter(), handle, id, true);
}

fn cancel(call: &Call, handle: usize, id: usize, is_direct: bool) {
    let module = call.machine().ndis.module(call, handle);
    cancel_all(call, &module.port, &module.port.requests_by(&module), id, is_direct);
}
