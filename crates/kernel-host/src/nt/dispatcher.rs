//! Waiting: how a thread sleeps until something in driver memory changes.
//!
//! The state of an event or a semaphore lives in the driver's own structure, where the driver (and a debugger) can look at
//! it. It is changed with atomic instructions. A thread that waits looks at the state, and sleeps until *any* state of
//! the machine changed: simple, and with the few threads of a test cheap. No lock is held while driver memory is touched,
//! because a bad pointer faults there and the thread never comes back.

use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nt_types::DISPATCHER_HEADER;

use super::raw::{Raw, field};
use crate::ddi::Call;
use crate::finding::Rule;
use crate::machine::Machine;

/// How long a wait sleeps at most before it looks whether the machine has stopped.
const NAP: Duration = Duration::from_millis(20);

/// Waits without time-out that last longer count as deadlocks, unless the machine says otherwise.
const DEADLOCK_AFTER: Duration = Duration::from_mins(1);

/// Wakes waiters of one machine.
#[derive(Debug)]
pub(crate) struct Dispatcher {
    changes: Mutex<Changes>,
    changed: Condvar,
    deadlock_after_ms: AtomicU64,
}

#[derive(Debug, Default)]
struct Changes {
    count: u64,
    /// Threads that sleep: waking nobody costs a system call too.
    sleeping: usize,
}

impl Default for Dispatcher {
    fn default() -> Self {
        Self {
            changes: Mutex::default(),
            changed: Condvar::new(),
            deadlock_after_ms: AtomicU64::new(DEADLOCK_AFTER.as_millis() as u64),
        }
    }
}

impl Machine {
    /// Sets after which time a driver's wait without time-out, or a request that it has pended, is reported as a deadlock; a
    /// minute at first.
    pub fn set_deadlock_time(&self, time: Duration) {
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.inner().nt.dispatcher().deadlock_after_ms.store(milliseconds, Ordering::Relaxed);
    }
}

impl Dispatcher {
    /// Tells waiters to look again: some state has changed.
    pub(crate) fn wake(&self) {
        let mut changes = self.lock();
        changes.count += 1;
        if changes.sleeping != 0 {
            self.changed.notify_all();
        }
    }

    /// Calls `satisfied` until it is true or `deadline` has passed; whether it became true.
    ///
    /// Without a deadline, stops with [`Rule::Deadlock`] when it takes too long. Does not return when the machine stops.
    pub(crate) fn wait(&self, call: &Call, deadline: Option<Instant>, mut satisfied: impl FnMut() -> bool) -> bool {
        let started = Instant::now();
        loop {
            let seen = self.lock().count;
            if satisfied() {
                return true;
            }
            let now = Instant::now();
            let nap = match deadline {
                Some(deadline) if deadline <= now => return false,
                Some(deadline) => NAP.min(deadline - now),
                None => NAP,
            };
            if deadline.is_none() && now - started > self.deadlock_after() {
                call.stop(
                    Rule::Deadlock,
                    format!("the wait has no time-out and lasts for {:?} already", now - started),
                );
            }
            let mut changes = self.lock();
            if changes.count == seen {
                changes.sleeping += 1;
                (changes, _) = self.changed.wait_timeout(changes, nap).unwrap_or_else(PoisonError::into_inner);
                changes.sleeping -= 1;
            }
            drop(changes);
            call.thread().leave_if_stopped();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Changes> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a wait without time-out may take.
    pub(crate) fn deadlock_after(&self) -> Duration {
        Duration::from_millis(self.deadlock_after_ms.load(Ordering::Relaxed))
    }
}

/// The kinds of dispatcher objects, by `DISPATCHER_HEADER::Type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    NotificationEvent = 0,
    SynchronizationEvent = 1,
    Mutant = 2,
    Process = 3,
    Queue = 4,
    Semaphore = 5,
    Thread = 6,
    NotificationTimer = 8,
    SynchronizationTimer = 9,
}

impl Kind {
    /// The kind of the object at `object`; stops when there is none.
    pub(crate) fn of(call: &Call, object: Raw<DISPATCHER_HEADER>) -> Self {
        if object.is_null() {
            call.stop(Rule::BadArgument, "a wait for NULL");
        }
        let number = field!(object, DISPATCHER_HEADER, Type).read();
        let kinds = [
            Self::NotificationEvent,
            Self::SynchronizationEvent,
            Self::Mutant,
            Self::Process,
            Self::Queue,
            Self::Semaphore,
            Self::Thread,
            Self::NotificationTimer,
            Self::SynchronizationTimer,
        ];
        kinds.into_iter().find(|kind| *kind as u8 == number).unwrap_or_else(|| {
            call.stop(Rule::BadArgument, format!("{object:?} is nothing to wait for (type {number})"))
        })
    }
}

/// Fills the header of a dispatcher object.
pub(crate) fn initialise(object: Raw<DISPATCHER_HEADER>, kind: Kind, length: usize, state: i32) {
    let list = field!(object, DISPATCHER_HEADER, WaitListHead);
    let mut header = DISPATCHER_HEADER::ZERO;
    header.Type = kind as u8;
    header.Size = (length / 4) as u8;
    header.SignalState = state;
    header.WaitListHead.Flink = list.pointer();
    header.WaitListHead.Blink = list.pointer();
    object.write(header);
}

/// `SignalState` of an object as an atomic.
///
/// The lifetime is as long as the driver keeps the object where it said it is.
pub(crate) fn state<'a>(object: Raw<DISPATCHER_HEADER>) -> &'a AtomicI32 {
    let state = field!(object, DISPATCHER_HEADER, SignalState);
    // SAFETY: the driver's object, see `Raw`; the structure aligns the field, and all host code uses atomics on it.
    unsafe { AtomicI32::from_ptr(state.pointer()) }
}

/// A pointer-sized word in driver memory as an atomic: spin locks, push locks, rundown references.
pub(crate) fn word<'a>(word: Raw<usize>) -> &'a AtomicUsize {
    // SAFETY: the driver's lock word, see `Raw`; the structure it is in aligns it, and all host code uses atomics on it.
    unsafe { AtomicUsize::from_ptr(word.pointer()) }
}
