//! Byte ranges that are locked: the one engine below the file system's own locks and the FILE_LOCK structures of drivers.

use fltmgr::raw::{FLT_IO_PARAMETER_BLOCK, LockControl};
use nt_types::NtStatus;

use crate::flt::{Flight, operation};
use crate::nt::raw::{Raw, field};

const IRP_MN_LOCK: u8 = 1;
const IRP_MN_UNLOCK_SINGLE: u8 = 2;
const IRP_MN_UNLOCK_ALL: u8 = 3;
const IRP_MN_UNLOCK_ALL_BY_KEY: u8 = 4;

/// The locks of one stream, and who waits for one, in the order of asking. `W` stands for whoever waits.
#[derive(Debug)]
pub(crate) struct Ranges<W> {
    held: Vec<Range>,
    waiting: Vec<(Range, W)>,
}

/// One range. Two locks are the same when all members are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) start: u64,
    /// First byte behind it.
    pub(crate) end: u64,
    pub(crate) exclusive: bool,
    pub(crate) owner: Owner,
}

/// Locks belong to a file object, a process and a key together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// Address of the file object.
    pub(crate) file: usize,
    /// Address of the process object.
    pub(crate) process: usize,
    pub(crate) key: u32,
}

/// What an IRP_MJ_LOCK_CONTROL asks for, copied out of its parameters.
pub(crate) struct Asked {
    minor: u8,
    range: Result<Range, NtStatus>,
    owner: Owner,
    fail_immediately: bool,
}

impl Asked {
    /// Copies the parameters, while no lock of the host is held: the length lies where the issuer says.
    pub(crate) fn of(flight: &Flight) -> Self {
        let parameters: LockControl = operation::parameters(flight.block());
        let owner = Owner { file: flight.target(), process: parameters.ProcessId.addr(), key: parameters.Key };
        let minor = field!(flight.block(), FLT_IO_PARAMETER_BLOCK, MinorFunction).read();
        let range = match minor {
            IRP_MN_LOCK | IRP_MN_UNLOCK_SINGLE => range(&parameters, owner),
            _ => Err(NtStatus::INVALID_PARAMETER),
        };
        Self { minor, range, owner, fail_immediately: parameters.FailImmediately != 0 }
    }
}

/// What becomes of an IRP_MJ_LOCK_CONTROL.
pub(crate) enum Verdict {
    Done(NtStatus),
    /// The range is locked now.
    Granted(Range),
    /// The range is taken, and the request did not say to fail then.
    Wait(Range),
}

impl<W> Default for Ranges<W> {
    fn default() -> Self {
        Self { held: Vec::new(), waiting: Vec::new() }
    }
}

impl Range {
    fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }
}

impl<W> Ranges<W> {
    /// Whether nothing is locked.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Does what an IRP_MJ_LOCK_CONTROL asks for: its end, and the ranges that are unlocked by it.
    ///
    /// Failures are `LOCK_NOT_GRANTED`, `RANGE_NOT_LOCKED`, `INVALID_LOCK_RANGE`, `INVALID_PARAMETER` for a range without a
    /// length and `INVALID_DEVICE_REQUEST` for another minor function.
    pub(crate) fn control(&mut self, asked: Asked) -> (Verdict, Vec<Range>) {
        let Asked { minor, range, owner, fail_immediately } = asked;
        let mut unlocked = Vec::new();
        let done = match minor {
            IRP_MN_LOCK => match range {
                Ok(range) if self.take(&range) => return (Verdict::Granted(range), unlocked),
                Ok(_) if fail_immediately => Err(NtStatus::LOCK_NOT_GRANTED),
                Ok(range) => return (Verdict::Wait(range), unlocked),
                Err(status) => Err(status),
            },
            IRP_MN_UNLOCK_SINGLE => range.and_then(|range| {
                let same = |held: &Range| (held.start, held.end, held.owner) == (range.start, range.end, range.owner);
                let found = self.held.iter().position(same).ok_or(NtStatus::RANGE_NOT_LOCKED)?;
                unlocked.push(self.held.remove(found));
                Ok(())
            }),
            IRP_MN_UNLOCK_ALL => {
                let mine = |held: &Range| (held.owner.file, held.owner.process) == (owner.file, owner.process);
                unlocked = self.remove(mine);
                Ok(())
            }
            IRP_MN_UNLOCK_ALL_BY_KEY => {
                unlocked = self.remove(|held| held.owner == owner);
                Ok(())
            }
            _ => Err(NtStatus::INVALID_DEVICE_REQUEST),
        };
        (Verdict::Done(done.map_or_else(|status| status, |()| NtStatus::SUCCESS)), unlocked)
    }

    /// Locks a range unless others have it.
    fn take(&mut self, range: &Range) -> bool {
        let free = !self.conflicts(range);
        if free {
            self.held.push(range.clone());
        }
        free
    }

    fn conflicts(&self, wanted: &Range) -> bool {
        self.held.iter().any(|held| held.overlaps(wanted) && (held.exclusive || wanted.exclusive))
    }

    /// Lets somebody wait for a range.
    pub(crate) fn wait(&mut self, range: Range, waiter: W) {
        self.waiting.push((range, waiter));
    }

    /// Unlocks what `gone` says.
    pub(crate) fn remove(&mut self, gone: impl Fn(&Range) -> bool) -> Vec<Range> {
        self.held.extract_if(.., |held| gone(held)).collect()
    }

    /// Takes back a lock that was granted just now.
    pub(crate) fn withdraw(&mut self, range: &Range) {
        if let Some(found) = self.held.iter().rposition(|held| held == range) {
            self.held.remove(found);
        }
    }

    /// Grants what can be granted now; the requests that waited for it, with their ranges.
    pub(crate) fn grant(&mut self) -> Vec<(Range, W)> {
        let mut granted = Vec::new();
        let mut index = 0;
        while let Some((range, _)) = self.waiting.get(index) {
            if self.conflicts(range) {
                index += 1;
            } else {
                let (range, waiter) = self.waiting.remove(index);
                self.held.push(range.clone());
                granted.push((range, waiter));
            }
        }
        granted
    }

    /// Those who wait and whom `gone` names do not wait any more.
    pub(crate) fn give_up(&mut self, gone: impl Fn(&Range, &W) -> bool) -> Vec<W> {
        self.waiting.extract_if(.., |(range, waiter)| gone(range, waiter)).map(|(_, waiter)| waiter).collect()
    }

    /// Whether `owner` may read or write a range.
    pub(crate) fn is_free(&self, start: i64, length: u32, owner: Owner, write: bool) -> bool {
        let start = start.max(0).cast_unsigned();
        let end = start.saturating_add(u64::from(length));
        let range = Range { start, end, exclusive: write, owner };
        // A shared lock keeps even its owner from writing.
        let conflict = |held: &Range| held.overlaps(&range) && if held.exclusive { held.owner != owner } else { write };
        !self.held.iter().any(conflict)
    }
}

fn range(parameters: &LockControl, owner: Owner) -> Result<Range, NtStatus> {
    let length = Raw::of(parameters.Length).some().ok_or(NtStatus::INVALID_PARAMETER)?.read();
    let start = parameters.ByteOffset.cast_unsigned();
    let end = start.checked_add(length.cast_unsigned()).ok_or(NtStatus::INVALID_LOCK_RANGE)?;
    Ok(Range { start, end, exclusive: parameters.ExclusiveLock != 0, owner })
}
