//! Memory descriptor lists: page allocation, mapping, and the lists of existing memory.
//! Pages: `wdm/nf-wdm-mmallocatepagesformdlex`, `wdm/nf-wdm-mmmaplockedpagesspecifycache` and their neighbours.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use nt_types::{
    KERNEL_MODE, KPROCESSOR_MODE, MDL, MdlFlags, MdlMapping, MmAllocateFlags, NtStatus, PAGE_EXECUTE_READ,
    PAGE_NOACCESS, PAGE_READONLY, PAGE_READWRITE,
};

use super::arena::{Access, PAGE};
use super::physical::Owner;
use super::pool::{PoolKind, Request};
use super::raw::{Raw, field};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::leak::{Leak, LeakKind};
use crate::machine::Driver;
use crate::origin::Origin;
use crate::process::Process;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    MmAllocatePagesForMdl(max 2, fails PAGES) = mm_allocate_pages_for_mdl;
    MmAllocatePagesForMdlEx(max 2, fails PAGES) = mm_allocate_pages_for_mdl_ex;
    MmFreePagesFromMdl(max 2) = mm_free_pages_from_mdl;
    MmMapLockedPages(max 2) = mm_map_locked_pages;
    MmMapLockedPagesSpecifyCache(max 2, fails MAPPING) = mm_map_locked_pages_specify_cache;
    MmUnmapLockedPages(max 2) = mm_unmap_locked_pages;
    MmProtectMdlSystemAddress(max 2) = mm_protect_mdl_system_address;
    MmBuildMdlForNonPagedPool(max 2) = mm_build_mdl_for_non_paged_pool;
    MmSizeOfMdl(max 31) = mm_size_of_mdl;
    IoAllocateMdl(max 2, fails NULL) = io_allocate_mdl;
    IoFreeMdl(max 2) = io_free_mdl;
}

/// Tag of the lists themselves, as Windows' own pool listings show it.
const MDL_TAG: u32 = u32::from_le_bytes(*b"Mdl ");

/// Most bytes that one list can describe: `ByteCount` has 32 bits.
const MAX_BYTES: usize = u32::MAX as usize - PAGE;

/// What cannot be described by the flags of a list.
const CONTIGUOUS: MmAllocateFlags = MmAllocateFlags::REQUIRE_CONTIGUOUS_CHUNKS;

pub(super) mod direct;
pub(super) mod locking;
pub(super) mod partial;
mod user;

/// Mappings of described pages, and pages that lists have locked.
#[derive(Debug, Default)]
pub(crate) struct Mappings {
    mapped: Mutex<HashMap<usize, Mapping>>,
    /// By address of the list.
    locked: Mutex<HashMap<usize, locking::Locked>>,
    /// Frames of kernel memory that is shown to programs, by address of the page.
    moved: Mutex<HashMap<usize, u64>>,
}

#[derive(Debug)]
struct Mapping {
    /// The first page; `None` where the pages are the kernel's own, at the address they have anyway.
    run: Option<usize>,
    pages: usize,
    list: usize,
    /// Whose memory the mapping is in, when it is not the kernel's.
    process: Option<Weak<Process>>,
    driver: Arc<Driver>,
    site: Origin,
}

impl Mapping {
    /// Whether it is still there: a process takes its mappings along.
    fn is_alive(&self) -> bool {
        self.process.as_ref().is_none_or(|process| process.upgrade().is_some_and(|process| !process.has_exited()))
    }
}

impl Mappings {
    /// Mappings that `driver` has not taken back.
    pub(crate) fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let mappings = self.lock();
        let mine = mappings.values().filter(|mapping| std::ptr::eq(Arc::as_ptr(&mapping.driver), driver));
        let mine = mine.filter(|mapping| mapping.is_alive());
        let leak = |mapping: &Mapping| Leak {
            kind: LeakKind::Mapping,
            count: 1,
            bytes: (mapping.pages * PAGE) as u64,
            detail: format!("mapping of the MDL at {:#x}, made from {}", mapping.list, mapping.site),
        };
        mine.map(leak).chain(self.locked_by(driver)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Mapping>> {
        self.mapped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

extern "efiapi" fn mm_allocate_pages_for_mdl(low: i64, high: i64, skip: i64, bytes: usize) -> Raw<MDL> {
    allocate_pages(&Call::enter(), low, high, skip, bytes, 0)
}

extern "efiapi" fn mm_allocate_pages_for_mdl_ex(
    low: i64,
    high: i64,
    skip: i64,
    bytes: usize,
    _cache_type: i32,
    flags: u32,
) -> Raw<MDL> {
    allocate_pages(&Call::enter(), low, high, skip, bytes, flags)
}

/// May describe fewer bytes than asked for, unless the flags forbid it: the documented trap of these two.
fn allocate_pages(call: &Call, low: i64, high: i64, skip: i64, bytes: usize, flags: u32) -> Raw<MDL> {
    let flags = MmAllocateFlags::from_bits_retain(flags);
    if flags.contains(CONTIGUOUS) {
        call.stop(Rule::NotImplemented, "MM_ALLOCATE_REQUIRE_CONTIGUOUS_CHUNKS is not simulated");
    }
    if bytes == 0 || bytes > MAX_BYTES {
        return Raw::NULL;
    }
    let required = bytes.div_ceil(PAGE) as u64;
    // Half of one page is none.
    let wanted = if call.falls_short() { required / 2 } else { required };
    let owner =
        Owner { driver: Arc::clone(call.driver()), ddi: call.site().export.name, site: Origin::of(call.site()) };
    let memory = call.machine().nt.physical();
    let frames = take_frames(call, (low, high, skip), wanted, &owner);
    let too_few = flags.contains(MmAllocateFlags::FULLY_REQUIRED) && (frames.len() as u64) < required;
    if frames.is_empty() || too_few {
        memory.give_back(&frames).expect("they were taken just now");
        return Raw::NULL;
    }
    let described = (frames.len() * PAGE).min(bytes.next_multiple_of(PAGE));
    let list = new_list(call, 0, described);
    if list.is_null() {
        memory.give_back(&frames).expect("they were taken just now");
        return list;
    }
    for (index, frame) in frames.iter().enumerate() {
        frame_slot(list, index).write(*frame);
    }
    field!(list, MDL, MdlFlags).write(MdlFlags::PAGES_LOCKED.bits());
    call.bytes(described as u64);
    list
}

/// Takes frames from the window `low..=high`; with `skip`, from further windows of the same size, each `skip` bytes on.
fn take_frames(call: &Call, (low, high, skip): (i64, i64, i64), wanted: u64, owner: &Owner) -> Vec<u64> {
    let memory = call.machine().nt.physical();
    let frame_of = |address: i64| address.cast_unsigned() / PAGE as u64;
    // The limits are unsigned: -1, "no limit", is the highest address there is.
    let (mut lowest, mut highest) = (frame_of(low), frame_of(high));
    let step = frame_of(skip);
    let mut frames: Vec<u64> = Vec::new();
    while lowest <= highest {
        let runs = memory.take(wanted - frames.len() as u64, lowest, highest, owner);
        frames.extend(runs.iter().flat_map(|(first, count)| *first..first + count));
        if step == 0 || frames.len() as u64 >= wanted || lowest > frame_of(i64::MAX) {
            break;
        }
        (lowest, highest) = (lowest + step, highest.saturating_add(step));
    }
    frames
}

extern "efiapi" fn mm_free_pages_from_mdl(list: Raw<MDL>) {
    let call = Call::enter();
    let header = read_list(&call, list);
    let flags = MdlFlags::from_bits_retain(header.MdlFlags);
    if !flags.contains(MdlFlags::PAGES_LOCKED) {
        call.stop(Rule::BadState, "the MDL has no pages: they were freed, or not made by MmAllocatePagesForMdl");
    }
    if flags.contains(MdlFlags::MAPPED_TO_SYSTEM_VA) {
        call.stop(Rule::BadState, "the pages are still mapped: MmUnmapLockedPages comes first");
    }
    let frames = frames_of(list, &header);
    call.bytes((frames.len() * PAGE) as u64);
    if frames.iter().any(|frame| call.machine().nt.physical().is_pinned(*frame)) {
        call.stop(Rule::BadState, "the pages are still mapped into a process, or locked by another MDL");
    }
    if let Err(frame) = call.machine().nt.physical().give_back(&frames) {
        call.stop(Rule::BadState, format!("page frame {frame:#x} is not allocated"));
    }
    // The list stays: its memory is the caller's to free with ExFreePool.
    field!(list, MDL, MdlFlags).write((flags - MdlFlags::PAGES_LOCKED).bits());
    field!(list, MDL, ByteCount).write(0);
}

pub(in crate::nt) extern "efiapi" fn mm_map_locked_pages(list: Raw<MDL>, mode: KPROCESSOR_MODE) -> usize {
    map(Call::enter(), list, mode, MdlMapping::empty())
}

extern "efiapi" fn mm_map_locked_pages_specify_cache(
    list: Raw<MDL>,
    mode: KPROCESSOR_MODE,
    _cache_type: i32,
    _requested_address: usize,
    _bug_check_on_failure: u32,
    priority: u32,
) -> usize {
    map(Call::enter(), list, mode, MdlMapping::from_bits_retain(priority))
}

fn map(call: Call, list: Raw<MDL>, mode: KPROCESSOR_MODE, priority: MdlMapping) -> usize {
    if mode == KERNEL_MODE {
        return map_into_kernel(&call, list, priority);
    }
    // The page: with UserMode a failure is an exception.
    match user::map(&call, list, !priority.contains(MdlMapping::NO_WRITE)) {
        Ok(address) => address,
        Err(status) => call.raise(status),
    }
}

fn map_into_kernel(call: &Call, list: Raw<MDL>, priority: MdlMapping) -> usize {
    let header = read_list(call, list);
    let flags = MdlFlags::from_bits_retain(header.MdlFlags);
    if flags.intersects(MdlFlags::MAPPED_TO_SYSTEM_VA | MdlFlags::SOURCE_IS_NONPAGED_POOL) {
        call.stop(Rule::BadState, "the MDL is mapped already: its first mapping would be lost");
    }
    if !flags.intersects(MdlFlags::PAGES_LOCKED | MdlFlags::PARTIAL) {
        call.stop(Rule::BadState, "the MDL describes no locked pages that could be mapped");
    }
    let frames = frames_of(list, &header);
    call.bytes(u64::from(header.ByteCount));
    let writable = !priority.contains(MdlMapping::NO_WRITE);
    let access = match (writable, priority.contains(MdlMapping::NO_EXECUTE)) {
        (true, true) => Access::ReadWrite,
        (true, false) => Access::ReadWriteExecute,
        (false, true) => Access::Read,
        (false, false) => Access::ReadExecute,
    };
    let nt = &call.machine().nt;
    let own = frames.first().and_then(|frame| kernel_page(*frame));
    let run = if own.is_some() { None } else { nt.physical().map(nt.arena(), &frames, access) };
    let Some(start) = own.or(run) else { return 0 };
    let address = start + header.ByteOffset as usize;
    let mapping = Mapping {
        run,
        pages: frames.len(),
        list: list.address(),
        process: None,
        driver: Arc::clone(call.driver()),
        site: Origin::of(call.site()),
    };
    nt.mappings().lock().insert(address, mapping);
    let partial = if flags.contains(MdlFlags::PARTIAL) { MdlFlags::PARTIAL_HAS_BEEN_MAPPED } else { MdlFlags::empty() };
    field!(list, MDL, MdlFlags).write((flags | MdlFlags::MAPPED_TO_SYSTEM_VA | partial).bits());
    field!(list, MDL, MappedSystemVa).write(Raw::at(address).pointer());
    address
}

extern "efiapi" fn mm_unmap_locked_pages(address: usize, list: Raw<MDL>) {
    let call = Call::enter();
    read_list(&call, list);
    unmap(&call, address, list);
}

/// Takes a mapping of a list back.
fn unmap(call: &Call, address: usize, list: Raw<MDL>) {
    let nt = &call.machine().nt;
    let removed = {
        let mut mappings = nt.mappings().lock();
        match mappings.get(&address) {
            Some(mapping) if mapping.list == list.address() => mappings.remove(&address),
            _ => None,
        }
    };
    let Some(mapping) = removed else {
        call.stop(Rule::BadState, format!("{address:#x} is no mapping of this MDL: unmapped already, or never mapped"));
    };
    call.bytes((mapping.pages * PAGE) as u64);
    if mapping.process.is_some() {
        return user::unmap(call, address, &mapping);
    }
    if let Some(run) = mapping.run {
        nt.arena().release(run, mapping.pages);
    }
    let flags = MdlFlags::from_bits_retain(field!(list, MDL, MdlFlags).read());
    let flags = flags - MdlFlags::MAPPED_TO_SYSTEM_VA - MdlFlags::PARTIAL_HAS_BEEN_MAPPED;
    field!(list, MDL, MdlFlags).write(flags.bits());
    field!(list, MDL, MappedSystemVa).write(std::ptr::null_mut());
}

extern "efiapi" fn mm_protect_mdl_system_address(list: Raw<MDL>, protection: u32) -> NtStatus {
    let call = Call::enter();
    let header = read_list(&call, list);
    let access = match protection {
        PAGE_NOACCESS => Access::None,
        PAGE_READONLY => Access::Read,
        PAGE_READWRITE => Access::ReadWrite,
        PAGE_EXECUTE_READ => Access::ReadExecute,
        nt_types::PAGE_EXECUTE_READWRITE => Access::ReadWriteExecute,
        _ => return NtStatus::INVALID_PAGE_PROTECTION,
    };
    if !MdlFlags::from_bits_retain(header.MdlFlags).contains(MdlFlags::MAPPED_TO_SYSTEM_VA) {
        return NtStatus::NOT_MAPPED_VIEW;
    }
    let nt = &call.machine().nt;
    let address = header.MappedSystemVa.addr();
    let mapping = nt.mappings().lock().get(&address).and_then(|mapping| Some((mapping.run?, mapping.pages)));
    let Some((run, pages)) = mapping else { return NtStatus::NOT_MAPPED_VIEW };
    let changed = nt.arena().protect(run, pages, access);
    if changed { NtStatus::SUCCESS } else { NtStatus::INSUFFICIENT_RESOURCES }
}

extern "efiapi" fn io_allocate_mdl(
    address: usize,
    length: u32,
    secondary: u8,
    _charge_quota: u8,
    irp: Raw<nt_types::IRP>,
) -> Raw<MDL> {
    let call = Call::enter();
    let list = new_list(&call, address, length as usize);
    if list.is_null() || irp.is_null() {
        return list;
    }
    let first = field!(irp, nt_types::IRP, MdlAddress);
    if secondary == 0 {
        first.write(list.pointer());
    } else {
        // The page: a secondary buffer's list goes to the end of the IRP's chain.
        let mut last = first;
        while let Some(next) = Raw::of(last.read()).some() {
            last = field!(next, MDL, Next);
        }
        last.write(list.pointer());
    }
    list
}

extern "efiapi" fn io_free_mdl(list: Raw<MDL>) {
    let call = Call::enter();
    let header = read_list(&call, list);
    let flags = MdlFlags::from_bits_retain(header.MdlFlags);
    if call.machine().nt.mappings().is_locked(list.address()) {
        call.stop(Rule::BadState, "the MDL's pages are still locked: MmUnlockPages comes first");
    }
    if flags.contains(MdlFlags::PARTIAL_HAS_BEEN_MAPPED) {
        // The page: a partial MDL's own mapping is released with it.
        unmap(&call, header.MappedSystemVa.addr(), list);
    } else if flags.contains(MdlFlags::MAPPED_TO_SYSTEM_VA) && !flags.contains(MdlFlags::PARENT_MAPPED_SYSTEM_VA) {
        call.stop(Rule::BadState, "the pages are still mapped: MmUnmapLockedPages comes first");
    }
    call.machine().nt.pool().free(&call, list.address(), MDL_TAG);
}

extern "efiapi" fn mm_build_mdl_for_non_paged_pool(list: Raw<MDL>) {
    let call = Call::enter();
    let header = read_list(&call, list);
    let start = header.StartVa.addr() + header.ByteOffset as usize;
    // Contexts, extensions and objects are non-paged system memory too.
    if !call.machine().nt.arena().contains(start) && crate::image::find(start).is_none() {
        call.stop(Rule::BadArgument, format!("{start:#x} is not in non-paged system memory"));
    }
    build_for_kernel(list, start);
}

/// Makes a list describe the kernel memory at `start`, which is mapped as it is.
fn build_for_kernel(list: Raw<MDL>, start: usize) {
    let header = list.read();
    describe_kernel_pages(list, &header);
    let flags = MdlFlags::from_bits_retain(header.MdlFlags) | MdlFlags::SOURCE_IS_NONPAGED_POOL;
    field!(list, MDL, MdlFlags).write(flags.bits());
    field!(list, MDL, MappedSystemVa).write(Raw::at(start).pointer());
}

extern "efiapi" fn mm_size_of_mdl(base: usize, length: usize) -> usize {
    let _call = Call::enter();
    list_bytes(base, length)
}

/// Frame numbers from here on stand for kernel pages at the address they have: memory that is no part of the simulated
/// physical memory, but that drivers describe all the same.
const KERNEL_FRAMES: u64 = 1 << 35;

/// The frame number that stands for a kernel page.
pub(super) fn kernel_frame(address: usize) -> u64 {
    KERNEL_FRAMES + (address / PAGE) as u64
}

/// The kernel page that a frame number stands for, if it is such a number.
pub(super) fn kernel_page(frame: u64) -> Option<usize> {
    frame.checked_sub(KERNEL_FRAMES).map(|page| page as usize * PAGE)
}

/// A list for non-paged kernel memory, as `NdisAllocateMdl` gives it, in pool of the calling driver; NULL when memory is short.
pub(crate) fn describe(call: &Call, address: usize, length: usize) -> Raw<MDL> {
    let list = new_list(call, address, length);
    if !list.is_null() {
        build_for_kernel(list, address);
    }
    list
}

/// Where the kernel sees the bytes of a list, which is mapped when nobody has done so yet. Stops when the address space is exhausted.
pub(crate) fn system_address(call: &Call, list: Raw<MDL>) -> usize {
    let header = read_list(call, list);
    let flags = MdlFlags::from_bits_retain(header.MdlFlags);
    if flags.intersects(MdlFlags::MAPPED_TO_SYSTEM_VA | MdlFlags::SOURCE_IS_NONPAGED_POOL) {
        return header.MappedSystemVa.addr();
    }
    match map_into_kernel(call, list, MdlMapping::NO_EXECUTE) {
        0 => call.stop(Rule::BadState, format!("the pages of the MDL {list:?} cannot be mapped")),
        address => address,
    }
}

/// Fills the frame numbers of a list that describes kernel memory.
fn describe_kernel_pages(list: Raw<MDL>, header: &MDL) {
    let start = header.StartVa.addr();
    for index in 0..pages_of(header) {
        frame_slot(list, index).write(kernel_frame(start + index * PAGE));
    }
}

/// Allocates and initialises a list for `length` bytes at `address`.
fn new_list(call: &Call, address: usize, length: usize) -> Raw<MDL> {
    let size = list_bytes(address, length);
    // Size is a signed 16-bit field; Windows keeps it at what fits for lists that are larger.
    let stored_size = i16::try_from(size).unwrap_or(i16::MAX & !7);
    let request = Request { kind: PoolKind::NonPaged, length: size, tag: MDL_TAG, zeroed: true, cache_aligned: false };
    let list = Raw::<MDL>::at(call.machine().nt.pool().allocate(call, request));
    if list.is_null() {
        return list;
    }
    list.write(MDL {
        Size: stored_size,
        StartVa: Raw::at(address & !(PAGE - 1)).pointer(),
        ByteCount: length as u32,
        ByteOffset: (address % PAGE) as u32,
        ..MDL::ZERO
    });
    list
}

fn list_bytes(base: usize, length: usize) -> usize {
    size_of::<MDL>() + (base % PAGE + length).div_ceil(PAGE) * size_of::<u64>()
}

fn read_list(call: &Call, list: Raw<MDL>) -> MDL {
    if list.is_null() {
        call.stop(Rule::BadArgument, "the MDL is NULL");
    }
    list.read()
}

fn frame_slot(list: Raw<MDL>, index: usize) -> Raw<u64> {
    list.field::<u64>(size_of::<MDL>()).index(index)
}

fn pages_of(header: &MDL) -> usize {
    (header.ByteOffset as usize + header.ByteCount as usize).div_ceil(PAGE)
}

fn frames_of(list: Raw<MDL>, header: &MDL) -> Vec<u64> {
    frame_slot(list, 0).read_slice(pages_of(header))
}

#[cfg(test)]
mod tests;
