//! The oplocks of one stream: who holds one, whose break is not acknowledged yet, and who waits for that.

use std::sync::Arc;

use nt_types::NtStatus;

use super::rules::{self, Acknowledgment, Beside, Grant, Trigger};
use crate::flt::flight::Flight;

/// An oplock that was granted. Its request is pending until the oplock is broken.
struct Held {
    grant: Grant,
    /// Address of the file object that it was requested on.
    file: usize,
    request: Arc<Flight>,
}

/// A break that the owner has to acknowledge.
struct Breaking {
    /// What the oplock was.
    from: Grant,
    /// What is left of it, if the owner accepts that.
    to: Option<Grant>,
    file: usize,
    /// Operations wait for the acknowledgment.
    holds_up: bool,
}

/// An operation that goes on when no break holds it up any more.
pub(super) struct Waiting<T> {
    pub(super) flight: Arc<Flight>,
    pub(super) then: T,
}

/// What a cancellation has ended.
pub(super) enum Cancelled<T> {
    /// The wait of an operation for the end of a break.
    Wait(Waiting<T>),
    /// The oplock that the request had got.
    Oplock,
}

/// How the request of an oplock ends.
pub(super) struct Ended {
    pub(super) request: Arc<Flight>,
    pub(super) status: NtStatus,
    /// What the oplock was, and what is left of it.
    pub(super) from: Grant,
    pub(super) to: Option<Grant>,
    pub(super) acknowledge: bool,
}

/// The oplocks of one stream. `T` says what is to be done with operations that wait.
pub(super) struct State<T> {
    held: Vec<Held>,
    breaking: Vec<Breaking>,
    waiting: Vec<Waiting<T>>,
}

impl<T> Default for State<T> {
    fn default() -> Self {
        Self { held: Vec::new(), breaking: Vec::new(), waiting: Vec::new() }
    }
}

/// Who acknowledges a break, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acknowledging {
    /// FSCTL_OPLOCK_BREAK_ACKNOWLEDGE: what is left is welcome.
    Accept,
    /// FSCTL_OPLOCK_BREAK_ACK_NO_2.
    Relinquish,
    /// FSCTL_OPBATCH_ACK_CLOSE_PENDING: the handle will be closed.
    ClosePending,
    /// FSCTL_REQUEST_OPLOCK with REQUEST_OPLOCK_INPUT_FLAG_ACK, for this level or none.
    Keep(Option<Grant>),
}

impl<T> State<T> {
    /// Whether there is an oplock that `which` describes, or a break of one that goes on.
    pub(super) fn any(&self, which: impl Fn(Grant) -> bool) -> bool {
        self.held.iter().any(|held| which(held.grant)) || self.breaking.iter().any(|breaking| which(breaking.from))
    }

    /// Whether a break goes on.
    pub(super) fn is_breaking(&self) -> bool {
        !self.breaking.is_empty()
    }

    /// Whether operations have to wait.
    pub(super) fn holds_up(&self) -> bool {
        self.breaking.iter().any(|breaking| breaking.holds_up)
    }

    /// Grants an oplock; the requests of others that end by it. `same` compares the owners of two file objects.
    ///
    /// # Errors
    /// `OPLOCK_NOT_GRANTED`.
    pub(super) fn grant(
        &mut self,
        grant: Grant,
        request: &Arc<Flight>,
        same: impl Fn(usize, usize) -> bool,
    ) -> Result<Vec<Ended>, NtStatus> {
        if self.is_breaking() {
            return Err(NtStatus::OPLOCK_NOT_GRANTED);
        }
        let file = request.target();
        let outcomes: Result<Vec<_>, _> =
            self.held.iter().map(|held| rules::beside(grant, held.grant, same(held.file, file))).collect();
        let mut outcomes = outcomes?.into_iter();
        let gone = self.held.extract_if(.., |_| outcomes.next() != Some(Beside::Stays));
        let ended = gone
            .map(|held| {
                let broken = held.grant == Grant::Level2;
                let status = if broken { NtStatus::SUCCESS } else { NtStatus::OPLOCK_SWITCHED_TO_NEW_HANDLE };
                Ended { request: held.request, status, from: held.grant, to: None, acknowledge: false }
            })
            .collect();
        self.held.push(Held { grant, file, request: Arc::clone(request) });
        Ok(ended)
    }

    /// An operation comes: the requests that end by it, and whether the operation has to wait.
    pub(super) fn check(
        &mut self,
        trigger: Trigger,
        file: usize,
        same: impl Fn(usize, usize) -> bool,
    ) -> (Vec<Ended>, bool) {
        // A break that began earlier holds up whoever would have begun it.
        let waits = |breaking: &Breaking| {
            breaking.holds_up && rules::broken_by(trigger, breaking.from, same(breaking.file, file)).is_some()
        };
        let mut must_wait = self.breaking.iter().any(waits);
        let mut ended = Vec::new();
        let (kept, broken): (Vec<_>, Vec<_>) = std::mem::take(&mut self.held)
            .into_iter()
            .map(|held| (rules::broken_by(trigger, held.grant, same(held.file, file)), held))
            .partition(|(broken, _)| broken.is_none());
        self.held = kept.into_iter().map(|(_, held)| held).collect();
        for (broken, held) in broken {
            let (to, acknowledgment) = broken.unwrap_or((None, Acknowledgment::None));
            let acknowledge = acknowledgment != Acknowledgment::None;
            if acknowledge {
                let holds_up = acknowledgment == Acknowledgment::First;
                must_wait |= holds_up;
                self.breaking.push(Breaking { from: held.grant, to, file: held.file, holds_up });
            }
            let (request, from, status) = (held.request, held.grant, NtStatus::SUCCESS);
            ended.push(Ended { request, status, from, to, acknowledge });
        }
        (ended, must_wait)
    }

    /// Lets an operation wait until no break holds it up.
    pub(super) fn wait(&mut self, flight: &Arc<Flight>, then: T) {
        self.waiting.push(Waiting { flight: Arc::clone(flight), then });
    }

    /// The owner acknowledges a break. `Ok(Some)`: its acknowledgment is the request for what is left, and stays pending.
    ///
    /// # Errors
    /// `INVALID_OPLOCK_PROTOCOL` when nothing is to be acknowledged on this handle, or more is wanted than is left.
    pub(super) fn acknowledge(&mut self, how: Acknowledging, request: &Arc<Flight>) -> Result<Option<Grant>, NtStatus> {
        let file = request.target();
        let protocol = NtStatus::INVALID_OPLOCK_PROTOCOL;
        let index = self.breaking.iter().position(|breaking| breaking.file == file).ok_or(protocol)?;
        let breaking = self.breaking.get(index).ok_or(protocol)?;
        let kept = match how {
            Acknowledging::Accept => breaking.to,
            Acknowledging::ClosePending if breaking.from.is_batch_or_filter() => return Ok(None),
            Acknowledging::Relinquish | Acknowledging::ClosePending | Acknowledging::Keep(None) => None,
            Acknowledging::Keep(Some(wanted)) => {
                let left = breaking.to.map_or_else(rules::Caching::empty, Grant::caching);
                if !left.contains(wanted.caching()) {
                    return Err(protocol);
                }
                Some(wanted)
            }
        };
        self.breaking.remove(index);
        if let Some(grant) = kept {
            self.held.push(Held { grant, file, request: Arc::clone(request) });
        }
        Ok(kept)
    }

    /// Operations that can go on now.
    pub(super) fn released(&mut self) -> Vec<Waiting<T>> {
        if self.holds_up() { Vec::new() } else { std::mem::take(&mut self.waiting) }
    }

    /// The handle is closed: its oplocks and breaks are over.
    pub(super) fn close(&mut self, file: usize) -> Vec<Ended> {
        self.breaking.retain(|breaking| breaking.file != file);
        self.end(|held| held.file == file)
    }

    /// All is over.
    pub(super) fn clear(&mut self) -> Vec<Ended> {
        self.breaking.clear();
        self.end(|_| true)
    }

    fn end(&mut self, gone: impl Fn(&Held) -> bool) -> Vec<Ended> {
        let ended = |held: Held| Ended {
            request: held.request,
            status: NtStatus::SUCCESS,
            from: held.grant,
            to: None,
            acknowledge: false,
        };
        self.held.extract_if(.., |held| gone(held)).map(ended).collect()
    }

    /// Somebody cancels an operation: what has waited, or the request of an oplock, which is over with that.
    pub(super) fn cancel(&mut self, flight: &Arc<Flight>) -> Option<Cancelled<T>> {
        if let Some(index) = self.waiting.iter().position(|waiting| Arc::ptr_eq(&waiting.flight, flight)) {
            return Some(Cancelled::Wait(self.waiting.remove(index)));
        }
        let index = self.held.iter().position(|held| Arc::ptr_eq(&held.request, flight))?;
        self.held.remove(index);
        Some(Cancelled::Oplock)
    }
}
