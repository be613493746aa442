//! Small services: the version of Windows, random numbers, processors.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicU32, Ordering};

use nt_types::NtStatus;

use super::raw::Raw;
use crate::ddi::{Call, exports};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    RtlGetVersion(max 0) = rtl_get_version;
    RtlRandomEx(max 1) = rtl_random_ex;
    RtlRandom(max 1) = rtl_random_ex;
    ExUuidCreate(max 0) = ex_uuid_create;
    RtlCompareMemoryUlong(max 31) = rtl_compare_memory_ulong;
    RtlCopyLuid(max 1) = rtl_copy_luid;
    RtlEqualLuid(max 31) = rtl_equal_luid;
    RtlCopyLuidAndAttributesArray(max 1) = rtl_copy_luid_and_attributes_array;
    KeGetCurrentProcessorNumberEx(max 31) = ke_get_current_processor_number_ex;
    KeQueryActiveProcessorCount(max 31) = ke_query_active_processor_count;
}

/// Windows 11 24H2, the build that driver packages are installed for, too.
pub(crate) const BUILD: u32 = 26_100;

/// Version of Windows 10 and 11.
pub(crate) const MAJOR_VERSION: u32 = 10;
/// The part behind the point.
pub(crate) const MINOR_VERSION: u32 = 0;

/// `VER_PLATFORM_WIN32_NT`.
const PLATFORM_NT: u32 = 2;

/// Bytes of `RTL_OSVERSIONINFOW`, and of `RTL_OSVERSIONINFOEXW`, which adds five small fields.
const VERSION_LENGTH: u32 = 276;
const VERSION_EX_LENGTH: u32 = 284;

/// `VER_NT_WORKSTATION`, in the last but one byte of the Ex form.
const PRODUCT_TYPE: usize = 282;
const WORKSTATION: u8 = 1;

extern "efiapi" fn rtl_get_version(information: Raw<u32>) -> NtStatus {
    let _call = Call::enter();
    let length = information.read();
    if length != VERSION_LENGTH && length != VERSION_EX_LENGTH {
        return NtStatus::INVALID_PARAMETER;
    }
    information.cast::<u8>().field::<u8>(4).fill(0, length as usize - 4);
    for (index, value) in [MAJOR_VERSION, MINOR_VERSION, BUILD, PLATFORM_NT].into_iter().enumerate() {
        information.index(index + 1).write(value);
    }
    if length == VERSION_EX_LENGTH {
        information.field::<u8>(PRODUCT_TYPE).write(WORKSTATION);
    }
    NtStatus::SUCCESS
}

/// Mixed into every number, so that two drivers with the same seed do not see the same sequence.
static RANDOM: AtomicU32 = AtomicU32::new(0x9E37_79B9);

extern "efiapi" fn rtl_random_ex(seed: Raw<u32>) -> u32 {
    let _call = Call::enter();
    let mut value = seed.read() ^ RANDOM.fetch_add(0x9E37_79B9, Ordering::Relaxed);
    // One round of a 32-bit finaliser: every bit of the seed reaches every bit of the number.
    for (shift, factor) in [(16, 0x7FEB_352D), (15, 0x846C_A68B_u32)] {
        value = (value ^ (value >> shift)).wrapping_mul(factor);
    }
    seed.write(value);
    // The page: numbers from 0 to MAXLONG - 1.
    value % 0x7FFF_FFFF
}

extern "efiapi" fn ex_uuid_create(uuid: Raw<[u8; 16]>) -> NtStatus {
    let _call = Call::enter();
    // Keys of hash maps are random, and different each time.
    let [low, high] = [0, 1].map(|_| RandomState::new().build_hasher().finish());
    let mut bytes = (u128::from(low) | u128::from(high) << 64).to_le_bytes();
    // Version 4 (random), and the variant of RFC 9562. The third field is little-endian in memory.
    bytes[7] = bytes[7] & 0x0F | 0x40;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    uuid.write(bytes);
    NtStatus::SUCCESS
}

extern "efiapi" fn rtl_compare_memory_ulong(memory: Raw<u32>, length: usize, pattern: u32) -> usize {
    let _call = Call::enter();
    4 * (0..length / 4).take_while(|index| memory.index(*index).read() == pattern).count()
}

/// A `LUID` is two 32-bit halves.
extern "efiapi" fn rtl_copy_luid(target: Raw<[u32; 2]>, source: Raw<[u32; 2]>) {
    let _call = Call::enter();
    target.write(source.read());
}

extern "efiapi" fn rtl_equal_luid(left: Raw<[u32; 2]>, right: Raw<[u32; 2]>) -> u8 {
    let _call = Call::enter();
    u8::from(left.read() == right.read())
}

/// A `LUID_AND_ATTRIBUTES` is a `LUID` and a word.
extern "efiapi" fn rtl_copy_luid_and_attributes_array(count: u32, source: Raw<[u32; 3]>, target: Raw<[u32; 3]>) {
    let _call = Call::enter();
    source.read_slice(count as usize).into_iter().enumerate().for_each(|(at, entry)| target.index(at).write(entry));
}

extern "efiapi" fn ke_get_current_processor_number_ex(number: Raw<u32>) -> u32 {
    let _call = Call::enter();
    // The simulated computer has one processor group with one processor, number 0.
    number.write_if_some(0);
    0
}

extern "efiapi" fn ke_query_active_processor_count(affinity: Raw<usize>) -> u32 {
    let _call = Call::enter();
    affinity.write_if_some(1);
    1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;

    #[test]
    fn the_version_is_told_in_both_structures_and_no_other() {
        conforms!("wdm/nf-wdm-rtlgetversion.md", "Both version structures are filled, told apart by their size.");
        Bench::new()
            .run(|| {
                let mut information = [0_u32; 71];
                let raw = Raw::of(&raw mut information).cast::<u32>();
                for (length, status) in
                    [(276, NtStatus::SUCCESS), (284, NtStatus::SUCCESS), (8, NtStatus::INVALID_PARAMETER)]
                {
                    raw.write(length);
                    assert_eq!(rtl_get_version(raw), status);
                }
                assert_eq!(information[1..5], [10, 0, 26_100, 2]);
            })
            .unwrap();
    }

    #[test]
    fn random_numbers_move_their_seed_and_stay_in_range() {
        conforms!("ntifs/nf-ntifs-rtlrandomex.md", "The number is from 0 to MAXLONG-1, and the seed is changed.");
        Bench::new()
            .run(|| {
                let mut seed = 1;
                let raw = Raw::of(&raw mut seed);
                let numbers: Vec<u32> = (0..100).map(|_| rtl_random_ex(raw)).collect();
                assert!(numbers.iter().all(|number| *number < 0x7FFF_FFFF));
                assert_ne!(numbers[0], numbers[1]);
            })
            .unwrap();
    }

    #[test]
    fn a_luid_is_copied_whole_and_compared_by_both_halves() {
        conforms!("ntifs/nf-ntifs-rtlcopyluid.md", "The source identifier is copied into the caller's buffer.");
        Bench::new()
            .run(|| {
                let (mut one, mut other) = ([1_u32, 2], [1_u32, 3]);
                let (one, other) = (Raw::of(&raw mut one), Raw::of(&raw mut other));
                assert_eq!(rtl_equal_luid(one, other), 0);
                rtl_copy_luid(other, one);
                assert_eq!((other.read(), rtl_equal_luid(one, other)), ([1, 2], 1));
            })
            .unwrap();
    }
}
