//! Queues of callback data that can be cancelled: the minifilter keeps the list, FltMgr keeps cancellation out of its way.
//!
//! The same protocol as the I/O manager's cancel-safe queues, on operations instead of IRPs. Pages:
//! `fltkernel/nf-fltkernel-fltcbdqinitialize`, `fltkernel/nf-fltkernel-fltcbdqinsertio` and their neighbours.

use std::sync::Arc;

use fltmgr::raw::FLT_CALLBACK_DATA;
use nt_types::NtStatus;

use super::flight::Flight;
use super::object;
use super::operation::Kind;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Driver;
use crate::nt::io::queue_routines::{Names, QueueRoutines, Table};
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltCbdqInitialize(max 31) = flt_cbdq_initialize;
    FltCbdqEnable(max 2) = flt_cbdq_enable;
    FltCbdqDisable(max 2) = flt_cbdq_disable;
    FltCbdqInsertIo(max 2) = flt_cbdq_insert_io;
    FltCbdqRemoveIo(max 2) = flt_cbdq_remove_io;
    FltCbdqRemoveNextIo(max 2) = flt_cbdq_remove_next_io;
}

/// `FLT_CALLBACK_DATA_QUEUE`: the driver's memory, FltMgr's fields. Page: `ns-fltkernel-_flt_callback_data_queue`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Queue {
    /// [`SEEN`] once FltCbdqInitialize has seen it: the `Type` of the `IO_CSQ` that the structure begins with.
    seen: usize,
    /// The rest of the `IO_CSQ`.
    csq: [usize; 7],
    /// [`DISABLED`], or 0.
    flags: u32,
    instance: usize,
    insert: usize,
    remove: usize,
    peek_next: usize,
    acquire: usize,
    release: usize,
    complete_cancelled: usize,
}

const _: () = assert!(size_of::<Queue>() == 128);

/// Marks an initialised queue.
const SEEN: usize = 0x7164_6243;

/// Nothing can be inserted.
const DISABLED: u32 = 1;

/// `FLT_CALLBACK_DATA_QUEUE_IO_CONTEXT`: opaque to the driver; the operation as long as it is queued, and its queue.
#[repr(C)]
#[derive(Clone, Copy)]
struct Context {
    data: usize,
    queue: usize,
}

const NAMES: Names = Names {
    insert: "CbdqInsertIo",
    remove: "CbdqRemoveIo",
    peek_next: "CbdqPeekNextIo",
    acquire: "CbdqAcquire",
    release: "CbdqRelease",
    complete_cancelled: "CbdqCompleteCanceledIo",
};

/// An operation's place in a queue.
#[derive(Clone, Debug)]
pub(super) struct Queued {
    driver: Arc<Driver>,
    queue: usize,
    /// Where the driver keeps the context that it gave; 0 for none.
    context: usize,
}

impl Queued {
    /// Address of the queue.
    pub(super) fn queue(&self) -> usize {
        self.queue
    }

    /// The operation was cancelled, and is the queue's no longer: takes it out and has the driver complete it.
    pub(super) fn cancelled(&self, thread: &Thread, data: Raw<FLT_CALLBACK_DATA>) {
        let queue = routines(thread, Arc::clone(&self.driver), Raw::at(self.queue));
        let irql = queue.acquire();
        self.take_out(&queue, data);
        queue.release(irql);
        queue.complete_cancelled(data.address());
    }

    /// With the lock held.
    fn take_out(&self, queue: &QueueRoutines<'_>, data: Raw<FLT_CALLBACK_DATA>) {
        queue.remove(data.address());
        if let Some(context) = Raw::<Context>::at(self.context).some() {
            field!(context, Context, data).write(0);
        }
    }
}

fn routines(thread: &Thread, driver: Arc<Driver>, queue: Raw<Queue>) -> QueueRoutines<'_> {
    let Queue { insert, remove, peek_next, acquire, release, complete_cancelled, .. } = queue.read();
    let table = Table { insert, remove, peek_next, acquire, release, complete_cancelled };
    QueueRoutines { thread, driver, queue: queue.address(), table, names: &NAMES }
}

fn queue_of(call: &Call, queue: Raw<Queue>) -> QueueRoutines<'_> {
    if queue.read().seen != SEEN {
        call.stop(Rule::BadArgument, format!("{queue:?} is no queue that FltCbdqInitialize has seen"));
    }
    routines(call.thread(), Arc::clone(call.driver()), queue)
}

extern "efiapi" fn flt_cbdq_initialize(
    instance: usize,
    queue: Raw<Queue>,
    insert: usize,
    remove: usize,
    peek_next: usize,
    acquire: usize,
    release: usize,
    complete_cancelled: usize,
) -> NtStatus {
    let call = Call::enter();
    let _instance = object::instance(&call, instance);
    if [insert, remove, peek_next, acquire, release, complete_cancelled].contains(&0) {
        call.stop(Rule::BadArgument, "a queue of callback data needs all of its routines");
    }
    let csq = [0; 7];
    queue.write(Queue {
        seen: SEEN,
        csq,
        flags: 0,
        instance,
        insert,
        remove,
        peek_next,
        acquire,
        release,
        complete_cancelled,
    });
    NtStatus::SUCCESS
}

extern "efiapi" fn flt_cbdq_enable(queue: Raw<Queue>) {
    set_flags(&Call::enter(), queue, 0);
}

extern "efiapi" fn flt_cbdq_disable(queue: Raw<Queue>) {
    set_flags(&Call::enter(), queue, DISABLED);
}

/// Under the lock: an insertion that has begun is done before the queue is disabled.
fn set_flags(call: &Call, queue: Raw<Queue>, flags: u32) {
    let routines = queue_of(call, queue);
    let irql = routines.acquire();
    field!(queue, Queue, flags).write(flags);
    routines.release(irql);
    call.thread().leave_if_stopped();
}

extern "efiapi" fn flt_cbdq_insert_io(
    queue: Raw<Queue>,
    data: Raw<FLT_CALLBACK_DATA>,
    context: Raw<Context>,
    insert_context: usize,
) -> NtStatus {
    let call = Call::enter();
    let flight = Flight::of(&call, data);
    if flight.kind != Kind::Irp {
        call.stop(Rule::BadArgument, "only IRP-based operations can be queued: see FLT_IS_IRP_OPERATION");
    }
    let routines = queue_of(&call, queue);
    let irql = routines.acquire();
    let status = if field!(queue, Queue, flags).read() & DISABLED == 0 {
        routines.insert(data.address(), insert_context)
    } else {
        NtStatus::FLT_CBDQ_DISABLED
    };
    if !status.is_success() {
        routines.release(irql);
        call.thread().leave_if_stopped();
        return status;
    }
    if let Some(context) = context.some() {
        context.write(Context { data: data.address(), queue: queue.address() });
    }
    let queued = Queued { driver: Arc::clone(call.driver()), queue: queue.address(), context: context.address() };
    let Some(cancelled) = flight.watch(queued.clone()) else {
        call.stop(Rule::BadState, "the operation has a cancel routine, or is in a queue, already");
    };
    if cancelled {
        queued.take_out(&routines, data);
    }
    routines.release(irql);
    if cancelled {
        routines.complete_cancelled(data.address());
    }
    call.thread().leave_if_stopped();
    status
}

extern "efiapi" fn flt_cbdq_remove_io(queue: Raw<Queue>, context: Raw<Context>) -> usize {
    let call = Call::enter();
    let routines = queue_of(&call, queue);
    if context.is_null() {
        call.stop(Rule::BadArgument, "the context is NULL: FltCbdqRemoveIo finds an operation by nothing else");
    }
    let irql = routines.acquire();
    let data = context.read().data;
    let taken = data != 0 && take(&call, &routines, data);
    routines.release(irql);
    call.thread().leave_if_stopped();
    if taken { data } else { 0 }
}

extern "efiapi" fn flt_cbdq_remove_next_io(queue: Raw<Queue>, peek_context: usize) -> usize {
    let call = Call::enter();
    let routines = queue_of(&call, queue);
    let irql = routines.acquire();
    let mut data = routines.peek_next(0, peek_context);
    // One that is being cancelled right now stays in the list until its canceller gets the lock.
    while data != 0 && !take(&call, &routines, data) {
        data = routines.peek_next(data, peek_context);
    }
    routines.release(irql);
    call.thread().leave_if_stopped();
    data
}

/// Takes a queued operation out, unless it is being cancelled. With the lock held.
fn take(call: &Call, routines: &QueueRoutines<'_>, data: usize) -> bool {
    let data = Raw::at(data);
    let Some(queued) = Flight::of(call, data).unwatch(routines.queue) else { return false };
    queued.take_out(routines, data);
    true
}
