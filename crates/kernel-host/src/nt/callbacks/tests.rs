//! One test per documented rule of callback objects.

use std::cell::RefCell;

use super::*;
use crate::conformance::conforms;
use crate::ddi::testing::Bench;
use crate::nt::ob_exports::obf_dereference_object;

thread_local! {
    static CALLS: RefCell<Vec<(usize, usize, usize)>> = const { RefCell::new(Vec::new()) };
}

extern "efiapi" fn note(context: usize, first: usize, second: usize) {
    CALLS.with_borrow_mut(|calls| calls.push((context, first, second)));
}

fn create(path: &str, create: u8, many: u8, flags: ObjectFlags) -> (NtStatus, usize) {
    let units: Vec<u16> = path.encode_utf16().collect();
    let mut name = UNICODE_STRING::from_utf16(&units).expect("short");
    let mut attributes = OBJECT_ATTRIBUTES::new(&raw mut name, flags);
    if path.is_empty() {
        attributes.ObjectName = std::ptr::null_mut();
    }
    let mut object = 0;
    let out = Raw::of(&raw mut object);
    let status = ex_create_callback(out, Raw::of(&raw mut attributes), create, many);
    (status, out.read())
}

fn routine() -> usize {
    note as *const () as usize
}

#[test]
fn routines_are_called_in_the_order_of_registration_with_their_contexts() {
    conforms!("wdm/nf-wdm-exnotifycallback.md", "Callback routines are called in the order of their registration.");
    conforms!("wdm/nf-wdm-exregistercallback.md", "The result is a handle that unregisters the routine.");
    CALLS.take();
    let bench = Bench::new();
    bench
        .run(|| {
            let (status, object) = create("\\Callback\\Mine", 1, 1, ObjectFlags::PERMANENT);
            assert_eq!(status, NtStatus::SUCCESS);
            let one = ex_register_callback(object, routine(), 1);
            let two = ex_register_callback(object, routine(), 2);
            ex_notify_callback(object, 7, 8);
            ex_unregister_callback(one);
            ex_notify_callback(object, 9, 9);
            ex_unregister_callback(two);
            ex_notify_callback(object, 0, 0);
            obf_dereference_object(object);
        })
        .unwrap();
    assert_eq!(CALLS.take(), [(1, 7, 8), (2, 7, 8), (2, 9, 9)]);
}

#[test]
fn an_object_without_a_name_is_unsuccessful_and_one_that_is_not_there_not_found() {
    conforms!("wdm/nf-wdm-excreatecallback.md", "An unnamed callback object is STATUS_UNSUCCESSFUL.");
    conforms!("wdm/nf-wdm-excreatecallback.md", "Without Create, only an object that exists is opened.");
    Bench::new()
        .run(|| {
            assert_eq!(create("", 1, 1, ObjectFlags::empty()).0, NtStatus::UNSUCCESSFUL);
            assert_eq!(create("\\Callback\\No", 0, 1, ObjectFlags::empty()).0, NtStatus::OBJECT_NAME_NOT_FOUND);
            let (_, object) = create("\\Callback\\Yes", 1, 1, ObjectFlags::PERMANENT);
            assert_eq!(create("\\Callback\\yes", 0, 1, ObjectFlags::empty()), (NtStatus::SUCCESS, object));
            obf_dereference_object(object);
            obf_dereference_object(object);
        })
        .unwrap();
}

#[test]
fn an_object_for_one_routine_takes_one() {
    conforms!(
        "wdm/nf-wdm-exregistercallback.md",
        "NULL when the object allows one routine and one is registered already."
    );
    Bench::new()
        .run(|| {
            let (_, object) = create("\\Callback\\One", 1, 0, ObjectFlags::PERMANENT);
            let first = ex_register_callback(object, routine(), 0);
            assert_ne!(first, 0);
            assert_eq!(ex_register_callback(object, routine(), 0), 0);
            ex_unregister_callback(first);
            obf_dereference_object(object);
        })
        .unwrap();
}

#[test]
fn the_system_s_objects_are_notified_by_the_system_alone() {
    conforms!("wdm/nf-wdm-exnotifycallback.md", "Drivers do not notify the system-defined callback objects.");
    CALLS.take();
    let bench = Bench::new();
    let (object, handle) = bench
        .run(|| {
            let (status, object) = create("\\Callback\\PowerState", 0, 1, ObjectFlags::empty());
            assert_eq!(status, NtStatus::SUCCESS);
            (object, ex_register_callback(object, routine(), 5))
        })
        .unwrap();
    bench.machine().notify_callback("\\Callback\\PowerState", 3, 0).unwrap();
    assert_eq!(CALLS.take(), [(5, 3, 0)]);
    assert_eq!(bench.machine().inner().nt.callbacks().leaks(bench.driver()).len(), 1);
    bench.run(|| ex_unregister_callback(handle)).unwrap();
    let rule = bench.run(|| ex_notify_callback(object, 0, 0)).unwrap_err().0.rule;
    assert_eq!(rule, Rule::BadArgument);
}

#[test]
fn a_routine_is_unregistered_once() {
    let bench = Bench::new();
    let stopped = bench.run(|| {
        let (_, object) = create("\\Callback\\Twice", 1, 1, ObjectFlags::PERMANENT);
        let handle = ex_register_callback(object, routine(), 0);
        ex_unregister_callback(handle);
        ex_unregister_callback(handle);
    });
    assert_eq!(stopped.unwrap_err().0.rule, Rule::BadState);
}
