//! From a volume's device objects to what people call the volume, and to the disk below.
//!
//! Pages: `ntddk/nf-ntddk-iovolumedevicetodosname`, `ntifs/nf-ntifs-iogetdiskdeviceobject`.

use std::sync::Arc;

use nt_types::{NtStatus, UNICODE_STRING};

use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::flt::volume_device::{Disk, disk_of};
use crate::fs::device::VolumeDevice;
use crate::fs::volume::Volume;
use crate::nt::pool::{PoolKind, Request};
use crate::nt::raw::Raw;
use crate::nt::unicode::bytes_of;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    IoVolumeDeviceToDosName(max 0, fails RESOURCES) = io_volume_device_to_dos_name;
    RtlVolumeDeviceToDosName(max 0, fails RESOURCES) = io_volume_device_to_dos_name;
    IoGetDiskDeviceObject(max 2) = io_get_disk_device_object;
}

/// Tag of the names, which their receivers free.
const TAG: u32 = u32::from_le_bytes(*b"MntM");

/// The volume that a file system's or a disk's device object is of.
fn volume_of(call: &Call, device: usize) -> Option<Arc<Volume>> {
    let objects = call.machine().nt.objects();
    let of_file_system = objects.payload::<VolumeDevice>(device).map(|device| Arc::clone(&device.volume));
    of_file_system.or_else(|| objects.payload::<Disk>(device).map(|disk| Arc::clone(&disk.volume)))
}

extern "efiapi" fn io_volume_device_to_dos_name(device: usize, name: Raw<UNICODE_STRING>) -> NtStatus {
    let call = Call::enter();
    if call.thread().guarded_regions() > 0 {
        call.stop(Rule::BadState, "all APCs are disabled: the mount manager, which is asked, needs them");
    }
    let Some(volume) = volume_of(&call, device) else { return NtStatus::INVALID_PARAMETER };
    let text = bytes_of(&format!("{}:\0", volume.letter));
    let request = Request { kind: PoolKind::Paged, length: text.len(), tag: TAG, zeroed: false, cache_aligned: false };
    let buffer = call.machine().nt.pool().allocate(&call, request);
    if buffer == 0 {
        return NtStatus::INSUFFICIENT_RESOURCES;
    }
    Raw::<u8>::at(buffer).write_bytes(&text);
    let maximum = text.len() as u16;
    let buffer = Raw::at(buffer).pointer();
    name.write(UNICODE_STRING { Length: maximum - 2, MaximumLength: maximum, Buffer: buffer });
    NtStatus::SUCCESS
}

extern "efiapi" fn io_get_disk_device_object(device: usize, disk: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    let Some(file_system) = call.machine().nt.objects().payload::<VolumeDevice>(device) else {
        return NtStatus::INVALID_PARAMETER;
    };
    let stack = call.machine().flt.stack_of(&file_system.volume);
    match stack.and_then(|stack| disk_of(&call, &stack)) {
        Some(found) => {
            disk.write(call.machine().nt.objects().give(&found, &call));
            NtStatus::SUCCESS
        }
        None => NtStatus::VOLUME_DISMOUNTED,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;
    use crate::machine::Machine;
    use crate::nt::ob_exports::obf_dereference_object;
    use crate::nt::unicode::units;

    /// A machine with a volume, and the file system's device object of that.
    fn with_volume(body: impl FnOnce(&Bench, usize)) {
        let folder = tempfile::tempdir().unwrap();
        let bench = Bench::with(Machine::builder().volume("D:", folder.path()));
        let found = bench.machine().inner().nt.objects().namespace().lookup(r"\Device\HarddiskVolume1").unwrap();
        body(&bench, found.object.body());
        assert_eq!(bench.machine().inner().nt.pool().usage(), (0, 0));
    }

    fn dos_name(device: usize) -> Result<String, NtStatus> {
        let mut name = UNICODE_STRING::EMPTY;
        let name = Raw::of(&raw mut name);
        io_volume_device_to_dos_name(device, name).ok()?;
        let text = String::from_utf16(&units(name)).unwrap();
        let call = Call::enter();
        call.machine().nt.pool().free(&call, name.read().Buffer.addr(), 0);
        Ok(text)
    }

    #[test]
    fn a_volume_and_its_disk_have_the_drives_name() {
        conforms!(
            "ntddk/nf-ntddk-iovolumedevicetodosname.md",
            "The name is in a buffer that the routine allocates and its caller frees."
        );
        conforms!(
            "ntddk/nf-ntddk-iovolumedevicetodosname.md",
            "STATUS_INVALID_PARAMETER is returned for what is no volume's device."
        );
        conforms!("ntddk/nf-ntddk-rtlvolumedevicetodosname.md", "It behaves as IoVolumeDeviceToDosName does.");
        conforms!("ntifs/nf-ntifs-iogetdiskdeviceobject.md", "The device of the disk is returned with a reference.");
        with_volume(|bench, device| {
            bench
                .run(|| {
                    let mut disk = 0;
                    let out = Raw::of(&raw mut disk);
                    assert_eq!(io_get_disk_device_object(device, out), NtStatus::SUCCESS);
                    assert_eq!([device, out.read()].map(dos_name), ["D:", "D:"].map(|name| Ok(name.to_owned())));
                    obf_dereference_object(out.read());
                    assert_eq!(dos_name(0x1000), Err(NtStatus::INVALID_PARAMETER));
                    assert_eq!(io_get_disk_device_object(0x1000, out), NtStatus::INVALID_PARAMETER);
                })
                .unwrap();
        });
    }

    #[test]
    fn a_name_is_not_asked_for_where_apcs_are_disabled() {
        conforms!("ntddk/nf-ntddk-iovolumedevicetodosname.md", "APCs must not be disabled.");
        with_volume(|bench, device| {
            let stopped = bench.run(|| {
                crate::thread::Thread::current().set_guarded_regions(1);
                dos_name(device)
            });
            assert_eq!(stopped.unwrap_err().0.rule, Rule::BadState);
        });
    }
}
