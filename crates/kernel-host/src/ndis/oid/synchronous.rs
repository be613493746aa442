//! Synchronous OID requests: `NdisSynchronousOidRequest`.
//!
//! Each filter sees the request on its way down and may end it there; those that saw it see its status on the way up.

use std::ffi::c_void;

use ndis::NdisStatus;
use ndis::raw::NDIS_OID_REQUEST;

use super::Transfer;
use super::request::check_structure;
use crate::ddi::{Call, exports};
use crate::finding::{Rule, Stopped};
use crate::machine::Driver;
use crate::ndis::filter::Module;
use crate::ndis::port::Port;
use crate::nt::raw::Raw;
use crate::thread::Thread;

exports! { pub(in crate::ndis) EXPORTS in "ndis.sys":
    NdisSynchronousOidRequest(max 2, fails NDIS_RESOURCES) = of_binding;
    NdisFSynchronousOidRequest(max 2, fails NDIS_RESOURCES) = of_filter;
}

extern "efiapi" fn of_binding(handle: usize, request: Raw<NDIS_OID_REQUEST>) -> NdisStatus {
    let call = Call::enter();
    let binding = call.machine().ndis.binding(&call, handle);
    ask(&call, &binding.port, None, request)
}

extern "efiapi" fn of_filter(handle: usize, request: Raw<NDIS_OID_REQUEST>) -> NdisStatus {
    let call = Call::enter();
    let module = call.machine().ndis.module(&call, handle);
    ask(&call, &module.port, Some(&module), request)
}

fn ask(call: &Call, port: &Port, from: Option<&Module>, request: Raw<NDIS_OID_REQUEST>) -> NdisStatus {
    check_structure(call, request);
    let Some(transfer) = Transfer::of(request) else { return NdisStatus::INVALID_PARAMETER };
    call.detail(transfer);
    // A stop does not come back here.
    port.pass_synchronous(call.thread(), from, request).unwrap_or(NdisStatus::FAILURE)
}

impl Port {
    /// Passes a request to all below `from`, and its status back up.
    fn pass_synchronous(
        &self,
        thread: &Thread,
        from: Option<&Module>,
        request: Raw<NDIS_OID_REQUEST>,
    ) -> Result<NdisStatus, Stopped> {
        let next = self.below(from, |module| {
            let callbacks = module.callbacks();
            callbacks.SynchronousOidRequestHandler.is_some() || callbacks.SynchronousOidRequestCompleteHandler.is_some()
        });
        let Some(module) = next else { return self.ask_miniport_synchronously(thread, request) };
        let mut context: *mut c_void = std::ptr::null_mut();
        let mut ended = None;
        if let Some(handler) = module.callbacks().SynchronousOidRequestHandler {
            let (module_context, slot) = (module.context(), &raw mut context);
            let returned = module.call(thread, "FilterSynchronousOidRequest", thread.irql(), || {
                // SAFETY: the driver's callback, with the arguments that its page documents.
                unsafe { handler(module_context, request.pointer(), slot) }
            })?;
            // The page: success means to go on, any other status is the end, and one of them a good one.
            ended = match returned {
                NdisStatus::SUCCESS => None,
                NdisStatus::ALREADY_COMPLETE => Some(NdisStatus::SUCCESS),
                refused => Some(refused),
            };
        }
        if let Some(status) = ended {
            return final_status(thread, &module.filter.driver, "FilterSynchronousOidRequest", status);
        }
        let mut status = self.pass_synchronous(thread, Some(&module), request)?;
        if let Some(handler) = module.callbacks().SynchronousOidRequestCompleteHandler {
            let (module_context, slot) = (module.context(), &raw mut status);
            module.call(thread, "FilterSynchronousOidRequestComplete", thread.irql(), || {
                // SAFETY: the driver's callback, with the arguments that its page documents.
                unsafe { handler(module_context, request.pointer(), slot, context) }
            })?;
        }
        final_status(thread, &module.filter.driver, "FilterSynchronousOidRequestComplete", status)
    }

    fn ask_miniport_synchronously(
        &self,
        thread: &Thread,
        request: Raw<NDIS_OID_REQUEST>,
    ) -> Result<NdisStatus, Stopped> {
        let Some(handler) = self.miniport.callbacks.0.SynchronousOidRequestHandler else {
            return Ok(NdisStatus::NOT_SUPPORTED);
        };
        let context = self.context();
        let status =
            thread.call_driver(&self.miniport.driver, "MiniportSynchronousOidRequest", thread.irql(), || {
                // SAFETY: the driver's callback, with the arguments that its page documents.
                unsafe { handler(context, request.pointer()) }
            })?;
        final_status(thread, &self.miniport.driver, "MiniportSynchronousOidRequest", status)
    }
}

/// A synchronous request cannot be pended.
fn final_status(thread: &Thread, driver: &Driver, callback: &str, status: NdisStatus) -> Result<NdisStatus, Stopped> {
    if status != NdisStatus::PENDING {
        return Ok(status);
    }
    let message = "a synchronous OID request was answered NDIS_STATUS_PENDING".to_owned();
    Err(crate::ndis::find(thread, driver, Rule::BadState, callback, message))
}
