//! Memory descriptor lists and page protections.

use crate::PVOID;
use core::ptr;

/// Bytes of a page on x64 and ARM64.
pub const PAGE_SIZE: usize = 4096;

/// `MDL`: header of a memory descriptor list; the page frame numbers follow it (8 bytes each).
///
/// Opaque by rule, read through these fields by the header's macros
/// (`MmGetMdlByteCount`, `MmGetSystemAddressForMdlSafe`). DDI page: `wdm/ns-wdm-_mdl`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct MDL {
    /// Next in a chain, or NULL.
    pub Next: *mut MDL,
    /// Bytes of header and page array.
    pub Size: i16,
    /// [`MdlFlags`] bits.
    pub MdlFlags: i16,
    /// Processor that allocated the list.
    pub AllocationProcessorNumber: u16,
    /// Unused.
    pub Reserved: u16,
    /// Process whose pages are described, or NULL.
    pub Process: PVOID,
    /// Kernel address, when [`MdlFlags::MAPPED_TO_SYSTEM_VA`] or non-paged pool.
    pub MappedSystemVa: PVOID,
    /// Page-aligned virtual address of the first page.
    pub StartVa: PVOID,
    /// Bytes described.
    pub ByteCount: u32,
    /// Bytes from the first page's start to the first byte described.
    pub ByteOffset: u32,
}

crate::assert_layout!(MDL, 48, {
    Next: 0, Size: 8, MdlFlags: 10, Process: 16, MappedSystemVa: 24, StartVa: 32,
    ByteCount: 40, ByteOffset: 44,
});

impl MDL {
    /// All zero: describes nothing.
    pub const ZERO: Self = Self {
        Next: ptr::null_mut(),
        Size: 0,
        MdlFlags: 0,
        AllocationProcessorNumber: 0,
        Reserved: 0,
        Process: ptr::null_mut(),
        MappedSystemVa: ptr::null_mut(),
        StartVa: ptr::null_mut(),
        ByteCount: 0,
        ByteOffset: 0,
    };
}

bitflags::bitflags! {
    /// `MDL_*`: state of an [`MDL`].
    #[repr(transparent)]
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct MdlFlags: i16 {
        /// `MappedSystemVa` is valid.
        const MAPPED_TO_SYSTEM_VA = 0x0001;
        /// The pages are locked.
        const PAGES_LOCKED = 0x0002;
        /// Describes non-paged pool.
        const SOURCE_IS_NONPAGED_POOL = 0x0004;
        /// Came from a fixed-size allocation.
        const ALLOCATED_FIXED_SIZE = 0x0008;
        /// Part of another list.
        const PARTIAL = 0x0010;
        /// A partial list that was mapped.
        const PARTIAL_HAS_BEEN_MAPPED = 0x0020;
        /// For a paging read.
        const IO_PAGE_READ = 0x0040;
        /// The pages were locked for writing.
        const WRITE_OPERATION = 0x0080;
        /// A partial list that uses its parent's mapping.
        const PARENT_MAPPED_SYSTEM_VA = 0x0100;
        /// Describes device memory.
        const IO_SPACE = 0x0800;
        /// Mapping may fail instead of stopping the system.
        const MAPPING_CAN_FAIL = 0x2000;
    }
}

bitflags::bitflags! {
    /// `MM_ALLOCATE_*`: how `MmAllocatePagesForMdlEx` allocates.
    /// DDI page: `wdm/nf-wdm-mmallocatepagesformdlex`.
    #[repr(transparent)]
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct MmAllocateFlags: u32 {
        /// Pages are not zeroed first. Never for pages that somebody else may read.
        const DONT_ZERO = 0x0000_0001;
        /// Only pages of the ideal processor's memory node.
        const FROM_LOCAL_NODE_ONLY = 0x0000_0002;
        /// All pages or none (the default is "as many as there are").
        const FULLY_REQUIRED = 0x0000_0004;
        /// The allocation does not wait for memory.
        const NO_WAIT = 0x0000_0008;
        /// Large pages are preferred.
        const PREFER_CONTIGUOUS = 0x0000_0010;
        /// The pages are contiguous in chunks of `SkipBytes`.
        const REQUIRE_CONTIGUOUS_CHUNKS = 0x0000_0020;
        /// Speed over fragmentation.
        const FAST_LARGE_PAGES = 0x0000_0040;
    }
}

bitflags::bitflags! {
    /// Priority argument of `MmMapLockedPagesSpecifyCache`.
    /// DDI page: `wdm/nf-wdm-mmmaplockedpagesspecifycache`.
    #[repr(transparent)]
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct MdlMapping: u32 {
        /// `NormalPagePriority`: 16.
        const NORMAL_PRIORITY = 16;
        /// `HighPagePriority`: 32.
        const HIGH_PRIORITY = 32;
        /// `MdlMappingNoWrite`: the mapping is read-only.
        const NO_WRITE = 0x8000_0000;
        /// `MdlMappingNoExecute`: no code runs from the mapping.
        const NO_EXECUTE = 0x4000_0000;
    }
}

/// `MmCached`: the caching type of ordinary memory.
pub const MM_CACHED: i32 = 1;

/// `PAGE_NOACCESS`.
pub const PAGE_NOACCESS: u32 = 0x01;
/// `PAGE_READONLY`.
pub const PAGE_READONLY: u32 = 0x02;
/// `PAGE_READWRITE`.
pub const PAGE_READWRITE: u32 = 0x04;
/// `PAGE_WRITECOPY`.
pub const PAGE_WRITECOPY: u32 = 0x08;
/// `PAGE_EXECUTE`.
pub const PAGE_EXECUTE: u32 = 0x10;
/// `PAGE_EXECUTE_READ`.
pub const PAGE_EXECUTE_READ: u32 = 0x20;
/// `PAGE_EXECUTE_READWRITE`.
pub const PAGE_EXECUTE_READWRITE: u32 = 0x40;
/// `PAGE_GUARD`: the first touch raises STATUS_GUARD_PAGE_VIOLATION and clears the flag.
pub const PAGE_GUARD: u32 = 0x100;

bitflags::bitflags! {
    /// `POOL_FLAGS` of `ExAllocatePool2`. DDI page: `wdm/nf-wdm-exallocatepool2`.
    #[repr(transparent)]
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct PoolFlags: u64 {
        /// Charged to the process.
        const USE_QUOTA = 0x1;
        /// Not zeroed.
        const UNINITIALIZED = 0x2;
        /// Session pool.
        const SESSION = 0x4;
        /// Starts on a cache line.
        const CACHE_ALIGNED = 0x8;
        /// Raises instead of giving NULL.
        const RAISE_ON_FAILURE = 0x20;
        /// Non-paged, not executable.
        const NON_PAGED = 0x40;
        /// Non-paged and executable: forbidden under HVCI.
        const NON_PAGED_EXECUTE = 0x80;
        /// Paged.
        const PAGED = 0x100;
    }
}
