//! What was taken away from a session.

use crate::atomics::{AtomicU32, AtomicU64, Ordering};
use crate::fixed_vec::FixedVec;
use crate::once::Once;
use crate::{Error, Handle};

/// The handles that were taken away from one session and that it has not closed yet.
///
/// A revoked handle is closed like any other, and its slot goes to the next entry. What is left is its number, kept here so that its
/// owner is told what happened to it, as often as it asks, until it closes the handle. Looked at only when a
/// handle has not been found: sessions that nothing is taken from pay nothing.
///
/// Bounded: with more than [`MOST`](Self::MOST) that the owner has neither noticed nor closed, the longest known is forgotten, and
/// is from then on a handle that was closed. Usable at any IRQL, except [`add`](Self::add).
pub(crate) struct Revocations {
    blocks: [Once<Block>; BLOCKS],
    known: AtomicU32,
    oldest: AtomicU32,
}

/// Numbers of handles; zero, which is none, where there is room.
type Block = FixedVec<AtomicU64>;

const BLOCKS: usize = 8;
#[cfg(not(loom))]
const BLOCK_CELLS: usize = 128;
#[cfg(loom)]
const BLOCK_CELLS: usize = 2;

impl Revocations {
    /// How many handles are remembered.
    pub(crate) const MOST: usize = BLOCKS * BLOCK_CELLS;

    pub(crate) fn new() -> Self {
        Self { blocks: core::array::from_fn(|_| Once::new()), known: AtomicU32::new(0), oldest: AtomicU32::new(0) }
    }

    /// Remembers `handle`. IRQL <= `DISPATCH_LEVEL` (it may allocate).
    ///
    /// [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`).
    pub(crate) fn add(&self, handle: Handle) -> Result<(), Error> {
        for block in &self.blocks {
            let cells = block.get_or_try(empty_block)?;
            if cells.iter().any(|cell| replace(cell, 0, handle.raw())) {
                self.known.fetch_add(1, Ordering::Release);
                return Ok(());
            }
        }
        // Full: this one's cell is the next in turn, whatever is in it.
        let turn = self.oldest.fetch_add(1, Ordering::Relaxed) as usize;
        if self
            .cells()
            .cycle()
            .nth(turn % Self::MOST)
            .is_some_and(|cell| cell.swap(handle.raw(), Ordering::AcqRel) == 0)
        {
            self.known.fetch_add(1, Ordering::Release);
        }
        Ok(())
    }

    /// Whether `handle` was added and not removed since.
    pub(crate) fn contains(&self, handle: Handle) -> bool {
        self.len() != 0 && self.cells().any(|cell| cell.load(Ordering::Acquire) == handle.raw())
    }

    /// Forgets `handle`, once; whether it was there.
    pub(crate) fn remove(&self, handle: Handle) -> bool {
        let removed = self.len() != 0 && self.cells().any(|cell| replace(cell, handle.raw(), 0));
        if removed {
            self.known.fetch_sub(1, Ordering::Release);
        }
        removed
    }

    /// How many are remembered.
    pub(crate) fn len(&self) -> u32 {
        self.known.load(Ordering::Acquire)
    }

    fn cells(&self) -> impl Iterator<Item = &AtomicU64> + Clone {
        self.blocks.iter().map_while(Once::get).flat_map(|block| block.iter())
    }
}

fn replace(cell: &AtomicU64, old: u64, new: u64) -> bool {
    cell.compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire).is_ok()
}

fn empty_block() -> Result<Block, Error> {
    let mut block = FixedVec::try_with_capacity(BLOCK_CELLS)?;
    for _ in 0..BLOCK_CELLS {
        block.push(AtomicU64::new(0)).map_err(|_| Error::OutOfMemory)?;
    }
    Ok(block)
}

impl core::fmt::Debug for Revocations {
    // Not the numbers: they are another session's secrets.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Revocations").field("known", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::Kind;

    fn handle(number: u32) -> Handle {
        Handle::new(number, Kind::File, 3)
    }

    #[test]
    fn a_handle_is_known_until_it_is_removed() {
        let revoked = Revocations::new();
        assert!(!revoked.contains(handle(1)) && !revoked.remove(handle(1)));
        revoked.add(handle(1)).unwrap();
        revoked.add(handle(2)).unwrap();
        assert!(revoked.contains(handle(1)) && revoked.contains(handle(1)), "asking does not change anything");
        assert!(revoked.remove(handle(1)) && !revoked.remove(handle(1)));
        assert!(!revoked.contains(handle(1)) && revoked.contains(handle(2)));
        assert_eq!(revoked.len(), 1);
    }

    #[test]
    fn with_too_many_the_longest_known_are_forgotten() {
        let revoked = Revocations::new();
        let most = Revocations::MOST as u32;
        for number in 1..=most + 3 {
            revoked.add(handle(number)).unwrap();
        }
        assert_eq!(revoked.len(), most);
        assert!((1..=3).all(|number| !revoked.contains(handle(number))));
        assert!((4..=most + 3).step_by(97).all(|number| revoked.contains(handle(number))));
        // Room that was made is used again.
        assert!(revoked.remove(handle(500)));
        revoked.add(handle(1)).unwrap();
        assert!(revoked.contains(handle(1)) && revoked.contains(handle(501)));
    }

    #[test]
    fn threads_that_add_and_remove_lose_nothing() {
        let revoked = Revocations::new();
        let count = if cfg!(miri) { 10 } else { 200 };
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let revoked = &revoked;
                scope.spawn(move || {
                    for number in 0..count {
                        let handle = handle(1 + thread * count + number);
                        revoked.add(handle).unwrap();
                        assert!(revoked.contains(handle) && revoked.remove(handle));
                    }
                });
            }
        });
        assert_eq!(revoked.len(), 0);
    }
}
