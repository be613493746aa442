//! Cancel-safe queues: the driver keeps the list, the kernel keeps cancellation out of its way.
//!
//! Pages: `wdm/nf-wdm-iocsqinitialize`, `wdm/nf-wdm-iocsqinsertirpex`, `wdm/nf-wdm-iocsqremovenextirp` and their neighbours.

use std::sync::Arc;

use nt_types::{DEVICE_OBJECT, IO_STACK_LOCATION, IRP, NtStatus, SL_PENDING_RETURNED};

use super::cancel::{release_in_kernel, swap_routine};
use super::queue_routines::{Names, QueueRoutines, Table};
use super::request::target;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Driver;
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    IoCsqInitialize(max 31) = io_csq_initialize;
    IoCsqInitializeEx(max 31) = io_csq_initialize_ex;
    IoCsqInsertIrp(max 2) = io_csq_insert_irp;
    IoCsqInsertIrpEx(max 2) = io_csq_insert_irp_ex;
    IoCsqRemoveIrp(max 2) = io_csq_remove_irp;
    IoCsqRemoveNextIrp(max 2) = io_csq_remove_next_irp;
}

/// `IO_TYPE_CSQ_IRP_CONTEXT`, `IO_TYPE_CSQ`, `IO_TYPE_CSQ_EX`.
const TYPE_CONTEXT: u32 = 1;
const TYPE_CSQ: u32 = 2;
const TYPE_CSQ_EX: u32 = 3;

/// `IO_CSQ`: the driver's routines. The structure is the driver's memory, its fields the kernel's.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Csq {
    pub(super) kind: u32,
    insert: usize,
    remove: usize,
    peek_next: usize,
    acquire_lock: usize,
    release_lock: usize,
    complete_cancelled: usize,
    reserved: usize,
}

const _: () = assert!(size_of::<Csq>() == 64);

/// `IO_CSQ_IRP_CONTEXT`: says where a queued request is, as long as it is there.
#[repr(C)]
#[derive(Clone, Copy)]
pub(super) struct Context {
    pub(super) kind: u32,
    pub(super) irp: usize,
    pub(super) csq: usize,
}

/// Which of the four `DriverContext` slots belongs to the queue.
const SLOT: usize = 3;

/// What the queue's routines are called in findings and traces.
const NAMES: Names = Names {
    insert: "IO_CSQ_INSERT_IRP_EX",
    remove: "IO_CSQ_REMOVE_IRP",
    peek_next: "IO_CSQ_PEEK_NEXT_IRP",
    acquire: "IO_CSQ_ACQUIRE_LOCK",
    release: "IO_CSQ_RELEASE_LOCK",
    complete_cancelled: "IO_CSQ_COMPLETE_CANCELED_IRP",
};

/// The routines of `csq`, which are `driver`'s.
fn routines(thread: &Thread, driver: Arc<Driver>, csq: Raw<Csq>) -> QueueRoutines<'_> {
    let table = csq.read();
    let table = Table {
        insert: table.insert,
        remove: table.remove,
        peek_next: table.peek_next,
        acquire: table.acquire_lock,
        release: table.release_lock,
        complete_cancelled: table.complete_cancelled,
    };
    QueueRoutines { thread, driver, queue: csq.address(), table, names: &NAMES }
}

fn initialise(csq: Raw<Csq>, kind: u32, routines: [usize; 6]) -> NtStatus {
    let call = Call::enter();
    if routines.contains(&0) {
        call.stop(Rule::BadArgument, "a cancel-safe queue needs all of its routines");
    }
    let [insert, remove, peek_next, acquire_lock, release_lock, complete_cancelled] = routines;
    csq.write(Csq { kind, insert, remove, peek_next, acquire_lock, release_lock, complete_cancelled, reserved: 0 });
    NtStatus::SUCCESS
}

pub(super) extern "efiapi" fn io_csq_initialize(
    csq: Raw<Csq>,
    insert: usize,
    remove: usize,
    peek_next: usize,
    acquire_lock: usize,
    release_lock: usize,
    complete_cancelled: usize,
) -> NtStatus {
    initialise(csq, TYPE_CSQ, [insert, remove, peek_next, acquire_lock, release_lock, complete_cancelled])
}

pub(super) extern "efiapi" fn io_csq_initialize_ex(
    csq: Raw<Csq>,
    insert: usize,
    remove: usize,
    peek_next: usize,
    acquire_lock: usize,
    release_lock: usize,
    complete_cancelled: usize,
) -> NtStatus {
    initialise(csq, TYPE_CSQ_EX, [insert, remove, peek_next, acquire_lock, release_lock, complete_cancelled])
}

fn queue_of(call: &Call, csq: Raw<Csq>) -> QueueRoutines<'_> {
    if !matches!(csq.read().kind, TYPE_CSQ | TYPE_CSQ_EX) {
        call.stop(Rule::BadArgument, format!("{:#x} is no queue that IoCsqInitialize has seen", csq.address()));
    }
    routines(call.thread(), Arc::clone(call.driver()), csq)
}

pub(super) extern "efiapi" fn io_csq_insert_irp(csq: Raw<Csq>, irp: Raw<IRP>, context: Raw<Context>) {
    // The plain form cannot be told of a failure.
    let _ = insert(&Call::enter(), csq, irp, context, 0);
}

pub(super) extern "efiapi" fn io_csq_insert_irp_ex(
    csq: Raw<Csq>,
    irp: Raw<IRP>,
    context: Raw<Context>,
    insert_context: usize,
) -> NtStatus {
    insert(&Call::enter(), csq, irp, context, insert_context)
}

fn insert(call: &Call, csq: Raw<Csq>, irp: Raw<IRP>, context: Raw<Context>, insert_context: usize) -> NtStatus {
    if super::irp::find(call.machine(), irp).is_none() {
        call.stop(Rule::BadArgument, format!("{irp:?} is no IRP, or one that is complete"));
    }
    let queue = queue_of(call, csq);
    let irql = queue.acquire();
    match context.some() {
        Some(context) => {
            context.write(Context { kind: TYPE_CONTEXT, irp: irp.address(), csq: csq.address() });
            slot(irp).write(context.address());
        }
        None => slot(irp).write(csq.address()),
    }
    let mut status = NtStatus::SUCCESS;
    if csq.read().kind == TYPE_CSQ_EX {
        status = queue.insert(irp.address(), insert_context);
    } else {
        queue.insert_always("IO_CSQ_INSERT_IRP", irp.address());
    }
    if !status.is_success() {
        queue.release(irql);
        return status;
    }
    mark_pending(irp);
    swap_routine(irp, cancelled as *const () as usize);
    // Cancelled before there was a routine: whoever takes the routine out completes the request.
    if field!(irp, IRP, Cancel).read() != 0 && swap_routine(irp, 0) != 0 {
        queue.remove(irp.address());
        forget(irp, context);
        queue.release(irql);
        queue.complete_cancelled(irp.address());
    } else {
        queue.release(irql);
    }
    status
}

pub(super) extern "efiapi" fn io_csq_remove_irp(csq: Raw<Csq>, context: Raw<Context>) -> usize {
    let call = Call::enter();
    let queue = queue_of(&call, csq);
    let irql = queue.acquire();
    let irp = Raw::<IRP>::at(context.read().irp);
    // Gone already, or being cancelled right now: then it is not the caller's any more.
    let taken = !irp.is_null() && swap_routine(irp, 0) != 0;
    if taken {
        queue.remove(irp.address());
        forget(irp, context);
    }
    queue.release(irql);
    if taken { irp.address() } else { 0 }
}

pub(super) extern "efiapi" fn io_csq_remove_next_irp(csq: Raw<Csq>, peek_context: usize) -> usize {
    let call = Call::enter();
    let queue = queue_of(&call, csq);
    let irql = queue.acquire();
    let mut irp = Raw::at(queue.peek_next(0, peek_context));
    while !irp.is_null() {
        if swap_routine(irp, 0) != 0 {
            queue.remove(irp.address());
            forget(irp, context_of(irp));
            break;
        }
        irp = Raw::at(queue.peek_next(irp.address(), peek_context));
    }
    queue.release(irql);
    irp.address()
}

/// The cancel routine of every queued request. Entered with the cancel spin lock held.
extern "efiapi" fn cancelled(_device: *mut DEVICE_OBJECT, irp: *mut IRP) {
    let thread = Thread::current();
    let irp = Raw::of(irp);
    release_in_kernel(&thread, field!(irp, IRP, CancelIrql).read());
    let context = context_of(irp);
    let csq = context.some().map_or_else(|| slot(irp).read(), |context| context.read().csq);
    let location = Raw::of(field!(irp, IRP, CurrentStackLocation).read());
    let device = Raw::of(field!(location, IO_STACK_LOCATION, DeviceObject).read());
    let Some(driver) = target(&thread, device) else { return };
    let queue = routines(&thread, driver, Raw::at(csq));
    let irql = queue.acquire();
    queue.remove(irp.address());
    forget(irp, context);
    queue.release(irql);
    queue.complete_cancelled(irp.address());
}

fn slot(irp: Raw<IRP>) -> Raw<usize> {
    field!(irp, IRP, DriverContext).cast::<usize>().index(SLOT)
}

/// The caller's context of a queued request; NULL when it was queued without one.
fn context_of(irp: Raw<IRP>) -> Raw<Context> {
    let context = Raw::<Context>::at(slot(irp).read());
    if !context.is_null() && context.cast::<u32>().read() == TYPE_CONTEXT { context } else { Raw::NULL }
}

/// The request is in the queue no longer.
fn forget(irp: Raw<IRP>, context: Raw<Context>) {
    if let Some(context) = context.some() {
        field!(context, Context, irp).write(0);
    }
    slot(irp).write(0);
}

fn mark_pending(irp: Raw<IRP>) {
    let location = Raw::of(field!(irp, IRP, CurrentStackLocation).read());
    let control = field!(location, IO_STACK_LOCATION, Control);
    control.write(control.read() | SL_PENDING_RETURNED);
}
