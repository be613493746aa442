//! Naming and opening objects; what an I/O request leaves behind.

use crate::{HANDLE, NtStatus, PVOID, UNICODE_STRING};
use core::ptr;

bitflags::bitflags! {
    /// `OBJ_*`: attributes of an object open. DDI page: `ntdef/ns-ntdef-_object_attributes`.
    #[repr(transparent)]
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct ObjectFlags: u32 {
        /// Child processes inherit the handle.
        const INHERIT = 0x0000_0002;
        /// The object outlives its last handle.
        const PERMANENT = 0x0000_0010;
        /// Only one open at a time.
        const EXCLUSIVE = 0x0000_0020;
        /// The name is compared without regard to case.
        const CASE_INSENSITIVE = 0x0000_0040;
        /// An existing object is opened instead of a name collision.
        const OPENIF = 0x0000_0080;
        /// A symbolic link itself is opened.
        const OPENLINK = 0x0000_0100;
        /// The handle lives in the system's table: user mode can neither use nor close it.
        const KERNEL_HANDLE = 0x0000_0200;
        /// Access is checked although the caller is in kernel mode.
        const FORCE_ACCESS_CHECK = 0x0000_0400;
        /// The device map of the impersonated user is not consulted.
        const IGNORE_IMPERSONATED_DEVICEMAP = 0x0000_0800;
        /// The open fails when the path meets a reparse point.
        const DONT_REPARSE = 0x0000_1000;
    }
}

/// `OBJECT_ATTRIBUTES`: which object, and how to open it.
///
/// Points at its name and descriptor; the caller keeps them alive during the call.
/// DDI page: `ntdef/ns-ntdef-_object_attributes`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct OBJECT_ATTRIBUTES {
    /// Size of this structure in bytes.
    pub Length: u32,
    /// Directory that a relative name starts from, or NULL.
    pub RootDirectory: HANDLE,
    /// The name, or NULL for an unnamed object.
    pub ObjectName: *mut UNICODE_STRING,
    /// [`ObjectFlags`] bits.
    pub Attributes: u32,
    /// Absolute security descriptor, or NULL for the default.
    pub SecurityDescriptor: PVOID,
    /// `SECURITY_QUALITY_OF_SERVICE`, or NULL.
    pub SecurityQualityOfService: PVOID,
}

crate::assert_layout!(OBJECT_ATTRIBUTES, 48, {
    Length: 0, RootDirectory: 8, ObjectName: 16, Attributes: 24,
    SecurityDescriptor: 32, SecurityQualityOfService: 40,
});

impl OBJECT_ATTRIBUTES {
    /// What `InitializeObjectAttributes` does, for an absolute name and the default security.
    #[must_use]
    pub const fn new(name: *const UNICODE_STRING, flags: ObjectFlags) -> Self {
        Self {
            Length: size_of::<Self>() as u32,
            RootDirectory: ptr::null_mut(),
            ObjectName: name.cast_mut(),
            Attributes: flags.bits(),
            SecurityDescriptor: ptr::null_mut(),
            SecurityQualityOfService: ptr::null_mut(),
        }
    }
}

/// `IO_STATUS_BLOCK`: final status and a number whose meaning depends on the request.
///
/// The union's `Pointer` member is left out: only the status has a public meaning.
/// DDI page: `wdm/ns-wdm-_io_status_block`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct IO_STATUS_BLOCK {
    /// Final status.
    pub Status: NtStatus,
    _padding: u32,
    /// Bytes transferred, or for a create one of the `FILE_OPENED` family.
    pub Information: usize,
}

crate::assert_layout!(IO_STATUS_BLOCK, 16, { Status: 0, Information: 8 });

impl IO_STATUS_BLOCK {
    /// A block as a completed request leaves it.
    #[must_use]
    pub const fn new(status: NtStatus, information: usize) -> Self {
        Self { Status: status, _padding: 0, Information: information }
    }
}

/// `CLIENT_ID`: a thread and its process, each by id.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CLIENT_ID {
    /// Process id, typed as a handle.
    pub UniqueProcess: HANDLE,
    /// Thread id, typed as a handle.
    pub UniqueThread: HANDLE,
}

crate::assert_layout!(CLIENT_ID, 16, { UniqueProcess: 0, UniqueThread: 8 });

bitflags::bitflags! {
    /// `ACCESS_MASK` bits of files, with the standard and generic rights.
    /// DDI page: `wdm/nf-wdm-zwcreatefile`.
    #[repr(transparent)]
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct AccessMask: u32 {
        /// Read the data (of a directory: list it).
        const FILE_READ_DATA = 0x0000_0001;
        /// Write the data (of a directory: add a file).
        const FILE_WRITE_DATA = 0x0000_0002;
        /// Append to the data (of a directory: add a directory).
        const FILE_APPEND_DATA = 0x0000_0004;
        /// Read extended attributes.
        const FILE_READ_EA = 0x0000_0008;
        /// Write extended attributes.
        const FILE_WRITE_EA = 0x0000_0010;
        /// Run the file (of a directory: traverse it).
        const FILE_EXECUTE = 0x0000_0020;
        /// Delete an entry of the directory.
        const FILE_DELETE_CHILD = 0x0000_0040;
        /// Read attributes and times.
        const FILE_READ_ATTRIBUTES = 0x0000_0080;
        /// Write attributes and times.
        const FILE_WRITE_ATTRIBUTES = 0x0000_0100;
        /// Delete or rename.
        const DELETE = 0x0001_0000;
        /// Read the security descriptor.
        const READ_CONTROL = 0x0002_0000;
        /// Write the access control list.
        const WRITE_DAC = 0x0004_0000;
        /// Take ownership.
        const WRITE_OWNER = 0x0008_0000;
        /// Wait on the object; synchronous file I/O needs it.
        const SYNCHRONIZE = 0x0010_0000;
        /// Read or write the audit list.
        const ACCESS_SYSTEM_SECURITY = 0x0100_0000;
        /// Whatever the caller can get.
        const MAXIMUM_ALLOWED = 0x0200_0000;
        /// Every right.
        const GENERIC_ALL = 0x1000_0000;
        /// What "execute" means for the object's type.
        const GENERIC_EXECUTE = 0x2000_0000;
        /// What "write" means for the object's type.
        const GENERIC_WRITE = 0x4000_0000;
        /// What "read" means for the object's type.
        const GENERIC_READ = 0x8000_0000;
    }
}
