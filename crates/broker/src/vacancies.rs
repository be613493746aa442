//! Which slots can be filled.

use crate::LockContext;
use crate::atomics::{AtomicU32, Ordering};
use crate::lanes::{Lanes, Locked, Shelf};
use crate::segments::{Segments, number_of};
use crate::slot::Slot;

/// The free slots: a list in each processor's lane, and those that were never used.
///
/// A thread takes from the list of its own lane and puts back there, so that threads neither wait for each other's locks
/// nor pull each other's cache lines. Where its list is empty it takes over a long list of another lane; then slots that were never
/// used, all of a cache line; and where there may be no more, or no memory, any list. So a few slots may lie idle in each lane while
/// memory is used that never was, but two lanes seldom come to share a cache line.
pub(crate) struct Vacancies<C: LockContext> {
    lanes: Lanes<C>,
    /// Slots from here on have never been used. Those below may have any state.
    fresh: AtomicU32,
    /// Slots that are `Retired`.
    retired: AtomicU32,
}

/// The end of a list. No slot has this number.
pub(crate) const NONE: u32 = 0;

/// Why there is no slot to be had.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Full {
    /// As many are in use as may be.
    Limit,
    /// The slot with this number would be next, and has no memory yet.
    Slots(u32),
}

impl<C: LockContext> Vacancies<C> {
    pub(crate) fn new() -> Self {
        Self { lanes: Lanes::new(), fresh: AtomicU32::new(0), retired: AtomicU32::new(0) }
    }

    #[inline]
    pub(crate) const fn lanes(&self) -> &Lanes<C> {
        &self.lanes
    }

    /// Locks this thread's lane, for [`pop`](Self::pop) and [`push`](Self::push).
    #[inline]
    pub(crate) fn lock(&self) -> Option<Locked<'_, C>> {
        self.lanes.lock_own()
    }

    /// Takes a slot that [`pop`](Self::pop) did not find in this thread's lane, where that leaves at most `most` in service. What is
    /// in service bounds what is in use, so nobody has to count that.
    #[cold]
    #[inline(never)]
    pub(crate) fn find<'a, T>(&self, segments: &'a Segments<T>, most: u32) -> Result<(u32, &'a Slot<T>), Full> {
        if let Some(found) = self.take_over(segments, LONG_LIST) {
            return Ok(found);
        }
        match self.take_fresh(segments, most) {
            Err(Full::Limit) => self.take_over(segments, 1).ok_or(Full::Limit),
            other => other,
        }
    }

    /// Takes the whole list of another lane, if that has at least so many slots, and one slot off it.
    pub(crate) fn take_over<'a, T>(&self, segments: &'a Segments<T>, least: u32) -> Option<(u32, &'a Slot<T>)> {
        // The counts are not worth a lock, nor is a list that has become shorter meanwhile.
        for lane in self.lanes.others().filter(|lane| lane.free_slots() >= least) {
            let (number, length) = {
                let shelf = lane.lock_as_visitor();
                (shelf.free.swap(NONE, Ordering::Relaxed), shelf.length.swap(0, Ordering::Relaxed))
            };
            // What is in nobody's list is ours, for as long as it takes.
            let Some(slot) = segments.get(number) else { continue };
            let Some(shelf) = self.lock() else { continue };
            Self::append(segments, &shelf, slot.link.load(Ordering::Relaxed), length.saturating_sub(1));
            add_one(&shelf.taken);
            return Some((number, slot));
        }
        None
    }

    /// Takes a slot off the list of a lane.
    #[inline]
    pub(crate) fn pop<'a, T>(segments: &'a Segments<T>, shelf: &Shelf) -> Option<(u32, &'a Slot<T>)> {
        let number = shelf.free.load(Ordering::Relaxed);
        // There is no slot with the number that ends the list.
        let slot = segments.get(number)?;
        shelf.free.store(slot.link.load(Ordering::Relaxed), Ordering::Relaxed);
        add(&shelf.length, u32::MAX);
        add_one(&shelf.taken);
        Some((number, slot))
    }

    /// Puts a slot back, which is `Free`.
    #[inline]
    pub(crate) fn push<T>(shelf: &Shelf, number: u32, slot: &Slot<T>) {
        Self::hang_on(shelf, number, slot);
        add_one(&shelf.returned);
    }

    /// Takes a slot out of service.
    #[cold]
    pub(crate) fn retire(&self, shelf: &Shelf) {
        self.retired.fetch_add(1, Ordering::Relaxed);
        add_one(&shelf.returned);
    }

    /// How many slots were ever used: those with the numbers of so many ordinals.
    pub(crate) fn end(&self) -> u32 {
        self.fresh.load(Ordering::SeqCst)
    }

    /// How many slots are in use. While others take and put slots back, it is never less than what was in use throughout.
    pub(crate) fn used(&self) -> u32 {
        let sum = |of: fn((&AtomicU32, &AtomicU32)) -> u32| {
            self.lanes.iter().fold(0, |sum: u32, lane| sum.wrapping_add(of(lane.counts())))
        };
        // In this order: a slot that is seen to be put back is then seen to have been taken.
        let returned = sum(|(_, returned)| returned.load(Ordering::Acquire));
        sum(|(taken, _)| taken.load(Ordering::Acquire)).wrapping_sub(returned)
    }

    /// How many slots are `Retired`.
    pub(crate) fn retired(&self) -> u32 {
        self.retired.load(Ordering::Relaxed)
    }

    /// Takes a slot that was never used, and puts those that share its cache line onto this thread's list.
    fn take_fresh<'a, T>(&self, segments: &'a Segments<T>, most: u32) -> Result<(u32, &'a Slot<T>), Full> {
        let mut ordinal = self.fresh.load(Ordering::Relaxed);
        loop {
            let in_service = ordinal.saturating_sub(self.retired.load(Ordering::Relaxed));
            let left = most.checked_sub(in_service).filter(|left| *left != 0).ok_or(Full::Limit)?;
            let number = number_of(ordinal).ok_or(Full::Limit)?;
            let slot = segments.get(number).ok_or(Full::Slots(number))?;
            // Up to the next number that begins a line; a segment ends with a line.
            let together =
                Slot::<T>::IN_A_LINE.wrapping_sub(ordinal.checked_rem(Slot::<T>::IN_A_LINE).unwrap_or(0)).min(left);
            let next = ordinal.saturating_add(together);
            // Sequentially consistent: an enumeration that misses these slots comes before their publication.
            if let Err(now) = self.fresh.compare_exchange_weak(ordinal, next, Ordering::SeqCst, Ordering::Relaxed) {
                ordinal = now;
                continue;
            }
            if let Some(shelf) = self.lock() {
                for number in (1..together).filter_map(|further| number.checked_add(further)) {
                    if let Some(slot) = segments.get(number) {
                        Self::hang_on(&shelf, number, slot);
                    }
                }
                add_one(&shelf.taken);
            }
            return Ok((number, slot));
        }
    }

    /// Hangs a list of so many slots onto that of a lane.
    fn append<T>(segments: &Segments<T>, shelf: &Shelf, list: u32, length: u32) {
        // Empty, but for what was put back since the lane was found to be empty: that is the shorter list.
        let mut number = shelf.free.swap(list, Ordering::Relaxed);
        shelf.length.store(length, Ordering::Relaxed);
        while let Some(slot) = segments.get(number) {
            let next = slot.link.load(Ordering::Relaxed);
            Self::hang_on(shelf, number, slot);
            number = next;
        }
    }

    #[inline]
    fn hang_on<T>(shelf: &Shelf, number: u32, slot: &Slot<T>) {
        slot.link.store(shelf.free.load(Ordering::Relaxed), Ordering::Relaxed);
        shelf.free.store(number, Ordering::Relaxed);
        add(&shelf.length, 1);
    }
}

/// A list of another lane that is worth going there before memory is touched that was never used.
const LONG_LIST: u32 = 256;

/// Counts under the lock, so a load and a store will do. Release: see [`Vacancies::used`].
#[inline]
fn add_one(count: &AtomicU32) {
    count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
}

#[inline]
fn add(count: &AtomicU32, wrapping: u32) {
    count.store(count.load(Ordering::Relaxed).wrapping_add(wrapping), Ordering::Relaxed);
}
