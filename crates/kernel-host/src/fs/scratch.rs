//! User memory for a program's reads and writes: one buffer for each thread, kept for the next transfer of the same length.

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use nt_types::NtStatus;

use crate::process::{Placement, Process, Protection};

/// The last buffer, without its process, which it must not keep alive.
struct Kept {
    process: Weak<Process>,
    address: usize,
    length: usize,
}

thread_local! {
    static KEPT: RefCell<Option<Kept>> = const { RefCell::new(None) };
}

/// User memory on loan.
pub(super) struct Scratch {
    process: Arc<Process>,
    address: usize,
    length: usize,
}

impl Process {
    /// `length` bytes of user memory that end with their page.
    ///
    /// # Errors
    /// `NO_MEMORY`.
    pub(super) fn scratch(self: &Arc<Self>, length: usize) -> Result<Scratch, NtStatus> {
        let kept = KEPT.take();
        let fits = |kept: &Kept| kept.length == length && std::ptr::eq(kept.process.as_ptr(), Arc::as_ptr(self));
        let address = match kept {
            Some(kept) if fits(&kept) && !self.has_exited() => kept.address,
            Some(other) => {
                // Drop frees it with the new one in its place.
                KEPT.set(Some(other));
                self.memory().allocate(length, Protection::ReadWrite, Placement::Aligned)?
            }
            None => self.memory().allocate(length, Protection::ReadWrite, Placement::Aligned)?,
        };
        Ok(Scratch { process: Arc::clone(self), address, length })
    }
}

impl Scratch {
    pub(super) fn address(&self) -> usize {
        self.address
    }

    /// The bytes at its start.
    ///
    /// # Errors
    /// `ACCESS_VIOLATION` where the program took them away meanwhile.
    pub(super) fn read(&self, count: usize) -> Result<Vec<u8>, NtStatus> {
        let mut bytes = vec![0; count.min(self.length)];
        self.process.memory().read(self.address, &mut bytes)?;
        Ok(bytes)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let kept = Kept { process: Arc::downgrade(&self.process), address: self.address, length: self.length };
        // A buffer of another length, or another process's that still runs, goes.
        if let Some(before) = KEPT.replace(Some(kept))
            && before.address != self.address
            && let Some(process) = before.process.upgrade()
        {
            // Fails only when the program freed it itself.
            let _freed = process.memory().free(before.address);
        }
    }
}
