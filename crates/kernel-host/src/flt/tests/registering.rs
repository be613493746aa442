//! FltRegisterFilter, FltStartFiltering, FltUnregisterFilter, unload.

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::conformance::conforms;

#[test]
fn registration_with_another_major_version_is_an_invalid_parameter() {
    conforms!(
        "fltkernel/nf-fltkernel-fltregisterfilter.md",
        "Another major version of the registration is STATUS_INVALID_PARAMETER."
    );
    let setup = Setup::new();
    let registration = FLT_REGISTRATION { Version: 0x0303, ..FLT_REGISTRATION::EMPTY };
    assert_eq!(setup.register(&registration).unwrap().0, NtStatus::INVALID_PARAMETER);
}

#[test]
fn registration_with_an_older_minor_version_is_tolerated() {
    conforms!(
        "fltkernel/ns-fltkernel-_flt_registration.md",
        "A registration of an older minor version, without the members that came later, is accepted."
    );
    let setup = Setup::new();
    let registration = FLT_REGISTRATION { Version: 0x0202, Size: 104, ..FLT_REGISTRATION::EMPTY };
    let (status, filter) = setup.register(&registration).unwrap();
    assert_eq!(status, NtStatus::SUCCESS);
    setup.unregister(filter).unwrap();
}

#[test]
fn registration_that_is_too_short_for_its_version_is_an_invalid_parameter() {
    conforms!("fltkernel/ns-fltkernel-_flt_registration.md", "Size is sizeof(FLT_REGISTRATION) of the version.");
    let setup = Setup::new();
    let registration = FLT_REGISTRATION { Size: 104, ..FLT_REGISTRATION::EMPTY };
    assert_eq!(setup.register(&registration).unwrap().0, NtStatus::INVALID_PARAMETER);
}

#[test]
fn registration_without_an_instance_in_the_registry_finds_no_name_and_leaves_the_pointer_alone() {
    conforms!(
        "fltkernel/nf-fltkernel-fltregisterfilter.md",
        "Without an instance in the registry: STATUS_OBJECT_NAME_NOT_FOUND."
    );
    let setup = Setup::without_instances();
    let (status, filter) = setup.register(&FLT_REGISTRATION::EMPTY).unwrap();
    assert_eq!((status, filter), (NtStatus::OBJECT_NAME_NOT_FOUND, 0));
}

#[test]
fn instances_below_parameters_count_too() {
    conforms!(
        "docs:develop/driver-isolation.md",
        "An isolated driver keeps its state below the Parameters key of its service."
    );
    let setup = Setup::without_instances();
    let key = setup.service_key().create(r"Parameters\Instances").unwrap().0;
    key.set_value("DefaultInstance", Value::text("I")).unwrap();
    key.create("I").unwrap().0.set_value("Altitude", Value::text("100.5")).unwrap();
    let filter = setup.filter();
    assert_eq!(setup.bench.machine().filters()[0].altitude, "100.5");
    setup.unregister(filter).unwrap();
}

#[test]
fn power_and_device_change_cannot_be_registered() {
    conforms!(
        "fltkernel/ns-fltkernel-_flt_operation_registration.md",
        "IRP_MJ_POWER and IRP_MJ_DEVICE_CHANGE cannot be registered."
    );
    let setup = Setup::new();
    for major in [0x16, 0x18] {
        let operations = callbacks::operations(major, None, None);
        let registration = FLT_REGISTRATION { OperationRegistration: operations.as_ptr(), ..FLT_REGISTRATION::EMPTY };
        assert_eq!(setup.register(&registration).unwrap().0, NtStatus::INVALID_PARAMETER);
    }
}

#[test]
fn every_operation_of_the_header_can_be_registered_and_no_other() {
    conforms!(
        "fltkernel/ns-fltkernel-_flt_operation_registration.md",
        "MajorFunction is one of the I/O operations that the header has."
    );
    for (major, status) in [
        (0x0D, NtStatus::SUCCESS),
        (0x0C, NtStatus::SUCCESS),
        (0xFF, NtStatus::SUCCESS),
        (0xF3, NtStatus::SUCCESS),
        (0x40, NtStatus::INVALID_PARAMETER),
    ] {
        let setup = Setup::new();
        let operations = callbacks::operations(major, None, None);
        let registration = FLT_REGISTRATION { OperationRegistration: operations.as_ptr(), ..FLT_REGISTRATION::EMPTY };
        assert_eq!(setup.register(&registration).unwrap().0, status, "{major:#x}");
    }
}

#[test]
fn starting_twice_is_an_invalid_parameter() {
    conforms!(
        "fltkernel/nf-fltkernel-fltstartfiltering.md",
        "STATUS_INVALID_PARAMETER when filtering was started already."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    assert_eq!(setup.start(filter), Ok(NtStatus::INVALID_PARAMETER));
    setup.unregister(filter).unwrap();
    assert_eq!(setup.leaks(), Vec::<String>::new());
}

static SETUP_FLAGS: AtomicU32 = AtomicU32::new(0);
static TEARDOWNS: AtomicU32 = AtomicU32::new(0);

unsafe extern "efiapi" fn setup_callback(
    related: *const flt::FLT_RELATED_OBJECTS,
    flags: u32,
    device_type: u32,
    file_system: i32,
) -> NtStatus {
    let related = Raw::of(related.cast_mut()).read();
    assert!(related.Size == 48 && !related.Instance.is_null() && !related.Volume.is_null());
    SETUP_FLAGS.store(flags | device_type << 8 | file_system.cast_unsigned() << 16, Ordering::SeqCst);
    NtStatus::SUCCESS
}

unsafe extern "efiapi" fn teardown(_related: *const flt::FLT_RELATED_OBJECTS, reason: u32) {
    TEARDOWNS.fetch_add(0x100 + reason, Ordering::SeqCst);
}

#[test]
fn starting_attaches_to_the_volumes_and_unregistering_tears_down() {
    conforms!(
        "fltkernel/nf-fltkernel-fltstartfiltering.md",
        "Volumes are presented to the filter before FltStartFiltering returns."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltunregisterfilter.md",
        "Both teardown callbacks are called for every instance."
    );
    let setup = Setup::new();
    let filter = setup.filter_with(&FLT_REGISTRATION {
        InstanceSetupCallback: Some(setup_callback),
        InstanceTeardownStartCallback: Some(teardown),
        InstanceTeardownCompleteCallback: Some(teardown),
        ..FLT_REGISTRATION::EMPTY
    });
    // Automatic attachment, FILE_DEVICE_DISK_FILE_SYSTEM, FLT_FSTYPE_NTFS.
    assert_eq!(SETUP_FLAGS.load(Ordering::SeqCst), 0x0002_0801);
    assert_eq!(setup.bench.machine().filters()[0].volumes, [r"\Device\HarddiskVolume1"]);
    setup.unregister(filter).unwrap();
    // Two callbacks, each with FLTFL_INSTANCE_TEARDOWN_FILTER_UNLOAD.
    assert_eq!(TEARDOWNS.load(Ordering::SeqCst), 0x204);
    assert!(setup.bench.machine().filters().is_empty());
}

unsafe extern "efiapi" fn decline(_: *const flt::FLT_RELATED_OBJECTS, _: u32, _: u32, _: i32) -> NtStatus {
    NtStatus::FLT_DO_NOT_ATTACH
}

#[test]
fn a_setup_callback_that_declines_leaves_no_instance() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_instance_setup_callback.md",
        "STATUS_FLT_DO_NOT_ATTACH, or any error or warning, leaves the instance unattached."
    );
    let setup = Setup::new();
    let filter =
        setup.filter_with(&FLT_REGISTRATION { InstanceSetupCallback: Some(decline), ..FLT_REGISTRATION::EMPTY });
    assert!(setup.bench.machine().filters()[0].volumes.is_empty());
    setup.unregister(filter).unwrap();
}

#[test]
fn unregistering_with_a_leaked_reference_is_a_deadlock_that_names_it() {
    let setup = Setup::new();
    let filter = setup.filter();
    let status = setup.run(|| ddi!(FltObjectReference: fn(usize) -> NtStatus)(filter));
    assert_eq!(status, Ok(NtStatus::SUCCESS));
    let stopped = setup.bench.run(|| ddi!(FltUnregisterFilter: fn(usize))(filter)).unwrap_err();
    assert_eq!(stopped.0.rule, Rule::Deadlock);
    assert!(stopped.0.message.contains("the filter TestFilter is still referenced"), "{}", stopped.0.message);
}

#[test]
fn dropping_a_rundown_reference_that_is_not_held_underflows() {
    let setup = Setup::new();
    let filter = setup.filter();
    assert_eq!(setup.run(|| ddi!(FltObjectDereference: fn(usize))(filter)), Err(Rule::ReferenceUnderflow));
}

#[test]
fn a_filter_pointer_is_dead_after_unregistering() {
    let setup = Setup::new();
    let filter = setup.filter();
    setup.unregister(filter).unwrap();
    assert_eq!(setup.start(filter), Err(Rule::BadArgument));
}

#[test]
fn a_filter_is_ended_by_its_own_driver_only() {
    conforms!(
        "fltkernel/nf-fltkernel-fltunregisterfilter.md",
        "A filter can call FltUnregisterFilter to unregister itself only."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    let stranger = crate::machine::Driver::without_image("stranger.sys");
    let unregister = ddi!(FltUnregisterFilter: fn(usize));
    let outcome = setup.bench.enter(|thread| thread.call_driver(&stranger, "Test", 0, || unregister(filter)));
    assert_eq!(outcome.unwrap_err().0.rule, Rule::BadArgument);
}

#[test]
fn a_filter_without_an_unload_callback_cannot_be_unloaded() {
    conforms!(
        "fltkernel/ns-fltkernel-_flt_registration.md",
        "Without a FilterUnloadCallback the filter can never be unloaded."
    );
    let setup = Setup::new();
    setup.filter();
    let machine = setup.bench.machine().inner();
    let filter = machine.flt.filter_named("testfilter").unwrap();
    assert_eq!(super::super::filter::unload(machine, &filter, false), Err(NtStatus::FLT_DO_NOT_DETACH));
}

unsafe extern "efiapi" fn refuse_unload(flags: u32) -> NtStatus {
    assert_eq!(flags, 0);
    NtStatus::FLT_DO_NOT_DETACH
}

#[test]
fn a_refused_unload_leaves_the_filter_as_it_was() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_filter_unload_callback.md",
        "A refused unload that is not mandatory leaves the filter loaded."
    );
    let setup = Setup::new();
    let filter =
        setup.filter_with(&FLT_REGISTRATION { FilterUnloadCallback: Some(refuse_unload), ..FLT_REGISTRATION::EMPTY });
    let machine = setup.bench.machine().inner();
    let found = machine.flt.filter_named("TestFilter").unwrap();
    assert_eq!(super::super::filter::unload(machine, &found, false), Err(NtStatus::FLT_DO_NOT_DETACH));
    assert_eq!(setup.bench.machine().filters().len(), 1);
    setup.unregister(filter).unwrap();
}

#[test]
fn a_mandatory_unload_is_refused_for_a_filter_that_does_not_support_service_stop() {
    conforms!(
        "fltkernel/ns-fltkernel-_flt_registration.md",
        "With DO_NOT_SUPPORT_SERVICE_STOP a stop of the service does not unload the filter."
    );
    let setup = Setup::new();
    setup.filter_with(&FLT_REGISTRATION {
        Flags: 1,
        FilterUnloadCallback: Some(refuse_unload),
        ..FLT_REGISTRATION::EMPTY
    });
    let machine = setup.bench.machine().inner();
    let filter = machine.flt.filter_named("TestFilter").unwrap();
    assert_eq!(super::super::filter::unload(machine, &filter, true), Err(NtStatus::FLT_DO_NOT_DETACH));
}

unsafe extern "efiapi" fn forget_to_unregister(_: u32) -> NtStatus {
    NtStatus::SUCCESS
}

#[test]
fn an_unload_callback_that_does_not_unregister_is_a_deadlock() {
    let setup = Setup::new();
    setup
        .filter_with(&FLT_REGISTRATION { FilterUnloadCallback: Some(forget_to_unregister), ..FLT_REGISTRATION::EMPTY });
    let machine = setup.bench.machine().inner();
    let filter = machine.flt.filter_named("TestFilter").unwrap();
    assert!(super::super::filter::unload(machine, &filter, false).is_err());
    assert_eq!(setup.bench.machine().finding().unwrap().rule, Rule::Deadlock);
}

#[test]
fn a_detach_by_hand_needs_the_query_callback() {
    conforms!(
        "fltkernel/ns-fltkernel-_flt_registration.md",
        "Without an InstanceQueryTeardownCallback instances are never detached by hand."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    let machine = setup.bench.machine();
    assert_eq!(machine.filter_detach("TestFilter", "C:"), Err(NtStatus::FLT_DO_NOT_DETACH));
    assert_eq!(machine.filter_detach("TestFilter", "D:"), Err(NtStatus::FLT_INSTANCE_NOT_FOUND));
    assert_eq!(machine.filter_detach("Nobody", "C:"), Err(NtStatus::FLT_FILTER_NOT_FOUND));
    setup.unregister(filter).unwrap();
}
