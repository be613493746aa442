//! Whose address space a thread is in: its own process's, or another one's that it is attached to.

use std::sync::atomic::Ordering;
use std::sync::{Arc, MutexGuard, PoisonError};

use super::Thread;
use crate::process::{Process, exposure};

impl Thread {
    /// The process that the thread belongs to, while it may be attached to another; `None` is the system process.
    #[must_use]
    pub fn own_process(&self) -> Option<Arc<Process>> {
        let outermost = self.attached_from().first().cloned();
        outermost.unwrap_or_else(|| self.process())
    }

    /// Attaches to a process (`None`: the system's). How many attaches there are now.
    pub(crate) fn attach(&self, process: Option<Arc<Process>>) -> usize {
        exposure::hide_opened();
        if let Some(process) = process.as_ref().filter(|_| exposure::is_watched()) {
            process.memory().hide();
        }
        let before = self.set_process(process);
        let mut attached = self.attached_from();
        attached.push(before);
        self.attached.store(attached.len(), Ordering::Relaxed);
        attached.len()
    }

    /// Undoes the attach that made `depth`; false when it is not the last one.
    pub(crate) fn detach(&self, depth: usize) -> bool {
        exposure::hide_opened();
        let before = {
            let mut attached = self.attached_from();
            if attached.len() != depth {
                return false;
            }
            self.attached.store(depth.saturating_sub(1), Ordering::Relaxed);
            attached.pop()
        };
        before.map(|process| self.set_process(process)).is_some()
    }

    pub(super) fn attached_from(&self) -> MutexGuard<'_, Vec<Option<Arc<Process>>>> {
        self.attached_from.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
