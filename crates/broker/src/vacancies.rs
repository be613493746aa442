//! Which slots can be filled.

use crate::atomics::{AtomicU32, Ordering};
use crate::segments::Segments;
use crate::slot::Slot;
use crate::{IrqlLock, LockContext};

/// The free slots: a list for each of a few processors, and those that were never used.
///
/// A thread takes from the list of the processor that it runs on and puts back there, so that threads neither wait for
/// each other's locks nor pull each other's cache lines. A list that is empty is helped out of by the
/// others before memory is touched that was never used.
#[repr(C)]
pub(crate) struct Vacancies<C: LockContext> {
    /// Keeps the first shard apart from what others read before it.
    _apart: [u32; 12],
    shards: [Shard<C>; SHARDS],
    /// Slots from here on have never been used. Those below may have any state.
    fresh: AtomicU32,
    /// Slots that are `Retired`.
    retired: AtomicU32,
}

/// More than a few would cost memory and, where all are empty, time.
const SHARDS: usize = if cfg!(loom) { 2 } else { 8 };

/// A list and its counts. All of it is written under the lock, and may be read without.
///
/// What changes has 16 bytes and is aligned to as many, which the kernel's heap can give, so it never lies across cache lines;
/// the rest keeps the lines of different shards apart. An alignment of 64 would say it better, but wdk-alloc ignores that.
#[repr(C, align(16))]
struct Shard<C: LockContext> {
    lock: IrqlLock<(), C>,
    /// The first free slot's link; the others hang on to it.
    free: AtomicU32,
    /// How many slots were ever taken here, wrapping.
    taken: AtomicU32,
    /// How many slots were ever put back here, wrapping: also those taken elsewhere, and those that were retired.
    returned: AtomicU32,
    _apart: [u32; 12],
}

/// The end of a list. Links are slot numbers plus one, so that it can be zero.
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
        Self {
            _apart: [0; 12],
            shards: core::array::from_fn(|_| Shard::new()),
            fresh: AtomicU32::new(0),
            retired: AtomicU32::new(0),
        }
    }

    /// Takes a slot off a list, or a fresh one where that leaves at most `most` in service. What is in service bounds
    /// what is in use, so nobody has to count that.
    pub(crate) fn take<'a, T>(&self, segments: &'a Segments<T>, most: u32) -> Result<(u32, &'a Slot<T>), Full> {
        let own = C::processor() % SHARDS;
        let (before, from_own) = self.shards.split_at_checked(own).unwrap_or_default();
        for shard in from_own.iter().chain(before) {
            if let Some(found) = shard.pop(segments) {
                return Ok(found);
            }
        }
        let Some(shard) = from_own.first() else {
            // The remainder of a division by their number is the number of one.
            return Err(Full::Limit);
        };
        let _locked = shard.lock.lock();
        let mut index = self.fresh.load(Ordering::Relaxed);
        loop {
            if index.saturating_sub(self.retired.load(Ordering::Relaxed)) >= most {
                return Err(Full::Limit);
            }
            let slot = segments.get(index).ok_or(Full::Slots(index))?;
            // Acquire and release: see `end`.
            let next = index.saturating_add(1);
            match self.fresh.compare_exchange_weak(index, next, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => {
                    add_one(&shard.taken);
                    return Ok((index, slot));
                }
                Err(now) => index = now,
            }
        }
    }

    /// Puts a slot back, which is `Free`.
    pub(crate) fn put<T>(&self, index: u32, slot: &Slot<T>) {
        self.with_own(|shard| {
            slot.link.store(shard.free.load(Ordering::Relaxed), Ordering::Relaxed);
            shard.free.store(index.saturating_add(1), Ordering::Relaxed);
        });
    }

    /// Takes a slot out of service.
    pub(crate) fn retire(&self) {
        self.with_own(|_| {
            self.retired.fetch_add(1, Ordering::Relaxed);
        });
    }

    /// One more than the highest slot that was ever used.
    pub(crate) fn end(&self) -> u32 {
        // Not a load: whoever takes a fresh slot after this, and is missed, acquires what this thread did before (ending a
        // session, for one) and can act on it.
        self.fresh.fetch_add(0, Ordering::AcqRel)
    }

    /// How many slots are in use. While others take and put slots back, it is never less than what was in use throughout.
    pub(crate) fn used(&self) -> u32 {
        let sum = |count: fn(&Shard<C>) -> &AtomicU32| {
            self.shards.iter().fold(0, |sum: u32, shard| sum.wrapping_add(count(shard).load(Ordering::Acquire)))
        };
        // In this order: a slot that is seen to be put back is then seen to have been taken.
        let returned = sum(|shard| &shard.returned);
        sum(|shard| &shard.taken).wrapping_sub(returned)
    }

    /// How many slots are `Retired`.
    pub(crate) fn retired(&self) -> u32 {
        self.retired.load(Ordering::Relaxed)
    }

    /// Puts something back, under the lock of this processor's shard.
    fn with_own(&self, put: impl FnOnce(&Shard<C>)) {
        if let Some(shard) = self.shards.get(C::processor() % SHARDS) {
            let _locked = shard.lock.lock();
            put(shard);
            add_one(&shard.returned);
        }
    }
}

impl<C: LockContext> Shard<C> {
    const SIZE: () = assert!(cfg!(loom) || size_of::<Self>() == 64, "a shard is a cache line");

    fn new() -> Self {
        let () = Self::SIZE;
        Self {
            lock: IrqlLock::new(()),
            free: AtomicU32::new(NONE),
            taken: AtomicU32::new(0),
            returned: AtomicU32::new(0),
            _apart: [0; 12],
        }
    }

    fn pop<'a, T>(&self, segments: &'a Segments<T>) -> Option<(u32, &'a Slot<T>)> {
        // Not worth a lock, nor the cache line: only a hint.
        if self.free.load(Ordering::Relaxed) == NONE {
            return None;
        }
        let _locked = self.lock.lock();
        let index = self.free.load(Ordering::Relaxed).checked_sub(1)?;
        let slot = segments.get(index)?;
        self.free.store(slot.link.load(Ordering::Relaxed), Ordering::Relaxed);
        add_one(&self.taken);
        Some((index, slot))
    }
}

/// Counts under the lock, so a load and a store will do. Release: see [`Vacancies::used`].
fn add_one(count: &AtomicU32) {
    count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
}
