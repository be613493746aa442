//! The lock inside a queue that lies in the driver's memory.
//!
//! Threads of the host work on the list at the same time, and no lock of the host's may be held while memory of a driver is
//! touched. So the lock is a bit of the structure itself, as on Windows: whoever faults while it is held stops the machine, and
//! then those who wait for it leave, too.

use std::sync::atomic::Ordering;

use super::dispatcher::word;
use super::raw::Raw;
use crate::ddi::Call;

/// The bit of the word that says that it is locked. The word is an aligned pointer or a free spin lock otherwise.
const LOCKED: usize = 1;

/// Runs `body`, which touches nothing but the queue, while no other thread does the same.
pub(super) fn locked<R>(call: &Call, lock: Raw<usize>, body: impl FnOnce() -> R) -> R {
    let word = word(lock);
    while word.fetch_or(LOCKED, Ordering::Acquire) & LOCKED != 0 {
        call.thread().leave_if_stopped();
        std::thread::yield_now();
    }
    let result = body();
    word.fetch_and(!LOCKED, Ordering::Release);
    result
}

/// A `LIST_ENTRY` that heads a list.
#[derive(Clone, Copy)]
pub(super) struct List(pub(super) Raw<[usize; 2]>);

impl List {
    pub(super) fn initialise(self) {
        self.0.write([self.0.address(); 2]);
    }

    /// Addresses of the entries, first to last.
    pub(super) fn entries(self) -> impl Iterator<Item = usize> {
        let head = self.0.address();
        let next = move |entry: usize| Some(Raw::<usize>::at(entry).read()).filter(|next| *next != head);
        std::iter::successors(next(head), move |entry| next(*entry))
    }

    /// Puts an entry before `place`, which is an entry or, for the end, the head.
    pub(super) fn insert_before(place: usize, entry: usize) {
        let before = Raw::<usize>::at(place + 8).read();
        Raw::at(entry).write([place, before]);
        Raw::<usize>::at(before).write(entry);
        Raw::<usize>::at(place + 8).write(entry);
    }

    /// Takes an entry out of whatever list it is in.
    pub(super) fn remove(entry: usize) {
        let [next, before] = Raw::<[usize; 2]>::at(entry).read();
        Raw::<usize>::at(before).write(next);
        Raw::<usize>::at(next + 8).write(before);
    }

    /// Takes the first entry.
    pub(super) fn pop(self) -> Option<usize> {
        let first = self.entries().next()?;
        Self::remove(first);
        Some(first)
    }
}
