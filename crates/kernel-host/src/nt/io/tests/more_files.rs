//! Opens with the I/O manager's options, locks, extended attributes, names with drive letters.

use nt_types::{FILE_OBJECT, HANDLE, IO_STATUS_BLOCK, NtStatus, OBJECT_ATTRIBUTES, ObjectFlags, UNICODE_STRING};

use crate::conformance::conforms;
use crate::ddi::Call;
use crate::ddi::testing::Bench;
use crate::finding::Rule;
use crate::machine::Machine;
use crate::nt::io::create_file::{io_create_file, io_create_file_specify_device_object_hint};
use crate::nt::io::dos_names::io_query_file_dos_device_name;
use crate::nt::io::loading::{zw_load_driver, zw_unload_driver};
use crate::nt::io::zw_file_more::{
    io_query_file_information, io_query_volume_information, zw_lock_file, zw_query_ea_file,
    zw_query_full_attributes_file, zw_set_ea_file, zw_unlock_file,
};
use crate::nt::raw::Raw;
use crate::nt::unicode;

/// `FILE_GENERIC_READ | FILE_GENERIC_WRITE`, and synchronous.
const ACCESS: u32 = 0x12_019F;
const SYNCHRONOUS: u32 = 0x20;

struct Setup {
    _folder: tempfile::TempDir,
    bench: Bench,
}

impl Setup {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), b"0123456789").unwrap();
        let bench = Bench::with(Machine::builder().volume("C:", folder.path()));
        Self { _folder: folder, bench }
    }

    fn object(&self, handle: HANDLE) -> Raw<FILE_OBJECT> {
        let inner = self.bench.machine().inner();
        Raw::at(inner.nt.system_process(inner).handles().entry(handle.addr()).unwrap().object.body())
    }
}

/// Runs `body` with the attributes of a path.
fn named<R>(path: &str, body: impl FnOnce(Raw<OBJECT_ATTRIBUTES>) -> R) -> R {
    let units: Vec<u16> = path.encode_utf16().collect();
    let mut name = UNICODE_STRING::from_utf16(&units).unwrap();
    let mut attributes = OBJECT_ATTRIBUTES::new(&raw mut name, ObjectFlags::KERNEL_HANDLE);
    body(Raw::of(&raw mut attributes))
}

/// `IoCreateFile` of the file.
fn open(share: u32, io_flags: u32, kind: i32) -> Result<HANDLE, NtStatus> {
    let (mut handle, mut block) = (0_usize, IO_STATUS_BLOCK::new(NtStatus::PENDING, 0));
    let (out, block) = (Raw::of(&raw mut handle), Raw::of(&raw mut block));
    let status = named(r"\??\C:\file", |attributes| {
        io_create_file(out, ACCESS, attributes, block, Raw::NULL, 0, share, 1, SYNCHRONOUS, 0, 0, kind, 0, io_flags)
    });
    status.ok().map(|()| std::ptr::without_provenance_mut(out.read()))
}

fn close(handle: HANDLE) {
    assert!(crate::nt::ob_exports::close(&Call::enter(), handle.addr(), nt_types::KERNEL_MODE).is_success());
}

#[test]
fn share_access_can_be_ignored_when_asked_to() {
    conforms!(
        "wdm/nf-wdm-iocreatefile.md",
        "IO_IGNORE_SHARE_ACCESS_CHECK opens a file whatever share modes others have it open with."
    );
    let setup = Setup::new();
    setup
        .bench
        .run(|| {
            let first = open(0, 0, 0).unwrap();
            assert_eq!(open(7, 0, 0), Err(NtStatus::SHARING_VIOLATION));
            let second = open(7, 0x800, 0).unwrap();
            close(second);
            close(first);
        })
        .unwrap();
}

#[test]
fn a_pipe_is_not_for_drivers_and_a_hint_is_said_to_be_missing() {
    conforms!("ntddk/nf-ntddk-iocreatefileex.md", "Drivers must set CreateFileType to CreateFileTypeNone.");
    assert_eq!(Setup::new().bench.run(|| open(0, 0, 1)).unwrap_err().0.rule, Rule::BadArgument);
    let hinted = Setup::new().bench.run(|| {
        let null = Raw::NULL;
        io_create_file_specify_device_object_hint(
            Raw::NULL,
            0,
            Raw::NULL,
            Raw::NULL,
            null,
            0,
            0,
            1,
            0,
            0,
            0,
            0,
            0,
            0,
            0x1234,
        )
    });
    assert_eq!(hinted.unwrap_err().0.rule, Rule::NotImplemented);
}

#[test]
fn a_locked_range_is_the_locker_s_until_it_is_unlocked() {
    conforms!(
        "ntifs/nf-ntifs-zwlockfile.md",
        "A lock that cannot be had at once is STATUS_LOCK_NOT_GRANTED if it is to fail."
    );
    conforms!("ntifs/nf-ntifs-zwunlockfile.md", "A range that is not locked is STATUS_RANGE_NOT_LOCKED.");
    let setup = Setup::new();
    setup
        .bench
        .run(|| {
            let (one, two) = (open(7, 0, 0).unwrap(), open(7, 0, 0).unwrap());
            let mut block = IO_STATUS_BLOCK::new(NtStatus::PENDING, 0);
            let (mut offset, mut length) = (2_i64, 4_i64);
            let (block, offset, length) = (Raw::of(&raw mut block), Raw::of(&raw mut offset), Raw::of(&raw mut length));
            let lock = |file| zw_lock_file(file, std::ptr::null_mut(), 0, 0, block, offset, length, 0, 1, 1);
            assert_eq!(lock(one), NtStatus::SUCCESS);
            assert_eq!(lock(two), NtStatus::LOCK_NOT_GRANTED);
            assert_eq!(zw_unlock_file(two, block, offset, length, 0), NtStatus::RANGE_NOT_LOCKED);
            assert_eq!(zw_unlock_file(one, block, offset, length, 0), NtStatus::SUCCESS);
            assert_eq!(lock(two), NtStatus::SUCCESS);
            close(two);
            close(one);
        })
        .unwrap();
}

#[test]
fn extended_attributes_are_set_and_read_back() {
    conforms!("ntifs/nf-ntifs-zwqueryeafile.md", "A file without extended attributes is STATUS_NO_EAS_ON_FILE.");
    conforms!("ntifs/nf-ntifs-zwseteafile.md", "The buffer has FILE_FULL_EA_INFORMATION entries.");
    let setup = Setup::new();
    setup
        .bench
        .run(|| {
            let file = open(7, 0, 0).unwrap();
            let mut block = IO_STATUS_BLOCK::new(NtStatus::PENDING, 0);
            let block = Raw::of(&raw mut block);
            let mut buffer = [0_u64; 8];
            let at = Raw::of(buffer.as_mut_ptr().cast::<u8>());
            let query = || zw_query_ea_file(file, block, at.address(), 64, 0, 0, 0, Raw::NULL, 1);
            assert_eq!(query(), NtStatus::NO_EAS_ON_FILE);
            let mut list = [&[0, 0, 0, 0, 0, 2, 3, 0][..], b"AB\0xyz"].concat();
            let from = list.as_mut_ptr().expose_provenance();
            assert_eq!(zw_set_ea_file(file, block, from, list.len() as u32), NtStatus::SUCCESS);
            assert_eq!(query(), NtStatus::SUCCESS);
            assert_eq!(at.read_bytes(list.len()), list);
            close(file);
        })
        .unwrap();
}

#[test]
fn attributes_are_asked_for_by_name_and_information_by_object() {
    conforms!(
        "wdm/nf-wdm-zwqueryfullattributesfile.md",
        "The FILE_NETWORK_OPEN_INFORMATION of the named file is returned."
    );
    conforms!("ntifs/nf-ntifs-ioqueryfileinformation.md", "The length of what was written is returned.");
    let setup = Setup::new();
    setup
        .bench
        .run(|| {
            let mut answer = [0_u64; 64];
            let at = Raw::of(answer.as_mut_ptr().cast::<u8>());
            let query = |path| named(path, |attributes| zw_query_full_attributes_file(attributes, at));
            assert_eq!(query(r"\??\C:\none"), NtStatus::OBJECT_NAME_NOT_FOUND);
            assert_eq!(query(r"\??\C:\file"), NtStatus::SUCCESS);
            // EndOfFile.
            assert_eq!(at.cast::<u64>().index(5).read(), 10);
            let handle = open(7, 0, 0).unwrap();
            let (file, mut length) = (setup.object(handle), 0_u32);
            let returned = Raw::of(&raw mut length);
            assert_eq!(io_query_file_information(file, 5, 24, at, returned), NtStatus::SUCCESS);
            assert_eq!((returned.read(), at.cast::<u64>().index(1).read()), (24, 10));
            // FileFsDeviceInformation.
            assert_eq!(io_query_volume_information(file, 4, 8, at, returned), NtStatus::SUCCESS);
            assert_eq!(returned.read(), 8);
            close(handle);
        })
        .unwrap();
}

#[test]
fn a_name_with_its_drive_letter_is_the_caller_s_to_free() {
    conforms!(
        "ntifs/nf-ntifs-ioqueryfiledosdevicename.md",
        "The name begins with the drive letter; the caller frees the structure."
    );
    let setup = Setup::new();
    setup
        .bench
        .run(|| {
            let handle = open(7, 0, 0).unwrap();
            let mut name = 0_usize;
            let out = Raw::of(&raw mut name);
            assert_eq!(io_query_file_dos_device_name(setup.object(handle), out), NtStatus::SUCCESS);
            assert_eq!(unicode::name(Raw::at(out.read())).as_deref(), Ok(r"C:\file"));
            let call = Call::enter();
            let pool = call.machine().nt.pool();
            pool.free(&call, out.read(), 0);
            close(handle);
        })
        .unwrap();
}

#[test]
fn a_driver_is_loaded_by_its_service_s_key() {
    conforms!("wdm/nf-wdm-zwloaddriver.md", "The name is the path of the driver's service key.");
    Setup::new()
        .bench
        .run(|| {
            let both = |path: &str| {
                let units: Vec<u16> = path.encode_utf16().collect();
                let mut name = UNICODE_STRING::from_utf16(&units).unwrap();
                let name = Raw::of(&raw mut name);
                [zw_load_driver(name), zw_unload_driver(name)]
            };
            assert_eq!(both(r"\Device\Nobody"), [NtStatus::OBJECT_NAME_INVALID; 2]);
            let missing = both(r"\Registry\Machine\System\CurrentControlSet\Services\Nobody");
            assert_eq!(missing, [NtStatus::OBJECT_NAME_NOT_FOUND; 2]);
        })
        .unwrap();
}
