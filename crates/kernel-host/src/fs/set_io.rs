//! IRP_MJ_SET_INFORMATION as the I/O manager sends it: parameters that filters see beside the buffer.

use std::sync::Arc;

use nt_types::{AccessMask, IrpFlags, KERNEL_MODE, NtStatus};

use super::information::class;
use super::io::{Issue, OpenParameters, open_by_name};
use super::options::io_flag;
use super::path::SEPARATOR;
use crate::flt::major;
use crate::nt::ob::ObjectRef;
use crate::process::Process;

/// Sends the change.
///
/// For a rename or a hard link to another folder the I/O manager opens the target's parent first, with
/// SL_OPEN_TARGET_DIRECTORY, so that filters can judge it; `ParentOfTarget` is that file object.
pub(crate) fn set_information(issue: &Issue<'_>, class: u32, bytes: &[u8]) -> NtStatus {
    let irp = issue.synchronous_irp(major::SET_INFORMATION).irp_flags(IrpFlags::BUFFERED_IO).system_buffer();
    let irp = irp.information(class, bytes.as_ptr().expose_provenance(), bytes.len() as u32);
    let replace = u8::from(bytes.first().is_some_and(|&first| first & 1 != 0));
    let irp = match class {
        class::RENAME | class::LINK | class::RENAME_EX | class::LINK_EX => irp.set(24, replace),
        _ => irp,
    };
    let parent = match class {
        class::RENAME | class::LINK | class::RENAME_EX | class::LINK_EX => open_parent(issue, class, bytes),
        _ => Ok(None),
    };
    match parent {
        Ok(None) => issue.run(&irp).0,
        Ok(Some(parent)) => issue.run(&irp.set(16, parent.object.body())).0,
        Err(status) => status,
    }
}

/// The target's folder, when the new name is more than a last component.
fn open_parent(issue: &Issue<'_>, class: u32, bytes: &[u8]) -> Result<Option<Parent>, NtStatus> {
    let (_, name) = super::change::target_name(bytes).ok_or(NtStatus::INFO_LENGTH_MISMATCH)?;
    if name.first() != Some(&SEPARATOR) {
        return Ok(None);
    }
    let text = String::from_utf16(&name).map_err(|_| NtStatus::OBJECT_NAME_INVALID)?;
    let device = issue.open.volume.device_name();
    // A full path of the namespace, or one from the volume's root.
    let path = match issue.machine.nt.objects().namespace().lookup(&text) {
        Ok(found) if super::io::volume_device(&found.object).is_ok() => {
            let target = super::io::volume_device(&found.object)?;
            if !Arc::ptr_eq(&target.volume, &issue.open.volume) {
                return Err(NtStatus::NOT_SAME_DEVICE);
            }
            format!("{device}{}", found.rest)
        }
        _ => format!("{device}{text}"),
    };
    let process = issue.machine.nt.system_process(issue.machine);
    let access = if matches!(class, class::LINK | class::LINK_EX) {
        AccessMask::FILE_WRITE_DATA
    } else {
        AccessMask::FILE_WRITE_DATA | AccessMask::SYNCHRONIZE
    };
    let mut parameters = OpenParameters::new(process, KERNEL_MODE, access.bits());
    parameters.io_flags = io_flag::OPEN_TARGET_DIRECTORY;
    parameters.options = super::options::option::OPEN_FOR_BACKUP_INTENT;
    let (object, _) = open_by_name(issue.machine, &path, &parameters, issue.below)?;
    let handle = process.handles().insert(&object, access.bits(), None);
    Ok(Some(Parent { object, handle, process: Arc::clone(process) }))
}

/// The target's folder, open by a kernel handle for as long as the change takes.
struct Parent {
    object: ObjectRef,
    handle: usize,
    process: Arc<Process>,
}

impl Drop for Parent {
    fn drop(&mut self) {
        // It was opened for this change, and nobody else knows it.
        let _closed = self.process.close_handle(self.handle);
    }
}
