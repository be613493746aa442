//! Physical memory: page frames that can be mapped at any number of addresses.
//!
//! The frames are pages of an anonymous file, at the offset that their number says. An untouched or freed frame is a hole in
//! that file, so it costs nothing and reads as zero, as `MmAllocatePagesForMdlEx` promises. The numbers mean what drivers take
//! them for: a limit on the physical address really limits them, and a large allocation is not contiguous.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nt_types::NtStatus;

use super::arena::{Access, Arena, PAGE};
use crate::leak::{Leak, LeakKind};
use crate::machine::Driver;
use crate::origin::Origin;

/// First frame that is handed out: a PC's first MiB belongs to its firmware.
const FIRST_FRAME: u64 = 0x100;

/// Frames of the machine: 16 GiB.
pub(crate) const FRAMES: u64 = (16 << 30) / PAGE as u64;

/// Most frames in a row that one allocation gets: what is larger is never contiguous, as on a machine that runs for a while.
const LONGEST_RUN: u64 = 64;

/// Neighbouring frames, as `(first, count)`.
pub(crate) type Run = (u64, u64);

/// The page frames of one machine.
#[derive(Debug)]
pub(crate) struct PhysicalMemory {
    file: OwnedFd,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Free runs by first frame.
    free: BTreeMap<u64, u64>,
    /// Frames in use: who allocated them from where.
    owners: HashMap<u64, Owner>,
    /// How often a frame is locked, or mapped into a process.
    pins: HashMap<u64, u32>,
    /// Frames of memory that began as something else, and whether that memory is gone: then the last pin's end frees the frame.
    adopted: HashMap<u64, bool>,
}

/// Who has to free a frame.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) driver: Arc<Driver>,
    pub(crate) ddi: &'static str,
    pub(crate) site: Origin,
}

impl Default for PhysicalMemory {
    fn default() -> Self {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let file = rustix::fs::memfd_create("kernel-host physical memory", flags);
        let file = file.expect("Linux offers anonymous files since 3.17");
        rustix::fs::ftruncate(&file, FRAMES * PAGE as u64).expect("a sparse file may have any length");
        let free = BTreeMap::from([(FIRST_FRAME, FRAMES - FIRST_FRAME)]);
        Self {
            file,
            state: Mutex::new(State { free, owners: HashMap::new(), pins: HashMap::new(), adopted: HashMap::new() }),
        }
    }
}

impl PhysicalMemory {
    /// Takes up to `count` frames between two frame numbers (both included), highest first as Windows does; fewer when there
    /// are no more.
    pub(crate) fn take(&self, count: u64, lowest: u64, highest: u64, owner: &Owner) -> Vec<Run> {
        let mut state = self.lock();
        let (mut runs, mut spacers) = (Vec::new(), Vec::new());
        let mut left = count;
        while left > 0 {
            let Some(run) = state.take_run(left.min(LONGEST_RUN), lowest, highest) else { break };
            left -= run.1;
            runs.push(run);
            // The frame below stays free, so that the next run is no neighbour.
            spacers.extend(state.take_run(1, run.0 - 1, run.0 - 1));
        }
        while left > 0
            && let Some(spacer) = spacers.pop()
        {
            if spacer.0 >= lowest {
                left -= 1;
                runs.push(spacer);
            } else {
                state.add_free(spacer.0);
            }
        }
        for (frame, _) in spacers {
            state.add_free(frame);
        }
        for frame in runs.iter().flat_map(|(first, count)| *first..first + count) {
            state.owners.insert(frame, owner.clone());
        }
        runs
    }

    /// Gives frames back; the error is the first that is not in use.
    pub(crate) fn give_back(&self, frames: &[u64]) -> Result<(), u64> {
        let mut state = self.lock();
        for frame in frames {
            state.owners.remove(frame).ok_or(*frame)?;
            state.add_free(*frame);
        }
        self.empty(frames);
        Ok(())
    }

    /// Makes frames read as zero: the next owner sees nothing of this one's.
    fn empty(&self, frames: &[u64]) {
        let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
        for run in frames.chunk_by(|left, right| left + 1 == *right) {
            let (offset, length) = (run[0] * PAGE as u64, run.len() * PAGE);
            rustix::fs::fallocate(&self.file, flags, offset, length as u64).expect("an anonymous file can have holes");
        }
    }

    /// Takes `count` frames in a row, between two frame numbers, that do not cross a multiple of `boundary` frames (0 for
    /// any); the first.
    pub(crate) fn take_contiguous(
        &self,
        count: u64,
        lowest: u64,
        highest: u64,
        boundary: u64,
        owner: &Owner,
    ) -> Option<u64> {
        let mut state = self.lock();
        let start = state.find_contiguous(count, lowest, highest, boundary)?;
        let run = state.take_run(count, start, start + count - 1)?;
        for frame in run.0..run.0 + run.1 {
            state.owners.insert(frame, owner.clone());
        }
        Some(run.0)
    }

    /// A frame that holds `contents`, a page, for memory that moves into it. Its owner is whoever abandons it.
    pub(crate) fn adopt(&self, contents: &[u8]) -> Option<u64> {
        let frame = {
            let mut state = self.lock();
            let (frame, _) = state.take_run(1, FIRST_FRAME, FRAMES - 1)?;
            state.adopted.insert(frame, false);
            frame
        };
        let written = rustix::io::pwrite(&self.file, contents, frame * PAGE as u64);
        if written == Ok(PAGE) {
            return Some(frame);
        }
        self.abandon(&[frame]);
        None
    }

    /// Zeroed frames for memory that is made of them, in runs; its end abandons them. `None` when there are not enough.
    pub(crate) fn adopt_zeroed(&self, count: usize) -> Option<Vec<u64>> {
        let mut frames = Vec::new();
        {
            let mut state = self.lock();
            while frames.len() < count {
                let wanted = (count - frames.len()) as u64;
                let Some((first, taken)) = state.take_run(wanted, FIRST_FRAME, FRAMES - 1) else { break };
                for frame in first..first + taken {
                    state.adopted.insert(frame, false);
                    frames.push(frame);
                }
            }
        }
        if frames.len() == count {
            return Some(frames);
        }
        self.abandon(&frames);
        None
    }

    /// Writes to a physical address.
    ///
    /// # Errors
    /// `STATUS_INSUFFICIENT_RESOURCES` when Linux has no memory for it.
    pub(crate) fn write(&self, address: u64, bytes: &[u8]) -> Result<(), NtStatus> {
        let written = rustix::io::pwrite(&self.file, bytes, address);
        if written == Ok(bytes.len()) { Ok(()) } else { Err(NtStatus::INSUFFICIENT_RESOURCES) }
    }

    /// Puts a frame where memory of `arena` is.
    pub(crate) fn place(&self, arena: &Arena, page: usize, frame: u64, access: Access) -> bool {
        arena.place_file(page, &self.file, frame * PAGE as u64, 1, access)
    }

    /// The memory that moved into these frames is gone.
    pub(crate) fn abandon(&self, frames: &[u64]) {
        let free: Vec<u64> = {
            let mut state = self.lock();
            frames.iter().copied().filter(|frame| state.abandon(*frame)).collect()
        };
        self.empty(&free);
    }

    /// Keeps a frame until it is unpinned as often.
    pub(crate) fn pin(&self, frame: u64) {
        *self.lock().pins.entry(frame).or_default() += 1;
    }

    /// Ends one pin of each frame.
    pub(crate) fn unpin(&self, frames: &[u64]) {
        let free: Vec<u64> = {
            let mut state = self.lock();
            frames.iter().copied().filter(|frame| state.unpin(*frame)).collect()
        };
        self.empty(&free);
    }

    /// Whether a frame is locked or mapped into a process.
    pub(crate) fn is_pinned(&self, frame: u64) -> bool {
        self.lock().pins.contains_key(&frame)
    }

    /// Maps frames one behind the other into `arena`; the address of the first.
    pub(crate) fn map(&self, arena: &Arena, frames: &[u64], access: Access) -> Option<usize> {
        let address = arena.take(frames.len())?;
        let mut at = 0;
        for run in frames.chunk_by(|left, right| left + 1 == *right) {
            let offset = run.first()? * PAGE as u64;
            if !arena.place_file(address + at * PAGE, &self.file, offset, run.len(), access) {
                arena.release(address, frames.len());
                return None;
            }
            at += run.len();
        }
        Some(address)
    }

    /// Reads from a physical address; how many bytes there were.
    pub(crate) fn read(&self, address: u64, into: &mut [u8]) -> usize {
        rustix::io::pread(&self.file, into, address).unwrap_or(0)
    }

    /// Frames that `driver` has not freed.
    pub(crate) fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let mut groups: BTreeMap<(&'static str, Origin), u64> = BTreeMap::new();
        for owner in self.lock().owners.values() {
            if std::ptr::eq(Arc::as_ptr(&owner.driver), driver) {
                *groups.entry((owner.ddi, owner.site)).or_default() += 1;
            }
        }
        let leak = |((ddi, site), count)| Leak {
            kind: LeakKind::Mapping,
            count,
            bytes: count * PAGE as u64,
            detail: format!("physical pages, allocated by {ddi} from {site}"),
        };
        groups.into_iter().map(leak).collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Cuts a run of at most `count` frames out of the highest free run that reaches into the limits.
    fn take_run(&mut self, count: u64, lowest: u64, highest: u64) -> Option<Run> {
        let usable = |(first, length): (&u64, &u64)| {
            let from = (*first).max(lowest);
            let to = (first + length - 1).min(highest);
            (from <= to).then_some((*first, *length, from, to))
        };
        let (first, length, from, to) = self.free.iter().rev().find_map(usable)?;
        let taken = count.min(to - from + 1);
        let start = to + 1 - taken;
        self.free.remove(&first);
        if start > first {
            self.free.insert(first, start - first);
        }
        let end = first + length;
        if start + taken < end {
            self.free.insert(start + taken, end - start - taken);
        }
        Some((start, taken))
    }

    /// The memory behind an adopted frame is gone; true when the frame is free now.
    fn abandon(&mut self, frame: u64) -> bool {
        match self.adopted.get_mut(&frame) {
            Some(gone) if self.pins.contains_key(&frame) => {
                *gone = true;
                false
            }
            Some(_) => {
                self.adopted.remove(&frame);
                self.add_free(frame);
                true
            }
            None => false,
        }
    }

    /// Ends one pin; true when the frame is free now.
    fn unpin(&mut self, frame: u64) -> bool {
        let Some(count) = self.pins.get_mut(&frame) else { return false };
        *count -= 1;
        if *count > 0 {
            return false;
        }
        self.pins.remove(&frame);
        self.adopted.get(&frame) == Some(&true) && self.abandon(frame)
    }

    /// The highest place for `count` free frames in a row.
    fn find_contiguous(&self, count: u64, lowest: u64, highest: u64, boundary: u64) -> Option<u64> {
        if boundary > 0 && count > boundary {
            return None;
        }
        for (first, length) in self.free.iter().rev() {
            let (from, to) = ((*first).max(lowest), (first + length - 1).min(highest));
            let Some(mut start) = (to + 1).checked_sub(count).filter(|start| *start >= from) else { continue };
            if boundary > 0 && start / boundary != (start + count - 1) / boundary {
                // Down to where the run ends right below the boundary that it crosses.
                let Some(below) = ((start + count - 1) / boundary * boundary).checked_sub(count) else { continue };
                start = below;
            }
            if start >= from {
                return Some(start);
            }
        }
        None
    }

    fn add_free(&mut self, frame: u64) {
        let mut run = (frame, 1);
        if let Some(above) = self.free.remove(&(frame + 1)) {
            run.1 += above;
        }
        if let Some((first, length)) = self.free.range(..frame).next_back().map(|(first, length)| (*first, *length))
            && first + length == frame
        {
            self.free.remove(&first);
            run = (first, length + run.1);
        }
        self.free.insert(run.0, run.1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner() -> Owner {
        Owner { driver: Driver::without_image("test.sys"), ddi: "Test", site: Origin::default() }
    }

    fn frames(runs: &[Run]) -> Vec<u64> {
        runs.iter().flat_map(|(first, count)| *first..first + count).collect()
    }

    #[test]
    fn frames_lie_between_the_limits_and_large_allocations_are_not_contiguous() {
        let memory = PhysicalMemory::default();
        let taken = frames(&memory.take(1000, 0x1000, 0x1FFF, &owner()));
        assert_eq!(taken.len(), 1000);
        assert!(taken.iter().all(|frame| (0x1000..=0x1FFF).contains(frame)));
        let mut sorted = taken.clone();
        sorted.sort_unstable();
        assert!(sorted.windows(2).any(|two| two[0] + 1 != two[1]));
        sorted.dedup();
        assert_eq!(sorted.len(), 1000);
    }

    #[test]
    fn an_allocation_gets_what_there_is_when_there_is_not_enough() {
        let memory = PhysicalMemory::default();
        let taken = frames(&memory.take(1000, 0x1000, 0x1000 + 199, &owner()));
        assert_eq!(taken.len(), 200);
        assert!(memory.take(1, 0x1000, 0x1000 + 199, &owner()).is_empty());
        memory.give_back(&taken).unwrap();
        assert_eq!(frames(&memory.take(1000, 0x1000, 0x1000 + 199, &owner())).len(), 200);
    }

    #[test]
    fn a_frame_given_back_twice_is_noticed() {
        let memory = PhysicalMemory::default();
        let taken = frames(&memory.take(3, 0, FRAMES, &owner()));
        memory.give_back(&taken).unwrap();
        assert_eq!(memory.give_back(&taken), Err(taken[0]));
    }

    #[test]
    fn two_mappings_show_the_same_bytes_and_freed_frames_come_back_zeroed() {
        let memory = PhysicalMemory::default();
        let arena = Arena::reserve(None, 1 << 30, 0).unwrap();
        let taken = frames(&memory.take(130, 0, FRAMES, &owner()));
        let one = memory.map(&arena, &taken, Access::ReadWrite).unwrap();
        let two = memory.map(&arena, &taken, Access::Read).unwrap();
        let last = 129 * PAGE + 7;
        super::super::raw::Raw::<u8>::at(one + last).write(9);
        assert_eq!(super::super::raw::Raw::<u8>::at(two + last).read(), 9);
        memory.give_back(&taken).unwrap();
        assert_eq!(super::super::raw::Raw::<u8>::at(two + last).read(), 0);
    }
}
