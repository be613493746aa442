//! Page-granular memory of a machine, every allocation between guard pages.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};

use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};

use super::raw::Raw;

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;

/// Single pages that stay hidden, after they were freed, before one of them is handed out again.
const WARM_QUARANTINE: usize = 1024;

/// Single pages that are hidden at most; more are melted into the reservation again, to give their mappings back.
const WARM_LIMIT: usize = 4096;

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
    pub(super) const fn mprotect(self) -> MprotectFlags {
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
///
/// Single pages, by far the most frequent, keep their memory and their Linux mapping while they are hidden: changing what may be
/// done with a whole mapping is a third of the price of cutting one out of the reservation and melting it in again. They
/// have a quarantine of their own, counted in pages, since each takes a mapping and Linux has about 65,000 of them.
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
    /// Single pages with a mapping of their own, by offset: handed out or hidden.
    warm: HashSet<usize>,
    /// Those that are hidden, the one freed first in front.
    hidden: VecDeque<usize>,
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
        if pages == 1 {
            return self.allocate_page(access);
        }
        let address = self.take(pages)?;
        self.protect(address, pages, access).then_some(address)
    }

    fn allocate_page(&self, access: Access) -> Option<usize> {
        let reused = {
            let mut state = self.lock();
            if state.hidden.len() < WARM_QUARANTINE { None } else { state.hidden.pop_front() }
        };
        if let Some(offset) = reused {
            let address = self.base + offset;
            // Writable for us first: its contents are those of its last owner.
            if !self.protect(address, 1, Access::ReadWrite) {
                return None;
            }
            Raw::<u8>::at(address).fill(0, PAGE);
            return (access == Access::ReadWrite || self.protect(address, 1, access)).then_some(address);
        }
        let address = self.take(1)?;
        let place = std::ptr::with_exposed_provenance_mut(address);
        // Linux joins neighbours that are alike, and splits them again: what dumps leave out is not like its neighbours.
        // SAFETY: the page is inside our reservation; the advice is only about core dumps.
        let apart = unsafe { rustix::mm::madvise(place, PAGE, Advice::LinuxDontDump) }.is_ok();
        if !self.protect(address, 1, access) {
            return None;
        }
        if apart {
            self.lock().warm.insert(address - self.base);
        }
        Some(address)
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
        // A page of the file is not one to be kept for the next owner.
        self.lock().warm.remove(&(address - self.base));
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
        let offset = address - self.base;
        if pages == 1 && self.hide(offset) {
            return;
        }
        let place = std::ptr::with_exposed_provenance_mut(address);
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
        // SAFETY: the run is ours; mapping over it drops memory and file pages alike.
        let hidden = unsafe { rustix::mm::mmap_anonymous(place, pages * PAGE, ProtFlags::empty(), flags) };
        if hidden.is_err() {
            return; // Linux has no mapping left: the run stays out of use for good.
        }
        let mut state = self.lock();
        state.quarantine.push_back((offset, pages));
        state.quarantined += pages * PAGE;
        while state.quarantined > self.quarantine_cap {
            let Some((offset, pages)) = state.quarantine.pop_front() else { break };
            state.quarantined -= pages * PAGE;
            state.free.entry(pages).or_default().push(offset);
        }
    }

    /// Keeps a page with a mapping of its own for later; false when it has none, or there are enough such pages.
    fn hide(&self, offset: usize) -> bool {
        {
            let mut state = self.lock();
            if state.hidden.len() >= WARM_LIMIT {
                state.warm.remove(&offset);
            }
            if !state.warm.contains(&offset) {
                return false;
            }
        }
        // Hidden before anybody can get it.
        let hidden = self.protect(self.base + offset, 1, Access::None);
        if hidden {
            self.lock().hidden.push_back(offset);
        }
        hidden
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

/// What Linux says of the page at `address`, such as `rw-p`.
#[cfg(test)]
fn access_in_maps(address: usize) -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    maps.lines().find_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (low, high) = range.split_once('-')?;
        let (low, high) = (usize::from_str_radix(low, 16).ok()?, usize::from_str_radix(high, 16).ok()?);
        (low..high).contains(&address).then(|| rest.split(' ').next().unwrap_or_default().to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::{Access, Arena, PAGE, WARM_QUARANTINE};
    use crate::nt::raw::Raw;

    #[test]
    fn a_freed_run_is_not_reused_before_the_quarantine_is_full() {
        let arena = Arena::reserve(None, 64 * PAGE, 4 * PAGE).expect("address space");
        let first = arena.allocate(2, Access::ReadWrite).expect("memory");
        arena.release(first, 2);
        let second = arena.allocate(2, Access::ReadWrite).expect("memory");
        assert_ne!(first, second);
        arena.release(second, 2);
        let third = arena.allocate(2, Access::ReadWrite).expect("memory");
        arena.release(third, 2);
        assert_eq!(arena.allocate(2, Access::ReadWrite), Some(first), "the oldest came back");
    }

    #[test]
    fn a_freed_page_stays_hidden_while_a_thousand_others_are_freed() {
        let arena = Arena::reserve(None, 4 * WARM_QUARANTINE * PAGE, 0).expect("address space");
        let first = arena.allocate(1, Access::ReadWrite).expect("memory");
        arena.release(first, 1);
        for _ in 0..WARM_QUARANTINE - 1 {
            let other = arena.allocate(1, Access::ReadWrite).expect("memory");
            assert_ne!(other, first);
            arena.release(other, 1);
        }
        assert_eq!(arena.allocate(1, Access::ReadWrite), Some(first), "the oldest came back");
    }

    #[test]
    fn runs_are_zeroed_even_when_reused() {
        let arena = Arena::reserve(None, 4 * WARM_QUARANTINE * PAGE, 0).expect("address space");
        for pages in [1, 2] {
            let run = arena.allocate(pages, Access::ReadWrite).expect("memory");
            Raw::<u64>::at(run).write(7);
            arena.release(run, pages);
            let again = (0..=WARM_QUARANTINE).find_map(|_| {
                let other = arena.allocate(pages, Access::ReadWrite).expect("memory");
                let value = Raw::<u64>::at(other).read();
                arena.release(other, pages);
                (other == run).then_some(value)
            });
            assert_eq!(again, Some(0), "{pages} pages");
        }
    }

    #[test]
    fn a_reused_page_has_the_access_that_was_asked_for() {
        let arena = Arena::reserve(None, 4 * WARM_QUARANTINE * PAGE, 0).expect("address space");
        for _ in 0..WARM_QUARANTINE {
            let page = arena.allocate(1, Access::ReadWrite).expect("memory");
            arena.release(page, 1);
        }
        let page = arena.allocate(1, Access::Read).expect("memory");
        assert_eq!(crate::nt::arena::access_in_maps(page).as_deref(), Some("r--p"));
        arena.release(page, 1);
        assert_eq!(crate::nt::arena::access_in_maps(page).as_deref(), Some("---p"));
    }

    #[test]
    fn an_exhausted_range_is_reported() {
        let arena = Arena::reserve(None, 4 * PAGE, 0).expect("address space");
        assert!(arena.allocate(2, Access::Read).is_some());
        assert!(arena.allocate(1, Access::Read).is_none());
    }
}
