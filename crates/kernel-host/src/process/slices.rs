//! Low addresses of the Linux process, dealt out to simulated processes.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};

use super::memory::Regions;
use crate::nt::arena::Arena;

/// `MmHighestUserAddress` of simulated machines: every address above belongs to "the kernel", that is, to Linux's usual
/// mappings, which all lie higher.
pub const HIGHEST_USER_ADDRESS: usize = 0x1FFF_FFFE_FFFF;

/// Bytes of address space per simulated process.
const SLICE: usize = 1 << 34;

/// The first slice starts above 4 GiB: a driver that cuts a pointer to 32 bits hits nothing, and faults.
const FIRST: usize = SLICE;

/// Freed user memory stays inaccessible for this many bytes of later frees.
const QUARANTINE: usize = 1 << 32;

/// Slices in use, by start address. Global, because it describes the one Linux address space.
static OWNERS: Mutex<BTreeMap<usize, Weak<Regions>>> = Mutex::new(BTreeMap::new());

/// One process's part of the low addresses.
#[derive(Debug)]
pub(super) struct Slice {
    start: usize,
    pub(super) arena: Arena,
}

impl Slice {
    /// Takes a free slice for `owner`; `None` when all are in use.
    pub(super) fn take(owner: impl FnOnce(Slice) -> Arc<Regions>) -> Option<Arc<Regions>> {
        let mut owners = lock();
        let mut start = FIRST;
        let slice = loop {
            if start + SLICE > HIGHEST_USER_ADDRESS {
                return None;
            }
            // A slice that something else in this Linux process occupies is skipped.
            if !owners.contains_key(&start)
                && let Some(arena) = Arena::reserve_twice(start, SLICE, QUARANTINE, file())
            {
                break Slice { start, arena };
            }
            start += SLICE;
        };
        let regions = owner(slice);
        owners.insert(start, Arc::downgrade(&regions));
        Some(regions)
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        lock().remove(&self.start);
    }
}

/// Consumes a guard page: true when `address` is in a user page with `PAGE_GUARD`, which is now an ordinary page.
///
/// For the fault handler, which then raises `STATUS_GUARD_PAGE_VIOLATION` in the driver instead of an access violation.
#[must_use]
pub fn guard_page_hit(address: usize) -> bool {
    owner_of(address).is_some_and(|regions| regions.consume_guard(address))
}

/// The memory of the process whose part of the low addresses `address` is in.
pub(super) fn owner_of(address: usize) -> Option<Arc<Regions>> {
    let start = address / SLICE * SLICE;
    lock().get(&start).and_then(Weak::upgrade)
}

/// The pages of all user memory, each at the offset that its address is, so that they can be mapped twice. Most of it are
/// holes. One for the whole Linux process, which may have only so many files open.
fn file() -> &'static OwnedFd {
    static FILE: OnceLock<OwnedFd> = OnceLock::new();
    FILE.get_or_init(|| {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let file = rustix::fs::memfd_create("kernel-host user memory", flags);
        let file = file.expect("Linux offers anonymous files since 3.17");
        rustix::fs::ftruncate(&file, HIGHEST_USER_ADDRESS as u64 + 1).expect("a sparse file may have any length");
        file
    })
}

fn lock() -> MutexGuard<'static, BTreeMap<usize, Weak<Regions>>> {
    OWNERS.lock().unwrap_or_else(PoisonError::into_inner)
}
