//! Cancel-safe queues: the driver keeps the list, the kernel keeps cancellation out of its way.
//!
//! Pages: `wdm/nf-wdm-iocsqinitialize`, `wdm/nf-wdm-iocsqinsertirpex`, `wdm/nf-wdm-iocsqremovenextirp` and their neighbours.

use std::sync::Arc;

use nt_types::{DEVICE_OBJECT, IO_STACK_LOCATION, IRP, NtStatus, SL_PENDING_RETURNED};

use super::cancel::{release_in_kernel, swap_routine};
use super::request::target;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Driver;
use crate::nt::raw::{Raw, field};
use crate::thread::{Exit, Thread};

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

/// Calls a queue's routines in the name of its driver. The lock routines change the IRQL for what follows.
struct Routines<'a> {
    thread: &'a Thread,
    driver: Arc<Driver>,
    csq: Raw<Csq>,
    table: Csq,
}

impl<'a> Routines<'a> {
    fn new(thread: &'a Thread, driver: Arc<Driver>, csq: Raw<Csq>) -> Self {
        Self { thread, driver, csq, table: csq.read() }
    }

    fn enter<R: Default>(&self, name: &'static str, exit: Exit, body: impl FnOnce() -> R) -> R {
        let called = self.thread.call_driver_until(&self.driver, name, self.thread.irql(), exit, body);
        called.unwrap_or_default()
    }

    fn acquire(&self) -> u8 {
        type Acquire = unsafe extern "efiapi" fn(usize, *mut u8);
        // SAFETY: the address of the driver's IO_CSQ_ACQUIRE_LOCK.
        let routine = unsafe { std::mem::transmute::<usize, Acquire>(self.table.acquire_lock) };
        let mut irql = 0_u8;
        let out = &raw mut irql;
        // SAFETY: the queue is the driver's, the IRQL a local.
        self.enter("IO_CSQ_ACQUIRE_LOCK", Exit::Anywhere, || unsafe { routine(self.csq.address(), out) });
        irql
    }

    fn release(&self, irql: u8) {
        type Release = unsafe extern "efiapi" fn(usize, u8);
        // SAFETY: the address of the driver's IO_CSQ_RELEASE_LOCK.
        let routine = unsafe { std::mem::transmute::<usize, Release>(self.table.release_lock) };
        // SAFETY: the queue is the driver's; the IRQL is the one that its acquire routine gave.
        self.enter("IO_CSQ_RELEASE_LOCK", Exit::Anywhere, || unsafe { routine(self.csq.address(), irql) });
    }

    /// Calls a routine of the form `(Csq, Irp)`.
    fn with_irp(&self, name: &'static str, routine: usize, irp: Raw<IRP>) {
        type Routine = unsafe extern "efiapi" fn(usize, *mut IRP);
        // SAFETY: the address of the driver's IO_CSQ_INSERT_IRP, _REMOVE_IRP or _COMPLETE_CANCELED_IRP.
        let routine = unsafe { std::mem::transmute::<usize, Routine>(routine) };
        let pointer = irp.pointer();
        // SAFETY: the queue is the driver's, the request in its hands.
        self.enter(name, Exit::AsEntered, || unsafe { routine(self.csq.address(), pointer) });
    }

    fn insert_ex(&self, irp: Raw<IRP>, insert_context: usize) -> NtStatus {
        type Insert = unsafe extern "efiapi" fn(usize, *mut IRP, usize) -> NtStatus;
        // SAFETY: the address of the driver's IO_CSQ_INSERT_IRP_EX.
        let routine = unsafe { std::mem::transmute::<usize, Insert>(self.table.insert) };
        let pointer = irp.pointer();
        // SAFETY: the queue is the driver's, the request and the context its caller's.
        self.enter("IO_CSQ_INSERT_IRP_EX", Exit::AsEntered, || unsafe {
            routine(self.csq.address(), pointer, insert_context)
        })
    }

    fn peek_next(&self, after: Raw<IRP>, peek_context: usize) -> Raw<IRP> {
        type Peek = unsafe extern "efiapi" fn(usize, *mut IRP, usize) -> usize;
        // SAFETY: the address of the driver's IO_CSQ_PEEK_NEXT_IRP.
        let routine = unsafe { std::mem::transmute::<usize, Peek>(self.table.peek_next) };
        let pointer = after.pointer();
        // SAFETY: the queue is the driver's; it walks its own list.
        Raw::at(self.enter("IO_CSQ_PEEK_NEXT_IRP", Exit::AsEntered, || unsafe {
            routine(self.csq.address(), pointer, peek_context)
        }))
    }

    fn remove(&self, irp: Raw<IRP>) {
        self.with_irp("IO_CSQ_REMOVE_IRP", self.table.remove, irp);
    }

    fn complete_cancelled(&self, irp: Raw<IRP>) {
        self.with_irp("IO_CSQ_COMPLETE_CANCELED_IRP", self.table.complete_cancelled, irp);
    }
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

fn queue_of(call: &Call, csq: Raw<Csq>) -> Routines<'_> {
    let queue = Routines::new(call.thread(), Arc::clone(call.driver()), csq);
    if queue.table.kind != TYPE_CSQ && queue.table.kind != TYPE_CSQ_EX {
        call.stop(Rule::BadArgument, format!("{:#x} is no queue that IoCsqInitialize has seen", csq.address()));
    }
    queue
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
    if queue.table.kind == TYPE_CSQ_EX {
        status = queue.insert_ex(irp, insert_context);
    } else {
        queue.with_irp("IO_CSQ_INSERT_IRP", queue.table.insert, irp);
    }
    if !status.is_success() {
        queue.release(irql);
        return status;
    }
    mark_pending(irp);
    swap_routine(irp, cancelled as *const () as usize);
    // Cancelled before there was a routine: whoever takes the routine out completes the request.
    if field!(irp, IRP, Cancel).read() != 0 && swap_routine(irp, 0) != 0 {
        queue.remove(irp);
        forget(irp, context);
        queue.release(irql);
        queue.complete_cancelled(irp);
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
        queue.remove(irp);
        forget(irp, context);
    }
    queue.release(irql);
    if taken { irp.address() } else { 0 }
}

pub(super) extern "efiapi" fn io_csq_remove_next_irp(csq: Raw<Csq>, peek_context: usize) -> usize {
    let call = Call::enter();
    let queue = queue_of(&call, csq);
    let irql = queue.acquire();
    let mut irp = queue.peek_next(Raw::NULL, peek_context);
    while !irp.is_null() {
        if swap_routine(irp, 0) != 0 {
            queue.remove(irp);
            forget(irp, context_of(irp));
            break;
        }
        irp = queue.peek_next(irp, peek_context);
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
    let queue = Routines::new(&thread, driver, Raw::at(csq));
    let irql = queue.acquire();
    queue.remove(irp);
    forget(irp, context);
    queue.release(irql);
    queue.complete_cancelled(irp);
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
