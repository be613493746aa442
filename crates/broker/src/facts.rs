//! What a file has to be before it counts as a firmware file.

use crate::{Error, Limits};

/// What the file system says of an open file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent answers of independent system calls")]
pub struct FileFacts {
    /// Which file it is, and which version of it.
    pub identity: FileIdentity,
    /// It is a directory (`FileStandardInformation.Directory`).
    pub is_directory: bool,
    /// It is neither a file nor a directory: a device, a pipe, a volume opened as such.
    pub is_special: bool,
    /// It has a reparse point (`FILE_ATTRIBUTE_REPARSE_POINT`).
    pub is_reparse_point: bool,
    /// It is being deleted (`FileStandardInformation.DeletePending`).
    pub delete_pending: bool,
    /// A user-mode program has it mapped for writing (`MmDoesFileHaveUserWritableReferences`): share modes do not
    /// stop such a program from changing the file.
    pub has_writable_mapping: bool,
}

/// Which file, and which version of it: two opens with equal identities see the same bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileIdentity {
    /// The volume's GUID, in the byte order of a `GUID` in memory.
    pub volume: [u8; 16],
    /// The file's identifier on the volume (`FILE_ID_128`).
    pub file_id: [u8; 16],
    /// When data or attributes last changed (`FileBasicInformation.ChangeTime`, 100-nanosecond intervals since 1601).
    pub change_time: i64,
    /// The file's size in bytes (`EndOfFile`).
    pub size: u64,
}

impl FileFacts {
    /// Whether this is a firmware file of acceptable size.
    ///
    /// [`Error::IsDirectory`], [`Error::IsReparsePoint`], [`Error::NotRegular`], [`Error::DeletePending`],
    /// [`Error::FileWritable`], [`Error::FileEmpty`] or [`Error::FileTooLarge`], looked for in this order: what the
    /// object is comes before what state it is in.
    pub const fn check(&self, limits: &Limits) -> Result<(), Error> {
        if self.is_directory {
            return Err(Error::IsDirectory);
        }
        if self.is_reparse_point {
            return Err(Error::IsReparsePoint);
        }
        if self.is_special {
            return Err(Error::NotRegular);
        }
        if self.delete_pending {
            return Err(Error::DeletePending);
        }
        if self.has_writable_mapping {
            return Err(Error::FileWritable);
        }
        if self.identity.size == 0 {
            return Err(Error::FileEmpty);
        }
        if self.identity.size > limits.image_bytes {
            return Err(Error::FileTooLarge);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::facts;

    #[test]
    fn each_unfit_property_has_its_own_error() {
        let limits = Limits { image_bytes: 100, ..Limits::DEFAULT };
        let good = facts(1, 100);
        let check = |change: fn(&mut FileFacts)| {
            let mut facts = good;
            change(&mut facts);
            facts.check(&limits)
        };
        assert_eq!(check(|_| ()), Ok(()));
        assert_eq!(check(|f| f.is_directory = true), Err(Error::IsDirectory));
        assert_eq!(check(|f| f.is_special = true), Err(Error::NotRegular));
        assert_eq!(check(|f| f.is_reparse_point = true), Err(Error::IsReparsePoint));
        assert_eq!(check(|f| f.delete_pending = true), Err(Error::DeletePending));
        assert_eq!(check(|f| f.has_writable_mapping = true), Err(Error::FileWritable));
        assert_eq!(check(|f| f.identity.size = 0), Err(Error::FileEmpty));
        assert_eq!(check(|f| f.identity.size = 101), Err(Error::FileTooLarge));
    }
}
