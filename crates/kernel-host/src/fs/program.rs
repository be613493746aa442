//! The file API of simulated programs: NtCreateFile and its relatives, from user mode, through the filters.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use nt_types::{AccessMask, NtStatus, USER_MODE};

use super::access::Audience;
use super::device::File;
use super::information::class;
use super::io::{self, OpenParameters};
use super::options::{disposition, option};
use super::path::wide;
use crate::machine::{Inner, Machine};
use crate::nt::ob::ObjectRef;
use crate::process::Process;
use crate::thread::Thread;

/// How a program opens a file. The default is what most programs do: read, share everything, the file must exist.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    access: AccessMask,
    share: u32,
    disposition: u32,
    options: u32,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            access: AccessMask::GENERIC_READ.union(AccessMask::SYNCHRONIZE),
            share: 7,
            disposition: disposition::OPEN,
            options: option::SYNCHRONOUS_IO_NONALERT,
        }
    }
}

impl OpenOptions {
    /// Reads, shares everything, wants the file to exist.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Asks for these rights (and `SYNCHRONIZE`).
    #[must_use]
    pub fn access(mut self, access: AccessMask) -> Self {
        self.access = access.union(AccessMask::SYNCHRONIZE);
        self
    }

    /// Asks to read and to write.
    #[must_use]
    pub fn write(self) -> Self {
        self.access(AccessMask::GENERIC_READ.union(AccessMask::GENERIC_WRITE))
    }

    /// Shares with others what these `FILE_SHARE_*` bits say: read 1, write 2, delete 4.
    #[must_use]
    pub fn share(mut self, share: u32) -> Self {
        self.share = share;
        self
    }

    /// `FILE_OPEN`, `FILE_CREATE` and so on, by number.
    #[must_use]
    pub fn disposition(mut self, disposition: u32) -> Self {
        self.disposition = disposition;
        self
    }

    /// More `FILE_*` create options.
    #[must_use]
    pub fn options(mut self, options: u32) -> Self {
        self.options |= options;
        self
    }
}

/// A file that a program has open. Dropping it closes the handle.
#[derive(Debug)]
pub struct ProgramFile {
    process: Arc<Process>,
    handle: usize,
}

/// A writable view of a file. It outlives the handle it was made from; dropping it unmaps it.
#[derive(Debug)]
pub struct MappedView {
    /// The file object, which a section keeps alive.
    file: ObjectRef,
}

impl Process {
    /// Opens or creates a file by its NT path (`\??\C:\...`), with this process's token.
    ///
    /// # Errors
    /// What NtCreateFile returns.
    pub fn create_file(self: &Arc<Self>, path: &str, options: &OpenOptions) -> Result<ProgramFile, NtStatus> {
        let parameters = OpenParameters {
            access: options.access.bits(),
            file_attributes: 0x80,
            share: options.share,
            disposition: options.disposition,
            options: options.options,
            object_flags: nt_types::ObjectFlags::CASE_INSENSITIVE.bits(),
            io_flags: 0,
            mode: USER_MODE,
            process: Arc::clone(self),
        };
        self.in_kernel(|machine| {
            let (object, _information) = io::open_by_name(machine, path, &parameters, None)?;
            let granted = object.payload::<File>().and_then(|file| file.open().ok().map(|open| open.granted.bits()));
            let handle = self.handles().insert(&object, granted.unwrap_or_default(), None);
            Ok(ProgramFile { process: Arc::clone(self), handle })
        })
    }

    /// Runs kernel code in this process's context.
    fn in_kernel<R>(self: &Arc<Self>, body: impl FnOnce(&Arc<Inner>) -> Result<R, NtStatus>) -> Result<R, NtStatus> {
        let machine = self.machine().ok_or(NtStatus::PROCESS_IS_TERMINATING)?;
        Thread::enter(&machine, |thread| {
            let before = thread.set_process(Some(Arc::clone(self)));
            let result = body(&machine);
            thread.set_process(before);
            result
        })
    }
}

impl ProgramFile {
    /// The handle's value in the process.
    #[must_use]
    pub fn handle(&self) -> usize {
        self.handle
    }

    /// Reads at most `length` bytes from `offset`.
    ///
    /// # Errors
    /// `END_OF_FILE` at or behind the end, `ACCESS_DENIED` without the right.
    pub fn read(&self, offset: i64, length: usize) -> Result<Vec<u8>, NtStatus> {
        let object = self.object(AccessMask::FILE_READ_DATA)?;
        let mut bytes = vec![0; length];
        let (status, count) =
            self.process.in_kernel(|machine| Ok(io::read(machine, &object, None, USER_MODE, offset, &mut bytes)))?;
        status.ok()?;
        bytes.truncate(count);
        Ok(bytes)
    }

    /// Writes `bytes` at `offset`.
    ///
    /// # Errors
    /// `ACCESS_DENIED` without the right, and the file system's.
    pub fn write(&self, offset: i64, bytes: &[u8]) -> Result<usize, NtStatus> {
        let object = self.object(AccessMask::FILE_WRITE_DATA)?;
        let (status, count) =
            self.process.in_kernel(|machine| Ok(io::write(machine, &object, None, USER_MODE, offset, bytes)))?;
        status.ok()?;
        Ok(count)
    }

    /// NtQueryInformationFile, as raw bytes of the information class.
    ///
    /// # Errors
    /// As the class documents.
    pub fn query(&self, class: u32, length: usize) -> Result<Vec<u8>, NtStatus> {
        let object = self.object(AccessMask::empty())?;
        let (status, bytes) =
            self.process.in_kernel(|machine| Ok(io::query_information(machine, &object, None, class, length)))?;
        status.ok()?;
        Ok(bytes)
    }

    /// Marks the file for deletion, or takes the mark back.
    ///
    /// # Errors
    /// `ACCESS_DENIED` without `DELETE`, `CANNOT_DELETE`, `STATUS_DIRECTORY_NOT_EMPTY`.
    pub fn set_delete(&self, delete: bool) -> Result<(), NtStatus> {
        self.set(class::DISPOSITION, &[u8::from(delete)])
    }

    /// Sets the length in bytes.
    ///
    /// # Errors
    /// `ACCESS_DENIED` without the right to write.
    pub fn set_length(&self, length: i64) -> Result<(), NtStatus> {
        self.set(class::END_OF_FILE, &length.to_le_bytes())
    }

    /// Renames within the volume: a plain name stays in the folder, one with a backslash starts at the volume's root.
    ///
    /// # Errors
    /// `ACCESS_DENIED` without `DELETE`, `OBJECT_NAME_COLLISION` when the name is taken and not to be replaced.
    pub fn rename(&self, name: &str, replace: bool) -> Result<(), NtStatus> {
        let name: Vec<u8> = wide(name).iter().flat_map(|unit| unit.to_le_bytes()).collect();
        let mut bytes = vec![0; 16];
        bytes[0] = u8::from(replace);
        bytes.extend((name.len() as u32).to_le_bytes());
        bytes.extend(name);
        self.set(class::RENAME, &bytes)
    }

    /// Gives the file a second name in the same folder.
    ///
    /// # Errors
    /// `OBJECT_NAME_COLLISION` when the name is taken.
    pub fn link(&self, name: &str) -> Result<(), NtStatus> {
        let (_, open) = io::opened(&self.object(AccessMask::empty())?)?;
        super::change::link(&open, name)
    }

    /// Maps the file writable and shared, as NtCreateSection and NtMapViewOfSection do.
    ///
    /// # Errors
    /// `ACCESS_DENIED` without the right to write.
    pub fn map_writable(&self) -> Result<MappedView, NtStatus> {
        let object = self.object(AccessMask::FILE_WRITE_DATA)?;
        let (_, open) = io::opened(&object)?;
        open.stream.writable_sections.fetch_add(1, Ordering::AcqRel);
        Ok(MappedView { file: object })
    }

    fn set(&self, class: u32, bytes: &[u8]) -> Result<(), NtStatus> {
        let object = self.object(AccessMask::empty())?;
        self.process.in_kernel(|machine| io::set_information(machine, &object, None, class, bytes).ok())
    }

    fn object(&self, access: AccessMask) -> Result<ObjectRef, NtStatus> {
        Ok(self.process.handles().reference(self.handle, access.bits(), Some("File"))?.object)
    }
}

impl Drop for ProgramFile {
    fn drop(&mut self) {
        // Fails only when the process exited meanwhile, which closed the handle.
        let _closed = self.process.in_kernel(|_| self.process.close_handle(self.handle));
    }
}

impl MappedView {
    /// Stores `bytes` at `offset` through the view: no filter and no create sees it.
    ///
    /// # Errors
    /// The file system's.
    pub fn store(&self, offset: i64, bytes: &[u8]) -> Result<(), NtStatus> {
        let (_, open) = io::opened(&self.file)?;
        open.write(offset, bytes).map(drop)
    }
}

impl Drop for MappedView {
    fn drop(&mut self) {
        if let Ok((_, open)) = io::opened(&self.file) {
            open.stream.writable_sections.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Machine {
    /// Says for whom a file of a volume is, as its owner would with its security descriptor. `path` is an NT path.
    ///
    /// # Errors
    /// What opening the file as the kernel would return.
    pub fn set_audience(&self, path: &str, audience: Audience) -> Result<(), NtStatus> {
        let machine = self.inner();
        let parameters = OpenParameters {
            access: AccessMask::FILE_READ_ATTRIBUTES.bits(),
            file_attributes: 0,
            share: 7,
            disposition: disposition::OPEN,
            options: option::OPEN_REPARSE_POINT,
            object_flags: 0,
            io_flags: 0,
            mode: nt_types::KERNEL_MODE,
            process: Arc::clone(machine.nt.system_process(machine)),
        };
        Thread::enter(machine, |_| {
            let (object, _) = io::open_by_name(machine, path, &parameters, None)?;
            let (_, open) = io::opened(&object)?;
            open.volume.lock().set_audience(open.stream.key.file, audience);
            Ok(())
        })
    }
}
