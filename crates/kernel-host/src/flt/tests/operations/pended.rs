//! Operations that a filter keeps, and gives back.

use super::*;
use crate::conformance::conforms;
use crate::machine::{Driver, Inner};

const READ: u8 = 3;

/// FltCompletePendedPreOperation, as a worker thread of the driver's calls it.
pub(super) fn complete_pre(machine: &Arc<Inner>, driver: &Arc<Driver>, data: usize, answer: i32, context: usize) {
    Thread::enter(machine, |thread| {
        let _stopped = thread.call_driver(driver, "Worker", 0, || {
            ddi!(FltCompletePendedPreOperation: fn(usize, i32, usize))(data, answer, context);
        });
    });
}

/// FltCompletePendedPostOperation, in the same way.
fn complete_post(machine: &Arc<Inner>, driver: &Arc<Driver>, data: usize) {
    Thread::enter(machine, |thread| {
        let _stopped = thread.call_driver(driver, "Worker", 0, || {
            ddi!(FltCompletePendedPostOperation: fn(usize))(data);
        });
    });
}

/// Keeps reads and gives them back from another thread.
fn pends(rig: &Rig, answer: i32, before: impl Fn(&Op) + Send + Sync + 'static) {
    let machine = Arc::clone(rig.setup.bench.machine().inner());
    let driver = Arc::clone(rig.setup.bench.driver());
    rig.pre(move |op| {
        before(op);
        let (machine, driver, data) = (Arc::clone(&machine), Arc::clone(&driver), op.data.address());
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            complete_pre(&machine, &driver, data, answer, 0);
        });
        flt::FLT_PREOP_PENDING
    });
}

#[test]
fn a_pended_operation_goes_on_as_the_filter_says() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcompletependedpreoperation.md",
        "A pended operation goes on when FltCompletePendedPreOperation says so, not before."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltcompletependedpreoperation.md",
        "With FLT_PREOP_COMPLETE the pended operation ends with the status that the filter set."
    );
    let rig = Rig::new(&[READ]);
    pends(&rig, flt::FLT_PREOP_SUCCESS_NO_CALLBACK, |_| {});
    assert_eq!(rig.reader().read(0, 2), Ok(b"01".to_vec()));
    pends(&rig, flt::FLT_PREOP_COMPLETE, |op| op.set_status(NtStatus::CRC_ERROR, 0));
    assert_eq!(rig.reader().read(0, 2), Err(NtStatus::CRC_ERROR));
    rig.assert_no_finding();
}

#[test]
fn a_pended_operation_can_ask_for_its_end() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcompletependedpreoperation.md",
        "With FLT_PREOP_SUCCESS_WITH_CALLBACK the post-operation callback is called later."
    );
    let rig = Rig::new(&[READ]);
    let seen = log();
    let up = Arc::clone(&seen);
    pends(&rig, flt::FLT_PREOP_SUCCESS_WITH_CALLBACK, |_| {});
    rig.post(move |op| {
        push(&up, op.status());
        flt::FLT_POSTOP_FINISHED_PROCESSING
    });
    rig.reader().read(0, 2).unwrap();
    assert_eq!(take(&seen), [NtStatus::SUCCESS]);
}

#[test]
fn completing_before_the_callback_has_returned_is_fine() {
    conforms!(
        "docs:ifs/writing-preoperation-callback-routines.md",
        "FltCompletePendedPreOperation may win the race against the return of FLT_PREOP_PENDING."
    );
    let rig = Rig::new(&[READ]);
    rig.pre(|op| {
        let (data, answer) = (op.data.address(), flt::FLT_PREOP_SUCCESS_NO_CALLBACK);
        ddi!(FltCompletePendedPreOperation: fn(usize, i32, usize))(data, answer, 0);
        flt::FLT_PREOP_PENDING
    });
    assert_eq!(rig.reader().read(0, 2), Ok(b"01".to_vec()));
    rig.assert_no_finding();
}

#[test]
fn completing_what_was_not_pended_is_found() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcompletependedpreoperation.md",
        "Only an operation that the filter has pended can be completed so."
    );
    let rig = Rig::new(&[READ]);
    rig.pre(|op| {
        let (data, answer) = (op.data.address(), flt::FLT_PREOP_SUCCESS_NO_CALLBACK);
        ddi!(FltCompletePendedPreOperation: fn(usize, i32, usize))(data, answer, 0);
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    assert!(rig.reader().read(0, 2).is_err());
    assert_eq!(rig.finding().0, Rule::BadState);
}

#[test]
fn completing_twice_is_found() {
    conforms!("fltkernel/nf-fltkernel-fltcompletependedpreoperation.md", "A pended operation is completed once.");
    let rig = Rig::new(&[READ]);
    rig.pre(|op| {
        let (data, answer) = (op.data.address(), flt::FLT_PREOP_SUCCESS_NO_CALLBACK);
        let complete = ddi!(FltCompletePendedPreOperation: fn(usize, i32, usize));
        complete(data, answer, 0);
        complete(data, answer, 0);
        flt::FLT_PREOP_PENDING
    });
    assert!(rig.reader().read(0, 2).is_err());
    assert_eq!(rig.finding().0, Rule::BadState);
}

#[test]
fn a_pended_operation_cannot_go_on_with_every_status() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcompletependedpreoperation.md",
        "CallbackStatus cannot be FLT_PREOP_PENDING, FLT_PREOP_SYNCHRONIZE or FLT_PREOP_DISALLOW_FASTIO."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltcompletependedpreoperation.md",
        "Context has to be NULL without FLT_PREOP_SUCCESS_WITH_CALLBACK."
    );
    for (answer, context) in [
        (flt::FLT_PREOP_PENDING, 0),
        (flt::FLT_PREOP_SYNCHRONIZE, 0),
        (flt::FLT_PREOP_DISALLOW_FASTIO, 0),
        (flt::FLT_PREOP_COMPLETE, 1_usize),
        (flt::FLT_PREOP_SUCCESS_NO_CALLBACK, 1),
    ] {
        let rig = Rig::new(&[READ]);
        rig.pre(move |op| {
            ddi!(FltCompletePendedPreOperation: fn(usize, i32, usize))(op.data.address(), answer, context);
            flt::FLT_PREOP_PENDING
        });
        assert!(rig.reader().read(0, 2).is_err());
        assert_eq!(rig.finding().0, Rule::BadArgument, "{answer} {context}");
    }
}

#[test]
fn only_a_completed_operation_may_go_on_at_dispatch_level() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcompletependedpreoperation.md",
        "At DISPATCH_LEVEL only FLT_PREOP_COMPLETE is allowed."
    );
    let rig = Rig::new(&[READ]);
    rig.pre(|op| {
        Thread::current().set_irql(2);
        let (data, answer) = (op.data.address(), flt::FLT_PREOP_SUCCESS_NO_CALLBACK);
        ddi!(FltCompletePendedPreOperation: fn(usize, i32, usize))(data, answer, 0);
        flt::FLT_PREOP_PENDING
    });
    assert!(rig.reader().read(0, 2).is_err());
    assert_eq!(rig.finding().0, Rule::IrqlTooHigh);
}

unsafe extern "efiapi" fn work(item: flt::PFLT_DEFERRED_IO_WORKITEM, data: *mut FLT_CALLBACK_DATA, context: PVOID) {
    assert_eq!((Thread::current().irql(), context.addr()), (0, 0x55));
    let complete = ddi!(FltCompletePendedPreOperation: fn(usize, i32, usize));
    complete(data.expose_provenance(), flt::FLT_PREOP_SUCCESS_NO_CALLBACK, 0);
    ddi!(FltFreeDeferredIoWorkItem: fn(usize))(item.expose_provenance());
}

#[test]
fn a_deferred_work_item_runs_later_and_gives_the_operation_back() {
    conforms!(
        "fltkernel/nf-fltkernel-fltqueuedeferredioworkitem.md",
        "The worker routine runs in a system thread at PASSIVE_LEVEL, with the work item, the data and the context."
    );
    let rig = Rig::new(&[READ]);
    rig.pre(|op| {
        let item = ddi!(FltAllocateDeferredIoWorkItem: fn() -> usize)();
        let routine: unsafe extern "efiapi" fn(flt::PFLT_DEFERRED_IO_WORKITEM, *mut FLT_CALLBACK_DATA, PVOID) = work;
        let queue = ddi!(FltQueueDeferredIoWorkItem: fn(usize, usize, usize, i32, usize) -> NtStatus);
        assert_eq!(queue(item, op.data.address(), routine as usize, 1, 0x55), NtStatus::SUCCESS);
        flt::FLT_PREOP_PENDING
    });
    assert_eq!(rig.reader().read(0, 2), Ok(b"01".to_vec()));
    rig.assert_no_finding();
    assert_eq!(rig.setup.unregister(rig.filter), Ok(()));
    assert!(rig.setup.leaks().is_empty(), "{:?}", rig.setup.leaks());
}

#[test]
fn paging_io_cannot_be_posted() {
    conforms!(
        "fltkernel/nf-fltkernel-fltqueuedeferredioworkitem.md",
        "Paging I/O cannot be posted: STATUS_FLT_NOT_SAFE_TO_POST_OPERATION."
    );
    let rig = Rig::new(&[4]);
    let seen = log();
    let down = Arc::clone(&seen);
    rig.pre(move |op| {
        if op.irp_flags() & 2 != 0 {
            let item = ddi!(FltAllocateDeferredIoWorkItem: fn() -> usize)();
            let queue = ddi!(FltQueueDeferredIoWorkItem: fn(usize, usize, usize, i32, usize) -> NtStatus);
            push(&down, queue(item, op.data.address(), 1, 1, 0));
            ddi!(FltFreeDeferredIoWorkItem: fn(usize))(item);
        }
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    let view = rig.writer().map_writable().unwrap();
    view.store(0, b"X").unwrap();
    view.flush().unwrap();
    assert_eq!(take(&seen), [NtStatus::FLT_NOT_SAFE_TO_POST_OPERATION]);
}

#[test]
fn a_work_item_that_is_not_freed_is_a_leak() {
    conforms!(
        "fltkernel/nf-fltkernel-fltallocatedeferredioworkitem.md",
        "A deferred work item is freed with FltFreeDeferredIoWorkItem."
    );
    let rig = Rig::new(&[]);
    rig.run(|| ddi!(FltAllocateDeferredIoWorkItem: fn() -> usize)()).unwrap();
    rig.setup.unregister(rig.filter).unwrap();
    assert!(rig.setup.leaks()[0].contains("PFLT_DEFERRED_IO_WORKITEM"), "{:?}", rig.setup.leaks());
}

#[test]
fn a_post_operation_callback_can_keep_the_operation() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcompletependedpostoperation.md",
        "FltCompletePendedPostOperation lets completion go on."
    );
    conforms!(
        "fltkernel/nc-fltkernel-pflt_post_operation_callback.md",
        "After FLT_POSTOP_MORE_PROCESSING_REQUIRED nothing happens until the operation is given back."
    );
    let rig = Rig::new(&[READ]);
    let (_, upper) = rig.add("Upper", "380000", &[READ]);
    let seen = log();
    let (above, own) = (Arc::clone(&seen), Arc::clone(&seen));
    Rig::pre_of(upper, |_| flt::FLT_PREOP_SUCCESS_WITH_CALLBACK);
    Rig::post_of(upper, move |_| {
        push(&above, "upper");
        flt::FLT_POSTOP_FINISHED_PROCESSING
    });
    rig.pre(|_| flt::FLT_PREOP_SUCCESS_WITH_CALLBACK);
    let machine = Arc::clone(rig.setup.bench.machine().inner());
    let driver = Arc::clone(rig.setup.bench.driver());
    rig.post(move |op| {
        let (machine, driver, data) = (Arc::clone(&machine), Arc::clone(&driver), op.data.address());
        let own = Arc::clone(&own);
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            push(&own, "given back");
            complete_post(&machine, &driver, data);
        });
        flt::FLT_POSTOP_MORE_PROCESSING_REQUIRED
    });
    assert_eq!(rig.reader().read(0, 2), Ok(b"01".to_vec()));
    assert_eq!(take(&seen), ["given back", "upper"]);
    rig.assert_no_finding();
}

#[test]
fn an_overlapped_read_that_a_filter_keeps_is_pending_for_the_program() {
    conforms!(
        "docs:ifs/pending-an-i-o-operation-in-a-preoperation-callback-routine.md",
        "FLT_PREOP_PENDING retains control of the operation until FltCompletePendedPreOperation."
    );
    let rig = Rig::new(&[READ]);
    let kept = log();
    let down = Arc::clone(&kept);
    rig.pre(move |op| {
        push(&down, op.data.address());
        flt::FLT_PREOP_PENDING
    });
    let file = rig.open(OpenOptions::new().overlapped()).unwrap();
    let read = file.read_overlapped(2, 3).unwrap();
    assert!(read.is_pending());
    let (machine, driver) = (rig.setup.bench.machine().inner(), rig.setup.bench.driver());
    complete_pre(machine, driver, take(&kept)[0], flt::FLT_PREOP_SUCCESS_NO_CALLBACK, 0);
    assert_eq!(read.wait(Duration::from_secs(5)), Ok(b"234".to_vec()));
}

#[test]
fn a_pended_operation_that_is_never_completed_is_found_at_the_teardown() {
    conforms!(
        "docs:ifs/pending-an-i-o-operation-in-a-preoperation-callback-routine.md",
        "The filter must complete what it pended: the teardown of its instance waits for that."
    );
    let rig = Rig::new(&[READ]);
    rig.pre(|_| flt::FLT_PREOP_PENDING);
    let file = rig.open(OpenOptions::new().overlapped()).unwrap();
    let _read = file.read_overlapped(0, 3).unwrap();
    assert_eq!(rig.setup.unregister(rig.filter), Err(Rule::Deadlock));
    let (_, message) = rig.finding();
    assert!(message.contains("IRP_MJ_READ") && message.contains("pre-operation"), "{message}");
}

#[test]
fn posts_that_wait_for_a_pended_operation_are_drained_at_the_teardown() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_post_operation_callback.md",
        "While its instance is detached a post-operation callback gets FLTFL_POST_OPERATION_DRAINING and a copy of the data."
    );
    conforms!(
        "fltkernel/ns-fltkernel-_flt_callback_data.md",
        "FLTFL_CALLBACK_DATA_DRAINING_IO is set while the completion is drained."
    );
    let rig = Rig::new(&[READ]);
    let (_, lower) = rig.add("Lower", "100000", &[READ]);
    let (seen, kept) = (log(), log());
    let (down, up, below) = (Arc::clone(&seen), Arc::clone(&seen), Arc::clone(&kept));
    rig.pre(move |op| {
        push(&down, (op.data.address(), 0));
        op.context.write(7);
        flt::FLT_PREOP_SUCCESS_WITH_CALLBACK
    });
    rig.post(move |op| {
        assert!(op.flag(0x4_0000) && op.given == 7 && op.status() == NtStatus::FLT_POST_OPERATION_CLEANUP);
        push(&up, (op.data.address(), op.flags));
        flt::FLT_POSTOP_FINISHED_PROCESSING
    });
    Rig::pre_of(lower, move |op| {
        push(&below, op.data.address());
        flt::FLT_PREOP_PENDING
    });
    let file = rig.open(OpenOptions::new().overlapped()).unwrap();
    let read = file.read_overlapped(0, 3).unwrap();
    assert_eq!(rig.setup.unregister(rig.filter), Ok(()));
    let seen = take(&seen);
    assert_eq!((seen.len(), seen[1].1), (2, flt::FLTFL_POST_OPERATION_DRAINING));
    assert_ne!(seen[0].0, seen[1].0, "a copy");
    let (machine, driver) = (rig.setup.bench.machine().inner(), rig.setup.bench.driver());
    complete_pre(machine, driver, take(&kept)[0], flt::FLT_PREOP_SUCCESS_NO_CALLBACK, 0);
    assert_eq!(read.wait(Duration::from_secs(5)), Ok(b"012".to_vec()));
    rig.assert_no_finding();
}

#[test]
fn a_drained_post_can_only_finish() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_post_operation_callback.md",
        "A drained post-operation callback returns FLT_POSTOP_FINISHED_PROCESSING."
    );
    let rig = Rig::new(&[READ]);
    let (_, lower) = rig.add("Lower", "100000", &[READ]);
    rig.pre(|_| flt::FLT_PREOP_SUCCESS_WITH_CALLBACK);
    rig.post(|_| flt::FLT_POSTOP_MORE_PROCESSING_REQUIRED);
    Rig::pre_of(lower, |_| flt::FLT_PREOP_PENDING);
    let file = rig.open(OpenOptions::new().overlapped()).unwrap();
    let _read = file.read_overlapped(0, 3).unwrap();
    assert_eq!(rig.setup.unregister(rig.filter), Err(Rule::BadState));
}
