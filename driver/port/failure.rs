//! Why a request failed, as the client is told.

use broker::{Error, staging};
use nt_types::NtStatus;
use protocol::{BufferTooSmall, Detail, Reason};

/// The status, reason and detail of a refusal.
#[derive(Clone, Copy)]
pub(super) struct Failure {
    pub(super) status: NtStatus,
    pub(super) reason: Reason,
    pub(super) detail: Detail,
}

impl Failure {
    /// A refusal without a system call behind it.
    pub(super) fn new(status: NtStatus, reason: Reason) -> Self {
        Self { status, reason, detail: Detail::default() }
    }

    /// As [`From<Error>`], where the failed system call was a read and not an open.
    pub(super) fn reading(error: Error) -> Self {
        let failure = Self::from(error);
        match failure.reason {
            Reason::FileOpenFailed => Self { reason: Reason::FileReadFailed, ..failure },
            _ => failure,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let system_status = if let Error::System(status) = error { status.0 } else { 0 };
        Self { status: error.status(), reason: error.reason(), detail: Detail::new(None, system_status) }
    }
}

impl From<staging::Failure> for Failure {
    fn from(failure: staging::Failure) -> Self {
        let error = match failure.phase {
            protocol::Phase::Reading => Self::reading(failure.error),
            _ => Self::from(failure.error),
        };
        Self { detail: Detail { phase: failure.phase.code(), ..error.detail }, ..error }
    }
}

impl From<BufferTooSmall> for Failure {
    fn from(_: BufferTooSmall) -> Self {
        Self::new(NtStatus::BUFFER_TOO_SMALL, Reason::OutputBufferTooSmall)
    }
}
