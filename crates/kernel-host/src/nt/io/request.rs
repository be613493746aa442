//! How requests travel: down to a driver's dispatch routine, and back up through completion routines.

use std::sync::Arc;

use nt_types::{
    DEVICE_OBJECT, DRIVER_OBJECT, IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP, IRP_MJ_DEVICE_CONTROL,
    IRP_MJ_INTERNAL_DEVICE_CONTROL, MAJOR_FUNCTION_COUNT, NtStatus, SL_INVOKE_ON_CANCEL, SL_INVOKE_ON_ERROR,
    SL_INVOKE_ON_SUCCESS, SL_PENDING_RETURNED,
};

use super::device::DeviceBody;
use super::forward;
use super::irp::{self, Kind, Waiter};
use super::pending::Dispatched;
use crate::cpu::bridge::call_out_keeping;
use crate::ddi::{Call, exports};
use crate::finding::{Rule, Stopped};
use crate::machine::Driver;
use crate::nt::dispatcher::state;
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    IofCallDriver(max 2, fails REQUEST) = iof_call_driver;
    IoCallDriver(max 2, fails REQUEST) = iof_call_driver;
    IofCompleteRequest(max 2) = iof_complete_request;
    IoCompleteRequest(max 2) = iof_complete_request;
}

/// Names of the major functions, as reports show them.
const MAJOR_NAMES: [&str; MAJOR_FUNCTION_COUNT] = [
    "IRP_MJ_CREATE",
    "IRP_MJ_CREATE_NAMED_PIPE",
    "IRP_MJ_CLOSE",
    "IRP_MJ_READ",
    "IRP_MJ_WRITE",
    "IRP_MJ_QUERY_INFORMATION",
    "IRP_MJ_SET_INFORMATION",
    "IRP_MJ_QUERY_EA",
    "IRP_MJ_SET_EA",
    "IRP_MJ_FLUSH_BUFFERS",
    "IRP_MJ_QUERY_VOLUME_INFORMATION",
    "IRP_MJ_SET_VOLUME_INFORMATION",
    "IRP_MJ_DIRECTORY_CONTROL",
    "IRP_MJ_FILE_SYSTEM_CONTROL",
    "IRP_MJ_DEVICE_CONTROL",
    "IRP_MJ_INTERNAL_DEVICE_CONTROL",
    "IRP_MJ_SHUTDOWN",
    "IRP_MJ_LOCK_CONTROL",
    "IRP_MJ_CLEANUP",
    "IRP_MJ_CREATE_MAILSLOT",
    "IRP_MJ_QUERY_SECURITY",
    "IRP_MJ_SET_SECURITY",
    "IRP_MJ_POWER",
    "IRP_MJ_SYSTEM_CONTROL",
    "IRP_MJ_DEVICE_CHANGE",
    "IRP_MJ_QUERY_QUOTA",
    "IRP_MJ_SET_QUOTA",
    "IRP_MJ_PNP",
];

/// The name of a major function, for reports.
pub(super) fn name_of(major: u8) -> &'static str {
    MAJOR_NAMES.get(usize::from(major)).unwrap_or(&"unknown major function")
}

pub(in crate::nt) extern "efiapi" fn iof_call_driver(device: Raw<DEVICE_OBJECT>, irp: Raw<IRP>) -> NtStatus {
    let call = Call::enter();
    if irp::find(call.machine(), irp).is_none() {
        call.stop(Rule::BadArgument, format!("{irp:?} is no IRP, or one that is complete"));
    }
    if field!(irp, IRP, CurrentLocation).read() <= 1 {
        call.stop(Rule::BadState, format!("the IRP {irp:?} has no stack location left"));
    }
    let major = field!(irp::next_location(irp), IO_STACK_LOCATION, MajorFunction).read();
    call.detail(name_of(major));
    let Some(target) = target(call.thread(), device) else { return send_to_host(&call, device, irp, major) };
    if call.falls_short() {
        return refuse(call.thread(), device, irp, NtStatus::INSUFFICIENT_RESOURCES);
    }
    let Some(dispatch) = prepare(call.thread(), &target, device, irp) else {
        return NtStatus::INVALID_DEVICE_REQUEST;
    };
    drop(target);
    let (routine, name) = (dispatch.routine, dispatch.name);
    let (device, irp) = (device.pointer(), irp.pointer());
    // Exceptions of the routine's go on in the calling driver, as if nothing were in between.
    let (call, dispatch, status) = call_out_keeping(
        call,
        dispatch,
        |_, dispatch| dispatch.entry.driver(),
        name,
        |_| {
            // SAFETY: the routine is the driver's own, for a device and an IRP that exist.
            unsafe { routine(device, irp) }
        },
    );
    dispatch.entry.returned(call.thread(), status);
    call.thread().leave_if_stopped();
    status
}

/// A request to a device that the host itself has: a disk, or a volume on it.
///
/// Device controls are refused as a device refuses one that it does not know. What else a driver sends there matters more than that.
fn send_to_host(call: &Call, device: Raw<DEVICE_OBJECT>, irp: Raw<IRP>, major: u8) -> NtStatus {
    let object = call.machine().nt.objects().lookup(device.address());
    if object.is_none_or(|object| object.any_payload().type_name() != "Device") {
        call.stop(Rule::BadArgument, format!("{device:?} is no device object of a driver"));
    }
    if !matches!(major, IRP_MJ_DEVICE_CONTROL | IRP_MJ_INTERNAL_DEVICE_CONTROL) {
        let message = format!("kernel-host's own devices do not take {} from drivers yet", name_of(major));
        call.stop(Rule::NotImplemented, message);
    }
    refuse(call.thread(), device, irp, NtStatus::INVALID_DEVICE_REQUEST)
}

/// Completes the request in the name of the driver below, which does nothing else for it.
pub(super) fn refuse(thread: &Thread, device: Raw<DEVICE_OBJECT>, irp: Raw<IRP>, status: NtStatus) -> NtStatus {
    enter_location(device, irp);
    field!(irp, IRP, IoStatus.Status).write(status);
    complete(thread, irp);
    status
}

/// Makes the next stack location, for `device`, the current one.
fn enter_location(device: Raw<DEVICE_OBJECT>, irp: Raw<IRP>) -> Raw<IO_STACK_LOCATION> {
    let location = irp::next_location(irp);
    field!(irp, IRP, CurrentLocation).write(field!(irp, IRP, CurrentLocation).read() - 1);
    field!(irp, IRP, CurrentStackLocation).write(location.pointer());
    field!(location, IO_STACK_LOCATION, DeviceObject).write(device.pointer());
    location
}

/// The driver behind a device object.
pub(super) fn target(thread: &Thread, device: Raw<DEVICE_OBJECT>) -> Option<Arc<Driver>> {
    let payload = thread.machine().nt.objects().payload::<DeviceBody>(device.address())?;
    Some(Arc::clone(payload.driver()))
}

/// A dispatch routine that is about to be entered.
struct Dispatch {
    routine: unsafe extern "efiapi" fn(*mut DEVICE_OBJECT, *mut IRP) -> NtStatus,
    name: &'static str,
    entry: Arc<Dispatched>,
}

/// Makes the next stack location the current one; the caller has checked that there is one. Completes the request when the
/// driver has no routine for it.
fn prepare(thread: &Thread, driver: &Arc<Driver>, device: Raw<DEVICE_OBJECT>, irp: Raw<IRP>) -> Option<Dispatch> {
    let location = enter_location(device, irp);
    let major = usize::from(field!(location, IO_STACK_LOCATION, MajorFunction).read());
    let object = Raw::of(field!(device, DEVICE_OBJECT, DriverObject).read());
    let routines = field!(object, DRIVER_OBJECT, MajorFunction).read();
    let (Some(Some(routine)), Some(name)) = (routines.get(major).copied(), MAJOR_NAMES.get(major)) else {
        field!(irp, IRP, IoStatus.Status).write(NtStatus::INVALID_DEVICE_REQUEST);
        complete(thread, irp);
        return None;
    };
    let entry = Dispatched::new(driver, name, irp.address());
    irp::track(thread.machine(), irp, field!(irp, IRP, CurrentLocation).read(), &entry);
    Some(Dispatch { routine, name, entry })
}

/// Enters the dispatch routine for the next stack location, for the host.
pub(super) fn dispatch(
    thread: &Thread,
    driver: &Arc<Driver>,
    device: Raw<DEVICE_OBJECT>,
    irp: Raw<IRP>,
) -> Result<NtStatus, Stopped> {
    let Some(Dispatch { routine, name, entry }) = prepare(thread, driver, device, irp) else {
        return Ok(NtStatus::INVALID_DEVICE_REQUEST);
    };
    let (device, irp) = (device.pointer(), irp.pointer());
    // SAFETY: the routine is the driver's own, for a device and an IRP that exist.
    let status = thread.call_driver(driver, name, thread.irql(), || unsafe { routine(device, irp) })?;
    entry.returned(thread, status);
    thread.machine().stopped().map_or(Ok(status), Err)
}

/// Sends a request of the host's own to a device and waits for its end. `None` when the machine stopped.
pub(super) fn send(
    thread: &Thread,
    device: Raw<DEVICE_OBJECT>,
    irp: Raw<IRP>,
    waiter: &Waiter,
) -> Option<IO_STATUS_BLOCK> {
    let _returned = start(thread, device, irp, waiter)?;
    waiter.wait(thread.machine())
}

/// Sends a request of the host's own to a device: what the dispatch routine returns.
///
/// Records what the dispatch routine may not do. `None` when the machine stopped.
pub(super) fn start(thread: &Thread, device: Raw<DEVICE_OBJECT>, irp: Raw<IRP>, waiter: &Waiter) -> Option<NtStatus> {
    let driver = target(thread, device)?;
    let major = field!(irp::next_location(irp), IO_STACK_LOCATION, MajorFunction).read();
    let name = name_of(major);
    waiter.sent_to(&driver, name);
    let status = dispatch(thread, &driver, device, irp).ok()?;
    if status != NtStatus::PENDING && !waiter.has_ended() {
        let message = format!("{name} returned {status:?} without completing the IRP");
        let mut finding = thread.finding(Rule::BadState, message, None);
        driver.name.clone_into(&mut finding.driver);
        name.clone_into(&mut finding.call);
        thread.machine().record(finding);
        thread.leave_if_stopped();
        return None;
    }
    Some(status)
}

pub(super) extern "efiapi" fn iof_complete_request(irp: Raw<IRP>, _boost: i8) {
    let call = Call::enter();
    let status = check_completion(&call, irp);
    call.detail(status.name().map_or_else(|| format!("{:#010x}", status.bits()), str::to_owned));
    complete_by(call.thread(), irp, Some(status));
    call.thread().leave_if_stopped();
}

/// The page's rules for the request that a driver completes.
fn check_completion(call: &Call, irp: Raw<IRP>) -> NtStatus {
    if irp::find(call.machine(), irp).is_none() {
        call.stop(Rule::BadState, format!("{irp:?} is no IRP, or one that is complete already"));
    }
    // Completion routines of drivers above run inside of the call, and may want the same lock.
    if let Some(lock) = call.machine().nt.lock_order().spin_lock_of(call.thread()) {
        call.stop(Rule::BadState, format!("the IRP {irp:?} is completed while this thread holds {lock}"));
    }
    if field!(irp, IRP, CurrentLocation).read() > field!(irp, IRP, StackCount).read() {
        call.stop(Rule::BadState, format!("the IRP {irp:?} was sent to no driver, or is complete already"));
    }
    let status = field!(irp, IRP, IoStatus.Status).read();
    if status == NtStatus::PENDING || status.bits() == u32::MAX {
        call.stop(Rule::BadArgument, format!("an IRP is completed with status {:#010x}", status.bits()));
    }
    if field!(irp, IRP, CancelRoutine).cast::<usize>().read() != 0 {
        call.stop(Rule::BadState, format!("the IRP {irp:?} is completed with its cancel routine still set"));
    }
    status
}

/// Takes a request back up, through the completion routines, to whoever made it.
pub(super) fn complete(thread: &Thread, irp: Raw<IRP>) {
    complete_by(thread, irp, None);
}

/// As [`complete`]; `status` is the final one where a driver's own call completes the request.
fn complete_by(thread: &Thread, irp: Raw<IRP>, mut status: Option<NtStatus>) {
    let stack_count = field!(irp, IRP, StackCount).read();
    let current = field!(irp, IRP, CurrentLocation);
    let location = field!(irp, IRP, CurrentStackLocation);
    while current.read() <= stack_count {
        let below = Raw::of(location.read());
        let control = field!(below, IO_STACK_LOCATION, Control).read();
        let pending = control & SL_PENDING_RETURNED;
        let by = status.take();
        for entry in irp::left_behind(thread.machine(), irp, current.read()) {
            entry.left_behind(thread, pending != 0, by);
        }
        current.write(current.read() + 1);
        location.write(below.index(1).pointer());
        field!(irp, IRP, PendingReturned).write(pending);
        if !wants(irp, control) {
            // What a lower driver pended is pending for the upper one, too.
            if current.read() <= stack_count {
                let above = field!(below.index(1), IO_STACK_LOCATION, Control);
                above.write(above.read() | pending);
            }
            continue;
        }
        if call_completion_routine(thread, irp, below, current.read() > stack_count)
            == NtStatus::MORE_PROCESSING_REQUIRED
        {
            return;
        }
    }
    finish(thread, irp);
}

/// Whether the completion routine set in a location is to be called.
fn wants(irp: Raw<IRP>, control: u8) -> bool {
    let success = field!(irp, IRP, IoStatus.Status).read().is_success();
    let cancelled = field!(irp, IRP, Cancel).read() != 0;
    (success && control & SL_INVOKE_ON_SUCCESS != 0)
        || (!success && control & SL_INVOKE_ON_ERROR != 0)
        || (cancelled && control & SL_INVOKE_ON_CANCEL != 0)
}

fn call_completion_routine(thread: &Thread, irp: Raw<IRP>, below: Raw<IO_STACK_LOCATION>, is_top: bool) -> NtStatus {
    let location = below.read();
    let Some(routine) = location.CompletionRoutine else { return NtStatus::SUCCESS };
    // The routine belongs to the driver above; whoever made the request has no location of its own, hence no device.
    let device =
        if is_top { std::ptr::null_mut() } else { field!(below.index(1), IO_STACK_LOCATION, DeviceObject).read() };
    let owner = irp::find(thread.machine(), irp).and_then(|request| request.maker().cloned());
    let Some(driver) = target(thread, Raw::of(device)).or(owner) else { return NtStatus::SUCCESS };
    let pointer = irp.pointer();
    // SAFETY: the routine was set for this request by its driver, which keeps it loaded until then.
    let body = || unsafe { routine(device, pointer, location.Context) };
    let called = thread.call_driver(&driver, "IoCompletion", thread.irql(), body);
    called.unwrap_or(NtStatus::MORE_PROCESSING_REQUIRED)
}

/// Ends a request: its maker learns the outcome, its memory is freed.
fn finish(thread: &Thread, irp: Raw<IRP>) {
    let machine = thread.machine();
    let outcome = field!(irp, IRP, IoStatus).read();
    match irp::find(machine, irp).map(|request| request.kind) {
        Some(Kind::Host { waiter, transfer, .. }) => {
            let outcome = transfer.as_ref().map_or(outcome, |transfer| transfer.finish(thread, outcome));
            end(thread, irp);
            waiter.end();
            match transfer {
                Some(transfer) => transfer.leave(thread, move || waiter.finish(outcome)),
                None => waiter.finish(outcome),
            }
        }
        Some(Kind::Synchronous { buffered_output, .. }) => {
            if let Some(length) = buffered_output
                && !outcome.Status.is_error()
            {
                let system = Raw::<u8>::at(field!(irp, IRP, SystemBuffer).read().addr());
                let target = Raw::<u8>::at(field!(irp, IRP, UserBuffer).read().addr());
                target.write_bytes(&system.read_bytes(outcome.Information.min(length)));
            }
            Raw::of(field!(irp, IRP, UserIosb).read()).write_if_some(outcome);
            let event = Raw::of(field!(irp, IRP, UserEvent).read());
            end(thread, irp);
            if let Some(event) = event.some() {
                state(event.cast()).store(1, std::sync::atomic::Ordering::Release);
                machine.nt.dispatcher().wake();
            }
        }
        Some(Kind::Associated { master, .. }) => {
            end(thread, irp);
            forward::associated_ended(thread, master);
        }
        Some(Kind::Allocated(_) | Kind::Initialised(_)) => {
            let message = "an IRP from IoAllocateIrp came back to the I/O manager: its completion routine has to \
                           return STATUS_MORE_PROCESSING_REQUIRED"
                .to_owned();
            machine.record(thread.finding(Rule::BadState, message, None));
            thread.leave_if_stopped();
        }
        None => {}
    }
}

fn end(thread: &Thread, irp: Raw<IRP>) {
    if let Some(request) = irp::remove(thread.machine(), irp) {
        irp::release(thread.machine(), &request);
    }
}

/// Checked by tests: the routine that a driver object has for a major function.
#[cfg(test)]
pub(super) fn routine_slot(driver: Raw<DRIVER_OBJECT>, major: u8) -> Raw<nt_types::DRIVER_DISPATCH> {
    field!(driver, DRIVER_OBJECT, MajorFunction).cast::<nt_types::DRIVER_DISPATCH>().index(usize::from(major))
}
