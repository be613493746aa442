//! User memory for a program's reads and writes: one buffer for each thread, kept for the next transfer of the same length.

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use nt_types::NtStatus;

use crate::process::{Placement, Process, Protection};

/// The last buffer, without its process, which it must not keep alive.
#[derive(Default)]
struct Kept {
    process: Weak<Process>,
    address: usize,
    length: usize,
}

thread_local! {
    static KEPT: RefCell<Option<Kept>> = const { RefCell::new(None) };
}

/// User memory on loan.
pub(super) struct Scratch<'a> {
    process: &'a Arc<Process>,
    kept: Kept,
}

impl Process {
    /// `length` bytes of user memory that end with their page.
    ///
    /// # Errors
    /// `NO_MEMORY`.
    pub(super) fn scratch(self: &Arc<Self>, length: usize) -> Result<Scratch<'_>, NtStatus> {
        let is_mine = |kept: &Kept| std::ptr::eq(kept.process.as_ptr(), Arc::as_ptr(self));
        let kept = match KEPT.take() {
            Some(kept) if kept.length == length && is_mine(&kept) && !self.has_exited() => kept,
            other => {
                // Drop frees it with the new one in its place.
                KEPT.set(other);
                let address = self.memory().allocate(length, Protection::ReadWrite, Placement::Aligned)?;
                Kept { process: Arc::downgrade(self), address, length }
            }
        };
        Ok(Scratch { process: self, kept })
    }
}

impl Scratch<'_> {
    pub(super) fn address(&self) -> usize {
        self.kept.address
    }

    /// The bytes at its start.
    ///
    /// # Errors
    /// `ACCESS_VIOLATION` where the program took them away meanwhile.
    pub(super) fn read(&self, count: usize) -> Result<Vec<u8>, NtStatus> {
        self.process.memory().read_vec(self.kept.address, count.min(self.kept.length))
    }
}

impl Drop for Scratch<'_> {
    fn drop(&mut self) {
        let kept = std::mem::take(&mut self.kept);
        let address = kept.address;
        // A buffer of another length, or another process's that still runs, goes.
        if let Some(before) = KEPT.replace(Some(kept))
            && before.address != address
            && let Some(process) = before.process.upgrade()
        {
            // Fails only when the program freed it itself.
            let _freed = process.memory().free(before.address);
        }
    }
}
