//! Who may do what to a host file.
//!
//! The model is small on purpose: Administrators and SYSTEM may do everything, everybody else gets what the host file's "other" mode bits
//! say, or nothing where a test has put the file on the volume's deny list. That is enough to show that a driver
//! opens in its client's name, and it needs no descriptor storage on the host.

use nt_types::{AccessMask, NtStatus};

/// On whose behalf a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Kernel mode without a forced check: no check at all.
    Kernel,
    /// A token in the Administrators group, or SYSTEM.
    Administrator,
    /// Any other token.
    User,
}

/// All rights a file object knows: `FILE_ALL_ACCESS`.
pub(crate) const FILE_ALL_ACCESS: AccessMask = AccessMask::from_bits_retain(0x001F_01FF);
/// `FILE_GENERIC_READ`.
pub(crate) const FILE_GENERIC_READ: AccessMask = AccessMask::from_bits_retain(0x0012_0089);
/// `FILE_GENERIC_WRITE`.
pub(crate) const FILE_GENERIC_WRITE: AccessMask = AccessMask::from_bits_retain(0x0012_0116);
/// `FILE_GENERIC_EXECUTE`.
pub(crate) const FILE_GENERIC_EXECUTE: AccessMask = AccessMask::from_bits_retain(0x0012_00A0);

/// The file type's generic mapping, as the object manager applies it before a file system sees the request.
pub(crate) fn map_generic(access: AccessMask) -> AccessMask {
    let mut mapped = access;
    for (generic, specific) in [
        (AccessMask::GENERIC_READ, FILE_GENERIC_READ),
        (AccessMask::GENERIC_WRITE, FILE_GENERIC_WRITE),
        (AccessMask::GENERIC_EXECUTE, FILE_GENERIC_EXECUTE),
        (AccessMask::GENERIC_ALL, FILE_ALL_ACCESS),
    ] {
        if mapped.contains(generic) {
            mapped = mapped.difference(generic).union(specific);
        }
    }
    mapped
}

/// What a plain user may do with a file of these host mode bits.
fn user_rights(mode: u32) -> AccessMask {
    let mut rights = AccessMask::SYNCHRONIZE | AccessMask::FILE_READ_ATTRIBUTES;
    if mode & 0o4 != 0 {
        rights |= FILE_GENERIC_READ;
    }
    if mode & 0o2 != 0 {
        rights |= FILE_GENERIC_WRITE | AccessMask::DELETE | AccessMask::FILE_DELETE_CHILD;
    }
    if mode & 0o1 != 0 {
        rights |= FILE_GENERIC_EXECUTE;
    }
    rights
}

/// Decides an open.
///
/// # Errors
/// `ACCESS_DENIED`, when a right asked for is not granted.
pub(crate) fn grant(
    subject: Subject,
    mode: u32,
    denied: bool,
    desired: AccessMask,
) -> Result<AccessMask, NtStatus> {
    let rights = match subject {
        Subject::Kernel | Subject::Administrator => FILE_ALL_ACCESS | AccessMask::ACCESS_SYSTEM_SECURITY,
        Subject::User if denied => AccessMask::empty(),
        Subject::User => user_rights(mode),
    };
    let mut wanted = map_generic(desired);
    if wanted.contains(AccessMask::MAXIMUM_ALLOWED) {
        wanted = wanted.difference(AccessMask::MAXIMUM_ALLOWED) | (rights & FILE_ALL_ACCESS);
    }
    if rights.contains(wanted) { Ok(wanted) } else { Err(NtStatus::ACCESS_DENIED) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_user_gets_what_the_other_bits_say() {
        assert!(grant(Subject::User, 0o644, false, AccessMask::GENERIC_READ).is_ok());
        assert_eq!(grant(Subject::User, 0o644, false, AccessMask::GENERIC_WRITE), Err(NtStatus::ACCESS_DENIED));
        assert_eq!(grant(Subject::User, 0o600, false, AccessMask::GENERIC_READ), Err(NtStatus::ACCESS_DENIED));
    }

    #[test]
    fn a_denied_file_is_open_to_administrators_only() {
        let read = AccessMask::FILE_READ_DATA;
        assert_eq!(grant(Subject::User, 0o777, true, read), Err(NtStatus::ACCESS_DENIED));
        assert_eq!(grant(Subject::Administrator, 0o600, true, read), Ok(read));
    }

    #[test]
    fn maximum_allowed_grants_what_there_is_and_never_fails_alone() {
        let granted = grant(Subject::User, 0o644, false, AccessMask::MAXIMUM_ALLOWED).unwrap();
        assert!(granted.contains(FILE_GENERIC_READ) && !granted.contains(AccessMask::FILE_WRITE_DATA));
    }
}
