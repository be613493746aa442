//! Slots that never move.

#![expect(unsafe_code, reason = "publishes arrays of slots to threads that take no lock")]

use alloc::alloc::{Layout, alloc_zeroed, dealloc};
use core::marker::PhantomData;
use core::ptr::{NonNull, null_mut};

use crate::Error;
use crate::atomics::{AtomicPtr, Ordering};
use crate::handle::SLOT_BITS;
use crate::slot::Slot;

/// An array of slots that grows without moving any, in segments of 4, 8, 16, 32 ... slots: at most twice what is needed.
///
/// Slots have the numbers from 4 on, so that the highest bit of a number tells the segment; zero is none.
///
/// Looking up is one load and no lock. Segments are never given back while the table lives: a thread with a stale
/// handle may touch any slot that ever existed, at any time.
pub(crate) struct Segments<T> {
    /// The first slot of each segment, or null. Set once, by `install`; freed by `drop`.
    segments: [AtomicPtr<Slot<T>>; COUNT],
    owns: PhantomData<Slot<T>>,
}

const FIRST_BITS: u32 = 2;
const FIRST: u32 = 1 << FIRST_BITS;
/// As many as fill the slot field of a handle.
const COUNT: usize = (SLOT_BITS - FIRST_BITS) as usize;

/// How many slots there can be: 4 + 8 + 16 + ... over all segments.
pub(crate) const MAX_SLOTS: u32 = (1 << SLOT_BITS) - FIRST;

/// What processors exchange with each other, in bytes.
const CACHE_LINE: usize = 64;

/// Slots for a segment that is not in the array yet.
pub(crate) struct Spare<T> {
    segment: usize,
    slots: NonNull<Slot<T>>,
    owns: PhantomData<Slot<T>>,
}

impl<T> Segments<T> {
    /// Fails to compile for entries that the kernel heap cannot place: wdk-alloc ignores alignments above 16.
    const ALIGNED: () = assert!(align_of::<Slot<T>>() <= 16, "the kernel heap aligns to 16 bytes only");

    pub(crate) fn new() -> Self {
        let () = Self::ALIGNED;
        Self { segments: core::array::from_fn(|_| AtomicPtr::new(null_mut())), owns: PhantomData }
    }

    /// The slot `number`, if its segment exists.
    #[inline]
    pub(crate) fn get(&self, number: u32) -> Option<&Slot<T>> {
        let (segment, offset) = locate(number);
        // Acquire: the slots were made before the pointer was set.
        let first = NonNull::new(self.segments.get(segment)?.load(Ordering::Acquire))?;
        // SAFETY: [segment/bounds] the segment has as many slots as `locate` gives offsets.
        let slot = unsafe { first.add(offset) };
        // SAFETY: [segment/alive] segments are not freed before `self` is dropped, and only shared references to
        // slots exist until then.
        Some(unsafe { slot.as_ref() })
    }

    /// Makes the segment that has the slot `number`. Allocates, so not under a lock.
    ///
    /// [`Error::TooManyHandles`] where no segment can have it, [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`).
    pub(crate) fn prepare(number: u32) -> Result<Spare<T>, Error> {
        let (segment, _) = locate(number);
        if segment >= COUNT {
            return Err(Error::TooManyHandles);
        }
        let layout = layout::<T>(segment).ok_or(Error::OutOfMemory)?;
        // SAFETY: [alloc/nonzero] a segment has at least 4 slots, and a slot has a state word.
        let memory = unsafe { alloc_zeroed(layout) };
        // All-zero bytes are a slot in `Free`, on no list, without an entry.
        let slots = NonNull::new(memory.cast::<Slot<T>>()).ok_or(Error::OutOfMemory)?;
        #[cfg(loom)]
        for offset in 0..length(segment) {
            // The model checker has to be told of its atomics.
            // SAFETY: [segment/bounds] the segment has so many slots.
            let slot = unsafe { slots.add(offset) };
            // SAFETY: [segment/own] fresh memory that nobody else knows of.
            unsafe { slot.write(Slot::new()) };
        }
        Ok(Spare { segment, slots, owns: PhantomData })
    }

    /// Puts a segment in place. Returns it where another thread was faster, for the caller to free outside its lock.
    pub(crate) fn install(&self, spare: Spare<T>) -> Option<Spare<T>> {
        let Some(place) = self.segments.get(spare.segment) else {
            return Some(spare);
        };
        let first = spare.slots.as_ptr();
        // Release: see `get`.
        match place.compare_exchange(null_mut(), first, Ordering::Release, Ordering::Relaxed) {
            Ok(_) => {
                // The array owns the memory now.
                core::mem::forget(spare);
                None
            }
            Err(_) => Some(spare),
        }
    }
}

impl<T> Drop for Segments<T> {
    fn drop(&mut self) {
        for (segment, place) in self.segments.iter().enumerate() {
            if let Some(slots) = NonNull::new(place.load(Ordering::Acquire)) {
                drop(Spare { segment, slots, owns: PhantomData });
            }
        }
    }
}

impl<T> Drop for Spare<T> {
    fn drop(&mut self) {
        let slots = NonNull::slice_from_raw_parts(self.slots, length(self.segment));
        // SAFETY: [segment/own] a spare owns its slots, all of which are initialised, and is dropped once.
        unsafe { slots.drop_in_place() };
        if let Some(layout) = layout::<T>(self.segment) {
            // SAFETY: [alloc/pair] allocated in `prepare` with this very layout and freed only here.
            unsafe { dealloc(self.slots.as_ptr().cast(), layout) };
        }
    }
}

/// How many slots a segment has.
const fn length(segment: usize) -> usize {
    (FIRST as usize).wrapping_shl(segment as u32)
}

fn layout<T>(segment: usize) -> Option<Layout> {
    // Aligned to cache lines, so that a slot of 32 or 64 bytes lies in one. The kernel's heap may not do us that favour
    // (wdk-alloc ignores alignments above 16, but blocks of a page and more are aligned anyway), and nothing but speed depends on it.
    Layout::array::<Slot<T>>(length(segment)).ok()?.align_to(CACHE_LINE).ok()
}

/// Which segment has the slot `number`, and where in it. There may be no such segment.
#[inline]
const fn locate(number: u32) -> (usize, usize) {
    // Numbers of one segment share their highest bit; the others say where. Zero goes the way of one, which is no slot either.
    let high_bit = (number | 1).ilog2();
    (high_bit.wrapping_sub(FIRST_BITS) as usize, (number ^ (1 << high_bit)) as usize)
}

/// The number of the slot that is the `ordinal`-th to be used, counted from zero, if there can be so many.
pub(crate) fn number_of(ordinal: u32) -> Option<u32> {
    ordinal.checked_add(FIRST).filter(|_| ordinal < MAX_SLOTS)
}

/// [`number_of`] backwards.
pub(crate) const fn ordinal_of(number: u32) -> u32 {
    number.wrapping_sub(FIRST)
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    #[test]
    fn slots_fill_the_segments_without_gaps() {
        let mut next = 0;
        for segment in 0..11 {
            let offsets: Vec<_> = (0..length(segment))
                .map(|_| {
                    let number = number_of(next).unwrap();
                    assert_eq!(ordinal_of(number), next);
                    let (found, offset) = locate(number);
                    assert_eq!(found, segment);
                    next += 1;
                    offset
                })
                .collect();
            assert_eq!(offsets, (0..length(segment)).collect::<Vec<_>>());
        }
        let last = number_of(MAX_SLOTS - 1).unwrap();
        assert_eq!((last, locate(last)), ((1 << SLOT_BITS) - 1, (COUNT - 1, length(COUNT - 1) - 1)));
        assert_eq!((number_of(MAX_SLOTS), number_of(u32::MAX)), (None, None));
    }

    #[test]
    fn numbers_that_no_slot_has_find_none() {
        let segments = Segments::<u8>::new();
        for segment in [4, 8, 16] {
            assert!(segments.install(Segments::prepare(segment).unwrap()).is_none());
        }
        assert!((4..32).all(|number| segments.get(number).is_some()));
        assert!([0, 1, 2, 3, 32, 1 << SLOT_BITS, u32::MAX].iter().all(|number| segments.get(*number).is_none()));
        assert!(matches!(Segments::<u8>::prepare(u32::MAX), Err(Error::TooManyHandles)));
    }

    #[test]
    fn second_install_of_a_segment_is_handed_back() {
        let segments = Segments::<u8>::new();
        assert!(segments.get(64).is_none());
        assert!(segments.install(Segments::prepare(64).unwrap()).is_none());
        let first = core::ptr::from_ref(segments.get(64).unwrap());
        assert!(segments.install(Segments::prepare(127).unwrap()).is_some());
        assert_eq!(core::ptr::from_ref(segments.get(64).unwrap()), first);
        assert!(segments.get(4).is_none());
    }
}
