//! The end of a request: what the miniport says, and who is told.

use std::sync::Arc;

use ndis::NdisStatus;
use ndis::raw::NDIS_OID_REQUEST;

use super::{Progress, Request, Requests};
use crate::ddi::{Call, exports};
use crate::finding::{Rule, Stopped};
use crate::ndis::filter::Module;
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

exports! { pub(in crate::ndis) EXPORTS in "ndis.sys":
    NdisMOidRequestComplete(max 2) = oid_request_complete;
    NdisMDirectOidRequestComplete(max 2) = direct_oid_request_complete;
}

extern "efiapi" fn oid_request_complete(handle: usize, request: usize, status: NdisStatus) {
    let call = Call::enter();
    let port = call.machine().ndis.port(&call, handle);
    complete(&call, &port.requests, &port.name, request, status, false);
}

extern "efiapi" fn direct_oid_request_complete(handle: usize, request: usize, status: NdisStatus) {
    let call = Call::enter();
    let port = call.machine().ndis.port(&call, handle);
    complete(&call, &port.requests, &port.name, request, status, true);
}

/// Completes one of the requests of a miniport's adapter, or of a filter's module, with that name.
pub(in crate::ndis) fn complete(
    call: &Call,
    requests: &Requests,
    name: &str,
    address: usize,
    status: NdisStatus,
    is_direct: bool,
) {
    call.detail(status);
    if status == NdisStatus::PENDING {
        call.stop(Rule::BadArgument, "NDIS_STATUS_PENDING is no final status");
    }
    let request = requests.at(address).filter(|request| request.is_direct == is_direct);
    let Some(request) = request else {
        call.stop(Rule::BadState, format!("{address:#x} is no request that {name} works on, or one that is complete"));
    };
    if !request.advance(Progress::Working, Progress::Ending) {
        call.stop(Rule::BadState, format!("{request} is completed already"));
    }
    if let Some(fault) = request.finish(status) {
        call.stop(Rule::BadArgument, fault);
    }
    requests.remove(&request);
    // From now on the requester may free everything.
    request.advance(Progress::Ending, Progress::Done(status));
    // A stop does not come back here.
    let _ = request.tell(call.thread(), status);
}

impl Request {
    /// Brings the answer to where the requester looks; what is wrong with it, if anything is.
    pub(super) fn finish(&self, status: NdisStatus) -> Option<String> {
        let done = self.transfer.done(Raw::at(self.address));
        if !self.copies.is_empty() {
            let (from, to) = (Raw::<NDIS_OID_REQUEST>::at(self.address), Raw::<NDIS_OID_REQUEST>::at(self.original));
            self.transfer.set_done(to, done);
            field!(to, NDIS_OID_REQUEST, SupportedRevision)
                .write(field!(from, NDIS_OID_REQUEST, SupportedRevision).read());
        }
        if status == NdisStatus::SUCCESS {
            super::answer::learn(self);
        }
        self.transfer.fault(status, done)
    }

    /// `ProtocolOidRequestComplete` or `FilterOidRequestComplete`, at the present IRQL. The machine's own requests have nobody to be
    /// told.
    ///
    /// # Errors
    /// The machine stopped.
    pub(super) fn tell(self: &Arc<Self>, thread: &Thread, status: NdisStatus) -> Result<(), Stopped> {
        if let Some(module) = &self.filter {
            return self.tell_filter(thread, module, status);
        }
        let Some(binding) = &self.binding else { return Ok(()) };
        let callbacks = &binding.protocol.callbacks.0;
        let (handler, callback) = if self.is_direct {
            (callbacks.DirectOidRequestCompleteHandler, "ProtocolDirectOidRequestComplete")
        } else {
            (callbacks.OidRequestCompleteHandler, "ProtocolOidRequestComplete")
        };
        let Some(handler) = handler else { return Ok(()) };
        let (context, argument) = (Raw::at(binding.context).pointer(), Raw::at(self.original).pointer());
        thread.call_driver(&binding.protocol.driver, callback, thread.irql(), || {
            // SAFETY: the driver's callback, with the arguments that its page documents.
            unsafe { handler(context, argument, status) }
        })
    }

    fn tell_filter(&self, thread: &Thread, module: &Module, status: NdisStatus) -> Result<(), Stopped> {
        let callbacks = module.callbacks();
        let (handler, callback) = if self.is_direct {
            (callbacks.DirectOidRequestCompleteHandler, "FilterDirectOidRequestComplete")
        } else {
            (callbacks.OidRequestCompleteHandler, "FilterOidRequestComplete")
        };
        let Some(handler) = handler else { return Ok(()) };
        let (context, argument) = (module.context(), Raw::at(self.original).pointer());
        module.call(thread, callback, thread.irql(), || {
            // SAFETY: the driver's callback, with the arguments that its page documents.
            unsafe { handler(context, argument, status) }
        })
    }
}
