//! Comparing versions of Windows.

use nt_types::NtStatus;

use super::misc::{BUILD, MAJOR_VERSION, MINOR_VERSION};
use super::raw::Raw;
use crate::ddi::{Call, exports};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    VerSetConditionMask(max 31) = ver_set_condition_mask;
    RtlVerifyVersionInfo(max 0) = rtl_verify_version_info;
    RtlIsNtDdiVersionAvailable(max 31) = rtl_is_nt_ddi_version_available;
}

/// `VER_*` bits in the order of the three-bit conditions in a mask: minor, major, build, platform, service pack minor and
/// major, suite, product type.
const FIELDS: usize = 8;
/// `VER_NT_WORKSTATION`.
const WORKSTATION: u64 = 1;
/// `VER_PLATFORM_WIN32_NT`.
const PLATFORM_NT: u64 = 2;

/// Conditions.
const EQUAL: u64 = 1;
const GREATER: u64 = 2;
const GREATER_EQUAL: u64 = 3;
const LESS: u64 = 4;
const LESS_EQUAL: u64 = 5;
const AND: u64 = 6;
const OR: u64 = 7;

extern "efiapi" fn ver_set_condition_mask(mask: u64, field: u32, condition: u8) -> u64 {
    let _call = Call::enter();
    // The page: one field at a time, the lowest bit of those given; the top bit says that the mask is in use.
    let place = if field == 0 { return mask } else { 3 * field.trailing_zeros() };
    mask | 1 << 63 | u64::from(condition & 7) << place
}

fn holds(ours: u64, theirs: u64, condition: u64) -> Option<bool> {
    Some(match condition {
        EQUAL => ours == theirs,
        GREATER => ours > theirs,
        GREATER_EQUAL => ours >= theirs,
        LESS => ours < theirs,
        LESS_EQUAL => ours <= theirs,
        AND => ours & theirs == theirs,
        OR => ours & theirs != 0,
        _ => return None,
    })
}

extern "efiapi" fn rtl_verify_version_info(wanted: Raw<u32>, fields: u32, mask: u64) -> NtStatus {
    let _call = Call::enter();
    if fields == 0 || mask == 0 {
        return NtStatus::INVALID_PARAMETER;
    }
    let condition = |index: usize| mask >> (3 * index) & 7;
    let asked = |index: usize| fields >> index & 1 != 0;
    let word = |index: usize| u64::from(wanted.index(index).read());
    let short = |offset: usize| u64::from(wanted.field::<u16>(offset).read());
    let theirs = [
        word(2),
        word(1),
        word(3),
        word(4),
        short(278),
        short(276),
        short(280),
        u64::from(wanted.field::<u8>(282).read()),
    ];
    let ours = [MINOR_VERSION.into(), MAJOR_VERSION.into(), BUILD.into(), PLATFORM_NT, 0, 0, 0, WORKSTATION];
    for index in [2, 3, 6, 7].into_iter().filter(|index| asked(*index)) {
        match holds(ours[index], theirs[index], condition(index)) {
            None => return NtStatus::INVALID_PARAMETER,
            Some(false) => return NtStatus::REVISION_MISMATCH,
            Some(true) => {}
        }
    }
    // Major, minor and service pack are one number: the first that differs decides.
    let hierarchy: Vec<usize> = [1, 0, 5, 4].into_iter().filter(|index| asked(*index)).collect();
    let Some(first) = hierarchy.first() else { return NtStatus::SUCCESS };
    let version = |values: &[u64; FIELDS]| hierarchy.iter().map(|index| values[*index]).collect::<Vec<_>>();
    let order = version(&ours).cmp(&version(&theirs)) as i64;
    match holds((order + 1).unsigned_abs(), 1, condition(*first)) {
        None => NtStatus::INVALID_PARAMETER,
        Some(true) => NtStatus::SUCCESS,
        Some(false) => NtStatus::REVISION_MISMATCH,
    }
}

extern "efiapi" fn rtl_is_nt_ddi_version_available(version: u32) -> u8 {
    let _call = Call::enter();
    // NTDDI_WIN11_GE (24H2) is the highest; a service pack in the lower bits is no version.
    u8::from(version & 0xFFFF <= 0x0010 && version <= 0x0A00_0010)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;

    #[test]
    fn versions_are_compared_as_their_mask_says() {
        conforms!(
            "wdm/nf-wdm-rtlverifyversioninfo.md",
            "STATUS_REVISION_MISMATCH is returned when the version does not meet the conditions."
        );
        conforms!(
            "wdm/nf-wdm-rtlverifyversioninfo.md",
            "A mask or set of fields that is zero gives STATUS_INVALID_PARAMETER."
        );
        Bench::new()
            .run(|| {
                let mut information = [0_u32; 71];
                let raw = Raw::of(&raw mut information).cast::<u32>();
                let check = |major: u32, minor: u32, condition| {
                    raw.index(1).write(major);
                    raw.index(2).write(minor);
                    let mask = ver_set_condition_mask(ver_set_condition_mask(0, 2, condition), 1, condition);
                    rtl_verify_version_info(raw, 3, mask)
                };
                assert_eq!(check(6, 3, 3), NtStatus::SUCCESS, "10.0 >= 6.3");
                assert_eq!(check(10, 0, 1), NtStatus::SUCCESS);
                assert_eq!(check(10, 1, 3), NtStatus::REVISION_MISMATCH);
                assert_eq!(check(11, 0, 4), NtStatus::SUCCESS, "10.0 < 11.0");
                assert_eq!(rtl_verify_version_info(raw, 0, 1), NtStatus::INVALID_PARAMETER);
            })
            .unwrap();
    }
}
