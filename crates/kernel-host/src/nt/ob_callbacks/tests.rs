use std::cell::RefCell;

use nt_types::HANDLE;

use super::operation::{PostInformation, PreInformation, PreParameters};
use super::*;
use crate::conformance::conforms;
use crate::ddi::testing::Bench;
use crate::nt::ob_exports::{PS_PROCESS_TYPE, PS_THREAD_TYPE, type_address};
use crate::process::Process;
use crate::thread::Thread;

thread_local! {
    static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

fn seen() -> Vec<String> {
    SEEN.take()
}

/// Takes `PROCESS_TERMINATE` away, and tries to give itself `PROCESS_SET_QUOTA`.
extern "efiapi" fn pre(context: usize, information: Raw<PreInformation>) -> i32 {
    assert_eq!((Thread::current().irql(), Thread::current().critical_regions()), (0, 1));
    let parameters = field!(information, PreInformation, parameters).read();
    let desired = field!(parameters, PreParameters, desired);
    let original = field!(parameters, PreParameters, original).read();
    let information_now = information.read();
    SEEN.with_borrow_mut(|seen| {
        seen.push(format!(
            "pre {context} {} {} {original:#x} {:#x}",
            information_now.operation,
            information_now.flags,
            desired.read()
        ));
    });
    assert_eq!(information_now.call_context, 0);
    desired.write(desired.read() & !1 | 0x100);
    field!(information, PreInformation, call_context).write(context * 10);
    0
}

extern "efiapi" fn post(context: usize, information: Raw<PostInformation>) {
    let information = information.read();
    SEEN.with_borrow_mut(|seen| {
        seen.push(format!("post {context} {} {:#x}", information.call_context, information.granted.read()));
    });
}

extern "efiapi" fn disobey(_: usize, _: usize) -> i32 {
    1
}

fn process_type() -> Raw<usize> {
    Raw::at((&raw const PS_PROCESS_TYPE).expose_provenance())
}

fn operation(pre: usize, post: usize) -> OperationRegistration {
    OperationRegistration { object_type: process_type(), operations: 3, pre, post }
}

fn both() -> OperationRegistration {
    operation(pre as *const () as usize, post as *const () as usize)
}

fn register_at(altitude: &str, context: usize, mut operations: Vec<OperationRegistration>) -> Result<usize, NtStatus> {
    let units: Vec<u16> = altitude.encode_utf16().collect();
    let mut registration = CallbackRegistration {
        version: VERSION,
        count: operations.len() as u16,
        altitude: UNICODE_STRING::from_utf16(&units).unwrap(),
        context,
        operations: Raw::of(operations.as_mut_ptr()),
    };
    let mut handle = 0_usize;
    let out = Raw::of(&raw mut handle);
    let registration = Raw::of(&raw mut registration);
    ob_register_callbacks(registration.cast(), out).ok()?;
    Ok(out.read())
}

fn two_programs(bench: &Bench) -> (Arc<Process>, Arc<Process>) {
    let start = |name| bench.machine().process(name).start().unwrap();
    (start("one.exe"), start("two.exe"))
}

#[test]
fn rights_are_taken_out_of_handles_and_never_put_in() {
    conforms!(
        "wdm/ns-wdm-_ob_pre_create_handle_information.md",
        "DesiredAccess can be restricted by the callback; rights that were not asked for are not added."
    );
    conforms!(
        "wdm/ns-wdm-_ob_post_operation_information.md",
        "CallContext is what the matching pre-operation callback stored; GrantedAccess is what the handle got."
    );
    conforms!(
        "wdm/nc-wdm-pob_pre_operation_callback.md",
        "The callback runs at PASSIVE_LEVEL with normal kernel APCs disabled."
    );
    let bench = Bench::new();
    let (one, two) = two_programs(&bench);
    bench.run(|| register_at("100", 7, vec![both()]).unwrap()).unwrap();
    let handle = one.open_process(two.id(), 0x11).unwrap();
    assert_eq!(one.granted_access(handle), Ok(0x10));
    assert_eq!(seen(), ["pre 7 1 0 0x11 0x11", "post 7 70 0x10"]);
    assert_eq!(one.terminate_process(handle, NtStatus::SUCCESS), Err(NtStatus::ACCESS_DENIED));
    assert_eq!(bench.machine().inner().nt.ob_callbacks().leaks(bench.driver()).len(), 1);
}

#[test]
fn callbacks_are_called_by_altitude_and_back() {
    let bench = Bench::new();
    let (one, two) = two_programs(&bench);
    bench
        .run(|| {
            register_at("100", 1, vec![both()]).unwrap();
            register_at("9", 3, vec![both()]).unwrap();
            register_at("50.5", 2, vec![both()]).unwrap();
        })
        .unwrap();
    let handle = one.open_process(two.id(), 0x11).unwrap();
    assert_eq!(one.granted_access(handle), Ok(0x10));
    let expected = [
        "pre 1 1 0 0x11 0x11",
        "pre 2 1 0 0x11 0x10",
        "pre 3 1 0 0x11 0x10",
        "post 3 30 0x10",
        "post 2 20 0x10",
        "post 1 10 0x10",
    ];
    assert_eq!(seen(), expected);
}

#[test]
fn kernel_handles_and_duplicates_say_what_they_are() {
    conforms!(
        "wdm/ns-wdm-_ob_pre_operation_information.md",
        "KernelHandle says whether the handle is a kernel handle; Operation, whether it is opened or duplicated."
    );
    let bench = Bench::new();
    let (one, two) = two_programs(&bench);
    let mut handle = 0_usize;
    let out = Raw::of(&raw mut handle);
    bench
        .run(|| {
            register_at("100", 1, vec![both()]).unwrap();
            let call = Call::enter();
            let object = call.machine().nt.objects().lookup(two.object()).unwrap();
            out.write(crate::nt::ob_exports::make_handle(&call, &object, 0x11, 0x200));
            assert_eq!(seen(), ["pre 1 1 1 0x11 0x11", "post 1 10 0x10"]);
            assert!(crate::nt::ob_exports::close(&call, out.read(), 0).is_success());
        })
        .unwrap();
    let itself = two.open_process(two.id(), 0x51).unwrap();
    let source = one.open_process(two.id(), 0x40).unwrap();
    seen();
    let duplicate = one.duplicate_from(source, itself, 0x50).unwrap();
    assert_eq!(one.granted_access(duplicate), Ok(0x50));
    assert_eq!(seen(), ["pre 1 2 0 0x50 0x50", "post 1 10 0x50"]);
    assert_eq!(one.duplicate_from(source, itself, 0x51), Err(NtStatus::ACCESS_DENIED));
}

#[test]
fn threads_are_watched_apart_from_processes() {
    conforms!(
        "wdm/ns-wdm-_ob_operation_registration.md",
        "ObjectType says whether handles to processes or to threads are watched."
    );
    let bench = Bench::new();
    let (one, two) = two_programs(&bench);
    let thread_type = Raw::at((&raw const PS_THREAD_TYPE).expose_provenance());
    bench
        .run(|| register_at("100", 1, vec![OperationRegistration { object_type: thread_type, ..both() }]).unwrap())
        .unwrap();
    one.open_process(two.id(), 1).unwrap();
    assert!(seen().is_empty());
    let handle = one.open_first_thread(two.id(), 0x3).unwrap();
    assert_eq!(one.granted_access(handle), Ok(2));
    assert_eq!(seen().len(), 2);
    // As callbacks do it to find whose thread it is.
    let object = one.handles().entry(handle).unwrap().object;
    let id = bench.run(|| crate::nt::processes::ps_get_thread_process_id(object.body())).unwrap();
    assert_eq!(id, two.id());
}

#[test]
fn a_registration_that_is_wrong_or_at_a_taken_altitude_fails() {
    conforms!(
        "wdm/nf-wdm-obregistercallbacks.md",
        "An altitude that any driver has registered is STATUS_FLT_INSTANCE_ALTITUDE_COLLISION."
    );
    conforms!(
        "wdm/nf-wdm-obregistercallbacks.md",
        "A type without callback support, and an invalid version, are STATUS_INVALID_PARAMETER."
    );
    conforms!("wdm/ns-wdm-_ob_operation_registration.md", "One callback at least has to be given.");
    conforms!("wdm/nf-wdm-obregistercallbacks.md", "A callback outside a signed image is STATUS_ACCESS_DENIED.");
    let bench = Bench::new();
    let image = crate::image::testing::load_on(&bench);
    let inside = image.entry();
    bench
        .run(|| {
            assert_eq!(ob_get_filter_version(), VERSION);
            register_at("100", 1, vec![both()]).unwrap();
            let failing = |altitude, operation| register_at(altitude, 1, vec![operation]).unwrap_err();
            assert_eq!(failing("0100.0", both()), NtStatus::FLT_INSTANCE_ALTITUDE_COLLISION);
            assert_eq!(failing("high", both()), NtStatus::INVALID_PARAMETER);
            assert_eq!(failing("1", operation(0, 0)), NtStatus::INVALID_PARAMETER);
            assert_eq!(failing("1", OperationRegistration { operations: 4, ..both() }), NtStatus::INVALID_PARAMETER);
            let mut file_type = type_address("File");
            let object_type = Raw::of(&raw mut file_type);
            assert_eq!(failing("1", OperationRegistration { object_type, ..both() }), NtStatus::INVALID_PARAMETER);
            assert_eq!(failing("1", operation(inside, 0)), NtStatus::ACCESS_DENIED);
        })
        .unwrap();
}

#[test]
fn unregistering_twice_is_a_bug_check() {
    conforms!("wdm/nf-wdm-obunregistercallbacks.md", "Unregistering what is unregistered already is bug check 0x7E.");
    let bench = Bench::new();
    let (one, two) = two_programs(&bench);
    let handle = bench.run(|| register_at("100", 1, vec![both()]).unwrap()).unwrap();
    bench.run(|| ob_un_register_callbacks(handle)).unwrap();
    assert!(bench.machine().inner().nt.ob_callbacks().leaks(bench.driver()).is_empty());
    one.open_process(two.id(), 1).unwrap();
    assert!(seen().is_empty());
    assert_eq!(bench.run(|| ob_un_register_callbacks(handle)).unwrap_err().0.rule, Rule::BugCheck);
}

#[test]
fn a_callback_that_does_not_return_success_is_found() {
    conforms!("wdm/nc-wdm-pob_pre_operation_callback.md", "Drivers must return OB_PREOP_SUCCESS.");
    let bench = Bench::new();
    let (one, two) = two_programs(&bench);
    bench.run(|| register_at("100", 1, vec![operation(disobey as *const () as usize, 0)]).unwrap()).unwrap();
    let _refused = one.open_process(two.id(), 1);
    assert_eq!(bench.machine().finding().unwrap().rule, Rule::BadState);
}

#[test]
fn a_driver_s_duplicate_goes_through_the_callbacks() {
    let bench = Bench::new();
    let (_, two) = two_programs(&bench);
    let mut duplicate = 0_usize;
    let out = Raw::of(&raw mut duplicate);
    bench
        .run(|| {
            let call = Call::enter();
            let object = call.machine().nt.objects().lookup(two.object()).unwrap();
            let first = crate::nt::ob_exports::make_handle(&call, &object, 0x11, 0x200);
            register_at("100", 1, vec![both()]).unwrap();
            let current: HANDLE = std::ptr::without_provenance_mut(usize::MAX);
            let source = std::ptr::without_provenance_mut(first);
            // DUPLICATE_SAME_ACCESS.
            let status = crate::nt::ob_named::zw_duplicate_object(current, source, current, out, 0, 0x200, 2);
            assert_eq!(status, NtStatus::SUCCESS);
            assert_eq!(seen(), ["pre 1 2 1 0x11 0x11", "post 1 10 0x10"]);
            for handle in [first, out.read()] {
                assert!(crate::nt::ob_exports::close(&call, handle, 0).is_success());
            }
        })
        .unwrap();
}
