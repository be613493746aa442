//! Files that a minifilter opened.

use crate::irql::after_call;
use crate::raw::{
    FLTFL_IO_OPERATION_DO_NOT_UPDATE_BYTE_OFFSET, FltClose, FltCreateFileEx, FltQueryInformationFile, FltReadFile,
    ObfDereferenceObject,
};
use crate::{FilterRef, Instance, Passive};
use core::ptr;
use nt_types::{
    AccessMask, CreateOptions, FILE_ATTRIBUTE_TAG_INFORMATION, FILE_BASIC_INFORMATION, FILE_ID_INFORMATION,
    FILE_INTERNAL_INFORMATION, FILE_OBJECT, FILE_STANDARD_INFORMATION, FileAttributes, FileInformationClass, HANDLE,
    IO_STATUS_BLOCK, NtStatus, OBJECT_ATTRIBUTES, ObjectFlags, ShareAccess, UNICODE_STRING,
};

/// The one owner of what FltCreateFileEx hands out: a handle **and** a reference on the file
/// object. Both are given back on drop, which must happen at PASSIVE_LEVEL.
///
/// A handle table that tracked only one of them would leak the other and block the teardown of
/// the instance.
#[derive(Debug)]
pub struct OpenFile {
    handle: HANDLE,
    object: *mut FILE_OBJECT,
}

/// How to open a file.
#[derive(Clone, Copy, Debug)]
pub struct OpenParameters<'a> {
    /// NT path, fully qualified.
    pub name: &'a [u16],
    /// Attributes of the open; KERNEL_HANDLE is always added.
    pub flags: ObjectFlags,
    /// Rights wanted.
    pub access: AccessMask,
    /// What others may do meanwhile.
    pub share: ShareAccess,
    /// `FILE_OPEN`, `FILE_CREATE`, ...
    pub disposition: u32,
    /// Options. SYNCHRONOUS_IO_NONALERT needs SYNCHRONIZE in `access`.
    pub options: CreateOptions,
    /// `IO_*` flags.
    pub io_flags: u32,
}

/// A successful open.
#[derive(Debug)]
pub struct Opened {
    /// The file.
    pub file: OpenFile,
    /// Which success: STATUS_SUCCESS, or STATUS_OPLOCK_BREAK_IN_PROGRESS.
    pub status: NtStatus,
    /// What was done: `FILE_OPENED`, `FILE_CREATED`, ...
    pub information: usize,
}

impl OpenFile {
    /// Opens a file (`FltCreateFileEx`), below `instance` or, without one, from the top of the stack.
    ///
    /// Below an instance, that instance and those above it do not see the open: no recursion
    /// into one's own callbacks. Must not be called while an IRP is the thread's top-level one.
    ///
    /// # Errors
    /// Any status of a file system; STATUS_NAME_TOO_LONG. Warnings count as errors.
    pub fn open(
        filter: FilterRef,
        instance: Option<&Instance>,
        parameters: &OpenParameters<'_>,
        _passive: Passive,
    ) -> Result<Opened, NtStatus> {
        let name = UNICODE_STRING::from_utf16(parameters.name).ok_or(NtStatus::NAME_TOO_LONG)?;
        // Without KERNEL_HANDLE the handle would land in the table of whoever runs this thread.
        let flags = parameters.flags | ObjectFlags::KERNEL_HANDLE;
        let mut attributes = OBJECT_ATTRIBUTES::new(&raw const name, flags);
        let mut io_status = IO_STATUS_BLOCK::default();
        let mut handle = ptr::null_mut();
        let mut object = ptr::null_mut();
        // SAFETY: every pointer is to a local that outlives the call; the instance, if any, is
        // referenced; no extended attributes (rule: nf-fltkernel-fltcreatefileex).
        let status = after_call(unsafe {
            FltCreateFileEx(
                filter.as_ptr(),
                instance.map_or(ptr::null_mut(), Instance::as_ptr),
                &raw mut handle,
                &raw mut object,
                parameters.access.bits(),
                &raw mut attributes,
                &raw mut io_status,
                ptr::null_mut(),
                FileAttributes::NORMAL.bits(),
                parameters.share.bits(),
                parameters.disposition,
                parameters.options.bits(),
                ptr::null_mut(),
                0,
                parameters.io_flags,
            )
        });
        status.ok()?;
        Ok(Opened { file: Self { handle, object }, status, information: io_status.Information })
    }

    /// Reads at `offset` (`FltReadFile`), below `instance`; the number of bytes read.
    ///
    /// The offset is explicit and the file object's own offset stays, because FltMgr does not
    /// serialise reads of several threads. Reads more than 4 GiB as 4 GiB - 1.
    ///
    /// # Errors
    /// STATUS_END_OF_FILE at or behind the end; any status of a file system.
    pub fn read_at(
        &self,
        instance: &Instance,
        offset: i64,
        buffer: &mut [u8],
        _passive: Passive,
    ) -> Result<usize, NtStatus> {
        let length = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
        let mut read = 0;
        // SAFETY: the file is open and not cleaned up, the buffer is kernel memory of at least
        // `length` bytes, and the call is synchronous (rule: nf-fltkernel-fltreadfile).
        let status = after_call(unsafe {
            FltReadFile(
                instance.as_ptr(),
                self.object,
                &raw const offset,
                length,
                buffer.as_mut_ptr().cast(),
                FLTFL_IO_OPERATION_DO_NOT_UPDATE_BYTE_OFFSET,
                &raw mut read,
                ptr::null_mut(),
                ptr::null_mut(),
            )
        });
        status.ok()?;
        // A lower filter's arithmetic is no reason to read behind our own buffer.
        Ok((read as usize).min(buffer.len()))
    }

    /// Asks for one information class (`FltQueryInformationFile`), below `instance`.
    ///
    /// APCs must be enabled: not while holding a mutex or a push lock.
    ///
    /// # Errors
    /// STATUS_INVALID_PARAMETER or STATUS_INVALID_INFO_CLASS (the file system does not know the class),
    /// STATUS_VOLUME_DISMOUNTED, any other status of a file system.
    pub fn query<T: FileInformation>(&self, instance: &Instance, _passive: Passive) -> Result<T, NtStatus> {
        let mut information = T::default();
        // SAFETY: the file is open, the buffer is a T, and T is the structure of its class
        // (rule: FileInformation, nf-fltkernel-fltqueryinformationfile).
        let status = after_call(unsafe {
            FltQueryInformationFile(
                instance.as_ptr(),
                self.object,
                (&raw mut information).cast(),
                size_of::<T>() as u32,
                T::CLASS.0,
                ptr::null_mut(),
            )
        });
        status.ok()?;
        Ok(information)
    }

    /// The file object, referenced while `self` lives.
    #[must_use]
    pub const fn object(&self) -> *mut FILE_OBJECT {
        self.object
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        // SAFETY: the handle came from FltCreateFileEx and is closed only here, at PASSIVE_LEVEL
        // as the type demands (rule: nf-fltkernel-fltclose).
        // A failure could only be an invalid handle, and there is nobody to tell.
        let _ = after_call(unsafe { FltClose(self.handle) });
        // SAFETY: FltCreateFileEx took one reference for us, given back only here.
        after_call(unsafe { ObfDereferenceObject(self.object.cast()) });
    }
}

// SAFETY: a kernel handle and a file object are good in any thread (rule: OBJ_KERNEL_HANDLE).
unsafe impl Send for OpenFile {}
// SAFETY: reads name their offset, so they do not disturb each other.
unsafe impl Sync for OpenFile {}

/// A structure that FltQueryInformationFile fills.
///
/// # Safety
/// The type is the fixed-size structure of [`CLASS`](Self::CLASS), and any bytes make a valid value of it.
pub unsafe trait FileInformation: Copy + Default {
    /// The class.
    const CLASS: FileInformationClass;
}

// SAFETY: `FileBasicInformation` fills this structure of integers.
unsafe impl FileInformation for FILE_BASIC_INFORMATION {
    const CLASS: FileInformationClass = FileInformationClass::BASIC;
}

// SAFETY: `FileStandardInformation` fills this structure of integers.
unsafe impl FileInformation for FILE_STANDARD_INFORMATION {
    const CLASS: FileInformationClass = FileInformationClass::STANDARD;
}

// SAFETY: `FileInternalInformation` fills this structure of integers.
unsafe impl FileInformation for FILE_INTERNAL_INFORMATION {
    const CLASS: FileInformationClass = FileInformationClass::INTERNAL;
}

// SAFETY: `FileAttributeTagInformation` fills this structure of integers.
unsafe impl FileInformation for FILE_ATTRIBUTE_TAG_INFORMATION {
    const CLASS: FileInformationClass = FileInformationClass::ATTRIBUTE_TAG;
}

// SAFETY: `FileIdInformation` fills this structure of integers.
unsafe impl FileInformation for FILE_ID_INFORMATION {
    const CLASS: FileInformationClass = FileInformationClass::ID;
}
