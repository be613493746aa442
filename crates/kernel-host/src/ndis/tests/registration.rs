//! `NdisMRegisterMiniportDriver`.

use super::*;

fn refused(change: impl FnOnce(&mut NDIS_MINIPORT_DRIVER_CHARACTERISTICS)) -> NdisStatus {
    let nic = Nic::unregistered();
    let mut changed = characteristics();
    change(&mut changed);
    let status = nic.bench.run(|| register(&changed)).unwrap();
    assert_eq!(nic.leaks(), 0, "a refused driver is not registered");
    status
}

#[test]
fn a_structure_of_another_type_is_bad_characteristics() {
    conforms!(
        "ndis/ns-ndis-_ndis_miniport_driver_characteristics.md",
        "Header.Type must be NDIS_OBJECT_TYPE_MINIPORT_DRIVER_CHARACTERISTICS."
    );
    assert_eq!(refused(|c| c.Header.Type = NDIS_OBJECT_TYPE_DEFAULT), NdisStatus::BAD_CHARACTERISTICS);
}

#[test]
fn a_size_below_that_of_the_revision_is_bad_characteristics() {
    conforms!(
        "ndis/nf-ndis-ndismregisterminiportdriver.md",
        "A length that is wrong for the version is NDIS_STATUS_BAD_CHARACTERISTICS."
    );
    assert_eq!(refused(|c| c.Header.Size = 151), NdisStatus::BAD_CHARACTERISTICS);
}

#[test]
fn a_revision_that_the_version_does_not_know_is_bad_characteristics() {
    conforms!(
        "ndis/ns-ndis-_ndis_miniport_driver_characteristics.md",
        "Revision 2 came with NDIS 6.1, revision 3 with NDIS 6.80."
    );
    assert_eq!(refused(|c| (c.Header.Revision, c.Header.Size) = (3, 160)), NdisStatus::BAD_CHARACTERISTICS);
    assert_eq!(refused(|c| c.MinorNdisVersion = 0), NdisStatus::BAD_CHARACTERISTICS);
    assert_eq!(refused(|c| c.Header.Revision = 0), NdisStatus::BAD_CHARACTERISTICS);
}

#[test]
fn a_version_that_does_not_exist_is_bad_version() {
    conforms!(
        "ndis/nf-ndis-ndismregisterminiportdriver.md",
        "An invalid MajorNdisVersion or MinorNdisVersion is NDIS_STATUS_BAD_VERSION."
    );
    assert_eq!(refused(|c| c.MajorNdisVersion = 5), NdisStatus::BAD_VERSION);
    assert_eq!(refused(|c| c.MinorNdisVersion = 21), NdisStatus::BAD_VERSION);
    assert_eq!(refused(|c| c.MinorNdisVersion = 90), NdisStatus::BAD_VERSION);
}

#[test]
fn a_missing_required_handler_is_bad_characteristics() {
    assert_eq!(refused(|c| c.HaltHandlerEx = None), NdisStatus::BAD_CHARACTERISTICS);
    assert_eq!(refused(|c| c.OidRequestHandler = None), NdisStatus::BAD_CHARACTERISTICS);
    assert_eq!(refused(|c| c.CancelSendHandler = None), NdisStatus::BAD_CHARACTERISTICS);
    assert_eq!(refused(|c| c.ShutdownHandlerEx = None), NdisStatus::BAD_CHARACTERISTICS);
}

#[test]
fn direct_oid_handlers_come_in_pairs() {
    assert_eq!(refused(|c| c.DirectOidRequestHandler = Some(oid_request)), NdisStatus::BAD_CHARACTERISTICS);
}

#[test]
fn a_second_registration_of_a_driver_object_fails() {
    let nic = Nic::new();
    assert_eq!(nic.bench.run(|| register(&characteristics())).unwrap(), NdisStatus::FAILURE);
}

#[test]
fn a_registration_that_is_left_behind_is_a_leak() {
    conforms!(
        "ndis/nf-ndis-ndismderegisterminiportdriver.md",
        "The driver deregisters before a failing DriverEntry returns, or in its unload."
    );
    let nic = Nic::new();
    assert_eq!(nic.leaks(), 1);
    nic.bench.run(|| call_ddi!("NdisMDeregisterMiniportDriver", fn(usize), REGISTERED.get())).unwrap();
    assert_eq!(nic.leaks(), 0);
}

#[test]
fn deregistering_twice_is_found() {
    let nic = Nic::new();
    let twice = || {
        call_ddi!("NdisMDeregisterMiniportDriver", fn(usize), REGISTERED.get());
        call_ddi!("NdisMDeregisterMiniportDriver", fn(usize), REGISTERED.get());
    };
    assert_eq!(nic.bench.run(twice).unwrap_err().0.rule, Rule::InvalidHandle);
}

#[test]
fn deregistering_with_an_adapter_is_found() {
    let nic = Nic::new();
    let _adapter = nic.add().unwrap();
    let early = || call_ddi!("NdisMDeregisterMiniportDriver", fn(usize), REGISTERED.get());
    assert_eq!(nic.bench.run(early).unwrap_err().0.rule, Rule::BadState);
}

#[test]
fn registration_takes_over_unload_and_unload_halts_adapters_first() {
    conforms!(
        "ndis/nf-ndis-ndismderegisterminiportdriver.md",
        "MiniportDriverUnload deregisters; the adapters are halted before."
    );
    let nic = Nic::new();
    let adapter = nic.add().unwrap();
    callbacks();
    let unload = crate::nt::raw::field!(Raw::<DRIVER_OBJECT>::at(driver_object()), DRIVER_OBJECT, DriverUnload);
    let unload = unload.cast::<usize>().read();
    // SAFETY: what registration wrote there is a driver unload routine.
    let unload: extern "efiapi" fn(usize) = unsafe { std::mem::transmute(unload) };
    nic.bench.run(|| unload(driver_object())).unwrap();
    assert_eq!(callbacks(), ["pause", "halt", "unload"]);
    assert_eq!(nic.leaks(), 0);
    assert_eq!(adapter.state(), crate::ndis::adapter::AdapterState::Halted);
}

#[test]
fn the_version_of_ndis_is_major_high_minor_low() {
    conforms!(
        "ndis/nf-ndis-ndisgetversion.md",
        "The version has its major part in the high word and its minor part in the low one."
    );
    let nic = Nic::unregistered();
    let version = nic.bench.run(|| call_ddi!("NdisGetVersion", fn() -> u32)).unwrap();
    assert_eq!(version, 6 << 16 | 0x59);
}

/// The highest IRQL of each call, by its page.
const HIGHEST: &[(&str, u8)] = &[
    ("NdisAllocateIoWorkItem", 2),
    ("NdisAllocateMemoryWithTagPriority", 2),
    ("NdisCloseAdapterEx", 0),
    ("NdisCloseConfiguration", 0),
    ("NdisCompleteBindAdapterEx", 2),
    ("NdisCompleteNetPnPEvent", 0),
    ("NdisCompleteUnbindAdapterEx", 2),
    ("NdisMDeregisterMiniportDriver", 0),
    ("NdisMPauseComplete", 2),
    ("NdisMRegisterMiniportDriver", 0),
    ("NdisMRestartComplete", 2),
    ("NdisMSetMiniportAttributes", 0),
    ("NdisOpenAdapterEx", 0),
    ("NdisOpenConfigurationEx", 0),
    ("NdisReadConfiguration", 0),
    ("NdisReadNetworkAddress", 0),
    ("NdisSetTimerObject", 2),
    ("NdisWriteErrorLogEntry", 2),
];

#[test]
fn calls_are_allowed_up_to_the_irql_of_their_pages() {
    conforms!("ndis/nf-ndis-ndismregisterminiportdriver.md", "The IRQL must be PASSIVE_LEVEL.");
    conforms!("ndis/nf-ndis-ndisopenadapterex.md", "The IRQL must be PASSIVE_LEVEL.");
    conforms!("ndis/nf-ndis-ndiscloseadapterex.md", "The IRQL must be PASSIVE_LEVEL.");
    conforms!("ndis/nf-ndis-ndiscompletebindadapterex.md", "The IRQL must be at most DISPATCH_LEVEL.");
    conforms!("ndis/nf-ndis-ndiscompleteunbindadapterex.md", "The IRQL must be at most DISPATCH_LEVEL.");
    conforms!("ndis/nf-ndis-ndisopenconfigurationex.md", "The IRQL must be PASSIVE_LEVEL.");
    conforms!("ndis/nf-ndis-ndiswriteerrorlogentry.md", "The IRQL must be at most DISPATCH_LEVEL.");
    for (name, irql) in HIGHEST {
        assert_eq!(export(name).max_irql, *irql, "{name}");
    }
}
