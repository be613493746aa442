//! Passing a request on, with more than `IoCallDriver`: waiting for it, splitting it, hearing of its end.
//!
//! Pages: `wdm/nf-wdm-ioforwardirpsynchronously`, `wdm/nf-wdm-iosetcompletionroutineex`, `ntddk/nf-ntddk-iomakeassociatedirp`.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};

use nt_types::{
    DEVICE_OBJECT, IO_STACK_LOCATION, IRP, NtStatus, PVOID, SL_INVOKE_ON_CANCEL, SL_INVOKE_ON_ERROR,
    SL_INVOKE_ON_SUCCESS,
};

use super::irp::{self, Kind, next_location};
use super::request::{self, complete, dispatch, target};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    IoForwardIrpSynchronously(max 1, fails REQUEST) = io_forward_irp_synchronously;
    IoForwardAndCatchIrp(max 1, fails REQUEST) = io_forward_irp_synchronously;
    IoSetCompletionRoutineEx(max 2, fails RESOURCES) = io_set_completion_routine_ex;
    IoMakeAssociatedIrp(max 2, fails NULL) = io_make_associated_irp;
}

/// `IRP_ASSOCIATED_IRP`.
const ASSOCIATED_IRP: u32 = 8;

/// The completion routine of a request that its sender waits for: `context` is where that looks.
extern "efiapi" fn wake_sender(_device: *mut DEVICE_OBJECT, _irp: *mut IRP, context: PVOID) -> NtStatus {
    let done = Raw::<i32>::at(context.addr());
    // SAFETY: an aligned word on the stack of the sender, which waits until it is set.
    let done = unsafe { AtomicI32::from_ptr(done.pointer()) };
    done.store(1, Ordering::Release);
    Thread::current().machine().nt.dispatcher().wake();
    NtStatus::MORE_PROCESSING_REQUIRED
}

/// The request is the caller's own again afterwards: at its stack location, not complete for those above.
extern "efiapi" fn io_forward_irp_synchronously(device: Raw<DEVICE_OBJECT>, irp: Raw<IRP>) -> u8 {
    let call = Call::enter();
    if irp::find(call.machine(), irp).is_none() {
        call.stop(Rule::BadArgument, format!("{irp:?} is no IRP, or one that is complete"));
    }
    let Some(driver) = target(call.thread(), device) else {
        call.stop(Rule::BadArgument, format!("{device:?} is no device object of a driver"));
    };
    if field!(irp, IRP, CurrentLocation).read() <= 1 {
        return 0;
    }
    let current = Raw::of(field!(irp, IRP, CurrentStackLocation).read());
    let mut done = 0_i32;
    let done = Raw::of(&raw mut done);
    let mut copy: IO_STACK_LOCATION = current.read();
    copy.Control = SL_INVOKE_ON_SUCCESS | SL_INVOKE_ON_ERROR | SL_INVOKE_ON_CANCEL;
    copy.CompletionRoutine = Some(wake_sender);
    copy.Context = done.pointer().cast();
    next_location(irp).write(copy);
    let sent = if call.falls_short() {
        Ok(request::refuse(call.thread(), device, irp, NtStatus::INSUFFICIENT_RESOURCES))
    } else {
        dispatch(call.thread(), &driver, device, irp)
    };
    if sent.is_err() {
        call.thread().leave_if_stopped();
    }
    // SAFETY: as in the completion routine; this frame is there until the wait is over.
    let is_done = || unsafe { AtomicI32::from_ptr(done.pointer()) }.load(Ordering::Acquire) != 0;
    call.machine().nt.dispatcher().wait(&call, None, is_done);
    1
}

extern "efiapi" fn io_set_completion_routine_ex(
    device: Raw<DEVICE_OBJECT>,
    irp: Raw<IRP>,
    routine: nt_types::IO_COMPLETION_ROUTINE,
    context: PVOID,
    on_success: u8,
    on_error: u8,
    on_cancel: u8,
) -> NtStatus {
    let call = Call::enter();
    let owner = target(call.thread(), device);
    if owner.is_none_or(|owner| !Arc::ptr_eq(&owner, call.driver())) {
        call.stop(Rule::BadArgument, format!("{device:?} is no device object of the driver that calls"));
    }
    if field!(irp, IRP, CurrentLocation).read() <= 1 {
        call.stop(Rule::BadState, format!("the IRP {irp:?} has no stack location left to set a routine in"));
    }
    let wanted = [(on_success, SL_INVOKE_ON_SUCCESS), (on_error, SL_INVOKE_ON_ERROR), (on_cancel, SL_INVOKE_ON_CANCEL)];
    let control = wanted.into_iter().filter(|(wanted, _)| *wanted != 0).fold(0, |all, (_, flag)| all | flag);
    let next = next_location(irp);
    field!(next, IO_STACK_LOCATION, CompletionRoutine).write(routine);
    field!(next, IO_STACK_LOCATION, Context).write(context);
    field!(next, IO_STACK_LOCATION, Control).write(control);
    NtStatus::SUCCESS
}

extern "efiapi" fn io_make_associated_irp(master: Raw<IRP>, stack_size: i8) -> usize {
    let call = Call::enter();
    if irp::find(call.machine(), master).is_none() {
        call.stop(Rule::BadArgument, format!("{master:?} is no IRP, or one that is complete"));
    }
    let kind = Kind::Associated { driver: Arc::clone(call.driver()), master: master.address() };
    let Some((irp, _)) = irp::create(call.machine(), kind, stack_size, 0) else { return 0 };
    field!(irp, IRP, Flags).write(ASSOCIATED_IRP);
    field!(irp, IRP, SystemBuffer).write(master.pointer().cast());
    field!(irp, IRP, Thread).write(field!(master, IRP, Thread).read());
    field!(irp, IRP, RequestorMode).write(field!(master, IRP, RequestorMode).read());
    irp.address()
}

/// An associated request is complete and gone: its master is, too, when it was the last of `AssociatedIrp.IrpCount`.
pub(super) fn associated_ended(thread: &Thread, master: usize) {
    let master = Raw::<IRP>::at(master);
    let count = field!(master, IRP, SystemBuffer).cast::<i32>();
    // SAFETY: the count of a request that is not complete before its associated ones are; drivers change it alike.
    let count = unsafe { AtomicI32::from_ptr(count.pointer()) };
    if count.fetch_sub(1, Ordering::AcqRel) == 1 {
        complete(thread, master);
    }
}

#[cfg(test)]
mod tests;
