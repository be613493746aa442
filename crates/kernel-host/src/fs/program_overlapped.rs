//! Requests of programs that may be pending: overlapped reads and writes, watches, locks that wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use nt_types::{AccessMask, IrpFlags, NtStatus};

use super::io::Issue;
use super::program_file::ProgramFile;
use crate::flt::{self, Flight, Operation, major};
use crate::nt::ob::ObjectRef;
use crate::process::{Process, UserBuffer};
use crate::thread::Thread;

/// A request that was issued on a handle for asynchronous I/O. Dropping it does not cancel it.
#[derive(Debug)]
pub struct Overlapped {
    process: Arc<Process>,
    flight: Arc<Flight>,
    buffer: UserBuffer,
    /// The I/O manager's buffer of a control request, in place of the program's.
    system: Option<Arc<[AtomicU8]>>,
}

impl Overlapped {
    /// Whether the request is still under way: what `STATUS_PENDING` in the OVERLAPPED says.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        self.flight.outcome_within(Duration::ZERO).is_none()
    }

    /// Waits at most `patience`: the bytes that were moved (what was read, for a read).
    ///
    /// # Errors
    /// `TIMEOUT` when the request is still pending, else what it ended with: `CANCELLED`, `END_OF_FILE`, ...
    pub fn wait(&self, patience: Duration) -> Result<Vec<u8>, NtStatus> {
        let (status, count) = self.flight.outcome_within(patience).ok_or(NtStatus::TIMEOUT)?;
        if status != NtStatus::SUCCESS {
            return Err(status);
        }
        if let Some(system) = &self.system {
            return Ok(system.iter().take(count).map(|byte| byte.load(Ordering::Acquire)).collect());
        }
        self.process.memory().read_vec(self.buffer.address(), count.min(self.buffer.len()))
    }

    /// `Information` of the end: for most requests a count of bytes. `None` while the request is pending.
    #[must_use]
    pub fn information(&self) -> Option<usize> {
        self.flight.outcome_within(Duration::ZERO).map(|(_, information)| information)
    }

    /// CancelIoEx: asks for the end of the request. Whoever keeps it decides when it ends.
    ///
    /// # Errors
    /// `NOT_FOUND` when it is over already.
    pub fn cancel(&self) -> Result<(), NtStatus> {
        if !self.is_pending() {
            return Err(NtStatus::NOT_FOUND);
        }
        let machine = self.process.machine().ok_or(NtStatus::PROCESS_IS_TERMINATING)?;
        Thread::enter(&machine, |thread| self.flight.cancel(thread));
        Ok(())
    }
}

impl ProgramFile {
    /// ReadFile with an OVERLAPPED, on a handle that was opened [`overlapped`](super::program::OpenOptions::overlapped).
    ///
    /// # Errors
    /// `ACCESS_DENIED` without the right; everything else is the request's own outcome.
    pub fn read_overlapped(&self, offset: i64, length: u32) -> Result<Overlapped, NtStatus> {
        let object = self.object(AccessMask::FILE_READ_DATA)?;
        let buffer = self.buffer(length)?;
        self.launch(&object, buffer, |issue, range| issue.transfer(major::READ, offset, range, IrpFlags::empty()))
    }

    /// WriteFile with an OVERLAPPED. Errors as for [`read_overlapped`](Self::read_overlapped).
    pub fn write_overlapped(&self, offset: i64, bytes: &[u8]) -> Result<Overlapped, NtStatus> {
        let object = self.writable_object()?;
        let buffer = self.process.buffer(bytes)?;
        self.launch(&object, buffer, |issue, range| issue.transfer(major::WRITE, offset, range, IrpFlags::empty()))
    }

    /// ReadDirectoryChangesW: pending until something happens to the entries of the folder (of all below it, for `tree`). The
    /// answer is FILE_NOTIFY_INFORMATION entries; none when more happened than fits.
    ///
    /// # Errors
    /// As for [`read_overlapped`](Self::read_overlapped).
    pub fn watch(&self, filter: u32, tree: bool, length: u32) -> Result<Overlapped, NtStatus> {
        let object = self.object(AccessMask::FILE_READ_DATA)?;
        let buffer = self.buffer(length)?;
        self.launch(&object, buffer, |issue, range| issue.notify(range, filter, tree))
    }

    /// LockFileEx: pending until the range is free.
    ///
    /// # Errors
    /// As for [`read_overlapped`](Self::read_overlapped).
    pub fn lock_overlapped(&self, offset: i64, length: i64, exclusive: bool, key: u32) -> Result<Overlapped, NtStatus> {
        let object = self.object(AccessMask::FILE_READ_DATA).or_else(|_| self.writable_object())?;
        // The I/O manager's copy of the length has to be there until the request ends.
        let system: Arc<[AtomicU8]> = length.to_le_bytes().into_iter().map(AtomicU8::new).collect();
        let address = system.as_ptr().expose_provenance();
        self.launch(&object, self.buffer(1)?, |issue, _| {
            let operation = issue.lock_at(offset, address, exclusive, key, false);
            Operation { buffer: Some(system), ..operation }
        })
    }

    /// FSCTL_* with an OVERLAPPED: pending for as long as the file system (or a filter) keeps it, as an oplock is. The answer has at
    /// most `output_length` bytes. For codes with `METHOD_BUFFERED` only.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for a code with another method.
    pub fn fs_control_overlapped(&self, code: u32, input: &[u8], output_length: u32) -> Result<Overlapped, NtStatus> {
        if code & 3 != 0 {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        let object = self.object(AccessMask::empty())?;
        let length = input.len().max(output_length as usize);
        let byte = |at| AtomicU8::new(input.get(at).copied().unwrap_or(0));
        let system: Arc<[AtomicU8]> = (0..length).map(byte).collect();
        let address = if system.is_empty() { 0 } else { system.as_ptr().expose_provenance() };
        let input = (address, input.len() as u32);
        let overlapped = self.launch(&object, self.buffer(output_length.max(1))?, |issue, _| {
            let irp = issue.irp(major::FILE_SYSTEM_CONTROL).irp_flags(IrpFlags::BUFFERED_IO).system_buffer();
            let operation = irp.control(code, input, (0, output_length));
            Operation { buffer: Some(Arc::clone(&system)), ..operation }
        })?;
        Ok(Overlapped { system: Some(system), ..overlapped })
    }

    fn launch(
        &self,
        object: &ObjectRef,
        buffer: UserBuffer,
        operation: impl FnOnce(&Issue<'_>, (usize, u32)) -> Operation,
    ) -> Result<Overlapped, NtStatus> {
        let range = (buffer.address(), buffer.len() as u32);
        let flight = self.issue(object, |issue| {
            let operation = operation(issue, range).kept(object, Some(&self.process));
            flt::launch(issue.machine, &issue.open.volume, &operation)
        })?;
        Ok(Overlapped { process: Arc::clone(&self.process), flight, buffer, system: None })
    }
}
