//! What a filter asks of the volume that its instance is attached to: FltQueryVolumeInformation and its neighbours. Each opens the
//! volume below the instance for as long as it takes.

use std::sync::Arc;

use nt_types::{AccessMask, IO_STATUS_BLOCK, IrpFlags, KERNEL_MODE, NtStatus};

use super::Instance;
use super::major;
use super::object;
use crate::ddi::{Call, exports};
use crate::fs::io::{self, Issue, OpenParameters, Outcome};
use crate::fs::options::{disposition, option};
use crate::fs::security::{SYSTEM_ONLY, SYSTEM_SID};
use crate::nt::raw::Raw;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltQueryVolumeInformation(max 0, fails IO) = flt_query_volume_information;
    FltSetVolumeInformation(max 0, fails IO) = flt_set_volume_information;
    FltCreateSystemVolumeInformationFolder(max 0, fails IO) = flt_create_system_volume_information_folder;
}

/// Name of the folder that only the system sees into, below the root.
const SYSTEM_FOLDER: &str = r"\System Volume Information";

/// `DACL_SECURITY_INFORMATION`.
const DACL: u32 = 4;

/// Opens what `parameters` say below the instance, and closes it when `body` has returned.
fn opened(
    call: &Call,
    instance: &Arc<Instance>,
    name: &str,
    parameters: &OpenParameters,
    body: impl FnOnce(&Issue<'_>, usize) -> Outcome,
) -> Outcome {
    let (machine, path) = (call.machine(), format!("{}{name}", instance.volume.volume.device_name()));
    call.detail(&path);
    let result = io::open_by_name(machine, &path, parameters, Some(instance)).and_then(|(object, information)| {
        io::handle_made(&object);
        let system = machine.nt.system_process(machine);
        let handle = system.handles().insert(&object, parameters.access, None);
        let issue = Issue::on(machine, &object, Some(instance), KERNEL_MODE);
        let outcome = issue.map(|issue| body(&issue, information));
        drop(object);
        // It was opened just now.
        let _closed = system.close_handle(handle);
        outcome
    });
    call.thread().leave_if_stopped();
    result.unwrap_or_else(|status| (status, 0))
}

/// An open of the volume itself, or of a folder.
fn parameters(call: &Call, access: AccessMask) -> OpenParameters {
    let system = call.machine().nt.system_process(call.machine());
    let access = access | AccessMask::SYNCHRONIZE;
    OpenParameters {
        options: option::SYNCHRONOUS_IO_NONALERT,
        ..OpenParameters::new(system, KERNEL_MODE, access.bits())
    }
}

extern "efiapi" fn flt_query_volume_information(
    instance: usize,
    io_status: Raw<IO_STATUS_BLOCK>,
    information: usize,
    length: u32,
    class: u32,
) -> NtStatus {
    let call = Call::enter();
    transfer(&call, instance, io_status, major::QUERY_VOLUME_INFORMATION, (information, length), class)
}

extern "efiapi" fn flt_set_volume_information(
    instance: usize,
    io_status: Raw<IO_STATUS_BLOCK>,
    information: usize,
    length: u32,
    class: u32,
) -> NtStatus {
    let call = Call::enter();
    transfer(&call, instance, io_status, major::SET_VOLUME_INFORMATION, (information, length), class)
}

fn transfer(
    call: &Call,
    instance: usize,
    io_status: Raw<IO_STATUS_BLOCK>,
    major: u8,
    (information, length): (usize, u32),
    class: u32,
) -> NtStatus {
    let instance = object::instance(call, instance);
    let write = if major == major::SET_VOLUME_INFORMATION { AccessMask::FILE_WRITE_DATA } else { AccessMask::empty() };
    let parameters = parameters(call, AccessMask::FILE_READ_DATA | write);
    let (status, count) = opened(call, &instance, "", &parameters, |issue, _| {
        let irp = issue.synchronous_irp(major).irp_flags(IrpFlags::BUFFERED_IO).system_buffer();
        issue.run(&irp.information(class, information, length))
    });
    call.bytes(count as u64);
    io_status.write(IO_STATUS_BLOCK::new(status, count));
    status
}

extern "efiapi" fn flt_create_system_volume_information_folder(instance: usize) -> NtStatus {
    /// `FILE_ATTRIBUTE_HIDDEN` and `FILE_ATTRIBUTE_SYSTEM`.
    const HIDDEN_SYSTEM: u32 = 0x06;
    /// `FILE_CREATED`.
    const CREATED: usize = 2;
    let call = Call::enter();
    let instance = object::instance(&call, instance);
    let access = AccessMask::FILE_READ_ATTRIBUTES | AccessMask::READ_CONTROL | AccessMask::WRITE_DAC;
    let mut parameters = parameters(&call, access);
    parameters.options |= option::DIRECTORY_FILE;
    parameters.disposition = disposition::OPEN_IF;
    parameters.file_attributes = HIDDEN_SYSTEM;
    let (status, _) = opened(&call, &instance, SYSTEM_FOLDER, &parameters, |issue, information| {
        let list = if information == CREATED { Some(SYSTEM_ONLY.to_vec()) } else { inheriting(issue) };
        (list.map_or(NtStatus::SUCCESS, |list| issue.set_security(DACL, &list)), 0)
    });
    status
}

/// The descriptor of a folder that is there already, when SYSTEM's entry in it is not inherited yet: as it should be.
fn inheriting(issue: &Issue<'_>) -> Option<Vec<u8>> {
    /// `OBJECT_INHERIT_ACE` and `CONTAINER_INHERIT_ACE`.
    const INHERIT: u8 = 3;
    /// Where the list is, and in a list its count of entries and the first of them.
    const LIST: usize = 16;
    const COUNT: usize = 4;
    const FIRST: usize = 8;
    let mut bytes = vec![0_u8; 0x1_0000];
    let (status, length) = issue.query_security(DACL, (bytes.as_mut_ptr().expose_provenance(), bytes.len() as u32));
    bytes.truncate(if status.is_success() { length } else { 0 });
    let number =
        |bytes: &[u8], at: usize| Some(usize::from(u16::from_le_bytes([*bytes.get(at)?, *bytes.get(at + 1)?])));
    let list = number(&bytes, LIST).filter(|&list| list != 0)?;
    let (entries, mut at) = (number(&bytes, list + COUNT)?, list + FIRST);
    for _ in 0..entries {
        let entry = bytes.get_mut(at..)?;
        // ACCESS_ALLOWED_ACE, and whom it allows.
        let of_system = entry.first() == Some(&0) && entry.get(8..20) == Some(SYSTEM_SID);
        if of_system && entry[1] & INHERIT != INHERIT {
            entry[1] |= INHERIT;
            return Some(bytes);
        }
        at += number(entry, 2)?;
    }
    None
}
