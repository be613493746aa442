//! IRP_MJ_LOCK_CONTROL: byte-range locks, as the FsRtl package that NTFS uses grants them.

use std::sync::{Arc, MutexGuard, PoisonError};

use fltmgr::raw::FLT_IO_PARAMETER_BLOCK;
use nt_types::NtStatus;

use super::io::Outcome;
use super::open::Open;
use super::ranges::{Asked, Owner, Ranges, Verdict};
use super::serve::{Served, is_paging};
use super::stream::Kind;
use crate::flt::{self, Flight, Kind as Travel, Operation, complete_later, major};
use crate::machine::Inner;
use crate::nt::raw::field;

/// The locks of one stream.
pub(crate) type LockTable = Ranges<Arc<Flight>>;

fn table(open: &Open) -> MutexGuard<'_, LockTable> {
    open.stream.locks.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn serve(flight: &Arc<Flight>, open: &Arc<Open>) -> Served {
    if open.stream.kind != Kind::File {
        return (NtStatus::INVALID_PARAMETER, 0).into();
    }
    let asked = Asked::of(flight);
    let (verdict, unlocked) = table(open).control(asked);
    if !unlocked.is_empty() {
        hand_on(flight.machine(), open);
    }
    match verdict {
        Verdict::Done(status) => (status, 0).into(),
        Verdict::Granted(_) => (NtStatus::SUCCESS, 0).into(),
        // Only a packet can wait.
        Verdict::Wait(_) if flight.kind() == Travel::FastIo => (NtStatus::FLT_DISALLOW_FAST_IO, 0).into(),
        Verdict::Wait(range) => {
            // Asked again, since whoever had it may have let go meanwhile.
            let mut table = table(open);
            table.wait(range, Arc::clone(flight));
            drop(table);
            hand_on(flight.machine(), open);
            Served::Pending
        }
    }
}

/// Somebody let go: whoever waited for that has the lock now.
fn hand_on(machine: &Arc<Inner>, open: &Open) {
    let granted = table(open).grant();
    for (_, flight) in granted {
        complete_later(machine, &flight, NtStatus::SUCCESS, 0);
    }
}

/// The file object's last handle is closed: its locks go.
pub(super) fn clean_up(flight: &Flight, open: &Arc<Open>) {
    let file = flight.target();
    let cancelled = {
        let mut table = table(open);
        table.remove(|range| range.owner.file == file);
        table.give_up(|range, _| range.owner.file == file)
    };
    for waiting in cancelled {
        complete_later(flight.machine(), &waiting, NtStatus::RANGE_NOT_LOCKED, 0);
    }
    hand_on(flight.machine(), open);
}

/// Cancels a request for a lock; true when it waited.
pub(super) fn cancel(machine: &Arc<Inner>, flight: &Arc<Flight>) -> bool {
    let Some(open) = flight.open() else { return false };
    let found = !table(&open).give_up(|_, waiting| Arc::ptr_eq(waiting, flight)).is_empty();
    if found {
        complete_later(machine, flight, NtStatus::CANCELLED, 0);
    }
    found
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
    if is_paging(flight) || table(open).is_empty() {
        return Ok(());
    }
    if flight.kind() == Travel::FastIo && !is_fast_io_possible(flight, open, (start, length, key), !write) {
        return Err(NtStatus::FLT_DISALLOW_FAST_IO);
    }
    let owner = Owner { file: flight.target(), process: process_of(flight), key };
    if table(open).is_free(start, length, owner, write) { Ok(()) } else { Err(NtStatus::FILE_LOCK_CONFLICT) }
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
    let free = table(open).is_free(start, length, owner, !is_read);
    (if free { NtStatus::SUCCESS } else { NtStatus::FLT_DISALLOW_FAST_IO }, 0)
}
