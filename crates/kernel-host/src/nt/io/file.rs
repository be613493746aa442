//! File objects of drivers' devices: an open is `IRP_MJ_CREATE`, its last handle `IRP_MJ_CLEANUP`, its end `IRP_MJ_CLOSE`.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use nt_types::{
    AccessMask, DEVICE_OBJECT, DO_DEVICE_INITIALIZING, DO_EXCLUSIVE, FILE_DEVICE_SECURE_OPEN, FILE_OBJECT,
    FileObjectFlags, IO_STACK_LOCATION, IRP, IRP_MJ_CLEANUP, IRP_MJ_CLOSE, IRP_MJ_CREATE, IoStackCreate,
    IoStackParameters, KPROCESSOR_MODE, NtStatus, ShareAccess, UNICODE_STRING,
};

use super::attach::top_of;
use super::device::DeviceBody;
use super::{irp, request};
use crate::machine::Inner;
use crate::nt::ob::{ObjectBody, ObjectRef};
use crate::nt::parse::{FileOpen, ParseRequest};
use crate::nt::raw::{Raw, field};
use crate::nt::security::access;
use crate::nt::security::impersonation::effective_token;
use crate::process::Process;
use crate::thread::Thread;

/// `IO_TYPE_FILE`.
const IO_TYPE_FILE: i16 = 5;

/// `FILE_SYNCHRONOUS_IO_ALERT | FILE_SYNCHRONOUS_IO_NONALERT`.
const SYNCHRONOUS_OPTIONS: u32 = 0x30;

/// Payload of a file object on a driver's device.
#[derive(Debug)]
pub(crate) struct DeviceFile {
    machine: Weak<Inner>,
    /// Keeps the device alive.
    device: ObjectRef,
    /// Name behind the device's, behind `FILE_OBJECT::FileName`.
    name: Box<[u16]>,
    process_id: u64,
    /// Set once `IRP_MJ_CREATE` has succeeded: only then the driver hears of the end.
    is_open: AtomicBool,
}

impl ObjectBody for DeviceFile {
    fn type_name(&self) -> &'static str {
        "File"
    }

    fn on_last_handle_close(&self, object: &ObjectRef, process: &Arc<Process>) {
        let file = Raw::<FILE_OBJECT>::at(object.body());
        self.send(file, IRP_MJ_CLEANUP, Some(process));
        let flags = field!(file, FILE_OBJECT, Flags);
        flags.write(flags.read() | FileObjectFlags::CLEANUP_COMPLETE.bits());
    }

    fn on_delete(&self, body: usize) {
        self.send(Raw::at(body), IRP_MJ_CLOSE, None);
    }
}

impl DeviceFile {
    /// Sends a request without parameters and waits for it; its outcome matters to nobody.
    fn send(&self, file: Raw<FILE_OBJECT>, major: u8, process: Option<&Arc<Process>>) {
        if !self.is_open.load(Ordering::Acquire) {
            return;
        }
        let Some(machine) = self.machine.upgrade() else { return };
        let named = Raw::<DEVICE_OBJECT>::at(self.device.body());
        let device = top_of(named);
        Thread::enter(&machine, |thread| {
            in_context(thread, process, || {
                let stack_size = field!(device, DEVICE_OBJECT, StackSize).read();
                let made = irp::create_for_host(thread, stack_size, 0, self.process_id, None);
                let Some((irp, _, waiter)) = made else { return };
                let location = irp::next_location(irp);
                field!(location, IO_STACK_LOCATION, MajorFunction).write(major);
                field!(location, IO_STACK_LOCATION, FileObject).write(file.pointer());
                field!(irp, IRP, OriginalFileObject).write(file.pointer());
                request::send(thread, device, irp, &waiter);
            });
        });
        if major == IRP_MJ_CLOSE && count_opens(named, -1) == 0 {
            // The driver's unload may have waited for this.
            if let Some(device) = self.device.payload::<DeviceBody>() {
                crate::machine::go_on_unloading(&machine, device.driver());
            }
        }
    }
}

/// Runs `body` in the context of a process; `None` leaves the context as it is.
pub(crate) fn in_context<R>(thread: &Thread, process: Option<&Arc<Process>>, body: impl FnOnce() -> R) -> R {
    let Some(process) = process else { return body() };
    let before = thread.set_process(if process.is_system() { None } else { Some(Arc::clone(process)) });
    let result = body();
    thread.set_process(before);
    result
}

/// Counts opens of a device up or down: how many there are now.
fn count_opens(device: Raw<DEVICE_OBJECT>, change: i32) -> i32 {
    let count = field!(device, DEVICE_OBJECT, ReferenceCount);
    // SAFETY: the field is in a device object that the caller keeps alive, and aligned.
    let count = unsafe { std::sync::atomic::AtomicI32::from_ptr(count.pointer()) };
    count.fetch_add(change, Ordering::AcqRel) + change
}

/// Opens a device: what the parse procedure of device objects does.
///
/// # Errors
/// `STATUS_NO_SUCH_DEVICE` while the device is being initialised or its driver's unload is held back, `STATUS_ACCESS_DENIED` for a second open of an exclusive
/// device, and whatever the driver's `IRP_MJ_CREATE` routine answers.
pub(super) fn open(
    machine: &Arc<Inner>,
    device: &ObjectRef,
    request: &ParseRequest<'_>,
) -> Result<ObjectRef, NtStatus> {
    let raw = Raw::<DEVICE_OBJECT>::at(device.body());
    let flags = field!(raw, DEVICE_OBJECT, Flags).read();
    let is_leaving = device.payload::<DeviceBody>().is_some_and(|body| body.driver().is_leaving());
    if flags & DO_DEVICE_INITIALIZING != 0 || is_leaving {
        return Err(NtStatus::NO_SUCH_DEVICE);
    }
    if flags & DO_EXCLUSIVE != 0 && field!(raw, DEVICE_OBJECT, ReferenceCount).read() > 0 {
        return Err(NtStatus::ACCESS_DENIED);
    }
    check_access(machine, device, request)?;
    let file = create_object(machine, device, request)?;
    let create = request.file.unwrap_or(FileOpen { disposition: nt_types::FILE_OPEN, ..FileOpen::default() });
    let outcome = Thread::enter(machine, |thread| {
        in_context(thread, Some(request.process), || send_create(thread, top_of(raw), &file, request, create))
    });
    let status = outcome.ok_or(NtStatus::UNSUCCESSFUL)?;
    status.ok()?;
    if let Some(payload) = file.payload::<DeviceFile>() {
        payload.is_open.store(true, Ordering::Release);
    }
    count_opens(raw, 1);
    Ok(file)
}

/// Checks a program's open against the device's descriptor. Names behind the device's are its driver's business, unless the
/// device has `FILE_DEVICE_SECURE_OPEN`: the documented trap.
fn check_access(machine: &Inner, device: &ObjectRef, request: &ParseRequest<'_>) -> Result<(), NtStatus> {
    let characteristics = field!(Raw::<DEVICE_OBJECT>::at(device.body()), DEVICE_OBJECT, Characteristics).read();
    if request.mode == nt_types::KERNEL_MODE
        || (!request.rest.is_empty() && characteristics & FILE_DEVICE_SECURE_OPEN == 0)
    {
        return Ok(());
    }
    let Some(body) = device.payload::<DeviceBody>() else { return Ok(()) };
    let token = effective_token(machine, request.process)?;
    access::check(&body.descriptor(), &token, request.desired_access, &access::FILE_MAPPING).map(drop)
}

/// The device that a file of a driver's is open on.
pub(crate) fn device_of(file: &ObjectRef) -> Option<Arc<DeviceBody>> {
    file.payload::<DeviceFile>()?.device.payload()
}

fn create_object(machine: &Arc<Inner>, device: &ObjectRef, request: &ParseRequest<'_>) -> Result<ObjectRef, NtStatus> {
    let name: Box<[u16]> = request.rest.encode_utf16().collect();
    let text = UNICODE_STRING::from_utf16(&name).ok_or(NtStatus::OBJECT_NAME_INVALID)?;
    let payload = Arc::new(DeviceFile {
        machine: Arc::downgrade(machine),
        device: device.clone(),
        name,
        process_id: request.process.id(),
        is_open: AtomicBool::new(false),
    });
    debug_assert!(payload.name.len() * 2 == usize::from(text.Length), "the buffer does not move with its owner");
    let object = machine.nt.objects().create(size_of::<FILE_OBJECT>(), payload)?;
    let file = Raw::<FILE_OBJECT>::at(object.body());
    let granted = AccessMask::from_bits_retain(request.desired_access);
    let shared = ShareAccess::from_bits_retain(request.file.unwrap_or_default().share_access);
    field!(file, FILE_OBJECT, Type).write(IO_TYPE_FILE);
    field!(file, FILE_OBJECT, Size).write(i16::from(size_of::<FILE_OBJECT>() as u8));
    field!(file, FILE_OBJECT, DeviceObject).write(Raw::at(device.body()).pointer());
    field!(file, FILE_OBJECT, FileName).write(text);
    if request.file.unwrap_or_default().options & SYNCHRONOUS_OPTIONS != 0 {
        field!(file, FILE_OBJECT, Flags).write(FileObjectFlags::SYNCHRONOUS_IO.bits());
    }
    field!(file, FILE_OBJECT, ReadAccess).write(u8::from(granted.contains(AccessMask::FILE_READ_DATA)));
    field!(file, FILE_OBJECT, WriteAccess).write(u8::from(granted.contains(AccessMask::FILE_WRITE_DATA)));
    field!(file, FILE_OBJECT, DeleteAccess).write(u8::from(granted.contains(AccessMask::DELETE)));
    field!(file, FILE_OBJECT, SharedRead).write(u8::from(shared.contains(ShareAccess::READ)));
    field!(file, FILE_OBJECT, SharedWrite).write(u8::from(shared.contains(ShareAccess::WRITE)));
    field!(file, FILE_OBJECT, SharedDelete).write(u8::from(shared.contains(ShareAccess::DELETE)));
    Ok(object)
}

/// `IO_SECURITY_CONTEXT`: what a create routine finds behind `Parameters.Create.SecurityContext`.
#[repr(C)]
#[derive(Clone, Copy)]
struct SecurityContext {
    security_qos: usize,
    access_state: usize,
    desired_access: u32,
    full_create_options: u32,
}

/// Sends `IRP_MJ_CREATE`; its final status, or `None` when the machine stopped.
fn send_create(
    thread: &Thread,
    device: Raw<DEVICE_OBJECT>,
    file: &ObjectRef,
    request: &ParseRequest<'_>,
    create: FileOpen,
) -> Option<NtStatus> {
    let stack_size = field!(device, DEVICE_OBJECT, StackSize).read();
    let (irp, extra, waiter) =
        irp::create_for_host(thread, stack_size, size_of::<SecurityContext>(), request.process.id(), None)?;
    Raw::at(extra).write(SecurityContext {
        security_qos: 0,
        access_state: 0,
        desired_access: request.desired_access,
        full_create_options: create.options,
    });
    let options = create.options & 0x00FF_FFFF | create.disposition << 24;
    let mut parameters = IoStackCreate::new(options, create.file_attributes as u16, create.share_access as u16);
    parameters.SecurityContext = Raw::at(extra).pointer();
    let mode: KPROCESSOR_MODE = request.mode;
    field!(irp, IRP, RequestorMode).write(mode);
    let file = Raw::<FILE_OBJECT>::at(file.body());
    field!(irp, IRP, OriginalFileObject).write(file.pointer());
    let location = irp::next_location(irp);
    field!(location, IO_STACK_LOCATION, MajorFunction).write(IRP_MJ_CREATE);
    field!(location, IO_STACK_LOCATION, FileObject).write(file.pointer());
    field!(location, IO_STACK_LOCATION, Parameters).write(IoStackParameters { Create: parameters });
    request::send(thread, device, irp, &waiter).map(|outcome| outcome.Status)
}
