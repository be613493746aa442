//! A device as another driver in the kernel opens it, for tests that want to be that driver.

use std::sync::Arc;

use nt_types::{
    DEVICE_OBJECT, FILE_OBJECT, IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP, IoStackDeviceIoControl, IoStackParameters,
    KERNEL_MODE, KPROCESSOR_MODE, NtStatus, ObjectFlags,
};

use super::open::open_path;
use super::{irp, request};
use crate::machine::{Inner, Machine};
use crate::nt::ob::ObjectRef;
use crate::nt::parse::{FileOpen, ParseRequest};
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

/// An open device. Dropping it gives the file object back, as a driver's `ObDereferenceObject` does.
#[derive(Debug)]
pub struct KernelDevice {
    machine: Arc<Inner>,
    /// Taken out when it is dropped, inside the machine.
    file: Option<ObjectRef>,
}

/// A request as its sender fills it in. What a pointer names has to fit its length: nothing checks it but the driver.
#[derive(Clone, Copy, Debug)]
pub struct KernelRequest {
    /// `IRP_MJ_...`.
    pub major: u8,
    /// `RequestorMode` of the IRP.
    pub mode: KPROCESSOR_MODE,
    /// `IoControlCode`.
    pub code: u32,
    /// `Type3InputBuffer`, an address.
    pub input: usize,
    /// `InputBufferLength` in bytes.
    pub input_length: u32,
    /// `UserBuffer`, an address.
    pub output: usize,
    /// `OutputBufferLength` in bytes.
    pub output_length: u32,
}

impl Machine {
    /// Opens a device from the kernel, by its NT path (`\Device\...`).
    ///
    /// # Errors
    /// The object manager's, and that of the driver's `IRP_MJ_CREATE`.
    pub fn open_device(&self, path: &str) -> Result<KernelDevice, NtStatus> {
        let machine = self.inner();
        let system = Arc::clone(machine.nt.system_process(machine));
        let request = ParseRequest {
            rest: "",
            full_path: path,
            process: &system,
            mode: KERNEL_MODE,
            desired_access: nt_types::AccessMask::FILE_READ_DATA.bits(),
            attributes: ObjectFlags::KERNEL_HANDLE.bits(),
            file: Some(FileOpen { disposition: nt_types::FILE_OPEN, ..FileOpen::default() }),
        };
        let file = Thread::enter(machine, |_| open_path(machine, &request))?;
        Ok(KernelDevice { machine: Arc::clone(machine), file: Some(file) })
    }
}

impl KernelDevice {
    /// Sends a request and waits for its end; what is in `IoStatus` then.
    ///
    /// # Errors
    /// `STATUS_UNSUCCESSFUL` when the machine stopped, which [`Machine::finding`] explains.
    pub fn send(&self, sent: &KernelRequest) -> Result<IO_STATUS_BLOCK, NtStatus> {
        let file = self.file.as_ref().map_or(0, ObjectRef::body);
        let file = Raw::<FILE_OBJECT>::at(file);
        let device = super::attach::top_of(Raw::<DEVICE_OBJECT>::of(field!(file, FILE_OBJECT, DeviceObject).read()));
        let outcome = Thread::enter(&self.machine, |thread| {
            let stack_size = field!(device, DEVICE_OBJECT, StackSize).read();
            let system = crate::process::SYSTEM_PROCESS_ID;
            let (irp, _, waiter) = irp::create_for_host(thread, stack_size, 0, system, None)?;
            let mut parameters = IoStackDeviceIoControl::new(sent.code, sent.input_length, sent.output_length);
            parameters.Type3InputBuffer = Raw::at(sent.input).pointer();
            field!(irp, IRP, RequestorMode).write(sent.mode);
            field!(irp, IRP, UserBuffer).write(Raw::at(sent.output).pointer());
            field!(irp, IRP, OriginalFileObject).write(file.pointer());
            let location = irp::next_location(irp);
            field!(location, IO_STACK_LOCATION, MajorFunction).write(sent.major);
            field!(location, IO_STACK_LOCATION, FileObject).write(file.pointer());
            field!(location, IO_STACK_LOCATION, Parameters).write(IoStackParameters { DeviceIoControl: parameters });
            request::send(thread, device, irp, &waiter)
        });
        outcome.ok_or(NtStatus::UNSUCCESSFUL)
    }
}

impl Drop for KernelDevice {
    fn drop(&mut self) {
        // The driver hears of it (IRP_MJ_CLOSE), so it happens on a thread of the machine.
        Thread::enter(&self.machine, |_| drop(self.file.take()));
    }
}
