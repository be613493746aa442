//! Slots that never move.

use alloc::vec::Vec;

use spin::Once;

use crate::Error;
use crate::handle::SLOT_BITS;
use crate::slot::Slot;

/// An array of slots that grows without moving any, in segments of 64, 128, 256 ... slots.
///
/// Looking up is two loads and no lock. Segments are never given back while the table lives: a thread with a stale
/// handle may touch any slot that ever existed, at any time.
pub(crate) struct Segments<T> {
    segments: [Once<Vec<Slot<T>>>; COUNT],
}

const FIRST_BITS: u32 = 6;
const FIRST: u32 = 1 << FIRST_BITS;
/// As many as fill the slot field of a handle.
const COUNT: usize = (SLOT_BITS - FIRST_BITS) as usize;

/// How many slots there can be: 64 + 128 + ... over all segments.
pub(crate) const MAX_SLOTS: u32 = (1 << SLOT_BITS) - FIRST;

/// Slots for a segment that is not in the array yet.
pub(crate) struct Spare<T> {
    segment: usize,
    slots: Vec<Slot<T>>,
}

impl<T> Segments<T> {
    pub(crate) const fn new() -> Self {
        Self {
            segments: [const { Once::new() }; COUNT],
        }
    }

    /// The slot `index`, if its segment exists.
    pub(crate) fn get(&self, index: u32) -> Option<&Slot<T>> {
        let (segment, offset) = locate(index)?;
        self.segments.get(segment)?.get()?.get(offset)
    }

    /// Makes the segment that has the slot `index`. Allocates, so not under a lock.
    ///
    /// [`Error::TooManyHandles`] where no segment can have it, [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`).
    pub(crate) fn prepare(index: u32) -> Result<Spare<T>, Error> {
        let (segment, _) = locate(index).ok_or(Error::TooManyHandles)?;
        let length = FIRST
            .checked_shl(segment as u32)
            .ok_or(Error::TooManyHandles)? as usize;
        let mut slots = Vec::new();
        slots
            .try_reserve_exact(length)
            .map_err(|_| Error::OutOfMemory)?;
        slots.resize_with(length, Slot::new);
        Ok(Spare { segment, slots })
    }

    /// Puts a segment in place. Returns it where another thread was faster, for the caller to free outside its lock.
    ///
    /// Called under the table's lock: `Once` would let a second caller spin without regard for the IRQL.
    pub(crate) fn install(&self, spare: Spare<T>) -> Option<Spare<T>> {
        let mut spare = Some(spare);
        let place = spare.as_ref().and_then(|s| self.segments.get(s.segment))?;
        place.call_once(|| spare.take().map(|s| s.slots).unwrap_or_default());
        spare
    }
}

/// Which segment has the slot `index`, and where in it.
fn locate(index: u32) -> Option<(usize, usize)> {
    // Shifted by the first segment's size, indexes of one segment share their highest bit.
    let shifted = index.checked_add(FIRST)?;
    let high_bit = shifted.ilog2();
    let segment = high_bit.checked_sub(FIRST_BITS)? as usize;
    (segment < COUNT).then_some((segment, (shifted ^ (1 << high_bit)) as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_fill_the_segments_without_gaps() {
        let mut expected = (0, 0);
        for index in 0..2000 {
            assert_eq!(locate(index), Some(expected));
            expected.1 += 1;
            if expected.1 == 64 << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
        assert_eq!(locate(MAX_SLOTS - 1).unwrap().0, COUNT - 1);
        assert_eq!(locate(MAX_SLOTS), None);
        assert_eq!(locate(u32::MAX), None);
    }

    #[test]
    fn second_install_of_a_segment_is_handed_back() {
        let segments = Segments::<u8>::new();
        assert!(segments.get(64).is_none());
        assert!(segments.install(Segments::prepare(64).unwrap()).is_none());
        let first = core::ptr::from_ref(segments.get(64).unwrap());
        assert!(segments.install(Segments::prepare(100).unwrap()).is_some());
        assert_eq!(core::ptr::from_ref(segments.get(64).unwrap()), first);
        assert!(segments.get(0).is_none());
    }
}
