//! Mapping described pages into a program's memory.

use std::sync::{Arc, PoisonError};

use nt_types::{APC_LEVEL, MDL, MdlFlags, NtStatus};

use super::{Mapping, Mappings, frames_of, kernel_page, read_list};
use crate::ddi::Call;
use crate::finding::Rule;
use crate::nt::arena::{Access, PAGE};
use crate::nt::current_process;
use crate::nt::physical::PhysicalMemory;
use crate::nt::raw::Raw;

/// Maps a list's pages into the current process; the user address of the first byte described.
pub(super) fn map(call: &Call, list: Raw<MDL>, writable: bool) -> Result<usize, NtStatus> {
    let header = read_list(call, list);
    let flags = MdlFlags::from_bits_retain(header.MdlFlags);
    let irql = call.thread().irql();
    if irql > APC_LEVEL {
        call.stop(Rule::IrqlTooHigh, format!("pages are mapped into a process at IRQL {irql}, above APC_LEVEL"));
    }
    if !flags.intersects(MdlFlags::PAGES_LOCKED | MdlFlags::PARTIAL | MdlFlags::SOURCE_IS_NONPAGED_POOL) {
        call.stop(Rule::BadState, "the MDL describes no locked pages that could be mapped");
    }
    let process = current_process(call);
    if process.is_system() {
        // The system process has no user memory worth mapping anything into: a thread of the wrong process.
        call.stop(Rule::BadState, "pages are mapped with UserMode in the context of the system process");
    }
    let nt = &call.machine().nt;
    let mut frames = frames_of(list, &header);
    for frame in &mut frames {
        if let Some(page) = kernel_page(*frame) {
            *frame = show(call, page)?;
        }
    }
    let run = process.memory().map_frames(nt.physical(), &frames, writable)?;
    let address = run + header.ByteOffset as usize;
    let mapping = Mapping {
        run: Some(run),
        pages: frames.len(),
        list: list.address(),
        process: Some(Arc::downgrade(&process)),
        driver: Arc::clone(call.driver()),
        site: crate::origin::Origin::of(call.site()),
    };
    nt.mappings().lock().insert(address, mapping);
    Ok(address)
}

/// Makes a kernel page one that can be seen at a second address; its frame.
fn show(call: &Call, page: usize) -> Result<u64, NtStatus> {
    let nt = &call.machine().nt;
    if !nt.arena().contains(page) {
        call.stop(Rule::NotImplemented, format!("{page:#x} is part of an image: images are not mapped into processes"));
    }
    let mut moved = nt.mappings().moved.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(frame) = moved.get(&page) {
        return Ok(*frame);
    }
    let contents = Raw::<u8>::at(page).read_bytes(PAGE);
    let frame = nt.physical().adopt(&contents).ok_or(NtStatus::NO_MEMORY)?;
    if !nt.physical().place(nt.arena(), page, frame, Access::ReadWrite) {
        nt.physical().abandon(&[frame]);
        return Err(NtStatus::NO_MEMORY);
    }
    moved.insert(page, frame);
    Ok(frame)
}

/// Ends a mapping into a process. Stops when another process is current.
pub(super) fn unmap(call: &Call, address: usize, mapping: &Mapping) {
    let process = current_process(call);
    let owner = mapping.process.as_ref().and_then(std::sync::Weak::upgrade);
    if owner.as_ref().is_some_and(|owner| !Arc::ptr_eq(owner, &process)) {
        call.stop(
            Rule::BadState,
            format!("the user mapping {address:#x} is unmapped in the context of another process"),
        );
    }
    if process.memory().unmap_frames(address).is_err() {
        call.stop(Rule::BadState, format!("{address:#x} is not mapped into the process any more"));
    }
}

impl Mappings {
    /// Pool at `start` goes away: names a page of it that a program still sees; forgets those that none does.
    pub(crate) fn shown_in(&self, memory: &PhysicalMemory, start: usize, length: usize) -> Option<String> {
        let mut moved = self.moved.lock().unwrap_or_else(PoisonError::into_inner);
        if moved.is_empty() {
            return None;
        }
        let first = start & !(PAGE - 1);
        let inside = |page: usize| page.wrapping_sub(first) < start + length - first;
        let found = moved.iter().find(|(page, frame)| inside(**page) && memory.is_pinned(**frame));
        if let Some((page, _)) = found {
            return Some(format!("its page {page:#x} is still mapped into a process"));
        }
        moved.retain(|page, frame| {
            if inside(*page) {
                memory.abandon(&[*frame]);
            }
            !inside(*page)
        });
        None
    }
}
