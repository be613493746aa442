//! Names that a rename or a link is about to make: FltGetDestinationFileNameInformation, and FltGetTunneledName after it.

use std::sync::Arc;

use fltmgr::raw as flt;
use fltmgr::raw::{FLT_CALLBACK_DATA, FLT_FILE_NAME_INFORMATION, FLT_IO_PARAMETER_BLOCK, FltCallbackDataFlags};
use nt_types::{FILE_OBJECT, KERNEL_MODE, NtStatus};

use super::query::{Options, Subject, normalized};
use super::{Name, answer, unknown};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::flt::{major, object};
use crate::fs::device::VolumeDevice;
use crate::fs::io::opened;
use crate::fs::path::wide;
use crate::fs::volume::{Volume, join};
use crate::nt::current_process;
use crate::nt::raw::{Raw, field};

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltGetDestinationFileNameInformation(max 1, fails RESOURCES) = flt_get_destination_file_name_information;
    FltGetTunneledName(max 1, fails RESOURCES) = flt_get_tunneled_name;
}

extern "efiapi" fn flt_get_destination_file_name_information(
    instance: usize,
    file: Raw<FILE_OBJECT>,
    root: usize,
    name: Raw<u16>,
    length: u32,
    options: u32,
    out: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    let _instance = object::instance(&call, instance);
    let options = match Options::parse(options) {
        // It has a status of its own.
        Ok(options) if options.format == flt::FLT_FILE_NAME_SHORT => return NtStatus::FLT_INVALID_NAME_REQUEST,
        Ok(options) if !out.is_null() => options,
        Ok(_) => return NtStatus::INVALID_PARAMETER,
        Err(status) => return status,
    };
    if !length.is_multiple_of(2) {
        return NtStatus::OBJECT_NAME_INVALID;
    }
    let given = name.read_slice(length as usize / 2);
    let subject = Subject::of(&call, file);
    let found = destination(&call, &subject, root, &given, options.format);
    answer(&call, found, options.format, out)
}

/// The name that the file would get.
fn destination(call: &Call, subject: &Subject, root: usize, given: &[u16], format: u32) -> Result<Name, NtStatus> {
    let open = subject.open.as_ref().ok_or(NtStatus::FLT_INVALID_NAME_REQUEST)?;
    let volume = &open.volume;
    let below = if root != 0 {
        let process = current_process(call).table_of(root, KERNEL_MODE)?;
        let entry = process.handles().reference(root, 0, Some("File"))?;
        let (_file, folder) = opened(&entry.object)?;
        same_volume(volume, &folder.volume)?;
        join(&folder.name(), given)
    } else if given.first() == Some(&u16::from(b'\\')) {
        full_name(call, volume, given)?
    } else if given.first() == Some(&u16::from(b':')) {
        // A stream is renamed within its file.
        let name = open.name();
        let end = name.iter().rposition(|&unit| unit == u16::from(b':')).unwrap_or(name.len());
        [&name[..end], given].concat()
    } else {
        let name = open.name();
        let end = name.iter().rposition(|&unit| unit == u16::from(b'\\')).unwrap_or(0);
        join(&name[..end], given)
    };
    let below = if format == flt::FLT_FILE_NAME_NORMALIZED { normalized(volume, &below)? } else { below };
    let device = wide(&volume.device_name());
    let length = device.len();
    Ok(Name { text: [device, below].concat(), volume: length })
}

/// What lies below the volume in a name of the object namespace.
fn full_name(call: &Call, volume: &Arc<Volume>, given: &[u16]) -> Result<Vec<u16>, NtStatus> {
    let path = String::from_utf16(given).map_err(|_| NtStatus::OBJECT_NAME_INVALID)?;
    let found = call.machine().nt.objects().namespace().lookup(&path)?;
    let device = found.object.payload::<VolumeDevice>().ok_or(NtStatus::MOUNT_POINT_NOT_RESOLVED)?;
    same_volume(volume, &device.volume)?;
    Ok(wide(&found.rest))
}

/// Renames and links stay on their volume.
fn same_volume(volume: &Arc<Volume>, other: &Arc<Volume>) -> Result<(), NtStatus> {
    if Arc::ptr_eq(volume, other) { Ok(()) } else { Err(NtStatus::MOUNT_POINT_NOT_RESOLVED) }
}

extern "efiapi" fn flt_get_tunneled_name(
    data: Raw<FLT_CALLBACK_DATA>,
    information: Raw<FLT_FILE_NAME_INFORMATION>,
    out: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    if data.is_null() {
        call.stop(Rule::BadArgument, "CallbackData is NULL");
    }
    let format = call.machine().flt.names.lock().held.get(&information.address()).map(|name| name.format);
    let Some(format) = format else { unknown(&call, information) };
    let flags = FltCallbackDataFlags::from_bits_retain(field!(data, FLT_CALLBACK_DATA, Flags).read());
    let block = Raw::<FLT_IO_PARAMETER_BLOCK>::of(field!(data, FLT_CALLBACK_DATA, Iopb).read());
    let major = field!(block, FLT_IO_PARAMETER_BLOCK, MajorFunction).read();
    let tunnels = matches!(major, major::CREATE | major::SET_INFORMATION);
    if !flags.contains(FltCallbackDataFlags::POST_OPERATION) || !tunnels {
        call.stop(
            Rule::BadState,
            "FltGetTunneledName is for post-operation callbacks of IRP_MJ_CREATE and IRP_MJ_SET_INFORMATION only",
        );
    }
    if format != flt::FLT_FILE_NAME_NORMALIZED {
        call.stop(Rule::BadArgument, "only normalized names are affected by tunneling; this one is not normalized");
    }
    // Tunneling turns a short name into the long one that a file had before. The volumes have no short names, so that a
    // name that was normalized before the operation is right after it.
    out.write(0);
    NtStatus::SUCCESS
}
