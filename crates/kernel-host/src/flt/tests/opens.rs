//! Opens that a filter makes in the less usual ways, and what it asks of the files that it opened.

use super::files::{Create, Opened};
use super::operations::{BOOT, Rig};
use super::*;
use crate::conformance::conforms;
use crate::fs::io::open_at;

/// FILE_DIRECTORY_FILE and FILE_SYNCHRONOUS_IO_NONALERT.
const FOLDER: u32 = 0x21;

/// OWNER_SECURITY_INFORMATION and DACL_SECURITY_INFORMATION.
const OWNER: u32 = 1;
const DACL: u32 = 4;

fn opened(rig: &Rig, create: &Create<'_>) -> Opened {
    let opened = create.run(&rig.setup, rig.filter, rig.instance).unwrap();
    assert_eq!(opened.status, NtStatus::SUCCESS);
    opened
}

fn everything() -> AccessMask {
    AccessMask::from_bits_retain(0x001F_01FF)
}

/// Address of a local that an export writes.
fn at<T>(value: &mut T) -> usize {
    (&raw mut *value).expose_provenance()
}

#[test]
fn the_status_block_says_what_a_create_did() {
    conforms!(
        "ntddk/nf-ntddk-iocreatefileex.md",
        "IoStatusBlock.Information is FILE_OPENED, FILE_CREATED, FILE_OVERWRITTEN or FILE_SUPERSEDED."
    );
    let rig = Rig::new(&[]);
    let name = wide(r"\??\C:\new.rom");
    for (disposition, information) in [(2, 2), (1, 1), (3, 1), (4, 3), (5, 3), (0, 0)] {
        let made = opened(&rig, &Create { disposition, access: everything(), ..Create::new(&name) });
        assert_eq!(made.information, information, "{disposition}");
        made.release(&rig.setup);
    }
}

#[test]
fn a_file_is_opened_by_its_id() {
    conforms!(
        "ntddk/nf-ntddk-iocreatefileex.md",
        "FILE_OPEN_BY_FILE_ID: the name is a file id, relative to an open file of the volume."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatefileex.md",
        "An id that no file of the volume has is STATUS_INVALID_PARAMETER."
    );
    let rig = Rig::new(&[]);
    std::fs::create_dir(rig.setup.folder.path().join("Deep")).unwrap();
    let path = rig.setup.folder.path().join("Deep/hidden.rom");
    std::fs::write(&path, b"deep").unwrap();
    let inode = std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&path).unwrap());
    let name = wide(r"\??\C:\");
    let root = opened(&rig, &Create { options: FOLDER, ..Create::new(&name) });
    let id: Vec<u16> = (0..4).map(|part| (inode >> (16 * part)) as u16).collect();
    let by_id = |id| Create { root: root.handle, options: 0x2060, ..Create::new(id) };
    let file = opened(&rig, &by_id(&id));
    let open = open_at(rig.setup.bench.machine().inner(), file.object).unwrap();
    assert_eq!(String::from_utf16_lossy(&open.name()), r"\Deep\hidden.rom");
    drop(open);
    file.release(&rig.setup);
    let none = by_id(&[1, 2, 3, 4]).run(&rig.setup, rig.filter, rig.instance).unwrap();
    assert_eq!(none.status, NtStatus::INVALID_PARAMETER);
    root.release(&rig.setup);
}

#[test]
fn extended_attributes_and_streams_can_be_created() {
    conforms!("fltkernel/nf-fltkernel-fltcreatefileex.md", "EaBuffer has extended attributes for the new file.");
    conforms!("fltkernel/nf-fltkernel-fltqueryeafile.md", "FltQueryEaFile returns entries and their length.");
    conforms!("fltkernel/nf-fltkernel-fltseteafile.md", "FltSetEaFile adds to the file's extended attributes.");
    let rig = Rig::new(&[]);
    let list = [&[0, 0, 0, 0, 0, 1, 1, 0][..], b"k\0v"].concat();
    let name = wide(r"\??\C:\new.rom");
    let made = opened(&rig, &Create { disposition: 2, access: everything(), ea: &list, ..Create::new(&name) });
    let (mut buffer, mut count) = ([0_u8; 64], 0_u32);
    let (buffer_at, count_at) = (at(&mut buffer), at(&mut count));
    let query = ddi!(FltQueryEaFile: fn(usize, usize, usize, u32, u8, usize, u32, usize, u8, usize) -> NtStatus);
    let (instance, object) = (rig.instance, made.object);
    let ask = || rig.run(|| query(instance, object, buffer_at, 64, 0, 0, 0, 0, 1, count_at));
    assert_eq!((ask(), Raw::<u32>::at(count_at).read()), (Ok(NtStatus::SUCCESS), 11));
    assert_eq!(Raw::<u8>::at(buffer_at + 8).read_bytes(3), b"K\0v");
    let more = [&[0, 0, 0, 0, 0, 1, 2, 0][..], b"L\0vw"].concat();
    let set = ddi!(FltSetEaFile: fn(usize, usize, usize, u32) -> NtStatus);
    assert_eq!(
        rig.run(|| set(instance, object, more.as_ptr().expose_provenance(), more.len() as u32)),
        Ok(NtStatus::SUCCESS)
    );
    assert_eq!((ask(), Raw::<u32>::at(count_at).read()), (Ok(NtStatus::SUCCESS), 12 + 12));
    made.release(&rig.setup);
    let name = wide(r"\??\C:\new.rom:s");
    let stream = opened(&rig, &Create { disposition: 2, access: everything(), ..Create::new(&name) });
    assert_eq!(stream.information, 2, "FILE_CREATED");
    stream.release(&rig.setup);
}

#[test]
fn a_filter_lists_a_folder_below_itself() {
    conforms!(
        "fltkernel/nf-fltkernel-fltquerydirectoryfile.md",
        "With ReturnSingleEntry one entry is returned, and the scan goes on behind it."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltquerydirectoryfile.md",
        "The last call returns STATUS_NO_MORE_FILES, and RestartScan begins anew."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltquerydirectoryfile.md",
        "When no entry matches FileName, the first call returns STATUS_NO_SUCH_FILE."
    );
    let rig = Rig::new(&[0x0C]);
    rig.pre(|_| panic!("a filter's own requests start below it"));
    let name = wide(r"\??\C:\");
    let (mut buffer, mut count) = ([0_u64; 16], 0_u32);
    let (buffer_at, count_at, instance) = (at(&mut buffer), at(&mut count), rig.instance);
    let list = ddi!(FltQueryDirectoryFile: fn(usize, usize, usize, u32, u32, u8, usize, u8, usize) -> NtStatus);
    let ask = |object, pattern, restart| {
        rig.run(|| list(instance, object, buffer_at, 128, 12, 1, pattern, restart, count_at))
    };
    let folder = opened(&rig, &Create { options: FOLDER, ..Create::new(&name) });
    assert_eq!(ask(folder.object, 0, 0), Ok(NtStatus::SUCCESS));
    assert_eq!(Raw::<u32>::at(count_at).read(), 12 + 16);
    assert_eq!(String::from_utf16_lossy(&Raw::<u16>::at(buffer_at + 12).read_slice(8)), "boot.rom");
    assert_eq!(ask(folder.object, 0, 0), Ok(NtStatus::NO_MORE_FILES));
    assert_eq!(ask(folder.object, 0, 1), Ok(NtStatus::SUCCESS));
    folder.release(&rig.setup);
    let folder = opened(&rig, &Create { options: FOLDER, ..Create::new(&name) });
    with_name("*.bin", |pattern| assert_eq!(ask(folder.object, pattern, 0), Ok(NtStatus::NO_SUCH_FILE)));
    folder.release(&rig.setup);
}

#[test]
fn a_filter_sends_control_codes_below_itself() {
    conforms!(
        "fltkernel/nf-fltkernel-fltfscontrolfile.md",
        "FltFsControlFile sends a control code below the instance, and LengthReturned says how much came back."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltqueryvolumeinformationfile.md",
        "FltQueryVolumeInformationFile answers about the file's volume."
    );
    let rig = Rig::new(&[0x0D, 0x0A, 0x09]);
    rig.pre(|_| panic!("a filter's own requests start below it"));
    let name = wide(BOOT);
    let file = opened(&rig, &Create { access: everything(), ..Create::new(&name) });
    let (mut buffer, mut count) = ([0xFF_u8; 64], 0_u32);
    let (buffer_at, count_at, instance, object) = (at(&mut buffer), at(&mut count), rig.instance, file.object);
    let control = ddi!(FltFsControlFile: fn(usize, usize, u32, usize, u32, usize, u32, usize) -> NtStatus);
    let get_compression = 0x0009_003C;
    let ask = |length| rig.run(|| control(instance, object, get_compression, 0, 0, buffer_at, length, count_at));
    assert_eq!(ask(2), Ok(NtStatus::SUCCESS));
    assert_eq!((Raw::<u32>::at(count_at).read(), Raw::<u16>::at(buffer_at).read()), (2, 0));
    assert_eq!(ask(1), Ok(NtStatus::BUFFER_TOO_SMALL));
    let volume = ddi!(FltQueryVolumeInformationFile: fn(usize, usize, usize, u32, u32, usize) -> NtStatus);
    assert_eq!(rig.run(|| volume(instance, object, buffer_at, 8, 4, count_at)), Ok(NtStatus::SUCCESS));
    assert_eq!(Raw::<u32>::at(buffer_at).read(), 7, "FILE_DEVICE_DISK");
    let flush = ddi!(FltFlushBuffers: fn(usize, usize) -> NtStatus);
    assert_eq!(rig.run(|| flush(instance, object)), Ok(NtStatus::SUCCESS));
    file.release(&rig.setup);
}

#[test]
fn security_is_returned_with_the_length_that_it_takes() {
    conforms!(
        "fltkernel/nf-fltkernel-fltquerysecurityobject.md",
        "Too small a buffer is STATUS_BUFFER_TOO_SMALL, and LengthNeeded says how much it takes."
    );
    conforms!("fltkernel/nf-fltkernel-fltquerysecurityobject.md", "The system ACL needs ACCESS_SYSTEM_SECURITY.");
    let rig = Rig::new(&[]);
    let name = wide(BOOT);
    let file = opened(&rig, &Create { access: everything(), ..Create::new(&name) });
    let query = ddi!(FltQuerySecurityObject: fn(usize, usize, u32, usize, u32, usize) -> NtStatus);
    let mut needed = 0_u32;
    let (needed_at, instance, object) = (at(&mut needed), rig.instance, file.object);
    assert_eq!(rig.run(|| query(instance, object, 4, 0, 0, needed_at)), Ok(NtStatus::BUFFER_TOO_SMALL));
    let needed = Raw::<u32>::at(needed_at).read();
    assert!(needed > 20);
    let mut buffer = vec![0_u8; needed as usize];
    let buffer_at = buffer.as_mut_ptr().expose_provenance();
    assert_eq!(rig.run(|| query(instance, object, 4, buffer_at, needed, needed_at)), Ok(NtStatus::SUCCESS));
    assert_eq!(Raw::<u8>::at(buffer_at).read(), 1, "SECURITY_DESCRIPTOR_REVISION");
    assert_eq!(rig.run(|| query(instance, object, 8, buffer_at, needed, needed_at)), Ok(NtStatus::ACCESS_DENIED));
    file.release(&rig.setup);
}

/// FltSetSecurityObject.
fn set_security(rig: &Rig, object: usize, parts: u32, descriptor: usize) -> Result<NtStatus, Rule> {
    let (instance, call) = (rig.instance, ddi!(FltSetSecurityObject: fn(usize, usize, u32, usize) -> NtStatus));
    rig.run(|| call(instance, object, parts, descriptor))
}

#[test]
fn a_descriptor_of_either_form_is_captured_when_it_is_valid() {
    conforms!("fltkernel/nf-fltkernel-fltsetsecurityobject.md", "A NULL descriptor is STATUS_ACCESS_VIOLATION.");
    conforms!(
        "fltkernel/nf-fltkernel-fltsetsecurityobject.md",
        "A descriptor is given in absolute or in self-relative form."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltsetsecurityobject.md",
        "A revision other than 1 is STATUS_UNKNOWN_REVISION, a bad list STATUS_INVALID_ACL."
    );
    conforms!("fltkernel/nf-fltkernel-fltsetsecurityobject.md", "The owner can be set with WRITE_OWNER access only.");
    let rig = Rig::new(&[]);
    let name = wide(BOOT);
    let file = opened(&rig, &Create { access: everything(), ..Create::new(&name) });
    assert_eq!(set_security(&rig, file.object, DACL, 0), Ok(NtStatus::ACCESS_VIOLATION));
    // Absolute: S-1-5-18 as owner, and an empty list.
    let sid: [u8; 12] = [1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0];
    let list: [u32; 2] = [2 | 8 << 16, 0];
    let list_at = list.as_ptr().expose_provenance();
    let mut descriptor: [usize; 5] = [1 | 4 << 16, sid.as_ptr().expose_provenance(), 0, 0, list_at];
    let descriptor_at = at(&mut descriptor);
    assert_eq!(set_security(&rig, file.object, OWNER | DACL, descriptor_at), Ok(NtStatus::SUCCESS));
    let (mut buffer, mut needed) = ([0_u8; 64], 0_u32);
    let (buffer_at, needed_at, instance, object) = (at(&mut buffer), at(&mut needed), rig.instance, file.object);
    let query = ddi!(FltQuerySecurityObject: fn(usize, usize, u32, usize, u32, usize) -> NtStatus);
    assert_eq!(rig.run(|| query(instance, object, OWNER, buffer_at, 64, needed_at)), Ok(NtStatus::SUCCESS));
    let owner = Raw::<u32>::at(buffer_at + 4).read() as usize;
    assert_eq!(Raw::<u8>::at(buffer_at + owner).read_bytes(12), sid);
    // What was given back is self-relative, and can be set again.
    assert_eq!(set_security(&rig, file.object, OWNER, buffer_at), Ok(NtStatus::SUCCESS));
    Raw::<usize>::at(list_at).write(9);
    assert_eq!(set_security(&rig, file.object, DACL, descriptor_at), Ok(NtStatus::INVALID_ACL));
    Raw::<u8>::at(descriptor_at).write(2);
    assert_eq!(set_security(&rig, file.object, DACL, descriptor_at), Ok(NtStatus::UNKNOWN_REVISION));
    file.release(&rig.setup);
    let reader = opened(&rig, &Create::new(&name));
    assert_eq!(set_security(&rig, reader.object, OWNER, buffer_at), Ok(NtStatus::ACCESS_DENIED));
    reader.release(&rig.setup);
}

#[test]
fn a_volume_is_opened_and_released_twofold() {
    conforms!(
        "fltkernel/nf-fltkernel-fltopenvolume.md",
        "The handle is released with FltClose, the file object with ObDereferenceObject."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltopenvolume.md",
        "VolumeFileObject is optional: without it only the handle is owed."
    );
    let rig = Rig::new(&[]);
    let instance = rig.instance;
    let open = ddi!(FltOpenVolume: fn(usize, usize, usize) -> NtStatus);
    let close = ddi!(FltClose: fn(usize) -> NtStatus);
    let ((status, object), handle) =
        with_out(|handle| with_out(|object| rig.setup.call("FltOpenVolume", || open(instance, handle, object))));
    assert_eq!(status, Ok(NtStatus::SUCCESS));
    let opened = open_at(rig.setup.bench.machine().inner(), object).unwrap();
    assert!(opened.is_volume());
    drop(opened);
    rig.run(|| {
        assert_eq!(close(handle), NtStatus::SUCCESS);
        ddi!(ObfDereferenceObject: fn(usize) -> isize)(object);
    })
    .unwrap();
    let (status, handle) = with_out(|handle| rig.setup.call("FltOpenVolume", || open(instance, handle, 0)));
    assert_eq!(status, Ok(NtStatus::SUCCESS));
    assert_eq!(rig.run(|| close(handle)), Ok(NtStatus::SUCCESS));
    rig.setup.unregister(rig.filter).unwrap();
    assert!(rig.setup.leaks().is_empty(), "{:?}", rig.setup.leaks());
}
