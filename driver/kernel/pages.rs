//! The memory of images: pages of their own, described by an MDL.
//!
//! Not pool: a device may need its firmware below some physical address, pages can be mapped read-only once the
//! image is complete, and nothing else shares them.

use broker::{Error, ImageAllocator, ImageMemory, WritableMemory};
use core::ptr::NonNull;
use core::slice;
use nt_types::{MdlMapping, MmAllocateFlags};
use wdk_sys::ntddk::{
    ExFreePool, MmAllocatePagesForMdlEx, MmFreePagesFromMdl, MmMapLockedPagesSpecifyCache, MmUnmapLockedPages,
};
use wdk_sys::{PHYSICAL_ADDRESS, PMDL};

/// Allocates from all of physical memory, below what the request allows.
pub(crate) struct PageAllocator;

/// Mapped pages. Unmapped and freed on drop, at PASSIVE_LEVEL.
struct Pages {
    mdl: PMDL,
    mapping: Mapping,
    length: usize,
}

/// A system-space mapping of an MDL's pages.
struct Mapping {
    address: NonNull<u8>,
}

/// Pages that an image is being read into: writable, not executable.
pub(crate) struct WritablePages(Pages);

/// Pages of a complete image: neither writable nor executable.
pub(crate) struct SealedPages(Pages);

impl ImageAllocator<SealedPages> for PageAllocator {
    type Writable = WritablePages;

    fn allocate(&mut self, size: usize, highest_address: u64) -> Result<WritablePages, Error> {
        let low = PHYSICAL_ADDRESS { QuadPart: 0 };
        let skip = PHYSICAL_ADDRESS { QuadPart: 0 };
        let high = PHYSICAL_ADDRESS { QuadPart: i64::try_from(highest_address).unwrap_or(i64::MAX) };
        let limited = highest_address < u64::MAX;
        // SAFETY: PASSIVE_LEVEL, any range and size are valid (rule: MmAllocatePagesForMdlEx). The pages are zeroed, and
        // all or none are allocated.
        let mdl = unsafe {
            MmAllocatePagesForMdlEx(
                low,
                high,
                skip,
                size as u64,
                wdk_sys::_MEMORY_CACHING_TYPE::MmCached,
                MmAllocateFlags::FULLY_REQUIRED.bits(),
            )
        };
        if mdl.is_null() {
            return Err(if limited { Error::NoMemoryBelowAddress } else { Error::OutOfMemory });
        }
        // From here on `Unmapped` frees the pages on every way out.
        let pages = Unmapped { mdl };
        if pages.byte_count() < size {
            return Err(if limited { Error::NoMemoryBelowAddress } else { Error::OutOfMemory });
        }
        let mapping = pages.map(MdlMapping::NORMAL_PRIORITY | MdlMapping::NO_EXECUTE)?;
        Ok(WritablePages(pages.with(mapping, size)))
    }
}

impl WritableMemory for WritablePages {
    type Sealed = SealedPages;

    fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: mapped writable for this length, zeroed by the allocator, and borrowed from us mutably.
        unsafe { slice::from_raw_parts_mut(self.0.mapping.address.as_ptr(), self.0.length) }
    }

    fn seal(self) -> Result<SealedPages, Error> {
        // The writable mapping goes before the read-only one comes: from then on there is no address through which
        // the bytes could be changed.
        let (pages, length) = self.0.unmap();
        let mapping = pages.map(MdlMapping::NORMAL_PRIORITY | MdlMapping::NO_EXECUTE | MdlMapping::NO_WRITE)?;
        Ok(SealedPages(pages.with(mapping, length)))
    }
}

impl ImageMemory for SealedPages {
    fn bytes(&self) -> &[u8] {
        // SAFETY: mapped read-only for this length, and nobody has a writable mapping.
        unsafe { slice::from_raw_parts(self.0.mapping.address.as_ptr(), self.0.length) }
    }
}

// SAFETY: system-space mappings are the same in every thread; all access is through &self or &mut self.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    /// Takes the mapping away.
    fn unmap(self) -> (Unmapped, usize) {
        let pages = Unmapped { mdl: self.mdl };
        let length = self.length;
        pages.unmap(&self.mapping);
        // Its destructor would do all this again, and free the pages as well.
        core::mem::forget(self);
        (pages, length)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // Frees the pages at the end of this scope, when they are no longer mapped.
        let pages = Unmapped { mdl: self.mdl };
        pages.unmap(&self.mapping);
    }
}

/// Allocated pages without a mapping. Freed on drop.
struct Unmapped {
    mdl: PMDL,
}

impl Unmapped {
    fn byte_count(&self) -> usize {
        // SAFETY: an MDL that the kernel gave us; the field is what MmGetMdlByteCount reads.
        unsafe { (*self.mdl).ByteCount as usize }
    }

    fn map(&self, how: MdlMapping) -> Result<Mapping, Error> {
        // SAFETY: the MDL's pages are allocated, hence locked; kernel mode, and no bug check on failure
        // (rule: MmMapLockedPagesSpecifyCache).
        let address = unsafe {
            MmMapLockedPagesSpecifyCache(
                self.mdl,
                nt_types::KERNEL_MODE,
                wdk_sys::_MEMORY_CACHING_TYPE::MmCached,
                core::ptr::null_mut(),
                0,
                how.bits().cast_signed(),
            )
        };
        NonNull::new(address.cast::<u8>()).map(|address| Mapping { address }).ok_or(Error::OutOfMemory)
    }

    fn with(self, mapping: Mapping, length: usize) -> Pages {
        let mdl = self.mdl;
        // The pages have a new owner.
        core::mem::forget(self);
        Pages { mdl, mapping, length }
    }

    fn unmap(&self, mapping: &Mapping) {
        // SAFETY: mapped by `map`, unmapped once, and nobody has a reference into it (rule: MmUnmapLockedPages).
        unsafe { MmUnmapLockedPages(mapping.address.as_ptr().cast(), self.mdl) };
    }
}

impl Drop for Unmapped {
    fn drop(&mut self) {
        // SAFETY: from MmAllocatePagesForMdlEx, not mapped, freed once (rule: MmFreePagesFromMdl).
        unsafe { MmFreePagesFromMdl(self.mdl) };
        // SAFETY: the MDL itself is pool of ours then (rule: MmFreePagesFromMdl's page).
        unsafe { ExFreePool(self.mdl.cast()) };
    }
}
