//! Cancel routines, and programs that cancel.

use super::*;
use crate::conformance::conforms;

const READ: u8 = 3;

unsafe extern "efiapi" fn complete_cancelled(data: *mut FLT_CALLBACK_DATA) {
    let data = data.expose_provenance();
    Raw::<NtStatus>::at(data + 24).write(NtStatus::CANCELLED);
    ddi!(FltCompletePendedPreOperation: fn(usize, i32, usize))(data, flt::FLT_PREOP_COMPLETE, 0);
}

fn set_routine(op: &Op) -> NtStatus {
    let routine: unsafe extern "efiapi" fn(*mut FLT_CALLBACK_DATA) = complete_cancelled;
    ddi!(FltSetCancelCompletion: fn(usize, usize) -> NtStatus)(op.data.address(), routine as usize)
}

fn clear_routine(op: &Op) -> NtStatus {
    ddi!(FltClearCancelCompletion: fn(usize) -> NtStatus)(op.data.address())
}

#[test]
fn a_program_cancels_what_a_filter_keeps() {
    conforms!(
        "fltkernel/nf-fltkernel-fltsetcancelcompletion.md",
        "The cancel routine is called when the operation is cancelled."
    );
    let rig = Rig::new(&[READ]);
    rig.pre(|op| {
        assert_eq!(set_routine(op), NtStatus::SUCCESS);
        flt::FLT_PREOP_PENDING
    });
    let file = rig.open(OpenOptions::new().overlapped()).unwrap();
    let read = file.read_overlapped(0, 4).unwrap();
    assert!(read.is_pending());
    read.cancel().unwrap();
    assert_eq!(read.wait(Duration::from_secs(1)), Err(NtStatus::CANCELLED));
    assert_eq!(read.cancel(), Err(NtStatus::NOT_FOUND));
    rig.assert_no_finding();
}

#[test]
fn a_cancel_routine_is_cleared_once() {
    conforms!(
        "fltkernel/nf-fltkernel-fltclearcancelcompletion.md",
        "STATUS_SUCCESS when a routine was cleared, STATUS_CANCELLED when none was set."
    );
    let rig = Rig::new(&[READ]);
    let seen = log();
    let down = Arc::clone(&seen);
    rig.pre(move |op| {
        push(&down, clear_routine(op));
        push(&down, set_routine(op));
        push(&down, clear_routine(op));
        push(&down, clear_routine(op));
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    rig.reader().read(0, 1).unwrap();
    let (none, done) = (NtStatus::CANCELLED, NtStatus::SUCCESS);
    assert_eq!(take(&seen), [none, done, done, none]);
}

#[test]
fn what_has_no_cancel_routine_cannot_be_cancelled_now() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcancelio.md",
        "Without a cancel routine FltCancelIo sets the cancel bit and returns FALSE."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltcancelio.md",
        "FltCancelIo returns FALSE for an operation that was cancelled before."
    );
    conforms!("fltkernel/nf-fltkernel-fltisiocanceled.md", "FltIsIoCanceled tells whether the cancel bit is set.");
    let rig = Rig::new(&[READ]);
    let seen = log();
    let down = Arc::clone(&seen);
    rig.pre(move |op| {
        let data = op.data.address();
        let is = ddi!(FltIsIoCanceled: fn(usize) -> u8);
        let cancel = ddi!(FltCancelIo: fn(usize) -> u8);
        push(&down, [is(data), cancel(data), is(data), cancel(data)]);
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    assert_eq!(rig.reader().read(0, 1), Err(NtStatus::CANCELLED));
    assert_eq!(take(&seen), [[0, 0, 1, 0]]);
}

#[test]
fn fast_io_is_not_cancelled() {
    conforms!("fltkernel/nf-fltkernel-fltcancelio.md", "FltCancelIo returns FALSE for what is no packet.");
    conforms!("fltkernel/nf-fltkernel-fltsetcancelcompletion.md", "Only IRP-based operations have a cancel routine.");
    let rig = Rig::new(&[READ]);
    rig.pre(|op| {
        if op.flag(FAST_IO) {
            assert_eq!(ddi!(FltCancelIo: fn(usize) -> u8)(op.data.address()), 0);
            set_routine(op).ok().unwrap();
        }
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    let file = rig.reader();
    file.read(0, 1).unwrap();
    assert!(file.read(0, 1).is_err());
    assert_eq!(rig.finding().0, Rule::BadArgument);
}

#[test]
fn a_watch_is_pending_until_something_happens_or_it_is_cancelled() {
    conforms!(
        "docs:ifs/flt-parameters-for-irp-mj-directory-control.md",
        "A watch is IRP_MN_NOTIFY_CHANGE_DIRECTORY, with what to watch for in CompletionFilter."
    );
    let rig = Rig::new(&[0x0C]);
    let seen = log();
    let up = Arc::clone(&seen);
    rig.pre(|op| {
        assert_eq!(op.parameter::<u32>(8).read(), 1, "FILE_NOTIFY_CHANGE_FILE_NAME");
        flt::FLT_PREOP_SUCCESS_WITH_CALLBACK
    });
    rig.post(move |op| {
        push(&up, (op.minor(), op.status()));
        flt::FLT_POSTOP_FINISHED_PROCESSING
    });
    let process = rig.setup.process();
    let folder = process.create_file(r"\??\C:\", &OpenOptions::new().directory().overlapped()).unwrap();
    let watch = folder.watch(1, false, 256).unwrap();
    assert!(watch.is_pending());
    drop(process.create_file(r"\??\C:\new.txt", &OpenOptions::new().write().create_new()).unwrap());
    let change = watch.wait(Duration::from_secs(1)).unwrap();
    assert_eq!((change[4], change[8]), (1, 14), "FILE_ACTION_ADDED, new.txt");
    let watch = folder.watch(1, false, 256).unwrap();
    watch.cancel().unwrap();
    assert_eq!(watch.wait(Duration::from_secs(1)), Err(NtStatus::CANCELLED));
    let watch = folder.watch(1, false, 256).unwrap();
    drop(folder);
    assert_eq!(watch.wait(Duration::from_secs(1)), Err(NtStatus::NOTIFY_CLEANUP));
    assert_eq!(take(&seen), [(2, NtStatus::SUCCESS), (2, NtStatus::CANCELLED), (2, NtStatus::NOTIFY_CLEANUP)]);
    rig.assert_no_finding();
}
