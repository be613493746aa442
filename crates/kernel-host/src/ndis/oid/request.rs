//! Requests of protocols: `NdisOidRequest`, `NdisDirectOidRequest`, and the way to the miniport.

use std::sync::Arc;
use std::time::Duration;

use ndis::NdisStatus;
use ndis::raw::{
    NDIS_OBJECT_HEADER, NDIS_OBJECT_TYPE_OID_REQUEST, NDIS_OID_REQUEST, NDIS_SIZEOF_OID_REQUEST_REVISION_1,
    NDIS_SIZEOF_OID_REQUEST_REVISION_2,
};

use super::{Progress, Request, Transfer, answer};
use crate::ddi::{Call, exports};
use crate::finding::{Rule, Stopped};
use crate::ndis::port::Port;
use crate::ndis::protocol::Binding;
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

exports! { pub(in crate::ndis) EXPORTS in "ndis.sys":
    NdisOidRequest(max 2, fails NDIS_RESOURCES) = oid_request;
    NdisDirectOidRequest(max 2, fails NDIS_RESOURCES) = direct_oid_request;
}

extern "efiapi" fn oid_request(handle: usize, request: Raw<NDIS_OID_REQUEST>) -> NdisStatus {
    let call = Call::enter();
    let binding = call.machine().ndis.binding(&call, handle);
    submit(&call, &binding, request, false)
}

extern "efiapi" fn direct_oid_request(handle: usize, request: Raw<NDIS_OID_REQUEST>) -> NdisStatus {
    let call = Call::enter();
    let binding = call.machine().ndis.binding(&call, handle);
    let is_ready = binding.protocol.callbacks.0.DirectOidRequestCompleteHandler.is_some();
    let is_served = binding.port.miniport.callbacks.0.DirectOidRequestHandler.is_some();
    if !is_ready || !is_served {
        return NdisStatus::NOT_SUPPORTED;
    }
    submit(&call, &binding, request, true)
}

fn submit(call: &Call, binding: &Arc<Binding>, raw: Raw<NDIS_OID_REQUEST>, is_direct: bool) -> NdisStatus {
    let port = &binding.port;
    check_structure(call, raw);
    let Some(transfer) = Transfer::of(raw) else { return NdisStatus::INVALID_PARAMETER };
    call.detail(transfer);
    if !binding.is_open() {
        call.stop(Rule::BadState, "the open of the binding is not complete: no OID request is legal before that");
    }
    if let Some(twice) = port.requests.at(raw.address()) {
        call.stop(Rule::BadState, format!("{raw:?} is under way already ({twice}); it is NDIS's until it completes"));
    }
    check_memory(call, raw.address(), "the request");
    if transfer.input.max(transfer.output) > 0 {
        check_memory(call, transfer.buffer, "the information buffer");
    }
    let state = port.lock();
    let (is_resetting, is_asleep, is_closing) = (state.is_resetting, state.is_asleep, state.is_closing);
    drop(state);
    if is_resetting {
        return NdisStatus::RESET_IN_PROGRESS;
    }
    if is_asleep {
        return NdisStatus::LOW_POWER_STATE;
    }
    if is_closing {
        return NdisStatus::CLOSING;
    }
    if let Some((status, done)) = answer::by_ndis(binding, transfer) {
        transfer.set_done(raw, done);
        return status;
    }
    field!(raw, NDIS_OID_REQUEST, RequestHandle).write(Raw::at(binding.handle).pointer());
    let mut request = Request::new(raw.address(), transfer, Some(Arc::clone(binding)));
    request.id = field!(raw, NDIS_OID_REQUEST, RequestId).read().addr();
    request.timeout = field!(raw, NDIS_OID_REQUEST, Timeout).read();
    request.is_direct = is_direct;
    if !is_direct && !answer::combine(call.thread(), &mut request) {
        return NdisStatus::RESOURCES;
    }
    let request = Arc::new(request);
    let is_first = port.requests.add(&request);
    if is_direct || is_first && call.thread().irql() == 0 {
        // A stop does not come back here.
        return port.hand_over(call.thread(), &request).unwrap_or(NdisStatus::FAILURE);
    }
    let (machine, port) = (Arc::clone(call.machine()), Arc::clone(port));
    std::thread::spawn(move || Thread::enter(&machine, |thread| port.hand_over_in_turn(thread, &request)));
    NdisStatus::PENDING
}

/// The header says what the structure is; a wrong one is a wrong structure.
fn check_structure(call: &Call, raw: Raw<NDIS_OID_REQUEST>) {
    let header: NDIS_OBJECT_HEADER = field!(raw, NDIS_OID_REQUEST, Header).read();
    let size = match header.Revision {
        1 => NDIS_SIZEOF_OID_REQUEST_REVISION_1,
        _ => NDIS_SIZEOF_OID_REQUEST_REVISION_2,
    };
    if header.Type != NDIS_OBJECT_TYPE_OID_REQUEST || header.Revision == 0 || header.Size < size {
        let NDIS_OBJECT_HEADER { Type, Revision, Size } = header;
        let message = format!("{raw:?} is no NDIS_OID_REQUEST: type {Type:#x}, revision {Revision}, size {Size}");
        call.stop(Rule::BadArgument, message);
    }
}

/// Drivers below may touch a request at `DISPATCH_LEVEL`.
fn check_memory(call: &Call, address: usize, what: &str) {
    if call.machine().nt.pool().is_paged(address) {
        call.stop(Rule::BadArgument, format!("{what} at {address:#x} is in paged pool; it must be non-paged"));
    }
}

impl Port {
    /// Gives a request to the miniport; its status, or that of the call when the miniport pended it.
    ///
    /// # Errors
    /// The machine stopped.
    pub(super) fn hand_over(&self, thread: &Thread, request: &Arc<Request>) -> Result<NdisStatus, Stopped> {
        let callbacks = &self.miniport.callbacks.0;
        let (handler, callback) = if request.is_direct {
            (callbacks.DirectOidRequestHandler, "MiniportDirectOidRequest")
        } else {
            (callbacks.OidRequestHandler, "MiniportOidRequest")
        };
        let irql = if request.is_direct { thread.irql() } else { 0 };
        request.advance(Progress::Waiting, Progress::Working);
        self.lock().hang_checks = 0;
        let returned = match handler {
            None => NdisStatus::NOT_SUPPORTED,
            Some(handler) => {
                let (context, argument) = (self.context(), Raw::at(request.address).pointer());
                thread.call_driver(&self.miniport.driver, callback, irql, || {
                    // SAFETY: the driver's callback, with the arguments that its page documents.
                    unsafe { handler(context, argument) }
                })?
            }
        };
        if returned == NdisStatus::PENDING {
            limit(thread, request);
            return Ok(returned);
        }
        if !request.advance(Progress::Working, Progress::Ending) {
            let message = format!("{request}: completed with a call, although the callback returned {returned}");
            return Err(super::super::find(thread, &self.miniport.driver, Rule::BadState, callback, message));
        }
        let fault = request.finish(returned);
        self.requests.remove(request);
        request.advance(Progress::Ending, Progress::Done(returned));
        match fault {
            Some(fault) => Err(super::super::find(thread, &self.miniport.driver, Rule::BadArgument, callback, fault)),
            None => Ok(returned),
        }
    }

    /// As [`Port::hand_over`] on a thread of NDIS's own, for a protocol that was told to wait.
    fn hand_over_in_turn(&self, thread: &Thread, request: &Arc<Request>) {
        let Ok(true) = self.requests.wait_turn(thread.machine(), request) else { return };
        // A stop is recorded in the machine; this thread just ends.
        if let Ok(status) = self.hand_over(thread, request)
            && status != NdisStatus::PENDING
        {
            let _ = request.tell(thread, status);
        }
    }
}

/// Has the request cancelled when its time is over.
fn limit(thread: &Thread, request: &Arc<Request>) {
    let Some(binding) = request.binding.clone().filter(|_| request.timeout > 0) else { return };
    let (machine, request) = (Arc::clone(thread.machine()), Arc::clone(request));
    let time = Duration::from_secs(u64::from(request.timeout));
    std::thread::spawn(move || {
        if let Ok(None) = request.outcome(&machine, time) {
            Thread::enter(&machine, |thread| binding.port.cancel(thread, &request));
        }
    });
}
