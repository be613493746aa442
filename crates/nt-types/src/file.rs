//! How files are opened. DDI pages: `wdm/nf-wdm-zwcreatefile`, `fltkernel/nf-fltkernel-fltcreatefileex`.

bitflags::bitflags! {
    /// `FILE_SHARE_*`: what other opens may ask for while this one lives.
    #[repr(transparent)]
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct ShareAccess: u32 {
        /// Others may read.
        const READ = 0x1;
        /// Others may write.
        const WRITE = 0x2;
        /// Others may delete or rename.
        const DELETE = 0x4;
    }
}

bitflags::bitflags! {
    /// `FILE_*` create options.
    #[repr(transparent)]
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct CreateOptions: u32 {
        /// The name must denote a directory.
        const DIRECTORY_FILE = 0x0000_0001;
        /// Writes reach the medium before they complete.
        const WRITE_THROUGH = 0x0000_0002;
        /// Read-ahead pays.
        const SEQUENTIAL_ONLY = 0x0000_0004;
        /// No caching: offsets and lengths are multiples of the sector size.
        const NO_INTERMEDIATE_BUFFERING = 0x0000_0008;
        /// Synchronous requests, alertable. Needs SYNCHRONIZE.
        const SYNCHRONOUS_IO_ALERT = 0x0000_0010;
        /// Synchronous requests, not alertable. Needs SYNCHRONIZE.
        const SYNCHRONOUS_IO_NONALERT = 0x0000_0020;
        /// The name must not denote a directory.
        const NON_DIRECTORY_FILE = 0x0000_0040;
        /// Make a tree connection.
        const CREATE_TREE_CONNECTION = 0x0000_0080;
        /// Do not wait for an oplock break: complete with STATUS_OPLOCK_BREAK_IN_PROGRESS.
        const COMPLETE_IF_OPLOCKED = 0x0000_0100;
        /// The caller does not understand extended attributes.
        const NO_EA_KNOWLEDGE = 0x0000_0200;
        /// Read at random offsets.
        const RANDOM_ACCESS = 0x0000_0800;
        /// Delete the file when the last handle is closed. Needs DELETE.
        const DELETE_ON_CLOSE = 0x0000_1000;
        /// The name is a file id.
        const OPEN_BY_FILE_ID = 0x0000_2000;
        /// Backup or restore privilege overrides the access list.
        const OPEN_FOR_BACKUP_INTENT = 0x0000_4000;
        /// Files are not compressed.
        const NO_COMPRESSION = 0x0000_8000;
        /// Fail when an oplock cannot be had.
        const OPEN_REQUIRING_OPLOCK = 0x0001_0000;
        /// No exclusive open may be in the way.
        const DISALLOW_EXCLUSIVE = 0x0002_0000;
        /// Reserve a filter oplock.
        const RESERVE_OPFILTER = 0x0010_0000;
        /// Open a reparse point itself instead of following it.
        const OPEN_REPARSE_POINT = 0x0020_0000;
        /// Do not fetch data from tertiary storage.
        const OPEN_NO_RECALL = 0x0040_0000;
        /// For a query of free space.
        const OPEN_FOR_FREE_SPACE_QUERY = 0x0080_0000;
    }
}

/// Disposition: replace an existing file, create otherwise.
pub const FILE_SUPERSEDE: u32 = 0;
/// Disposition: open an existing file, fail otherwise.
pub const FILE_OPEN: u32 = 1;
/// Disposition: create a file, fail when there is one.
pub const FILE_CREATE: u32 = 2;
/// Disposition: open, or create.
pub const FILE_OPEN_IF: u32 = 3;
/// Disposition: open and truncate, fail when there is none.
pub const FILE_OVERWRITE: u32 = 4;
/// Disposition: open and truncate, or create.
pub const FILE_OVERWRITE_IF: u32 = 5;

/// `IoStatusBlock.Information` of a create: an existing file was replaced.
pub const FILE_SUPERSEDED: usize = 0;
/// `IoStatusBlock.Information` of a create: an existing file was opened.
pub const FILE_OPENED: usize = 1;
/// `IoStatusBlock.Information` of a create: a file was made.
pub const FILE_CREATED: usize = 2;
/// `IoStatusBlock.Information` of a create: an existing file was truncated.
pub const FILE_OVERWRITTEN: usize = 3;
/// `IoStatusBlock.Information` of a failed create: the file exists.
pub const FILE_EXISTS: usize = 4;
/// `IoStatusBlock.Information` of a failed create: the file does not exist.
pub const FILE_DOES_NOT_EXIST: usize = 5;

/// `IO_FORCE_ACCESS_CHECK`: the open is checked against the caller's token.
pub const IO_FORCE_ACCESS_CHECK: u32 = 0x0001;
/// `IO_OPEN_TARGET_DIRECTORY`.
pub const IO_OPEN_TARGET_DIRECTORY: u32 = 0x0004;
/// `IO_STOP_ON_SYMLINK`.
pub const IO_STOP_ON_SYMLINK: u32 = 0x0008;
/// `IO_IGNORE_SHARE_ACCESS_CHECK`: the open takes no part in sharing.
pub const IO_IGNORE_SHARE_ACCESS_CHECK: u32 = 0x0800;

bitflags::bitflags! {
    /// `FILE_ATTRIBUTE_*`.
    #[repr(transparent)]
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct FileAttributes: u32 {
        /// Must not be written.
        const READONLY = 0x0000_0001;
        /// Not listed by default.
        const HIDDEN = 0x0000_0002;
        /// Used by the system.
        const SYSTEM = 0x0000_0004;
        /// A directory.
        const DIRECTORY = 0x0000_0010;
        /// Changed since the last backup.
        const ARCHIVE = 0x0000_0020;
        /// A device.
        const DEVICE = 0x0000_0040;
        /// Nothing else is set.
        const NORMAL = 0x0000_0080;
        /// Short-lived.
        const TEMPORARY = 0x0000_0100;
        /// Has holes.
        const SPARSE_FILE = 0x0000_0200;
        /// A reparse point: symbolic link, junction, cloud file, ...
        const REPARSE_POINT = 0x0000_0400;
        /// Compressed on the medium.
        const COMPRESSED = 0x0000_0800;
        /// The data are not at hand.
        const OFFLINE = 0x0000_1000;
        /// Not indexed.
        const NOT_CONTENT_INDEXED = 0x0000_2000;
        /// Encrypted by the file system.
        const ENCRYPTED = 0x0000_4000;
    }
}
