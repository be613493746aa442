//! The members of `FLT_PARAMETERS`.
//!
//! The header aligns some 32-bit members to pointers (`POINTER_ALIGNMENT`). The padding that
//! makes them so is written out here, and each offset is asserted: binding generators lose it.
//! Pages: `flt-parameters-for-irp-mj-*` of the installable file systems documentation.

use nt_types::{BOOLEAN, HANDLE, LARGE_INTEGER, MDL, PVOID, UNICODE_STRING, assert_layout};

/// Parameters of a create.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Create {
    /// `IO_SECURITY_CONTEXT`.
    pub SecurityContext: PVOID,
    /// Create options in the low 24 bits, disposition in the high 8.
    pub Options: u32,
    _pad0: u32,
    /// Attributes of a new file.
    pub FileAttributes: u16,
    /// `FILE_SHARE_*`.
    pub ShareAccess: u16,
    _pad1: u32,
    /// Bytes of extended attributes.
    pub EaLength: u32,
    _pad2: u32,
    /// Extended attributes.
    pub EaBuffer: PVOID,
    /// Bytes to allocate for a new file.
    pub AllocationSize: LARGE_INTEGER,
}

assert_layout!(Create, 48, {
    SecurityContext: 0, Options: 8, FileAttributes: 16, ShareAccess: 18, EaLength: 24,
    EaBuffer: 32, AllocationSize: 40,
});

/// Parameters of a read or a write.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Transfer {
    /// Bytes.
    pub Length: u32,
    _pad0: u32,
    /// Byte-range lock key.
    pub Key: u32,
    _pad1: u32,
    /// Offset in bytes.
    pub ByteOffset: LARGE_INTEGER,
    /// `ReadBuffer` or `WriteBuffer`; possibly a user address, valid in the requester's context only.
    pub Buffer: PVOID,
    /// The buffer's pages; preferred when there are both.
    pub MdlAddress: *mut MDL,
}

assert_layout!(Transfer, 40, { Length: 0, Key: 8, ByteOffset: 16, Buffer: 24, MdlAddress: 32 });

/// Parameters of a query of file information.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct QueryFileInformation {
    /// Bytes of the buffer.
    pub Length: u32,
    _pad0: u32,
    /// Information class.
    pub FileInformationClass: i32,
    _pad1: u32,
    /// System buffer.
    pub InfoBuffer: PVOID,
}

assert_layout!(QueryFileInformation, 24, { Length: 0, FileInformationClass: 8, InfoBuffer: 16 });

/// Parameters of a change of file information.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SetFileInformation {
    /// Bytes of the buffer.
    pub Length: u32,
    _pad0: u32,
    /// Information class.
    pub FileInformationClass: i32,
    _pad1: u32,
    /// Directory that a rename or link goes to, or NULL.
    pub ParentOfTarget: *mut nt_types::FILE_OBJECT,
    /// `ReplaceIfExists`, or `ClusterCount`/`DeleteHandle` in other classes.
    pub ReplaceIfExists: BOOLEAN,
    /// `AdvanceOnly`: the cache manager moves the valid data length.
    pub AdvanceOnly: BOOLEAN,
    _pad2: [u8; 6],
    /// System buffer.
    pub InfoBuffer: PVOID,
}

assert_layout!(SetFileInformation, 40, {
    Length: 0, FileInformationClass: 8, ParentOfTarget: 16, ReplaceIfExists: 24, AdvanceOnly: 25,
    InfoBuffer: 32,
});

/// Parameters of a query or change of volume information.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct QueryVolumeInformation {
    /// Bytes of the buffer.
    pub Length: u32,
    _pad0: u32,
    /// Information class.
    pub FsInformationClass: i32,
    _pad1: u32,
    /// System buffer.
    pub VolumeBuffer: PVOID,
}

assert_layout!(QueryVolumeInformation, 24, { Length: 0, FsInformationClass: 8, VolumeBuffer: 16 });

/// Parameters of a directory listing.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct QueryDirectory {
    /// Bytes of the buffer.
    pub Length: u32,
    _pad0: u32,
    /// Pattern, or NULL.
    pub FileName: *mut UNICODE_STRING,
    /// Information class.
    pub FileInformationClass: i32,
    _pad1: u32,
    /// Where to go on.
    pub FileIndex: u32,
    _pad2: u32,
    /// Buffer; possibly a user address.
    pub DirectoryBuffer: PVOID,
    /// The buffer's pages.
    pub MdlAddress: *mut MDL,
}

assert_layout!(QueryDirectory, 48, {
    Length: 0, FileName: 8, FileInformationClass: 16, FileIndex: 24, DirectoryBuffer: 32,
    MdlAddress: 40,
});

/// Parameters of a change notification.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NotifyDirectory {
    /// Bytes of the buffer.
    pub Length: u32,
    _pad0: u32,
    /// `FILE_NOTIFY_CHANGE_*`.
    pub CompletionFilter: u32,
    _pad1: u32,
    /// Alignment.
    pub Spare1: u32,
    _pad2: u32,
    /// Alignment.
    pub Spare2: u32,
    _pad3: u32,
    /// Buffer; possibly a user address.
    pub DirectoryBuffer: PVOID,
    /// The buffer's pages.
    pub MdlAddress: *mut MDL,
}

assert_layout!(NotifyDirectory, 48, { CompletionFilter: 8, DirectoryBuffer: 32, MdlAddress: 40 });

/// Parameters of a METHOD_NEITHER file system control.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FileSystemControlNeither {
    /// Bytes of output.
    pub OutputBufferLength: u32,
    _pad0: u32,
    /// Bytes of input.
    pub InputBufferLength: u32,
    _pad1: u32,
    /// Control code.
    pub FsControlCode: u32,
    _pad2: u32,
    /// Raw address of the requester's.
    pub InputBuffer: PVOID,
    /// Raw address of the requester's.
    pub OutputBuffer: PVOID,
    /// Output pages, or NULL.
    pub OutputMdlAddress: *mut MDL,
}

assert_layout!(FileSystemControlNeither, 48, {
    OutputBufferLength: 0, InputBufferLength: 8, FsControlCode: 16, InputBuffer: 24,
    OutputBuffer: 32, OutputMdlAddress: 40,
});

/// Parameters of a METHOD_BUFFERED file system control.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FileSystemControlBuffered {
    /// Bytes of output.
    pub OutputBufferLength: u32,
    _pad0: u32,
    /// Bytes of input.
    pub InputBufferLength: u32,
    _pad1: u32,
    /// Control code.
    pub FsControlCode: u32,
    _pad2: u32,
    /// Input, and then output.
    pub SystemBuffer: PVOID,
}

assert_layout!(FileSystemControlBuffered, 32, { FsControlCode: 16, SystemBuffer: 24 });

/// Parameters of a METHOD_NEITHER device control.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DeviceIoControlNeither {
    /// Bytes of output.
    pub OutputBufferLength: u32,
    _pad0: u32,
    /// Bytes of input.
    pub InputBufferLength: u32,
    _pad1: u32,
    /// Control code.
    pub IoControlCode: u32,
    _pad2: u32,
    /// Raw address of the requester's.
    pub InputBuffer: PVOID,
    /// Raw address of the requester's.
    pub OutputBuffer: PVOID,
    /// Output pages, or NULL.
    pub OutputMdlAddress: *mut MDL,
}

assert_layout!(DeviceIoControlNeither, 48, { IoControlCode: 16, InputBuffer: 24, OutputBuffer: 32 });

/// Parameters of a METHOD_BUFFERED device control.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DeviceIoControlBuffered {
    /// Bytes of output.
    pub OutputBufferLength: u32,
    _pad0: u32,
    /// Bytes of input.
    pub InputBufferLength: u32,
    _pad1: u32,
    /// Control code.
    pub IoControlCode: u32,
    _pad2: u32,
    /// Input, and then output.
    pub SystemBuffer: PVOID,
}

assert_layout!(DeviceIoControlBuffered, 32, { IoControlCode: 16, SystemBuffer: 24 });

/// Parameters of a byte-range lock.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LockControl {
    /// Bytes.
    pub Length: *mut LARGE_INTEGER,
    /// Key.
    pub Key: u32,
    _pad0: u32,
    /// First byte.
    pub ByteOffset: LARGE_INTEGER,
    /// `EPROCESS`.
    pub ProcessId: PVOID,
    /// Fail instead of waiting.
    pub FailImmediately: BOOLEAN,
    /// Exclusive instead of shared.
    pub ExclusiveLock: BOOLEAN,
}

assert_layout!(LockControl, 40, {
    Length: 0, Key: 8, ByteOffset: 16, ProcessId: 24, FailImmediately: 32, ExclusiveLock: 33,
});

/// Parameters of a query of the security descriptor.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct QuerySecurity {
    /// Parts wanted.
    pub SecurityInformation: u32,
    _pad0: u32,
    /// Bytes of the buffer.
    pub Length: u32,
    _pad1: u32,
    /// Buffer; possibly a user address.
    pub SecurityBuffer: PVOID,
    /// The buffer's pages.
    pub MdlAddress: *mut MDL,
}

assert_layout!(QuerySecurity, 32, { Length: 8, SecurityBuffer: 16, MdlAddress: 24 });

/// Parameters of a change of the security descriptor.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SetSecurity {
    /// Parts to set.
    pub SecurityInformation: u32,
    _pad0: u32,
    /// The new descriptor.
    pub SecurityDescriptor: PVOID,
}

assert_layout!(SetSecurity, 16, { SecurityDescriptor: 8 });

/// Parameters of the call before a section is made.
///
/// `PageProtection` is at 4: the page of this operation prints an alignment that the header does
/// not have. The last two members came with newer headers.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct AcquireForSectionSynchronization {
    /// 0 other, which must not fail; 1 a section is being made.
    pub SyncType: i32,
    /// `PAGE_*`.
    pub PageProtection: u32,
    /// `FS_FILTER_SECTION_SYNC_OUTPUT`, or NULL.
    pub OutputInformation: PVOID,
    /// Flags.
    pub Flags: u32,
    /// `SEC_*`.
    pub AllocationAttributes: u32,
}

assert_layout!(AcquireForSectionSynchronization, 24, {
    SyncType: 0, PageProtection: 4, OutputInformation: 8, Flags: 16, AllocationAttributes: 20,
});

/// Parameters of a query by name.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct QueryOpen {
    /// The IRP that an open would have been.
    pub Irp: PVOID,
    /// Where the answer goes.
    pub FileInformation: PVOID,
    /// Bytes, in and out.
    pub Length: *mut u32,
    /// Information class.
    pub FileInformationClass: i32,
}

assert_layout!(QueryOpen, 32, { FileInformation: 8, Length: 16, FileInformationClass: 24 });

/// Parameters of a query of extended attributes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct QueryEa {
    /// Bytes of the buffer.
    pub Length: u32,
    _pad0: u32,
    /// FILE_GET_EA_INFORMATION list of those wanted, or NULL.
    pub EaList: PVOID,
    /// Bytes of the list.
    pub EaListLength: u32,
    _pad1: u32,
    /// Index of the first one wanted, from 1.
    pub EaIndex: u32,
    _pad2: u32,
    /// Buffer; possibly a user address.
    pub EaBuffer: PVOID,
    /// The buffer's pages.
    pub MdlAddress: *mut MDL,
}

assert_layout!(QueryEa, 48, { Length: 0, EaList: 8, EaListLength: 16, EaIndex: 24, EaBuffer: 32, MdlAddress: 40 });

/// Parameters of a change of extended attributes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SetEa {
    /// Bytes of the buffer.
    pub Length: u32,
    _pad0: u32,
    /// Buffer; possibly a user address.
    pub EaBuffer: PVOID,
    /// The buffer's pages.
    pub MdlAddress: *mut MDL,
}

assert_layout!(SetEa, 24, { Length: 0, EaBuffer: 8, MdlAddress: 16 });

/// Parameters of the question whether fast I/O is possible.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FastIoCheckIfPossible {
    /// Offset in bytes.
    pub FileOffset: LARGE_INTEGER,
    /// Bytes.
    pub Length: u32,
    _pad0: u32,
    /// Byte-range lock key.
    pub LockKey: u32,
    _pad1: u32,
    /// A read, else a write.
    pub CheckForReadOperation: BOOLEAN,
    _pad2: [u8; 7],
}

assert_layout!(FastIoCheckIfPossible, 32, { FileOffset: 0, Length: 8, LockKey: 16, CheckForReadOperation: 24 });

/// Parameters of a fast query of attributes by name.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NetworkQueryOpen {
    /// The IRP that an open would have been.
    pub Irp: PVOID,
    /// FILE_NETWORK_OPEN_INFORMATION: where the answer goes.
    pub NetworkInformation: PVOID,
}

assert_layout!(NetworkQueryOpen, 16, { Irp: 0, NetworkInformation: 8 });

/// Parameters of the call before the modified page writer writes.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct AcquireForModifiedPageWriter {
    /// Offset behind the last byte that is written.
    pub EndingOffset: *mut LARGE_INTEGER,
    /// `PERESOURCE`: where the one to release goes.
    pub ResourceToRelease: *mut PVOID,
}

assert_layout!(AcquireForModifiedPageWriter, 16, { EndingOffset: 0, ResourceToRelease: 8 });

/// Parameters of the call after the modified page writer has written.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ReleaseForModifiedPageWriter {
    /// `PERESOURCE`.
    pub ResourceToRelease: PVOID,
}

assert_layout!(ReleaseForModifiedPageWriter, 8, { ResourceToRelease: 0 });

/// Parameters of a file system control of the system's own: mount and verify.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct VerifyVolume {
    /// Volume parameter block.
    pub Vpb: PVOID,
    /// Device of the volume.
    pub DeviceObject: PVOID,
}

assert_layout!(VerifyVolume, 16, { Vpb: 0, DeviceObject: 8 });

/// `HANDLE` of a file that a filter opened: closed with FltClose only.
pub type FLT_FILE_HANDLE = HANDLE;
