//! Physically contiguous memory, and what physical address a kernel address has.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::arena::{Access, PAGE, pages_for};
use super::mdl::{kernel_frame, kernel_page};
use super::physical::Owner;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::origin::Origin;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    MmAllocateContiguousMemory(max 2, fails NULL) = allocate;
    MmAllocateContiguousMemorySpecifyCache(max 2, fails NULL) = allocate_specify_cache;
    MmAllocateContiguousMemorySpecifyCacheNode(max 2, fails NULL) = allocate_specify_cache_node;
    MmAllocateContiguousNodeMemory(max 2, fails NULL) = allocate_node;
    MmFreeContiguousMemory(max 2) = free;
    MmFreeContiguousMemorySpecifyCache(max 2) = free_specify_cache;
    MmGetPhysicalAddress(max 31) = mm_get_physical_address;
    MmGetVirtualForPhysical(max 31) = mm_get_virtual_for_physical;
}

/// Blocks of contiguous memory, by address: their first frame and number of pages.
#[derive(Debug, Default)]
pub(crate) struct Contiguous(Mutex<HashMap<usize, (u64, usize)>>);

impl Contiguous {
    fn lock(&self) -> MutexGuard<'_, HashMap<usize, (u64, usize)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Pages of the block at an address.
    pub(super) fn pages_at(&self, address: usize) -> Option<usize> {
        self.lock().get(&address).map(|(_, pages)| *pages)
    }

    /// The frame of an address in a block.
    fn frame(&self, address: usize) -> Option<u64> {
        let page = address & !(PAGE - 1);
        let blocks = self.lock();
        let (start, (frame, _)) =
            blocks.iter().find(|(start, (_, pages))| page.wrapping_sub(**start) < pages * PAGE)?;
        Some(frame + ((page - start) / PAGE) as u64)
    }

    /// The address at which a frame is mapped.
    fn address(&self, frame: u64) -> Option<usize> {
        let blocks = self.lock();
        let (start, (first, _)) =
            blocks.iter().find(|(_, (first, pages))| frame.wrapping_sub(*first) < *pages as u64)?;
        Some(start + (frame - first) as usize * PAGE)
    }
}

extern "efiapi" fn allocate(bytes: usize, highest: u64) -> usize {
    take(&Call::enter(), bytes, (0, highest, 0))
}

extern "efiapi" fn allocate_specify_cache(
    bytes: usize,
    lowest: u64,
    highest: u64,
    boundary: u64,
    _cache: i32,
) -> usize {
    take(&Call::enter(), bytes, (lowest, highest, boundary))
}

extern "efiapi" fn allocate_specify_cache_node(
    bytes: usize,
    lowest: u64,
    highest: u64,
    boundary: u64,
    _cache: i32,
    _node: u32,
) -> usize {
    take(&Call::enter(), bytes, (lowest, highest, boundary))
}

extern "efiapi" fn allocate_node(
    bytes: usize,
    lowest: u64,
    highest: u64,
    boundary: u64,
    _protect: u32,
    _node: u32,
) -> usize {
    take(&Call::enter(), bytes, (lowest, highest, boundary))
}

/// Allocates frames between two physical addresses, which do not cross a boundary, if one is given; 0 when there are none.
pub(super) fn take(call: &Call, bytes: usize, (lowest, highest, boundary): (u64, u64, u64)) -> usize {
    if bytes == 0 {
        call.stop(Rule::BadArgument, "contiguous memory of 0 bytes");
    }
    let page = PAGE as u64;
    if !boundary.is_multiple_of(page) || boundary != 0 && !boundary.is_power_of_two() {
        call.stop(Rule::BadArgument, format!("boundary {boundary:#x} is no power of two of whole pages"));
    }
    let nt = &call.machine().nt;
    let owner =
        Owner { driver: Arc::clone(call.driver()), ddi: call.site().export.name, site: Origin::of(call.site()) };
    let pages = pages_for(bytes);
    let limits = (lowest.div_ceil(page), (highest / page).min((u64::MAX >> 12) - 1));
    let first = nt.physical().take_contiguous(pages as u64, limits.0, limits.1, boundary / page, &owner);
    let Some(first) = first else { return 0 };
    let frames: Vec<u64> = (first..first + pages as u64).collect();
    let Some(address) = nt.physical().map(nt.arena(), &frames, Access::ReadWrite) else {
        nt.physical().give_back(&frames).expect("they were taken just now");
        return 0;
    };
    call.bytes(bytes as u64);
    nt.contiguous().lock().insert(address, (first, pages));
    address
}

extern "efiapi" fn free(address: usize) {
    give_back(&Call::enter(), address);
}

extern "efiapi" fn free_specify_cache(address: usize, _bytes: usize, _cache: i32) {
    give_back(&Call::enter(), address);
}

/// Frees what [`take`] gave; stops on anything else.
pub(super) fn give_back(call: &Call, address: usize) {
    let nt = &call.machine().nt;
    let removed = nt.contiguous().lock().remove(&address);
    let Some((first, pages)) = removed else {
        call.stop(Rule::BadPoolFree, format!("{address:#x} is no contiguous memory, or was freed before"));
    };
    nt.arena().release(address, pages);
    let frames: Vec<u64> = (first..first + pages as u64).collect();
    nt.physical().give_back(&frames).expect("they were this block's until now");
}

/// The physical address of a kernel address, as drivers see it: of a simulated page frame, or for other memory a number from
/// which the address can be told again.
extern "efiapi" fn mm_get_physical_address(address: usize) -> u64 {
    let call = Call::enter();
    let frame = call.machine().nt.contiguous().frame(address).unwrap_or_else(|| kernel_frame(address));
    frame * PAGE as u64 + (address % PAGE) as u64
}

extern "efiapi" fn mm_get_virtual_for_physical(address: u64) -> usize {
    let call = Call::enter();
    let (frame, offset) = (address / PAGE as u64, (address % PAGE as u64) as usize);
    let page = kernel_page(frame).or_else(|| call.machine().nt.contiguous().address(frame));
    page.map_or(0, |page| page + offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;
    use crate::nt::raw::Raw;

    #[test]
    fn contiguous_memory_is_contiguous_below_its_limit() {
        conforms!(
            "ntddk/nf-ntddk-mmallocatecontiguousmemory.md",
            "The pages are physically contiguous, and end below the highest acceptable address."
        );
        conforms!("ntddk/nf-ntddk-mmgetphysicaladdress.md", "The physical address of a valid virtual one is returned.");
        let bench = Bench::new();
        bench
            .run(|| {
                let limit = 0x0FFF_FFFF;
                let block = allocate(100 * PAGE, limit);
                let first = mm_get_physical_address(block);
                assert!(
                    (0..100).all(|page| mm_get_physical_address(block + page * PAGE) == first + (page * PAGE) as u64)
                );
                assert!(first + 100 * PAGE as u64 - 1 <= limit);
                assert_eq!(mm_get_virtual_for_physical(first + 7), block + 7);
                Raw::<u8>::at(block + 99 * PAGE).write(1);
                free(block);
            })
            .unwrap();
        assert!(bench.machine().inner().nt.physical().leaks(bench.driver()).is_empty());
    }

    #[test]
    fn contiguous_memory_does_not_cross_its_boundary() {
        conforms!(
            "ntddk/nf-ntddk-mmallocatecontiguousmemoryspecifycache.md",
            "The memory does not cross a multiple of the boundary."
        );
        Bench::new()
            .run(|| {
                for _ in 0..5 {
                    let block = allocate_specify_cache(0x9000, 0, u64::MAX, 0x10000, 1);
                    let first = mm_get_physical_address(block);
                    assert_eq!(first / 0x10000, (first + 0x8FFF) / 0x10000, "{first:#x}");
                }
                assert_eq!(allocate_specify_cache(0x20000, 0, u64::MAX, 0x10000, 1), 0);
            })
            .unwrap();
    }

    #[test]
    fn contiguous_memory_is_freed_once_and_reported_when_it_is_not() {
        let bench = Bench::new();
        bench.run(|| _ = allocate(PAGE, u64::MAX)).unwrap();
        assert_eq!(bench.machine().inner().nt.physical().leaks(bench.driver())[0].count, 1);
        let stopped = Bench::new().run(|| {
            let block = allocate(PAGE, u64::MAX);
            free(block);
            free(block);
        });
        assert_eq!(stopped.unwrap_err().0.rule, Rule::BadPoolFree);
    }
}
