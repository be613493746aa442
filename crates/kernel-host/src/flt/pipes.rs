//! FltCreateNamedPipeFile and FltCreateMailslotFile. A simulated machine has neither file system: no name leads to a pipe or a
//! mailslot, and the calls end as they do on a Windows machine for a device that is not there.

use nt_types::{IO_STATUS_BLOCK, NtStatus, OBJECT_ATTRIBUTES};

use super::create::full_path;
use super::object;
use crate::ddi::{Call, exports};
use crate::fs::device::VolumeDevice;
use crate::nt::raw::Raw;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltCreateNamedPipeFile(max 0, fails RESOURCES) = flt_create_named_pipe_file;
    FltCreateMailslotFile(max 0, fails RESOURCES) = flt_create_mailslot_file;
}

extern "efiapi" fn flt_create_named_pipe_file(
    filter: usize,
    instance: usize,
    _handle: Raw<usize>,
    _file_object: Raw<usize>,
    _access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    io_status: Raw<IO_STATUS_BLOCK>,
) -> NtStatus {
    let call = Call::enter();
    nowhere(&call, (filter, instance), attributes, io_status)
}

extern "efiapi" fn flt_create_mailslot_file(
    filter: usize,
    instance: usize,
    _handle: Raw<usize>,
    _file_object: Raw<usize>,
    _access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    io_status: Raw<IO_STATUS_BLOCK>,
) -> NtStatus {
    let call = Call::enter();
    nowhere(&call, (filter, instance), attributes, io_status)
}

/// Why a pipe or a mailslot cannot be made.
fn nowhere(
    call: &Call,
    (filter, instance): (usize, usize),
    attributes: Raw<OBJECT_ATTRIBUTES>,
    io_status: Raw<IO_STATUS_BLOCK>,
) -> NtStatus {
    let _filter = object::filter(call, filter);
    let instance = (instance != 0).then(|| object::instance(call, instance));
    let status = attributes
        .some()
        .ok_or(NtStatus::OBJECT_PATH_SYNTAX_BAD)
        .and_then(|attributes| full_path(call, &attributes.read()))
        .and_then(|path| {
            call.detail(&path);
            call.machine().nt.objects().namespace().lookup(&path)
        })
        .map_or_else(
            |status| status,
            |found| match (instance, found.object.payload::<VolumeDevice>()) {
                // NTFS knows no such request.
                (None, Some(_)) => NtStatus::INVALID_DEVICE_REQUEST,
                // An instance is attached to a disk, whatever the name leads to.
                (Some(_), _) => NtStatus::INVALID_DEVICE_OBJECT_PARAMETER,
                (None, None) => NtStatus::OBJECT_TYPE_MISMATCH,
            },
        );
    io_status.write(IO_STATUS_BLOCK::new(status, 0));
    status
}
