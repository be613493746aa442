//! `NdisCancelOidRequest`, and what happens when the time of a request is over.

use std::sync::Arc;

use ndis::NdisStatus;

use super::{Progress, Request};
use crate::ddi::{Call, exports};
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
    call.detail(format_args!("{id:#x}"));
    for request in binding.port.requests.of(&binding) {
        if request.id == id && request.is_direct == is_direct {
            binding.port.cancel(call.thread(), &request);
        }
    }
}

impl Port {
    /// Cancels one request: one that still waits is complete at once, the miniport is asked to give up the one it works on.
    pub(super) fn cancel(&self, thread: &Thread, request: &Arc<Request>) {
        if request.advance(Progress::Waiting, Progress::Withdrawn) {
            self.requests.remove(request);
            // A stop is recorded in the machine.
            let _ = request.tell(thread, NdisStatus::REQUEST_ABORTED);
            return;
        }
        if request.progress() != Progress::Working {
            return;
        }
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
}
