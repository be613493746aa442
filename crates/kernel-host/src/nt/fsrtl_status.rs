//! How file systems judge statuses: which mean that a device is gone, and which exceptions they expect.

use nt_types::NtStatus;

use crate::ddi::{Call, exports};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    FsRtlIsTotalDeviceFailure(max 31) = fs_rtl_is_total_device_failure;
    FsRtlIsNtstatusExpected(max 31) = fs_rtl_is_ntstatus_expected;
    FsRtlNormalizeNtstatus(max 31) = fs_rtl_normalize_ntstatus;
}

/// Statuses of a sector, not of a device: `STATUS_DEVICE_DATA_ERROR` and `STATUS_CRC_ERROR` by the page, and
/// `STATUS_DATA_ERROR`, which means the same.
const SECTOR_FAILURES: [NtStatus; 3] = [NtStatus::CRC_ERROR, NtStatus::DATA_ERROR, NtStatus::from_bits(0xC000_009C)];

/// Exceptions that are bugs of whoever raised them (general knowledge, the pages do not list them): bad addresses and
/// instructions, a broken stack. All others are answers that an exception filter may take.
const UNEXPECTED: [NtStatus; 6] = [
    NtStatus::DATATYPE_MISALIGNMENT,
    NtStatus::ACCESS_VIOLATION,
    NtStatus::ILLEGAL_INSTRUCTION,
    // STATUS_INSTRUCTION_MISALIGNMENT, STATUS_STACK_OVERFLOW, STATUS_PRIVILEGED_INSTRUCTION.
    NtStatus::from_bits(0xC000_00AA),
    NtStatus::from_bits(0xC000_00FD),
    NtStatus::from_bits(0xC000_0096),
];

fn is_expected(status: NtStatus) -> bool {
    !UNEXPECTED.contains(&status)
}

extern "efiapi" fn fs_rtl_is_total_device_failure(status: NtStatus) -> u8 {
    let _call = Call::enter();
    u8::from(!status.is_success() && !SECTOR_FAILURES.contains(&status))
}

extern "efiapi" fn fs_rtl_is_ntstatus_expected(status: NtStatus) -> u8 {
    let _call = Call::enter();
    is_expected(status).into()
}

extern "efiapi" fn fs_rtl_normalize_ntstatus(status: NtStatus, generic: NtStatus) -> NtStatus {
    let _call = Call::enter();
    if is_expected(status) { status } else { generic }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;

    #[test]
    fn a_bad_sector_is_no_failed_device() {
        conforms!(
            "ntddk/nf-ntddk-fsrtlistotaldevicefailure.md",
            "FALSE is returned for STATUS_DEVICE_DATA_ERROR and STATUS_CRC_ERROR, which concern a sector."
        );
        Bench::new()
            .run(|| {
                let failed = |status| fs_rtl_is_total_device_failure(status) != 0;
                assert!(failed(NtStatus::IO_DEVICE_ERROR) && failed(NtStatus::NO_SUCH_DEVICE));
                assert!(!failed(NtStatus::CRC_ERROR) && !failed(NtStatus::from_bits(0xC000_009C)));
                assert!(!failed(NtStatus::SUCCESS));
            })
            .unwrap();
    }

    #[test]
    fn exceptions_that_are_bugs_become_the_generic_one() {
        conforms!(
            "ntifs/nf-ntifs-_fsrtl_advanced_fcb_header-fsrtlisntstatusexpected.md",
            "TRUE is returned for an exception that is no fatal error."
        );
        conforms!(
            "ntifs/nf-ntifs-_fsrtl_advanced_fcb_header-fsrtlnormalizentstatus.md",
            "The exception is returned when it is one that the filter handles, else the generic status."
        );
        Bench::new()
            .run(|| {
                let normal = |status| fs_rtl_normalize_ntstatus(status, NtStatus::UNSUCCESSFUL);
                assert_eq!(normal(NtStatus::DISK_FULL), NtStatus::DISK_FULL);
                assert_eq!(normal(NtStatus::ACCESS_VIOLATION), NtStatus::UNSUCCESSFUL);
                assert_eq!(fs_rtl_is_ntstatus_expected(NtStatus::ACCESS_VIOLATION), 0);
                assert_eq!(fs_rtl_is_ntstatus_expected(NtStatus::DISK_FULL), 1);
            })
            .unwrap();
    }
}
