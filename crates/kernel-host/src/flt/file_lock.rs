//! Byte-range locks that a filter keeps itself: FILE_LOCK, from FltAllocateFileLock to FltProcessFileLock. What grants them is
//! the engine of the file system's own locks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fltmgr::raw as flt;
use fltmgr::raw::{FLT_CALLBACK_DATA, Transfer};
use nt_types::{BOOLEAN, FILE_OBJECT, NtStatus, PVOID};

use super::flight::{Flight, Resume};
use super::major;
use super::operation::{self, Kind};
use super::stack;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::fs::locks::process_of;
use crate::fs::ranges::{Asked, Owner, Range, Ranges, Verdict};
use crate::leak::{Leak, LeakKind};
use crate::machine::{Driver, Inner};
use crate::nt::pool::{PoolKind, Request};
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltAllocateFileLock(max 1, fails NULL) = flt_allocate_file_lock;
    FltFreeFileLock(max 1) = flt_free_file_lock;
    FltInitializeFileLock(max 1) = flt_initialize_file_lock;
    FltUninitializeFileLock(max 1) = flt_uninitialize_file_lock;
    FltProcessFileLock(max 1) = flt_process_file_lock;
    FltCheckLockForReadAccess(max 1) = flt_check_lock_for_read_access;
    FltCheckLockForWriteAccess(max 1) = flt_check_lock_for_write_access;
}

/// Pool tag of what FltAllocateFileLock gives.
const TAG: u32 = u32::from_le_bytes(*b"FLfl");

type CompleteRoutine = unsafe extern "efiapi" fn(PVOID, *mut FLT_CALLBACK_DATA) -> NtStatus;
type UnlockRoutine = unsafe extern "efiapi" fn(PVOID, *mut FileLockInfo);

/// `FILE_LOCK`. Opaque to minifilters, but macros of `ntifs.h` look at `FastIoIsQuestionable`.
#[repr(C)]
#[derive(Clone, Copy)]
struct FileLock {
    complete_routine: usize,
    unlock_routine: usize,
    fast_io_is_questionable: BOOLEAN,
    spare: [u8; 3],
    lock_information: usize,
    last_returned_info: FileLockInfo,
    last_returned: usize,
    requests_in_progress: i32,
}

/// `FILE_LOCK_INFO`. Page: `ns-ntifs-file_lock_info`.
#[repr(C)]
#[derive(Clone, Copy)]
struct FileLockInfo {
    starting_byte: i64,
    length: i64,
    exclusive: BOOLEAN,
    key: u32,
    file_object: *mut FILE_OBJECT,
    process: PVOID,
    ending_byte: i64,
}

const _: () = assert!(size_of::<FileLock>() == 96, "FILE_LOCK");

impl From<&Range> for FileLockInfo {
    fn from(range: &Range) -> Self {
        Self {
            starting_byte: range.start.cast_signed(),
            length: (range.end - range.start).cast_signed(),
            exclusive: range.exclusive.into(),
            key: range.owner.key,
            file_object: Raw::at(range.owner.file).pointer(),
            process: Raw::at(range.owner.process).pointer(),
            // The last byte of it (general knowledge, no page says whether the end is inside).
            ending_byte: range.end.wrapping_sub(1).cast_signed(),
        }
    }
}

/// The locks behind one FILE_LOCK.
struct Locks {
    /// Whose callbacks they are.
    driver: Arc<Driver>,
    complete: Option<CompleteRoutine>,
    unlock: Option<UnlockRoutine>,
    /// Waiting operations, with the context of their FltProcessFileLock.
    ranges: Mutex<Ranges<(Arc<Flight>, usize)>>,
}

impl Locks {
    fn ranges(&self) -> MutexGuard<'_, Ranges<(Arc<Flight>, usize)>> {
        self.ranges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Initialised FILE_LOCK structures by address.
#[derive(Default)]
pub(crate) struct FileLocks(Mutex<HashMap<usize, Arc<Locks>>>);

impl std::fmt::Debug for FileLocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} FILE_LOCK structures", self.lock().len())
    }
}

impl FileLocks {
    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Arc<Locks>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks that `driver` neither unlocked nor uninitialised their FILE_LOCK of.
    pub(crate) fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let mine = |locks: &&Arc<Locks>| std::ptr::eq(Arc::as_ptr(&locks.driver), driver);
        let count = self.lock().values().filter(mine).filter(|locks| !locks.ranges().is_empty()).count() as u64;
        let detail =
            "FILE_LOCK structures with locks (FltUninitializeFileLock or FltFreeFileLock is missing)".to_owned();
        if count == 0 { Vec::new() } else { vec![Leak { kind: LeakKind::Reference, count, bytes: 0, detail }] }
    }

    /// The driver's memory is gone, and what lies there with it.
    pub(crate) fn forget(&self, driver: &Driver) {
        self.lock().retain(|_, locks| !std::ptr::eq(Arc::as_ptr(&locks.driver), driver));
    }
}

/// The locks behind a FILE_LOCK that a driver passes; stops when it is none.
fn known(call: &Call, lock: Raw<u8>) -> Arc<Locks> {
    let found = call.machine().flt.file_locks.lock().get(&lock.address()).cloned();
    found.unwrap_or_else(|| {
        let why = "was not initialised (FltAllocateFileLock, FltInitializeFileLock), or uninitialised since";
        call.stop(Rule::BadArgument, format!("the FILE_LOCK at {lock:?} {why}"))
    })
}

fn initialise(call: &Call, lock: Raw<u8>, complete: Option<CompleteRoutine>, unlock: Option<UnlockRoutine>) {
    let structure = lock.cast::<FileLock>();
    lock.fill(0, size_of::<FileLock>());
    field!(structure, FileLock, complete_routine).write(complete.map_or(0, |routine| routine as usize));
    field!(structure, FileLock, unlock_routine).write(unlock.map_or(0, |routine| routine as usize));
    let locks = Locks { driver: Arc::clone(call.driver()), complete, unlock, ranges: Mutex::default() };
    let before = call.machine().flt.file_locks.lock().insert(lock.address(), Arc::new(locks));
    if before.is_some_and(|before| !before.ranges().is_empty()) {
        call.stop(Rule::BadState, format!("the FILE_LOCK at {lock:?} is initialised already, and has locks"));
    }
}

extern "efiapi" fn flt_allocate_file_lock(complete: Option<CompleteRoutine>, unlock: Option<UnlockRoutine>) -> usize {
    let call = Call::enter();
    let length = size_of::<FileLock>();
    let request = Request { kind: PoolKind::Paged, length, tag: TAG, zeroed: true, cache_aligned: false };
    let address = call.machine().nt.pool().allocate(&call, request);
    if address != 0 {
        initialise(&call, Raw::at(address), complete, unlock);
    }
    address
}

extern "efiapi" fn flt_free_file_lock(lock: Raw<u8>) {
    let call = Call::enter();
    end(&call, lock);
    call.machine().nt.pool().free(&call, lock.address(), TAG);
}

extern "efiapi" fn flt_initialize_file_lock(lock: Raw<u8>) {
    let call = Call::enter();
    initialise(&call, lock, None, None);
}

extern "efiapi" fn flt_uninitialize_file_lock(lock: Raw<u8>) {
    let call = Call::enter();
    end(&call, lock);
}

/// All locks go, and whoever waits for one hears of it.
fn end(call: &Call, lock: Raw<u8>) {
    let locks = known(call, lock);
    call.machine().flt.file_locks.lock().remove(&lock.address());
    locks.ranges().remove(|_| true);
    let waiting = locks.ranges().give_up(|_, _| true);
    for (flight, _) in waiting {
        complete(call.thread(), &flight, NtStatus::RANGE_NOT_LOCKED);
    }
}

extern "efiapi" fn flt_process_file_lock(lock: Raw<u8>, data: Raw<FLT_CALLBACK_DATA>, context: PVOID) -> i32 {
    let call = Call::enter();
    let locks = known(&call, lock);
    let flight = Flight::of(&call, data);
    if flight.major() != major::LOCK_CONTROL {
        call.stop(Rule::BadArgument, format!("{} is no IRP_MJ_LOCK_CONTROL", major::name(flight.major())));
    }
    let context = Raw::of(context).address();
    let asked = Asked::of(&flight);
    let (verdict, unlocked) = locks.ranges().control(asked);
    for range in &unlocked {
        tell_unlocked(call.thread(), &locks, range, context);
    }
    let answer = match verdict {
        Verdict::Wait(_) if flight.kind != Kind::Irp => {
            flight.set_outcome((NtStatus::FLT_DISALLOW_FAST_IO, 0));
            flt::FLT_PREOP_DISALLOW_FASTIO
        }
        Verdict::Wait(range) => {
            locks.ranges().wait(range, (Arc::clone(&flight), context));
            flt::FLT_PREOP_PENDING
        }
        Verdict::Done(status) => {
            flight.set_outcome((status, 0));
            finish(call.thread(), &locks, &flight, context, None);
            flt::FLT_PREOP_COMPLETE
        }
        Verdict::Granted(range) => {
            flight.set_outcome((NtStatus::SUCCESS, 0));
            finish(call.thread(), &locks, &flight, context, Some(&range));
            flt::FLT_PREOP_COMPLETE
        }
    };
    hand_on(call.thread(), &locks);
    note_state(lock, &locks);
    call.thread().leave_if_stopped();
    answer
}

/// Whether there are locks is asked without a call, by macros.
fn note_state(lock: Raw<u8>, locks: &Locks) {
    let questionable = !locks.ranges().is_empty();
    field!(lock.cast::<FileLock>(), FileLock, fast_io_is_questionable).write(questionable.into());
}

/// The driver's routine for the end of a packet: when it says no, the lock that was `granted` is gone again.
fn finish(thread: &Thread, locks: &Locks, flight: &Arc<Flight>, context: usize, granted: Option<&Range>) {
    let Some(routine) = locks.complete.filter(|_| flight.kind == Kind::Irp) else { return };
    let data = flight.data().pointer();
    let answer = thread.call_driver(&locks.driver, "CompleteLockCallbackDataRoutine", thread.irql(), || {
        // SAFETY: the driver passed the function with this signature, and the operation lives until it returns.
        unsafe { routine(Raw::at(context).pointer(), data) }
    });
    if let (Ok(status), Some(range)) = (answer, granted)
        && !status.is_success()
    {
        locks.ranges().withdraw(range);
        flight.set_outcome((status, 0));
    }
}

fn tell_unlocked(thread: &Thread, locks: &Locks, range: &Range, context: usize) {
    let Some(routine) = locks.unlock else { return };
    let mut info = FileLockInfo::from(range);
    let info_at = &raw mut info;
    // A stop reaches whoever drives the machine.
    let _stopped = thread.call_driver(&locks.driver, "UnlockRoutine", thread.irql(), || {
        // SAFETY: the driver passed the function with this signature, and the structure lives until it returns.
        unsafe { routine(Raw::at(context).pointer(), info_at) }
    });
}

/// Somebody let go: whoever waited for that has the lock now.
fn hand_on(thread: &Thread, locks: &Locks) {
    loop {
        let granted = locks.ranges().grant();
        if granted.is_empty() {
            return;
        }
        for (range, (flight, context)) in granted {
            flight.set_outcome((NtStatus::SUCCESS, 0));
            finish(thread, locks, &flight, context, Some(&range));
            let status = flight.outcome().0;
            complete(thread, &flight, status);
        }
    }
}

/// Ends an operation that the driver's callback left to the locks.
fn complete(thread: &Thread, flight: &Arc<Flight>, status: NtStatus) {
    flight.set_outcome((status, 0));
    let answer = Resume::Pre(flt::FLT_PREOP_COMPLETE, std::ptr::null_mut());
    if let Err(why) = stack::resume(thread, flight, answer) {
        let message =
            format!("FltProcessFileLock had returned FLT_PREOP_PENDING, but the operation is not pended: {why}");
        let driver = flight.machine.flt.objects.get(flight.last_instance());
        if let Some(super::object::FltObject::Instance(instance)) = driver {
            super::record(&flight.machine, &instance.filter.driver, "PreOperationCallback", Rule::BadState, message);
        }
    }
}

/// Cancels a request that waits for a lock of a filter's; true when it was one.
pub(super) fn cancel(machine: &Arc<Inner>, thread: &Thread, flight: &Arc<Flight>) -> bool {
    let all: Vec<_> = machine.flt.file_locks.lock().values().cloned().collect();
    let mine = |locks: &Arc<Locks>| !locks.ranges().give_up(|_, (waiting, _)| Arc::ptr_eq(waiting, flight)).is_empty();
    let found = all.iter().any(mine);
    if found {
        complete(thread, flight, NtStatus::CANCELLED);
    }
    found
}

extern "efiapi" fn flt_check_lock_for_read_access(lock: Raw<u8>, data: Raw<FLT_CALLBACK_DATA>) -> BOOLEAN {
    let call = Call::enter();
    check(&call, lock, data, major::READ)
}

extern "efiapi" fn flt_check_lock_for_write_access(lock: Raw<u8>, data: Raw<FLT_CALLBACK_DATA>) -> BOOLEAN {
    let call = Call::enter();
    check(&call, lock, data, major::WRITE)
}

fn check(call: &Call, lock: Raw<u8>, data: Raw<FLT_CALLBACK_DATA>, wanted: u8) -> BOOLEAN {
    let locks = known(call, lock);
    let flight = Flight::of(call, data);
    if flight.major() != wanted {
        let (is, name) = (major::name(flight.major()), major::name(wanted));
        call.stop(Rule::BadArgument, format!("the callback data is for {is}, not for {name}"));
    }
    let parameters: Transfer = operation::parameters(flight.block());
    let owner = Owner { file: flight.target(), process: process_of(&flight), key: parameters.Key };
    let free = locks.ranges().is_free(parameters.ByteOffset, parameters.Length, owner, wanted == major::WRITE);
    free.into()
}
