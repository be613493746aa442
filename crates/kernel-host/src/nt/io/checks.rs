//! Checks of buffers and of information classes that file systems and servers in the kernel make.
//!
//! Lengths of the classes are the sizes of their structures, as the headers have them.

use nt_types::NtStatus;

use crate::ddi::{Call, exports};
use crate::nt::raw::Raw;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    IoCheckEaBufferValidity(max 1) = io_check_ea_buffer_validity;
    IoCheckQuotaBufferValidity(max 1) = io_check_quota_buffer_validity;
    IoCheckQuerySetFileInformation(max 1) = io_check_query_set_file_information;
    IoCheckQuerySetVolumeInformation(max 1) = io_check_query_set_volume_information;
}

/// `STATUS_QUOTA_LIST_INCONSISTENT`.
const QUOTA_LIST_INCONSISTENT: NtStatus = NtStatus::from_bits(0xC000_0266);

/// Classes of `FILE_INFORMATION_CLASS` that can be queried, and the least bytes that they need.
#[rustfmt::skip]
const FILE_QUERIES: &[(u32, u32)] = &[
    (4, 40), (5, 24), (6, 8), (7, 4), (8, 4), (9, 8), (14, 8), (16, 4), (17, 4), (18, 104), (21, 8), (22, 32), (23, 8),
    (24, 40), (25, 16), (26, 24), (28, 16), (29, 72), (33, 16), (34, 56), (35, 8), (43, 4), (46, 24), (48, 8), (55, 4),
    (59, 24), (67, 72), (68, 64), (70, 72), (71, 4),
];

/// Those that can be set.
#[rustfmt::skip]
const FILE_SETS: &[(u32, u32)] = &[
    (4, 40), (10, 24), (11, 24), (13, 1), (14, 8), (16, 4), (19, 8), (20, 8), (23, 8), (25, 16), (27, 8), (29, 72), (30, 16),
    (31, 24), (36, 16), (39, 8), (40, 8), (43, 4), (61, 4), (64, 4), (65, 24), (71, 4), (72, 24),
];

/// Classes of `FS_INFORMATION_CLASS`, likewise.
const VOLUME_QUERIES: &[(u32, u32)] =
    &[(1, 24), (3, 24), (4, 8), (5, 16), (6, 48), (7, 32), (8, 64), (9, 12), (10, 8), (11, 28)];
const VOLUME_SETS: &[(u32, u32)] = &[(2, 8), (6, 48), (8, 64)];

fn check_class(class: u32, length: u32, classes: &[(u32, u32)]) -> NtStatus {
    match classes.iter().find(|(known, _)| *known == class) {
        None => NtStatus::INVALID_INFO_CLASS,
        Some((_, needed)) if length < *needed => NtStatus::INFO_LENGTH_MISMATCH,
        Some(_) => NtStatus::SUCCESS,
    }
}

extern "efiapi" fn io_check_query_set_file_information(class: u32, length: u32, set: u8) -> NtStatus {
    let _call = Call::enter();
    check_class(class, length, if set != 0 { FILE_SETS } else { FILE_QUERIES })
}

extern "efiapi" fn io_check_query_set_volume_information(class: u32, length: u32, set: u8) -> NtStatus {
    let _call = Call::enter();
    check_class(class, length, if set != 0 { VOLUME_SETS } else { VOLUME_QUERIES })
}

/// Looks at the entries of a list that are chained by `NextEntryOffset`; where the first is that is not as it should be.
///
/// `measure` gives the bytes of an entry that begins with the ones that it is given, or nothing for one that is wrong.
fn check_list(bytes: &[u8], measure: impl Fn(&[u8]) -> Option<usize>) -> Result<(), usize> {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let length = measure(rest).filter(|length| *length <= rest.len()).ok_or(at)?;
        let next = word(rest, 0).ok_or(at)? as usize;
        if next == 0 {
            // The last entry is where the buffer ends.
            return if length.next_multiple_of(4) >= rest.len() { Ok(()) } else { Err(at) };
        }
        if next < length || !next.is_multiple_of(4) {
            return Err(at);
        }
        at += next;
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(u32::from_le_bytes(four))
}

/// Bytes of a `FILE_FULL_EA_INFORMATION`: eight, the name with its terminator, and the value.
fn measure_ea(entry: &[u8]) -> Option<usize> {
    let name = usize::from(*entry.get(5)?);
    let value = word(entry, 4)? as usize >> 16;
    (*entry.get(8 + name)? == 0 && !entry.get(8..8 + name)?.contains(&0)).then_some(8 + name + 1 + value)
}

/// Bytes of a `FILE_QUOTA_INFORMATION`: forty and the SID, whose own length has to be the one that is told.
fn measure_quota(entry: &[u8]) -> Option<usize> {
    const SID: usize = 40;
    let told = word(entry, 4)? as usize;
    let (revision, authorities) = (*entry.get(SID)?, usize::from(*entry.get(SID + 1)?));
    (revision == 1 && authorities <= 15 && told == 8 + 4 * authorities).then_some(SID + told)
}

fn answer(checked: Result<(), usize>, bad: NtStatus, offset: Raw<u32>) -> NtStatus {
    let Err(at) = checked else { return NtStatus::SUCCESS };
    offset.write_if_some(at as u32);
    bad
}

extern "efiapi" fn io_check_ea_buffer_validity(buffer: Raw<u8>, length: u32, offset: Raw<u32>) -> NtStatus {
    let _call = Call::enter();
    let checked = check_list(&buffer.read_bytes(length as usize), measure_ea);
    answer(checked, NtStatus::EA_LIST_INCONSISTENT, offset)
}

extern "efiapi" fn io_check_quota_buffer_validity(buffer: Raw<u8>, length: u32, offset: Raw<u32>) -> NtStatus {
    let _call = Call::enter();
    if !buffer.address().is_multiple_of(4) {
        offset.write_if_some(0);
        return NtStatus::DATATYPE_MISALIGNMENT;
    }
    let checked = check_list(&buffer.read_bytes(length as usize), measure_quota);
    answer(checked, QUOTA_LIST_INCONSISTENT, offset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;

    type Check = extern "efiapi" fn(Raw<u8>, u32, Raw<u32>) -> NtStatus;

    fn check(routine: Check, bytes: &[u8]) -> Result<(), (NtStatus, u32)> {
        let mut words = vec![0_u32; bytes.len().div_ceil(4)];
        let buffer = Raw::<u32>::of(words.as_mut_ptr()).cast::<u8>();
        let mut offset = 99;
        let offset = Raw::of(&raw mut offset);
        let run = Bench::new().run(|| {
            buffer.write_bytes(bytes);
            routine(buffer, bytes.len() as u32, offset)
        });
        let status = run.unwrap();
        if status == NtStatus::SUCCESS { Ok(()) } else { Err((status, offset.read())) }
    }

    fn ea(next: u32, name: &[u8], value: &[u8]) -> Vec<u8> {
        let mut entry = next.to_le_bytes().to_vec();
        entry.extend([0, name.len() as u8, value.len() as u8, 0]);
        entry.extend([name, &[0], value].concat());
        entry
    }

    #[test]
    fn extended_attributes_are_whole_terminated_and_chained() {
        conforms!(
            "ntifs/nf-ntifs-iocheckeabuffervalidity.md",
            "Entries lie in the buffer, names are terminated, offsets of entries are multiples of four."
        );
        conforms!(
            "ntifs/nf-ntifs-iocheckeabuffervalidity.md",
            "STATUS_EA_LIST_INCONSISTENT and the offset of the offending entry are returned otherwise."
        );
        let bad = |at| Err((NtStatus::EA_LIST_INCONSISTENT, at));
        let list = |next: u32, second: Vec<u8>| {
            let mut all = ea(next, b"ABC", b"xyz");
            all.resize(16, 0);
            [all, second].concat()
        };
        let checked = |bytes: &[u8]| check(io_check_ea_buffer_validity, bytes);
        assert_eq!(checked(&list(16, ea(0, b"D", b""))), Ok(()));
        assert_eq!(checked(&list(14, ea(0, b"D", b""))), bad(0));
        assert_eq!(checked(&list(16, ea(0, b"D", b"")[..9].to_vec())), bad(16));
        let mut open_name = ea(0, b"D", b"");
        open_name[9] = 7;
        assert_eq!(checked(&list(16, open_name)), bad(16));
        assert_eq!(checked(&list(0, ea(0, b"D", b""))), bad(0));
        assert_eq!(checked(&[]), bad(0));
    }

    #[test]
    fn quota_entries_have_security_identifiers_of_their_length() {
        conforms!(
            "ntifs/nf-ntifs-iocheckquotabuffervalidity.md",
            "Each entry lies in the buffer, and SidLength is the length of its SID."
        );
        conforms!(
            "ntifs/nf-ntifs-iocheckquotabuffervalidity.md",
            "STATUS_DATATYPE_MISALIGNMENT is returned for a buffer that is not aligned."
        );
        let mut entry = vec![0_u8; 40];
        entry[4] = 12;
        entry.extend([1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0]);
        let checked = |bytes: &[u8]| check(io_check_quota_buffer_validity, bytes);
        assert_eq!(checked(&entry), Ok(()));
        entry[4] = 16;
        assert_eq!(checked(&entry), Err((QUOTA_LIST_INCONSISTENT, 0)));
        let odd = Bench::new().run(|| io_check_quota_buffer_validity(Raw::at(0x1001), 0, Raw::NULL));
        assert_eq!(odd.unwrap(), NtStatus::DATATYPE_MISALIGNMENT);
    }

    #[test]
    fn classes_have_directions_and_lengths() {
        conforms!(
            "ntifs/nf-ntifs-iocheckquerysetfileinformation.md",
            "STATUS_INVALID_INFO_CLASS is returned for a class that the operation does not have."
        );
        conforms!(
            "ntifs/nf-ntifs-iocheckquerysetfileinformation.md",
            "STATUS_INFO_LENGTH_MISMATCH is returned for a buffer that is too small."
        );
        conforms!("ntifs/nf-ntifs-iocheckquerysetvolumeinformation.md", "The same holds for classes of volumes.");
        let file =
            |class, length, set| Bench::new().run(|| io_check_query_set_file_information(class, length, set)).unwrap();
        assert_eq!(file(5, 24, 0), NtStatus::SUCCESS);
        assert_eq!(file(5, 23, 0), NtStatus::INFO_LENGTH_MISMATCH);
        assert_eq!(file(5, 24, 1), NtStatus::INVALID_INFO_CLASS);
        assert_eq!([file(13, 1, 1), file(13, 0, 1)], [NtStatus::SUCCESS, NtStatus::INFO_LENGTH_MISMATCH]);
        let volume = |class, length, set| {
            Bench::new().run(|| io_check_query_set_volume_information(class, length, set)).unwrap()
        };
        assert_eq!([volume(3, 24, 0), volume(2, 8, 1)], [NtStatus::SUCCESS; 2]);
        assert_eq!([volume(3, 8, 0), volume(3, 24, 1)], [NtStatus::INFO_LENGTH_MISMATCH, NtStatus::INVALID_INFO_CLASS]);
    }
}
