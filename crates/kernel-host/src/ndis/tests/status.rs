//! Status indications.

use super::*;

pub(super) fn indication(source: usize, status: NdisStatus, data: &'static [u8]) -> NDIS_STATUS_INDICATION {
    // SAFETY: all-zero bytes are a valid indication.
    let mut indication: NDIS_STATUS_INDICATION = unsafe { std::mem::zeroed() };
    indication.Header = NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_STATUS_INDICATION, 1, 112);
    indication.SourceHandle = Raw::at(source).pointer();
    indication.StatusCode = status;
    data.as_ptr().expose_provenance();
    indication.StatusBuffer = data.as_ptr().cast_mut().cast();
    indication.StatusBufferSize = data.len() as u32;
    indication
}

pub(super) fn indicate(handle: usize, indication: &NDIS_STATUS_INDICATION) {
    call_ddi!("NdisMIndicateStatusEx", fn(usize, &NDIS_STATUS_INDICATION), handle, indication);
}

#[test]
fn an_indication_reaches_the_bound_protocols() {
    conforms!(
        "ndis/nf-ndis-ndismindicatestatusex.md",
        "NDIS calls ProtocolStatusEx of each protocol that is bound to the adapter."
    );
    let (nic, adapter, talk) = Nic::bound();
    talk.take_seen();
    let handle = script().adapter.get();
    let sent = indication(handle, NdisStatus::MEDIA_SPECIFIC_INDICATION_EX, &[1, 2]);
    nic.bench.run(|| indicate(handle, &sent)).unwrap();
    assert_eq!(talk.take_seen(), ["status NDIS_STATUS_MEDIA_SPECIFIC_INDICATION_EX"]);
    let seen = adapter.status_indications().pop().unwrap();
    assert_eq!((seen.status, seen.data, seen.told), (NdisStatus::MEDIA_SPECIFIC_INDICATION_EX, vec![1, 2], 1));
}

#[test]
fn an_indication_for_one_binding_reaches_only_that_one() {
    conforms!(
        "ndis/ns-ndis-_ndis_status_indication.md",
        "With a DestinationHandle the indication goes only to the driver that it identifies."
    );
    let (nic, _adapter, talk) = Nic::bound();
    talk.take_seen();
    let handle = script().adapter.get();
    let mut sent = indication(handle, NdisStatus::LINK_STATE, &[]);
    sent.DestinationHandle = Raw::at(0x1234).pointer();
    nic.bench.run(|| indicate(handle, &sent)).unwrap();
    assert!(talk.take_seen().is_empty());
    sent.DestinationHandle = Raw::at(talk.binding()).pointer();
    nic.bench.run(|| indicate(handle, &sent)).unwrap();
    assert_eq!(talk.take_seen(), ["status NDIS_STATUS_LINK_STATE"]);
}

#[test]
fn an_indication_is_legal_at_dispatch_level_and_stays_there() {
    conforms!("ndis/nc-ndis-protocol_status_ex.md", "ProtocolStatusEx is called at IRQL <= DISPATCH_LEVEL.");
    let (nic, _adapter, talk) = Nic::bound();
    *talk.status.lock().unwrap() = Some(Arc::new(|_| {
        assert_eq!(crate::thread::Thread::current().irql(), 2);
        NdisStatus::SUCCESS
    }));
    let handle = script().adapter.get();
    let sent = indication(handle, NdisStatus::LINK_STATE, &[]);
    nic.bench
        .run(|| {
            crate::thread::Thread::current().set_irql(2);
            indicate(handle, &sent);
            crate::thread::Thread::current().set_irql(0);
        })
        .unwrap();
    assert_eq!(export("NdisMIndicateStatusEx").max_irql, 2);
}

#[test]
fn an_indication_is_legal_during_initialisation_once_the_registration_attributes_are_set() {
    conforms!(
        "ndis/nf-ndis-ndismindicatestatusex.md",
        "Status can be indicated from MiniportInitializeEx after the registration attributes are set."
    );
    let nic = Nic::new();
    nic.on_initialize(|handle| {
        indicate(handle, &indication(handle, NdisStatus::LINK_STATE, &[]));
        NdisStatus::SUCCESS
    });
    assert_eq!(nic.add().unwrap().status_indications().len(), 1);
    script().sets_attributes.set(false);
    assert_eq!(rule(nic.add()), Rule::BadState);
}

#[test]
fn an_indication_after_the_halt_is_found() {
    conforms!("ndis/nf-ndis-ndismindicatestatusex.md", "No status is indicated after MiniportHaltEx has returned.");
    let nic = Nic::new();
    nic.add().unwrap().remove().unwrap();
    let handle = script().adapter.get();
    let late = nic.bench.run(|| indicate(handle, &indication(handle, NdisStatus::LINK_STATE, &[])));
    assert_eq!(late.unwrap_err().0.rule, Rule::InvalidHandle);
}

#[test]
fn an_indication_names_its_source() {
    conforms!(
        "ndis/ns-ndis-_ndis_status_indication.md",
        "SourceHandle of a miniport's indication is the adapter handle of MiniportInitializeEx."
    );
    let nic = Nic::new();
    let _adapter = nic.add().unwrap();
    let handle = script().adapter.get();
    let wrong = nic.bench.run(|| indicate(handle, &indication(0, NdisStatus::LINK_STATE, &[])));
    assert_eq!(wrong.unwrap_err().0.rule, Rule::BadArgument);
}

#[test]
fn an_indication_has_the_header_of_an_indication() {
    conforms!(
        "ndis/ns-ndis-_ndis_status_indication.md",
        "The header has type STATUS_INDICATION, revision 1 and the size of that revision."
    );
    let nic = Nic::new();
    let _adapter = nic.add().unwrap();
    let handle = script().adapter.get();
    let mut wrong = indication(handle, NdisStatus::LINK_STATE, &[]);
    wrong.Header.Size = 80;
    assert_eq!(nic.bench.run(|| indicate(handle, &wrong)).unwrap_err().0.rule, Rule::BadArgument);
}

#[test]
fn miniports_do_not_indicate_their_resets() {
    conforms!(
        "ndis/nc-ndis-miniport_reset.md",
        "NDIS tells protocols of the begin and end of a reset; miniports do not indicate them."
    );
    let nic = Nic::new();
    let _adapter = nic.add().unwrap();
    let handle = script().adapter.get();
    let wrong = indication(handle, NdisStatus::RESET_START, &[]);
    assert_eq!(nic.bench.run(|| indicate(handle, &wrong)).unwrap_err().0.rule, Rule::BadState);
}
