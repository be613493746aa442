//! Attaching and detaching on request, the teardown callbacks, and volumes that go.

use std::cell::RefCell;

use super::*;
use crate::conformance::conforms;

thread_local! {
    /// What the callbacks of the test on this thread saw.
    static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn see(text: String) {
    SEEN.with_borrow_mut(|seen| seen.push(text));
}

unsafe extern "efiapi" fn setup_callback(_: *const flt::FLT_RELATED_OBJECTS, flags: u32, _: u32, _: i32) -> NtStatus {
    see(format!("setup {flags:#x}"));
    NtStatus::SUCCESS
}

unsafe extern "efiapi" fn agree(_: *const flt::FLT_RELATED_OBJECTS, flags: u32) -> NtStatus {
    see(format!("query {flags:#x}"));
    NtStatus::SUCCESS
}

unsafe extern "efiapi" fn disagree(_: *const flt::FLT_RELATED_OBJECTS, _: u32) -> NtStatus {
    NtStatus::FLT_DO_NOT_DETACH
}

unsafe extern "efiapi" fn teardown_start(_: *const flt::FLT_RELATED_OBJECTS, reason: u32) {
    see(format!("start {reason:#x}"));
}

unsafe extern "efiapi" fn teardown_complete(_: *const flt::FLT_RELATED_OBJECTS, reason: u32) {
    assert_eq!(Thread::current().irql(), 0);
    see(format!("complete {reason:#x}"));
}

fn callbacks() -> FLT_REGISTRATION {
    FLT_REGISTRATION {
        InstanceSetupCallback: Some(setup_callback),
        InstanceQueryTeardownCallback: Some(agree),
        InstanceTeardownStartCallback: Some(teardown_start),
        InstanceTeardownCompleteCallback: Some(teardown_complete),
        ..FLT_REGISTRATION::EMPTY
    }
}

/// A filter that attaches nowhere by itself, with another instance in the registry.
fn unattached(registration: &FLT_REGISTRATION) -> (Setup, usize) {
    let setup = Setup::new();
    let key = setup.service_key();
    key.open(r"Instances\Test Instance").unwrap().set_value("Flags", Value::dword(1)).unwrap();
    let other = key.create(r"Instances\Other").unwrap().0;
    other.set_value("Altitude", Value::text("100.5")).unwrap();
    other.set_value("Flags", Value::dword(1)).unwrap();
    let filter = setup.filter_with(registration);
    SEEN.take();
    (setup, filter)
}

/// FltAttachVolume; no name for an empty one.
fn attach(setup: &Setup, filter: usize, name: &str) -> (NtStatus, usize) {
    let attach = ddi!(FltAttachVolume: fn(usize, usize, usize, usize) -> NtStatus);
    let volume = setup.volume();
    with_name(name, |at| {
        let at = if name.is_empty() { 0 } else { at };
        with_out(|out| setup.run(|| attach(filter, volume, at, out)).unwrap())
    })
}

fn attach_at(setup: &Setup, filter: usize, altitude: &str, name: &str) -> (NtStatus, usize) {
    let attach = ddi!(FltAttachVolumeAtAltitude: fn(usize, usize, usize, usize, usize) -> NtStatus);
    let volume = setup.volume();
    with_name(altitude, |altitude| {
        with_name(name, |at| {
            let at = if name.is_empty() { 0 } else { at };
            with_out(|out| setup.run(|| attach(filter, volume, altitude, at, out)).unwrap())
        })
    })
}

fn detach(setup: &Setup, filter: usize, name: &str) -> NtStatus {
    let detach = ddi!(FltDetachVolume: fn(usize, usize, usize) -> NtStatus);
    let volume = setup.volume();
    with_name(name, |at| {
        let at = if name.is_empty() { 0 } else { at };
        setup.run(|| detach(filter, volume, at)).unwrap()
    })
}

/// Names and altitudes of the instances on C:, highest first.
fn attached(setup: &Setup) -> Vec<(String, String)> {
    let stacks = super::super::volume_stacks(setup.bench.machine().inner());
    let describe = |instance: Arc<crate::flt::Instance>| (instance.name.clone(), instance.altitude.text().to_owned());
    stacks[0].instances().into_iter().map(describe).collect()
}

#[test]
fn attaching_takes_the_attributes_from_the_registry() {
    conforms!(
        "fltkernel/nf-fltkernel-fltattachvolume.md",
        "The instance's attributes are read from the registry below its name; without a name the default instance's are."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltattachvolume.md",
        "The returned instance pointer has a rundown reference, which FltObjectDereference releases."
    );
    conforms!(
        "fltkernel/nc-fltkernel-pflt_instance_setup_callback.md",
        "FLTFL_INSTANCE_SETUP_MANUAL_ATTACHMENT for an attachment by FltAttachVolume."
    );
    let (setup, filter) = unattached(&callbacks());
    let (status, first) = attach(&setup, filter, "");
    assert_eq!(status, NtStatus::SUCCESS);
    let (status, second) = attach(&setup, filter, "other");
    assert_eq!(status, NtStatus::SUCCESS);
    assert_eq!(SEEN.take(), ["setup 0x2", "setup 0x2"]);
    let expected = [("Test Instance", "370030"), ("Other", "100.5")];
    assert_eq!(attached(&setup), expected.map(|(name, altitude)| (name.to_owned(), altitude.to_owned())));
    setup.dereference(first).unwrap();
    setup.dereference(second).unwrap();
    setup.unregister(filter).unwrap();
    assert_eq!(setup.leaks(), Vec::<String>::new());
}

#[test]
fn an_instance_without_a_definition_is_not_found() {
    let (setup, filter) = unattached(&callbacks());
    assert_eq!(attach(&setup, filter, "Nobody"), (NtStatus::OBJECT_NAME_NOT_FOUND, 0xBAD));
}

#[test]
fn attaching_twice_collides_by_name() {
    conforms!(
        "fltkernel/nf-fltkernel-fltattachvolume.md",
        "STATUS_FLT_INSTANCE_NAME_COLLISION when an instance of the name is on the volume."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltattachvolumeataltitude.md",
        "STATUS_FLT_INSTANCE_NAME_COLLISION when an instance of the name is on the volume."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    assert_eq!(attach(&setup, filter, "").0, NtStatus::FLT_INSTANCE_NAME_COLLISION);
    assert_eq!(attach_at(&setup, filter, "17", "Test Instance").0, NtStatus::FLT_INSTANCE_NAME_COLLISION);
}

#[test]
fn an_altitude_that_is_taken_collides() {
    conforms!(
        "fltkernel/nf-fltkernel-fltattachvolume.md",
        "STATUS_OBJECT_NAME_COLLISION when an instance is at the altitude that the registry gives."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltattachvolumeataltitude.md",
        "STATUS_FLT_INSTANCE_ALTITUDE_COLLISION when an instance is at the altitude, however it is written."
    );
    let (setup, filter) = unattached(&FLT_REGISTRATION::EMPTY);
    let (_, instance) = attach_at(&setup, filter, "0100.50", "Mine");
    setup.dereference(instance).unwrap();
    assert_eq!(attach(&setup, filter, "Other").0, NtStatus::OBJECT_NAME_COLLISION);
    assert_eq!(attach_at(&setup, filter, "100.5", "").0, NtStatus::FLT_INSTANCE_ALTITUDE_COLLISION);
    setup.unregister(filter).unwrap();
}

#[test]
fn a_filter_that_does_not_filter_yet_cannot_attach() {
    conforms!("fltkernel/nf-fltkernel-fltattachvolume.md", "STATUS_FLT_FILTER_NOT_READY before FltStartFiltering.");
    conforms!(
        "fltkernel/nf-fltkernel-fltattachvolumeataltitude.md",
        "STATUS_FLT_FILTER_NOT_READY before FltStartFiltering."
    );
    let setup = Setup::new();
    let (_, filter) = setup.register(&FLT_REGISTRATION::EMPTY).unwrap();
    assert_eq!(attach(&setup, filter, "").0, NtStatus::FLT_FILTER_NOT_READY);
    assert_eq!(attach_at(&setup, filter, "1", "").0, NtStatus::FLT_FILTER_NOT_READY);
}

#[test]
fn an_altitude_is_a_decimal_number() {
    conforms!(
        "fltkernel/nf-fltkernel-fltattachvolumeataltitude.md",
        "STATUS_INVALID_PARAMETER for an altitude that is not decimal digits with at most one point."
    );
    let (setup, filter) = unattached(&FLT_REGISTRATION::EMPTY);
    for altitude in ["", "12a", "1.2.3", "-1", " 1"] {
        assert_eq!(attach_at(&setup, filter, altitude, "").0, NtStatus::INVALID_PARAMETER, "{altitude:?}");
    }
}

#[test]
fn a_name_is_generated_where_none_is_given() {
    conforms!(
        "fltkernel/nf-fltkernel-fltattachvolumeataltitude.md",
        "Without an instance name one is made of the filter's name and the altitude."
    );
    let (setup, filter) = unattached(&FLT_REGISTRATION::EMPTY);
    let (status, instance) = attach_at(&setup, filter, "123.45", "");
    assert_eq!(status, NtStatus::SUCCESS);
    let name = attached(&setup)[0].0.clone();
    assert!(name.contains("TestFilter") && name.contains("123.45"), "{name}");
    setup.dereference(instance).unwrap();
    setup.unregister(filter).unwrap();
}

#[test]
fn altitudes_order_instances_as_numbers() {
    conforms!(
        "fltkernel/nf-fltkernel-fltattachvolumeataltitude.md",
        "03333 is higher than 100.123456: leading and trailing zeros do not count."
    );
    let (setup, filter) = unattached(&FLT_REGISTRATION::EMPTY);
    for altitude in ["100.123456", "03333", "100.1234560000000000000000000000000000000001"] {
        setup.dereference(attach_at(&setup, filter, altitude, "").1).unwrap();
    }
    let order: Vec<_> = attached(&setup).into_iter().map(|(_, altitude)| altitude).collect();
    assert_eq!(order, ["03333", "100.1234560000000000000000000000000000000001", "100.123456"]);
    setup.unregister(filter).unwrap();
}

#[test]
fn an_instance_that_may_not_be_attached_by_hand_is_not() {
    let (setup, filter) = unattached(&FLT_REGISTRATION::EMPTY);
    setup.service_key().open(r"Instances\Other").unwrap().set_value("Flags", Value::dword(3)).unwrap();
    assert_eq!(attach(&setup, filter, "Other").0, NtStatus::FLT_DO_NOT_ATTACH);
}

#[test]
fn detaching_asks_and_tears_down() {
    conforms!(
        "fltkernel/nf-fltkernel-fltdetachvolume.md",
        "FltDetachVolume detaches the instance of the name, or the highest, and tears it down."
    );
    conforms!(
        "fltkernel/nc-fltkernel-pflt_instance_query_teardown_callback.md",
        "The callback is asked for a manual detachment; no flags are defined."
    );
    conforms!(
        "fltkernel/nc-fltkernel-pflt_instance_teardown_callback.md",
        "FLTFL_INSTANCE_TEARDOWN_MANUAL for FltDetachVolume; the start callback comes before the complete callback."
    );
    let (setup, filter) = unattached(&callbacks());
    let (_, high) = attach(&setup, filter, "");
    let (_, low) = attach(&setup, filter, "Other");
    SEEN.take();
    assert_eq!(detach(&setup, filter, "other"), NtStatus::SUCCESS);
    assert_eq!(SEEN.take(), ["query 0x0", "start 0x1", "complete 0x1"]);
    assert_eq!(attached(&setup)[0].0, "Test Instance");
    assert_eq!(detach(&setup, filter, ""), NtStatus::SUCCESS);
    setup.dereference(high).unwrap();
    setup.dereference(low).unwrap();
    setup.unregister(filter).unwrap();
    assert_eq!(setup.leaks(), Vec::<String>::new());
}

#[test]
fn a_detached_instance_is_known_to_those_who_reference_it() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_instance_teardown_callback.md",
        "A reference on the instance does not keep the teardown from completing."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltobjectreference.md",
        "A reference keeps the pointer valid; STATUS_FLT_DELETING_OBJECT once the object is torn down."
    );
    let (setup, filter) = unattached(&callbacks());
    let (_, instance) = attach(&setup, filter, "");
    assert_eq!(detach(&setup, filter, ""), NtStatus::SUCCESS);
    let reference = setup.run(|| ddi!(FltObjectReference: fn(usize) -> NtStatus)(instance));
    assert_eq!(reference, Ok(NtStatus::FLT_DELETING_OBJECT));
    setup.dereference(instance).unwrap();
    assert_eq!(setup.dereference(instance), Err(Rule::BadArgument), "the pointer is dead now");
}

#[test]
fn an_instance_can_refuse_to_be_detached() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_instance_query_teardown_callback.md",
        "STATUS_FLT_DO_NOT_DETACH, or any error or warning, keeps the instance attached."
    );
    let registration = FLT_REGISTRATION { InstanceQueryTeardownCallback: Some(disagree), ..callbacks() };
    let setup = Setup::new();
    let filter = setup.filter_with(&registration);
    assert_eq!(detach(&setup, filter, ""), NtStatus::FLT_DO_NOT_DETACH);
    assert_eq!(attached(&setup).len(), 1);
    setup.unregister(filter).unwrap();
    assert!(attached(&setup).is_empty(), "but not the filter's end");
}

#[test]
fn without_a_query_callback_instances_are_not_detached_by_hand() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_instance_query_teardown_callback.md",
        "Without the callback instances cannot be detached by FilterDetach or FltDetachVolume."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    assert_eq!(detach(&setup, filter, ""), NtStatus::FLT_DO_NOT_DETACH);
    let process = setup.process();
    assert_eq!(process.filter_detach("TestFilter", "C:", None), Err(NtStatus::FLT_DO_NOT_DETACH));
}

#[test]
fn an_instance_that_is_not_there_cannot_be_detached() {
    conforms!("fltkernel/nf-fltkernel-fltdetachvolume.md", "STATUS_FLT_INSTANCE_NOT_FOUND when no instance matches.");
    let (setup, filter) = unattached(&callbacks());
    assert_eq!(detach(&setup, filter, ""), NtStatus::FLT_INSTANCE_NOT_FOUND);
    assert_eq!(detach(&setup, filter, "Nobody"), NtStatus::FLT_INSTANCE_NOT_FOUND);
}

unsafe extern "efiapi" fn detach_again(related: *const flt::FLT_RELATED_OBJECTS, _: u32) {
    let related = Raw::of(related.cast_mut()).read();
    let instance = related.Instance.addr();
    let reference = ddi!(FltObjectReference: fn(usize) -> NtStatus)(instance);
    let (volume, out) = with_out(|out| ddi!(FltGetVolumeFromInstance: fn(usize, usize) -> NtStatus)(instance, out));
    see(format!("{reference} {volume}"));
    if volume.is_success() {
        ddi!(FltObjectDereference: fn(usize))(out);
    }
}

#[test]
fn an_instance_that_goes_is_not_referenced_any_more() {
    conforms!(
        "fltkernel/nf-fltkernel-fltobjectreference.md",
        "STATUS_FLT_DELETING_OBJECT while the object is torn down."
    );
    let setup = Setup::new();
    let filter = setup.filter_with(&FLT_REGISTRATION {
        InstanceTeardownStartCallback: Some(detach_again),
        ..FLT_REGISTRATION::EMPTY
    });
    setup.unregister(filter).unwrap();
    assert_eq!(SEEN.take(), [format!("{} {}", NtStatus::FLT_DELETING_OBJECT, NtStatus::SUCCESS)]);
}

#[test]
fn a_dismount_tears_everything_down_without_asking() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_instance_teardown_callback.md",
        "FLTFL_INSTANCE_TEARDOWN_VOLUME_DISMOUNT when the volume goes."
    );
    conforms!(
        "fltkernel/nc-fltkernel-pflt_instance_query_teardown_callback.md",
        "The callback is not asked when the volume is dismounted or the filter is unloaded."
    );
    let setup = Setup::new();
    setup.filter_with(&FLT_REGISTRATION { InstanceQueryTeardownCallback: Some(disagree), ..callbacks() });
    let file = setup.process().create_file(r"\??\C:\boot.rom", &crate::fs::program::OpenOptions::new()).unwrap();
    SEEN.take();
    let volume = setup.volume();
    let machine = setup.bench.machine();
    machine.dismount("C:").unwrap();
    assert_eq!(SEEN.take(), ["start 0x8", "complete 0x8"]);
    assert!(machine.filters()[0].volumes.is_empty());
    assert_eq!(file.read(0, 1), Err(NtStatus::VOLUME_DISMOUNTED));
    assert_eq!(machine.dismount("C:"), Err(NtStatus::NO_SUCH_DEVICE));
    let name = ddi!(FltGetVolumeName: fn(usize, usize, usize) -> NtStatus);
    assert_eq!(setup.run(|| name(volume, 0, 0)), Err(Rule::BadArgument));
    drop(file);
}

#[test]
fn a_volume_that_goes_takes_its_contexts_along_and_gives_out_no_references() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetvolumefrominstance.md",
        "STATUS_FLT_DELETING_OBJECT while the instance's volume is torn down."
    );
    let setup = Setup::new();
    let filter = setup.filter_with(&FLT_REGISTRATION {
        InstanceTeardownStartCallback: Some(detach_again),
        ..FLT_REGISTRATION::EMPTY
    });
    setup.bench.machine().dismount("c").unwrap();
    assert_eq!(SEEN.take(), [format!("{} {}", NtStatus::FLT_DELETING_OBJECT, NtStatus::FLT_DELETING_OBJECT)]);
    setup.unregister(filter).unwrap();
    assert_eq!(setup.leaks(), Vec::<String>::new());
}

#[test]
fn a_newly_mounted_volume_is_offered_to_the_filters() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_instance_setup_callback.md",
        "AUTOMATIC_ATTACHMENT when the filter starts; NEWLY_MOUNTED_VOLUME too for a volume that comes later."
    );
    let setup = Setup::new();
    let filter = setup.filter_with(&callbacks());
    assert_eq!(SEEN.take(), ["setup 0x1"]);
    let folder = tempfile::tempdir().unwrap();
    crate::fs::mount(setup.bench.machine().inner(), "D:", folder.path()).unwrap();
    assert_eq!(SEEN.take(), ["setup 0x5"]);
    setup.unregister(filter).unwrap();
}

#[test]
fn another_filter_s_pointer_is_not_for_attaching() {
    let setup = Setup::new();
    let filter = setup.filter();
    let stranger = crate::machine::Driver::without_image("stranger.sys");
    let volume = setup.volume();
    let attach = ddi!(FltAttachVolume: fn(usize, usize, usize, usize) -> NtStatus);
    let outcome = setup.bench.enter(|thread| thread.call_driver(&stranger, "Test", 0, || attach(filter, volume, 0, 0)));
    assert_eq!(outcome.unwrap_err().0.rule, Rule::BadArgument);
}

#[test]
fn programs_attach_detach_and_list() {
    conforms!(
        "sdk:fltuser/nf-fltuser-filterattach.md",
        "FilterAttach attaches a new instance of a filter to a volume."
    );
    conforms!(
        "sdk:fltuser/nf-fltuser-filterattachataltitude.md",
        "FilterAttachAtAltitude attaches a new instance at the altitude given."
    );
    conforms!("sdk:fltuser/nf-fltuser-filterdetach.md", "FilterDetach takes the instance of a name off a volume.");
    let (setup, filter) = unattached(&callbacks());
    let process = setup.process();
    let made = process.filter_attach("testfilter", r"\Device\HarddiskVolume1", None).unwrap();
    assert_eq!(
        (made.name.as_str(), made.filter.as_str(), made.altitude.as_str()),
        ("Test Instance", "TestFilter", "370030")
    );
    let other = process.filter_attach_at_altitude("TestFilter", "C:", "42", Some("Mine")).unwrap();
    assert_eq!(process.volume_instances("C:").unwrap(), [made.clone(), other.clone()]);
    assert_eq!(process.filter_instances("TestFilter").unwrap(), [made, other]);
    assert_eq!(process.filter_volumes().unwrap(), [r"\Device\HarddiskVolume1"]);
    assert_eq!(process.filter_detach("TestFilter", "C:", Some("Mine")), Ok(()));
    assert_eq!(process.filter_detach("TestFilter", "C:", Some("Mine")), Err(NtStatus::FLT_INSTANCE_NOT_FOUND));
    assert_eq!(process.filter_detach("TestFilter", "D:", None), Err(NtStatus::FLT_VOLUME_NOT_FOUND));
    assert_eq!(process.filter_detach("Nobody", "C:", None), Err(NtStatus::FLT_FILTER_NOT_FOUND));
    setup.unregister(filter).unwrap();
}

#[test]
fn plain_users_do_not_administer_filters() {
    conforms!("sdk:fltuser/nf-fltuser-filterload.md", "The caller needs SeLoadDriverPrivilege.");
    conforms!("sdk:fltuser/nf-fltuser-filterunload.md", "The caller needs SeLoadDriverPrivilege.");
    let setup = Setup::new();
    let filter = setup.filter();
    let user = setup.bench.machine().process("user.exe").plain_user().start().unwrap();
    assert_eq!(user.filter_load("TestFilter"), Err(NtStatus::PRIVILEGE_NOT_HELD));
    assert_eq!(user.filter_unload("TestFilter"), Err(NtStatus::PRIVILEGE_NOT_HELD));
    assert_eq!(user.filter_attach("TestFilter", "C:", None), Err(NtStatus::PRIVILEGE_NOT_HELD));
    assert_eq!(user.filter_detach("TestFilter", "C:", None), Err(NtStatus::PRIVILEGE_NOT_HELD));
    setup.unregister(filter).unwrap();
}
