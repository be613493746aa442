//! User pages that become page frames: what locking a buffer for direct I/O means.
//!
//! User memory starts as private pages of this Linux process. The first time that a page is locked it moves into the machine's
//! physical memory, under its old address, so that a second mapping shows the same bytes. It stays there until the
//! memory is freed, and its frame lives until the last lock on it is gone, as on Windows.

use std::sync::Arc;

use nt_types::NtStatus;

use super::{Page, Protection, Region, Regions, UserMemory};
use crate::nt::arena::{Access, PAGE};
use crate::nt::physical::PhysicalMemory;
use crate::nt::raw::Raw;

/// The frames of a region's pages, by index of the page.
#[derive(Debug)]
pub(super) struct Frames {
    memory: Arc<PhysicalMemory>,
    by_page: Vec<Option<u64>>,
    /// The frames are a driver's, which mapped them into the process.
    is_view: bool,
}

impl Drop for Frames {
    fn drop(&mut self) {
        let frames: Vec<u64> = self.by_page.iter().flatten().copied().collect();
        if self.is_view {
            self.memory.unpin(&frames);
        } else {
            self.memory.abandon(&frames);
        }
    }
}

impl UserMemory {
    /// Locks the pages of a range for a device or driver that reads (or, with `write`, changes) them: their frames, in order.
    ///
    /// Each has to be given back with [`PhysicalMemory::unpin`].
    ///
    /// # Errors
    /// As for a program's own access to each page; `STATUS_NO_MEMORY` when page frames are short. Nothing is locked then.
    pub(crate) fn lock_pages(
        &self,
        memory: &Arc<PhysicalMemory>,
        address: usize,
        length: usize,
        write: bool,
    ) -> Result<Vec<u64>, NtStatus> {
        let mut frames = Vec::new();
        let result = self.each_locked_page(memory, address, length, write, &mut frames);
        if result.is_err() {
            memory.unpin(&frames);
        }
        result.map(|()| frames)
    }

    fn each_locked_page(
        &self,
        memory: &Arc<PhysicalMemory>,
        address: usize,
        length: usize,
        write: bool,
        frames: &mut Vec<u64>,
    ) -> Result<(), NtStatus> {
        let end = address.checked_add(length).ok_or(NtStatus::ACCESS_VIOLATION)?;
        let mut at = address;
        while at < end {
            // Access rights first, with what a guard page does when it is touched.
            let mut byte = [0];
            self.read(at, &mut byte)?;
            let mut map = self.0.lock();
            let (&run, region) = map.range_mut(..=at).next_back().ok_or(NtStatus::ACCESS_VIOLATION)?;
            let index = (at - run) / PAGE;
            match region.pages.get(index).map(|page| page.protection) {
                Some(Protection::ReadWrite) => {}
                Some(Protection::ReadOnly) if !write => {}
                _ => return Err(NtStatus::ACCESS_VIOLATION),
            }
            let frame = self.0.frame_of(memory, run, region, index)?;
            memory.pin(frame);
            frames.push(frame);
            at = run + (index + 1) * PAGE;
        }
        Ok(())
    }

    /// Shows page frames to the program; the address of the first.
    ///
    /// # Errors
    /// `STATUS_NO_MEMORY`.
    pub(crate) fn map_frames(
        &self,
        memory: &Arc<PhysicalMemory>,
        frames: &[u64],
        writable: bool,
    ) -> Result<usize, NtStatus> {
        let protection = if writable { Protection::ReadWrite } else { Protection::ReadOnly };
        let run = memory.map(&self.0.slice.arena, frames, Access::None).ok_or(NtStatus::NO_MEMORY)?;
        for frame in frames {
            memory.pin(*frame);
        }
        let by_page = frames.iter().copied().map(Some).collect();
        let region = Region {
            address: run,
            initial: protection,
            pages: vec![Page { protection, open: false }; frames.len()],
            frames: Some(Frames { memory: Arc::clone(memory), by_page, is_view: true }),
        };
        self.0.lock().insert(run, region);
        Ok(run)
    }

    /// Takes a mapping of [`map_frames`](Self::map_frames) back.
    ///
    /// # Errors
    /// `STATUS_NOT_MAPPED_VIEW` when there is none at that address (any more).
    pub(crate) fn unmap_frames(&self, address: usize) -> Result<(), NtStatus> {
        let run = address & !(PAGE - 1);
        let mut map = self.0.lock();
        let pages = map.get(&run).filter(|region| region.is_view()).ok_or(NtStatus::NOT_MAPPED_VIEW)?.pages.len();
        map.remove(&run);
        self.0.slice.arena.release(run, pages);
        Ok(())
    }
}

impl Region {
    /// Whether a driver mapped its own pages here: an MDL's, or a section's.
    pub(super) fn is_view(&self) -> bool {
        self.frames.as_ref().is_some_and(|frames| frames.is_view)
    }
}

impl Regions {
    /// The frame of a page, which moves there if it has none yet. Under the map's lock, so that no program writes meanwhile.
    fn frame_of(
        &self,
        memory: &Arc<PhysicalMemory>,
        run: usize,
        region: &mut Region,
        index: usize,
    ) -> Result<u64, NtStatus> {
        let count = region.pages.len();
        let frames = region.frames.get_or_insert_with(|| Frames {
            memory: Arc::clone(memory),
            by_page: vec![None; count],
            is_view: false,
        });
        let slot = frames.by_page.get_mut(index).ok_or(NtStatus::ACCESS_VIOLATION)?;
        if let Some(frame) = *slot {
            return Ok(frame);
        }
        let page = run + index * PAGE;
        let contents = Raw::<u8>::at(self.slice.arena.host(page)).read_bytes(PAGE);
        let frame = memory.adopt(&contents).ok_or(NtStatus::NO_MEMORY)?;
        if !memory.place(&self.slice.arena, page, frame, Access::None) {
            memory.abandon(&[frame]);
            return Err(NtStatus::NO_MEMORY);
        }
        if let Some(page) = region.pages.get_mut(index) {
            page.open = false;
        }
        *slot = Some(frame);
        Ok(frame)
    }
}
