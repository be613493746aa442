//! What passes through a filter besides OID requests and data: status indications, events. And its configuration.

use std::sync::atomic::Ordering;

use super::filter::*;
use super::*;

#[test]
fn an_indication_passes_through_the_filter() {
    conforms!(
        "ndis/nf-ndis-ndisfindicatestatus.md",
        "NdisFIndicateStatus passes an indication on to the drivers above."
    );
    conforms!("ndis/nc-ndis-filter_status.md", "An indication that the filter does not pass on goes no further.");
    let (nic, _adapter, talk, sieve) = Nic::filtered();
    let handle = script().adapter.get();
    let sent = status::indication(handle, NdisStatus::LINK_STATE, &[]);
    nic.bench.run(|| status::indicate(handle, &sent)).unwrap();
    assert_eq!(sieve.take_seen(), ["status NDIS_STATUS_LINK_STATE"]);
    assert_eq!(talk.take_seen(), ["status NDIS_STATUS_LINK_STATE"]);
    on(&sieve.status, |_| NdisStatus::SUCCESS);
    nic.bench.run(|| status::indicate(handle, &sent)).unwrap();
    assert!(talk.take_seen().is_empty());
}

#[test]
fn a_filter_indicates_nothing_before_it_is_attached() {
    conforms!(
        "ndis/nc-ndis-filter_attach.md",
        "A module that is attaching makes no status indications and no OID requests."
    );
    let nic = Nic::new();
    on(&nic.sieve().attach, |module| {
        let sent = status::indication(module, NdisStatus::LINK_STATE, &[]);
        call_ddi!("NdisFIndicateStatus", fn(usize, &NDIS_STATUS_INDICATION), module, &sent);
        NdisStatus::SUCCESS
    });
    assert_eq!(nic.register_filter(), NdisStatus::SUCCESS);
    assert_eq!(rule(nic.add()), Rule::BadState);
}

#[test]
fn events_pass_through_the_filter_both_ways() {
    conforms!(
        "ndis/nf-ndis-ndisfdevicepnpeventnotify.md",
        "NdisFDevicePnPEventNotify passes an event on to the drivers below."
    );
    conforms!(
        "ndis/nf-ndis-ndisfnetpnpevent.md",
        "NdisFNetPnPEvent passes an event on to the drivers above and returns their answer."
    );
    let (_nic, adapter, talk, sieve) = Nic::filtered();
    talk.on_event(|(event, _)| match event {
        NetEventQueryRemoveDevice => NdisStatus::FAILURE,
        _ => NdisStatus::SUCCESS,
    });
    assert_eq!(status(adapter.query_remove()), NdisStatus::FAILURE);
    assert_eq!(sieve.take_seen(), ["event 2", "event 3"]);
    assert_eq!(talk.take_seen(), ["query remove", "cancel remove"]);
    adapter.surprise_remove().unwrap();
    assert_eq!(sieve.take_seen()[0], "device event");
    assert_eq!(callbacks()[0], "surprise removal");
}

#[test]
fn the_configuration_of_a_filter_is_open_to_it() {
    conforms!(
        "docs:network/accessing-configuration-information-for-a-filter-driver.md",
        "The handle of the filter driver opens the driver's parameters, that of a module the module's."
    );
    let (nic, _adapter, _talk, _sieve) = Nic::filtered();
    nic.bench
        .run(|| {
            for handle in [sieve().handle.load(Ordering::Acquire), sieve().module()] {
                let object = NDIS_CONFIGURATION_OBJECT {
                    Header: NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_CONFIGURATION_OBJECT, 1, 20),
                    NdisHandle: Raw::at(handle).pointer(),
                    Flags: 0,
                };
                let mut open = 0;
                let status = call_ddi!(
                    "NdisOpenConfigurationEx",
                    fn(&NDIS_CONFIGURATION_OBJECT, &mut usize) -> NdisStatus,
                    &object,
                    &mut open
                );
                assert_eq!(status, NdisStatus::SUCCESS);
                call_ddi!("NdisCloseConfiguration", fn(usize), open);
            }
        })
        .unwrap();
}
