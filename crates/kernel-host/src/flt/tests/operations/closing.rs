//! Between the last handle's end and the file object's.

use super::*;
use crate::conformance::conforms;

const CLEANUP: u8 = 0x12;

/// `FileStandardInformation`.
const STANDARD: u32 = 5;

/// `FSCTL_GET_OBJECT_ID`.
const GET_OBJECT_ID: u32 = 0x0009_009C;

/// What both questions are answered with.
const ALIVE: (NtStatus, NtStatus) = (NtStatus::SUCCESS, NtStatus::OBJECTID_NOT_FOUND);
const STREAM_GONE: (NtStatus, NtStatus) = (NtStatus::FILE_DELETED, NtStatus::OBJECTID_NOT_FOUND);
const FILE_GONE: (NtStatus, NtStatus) = (NtStatus::FILE_DELETED, NtStatus::FILE_DELETED);

/// Has the filter ask, after each cleanup, for the file's standard information and its object id.
fn asks(rig: &Rig) -> Arc<Mutex<Vec<(NtStatus, NtStatus)>>> {
    let seen = log();
    let answers = Arc::clone(&seen);
    rig.post(move |op| {
        let (instance, file) = (op.instance(), op.file());
        let mut bytes = [0_u8; 24];
        let buffer = bytes.as_mut_ptr().expose_provenance();
        let query = ddi!(FltQueryInformationFile: fn(usize, usize, usize, u32, u32, usize) -> NtStatus);
        let standard = query(instance, file, buffer, 24, STANDARD, 0);
        let control = ddi!(FltFsControlFile: fn(usize, usize, u32, usize, u32, usize, u32, usize) -> NtStatus);
        push(&answers, (standard, control(instance, file, GET_OBJECT_ID, 0, 0, buffer, 24, 0)));
        flt::FLT_POSTOP_FINISHED_PROCESSING
    });
    rig.pre(|_| flt::FLT_PREOP_SYNCHRONIZE);
    seen
}

#[test]
fn a_filter_learns_after_the_cleanup_whether_the_file_is_deleted() {
    conforms!(
        "fltkernel/nf-fltkernel-fltqueryinformationfile.md",
        "The file object has to be open, which it is until it is closed, not only until its last handle is."
    );
    let rig = Rig::new(&[CLEANUP]);
    let seen = asks(&rig);
    rig.writer().link(r"\??\C:\second.rom").unwrap();
    // The file's, and that of the folder that the new name is in.
    assert_eq!(take(&seen), [ALIVE, ALIVE], "nobody deleted it");

    let program = rig.setup.process();
    let delete = |name: &str| program.create_file(name, &OpenOptions::new().write().delete().disposition(3)).unwrap();
    delete(r"\??\C:\boot.rom:side").set_delete(true).unwrap();
    assert_eq!(take(&seen), [STREAM_GONE]);
    delete(r"\??\C:\second.rom").set_delete(true).unwrap();
    assert_eq!(take(&seen), [ALIVE], "the other name is left");
    let (one, other) = (rig.reader(), delete(BOOT));
    other.set_delete(true).unwrap();
    drop(other);
    assert_eq!(take(&seen), [ALIVE], "somebody has it open still");
    drop(one);
    assert_eq!(take(&seen), [FILE_GONE]);
    rig.assert_no_finding();
}

#[test]
fn nothing_is_read_after_the_cleanup() {
    let rig = Rig::new(&[CLEANUP]);
    rig.post(|op| {
        let (instance, file) = (op.instance(), op.file());
        let mut byte = 0_u8;
        let (buffer, offset) = ((&raw mut byte).expose_provenance(), 0_i64);
        let offset = (&raw const offset).expose_provenance();
        let read = ddi!(FltReadFile: fn(usize, usize, usize, u32, usize, u32, usize, usize, usize) -> NtStatus);
        let _stopped = read(instance, file, offset, 1, buffer, 0, 0, 0, 0);
        flt::FLT_POSTOP_FINISHED_PROCESSING
    });
    rig.pre(|_| flt::FLT_PREOP_SYNCHRONIZE);
    drop(rig.reader());
    assert_eq!(rig.finding().0, Rule::BadState);
}
