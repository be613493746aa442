//! Names, properties and devices of volumes.

use super::*;
use crate::conformance::conforms;
use crate::fs::program::OpenOptions;

#[test]
fn a_volume_is_found_by_each_of_its_names() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetvolumefromname.md",
        "A volume is found by device name, by \\DosDevices\\, by \\??\\ and by its bare drive letter, and comes with a reference."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltgetvolumefromname.md",
        "STATUS_FLT_VOLUME_NOT_FOUND when no volume matches; STATUS_INVALID_PARAMETER for an empty name."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    let get = ddi!(FltGetVolumeFromName: fn(usize, usize, usize) -> NtStatus);
    let get = |name: &str| with_name(name, |name| with_out(|out| setup.run(|| get(filter, name, out)).unwrap()));
    for name in [r"\Device\HarddiskVolume1", r"\DosDevices\C:", r"\??\C:", "C:"] {
        assert_eq!(get(name), (NtStatus::SUCCESS, setup.volume()), "{name}");
        setup.dereference(setup.volume()).unwrap();
    }
    assert_eq!(get("Q:").0, NtStatus::FLT_VOLUME_NOT_FOUND);
    assert_eq!(get("").0, NtStatus::INVALID_PARAMETER);
    setup.unregister(filter).unwrap();
}

#[test]
fn looking_for_a_volume_is_for_passive_level() {
    conforms!("fltkernel/nf-fltkernel-fltgetvolumefromname.md", "FltGetVolumeFromName is called at PASSIVE_LEVEL.");
    let setup = Setup::new();
    let filter = setup.filter();
    let get = ddi!(FltGetVolumeFromName: fn(usize, usize, usize) -> NtStatus);
    let outcome = with_name("C:", |name| {
        setup.call("FltGetVolumeFromName", || {
            Thread::current().set_irql(1);
            get(filter, name, 0)
        })
    });
    assert_eq!(outcome, Err(Rule::IrqlTooHigh));
}

#[test]
fn a_file_object_leads_to_its_volume() {
    conforms!("fltkernel/nf-fltkernel-fltgetvolumefromfileobject.md", "The file's volume, with a reference.");
    let setup = Setup::new();
    let filter = setup.filter();
    let file = files::open(&setup, filter, setup.instance(), r"\??\C:\boot.rom").unwrap();
    let get = ddi!(FltGetVolumeFromFileObject: fn(usize, usize, usize) -> NtStatus);
    let found = with_out(|out| setup.run(|| get(filter, file.object, out)).unwrap());
    assert_eq!(found, (NtStatus::SUCCESS, setup.volume()));
    setup.dereference(setup.volume()).unwrap();
    file.release(&setup);
    setup.unregister(filter).unwrap();
}

/// Calls a routine that gives a name, with room for `room` bytes: status, size needed, name.
fn name(setup: &Setup, get: extern "efiapi" fn(usize, usize, usize) -> NtStatus, room: u16) -> (NtStatus, u32, String) {
    let mut buffer = [0u16; 128];
    let at = buffer.as_mut_ptr();
    at.expose_provenance();
    let string = UNICODE_STRING { Length: 0, MaximumLength: room, Buffer: at };
    let string_at = (&raw const string).expose_provenance();
    let mut needed = 0u32;
    let needed_at = (&raw mut needed).expose_provenance();
    let volume = setup.volume();
    let status = setup.run(|| get(volume, string_at, needed_at)).unwrap();
    let length = Raw::<UNICODE_STRING>::at(string_at).read().Length;
    let units = Raw::of(at).read_slice(usize::from(length / 2));
    (status, Raw::<u32>::at(needed_at).read(), String::from_utf16(&units).unwrap())
}

#[test]
fn a_volume_s_names_fit_or_say_what_they_need() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetvolumename.md",
        "STATUS_BUFFER_TOO_SMALL, and the size needed, for a buffer that does not hold the name, or no buffer."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltgetvolumename.md",
        "Neither VolumeName nor BufferSizeNeeded is STATUS_INVALID_PARAMETER."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltgetvolumeguidname.md",
        "The name is \\??\\Volume{GUID}; STATUS_BUFFER_TOO_SMALL, and the size needed, for a buffer that does not hold it."
    );
    let setup = Setup::new();
    setup.filter();
    let volume = setup.volume();
    let device_name = ddi!(FltGetVolumeName: fn(usize, usize, usize) -> NtStatus);
    let guid_name = ddi!(FltGetVolumeGuidName: fn(usize, usize, usize) -> NtStatus);
    assert_eq!(name(&setup, device_name, 200), (NtStatus::SUCCESS, 46, r"\Device\HarddiskVolume1".to_owned()));
    assert_eq!(name(&setup, device_name, 46).0, NtStatus::SUCCESS);
    assert_eq!(name(&setup, device_name, 44), (NtStatus::BUFFER_TOO_SMALL, 46, String::new()));
    assert_eq!(setup.run(|| device_name(volume, 0, 0)), Ok(NtStatus::INVALID_PARAMETER));
    let (status, needed, guid) = name(&setup, guid_name, 200);
    assert_eq!((status, needed), (NtStatus::SUCCESS, 96));
    assert!(guid.starts_with(r"\??\Volume{") && guid.ends_with('}'), "{guid}");
    assert_eq!(name(&setup, guid_name, 0).0, NtStatus::BUFFER_TOO_SMALL);
}

/// FltGetVolumeProperties: status, size, the structure.
fn properties(setup: &Setup, length: u32) -> (NtStatus, u32, Option<[String; 3]>) {
    let get = ddi!(FltGetVolumeProperties: fn(usize, usize, u32, usize) -> NtStatus);
    let mut buffer = [0u64; 64];
    let at = buffer.as_mut_ptr().expose_provenance();
    let mut returned = 0u32;
    let returned_at = (&raw mut returned).expose_provenance();
    let volume = setup.volume();
    let status = setup.run(|| get(volume, at, length, returned_at)).unwrap();
    let found = Raw::<flt::FLT_VOLUME_PROPERTIES>::at(at).read();
    let text = |string: UNICODE_STRING| {
        String::from_utf16(&Raw::of(string.Buffer).read_slice(usize::from(string.Length / 2))).unwrap()
    };
    let names = [found.FileSystemDriverName, found.FileSystemDeviceName, found.RealDeviceName];
    let names = (found.SectorSize == 512 && found.DeviceType == 7).then(|| names.map(text));
    (status, Raw::<u32>::at(returned_at).read(), names)
}

#[test]
fn properties_come_with_the_names_that_fit() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetvolumeproperties.md",
        "STATUS_BUFFER_TOO_SMALL and the whole size for less than the structure, and for no buffer."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltgetvolumeproperties.md",
        "STATUS_BUFFER_OVERFLOW and the fixed part where the names do not fit."
    );
    let setup = Setup::new();
    setup.filter();
    let (status, needed, none) = properties(&setup, 0);
    assert_eq!((status, none), (NtStatus::BUFFER_TOO_SMALL, None));
    assert_eq!(properties(&setup, 71).0, NtStatus::BUFFER_TOO_SMALL);
    let (status, returned, names) = properties(&setup, needed - 1);
    assert_eq!((status, returned), (NtStatus::BUFFER_OVERFLOW, 72));
    assert_eq!(names.unwrap(), ["", "", ""]);
    let (status, returned, names) = properties(&setup, needed);
    assert_eq!((status, returned), (NtStatus::SUCCESS, needed));
    let [driver, file_system, real] = names.unwrap();
    assert_eq!((file_system.as_str(), real.as_str()), (r"\Ntfs", r"\Device\HarddiskVolume1"));
    assert!(driver.ends_with("Ntfs"), "{driver}");
}

#[test]
fn volumes_and_instances_say_what_they_are() {
    conforms!("fltkernel/nf-fltkernel-fltisvolumewritable.md", "Volumes and instances are taken alike.");
    conforms!(
        "fltkernel/nf-fltkernel-fltgetfilesystemtype.md",
        "STATUS_INVALID_PARAMETER for what is neither a volume nor an instance."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    let writable = ddi!(FltIsVolumeWritable: fn(usize, usize) -> NtStatus);
    let kind = ddi!(FltGetFileSystemType: fn(usize, usize) -> NtStatus);
    for object in [setup.volume(), setup.instance()] {
        let (status, slot) = with_out(|out| setup.run(|| writable(object, out)).unwrap());
        assert_eq!((status, slot & 0xFF), (NtStatus::SUCCESS, 1));
        let (status, slot) = with_out(|out| setup.run(|| kind(object, out)).unwrap());
        assert_eq!((status, slot), (NtStatus::SUCCESS, 2));
    }
    assert_eq!(with_out(|out| setup.run(|| kind(filter, out)).unwrap()).0, NtStatus::INVALID_PARAMETER);
}

#[test]
fn device_objects_come_with_a_reference() {
    conforms!("fltkernel/nf-fltkernel-fltgetdeviceobject.md", "The volume device object, with a reference.");
    conforms!("fltkernel/nf-fltkernel-fltgetdiskdeviceobject.md", "The storage device object, with a reference.");
    conforms!(
        "fltkernel/nf-fltkernel-fltgetvolumefromdeviceobject.md",
        "The volume behind a volume device object; STATUS_INVALID_PARAMETER for a storage device object."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    let volume = setup.volume();
    let device_of = ddi!(FltGetDeviceObject: fn(usize, usize) -> NtStatus);
    let disk_of = ddi!(FltGetDiskDeviceObject: fn(usize, usize) -> NtStatus);
    let volume_of = ddi!(FltGetVolumeFromDeviceObject: fn(usize, usize, usize) -> NtStatus);
    let release = ddi!(ObfDereferenceObject: fn(usize) -> isize);
    let (status, device) = with_out(|out| setup.run(|| device_of(volume, out)).unwrap());
    assert_eq!(status, NtStatus::SUCCESS);
    let (status, disk) = with_out(|out| setup.run(|| disk_of(volume, out)).unwrap());
    assert_eq!(status, NtStatus::SUCCESS);
    assert_eq!(Raw::<nt_types::DEVICE_OBJECT>::at(disk).read().SectorSize, 512);
    let found = with_out(|out| setup.run(|| volume_of(filter, device, out)).unwrap());
    assert_eq!(found, (NtStatus::SUCCESS, volume));
    setup.dereference(volume).unwrap();
    let found = with_out(|out| setup.run(|| volume_of(filter, disk, out)).unwrap());
    assert_eq!(found.0, NtStatus::INVALID_PARAMETER);
    assert_eq!(setup.leaks().iter().filter(|leak| leak.contains("Device")).count(), 2, "{:?}", setup.leaks());
    for object in [device, disk] {
        setup.run(|| release(object)).unwrap();
    }
    setup.unregister(filter).unwrap();
    assert_eq!(setup.leaks(), Vec::<String>::new());
}

/// Sends a device control to the disk below the volume: what IoCallDriver returns, and the I/O status block.
fn ask_disk(setup: &Setup, code: u32) -> (NtStatus, NtStatus) {
    let volume = setup.volume();
    let disk_of = ddi!(FltGetDiskDeviceObject: fn(usize, usize) -> NtStatus);
    let (_, disk) = with_out(|out| setup.run(|| disk_of(volume, out)).unwrap());
    let mut block = IO_STATUS_BLOCK::new(NtStatus::PENDING, 0);
    let mut event = [0_usize; 3];
    let (block_at, event_at) = ((&raw mut block).expose_provenance(), event.as_mut_ptr().expose_provenance());
    let build = ddi!(IoBuildDeviceIoControlRequest:
        fn(u32, usize, usize, u32, usize, u32, u8, usize, usize) -> usize);
    let answer = setup.run(|| {
        ddi!(KeInitializeEvent: fn(usize, i32, u8))(event_at, 0, 0);
        let irp = build(code, disk, 0, 0, 0, 0, 0, event_at, block_at);
        assert_ne!(irp, 0);
        let answer = ddi!(IofCallDriver: fn(usize, usize) -> NtStatus)(disk, irp);
        ddi!(ObfDereferenceObject: fn(usize) -> isize)(disk);
        answer
    });
    (answer.unwrap(), Raw::<NtStatus>::at(block_at).read())
}

#[test]
fn a_disk_refuses_controls_that_it_does_not_know() {
    conforms!(
        "wdm/nf-wdm-iocalldriver.md",
        "The status is that of the driver below: STATUS_INVALID_DEVICE_REQUEST for a control code that it does not know."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    let refused = NtStatus::INVALID_DEVICE_REQUEST;
    assert_eq!(ask_disk(&setup, 0x0007_0214), (refused, refused));
    setup.unregister(filter).unwrap();
    assert_eq!(setup.leaks(), Vec::<String>::new());
}

#[test]
fn a_dismounted_volume_has_no_devices() {
    conforms!(
        "fltkernel/nf-fltkernel-fltgetdiskdeviceobject.md",
        "STATUS_FLT_NO_DEVICE_OBJECT when the volume has none; the out parameter is left alone."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    let get = ddi!(FltGetVolumeFromName: fn(usize, usize, usize) -> NtStatus);
    let (_, volume) = with_name("C:", |name| with_out(|out| setup.run(|| get(filter, name, out)).unwrap()));
    let machine = setup.bench.machine();
    let file = setup.process().create_file(r"\??\C:\boot.rom", &OpenOptions::new()).unwrap();
    machine.dismount("C:").unwrap();
    let disk_of = ddi!(FltGetDiskDeviceObject: fn(usize, usize) -> NtStatus);
    let found = with_out(|out| setup.run(|| disk_of(volume, out)).unwrap());
    assert_eq!(found, (NtStatus::FLT_NO_DEVICE_OBJECT, 0xBAD));
    drop(file);
    setup.dereference(volume).unwrap();
    setup.unregister(filter).unwrap();
    assert_eq!(setup.leaks(), Vec::<String>::new());
}
