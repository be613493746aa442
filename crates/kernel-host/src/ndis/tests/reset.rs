//! Hung adapters and resets.

use super::*;

fn complete(handle: usize, status: NdisStatus, addressing: u8) {
    call_ddi!("NdisMResetComplete", fn(usize, NdisStatus, u8), handle, status, addressing);
}

fn on_reset(hook: impl Fn(usize) -> NdisStatus + Send + Sync + 'static) {
    *script().reset.lock().unwrap() = Some(Arc::new(hook));
}

#[test]
fn protocols_are_told_when_a_reset_begins_and_ends() {
    conforms!(
        "ndis/nc-ndis-protocol_status_ex.md",
        "During a reset protocols get NDIS_STATUS_RESET_START and later NDIS_STATUS_RESET_END."
    );
    let nic = Nic::resettable();
    let (adapter, talk) = nic.bind();
    talk.take_seen();
    callbacks();
    adapter.reset().unwrap();
    assert_eq!(talk.take_seen(), ["status NDIS_STATUS_RESET_START", "status NDIS_STATUS_RESET_END"]);
    assert_eq!(callbacks(), ["reset"]);
    assert_eq!(adapter.state(), crate::ndis::adapter::AdapterState::Running, "a reset changes no state");
}

#[test]
fn an_adapter_without_a_reset_handler_is_not_reset() {
    let nic = Nic::new();
    assert_eq!(status(nic.add().unwrap().reset()), NdisStatus::NOT_RESETTABLE);
}

#[test]
fn an_adapter_that_says_it_hangs_is_reset() {
    conforms!("ndis/nc-ndis-miniport_check_for_hang.md", "When the callback returns TRUE, MiniportResetEx is called.");
    let nic = Nic::resettable();
    let adapter = nic.add().unwrap();
    callbacks();
    assert!(!adapter.check_for_hang().unwrap());
    assert!(callbacks().is_empty());
    script().hangs.set(true);
    assert!(adapter.check_for_hang().unwrap());
    script().hangs.set(false);
    assert!(callbacks().contains(&"reset"));
}

#[test]
fn an_adapter_that_keeps_a_request_over_two_checks_is_reset() {
    conforms!(
        "ndis/nc-ndis-miniport_check_for_hang.md",
        "A request that is not complete within two checks lets NDIS reset the adapter."
    );
    let nic = Nic::resettable();
    let (adapter, _talk) = nic.bind();
    let kept = Arc::new(Mutex::new(0));
    let (keep, give) = (Arc::clone(&kept), Arc::clone(&kept));
    nic.on_oid(move |request| {
        *keep.lock().unwrap() = request;
        NdisStatus::PENDING
    });
    let handle = script().adapter.get();
    on_reset(move |_| {
        let request = std::mem::take(&mut *give.lock().unwrap());
        let status = NdisStatus::REQUEST_ABORTED;
        call_ddi!("NdisMOidRequestComplete", fn(usize, usize, NdisStatus), handle, request, status);
        NdisStatus::SUCCESS
    });
    std::thread::scope(|scope| {
        let asked = scope.spawn(|| adapter.oid_query(0xFF00_0001, 4));
        // NDIS counts the request before the miniport has it.
        while *kept.lock().unwrap() == 0 {
            std::thread::yield_now();
        }
        // On a busy computer it may be the machine's own check that comes third.
        while !asked.is_finished() {
            adapter.check_for_hang().unwrap();
        }
        assert_eq!(status(asked.join().unwrap()), NdisStatus::REQUEST_ABORTED);
    });
}

#[test]
fn a_reset_is_complete_with_its_completion() {
    conforms!(
        "ndis/nc-ndis-miniport_reset.md",
        "After NDIS_STATUS_PENDING the miniport completes the reset with NdisMResetComplete."
    );
    let nic = Nic::resettable();
    let adapter = nic.add().unwrap();
    let handle = script().adapter.get();
    on_reset(move |_| {
        complete(handle, NdisStatus::HARD_ERRORS, 0);
        NdisStatus::PENDING
    });
    assert_eq!(status(adapter.reset()), NdisStatus::HARD_ERRORS);
}

#[test]
fn a_reset_that_did_not_pend_is_not_completed() {
    let nic = Nic::resettable();
    let adapter = nic.add().unwrap();
    let handle = script().adapter.get();
    on_reset(move |_| {
        complete(handle, NdisStatus::SUCCESS, 0);
        NdisStatus::SUCCESS
    });
    assert_eq!(rule(adapter.reset()), Rule::BadState);
}

#[test]
fn a_completion_without_a_reset_is_found() {
    let nic = Nic::resettable();
    let _adapter = nic.add().unwrap();
    let handle = script().adapter.get();
    let stray = nic.bench.run(|| complete(handle, NdisStatus::SUCCESS, 0));
    assert_eq!(stray.unwrap_err().0.rule, Rule::BadState);
}

#[test]
fn soft_errors_are_a_success() {
    conforms!(
        "ndis/nc-ndis-miniport_reset.md",
        "NDIS_STATUS_SOFT_ERRORS means that the reset worked after a recoverable error."
    );
    let nic = Nic::resettable();
    let adapter = nic.add().unwrap();
    on_reset(|_| NdisStatus::SOFT_ERRORS);
    adapter.reset().unwrap();
}

#[test]
fn requests_during_a_reset_are_refused() {
    conforms!(
        "ndis/nf-ndis-ndisoidrequest.md",
        "While the adapter is being reset, requests return NDIS_STATUS_RESET_IN_PROGRESS."
    );
    let nic = Nic::resettable();
    let (adapter, talk) = nic.bind();
    // SAFETY: all-zero bytes are a valid request.
    let mut request: NDIS_OID_REQUEST = unsafe { std::mem::zeroed() };
    request.Header = NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_OID_REQUEST, 1, 236);
    let request = std::ptr::from_mut(Box::leak(Box::new(request))).expose_provenance();
    *talk.status.lock().unwrap() = Some(Arc::new(move |_| {
        let ask = || call_ddi!("NdisOidRequest", fn(usize, usize) -> NdisStatus, talk.binding(), request);
        if !talk.seen_end() {
            assert_eq!(ask(), NdisStatus::RESET_IN_PROGRESS);
            talk.saw("refused");
        }
        NdisStatus::SUCCESS
    }));
    talk.take_seen();
    adapter.reset().unwrap();
    assert!(talk.take_seen().contains(&"refused".to_owned()));
}

#[test]
fn the_settings_of_the_bindings_are_restored_when_the_miniport_asks_for_it() {
    conforms!(
        "ndis/nc-ndis-miniport_reset.md",
        "With AddressingReset NDIS restores addressing through MiniportOidRequest."
    );
    let nic = Nic::resettable();
    let adapter = nic.add().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let keep = Arc::clone(&asked);
    nic.on_oid(move |request| {
        let request = Raw::<NDIS_OID_REQUEST>::at(request);
        keep.lock().unwrap().push(crate::nt::raw::field!(request, NDIS_OID_REQUEST, RequestType).read());
        NdisStatus::SUCCESS
    });
    adapter.reset().unwrap();
    assert!(asked.lock().unwrap().is_empty());
    on_reset(|addressing| {
        Raw::<u8>::at(addressing).write(1);
        NdisStatus::SUCCESS
    });
    adapter.reset().unwrap();
    assert_eq!(*asked.lock().unwrap(), [NdisRequestSetInformation]);
}

#[test]
fn a_reset_that_leaves_a_request_pended_is_found() {
    conforms!(
        "ndis/nc-ndis-miniport_reset.md",
        "From NDIS 6.30 on a miniport completes its pending requests before the reset is complete."
    );
    let nic = Nic::resettable();
    let (adapter, talk) = nic.bind();
    nic.on_oid(|_| NdisStatus::PENDING);
    // SAFETY: all-zero bytes are a valid request.
    let mut request: NDIS_OID_REQUEST = unsafe { std::mem::zeroed() };
    request.Header = NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_OID_REQUEST, 1, 236);
    let request = std::ptr::from_mut(Box::leak(Box::new(request))).expose_provenance();
    let ask = || call_ddi!("NdisOidRequest", fn(usize, usize) -> NdisStatus, talk.binding(), request);
    assert_eq!(nic.bench.run(ask).unwrap(), NdisStatus::PENDING);
    assert_eq!(rule(adapter.reset()), Rule::BadState);
}
