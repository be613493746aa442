//! The file API of simulated programs: NtCreateFile and its relatives, from user mode, through the filters.
//!
//! Buffers are user memory of the program's, as on Windows: a driver that touches one without `__try`, or in another process, faults.

use std::sync::Arc;

use nt_types::{AccessMask, NtStatus, USER_MODE};

use super::access::Audience;
use super::device::File;
use super::io::{self, OpenParameters};
use super::options::{disposition, option};
use super::program_file::ProgramFile;
use crate::machine::{Inner, Machine};
use crate::process::Process;
use crate::thread::Thread;

/// How a program opens a file. The default is what most programs do: read, share everything, the file must exist.
#[derive(Clone, Copy, Debug)]
pub struct OpenOptions {
    access: AccessMask,
    share: u32,
    disposition: u32,
    options: u32,
    attributes: u32,
    allocation_size: Option<i64>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            access: AccessMask::GENERIC_READ.union(AccessMask::SYNCHRONIZE),
            share: 7,
            disposition: disposition::OPEN,
            options: option::SYNCHRONOUS_IO_NONALERT,
            attributes: FILE_ATTRIBUTE_NORMAL,
            allocation_size: None,
        }
    }
}

/// `FILE_ATTRIBUTE_NORMAL`.
const FILE_ATTRIBUTE_NORMAL: u32 = 0x80;

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

    /// Asks to delete or rename, besides the rights asked for so far.
    #[must_use]
    pub fn delete(mut self) -> Self {
        self.access |= AccessMask::DELETE;
        self
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

    /// `FILE_CREATE`: fails when the file is there.
    #[must_use]
    pub fn create_new(self) -> Self {
        self.disposition(disposition::CREATE)
    }

    /// `FILE_OVERWRITE_IF`: an empty file, whatever was there.
    #[must_use]
    pub fn truncate(self) -> Self {
        self.disposition(disposition::OVERWRITE_IF)
    }

    /// More `FILE_*` create options.
    #[must_use]
    pub fn options(mut self, options: u32) -> Self {
        self.options |= options;
        self
    }

    /// `FILE_DIRECTORY_FILE`.
    #[must_use]
    pub fn directory(self) -> Self {
        self.options(option::DIRECTORY_FILE)
    }

    /// `FILE_DELETE_ON_CLOSE`, with the right that it takes.
    #[must_use]
    pub fn delete_on_close(self) -> Self {
        self.delete().options(option::DELETE_ON_CLOSE)
    }

    /// `FILE_NO_INTERMEDIATE_BUFFERING`: past the cache.
    #[must_use]
    pub fn non_cached(self) -> Self {
        self.options(option::NO_INTERMEDIATE_BUFFERING)
    }

    /// Without `FILE_SYNCHRONOUS_IO_*`: requests may be pending, there is no current offset.
    #[must_use]
    pub fn overlapped(mut self) -> Self {
        self.options &= !(option::SYNCHRONOUS_IO_ALERT | option::SYNCHRONOUS_IO_NONALERT);
        self
    }

    /// `FILE_ATTRIBUTE_*` of a new file.
    #[must_use]
    pub fn attributes(mut self, attributes: u32) -> Self {
        self.attributes = attributes;
        self
    }

    /// Bytes to reserve for a new file.
    #[must_use]
    pub fn allocation_size(mut self, bytes: i64) -> Self {
        self.allocation_size = Some(bytes);
        self
    }
}

impl Process {
    /// Opens or creates a file by its NT path (`\??\C:\...`), with this process's token.
    ///
    /// # Errors
    /// What NtCreateFile returns.
    pub fn create_file(self: &Arc<Self>, path: &str, options: &OpenOptions) -> Result<ProgramFile, NtStatus> {
        self.create_file_with(path, options, &[])
    }

    /// As [`create_file`](Self::create_file), with a FILE_FULL_EA_INFORMATION list for a new file.
    ///
    /// # Errors
    /// What NtCreateFile returns, `EA_LIST_INCONSISTENT` and `INVALID_EA_NAME` among others.
    pub fn create_file_with(
        self: &Arc<Self>,
        path: &str,
        options: &OpenOptions,
        extended_attributes: &[u8],
    ) -> Result<ProgramFile, NtStatus> {
        let mut parameters = OpenParameters::new(self, USER_MODE, options.access.bits());
        parameters.file_attributes = options.attributes;
        parameters.share = options.share;
        parameters.disposition = options.disposition;
        parameters.options = options.options;
        parameters.allocation_size = options.allocation_size;
        // The I/O manager captures extended attributes into a system buffer before any filter sees them.
        let list = extended_attributes;
        parameters.ea = if list.is_empty() { (0, 0) } else { (list.as_ptr().expose_provenance(), list.len() as u32) };
        self.in_kernel(|machine| {
            let (object, information) = io::open_by_name(machine, path, &parameters, None)?;
            let granted = object.payload::<File>().and_then(|file| file.open().ok().map(|open| open.granted.bits()));
            let handle = self.handles().insert(&object, granted.unwrap_or_default(), None);
            io::handle_made(&object);
            Ok(ProgramFile::new(self, handle, information))
        })
    }

    /// NtQueryFullAttributesFile: the 56 bytes of a FILE_NETWORK_OPEN_INFORMATION, by path.
    ///
    /// # Errors
    /// Those of an open for attributes.
    pub fn query_attributes(self: &Arc<Self>, path: &str) -> Result<Vec<u8>, NtStatus> {
        self.in_kernel(|machine| super::query_open::query(machine, self, path))
    }

    /// Runs kernel code in this process's context.
    pub(super) fn in_kernel<R>(
        self: &Arc<Self>,
        body: impl FnOnce(&Arc<Inner>) -> Result<R, NtStatus>,
    ) -> Result<R, NtStatus> {
        let machine = self.machine().ok_or(NtStatus::PROCESS_IS_TERMINATING)?;
        Thread::enter(&machine, |thread| {
            let before = thread.set_process(Some(Arc::clone(self)));
            let result = body(&machine);
            thread.set_process(before);
            result
        })
    }
}

impl Machine {
    /// Says for whom a file of a volume is, as its owner would with its security descriptor. `path` is an NT path.
    ///
    /// # Errors
    /// What opening the file as the kernel would return.
    pub fn set_audience(&self, path: &str, audience: Audience) -> Result<(), NtStatus> {
        let machine = self.inner();
        let mut parameters = OpenParameters::new(
            machine.nt.system_process(machine),
            nt_types::KERNEL_MODE,
            AccessMask::FILE_READ_ATTRIBUTES.bits(),
        );
        parameters.options = option::OPEN_REPARSE_POINT;
        Thread::enter(machine, |_| {
            let (object, _) = io::open_by_name(machine, path, &parameters, None)?;
            let (_, open) = io::opened(&object)?;
            open.volume.lock().set_audience(open.stream.key.file, audience);
            Ok(())
        })
    }
}
