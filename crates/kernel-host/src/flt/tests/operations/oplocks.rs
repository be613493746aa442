//! Oplocks that a filter keeps in place of the file system: requests, breaks, acknowledgments, and who waits.

use super::*;
use crate::conformance::conforms;
use crate::fs::program_overlapped::Overlapped;

const CREATE: u8 = 0;
const READ: u8 = 3;
const WRITE: u8 = 4;
const SET_INFORMATION: u8 = 6;
const CONTROL: u8 = 0x0D;
const CLEANUP: u8 = 0x12;

const LEVEL_1: u32 = 0x0009_0000;
const LEVEL_2: u32 = 0x0009_0004;
const BATCH: u32 = 0x0009_0008;
const ACKNOWLEDGE: u32 = 0x0009_000C;
const ACK_CLOSE_PENDING: u32 = 0x0009_0010;
const NOTIFY: u32 = 0x0009_0014;
const ACK_NO_2: u32 = 0x0009_0050;
const REQUEST: u32 = 0x0009_0240;

/// `OPLOCK_LEVEL_CACHE_*` together.
const R: u32 = 1;
const RH: u32 = 3;
const RW: u32 = 5;
const RWH: u32 = 7;

type Routine = unsafe extern "efiapi" fn(*mut FLT_CALLBACK_DATA, PVOID);

const TO_LEVEL_2: Option<usize> = Some(7);
const TO_NONE: Option<usize> = Some(8);

/// What the keeper's routines were told: by its oplock, the routine's name.
static TOLD: Mutex<Vec<(usize, &str)>> = Mutex::new(Vec::new());

fn told(oplock: usize) -> Vec<&'static str> {
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    told.extract_if(.., |(at, _)| *at == oplock).map(|(_, what)| what).collect()
}

unsafe extern "efiapi" fn waited(data: *mut FLT_CALLBACK_DATA, context: PVOID) {
    TOLD.lock().unwrap_or_else(PoisonError::into_inner).push((context.addr(), "waited"));
    let status = field!(Raw::of(data), FLT_CALLBACK_DATA, IoStatus).read().Status;
    let answer = if status.is_success() { flt::FLT_PREOP_SUCCESS_NO_CALLBACK } else { flt::FLT_PREOP_COMPLETE };
    ddi!(FltCompletePendedPreOperation: fn(usize, i32, usize))(data.expose_provenance(), answer, 0);
}

unsafe extern "efiapi" fn prepost(_data: *mut FLT_CALLBACK_DATA, context: PVOID) {
    TOLD.lock().unwrap_or_else(PoisonError::into_inner).push((context.addr(), "prepost"));
}

/// A filter that keeps the oplocks of boot.rom; `count` handles are open whenever one is requested.
struct Keeper {
    rig: Rig,
    oplock: usize,
}

impl Keeper {
    /// Operations that have to wait are pended when `pends`, else they wait in their thread.
    fn new(count: u32, pends: bool) -> Self {
        let rig = Rig::new(&[CREATE, READ, WRITE, SET_INFORMATION, CONTROL, CLEANUP]);
        let oplock = (&raw mut *Box::leak(Box::new(0_usize))).expose_provenance();
        rig.run(|| ddi!(FltInitializeOplock: fn(usize))(oplock)).unwrap();
        rig.pre(move |op| {
            let data = op.data.address();
            if op.major() == CONTROL {
                return ddi!(FltOplockFsctrl: fn(usize, usize, u32) -> i32)(oplock, data, count);
            }
            let routines: [Routine; 2] = [waited, prepost];
            let [wait, before] = if pends { routines.map(|routine| routine as usize) } else { [0, 0] };
            let check = ddi!(FltCheckOplock: fn(usize, usize, usize, usize, usize) -> i32);
            let answer = check(oplock, data, oplock, wait, before);
            if answer == flt::FLT_PREOP_SUCCESS_WITH_CALLBACK { flt::FLT_PREOP_SUCCESS_NO_CALLBACK } else { answer }
        });
        Self { rig, oplock }
    }

    fn overlapped(&self) -> ProgramFile {
        self.rig.open(OpenOptions::new().write().overlapped()).unwrap()
    }

    fn is(&self, call: extern "efiapi" fn(usize) -> u8) -> bool {
        let oplock = self.oplock;
        self.rig.run(|| call(oplock)).unwrap() != 0
    }

    fn is_held(&self) -> bool {
        self.is(ddi!(FltCurrentOplock: fn(usize) -> u8))
    }

    /// Ends the test: nothing went wrong, and the oplock can be given up.
    fn finish(self) {
        let oplock = self.oplock;
        self.rig.assert_no_finding();
        self.rig.run(|| ddi!(FltUninitializeOplock: fn(usize))(oplock)).unwrap();
        assert_eq!(Raw::<usize>::at(oplock).read(), 0);
        assert_eq!(self.rig.setup.leaks().len(), 2, "filter and instance: {:?}", self.rig.setup.leaks());
    }
}

fn request(file: &ProgramFile, code: u32) -> Overlapped {
    file.fs_control_overlapped(code, &[], 0).unwrap()
}

fn status(overlapped: &Overlapped) -> NtStatus {
    overlapped.wait(Duration::ZERO).map_or_else(|status| status, |_| NtStatus::SUCCESS)
}

/// REQUEST_OPLOCK_INPUT_BUFFER.
fn caching(file: &ProgramFile, level: u32, flags: u32) -> Overlapped {
    let words = [1 | 12 << 16, level, flags];
    let input: Vec<u8> = words.iter().flat_map(|word: &u32| word.to_le_bytes()).collect();
    file.fs_control_overlapped(REQUEST, &input, 24).unwrap()
}

/// Levels and flags of a REQUEST_OPLOCK_OUTPUT_BUFFER: original, new, flags.
fn levels(overlapped: &Overlapped) -> [u32; 3] {
    let bytes = overlapped.wait(Duration::ZERO).unwrap();
    [4, 8, 12].map(|at| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]))
}

#[test]
fn an_oplock_pends_until_somebody_else_reads_and_the_reader_until_it_is_acknowledged() {
    conforms!("fltkernel/nf-fltkernel-fltoplockfsctrl.md", "A granted oplock's request is pended: FLT_PREOP_PENDING.");
    conforms!(
        "docs:ifs/breaking-oplocks.md",
        "A break completes the request with FILE_OPLOCK_BROKEN_TO_LEVEL_2 or FILE_OPLOCK_BROKEN_TO_NONE as Information."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltcheckoplock.md",
        "FLT_PREOP_PENDING: the operation waits, after PrePostCallbackDataRoutine, until WaitCompletionRoutine is called."
    );
    conforms!(
        "docs:ifs/fsctl-oplock-break-acknowledge.md",
        "Acknowledging a break to Level 2 leaves a Level 2 oplock: the acknowledgment is pended."
    );
    let keeper = Keeper::new(1, true);
    let (owner, other) = (keeper.overlapped(), keeper.overlapped());
    let oplock = request(&owner, LEVEL_1);
    assert!(oplock.is_pending() && keeper.is_held());
    // The owner itself does what it likes.
    assert!(!owner.read_overlapped(0, 2).unwrap().is_pending());
    let read = other.read_overlapped(0, 2).unwrap();
    assert_eq!((oplock.information(), read.is_pending()), (TO_LEVEL_2, true));
    assert_eq!(told(keeper.oplock), ["prepost"]);
    let level_2 = request(&owner, ACKNOWLEDGE);
    assert!(level_2.is_pending());
    assert_eq!(read.wait(Duration::from_secs(1)), Ok(b"01".to_vec()));
    assert_eq!(told(keeper.oplock), ["waited"]);
    // A write breaks what is left, and waits for nobody.
    assert!(!other.write_overlapped(0, b"x").unwrap().is_pending());
    assert_eq!(level_2.information(), TO_NONE);
    assert!(!keeper.is_held());
    keeper.finish();
}

#[test]
fn an_oplock_that_is_relinquished_is_gone() {
    conforms!("docs:ifs/fsctl-oplock-break-ack-no-2.md", "The break is acknowledged, and no oplock is left.");
    conforms!(
        "docs:ifs/acknowledging-oplock-breaks.md",
        "An acknowledgment that nobody waits for is STATUS_INVALID_OPLOCK_PROTOCOL."
    );
    let keeper = Keeper::new(1, true);
    let (owner, other) = (keeper.overlapped(), keeper.overlapped());
    assert_eq!(status(&request(&owner, ACK_NO_2)), NtStatus::INVALID_OPLOCK_PROTOCOL);
    let _oplock = request(&owner, BATCH);
    let read = other.read_overlapped(0, 2).unwrap();
    assert_eq!(status(&request(&other, ACKNOWLEDGE)), NtStatus::INVALID_OPLOCK_PROTOCOL);
    assert_eq!(status(&request(&owner, ACK_NO_2)), NtStatus::SUCCESS);
    assert!(!read.is_pending() && !keeper.is_held());
    keeper.finish();
}

#[test]
fn who_intends_to_close_keeps_the_others_waiting_until_it_has() {
    conforms!(
        "docs:ifs/acknowledging-oplock-breaks.md",
        "After FSCTL_OPBATCH_ACK_CLOSE_PENDING of a Batch oplock operations wait until the handle is closed."
    );
    conforms!("docs:ifs/irp-mj-cleanup2.md", "Closing the handle acknowledges the break.");
    let keeper = Keeper::new(1, true);
    let (owner, other) = (keeper.overlapped(), keeper.overlapped());
    let _oplock = request(&owner, BATCH);
    assert!(keeper.is(ddi!(FltCurrentBatchOplock: fn(usize) -> u8)));
    let read = other.read_overlapped(0, 2).unwrap();
    assert_eq!(status(&request(&owner, ACK_CLOSE_PENDING)), NtStatus::SUCCESS);
    let notify = request(&other, NOTIFY);
    assert!(read.is_pending() && notify.is_pending());
    drop(owner);
    assert_eq!(read.wait(Duration::from_secs(1)), Ok(b"01".to_vec()));
    assert_eq!(status(&notify), NtStatus::SUCCESS);
    keeper.finish();
}

#[test]
fn closing_the_handle_ends_its_oplock() {
    conforms!("docs:ifs/irp-mj-cleanup2.md", "IRP_MJ_CLEANUP breaks the oplock of its file object to None.");
    conforms!("docs:ifs/irp-mj-cleanup2.md", "Level 2 oplocks of other file objects are not affected by a cleanup.");
    let keeper = Keeper::new(0, true);
    let (one, two) = (keeper.overlapped(), keeper.overlapped());
    let (first, second) = (request(&one, LEVEL_2), request(&two, LEVEL_2));
    assert!(first.is_pending() && second.is_pending());
    drop(one);
    assert_eq!((first.information(), second.is_pending()), (TO_NONE, true));
    drop(two);
    keeper.finish();
}

#[test]
fn oplocks_are_granted_under_their_conditions_only() {
    conforms!("docs:ifs/granting-oplocks.md", "On a synchronous handle no oplock is granted.");
    conforms!("docs:ifs/granting-oplocks.md", "An exclusive oplock is not granted beside other opens.");
    conforms!(
        "fltkernel/nf-fltkernel-fltoplockfsctrl.md",
        "For a shared oplock an OpenCount other than zero says that there are byte-range locks."
    );
    let (no, keeper) = (NtStatus::OPLOCK_NOT_GRANTED, Keeper::new(2, true));
    let file = keeper.overlapped();
    for code in [LEVEL_1, BATCH, LEVEL_2] {
        assert_eq!(status(&request(&file, code)), no, "{code:#x}");
    }
    keeper.finish();
    let keeper = Keeper::new(1, true);
    assert_eq!(keeper.rig.reader().fs_control(LEVEL_1, &[], 0), Err(no));
    let file = keeper.overlapped();
    let oplock = request(&file, LEVEL_1);
    assert_eq!(status(&request(&file, BATCH)), no, "there is one already");
    drop(file);
    assert!(!oplock.is_pending());
    keeper.finish();
}

#[test]
fn caching_oplocks_tell_their_levels_in_the_output() {
    conforms!(
        "docs:ifs/breaking-oplocks.md",
        "NewOplockLevel says what is left, and REQUEST_OPLOCK_OUTPUT_FLAG_ACK_REQUIRED that an acknowledgment is waited for."
    );
    conforms!(
        "docs:ifs/acknowledging-oplock-breaks.md",
        "FSCTL_REQUEST_OPLOCK with REQUEST_OPLOCK_INPUT_FLAG_ACK acknowledges, and keeps what is left."
    );
    let keeper = Keeper::new(1, true);
    let (owner, other) = (keeper.overlapped(), keeper.overlapped());
    let oplock = caching(&owner, RWH, 1);
    assert!(oplock.is_pending() && keeper.is(ddi!(FltCurrentOplockH: fn(usize) -> u8)));
    assert!(keeper.is(ddi!(FltOplockIsFastIoPossible: fn(usize) -> u8)), "an exclusive owner");
    let read = other.read_overlapped(0, 2).unwrap();
    assert_eq!((levels(&oplock), read.is_pending()), ([RWH, RH, 1], true));
    assert!(!keeper.is(ddi!(FltOplockIsFastIoPossible: fn(usize) -> u8)), "a break goes on");
    assert_eq!(status(&caching(&owner, RWH, 2)), NtStatus::INVALID_OPLOCK_PROTOCOL, "more than is left");
    let kept = caching(&owner, RH, 2);
    assert!(kept.is_pending() && !read.is_pending());
    assert!(!keeper.is(ddi!(FltOplockIsFastIoPossible: fn(usize) -> u8)), "a shared owner");
    // Read-Handle has to be acknowledged, but the write does not wait for that.
    let write = other.write_overlapped(0, b"x").unwrap();
    assert_eq!((levels(&kept), write.is_pending()), ([RH, 0, 1], false));
    assert_eq!(status(&caching(&owner, 0, 2)), NtStatus::SUCCESS);
    assert!(!keeper.is_held());
    keeper.finish();
}

#[test]
fn a_new_handle_s_read_oplock_goes_beside_the_others_and_malformed_requests_nowhere() {
    conforms!(
        "docs:ifs/granting-oplocks.md",
        "A second Read oplock on a handle ends the first with STATUS_OPLOCK_SWITCHED_TO_NEW_HANDLE."
    );
    let keeper = Keeper::new(0, true);
    let (one, two) = (keeper.overlapped(), keeper.overlapped());
    let (first, second) = (caching(&one, R, 1), caching(&two, R, 1));
    assert!(first.is_pending() && second.is_pending());
    let again = caching(&one, R, 1);
    assert_eq!(status(&first), NtStatus::OPLOCK_SWITCHED_TO_NEW_HANDLE);
    assert!(second.is_pending() && again.is_pending());
    assert_eq!(status(&caching(&one, 2, 1)), NtStatus::INVALID_PARAMETER, "H alone is none");
    assert_eq!(status(&one.fs_control_overlapped(REQUEST, &[0; 12], 24).unwrap()), NtStatus::INVALID_PARAMETER);
    assert_eq!(status(&one.fs_control_overlapped(REQUEST, &[0; 4], 24).unwrap()), NtStatus::BUFFER_TOO_SMALL);
    drop((one, two));
    keeper.finish();
}

#[test]
fn requests_and_waits_can_be_cancelled() {
    conforms!("docs:ifs/breaking-oplocks.md", "An operation that waits for an acknowledgment can be cancelled.");
    conforms!(
        "docs:ifs/fsctl-request-oplock.md",
        "Cancelling a request that was granted ends the oplock: STATUS_CANCELLED."
    );
    let keeper = Keeper::new(1, true);
    let (owner, other) = (keeper.overlapped(), keeper.overlapped());
    let oplock = request(&owner, LEVEL_1);
    oplock.cancel().unwrap();
    assert_eq!((status(&oplock), keeper.is_held()), (NtStatus::CANCELLED, false));
    let _oplock = request(&owner, LEVEL_1);
    let read = other.read_overlapped(0, 2).unwrap();
    read.cancel().unwrap();
    assert_eq!(status(&read), NtStatus::CANCELLED);
    assert_eq!(status(&request(&owner, ACK_NO_2)), NtStatus::SUCCESS);
    keeper.finish();
}

#[test]
fn without_a_routine_the_thread_waits() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcheckoplock.md",
        "Without a WaitCompletionRoutine the caller waits until the break is over."
    );
    let keeper = Keeper::new(1, false);
    let owner = keeper.overlapped();
    let oplock = request(&owner, LEVEL_1);
    let process = keeper.rig.setup.process();
    let opens = std::thread::spawn(move || process.create_file(BOOT, &OpenOptions::new()).map(drop));
    while oplock.is_pending() {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(oplock.information(), TO_LEVEL_2);
    assert!(!opens.is_finished());
    assert_eq!(status(&request(&owner, ACK_NO_2)), NtStatus::SUCCESS);
    assert_eq!(opens.join().unwrap(), Ok(()));
    keeper.finish();
}

#[test]
fn all_oplocks_can_be_broken_and_those_that_cache_handles() {
    conforms!(
        "fltkernel/nf-fltkernel-fltoplockbreaktonone.md",
        "All oplocks are broken, also for the owner's own operation."
    );
    conforms!("fltkernel/nf-fltkernel-fltoplockbreakh.md", "Only oplocks that cache handles are broken.");
    conforms!(
        "fltkernel/nf-fltkernel-fltoplockbreakh.md",
        "With OPLOCK_FLAG_COMPLETE_IF_OPLOCKED the operation goes on: STATUS_OPLOCK_BREAK_IN_PROGRESS in its IoStatus."
    );
    let keeper = Keeper::new(1, true);
    let (owner, oplock, seen) = (keeper.overlapped(), keeper.oplock, log());
    for (level, handles, left, altitude) in
        [(RW, true, None, "360001"), (RWH, true, Some([RWH, RW, 1]), "360002"), (RW, false, Some([RW, 0, 1]), "360003")]
    {
        let held = caching(&owner, level, 1);
        assert!(held.is_pending());
        let up = Arc::clone(&seen);
        let (_, second) = keeper.rig.add(&format!("Second {altitude}"), altitude, &[READ]);
        Rig::pre_of(second, move |op| {
            let data = op.data.address();
            let call = if handles {
                ddi!(FltOplockBreakH: fn(usize, usize, u32, usize, usize, usize) -> i32)
            } else {
                ddi!(FltOplockBreakToNoneEx: fn(usize, usize, u32, usize, usize, usize) -> i32)
            };
            // OPLOCK_FLAG_COMPLETE_IF_OPLOCKED and OPLOCK_FLAG_IGNORE_OPLOCK_KEYS.
            push(&up, (call(oplock, data, 1 | 8, 0, 0, 0), op.status()));
            flt::FLT_PREOP_SUCCESS_NO_CALLBACK
        });
        assert!(!owner.read_overlapped(0, 1).unwrap().is_pending());
        let status_of = if left.is_some() { NtStatus::OPLOCK_BREAK_IN_PROGRESS } else { NtStatus::SUCCESS };
        assert_eq!(take(&seen), [(flt::FLT_PREOP_SUCCESS_WITH_CALLBACK, status_of)]);
        assert_eq!(left.is_none(), held.is_pending());
        match left {
            Some(left) => {
                assert_eq!(levels(&held), left);
                assert_eq!(status(&caching(&owner, 0, 2)), NtStatus::SUCCESS);
            }
            None => held.cancel().unwrap(),
        }
        Rig::pre_of(second, |_| flt::FLT_PREOP_SUCCESS_NO_CALLBACK);
    }
    keeper.rig.assert_no_finding();
}

#[test]
fn a_request_for_a_shared_oplock_is_known_as_one() {
    conforms!("fltkernel/nf-fltkernel-fltoplockissharedrequest.md", "TRUE for requests of Level 2, R and RH only.");
    conforms!(
        "fltkernel/nf-fltkernel-fltoplockkeysequal.md",
        "A file object has the same key as itself, and as no other without one."
    );
    let rig = Rig::new(&[CONTROL]);
    let seen = log();
    let down = Arc::clone(&seen);
    rig.pre(move |op| {
        let equal = ddi!(FltOplockKeysEqual: fn(usize, usize) -> u8);
        assert_eq!((equal(op.file(), op.file()), equal(op.file(), 0), equal(0, 0)), (1, 0, 0));
        push(&down, ddi!(FltOplockIsSharedRequest: fn(usize) -> u8)(op.data.address()));
        op.complete(NtStatus::SUCCESS)
    });
    let file = rig.open(OpenOptions::new().overlapped()).unwrap();
    for code in [LEVEL_1, LEVEL_2, BATCH, ACKNOWLEDGE] {
        request(&file, code);
    }
    for level in [1, 3, 5, 7] {
        caching(&file, level, 1);
    }
    assert_eq!(take(&seen), [0, 1, 0, 0, 1, 1, 0, 0]);
}

#[test]
fn oplocks_are_initialised_before_their_use() {
    conforms!("fltkernel/nf-fltkernel-fltinitializeoplock.md", "The variable has to be NULL before the call.");
    conforms!("fltkernel/nf-fltkernel-fltcurrentoplock.md", "The oplock has to be initialised.");
    let memory = (&raw mut *Box::leak(Box::new(0xDD_usize))).expose_provenance();
    let rig = Rig::new(&[]);
    assert_eq!(rig.run(|| ddi!(FltInitializeOplock: fn(usize))(memory)), Err(Rule::BadArgument));
    let rig = Rig::new(&[]);
    assert_eq!(rig.run(|| ddi!(FltCurrentOplock: fn(usize) -> u8)(memory)), Err(Rule::BadArgument));
}

#[test]
fn an_oplock_that_is_held_at_the_end_is_a_leak() {
    let keeper = Keeper::new(1, true);
    let file = keeper.overlapped();
    let _oplock = request(&file, LEVEL_1);
    assert!(keeper.rig.setup.leaks().iter().any(|leak| leak.contains("oplock")), "{:?}", keeper.rig.setup.leaks());
}
