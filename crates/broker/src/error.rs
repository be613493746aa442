//! Everything that can go wrong in the broker.

use nt_types::NtStatus;
use protocol::Reason;

/// Why a request was refused or failed.
///
/// Each has an `NTSTATUS` ([`status`](Self::status)), which programs and drivers understand, and a
/// reason ([`reason`](Self::reason)), which is finer: `STATUS_OBJECT_NAME_INVALID` does not tell a wildcard from a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Error {
    /// No memory, or no slot left in a table of fixed size.
    OutOfMemory,
    /// A call into the system failed with this status.
    System(NtStatus),

    /// The handle was never given out.
    HandleInvalid,
    /// The handle has been closed, or is being closed.
    HandleClosed,
    /// An administrator has taken the handle away.
    HandleRevoked,
    /// The handle belongs to another session.
    HandleOfOtherSession,
    /// The handle is good, but denotes something else than the request is for.
    HandleWrongKind,
    /// The handle is in use by more requests at once than can be counted.
    HandleBusy,
    /// No open handle has the number that an administrator gave.
    HandleNotFound,
    /// The handle is a NIC driver's, which nobody may take away.
    HandleOfDriver,
    /// The table holds as many handles as it may.
    TooManyHandles,

    /// Only an administrator may do this.
    NotAdministrator,
    /// There is no session of that number, or of that process.
    SessionNotFound,
    /// The session has ended, or the driver is being unloaded.
    SessionEnded,
    /// The session holds as many handles as it may.
    SessionHandles,
    /// The session's requests use as many bytes of memory as they may.
    SessionBytes,
    /// The session has as many jobs under way as it may.
    SessionJobs,

    /// The name has no characters.
    NameEmpty,
    /// The name has more characters than the limit (at most 32,767).
    NameTooLong,
    /// The name does not start with a prefix that leads to a volume.
    NameNotAbsolute,
    /// The name denotes a device or a part of one, not a file on a volume.
    NameDevice,
    /// The name denotes something on another machine.
    NameUnc,
    /// The name has a `.` or `..` component, in whatever spelling.
    NameTraversal,
    /// The name denotes an alternate stream or an attribute of a file.
    NameStream,
    /// The name has a wildcard character.
    NameWildcard,
    /// The name has a control character (NUL included), or a unit that no name may have.
    NameCharacter,
    /// The name has an empty component (a doubled separator), or one that ends in a dot or a space.
    NameComponent,
    /// The name ends in a separator or has no part that denotes a file.
    NameNoFile,
    /// The file lies outside every allowed root.
    OutsideRoots,

    /// The file is a directory.
    IsDirectory,
    /// The object is not a regular file.
    NotRegular,
    /// The file has no bytes.
    FileEmpty,
    /// The file is larger than an image may be.
    FileTooLarge,
    /// The file is a reparse point (symbolic link, mount point, cloud placeholder).
    IsReparsePoint,
    /// Somebody can still write the file, through a mapping.
    FileWritable,
    /// The file is being deleted.
    DeletePending,
    /// The file ended before its size, or changed while it was read.
    FileChanged,
    /// A read starts behind the end of the file.
    EndOfFile,
    /// A read asks for more bytes at once than the limit.
    ReadTooLarge,
    /// A read asks for no bytes.
    ReadEmpty,
    /// A read's offset and length together are no file position.
    OffsetOverflow,

    /// The policy demands an expected SHA-256 and the request has none.
    DigestRequired,
    /// The file's SHA-256 is not the expected one.
    DigestMismatch,
    /// The policy demands a signed manifest, which this version cannot verify.
    SignedUnsupported,

    /// No image is staged under the name or identifier.
    ImageNotFound,
    /// The image is handed out and the request was not to wait for that.
    ImageInUse,
    /// As many images are staged as may be.
    TooManyImages,
    /// The staged images use as many bytes as they may in total.
    TotalBytes,
    /// The owner's staged images use as many bytes as they may.
    OwnerBytes,
    /// There is not enough memory below the physical address that the request demands.
    NoMemoryBelowAddress,
    /// The job was cancelled.
    Cancelled,
    /// The job's deadline has passed.
    TimedOut,
    /// The consumer's name is longer than can be recorded.
    ConsumerName,
}

impl Error {
    /// The `NTSTATUS` that a caller gets.
    pub const fn status(self) -> NtStatus {
        match self {
            Self::OutOfMemory | Self::NoMemoryBelowAddress => NtStatus::INSUFFICIENT_RESOURCES,
            Self::System(status) => status,
            Self::HandleInvalid | Self::HandleClosed | Self::HandleOfOtherSession => NtStatus::INVALID_HANDLE,
            // "The specified file has been closed by another process."
            Self::HandleRevoked => NtStatus::FILE_FORCED_CLOSED,
            Self::HandleWrongKind => NtStatus::OBJECT_TYPE_MISMATCH,
            Self::TooManyHandles | Self::SessionHandles => NtStatus::TOO_MANY_OPENED_FILES,
            Self::SessionEnded => NtStatus::PORT_DISCONNECTED,
            Self::SessionBytes | Self::SessionJobs | Self::TooManyImages | Self::TotalBytes | Self::OwnerBytes => {
                NtStatus::QUOTA_EXCEEDED
            }
            Self::NameEmpty
            | Self::NameStream
            | Self::NameWildcard
            | Self::NameCharacter
            | Self::NameComponent
            | Self::NameNoFile => NtStatus::OBJECT_NAME_INVALID,
            Self::NameTooLong => NtStatus::NAME_TOO_LONG,
            Self::NameNotAbsolute => NtStatus::OBJECT_PATH_SYNTAX_BAD,
            Self::NameDevice | Self::NameUnc | Self::NameTraversal => NtStatus::OBJECT_PATH_INVALID,
            Self::OutsideRoots | Self::DigestRequired | Self::NotAdministrator => NtStatus::ACCESS_DENIED,
            Self::IsDirectory => NtStatus::FILE_IS_A_DIRECTORY,
            Self::NotRegular | Self::FileEmpty | Self::FileChanged => NtStatus::FILE_INVALID,
            Self::FileTooLarge => NtStatus::FILE_TOO_LARGE,
            Self::IsReparsePoint => NtStatus::STOPPED_ON_SYMLINK,
            Self::FileWritable => NtStatus::SHARING_VIOLATION,
            Self::DeletePending => NtStatus::DELETE_PENDING,
            Self::EndOfFile => NtStatus::END_OF_FILE,
            Self::ReadTooLarge | Self::ReadEmpty | Self::OffsetOverflow | Self::ConsumerName => {
                NtStatus::INVALID_PARAMETER
            }
            Self::DigestMismatch => NtStatus::INVALID_IMAGE_HASH,
            Self::SignedUnsupported => NtStatus::NOT_SUPPORTED,
            Self::ImageNotFound | Self::HandleNotFound | Self::SessionNotFound => NtStatus::NOT_FOUND,
            Self::HandleBusy | Self::ImageInUse | Self::HandleOfDriver => NtStatus::DEVICE_BUSY,
            Self::Cancelled => NtStatus::CANCELLED,
            Self::TimedOut => NtStatus::IO_TIMEOUT,
        }
    }

    /// The reason that a client is told with the status.
    ///
    /// A failed system call ([`System`](Self::System)) has the general reason for an open here; the driver knows which call it was.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::OutOfMemory => Reason::OutOfMemory,
            Self::System(status) => reason_of(status),
            Self::HandleBusy => Reason::HandleBusy,
            // One reason for all: a client must not learn which handles others have.
            Self::HandleInvalid | Self::HandleClosed | Self::HandleOfOtherSession => Reason::HandleInvalid,
            Self::HandleRevoked => Reason::HandleRevoked,
            Self::HandleNotFound => Reason::HandleNotFound,
            Self::HandleOfDriver => Reason::HandleOfDriver,
            Self::HandleWrongKind => Reason::HandleWrongType,
            Self::TooManyHandles => Reason::TableFull,
            Self::SessionHandles => Reason::TooManyHandles,
            Self::NotAdministrator => Reason::NotAdministrator,
            Self::SessionNotFound => Reason::SessionNotFound,
            Self::SessionEnded => Reason::SessionClosing,
            Self::SessionBytes => Reason::SessionBytesExceeded,
            Self::SessionJobs => Reason::TooManyJobs,
            Self::NameEmpty => Reason::NameEmpty,
            Self::NameTooLong | Self::ConsumerName => Reason::NameTooLong,
            Self::NameNotAbsolute => Reason::NameNotAbsolute,
            Self::NameDevice => Reason::NameDevice,
            Self::NameUnc => Reason::NameNetwork,
            Self::NameTraversal => Reason::NameParentDirectory,
            Self::NameStream => Reason::NameStream,
            Self::NameWildcard => Reason::NameWildcard,
            Self::NameCharacter => Reason::NameBadCharacter,
            Self::NameComponent => Reason::NameBadComponent,
            Self::NameNoFile => Reason::NameNoFile,
            Self::OutsideRoots => Reason::NameOutsideRoots,
            Self::IsDirectory => Reason::FileIsDirectory,
            Self::NotRegular => Reason::FileNotRegular,
            Self::FileEmpty => Reason::FileEmpty,
            Self::FileTooLarge => Reason::FileTooLarge,
            Self::IsReparsePoint => Reason::FileReparsePoint,
            Self::FileWritable => Reason::FileWritablyMapped,
            Self::FileChanged => Reason::FileChanged,
            Self::DeletePending => Reason::FileDeletePending,
            Self::EndOfFile => Reason::EndOfFile,
            Self::ReadTooLarge => Reason::ReadTooLong,
            Self::ReadEmpty => Reason::ReadEmpty,
            Self::OffsetOverflow => Reason::OffsetOverflow,
            Self::DigestRequired => Reason::DigestRequired,
            Self::DigestMismatch => Reason::DigestMismatch,
            Self::SignedUnsupported => Reason::SignedPolicyUnsupported,
            Self::ImageNotFound => Reason::ImageNotFound,
            Self::ImageInUse => Reason::ImageInUse,
            Self::TooManyImages => Reason::TooManyImages,
            Self::TotalBytes => Reason::StagedBytesExceeded,
            Self::OwnerBytes => Reason::OwnerBytesExceeded,
            Self::NoMemoryBelowAddress => Reason::NoMemoryBelowAddress,
            Self::Cancelled => Reason::Cancelled,
            Self::TimedOut => Reason::DeadlineExpired,
        }
    }
}

/// What a failed open or read means to somebody who does not know NT statuses.
const fn reason_of(status: NtStatus) -> Reason {
    match status {
        NtStatus::NO_SUCH_FILE | NtStatus::OBJECT_NAME_NOT_FOUND => Reason::FileNotFound,
        NtStatus::OBJECT_PATH_NOT_FOUND => Reason::PathNotFound,
        NtStatus::ACCESS_DENIED => Reason::FileAccessDenied,
        NtStatus::SHARING_VIOLATION => Reason::FileSharingViolation,
        NtStatus::FILE_IS_A_DIRECTORY => Reason::FileIsDirectory,
        NtStatus::STOPPED_ON_SYMLINK | NtStatus::REPARSE => Reason::FileReparsePoint,
        NtStatus::DELETE_PENDING => Reason::FileDeletePending,
        NtStatus::INSUFFICIENT_RESOURCES | NtStatus::NO_MEMORY => Reason::OutOfMemory,
        NtStatus::CANCELLED => Reason::Cancelled,
        NtStatus::END_OF_FILE => Reason::EndOfFile,
        _ => Reason::FileOpenFailed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_is_a_failure_and_all_bad_handles_look_the_same() {
        for error in [Error::HandleInvalid, Error::HandleClosed, Error::HandleOfOtherSession] {
            assert_eq!(error.status(), NtStatus::INVALID_HANDLE);
            assert_eq!(error.reason(), Reason::HandleInvalid, "a client learns nothing of others' handles");
        }
        assert_eq!(Error::System(NtStatus::OBJECT_NAME_NOT_FOUND).reason(), Reason::FileNotFound);
        assert_eq!(Error::System(NtStatus::IN_PAGE_ERROR).reason(), Reason::FileOpenFailed);
        // DEVICE_BUSY has warning severity: not a success, which is what callers test for.
        assert!(!Error::ImageInUse.status().is_success());
    }
}
