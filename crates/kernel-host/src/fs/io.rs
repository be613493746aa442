//! Requests on files, as they travel: through the filters attached to the volume, then to the file system.
//!
//! Each function takes the instance below which the request starts: `None` is the top of the stack, where programs and
//! Zw calls enter; a filter's own Flt calls start below its own instance and so never come back to it.

use std::sync::Arc;

use nt_types::{AccessMask, FILE_OBJECT, KERNEL_MODE, KPROCESSOR_MODE, NtStatus, ObjectFlags, USER_MODE};

use super::device::{File, VolumeDevice, subject};
use super::information;
use super::open::Open;
use super::options::{CreateRequest, io_flag};
use super::path::{VolumePath, wide};
use crate::flt::{self, Instance, Operation, major};
use crate::machine::Inner;
use crate::nt::ob::ObjectRef;
use crate::nt::parse::ParseRequest;
use crate::nt::raw::{Raw, field};
use crate::process::Process;

/// Final status and `Information` of a request.
pub(crate) type Outcome = (NtStatus, usize);

/// What an open asks for, but for the name.
#[derive(Clone, Debug)]
pub(crate) struct OpenParameters {
    pub(crate) access: u32,
    pub(crate) file_attributes: u32,
    pub(crate) share: u32,
    pub(crate) disposition: u32,
    pub(crate) options: u32,
    /// `OBJ_*`.
    pub(crate) object_flags: u32,
    /// `IO_*`.
    pub(crate) io_flags: u32,
    pub(crate) mode: KPROCESSOR_MODE,
    /// Whose token counts.
    pub(crate) process: Arc<Process>,
}

impl OpenParameters {
    /// From NtCreateFile or NtOpenFile. An open that is neither (by the object manager alone) is one for attributes.
    pub(crate) fn from_parse(request: &ParseRequest<'_>) -> Self {
        let file = request.file.unwrap_or_default();
        Self {
            access: request.desired_access,
            file_attributes: file.file_attributes,
            share: file.share_access,
            disposition: if request.file.is_some() { file.disposition } else { super::options::disposition::OPEN },
            options: file.options,
            object_flags: request.attributes,
            io_flags: 0,
            mode: request.mode,
            process: Arc::clone(request.process),
        }
    }

    fn checked(&self) -> bool {
        self.mode == USER_MODE
            || self.object_flags & ObjectFlags::FORCE_ACCESS_CHECK.bits() != 0
            || self.io_flags & io_flag::FORCE_ACCESS_CHECK != 0
    }
}

/// IRP_MJ_CREATE of `rest` on a volume. The file object's first reference, and `Information`.
///
/// # Errors
/// What the filters or the file system say.
pub(crate) fn create(
    machine: &Arc<Inner>,
    device: &ObjectRef,
    rest: &str,
    parameters: &OpenParameters,
    below: Option<&Arc<Instance>>,
) -> Result<(ObjectRef, usize), NtStatus> {
    let volume = &device.payload::<VolumeDevice>().ok_or(NtStatus::INVALID_DEVICE_REQUEST)?.volume;
    let name = wide(rest);
    if name.len() > nt_types::UNICODE_STRING::MAX_CHARS {
        return Err(NtStatus::OBJECT_NAME_INVALID);
    }
    let request = CreateRequest {
        path: VolumePath::parse(&name)?,
        access: AccessMask::from_bits_retain(parameters.access),
        share: parameters.share,
        disposition: parameters.disposition,
        options: parameters.options,
        attributes: parameters.file_attributes,
        subject: subject(&parameters.process, parameters.checked()),
        io_flags: parameters.io_flags,
        dont_reparse: parameters.object_flags & ObjectFlags::DONT_REPARSE.bits() != 0,
        case_sensitive: false,
    };
    request.validate()?;
    let object = File::create_object(machine, device, rest)?;
    let file = object.payload::<File>().ok_or(NtStatus::INVALID_DEVICE_REQUEST)?;
    let operation = Operation::create(&object, parameters).on(false, request.path.volume);
    let (status, information) =
        flt::run(machine, volume, below, &operation, &mut || match volume.create(request.clone()) {
            Ok(created) => {
                file.attach(&object, &created);
                (NtStatus::SUCCESS, created.information)
            }
            Err(status) => (status, 0),
        });
    if status.is_success() && file.open().is_ok() {
        return Ok((object, information));
    }
    // A filter may have failed a create that the file system let through: it is as if it had never been.
    if let Ok(open) = file.open() {
        open.clean_up();
    }
    Err(if status.is_success() { NtStatus::UNSUCCESSFUL } else { status })
}

/// IRP_MJ_READ into host memory.
pub(crate) fn read(
    machine: &Arc<Inner>,
    object: &ObjectRef,
    below: Option<&Arc<Instance>>,
    mode: KPROCESSOR_MODE,
    offset: i64,
    buffer: &mut [u8],
) -> Outcome {
    let Ok((file, open)) = opened(object) else { return (NtStatus::INVALID_DEVICE_REQUEST, 0) };
    let Some(volume) = file.volume() else { return (NtStatus::VOLUME_DISMOUNTED, 0) };
    let address = buffer.as_mut_ptr().expose_provenance();
    let operation = Operation::transfer(major::READ, object, mode, offset, address, buffer.len())
        .on(open.is_non_cached(), open.is_volume());
    flt::run(machine, &volume, below, &operation, &mut || outcome(open.read(offset, buffer)))
}

/// IRP_MJ_WRITE from host memory.
pub(crate) fn write(
    machine: &Arc<Inner>,
    object: &ObjectRef,
    below: Option<&Arc<Instance>>,
    mode: KPROCESSOR_MODE,
    offset: i64,
    bytes: &[u8],
) -> Outcome {
    let Ok((file, open)) = opened(object) else { return (NtStatus::INVALID_DEVICE_REQUEST, 0) };
    let Some(volume) = file.volume() else { return (NtStatus::VOLUME_DISMOUNTED, 0) };
    let address = bytes.as_ptr().expose_provenance();
    let operation = Operation::transfer(major::WRITE, object, mode, offset, address, bytes.len())
        .on(open.is_non_cached(), open.is_volume());
    flt::run(machine, &volume, below, &operation, &mut || outcome(open.write(offset, bytes)))
}

/// IRP_MJ_QUERY_INFORMATION: status and answer.
pub(crate) fn query_information(
    machine: &Arc<Inner>,
    object: &ObjectRef,
    below: Option<&Arc<Instance>>,
    class: u32,
    length: usize,
) -> (NtStatus, Vec<u8>) {
    let Ok((file, open)) = opened(object) else { return (NtStatus::INVALID_DEVICE_REQUEST, Vec::new()) };
    let Some(volume) = file.volume() else { return (NtStatus::VOLUME_DISMOUNTED, Vec::new()) };
    let mut bytes = Vec::new();
    let operation =
        Operation::information(major::QUERY_INFORMATION, object, class, 0, length).on(false, open.is_volume());
    let (status, _) = flt::run(machine, &volume, below, &operation, &mut || {
        let (status, answer) = information::query(&open, class, length);
        bytes = answer;
        (status, bytes.len())
    });
    (status, bytes)
}

/// IRP_MJ_SET_INFORMATION.
pub(crate) fn set_information(
    machine: &Arc<Inner>,
    object: &ObjectRef,
    below: Option<&Arc<Instance>>,
    class: u32,
    bytes: &[u8],
) -> NtStatus {
    let Ok((file, open)) = opened(object) else { return NtStatus::INVALID_DEVICE_REQUEST };
    let Some(volume) = file.volume() else { return NtStatus::VOLUME_DISMOUNTED };
    let address = bytes.as_ptr().expose_provenance();
    let operation =
        Operation::information(major::SET_INFORMATION, object, class, address, bytes.len()).on(false, open.is_volume());
    let run = &mut || match super::change::set(&open, class, bytes) {
        Ok(()) => (NtStatus::SUCCESS, 0),
        Err(status) => (status, 0),
    };
    flt::run(machine, &volume, below, &operation, run).0
}

/// IRP_MJ_CLEANUP: the last handle to the file object is closed. Cannot fail, and goes to the file system whatever filters say.
pub(crate) fn cleanup(machine: Option<&Arc<Inner>>, object: &ObjectRef, open: &Open) {
    if let Some(machine) = machine {
        let operation = Operation::plain(major::CLEANUP, object).on(false, open.is_volume());
        let _outcome = flt::run(machine, &open.volume, None, &operation, &mut || {
            open.clean_up();
            (NtStatus::SUCCESS, 0)
        });
    }
    open.clean_up();
}

/// IRP_MJ_CLOSE: the last reference is gone; only the body's address is left of the object.
pub(crate) fn close(machine: &Arc<Inner>, body: usize, open: &Arc<Open>) {
    flt::contexts::closing(machine, body, open);
    let operation = Operation::close(body).on(false, open.is_volume());
    // A close cannot fail.
    let _outcome = flt::run(machine, &open.volume, None, &operation, &mut || {
        flt::contexts::closed(machine, body, open);
        (NtStatus::SUCCESS, 0)
    });
    open.clean_up();
    flt::contexts::close_ended(machine, body, open);
}

/// The offset at which a request without one starts, for synchronous opens.
pub(crate) fn current_offset(open: &Open) -> i64 {
    open.position.load(std::sync::atomic::Ordering::Relaxed)
}

/// Moves the current byte offset behind a transfer.
pub(crate) fn advance(object: &ObjectRef, open: &Open, offset: i64, count: usize) {
    if open.is_synchronous() {
        let next = offset.saturating_add_unsigned(count as u64);
        open.position.store(next, std::sync::atomic::Ordering::Relaxed);
        field!(Raw::<FILE_OBJECT>::at(object.body()), FILE_OBJECT, CurrentByteOffset).write(next);
    }
}

/// The payload of an open file object.
///
/// # Errors
/// `OBJECT_TYPE_MISMATCH` for another object, `INVALID_DEVICE_REQUEST` before its create succeeded.
pub(crate) fn opened(object: &ObjectRef) -> Result<(Arc<File>, Arc<Open>), NtStatus> {
    let file = object.payload::<File>().ok_or(NtStatus::OBJECT_TYPE_MISMATCH)?;
    let open = Arc::clone(file.open()?);
    Ok((file, open))
}

fn outcome(result: Result<usize, NtStatus>) -> Outcome {
    match result {
        Ok(count) => (NtStatus::SUCCESS, count),
        Err(status) => (status, 0),
    }
}

/// Opens by a path of the object namespace.
///
/// # Errors
/// Those of the name look-up, the filters and the file system.
pub(crate) fn open_by_name(
    machine: &Arc<Inner>,
    path: &str,
    parameters: &OpenParameters,
    below: Option<&Arc<Instance>>,
) -> Result<(ObjectRef, usize), NtStatus> {
    let found = machine.nt.objects().namespace().lookup(path)?;
    if found.object.payload::<VolumeDevice>().is_some() {
        return create(machine, &found.object, &found.rest, parameters, below);
    }
    let request = ParseRequest {
        rest: &found.rest,
        full_path: path,
        process: &parameters.process,
        mode: if parameters.checked() { USER_MODE } else { KERNEL_MODE },
        desired_access: parameters.access,
        attributes: parameters.object_flags,
        file: Some(crate::nt::parse::FileOpen {
            file_attributes: parameters.file_attributes,
            share_access: parameters.share,
            disposition: parameters.disposition,
            options: parameters.options,
            allocation_size: None,
        }),
    };
    let object = found.object.any_payload().parse(&found.object, &request)?;
    if object.type_name() == "File" { Ok((object, 1)) } else { Err(NtStatus::OBJECT_TYPE_MISMATCH) }
}
