//! Page-granular memory of a machine, every allocation between guard pages.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags};

use super::mappings;
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
/// have a quarantine of their own, counted in pages, since each takes a mapping and Linux has about 65,000 of them;
/// [`mappings`] bounds how many there are in all arenas of this Linux process.
///
/// An arena of user memory shows its pages twice ([`Arena::reserve_twice`]): what a driver may do at the addresses that it
/// knows can then change from moment to moment, while the host goes on at its own.
#[derive(Debug)]
pub(crate) struct Arena {
    base: usize,
    length: usize,
    quarantine_cap: usize,
    twin: Option<Twin>,
    state: Mutex<State>,
}

/// The second view of an arena's pages: always accessible, and known to the host alone.
#[derive(Debug)]
struct Twin {
    base: usize,
    /// Holds the pages, each at the offset that its address in the first view is.
    file: &'static OwnedFd,
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
    /// Pages that show another file than the arena's own.
    placed: BTreeSet<usize>,
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
        Some(Self::new(mapped.expose_provenance(), length, quarantine_cap, None))
    }

    /// Reserves `length` bytes at `address`, whose pages lie in `file` (at the offset `address`), and shows them a second
    /// time, always accessible, where Linux likes: see [`Arena::host`].
    pub(crate) fn reserve_twice(
        address: usize,
        length: usize,
        quarantine_cap: usize,
        file: &'static OwnedFd,
    ) -> Option<Self> {
        let wish = std::ptr::without_provenance_mut(address);
        let (flags, offset) = (MapFlags::SHARED | MapFlags::NORESERVE, address as u64);
        let exactly = flags | MapFlags::FIXED_NOREPLACE;
        // SAFETY: a new mapping; FIXED_NOREPLACE refuses to touch what exists.
        unsafe { rustix::mm::mmap(wish, length, ProtFlags::empty(), exactly, file, offset) }.ok()?;
        let mut arena = Self::new(address, length, quarantine_cap, None);
        let both = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at an address of Linux's choice.
        let twin = unsafe { rustix::mm::mmap(std::ptr::null_mut(), length, both, flags, file, offset) }.ok()?;
        arena.twin = Some(Twin { base: twin.expose_provenance(), file });
        Some(arena)
    }

    fn new(base: usize, length: usize, quarantine_cap: usize, twin: Option<Twin>) -> Self {
        let state = State { frontier: PAGE, ..State::default() };
        Self { base, length, quarantine_cap, twin, state: Mutex::new(state) }
    }

    /// Where the host finds what is at `address` of a run that is handed out, whatever may be done at that address itself.
    /// The same address, for an arena whose pages are shown once.
    pub(crate) fn host(&self, address: usize) -> usize {
        self.twin.as_ref().map_or(address, |twin| twin.base + (address - self.base))
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
            let ready = match self.twin {
                Some(_) => Access::None,
                None if self.protect(address, 1, Access::ReadWrite) => Access::ReadWrite,
                None => return None,
            };
            Raw::<u8>::at(self.host(address)).fill(0, PAGE);
            return (access == ready || self.protect(address, 1, access)).then_some(address);
        }
        let address = self.take(1)?;
        let apart = mappings::take() && set_apart(address);
        if apart {
            self.lock().warm.insert(address - self.base);
        }
        (access == Access::None || self.protect(address, 1, access)).then_some(address)
    }

    /// Replaces pages of a run that is handed out by pages of `file`, with `access` (in the host's view always all of it).
    pub(crate) fn place_file(
        &self,
        address: usize,
        file: &impl std::os::fd::AsFd,
        offset: u64,
        pages: usize,
        access: Access,
    ) -> bool {
        debug_assert!(self.contains(address), "a run of this arena");
        {
            let mut state = self.lock();
            let first = address - self.base;
            state.placed.extend((0..pages).map(|index| first + index * PAGE));
            // A page of the file is not one to be kept for the next owner.
            state.forget_warm(first);
        }
        self.show(address, file, offset, pages, access)
    }

    /// Puts pages of a file in both views.
    fn show(&self, address: usize, file: &impl std::os::fd::AsFd, offset: u64, pages: usize, access: Access) -> bool {
        let mut views = vec![(address, access)];
        if self.twin.is_some() {
            views.push((self.host(address), Access::ReadWrite));
        }
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        views.into_iter().all(|(at, access)| {
            let place = std::ptr::with_exposed_provenance_mut(at);
            // SAFETY: the run is inside our reservation and handed to this caller alone.
            let shown = unsafe { rustix::mm::mmap(place, pages * PAGE, access.mmap(), flags, file, offset) };
            shown.inspect_err(|error| mappings::failed(*error)).is_ok()
        })
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
        let changed = unsafe { rustix::mm::mprotect(place, pages * PAGE, access.mprotect()) };
        changed.inspect_err(|error| mappings::failed(*error)).is_ok()
    }

    /// Takes a run back: its contents are dropped, and it is inaccessible from now on.
    pub(crate) fn release(&self, address: usize, pages: usize) {
        let offset = address - self.base;
        if pages == 1 && self.hide(offset) {
            return;
        }
        if !self.empty(address, pages) {
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

    /// Drops the contents of a run and makes it inaccessible.
    fn empty(&self, address: usize, pages: usize) -> bool {
        let length = pages * PAGE;
        let Some(twin) = &self.twin else {
            let place = std::ptr::with_exposed_provenance_mut(address);
            let flags = MapFlags::PRIVATE | MapFlags::NORESERVE | MapFlags::FIXED;
            // SAFETY: the run is ours; mapping over it drops memory and file pages alike.
            return unsafe { rustix::mm::mmap_anonymous(place, length, ProtFlags::empty(), flags) }.is_ok();
        };
        let has_others = {
            let (mut state, first) = (self.lock(), address - self.base);
            let others: Vec<usize> = state.placed.range(first..first + length).copied().collect();
            state.placed.retain(|page| !others.contains(page));
            !others.is_empty()
        };
        let hidden = if has_others {
            self.show(address, twin.file, address as u64, pages, Access::None)
        } else {
            self.protect(address, pages, Access::None)
        };
        let place = std::ptr::with_exposed_provenance_mut(self.host(address));
        // SAFETY: the run is ours, and nobody looks at it any more; its pages become holes in the file.
        hidden && unsafe { rustix::mm::madvise(place, length, Advice::LinuxRemove) }.is_ok()
    }

    /// Keeps a page with a mapping of its own for later; false when it has none, or there are enough such pages.
    fn hide(&self, offset: usize) -> bool {
        {
            let mut state = self.lock();
            if state.hidden.len() >= WARM_LIMIT {
                state.forget_warm(offset);
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

/// Gives a page a mapping of its own.
fn set_apart(address: usize) -> bool {
    let place = std::ptr::with_exposed_provenance_mut(address);
    // Linux joins neighbours that are alike, and splits them again: what dumps leave out is not like its neighbours.
    // SAFETY: the page is inside the arena's reservation; the advice is only about core dumps.
    let apart = unsafe { rustix::mm::madvise(place, PAGE, Advice::LinuxDontDump) }.is_ok();
    if !apart {
        mappings::give_back(1);
    }
    apart
}

impl State {
    /// A page is no longer one that keeps its mapping.
    fn forget_warm(&mut self, offset: usize) {
        if self.warm.remove(&offset) {
            mappings::give_back(1);
        }
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        mappings::give_back(self.lock().warm.len());
        if let Some(twin) = &self.twin {
            let place = std::ptr::with_exposed_provenance_mut(twin.base);
            // Before the addresses can be anybody else's, since the file's pages are known by them.
            // SAFETY: the second view is ours, and nobody looks at it any more.
            let _ = unsafe { rustix::mm::madvise(place, self.length, Advice::LinuxRemove) };
            // SAFETY: as above.
            let _ = unsafe { rustix::mm::munmap(place, self.length) };
        }
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
