//! FILE_LOCK: byte-range locks that a filter keeps in place of the file system.

use super::*;
use crate::conformance::conforms;

const READ: u8 = 3;
const WRITE: u8 = 4;
const LOCK: u8 = 0x11;

/// What the routines of the FILE_LOCK were told, by the context of FltProcessFileLock: the lock's address.
static TOLD: Mutex<Vec<(usize, String)>> = Mutex::new(Vec::new());
/// Contexts whose completion routine refuses what is granted.
static REFUSES: Mutex<Vec<usize>> = Mutex::new(Vec::new());

fn told(lock: usize) -> Vec<String> {
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    told.extract_if(.., |(at, _)| *at == lock).map(|(_, what)| what).collect()
}

fn note(context: PVOID, what: String) {
    TOLD.lock().unwrap_or_else(PoisonError::into_inner).push((context.addr(), what));
}

unsafe extern "efiapi" fn completed(context: PVOID, data: *mut FLT_CALLBACK_DATA) -> NtStatus {
    let status = field!(Raw::of(data), FLT_CALLBACK_DATA, IoStatus).read().Status;
    note(context, format!("completed {}", status.name().unwrap_or_default()));
    let refuses = REFUSES.lock().unwrap_or_else(PoisonError::into_inner).contains(&context.addr());
    if refuses { NtStatus::INSUFFICIENT_RESOURCES } else { NtStatus::SUCCESS }
}

unsafe extern "efiapi" fn unlocked(context: PVOID, info: *mut i64) {
    let info = Raw::of(info);
    note(context, format!("unlocked {}+{}", info.read(), info.index(1).read()));
}

/// FltAllocateFileLock with both routines.
fn allocate(rig: &Rig) -> usize {
    let complete: unsafe extern "efiapi" fn(PVOID, *mut FLT_CALLBACK_DATA) -> NtStatus = completed;
    let unlock: unsafe extern "efiapi" fn(PVOID, *mut i64) = unlocked;
    let (complete, unlock) = (complete as usize, unlock as usize);
    rig.run(|| ddi!(FltAllocateFileLock: fn(usize, usize) -> usize)(complete, unlock)).unwrap()
}

fn free(rig: &Rig, lock: usize) -> Result<(), Rule> {
    rig.run(|| ddi!(FltFreeFileLock: fn(usize))(lock))
}

/// A filter that keeps all locks in one FILE_LOCK, and holds reads and writes against them.
fn keeper() -> (Rig, usize) {
    let rig = Rig::new(&[READ, WRITE, LOCK]);
    let lock = allocate(&rig);
    // Another test's lock may have been there.
    told(lock);
    REFUSES.lock().unwrap_or_else(PoisonError::into_inner).retain(|known| *known != lock);
    rig.pre(move |op| {
        let data = op.data.address();
        let check = match op.major() {
            LOCK => return ddi!(FltProcessFileLock: fn(usize, usize, usize) -> i32)(lock, data, lock),
            READ => ddi!(FltCheckLockForReadAccess: fn(usize, usize) -> u8),
            _ => ddi!(FltCheckLockForWriteAccess: fn(usize, usize) -> u8),
        };
        if check(lock, data) == 0 {
            return op.complete(NtStatus::FILE_LOCK_CONFLICT);
        }
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    (rig, lock)
}

fn overlapped(rig: &Rig) -> ProgramFile {
    rig.open(OpenOptions::new().write().overlapped()).unwrap()
}

#[test]
fn a_lock_keeps_others_from_the_bytes() {
    conforms!(
        "fltkernel/nf-fltkernel-fltchecklockforreadaccess.md",
        "FALSE where another owner has an exclusive lock on any byte of the range."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltchecklockforwriteaccess.md",
        "FALSE where another owner has a lock of either kind, and for a shared lock even to its owner."
    );
    conforms!("fltkernel/nf-fltkernel-fltprocessfilelock.md", "FLT_PREOP_COMPLETE: the operation's status is set.");
    let (rig, lock) = keeper();
    let (one, two) = (rig.writer(), rig.writer());
    assert_eq!(one.lock(2, 4, true, 0), Ok(()));
    assert_eq!(two.lock(4, 1, false, 0), Err(NtStatus::LOCK_NOT_GRANTED));
    assert_eq!(two.read(4, 1), Err(NtStatus::FILE_LOCK_CONFLICT));
    assert_eq!(two.read(0, 2), Ok(b"01".to_vec()));
    assert_eq!(one.write(2, b"x"), Ok(1));
    assert_eq!(one.unlock(2, 4, 0), Ok(()));
    assert_eq!(one.unlock(2, 4, 0), Err(NtStatus::RANGE_NOT_LOCKED));
    assert_eq!(one.lock(0, 1, false, 0), Ok(()));
    assert_eq!(two.read(0, 1), Ok(b"0".to_vec()));
    assert_eq!(one.write(0, b"x"), Err(NtStatus::FILE_LOCK_CONFLICT));
    assert_eq!(one.unlock(0, 1, 0), Ok(()));
    free(&rig, lock).unwrap();
    rig.assert_no_finding();
}

#[test]
fn a_packet_waits_for_its_range_and_has_it_when_it_is_free() {
    conforms!("fltkernel/nf-fltkernel-fltprocessfilelock.md", "FLT_PREOP_PENDING: the request waits for its range.");
    conforms!(
        "fltkernel/nc-fltkernel-pflt_complete_lock_callback_data_routine.md",
        "The routine is called at the end of each packet, also of one that has waited."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltprocessfilelock.md",
        "Unlocking calls the UnlockRoutine with the range and the context."
    );
    let (rig, lock) = keeper();
    let (one, two) = (overlapped(&rig), overlapped(&rig));
    let first = one.lock_overlapped(0, 4, true, 0).unwrap();
    assert!(!first.is_pending());
    let second = two.lock_overlapped(2, 4, true, 0).unwrap();
    assert!(second.is_pending());
    assert_eq!(told(lock), ["completed STATUS_SUCCESS"]);
    one.unlock(0, 4, 0).unwrap();
    second.wait(Duration::from_secs(1)).unwrap();
    assert_eq!(told(lock), ["unlocked 0+4", "completed STATUS_SUCCESS", "completed STATUS_SUCCESS"]);
    two.unlock(2, 4, 0).unwrap();
    free(&rig, lock).unwrap();
    rig.assert_no_finding();
}

#[test]
fn a_request_that_waits_can_be_cancelled() {
    conforms!("fltkernel/nf-fltkernel-fltprocessfilelock.md", "A request that waits for its range can be cancelled.");
    let (rig, lock) = keeper();
    let (one, two) = (overlapped(&rig), overlapped(&rig));
    let _held = one.lock_overlapped(0, 4, true, 0).unwrap();
    let waits = two.lock_overlapped(0, 4, true, 0).unwrap();
    waits.cancel().unwrap();
    assert_eq!(waits.wait(Duration::from_secs(1)), Err(NtStatus::CANCELLED));
    one.unlock(0, 4, 0).unwrap();
    free(&rig, lock).unwrap();
}

#[test]
fn a_routine_that_fails_takes_the_lock_back() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_complete_lock_callback_data_routine.md",
        "When the routine returns an error, the lock is removed from the file."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltallocatefilelock.md",
        "The completion routine is called for packets only, not for fast I/O."
    );
    let (rig, lock) = keeper();
    REFUSES.lock().unwrap_or_else(PoisonError::into_inner).push(lock);
    let (one, two) = (overlapped(&rig), rig.writer());
    let refused = one.lock_overlapped(0, 4, true, 0).unwrap();
    assert_eq!(refused.wait(Duration::from_secs(1)), Err(NtStatus::INSUFFICIENT_RESOURCES));
    assert_eq!(told(lock), ["completed STATUS_SUCCESS"]);
    // Synchronous handles lock by fast I/O.
    assert_eq!(two.lock(0, 4, true, 0), Ok(()));
    assert_eq!(told(lock), Vec::<String>::new());
    two.unlock(0, 4, 0).unwrap();
    free(&rig, lock).unwrap();
}

#[test]
fn the_end_of_a_file_lock_is_the_end_of_its_locks() {
    conforms!(
        "fltkernel/nf-fltkernel-fltuninitializefilelock.md",
        "All locks are freed and outstanding requests completed; the structure can be initialised again."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltfreefilelock.md",
        "A FILE_LOCK that was uninitialised cannot be freed with FltFreeFileLock."
    );
    let (rig, lock) = keeper();
    let (one, two) = (overlapped(&rig), overlapped(&rig));
    let _held = one.lock_overlapped(0, 4, true, 0).unwrap();
    let waits = two.lock_overlapped(0, 4, true, 0).unwrap();
    assert!(rig.setup.leaks().iter().any(|leak| leak.contains("FILE_LOCK")), "{:?}", rig.setup.leaks());
    rig.run(|| ddi!(FltUninitializeFileLock: fn(usize))(lock)).unwrap();
    assert_eq!(waits.wait(Duration::from_secs(1)), Err(NtStatus::RANGE_NOT_LOCKED));
    rig.run(|| ddi!(FltInitializeFileLock: fn(usize))(lock)).unwrap();
    assert_eq!(rig.writer().read(0, 1), Ok(b"0".to_vec()), "nothing is locked");
    rig.run(|| ddi!(FltUninitializeFileLock: fn(usize))(lock)).unwrap();
    assert_eq!(free(&rig, lock), Err(Rule::BadArgument));
}
