//! Cancelling requests, and the spin lock that guards it.
//!
//! Pages: `wdm/nf-wdm-iocancelirp`, `wdm/nc-wdm-driver_cancel`, `wdm/nf-wdm-ioacquirecancelspinlock`.

use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nt_types::{DEVICE_OBJECT, DISPATCH_LEVEL, IO_STACK_LOCATION, IRP};

use super::irp::Kind;
use super::request::target;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Inner;
use crate::nt::irql::{lower, raise};
use crate::nt::raw::{Raw, field};
use crate::thread::{Exit, Thread};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    IoCancelIrp(max 2) = io_cancel_irp;
    IoAcquireCancelSpinLock(max 2) = io_acquire_cancel_spin_lock;
    IoReleaseCancelSpinLock(max 2) = io_release_cancel_spin_lock;
}

/// How long a process that ends waits for its cancelled requests. Windows waits for minutes, then gives them up.
const PATIENCE: Duration = Duration::from_secs(3);

/// The system-wide cancel spin lock: the thread object of its holder, 0 when free.
#[derive(Debug, Default)]
pub(crate) struct CancelLock(AtomicUsize);

type CancelRoutine = unsafe extern "efiapi" fn(*mut DEVICE_OBJECT, *mut IRP);

fn me(thread: &Thread) -> usize {
    thread.object().addr()
}

impl CancelLock {
    /// Takes the lock; the host spins too, since holders do little under it.
    fn acquire(&self, thread: &Thread) {
        while self.0.compare_exchange(0, me(thread), Ordering::AcqRel, Ordering::Relaxed).is_err() {
            thread.leave_if_stopped();
            if thread.machine().stopped().is_some() {
                return;
            }
            std::thread::yield_now();
        }
    }

    fn is_held_by(&self, thread: &Thread) -> bool {
        self.0.load(Ordering::Acquire) == me(thread)
    }

    fn release(&self) {
        self.0.store(0, Ordering::Release);
    }
}

extern "efiapi" fn io_acquire_cancel_spin_lock(irql: Raw<u8>) {
    let call = Call::enter();
    let io = call.machine().nt.io();
    if io.cancel_lock.is_held_by(call.thread()) {
        call.stop(Rule::Deadlock, "this thread holds the cancel spin lock already");
    }
    let before = raise(&call, DISPATCH_LEVEL);
    io.cancel_lock.acquire(call.thread());
    irql.write(before);
}

pub(super) extern "efiapi" fn io_release_cancel_spin_lock(irql: u8) {
    let call = Call::enter();
    release(&call, irql);
}

/// Releases the lock in a cancel routine of the kernel's own.
pub(super) fn release_in_kernel(thread: &Thread, irql: u8) {
    thread.machine().nt.io().cancel_lock.release();
    thread.set_irql(irql);
}

/// Releases the lock in the name of a driver.
fn release(call: &Call, irql: u8) {
    let io = call.machine().nt.io();
    if !io.cancel_lock.is_held_by(call.thread()) {
        call.stop(Rule::BadState, "the cancel spin lock is not held by this thread");
    }
    io.cancel_lock.release();
    lower(call, irql);
}

pub(super) extern "efiapi" fn io_cancel_irp(irp: Raw<IRP>) -> u8 {
    let call = Call::enter();
    if super::irp::find(call.machine(), irp).is_none() {
        call.stop(Rule::BadArgument, format!("{irp:?} is no IRP, or one that is complete"));
    }
    u8::from(cancel(call.thread(), irp))
}

/// Cancels a request: true when it had a cancel routine, which was called.
pub(super) fn cancel(thread: &Thread, irp: Raw<IRP>) -> bool {
    let io = thread.machine().nt.io();
    io.cancel_lock.acquire(thread);
    let before = thread.irql();
    let taken = {
        // A request that is in the table is not freed while the table is locked.
        let state = io.lock();
        state.irps.contains_key(&irp.address()).then(|| take_routine(irp, before))
    };
    let Some((Some(routine), device)) = taken else {
        io.cancel_lock.release();
        return false;
    };
    let Some(driver) = target(thread, device) else {
        io.cancel_lock.release();
        return false;
    };
    let (device, request) = (device.pointer(), irp.pointer());
    // SAFETY: the routine that the request's driver set for this request.
    let body = || unsafe { routine(device, request) };
    // It is entered with the lock held, and releases it: back to CancelIrql.
    let exit = Exit::At(before);
    let called = thread.call_driver_until(&driver, "DRIVER_CANCEL", DISPATCH_LEVEL.max(before), exit, body);
    if called.is_ok() && io.cancel_lock.is_held_by(thread) {
        let message = "the cancel routine returned without IoReleaseCancelSpinLock".to_owned();
        let mut finding = thread.finding(Rule::BadState, message, None);
        driver.name.clone_into(&mut finding.driver);
        thread.machine().record(finding);
        thread.leave_if_stopped();
    }
    true
}

/// Marks the request as cancelled and takes its cancel routine out, as `IoSetCancelRoutine(Irp, NULL)` does.
fn take_routine(irp: Raw<IRP>, irql: u8) -> (Option<CancelRoutine>, Raw<DEVICE_OBJECT>) {
    field!(irp, IRP, Cancel).write(1);
    field!(irp, IRP, CancelIrql).write(irql);
    let routine = swap_routine(irp, 0);
    let location = Raw::of(field!(irp, IRP, CurrentStackLocation).read());
    let is_dispatched = field!(irp, IRP, CurrentLocation).read() <= field!(irp, IRP, StackCount).read();
    let device =
        if is_dispatched { Raw::of(field!(location, IO_STACK_LOCATION, DeviceObject).read()) } else { Raw::NULL };
    // SAFETY: what a driver stores in CancelRoutine is a DRIVER_CANCEL.
    let routine = (routine != 0).then(|| unsafe { std::mem::transmute::<usize, CancelRoutine>(routine) });
    (routine, device)
}

/// `IoSetCancelRoutine`: atomically stores a routine's address, or 0; the one before.
pub(super) fn swap_routine(irp: Raw<IRP>, routine: usize) -> usize {
    let slot = field!(irp, IRP, CancelRoutine).cast::<*mut ()>();
    // SAFETY: an aligned pointer in a request that its caller holds; drivers change it with the same instruction.
    let slot = unsafe { AtomicPtr::from_ptr(slot.pointer()) };
    let routine = std::ptr::with_exposed_provenance_mut(routine);
    slot.swap(routine, Ordering::AcqRel).expose_provenance()
}

/// Cancels what a process that ends has under way, and waits for it. What is not completed then is lost: a finding.
pub(crate) fn cancel_all(machine: &Inner, thread: &Thread, process_id: u64) {
    let mut cancelled = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let pending = requests_of(machine, process_id);
        if pending.is_empty() || machine.stopped().is_some() {
            return;
        }
        for irp in &pending {
            if !cancelled.contains(irp) {
                cancelled.push(*irp);
                cancel(thread, Raw::at(*irp));
            }
        }
        if Instant::now() > deadline {
            return report_lost(machine, thread, &pending);
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Requests of a process that are not complete.
fn requests_of(machine: &Inner, process_id: u64) -> Vec<usize> {
    let state = machine.nt.io().lock();
    let is_its = |kind: &Kind| matches!(kind, Kind::Host { process_id: id, .. } if *id == process_id);
    state.irps.iter().filter(|(_, request)| is_its(&request.kind)).map(|(irp, _)| *irp).collect()
}

fn report_lost(machine: &Inner, thread: &Thread, pending: &[usize]) {
    let Some(first) = pending.first() else { return };
    let place = {
        let state = machine.nt.io().lock();
        state.irps.get(first).map(|_| {
            let location = Raw::of(field!(Raw::<IRP>::at(*first), IRP, CurrentStackLocation).read());
            (
                field!(location, IO_STACK_LOCATION, MajorFunction).read(),
                Raw::<DEVICE_OBJECT>::of(field!(location, IO_STACK_LOCATION, DeviceObject).read()),
            )
        })
    };
    let Some((major, device)) = place else { return };
    let name = super::request::name_of(major);
    let mut finding = thread.finding(
        Rule::BadState,
        format!(
            "{} request(s) of a process that ended are lost, the first an {name} at {first:#x}: cancelled, but not \
             completed. A request that is kept needs a cancel routine, or has to be completed in time",
            pending.len()
        ),
        None,
    );
    name.clone_into(&mut finding.call);
    if let Some(driver) = target(thread, device) {
        driver.name.clone_into(&mut finding.driver);
    }
    machine.record(finding);
}
