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

use super::filter::Module;
use super::port::Port;
use super::protocol::Binding;
use super::scratch::Scratch;
use crate::finding::Stopped;
use crate::machine::Inner;

pub(super) mod answer;
mod cancel;
mod cloned;
mod complete;
mod program;
mod request;
mod synchronous;
mod transfer;

pub(super) use transfer::Transfer;

pub(super) use cancel::EXPORTS as CANCEL_EXPORTS;
pub(super) use cancel::cancel_all;
pub(super) use cloned::{Clone as ClonedRequest, EXPORTS as CLONE_EXPORTS};
pub(super) use complete::EXPORTS as COMPLETE_EXPORTS;
pub(super) use complete::complete;
pub(super) use request::EXPORTS as REQUEST_EXPORTS;
pub(super) use request::{Source, submit};
pub(super) use synchronous::EXPORTS as SYNCHRONOUS_EXPORTS;

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
    /// The binding that asked.
    pub(super) binding: Option<Arc<Binding>>,
    /// The filter module that asked; the machine did, when neither is there.
    pub(super) filter: Option<Arc<Module>>,
    /// The filter module that is asked; the miniport, without one.
    pub(super) server: Option<Arc<Module>>,
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
            filter: None,
            server: None,
            is_direct: false,
            copies: Vec::new(),
            progress: Mutex::new(Progress::Waiting),
            changed: Condvar::new(),
        }
    }

    /// Whether its structure lies at `address`, as its requester or as who is asked sees it.
    fn is_at(&self, address: usize) -> bool {
        self.address == address || self.original == address
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
        match (&self.binding, &self.filter) {
            (Some(binding), _) => write!(f, " of protocol {}", binding.protocol.name),
            (_, Some(module)) => write!(f, " of filter {}", module.filter.name),
            _ => Ok(()),
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
    fn at(&self, address: usize) -> Option<Arc<Request>> {
        let state = self.lock();
        state.all().find(|request| request.is_at(address)).cloned()
    }

    /// Those that are not complete.
    fn all(&self) -> Vec<Arc<Request>> {
        self.lock().all().cloned().collect()
    }

    /// The request that the miniport works on.
    pub(super) fn at_work(&self) -> Option<Arc<Request>> {
        self.lock().queue.front().filter(|request| request.progress() == Progress::Working).cloned()
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

impl Port {
    /// All requests of the stack that are not complete.
    pub(super) fn all_requests(&self) -> Vec<Arc<Request>> {
        let mut all = self.requests.all();
        all.extend(self.all_modules().iter().flat_map(|module| module.requests.all()));
        all
    }

    /// Those of a binding.
    pub(super) fn requests_of(&self, binding: &Binding) -> Vec<Arc<Request>> {
        let is_its = |request: &Arc<Request>| {
            request.binding.as_ref().is_some_and(|other| std::ptr::eq(Arc::as_ptr(other), binding))
        };
        self.all_requests().into_iter().filter(is_its).collect()
    }

    /// Those of a filter module.
    pub(super) fn requests_by(&self, module: &Module) -> Vec<Arc<Request>> {
        let is_its =
            |request: &Arc<Request>| request.filter.as_ref().is_some_and(|other| other.handle == module.handle);
        self.all_requests().into_iter().filter(is_its).collect()
    }

    /// A request whose structure or buffer lies in a range of memory that is about to be freed.
    pub(super) fn active_in(&self, start: usize, length: usize) -> Option<String> {
        let inside = |address: usize| address.wrapping_sub(start) < length;
        let all = self.all_requests();
        let found = all.iter().find(|request| inside(request.original) || inside(request.transfer.buffer));
        found.map(|request| format!("{request} in it is not complete"))
    }

    /// Where a request waits for its turn.
    pub(super) fn queue_of<'a>(&'a self, request: &'a Request) -> &'a Requests {
        request.server.as_ref().map_or(&self.requests, |module| &module.requests)
    }
}
