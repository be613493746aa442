//! The create IRP that a query by name carries: something to read parameters from, which is never sent anywhere.

use std::sync::Arc;

use nt_types::{DEVICE_OBJECT, FILE_OBJECT, IO_STACK_LOCATION, IRP, IRP_MJ_CREATE, IoStackCreate, IoStackParameters};

use super::irp;
use crate::fs::io::OpenParameters;
use crate::machine::Inner;
use crate::nt::ob::ObjectRef;
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

/// The IRP, as long as it exists.
pub(crate) struct CreateIrp {
    machine: Arc<Inner>,
    irp: Raw<IRP>,
}

impl CreateIrp {
    /// An IRP whose current stack location says how `file` would be opened. `security` is the address of an
    /// `IO_SECURITY_CONTEXT`. `None` without memory.
    pub(crate) fn new(
        thread: &Thread,
        device: &ObjectRef,
        file: &ObjectRef,
        parameters: &OpenParameters,
        security: usize,
    ) -> Option<Self> {
        let (irp, _, _) = irp::create_for_host(thread, 1, 0, parameters.process.id(), None)?;
        let made = Self { machine: Arc::clone(thread.machine()), irp };
        let file = Raw::<FILE_OBJECT>::at(file.body());
        field!(irp, IRP, RequestorMode).write(parameters.mode);
        field!(irp, IRP, OriginalFileObject).write(file.pointer());
        let location = irp::next_location(irp);
        field!(irp, IRP, CurrentLocation).write(1);
        field!(irp, IRP, CurrentStackLocation).write(location.pointer());
        let options = parameters.options & 0x00FF_FFFF | parameters.disposition << 24;
        let mut create = IoStackCreate::new(options, parameters.file_attributes as u16, parameters.share as u16);
        create.SecurityContext = Raw::at(security).pointer();
        field!(location, IO_STACK_LOCATION, MajorFunction).write(IRP_MJ_CREATE);
        field!(location, IO_STACK_LOCATION, Flags).write(parameters.operation_flags());
        field!(location, IO_STACK_LOCATION, DeviceObject).write(Raw::<DEVICE_OBJECT>::at(device.body()).pointer());
        field!(location, IO_STACK_LOCATION, FileObject).write(file.pointer());
        field!(location, IO_STACK_LOCATION, Parameters).write(IoStackParameters { Create: create });
        Some(made)
    }

    /// Address of the IRP.
    pub(crate) fn address(&self) -> usize {
        self.irp.address()
    }
}

impl Drop for CreateIrp {
    fn drop(&mut self) {
        if let Some(request) = irp::remove(&self.machine, self.irp) {
            irp::release(&self.machine, &request);
        }
    }
}
