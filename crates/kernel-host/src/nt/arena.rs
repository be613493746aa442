//! Page-granular memory of a machine, every allocation between guard pages.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use rustix::mm::{MapFlags, MprotectFlags, ProtFlags};

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;

/// What may be done with a run of pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    None,
    Read,
    ReadWrite,
    ReadExecute,
    ReadWriteExecute,
}

impl Access {
    const fn mprotect(self) -> MprotectFlags {
        match self {
            Self::None => MprotectFlags::empty(),
            Self::Read => MprotectFlags::READ,
            Self::ReadWrite => MprotectFlags::READ.union(MprotectFlags::WRITE),
            Self::ReadExecute => MprotectFlags::READ.union(MprotectFlags::EXEC),
            Self::ReadWriteExecute => MprotectFlags::READ.union(MprotectFlags::WRITE).union(MprotectFlags::EXEC),
        }
    }

    const fn mmap(self) -> ProtFlags {
        ProtFlags::from_bits_truncate(self.mprotect().bits())
    }
}

/// A reserved address range from which page runs are handed out.
///
/// Every page that is not handed out is inaccessible, and one page between two runs never is handed out: an access past
/// either end of a run faults at the instruction that makes it. A freed run stays inaccessible until the quarantine
/// has grown past its cap, so that late accesses fault too instead of hitting the run's next owner.
#[derive(Debug)]
pub(crate) struct Arena {
    base: usize,
    length: usize,
    quarantine_cap: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Offset of the first page never handed out.
    frontier: usize,
    /// Reusable runs: pages to offsets.
    free: BTreeMap<usize, Vec<usize>>,
    /// Freed runs still out of use, oldest first: offset and pages.
    quarantine: VecDeque<(usize, usize)>,
    quarantined: usize,
}

impl Arena {
    /// Reserves `length` bytes: exactly at `fixed` (`None` back when something is there already), or where Linux likes.
    ///
    /// `quarantine_cap` bounds the address space, in bytes, that freed runs keep out of use. They hold no memory.
    pub(crate) fn reserve(fixed: Option<usize>, length: usize, quarantine_cap: usize) -> Option<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        let (wish, flags) = match fixed {
            Some(address) => (std::ptr::without_provenance_mut(address), flags | MapFlags::FIXED_NOREPLACE),
            None => (std::ptr::null_mut(), flags),
        };
        // SAFETY: a new mapping; with an address, FIXED_NOREPLACE refuses to touch what exists.
        let mapped = unsafe { rustix::mm::mmap_anonymous(wish, length, ProtFlags::empty(), flags) }.ok()?;
        let state = State { frontier: PAGE, ..State::default() };
        Some(Self { base: mapped.expose_provenance(), length, quarantine_cap, state: Mutex::new(state) })
    }

    /// Whether `address` lies in the reserved range.
    pub(crate) fn contains(&self, address: usize) -> bool {
        address.wrapping_sub(self.base) < self.length
    }

    /// Hands out `pages` zeroed pages with `access`; `None` when the range, or Linux's memory, is exhausted.
    pub(crate) fn allocate(&self, pages: usize, access: Access) -> Option<usize> {
        let address = self.take(pages)?;
        self.protect(address, pages, access).then_some(address)
    }

    /// Replaces pages of a run that is handed out by pages of `file`.
    pub(crate) fn place_file(
        &self,
        address: usize,
        file: &impl std::os::fd::AsFd,
        offset: u64,
        pages: usize,
        access: Access,
    ) -> bool {
        debug_assert!(self.contains(address), "a run of this arena");
        let place = std::ptr::with_exposed_provenance_mut(address);
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: the run is inside our reservation and handed to this caller alone.
        unsafe { rustix::mm::mmap(place, pages * PAGE, access.mmap(), flags, file, offset) }.is_ok()
    }

    /// Takes a run without making it accessible.
    pub(crate) fn take(&self, pages: usize) -> Option<usize> {
        let mut state = self.lock();
        if let Some(runs) = state.free.get_mut(&pages)
            && let Some(offset) = runs.pop()
        {
            return Some(self.base + offset);
        }
        let offset = state.frontier;
        // The page behind the run is the guard; the one before belongs to the run before.
        let end = pages.checked_add(1)?.checked_mul(PAGE)?.checked_add(offset)?;
        if pages == 0 || end > self.length {
            return None;
        }
        state.frontier = end;
        Some(self.base + offset)
    }

    /// Changes what may be done with pages of a run.
    pub(crate) fn protect(&self, address: usize, pages: usize, access: Access) -> bool {
        debug_assert!(self.contains(address), "a run of this arena");
        let place = std::ptr::with_exposed_provenance_mut(address);
        // SAFETY: the pages are inside our reservation; making them inaccessible only makes bad accesses fault.
        unsafe { rustix::mm::mprotect(place, pages * PAGE, access.mprotect()) }.is_ok()
    }

    /// Takes a run back: its contents are dropped, and it is inaccessible from now on.
    pub(crate) fn release(&self, address: usize, pages: usize) {
        let place = std::ptr::with_exposed_provenance_mut(address);
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: the run is ours; mapping over it drops memory and file pages alike.
        let hidden = unsafe { rustix::mm::mmap_anonymous(place, pages * PAGE, ProtFlags::empty(), flags) };
        if hidden.is_err() {
            return; // Linux has no mapping left: the run stays out of use for good.
        }
        let mut state = self.lock();
        state.quarantine.push_back((address - self.base, pages));
        state.quarantined += pages * PAGE;
        while state.quarantined > self.quarantine_cap {
            let Some((offset, pages)) = state.quarantine.pop_front() else { break };
            state.quarantined -= pages * PAGE;
            state.free.entry(pages).or_default().push(offset);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // SAFETY: the reservation is ours, and its owner outlives all use of what it handed out.
        let _ = unsafe { rustix::mm::munmap(std::ptr::with_exposed_provenance_mut(self.base), self.length) };
    }
}

/// Pages that `bytes` bytes take.
pub(crate) const fn pages_for(bytes: usize) -> usize {
    bytes.div_ceil(PAGE)
}

#[cfg(test)]
mod tests {
    use super::{Access, Arena, PAGE};
    use crate::nt::raw::Raw;

    #[test]
    fn a_freed_run_is_not_reused_before_the_quarantine_is_full() {
        let arena = Arena::reserve(None, 64 * PAGE, 2 * PAGE).expect("address space");
        let first = arena.allocate(1, Access::ReadWrite).expect("memory");
        arena.release(first, 1);
        let second = arena.allocate(1, Access::ReadWrite).expect("memory");
        assert_ne!(first, second);
        arena.release(second, 1);
        let third = arena.allocate(1, Access::ReadWrite).expect("memory");
        arena.release(third, 1);
        assert_eq!(arena.allocate(1, Access::ReadWrite), Some(first), "the oldest came back");
    }

    #[test]
    fn runs_are_zeroed_even_when_reused() {
        let arena = Arena::reserve(None, 16 * PAGE, 0).expect("address space");
        let run = arena.allocate(1, Access::ReadWrite).expect("memory");
        Raw::<u64>::at(run).write(7);
        arena.release(run, 1);
        let again = arena.allocate(1, Access::ReadWrite).expect("memory");
        assert_eq!(again, run);
        assert_eq!(Raw::<u64>::at(again).read(), 0);
    }

    #[test]
    fn an_exhausted_range_is_reported() {
        let arena = Arena::reserve(None, 4 * PAGE, 0).expect("address space");
        assert!(arena.allocate(2, Access::Read).is_some());
        assert!(arena.allocate(1, Access::Read).is_none());
    }
}
