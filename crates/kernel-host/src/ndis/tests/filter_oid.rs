//! OID requests through filters.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::filter::*;
use super::protocol_oid::{Ask, send, transfer};
use super::*;

type Request = Raw<NDIS_OID_REQUEST>;

/// Clones a request and remembers the original in it, as filters do.
fn clone_of(request: Request) -> Request {
    let mut clone = 0_usize;
    let status = call_ddi!(
        "NdisAllocateCloneOidRequest",
        fn(usize, Request, u32, &mut usize) -> NdisStatus,
        sieve().module(),
        request,
        0x3131_3131,
        &mut clone
    );
    assert_eq!(status, NdisStatus::SUCCESS);
    let clone = Request::at(clone);
    field!(clone, NDIS_OID_REQUEST, SourceReserved).cast::<usize>().write(request.address());
    clone
}

fn send_on(clone: Request) -> NdisStatus {
    call_ddi!("NdisFOidRequest", fn(usize, Request) -> NdisStatus, sieve().module(), clone)
}

/// Ends the clone and completes the original, as `FilterOidRequestComplete` does.
fn finish((clone, status): (usize, NdisStatus)) -> NdisStatus {
    let clone = Request::at(clone);
    let original = Request::at(field!(clone, NDIS_OID_REQUEST, SourceReserved).cast::<usize>().read());
    let data = field!(clone, NDIS_OID_REQUEST, DATA).cast::<NDIS_OID_TRANSFER>().read();
    let to = field!(original, NDIS_OID_REQUEST, DATA).cast::<NDIS_OID_TRANSFER>();
    field!(to, NDIS_OID_TRANSFER, BytesDone).write(data.BytesDone);
    field!(to, NDIS_OID_TRANSFER, BytesNeeded).write(data.BytesNeeded);
    call_ddi!("NdisFreeCloneOidRequest", fn(usize, Request), sieve().module(), clone);
    call_ddi!("NdisFOidRequestComplete", fn(usize, Request, NdisStatus), sieve().module(), original, status);
    NdisStatus::SUCCESS
}

/// Has the filter pass every request on.
fn pass_on(filter: &'static Sieve) {
    on(&filter.oid, |request| {
        let clone = clone_of(Request::at(request));
        let status = send_on(clone);
        if status != NdisStatus::PENDING {
            let _ = finish((clone.address(), status));
        }
        NdisStatus::PENDING
    });
    on(&filter.complete, finish);
}

#[test]
fn a_request_passes_through_the_filter_and_its_answer_comes_back() {
    conforms!(
        "ndis/nc-ndis-filter_oid_request.md",
        "NDIS gives requests from above to FilterOidRequest, which forwards a clone."
    );
    conforms!(
        "ndis/nf-ndis-ndisfoidrequestcomplete.md",
        "NdisFOidRequestComplete ends a request that the filter pended."
    );
    let (nic, adapter, _talk, filter) = Nic::filtered();
    pass_on(filter);
    nic.on_oid(|request| answer(request, 77));
    assert_eq!(adapter.oid_query(OID_GEN_STATISTICS, 4).unwrap(), 77_u32.to_le_bytes());
    assert_eq!(filter.take_seen(), ["request"]);
    assert_eq!(adapter.outstanding_requests(), 0);
}

/// Answers a query with a number.
fn answer(request: usize, number: u32) -> NdisStatus {
    let data = transfer(request);
    Raw::<u32>::of(data.read().InformationBuffer.cast()).write(number);
    field!(data, NDIS_OID_TRANSFER, BytesDone).write(4);
    NdisStatus::SUCCESS
}

#[test]
fn a_filter_may_answer_itself() {
    conforms!("ndis/nc-ndis-filter_oid_request.md", "A filter may complete a request at once without forwarding it.");
    let (nic, adapter, _talk, filter) = Nic::filtered();
    nic.on_oid(|_| panic!("the miniport is not asked"));
    on(&filter.oid, |request| answer(request, 5));
    assert_eq!(adapter.oid_query(OID_GEN_STATISTICS, 4).unwrap(), 5_u32.to_le_bytes());
}

#[test]
fn a_request_that_the_miniport_pends_completes_through_the_filter() {
    conforms!(
        "ndis/nc-ndis-filter_oid_request_complete.md",
        "When NdisFOidRequest returned pending, the completion comes to FilterOidRequestComplete."
    );
    let (nic, adapter, _talk, filter) = Nic::filtered();
    pass_on(filter);
    let handle = script().adapter.get();
    let machine = nic.bench.machine().clone();
    let driver = Arc::clone(nic.bench.driver());
    nic.on_oid(move |request| {
        let (machine, driver) = (machine.clone(), Arc::clone(&driver));
        std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(20));
            crate::thread::Thread::enter(machine.inner(), |thread| {
                thread.call_driver(&driver, "Test", 0, || {
                    let _ = answer(request, 9);
                    call_ddi!(
                        "NdisMOidRequestComplete",
                        fn(usize, usize, NdisStatus),
                        handle,
                        request,
                        NdisStatus::SUCCESS
                    );
                })
            })
            .unwrap();
        });
        NdisStatus::PENDING
    });
    // The completion runs on another thread, which finds the filter through its context.
    on(&filter.complete, move |(clone, status)| finish_for(filter, clone, status));
    assert_eq!(adapter.oid_query(OID_GEN_STATISTICS, 4).unwrap(), 9_u32.to_le_bytes());
    assert_eq!(filter.take_seen(), ["request", "complete NDIS_STATUS_SUCCESS"]);
}

fn finish_for(of: &'static Sieve, clone: usize, status: NdisStatus) -> NdisStatus {
    adopt(of);
    finish((clone, status))
}

#[test]
fn the_original_is_not_forwarded() {
    conforms!(
        "ndis/nf-ndis-ndisallocatecloneoidrequest.md",
        "A filter forwards a clone of a request, not the original."
    );
    let (_nic, adapter, _talk, filter) = Nic::filtered();
    on(&filter.oid, |request| send_on(Request::at(request)));
    assert_eq!(rule(adapter.oid_query(OID_GEN_STATISTICS, 4)), Rule::BadState);
}

#[test]
fn a_clone_is_not_freed_while_it_is_under_way() {
    let (nic, adapter, _talk, filter) = Nic::filtered();
    nic.on_oid(|_| NdisStatus::PENDING);
    on(&filter.oid, |request| {
        let clone = clone_of(Request::at(request));
        assert_eq!(send_on(clone), NdisStatus::PENDING);
        let _ = finish((clone.address(), NdisStatus::FAILURE));
        NdisStatus::PENDING
    });
    assert_eq!(rule(adapter.oid_query(OID_GEN_STATISTICS, 4)), Rule::BadState);
}

#[test]
fn a_clone_freed_twice_is_found() {
    conforms!("ndis/nf-ndis-ndisfreecloneoidrequest.md", "What is freed was allocated by NdisAllocateCloneOidRequest.");
    let (_nic, adapter, _talk, filter) = Nic::filtered();
    on(&filter.oid, |request| {
        let clone = clone_of(Request::at(request));
        for _ in 0..2 {
            call_ddi!("NdisFreeCloneOidRequest", fn(usize, Request), sieve().module(), clone);
        }
        NdisStatus::FAILURE
    });
    assert_eq!(rule(adapter.oid_query(OID_GEN_STATISTICS, 4)), Rule::BadPoolFree);
}

#[test]
fn a_clone_needs_a_module_or_a_binding() {
    conforms!(
        "ndis/nf-ndis-ndisallocatecloneoidrequest.md",
        "A SourceHandle that is not valid gives NDIS_STATUS_INVALID_PARAMETER and a NULL clone."
    );
    let nic = Nic::new();
    let mut clone = 7_usize;
    let request = [0_u8; 256].as_ptr().expose_provenance();
    let status = nic.bench.run(|| {
        call_ddi!(
            "NdisAllocateCloneOidRequest",
            fn(usize, usize, u32, &mut usize) -> NdisStatus,
            REGISTERED.get(),
            request,
            0x31,
            &mut clone
        )
    });
    assert_eq!((status.unwrap(), clone), (NdisStatus::INVALID_PARAMETER, 0));
}

#[test]
fn a_request_is_completed_once() {
    conforms!(
        "ndis/nf-ndis-ndisfoidrequestcomplete.md",
        "The final status is any but NDIS_STATUS_PENDING, for a request that the filter has."
    );
    let (_nic, adapter, _talk, filter) = Nic::filtered();
    on(&filter.oid, |request| {
        let module = sieve().module();
        for _ in 0..2 {
            call_ddi!("NdisFOidRequestComplete", fn(usize, usize, NdisStatus), module, request, NdisStatus::FAILURE);
        }
        NdisStatus::PENDING
    });
    assert_eq!(rule(adapter.oid_query(OID_GEN_STATISTICS, 4)), Rule::BadState);
}

#[test]
fn a_request_of_a_protocol_passes_through_the_filter() {
    let (nic, _adapter, talk, filter) = Nic::filtered();
    pass_on(filter);
    nic.on_oid(|request| answer(request, 3));
    let asked = Ask::query(OID_GEN_STATISTICS, 4).request;
    let status = nic.bench.run(|| send(talk.binding(), asked)).unwrap();
    // The filter pended the request, although it was complete by then.
    assert_eq!(status, NdisStatus::PENDING);
    assert_eq!(talk.take_seen(), ["complete NDIS_STATUS_SUCCESS"]);
    assert_eq!(filter.take_seen(), ["request"]);
}

#[test]
fn a_cancellation_reaches_the_filter_that_has_the_request() {
    conforms!(
        "ndis/nc-ndis-filter_cancel_oid_request.md",
        "NDIS calls FilterCancelOidRequest when the originator cancels; the filter then completes the request."
    );
    let (nic, _adapter, talk, filter) = Nic::filtered();
    let held: &'static AtomicUsize = Box::leak(Box::default());
    on(&filter.oid, move |request| {
        held.store(request, Ordering::Release);
        NdisStatus::PENDING
    });
    on(&filter.cancel, move |id| {
        assert_eq!(id, 0x55);
        call_ddi!(
            "NdisFOidRequestComplete",
            fn(usize, usize, NdisStatus),
            sieve().module(),
            held.load(Ordering::Acquire),
            NdisStatus::REQUEST_ABORTED
        );
        NdisStatus::SUCCESS
    });
    let asked = Ask::query(OID_GEN_STATISTICS, 4).request;
    field!(Request::at(asked), NDIS_OID_REQUEST, RequestId).write(Raw::at(0x55).pointer());
    nic.bench
        .run(|| {
            assert_eq!(send(talk.binding(), asked), NdisStatus::PENDING);
            call_ddi!("NdisCancelOidRequest", fn(usize, usize), talk.binding(), 0x55);
        })
        .unwrap();
    assert_eq!(talk.take_seen(), ["complete NDIS_STATUS_REQUEST_ABORTED"]);
}

#[test]
fn a_filter_may_ask_on_its_own() {
    conforms!("ndis/nf-ndis-ndisfoidrequest.md", "A filter can originate requests to the drivers below.");
    let (nic, _adapter, _talk, filter) = Nic::filtered();
    nic.on_oid(|request| answer(request, 8));
    let asked = Ask::query(OID_GEN_STATISTICS, 4).request;
    let status = nic.bench.run(|| send_on(Request::at(asked))).unwrap();
    assert_eq!(status, NdisStatus::SUCCESS);
    assert!(filter.take_seen().is_empty(), "its own request does not pass through it");
}

#[test]
fn a_filter_with_no_handler_is_passed_by() {
    conforms!("ndis/ns-ndis-_ndis_filter_driver_characteristics.md", "A filter without FilterOidRequest is passed by.");
    let (nic, adapter, _talk) = Nic::bound();
    nic.sieve();
    let registered = nic.bench.run(|| {
        register_filter(|of| {
            of.OidRequestHandler = None;
            of.OidRequestCompleteHandler = None;
        })
    });
    assert_eq!(registered.unwrap(), NdisStatus::SUCCESS);
    nic.on_oid(|request| answer(request, 2));
    assert_eq!(adapter.oid_query(OID_GEN_STATISTICS, 4).unwrap(), 2_u32.to_le_bytes());
}

#[test]
fn a_filter_that_keeps_a_request_is_not_detached() {
    let (nic, _adapter, talk, filter) = Nic::filtered();
    on(&filter.oid, |_| NdisStatus::PENDING);
    nic.bench.machine().set_deadlock_time(std::time::Duration::from_millis(50));
    let asked = Ask::query(OID_GEN_STATISTICS, 4).request;
    let kept = nic.bench.run(|| {
        assert_eq!(send(talk.binding(), asked), NdisStatus::PENDING);
        deregister_filter();
    });
    assert_eq!(kept.unwrap_err().0.rule, Rule::Deadlock);
}
