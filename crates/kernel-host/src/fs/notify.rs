//! IRP_MN_NOTIFY_CHANGE_DIRECTORY: who watches which folder, and what has happened there.
//!
//! A change is noted while the file system's locks are held, and delivered when they are not: completing a request runs drivers.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nt_types::NtStatus;

use super::buffer::Buffer;
use super::path::{SEPARATOR, same_name};
use crate::flt::{self, Flight, operation};
use crate::machine::Inner;

bitflags::bitflags! {
    /// `FILE_NOTIFY_CHANGE_*`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Change: u32 {
        const FILE_NAME = 0x001;
        const DIR_NAME = 0x002;
        const ATTRIBUTES = 0x004;
        const SIZE = 0x008;
        const LAST_WRITE = 0x010;
        const EA = 0x080;
        const SECURITY = 0x100;
        const STREAM_NAME = 0x200;
        /// Data were written.
        const WRITTEN = Self::SIZE.bits() | Self::LAST_WRITE.bits();
    }
}

/// `FILE_ACTION_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Action {
    Added = 1,
    Removed = 2,
    Modified = 3,
    RenamedOld = 4,
    RenamedNew = 5,
}

/// Who watches a volume's folders.
#[derive(Debug, Default)]
pub(crate) struct Notices {
    state: Mutex<State>,
    /// There is something to deliver.
    due: AtomicBool,
    /// Somebody watches at all.
    watched: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    watches: Vec<Watch>,
    due: Vec<(Arc<Flight>, NtStatus, Vec<u8>)>,
}

/// One open folder that is watched, from its first request to its cleanup.
#[derive(Debug)]
struct Watch {
    /// Address of the open, as a name for it.
    open: usize,
    folder: Vec<u16>,
    tree: bool,
    filter: Change,
    /// Happened while nobody waited.
    missed: Vec<(Action, Vec<u16>)>,
    waiting: VecDeque<Arc<Flight>>,
}

impl Notices {
    /// A request: answered at once when something was missed, kept otherwise.
    pub(super) fn wait(&self, flight: &Arc<Flight>, open: usize, folder: Vec<u16>, filter: Change, tree: bool) {
        self.watched.store(true, Ordering::Release);
        let mut state = self.lock();
        let known = state.watches.iter().position(|watch| watch.open == open);
        let index = known.unwrap_or_else(|| {
            // The first request decides what is watched; later ones cannot change it.
            let (missed, waiting) = (Vec::new(), VecDeque::new());
            state.watches.push(Watch { open, folder, tree, filter, missed, waiting });
            state.watches.len() - 1
        });
        if let Some(watch) = state.watches.get_mut(index) {
            watch.waiting.push_back(Arc::clone(flight));
            let answers = watch.answers();
            state.due.extend(answers);
        }
        self.due.store(!state.due.is_empty(), Ordering::Release);
    }

    /// Something happened to the entry of that name.
    pub(super) fn note(&self, change: Change, action: Action, name: &[u16]) {
        if !self.watched.load(Ordering::Acquire) {
            return;
        }
        let mut state = self.lock();
        let State { watches, due } = &mut *state;
        for watch in watches {
            if watch.filter.intersects(change)
                && let Some(relative) = watch.relative(name)
            {
                watch.missed.push((action, relative.to_vec()));
                // The two halves of a rename belong together.
                if action != Action::RenamedOld {
                    due.extend(watch.answers());
                }
            }
        }
        self.due.store(!state.due.is_empty(), Ordering::Release);
    }

    /// The folder's last handle is closed: what waits is answered with STATUS_NOTIFY_CLEANUP.
    pub(super) fn clean_up(&self, open: usize) {
        let mut state = self.lock();
        let State { watches, due } = &mut *state;
        for watch in watches.iter_mut().filter(|watch| watch.open == open) {
            due.extend(watch.waiting.drain(..).map(|flight| (flight, NtStatus::NOTIFY_CLEANUP, Vec::new())));
        }
        watches.retain(|watch| watch.open != open);
        self.due.store(!state.due.is_empty(), Ordering::Release);
    }

    /// Takes a request out; true when it was there.
    pub(super) fn take(&self, flight: &Arc<Flight>) -> bool {
        let mut state = self.lock();
        let before: usize = state.watches.iter().map(|watch| watch.waiting.len()).sum();
        for watch in &mut state.watches {
            watch.waiting.retain(|waiting| !Arc::ptr_eq(waiting, flight));
        }
        before != state.watches.iter().map(|watch| watch.waiting.len()).sum::<usize>()
    }

    /// Completes what is due. The caller holds no lock.
    pub(crate) fn deliver(&self, machine: &Arc<Inner>) {
        // Every request comes by here: looking is cheaper than taking.
        while self.due.load(Ordering::Acquire) && self.due.swap(false, Ordering::AcqRel) {
            let due = std::mem::take(&mut self.lock().due);
            for (flight, status, answer) in due {
                let (status, information) = hand_over(&flight, status, &answer);
                flt::complete_later(machine, &flight, status, information);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch {
    /// The name below the folder, when the watch covers it.
    fn relative<'a>(&self, name: &'a [u16]) -> Option<&'a [u16]> {
        let folder = if self.folder == [SEPARATOR] { &[] } else { self.folder.as_slice() };
        let (head, tail) = name.split_at_checked(folder.len())?;
        let below = tail.strip_prefix(&[SEPARATOR])?;
        let near = !below.contains(&SEPARATOR);
        (same_name(head, folder) && !below.is_empty() && (near || self.tree)).then_some(below)
    }

    /// Answers the request that waits longest with everything missed.
    fn answers(&mut self) -> Option<(Arc<Flight>, NtStatus, Vec<u8>)> {
        if self.missed.is_empty() {
            return None;
        }
        let flight = self.waiting.pop_front()?;
        Some((flight, NtStatus::SUCCESS, entries(&std::mem::take(&mut self.missed))))
    }
}

/// `FILE_NOTIFY_INFORMATION` entries, each on a 4-byte boundary.
fn entries(events: &[(Action, Vec<u16>)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (index, (action, name)) in events.iter().enumerate() {
        let length = (12 + name.len() * 2).next_multiple_of(4);
        let next = if index + 1 == events.len() { 0 } else { length };
        bytes.extend((next as u32).to_le_bytes());
        bytes.extend((*action as u32).to_le_bytes());
        bytes.extend((name.len() as u32 * 2).to_le_bytes());
        bytes.extend(name.iter().flat_map(|unit| unit.to_le_bytes()));
        if next != 0 {
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
    }
    bytes
}

/// Into the buffer; STATUS_NOTIFY_ENUM_DIR where it is too small, so that the watcher looks for itself.
fn hand_over(flight: &Flight, status: NtStatus, answer: &[u8]) -> (NtStatus, usize) {
    if answer.is_empty() {
        return (status, 0);
    }
    let parameters: fltmgr::raw::NotifyDirectory = operation::parameters(flight.block());
    let buffer = Buffer::described(parameters.DirectoryBuffer.addr(), parameters.MdlAddress, parameters.Length);
    if buffer.length < answer.len() {
        return (NtStatus::NOTIFY_ENUM_DIR, 0);
    }
    match buffer.write(answer) {
        Ok(count) => (status, count),
        Err(status) => (status, 0),
    }
}
