//! Who holds which lock, and in which order locks are taken: potential deadlocks, found in runs in which none happens.
//!
//! As Driver Verifier's deadlock detection. Each time a thread that holds A waits for B, the edge from A to B is remembered
//! for as long as both locks live. An edge that would close a cycle means that some timing of the same code hangs.
//! Attempts that do not wait add no edge. A cycle in which all locks are only ever taken shared is none.
//!
//! Locks on stacks are held like others, but take no part in the order: another frame's lock has the same address next.

use std::collections::{HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ddi::Call;
use crate::finding::Rule;
use crate::thread::Thread;

/// The kinds of locks that are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    SpinLock,
    FastMutex,
    GuardedMutex,
    PushLock,
    Resource,
    /// A `KMUTEX`: may be kept when a callback returns.
    Mutex,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::SpinLock => "spin lock",
            Self::FastMutex => "fast mutex",
            Self::GuardedMutex => "guarded mutex",
            Self::PushLock => "push lock",
            Self::Resource => "ERESOURCE",
            Self::Mutex => "mutex",
        }
    }
}

/// One lock as one thread takes it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hold {
    pub(crate) lock: usize,
    pub(crate) kind: Kind,
    pub(crate) shared: bool,
    /// Address in the driver to which the acquiring call returns.
    site: usize,
}

impl Hold {
    pub(crate) fn of(call: &Call, lock: usize, kind: Kind, shared: bool) -> Self {
        Self { lock, kind, shared, site: call.site().return_address }
    }

    fn describe(&self) -> String {
        format!("the {} {:#x} (acquired at {})", self.kind.name(), self.lock, place(self.site))
    }
}

/// Where two locks were taken one after the other.
#[derive(Clone, Copy, Debug)]
struct Edge {
    first: Hold,
    then: Hold,
}

/// Locks of one machine.
#[derive(Debug, Default)]
pub(crate) struct LockOrder {
    /// Locks held by all threads: most callbacks end while there is none, and nothing has to be looked up.
    held: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By thread object, in the order of acquisition.
    held: HashMap<usize, Vec<Hold>>,
    /// By the lock taken first, then by the one taken second.
    after: HashMap<usize, HashMap<usize, Edge>>,
}

impl LockOrder {
    /// The calling thread is about to wait for a lock: stops when that closes a cycle.
    pub(crate) fn waiting(&self, call: &Call, new: Hold) {
        let thread = call.thread().object().addr();
        let cycle = {
            let mut state = self.lock();
            let holds = state.held.get(&thread).cloned().unwrap_or_default();
            if on_stack(new.lock) { None } else { holds.iter().find_map(|first| state.connect(*first, new)) }
        };
        if let Some((first, path)) = cycle {
            let mut message = format!(
                "potential deadlock: this thread holds {} and waits for the {} {:#x}",
                first.describe(),
                new.kind.name(),
                new.lock
            );
            for edge in path {
                let (then, first) = (edge.then.describe(), edge.first.describe());
                let _ = write!(message, "; at other times {then} is taken under {first}");
            }
            call.stop(Rule::LockOrder, message);
        }
    }

    /// The calling thread has a lock now.
    pub(crate) fn acquired(&self, call: &Call, hold: Hold) {
        self.held.fetch_add(1, Ordering::Relaxed);
        self.lock().held.entry(call.thread().object().addr()).or_default().push(hold);
    }

    /// `thread` (its object's address) gave a lock back, once.
    pub(crate) fn released(&self, thread: usize, lock: usize) {
        let mut state = self.lock();
        let Some(holds) = state.held.get_mut(&thread) else { return };
        if let Some(index) = holds.iter().rposition(|hold| hold.lock == lock) {
            holds.remove(index);
            self.held.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// How a thread holds a lock: the latest of its acquisitions.
    pub(crate) fn hold_of(&self, thread: usize, lock: usize) -> Option<Hold> {
        self.lock().held.get(&thread)?.iter().rev().find(|hold| hold.lock == lock).copied()
    }

    /// How many locks a thread holds: a callback has to return with as many as it was entered with.
    pub(crate) fn depth(&self, thread: &Thread) -> usize {
        if self.held.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        self.lock().held.get(&thread.object().addr()).map_or(0, Vec::len)
    }

    /// Names the locks beyond the first `depth` that a thread may not keep when its callback returns.
    pub(crate) fn kept(&self, thread: &Thread, depth: usize) -> Option<String> {
        if self.held.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let state = self.lock();
        let kept = state.held.get(&thread.object().addr())?.get(depth..)?;
        let names: Vec<_> = kept.iter().filter(|hold| hold.kind != Kind::Mutex).map(Hold::describe).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    /// Names a spin lock that a thread holds.
    pub(crate) fn spin_lock_of(&self, thread: &Thread) -> Option<String> {
        if self.held.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let state = self.lock();
        let holds = state.held.get(&thread.object().addr())?;
        holds.iter().find(|hold| hold.kind == Kind::SpinLock).map(Hold::describe)
    }

    /// Memory goes away: names a lock in it that somebody holds; forgets the others.
    pub(crate) fn forget(&self, start: usize, length: usize) -> Option<String> {
        let inside = |address: usize| address.wrapping_sub(start) < length;
        let mut state = self.lock();
        if let Some(hold) = state.held.values().flatten().find(|hold| inside(hold.lock)) {
            return Some(format!("{} in it is still held", hold.describe()));
        }
        if !state.after.is_empty() {
            state.after.retain(|first, _| !inside(*first));
            for followers in state.after.values_mut() {
                followers.retain(|then, _| !inside(*then));
            }
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Remembers that `new` is taken under `first`; the way back from `new` to `first` when there is one already.
    fn connect(&mut self, first: Hold, new: Hold) -> Option<(Hold, Vec<Edge>)> {
        if first.lock == new.lock || on_stack(first.lock) {
            return None;
        }
        let known = self.after.get(&first.lock).and_then(|followers| followers.get(&new.lock));
        // An exclusive acquisition says more than a shared one at the same place in the order.
        if known.is_some_and(|edge| (!edge.first.shared || first.shared) && (!edge.then.shared || new.shared)) {
            return None;
        }
        let path = self.path(new.lock, first.lock, &mut HashSet::new());
        let edge = Edge { first, then: new };
        if let Some(path) = path
            && path.iter().chain([&edge]).any(|edge| !edge.first.shared || !edge.then.shared)
        {
            return Some((first, path));
        }
        self.after.entry(first.lock).or_default().insert(new.lock, edge);
        None
    }

    /// A chain of edges from one lock to another.
    fn path(&self, from: usize, to: usize, seen: &mut HashSet<usize>) -> Option<Vec<Edge>> {
        let followers = self.after.get(&from)?;
        if let Some(edge) = followers.get(&to) {
            return Some(vec![*edge]);
        }
        for (then, edge) in followers {
            if seen.insert(*then)
                && let Some(mut rest) = self.path(*then, to, seen)
            {
                rest.insert(0, *edge);
                return Some(rest);
            }
        }
        None
    }
}

/// Whether a lock lies on the stack of the calling thread.
fn on_stack(lock: usize) -> bool {
    Thread::driver_stack().is_some_and(|stack| stack.has_room_below(lock))
}

fn place(address: usize) -> String {
    crate::image::find(address).map_or_else(|| format!("{address:#x}"), |module| module.name_address(address))
}
