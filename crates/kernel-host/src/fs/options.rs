//! The parameters of an open: dispositions, options, and the I/O manager's checks on their combinations.

use nt_types::{AccessMask, NtStatus};

use super::access::Subject;
use super::path::VolumePath;

/// Create dispositions (`FILE_OPEN` ...), with the header's values.
pub(crate) mod disposition {
    pub(crate) const SUPERSEDE: u32 = 0;
    pub(crate) const OPEN: u32 = 1;
    pub(crate) const CREATE: u32 = 2;
    pub(crate) const OPEN_IF: u32 = 3;
    pub(crate) const OVERWRITE: u32 = 4;
    pub(crate) const OVERWRITE_IF: u32 = 5;
}

/// `IO_STATUS_BLOCK::Information` after a create.
pub(crate) mod created {
    pub(crate) const SUPERSEDED: usize = 0;
    pub(crate) const OPENED: usize = 1;
    pub(crate) const CREATED: usize = 2;
    pub(crate) const OVERWRITTEN: usize = 3;
}

/// Create options, with the header's values.
pub(crate) mod option {
    pub(crate) const DIRECTORY_FILE: u32 = 0x0000_0001;
    pub(crate) const NO_INTERMEDIATE_BUFFERING: u32 = 0x0000_0008;
    pub(crate) const SYNCHRONOUS_IO_ALERT: u32 = 0x0000_0010;
    pub(crate) const SYNCHRONOUS_IO_NONALERT: u32 = 0x0000_0020;
    pub(crate) const NON_DIRECTORY_FILE: u32 = 0x0000_0040;
    pub(crate) const COMPLETE_IF_OPLOCKED: u32 = 0x0000_0100;
    pub(crate) const DELETE_ON_CLOSE: u32 = 0x0000_1000;
    pub(crate) const OPEN_BY_FILE_ID: u32 = 0x0000_2000;
    pub(crate) const OPEN_FOR_BACKUP_INTENT: u32 = 0x0000_4000;
    pub(crate) const RESERVE_OPFILTER: u32 = 0x0010_0000;
    pub(crate) const OPEN_REPARSE_POINT: u32 = 0x0020_0000;
    /// Bits that `NtCreateFile` knows.
    pub(crate) const VALID: u32 = 0x00FF_FFFF;
    /// Options that may go with `DIRECTORY_FILE`.
    pub(crate) const VALID_DIRECTORY: u32 = DIRECTORY_FILE
        | SYNCHRONOUS_IO_ALERT
        | SYNCHRONOUS_IO_NONALERT
        | 0x0000_0002 // WRITE_THROUGH
        | 0x0000_0080 // CREATE_TREE_CONNECTION
        | COMPLETE_IF_OPLOCKED
        | DELETE_ON_CLOSE
        | OPEN_BY_FILE_ID
        | OPEN_FOR_BACKUP_INTENT
        | 0x0000_8000 // NO_COMPRESSION
        | 0x0001_0000 // OPEN_REQUIRING_OPLOCK
        | OPEN_REPARSE_POINT
        | 0x0040_0000 // OPEN_NO_RECALL
        | 0x0080_0000; // OPEN_FOR_FREE_SPACE_QUERY
}

/// `IO_*` flags of an open from kernel mode.
pub(crate) mod io_flag {
    pub(crate) const FORCE_ACCESS_CHECK: u32 = 0x0001;
    pub(crate) const OPEN_TARGET_DIRECTORY: u32 = 0x0004;
    pub(crate) const STOP_ON_SYMLINK: u32 = 0x0008;
    pub(crate) const IGNORE_SHARE_ACCESS_CHECK: u32 = 0x0800;
}

/// A create as it reaches the file system.
#[derive(Clone, Debug)]
pub(crate) struct CreateRequest {
    pub(crate) path: VolumePath,
    pub(crate) access: AccessMask,
    pub(crate) share: u32,
    pub(crate) disposition: u32,
    pub(crate) options: u32,
    pub(crate) attributes: u32,
    pub(crate) subject: Subject,
    /// `IO_*` flags.
    pub(crate) io_flags: u32,
    /// `OBJ_DONT_REPARSE`.
    pub(crate) dont_reparse: bool,
    /// `OBJ_CASE_INSENSITIVE` is missing.
    pub(crate) case_sensitive: bool,
    /// What a new file begins with.
    pub(crate) extended_attributes: Vec<super::ea::ExtendedAttribute>,
    /// Bytes to reserve for a new file; negative is refused.
    pub(crate) allocation_size: i64,
}

impl CreateRequest {
    /// What the I/O manager refuses before any file system sees the request (`NtCreateFile`'s page).
    ///
    /// # Errors
    /// `INVALID_PARAMETER`.
    pub(crate) fn validate(&self) -> Result<(), NtStatus> {
        use option as o;
        let options = self.options;
        let both = |a: u32, b: u32| options & a != 0 && options & b != 0;
        let synchronous = options & (o::SYNCHRONOUS_IO_ALERT | o::SYNCHRONOUS_IO_NONALERT) != 0;
        let can_wait = self.access.intersects(
            AccessMask::SYNCHRONIZE
                | AccessMask::GENERIC_ALL
                | AccessMask::GENERIC_READ
                | AccessMask::GENERIC_WRITE
                | AccessMask::GENERIC_EXECUTE,
        );
        let can_delete = self.access.intersects(AccessMask::DELETE | AccessMask::GENERIC_ALL);
        let directory = options & o::DIRECTORY_FILE != 0;
        let bad = options & !o::VALID != 0
            || self.share & !7 != 0
            || self.allocation_size < 0
            || self.disposition > disposition::OVERWRITE_IF
            || both(o::SYNCHRONOUS_IO_ALERT, o::SYNCHRONOUS_IO_NONALERT)
            || (synchronous && !can_wait)
            || (options & o::DELETE_ON_CLOSE != 0 && !can_delete)
            || both(o::COMPLETE_IF_OPLOCKED, o::RESERVE_OPFILTER)
            || (options & o::NO_INTERMEDIATE_BUFFERING != 0
                && self.access.contains(AccessMask::FILE_APPEND_DATA)
                && !self.access.contains(AccessMask::FILE_WRITE_DATA))
            || both(o::DIRECTORY_FILE, o::NON_DIRECTORY_FILE)
            || (directory && options & !o::VALID_DIRECTORY != 0)
            || (directory
                && !matches!(self.disposition, disposition::CREATE | disposition::OPEN | disposition::OPEN_IF));
        if bad { Err(NtStatus::INVALID_PARAMETER) } else { Ok(()) }
    }
}
