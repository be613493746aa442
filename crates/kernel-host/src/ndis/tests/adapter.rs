//! The life of an adapter, its attributes, and the error log.

use super::*;
use crate::ndis::ErrorLogEntry;
use crate::ndis::adapter::AdapterState;

#[test]
fn an_adapter_is_initialised_restarted_paused_and_halted_in_this_order() {
    conforms!(
        "docs:network/miniport-adapter-states-and-operations.md",
        "An adapter goes from Initializing to Paused, Restarting and Running, and back over Pausing and Paused to Halted."
    );
    let nic = Nic::new();
    let adapter = nic.add().unwrap();
    assert_eq!((adapter.state(), adapter.mac_address()), (AdapterState::Running, vec![2, 0, 0, 0, 0, 0]));
    adapter.remove().unwrap();
    assert_eq!(callbacks(), ["initialize", "power profile", "restart", "pause", "halt"]);
    assert_eq!(nic.leaks(), 1, "only the registration is left");
}

#[test]
fn without_a_registered_miniport_there_is_no_adapter() {
    let nic = Nic::unregistered();
    assert_eq!(status(nic.add()), NdisStatus::ADAPTER_NOT_FOUND);
}

#[test]
fn a_failed_initialisation_hands_back_its_status_and_is_not_halted() {
    conforms!(
        "docs:network/miniport-adapter-states-and-operations.md",
        "When MiniportInitializeEx fails, the adapter is halted without MiniportHaltEx."
    );
    let nic = Nic::new();
    nic.on_initialize(|_| NdisStatus::RESOURCES);
    assert_eq!(status(nic.add()), NdisStatus::RESOURCES);
    assert_eq!(callbacks(), ["initialize"]);
    assert_eq!(nic.leaks(), 1);
}

#[test]
fn a_failed_restart_halts_the_adapter() {
    conforms!(
        "ndis/nc-ndis-miniport_halt.md",
        "NDIS halts an adapter that it cannot start although MiniportInitializeEx succeeded."
    );
    let nic = Nic::new();
    script().restart.set(NdisStatus::FAILURE);
    assert_eq!(status(nic.add()), NdisStatus::FAILURE);
    assert_eq!(callbacks(), ["initialize", "power profile", "restart", "halt"]);
}

#[test]
fn success_without_general_attributes_is_found() {
    conforms!(
        "ndis/nc-ndis-miniport_initialize.md",
        "A successful MiniportInitializeEx has set the general attributes."
    );
    let nic = Nic::new();
    script().sets_attributes.set(false);
    nic.on_initialize(|handle| set_registration(handle, 1));
    assert_eq!(rule(nic.add()), Rule::BadState);
}

#[test]
fn general_attributes_before_registration_attributes_are_found() {
    conforms!(
        "ndis/nf-ndis-ndismsetminiportattributes.md",
        "The registration attributes are set first, then the general ones, then all others."
    );
    let nic = Nic::new();
    script().sets_attributes.set(false);
    nic.on_initialize(|handle| set_general(handle, 2));
    assert_eq!(rule(nic.add()), Rule::BadState);
}

#[test]
fn attributes_of_an_unknown_revision_are_bad_version() {
    conforms!(
        "ndis/nf-ndis-ndismsetminiportattributes.md",
        "A revision that NDIS does not know is NDIS_STATUS_BAD_VERSION."
    );
    let nic = Nic::new();
    nic.on_initialize(|handle| {
        assert_eq!(set_registration(handle, 3), NdisStatus::BAD_VERSION);
        assert_eq!(set_general(handle, 0), NdisStatus::BAD_VERSION);
        NdisStatus::SUCCESS
    });
    nic.add().unwrap();
}

#[test]
fn attributes_outside_of_initialisation_are_found() {
    conforms!("ndis/nf-ndis-ndismsetminiportattributes.md", "The attributes are set from MiniportInitializeEx.");
    let nic = Nic::new();
    let _adapter = nic.add().unwrap();
    let late = nic.bench.run(|| set_registration(script().adapter.get(), 1)).unwrap_err();
    assert_eq!(late.0.rule, Rule::BadState);
}

#[test]
fn a_pending_initialisation_is_found() {
    conforms!(
        "ndis/nc-ndis-miniport_initialize.md",
        "MiniportInitializeEx returns success or a failure; it cannot be pended."
    );
    let nic = Nic::new();
    nic.on_initialize(|_| NdisStatus::PENDING);
    assert_eq!(rule(nic.add()), Rule::BadState);
}

#[test]
fn a_surprise_removal_is_announced_before_the_halt() {
    conforms!(
        "ndis/nc-ndis-miniport_device_pnp_event_notify.md",
        "A surprise removal is announced to the miniport, which is halted after that."
    );
    let nic = Nic::new();
    let adapter = nic.add().unwrap();
    callbacks();
    adapter.surprise_remove().unwrap();
    assert_eq!(callbacks(), ["surprise removal", "pause", "halt"]);
}

#[test]
fn nothing_follows_a_shutdown() {
    conforms!(
        "ndis/nc-ndis-miniport_shutdown.md",
        "After MiniportShutdownEx there is no other callback, MiniportHaltEx included."
    );
    let nic = Nic::new();
    let adapter = nic.add().unwrap();
    callbacks();
    adapter.shut_down().unwrap();
    assert_eq!(callbacks(), ["shutdown"]);
}

#[test]
fn error_log_entries_keep_their_values() {
    conforms!("ndis/nf-ndis-ndiswriteerrorlogentry.md", "The values behind the count are kept with the error code.");
    let nic = Nic::new();
    nic.on_initialize(|handle| {
        call_ddi!(
            "NdisWriteErrorLogEntry",
            fn(usize, u32, u32, u32, u32, u32),
            handle,
            NDIS_ERROR_CODE_DRIVER_FAILURE,
            3,
            7,
            0xC001_001B,
            9
        );
        NdisStatus::FAILURE
    });
    assert_eq!(status(nic.add()), NdisStatus::FAILURE);
    let expected = ErrorLogEntry {
        adapter: "Ethernet".to_owned(),
        code: NDIS_ERROR_CODE_DRIVER_FAILURE,
        values: vec![7, 0xC001_001B, 9],
    };
    assert_eq!(nic.bench.machine().ndis_error_log(), [expected]);
}

#[test]
fn memory_of_ndis_is_freed_with_flags_of_zero() {
    conforms!(
        "ndis/nf-ndis-ndisfreememory.md",
        "MemoryFlags must be zero for memory of NdisAllocateMemoryWithTagPriority."
    );
    let nic = Nic::new();
    nic.on_initialize(|handle| {
        let memory = call_ddi!(
            "NdisAllocateMemoryWithTagPriority",
            fn(usize, u32, u32, u32) -> usize,
            handle,
            100,
            u32::from_le_bytes(*b"Test"),
            16
        );
        assert!(memory.is_multiple_of(16));
        call_ddi!("NdisFreeMemory", fn(usize, u32, u32), memory, 100, 1);
        NdisStatus::SUCCESS
    });
    assert_eq!(rule(nic.add()), Rule::BadArgument);
}
