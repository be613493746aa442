//! One slot of the handle table: its state word, and the storage that the word protects.
//!
//! # The state machine
//!
//! ```text
//!            publish               begin_close               last pin leaves: claim
//!   Free ───────────────▶ Live ───────────────▶ Closing ─────────────────┐
//!    ▲                     │      close_unpin, with no other pin         ▼
//!    │                     └─────────────────────────────────────────▶ Reaping ──────▶ Retired
//!    └──────────────────────────────────────────────────────────────────┘  (no generation left)
//!                           the entry is out: back on a free list
//! ```
//!
//! The word holds what threads have to agree on, so that each arrow out of `Free`, `Live` and `Closing` is one atomic operation:
//!
//! ```text
//! 63        32 31   30      29        0
//! |  check   |LIVE|CLOSING|   pins    |        Live 10   Closing 11   Free, Reaping and Retired 00, check 0
//! ```
//!
//! *Pins* count the threads that are at the slot. A pin is taken by adding first and looking second, so threads
//! with stale handles add pins as well, in any state; they take them off at once. Therefore no
//! transition may overwrite the pins: each either ors around them, or compares them with what it expects.
//!
//! *Live*: the entry may be used by whoever holds a pin that was added in this state with the right check.
//! *Closing*: pins that were added before go on being good; new ones are not. The closer that set the bit is the
//! one winner. *Reaping*: the claim succeeds only where no good pin is left, and clears the word, so
//! the claimant owns the entry alone and no second claim can follow. That the entry is still in its place is not in the word: it is
//! the value [`Claimed`](crate::slab::Claimed), which exists once, and takes the entry out.
//! *Free*: the storage is empty and belongs to whoever took the slot off a free list.
//! *Retired* is `Free`, but never on a free list again: its generations are used up.
//!
//! # Memory order
//!
//! `publish` releases the entry, the pin that sees `LIVE` acquires it. Each pin's removal releases the uses made under it,
//! and the claim acquires them all: they are one release sequence on the word, since every operation on it is a
//! read-modify-write. `loom_tests` tries the orders that this allows, and
//! `slot_tests` every word that they can lead to.

#![expect(unsafe_code, reason = "the state word, not the borrow checker, says who may touch the entry")]

use core::mem::MaybeUninit;

use crate::atomics::{AtomicU32, AtomicU64, Cell, Ordering};

const PIN: u64 = 1;
const PINS: u64 = (1 << 30) - 1;
const CLOSING: u64 = 1 << 30;
const LIVE: u64 = 1 << 31;
const CHECK_SHIFT: u32 = 32;

/// Far more pins than threads that could hold them, and far from running into the flags.
const MANY_PINS: u64 = 1 << 29;

/// Storage for one entry.
pub(crate) struct Slot<T> {
    state: AtomicU64,
    /// The next slot of whichever list (free, waiting for the reaper) this one is in. Belongs to that list.
    pub(crate) link: AtomicU32,
    /// How many entries this slot has had. Changed only by the thread that took the slot off the free list.
    pub(crate) generation: AtomicU32,
    entry: Cell<MaybeUninit<T>>,
}

// SAFETY: [slot/send] a slot hands `&T` to threads that pin it (T: Sync) and moves T between threads (T: Send).
unsafe impl<T: Send + Sync> Sync for Slot<T> {}

/// Why a pin was not good. It has been taken off again, and that may have made it the last one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missed {
    /// The slot does not hold that entry.
    Stale,
    /// The slot holds that entry, but its close has begun.
    Closing,
    /// The slot has absurdly many pins.
    Busy,
}

/// Whether taking off a pin made this thread the owner of the entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "an entry that was claimed and not taken is leaked"]
pub(crate) enum Unpinned {
    /// Others have pins, or the entry is not being closed.
    Kept,
    /// The slot is now `Reaping`, and this thread has to see to it. With the check that the entry had.
    Claimed(u32),
}

impl<T> Slot<T> {
    /// A slot in the state `Free`. Outside of tests slots come as zeroed memory, which is the same.
    #[cfg(any(test, loom))]
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU64::new(0),
            link: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            entry: Cell::new(MaybeUninit::uninit()),
        }
    }

    /// `Free` → `Live`: stores `entry` and lets it be found with `check`.
    ///
    /// # Safety
    ///
    /// [slot/free] The slot is `Free` and this thread took it off the free list.
    pub(crate) unsafe fn publish(&self, check: u32, entry: T) {
        let storage = self.entry.write();
        // SAFETY: [slot/free] nobody reads the storage in `Free`, and only this thread may fill it.
        unsafe { storage.write(MaybeUninit::new(entry)) };
        // `or`, not a store: pins of threads with stale handles have to survive.
        self.state.fetch_or(live(check), Ordering::AcqRel);
    }

    /// Adds a pin to the entry with this `check`. One atomic addition and a comparison.
    ///
    /// On success the caller may use [`entry`](Self::entry) until its [`unpin`](Self::unpin).
    /// On failure there is no pin, but the caller may have claimed the entry.
    #[inline]
    pub(crate) fn pin(&self, check: u32) -> Result<(), (Missed, Unpinned)> {
        let before = self.state.fetch_add(PIN, Ordering::Acquire);
        if fits(before, check) { Ok(()) } else { Err((why_not(before, check), self.unpin())) }
    }

    /// Adds a pin to whatever entry is live here, and tells its check. For enumerations.
    pub(crate) fn pin_any(&self) -> Result<u32, (Missed, Unpinned)> {
        // Release as well: a `publish` that comes after this, and is therefore missed, acquires what the enumeration's
        // thread did before (ending the session, for one) and can act on it.
        let before = self.state.fetch_add(PIN, Ordering::AcqRel);
        if before & (LIVE | CLOSING) == LIVE && before & PINS < MANY_PINS {
            return Ok((before >> CHECK_SHIFT) as u32);
        }
        let why = if before & (LIVE | CLOSING) == LIVE { Missed::Busy } else { Missed::Stale };
        Err((why, self.unpin()))
    }

    /// `Live` → `Closing`; whether this call is the winner. The caller has a good pin.
    pub(crate) fn begin_close(&self) -> bool {
        // The pin keeps the entry in `Live` or `Closing`, so there are no other cases to tell apart.
        self.state.fetch_or(CLOSING, Ordering::AcqRel) & CLOSING == 0
    }

    /// Takes off a pin; if it was the last one of an entry in `Closing`, `Closing` → `Reaping`.
    #[inline]
    pub(crate) fn unpin(&self) -> Unpinned {
        let before = self.state.fetch_sub(PIN, Ordering::AcqRel);
        if before & (LIVE | CLOSING | PINS) != LIVE | CLOSING | PIN {
            return Unpinned::Kept;
        }
        // The count went to zero, but a thread with a stale handle may have made it one again. Then that
        // thread's `unpin` comes here too, and one of us wins. The check makes sure that it is still the same entry.
        self.claim(before & !PINS)
    }

    /// [`begin_close`](Self::begin_close) and [`unpin`](Self::unpin) by a caller with a good pin. Where that is the only pin,
    /// which is nearly always so, it is one step: `Live` → `Reaping`.
    pub(crate) fn close_unpin(&self, check: u32) -> (bool, Unpinned) {
        match self.claim(live(check) | PIN) {
            Unpinned::Kept => (self.begin_close(), self.unpin()),
            claimed @ Unpinned::Claimed(_) => (true, claimed),
        }
    }

    /// To `Reaping`, if the word is `expected`.
    fn claim(&self, expected: u64) -> Unpinned {
        match self.state.compare_exchange(expected, 0, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => Unpinned::Claimed((expected >> CHECK_SHIFT) as u32),
            Err(_) => Unpinned::Kept,
        }
    }

    /// How many pins there are, for reports.
    pub(crate) fn pins(&self) -> u32 {
        (self.state.load(Ordering::Relaxed) & PINS) as u32
    }

    /// The entry.
    ///
    /// # Safety
    ///
    /// [slot/pinned] The caller has a good pin, and keeps it for as long as it uses the reference.
    pub(crate) unsafe fn entry(&self) -> &T {
        // SAFETY: [slot/pinned] from `Live` until the claim, which needs zero pins, nobody writes the storage.
        let storage = unsafe { &*self.entry.read() };
        // SAFETY: [slot/pinned] `publish` stored an entry before the pin could become good.
        unsafe { storage.assume_init_ref() }
    }

    /// Takes the entry out of a slot in `Reaping`.
    ///
    /// # Safety
    ///
    /// [slot/claimed] The slot is `Reaping`, and this thread is the claimant or got the slot from it; called once per claim.
    pub(crate) unsafe fn take(&self) -> T {
        let storage = self.entry.write();
        // SAFETY: [slot/claimed] no pin is good in `Reaping`, so nobody else reads the storage.
        let entry = unsafe { storage.read() };
        // SAFETY: [slot/claimed] the entry that `publish` stored is still there, since each claim takes once.
        unsafe { entry.assume_init() }
    }
}

/// Whether a pin is good that was added when the word was `word`. Absurdly many pins show in the same comparison.
#[inline]
const fn fits(word: u64, check: u32) -> bool {
    word & !(MANY_PINS - 1) == live(check)
}

/// Why a pin is no good.
#[cold]
const fn why_not(word: u64, check: u32) -> Missed {
    if word & PINS >= MANY_PINS {
        Missed::Busy
    } else if word & !PINS == live(check) | CLOSING {
        Missed::Closing
    } else {
        Missed::Stale
    }
}

/// The word of a live entry without pins.
const fn live(check: u32) -> u64 {
    // A cast, since `From` cannot be called in a constant; it widens.
    ((check as u64) << CHECK_SHIFT) | LIVE
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        // The table closes everything before it is dropped; an entry that is still here has no reaper any more, but its
        // memory at least is not lost. Those in `Reaping` are not here but in the hands of a `Claimed`, or on the slab's list.
        if self.state.load(Ordering::Relaxed) & LIVE != 0 {
            // SAFETY: [slot/claimed] `&mut self`: there is no other thread, and in `Live` and `Closing` there is an entry.
            drop(unsafe { self.take() });
        }
    }
}

#[cfg(all(test, not(loom)))]
#[path = "slot_tests.rs"]
mod tests;
