//! A writable view of a file in a program.

use std::sync::{Arc, Mutex, PoisonError};

use nt_types::NtStatus;

use super::io;
use super::section::{self, WritableReference};
use crate::machine::Inner;
use crate::nt::ob::ObjectRef;
use crate::process::Process;

/// `PAGE_READWRITE`.
const PAGE_READWRITE: u32 = 0x04;

/// A writable view of a file. It outlives the handle it was made from; dropping it unmaps it.
///
/// What is stored is there for all readers at once. That it was stored reaches filters only as the paging write of a
/// [`flush`](Self::flush), or of the page writer when the view goes.
#[derive(Debug)]
pub struct MappedView {
    process: Arc<Process>,
    /// Ranges stored to and not written yet.
    dirty: Mutex<Vec<(i64, usize)>>,
    #[expect(dead_code, reason = "counts while it lives")]
    writable: WritableReference,
    /// The file object, which a section keeps alive. Last: everything else goes first.
    file: ObjectRef,
}

impl MappedView {
    pub(super) fn new(machine: &Arc<Inner>, file: ObjectRef, process: &Arc<Process>) -> Result<Self, NtStatus> {
        let (_, open) = io::opened(&file)?;
        section::acquire(machine, &file, PAGE_READWRITE)?;
        let writable = WritableReference::new(&open);
        section::release(machine, &file);
        Ok(Self { process: Arc::clone(process), dirty: Mutex::default(), writable, file })
    }

    /// Stores `bytes` at `offset` through the view: no filter and no create sees it.
    ///
    /// # Errors
    /// The file system's.
    pub fn store(&self, offset: i64, bytes: &[u8]) -> Result<(), NtStatus> {
        let (_, open) = io::opened(&self.file)?;
        open.write(offset, bytes)?;
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner).push((offset, bytes.len()));
        Ok(())
    }

    /// NtFlushVirtualMemory: writes what was stored, as paging I/O.
    ///
    /// # Errors
    /// What filters or the file system answer.
    pub fn flush(&self) -> Result<(), NtStatus> {
        self.write_back(false)
    }

    fn write_back(&self, by_page_writer: bool) -> Result<(), NtStatus> {
        let dirty = std::mem::take(&mut *self.dirty.lock().unwrap_or_else(PoisonError::into_inner));
        let (_, open) = io::opened(&self.file)?;
        self.process.in_kernel(|machine| {
            for (offset, length) in dirty {
                let mut bytes = vec![0; length];
                let range = super::buffer::Buffer { address: bytes.as_mut_ptr().expose_provenance(), length };
                // What is there now, which may be newer than what was stored.
                open.read_into(offset, range)?;
                section::write_pages(machine, &self.file, offset, &bytes, by_page_writer)?;
            }
            Ok(())
        })
    }
}

impl Drop for MappedView {
    fn drop(&mut self) {
        // A lost page is nobody's to report to: Windows shows "delayed write failed".
        let _lost = self.write_back(true);
    }
}
