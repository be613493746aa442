//! What a post-operation callback may do, and how creates are undone.

use super::*;
use crate::conformance::conforms;

const READ: u8 = 3;
const CREATE: u8 = 0;

fn cancel_open(op: &Op) {
    ddi!(FltCancelFileOpen: fn(usize, usize))(op.instance(), op.file());
}

#[test]
fn a_post_can_fail_what_succeeded() {
    conforms!(
        "docs:ifs/failing-an-i-o-operation-in-a-postoperation-callback-routine.md",
        "A post-operation callback can fail a successful operation by its status."
    );
    let rig = Rig::new(&[READ]);
    rig.pre(|_| flt::FLT_PREOP_SUCCESS_WITH_CALLBACK);
    rig.post(|op| {
        op.set_status(NtStatus::DATA_ERROR, 0);
        flt::FLT_POSTOP_FINISHED_PROCESSING
    });
    assert_eq!(rig.reader().read(0, 1), Err(NtStatus::DATA_ERROR));
    rig.assert_no_finding();
}

#[test]
fn a_post_can_only_answer_what_the_header_has() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_post_operation_callback.md",
        "FLT_POSTOP_DISALLOW_FSFILTER_IO is for QueryOpen only."
    );
    for answer in [flt::FLT_POSTOP_DISALLOW_FSFILTER_IO, 7] {
        let rig = Rig::new(&[READ]);
        rig.pre(|_| flt::FLT_PREOP_SUCCESS_WITH_CALLBACK);
        rig.post(move |_| answer);
        assert!(rig.reader().read(0, 1).is_err());
        assert_eq!(rig.finding().0, Rule::BadState);
    }
}

#[test]
fn a_post_cannot_leave_its_status_pending() {
    conforms!(
        "docs:ifs/failing-an-i-o-operation-in-a-postoperation-callback-routine.md",
        "The final status that a post-operation callback sets is a valid one: not STATUS_PENDING."
    );
    let rig = Rig::new(&[READ]);
    rig.pre(|_| flt::FLT_PREOP_SUCCESS_WITH_CALLBACK);
    rig.post(|op| {
        op.set_status(NtStatus::PENDING, 0);
        flt::FLT_POSTOP_FINISHED_PROCESSING
    });
    assert!(rig.reader().read(0, 1).is_err());
    assert_eq!(rig.finding().0, Rule::BadState);
}

#[test]
fn a_create_is_cancelled_in_its_post_operation_callback() {
    conforms!("fltkernel/nf-fltkernel-fltcancelfileopen.md", "To filters above the create appears to have failed.");
    conforms!(
        "fltkernel/nf-fltkernel-fltcancelfileopen.md",
        "To filters below the file appears to have been opened and then closed."
    );
    conforms!("fltkernel/nf-fltkernel-fltcancelfileopen.md", "FO_FILE_OPEN_CANCELLED is set in the file object.");
    conforms!("fltkernel/nf-fltkernel-fltcancelfileopen.md", "A new file is not deleted by the cancelling.");
    let rig = Rig::new(&[CREATE]);
    let (_, upper) = rig.add("Upper", "380000", &[CREATE, 0x12]);
    let (_, lower) = rig.add("Lower", "100000", &[CREATE, 0x12]);
    let seen = log();
    for (instance, who) in [(upper, "upper"), (lower, "lower")] {
        let (down, up) = (Arc::clone(&seen), Arc::clone(&seen));
        Rig::pre_of(instance, move |op| {
            push(&down, (who, op.major(), NtStatus::SUCCESS));
            flt::FLT_PREOP_SUCCESS_WITH_CALLBACK
        });
        Rig::post_of(instance, move |op| {
            if op.major() == CREATE {
                push(&up, (who, CREATE, op.status()));
            }
            flt::FLT_POSTOP_FINISHED_PROCESSING
        });
    }
    rig.pre(|_| flt::FLT_PREOP_SUCCESS_WITH_CALLBACK);
    rig.post(|op| {
        cancel_open(op);
        let flags = field!(Raw::<nt_types::FILE_OBJECT>::at(op.file()), nt_types::FILE_OBJECT, Flags).read();
        assert_ne!(flags & 0x20_0000, 0, "FO_FILE_OPEN_CANCELLED");
        op.set_status(NtStatus::ACCESS_DENIED, 0);
        flt::FLT_POSTOP_FINISHED_PROCESSING
    });
    let path = r"\??\C:\new.rom";
    let refused = rig.setup.process().create_file(path, &OpenOptions::new().write().create_new());
    assert_eq!(refused.map(drop), Err(NtStatus::ACCESS_DENIED));
    let expected = [
        ("upper", CREATE, NtStatus::SUCCESS),
        ("lower", CREATE, NtStatus::SUCCESS),
        ("lower", CREATE, NtStatus::SUCCESS),
        ("lower", 0x12, NtStatus::SUCCESS),
        ("upper", CREATE, NtStatus::ACCESS_DENIED),
    ];
    assert_eq!(take(&seen), expected);
    assert!(rig.setup.folder.path().join("new.rom").exists());
    rig.assert_no_finding();
}

#[test]
fn failing_a_create_without_cancelling_it_is_found() {
    conforms!(
        "docs:ifs/failing-an-i-o-operation-in-a-postoperation-callback-routine.md",
        "A successful create is failed by FltCancelFileOpen first, then by the status."
    );
    let rig = Rig::new(&[CREATE]);
    rig.pre(|_| flt::FLT_PREOP_SUCCESS_WITH_CALLBACK);
    rig.post(|op| {
        op.set_status(NtStatus::ACCESS_DENIED, 0);
        flt::FLT_POSTOP_FINISHED_PROCESSING
    });
    assert!(rig.open(OpenOptions::new()).is_err());
    let (rule, message) = rig.finding();
    assert!(rule == Rule::BadState && message.contains("FltCancelFileOpen"), "{message}");
}

#[test]
fn cancelling_an_open_elsewhere_is_found() {
    conforms!("fltkernel/nf-fltkernel-fltcancelfileopen.md", "FltCancelFileOpen is for post-create callbacks only.");
    conforms!(
        "fltkernel/nf-fltkernel-fltcancelfileopen.md",
        "FltCancelFileOpen comes before any handle is made (FO_HANDLE_CREATED)."
    );
    for major in [CREATE, READ] {
        let rig = Rig::new(&[major]);
        rig.pre(|op| {
            cancel_open(op);
            flt::FLT_PREOP_SUCCESS_NO_CALLBACK
        });
        let opened = rig.open(OpenOptions::new());
        assert!(opened.and_then(|file| file.read(0, 1)).is_err());
        assert_eq!(rig.finding().0, Rule::BadState);
    }
}

#[test]
fn completion_processing_runs_at_once_where_that_is_safe() {
    conforms!(
        "fltkernel/nf-fltkernel-fltdocompletionprocessingwhensafe.md",
        "Below DISPATCH_LEVEL the safe callback runs at once, TRUE is returned, and its status is handed over."
    );
    let rig = Rig::new(&[READ]);
    let seen = log();
    let up = Arc::clone(&seen);
    rig.pre(|_| flt::FLT_PREOP_SUCCESS_WITH_CALLBACK);
    rig.post(move |op| {
        let (answered, answer) = when_safe(op);
        push(&up, (answered, answer));
        answer
    });
    assert_eq!(rig.reader().read(0, 1), Ok(b"0".to_vec()));
    assert_eq!(take(&seen), [(1, flt::FLT_POSTOP_FINISHED_PROCESSING)]);
}

/// FltDoCompletionProcessingWhenSafe with a callback that checks its IRQL.
fn when_safe(op: &Op) -> (u8, i32) {
    unsafe extern "efiapi" fn safe(
        _: *mut FLT_CALLBACK_DATA,
        _: *const FLT_RELATED_OBJECTS,
        context: PVOID,
        _: u32,
    ) -> i32 {
        assert!(Thread::current().irql() <= 1 && context.addr() == 9);
        flt::FLT_POSTOP_FINISHED_PROCESSING
    }
    let mut answer = -1_i32;
    let related = op.related;
    let (related_at, answer_at) = ((&raw const related).expose_provenance(), (&raw mut answer).expose_provenance());
    let routine: unsafe extern "efiapi" fn(*mut FLT_CALLBACK_DATA, *const FLT_RELATED_OBJECTS, PVOID, u32) -> i32 =
        safe;
    let call = ddi!(FltDoCompletionProcessingWhenSafe: fn(usize, usize, usize, u32, usize, usize) -> u8);
    let answered = call(op.data.address(), related_at, 9, op.flags, routine as usize, answer_at);
    (answered, Raw::<i32>::at(answer_at).read())
}

#[test]
fn completion_of_storage_comes_at_dispatch_level_and_is_posted() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_post_operation_callback.md",
        "Post-operation callbacks may run at DISPATCH_LEVEL."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltdocompletionprocessingwhensafe.md",
        "At DISPATCH_LEVEL the operation is posted: TRUE, and FLT_POSTOP_MORE_PROCESSING_REQUIRED."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltdocompletionprocessingwhensafe.md",
        "After a posted safe callback has finished, completion goes on by itself."
    );
    let rig = Rig::new(&[READ]);
    std::fs::write(rig.setup.folder.path().join("boot.rom"), [7; 1024]).unwrap();
    let seen = log();
    let up = Arc::clone(&seen);
    rig.pre(|_| flt::FLT_PREOP_SUCCESS_WITH_CALLBACK);
    rig.post(move |op| {
        let irql = Thread::current().irql();
        let (answered, answer) = when_safe(op);
        push(&up, (irql, answered, answer));
        answer
    });
    let file = rig.open(OpenOptions::new().overlapped().non_cached()).unwrap();
    let read = file.read_overlapped(512, 512).unwrap();
    assert_eq!(read.wait(Duration::from_secs(5)), Ok(vec![7; 512]));
    assert_eq!(take(&seen), [(2, 1, flt::FLT_POSTOP_MORE_PROCESSING_REQUIRED)]);
    rig.assert_no_finding();
}

#[test]
fn completion_processing_belongs_into_post_operation_callbacks() {
    conforms!(
        "fltkernel/nf-fltkernel-fltdocompletionprocessingwhensafe.md",
        "FltDoCompletionProcessingWhenSafe is for post-operation callbacks only."
    );
    let rig = Rig::new(&[READ]);
    rig.pre(|op| {
        when_safe(op);
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    assert!(rig.reader().read(0, 1).is_err());
    assert_eq!(rig.finding().0, Rule::BadState);
}

#[test]
fn a_create_can_be_reissued_with_other_parameters() {
    conforms!(
        "fltkernel/nf-fltkernel-fltreissuesynchronousio.md",
        "A synchronised operation can be reissued with changed parameters, marked dirty."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltreissuesynchronousio.md",
        "A reissued operation reaches only instances below the initiating one, and the file system."
    );
    conforms!(
        "fltkernel/ns-fltkernel-_flt_callback_data.md",
        "FLTFL_CALLBACK_DATA_REISSUED_IO is set in an operation that is reissued."
    );
    let rig = Rig::new(&[CREATE]);
    let (_, lower) = rig.add("Lower", "100000", &[CREATE]);
    let seen = log();
    let (down, below) = (Arc::clone(&seen), Arc::clone(&seen));
    rig.pre(move |_| {
        push(&down, ("own", false));
        flt::FLT_PREOP_SUCCESS_WITH_CALLBACK
    });
    Rig::pre_of(lower, move |op| {
        push(&below, ("lower", op.flag(0x2_0000)));
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    rig.post(|op| {
        if op.status() == NtStatus::OBJECT_NAME_NOT_FOUND {
            let options = op.parameter::<u32>(8);
            // FILE_OPEN becomes FILE_OPEN_IF.
            options.write(options.read() & 0x00FF_FFFF | 3 << 24);
            op.set_dirty();
            ddi!(FltReissueSynchronousIo: fn(usize, usize))(op.instance(), op.data.address());
        }
        flt::FLT_POSTOP_FINISHED_PROCESSING
    });
    let file = rig.setup.process().create_file(r"\??\C:\made.rom", &OpenOptions::new()).unwrap();
    assert_eq!(file.create_information(), 2);
    assert_eq!(take(&seen), [("own", false), ("lower", false), ("lower", true)]);
    rig.assert_no_finding();
}

#[test]
fn only_synchronised_operations_can_be_reissued() {
    conforms!(
        "fltkernel/nf-fltkernel-fltreissuesynchronousio.md",
        "Only synchronised operations can be reissued: the pre-operation callback returned FLT_PREOP_SYNCHRONIZE."
    );
    let rig = Rig::new(&[READ]);
    rig.pre(|_| flt::FLT_PREOP_SUCCESS_WITH_CALLBACK);
    rig.post(|op| {
        ddi!(FltReissueSynchronousIo: fn(usize, usize))(op.instance(), op.data.address());
        flt::FLT_POSTOP_FINISHED_PROCESSING
    });
    assert!(rig.reader().read(0, 1).is_err());
    assert_eq!(rig.finding().0, Rule::BadState);

    let rig = Rig::new(&[READ]);
    rig.pre(|op| if op.flag(IRP) { flt::FLT_PREOP_SYNCHRONIZE } else { flt::FLT_PREOP_DISALLOW_FASTIO });
    rig.post(|op| {
        op.parameter::<i64>(16).write(6);
        op.set_dirty();
        ddi!(FltReissueSynchronousIo: fn(usize, usize))(op.instance(), op.data.address());
        flt::FLT_POSTOP_FINISHED_PROCESSING
    });
    assert_eq!(rig.reader().read(0, 2), Ok(b"67".to_vec()));
    rig.assert_no_finding();
}

#[test]
fn a_create_that_was_cancelled_cannot_be_reissued() {
    conforms!(
        "fltkernel/nf-fltkernel-fltreissuesynchronousio.md",
        "A create that was cancelled fails with STATUS_CANCELLED when it is reissued."
    );
    let rig = Rig::new(&[CREATE]);
    rig.pre(|_| flt::FLT_PREOP_SUCCESS_WITH_CALLBACK);
    rig.post(|op| {
        cancel_open(op);
        ddi!(FltReissueSynchronousIo: fn(usize, usize))(op.instance(), op.data.address());
        assert_eq!(op.status(), NtStatus::CANCELLED);
        flt::FLT_POSTOP_FINISHED_PROCESSING
    });
    assert_eq!(rig.open(OpenOptions::new()).map(drop), Err(NtStatus::CANCELLED));
    rig.assert_no_finding();
}
