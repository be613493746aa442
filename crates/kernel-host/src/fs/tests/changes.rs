//! Deleting, renaming, linking: every documented way.

use super::*;
use crate::conformance::conforms;
use crate::fs::program_file::NewName;

const DELETE: u32 = 0x01;
const POSIX: u32 = 0x02;
const ON_CLOSE: u32 = 0x08;
const IGNORE_READONLY: u32 = 0x10;

fn make_read_only(setup: &Setup, name: &str) {
    let path = setup.folder.path().join(name);
    let mut mode = std::fs::metadata(&path).unwrap().permissions();
    mode.set_readonly(true);
    std::fs::set_permissions(&path, mode).unwrap();
}

#[test]
fn a_posix_delete_takes_the_name_at_once_and_leaves_the_data_to_others() {
    conforms!(
        "ntddk/ns-ntddk-_file_disposition_information_ex.md",
        "With FILE_DISPOSITION_POSIX_SEMANTICS the name goes when that handle is closed; other handles keep the data."
    );
    let setup = Setup::new();
    let other = setup.open(BOOT).unwrap();
    let file = setup.with(BOOT, OpenOptions::new().access(AccessMask::DELETE)).unwrap();
    file.set_disposition(DELETE | POSIX).unwrap();
    drop(file);
    assert!(!setup.folder.path().join("Firmware/Boot.rom").exists());
    assert_eq!(other.read(0, 4), Ok(b"0123".to_vec()));
}

#[test]
fn an_ordinary_delete_waits_for_the_last_handle() {
    conforms!(
        "ntddk/ns-ntddk-_file_disposition_information_ex.md",
        "Without POSIX semantics a file goes when all its handles are closed."
    );
    conforms!(
        "ntddk/ns-ntddk-_file_disposition_information_ex.md",
        "FILE_DISPOSITION_DO_NOT_DELETE takes the mark back."
    );
    let setup = Setup::new();
    let other = setup.open(BOOT).unwrap();
    let file = setup.with(BOOT, OpenOptions::new().access(AccessMask::DELETE)).unwrap();
    file.set_disposition(DELETE).unwrap();
    file.set_disposition(0).unwrap();
    file.set_disposition(DELETE).unwrap();
    drop(file);
    assert!(setup.folder.path().join("Firmware/Boot.rom").exists());
    drop(other);
    assert!(!setup.folder.path().join("Firmware/Boot.rom").exists());
}

#[test]
fn deleting_needs_the_right_and_a_file_that_can_go() {
    conforms!("ntddk/ns-ntddk-_file_disposition_information_ex.md", "The caller needs DELETE access.");
    conforms!(
        "ntddk/ns-ntddk-_file_disposition_information_ex.md",
        "STATUS_CANNOT_DELETE: the file is read-only, or there is a mapped view."
    );
    conforms!(
        "ntddk/ns-ntddk-_file_disposition_information_ex.md",
        "FILE_DISPOSITION_IGNORE_READONLY_ATTRIBUTE lets read-only files be deleted."
    );
    let setup = Setup::new();
    assert_eq!(setup.open(BOOT).unwrap().set_disposition(DELETE), Err(NtStatus::ACCESS_DENIED));
    let file = setup.with(BOOT, OpenOptions::new().write().delete()).unwrap();
    let view = file.map_writable().unwrap();
    assert_eq!(file.set_disposition(DELETE), Err(NtStatus::CANNOT_DELETE));
    drop((view, file));
    make_read_only(&setup, "Firmware/Boot.rom");
    let file = setup.with(BOOT, OpenOptions::new().access(AccessMask::DELETE)).unwrap();
    assert_eq!(file.set_disposition(DELETE), Err(NtStatus::CANNOT_DELETE));
    assert_eq!(file.set_disposition(DELETE | IGNORE_READONLY), Ok(()));
}

#[test]
fn delete_on_close_can_be_taken_back_by_the_handle_that_has_it() {
    conforms!(
        "ntddk/ns-ntddk-_file_disposition_information_ex.md",
        "FILE_DISPOSITION_ON_CLOSE sets or clears the on-close state."
    );
    let setup = Setup::new();
    let options = OpenOptions::new().access(AccessMask::DELETE);
    assert_eq!(setup.with(BOOT, options).unwrap().set_disposition(ON_CLOSE), Err(NtStatus::NOT_SUPPORTED));
    let file = setup.with(BOOT, options.delete_on_close()).unwrap();
    file.set_disposition(ON_CLOSE).unwrap();
    drop(file);
    assert!(setup.open(BOOT).is_ok(), "it was cleared");
    drop(setup.with(BOOT, options.delete_on_close()).unwrap());
    assert_eq!(setup.refused(BOOT), NtStatus::OBJECT_NAME_NOT_FOUND);
}

#[test]
fn a_folder_that_is_not_empty_stays() {
    let setup = Setup::new();
    let options = OpenOptions::new().access(AccessMask::DELETE).directory();
    let folder = setup.with(r"\??\C:\Firmware", options).unwrap();
    assert_eq!(folder.set_delete(true), Err(NtStatus::DIRECTORY_NOT_EMPTY));
}

#[test]
fn a_rename_replaces_only_when_told_to() {
    conforms!(
        "ntifs/ns-ntifs-_file_rename_information.md",
        "Without ReplaceIfExists a rename to a name that is taken fails."
    );
    conforms!("ntifs/ns-ntifs-_file_rename_information.md", "Renaming needs DELETE access.");
    conforms!(
        "ntifs/ns-ntifs-_file_rename_information.md",
        "A simple name renames within the folder, a full pathname moves the file."
    );
    let setup = Setup::new();
    std::fs::write(setup.folder.path().join("Firmware/Old.rom"), b"old").unwrap();
    std::fs::create_dir(setup.folder.path().join("Other")).unwrap();
    assert_eq!(setup.open(BOOT).unwrap().rename("New.rom", false), Err(NtStatus::ACCESS_DENIED));
    let file = setup.with(BOOT, OpenOptions::new().delete()).unwrap();
    assert_eq!(file.rename("old.ROM", false), Err(NtStatus::OBJECT_NAME_COLLISION));
    assert_eq!(file.rename("Old.rom", true), Ok(()));
    assert_eq!(file.rename(r"\??\C:\Other\There.rom", false), Ok(()));
    drop(file);
    assert_eq!(setup.open(r"\??\C:\Other\There.rom").unwrap().read(0, 3), Ok(b"012".to_vec()));
    assert_eq!(setup.refused(r"\??\C:\Firmware\Old.rom"), NtStatus::OBJECT_NAME_NOT_FOUND);
}

#[test]
fn a_posix_rename_replaces_what_is_open_and_read_only() {
    conforms!(
        "ntifs/ns-ntifs-_file_rename_information.md",
        "FILE_RENAME_POSIX_SEMANTICS replaces a file with open handles, which stay valid; new opens find the renamed file."
    );
    conforms!(
        "ntifs/ns-ntifs-_file_rename_information.md",
        "FILE_RENAME_IGNORE_READONLY_ATTRIBUTE replaces a read-only file."
    );
    let setup = Setup::new();
    std::fs::write(setup.folder.path().join("Firmware/Old.rom"), b"old").unwrap();
    let held = setup.open(r"\??\C:\Firmware\Old.rom").unwrap();
    let file = setup.with(BOOT, OpenOptions::new().delete()).unwrap();
    assert_eq!(file.rename("Old.rom", true), Err(NtStatus::ACCESS_DENIED), "it is open");
    make_read_only(&setup, "Firmware/Old.rom");
    let both = NewName::REPLACE.with(NewName::POSIX);
    assert_eq!(file.rename_with("Old.rom", both), Err(NtStatus::ACCESS_DENIED), "it is read-only");
    file.rename_with("Old.rom", both.with(NewName::IGNORE_READONLY)).unwrap();
    assert_eq!(held.read(0, 3), Ok(b"old".to_vec()));
    assert_eq!(setup.open(r"\??\C:\Firmware\Old.rom").unwrap().read(0, 3), Ok(b"012".to_vec()));
}

#[test]
fn a_rename_stays_on_its_volume() {
    let setup = Setup::new();
    let other = tempfile::tempdir().unwrap();
    crate::fs::mount(setup.machine.inner(), "D:", other.path()).unwrap();
    let file = setup.with(BOOT, OpenOptions::new().delete()).unwrap();
    assert_eq!(file.rename(r"\??\D:\x.rom", false), Err(NtStatus::NOT_SAME_DEVICE));
}

#[test]
fn a_stream_is_renamed_by_a_name_with_a_colon() {
    let setup = Setup::new();
    let options = OpenOptions::new().write().delete().create_new();
    let stream = setup.with(&format!("{BOOT}:one"), options).unwrap();
    stream.write(0, b"x").unwrap();
    stream.rename(":two", false).unwrap();
    drop(stream);
    assert_eq!(setup.refused(&format!("{BOOT}:one")), NtStatus::OBJECT_NAME_NOT_FOUND);
    assert_eq!(setup.open(&format!("{BOOT}:two")).unwrap().read(0, 1), Ok(b"x".to_vec()));
}

#[test]
fn a_hard_link_is_a_second_name_of_a_file_and_never_of_a_folder() {
    conforms!(
        "ntifs/ns-ntifs-_file_link_information.md",
        "Without FILE_LINK_REPLACE_IF_EXISTS a link to a name that is taken fails; with it the name is replaced."
    );
    let setup = Setup::new();
    std::fs::write(setup.folder.path().join("Firmware/Old.rom"), b"old").unwrap();
    let file = setup.open(BOOT).unwrap();
    assert_eq!(file.link("Old.rom"), Err(NtStatus::OBJECT_NAME_COLLISION));
    file.link_with("Old.rom", NewName::REPLACE).unwrap();
    assert_eq!(setup.open(r"\??\C:\Firmware\Old.rom").unwrap().read(0, 3), Ok(b"012".to_vec()));
    let folder = setup.with(r"\??\C:\Firmware", OpenOptions::new().directory()).unwrap();
    assert_eq!(folder.link("Again"), Err(NtStatus::FILE_IS_A_DIRECTORY));
}

#[test]
fn a_mapped_file_cannot_become_shorter() {
    let setup = Setup::new();
    let file = setup.with(BOOT, OpenOptions::new().write()).unwrap();
    let view = file.map_writable().unwrap();
    assert_eq!(file.set_length(2), Err(NtStatus::USER_MAPPED_FILE));
    drop(view);
    assert_eq!(file.set_length(2), Ok(()));
}
