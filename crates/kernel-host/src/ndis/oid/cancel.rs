//! `NdisCancelOidRequest`, and what happens when the time of a request is over.

use std::sync::Arc;

use ndis::NdisStatus;

use super::{Progress, Request};
use crate::ddi::{Call, exports};
use crate::ndis::filter::Module;
use crate::ndis::port::Port;
use crate::nt::raw::Raw;
use crate::thread::Thread;

exports! { pub(in crate::ndis) EXPORTS in "ndis.sys":
    NdisCancelOidRequest(max 2) = cancel_oid_request;
    NdisCancelDirectOidRequest(max 2) = cancel_direct_oid_request;
}

extern "efiapi" fn cancel_oid_request(handle: usize, id: usize) {
    cancel(&Call::enter(), handle, id, false);
}

extern "efiapi" fn cancel_direct_oid_request(handle: usize, id: usize) {
    cancel(&Call::enter(), handle, id, true);
}

fn cancel(call: &Call, handle: usize, id: usize, is_direct: bool) {
    let binding = call.machine().ndis.binding(call, handle);
    cancel_all(call, &binding.port, &binding.port.requests_of(&binding), id, is_direct);
}

/// Cancels those of the requests that have the identifier.
pub(in crate::ndis) fn cancel_all(call: &Call, port: &Port, requests: &[Arc<Request>], id: usize, is_direct: bool) {
    call.detail(format_args!("{id:#x}"));
    for request in requests.iter().filter(|request| request.id == id && request.is_direct == is_direct) {
        port.cancel(call.thread(), request);
    }
}

impl Port {
    /// Cancels one request: one that still waits is complete at once, who works on one is asked to give it up.
    pub(super) fn cancel(&self, thread: &Thread, request: &Arc<Request>) {
        if request.advance(Progress::Waiting, Progress::Withdrawn) {
            self.queue_of(request).remove(request);
            // A stop is recorded in the machine.
            let _ = request.tell(thread, NdisStatus::REQUEST_ABORTED);
            return;
        }
        if request.progress() != Progress::Working {
            return;
        }
        match &request.server {
            None => self.cancel_in_miniport(thread, request),
            Some(module) => self.cancel_in_filter(thread, request, module),
        }
    }

    fn cancel_in_miniport(&self, thread: &Thread, request: &Request) {
        let callbacks = &self.miniport.callbacks.0;
        let (handler, callback) = if request.is_direct {
            (callbacks.CancelDirectOidRequestHandler, "MiniportCancelDirectOidRequest")
        } else {
            (callbacks.CancelOidRequestHandler, "MiniportCancelOidRequest")
        };
        let Some(handler) = handler else { return };
        let (context, id) = (self.context(), Raw::at(request.id).pointer());
        let _ = thread.call_driver(&self.miniport.driver, callback, thread.irql(), || {
            // SAFETY: the driver's callback, with the arguments that its page documents.
            unsafe { handler(context, id) }
        });
    }

    fn cancel_in_filter(&self, thread: &Thread, request: &Request, module: &Module) {
        let callbacks = module.callbacks();
        let (handler, callback) = if request.is_direct {
            (callbacks.CancelDirectOidRequestHandler, "FilterCancelDirectOidRequest")
        } else {
            (callbacks.CancelOidRequestHandler, "FilterCancelOidRequest")
        };
        let Some(handler) = handler else {
            // The page: without a handler, what the filter has sent on is cancelled below.
            let is_same = |other: &&Arc<Request>| other.id == request.id && other.is_direct == request.is_direct;
            self.requests_by(module).iter().filter(is_same).for_each(|below| self.cancel(thread, below));
            return;
        };
        let (context, id) = (module.context(), Raw::at(request.id).pointer());
        let _ = module.call(thread, callback, thread.irql(), || {
            // SAFETY: the driver's callback, with the arguments that its page documents.
            unsafe { handler(context, id) }
        });
    }
}
