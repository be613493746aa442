//! What a filter asks of its volume and its stack, and what it may change there.

use super::files::Create;
use super::operations::{BOOT, Rig};
use super::*;
use crate::conformance::conforms;

/// FltQueryVolumeInformation or FltSetVolumeInformation, as `call`: status, and Information.
fn transfer(
    rig: &Rig,
    call: extern "efiapi" fn(usize, usize, usize, u32, u32) -> NtStatus,
    (buffer, length): (usize, u32),
    class: u32,
) -> (NtStatus, usize) {
    let mut block = IO_STATUS_BLOCK::default();
    let (block_at, instance) = ((&raw mut block).expose_provenance(), rig.instance);
    let status = rig.run(|| call(instance, block_at, buffer, length, class)).unwrap();
    let block = Raw::<IO_STATUS_BLOCK>::at(block_at).read();
    assert_eq!(block.Status, status);
    (status, block.Information)
}

#[test]
fn a_filter_asks_the_volume_of_its_instance() {
    conforms!(
        "fltkernel/nf-fltkernel-fltqueryvolumeinformation.md",
        "The Information of the status block is the number of bytes written."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltqueryvolumeinformation.md",
        "A class that there is not is STATUS_INVALID_INFO_CLASS."
    );
    conforms!("fltkernel/nf-fltkernel-fltsetvolumeinformation.md", "FileFsLabelInformation sets the volume's label.");
    conforms!(
        "fltkernel/nf-fltkernel-fltsetvolumeinformation.md",
        "Too short a buffer is STATUS_INFO_LENGTH_MISMATCH."
    );
    let rig = Rig::new(&[0, 0x0A, 0x0B]);
    rig.pre(|_| panic!("a filter's own requests start below it"));
    let query = ddi!(FltQueryVolumeInformation: fn(usize, usize, usize, u32, u32) -> NtStatus);
    let set = ddi!(FltSetVolumeInformation: fn(usize, usize, usize, u32, u32) -> NtStatus);
    let mut buffer = [0_u32; 32];
    let at = (&raw mut buffer).expose_provenance();
    assert_eq!(transfer(&rig, query, (at, 128), 4), (NtStatus::SUCCESS, 8));
    assert_eq!(Raw::<u32>::at(at).read(), 7, "FILE_DEVICE_DISK");
    assert_eq!(transfer(&rig, query, (at, 128), 99).0, NtStatus::INVALID_INFO_CLASS);
    let label = [4_u32, u32::from(b'o') | u32::from(b'k') << 16];
    let label_at = label.as_ptr().expose_provenance();
    assert_eq!(transfer(&rig, set, (label_at, 8), 2).0, NtStatus::SUCCESS);
    assert_eq!(transfer(&rig, set, (label_at, 2), 2).0, NtStatus::INFO_LENGTH_MISMATCH);
    assert_eq!(transfer(&rig, query, (at, 128), 1), (NtStatus::SUCCESS, 18 + 4));
    assert_eq!(Raw::<u16>::at(at + 18).read_slice(2), wide("ok"));
    assert_eq!(rig.setup.leaks().len(), 2, "filter and instance: {:?}", rig.setup.leaks());
}

#[test]
fn the_system_s_folder_is_made_once_and_is_for_the_system_only() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatesystemvolumeinformationfolder.md",
        "The folder is made when it is not there, hidden and of the system; it is no error that it is."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatesystemvolumeinformationfolder.md",
        "On NTFS the list of the new folder has one inherited entry, which gives SYSTEM full access."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatesystemvolumeinformationfolder.md",
        "The entry of SYSTEM in the list of a folder that is there gets the inheritance bits."
    );
    let rig = Rig::new(&[]);
    let make = ddi!(FltCreateSystemVolumeInformationFolder: fn(usize) -> NtStatus);
    let instance = rig.instance;
    let ours = || rig.run(|| make(instance));
    assert_eq!(ours(), Ok(NtStatus::SUCCESS));
    assert!(rig.setup.folder.path().join("System Volume Information").is_dir());
    let name = wide(r"\??\C:\System Volume Information");
    let folder = Create { options: 0x21, access: AccessMask::from_bits_retain(0x001F_01FF), ..Create::new(&name) };
    let folder = folder.run(&rig.setup, rig.filter, rig.instance).unwrap();
    assert_eq!(folder.status, NtStatus::SUCCESS);
    let object = folder.object;
    let query = ddi!(FltQuerySecurityObject: fn(usize, usize, u32, usize, u32, usize) -> NtStatus);
    let set = ddi!(FltSetSecurityObject: fn(usize, usize, u32, usize) -> NtStatus);
    let mut buffer = [0_u8; 64];
    let at = (&raw mut buffer).expose_provenance();
    // One entry, at 28: its flags, and whom it allows.
    let entry = || {
        assert_eq!(rig.run(|| query(instance, object, 4, at, 64, 0)), Ok(NtStatus::SUCCESS));
        let list = Raw::<u8>::at(at).field::<u32>(16).read() as usize;
        assert_eq!(Raw::<u16>::at(at + list + 4).read(), 1);
        (at + list + 8, Raw::<u8>::at(at + list + 9).read(), Raw::<u8>::at(at + list + 16).read_bytes(12))
    };
    let (place, flags, sid) = entry();
    assert_eq!((flags, &sid[..]), (3, &[1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0][..]));
    Raw::<u8>::at(place + 1).write(0);
    assert_eq!(rig.run(|| set(instance, object, 4, at)), Ok(NtStatus::SUCCESS));
    assert_eq!(entry().1, 0);
    assert_eq!(ours(), Ok(NtStatus::SUCCESS));
    assert_eq!(entry().1, 3);
    folder.release(&rig.setup);
}

#[test]
fn folders_are_told_from_files() {
    conforms!(
        "fltkernel/nf-fltkernel-fltisdirectory.md",
        "TRUE for the file object of a directory, FALSE for that of a file."
    );
    conforms!("fltkernel/nf-fltkernel-fltisdirectory.md", "The file object has to be open.");
    let rig = Rig::new(&[0]);
    let is = ddi!(FltIsDirectory: fn(usize, usize, usize) -> NtStatus);
    let instance = rig.instance;
    for (name, options, directory) in [(BOOT, 0x60, 0), (r"\??\C:\", 0x21, 1)] {
        let name = wide(name);
        let file = Create { options, ..Create::new(&name) }.run(&rig.setup, rig.filter, rig.instance).unwrap();
        let object = file.object;
        let (status, answer) = with_out(|out| rig.run(|| is(object, instance, out)));
        assert_eq!((status, answer & 0xFF), (Ok(NtStatus::SUCCESS), directory));
        file.release(&rig.setup);
    }
    rig.pre(move |op| {
        let (file, (status, _)) = (op.file(), with_out(|out| (is(op.file(), instance, out), out)).0);
        assert_ne!(file, 0);
        op.complete(status)
    });
    assert!(rig.open(crate::fs::program::OpenOptions::new()).is_err());
    assert_eq!(rig.finding().0, Rule::BadState);
}

#[test]
fn instances_are_found_by_the_device_of_their_volume() {
    conforms!(
        "fltkernel/nf-fltkernel-fltenumerateinstanceinformationbydeviceobject.md",
        "The volume's instances by index; STATUS_NO_MORE_ENTRIES behind the last."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltenumerateinstanceinformationbydeviceobject.md",
        "STATUS_BUFFER_TOO_SMALL, and BytesReturned says how much it takes."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltenumerateinstanceinformationbydeviceobject.md",
        "What is no volume's device is STATUS_FLT_INTERNAL_ERROR."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltisfltmgrvolumedeviceobject.md",
        "TRUE for the device of a volume, FALSE for others."
    );
    let rig = Rig::new(&[]);
    let volume = rig.setup.volume();
    let get = ddi!(FltGetDeviceObject: fn(usize, usize) -> NtStatus);
    let get_disk = ddi!(FltGetDiskDeviceObject: fn(usize, usize) -> NtStatus);
    let enumerate =
        ddi!(FltEnumerateInstanceInformationByDeviceObject: fn(usize, u32, i32, usize, u32, usize) -> NtStatus);
    let is = ddi!(FltIsFltMgrVolumeDeviceObject: fn(usize) -> u8);
    let (_, device) = with_out(|out| rig.run(|| get(volume, out)));
    let (_, disk) = with_out(|out| rig.run(|| get_disk(volume, out)));
    let mut buffer = [0_u64; 64];
    let at = (&raw mut buffer).expose_provenance();
    let ask = |device, index, length| with_out(|out| rig.run(|| enumerate(device, index, 0, at, length, out)));
    let (status, needed) = ask(device, 0, 512);
    assert_eq!(status, Ok(NtStatus::SUCCESS));
    assert_eq!(ask(device, 0, 1), (Ok(NtStatus::BUFFER_TOO_SMALL), needed));
    assert_eq!(ask(device, 1, 512).0, Ok(NtStatus::NO_MORE_ENTRIES));
    assert_eq!(ask(disk, 0, 512).0, Ok(NtStatus::FLT_INTERNAL_ERROR));
    assert_eq!((rig.run(|| is(device)), rig.run(|| is(disk))), (Ok(1), Ok(0)));
    rig.run(|| {
        for object in [device, disk] {
            ddi!(ObfDereferenceObject: fn(usize) -> isize)(object);
        }
    })
    .unwrap();
}

#[test]
fn no_volume_is_a_snapshot_and_all_can_be_redirected_to() {
    conforms!(
        "fltkernel/nf-fltkernel-fltisvolumesnapshot.md",
        "FALSE for a volume or instance that knows no snapshots; STATUS_INVALID_PARAMETER for other objects."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltisioredirectionallowed.md",
        "TRUE when the target's stack is not deeper than the source's."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltadjustdevicestacksizeforioredirection.md",
        "SourceDeviceStackSizeModified is FALSE where nothing had to be changed."
    );
    let rig = Rig::new(&[]);
    let is = ddi!(FltIsVolumeSnapshot: fn(usize, usize) -> NtStatus);
    let allowed = ddi!(FltIsIoRedirectionAllowed: fn(usize, usize, usize) -> NtStatus);
    let adjust = ddi!(FltAdjustDeviceStackSizeForIoRedirection: fn(usize, usize, usize) -> NtStatus);
    let (instance, filter) = (rig.instance, rig.filter);
    for object in [rig.setup.volume(), instance] {
        let (status, answer) = with_out(|out| rig.run(|| is(object, out)));
        assert_eq!((status, answer & 0xFF), (Ok(NtStatus::SUCCESS), 0));
    }
    assert_eq!(with_out(|out| rig.run(|| is(filter, out))).0, Ok(NtStatus::INVALID_PARAMETER));
    let (status, answer) = with_out(|out| rig.run(|| allowed(instance, instance, out)));
    assert_eq!((status, answer & 0xFF), (Ok(NtStatus::SUCCESS), 1));
    let (status, answer) = with_out(|out| rig.run(|| adjust(instance, instance, out)));
    assert_eq!((status, answer & 0xFF), (Ok(NtStatus::SUCCESS), 0));
}

#[test]
fn a_packet_can_be_redirected_and_a_direct_call_cannot() {
    conforms!(
        "fltkernel/nf-fltkernel-fltisioredirectionallowedforoperation.md",
        "RedirectionAllowedThisIo tells of the operation, RedirectionAllowedAllIo of all on the stack."
    );
    let rig = Rig::new(&[3]);
    let instance = rig.instance;
    rig.pre(move |op| {
        let call = ddi!(FltIsIoRedirectionAllowedForOperation: fn(usize, usize, usize, usize) -> NtStatus);
        let data = op.data.address();
        let ((status, all), this) = with_out(|this| with_out(|all| call(data, instance, this, all)));
        assert_eq!((status, this & 0xFF == 1, all & 0xFF), (NtStatus::SUCCESS, op.flag(super::operations::IRP), 1));
        flt::FLT_PREOP_SUCCESS_NO_CALLBACK
    });
    let file = rig.reader();
    file.read(0, 1).unwrap();
    file.read(0, 1).unwrap();
    rig.assert_no_finding();
}

#[test]
fn there_are_no_pipes_and_no_mailslots() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatenamedpipefile.md",
        "A name without a root directory that does not begin at the root is STATUS_OBJECT_PATH_SYNTAX_BAD."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatemailslotfile.md",
        "A name without a root directory that does not begin at the root is STATUS_OBJECT_PATH_SYNTAX_BAD."
    );
    let rig = Rig::new(&[]);
    // The parameters behind the status block do not matter.
    let pipe = ddi!(FltCreateNamedPipeFile: fn(usize, usize, usize, usize, u32, usize, usize) -> NtStatus);
    let mailslot = ddi!(FltCreateMailslotFile: fn(usize, usize, usize, usize, u32, usize, usize) -> NtStatus);
    let filter = rig.filter;
    for call in [pipe, mailslot] {
        for (name, status) in [
            ("pipe", NtStatus::OBJECT_PATH_SYNTAX_BAD),
            (r"\Device\NamedPipe\one", NtStatus::OBJECT_PATH_NOT_FOUND),
            (BOOT, NtStatus::INVALID_DEVICE_REQUEST),
        ] {
            let (text, mut block) = (wide(name), IO_STATUS_BLOCK::default());
            let string = UNICODE_STRING::from_utf16(&text).unwrap();
            let attributes = OBJECT_ATTRIBUTES::new(&raw const string, ObjectFlags::KERNEL_HANDLE);
            let (at, block_at) = ((&raw const attributes).expose_provenance(), (&raw mut block).expose_provenance());
            assert_eq!(rig.run(|| call(filter, 0, 0, 0, 0, at, block_at)), Ok(status), "{name}");
            assert_eq!(Raw::<IO_STATUS_BLOCK>::at(block_at).read().Status, status);
        }
    }
}
