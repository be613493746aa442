//! Who may do what to a host file.
//!
//! The model is small on purpose: SYSTEM and administrators may do everything, everybody else gets what the host file's
//! "other" mode bits say, and a test can narrow the [`Audience`] of a file. That is enough to show that a driver opens in
//! its client's name, and it needs no descriptor storage on the host.

use nt_types::{AccessMask, NtStatus};

/// On whose behalf a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Kernel mode without a forced check: no check at all.
    Kernel,
    /// `LocalSystem`, with its access checked.
    System,
    /// A token in the Administrators group.
    Administrator,
    /// Any other token.
    User,
}

/// For whom a file is, as its security descriptor would say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Audience {
    /// Whoever the host file's mode bits let in.
    #[default]
    Everyone,
    /// Administrators and SYSTEM.
    Administrators,
    /// SYSTEM alone, like the files that Windows keeps from its administrators.
    System,
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
    audience: Audience,
    desired: AccessMask,
) -> Result<AccessMask, NtStatus> {
    let rights = match subject {
        Subject::Kernel | Subject::System => FILE_ALL_ACCESS | AccessMask::ACCESS_SYSTEM_SECURITY,
        Subject::Administrator if audience != Audience::System => FILE_ALL_ACCESS | AccessMask::ACCESS_SYSTEM_SECURITY,
        Subject::User if audience == Audience::Everyone => user_rights(mode),
        Subject::Administrator | Subject::User => AccessMask::empty(),
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
        assert!(grant(Subject::User, 0o644, Audience::Everyone, AccessMask::GENERIC_READ).is_ok());
        assert_eq!(
            grant(Subject::User, 0o644, Audience::Everyone, AccessMask::GENERIC_WRITE),
            Err(NtStatus::ACCESS_DENIED)
        );
        assert_eq!(
            grant(Subject::User, 0o600, Audience::Everyone, AccessMask::GENERIC_READ),
            Err(NtStatus::ACCESS_DENIED)
        );
    }

    #[test]
    fn a_file_is_open_to_its_audience_only() {
        let read = AccessMask::FILE_READ_DATA;
        let may = |subject, audience| grant(subject, 0o777, audience, read).is_ok();
        let all = [Subject::User, Subject::Administrator, Subject::System, Subject::Kernel];
        assert_eq!(all.map(|subject| may(subject, Audience::Everyone)), [true; 4]);
        assert_eq!(all.map(|subject| may(subject, Audience::Administrators)), [false, true, true, true]);
        assert_eq!(all.map(|subject| may(subject, Audience::System)), [false, false, true, true]);
    }

    #[test]
    fn maximum_allowed_grants_what_there_is_and_never_fails_alone() {
        let granted = grant(Subject::User, 0o644, Audience::Everyone, AccessMask::MAXIMUM_ALLOWED).unwrap();
        assert!(granted.contains(FILE_GENERIC_READ) && !granted.contains(AccessMask::FILE_WRITE_DATA));
    }
}
