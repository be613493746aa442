//! Requests of protocols: `NdisOidRequest`, `NdisDirectOidRequest`, and the way to the miniport.

use std::sync::Arc;
use std::time::Duration;

use ndis::NdisStatus;
use ndis::raw::{
    MINIPORT_OID_REQUEST, NDIS_OBJECT_HEADER, NDIS_OBJECT_TYPE_OID_REQUEST, NDIS_OID_REQUEST,
    NDIS_SIZEOF_OID_REQUEST_REVISION_1, NDIS_SIZEOF_OID_REQUEST_REVISION_2,
};

use super::{Progress, Request, Transfer, answer};
use crate::ddi::{Call, exports};
use crate::finding::{Rule, Stopped};
use crate::machine::Driver;
use crate::ndis::filter::Module;
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
    submit(&call, &Source::Binding(binding), request, false)
}

extern "efiapi" fn direct_oid_request(handle: usize, request: Raw<NDIS_OID_REQUEST>) -> NdisStatus {
    let call = Call::enter();
    let binding = call.machine().ndis.binding(&call, handle);
    let is_ready = binding.protocol.callbacks.0.DirectOidRequestCompleteHandler.is_some();
    if !is_ready {
        return NdisStatus::NOT_SUPPORTED;
    }
    submit(&call, &Source::Binding(binding), request, true)
}

/// Who asks.
pub(in crate::ndis) enum Source {
    Binding(Arc<Binding>),
    Filter(Arc<Module>),
}

impl Source {
    fn port(&self) -> &Arc<Port> {
        match self {
            Self::Binding(binding) => &binding.port,
            Self::Filter(module) => &module.port,
        }
    }

    fn binding(&self) -> Option<&Arc<Binding>> {
        match self {
            Self::Binding(binding) => Some(binding),
            Self::Filter(_) => None,
        }
    }

    fn filter(&self) -> Option<&Arc<Module>> {
        match self {
            Self::Binding(_) => None,
            Self::Filter(module) => Some(module),
        }
    }

    fn handle(&self) -> usize {
        match self {
            Self::Binding(binding) => binding.handle,
            Self::Filter(module) => module.handle,
        }
    }
}

/// Gives a request to the next driver below who asks that takes such requests.
pub(in crate::ndis) fn submit(call: &Call, source: &Source, raw: Raw<NDIS_OID_REQUEST>, is_direct: bool) -> NdisStatus {
    let port = source.port();
    check_structure(call, raw);
    let Some(transfer) = Transfer::of(raw) else { return NdisStatus::INVALID_PARAMETER };
    call.detail(transfer);
    if source.binding().is_some_and(|binding| !binding.is_open()) {
        call.stop(Rule::BadState, "the open of the binding is not complete: no OID request is legal before that");
    }
    if let Some(twice) = port.all_requests().iter().find(|other| other.is_at(raw.address())) {
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
    let server = port.below(source.filter().map(|module| &**module), |module| {
        let callbacks = module.callbacks();
        if is_direct { callbacks.DirectOidRequestHandler.is_some() } else { callbacks.OidRequestHandler.is_some() }
    });
    if server.is_none() {
        if is_direct && port.miniport.callbacks.0.DirectOidRequestHandler.is_none() {
            return NdisStatus::NOT_SUPPORTED;
        }
        if let Some((status, done)) = answer::by_ndis(port, source.binding().map(|binding| &**binding), transfer) {
            transfer.set_done(raw, done);
            return status;
        }
    }
    field!(raw, NDIS_OID_REQUEST, RequestHandle).write(Raw::at(source.handle()).pointer());
    let mut request = Request::new(raw.address(), transfer, source.binding().cloned());
    request.filter = source.filter().cloned();
    request.server = server;
    request.id = field!(raw, NDIS_OID_REQUEST, RequestId).read().addr();
    request.timeout = field!(raw, NDIS_OID_REQUEST, Timeout).read();
    request.is_direct = is_direct;
    if !is_direct && !answer::combine(call.thread(), &mut request) {
        return NdisStatus::RESOURCES;
    }
    let request = Arc::new(request);
    let is_first = port.queue_of(&request).add(&request);
    // Miniports are asked at PASSIVE_LEVEL only, filters at any level up to DISPATCH_LEVEL.
    if is_direct || is_first && (call.thread().irql() == 0 || request.server.is_some()) {
        // A stop does not come back here.
        return port.hand_over(call.thread(), &request).unwrap_or(NdisStatus::FAILURE);
    }
    let (machine, port) = (Arc::clone(call.machine()), Arc::clone(port));
    std::thread::spawn(move || Thread::enter(&machine, |thread| port.hand_over_in_turn(thread, &request)));
    NdisStatus::PENDING
}

/// The header says what the structure is; a wrong one is a wrong structure.
pub(super) fn check_structure(call: &Call, raw: Raw<NDIS_OID_REQUEST>) {
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

/// A driver's callback for requests.
struct Target<'a> {
    driver: &'a Arc<Driver>,
    context: *mut std::ffi::c_void,
    handler: Option<MINIPORT_OID_REQUEST>,
    callback: &'static str,
}

impl Port {
    /// Gives a request to the miniport, or to the filter that is asked; its status, or that of the call when it was pended.
    ///
    /// # Errors
    /// The machine stopped.
    pub(super) fn hand_over(&self, thread: &Thread, request: &Arc<Request>) -> Result<NdisStatus, Stopped> {
        let target = self.target(request);
        let irql = if request.is_direct || request.server.is_some() { thread.irql() } else { 0 };
        let (driver, callback) = (target.driver, target.callback);
        request.advance(Progress::Waiting, Progress::Working);
        if request.server.is_none() {
            self.lock().hang_checks = 0;
        }
        let returned = match target.handler {
            None => NdisStatus::NOT_SUPPORTED,
            Some(handler) => {
                let argument = Raw::at(request.address).pointer();
                thread.call_driver(driver, callback, irql, || {
                    // SAFETY: the driver's callback, with the arguments that its page documents.
                    unsafe { handler(target.context, argument) }
                })?
            }
        };
        if returned == NdisStatus::PENDING {
            limit(thread, request);
            return Ok(returned);
        }
        if !request.advance(Progress::Working, Progress::Ending) {
            let message = format!("{request}: completed with a call, although the callback returned {returned}");
            return Err(super::super::find(thread, driver, Rule::BadState, callback, message));
        }
        let fault = request.finish(returned);
        self.queue_of(request).remove(request);
        request.advance(Progress::Ending, Progress::Done(returned));
        match fault {
            Some(fault) => Err(super::super::find(thread, driver, Rule::BadArgument, callback, fault)),
            None => Ok(returned),
        }
    }

    /// What to call for a request.
    fn target<'a>(&'a self, request: &'a Request) -> Target<'a> {
        if let Some(module) = &request.server {
            let callbacks = module.callbacks();
            let (handler, callback) = if request.is_direct {
                (callbacks.DirectOidRequestHandler, "FilterDirectOidRequest")
            } else {
                (callbacks.OidRequestHandler, "FilterOidRequest")
            };
            return Target { driver: &module.filter.driver, context: module.context(), handler, callback };
        }
        let callbacks = &self.miniport.callbacks.0;
        let (handler, callback) = if request.is_direct {
            (callbacks.DirectOidRequestHandler, "MiniportDirectOidRequest")
        } else {
            (callbacks.OidRequestHandler, "MiniportOidRequest")
        };
        Target { driver: &self.miniport.driver, context: self.context(), handler, callback }
    }

    /// As [`Port::hand_over`] on a thread of NDIS's own, for a protocol that was told to wait.
    fn hand_over_in_turn(&self, thread: &Thread, request: &Arc<Request>) {
        let Ok(true) = self.queue_of(request).wait_turn(thread.machine(), request) else { return };
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
    let port = request.binding.as_ref().map(|binding| &binding.port);
    let port = port.or(request.filter.as_ref().map(|module| &module.port)).filter(|_| request.timeout > 0).cloned();
    let Some(port) = port else { return };
    let (machine, request) = (Arc::clone(thread.machine()), Arc::clone(request));
    let time = Duration::from_secs(u64::from(request.timeout));
    std::thread::spawn(move || {
        if let Ok(None) = request.outcome(&machine, time) {
            Thread::enter(&machine, |thread| port.cancel(thread, &request));
        }
    });
}
