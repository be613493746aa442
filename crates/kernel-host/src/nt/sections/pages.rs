//! The memory behind sections: page frames, and the file that they show.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nt_types::{IrpFlags, KERNEL_MODE, NtStatus, SECTION_OBJECT_POINTERS};

use crate::flt::major;
use crate::fs::io::Issue;
use crate::fs::section;
use crate::machine::Inner;
use crate::nt::arena::PAGE;
use crate::nt::ob::ObjectRef;
use crate::nt::physical::PhysicalMemory;
use crate::nt::raw::{Raw, field};

/// Pages that one paging request moves at most: 64 KiB, as the memory manager's own clusters.
const CLUSTER: usize = 16;

/// What all sections of one stream, or one section of the paging file, have in common.
#[derive(Debug)]
pub(super) struct Pages {
    memory: Arc<PhysicalMemory>,
    frames: Mutex<Vec<u64>>,
    backing: Option<Backing>,
    is_image: bool,
}

#[derive(Debug)]
struct Backing {
    /// A file object of the stream, which lives as long as a section needs it.
    file: ObjectRef,
    /// Where `SECTION_OBJECT_POINTERS` says that there is a section.
    slot: usize,
    /// Pages as they were last read or written, by number: what differs is dirty, what is missing was not read yet.
    clean: Mutex<BTreeMap<usize, Vec<u8>>>,
}

impl Pages {
    /// Zeroed pages of the paging file.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES` when page frames are short.
    pub(super) fn of_paging_file(memory: &Arc<PhysicalMemory>, count: usize) -> Result<Arc<Self>, NtStatus> {
        Self::new(memory, count, None, false)
    }

    /// The first pages of a stream, not read yet. Errors as for the paging file.
    pub(super) fn of_file(
        memory: &Arc<PhysicalMemory>,
        file: &ObjectRef,
        pointers: usize,
        count: usize,
    ) -> Result<Arc<Self>, NtStatus> {
        let slot =
            field!(Raw::<SECTION_OBJECT_POINTERS>::at(pointers), SECTION_OBJECT_POINTERS, DataSectionObject).address();
        Self::new(memory, count, Some(Backing { file: file.clone(), slot, clean: Mutex::default() }), false)
    }

    /// An image as it is laid out in memory. Errors as for the paging file.
    pub(super) fn of_image(
        memory: &Arc<PhysicalMemory>,
        file: &ObjectRef,
        pointers: usize,
        contents: &[u8],
    ) -> Result<Arc<Self>, NtStatus> {
        let slot =
            field!(Raw::<SECTION_OBJECT_POINTERS>::at(pointers), SECTION_OBJECT_POINTERS, ImageSectionObject).address();
        let backing = Backing { file: file.clone(), slot, clean: Mutex::default() };
        let made = Self::new(memory, contents.len().div_ceil(PAGE), Some(backing), true)?;
        for (frame, page) in made.frames().iter().zip(contents.chunks(PAGE)) {
            made.memory.write(*frame * PAGE as u64, page)?;
        }
        Ok(made)
    }

    fn new(
        memory: &Arc<PhysicalMemory>,
        count: usize,
        backing: Option<Backing>,
        is_image: bool,
    ) -> Result<Arc<Self>, NtStatus> {
        let frames = memory.adopt_zeroed(count).ok_or(NtStatus::INSUFFICIENT_RESOURCES)?;
        let made = Arc::new(Self { memory: Arc::clone(memory), frames: Mutex::new(frames), backing, is_image });
        if let Some(backing) = &made.backing {
            // Drivers only look whether it is NULL.
            Raw::at(backing.slot).write(Arc::as_ptr(&made).addr());
        }
        Ok(made)
    }

    pub(super) fn is_image(&self) -> bool {
        self.is_image
    }

    pub(super) fn memory(&self) -> &Arc<PhysicalMemory> {
        &self.memory
    }

    /// Makes room for at least `count` pages. Errors as for the paging file.
    pub(super) fn grow(&self, count: usize) -> Result<(), NtStatus> {
        let mut frames = self.frames();
        if let Some(missing) = count.checked_sub(frames.len()).filter(|missing| *missing > 0) {
            frames.extend(self.memory.adopt_zeroed(missing).ok_or(NtStatus::INSUFFICIENT_RESOURCES)?);
        }
        Ok(())
    }

    /// The frames of some pages.
    ///
    /// # Errors
    /// `STATUS_INVALID_VIEW_SIZE` when there are not that many.
    pub(super) fn frames_of(&self, range: &Range<usize>) -> Result<Vec<u64>, NtStatus> {
        self.frames().get(range.clone()).map(<[u64]>::to_vec).ok_or(NtStatus::INVALID_VIEW_SIZE)
    }

    /// The contents of some pages. Errors as for [`frames_of`](Self::frames_of).
    pub(super) fn contents(&self, range: &Range<usize>) -> Result<Vec<u8>, NtStatus> {
        let frames = self.frames_of(range)?;
        Ok(frames.into_iter().flat_map(|frame| self.page(frame)).collect())
    }

    /// Bytes of the file; 0 for the paging file.
    pub(super) fn file_size(&self) -> u64 {
        let open = self.backing.as_ref().and_then(|backing| crate::fs::io::opened(&backing.file).ok());
        open.and_then(|(_, open)| open.size().ok()).unwrap_or(0)
    }

    fn page(&self, frame: u64) -> Vec<u8> {
        let mut page = vec![0; PAGE];
        self.memory.read(frame * PAGE as u64, &mut page);
        page
    }

    /// Reads pages of the file that were not read yet.
    ///
    /// # Errors
    /// What filters or the file system answer: on Windows the access to the page fails with it.
    pub(super) fn load(&self, machine: &Arc<Inner>, range: &Range<usize>) -> Result<(), NtStatus> {
        let Some(backing) = self.backing.as_ref().filter(|_| !self.is_image) else { return Ok(()) };
        let mut at = range.start;
        while at < range.end {
            let count = {
                let clean = backing.clean();
                let end = range.end.min(at + CLUSTER);
                (at..end).take_while(|page| !clean.contains_key(page)).count()
            };
            if count == 0 {
                at += 1;
                continue;
            }
            let bytes = read_pages(machine, &backing.file, at, count)?;
            let mut clean = backing.clean();
            let frames = self.frames_of(&(at..at + count))?;
            for ((number, frame), page) in (at..).zip(frames).zip(bytes.chunks(PAGE)) {
                // Read by somebody else meanwhile: their stores may be in it already.
                if clean.contains_key(&number) {
                    continue;
                }
                self.memory.write(frame * PAGE as u64, page)?;
                clean.insert(number, page.to_vec());
            }
            at += count;
        }
        Ok(())
    }

    /// Writes pages that were stored to.
    ///
    /// # Errors
    /// What filters or the file system answer: the pages stay dirty.
    pub(super) fn write_back(
        &self,
        machine: &Arc<Inner>,
        range: Range<usize>,
        by_page_writer: bool,
    ) -> Result<(), NtStatus> {
        let Some(backing) = self.backing.as_ref().filter(|_| !self.is_image) else { return Ok(()) };
        let mut dirty: Vec<(usize, Vec<u8>)> = Vec::new();
        for (number, frame) in range.clone().zip(self.frames_of(&range)?) {
            let page = self.page(frame);
            if backing.clean().get(&number).is_some_and(|clean| *clean != page) {
                dirty.push((number, page));
            }
        }
        for run in dirty.chunk_by(|left, right| left.0 + 1 == right.0) {
            for cluster in run.chunks(CLUSTER) {
                let Some((first, _)) = cluster.first() else { continue };
                let bytes = cluster.iter().flat_map(|(_, page)| page.iter().copied()).collect::<Vec<u8>>();
                section::write_pages(machine, &backing.file, offset_of(*first), &bytes, by_page_writer)?;
                backing.clean().extend(cluster.iter().cloned());
            }
        }
        Ok(())
    }

    fn frames(&self) -> MutexGuard<'_, Vec<u64>> {
        self.frames.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        if let Some(backing) = &self.backing
            && Raw::<usize>::at(backing.slot).read() == std::ptr::from_ref(self).addr()
        {
            Raw::<usize>::at(backing.slot).write(0);
        }
        self.memory.abandon(&self.frames());
    }
}

impl Backing {
    fn clean(&self) -> MutexGuard<'_, BTreeMap<usize, Vec<u8>>> {
        self.clean.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a page lies in its file.
const fn offset_of(page: usize) -> i64 {
    (page * PAGE).cast_signed() as i64
}

/// Whole pages of a file by a paging read; what lies behind the end reads as zero.
///
/// # Errors
/// What filters or the file system answer.
pub(super) fn read_pages(
    machine: &Arc<Inner>,
    file: &ObjectRef,
    first: usize,
    count: usize,
) -> Result<Vec<u8>, NtStatus> {
    let mut bytes = vec![0; count * PAGE];
    let issue = Issue::on(machine, file, None, KERNEL_MODE)?;
    let flags = IrpFlags::PAGING_IO | IrpFlags::NOCACHE | IrpFlags::SYNCHRONOUS_PAGING_IO;
    let buffer = (bytes.as_mut_ptr().expose_provenance(), bytes.len() as u32);
    let (status, _) = issue.run(&issue.transfer(major::READ, offset_of(first), buffer, flags));
    match status {
        NtStatus::END_OF_FILE => Ok(bytes),
        status => status.ok().map(|()| bytes),
    }
}
