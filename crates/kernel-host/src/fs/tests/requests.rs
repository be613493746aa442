//! Listing, locks, extended attributes.

use std::time::Duration;

use super::*;
use crate::conformance::conforms;

const NAMES: u32 = 12;

fn folder(setup: &Setup) -> ProgramFile {
    for name in ["a.txt", "b.txt", "c.rom"] {
        std::fs::write(setup.folder.path().join("Firmware").join(name), b"").unwrap();
    }
    setup.with(r"\??\C:\Firmware", OpenOptions::new().directory()).unwrap()
}

#[test]
fn a_listing_goes_on_where_it_stopped_and_ends() {
    conforms!(
        "ntifs/nf-ntifs-ntquerydirectoryfile.md",
        "The final call returns nothing and a status such as STATUS_NO_MORE_FILES."
    );
    conforms!(
        "ntifs/nf-ntifs-ntquerydirectoryfile.md",
        "The search expression of the first call counts for all that follow."
    );
    conforms!("ntifs/nf-ntifs-ntquerydirectoryfile.md", "With ReturnSingleEntry one entry is returned.");
    let setup = Setup::new();
    let folder = folder(&setup);
    let next = |pattern, restart| folder.query_directory(NAMES, 256, Some(pattern), restart, true);
    let name = |entry: Vec<u8>| entry[12];
    assert_eq!(next("*.txt", false).map(name), Ok(b'a'));
    assert_eq!(next("*.rom", false).map(name), Ok(b'b'), "the first pattern stays");
    assert_eq!(next("*.txt", false), Err(NtStatus::NO_MORE_FILES));
    assert_eq!(next("*.txt", true).map(name), Ok(b'a'), "from the start");
}

#[test]
fn a_listing_without_a_match_or_without_room_says_so() {
    conforms!(
        "ntifs/nf-ntifs-ntquerydirectoryfile.md",
        "An entry that does not fit is cut: its fixed part, as much of the name as fits, STATUS_BUFFER_OVERFLOW."
    );
    let setup = Setup::new();
    assert_eq!(folder(&setup).list("*.none"), Err(NtStatus::NO_SUCH_FILE));
    assert_eq!(folder(&setup).query_directory(NAMES, 14, Some("a*"), true, true), Err(NtStatus::BUFFER_OVERFLOW));
    assert_eq!(folder(&setup).query_directory(NAMES, 8, None, true, true), Err(NtStatus::INFO_LENGTH_MISMATCH));
    assert_eq!(folder(&setup).query_directory(99, 256, None, true, true), Err(NtStatus::INVALID_INFO_CLASS));
    assert_eq!(setup.open(BOOT).unwrap().list("*"), Err(NtStatus::INVALID_PARAMETER));
    assert_eq!(folder(&setup).list("*").unwrap(), [".", "..", "a.txt", "b.txt", "Boot.rom", "c.rom"]);
}

#[test]
fn all_classes_of_listings_have_their_names_where_their_pages_say() {
    conforms!(
        "ntifs/ns-ntifs-_file_both_dir_information.md",
        "FileNameLength at 60 and the name at 94 of FILE_BOTH_DIR_INFORMATION."
    );
    conforms!(
        "ntifs/ns-ntifs-_file_id_full_dir_information.md",
        "The file id at 72 and the name at 80 of FILE_ID_FULL_DIR_INFORMATION."
    );
    let setup = Setup::new();
    for (class, name, id) in [(1, 64, None), (2, 68, None), (3, 94, None), (37, 104, Some(96)), (38, 80, Some(72))] {
        let entry = folder(&setup).query_directory(class, 256, Some("c.rom"), true, true).unwrap();
        assert_eq!((entry[name], entry[60], entry.len()), (b'c', 10, name + 10), "{class}");
        if let Some(at) = id {
            let inode = std::os::unix::fs::MetadataExt::ino(
                &std::fs::metadata(setup.folder.path().join("Firmware/c.rom")).unwrap(),
            );
            assert_eq!(entry[at..at + 8], inode.to_le_bytes());
        }
    }
}

#[test]
fn locks_keep_others_out_and_let_their_owner_in() {
    conforms!("ntifs/nf-ntifs-zwlockfile.md", "STATUS_LOCK_NOT_GRANTED for a range that is taken.");
    conforms!("ntifs/nf-ntifs-zwunlockfile.md", "STATUS_RANGE_NOT_LOCKED for a range that is not locked so.");
    let setup = Setup::new();
    let mine = setup.with(BOOT, OpenOptions::new().write()).unwrap();
    let other = setup.with(BOOT, OpenOptions::new().write()).unwrap();
    mine.lock(0, 4, true, 1).unwrap();
    assert_eq!(other.lock(2, 4, false, 1), Err(NtStatus::LOCK_NOT_GRANTED));
    assert_eq!(other.read(3, 1), Err(NtStatus::FILE_LOCK_CONFLICT));
    assert_eq!(other.write(3, b"x"), Err(NtStatus::FILE_LOCK_CONFLICT));
    assert_eq!(other.read(4, 1), Ok(b"4".to_vec()));
    assert_eq!(mine.unlock(0, 3, 1), Err(NtStatus::RANGE_NOT_LOCKED));
    mine.unlock(0, 4, 1).unwrap();
    other.lock(2, 4, false, 1).unwrap();
    mine.lock(2, 4, false, 1).unwrap();
    assert_eq!(mine.write(3, b"x"), Err(NtStatus::FILE_LOCK_CONFLICT), "a shared lock is for readers");
}

#[test]
fn a_lock_that_waits_is_granted_when_its_range_is_free() {
    conforms!("ntifs/nf-ntifs-zwlockfile.md", "With FailImmediately FALSE the request waits for the lock.");
    let setup = Setup::new();
    let mine = setup.open(BOOT).unwrap();
    let other = setup.with(BOOT, OpenOptions::new().overlapped()).unwrap();
    mine.lock(0, 4, true, 0).unwrap();
    let waiting = other.lock_overlapped(0, 4, true, 0).unwrap();
    assert!(waiting.is_pending());
    drop(mine);
    assert!(waiting.wait(Duration::from_secs(1)).is_ok(), "the end of a handle frees its locks");
}

#[test]
fn a_waiting_lock_can_be_cancelled() {
    let setup = Setup::new();
    let mine = setup.open(BOOT).unwrap();
    let other = setup.with(BOOT, OpenOptions::new().overlapped()).unwrap();
    mine.lock(0, 4, true, 0).unwrap();
    let waiting = other.lock_overlapped(0, 4, true, 0).unwrap();
    waiting.cancel().unwrap();
    assert_eq!(waiting.wait(Duration::from_secs(1)), Err(NtStatus::CANCELLED));
}

#[test]
fn extended_attributes_come_with_a_create_and_are_checked() {
    conforms!(
        "ntifs/nf-ntifs-zwseteafile.md",
        "A list of extended attributes that does not hang together is STATUS_EA_LIST_INCONSISTENT."
    );
    let setup = Setup::new();
    let list = [&[0, 0, 0, 0, 0, 1, 1, 0][..], b"n\0v"].concat();
    let path = r"\??\C:\Firmware\ea.rom";
    let file = setup.process.create_file_with(path, &OpenOptions::new().write().create_new(), &list).unwrap();
    assert_eq!(&file.query_ea(64).unwrap()[8..], b"N\0v");
    assert_eq!(file.set_ea(&list[..10]), Err(NtStatus::EA_LIST_INCONSISTENT));
    let bad = [&[0, 0, 0, 0, 0, 1, 1, 0][..], b"*\0v"].concat();
    assert_eq!(file.set_ea(&bad), Err(NtStatus::INVALID_EA_NAME));
    let gone = [&[0, 0, 0, 0, 0, 1, 0, 0][..], b"n\0"].concat();
    file.set_ea(&gone).unwrap();
    assert_eq!(file.query_ea(64), Err(NtStatus::NO_EAS_ON_FILE), "an empty value removes");
}

#[test]
fn zeroing_a_range_does_not_make_the_file_longer() {
    let setup = Setup::new();
    let file = setup.with(BOOT, OpenOptions::new().write()).unwrap();
    let range: Vec<u8> = [4_i64, 100].iter().flat_map(|offset| offset.to_le_bytes()).collect();
    file.fs_control(0x0009_80C8, &range, 0).unwrap();
    assert_eq!(file.read(0, 20), Ok(b"0123\0\0\0\0\0\0".to_vec()));
}

#[test]
fn writes_to_the_end_and_at_the_current_offset() {
    let setup = Setup::new();
    let file = setup.with(BOOT, OpenOptions::new().write()).unwrap();
    file.write(-1, b"AB").unwrap();
    assert_eq!(file.read(10, 5), Ok(b"AB".to_vec()));
    file.read(0, 2).unwrap();
    assert_eq!(file.read(-2, 2), Ok(b"23".to_vec()));
}
