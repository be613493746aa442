//! FltCreateNamedPipeFile and FltCreateMailslotFile. A simulated machine has neither file system: no name leads to a pipe or a
//! mailslot, and the calls end as they do on a Windows machine for a device that is not there.

use nt_types::{IO_STATUS_BLOCK, NtStatus, OBJECT_ATTRIBUTES};

use super::create::full_path;
use super::object;
use crate::ddi::{Call, exports};
use crate::fs::device::VolumeDevice;
use crate::nt::raw::Raw;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltCreateNamedPipeFile(max 0, fails RESOURCES) = flt_create_elsewhere;
    FltCreateMailslotFile(max 0, fails RESOURCES) = flt_create_elsewhere;
}

/// Both, since they differ behind the status block only.
extern "efiapi" fn flt_create_elsewhere(
    filter: usize,
    instance: usize,
    _handle: Raw<usize>,
    _file_object: Raw<usize>,
    _access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    io_status: Raw<IO_STATUS_BLOCK>,
) -> NtStatus {
    let call = Call::enter();
    let _filter = object::filter(&call, filter);
    let instance = (instance != 0).then(|| object::instance(&call, instance));
    let status = nowhere(&call, instance.is_some(), attributes);
    io_status.write(IO_STATUS_BLOCK::new(status, 0));
    status
}

/// Why a pipe or a mailslot cannot be made.
fn nowhere(call: &Call, below_instance: bool, attributes: Raw<OBJECT_ATTRIBUTES>) -> NtStatus {
    let Some(attributes) = attributes.some() else { return NtStatus::OBJECT_PATH_SYNTAX_BAD };
    let found = full_path(call, &attributes.read()).and_then(|path| {
        call.detail(&path);
        call.machine().nt.objects().namespace().lookup(&path)
    });
    match found {
        Err(status) => status,
        // An instance is attached to a disk, whatever the name leads to.
        Ok(_) if below_instance => NtStatus::INVALID_DEVICE_OBJECT_PARAMETER,
        // NTFS knows no such request.
        Ok(found) if found.object.payload::<VolumeDevice>().is_some() => NtStatus::INVALID_DEVICE_REQUEST,
        Ok(_) => NtStatus::OBJECT_TYPE_MISMATCH,
    }
}
