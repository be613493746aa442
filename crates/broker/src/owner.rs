//! Who a session belongs to.

use crate::{Error, Name};

/// What is recorded of the owner of a session when it begins, for lists and reports.
#[derive(Debug)]
pub struct Owner {
    /// The process that connected (`PsGetCurrentProcessId`); the system's for a NIC driver.
    pub process: u64,
    /// Full image name of the process, or name of the NIC driver. May be empty, where the system could not tell.
    pub name: Name,
    /// What it may do.
    pub role: Role,
    /// When it connected: 100-nanosecond intervals since 1601-01-01 UTC.
    pub since: i64,
}

/// What a session may do. Decided once, when it begins, from what the system knows of its owner; nothing
/// that the owner says changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A client that may use every request.
    Administrator,
    /// A client that may open, query, read and close files which its own account can read, and nothing else.
    User,
    /// A NIC driver: part of the kernel, with requests of its own.
    Driver,
}

impl Role {
    /// Lets administrators pass. [`Error::NotAdministrator`] (`STATUS_ACCESS_DENIED`) for everybody else.
    pub const fn check_administrator(self) -> Result<(), Error> {
        match self {
            Self::Administrator => Ok(()),
            Self::User | Self::Driver => Err(Error::NotAdministrator),
        }
    }
}
