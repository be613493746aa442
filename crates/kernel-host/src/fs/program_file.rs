//! A file that a program has open, and the calls on its handle that wait for their end.

use std::sync::Arc;

use nt_types::{AccessMask, IrpFlags, NtStatus, USER_MODE};

use super::information::class;
use super::io::{self, Issue};
use super::path::wide;
use super::program_view::MappedView;
use super::scratch::Scratch;
use crate::flt::major;
use crate::machine::Inner;
use crate::nt::ob::ObjectRef;
use crate::process::{Placement, Process, Protection};

/// A file that a program has open. Dropping it closes the handle.
#[derive(Debug)]
pub struct ProgramFile {
    pub(super) process: Arc<Process>,
    handle: usize,
    information: usize,
}

/// A new name for a file, in the manner of FileRenameInformationEx and FileLinkInformationEx.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NewName(u32);

impl NewName {
    /// `FILE_RENAME_REPLACE_IF_EXISTS`.
    pub const REPLACE: Self = Self(0x01);
    /// `FILE_RENAME_POSIX_SEMANTICS`: what has the name goes even while it is open.
    pub const POSIX: Self = Self(0x02);
    /// `FILE_RENAME_IGNORE_READONLY_ATTRIBUTE`.
    pub const IGNORE_READONLY: Self = Self(0x40);

    /// Both.
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl ProgramFile {
    pub(super) fn new(process: &Arc<Process>, handle: usize, information: usize) -> Self {
        Self { process: Arc::clone(process), handle, information }
    }

    /// The handle's value in the process.
    #[must_use]
    pub fn handle(&self) -> usize {
        self.handle
    }

    /// `IoStatusBlock.Information` of the create: `FILE_OPENED` (1), `FILE_CREATED` (2) and so on.
    #[must_use]
    pub fn create_information(&self) -> usize {
        self.information
    }

    /// Reads at most `length` bytes from `offset`; -2 (`FILE_USE_FILE_POINTER_POSITION`) is the current offset.
    ///
    /// # Errors
    /// `END_OF_FILE` at or behind the end, `ACCESS_DENIED` without the right, `FILE_LOCK_CONFLICT`, `INVALID_PARAMETER` for a
    /// non-cached read that is not aligned.
    pub fn read(&self, offset: i64, length: usize) -> Result<Vec<u8>, NtStatus> {
        let (buffer, count) = self.transfer_in(offset, length)?;
        buffer.read(count)
    }

    /// As [`read`](Self::read), into the host's own memory: how many bytes there were.
    ///
    /// # Errors
    /// As for [`read`](Self::read).
    pub fn read_into(&self, offset: i64, into: &mut [u8]) -> Result<usize, NtStatus> {
        let (buffer, count) = self.transfer_in(offset, into.len())?;
        let count = count.min(into.len());
        self.process.memory().read(buffer.address(), &mut into[..count])?;
        Ok(count)
    }

    /// A read into user memory: what the program would find there.
    fn transfer_in(&self, offset: i64, length: usize) -> Result<(Scratch<'_>, usize), NtStatus> {
        let length = u32::try_from(length).map_err(|_| NtStatus::INVALID_PARAMETER)?;
        let object = self.object(AccessMask::FILE_READ_DATA)?;
        let buffer = self.process.scratch(length as usize)?;
        let address = buffer.address();
        let (status, count) = self.issue(&object, |issue| {
            let range = (address, length);
            issue.run_transfer(issue.transfer(major::READ, offset, range, IrpFlags::empty()))
        })?;
        status.ok()?;
        Ok((buffer, count))
    }

    /// Writes `bytes` at `offset`; -1 is the end of the file, -2 the current offset.
    ///
    /// # Errors
    /// `ACCESS_DENIED` without the right, `FILE_LOCK_CONFLICT`, and the file system's.
    pub fn write(&self, offset: i64, bytes: &[u8]) -> Result<usize, NtStatus> {
        let length = u32::try_from(bytes.len()).map_err(|_| NtStatus::INVALID_PARAMETER)?;
        let object = self.writable_object()?;
        let buffer = self.process.scratch(bytes.len())?;
        self.process.memory().write(buffer.address(), bytes)?;
        let (status, count) = self.issue(&object, |issue| {
            let range = (buffer.address(), length);
            issue.run_transfer(issue.transfer(major::WRITE, offset, range, IrpFlags::empty()))
        })?;
        status.ok()?;
        Ok(count)
    }

    /// NtFlushBuffersFile.
    ///
    /// # Errors
    /// `ACCESS_DENIED` for a handle that cannot write.
    pub fn flush(&self) -> Result<(), NtStatus> {
        let object = self.object(AccessMask::empty())?;
        self.issue(&object, |issue| issue.run(&issue.synchronous_irp(major::FLUSH_BUFFERS)))?.0.ok()
    }

    /// NtQueryInformationFile, as raw bytes of the information class.
    ///
    /// # Errors
    /// As the class documents.
    pub fn query(&self, class: u32, length: usize) -> Result<Vec<u8>, NtStatus> {
        let object = self.object(AccessMask::empty())?;
        let (status, bytes) =
            self.in_kernel(|machine| Ok(io::query_information(machine, &object, None, class, length)))?;
        status.ok()?;
        Ok(bytes)
    }

    /// NtSetInformationFile, with raw bytes of the information class.
    ///
    /// # Errors
    /// As the class documents.
    pub fn set(&self, class: u32, bytes: &[u8]) -> Result<(), NtStatus> {
        let object = self.object(AccessMask::empty())?;
        self.in_kernel(|machine| io::set_information(machine, &object, None, class, bytes).ok())
    }

    /// Marks the file for deletion, or takes the mark back.
    ///
    /// # Errors
    /// `ACCESS_DENIED` without `DELETE`, `CANNOT_DELETE`, `DIRECTORY_NOT_EMPTY`.
    pub fn set_delete(&self, delete: bool) -> Result<(), NtStatus> {
        self.set(class::DISPOSITION, &[u8::from(delete)])
    }

    /// FileDispositionInformationEx with `FILE_DISPOSITION_*` flags: delete 1, POSIX semantics 2, on close 8, ignore the
    /// read-only attribute 0x10.
    ///
    /// # Errors
    /// As [`set_delete`](Self::set_delete); `NOT_SUPPORTED` for "on close" on a handle that was not opened so.
    pub fn set_disposition(&self, flags: u32) -> Result<(), NtStatus> {
        self.set(class::DISPOSITION_EX, &flags.to_le_bytes())
    }

    /// Sets the length in bytes.
    ///
    /// # Errors
    /// `ACCESS_DENIED` without the right to write.
    pub fn set_length(&self, length: i64) -> Result<(), NtStatus> {
        self.set(class::END_OF_FILE, &length.to_le_bytes())
    }

    /// Renames within the volume: a plain name stays in the folder, one with a backslash starts at the volume's root or is a
    /// whole NT path, one with a colon renames the stream.
    ///
    /// # Errors
    /// `ACCESS_DENIED` without `DELETE` or when the name is in use, `OBJECT_NAME_COLLISION` when the name is taken and not to
    /// be replaced, `NOT_SAME_DEVICE`.
    pub fn rename(&self, name: &str, replace: bool) -> Result<(), NtStatus> {
        self.set(class::RENAME, &new_name(name, u32::from(replace)))
    }

    /// FileRenameInformationEx.
    ///
    /// # Errors
    /// As [`rename`](Self::rename).
    pub fn rename_with(&self, name: &str, how: NewName) -> Result<(), NtStatus> {
        self.set(class::RENAME_EX, &new_name(name, how.0))
    }

    /// Gives the file a second name: a hard link.
    ///
    /// # Errors
    /// `OBJECT_NAME_COLLISION` when the name is taken, `FILE_IS_A_DIRECTORY`.
    pub fn link(&self, name: &str) -> Result<(), NtStatus> {
        self.link_with(name, NewName::default())
    }

    /// FileLinkInformationEx.
    ///
    /// # Errors
    /// As [`link`](Self::link).
    pub fn link_with(&self, name: &str, how: NewName) -> Result<(), NtStatus> {
        self.set(class::LINK_EX, &new_name(name, how.0))
    }

    /// NtQueryVolumeInformationFile, as raw bytes of the information class.
    ///
    /// # Errors
    /// As the class documents.
    pub fn query_volume(&self, class: u32, length: u32) -> Result<Vec<u8>, NtStatus> {
        let object = self.object(AccessMask::empty())?;
        let (status, bytes) = self.issue(&object, |issue| issue.query_volume(class, length))?;
        status.ok()?;
        Ok(bytes)
    }

    /// NtSetVolumeInformationFile.
    ///
    /// # Errors
    /// As the class documents.
    pub fn set_volume(&self, class: u32, bytes: &[u8]) -> Result<(), NtStatus> {
        let object = self.object(AccessMask::FILE_WRITE_DATA)?;
        self.issue(&object, |issue| issue.set_volume(class, bytes))?.ok()
    }

    /// NtQueryEaFile: entries as FILE_FULL_EA_INFORMATION, from the first on.
    ///
    /// # Errors
    /// `NO_EAS_ON_FILE`, `ACCESS_DENIED` without the right, `BUFFER_OVERFLOW`.
    pub fn query_ea(&self, length: u32) -> Result<Vec<u8>, NtStatus> {
        let object = self.object(AccessMask::FILE_READ_EA)?;
        let buffer = self.buffer(length)?;
        let outcome =
            self.issue(&object, |issue| issue.query_ea((buffer.address(), length), (0, 0), None, true, false))?;
        outcome.0.ok()?;
        self.process.memory().read_vec(buffer.address(), outcome.1.min(length as usize))
    }

    /// NtSetEaFile with a FILE_FULL_EA_INFORMATION list.
    ///
    /// # Errors
    /// `EA_LIST_INCONSISTENT`, `INVALID_EA_NAME`, `EA_TOO_LARGE`, `ACCESS_DENIED` without the right.
    pub fn set_ea(&self, list: &[u8]) -> Result<(), NtStatus> {
        let object = self.object(AccessMask::FILE_WRITE_EA)?;
        let buffer = self.process.buffer(list)?;
        let range = (buffer.address(), list.len() as u32);
        self.issue(&object, |issue| issue.set_ea(range))?.0.ok()
    }

    /// NtQuerySecurityObject: a self-relative descriptor with the `SECURITY_INFORMATION` parts asked for.
    ///
    /// # Errors
    /// `BUFFER_TOO_SMALL`, `ACCESS_DENIED` without the right.
    pub fn query_security(&self, parts: u32, length: u32) -> Result<Vec<u8>, NtStatus> {
        let object = self.object(AccessMask::empty())?;
        let buffer = self.buffer(length)?;
        let outcome = self.issue(&object, |issue| issue.query_security(parts, (buffer.address(), length)))?;
        match outcome {
            (NtStatus::BUFFER_OVERFLOW, _) => Err(NtStatus::BUFFER_TOO_SMALL),
            (status, count) => {
                status.ok()?;
                self.process.memory().read_vec(buffer.address(), count.min(length as usize))
            }
        }
    }

    /// NtSetSecurityObject with a self-relative descriptor.
    ///
    /// # Errors
    /// `INVALID_SECURITY_DESCR`, `ACCESS_DENIED` without the rights that the parts need.
    pub fn set_security(&self, parts: u32, descriptor: &[u8]) -> Result<(), NtStatus> {
        let object = self.object(AccessMask::empty())?;
        self.issue(&object, |issue| issue.set_security(parts, descriptor))?.ok()
    }

    /// Maps the file writable and shared, as NtCreateSection and NtMapViewOfSection do.
    ///
    /// # Errors
    /// `ACCESS_DENIED` without the right to write, or what a filter answers to IRP_MJ_ACQUIRE_FOR_SECTION_SYNCHRONIZATION.
    pub fn map_writable(&self) -> Result<MappedView, NtStatus> {
        let object = self.object(AccessMask::FILE_WRITE_DATA)?;
        self.in_kernel(|machine| MappedView::new(machine, object, &self.process))
    }

    /// A request on this file, in the context of its process.
    pub(super) fn issue<R>(&self, object: &ObjectRef, body: impl FnOnce(&Issue<'_>) -> R) -> Result<R, NtStatus> {
        self.in_kernel(|machine| Ok(body(&Issue::on(machine, object, None, USER_MODE)?)))
    }

    pub(super) fn in_kernel<R>(&self, body: impl FnOnce(&Arc<Inner>) -> Result<R, NtStatus>) -> Result<R, NtStatus> {
        self.process.in_kernel(body)
    }

    pub(super) fn buffer(&self, length: u32) -> Result<crate::process::UserBuffer, NtStatus> {
        self.process.allocate(length as usize, Protection::ReadWrite, Placement::Aligned)
    }

    pub(super) fn object(&self, access: AccessMask) -> Result<ObjectRef, NtStatus> {
        Ok(self.process.handles().reference(self.handle, access.bits(), Some("File"))?.object)
    }

    /// For a write, which a handle to append may do, too.
    pub(super) fn writable_object(&self) -> Result<ObjectRef, NtStatus> {
        self.object(AccessMask::FILE_WRITE_DATA).or_else(|_| self.object(AccessMask::FILE_APPEND_DATA))
    }
}

/// FILE_RENAME_INFORMATION, which FILE_LINK_INFORMATION equals.
fn new_name(name: &str, flags: u32) -> Vec<u8> {
    let name: Vec<u8> = wide(name).iter().flat_map(|unit| unit.to_le_bytes()).collect();
    let mut bytes = vec![0; 16];
    bytes[..4].copy_from_slice(&flags.to_le_bytes());
    bytes.extend((name.len() as u32).to_le_bytes());
    bytes.extend(name);
    bytes
}

impl Drop for ProgramFile {
    fn drop(&mut self) {
        // Fails only when the process exited meanwhile, which closed the handle.
        let _closed = self.process.in_kernel(|_| self.process.close_handle(self.handle));
    }
}
