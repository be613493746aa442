//! HRESULTs, made of NTSTATUS values the way fltlib makes them.

use std::fmt;

use nt_types::NtStatus;
use serde::{Deserialize, Serialize};

/// Result of an fltlib call. Negative is failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
#[must_use]
pub struct HResult(pub i32);

impl HResult {
    /// Success.
    pub const S_OK: Self = Self(0);
    /// The port handle names nothing.
    pub const INVALID_HANDLE: Self = Self::from_win32(6);
    /// An argument breaks a rule of the call's page.
    pub const INVALID_PARAMETER: Self = Self::from_win32(87);
    /// The caller is no administrator.
    pub const ACCESS_DENIED: Self = Self::from_win32(5);
    /// The caller has no `SeLoadDriverPrivilege`, which only administrators get.
    pub const PRIVILEGE_NOT_HELD: Self = Self::from_win32(1314);
    /// No such service, port or file.
    pub const FILE_NOT_FOUND: Self = Self::from_win32(2);
    /// The filter is loaded already, as `FilterLoad` says it.
    pub const ALREADY_EXISTS: Self = Self::from_win32(183);
    /// The service runs already.
    pub const SERVICE_ALREADY_RUNNING: Self = Self::from_win32(1056);
    /// The file is no driver for this machine.
    pub const BAD_EXE_FORMAT: Self = Self::from_win32(193);
    /// The machine has stopped and serves nothing any more.
    pub const DEVICE_NOT_AVAILABLE: Self = Self::from_win32(4319);

    /// `HRESULT_FROM_WIN32` of an error code, below 65,536.
    pub const fn from_win32(code: u16) -> Self {
        Self((0x8007_0000 | code as u32).cast_signed())
    }

    /// What fltlib returns where the Filter Manager or a driver's callback ended with `status`.
    ///
    /// Success of any kind is `S_OK`. The Filter Manager's own statuses (0xC01Cxxxx) keep their code in the filter facility
    /// (0x801Fxxxx). Those with a Win32 error get it, like any status that leaves through Win32; the others are kept whole
    /// by `HRESULT_FROM_NT`, so that nothing is lost.
    pub const fn from_status(status: NtStatus) -> Self {
        let bits = status.bits();
        if status.is_success() {
            Self::S_OK
        } else if bits >> 16 == 0xC01C {
            Self((0x801F_0000 | bits & 0xFFFF).cast_signed())
        } else if let Some(code) = win32_of(status) {
            Self::from_win32(code)
        } else {
            Self((bits | FACILITY_NT_BIT).cast_signed())
        }
    }

    /// The 32 bits, as headers print them.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0.cast_unsigned()
    }

    /// `FAILED`.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        self.0 < 0
    }
}

/// Marks an HRESULT that is an NTSTATUS.
const FACILITY_NT_BIT: u32 = 0x1000_0000;

/// The Win32 error that `RtlNtStatusToDosError` gives, for the statuses that drivers of filters and ports return.
const fn win32_of(status: NtStatus) -> Option<u16> {
    Some(match status {
        NtStatus::OBJECT_NAME_NOT_FOUND | NtStatus::NO_SUCH_FILE => 2,
        NtStatus::OBJECT_PATH_NOT_FOUND => 3,
        NtStatus::TOO_MANY_OPENED_FILES => 4,
        NtStatus::ACCESS_DENIED | NtStatus::CANNOT_DELETE | NtStatus::DELETE_PENDING => 5,
        NtStatus::INVALID_HANDLE | NtStatus::PORT_DISCONNECTED => 6,
        NtStatus::INSUFFICIENT_RESOURCES => 1450,
        NtStatus::NO_MEMORY => 8,
        NtStatus::INVALID_DEVICE_REQUEST => 1,
        NtStatus::INFO_LENGTH_MISMATCH => 24,
        NtStatus::SHARING_VIOLATION => 32,
        NtStatus::FILE_LOCK_CONFLICT => 33,
        NtStatus::END_OF_FILE => 38,
        NtStatus::NOT_SUPPORTED => 50,
        NtStatus::INVALID_PARAMETER => 87,
        NtStatus::BUFFER_TOO_SMALL => 122,
        NtStatus::OBJECT_NAME_INVALID => 123,
        NtStatus::OBJECT_PATH_INVALID | NtStatus::OBJECT_PATH_SYNTAX_BAD => 161,
        NtStatus::DEVICE_BUSY => 170,
        NtStatus::OBJECT_NAME_COLLISION => 183,
        NtStatus::INVALID_IMAGE_FORMAT => 193,
        NtStatus::NAME_TOO_LONG => 206,
        NtStatus::BUFFER_OVERFLOW => 234,
        NtStatus::INTEGER_OVERFLOW => 534,
        NtStatus::INVALID_IMAGE_HASH => 577,
        NtStatus::CANCELLED => 995,
        NtStatus::ACCESS_VIOLATION => 998,
        NtStatus::IMAGE_ALREADY_LOADED => 1056,
        NtStatus::IO_TIMEOUT => 1117,
        NtStatus::NOT_FOUND => 1168,
        NtStatus::REVISION_MISMATCH => 1306,
        NtStatus::PRIVILEGE_NOT_HELD => 1314,
        NtStatus::INVALID_USER_BUFFER => 1784,
        NtStatus::QUOTA_EXCEEDED => 1816,
        NtStatus::CONNECTION_COUNT_LIMIT => 1238,
        NtStatus::DRIVER_ENTRYPOINT_NOT_FOUND | NtStatus::DRIVER_UNABLE_TO_LOAD => 2001,
        _ => return None,
    })
}

impl fmt::Display for HResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0x{:08X}", self.bits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses_become_the_hresults_that_fltlib_documents() {
        let cases = [
            (NtStatus::SUCCESS, 0),
            (NtStatus::TIMEOUT, 0),
            (NtStatus::OBJECT_NAME_NOT_FOUND, 0x8007_0002),
            (NtStatus::ACCESS_DENIED, 0x8007_0005),
            (NtStatus::OBJECT_NAME_COLLISION, 0x8007_00B7),
            (NtStatus::BUFFER_OVERFLOW, 0x8007_00EA),
            (NtStatus::IMAGE_ALREADY_LOADED, 0x8007_0420),
            (NtStatus::INVALID_IMAGE_HASH, 0x8007_0241),
            (NtStatus::FLT_DO_NOT_DETACH, 0x801F_0010),
            (NtStatus::FLT_NO_WAITER_FOR_REPLY, 0x801F_0020),
            (NtStatus::from_bits(0xC000_0804), 0xD000_0804),
        ];
        for (status, hresult) in cases {
            assert_eq!(HResult::from_status(status).bits(), hresult, "{status}");
        }
    }
}
