//! Files as programs see them, on a real folder. One test for each rule.

use std::os::unix::fs::symlink;
use std::sync::Arc;

use nt_types::{AccessMask, NtStatus};

use super::access::Audience;
use super::options::{disposition, option};
use super::program::OpenOptions;
use super::program_file::ProgramFile;
use crate::conformance::conforms;
use crate::machine::Machine;
use crate::process::Process;

mod changes;
mod requests;

/// A machine on a temporary folder, and a program.
struct Setup {
    folder: tempfile::TempDir,
    machine: Machine,
    process: Arc<Process>,
}

impl Setup {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("Firmware")).unwrap();
        std::fs::write(folder.path().join("Firmware/Boot.rom"), b"0123456789").unwrap();
        let machine = Machine::builder().volume("C:", folder.path()).build().unwrap();
        let process = machine.process("test.exe").start().unwrap();
        Self { folder, machine, process }
    }

    fn open(&self, path: &str) -> Result<ProgramFile, NtStatus> {
        self.process.create_file(path, &OpenOptions::new())
    }

    fn with(&self, path: &str, options: OpenOptions) -> Result<ProgramFile, NtStatus> {
        self.process.create_file(path, &options)
    }

    fn refused(&self, path: &str) -> NtStatus {
        self.open(path).map(|_| ()).unwrap_err()
    }
}

const BOOT: &str = r"\??\C:\Firmware\Boot.rom";

#[test]
fn all_names_of_a_volume_lead_to_the_same_file() {
    let setup = Setup::new();
    let guid = setup.machine.inner().fs.volumes()[0].volume.guid_name();
    let device = r"\Device\HarddiskVolume1\Firmware\Boot.rom";
    for name in [BOOT, device, &format!(r"{guid}\Firmware\Boot.rom"), r"\DosDevices\C:\firmware\BOOT.ROM"] {
        let file = setup.open(name).unwrap();
        assert_eq!(file.read(0, 4), Ok(b"0123".to_vec()), "{name}");
    }
}

#[test]
fn system_root_is_the_windows_folder_of_the_first_volume() {
    let setup = Setup::new();
    std::fs::create_dir(setup.folder.path().join("Windows")).unwrap();
    std::fs::write(setup.folder.path().join("Windows/x.bin"), b"x").unwrap();
    assert!(setup.open(r"\SystemRoot\x.bin").is_ok());
}

#[test]
fn a_missing_last_name_and_a_missing_folder_have_their_own_statuses() {
    let setup = Setup::new();
    assert_eq!(setup.refused(r"\??\C:\Firmware\no.rom"), NtStatus::OBJECT_NAME_NOT_FOUND);
    assert_eq!(setup.refused(r"\??\C:\No\Boot.rom"), NtStatus::OBJECT_PATH_NOT_FOUND);
    assert_eq!(setup.refused(r"\??\C:\Firmware\Boot.rom\x"), NtStatus::OBJECT_PATH_NOT_FOUND);
    assert_eq!(setup.refused(r"\??\Q:\x"), NtStatus::OBJECT_PATH_NOT_FOUND);
}

#[test]
fn dotted_names_do_not_leave_the_folder() {
    let setup = Setup::new();
    // Beside the volume's folder, under a name that no other run of the tests uses.
    let mut outside = setup.folder.path().to_owned();
    let name = format!("{}-outside", outside.file_name().and_then(std::ffi::OsStr::to_str).unwrap());
    outside.set_file_name(&name);
    std::fs::write(&outside, b"x").unwrap();
    assert_eq!(setup.refused(&format!(r"\??\C:\..\{name}")), NtStatus::OBJECT_NAME_INVALID);
    assert_eq!(setup.refused(&format!(r"\??\C:\Firmware\..\..\{name}")), NtStatus::OBJECT_NAME_INVALID);
    std::fs::remove_file(outside).unwrap();
}

#[test]
fn a_host_link_is_a_reparse_point_that_cannot_leave_the_volume() {
    let setup = Setup::new();
    let firmware = setup.folder.path().join("Firmware");
    symlink("Boot.rom", firmware.join("near")).unwrap();
    symlink("/etc/passwd", firmware.join("absolute")).unwrap();
    symlink("../../etc/passwd", firmware.join("up")).unwrap();
    symlink("loop", firmware.join("loop")).unwrap();
    assert_eq!(setup.open(r"\??\C:\Firmware\near").unwrap().read(0, 2), Ok(b"01".to_vec()));
    assert_eq!(setup.refused(r"\??\C:\Firmware\absolute"), NtStatus::OBJECT_PATH_NOT_FOUND);
    assert_eq!(setup.refused(r"\??\C:\Firmware\up"), NtStatus::IO_REPARSE_DATA_INVALID);
    assert_eq!(setup.refused(r"\??\C:\Firmware\loop"), NtStatus::OBJECT_NAME_NOT_FOUND);
    let itself =
        setup.with(r"\??\C:\Firmware\absolute", OpenOptions::new().options(option::OPEN_REPARSE_POINT)).unwrap();
    let tag = itself.query(super::information::class::ATTRIBUTE_TAG, 8).unwrap();
    assert_ne!(u32::from_le_bytes(tag[..4].try_into().unwrap()) & super::information::REPARSE_POINT, 0);
    assert_eq!(tag[4..], 0xA000_000Cu32.to_le_bytes());
    assert_eq!(itself.read(0, 4), Err(NtStatus::INVALID_DEVICE_REQUEST));
}

#[test]
fn directories_and_files_are_told_apart_by_the_options() {
    conforms!(
        "ntifs/nf-ntifs-ntcreatefile.md",
        "FILE_DIRECTORY_FILE wants a directory, FILE_NON_DIRECTORY_FILE wants none."
    );
    let setup = Setup::new();
    let directory = OpenOptions::new().options(option::DIRECTORY_FILE);
    let file = OpenOptions::new().options(option::NON_DIRECTORY_FILE);
    assert_eq!(setup.with(BOOT, directory).map(|_| ()), Err(NtStatus::NOT_A_DIRECTORY));
    assert_eq!(setup.with(r"\??\C:\Firmware", file).map(|_| ()), Err(NtStatus::FILE_IS_A_DIRECTORY));
    assert!(setup.with(r"\??\C:\Firmware\", directory).is_ok());
    assert!(setup.with(r"\??\C:\", directory).is_ok());
    assert_eq!(setup.refused(r"\??\C:\Firmware\Boot.rom\"), NtStatus::OBJECT_NAME_INVALID);
}

#[test]
fn dispositions_do_what_their_names_say() {
    conforms!(
        "ntifs/nf-ntifs-ntcreatefile.md",
        "CreateDisposition says what happens when the file is there and when it is not; Information says what happened."
    );
    let setup = Setup::new();
    let with = |disposition| OpenOptions::new().write().disposition(disposition);
    assert_eq!(setup.with(BOOT, with(disposition::CREATE)).map(|_| ()), Err(NtStatus::OBJECT_NAME_COLLISION));
    let new = r"\??\C:\Firmware\new.rom";
    assert_eq!(setup.with(new, with(disposition::OVERWRITE)).map(|_| ()), Err(NtStatus::OBJECT_NAME_NOT_FOUND));
    assert_eq!(setup.with(new, with(disposition::CREATE)).unwrap().write(0, b"abc"), Ok(3));
    assert_eq!(setup.with(new, with(disposition::OPEN_IF)).unwrap().read(0, 9), Ok(b"abc".to_vec()));
    assert_eq!(setup.with(new, with(disposition::OVERWRITE_IF)).unwrap().read(0, 9), Err(NtStatus::END_OF_FILE));
}

#[test]
fn a_reader_without_write_sharing_keeps_writers_out_until_it_closes() {
    conforms!("ntifs/nf-ntifs-ntcreatefile.md", "ShareAccess says what others may open the file for.");
    let setup = Setup::new();
    let held = setup.with(BOOT, OpenOptions::new().share(1)).unwrap();
    let write = OpenOptions::new().write();
    assert_eq!(setup.with(BOOT, write).map(|_| ()), Err(NtStatus::SHARING_VIOLATION));
    drop(held);
    let writer = setup.with(BOOT, write).unwrap();
    assert_eq!(setup.with(BOOT, OpenOptions::new().share(1)).map(|_| ()), Err(NtStatus::SHARING_VIOLATION));
    drop(writer);
}

#[test]
fn hard_links_share_their_share_counts() {
    let setup = Setup::new();
    let held = setup.with(BOOT, OpenOptions::new().share(1)).unwrap();
    held.link("second.rom").unwrap();
    let second = setup.with(r"\??\C:\Firmware\second.rom", OpenOptions::new().write());
    assert_eq!(second.map(|_| ()), Err(NtStatus::SHARING_VIOLATION));
}

#[test]
fn each_hard_link_has_its_own_name_and_is_deleted_alone() {
    let setup = Setup::new();
    let first = setup.open(BOOT).unwrap();
    first.link("second.rom").unwrap();
    let delete = OpenOptions::new().access(AccessMask::DELETE);
    let second = setup.with(r"\??\C:\Firmware\SECOND.rom", delete).unwrap();
    let name = second.query(super::information::class::NAME, 100).unwrap();
    assert_eq!(name[4..], crate::nt::unicode::bytes_of(r"\Firmware\second.rom"));
    second.set_delete(true).unwrap();
    drop((first, second));
    assert!(setup.folder.path().join("Firmware/Boot.rom").exists());
    assert!(!setup.folder.path().join("Firmware/second.rom").exists());
}

#[test]
fn reads_are_short_at_the_end_and_fail_behind_it() {
    let setup = Setup::new();
    let file = setup.open(BOOT).unwrap();
    assert_eq!(file.read(8, 100), Ok(b"89".to_vec()));
    assert_eq!(file.read(10, 1), Err(NtStatus::END_OF_FILE));
    assert_eq!(file.read(11, 1), Err(NtStatus::END_OF_FILE));
    assert_eq!(file.read(10, 0), Ok(Vec::new()));
    assert_eq!(file.read(-1, 1), Err(NtStatus::INVALID_PARAMETER));
}

#[test]
fn an_absent_stream_is_not_found_and_the_default_one_has_a_second_name() {
    let setup = Setup::new();
    assert_eq!(setup.refused(r"\??\C:\Firmware\Boot.rom:s"), NtStatus::OBJECT_NAME_NOT_FOUND);
    assert!(setup.open(r"\??\C:\Firmware\Boot.rom::$DATA").is_ok());
    let create = OpenOptions::new().write().disposition(disposition::CREATE);
    let stream = setup.with(r"\??\C:\Firmware\Boot.rom:s", create).unwrap();
    assert_eq!(stream.write(0, b"hidden"), Ok(6));
    assert_eq!(setup.open(r"\??\C:\Firmware\Boot.rom:S:$DATA").unwrap().read(0, 9), Ok(b"hidden".to_vec()));
    assert_eq!(setup.open(BOOT).unwrap().read(0, 2), Ok(b"01".to_vec()));
}

#[test]
fn a_file_marked_for_deletion_goes_with_its_last_handle() {
    let setup = Setup::new();
    let first = setup.with(BOOT, OpenOptions::new().access(AccessMask::DELETE)).unwrap();
    let second = setup.open(BOOT).unwrap();
    first.set_delete(true).unwrap();
    assert_eq!(setup.refused(BOOT), NtStatus::DELETE_PENDING);
    drop(first);
    assert_eq!(second.read(0, 1), Ok(b"0".to_vec()), "an open file lives on");
    drop(second);
    assert_eq!(setup.refused(BOOT), NtStatus::OBJECT_NAME_NOT_FOUND);
}

#[test]
fn a_read_only_file_cannot_be_opened_for_writing_nor_deleted() {
    let setup = Setup::new();
    let path = setup.folder.path().join("Firmware/Boot.rom");
    let mut mode = std::fs::metadata(&path).unwrap().permissions();
    mode.set_readonly(true);
    std::fs::set_permissions(&path, mode).unwrap();
    assert_eq!(setup.with(BOOT, OpenOptions::new().write()).map(|_| ()), Err(NtStatus::ACCESS_DENIED));
    let delete = setup.with(BOOT, OpenOptions::new().access(AccessMask::DELETE)).unwrap();
    assert_eq!(delete.set_delete(true), Err(NtStatus::CANNOT_DELETE));
}

#[test]
fn a_plain_user_is_kept_out_of_a_file_for_administrators() {
    let setup = Setup::new();
    let user = setup.machine.process("user.exe").plain_user().start().unwrap();
    assert!(user.create_file(BOOT, &OpenOptions::new()).is_ok());
    setup.machine.set_audience(BOOT, Audience::Administrators).unwrap();
    let denied = user.create_file(BOOT, &OpenOptions::new());
    assert_eq!(denied.map(|_| ()), Err(NtStatus::ACCESS_DENIED));
    assert!(setup.open(BOOT).is_ok(), "administrators are not affected");
}

#[test]
fn a_writable_view_outlives_its_handle() {
    conforms!(
        "ntifs/nf-ntifs-mmdoesfilehaveuserwritablereferences.md",
        "Writable sections and views count after their handles are closed."
    );
    let setup = Setup::new();
    let file = setup.with(BOOT, OpenOptions::new().write()).unwrap();
    let view = file.map_writable().unwrap();
    drop(file);
    let reader = setup.with(BOOT, OpenOptions::new().share(1)).expect("no handle is in the way");
    let (_, open) = super::io::opened(&reader_object(&setup, &reader)).unwrap();
    let sections = (&raw const open.stream.sections.0).addr();
    assert_eq!(setup.machine.inner().fs.writable_references(sections), Some(1));
    view.store(0, b"X").unwrap();
    assert_eq!(reader.read(0, 2), Ok(b"X1".to_vec()));
    drop(view);
    assert_eq!(setup.machine.inner().fs.writable_references(sections), Some(0));
}

fn reader_object(setup: &Setup, file: &ProgramFile) -> crate::nt::ob::ObjectRef {
    setup.process.handles().entry(file.handle()).unwrap().object
}

#[test]
fn identity_survives_a_rename_and_names_the_volume() {
    let setup = Setup::new();
    let file =
        setup.with(BOOT, OpenOptions::new().access(AccessMask::DELETE | AccessMask::FILE_READ_ATTRIBUTES)).unwrap();
    let before = file.query(super::information::class::ID, 24).unwrap();
    file.rename("Other.rom", false).unwrap();
    assert_eq!(file.query(super::information::class::ID, 24).unwrap(), before);
    let name = file.query(super::information::class::NAME, 100).unwrap();
    let units: Vec<u16> = name[4..].chunks(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    assert_eq!(String::from_utf16(&units).unwrap(), r"\Firmware\Other.rom");
    assert_eq!(setup.refused(BOOT), NtStatus::OBJECT_NAME_NOT_FOUND);
}

#[test]
fn standard_information_has_size_links_and_kind() {
    let setup = Setup::new();
    let file = setup.open(BOOT).unwrap();
    let bytes = file.query(super::information::class::STANDARD, 24).unwrap();
    assert_eq!(bytes[8..16], 10u64.to_le_bytes());
    assert_eq!((bytes[16], bytes[20], bytes[21]), (1, 0, 0));
    assert_eq!(file.query(super::information::class::STANDARD, 23), Err(NtStatus::INFO_LENGTH_MISMATCH));
    assert_eq!(file.query(0xFFFF, 24), Err(NtStatus::INVALID_INFO_CLASS));
}

#[test]
fn a_name_that_does_not_fit_is_cut_with_a_warning() {
    let setup = Setup::new();
    let file = setup.open(BOOT).unwrap();
    assert_eq!(file.query(super::information::class::NAME, 10), Err(NtStatus::BUFFER_OVERFLOW));
    assert_eq!(file.query(super::information::class::NAME, 7), Err(NtStatus::INFO_LENGTH_MISMATCH));
}

#[test]
fn option_combinations_that_the_io_manager_forbids_are_refused() {
    conforms!("ntifs/nf-ntifs-ntcreatefile.md", "Options that exclude one another are STATUS_INVALID_PARAMETER.");
    let setup = Setup::new();
    let both = OpenOptions::new().options(option::DIRECTORY_FILE | option::NON_DIRECTORY_FILE);
    assert_eq!(setup.with(BOOT, both).map(|_| ()), Err(NtStatus::INVALID_PARAMETER));
    let delete = OpenOptions::new().options(option::DELETE_ON_CLOSE);
    assert_eq!(setup.with(BOOT, delete).map(|_| ()), Err(NtStatus::INVALID_PARAMETER));
    assert_eq!(setup.with(BOOT, OpenOptions::new().share(8)).map(|_| ()), Err(NtStatus::INVALID_PARAMETER));
    assert_eq!(setup.with(BOOT, OpenOptions::new().disposition(6)).map(|_| ()), Err(NtStatus::INVALID_PARAMETER));
}

#[test]
fn the_end_of_a_process_closes_its_files() {
    let setup = Setup::new();
    let file = setup.with(BOOT, OpenOptions::new().write().share(0)).unwrap();
    assert_eq!(setup.machine.inner().nt.objects().count("File"), 1);
    crate::thread::Thread::enter(setup.machine.inner(), |_| setup.process.exit());
    assert_eq!(setup.machine.inner().nt.objects().count("File"), 0);
    drop(file);
    let other = setup.machine.process("other.exe").start().unwrap();
    assert!(other.create_file(BOOT, &OpenOptions::new().write().share(0)).is_ok());
}
