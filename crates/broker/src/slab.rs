//! Slots under lists, and the values that prove what may be done with a slot.
//!
//! A slot may be filled by whoever took it off the free list and emptied by whoever claimed it. Neither can be told from the
//! slot, so both are values here: [`Vacant`], [`Claimed`] and, for readers, [`Pin`]. Only this module makes them,
//! one for each right, and none can be copied; with them the handle table needs no unsafe code.

#![expect(unsafe_code, reason = "turns the rights to a slot into values, and uses them")]

use crate::atomics::{AtomicU32, Ordering};
use crate::segments::{MAX_SLOTS, Segments};
use crate::slot::{Missed, Slot, Unpinned};
use crate::vacancies::{Full, NONE, Vacancies};
use crate::{Error, LockContext};

/// All slots, in whichever state.
pub(crate) struct Slab<T, C: LockContext> {
    max_used: u32,
    segments: Segments<T>,
    vacancies: Vacancies<C>,
    /// The first slot's link of those in `Reaping` that wait for [`take_deferred`](Slab::take_deferred).
    deferred: AtomicU32,
}

/// After so many entries a slot is retired: its next check would be one it has had before.
pub(crate) const LAST_GENERATION: u32 = u32::MAX;

/// The right to fill a slot, which is `Free` and on no list. Has to be filled or given back.
pub(crate) struct Vacant<'a, T> {
    index: u32,
    slot: &'a Slot<T>,
}

/// The right to empty a slot, which is `Reaping`. Has to be emptied or deferred.
pub(crate) struct Claimed<'a, T> {
    index: u32,
    check: u32,
    slot: &'a Slot<T>,
}

/// The right to look at a slot's value. Dropping the last one of a value that is being closed claims it.
pub(crate) struct Pin<'a, T, O: OnClaim<T>> {
    index: u32,
    slot: &'a Slot<T>,
    owner: &'a O,
}

/// Whom a pin's drop tells when it has claimed the value.
pub(crate) trait OnClaim<T> {
    fn on_claim(&self, claimed: Claimed<'_, T>);
}

impl<T, C: LockContext> Slab<T, C> {
    /// No slots yet. At most `max_used` will be in use at a time.
    pub(crate) fn new(max_used: u32) -> Self {
        Self {
            max_used: max_used.min(MAX_SLOTS),
            segments: Segments::new(),
            vacancies: Vacancies::new(),
            deferred: AtomicU32::new(NONE),
        }
    }

    /// Takes a free slot, or makes new ones. May allocate, but not under a lock.
    pub(crate) fn vacant(&self) -> Result<Vacant<'_, T>, Error> {
        loop {
            match self.vacancies.take(&self.segments, self.max_used) {
                Ok((index, slot)) => return Ok(Vacant { index, slot }),
                Err(Full::Limit) => return Err(Error::TooManyHandles),
                // What comes back is a segment that another thread was faster to install; this one frees it.
                Err(Full::Slots(index)) => drop(self.segments.install(Segments::prepare(index)?)),
            }
        }
    }

    /// Puts a slot on the free list; or, with its generations used up, nowhere: it is `Retired` then.
    #[expect(clippy::needless_pass_by_value, reason = "uses up the right")]
    pub(crate) fn give_back(&self, vacant: Vacant<'_, T>) {
        let Vacant { index, slot } = vacant;
        if slot.generation.load(Ordering::Relaxed) == LAST_GENERATION {
            self.vacancies.retire();
        } else {
            self.vacancies.put(index, slot);
        }
    }

    /// Pins the value in slot `index` that has this `check`.
    #[inline]
    pub(crate) fn pin<'a, O: OnClaim<T>>(
        &'a self,
        owner: &'a O,
        index: u32,
        check: u32,
    ) -> Result<Pin<'a, T, O>, Missed> {
        let slot = self.segments.get(index).ok_or(Missed::Stale)?;
        match slot.pin(check) {
            Ok(()) => Ok(Pin { index, slot, owner }),
            Err((why, unpinned)) => {
                settle(owner, index, slot, unpinned);
                Err(why)
            }
        }
    }

    /// Pins whatever value is live in slot `index`; also returns its check.
    pub(crate) fn pin_any<'a, O: OnClaim<T>>(&'a self, owner: &'a O, index: u32) -> Option<(Pin<'a, T, O>, u32)> {
        let slot = self.segments.get(index)?;
        match slot.pin_any() {
            Ok(check) => Some((Pin { index, slot, owner }, check)),
            Err((_, unpinned)) => {
                settle(owner, index, slot, unpinned);
                None
            }
        }
    }

    /// Puts a claimed slot onto a list until [`take_deferred`](Self::take_deferred). Needs no memory; lock-free.
    #[expect(clippy::needless_pass_by_value, reason = "uses up the right")]
    pub(crate) fn defer(&self, claimed: Claimed<'_, T>) {
        let Claimed { index, slot, check: _ } = claimed;
        let link = index.saturating_add(1);
        let mut head = self.deferred.load(Ordering::Relaxed);
        loop {
            slot.link.store(head, Ordering::Relaxed);
            match self.deferred.compare_exchange_weak(head, link, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// All slots that were deferred up to now; `check` tells a value's check from its slot and its generation. The caller has to
    /// exhaust the iterator.
    pub(crate) fn take_deferred(&self, check: impl Fn(u32, u32) -> u32) -> impl Iterator<Item = Claimed<'_, T>> {
        // Taking the whole list at once leaves no half-popped element for others to trip over (no ABA).
        let mut link = self.deferred.swap(NONE, Ordering::Acquire);
        core::iter::from_fn(move || {
            let (index, slot) = self.by_link(link)?;
            link = slot.link.load(Ordering::Relaxed);
            Some(Claimed { index, slot, check: check(index, slot.generation.load(Ordering::Relaxed)) })
        })
    }

    /// One more than the highest slot that was ever used.
    pub(crate) fn end(&self) -> u32 {
        self.vacancies.end()
    }

    /// How many slots are neither free nor retired.
    pub(crate) fn used(&self) -> u32 {
        self.vacancies.used()
    }

    /// How many slots are `Retired`.
    pub(crate) fn retired(&self) -> u32 {
        self.vacancies.retired()
    }

    /// How many values slot `index` has had.
    pub(crate) fn generation(&self, index: u32) -> u32 {
        self.segments.get(index).map_or(0, |slot| slot.generation.load(Ordering::Relaxed))
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn set_generation(&self, index: u32, generation: u32) {
        self.segments.get(index).unwrap().generation.store(generation, Ordering::Relaxed);
    }

    fn by_link(&self, link: u32) -> Option<(u32, &Slot<T>)> {
        let index = link.checked_sub(1)?;
        self.segments.get(index).map(|slot| (index, slot))
    }
}

impl<T, C: LockContext> Drop for Slab<T, C> {
    fn drop(&mut self) {
        // Slots drop the values that are in them, except those that were claimed.
        self.take_deferred(|_, _| 0).for_each(|claimed| drop(claimed.take()));
    }
}

/// Turns what [`Slot::unpin`] said into the right that it means, and hands it on.
#[inline]
fn settle<T>(owner: &impl OnClaim<T>, index: u32, slot: &Slot<T>, unpinned: Unpinned) {
    if let Unpinned::Claimed(check) = unpinned {
        owner.on_claim(Claimed { index, check, slot });
    }
}

impl<T> Vacant<'_, T> {
    pub(crate) const fn index(&self) -> u32 {
        self.index
    }

    /// Counts the value that is about to be published, and returns its number.
    pub(crate) fn next_generation(&mut self) -> u32 {
        // Never beyond the last: a slot that has had it is not vacant again.
        let generation = self.slot.generation.load(Ordering::Relaxed).saturating_add(1);
        self.slot.generation.store(generation, Ordering::Relaxed);
        generation
    }

    /// Makes `value` the slot's value, to be found with `check`.
    pub(crate) fn publish(self, check: u32, value: T) {
        // SAFETY: [slot/free] `self` came from the free list, from fresh slots or from `Claimed::take`, is unique, and
        // is used up here.
        unsafe { self.slot.publish(check, value) };
    }
}

impl<'a, T> Claimed<'a, T> {
    pub(crate) const fn index(&self) -> u32 {
        self.index
    }

    /// The check that the value was found with.
    pub(crate) const fn check(&self) -> u32 {
        self.check
    }

    /// Takes the value out; the slot becomes `Free`, but is not on the free list yet.
    pub(crate) fn take(self) -> (T, Vacant<'a, T>) {
        let Self { index, slot, check: _ } = self;
        // SAFETY: [slot/claimed] `self` was made by the one claim, possibly kept on the deferred list, and is used up here.
        let value = unsafe { slot.take() };
        (value, Vacant { index, slot })
    }
}

impl<T, O: OnClaim<T>> Pin<'_, T, O> {
    pub(crate) fn value(&self) -> &T {
        // SAFETY: [slot/pinned] `self` is a good pin, and the reference cannot outlive it.
        unsafe { self.slot.entry() }
    }

    /// Closes the value, which has this `check`, and lets go of it; whether this call is the winner.
    pub(crate) fn close(self, check: u32) -> bool {
        let (won, unpinned) = self.slot.close_unpin(check);
        settle(self.owner, self.index, self.slot, unpinned);
        // The pin has been taken off.
        core::mem::forget(self);
        won
    }

    pub(crate) const fn index(&self) -> u32 {
        self.index
    }

    pub(crate) fn pins(&self) -> u32 {
        self.slot.pins()
    }
}

impl<T, O: OnClaim<T>> Drop for Pin<'_, T, O> {
    #[inline]
    fn drop(&mut self) {
        settle(self.owner, self.index, self.slot, self.slot.unpin());
    }
}
