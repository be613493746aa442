//! IRP_MJ_CREATE on its way: from a path of the object namespace to an open file object.

use std::sync::Arc;

use fltmgr::raw::FLT_IO_PARAMETER_BLOCK;
use nt_types::{AccessMask, FILE_OBJECT, KERNEL_MODE, NtStatus, ObjectFlags, UNICODE_STRING, USER_MODE};

use super::device::{File, subject};
use super::io::{OpenParameters, Outcome, volume_device};
use super::options::{CreateRequest, option};
use super::path::{VolumePath, wide};
use super::volume::Volume;
use crate::flt::{self, Flight, Instance, Operation, operation};
use crate::machine::Inner;
use crate::nt::ob::ObjectRef;
use crate::nt::parse::ParseRequest;
use crate::nt::raw::{Raw, field};

/// Names that a filter may put in place of one another in one open, as many as NT's object manager follows.
const MAX_REPARSES: usize = 31;

/// `IO_REPARSE`: the file object has a new name.
const IO_REPARSE: usize = 0;

/// `IO_SECURITY_CONTEXT`, and the `ACCESS_STATE` that it points at.
#[repr(C)]
pub(super) struct SecurityContext {
    quality_of_service: usize,
    access_state: usize,
    desired_access: u32,
    full_create_options: u32,
    state: AccessState,
}

/// The part of `ACCESS_STATE` that has a meaning here; the rest is zero.
#[repr(C)]
struct AccessState {
    operation_id: u64,
    evaluated: [u8; 4],
    flags: u32,
    remaining_desired_access: u32,
    previously_granted_access: u32,
    original_desired_access: u32,
    rest: [u64; 17],
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
    let result = follow(machine, path.to_owned(), parameters, below);
    parameters.ecps.end(machine);
    result
}

/// Opens by a path, and by those that filters put in its place.
fn follow(
    machine: &Arc<Inner>,
    mut path: String,
    parameters: &OpenParameters,
    below: Option<&Arc<Instance>>,
) -> Result<(ObjectRef, usize), NtStatus> {
    for _ in 0..=MAX_REPARSES {
        let found = machine.nt.objects().namespace().lookup(&path)?;
        if volume_device(&found.object).is_err() {
            return open_elsewhere(&found.object, &found.rest, &path, parameters);
        }
        match create_once(machine, &found.object, &wide(&found.rest), parameters, below)? {
            Made::Opened(object, information) => return Ok((object, information)),
            Made::Renamed(name) => path = name,
        }
    }
    Err(NtStatus::OBJECT_NAME_NOT_FOUND)
}

/// What is no file system has its own way to open.
fn open_elsewhere(
    object: &ObjectRef,
    rest: &str,
    path: &str,
    parameters: &OpenParameters,
) -> Result<(ObjectRef, usize), NtStatus> {
    let request = ParseRequest {
        rest,
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
            allocation_size: parameters.allocation_size,
            ea: parameters.ea,
            io_flags: parameters.io_flags,
        }),
    };
    let opened = object.any_payload().parse(object, &request)?;
    if opened.type_name() == "File" { Ok((opened, 1)) } else { Err(NtStatus::OBJECT_TYPE_MISMATCH) }
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
    settle(machine, create_once(machine, device, &wide(rest), parameters, below), parameters, below)
}

/// The end of a create, or its other name.
fn settle(
    machine: &Arc<Inner>,
    made: Result<Made, NtStatus>,
    parameters: &OpenParameters,
    below: Option<&Arc<Instance>>,
) -> Result<(ObjectRef, usize), NtStatus> {
    let result = match made {
        Ok(Made::Opened(object, information)) => Ok((object, information)),
        Ok(Made::Renamed(path)) => follow(machine, path, parameters, below),
        Err(status) => Err(status),
    };
    parameters.ecps.end(machine);
    result
}

/// IRP_MJ_CREATE with FILE_OPEN_BY_FILE_ID: `id` is what stands in the name's place, `related` any open file of the volume.
///
/// # Errors
/// `INVALID_PARAMETER` for an id that no file has, and as for [`create`].
pub(crate) fn create_by_id(
    machine: &Arc<Inner>,
    related: &ObjectRef,
    id: &[u16],
    parameters: &OpenParameters,
    below: Option<&Arc<Instance>>,
) -> Result<(ObjectRef, usize), NtStatus> {
    let file = related.payload::<File>().ok_or(NtStatus::OBJECT_TYPE_MISMATCH)?;
    let parameters = OpenParameters { related: Some(related.clone()), ..parameters.clone() };
    settle(machine, create_once(machine, file.device(), id, &parameters, below), &parameters, below)
}

/// How a create ended.
enum Made {
    Opened(ObjectRef, usize),
    /// A filter put another name in the file object's place.
    Renamed(String),
}

fn create_once(
    machine: &Arc<Inner>,
    device: &ObjectRef,
    rest: &[u16],
    parameters: &OpenParameters,
    below: Option<&Arc<Instance>>,
) -> Result<Made, NtStatus> {
    let volume = &volume_device(device)?.volume;
    let by_id = parameters.options & option::OPEN_BY_FILE_ID != 0;
    let mut parameters = parameters.clone();
    if !by_id {
        let path = VolumePath::parse(rest)?;
        parameters.of_volume = path.volume;
    }
    if rest.len() > UNICODE_STRING::MAX_CHARS {
        return Err(NtStatus::OBJECT_NAME_INVALID);
    }
    // Before any filter sees it, the I/O manager checks what goes with what.
    request(&parameters, VolumePath::root(), parameters.access).validate()?;
    let object = File::create_object(machine, device, rest)?;
    if let Some(related) = &parameters.related {
        let pointer = Raw::<FILE_OBJECT>::at(related.body()).pointer();
        field!(Raw::<FILE_OBJECT>::at(object.body()), FILE_OBJECT, RelatedFileObject).write(pointer);
    }
    let file = object.payload::<File>().ok_or(NtStatus::INVALID_DEVICE_REQUEST)?;
    let mut security = SecurityContext::new(&parameters);
    let operation = Operation::create(&object, &parameters, security.address());
    let (status, information) = flt::run(machine, volume, below, &operation);
    drop(operation);
    field!(Raw::<FILE_OBJECT>::at(object.body()), FILE_OBJECT, RelatedFileObject).write(std::ptr::null_mut());
    if status == NtStatus::REPARSE && information == IO_REPARSE && file.open().is_err() {
        let name = crate::nt::unicode::name(field!(Raw::<FILE_OBJECT>::at(object.body()), FILE_OBJECT, FileName))?;
        return Ok(Made::Renamed(name));
    }
    if status.is_success() && file.open().is_ok() {
        return Ok(Made::Opened(object, information));
    }
    // A filter may have failed a create that the file system let through: it is as if it had never been.
    if let Ok(open) = file.open() {
        open.clean_up();
    }
    Err(if status.is_success() { NtStatus::UNSUCCESSFUL } else { status })
}

impl SecurityContext {
    pub(super) fn new(parameters: &OpenParameters) -> Self {
        let access = super::access::map_generic(AccessMask::from_bits_retain(parameters.access)).bits();
        let (remaining, granted) = if parameters.checked() { (access, 0) } else { (0, access) };
        Self {
            quality_of_service: 0,
            access_state: 0,
            desired_access: access,
            full_create_options: parameters.options,
            state: AccessState {
                operation_id: 0,
                evaluated: [0; 4],
                flags: 0,
                remaining_desired_access: remaining,
                previously_granted_access: granted,
                original_desired_access: parameters.access,
                rest: [0; 17],
            },
        }
    }

    pub(super) fn address(&mut self) -> usize {
        self.access_state = (&raw mut self.state).expose_provenance();
        (&raw mut *self).expose_provenance()
    }
}

pub(super) fn request(parameters: &OpenParameters, path: VolumePath, access: u32) -> CreateRequest {
    CreateRequest {
        path,
        access: AccessMask::from_bits_retain(access),
        share: parameters.share,
        disposition: parameters.disposition,
        options: parameters.options,
        attributes: parameters.file_attributes,
        subject: subject(&parameters.process, parameters.checked()),
        io_flags: parameters.io_flags,
        dont_reparse: parameters.object_flags & ObjectFlags::DONT_REPARSE.bits() != 0,
        case_sensitive: false,
        extended_attributes: Vec::new(),
        allocation_size: parameters.allocation_size.unwrap_or(0),
    }
}

/// The create as it arrives at the file system, with what filters made of it.
pub(super) fn serve(flight: &Flight) -> Outcome {
    match arrive(flight) {
        Ok(information) => (NtStatus::SUCCESS, information),
        Err(status) => (status, 0),
    }
}

fn arrive(flight: &Flight) -> Result<usize, NtStatus> {
    let parameters = flight.create.as_deref().ok_or(NtStatus::INVALID_PARAMETER)?;
    let block = flight.block();
    let target = field!(block, FLT_IO_PARAMETER_BLOCK, TargetFileObject).read().addr();
    let object = flight.machine().nt.objects().lookup(target).ok_or(NtStatus::INVALID_PARAMETER)?;
    let file = object.payload::<File>().ok_or(NtStatus::OBJECT_TYPE_MISMATCH)?;
    let volume = file.volume().ok_or(NtStatus::VOLUME_DISMOUNTED)?;
    let given: fltmgr::raw::Create = operation::parameters(block);
    let security = Raw::<SecurityContext>::at(given.SecurityContext.addr());
    let access = field!(security, SecurityContext, desired_access).read();
    let body = Raw::<FILE_OBJECT>::at(target);
    let name = crate::nt::unicode::units(field!(body, FILE_OBJECT, FileName));
    let by_id = given.Options & option::OPEN_BY_FILE_ID != 0;
    let path = if by_id { volume.path_of_id(&name)? } else { VolumePath::parse(&name)? };
    let mut request = request(parameters, path, access);
    request.share = u32::from(given.ShareAccess);
    request.disposition = given.Options >> 24;
    request.options = given.Options & 0x00FF_FFFF;
    request.attributes = u32::from(given.FileAttributes);
    request.allocation_size = given.AllocationSize;
    request.extended_attributes = super::ea::of_create(given.EaBuffer.addr(), given.EaLength)?;
    request.validate()?;
    let created = Volume::create(&volume, request)?;
    file.attach(&object, &created);
    Ok(created.information)
}
