//! OID requests of protocols.

use std::time::Duration;

use super::protocol::{close, current};
use super::*;
use crate::nt::raw::field;
use crate::thread::Thread;

const CUSTOM: u32 = 0xFF46_5702;

/// A request and its buffer, leaked: what a protocol allocates.
pub(super) struct Ask {
    pub(super) request: usize,
    buffer: usize,
}

impl Ask {
    pub(super) fn new(kind: u32, oid: u32, value: &[u8]) -> Self {
        let buffer = Box::leak(value.to_vec().into_boxed_slice()).as_mut_ptr().expose_provenance();
        // SAFETY: all-zero bytes are a valid request.
        let mut request: NDIS_OID_REQUEST = unsafe { std::mem::zeroed() };
        request.Header = NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_OID_REQUEST, 1, NDIS_SIZEOF_OID_REQUEST_REVISION_1);
        request.RequestType = kind;
        request.DATA.QUERY_INFORMATION = NDIS_OID_TRANSFER {
            Oid: oid,
            InformationBuffer: Raw::at(buffer).pointer(),
            InformationBufferLength: value.len() as u32,
            BytesDone: 0,
            BytesNeeded: 0,
        };
        let request = std::ptr::from_mut(Box::leak(Box::new(request))).expose_provenance();
        Self { request, buffer }
    }

    pub(super) fn query(oid: u32, room: usize) -> Self {
        Self::new(NdisRequestQueryInformation, oid, &vec![0; room])
    }

    fn raw(&self) -> Raw<NDIS_OID_REQUEST> {
        Raw::at(self.request)
    }

    fn with_id(self, id: usize) -> Self {
        field!(self.raw(), NDIS_OID_REQUEST, RequestId).write(Raw::at(id).pointer());
        self
    }

    pub(super) fn send(&self) -> NdisStatus {
        send(current().binding(), self.request)
    }

    fn done(&self) -> NDIS_OID_TRANSFER {
        field!(self.raw(), NDIS_OID_REQUEST, DATA).cast().read()
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        Raw::<u8>::at(self.buffer).read_bytes(self.done().BytesDone as usize)
    }
}

pub(super) fn send(binding: usize, request: usize) -> NdisStatus {
    call_ddi!("NdisOidRequest", fn(usize, usize) -> NdisStatus, binding, request)
}

fn cancel(binding: usize, id: usize) {
    call_ddi!("NdisCancelOidRequest", fn(usize, usize), binding, id);
}

fn complete(handle: usize, request: usize, status: NdisStatus) {
    call_ddi!("NdisMOidRequestComplete", fn(usize, usize, NdisStatus), handle, request, status);
}

pub(super) fn transfer(request: usize) -> Raw<NDIS_OID_TRANSFER> {
    field!(Raw::<NDIS_OID_REQUEST>::at(request), NDIS_OID_REQUEST, DATA).cast()
}

/// What a miniport does that answers `bytes` to a query.
fn answer(request: usize, bytes: &[u8]) -> NdisStatus {
    let to = transfer(request);
    let data = to.read();
    if (data.InformationBufferLength as usize) < bytes.len() {
        to.write(NDIS_OID_TRANSFER { BytesNeeded: bytes.len() as u32, ..data });
        return NdisStatus::BUFFER_TOO_SHORT;
    }
    Raw::<u8>::of(data.InformationBuffer.cast()).write_bytes(bytes);
    to.write(NDIS_OID_TRANSFER { BytesDone: bytes.len() as u32, ..data });
    NdisStatus::SUCCESS
}

/// Runs `body` as code of the test's driver, on a thread of its own.
fn elsewhere(nic: &Nic, body: impl FnOnce() + Send + 'static) {
    let (machine, driver) = (nic.bench.machine().clone(), Arc::clone(nic.bench.driver()));
    std::thread::spawn(move || Thread::enter(machine.inner(), |thread| thread.call_driver(&driver, "Test", 0, body)));
}

#[test]
fn a_query_that_succeeds_at_once_is_not_completed_again() {
    conforms!(
        "ndis/nf-ndis-ndisoidrequest.md",
        "NdisOidRequest returns the status that the underlying driver determines."
    );
    conforms!(
        "docs:network/generating-oid-requests-from-an-ndis-protocol-driver.md",
        "After success at once ProtocolOidRequestComplete is not called."
    );
    let (nic, _adapter, talk) = Nic::bound();
    nic.on_oid(|request| answer(request, &[1, 2, 3]));
    talk.take_seen();
    let ask = Ask::query(CUSTOM, 8);
    assert_eq!(nic.bench.run(|| ask.send()).unwrap(), NdisStatus::SUCCESS);
    assert_eq!(ask.bytes(), [1, 2, 3]);
    assert!(talk.take_seen().is_empty());
}

#[test]
fn a_custom_oid_reaches_the_miniport_as_it_is() {
    conforms!("docs:network/customized-oids-and-status-indications.md", "Miniports can support OIDs of their own.");
    let (nic, _adapter, _talk) = Nic::bound();
    nic.on_oid(|request| {
        assert_eq!(transfer(request).read().Oid, CUSTOM);
        NdisStatus::NOT_ACCEPTED
    });
    let ask = Ask::new(NdisRequestSetInformation, CUSTOM, &[1]);
    assert_eq!(nic.bench.run(|| ask.send()).unwrap(), NdisStatus::NOT_ACCEPTED);
}

#[test]
fn a_buffer_that_is_too_short_comes_back_with_what_is_needed() {
    conforms!(
        "ndis/nf-ndis-ndisoidrequest.md",
        "When the buffer is too small, BytesNeeded holds the length that is not."
    );
    let (nic, _adapter, _talk) = Nic::bound();
    nic.on_oid(|request| answer(request, &[0; 16]));
    let ask = Ask::query(CUSTOM, 4);
    assert_eq!(nic.bench.run(|| ask.send()).unwrap(), NdisStatus::BUFFER_TOO_SHORT);
    assert_eq!(ask.done().BytesNeeded, 16);
}

#[test]
fn too_short_without_what_is_needed_is_found() {
    conforms!(
        "oidrequest/ns-oidrequest-ndis_oid_request.md",
        "When the buffer is too small, BytesNeeded says how large it must be."
    );
    let (nic, _adapter, _talk) = Nic::bound();
    nic.on_oid(|_| NdisStatus::BUFFER_TOO_SHORT);
    let ask = Ask::query(CUSTOM, 100);
    assert_eq!(nic.bench.run(|| ask.send()).unwrap_err().0.rule, Rule::BadArgument);
}

#[test]
fn a_method_writes_no_more_than_its_output_length() {
    conforms!(
        "oidrequest/ns-oidrequest-ndis_oid_request.md",
        "BytesWritten of a method is at most OutputBufferLength, BytesRead at most InputBufferLength."
    );
    let nic = Nic::new();
    let adapter = nic.add().unwrap();
    nic.on_oid(|request| {
        let method = transfer(request).cast::<NDIS_OID_METHOD>();
        let asked = method.read();
        assert_eq!((asked.MethodId, asked.InputBufferLength, asked.OutputBufferLength), (7, 3, 2));
        method.write(NDIS_OID_METHOD { BytesRead: 3, BytesWritten: 2, ..asked });
        NdisStatus::SUCCESS
    });
    assert_eq!(adapter.oid_method(CUSTOM, 7, &[9, 8, 7], 2).unwrap(), [9, 8]);
    nic.on_oid(|request| {
        let method = transfer(request).cast::<NDIS_OID_METHOD>();
        method.write(NDIS_OID_METHOD { BytesWritten: 3, ..method.read() });
        NdisStatus::SUCCESS
    });
    assert_eq!(rule(adapter.oid_method(CUSTOM, 7, &[9, 8, 7], 2)), Rule::BadArgument);
}

#[test]
fn a_pended_request_is_completed_from_another_thread() {
    conforms!(
        "ndis/nc-ndis-protocol_oid_request_complete.md",
        "ProtocolOidRequestComplete ends a request for which NdisOidRequest returned NDIS_STATUS_PENDING."
    );
    conforms!(
        "ndis/nf-ndis-ndismoidrequestcomplete.md",
        "The call leads to the request-complete callback of the driver that made the request."
    );
    let (nic, adapter, talk) = Nic::bound();
    let (kept, keep) = shared();
    nic.on_oid(move |request| {
        *keep.lock().unwrap() = request;
        NdisStatus::PENDING
    });
    talk.take_seen();
    let ask = Ask::query(CUSTOM, 8);
    assert_eq!(nic.bench.run(|| ask.send()).unwrap(), NdisStatus::PENDING);
    assert_eq!((adapter.outstanding_requests(), adapter.bindings()[0].requests), (1, 1));
    let (handle, request) = (script().adapter.get(), *kept.lock().unwrap());
    elsewhere(&nic, move || {
        answer(request, &[5]).ok().unwrap();
        complete(handle, request, NdisStatus::SUCCESS);
    });
    talk.wait_for("complete NDIS_STATUS_SUCCESS");
    assert_eq!((ask.bytes(), adapter.outstanding_requests()), (vec![5], 0));
}

pub(super) fn shared() -> (Arc<Mutex<usize>>, Arc<Mutex<usize>>) {
    let kept = Arc::new(Mutex::new(0));
    (Arc::clone(&kept), kept)
}

#[test]
fn a_completion_may_come_before_the_request_returns() {
    conforms!(
        "ndis/nc-ndis-protocol_oid_request_complete.md",
        "The completion can come before NdisOidRequest has returned its status."
    );
    let (nic, _adapter, talk) = Nic::bound();
    let handle = script().adapter.get();
    nic.on_oid(move |request| {
        answer(request, &[6]).ok().unwrap();
        complete(handle, request, NdisStatus::SUCCESS);
        NdisStatus::PENDING
    });
    talk.take_seen();
    let ask = Ask::query(CUSTOM, 8);
    assert_eq!(nic.bench.run(|| ask.send()).unwrap(), NdisStatus::PENDING);
    assert_eq!(talk.take_seen(), ["complete NDIS_STATUS_SUCCESS"]);
}

#[test]
fn a_miniport_gets_one_request_at_a_time() {
    conforms!(
        "docs:network/miniport-adapter-oid-request-serialization.md",
        "A miniport does not get a request before it has completed the one it pended."
    );
    conforms!(
        "ndis/nc-ndis-miniport_oid_request.md",
        "After NDIS_STATUS_PENDING MiniportOidRequest is not called again until the request is complete."
    );
    let (nic, _adapter, talk) = Nic::bound();
    let (kept, keep) = shared();
    nic.on_oid(move |request| {
        let first = std::mem::replace(&mut *keep.lock().unwrap(), request) == 0;
        if first { NdisStatus::PENDING } else { answer(request, &[2]) }
    });
    let (one, two) = (Ask::query(CUSTOM, 8), Ask::query(CUSTOM, 8));
    assert_eq!(nic.bench.run(|| one.send()).unwrap(), NdisStatus::PENDING);
    assert_eq!(nic.bench.run(|| two.send()).unwrap(), NdisStatus::PENDING);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(*kept.lock().unwrap(), one.request, "the second waits");
    let handle = script().adapter.get();
    nic.bench.run(|| complete(handle, one.request, NdisStatus::NOT_ACCEPTED)).unwrap();
    talk.wait_for("complete NDIS_STATUS_NOT_ACCEPTED");
    talk.wait_for("complete NDIS_STATUS_SUCCESS");
    assert_eq!(two.bytes(), [2]);
}

#[test]
fn a_request_at_dispatch_level_reaches_the_miniport_at_passive_level() {
    conforms!("ndis/nf-ndis-ndisoidrequest.md", "NdisOidRequest may be called at IRQL <= DISPATCH_LEVEL.");
    conforms!("ndis/nc-ndis-miniport_oid_request.md", "NDIS calls MiniportOidRequest at PASSIVE_LEVEL.");
    let (nic, _adapter, talk) = Nic::bound();
    nic.on_oid(|request| {
        assert_eq!(Thread::current().irql(), 0);
        answer(request, &[1])
    });
    let ask = Ask::query(CUSTOM, 8);
    let at_dispatch = || {
        Thread::current().set_irql(2);
        let status = ask.send();
        Thread::current().set_irql(0);
        status
    };
    assert_eq!(nic.bench.run(at_dispatch).unwrap(), NdisStatus::PENDING);
    talk.wait_for("complete NDIS_STATUS_SUCCESS");
}

#[test]
fn a_request_that_is_under_way_is_not_made_again() {
    let (nic, _adapter, _talk) = Nic::bound();
    nic.on_oid(|_| NdisStatus::PENDING);
    let ask = Ask::query(CUSTOM, 8);
    let twice = nic.bench.run(|| {
        let _ = ask.send();
        ask.send()
    });
    assert_eq!(twice.unwrap_err().0.rule, Rule::BadState);
}

#[test]
fn no_request_is_made_before_the_open_is_complete() {
    conforms!(
        "ndis/nc-ndis-protocol_bind_adapter_ex.md",
        "A protocol cannot make OID requests on a binding until the open is complete."
    );
    let nic = Nic::new();
    let _adapter = nic.add().unwrap();
    nic.talk().on_bind(|(context, parameters)| {
        let _ = Ask::query(CUSTOM, 8).send();
        current().open(context, parameters)
    });
    assert_eq!(nic.register_protocol().unwrap_err().0.rule, Rule::InvalidHandle);
}

#[test]
fn requests_are_legal_in_the_bind_after_the_open_and_in_the_unbind_before_the_close() {
    conforms!(
        "docs:network/protocol-binding-states-and-operations.md",
        "A protocol can make OID requests from all states but Unbound and Opening."
    );
    let nic = Nic::new();
    nic.on_oid(|request| answer(request, &[1]));
    let adapter = nic.add().unwrap();
    let talk = nic.talk();
    talk.on_bind(|(context, parameters)| {
        current().open(context, parameters).ok().unwrap();
        Ask::query(CUSTOM, 1).send()
    });
    talk.on_unbind(|_| {
        Ask::query(CUSTOM, 1).send().ok().unwrap();
        current().close()
    });
    nic.register_protocol().unwrap().ok().unwrap();
    adapter.remove().unwrap();
}

#[test]
fn a_structure_that_is_no_request_is_found() {
    conforms!(
        "oidrequest/ns-oidrequest-ndis_oid_request.md",
        "The header must have type OID_REQUEST, a revision, and the size of that revision."
    );
    let (nic, _adapter, _talk) = Nic::bound();
    let ask = Ask::query(CUSTOM, 8);
    field!(ask.raw(), NDIS_OID_REQUEST, Header).write(NDIS_OBJECT_HEADER::new(0x96, 2, 236));
    assert_eq!(nic.bench.run(|| ask.send()).unwrap_err().0.rule, Rule::BadArgument);
}

fn pool(paged: bool, length: usize) -> usize {
    let kind = if paged { crate::nt::pool::PoolKind::Paged } else { crate::nt::pool::PoolKind::NonPaged };
    let call = crate::ddi::Call::enter();
    let request = crate::nt::pool::Request { kind, length, tag: 7, zeroed: true, cache_aligned: false };
    call.machine().nt.pool().allocate(&call, request)
}

#[test]
fn a_buffer_in_paged_pool_is_found() {
    conforms!("ndis/nf-ndis-ndisoidrequest.md", "Request and buffer must be in non-paged pool.");
    let (nic, _adapter, _talk) = Nic::bound();
    let ask = Ask::query(CUSTOM, 8);
    let paged = nic.bench.run(|| {
        let data = ask.done();
        let buffer = Raw::at(pool(true, 8)).pointer();
        transfer(ask.request).write(NDIS_OID_TRANSFER { InformationBuffer: buffer, ..data });
        ask.send()
    });
    assert_eq!(paged.unwrap_err().0.rule, Rule::BadArgument);
}

#[test]
fn a_request_freed_while_it_is_pended_is_found() {
    conforms!(
        "ndis/nc-ndis-protocol_oid_request_complete.md",
        "The memory of a request is released after its completion, not before."
    );
    let (nic, _adapter, _talk) = Nic::bound();
    nic.on_oid(|_| NdisStatus::PENDING);
    let freed = nic.bench.run(|| {
        let ask = Ask::query(CUSTOM, 8);
        let buffer = pool(false, 8);
        let data = NDIS_OID_TRANSFER { InformationBuffer: Raw::at(buffer).pointer(), ..ask.done() };
        transfer(ask.request).write(data);
        assert_eq!(ask.send(), NdisStatus::PENDING);
        let call = crate::ddi::Call::enter();
        call.machine().nt.pool().free(&call, buffer, 0);
    });
    assert_eq!(freed.unwrap_err().0.rule, Rule::BadState);
}

#[test]
fn a_close_with_a_request_under_way_is_found() {
    conforms!(
        "ndis/nf-ndis-ndiscloseadapterex.md",
        "A protocol waits for its OID requests to complete before it closes the adapter."
    );
    let (nic, adapter, talk) = Nic::bound();
    nic.on_oid(|_| NdisStatus::PENDING);
    let binding = talk.binding();
    talk.on_unbind(move |_| close(binding));
    let ask = Ask::query(CUSTOM, 8);
    let _ = nic.bench.run(|| ask.send()).unwrap();
    assert_eq!(rule(adapter.remove()), Rule::BadState);
}

#[test]
fn a_cancel_asks_the_miniport_for_the_request_it_works_on() {
    conforms!("ndis/nf-ndis-ndiscanceloidrequest.md", "A request is cancelled by the RequestId that it was made with.");
    conforms!(
        "ndis/nc-ndis-miniport_cancel_oid_request.md",
        "The miniport completes a cancelled request with NDIS_STATUS_REQUEST_ABORTED."
    );
    let (nic, _adapter, talk) = Nic::bound();
    nic.on_oid(|_| NdisStatus::PENDING);
    let ask = Ask::query(CUSTOM, 8).with_id(0x1D);
    let (handle, request) = (script().adapter.get(), ask.request);
    *script().cancel.lock().unwrap() = Some(Arc::new(move |id| {
        assert_eq!(id, 0x1D);
        complete(handle, request, NdisStatus::REQUEST_ABORTED);
        NdisStatus::SUCCESS
    }));
    talk.take_seen();
    let _ = nic.bench.run(|| ask.send()).unwrap();
    nic.bench.run(|| cancel(current().binding(), 0x1E)).unwrap();
    assert!(talk.take_seen().is_empty(), "another id, another request");
    nic.bench.run(|| cancel(current().binding(), 0x1D)).unwrap();
    assert_eq!(talk.take_seen(), ["complete NDIS_STATUS_REQUEST_ABORTED"]);
}

#[test]
fn a_cancelled_request_that_still_waits_never_reaches_the_miniport() {
    let (nic, _adapter, talk) = Nic::bound();
    let (_kept, keep) = shared();
    nic.on_oid(move |_| {
        *keep.lock().unwrap() += 1;
        assert_eq!(*keep.lock().unwrap(), 1, "only the first comes");
        NdisStatus::PENDING
    });
    let (one, two) = (Ask::query(CUSTOM, 8), Ask::query(CUSTOM, 8).with_id(3));
    nic.bench
        .run(|| {
            let _ = one.send();
            let _ = two.send();
            cancel(current().binding(), 3);
            complete(script().adapter.get(), one.request, NdisStatus::FAILURE);
        })
        .unwrap();
    talk.wait_for("complete NDIS_STATUS_REQUEST_ABORTED");
    std::thread::sleep(Duration::from_millis(50));
}

#[test]
fn a_request_is_cancelled_when_its_time_is_over() {
    conforms!(
        "ndis/nc-ndis-miniport_cancel_oid_request.md",
        "NDIS calls MiniportCancelOidRequest when the Timeout of a request is over."
    );
    let (nic, _adapter, talk) = Nic::bound();
    nic.on_oid(|_| NdisStatus::PENDING);
    let ask = Ask::query(CUSTOM, 8).with_id(0x1D);
    field!(ask.raw(), NDIS_OID_REQUEST, Timeout).write(1);
    let (handle, request) = (script().adapter.get(), ask.request);
    *script().cancel.lock().unwrap() = Some(Arc::new(move |_| {
        complete(handle, request, NdisStatus::REQUEST_ABORTED);
        NdisStatus::SUCCESS
    }));
    let _ = nic.bench.run(|| ask.send()).unwrap();
    talk.wait_for("complete NDIS_STATUS_REQUEST_ABORTED");
}

#[test]
fn no_request_is_taken_while_the_device_sleeps() {
    conforms!(
        "docs:network/handling-pnp-events-and-power-management-events-in-a-protocol-driver.md",
        "While the adapter is in a low power state, protocols cannot issue OID requests."
    );
    let (nic, adapter, _talk) = Nic::bound();
    nic.on_oid(|_| NdisStatus::SUCCESS);
    adapter.sleep().unwrap();
    let ask = Ask::query(CUSTOM, 4);
    assert_eq!(nic.bench.run(|| ask.send()).unwrap(), NdisStatus::LOW_POWER_STATE);
}

#[test]
fn direct_requests_need_both_sides() {
    conforms!(
        "ndis/nf-ndis-ndisdirectoidrequest.md",
        "Without ProtocolDirectOidRequestComplete a direct request is NDIS_STATUS_NOT_SUPPORTED."
    );
    let (nic, _adapter, _talk) = Nic::bound();
    let ask = Ask::query(CUSTOM, 4);
    let direct = || call_ddi!("NdisDirectOidRequest", fn(usize, usize) -> NdisStatus, current().binding(), ask.request);
    assert_eq!(nic.bench.run(direct).unwrap(), NdisStatus::NOT_SUPPORTED);
}

#[test]
fn direct_requests_pass_by_the_one_that_is_pended() {
    conforms!(
        "docs:network/miniport-adapter-oid-request-serialization.md",
        "Direct OID requests are not serialised with the others."
    );
    let nic = Nic::with(|c| {
        c.DirectOidRequestHandler = Some(direct_oid_request);
        c.CancelDirectOidRequestHandler = Some(cancel_oid);
    });
    let (_adapter, _talk) = nic.bind();
    nic.on_oid(|_| NdisStatus::PENDING);
    *script().direct_oid.lock().unwrap() = Some(Arc::new(|request| answer(request, &[4])));
    let (pended, ask) = (Ask::query(CUSTOM, 4), Ask::query(CUSTOM, 4));
    let status = nic.bench.run(|| {
        assert_eq!(pended.send(), NdisStatus::PENDING);
        call_ddi!("NdisDirectOidRequest", fn(usize, usize) -> NdisStatus, current().binding(), ask.request)
    });
    assert_eq!((status.unwrap(), ask.bytes()), (NdisStatus::SUCCESS, vec![4]));
}

#[test]
fn an_adapter_with_a_request_under_way_is_not_halted() {
    conforms!("ndis/nc-ndis-miniport_halt.md", "NDIS does not call MiniportHaltEx while OID requests are outstanding.");
    let (nic, adapter, talk) = Nic::bound();
    nic.on_oid(|_| NdisStatus::PENDING);
    let ask = Ask::query(CUSTOM, 8);
    let _ = nic.bench.run(|| ask.send()).unwrap();
    let (handle, request) = (script().adapter.get(), ask.request);
    // The protocol waits for the completion in its unbind, as it must.
    talk.on_unbind(move |_| {
        complete(handle, request, NdisStatus::REQUEST_ABORTED);
        talk.close()
    });
    adapter.remove().unwrap();
    assert_eq!(callbacks().last(), Some(&"halt"));
}
