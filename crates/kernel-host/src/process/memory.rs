//! User memory of one simulated process.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nt_types::NtStatus;

pub(crate) mod describing;
pub(crate) mod locking;
pub(crate) mod securing;
pub(crate) mod view;

use super::Process;
use super::exposure::Watch;
use super::slices::Slice;
use crate::nt::arena::{Access, PAGE, pages_for};
use crate::nt::raw::Raw;

/// `PAGE_*` protections that programs give their memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// `PAGE_NOACCESS`.
    NoAccess,
    /// `PAGE_READONLY`.
    ReadOnly,
    /// `PAGE_READWRITE`.
    ReadWrite,
    /// `MEM_RESERVE` without `MEM_COMMIT`: addresses without memory.
    Reserved,
    /// `PAGE_READWRITE | PAGE_GUARD`: the first touch fails with `STATUS_GUARD_PAGE_VIOLATION` and makes the page ordinary.
    Guard,
}

impl Protection {
    const fn access(self) -> Access {
        match self {
            Self::NoAccess | Self::Reserved | Self::Guard => Access::None,
            Self::ReadOnly => Access::Read,
            Self::ReadWrite => Access::ReadWrite,
        }
    }
}

/// Where in its pages an allocation lies. Pages before and after are never accessible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// At the end, aligned to 16 bytes as a heap would.
    Aligned,
    /// Its last byte is the last of the page: the first byte of an overrun faults. The address is unaligned.
    Exact,
    /// At the start of its first page: an underrun faults.
    PageStart,
}

/// The map of a process's user memory, and the way for host code to touch it without faulting.
///
/// The host goes through a view of its own: what a driver can touch at a user address changes from moment to moment, see
/// [`exposure`](super::exposure).
pub struct UserMemory(Arc<Regions>);

/// Shared with the fault handler, which finds it by address.
#[derive(Debug)]
pub(crate) struct Regions {
    slice: Slice,
    watch: Arc<Watch>,
    /// Regions by address of their first page.
    map: Mutex<BTreeMap<usize, Region>>,
    secured: securing::SecuredRanges,
}

#[derive(Debug)]
struct Region {
    address: usize,
    /// What it was allocated with.
    initial: Protection,
    /// One entry per page.
    pages: Vec<Page>,
    /// Once a page was locked, or for a driver's pages.
    frames: Option<locking::Frames>,
}

#[derive(Clone, Copy, Debug)]
struct Page {
    protection: Protection,
    /// Drivers can touch it, as far as the protection lets them; else it is hidden from them.
    open: bool,
}

impl UserMemory {
    pub(super) fn new(watch: Arc<Watch>) -> Result<Self, NtStatus> {
        let regions = |slice| {
            Arc::new(Regions { slice, watch, map: Mutex::default(), secured: securing::SecuredRanges::default() })
        };
        Slice::take(regions).map(Self).ok_or(NtStatus::NO_MEMORY)
    }

    /// Allocates `length` zeroed bytes; a length of 0 gives an address at which nothing may be touched.
    ///
    /// # Errors
    /// `STATUS_NO_MEMORY`.
    pub fn allocate(&self, length: usize, protection: Protection, placement: Placement) -> Result<usize, NtStatus> {
        let pages = pages_for(length).max(1);
        let protection = if length == 0 { Protection::NoAccess } else { protection };
        let open = !self.0.watch.hides_new_memory();
        let access = if open { protection.access() } else { Access::None };
        let run = self.0.slice.arena.allocate(pages, access).ok_or(NtStatus::NO_MEMORY)?;
        let address = match placement {
            Placement::PageStart => run,
            Placement::Exact => run + pages * PAGE - length,
            Placement::Aligned => run + pages * PAGE - length.next_multiple_of(16).min(pages * PAGE),
        };
        let pages = vec![Page { protection, open }; pages];
        self.0.lock().insert(run, Region { address, initial: protection, pages, frames: None });
        Ok(address)
    }

    /// Changes the protection of the pages that hold `length` bytes at `address`.
    ///
    /// # Errors
    /// `STATUS_INVALID_ADDRESS` when they are not all of one allocation; `STATUS_INVALID_PAGE_PROTECTION` when a driver has
    /// secured them and the new protection allows less.
    pub fn protect(&self, address: usize, length: usize, protection: Protection) -> Result<(), NtStatus> {
        self.0.secured.check(address, length, protection)?;
        let mut map = self.0.lock();
        let (&run, region) = map.range_mut(..=address).next_back().ok_or(NtStatus::INVALID_ADDRESS)?;
        let first = (address - run) / PAGE;
        let end = pages_for(address - run + length.max(1));
        let pages = region.pages.get_mut(first..end).ok_or(NtStatus::INVALID_ADDRESS)?;
        // Hidden until a driver touches them again, which is when the new protection counts.
        if !self.0.slice.arena.protect(run + first * PAGE, pages.len(), Access::None) {
            return Err(NtStatus::NO_MEMORY);
        }
        pages.fill(Page { protection, open: false });
        Ok(())
    }

    /// Frees an allocation by its address; the addresses stay inaccessible.
    ///
    /// # Errors
    /// `STATUS_INVALID_ADDRESS` when nothing was allocated there; `STATUS_INVALID_PAGE_PROTECTION` when a driver has secured it;
    /// `STATUS_UNABLE_TO_DELETE_SECTION` for a mapped view.
    pub fn free(&self, address: usize) -> Result<(), NtStatus> {
        let mut map = self.0.lock();
        let (&run, region) = map.range(..=address).next_back().ok_or(NtStatus::INVALID_ADDRESS)?;
        if region.address != address {
            return Err(NtStatus::INVALID_ADDRESS);
        }
        if region.is_view() {
            return Err(NtStatus::UNABLE_TO_DELETE_SECTION);
        }
        let pages = region.pages.len();
        self.0.secured.check(run, pages * PAGE, Protection::NoAccess)?;
        map.remove(&run);
        self.0.slice.arena.release(run, pages);
        Ok(())
    }

    /// Frees everything.
    pub(super) fn free_all(&self) {
        let mut map = self.0.lock();
        for (run, region) in std::mem::take(&mut *map) {
            self.0.slice.arena.release(run, region.pages.len());
        }
    }

    /// Copies user memory out, without ever faulting.
    ///
    /// # Errors
    /// `STATUS_ACCESS_VIOLATION` or `STATUS_GUARD_PAGE_VIOLATION`, as a program's own access would end. What was
    /// accessible before the bad page has been copied.
    pub fn read(&self, address: usize, into: &mut [u8]) -> Result<(), NtStatus> {
        self.0.read(address, into)
    }

    /// `length` bytes of user memory. Errors as for [`read`](Self::read).
    pub fn read_vec(&self, address: usize, length: usize) -> Result<Vec<u8>, NtStatus> {
        let mut bytes = Vec::with_capacity(length);
        self.0.each_page(address, length, false, |at, length| Raw::<u8>::at(at).append_to(&mut bytes, length))?;
        Ok(bytes)
    }

    /// Copies into user memory, without ever faulting. Errors as for [`read`](Self::read).
    pub fn write(&self, address: usize, bytes: &[u8]) -> Result<(), NtStatus> {
        self.0.write(address, bytes)
    }

    /// Whether `address` is in an allocated, accessible page.
    #[must_use]
    pub fn is_accessible(&self, address: usize) -> bool {
        self.0.lock_page(address, |page| matches!(page, Protection::ReadOnly | Protection::ReadWrite)).unwrap_or(false)
    }
}

impl fmt::Debug for UserMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} regions", self.0.lock().len())
    }
}

impl Regions {
    /// Makes a guard page ordinary; true when it was one.
    pub(super) fn consume_guard(&self, address: usize) -> bool {
        let mut map = self.lock();
        let Some((&run, region)) = map.range_mut(..=address).next_back() else { return false };
        let index = (address - run) / PAGE;
        let is_guard = region.pages.get(index).is_some_and(|page| page.protection == Protection::Guard);
        if is_guard {
            disarm(index, region);
        }
        is_guard
    }

    /// As [`UserMemory::read`], for a request whose buffer is known by its address alone.
    pub(crate) fn read(&self, address: usize, into: &mut [u8]) -> Result<(), NtStatus> {
        let mut rest = into;
        self.each_page(address, rest.len(), false, |at, length| {
            let (now, later) = std::mem::take(&mut rest).split_at_mut(length);
            Raw::<u8>::at(at).read_into(now);
            rest = later;
        })
    }

    /// As [`UserMemory::write`], for a request whose buffer is known by its address alone.
    pub(crate) fn write(&self, address: usize, bytes: &[u8]) -> Result<(), NtStatus> {
        let mut rest = bytes;
        self.each_page(address, bytes.len(), true, |at, length| {
            let (now, later) = rest.split_at(length);
            Raw::<u8>::at(at).write_bytes(now);
            rest = later;
        })
    }

    /// Has `source` write to a range that the program could write to: gets where the host finds it, and its length.
    ///
    /// # Errors
    /// As for [`UserMemory::write`].
    pub(crate) fn fill<R>(
        &self,
        address: usize,
        length: usize,
        source: impl FnOnce(usize, usize) -> R,
    ) -> Result<R, NtStatus> {
        let mut map = self.lock();
        each_page(&mut map, address, length, true, |_, _| ())?;
        // One allocation, or there would be inaccessible pages in it; the host's view is in the same order.
        let result = source(self.slice.arena.host(address), length);
        // Until now nobody could free it.
        drop(map);
        Ok(result)
    }

    /// Calls `body` for each page's part of the range, as the host sees it, under the map's lock, so that nothing changes
    /// meanwhile.
    fn each_page(
        &self,
        address: usize,
        length: usize,
        write: bool,
        mut body: impl FnMut(usize, usize),
    ) -> Result<(), NtStatus> {
        each_page(&mut self.lock(), address, length, write, |at, length| body(self.slice.arena.host(at), length))
    }

    fn lock_page<R>(&self, address: usize, body: impl FnOnce(Protection) -> R) -> Option<R> {
        let map = self.lock();
        let (&run, region) = map.range(..=address).next_back()?;
        region.pages.get((address - run) / PAGE).map(|page| body(page.protection))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<usize, Region>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls `body` for each page's part of a range in which a program may read, or write.
fn each_page(
    map: &mut BTreeMap<usize, Region>,
    address: usize,
    length: usize,
    write: bool,
    mut body: impl FnMut(usize, usize),
) -> Result<(), NtStatus> {
    let end = address.checked_add(length).ok_or(NtStatus::ACCESS_VIOLATION)?;
    let mut at = address;
    while at < end {
        let (&run, region) = map.range_mut(..=at).next_back().ok_or(NtStatus::ACCESS_VIOLATION)?;
        let index = (at - run) / PAGE;
        match region.pages.get(index).map(|page| page.protection) {
            Some(Protection::ReadWrite) => {}
            Some(Protection::ReadOnly) if !write => {}
            Some(Protection::Guard) => {
                disarm(index, region);
                return Err(NtStatus::GUARD_PAGE_VIOLATION);
            }
            _ => return Err(NtStatus::ACCESS_VIOLATION),
        }
        let length = (end - at).min(run + (index + 1) * PAGE - at);
        body(at, length);
        at += length;
    }
    Ok(())
}

/// Makes a guard page ordinary. It was hidden, and stays so until a driver touches it again.
fn disarm(index: usize, region: &mut Region) {
    if let Some(page) = region.pages.get_mut(index) {
        *page = Page { protection: Protection::ReadWrite, open: false };
    }
}

/// A user allocation that is freed with its owner.
#[derive(Debug)]
pub struct UserBuffer {
    process: Arc<Process>,
    address: usize,
    length: usize,
}

impl UserBuffer {
    pub(super) fn new(process: Arc<Process>, address: usize, length: usize) -> Self {
        Self { process, address, length }
    }

    /// User address of its first byte.
    #[must_use]
    pub fn address(&self) -> usize {
        self.address
    }

    /// Its length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.length
    }

    /// Whether its length is 0.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Its contents. Errors as for [`UserMemory::read`].
    pub fn read(&self) -> Result<Vec<u8>, NtStatus> {
        self.process.memory().read_vec(self.address, self.length)
    }

    /// Overwrites its start. Errors as for [`UserMemory::write`].
    pub fn write(&self, bytes: &[u8]) -> Result<(), NtStatus> {
        self.process.memory().write(self.address, bytes)
    }

    /// Changes the protection of all its pages. Errors as for [`UserMemory::protect`].
    pub fn protect(&self, protection: Protection) -> Result<(), NtStatus> {
        self.process.memory().protect(self.address, self.length, protection)
    }
}

impl Drop for UserBuffer {
    fn drop(&mut self) {
        // Fails only when the process exited meanwhile and freed everything itself.
        let _ = self.process.memory().free(self.address);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use nt_types::NtStatus;

    use super::{Placement, Protection, UserMemory};
    use crate::nt::arena::PAGE;
    use crate::process::{HIGHEST_USER_ADDRESS, guard_page_hit};

    fn memory() -> UserMemory {
        UserMemory::new(Arc::default()).expect("address space")
    }

    #[test]
    fn user_memory_lies_below_the_highest_user_address_and_ends_with_its_page() {
        let memory = memory();
        let address = memory.allocate(100, Protection::ReadWrite, Placement::Exact).expect("memory");
        assert!((0x1_0000..=HIGHEST_USER_ADDRESS).contains(&address));
        assert_eq!((address + 100) % PAGE, 0);
        assert_eq!(memory.write(address, &[1; 100]), Ok(()));
        assert_eq!(memory.write(address, &[1; 101]), Err(NtStatus::ACCESS_VIOLATION));
    }

    #[test]
    fn processes_have_disjoint_addresses() {
        let (first, second) = (memory(), memory());
        let address = first.allocate(8, Protection::ReadWrite, Placement::Aligned).expect("memory");
        assert_eq!(first.read_vec(address, 8), Ok(vec![0; 8]));
        assert_eq!(second.read_vec(address, 8), Err(NtStatus::ACCESS_VIOLATION));
    }

    #[test]
    fn read_only_memory_can_be_read_but_not_written() {
        let memory = memory();
        let address = memory.allocate(8, Protection::ReadOnly, Placement::Aligned).expect("memory");
        assert_eq!(memory.read_vec(address, 8), Ok(vec![0; 8]));
        assert_eq!(memory.write(address, &[1]), Err(NtStatus::ACCESS_VIOLATION));
        memory.protect(address, 8, Protection::ReadWrite).expect("its own page");
        assert_eq!(memory.write(address, &[1]), Ok(()));
    }

    #[test]
    fn a_guard_page_fails_once() {
        let memory = memory();
        let address = memory.allocate(8, Protection::Guard, Placement::Aligned).expect("memory");
        assert_eq!(memory.read_vec(address, 8), Err(NtStatus::GUARD_PAGE_VIOLATION));
        assert_eq!(memory.read_vec(address, 8), Ok(vec![0; 8]));
        memory.protect(address, 8, Protection::Guard).expect("its own page");
        assert!(guard_page_hit(address));
        assert!(!guard_page_hit(address));
    }

    #[test]
    fn freed_memory_is_inaccessible() {
        let memory = memory();
        let address = memory.allocate(PAGE, Protection::ReadWrite, Placement::PageStart).expect("memory");
        assert_eq!(memory.free(address), Ok(()));
        assert_eq!(memory.read_vec(address, 1), Err(NtStatus::ACCESS_VIOLATION));
        assert_eq!(memory.free(address), Err(NtStatus::INVALID_ADDRESS));
    }

    #[test]
    fn an_empty_allocation_has_an_address_but_no_byte() {
        let memory = memory();
        let address = memory.allocate(0, Protection::ReadWrite, Placement::Aligned).expect("memory");
        assert_eq!(memory.read_vec(address, 1), Err(NtStatus::ACCESS_VIOLATION));
        assert_eq!(memory.read_vec(address, 0), Ok(vec![]));
    }

    #[test]
    fn an_address_that_wraps_is_refused() {
        assert_eq!(memory().read_vec(usize::MAX - 3, 8), Err(NtStatus::ACCESS_VIOLATION));
    }
}
