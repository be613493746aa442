//! IRP_MJ_NETWORK_QUERY_OPEN: what a name's attributes are, without an open.

use std::sync::Arc;

use fltmgr::raw::NetworkQueryOpen;
use nt_types::{AccessMask, NtStatus, USER_MODE};

use super::buffer::Buffer;
use super::create_io::SecurityContext;
use super::device::File;
use super::information::class;
use super::io::{self, OpenParameters, Outcome, open_by_name, volume_device};
use super::options::option;
use super::path::VolumePath;
use crate::flt::{self, Flight, Kind, Operation, major, operation};
use crate::machine::Inner;
use crate::nt::io::create_irp::CreateIrp;
use crate::nt::raw::{Raw, field};
use crate::process::Process;
use crate::thread::Thread;

/// Bytes of FILE_NETWORK_OPEN_INFORMATION.
pub(crate) const LENGTH: u32 = 56;

/// NtQueryFullAttributesFile: fast I/O first; an open, a query and a close when a filter refuses that.
///
/// # Errors
/// Those of an open for attributes.
pub(crate) fn query(machine: &Arc<Inner>, process: &Arc<Process>, path: &str) -> Result<Vec<u8>, NtStatus> {
    let access = AccessMask::FILE_READ_ATTRIBUTES | AccessMask::SYNCHRONIZE;
    let mut parameters = OpenParameters::new(process, USER_MODE, access.bits());
    parameters.options = option::OPEN_REPARSE_POINT | option::SYNCHRONOUS_IO_NONALERT;
    let found = machine.nt.objects().namespace().lookup(path)?;
    if let Ok(device) = volume_device(&found.object)
        && let Some(answer) = fast(machine, &found.object, &device.volume, &found.rest, &parameters)
    {
        return answer;
    }
    let (object, _) = open_by_name(machine, path, &parameters, None)?;
    let handle = process.handles().insert(&object, access.bits(), None);
    let (status, bytes) = io::query_information(machine, &object, None, class::NETWORK_OPEN, LENGTH as usize);
    drop(object);
    // It was opened just now.
    let _closed = process.close_handle(handle);
    status.ok()?;
    Ok(bytes)
}

/// `None` when a filter refuses fast I/O.
fn fast(
    machine: &Arc<Inner>,
    device: &crate::nt::ob::ObjectRef,
    volume: &Arc<super::volume::Volume>,
    rest: &str,
    parameters: &OpenParameters,
) -> Option<Result<Vec<u8>, NtStatus>> {
    let object = match File::create_object(machine, device, &super::path::wide(rest)) {
        Ok(object) => object,
        Err(status) => return Some(Err(status)),
    };
    let mut security = SecurityContext::new(parameters);
    let security = security.address();
    let irp = Thread::enter(machine, |thread| CreateIrp::new(thread, device, &object, parameters, security));
    let Some(irp) = irp else { return Some(Err(NtStatus::INSUFFICIENT_RESOURCES)) };
    let mut bytes = vec![0_u8; LENGTH as usize];
    let mut operation = Operation::new(Kind::FastIo, major::NETWORK_QUERY_OPEN, object.body(), USER_MODE)
        .set(0, irp.address())
        .set(8, bytes.as_mut_ptr().expose_provenance());
    operation.process = Some(Arc::clone(&parameters.process));
    operation.create = Some(Box::new(parameters.clone()));
    let (status, _) = flt::run(machine, volume, None, &operation);
    (status != NtStatus::FLT_DISALLOW_FAST_IO).then(|| status.ok().map(|()| bytes))
}

/// The file system's side: an open that nobody sees.
pub(super) fn serve(flight: &Flight) -> Outcome {
    let parameters: NetworkQueryOpen = operation::parameters(flight.block());
    let answer = || -> Result<Vec<u8>, NtStatus> {
        let create = flight.create.as_deref().ok_or(NtStatus::INVALID_PARAMETER)?;
        let file = Raw::<nt_types::FILE_OBJECT>::at(flight.target());
        let payload = flight.machine().nt.objects().payload::<File>(flight.target());
        let volume = payload.and_then(|file| file.volume()).ok_or(NtStatus::VOLUME_DISMOUNTED)?;
        let name = crate::nt::unicode::units(field!(file, nt_types::FILE_OBJECT, FileName));
        let request = super::create_io::request(create, VolumePath::parse(&name)?, create.access);
        let created = volume.create(request)?;
        let (status, bytes) = super::information::query(&created.open, class::NETWORK_OPEN, LENGTH as usize);
        status.ok()?;
        Ok(bytes)
    };
    match answer().and_then(|bytes| Buffer::new(parameters.NetworkInformation.addr(), LENGTH).write(&bytes)) {
        Ok(count) => (NtStatus::SUCCESS, count),
        Err(status) => (status, 0),
    }
}
