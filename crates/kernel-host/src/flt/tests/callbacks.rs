//! Pre- and post-operation callbacks.

use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

use super::*;
use crate::conformance::conforms;
use crate::fs::program::OpenOptions;

/// A registration array with one operation.
pub(super) fn operations(
    major: u8,
    pre: flt::PFLT_PRE_OPERATION_CALLBACK,
    post: flt::PFLT_POST_OPERATION_CALLBACK,
) -> [FLT_OPERATION_REGISTRATION; 2] {
    let entry = |major, pre, post| FLT_OPERATION_REGISTRATION {
        MajorFunction: major,
        Flags: 0,
        PreOperation: pre,
        PostOperation: post,
        Reserved1: std::ptr::null_mut(),
    };
    [entry(major, pre, post), entry(flt::IRP_MJ_OPERATION_END, None, None)]
}

fn filtering(
    setup: &Setup,
    major: u8,
    pre: flt::PFLT_PRE_OPERATION_CALLBACK,
    post: flt::PFLT_POST_OPERATION_CALLBACK,
) -> usize {
    let operations = operations(major, pre, post);
    setup.filter_with(&FLT_REGISTRATION { OperationRegistration: operations.as_ptr(), ..FLT_REGISTRATION::EMPTY })
}

const BOOT: &str = r"\??\C:\boot.rom";

/// What a pre-operation callback of these tests gets, as a closure's arguments.
type Data = *mut flt::FLT_CALLBACK_DATA;

unsafe extern "efiapi" fn deny(data: Data, _: *const flt::FLT_RELATED_OBJECTS, _: *mut PVOID) -> i32 {
    let status = Raw::<u8>::at(data.expose_provenance() + 24);
    status.cast::<NtStatus>().write(NtStatus::ACCESS_DENIED);
    flt::FLT_PREOP_COMPLETE
}

#[test]
fn a_pre_create_that_completes_keeps_the_file_system_out() {
    let setup = Setup::new();
    let filter = filtering(&setup, 0, Some(deny), None);
    let opened = setup.process().create_file(BOOT, &OpenOptions::new());
    assert_eq!(opened.map(|_| ()), Err(NtStatus::ACCESS_DENIED));
    setup.unregister(filter).unwrap();
    assert!(setup.process().create_file(BOOT, &OpenOptions::new()).is_ok());
}

static POST_STATUS: AtomicI32 = AtomicI32::new(-1);
static POST_CONTEXT: AtomicU32 = AtomicU32::new(0);

unsafe extern "efiapi" fn pass_with_context(
    data: Data,
    _: *const flt::FLT_RELATED_OBJECTS,
    context: *mut PVOID,
) -> i32 {
    let major = Raw::<u8>::at(Raw::<usize>::at(data.expose_provenance() + 16).read() + 4).read();
    assert_eq!(major, 3);
    Raw::of(context).write(Raw::<u8>::at(0x77).pointer().cast());
    flt::FLT_PREOP_SUCCESS_WITH_CALLBACK
}

unsafe extern "efiapi" fn see_outcome(
    data: Data,
    _: *const flt::FLT_RELATED_OBJECTS,
    context: PVOID,
    flags: u32,
) -> i32 {
    POST_STATUS.store(Raw::<i32>::at(data.expose_provenance() + 24).read(), Ordering::SeqCst);
    POST_CONTEXT.store(context.addr() as u32 | flags << 16, Ordering::SeqCst);
    flt::FLT_POSTOP_FINISHED_PROCESSING
}

#[test]
fn a_post_read_sees_the_outcome_and_its_completion_context() {
    let setup = Setup::new();
    let filter = filtering(&setup, 3, Some(pass_with_context), Some(see_outcome));
    let process = setup.process();
    let file = process.create_file(BOOT, &OpenOptions::new()).unwrap();
    assert_eq!(file.read(0, 4), Ok(b"0123".to_vec()));
    assert_eq!(POST_STATUS.load(Ordering::SeqCst), 0);
    assert_eq!(POST_CONTEXT.load(Ordering::SeqCst), 0x77);
    assert_eq!(file.read(10, 4), Err(NtStatus::END_OF_FILE));
    assert_eq!(POST_STATUS.load(Ordering::SeqCst), NtStatus::END_OF_FILE.0);
    drop(file);
    setup.unregister(filter).unwrap();
}

unsafe extern "efiapi" fn context_without_callback(
    _: Data,
    _: *const flt::FLT_RELATED_OBJECTS,
    context: *mut PVOID,
) -> i32 {
    Raw::of(context).write(Raw::<u8>::at(0x77).pointer().cast());
    flt::FLT_PREOP_SUCCESS_NO_CALLBACK
}

unsafe extern "efiapi" fn nonsense(_: Data, _: *const flt::FLT_RELATED_OBJECTS, _: *mut PVOID) -> i32 {
    99
}

unsafe extern "efiapi" fn complete_pending(data: Data, _: *const flt::FLT_RELATED_OBJECTS, _: *mut PVOID) -> i32 {
    Raw::<NtStatus>::at(data.expose_provenance() + 24).write(NtStatus::PENDING);
    flt::FLT_PREOP_COMPLETE
}

unsafe extern "efiapi" fn wants_post(_: Data, _: *const flt::FLT_RELATED_OBJECTS, _: *mut PVOID) -> i32 {
    flt::FLT_PREOP_SUCCESS_WITH_CALLBACK
}

unsafe extern "efiapi" fn synchronize(_: Data, _: *const flt::FLT_RELATED_OBJECTS, _: *mut PVOID) -> i32 {
    flt::FLT_PREOP_SYNCHRONIZE
}

#[test]
fn answers_that_a_pre_create_must_not_give_are_found() {
    let callbacks: [unsafe extern "efiapi" fn(Data, *const flt::FLT_RELATED_OBJECTS, *mut PVOID) -> i32; 5] =
        [context_without_callback, nonsense, complete_pending, wants_post, synchronize];
    for callback in callbacks {
        let setup = Setup::new();
        filtering(&setup, 0, Some(callback), None);
        assert!(setup.process().create_file(BOOT, &OpenOptions::new()).is_err());
        assert_eq!(setup.bench.machine().finding().unwrap().rule, Rule::BadState);
    }
}

#[test]
fn cached_reads_pass_a_filter_that_skips_them() {
    let setup = Setup::new();
    let mut operations = operations(3, Some(deny), None);
    operations[0].Flags = 2;
    let filter =
        setup.filter_with(&FLT_REGISTRATION { OperationRegistration: operations.as_ptr(), ..FLT_REGISTRATION::EMPTY });
    let process = setup.process();
    let cached = process.create_file(BOOT, &OpenOptions::new()).unwrap();
    assert_eq!(cached.read(0, 1), Ok(b"0".to_vec()));
    let non_cached = process.create_file(BOOT, &OpenOptions::new().options(8)).unwrap();
    assert_eq!(non_cached.read(0, 1), Err(NtStatus::ACCESS_DENIED));
    drop((cached, non_cached));
    setup.unregister(filter).unwrap();
}

#[test]
fn a_cleanup_cannot_be_failed() {
    let setup = Setup::new();
    filtering(&setup, 0x12, Some(deny), None);
    drop(setup.process().create_file(BOOT, &OpenOptions::new()).unwrap());
    assert_eq!(setup.bench.machine().finding().unwrap().rule, Rule::BadState);
}

#[test]
fn an_open_below_the_own_instance_does_not_come_back_to_the_filter() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatefileex.md",
        "With an instance the create reaches only instances below it; without one it starts at the top."
    );
    let setup = Setup::new();
    let filter = filtering(&setup, 0, Some(deny), None);
    let opened = files::open(&setup, filter, setup.instance(), BOOT).unwrap();
    assert_eq!(opened.status, NtStatus::SUCCESS);
    opened.release(&setup);
    // Without an instance the request starts at the top, where the filter is.
    assert_eq!(files::open(&setup, filter, 0, BOOT).unwrap().status, NtStatus::ACCESS_DENIED);
    setup.unregister(filter).unwrap();
}
