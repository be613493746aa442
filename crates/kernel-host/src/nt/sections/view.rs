//! Views: sections shown in a process or in system space.

use std::ops::Range;
use std::sync::Arc;

use nt_types::{HANDLE, IO_STATUS_BLOCK, KERNEL_MODE, NtStatus};

use super::{Section, View};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::arena::{Access, PAGE, pages_for};
use crate::nt::ob_exports::open_entry;
use crate::nt::processes::process_of_handle;
use crate::nt::raw::Raw;
use crate::process::{Placement, Process, Protection};

exports! { pub(super) EXPORTS in "ntoskrnl.exe":
    ZwMapViewOfSection(max 0, fails RESOURCES) = zw_map_view_of_section;
    ZwUnmapViewOfSection(max 0) = zw_unmap_view_of_section;
    MmMapViewInSystemSpace(max 1, fails RESOURCES) = mm_map_view_in_system_space;
    MmUnmapViewInSystemSpace(max 1) = mm_unmap_view_in_system_space;
    ZwFlushVirtualMemory(max 0, fails IO) = zw_flush_virtual_memory;
}

/// Allocation granularity, to which offsets into sections are rounded down.
const GRANULARITY: u64 = 0x1_0000;

/// `MEM_*` that `AllocationType` may have.
const MEM_RESERVE: u32 = 0x2000;
const MEM_TOP_DOWN: u32 = 0x10_0000;
const MEM_LARGE_PAGES: u32 = 0x2000_0000;

/// What may be done with a view.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Nothing: `PAGE_NOACCESS`.
    None,
    Read,
    Write,
    /// Its own copy: `PAGE_WRITECOPY`.
    Copy,
}

impl Kind {
    fn of(protection: u32) -> Result<Self, NtStatus> {
        match protection & 0xFF {
            0x01 => Ok(Self::None),
            0x02 | 0x10 | 0x20 => Ok(Self::Read),
            0x04 | 0x40 => Ok(Self::Write),
            0x08 | 0x80 => Ok(Self::Copy),
            _ => Err(NtStatus::INVALID_PAGE_PROTECTION),
        }
    }
}

pub(super) extern "efiapi" fn zw_map_view_of_section(
    handle: HANDLE,
    process: HANDLE,
    base: Raw<usize>,
    zero_bits: usize,
    _commit_size: usize,
    offset: Raw<i64>,
    size: Raw<usize>,
    inherit: u32,
    allocation: u32,
    protection: u32,
) -> NtStatus {
    let call = Call::enter();
    // The numbers of parameters that are wrong: general knowledge, no page. ViewShare and ViewUnmap are 1 and 2.
    if zero_bits > 20 {
        return NtStatus::INVALID_PARAMETER_4;
    }
    if !(1..=2).contains(&inherit) {
        return NtStatus::INVALID_PARAMETER_8;
    }
    if allocation & !(MEM_RESERVE | MEM_TOP_DOWN | MEM_LARGE_PAGES) != 0 {
        return NtStatus::INVALID_PARAMETER_9;
    }
    let start = offset.some().map_or(0, Raw::read);
    let mapped = section_of(&call, handle).and_then(|section| {
        let kind = Kind::of(protection)?;
        let process = process_of_handle(&call, process)?;
        // Where views lie is not the caller's to choose here: every place is somebody's, or a guard page.
        if base.read() != 0 {
            return Err(NtStatus::CONFLICTING_ADDRESSES);
        }
        let (start, range) = range_of(&section, start, size.read())?;
        let address = map(&call, &process, &section, &range, kind)?;
        base.write(address);
        offset.write_if_some(start.cast_signed());
        size.write(range.len() * PAGE);
        // An image that does not lie where it was linked for says so.
        Ok(if section.pages.is_image() { NtStatus::IMAGE_NOT_AT_BASE } else { NtStatus::SUCCESS })
    });
    call.thread().leave_if_stopped();
    mapped.unwrap_or_else(|status| status)
}

fn section_of(call: &Call, handle: HANDLE) -> Result<Arc<Section>, NtStatus> {
    let entry = open_entry(call, handle.addr(), 0, Some("Section"), KERNEL_MODE)?;
    entry.object.payload().ok_or(NtStatus::OBJECT_TYPE_MISMATCH)
}

/// The offset as it is used, and the pages of a view.
fn range_of(section: &Section, offset: i64, size: usize) -> Result<(u64, Range<usize>), NtStatus> {
    let start = u64::try_from(offset).map_err(|_| NtStatus::INVALID_VIEW_SIZE)? / GRANULARITY * GRANULARITY;
    let left = section.size.checked_sub(start).filter(|left| *left > 0).ok_or(NtStatus::INVALID_VIEW_SIZE)?;
    let wanted = if size == 0 { left as usize } else { size };
    // Pages, not bytes: the section itself is rounded up.
    if pages_for(wanted) > pages_for(left as usize) {
        return Err(NtStatus::INVALID_VIEW_SIZE);
    }
    let first = start as usize / PAGE;
    Ok((start, first..first + pages_for(wanted)))
}

/// Maps pages of a section into a process.
fn map(
    call: &Call,
    process: &Arc<Process>,
    section: &Arc<Section>,
    range: &Range<usize>,
    kind: Kind,
) -> Result<usize, NtStatus> {
    if kind == Kind::Write && !section.is_writable {
        return Err(NtStatus::SECTION_PROTECTION);
    }
    section.pages.load(call.machine(), range)?;
    let memory = process.memory();
    let address = if kind == Kind::Copy {
        // Copied now and not when it is written: what others store later does not show.
        let contents = section.pages.contents(range)?;
        let address = memory.allocate(contents.len(), Protection::ReadWrite, Placement::PageStart)?;
        memory.write(address, &contents)?;
        address
    } else {
        let frames = section.pages.frames_of(range)?;
        memory.map_frames(section.pages.memory(), &frames, kind == Kind::Write)?
    };
    if kind == Kind::None {
        memory.protect(address, range.len() * PAGE, Protection::NoAccess)?;
    }
    add(call, section, address, range, Some(process.id()), kind == Kind::Write);
    Ok(address)
}

fn add(call: &Call, section: &Arc<Section>, address: usize, range: &Range<usize>, process: Option<u64>, writes: bool) {
    let view = View {
        section: Arc::clone(section),
        address,
        range: range.clone(),
        process,
        writes,
        driver: Arc::clone(call.driver()),
        ddi: call.site().export.name,
        site: crate::origin::Origin::of(call.site()),
    };
    call.bytes((range.len() * PAGE) as u64);
    call.machine().nt.sections().lock().views.push(view);
}

pub(super) extern "efiapi" fn zw_unmap_view_of_section(process: HANDLE, base: usize) -> NtStatus {
    let call = Call::enter();
    let unmapped = process_of_handle(&call, process).and_then(|process| {
        let view = call.machine().nt.sections().take_view(Some(process.id()), base).ok_or(NtStatus::NOT_MAPPED_VIEW)?;
        view.end(call.machine());
        // A copy is ordinary memory of the process.
        let memory = process.memory();
        memory.unmap_frames(view.address).or_else(|_| memory.free(view.address))
    });
    call.thread().leave_if_stopped();
    unmapped.map_or_else(|status| status, |()| NtStatus::SUCCESS)
}

pub(super) extern "efiapi" fn mm_map_view_in_system_space(
    section: usize,
    base: Raw<usize>,
    size: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    let nt = &call.machine().nt;
    let Some(section) = nt.objects().payload::<Section>(section) else {
        call.stop(Rule::BadArgument, format!("{section:#x} is no section object, or one that is deleted"));
    };
    let mapped = range_of(&section, 0, size.read()).and_then(|(_, range)| {
        section.pages.load(call.machine(), &range)?;
        let frames = section.pages.frames_of(&range)?;
        let access = if section.is_writable { Access::ReadWrite } else { Access::Read };
        let address = nt.physical().map(nt.arena(), &frames, access).ok_or(NtStatus::NO_MEMORY)?;
        add(&call, &section, address, &range, None, section.is_writable);
        base.write(address);
        size.write(range.len() * PAGE);
        Ok(())
    });
    call.thread().leave_if_stopped();
    mapped.map_or_else(|status| status, |()| NtStatus::SUCCESS)
}

pub(super) extern "efiapi" fn mm_unmap_view_in_system_space(base: usize) -> NtStatus {
    let call = Call::enter();
    let nt = &call.machine().nt;
    let Some(view) = nt.sections().take_view(None, base) else {
        // DRIVER_UNMAPPING_INVALID_VIEW.
        call.stop(
            Rule::BugCheck,
            format!("bug check 0xD7: no view of a section is mapped in system space at {base:#x}"),
        );
    };
    view.end(call.machine());
    nt.arena().release(view.address, view.range.len());
    drop(view);
    call.thread().leave_if_stopped();
    NtStatus::SUCCESS
}

pub(super) extern "efiapi" fn zw_flush_virtual_memory(
    process: HANDLE,
    base: Raw<usize>,
    size: Raw<usize>,
    block: Raw<IO_STATUS_BLOCK>,
) -> NtStatus {
    let call = Call::enter();
    let flushed = process_of_handle(&call, process).and_then(|process| {
        let start = base.read() & !(PAGE - 1);
        let found = {
            let state = call.machine().nt.sections().lock();
            let view = state.views.iter().find(|view| view.contains(Some(process.id()), start));
            view.map(|view| (Arc::clone(&view.section), view.address, view.range.clone()))
        };
        let (section, address, range) = found.ok_or(NtStatus::NOT_MAPPED_VIEW)?;
        let first = range.start + (start - address) / PAGE;
        let pages = if size.read() == 0 { range.end - first } else { pages_for(size.read() + base.read() % PAGE) };
        if first + pages > range.end {
            return Err(NtStatus::INVALID_PARAMETER_2);
        }
        base.write(start);
        size.write(pages * PAGE);
        section.pages.write_back(call.machine(), first..first + pages, false)?;
        Ok(pages * PAGE)
    });
    call.thread().leave_if_stopped();
    match flushed {
        Ok(bytes) => {
            block.write(IO_STATUS_BLOCK::new(NtStatus::SUCCESS, bytes));
            NtStatus::SUCCESS
        }
        Err(status) => {
            block.write(IO_STATUS_BLOCK::new(status, 0));
            status
        }
    }
}
