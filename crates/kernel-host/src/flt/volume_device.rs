//! What a volume is made of: its properties, and the device objects around it.

use std::sync::Arc;

use fltmgr::raw::FLT_VOLUME_PROPERTIES;
use nt_types::{BOOLEAN, DEVICE_OBJECT, NtStatus, UNICODE_STRING};

use super::instance::{FSTYPE_NTFS, VolumeStack};
use super::object::{self, FltObject};
use super::volumes::give;
use crate::ddi::{Call, exports};
use crate::fs::device::VolumeDevice;
use crate::fs::volume::Volume;
use crate::nt::ob::{ObjectBody, ObjectRef};
use crate::nt::raw::{Raw, field};
use crate::nt::unicode;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltGetVolumeProperties(max 1) = flt_get_volume_properties;
    FltIsVolumeWritable(max 0, fails RESOURCES) = flt_is_volume_writable;
    FltGetFileSystemType(max 1) = flt_get_file_system_type;
    FltGetDeviceObject(max 2) = flt_get_device_object;
    FltGetDiskDeviceObject(max 2) = flt_get_disk_device_object;
    FltIsFltMgrVolumeDeviceObject(max 1) = flt_is_flt_mgr_volume_device_object;
    FltIsVolumeSnapshot(max 0, fails RESOURCES) = flt_is_volume_snapshot;
    FltGetVolumeFromDeviceObject(max 1, fails BUSY) = flt_get_volume_from_device_object;
}

/// `FILE_DEVICE_DISK`.
const FILE_DEVICE_DISK: u32 = 7;
/// `FILE_DEVICE_IS_MOUNTED`.
const IS_MOUNTED: u32 = 0x20;
/// `DO_DIRECT_IO`.
const DIRECT_IO: u32 = 0x10;
/// Bytes in a sector.
const SECTOR: u16 = 512;

/// Payload of the device object of the disk below a volume.
#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) volume: Arc<Volume>,
}

impl ObjectBody for Disk {
    fn type_name(&self) -> &'static str {
        "Device"
    }
}

extern "efiapi" fn flt_get_volume_properties(
    volume: usize,
    properties: Raw<FLT_VOLUME_PROPERTIES>,
    length: u32,
    returned: Raw<u32>,
) -> NtStatus {
    const FIXED: usize = size_of::<FLT_VOLUME_PROPERTIES>();
    let call = Call::enter();
    let volume = object::volume(&call, volume);
    let device = volume.volume.device_name();
    call.detail(&device);
    // The names of driver object, file system device and storage device (general knowledge, no page says which).
    let names = [r"\FileSystem\Ntfs", r"\Ntfs", &device].map(unicode::bytes_of);
    let needed = FIXED + names.iter().map(Vec::len).sum::<usize>();
    let length = length as usize;
    if length < FIXED {
        returned.write(needed as u32);
        return NtStatus::BUFFER_TOO_SMALL;
    }
    let all = length >= needed;
    let mut at = properties.address() + FIXED;
    let mut place = |name: &[u8]| {
        if !all {
            return UNICODE_STRING::EMPTY;
        }
        Raw::<u8>::at(at).write_bytes(name);
        let bytes = name.len() as u16;
        let string = UNICODE_STRING { Length: bytes, MaximumLength: bytes, Buffer: Raw::at(at).pointer() };
        at += name.len();
        string
    };
    let [driver, file_system, real] = &names;
    properties.write(FLT_VOLUME_PROPERTIES {
        DeviceType: FILE_DEVICE_DISK,
        DeviceCharacteristics: IS_MOUNTED,
        DeviceObjectFlags: DIRECT_IO,
        AlignmentRequirement: 0,
        SectorSize: SECTOR,
        Flags: 0,
        FileSystemDriverName: place(driver),
        FileSystemDeviceName: place(file_system),
        RealDeviceName: place(real),
    });
    returned.write(if all { needed } else { FIXED } as u32);
    if all { NtStatus::SUCCESS } else { NtStatus::BUFFER_OVERFLOW }
}

/// The volume behind a volume or an instance.
fn volume_of(call: &Call, address: usize) -> Option<Arc<VolumeStack>> {
    match call.machine().flt.objects.get(address)? {
        FltObject::Volume(volume) => Some(volume),
        FltObject::Instance(instance) => Some(Arc::clone(&instance.volume)),
        _ => None,
    }
}

extern "efiapi" fn flt_is_volume_writable(object: usize, writable: Raw<u8>) -> NtStatus {
    let call = Call::enter();
    let Some(volume) = volume_of(&call, object) else {
        object::wrong(&call, object, "PFLT_VOLUME or PFLT_INSTANCE", call.machine().flt.objects.get(object).as_ref())
    };
    // The disk is the host's folder.
    let allowed = rustix::fs::access(&volume.volume.folder, rustix::fs::Access::WRITE_OK).is_ok();
    writable.write(allowed.into());
    NtStatus::SUCCESS
}

extern "efiapi" fn flt_get_file_system_type(object: usize, kind: Raw<i32>) -> NtStatus {
    let call = Call::enter();
    match volume_of(&call, object) {
        Some(_) => {
            kind.write(FSTYPE_NTFS);
            NtStatus::SUCCESS
        }
        None => NtStatus::INVALID_PARAMETER,
    }
}

/// Hands out a device object with a reference.
fn give_device(call: &Call, device: Option<ObjectRef>, out: Raw<usize>) -> NtStatus {
    let Some(device) = device else { return NtStatus::FLT_NO_DEVICE_OBJECT };
    out.write(call.machine().nt.objects().give(&device, call));
    NtStatus::SUCCESS
}

/// The file system's device object of a volume.
fn file_system_device(call: &Call, volume: &VolumeStack) -> Option<ObjectRef> {
    let found = call.machine().nt.objects().namespace().lookup(&volume.volume.device_name()).ok()?;
    found.object.payload::<VolumeDevice>()?;
    Some(found.object)
}

extern "efiapi" fn flt_get_device_object(volume: usize, out: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    let volume = object::volume(&call, volume);
    // FltMgr has no device of its own here: it sits in the same stack as the file system's.
    let device = file_system_device(&call, &volume);
    give_device(&call, device, out)
}

/// The device object of the disk below a volume, made with its first use; none once the volume is dismounted.
pub(crate) fn disk_of(call: &Call, volume: &VolumeStack) -> Option<ObjectRef> {
    let mut disk = volume.disk();
    if disk.is_none() {
        file_system_device(call, volume)?;
        let payload = Arc::new(Disk { volume: Arc::clone(&volume.volume) });
        let made = call.machine().nt.objects().create(size_of::<DEVICE_OBJECT>(), payload).ok()?;
        let device = Raw::<DEVICE_OBJECT>::at(made.body());
        field!(device, DEVICE_OBJECT, Type).write(3);
        field!(device, DEVICE_OBJECT, Size).write(size_of::<DEVICE_OBJECT>() as u16);
        field!(device, DEVICE_OBJECT, DeviceType).write(FILE_DEVICE_DISK);
        field!(device, DEVICE_OBJECT, Characteristics).write(IS_MOUNTED);
        field!(device, DEVICE_OBJECT, Flags).write(DIRECT_IO);
        field!(device, DEVICE_OBJECT, StackSize).write(1);
        field!(device, DEVICE_OBJECT, SectorSize).write(SECTOR);
        disk.replace(made);
    }
    disk.clone()
}

extern "efiapi" fn flt_get_disk_device_object(volume: usize, out: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    let volume = object::volume(&call, volume);
    give_device(&call, disk_of(&call, &volume), out)
}

extern "efiapi" fn flt_get_volume_from_device_object(filter: usize, device: usize, out: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    let _filter = object::filter(&call, filter);
    let payload = call.machine().nt.objects().payload::<VolumeDevice>(device);
    match payload.and_then(|device| call.machine().flt.stack_of(&device.volume)) {
        Some(volume) => give(&call, &volume.rundown, volume.address, out),
        None => NtStatus::INVALID_PARAMETER,
    }
}

extern "efiapi" fn flt_is_flt_mgr_volume_device_object(device: usize) -> BOOLEAN {
    let call = Call::enter();
    // The one device of a volume stands for the whole stack, and it is what FltGetDeviceObject gives.
    call.machine().nt.objects().payload::<VolumeDevice>(device).is_some().into()
}

extern "efiapi" fn flt_is_volume_snapshot(object: usize, snapshot: Raw<BOOLEAN>) -> NtStatus {
    let call = Call::enter();
    if volume_of(&call, object).is_none() {
        return NtStatus::INVALID_PARAMETER;
    }
    // Folders of the host have no snapshots.
    snapshot.write(0);
    NtStatus::SUCCESS
}
