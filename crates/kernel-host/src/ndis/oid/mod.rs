//! OID requests: who waits for which answer.
//!
//! A miniport gets one request at a time, whoever asks: the machine ([`program`]) or protocols ([`request`]), first come,
//! first served. Direct requests pass by that queue. Some questions never reach a miniport, because NDIS knows the answer ([`answer`]).
//!
//! A request lives in its requester's memory, which belongs to NDIS until the request is complete. So everything that is needed
//! after the completion is kept here, and nothing of the requester's is touched then.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ndis::NdisStatus;

use super::protocol::Binding;
use super::scratch::Scratch;
use crate::finding::Stopped;
use crate::machine::Inner;

pub(super) mod answer;
mod cancel;
mod complete;
mod program;
mod request;
mod transfer;

pub(super) use transfer::Transfer;

pub(super) use cancel::EXPORTS as CANCEL_EXPORTS;
pub(super) use complete::EXPORTS as COMPLETE_EXPORTS;
pub(super) use request::EXPORTS as REQUEST_EXPORTS;

/// How long a wait sleeps before it looks whether the machine has stopped.
const NAP: Duration = Duration::from_millis(20);

/// A request under way.
#[derive(Debug)]
pub(super) struct Request {
    /// The structure that the miniport sees.
    pub(super) address: usize,
    /// The structure that the requester passed; the same, unless NDIS had to change the question.
    pub(super) original: usize,
    pub(super) transfer: Transfer,
    /// `RequestId`.
    pub(super) id: usize,
    /// `Timeout` in seconds; 0 for none.
    pub(super) timeout: u32,
    /// Who asked; `None` for the machine.
    pub(super) binding: Option<Arc<Binding>>,
    pub(super) is_direct: bool,
    /// NDIS's own copy of the question, where it had to change it.
    pub(super) copies: Vec<Scratch>,
    progress: Mutex<Progress>,
    changed: Condvar,
}

/// How far a request is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// In the queue.
    Waiting,
    /// The miniport has it.
    Working,
    /// The miniport is done with it, and NDIS looks at the answer: the structure is still there.
    Ending,
    /// Completed.
    Done(NdisStatus),
    /// Cancelled before the miniport had it.
    Withdrawn,
}

impl Request {
    pub(super) fn new(address: usize, transfer: Transfer, binding: Option<Arc<Binding>>) -> Self {
        Self {
            address,
            original: address,
            transfer,
            id: 0,
            timeout: 0,
            binding,
            is_direct: false,
            copies: Vec::new(),
            progress: Mutex::new(Progress::Waiting),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn progress(&self) -> Progress {
        *self.lock()
    }

    /// Moves on from `from`; false when the request is further already.
    pub(super) fn advance(&self, from: Progress, to: Progress) -> bool {
        let mut progress = self.lock();
        let is_from = *progress == from;
        if is_from {
            *progress = to;
            self.changed.notify_all();
        }
        is_from
    }

    /// Waits for the completion.
    ///
    /// # Errors
    /// The machine has stopped.
    fn outcome(&self, machine: &Inner, time: Duration) -> Result<Option<NdisStatus>, Stopped> {
        let deadline = Instant::now() + time;
        let mut progress = self.lock();
        loop {
            if let Progress::Done(status) = *progress {
                return Ok(Some(status));
            }
            if let Some(stopped) = machine.stopped() {
                return Err(stopped);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            progress = self.changed.wait_timeout(progress, NAP.min(left)).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.transfer)?;
        match &self.binding {
            Some(binding) => write!(f, " of protocol {}", binding.protocol.name),
            None => Ok(()),
        }
    }
}

/// All requests of an adapter.
#[derive(Debug, Default)]
pub(super) struct Requests {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// The first is the miniport's.
    queue: VecDeque<Arc<Request>>,
    direct: Vec<Arc<Request>>,
}

impl State {
    fn all(&self) -> impl Iterator<Item = &Arc<Request>> {
        self.queue.iter().chain(&self.direct)
    }
}

impl Requests {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues a request; whether it is its turn at once.
    pub(super) fn add(&self, request: &Arc<Request>) -> bool {
        let mut state = self.lock();
        if request.is_direct {
            state.direct.push(Arc::clone(request));
            return true;
        }
        state.queue.push_back(Arc::clone(request));
        state.queue.len() == 1
    }

    /// Waits until it is the request's turn; false when it was withdrawn before.
    ///
    /// # Errors
    /// The machine has stopped.
    pub(super) fn wait_turn(&self, machine: &Inner, request: &Arc<Request>) -> Result<bool, Stopped> {
        let mut state = self.lock();
        loop {
            if request.progress() == Progress::Withdrawn {
                return Ok(false);
            }
            if state.queue.front().is_some_and(|first| Arc::ptr_eq(first, request)) {
                return Ok(true);
            }
            if let Some(stopped) = machine.stopped() {
                return Err(stopped);
            }
            state = self.changed.wait_timeout(state, NAP).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes a request out that is complete or withdrawn.
    pub(super) fn remove(&self, request: &Arc<Request>) {
        let mut state = self.lock();
        state.queue.retain(|other| !Arc::ptr_eq(other, request));
        state.direct.retain(|other| !Arc::ptr_eq(other, request));
        drop(state);
        self.changed.notify_all();
    }

    /// The request whose structure lies at `address`, as its requester or as the miniport sees it.
    pub(super) fn at(&self, address: usize) -> Option<Arc<Request>> {
        let state = self.lock();
        state.all().find(|request| request.address == address || request.original == address).cloned()
    }

    /// Requests of a binding that are not complete.
    pub(super) fn of(&self, binding: &Binding) -> Vec<Arc<Request>> {
        let is_its = |request: &&Arc<Request>| {
            request.binding.as_ref().is_some_and(|other| std::ptr::eq(Arc::as_ptr(other), binding))
        };
        self.lock().all().filter(is_its).cloned().collect()
    }

    /// The request that the miniport works on.
    pub(super) fn at_work(&self) -> Option<Arc<Request>> {
        self.lock().queue.front().filter(|request| request.progress() == Progress::Working).cloned()
    }

    /// How many are under way.
    pub(super) fn count(&self) -> usize {
        self.lock().all().count()
    }

    /// A request whose structure or buffer lies in a range of memory that is about to be freed.
    pub(super) fn active_in(&self, start: usize, length: usize) -> Option<String> {
        let inside = |address: usize| address.wrapping_sub(start) < length;
        let state = self.lock();
        let found = state.all().find(|request| inside(request.original) || inside(request.transfer.buffer));
        found.map(|request| format!("{request} in it is not complete"))
    }

    /// Waits until nothing is under way; what still is when the time is over.
    pub(super) fn drain(&self, machine: &Inner, time: Duration) -> Option<String> {
        let deadline = Instant::now() + time;
        let mut state = self.lock();
        loop {
            let first = state.all().next()?;
            if machine.stopped().is_some() || deadline <= Instant::now() {
                return Some(first.to_string());
            }
            state = self.changed.wait_timeout(state, NAP).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}
