//! `NDIS_STATUS` as a type of its own.

use nt_types::NtStatus;

/// An `NDIS_STATUS`.
///
/// Success is [`NdisStatus::SUCCESS`] and nothing else: `NDIS_STATUS_PENDING`, `NDIS_STATUS_NOT_RECOGNIZED` and
/// `NDIS_STATUS_NOT_ACCEPTED` have success severity, so that a test of the sign bit takes a refusal for consent. There is
/// no such test here.
///
/// The constants are the `NDIS_STATUS_*` family of `ndis.h` (`NDIS_STATUS_FILE_NOT_FOUND` is 0xC001001B), not
/// the `STATUS_NDIS_*` family of `ntstatus.h` (0xC023001B), except where `ndis.h` itself takes a value from there.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
#[must_use]
pub struct NdisStatus(pub i32);

impl NdisStatus {
    /// Status with the given bits, as headers print them.
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits.cast_signed())
    }

    /// The 32 bits of the status.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0.cast_unsigned()
    }

    /// True for [`NdisStatus::SUCCESS`] only.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.0 == 0
    }

    /// `Ok(())` for [`NdisStatus::SUCCESS`], the status itself otherwise.
    ///
    /// # Errors
    /// Every status but `NDIS_STATUS_SUCCESS`, pending included.
    pub const fn ok(self) -> Result<(), Self> {
        if self.is_success() { Ok(()) } else { Err(self) }
    }

    /// The status with which a miniport reports an NT failure.
    ///
    /// NDIS shares the numbers of a few NT statuses (`NDIS_STATUS_RESOURCES` is `STATUS_INSUFFICIENT_RESOURCES`); the
    /// others have no meaning to it and become `NDIS_STATUS_FAILURE`, or `NDIS_STATUS_FILE_NOT_FOUND` for a missing name.
    pub fn from_nt(status: NtStatus) -> Self {
        match status {
            NtStatus::SUCCESS => Self::SUCCESS,
            NtStatus::INSUFFICIENT_RESOURCES | NtStatus::NO_MEMORY => Self::RESOURCES,
            NtStatus::INVALID_PARAMETER => Self::INVALID_PARAMETER,
            NtStatus::NOT_SUPPORTED => Self::NOT_SUPPORTED,
            NtStatus::OBJECT_NAME_NOT_FOUND
            | NtStatus::OBJECT_PATH_NOT_FOUND
            | NtStatus::OBJECT_NAME_INVALID
            | NtStatus::NO_SUCH_FILE => Self::FILE_NOT_FOUND,
            _ => Self::FAILURE,
        }
    }
}

nt_types::statuses! {
    NdisStatus, "NDIS_STATUS_";
    /// Done.
    SUCCESS = 0x0000_0000;
    /// A completion call follows.
    PENDING = 0x0000_0103;
    /// A filter has answered a synchronous OID request.
    ALREADY_COMPLETE = 0x0000_00FF;
    /// The OID is not recognised. Success severity!
    NOT_RECOGNIZED = 0x0001_0001;
    /// Data were not copied. Success severity!
    NOT_COPIED = 0x0001_0002;
    /// The adapter does not take the request or its configuration. Success severity!
    NOT_ACCEPTED = 0x0001_0003;
    /// A status indication follows. Success severity!
    INDICATION_REQUIRED = 0x4023_0001;
    /// Indication: the adapter is being reset; requests fail until the end is indicated.
    RESET_START = 0x4001_0004;
    /// Indication: the reset is over.
    RESET_END = 0x4001_0005;
    /// Indication: the link's state, an `NDIS_LINK_STATE`.
    LINK_STATE = 0x4001_0017;
    /// Indication: specific to the driver.
    MEDIA_SPECIFIC_INDICATION_EX = 0x4001_0019;
    /// The output did not fit.
    BUFFER_OVERFLOW = 0x8000_0005;
    /// The adapter cannot be reset.
    NOT_RESETTABLE = 0x8001_0001;
    /// The reset worked, after errors that could be recovered from.
    SOFT_ERRORS = 0x8001_0003;
    /// The reset did not work.
    HARD_ERRORS = 0x8001_0004;
    /// Failed without a better status.
    FAILURE = 0xC000_0001;
    /// A parameter is not acceptable.
    INVALID_PARAMETER = 0xC000_000D;
    /// Not enough memory or other resources.
    RESOURCES = 0xC000_009A;
    /// Not supported here.
    NOT_SUPPORTED = 0xC000_00BB;
    /// The binding is being closed.
    CLOSING = 0xC001_0002;
    /// The NDIS version, or a structure's revision, is not supported.
    BAD_VERSION = 0xC001_0004;
    /// A characteristics structure is not what its version demands.
    BAD_CHARACTERISTICS = 0xC001_0005;
    /// No such adapter.
    ADAPTER_NOT_FOUND = 0xC001_0006;
    /// The open failed.
    OPEN_FAILED = 0xC001_0007;
    /// The device failed.
    DEVICE_FAILED = 0xC001_0008;
    /// The request was cancelled.
    REQUEST_ABORTED = 0xC001_000C;
    /// The adapter is being reset.
    RESET_IN_PROGRESS = 0xC001_000D;
    /// The binding is being closed, and an indication is under way.
    CLOSING_INDICATING = 0xC001_000E;
    /// The adapter is not ready.
    ADAPTER_NOT_READY = 0xC001_0011;
    /// A length is not acceptable.
    INVALID_LENGTH = 0xC001_0014;
    /// Data are not acceptable.
    INVALID_DATA = 0xC001_0015;
    /// The buffer cannot hold the answer; `BytesNeeded` says what can.
    BUFFER_TOO_SHORT = 0xC001_0016;
    /// The OID is not valid.
    INVALID_OID = 0xC001_0017;
    /// The adapter is gone.
    ADAPTER_REMOVED = 0xC001_0018;
    /// None of the media is supported.
    UNSUPPORTED_MEDIA = 0xC001_0019;
    /// `NdisOpenFile`: the file does not exist.
    FILE_NOT_FOUND = 0xC001_001B;
    /// `NdisOpenFile`: the file could not be read.
    ERROR_READING_FILE = 0xC001_001C;
    /// `NdisMapFile`: the file is mapped already.
    ALREADY_MAPPED = 0xC001_001D;
    /// Hardware resources conflict.
    RESOURCE_CONFLICT = 0xC001_001E;
    /// The adapter is paused.
    PAUSED = 0xC023_002A;
    /// No such network interface.
    INTERFACE_NOT_FOUND = 0xC023_002B;
    /// The device is in a low power state.
    LOW_POWER_STATE = 0xC023_002F;
    /// The revision of a structure is not supported.
    UNSUPPORTED_REVISION = 0xC023_002C;
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::NdisStatus;
    use nt_types::NtStatus;
    use std::string::ToString;

    #[test]
    fn only_success_counts_as_success() {
        assert!(NdisStatus::SUCCESS.ok().is_ok());
        for status in [NdisStatus::PENDING, NdisStatus::NOT_ACCEPTED, NdisStatus::NOT_RECOGNIZED] {
            assert_eq!(status.ok(), Err(status), "{status} has success severity, and is no success");
        }
    }

    #[test]
    fn a_missing_name_becomes_file_not_found_of_the_ndis_family() {
        let status = NdisStatus::from_nt(NtStatus::OBJECT_NAME_NOT_FOUND);
        assert_eq!(status.to_string(), "NDIS_STATUS_FILE_NOT_FOUND (0xC001001B)");
    }

    #[test]
    fn an_nt_status_without_counterpart_becomes_failure() {
        assert_eq!(NdisStatus::from_nt(NtStatus::IO_TIMEOUT), NdisStatus::FAILURE);
        assert_eq!(NdisStatus::from_nt(NtStatus::INSUFFICIENT_RESOURCES), NdisStatus::RESOURCES);
    }
}
