//! One staging request under way: its progress, its cancellation, and its result.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::{Image, Phase};
use crate::{Completion, Error, IrqlLock, Platform, Shared, Time};

/// A request to stage an image, from its start to its result.
///
/// Made by the driver and shared with whoever wants to watch ([`progress`](Self::progress)) or stop it
/// ([`cancel`](Self::cancel)). A job serves one call of [`Images::stage`](super::Images::stage).
pub struct Job<P: Platform> {
    /// [`Phase`] in the upper 8 bits, bytes done below: one number, so that the two never contradict each other.
    progress: AtomicU64,
    total: AtomicU64,
    cancelled: AtomicBool,
    deadline: Time,
    completion: P::Completion,
    outcome: IrqlLock<Option<Outcome<P>>, P::Irql>,
}

/// What comes of a job.
pub(super) type Outcome<P> = Result<Shared<Image<P>>, Failure>;

/// Why a job failed, and how far it had come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// What the job was doing.
    pub phase: Phase,
    /// What went wrong.
    pub error: Error,
}

/// How far a job has come. Of two observations the later is never behind the earlier, in phase or in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What the job is doing.
    pub phase: Phase,
    /// Bytes read and hashed.
    pub done: u64,
    /// Bytes there are; zero while the file has not been looked at.
    pub total: u64,
}

const PHASE_SHIFT: u32 = 56;
const DONE_MASK: u64 = (1 << PHASE_SHIFT) - 1;

impl<P: Platform> Job<P> {
    /// A job that gives up at `deadline`. `completion` is not signalled yet.
    ///
    /// [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`).
    pub fn try_new(deadline: Time, completion: P::Completion) -> Result<Shared<Self>, Error> {
        Shared::try_new(Self {
            progress: AtomicU64::new((Phase::Opening as u64) << PHASE_SHIFT),
            total: AtomicU64::new(0),
            cancelled: AtomicBool::new(false),
            deadline,
            completion,
            outcome: IrqlLock::new(None),
        })
    }

    /// Asks the job to stop; it does at its next chunk or wait, with [`Error::Cancelled`]. Callable at any IRQL.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// How far it has come. Callable at any IRQL.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let word = self.progress.load(Ordering::Acquire);
        let phase = Phase::from_code((word >> PHASE_SHIFT) as u32).unwrap_or(Phase::Failed);
        Progress { phase, done: word & DONE_MASK, total: self.total.load(Ordering::Relaxed) }
    }

    /// When the job gives up.
    #[must_use]
    pub const fn deadline(&self) -> Time {
        self.deadline
    }

    /// Whether the job may go on: [`Error::Cancelled`] or [`Error::TimedOut`] where not.
    pub fn check(&self) -> Result<(), Error> {
        if self.cancelled.load(Ordering::Relaxed) {
            Err(Error::Cancelled)
        } else if P::now() >= self.deadline {
            Err(Error::TimedOut)
        } else {
            Ok(())
        }
    }

    /// Says how many bytes there will be.
    pub(super) fn set_total(&self, total: u64) {
        self.total.fetch_max(total, Ordering::Relaxed);
    }

    /// Reports progress; what is behind the present state changes nothing.
    pub(super) fn advance(&self, phase: Phase, done: u64) {
        // A later phase has done at least as much as an earlier one, and `max` over the whole word keeps it so.
        let done = done.max(self.progress().done).min(DONE_MASK);
        self.progress.fetch_max(((phase as u64) << PHASE_SHIFT) | done, Ordering::AcqRel);
    }

    /// Takes over the progress of the job that this one waits for.
    pub(super) fn follow(&self, leader: &Self) {
        let Progress { phase, done, total } = leader.progress();
        self.set_total(total);
        // A leader that fails need not fail those who wait for it; what becomes of them they say themselves.
        if !matches!(phase, Phase::Ready | Phase::Failed) {
            self.advance(phase, done);
        }
    }

    /// What went wrong, and when; the job's last word, so the job shows it too.
    pub(super) fn failure(&self, error: Error) -> Failure {
        let Progress { phase, done, .. } = self.progress();
        self.advance(Phase::Failed, done);
        Failure { phase, error }
    }

    /// Stores the result and wakes everybody who waits.
    pub(super) fn finish(&self, outcome: Outcome<P>) {
        // There is nothing to drop under the lock: a job finishes once.
        *self.outcome.lock() = Some(outcome);
        self.completion.signal();
    }

    /// Waits for the result of `leader` within this job's own deadline and cancellation.
    pub(super) fn wait_for(&self, leader: &Self) -> Result<Outcome<P>, Error> {
        loop {
            self.check()?;
            self.follow(leader);
            if let Some(outcome) = leader.outcome.lock().clone() {
                return Ok(outcome);
            }
            // In slices: our own cancellation has no event, and our watchers want to see progress.
            let slice = P::now().after_milliseconds(WAIT_SLICE_MS);
            leader.completion.wait(slice.min(self.deadline));
        }
    }
}

const WAIT_SLICE_MS: u64 = 20;
