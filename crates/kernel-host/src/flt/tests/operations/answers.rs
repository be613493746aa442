//! What a pre-operation callback may answer, and what follows.

use super::*;
use crate::conformance::conforms;

const READ: u8 = 3;
const CREATE: u8 = 0;

#[test]
fn a_completed_operation_reaches_nobody_below_and_only_posts_above() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_pre_operation_callback.md",
        "FLT_PREOP_COMPLETE keeps the operation from filters below and from the file system."
    );
    conforms!(
        "fltkernel/nc-fltkernel-pflt_pre_operation_callback.md",
        "After FLT_PREOP_COMPLETE only post-operation callbacks of filters above run."
    );
    let rig = Rig::new(&[READ]);
    let (_, upper) = rig.add("Upper", "380000", &[READ]);
    let (_, lower) = rig.add("Lower", "100000", &[READ]);
    let seen = log();
    let (above, own, below) = (Arc::clone(&seen), Arc::clone(&seen), Arc::clone(&seen));
    Rig::pre_of(upper, |_| flt::FLT_PREOP_SUCCESS_WITH_CALLBACK);
    Rig::post_of(upper, move |op| {
        push(&above, ("upper", op.status()));
        flt::FLT_POSTOP_FINISHED_PROCESSING
    });
    rig.pre(|op| op.complete(NtStatus::ACCESS_DENIED));
    rig.post(move |op| {
        push(&own, ("own", op.status()));
        flt::FLT_POSTOP_FINISHED_PROCESSING
    });
    Rig::pre_of(lower, move |op| {
        push(&below, ("lower", op.status()));
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    assert_eq!(rig.reader().read(0, 4), Err(NtStatus::ACCESS_DENIED));
    assert_eq!(take(&seen), [("upper", NtStatus::ACCESS_DENIED)]);
    rig.assert_no_finding();
}

#[test]
fn a_filter_that_says_no_callback_has_none() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_pre_operation_callback.md",
        "FLT_PREOP_SUCCESS_NO_CALLBACK: the post-operation callback is not called, although there is one."
    );
    let rig = Rig::new(&[READ]);
    rig.pre(|_| flt::FLT_PREOP_SUCCESS_NO_CALLBACK);
    rig.post(|_| panic!("not called"));
    assert_eq!(rig.reader().read(0, 2), Ok(b"01".to_vec()));
}

#[test]
fn posts_run_in_the_reverse_order_of_pres() {
    conforms!(
        "docs:ifs/writing-preoperation-and-postoperation-callback-routines.md",
        "Pre-operation callbacks run from the highest altitude down, post-operation callbacks up again."
    );
    let rig = Rig::new(&[READ]);
    let (_, lower) = rig.add("Lower", "100000", &[READ]);
    let seen = log();
    for (instance, pre, post) in [(rig.instance, "pre 1", "post 1"), (lower, "pre 2", "post 2")] {
        let (down, up) = (Arc::clone(&seen), Arc::clone(&seen));
        Rig::pre_of(instance, move |_| {
            push(&down, pre);
            flt::FLT_PREOP_SUCCESS_WITH_CALLBACK
        });
        Rig::post_of(instance, move |_| {
            push(&up, post);
            flt::FLT_POSTOP_FINISHED_PROCESSING
        });
    }
    rig.reader().read(0, 1).unwrap();
    assert_eq!(take(&seen), ["pre 1", "pre 2", "post 2", "post 1"]);
}

#[test]
fn completion_contexts_go_with_a_wish_for_the_end_only() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_pre_operation_callback.md",
        "CompletionContext has to be NULL unless the answer asks for the post-operation callback."
    );
    for answer in [flt::FLT_PREOP_SUCCESS_NO_CALLBACK, flt::FLT_PREOP_COMPLETE, flt::FLT_PREOP_PENDING] {
        let rig = Rig::new(&[CREATE]);
        rig.pre(move |op| {
            op.context.write(0x77);
            answer
        });
        assert!(rig.open(OpenOptions::new()).is_err());
        assert_eq!(rig.finding().0, Rule::BadState, "{answer}");
    }
}

#[test]
fn the_context_arrives_at_the_post_operation_callback() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_post_operation_callback.md",
        "CompletionContext is what the pre-operation callback left there."
    );
    let rig = Rig::new(&[READ]);
    let seen = log();
    let up = Arc::clone(&seen);
    rig.pre(|op| {
        op.context.write(0x1234);
        flt::FLT_PREOP_SUCCESS_WITH_CALLBACK
    });
    rig.post(move |op| {
        push(&up, (op.given, op.flags));
        flt::FLT_POSTOP_FINISHED_PROCESSING
    });
    rig.reader().read(0, 1).unwrap();
    assert_eq!(take(&seen), [(0x1234, 0)]);
}

#[test]
fn statuses_that_a_completed_operation_cannot_have() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_pre_operation_callback.md",
        "The status of a completed operation cannot be STATUS_PENDING."
    );
    conforms!(
        "docs:ifs/failing-an-i-o-operation-in-a-postoperation-callback-routine.md",
        "Only the Filter Manager can use STATUS_FLT_DISALLOW_FAST_IO."
    );
    for status in [NtStatus::PENDING, NtStatus::FLT_DISALLOW_FAST_IO] {
        let rig = Rig::new(&[READ]);
        rig.pre(move |op| op.complete(status));
        assert!(rig.reader().read(0, 1).is_err());
        assert_eq!(rig.finding().0, Rule::BadState, "{status}");
    }
}

#[test]
fn cleanup_and_close_can_only_succeed() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_pre_operation_callback.md",
        "A completed cleanup or close has a success status."
    );
    for major in [0x12, 0x02] {
        let rig = Rig::new(&[major]);
        rig.pre(|op| op.complete(NtStatus::UNSUCCESSFUL));
        drop(rig.reader());
        assert_eq!(rig.finding().0, Rule::BadState);
    }
}

#[test]
fn synchronize_runs_the_post_in_the_thread_of_the_pre() {
    conforms!(
        "docs:ifs/returning-flt-preop-synchronize.md",
        "After FLT_PREOP_SYNCHRONIZE the post-operation callback runs in the pre-operation callback's thread."
    );
    conforms!(
        "fltkernel/nc-fltkernel-pflt_post_operation_callback.md",
        "A synchronised post-operation callback runs at IRQL <= APC_LEVEL."
    );
    let rig = Rig::new(&[READ]);
    let (_, lower) = rig.add("Lower", "100000", &[READ]);
    let threads = log();
    let (down, up) = (Arc::clone(&threads), Arc::clone(&threads));
    rig.pre(move |_| {
        push(&down, std::thread::current().id());
        flt::FLT_PREOP_SYNCHRONIZE
    });
    rig.post(move |_| {
        assert!(Thread::current().irql() <= 1);
        push(&up, std::thread::current().id());
        flt::FLT_POSTOP_FINISHED_PROCESSING
    });
    // The lower filter completes from another thread.
    let machine = Arc::clone(rig.setup.bench.machine().inner());
    let driver = Arc::clone(rig.setup.bench.driver());
    Rig::pre_of(lower, move |op| {
        let (machine, driver, data) = (Arc::clone(&machine), Arc::clone(&driver), op.data.address());
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(30));
            pended::complete_pre(&machine, &driver, data, flt::FLT_PREOP_SUCCESS_NO_CALLBACK, 0);
        });
        flt::FLT_PREOP_PENDING
    });
    assert_eq!(rig.reader().read(0, 2), Ok(b"01".to_vec()));
    let threads = take(&threads);
    assert_eq!(threads[0], threads[1]);
    rig.assert_no_finding();
}

#[test]
fn synchronize_is_not_for_everything() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_pre_operation_callback.md",
        "FLT_PREOP_SYNCHRONIZE is needless for creates, which are synchronised anyway."
    );
    conforms!(
        "fltkernel/nc-fltkernel-pflt_pre_operation_callback.md",
        "FLT_PREOP_SYNCHRONIZE is never for asynchronous reads and writes."
    );
    let rig = Rig::new(&[CREATE]);
    let told = log();
    let down = Arc::clone(&told);
    rig.pre(|_| flt::FLT_PREOP_SYNCHRONIZE);
    rig.post(move |op| {
        push(&down, op.major());
        flt::FLT_POSTOP_FINISHED_PROCESSING
    });
    rig.open(OpenOptions::new()).unwrap();
    assert_eq!(take(&told), [CREATE], "as with FLT_PREOP_SUCCESS_WITH_CALLBACK");
    rig.assert_no_finding();

    let rig = Rig::new(&[READ]);
    rig.pre(|_| flt::FLT_PREOP_SYNCHRONIZE);
    let file = rig.open(OpenOptions::new().overlapped()).unwrap();
    let read = file.read_overlapped(0, 4).unwrap();
    assert!(read.wait(Duration::from_secs(1)).is_err());
    assert!(rig.finding().1.contains("asynchronous"), "{:?}", rig.finding());
}

#[test]
fn locks_and_watches_cannot_be_synchronised() {
    conforms!(
        "docs:ifs/returning-flt-preop-synchronize.md",
        "Byte-range lock requests, directory watches and oplock requests cannot be synchronised."
    );
    for (major, use_it) in [
        (0x11_u8, (|rig: &Rig| assert!(rig.reader().lock(0, 4, false, 0).is_err())) as fn(&Rig)),
        (0x0D, |rig| assert!(rig.reader().fs_control(0x0009_0240, &[0; 12], 16).is_err())),
        (0x0C, |rig| {
            let folder = OpenOptions::new().directory().overlapped();
            drop(rig.setup.process().create_file(r"\??\C:\", &folder).unwrap().watch(1, false, 64));
        }),
    ] {
        let rig = Rig::new(&[major]);
        rig.pre(|op| if op.flag(FAST_IO) { flt::FLT_PREOP_DISALLOW_FASTIO } else { flt::FLT_PREOP_SYNCHRONIZE });
        use_it(&rig);
        assert_eq!(rig.finding().0, Rule::BadState, "{major:#x}");
    }
}

#[test]
fn a_post_that_was_asked_for_has_to_be_registered() {
    conforms!(
        "docs:ifs/returning-flt-preop-success-with-callback.md",
        "FLT_PREOP_SUCCESS_WITH_CALLBACK needs a registered post-operation callback."
    );
    let setup = Setup::new();
    let mut entries = entries(&[(CREATE, 0)]);
    entries[0].PostOperation = None;
    setup.filter_with(&FLT_REGISTRATION { OperationRegistration: entries.as_ptr(), ..FLT_REGISTRATION::EMPTY });
    Rig::pre_of(setup.instance(), |_| flt::FLT_PREOP_SUCCESS_WITH_CALLBACK);
    assert!(setup.process().create_file(BOOT, &OpenOptions::new()).is_err());
    assert_eq!(setup.bench.machine().finding().unwrap().rule, Rule::BadState);
}

#[test]
fn answers_for_other_kinds_of_operations_are_found() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_pre_operation_callback.md",
        "FLT_PREOP_DISALLOW_FASTIO is for fast I/O operations only."
    );
    conforms!(
        "fltkernel/nc-fltkernel-pflt_pre_operation_callback.md",
        "FLT_PREOP_DISALLOW_FSFILTER_IO is for QueryOpen only."
    );
    for answer in [flt::FLT_PREOP_DISALLOW_FASTIO, flt::FLT_PREOP_DISALLOW_FSFILTER_IO, 99] {
        let rig = Rig::new(&[CREATE]);
        rig.pre(move |_| answer);
        assert!(rig.open(OpenOptions::new()).is_err());
        assert_eq!(rig.finding().0, Rule::BadState, "{answer}");
    }
}

#[test]
fn a_callback_that_returns_at_another_irql_is_found() {
    conforms!(
        "docs:ifs/writing-preoperation-callback-routines.md",
        "Pre-operation callbacks run at PASSIVE_LEVEL or APC_LEVEL; one that returns elsewhere is found."
    );
    let rig = Rig::new(&[READ]);
    rig.pre(|_| {
        assert!(Thread::current().irql() <= 1);
        Thread::current().set_irql(2);
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    assert!(rig.reader().read(0, 1).is_err());
    assert_eq!(rig.finding().0, Rule::IrqlChanged);
}

#[test]
fn a_post_alone_is_called_for_every_operation() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_post_operation_callback.md",
        "A post-operation callback can be registered without a pre-operation callback."
    );
    let setup = Setup::new();
    let mut entries = entries(&[(READ, 0)]);
    entries[0].PreOperation = None;
    setup.filter_with(&FLT_REGISTRATION { OperationRegistration: entries.as_ptr(), ..FLT_REGISTRATION::EMPTY });
    let seen = log();
    let up = Arc::clone(&seen);
    Rig::post_of(setup.instance(), move |op| {
        push(&up, (op.major(), op.given));
        flt::FLT_POSTOP_FINISHED_PROCESSING
    });
    setup.process().create_file(BOOT, &OpenOptions::new()).unwrap().read(0, 1).unwrap();
    assert_eq!(take(&seen), [(READ, 0)]);
}
