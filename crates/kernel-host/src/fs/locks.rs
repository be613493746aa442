//! IRP_MJ_LOCK_CONTROL: byte-range locks, as the FsRtl package that NTFS uses grants them.

use std::sync::{Arc, MutexGuard, PoisonError};

use fltmgr::raw::{FLT_IO_PARAMETER_BLOCK, LockControl};
use nt_types::NtStatus;

use super::io::Outcome;
use super::open::Open;
use super::serve::{Served, is_paging};
use super::stream::Kind;
use crate::flt::{self, Flight, Kind as Travel, Operation, complete_later, major, operation};
use crate::machine::Inner;
use crate::nt::raw::{Raw, field};

const IRP_MN_LOCK: u8 = 1;
const IRP_MN_UNLOCK_SINGLE: u8 = 2;
const IRP_MN_UNLOCK_ALL: u8 = 3;
const IRP_MN_UNLOCK_ALL_BY_KEY: u8 = 4;

/// The locks of one stream.
#[derive(Debug, Default)]
pub(crate) struct LockTable {
    held: Vec<Lock>,
    waiting: Vec<(Lock, Arc<Flight>)>,
}

/// One range. Two locks are the same when all members are.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lock {
    start: u64,
    /// First byte behind it.
    end: u64,
    exclusive: bool,
    owner: Owner,
}

/// Locks belong to a file object, a process and a key together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Owner {
    file: usize,
    process: usize,
    key: u32,
}

impl LockTable {
    fn conflicts(&self, wanted: &Lock) -> bool {
        self.held.iter().any(|held| held.overlaps(wanted) && (held.exclusive || wanted.exclusive))
    }

    /// Grants what can be granted now; the requests that waited for it.
    fn grant(&mut self) -> Vec<Arc<Flight>> {
        let mut granted = Vec::new();
        let mut index = 0;
        while let Some((lock, _)) = self.waiting.get(index) {
            if self.conflicts(lock) {
                index += 1;
            } else {
                let (lock, flight) = self.waiting.remove(index);
                self.held.push(lock);
                granted.push(flight);
            }
        }
        granted
    }
}

impl Lock {
    fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

fn table(open: &Open) -> MutexGuard<'_, LockTable> {
    open.stream.locks.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn serve(flight: &Arc<Flight>, open: &Arc<Open>) -> Served {
    if open.stream.kind != Kind::File {
        return (NtStatus::INVALID_PARAMETER, 0).into();
    }
    let parameters: LockControl = operation::parameters(flight.block());
    let owner = Owner { file: flight.target(), process: parameters.ProcessId.addr(), key: parameters.Key };
    let range = |parameters: &LockControl| -> Result<(u64, u64), NtStatus> {
        let length = Raw::of(parameters.Length).some().ok_or(NtStatus::INVALID_PARAMETER)?.read();
        let start = parameters.ByteOffset.cast_unsigned();
        let end = start.checked_add(length.cast_unsigned()).ok_or(NtStatus::INVALID_LOCK_RANGE)?;
        Ok((start, end))
    };
    let done = match field!(flight.block(), FLT_IO_PARAMETER_BLOCK, MinorFunction).read() {
        IRP_MN_LOCK => match range(&parameters) {
            Ok((start, end)) => {
                let exclusive = parameters.ExclusiveLock != 0;
                let lock = Lock { start, end, exclusive, owner };
                return take(flight, open, lock, parameters.FailImmediately != 0);
            }
            Err(status) => Err(status),
        },
        IRP_MN_UNLOCK_SINGLE => range(&parameters).and_then(|(start, end)| {
            let mut table = table(open);
            let found = table.held.iter().position(|lock| (lock.start, lock.end, lock.owner) == (start, end, owner));
            table.held.remove(found.ok_or(NtStatus::RANGE_NOT_LOCKED)?);
            Ok(())
        }),
        IRP_MN_UNLOCK_ALL => {
            table(open).held.retain(|lock| (lock.owner.file, lock.owner.process) != (owner.file, owner.process));
            Ok(())
        }
        IRP_MN_UNLOCK_ALL_BY_KEY => {
            table(open).held.retain(|lock| lock.owner != owner);
            Ok(())
        }
        _ => Err(NtStatus::INVALID_DEVICE_REQUEST),
    };
    hand_on(flight.machine(), open);
    match done {
        Ok(()) => (NtStatus::SUCCESS, 0).into(),
        Err(status) => (status, 0).into(),
    }
}

fn take(flight: &Arc<Flight>, open: &Open, lock: Lock, fail_immediately: bool) -> Served {
    let mut table = table(open);
    if !table.conflicts(&lock) {
        table.held.push(lock);
        return (NtStatus::SUCCESS, 0).into();
    }
    if fail_immediately {
        return (NtStatus::LOCK_NOT_GRANTED, 0).into();
    }
    if flight.kind() == Travel::FastIo {
        // Only a packet can wait.
        return (NtStatus::FLT_DISALLOW_FAST_IO, 0).into();
    }
    table.waiting.push((lock, Arc::clone(flight)));
    Served::Pending
}

/// Somebody let go: whoever waited for that has the lock now.
fn hand_on(machine: &Arc<Inner>, open: &Open) {
    let granted = table(open).grant();
    for flight in granted {
        complete_later(machine, &flight, NtStatus::SUCCESS, 0);
    }
}

/// The file object's last handle is closed: its locks go.
pub(super) fn clean_up(flight: &Flight, open: &Arc<Open>) {
    let file = flight.target();
    let cancelled: Vec<_> = {
        let mut table = table(open);
        table.held.retain(|lock| lock.owner.file != file);
        let (gone, kept) =
            std::mem::take(&mut table.waiting).into_iter().partition(|(lock, _)| lock.owner.file == file);
        table.waiting = kept;
        gone
    };
    for (_, waiting) in cancelled {
        complete_later(flight.machine(), &waiting, NtStatus::RANGE_NOT_LOCKED, 0);
    }
    hand_on(flight.machine(), open);
}

/// Cancels a request for a lock; true when it waited.
pub(super) fn cancel(machine: &Arc<Inner>, flight: &Arc<Flight>) -> bool {
    let Some(open) = flight.open() else { return false };
    let before = {
        let mut table = table(&open);
        let before = table.waiting.len();
        table.waiting.retain(|(_, waiting)| !Arc::ptr_eq(waiting, flight));
        before != table.waiting.len()
    };
    if before {
        complete_later(machine, flight, NtStatus::CANCELLED, 0);
    }
    before
}

/// A read or write against the locks of others.
///
/// # Errors
/// `FILE_LOCK_CONFLICT`.
pub(super) fn check(
    flight: &Arc<Flight>,
    open: &Arc<Open>,
    (start, length, key): (i64, u32, u32),
    write: bool,
) -> Result<(), NtStatus> {
    if is_paging(flight) || table(open).held.is_empty() {
        return Ok(());
    }
    if flight.kind() == Travel::FastIo && !is_fast_io_possible(flight, open, (start, length, key), !write) {
        return Err(NtStatus::FLT_DISALLOW_FAST_IO);
    }
    let owner = Owner { file: flight.target(), process: process_of(flight), key };
    if is_free(open, start, length, owner, write) { Ok(()) } else { Err(NtStatus::FILE_LOCK_CONFLICT) }
}

fn is_free(open: &Open, start: i64, length: u32, owner: Owner, write: bool) -> bool {
    let start = start.max(0).cast_unsigned();
    let end = start.saturating_add(u64::from(length));
    let range = Lock { start, end, exclusive: write, owner };
    let conflict = |held: &&Lock| {
        // A shared lock keeps even its owner from writing.
        held.overlaps(&range) && if held.exclusive { held.owner != owner } else { write }
    };
    !table(open).held.iter().any(|held| conflict(&held))
}

/// The object of the process that a flight runs for, as LockControl names owners.
pub(crate) fn process_of(flight: &Flight) -> usize {
    flight.process().map_or(0, |process| process.object())
}

/// What the cache manager asks the whole stack before fast I/O on a file with locks.
fn is_fast_io_possible(
    flight: &Arc<Flight>,
    open: &Arc<Open>,
    (start, length, key): (i64, u32, u32),
    is_read: bool,
) -> bool {
    let mut question = Operation::new(Travel::FastIo, major::FAST_IO_CHECK, flight.target(), flight.mode())
        .set(0, start)
        .set(8, length)
        .set(16, key)
        .set(24, u8::from(is_read));
    question.open = Some(Arc::clone(open));
    question.process = flight.process().cloned();
    flt::run(flight.machine(), &open.volume, None, &question).0.is_success()
}

/// IRP_MJ_FAST_IO_CHECK_IF_POSSIBLE.
pub(super) fn fast_io_check(flight: &Arc<Flight>, open: &Arc<Open>) -> Outcome {
    let block = flight.block();
    let parameters = field!(block, FLT_IO_PARAMETER_BLOCK, Parameters).cast::<u8>();
    let (start, length) = (parameters.field::<i64>(0).read(), parameters.field::<u32>(8).read());
    let (key, is_read) = (parameters.field::<u32>(16).read(), parameters.field::<u8>(24).read() != 0);
    let owner = Owner { file: flight.target(), process: process_of(flight), key };
    let free = is_free(open, start, length, owner, !is_read);
    (if free { NtStatus::SUCCESS } else { NtStatus::FLT_DISALLOW_FAST_IO }, 0)
}
