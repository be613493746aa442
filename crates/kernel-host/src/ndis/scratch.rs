//! Kernel memory for structures that NDIS hands to drivers.

use std::sync::Arc;

use nt_types::UNICODE_STRING;

use crate::machine::Inner;
use crate::nt::arena::{Access, PAGE, pages_for};
use crate::nt::raw::Raw;
use crate::nt::unicode;

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

/// A counted string and its characters.
#[derive(Debug)]
pub(super) struct Text {
    string: Scratch,
    _characters: Scratch,
}

impl Text {
    /// A string; `None` when memory is short.
    pub(super) fn new(machine: &Arc<Inner>, text: &str) -> Option<Self> {
        let mut bytes = unicode::bytes_of(text);
        let length = u16::try_from(bytes.len()).ok()?;
        // Terminated, as NDIS's strings are, although they are counted.
        bytes.extend([0, 0]);
        let characters = Scratch::bytes(machine, &bytes)?;
        let string = Scratch::new(machine, size_of::<UNICODE_STRING>())?;
        let buffer = characters.raw().pointer();
        string.raw().write(UNICODE_STRING { Length: length, MaximumLength: length + 2, Buffer: buffer });
        Some(Self { string, _characters: characters })
    }

    /// Where the string is.
    pub(super) fn string(&self) -> *mut UNICODE_STRING {
        self.string.raw().pointer()
    }
}
