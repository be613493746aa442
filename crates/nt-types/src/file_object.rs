//! File objects.

use crate::{BOOLEAN, DEVICE_OBJECT, KEVENT, KSPIN_LOCK, LARGE_INTEGER, LIST_ENTRY, NtStatus, PVOID, UNICODE_STRING};

/// `FILE_OBJECT`: one open of a file. DDI page: `wdm/ns-wdm-_file_object`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FILE_OBJECT {
    /// `IO_TYPE_FILE`: 5.
    pub Type: i16,
    /// Size of this structure in bytes.
    pub Size: i16,
    /// Device that the open was sent to.
    pub DeviceObject: *mut DEVICE_OBJECT,
    /// Volume parameter block.
    pub Vpb: PVOID,
    /// File system's per-stream context; the same for all opens of a stream.
    pub FsContext: PVOID,
    /// File system's per-open context.
    pub FsContext2: PVOID,
    /// Sections and cache of the stream.
    pub SectionObjectPointer: *mut SECTION_OBJECT_POINTERS,
    /// The cache manager's.
    pub PrivateCacheMap: PVOID,
    /// Status of the last request, for synchronous files.
    pub FinalStatus: NtStatus,
    /// File that a relative open started from.
    pub RelatedFileObject: *mut FILE_OBJECT,
    /// A lock was taken through this object.
    pub LockOperation: BOOLEAN,
    /// The file is being deleted.
    pub DeletePending: BOOLEAN,
    /// Opened for reading.
    pub ReadAccess: BOOLEAN,
    /// Opened for writing.
    pub WriteAccess: BOOLEAN,
    /// Opened for deleting.
    pub DeleteAccess: BOOLEAN,
    /// Others may read.
    pub SharedRead: BOOLEAN,
    /// Others may write.
    pub SharedWrite: BOOLEAN,
    /// Others may delete.
    pub SharedDelete: BOOLEAN,
    /// `FO_*` flags.
    pub Flags: u32,
    /// Name as given to the open. Only valid in pre-create, and relative to `RelatedFileObject`.
    pub FileName: UNICODE_STRING,
    /// Offset of the next read or write of a synchronous file.
    pub CurrentByteOffset: LARGE_INTEGER,
    /// Threads that wait for the object.
    pub Waiters: u32,
    /// Non-zero while a synchronous request runs.
    pub Busy: u32,
    /// The last byte-range lock.
    pub LastLock: PVOID,
    /// Serialises synchronous requests.
    pub Lock: KEVENT,
    /// Signalled when a request completes.
    pub Event: KEVENT,
    /// Completion port.
    pub CompletionContext: PVOID,
    /// Protects `IrpList`.
    pub IrpListLock: KSPIN_LOCK,
    /// IRPs of this file object.
    pub IrpList: LIST_ENTRY,
    /// The kernel's extension.
    pub FileObjectExtension: PVOID,
}

crate::assert_layout!(FILE_OBJECT, 216, {
    Type: 0, Size: 2, DeviceObject: 8, Vpb: 16, FsContext: 24, FsContext2: 32,
    SectionObjectPointer: 40, PrivateCacheMap: 48, FinalStatus: 56, RelatedFileObject: 64,
    LockOperation: 72, DeletePending: 73, ReadAccess: 74, WriteAccess: 75, DeleteAccess: 76,
    SharedRead: 77, SharedWrite: 78, SharedDelete: 79, Flags: 80, FileName: 88,
    CurrentByteOffset: 104, Waiters: 112, Busy: 116, LastLock: 120, Lock: 128, Event: 152,
    CompletionContext: 176, IrpListLock: 184, IrpList: 192, FileObjectExtension: 208,
});

/// `SECTION_OBJECT_POINTERS`: data section, cache map and image section of a stream.
/// DDI page: `wdm/ns-wdm-_section_object_pointers`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct SECTION_OBJECT_POINTERS {
    /// Control area of the data section.
    pub DataSectionObject: PVOID,
    /// The cache manager's shared map.
    pub SharedCacheMap: PVOID,
    /// Control area of the image section.
    pub ImageSectionObject: PVOID,
}

crate::assert_layout!(SECTION_OBJECT_POINTERS, 24, {
    DataSectionObject: 0, SharedCacheMap: 8, ImageSectionObject: 16,
});

bitflags::bitflags! {
    /// `FO_*`: state of a [`FILE_OBJECT`].
    #[repr(transparent)]
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct FileObjectFlags: u32 {
        /// The file is open.
        const FILE_OPEN = 0x0000_0001;
        /// Requests are synchronous.
        const SYNCHRONOUS_IO = 0x0000_0002;
        /// Waits are alertable.
        const ALERTABLE_IO = 0x0000_0004;
        /// No intermediate buffering.
        const NO_INTERMEDIATE_BUFFERING = 0x0000_0008;
        /// Writes go through to the medium.
        const WRITE_THROUGH = 0x0000_0010;
        /// Read mostly in sequence.
        const SEQUENTIAL_ONLY = 0x0000_0020;
        /// The cache may be used.
        const CACHE_SUPPORTED = 0x0000_0040;
        /// A named pipe.
        const NAMED_PIPE = 0x0000_0080;
        /// A stream file.
        const STREAM_FILE = 0x0000_0100;
        /// The volume was opened directly, without a file system request.
        const DIRECT_DEVICE_OPEN = 0x0000_0800;
        /// The data were changed through this object.
        const FILE_MODIFIED = 0x0000_1000;
        /// The size was changed through this object.
        const FILE_SIZE_CHANGED = 0x0000_2000;
        /// The last handle is closed.
        const CLEANUP_COMPLETE = 0x0000_4000;
        /// Opened with the temporary attribute.
        const TEMPORARY_FILE = 0x0000_8000;
        /// Opened with delete on close.
        const DELETE_ON_CLOSE = 0x0001_0000;
        /// The open was of a case-sensitive name.
        const OPENED_CASE_SENSITIVE = 0x0002_0000;
        /// A handle was made for it.
        const HANDLE_CREATED = 0x0004_0000;
        /// Read or written at random offsets.
        const RANDOM_ACCESS = 0x0010_0000;
        /// The open was cancelled (`FltCancelFileOpen`).
        const FILE_OPEN_CANCELLED = 0x0020_0000;
        /// The volume itself is open.
        const VOLUME_OPEN = 0x0040_0000;
        /// Opened for a client on the network.
        const REMOTE_ORIGIN = 0x0100_0000;
    }
}
