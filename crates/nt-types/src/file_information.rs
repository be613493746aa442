//! File information classes and their structures.
//!
//! Class numbers and layouts from the pages `wdm/ne-wdm-_file_information_class` and
//! `ntifs/ns-ntifs-_file_internal_information` and their neighbours.

use crate::{BOOLEAN, LARGE_INTEGER};

/// `FILE_INFORMATION_CLASS`: the classes this project uses, by number.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileInformationClass(pub i32);

impl FileInformationClass {
    /// [`FILE_BASIC_INFORMATION`].
    pub const BASIC: Self = Self(4);
    /// [`FILE_STANDARD_INFORMATION`].
    pub const STANDARD: Self = Self(5);
    /// [`FILE_INTERNAL_INFORMATION`].
    pub const INTERNAL: Self = Self(6);
    /// [`FILE_NAME_INFORMATION`]: relative to the volume.
    pub const NAME: Self = Self(9);
    /// Rename.
    pub const RENAME: Self = Self(10);
    /// Hard link.
    pub const LINK: Self = Self(11);
    /// Delete.
    pub const DISPOSITION: Self = Self(13);
    /// Current byte offset.
    pub const POSITION: Self = Self(14);
    /// Create options that a handle still has.
    pub const MODE: Self = Self(16);
    /// Allocation size.
    pub const ALLOCATION: Self = Self(19);
    /// Size.
    pub const END_OF_FILE: Self = Self(20);
    /// [`FILE_NETWORK_OPEN_INFORMATION`].
    pub const NETWORK_OPEN: Self = Self(34);
    /// [`FILE_ATTRIBUTE_TAG_INFORMATION`].
    pub const ATTRIBUTE_TAG: Self = Self(35);
    /// [`FILE_ID_INFORMATION`].
    pub const ID: Self = Self(59);
    /// Delete, with flags.
    pub const DISPOSITION_EX: Self = Self(64);
    /// Rename, with flags.
    pub const RENAME_EX: Self = Self(65);
    /// Hard link, with flags.
    pub const LINK_EX: Self = Self(72);
}

/// `FILE_BASIC_INFORMATION`: times in 100 ns since 1601, and attributes.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FILE_BASIC_INFORMATION {
    /// When the file was made.
    pub CreationTime: LARGE_INTEGER,
    /// Last read.
    pub LastAccessTime: LARGE_INTEGER,
    /// Last write of data. Programs can set it.
    pub LastWriteTime: LARGE_INTEGER,
    /// Last change of anything, attributes and times included.
    pub ChangeTime: LARGE_INTEGER,
    /// [`FileAttributes`](crate::FileAttributes) bits.
    pub FileAttributes: u32,
    /// Zero: the structure is padded to the alignment of its times.
    pub Reserved: u32,
}

crate::assert_layout!(FILE_BASIC_INFORMATION, 40, {
    CreationTime: 0, LastAccessTime: 8, LastWriteTime: 16, ChangeTime: 24, FileAttributes: 32,
});

/// `FILE_STANDARD_INFORMATION`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FILE_STANDARD_INFORMATION {
    /// Bytes allocated.
    pub AllocationSize: LARGE_INTEGER,
    /// Bytes of data.
    pub EndOfFile: LARGE_INTEGER,
    /// Hard links.
    pub NumberOfLinks: u32,
    /// The file goes away with its last handle.
    pub DeletePending: BOOLEAN,
    /// A directory.
    pub Directory: BOOLEAN,
    /// Zero: padding.
    pub Reserved: u16,
}

crate::assert_layout!(FILE_STANDARD_INFORMATION, 24, {
    AllocationSize: 0, EndOfFile: 8, NumberOfLinks: 16, DeletePending: 20, Directory: 21,
});

/// `FILE_INTERNAL_INFORMATION`: 64-bit id of the file on its volume.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FILE_INTERNAL_INFORMATION {
    /// The id. Unique among the files of the volume while the file exists.
    pub IndexNumber: LARGE_INTEGER,
}

crate::assert_layout!(FILE_INTERNAL_INFORMATION, 8);

/// `FILE_ID_INFORMATION`: volume serial number and 128-bit file id.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FILE_ID_INFORMATION {
    /// Serial number of the volume.
    pub VolumeSerialNumber: u64,
    /// `FILE_ID_128`, opaque bytes.
    pub FileId: [u8; 16],
}

crate::assert_layout!(FILE_ID_INFORMATION, 24, { VolumeSerialNumber: 0, FileId: 8 });

/// `FILE_ATTRIBUTE_TAG_INFORMATION`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FILE_ATTRIBUTE_TAG_INFORMATION {
    /// [`FileAttributes`](crate::FileAttributes) bits.
    pub FileAttributes: u32,
    /// Kind of reparse point, when the attribute is set.
    pub ReparseTag: u32,
}

crate::assert_layout!(FILE_ATTRIBUTE_TAG_INFORMATION, 8, { FileAttributes: 0, ReparseTag: 4 });

/// `FILE_NETWORK_OPEN_INFORMATION`: times, sizes and attributes at once.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FILE_NETWORK_OPEN_INFORMATION {
    /// When the file was made.
    pub CreationTime: LARGE_INTEGER,
    /// Last read.
    pub LastAccessTime: LARGE_INTEGER,
    /// Last write of data.
    pub LastWriteTime: LARGE_INTEGER,
    /// Last change of anything.
    pub ChangeTime: LARGE_INTEGER,
    /// Bytes allocated.
    pub AllocationSize: LARGE_INTEGER,
    /// Bytes of data.
    pub EndOfFile: LARGE_INTEGER,
    /// [`FileAttributes`](crate::FileAttributes) bits.
    pub FileAttributes: u32,
    /// Zero: padding.
    pub Reserved: u32,
}

crate::assert_layout!(FILE_NETWORK_OPEN_INFORMATION, 56, {
    ChangeTime: 24, AllocationSize: 32, EndOfFile: 40, FileAttributes: 48,
});

/// `FILE_POSITION_INFORMATION`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FILE_POSITION_INFORMATION {
    /// Offset of the next synchronous read or write.
    pub CurrentByteOffset: LARGE_INTEGER,
}

crate::assert_layout!(FILE_POSITION_INFORMATION, 8);

/// `FILE_END_OF_FILE_INFORMATION`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FILE_END_OF_FILE_INFORMATION {
    /// New size in bytes.
    pub EndOfFile: LARGE_INTEGER,
}

crate::assert_layout!(FILE_END_OF_FILE_INFORMATION, 8);

/// `FILE_NAME_INFORMATION`: header of a name; the UTF-16 characters start at byte 4.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FILE_NAME_INFORMATION {
    /// Bytes of the name behind this field.
    pub FileNameLength: u32,
}

crate::assert_layout!(FILE_NAME_INFORMATION, 4);
