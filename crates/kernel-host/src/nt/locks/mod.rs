//! Locks: spin locks, fast and guarded mutexes, push locks, resources, rundown protection.
//!
//! A lock word holds the owning thread while it is held exclusively, so that recursion and a release by the wrong thread
//! are seen at the call, instead of as a hang. [`order`] knows all that is held.

use std::sync::atomic::Ordering;

use super::dispatcher::word;
use super::raw::Raw;
use crate::ddi::{Call, Export};
use crate::finding::Rule;

mod flt;
mod mutex;
pub(crate) mod order;
pub(crate) mod push;
pub(crate) mod resource;
mod rundown;
mod shared_spin;
pub(crate) mod spin;
#[cfg(test)]
mod testing;

use order::{Hold, Kind};

/// What drivers can import from here.
pub(super) fn exports() -> impl Iterator<Item = &'static Export> {
    [
        flt::EXPORTS,
        mutex::EXPORTS,
        push::EXPORTS,
        resource::EXPORTS,
        rundown::EXPORTS,
        shared_spin::EXPORTS,
        spin::EXPORTS,
    ]
    .into_iter()
    .flatten()
}

/// The calling thread as it stands in lock words.
fn me(call: &Call) -> usize {
    call.thread().object().addr()
}

/// Takes a word that is 0 when free; true when it was.
fn try_own(call: &Call, lock: Raw<usize>) -> bool {
    word(lock).compare_exchange(0, me(call), Ordering::AcqRel, Ordering::Acquire).is_ok()
}

/// Stops when the calling thread owns the word already.
fn check_recursion(call: &Call, lock: Raw<usize>, what: &str) {
    if word(lock).load(Ordering::Acquire) == me(call) {
        call.stop(Rule::Deadlock, format!("this thread holds the {what} {lock:?} already"));
    }
}

/// Gives a word back; stops when the calling thread does not own it.
fn disown(call: &Call, lock: Raw<usize>, known_as: usize) {
    let released = word(lock).compare_exchange(me(call), 0, Ordering::AcqRel, Ordering::Acquire);
    if let Err(owner) = released {
        call.stop(Rule::BadState, format!("the lock {lock:?} is not held by this thread (owner {owner:#x})"));
    }
    call.machine().nt.lock_order().released(me(call), known_as);
    call.machine().nt.dispatcher().wake();
}

/// Notes that the calling thread waits for a lock; see [`order::LockOrder::waiting`].
fn waiting(call: &Call, lock: usize, kind: Kind, shared: bool) -> Hold {
    let hold = Hold::of(call, lock, kind, shared);
    call.machine().nt.lock_order().waiting(call, hold);
    hold
}

/// Notes that the calling thread has a lock.
fn acquired(call: &Call, hold: Hold) {
    call.machine().nt.lock_order().acquired(call, hold);
}

/// A lock is initialised: what its address stood for before is forgotten.
fn initialised(call: &Call, address: usize, length: usize) {
    if let Some(why) = call.machine().nt.lock_order().forget(address, length) {
        call.stop(Rule::BadState, format!("a lock is initialised although {why}"));
    }
}
