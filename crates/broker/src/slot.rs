//! One slot of the handle table: its state word, and the storage that the word protects.
//!
//! # The state machine
//!
//! ```text
//!            publish                begin_close              last pin leaves, claim
//!   Free ───────────────▶ Live ───────────────▶ Closing ───────────────────────────▶ Reaping
//!    ▲                                                                                  │
//!    └──────────────────────────────── free ────────────────────────────────────────────┤
//!                                      (generations left)                               ▼
//!                                                                                    Retired
//! ```
//!
//! The word holds it all, so that each arrow is one atomic operation:
//!
//! ```text
//! 63        32 31   30      29        0
//! |  check   |LIVE|CLOSING|   pins    |        Free 00   Live 10   Closing 11   Reaping 01
//! ```
//!
//! *Pins* count the threads that are at the slot. A pin is taken by adding first and looking second, so threads
//! with stale handles add pins as well, in any state; they take them off at once. Therefore no
//! transition may overwrite the pins: each either adds, ors and masks around them, or compares them with zero.
//!
//! *Live*: the entry may be used by whoever holds a pin that was added in this state with the right check.
//! *Closing*: pins that were added before go on being good; new ones are not. The closer that set the bit is the
//! one winner. *Reaping*: the claim succeeds only at zero pins, and in `Closing` no new pin is good, so
//! the claimant owns the entry alone; only one thread can claim, since the claim clears `LIVE`.
//! *Free*: check and flags are zero; the entry's storage is empty and belongs to whoever took the slot off the free list.
//! *Retired* is `Free`, but never on the free list again: its generations are used up.
//!
//! # Memory order
//!
//! `publish` releases the entry, the pin that sees `LIVE` acquires it. Each pin's removal releases the uses made under it,
//! and the claim acquires them all: they are one release sequence on the word, since every operation on it is a
//! read-modify-write.

#![expect(unsafe_code, reason = "the state word, not the borrow checker, says who may touch the entry")]

use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

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
    entry: UnsafeCell<MaybeUninit<T>>,
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
    /// The slot is now `Reaping`, and this thread has to see to it.
    Claimed,
}

impl<T> Slot<T> {
    /// A slot in the state `Free`. Outside the tests slots come as zeroed memory, which is the same.
    #[cfg(test)]
    pub(crate) const fn new() -> Self {
        Self {
            state: AtomicU64::new(0),
            link: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            entry: UnsafeCell::new(MaybeUninit::uninit()),
        }
    }

    /// `Free` → `Live`: stores `entry` and lets it be found with `check`.
    ///
    /// # Safety
    ///
    /// [slot/free] The slot is `Free` and this thread took it off the free list.
    pub(crate) unsafe fn publish(&self, check: u32, entry: T) {
        let storage = self.entry.get();
        // SAFETY: [slot/free] nobody reads the storage in `Free`, and only this thread may fill it.
        unsafe { storage.write(MaybeUninit::new(entry)) };
        // `or`, not a store: pins of threads with stale handles have to survive.
        self.state.fetch_or((u64::from(check) << CHECK_SHIFT) | LIVE, Ordering::AcqRel);
    }

    /// Adds a pin to the entry with this `check`. One atomic addition and a comparison.
    ///
    /// On success the caller may use [`entry`](Self::entry) until its [`unpin`](Self::unpin).
    /// On failure there is no pin, but the caller may have claimed the entry.
    pub(crate) fn pin(&self, check: u32) -> Result<(), (Missed, Unpinned)> {
        let before = self.state.fetch_add(PIN, Ordering::Acquire);
        if before & !PINS == (u64::from(check) << CHECK_SHIFT) | LIVE && before & PINS < MANY_PINS {
            return Ok(());
        }
        let why = if before & PINS >= MANY_PINS {
            Missed::Busy
        } else if before >> CHECK_SHIFT == u64::from(check) && before & (LIVE | CLOSING) != 0 {
            Missed::Closing
        } else {
            Missed::Stale
        };
        Err((why, self.unpin()))
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
    pub(crate) fn unpin(&self) -> Unpinned {
        let before = self.state.fetch_sub(PIN, Ordering::AcqRel);
        if before & (LIVE | CLOSING | PINS) != LIVE | CLOSING | PIN {
            return Unpinned::Kept;
        }
        // The count went to zero, but a thread with a stale handle may have made it one again. Then that
        // thread's `unpin` comes here too, and one of us wins. The check makes sure that it is still the same entry.
        let idle = before & !PINS;
        match self.state.compare_exchange(idle, idle & !LIVE, Ordering::AcqRel, Ordering::Relaxed) {
            Ok(_) => Unpinned::Claimed,
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
        let storage = unsafe { &*self.entry.get() };
        // SAFETY: [slot/pinned] `publish` stored an entry before the pin could become good.
        unsafe { storage.assume_init_ref() }
    }

    /// Takes the entry out of a slot in `Reaping`, which stays in that state until [`free`](Self::free).
    ///
    /// # Safety
    ///
    /// [slot/claimed] The slot is `Reaping`, and this thread is the claimant or got the slot from it; called once per claim.
    pub(crate) unsafe fn take(&self) -> T {
        // SAFETY: [slot/claimed] no pin is good in `Reaping`, so nobody else reads the storage.
        let storage = unsafe { self.entry.get().read() };
        // SAFETY: [slot/claimed] the entry that `publish` stored is still there, since each claim takes once.
        unsafe { storage.assume_init() }
    }

    /// `Reaping` → `Free`. The entry has been taken.
    pub(crate) fn free(&self) {
        // Pins of threads with stale handles stay.
        self.state.fetch_and(PINS, Ordering::AcqRel);
    }

    /// The check of the entry, in the states that have one.
    pub(crate) fn check(&self) -> u32 {
        (self.state.load(Ordering::Relaxed) >> CHECK_SHIFT) as u32
    }
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        // The table closes everything before it is dropped; an entry that is still here has no reaper any more, but its
        // memory at least is not lost.
        if *self.state.get_mut() & (LIVE | CLOSING) != 0 {
            // SAFETY: [slot/claimed] `&mut self`: there is no other thread, and in `Live`, `Closing` and `Reaping` there is an entry.
            drop(unsafe { self.take() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn live(slot: &Slot<u32>, check: u32) {
        // SAFETY: [slot/free] the test owns the slot.
        unsafe { slot.publish(check, check) };
    }

    #[test]
    fn stale_and_early_pins_fail_and_leave_no_trace() {
        let slot = Slot::new();
        assert_eq!(slot.pin(0), Err((Missed::Stale, Unpinned::Kept)));
        live(&slot, 7);
        assert_eq!(slot.pin(8), Err((Missed::Stale, Unpinned::Kept)));
        assert_eq!(slot.pins(), 0);
        assert_eq!(slot.pin(7), Ok(()));
        assert_eq!(slot.unpin(), Unpinned::Kept);
    }

    #[test]
    fn close_has_one_winner_and_the_last_pin_claims() {
        let slot = Slot::new();
        live(&slot, 7);
        slot.pin(7).unwrap();
        slot.pin(7).unwrap();
        assert!(slot.begin_close());
        assert!(!slot.begin_close());
        assert_eq!(slot.pin(7), Err((Missed::Closing, Unpinned::Kept)));
        assert_eq!(slot.unpin(), Unpinned::Kept);
        assert_eq!(slot.unpin(), Unpinned::Claimed);
        // In `Reaping`, a late comer neither gets the entry nor claims it again.
        assert_eq!(slot.pin(7), Err((Missed::Closing, Unpinned::Kept)));
        // SAFETY: [slot/claimed] claimed two lines above.
        assert_eq!(unsafe { slot.take() }, 7);
        slot.free();
        assert_eq!(slot.pin(7), Err((Missed::Stale, Unpinned::Kept)));
    }

    #[test]
    fn pin_of_a_stale_handle_survives_reuse_and_can_be_the_one_that_claims() {
        let slot = Slot::new();
        // A thread with a stale handle has added its pin and not yet looked.
        slot.state.fetch_add(PIN, Ordering::Relaxed);
        live(&slot, 9);
        slot.pin(9).unwrap();
        assert!(slot.begin_close());
        assert_eq!(slot.unpin(), Unpinned::Kept);
        assert_eq!(slot.unpin(), Unpinned::Claimed);
        // SAFETY: [slot/claimed] claimed above.
        assert_eq!(unsafe { slot.take() }, 9);
        slot.free();
        assert_eq!(slot.state.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn absurd_numbers_of_pins_are_refused() {
        let slot = Slot::new();
        live(&slot, 1);
        slot.state.fetch_add(MANY_PINS, Ordering::Relaxed);
        assert_eq!(slot.pin(1), Err((Missed::Busy, Unpinned::Kept)));
        slot.state.fetch_sub(MANY_PINS, Ordering::Relaxed);
        assert_eq!(slot.pin(1), Ok(()));
    }
}
