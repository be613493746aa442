//! Kernel memory for structures that NDIS hands to drivers.

use std::sync::Arc;

use crate::machine::Inner;
use crate::nt::arena::{Access, PAGE, pages_for};
use crate::nt::raw::Raw;

/// Zeroed memory that ends where its page ends, so that a driver that goes too far faults, and that nobody can touch once it is dropped.
#[derive(Debug)]
pub(super) struct Scratch {
    machine: Arc<Inner>,
    address: usize,
    run: usize,
    pages: usize,
}

impl Scratch {
    /// Memory for `length` bytes, aligned to 8; `None` when the machine's address space is exhausted.
    pub(super) fn new(machine: &Arc<Inner>, length: usize) -> Option<Self> {
        Self::aligned(machine, length.next_multiple_of(8))
    }

    /// As [`Scratch::new`] for bytes without alignment.
    pub(super) fn bytes(machine: &Arc<Inner>, bytes: &[u8]) -> Option<Self> {
        let memory = Self::aligned(machine, bytes.len())?;
        memory.raw().write_bytes(bytes);
        Some(memory)
    }

    fn aligned(machine: &Arc<Inner>, length: usize) -> Option<Self> {
        let pages = pages_for(length).max(1);
        let run = machine.nt.arena().allocate(pages, Access::ReadWrite)?;
        Some(Self { machine: Arc::clone(machine), address: run + pages * PAGE - length, run, pages })
    }

    /// Where it is.
    pub(super) fn raw<T>(&self) -> Raw<T> {
        Raw::at(self.address)
    }

    /// Its address.
    pub(super) fn address(&self) -> usize {
        self.address
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        self.machine.nt.arena().release(self.run, self.pages);
    }
}
