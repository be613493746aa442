//! Operations that a filter keeps: work items for them, and their way back to the Filter Manager.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fltmgr::raw as flt;
use fltmgr::raw::{
    FLT_CALLBACK_DATA, FLT_RELATED_OBJECTS, PFLT_DEFERRED_IO_WORKITEM_ROUTINE, PFLT_POST_OPERATION_CALLBACK,
};
use nt_types::{BOOLEAN, NtStatus, PVOID};

use super::flight::{Flight, Resume, Stage};
use super::object::{self, FltObject, ObjectTable};
use super::operation::Kind;
use super::stack;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::fs::serve;
use crate::machine::Driver;
use crate::nt::raw::Raw;
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltCompletePendedPreOperation(max 2) = flt_complete_pended_pre_operation;
    FltCompletePendedPostOperation(max 2) = flt_complete_pended_post_operation;
    FltDoCompletionProcessingWhenSafe(max 2) = flt_do_completion_processing_when_safe;
    FltAllocateDeferredIoWorkItem(max 2, fails NULL) = flt_allocate_deferred_io_work_item;
    FltFreeDeferredIoWorkItem(max 2) = flt_free_deferred_io_work_item;
    FltQueueDeferredIoWorkItem(max 2, fails BUSY) = flt_queue_deferred_io_work_item;
}

/// `APC_LEVEL`.
const APC_LEVEL: u8 = 1;

/// A work item for an operation.
#[derive(Debug)]
pub(crate) struct DeferredWorkItem {
    pub(crate) driver: Arc<Driver>,
    /// From the queueing until the routine is entered, when the item is the driver's again.
    queued: AtomicBool,
}

extern "efiapi" fn flt_complete_pended_pre_operation(data: Raw<FLT_CALLBACK_DATA>, answer: i32, context: PVOID) {
    let call = Call::enter();
    let flight = Flight::of(&call, data);
    let tells = answer == flt::FLT_PREOP_SUCCESS_WITH_CALLBACK;
    if !matches!(
        answer,
        flt::FLT_PREOP_COMPLETE | flt::FLT_PREOP_SUCCESS_NO_CALLBACK | flt::FLT_PREOP_SUCCESS_WITH_CALLBACK
    ) {
        call.stop(Rule::BadArgument, format!("{answer} is no status with which a pended operation can go on"));
    }
    if answer != flt::FLT_PREOP_COMPLETE && call.thread().irql() > APC_LEVEL {
        call.stop(Rule::IrqlTooHigh, "above APC_LEVEL only FLT_PREOP_COMPLETE is allowed");
    }
    if !tells && !context.is_null() {
        call.stop(Rule::BadArgument, "a completion context without a post-operation callback");
    }
    resume(&call, &flight, Resume::Pre(answer, context));
}

extern "efiapi" fn flt_complete_pended_post_operation(data: Raw<FLT_CALLBACK_DATA>) {
    let call = Call::enter();
    let flight = Flight::of(&call, data);
    resume(&call, &flight, Resume::Post);
}

fn resume(call: &Call, flight: &Arc<Flight>, resume: Resume) {
    if let Err(why) = stack::resume(call.thread(), flight, resume) {
        call.stop(Rule::BadState, format!("the operation is not pended by this callback: {why}"));
    }
    call.thread().leave_if_stopped();
}

extern "efiapi" fn flt_do_completion_processing_when_safe(
    data: Raw<FLT_CALLBACK_DATA>,
    related: Raw<FLT_RELATED_OBJECTS>,
    context: PVOID,
    flags: u32,
    callback: PFLT_POST_OPERATION_CALLBACK,
    answer: Raw<i32>,
) -> BOOLEAN {
    let call = Call::enter();
    let flight = Flight::of(&call, data);
    let Some(callback) = callback else { call.stop(Rule::BadArgument, "the safe callback is NULL") };
    if flags & flt::FLTFL_POST_OPERATION_DRAINING != 0 {
        call.stop(Rule::BadState, "FltDoCompletionProcessingWhenSafe is called while the instance is drained");
    }
    if flight.kind != Kind::Irp {
        call.stop(Rule::BadArgument, "FltDoCompletionProcessingWhenSafe is for IRP-based operations only");
    }
    if !flight.is_in(Stage::Post) {
        call.stop(Rule::BadState, "FltDoCompletionProcessingWhenSafe is for post-operation callbacks only");
    }
    let driver = Arc::clone(call.driver());
    let related = related.read();
    if call.thread().irql() <= APC_LEVEL {
        let result = call.thread().call_driver(&driver, "SafePostCallback", call.thread().irql(), || {
            // SAFETY: the driver passed the function with this signature; its arguments live until it returns.
            unsafe { callback(data.pointer(), &raw const related, context, flags) }
        });
        call.thread().leave_if_stopped();
        answer.write(result.unwrap_or(flt::FLT_POSTOP_FINISHED_PROCESSING));
        return 1;
    }
    if serve::is_paging(&flight) {
        answer.write(flt::FLT_POSTOP_FINISHED_PROCESSING);
        return 0;
    }
    answer.write(flt::FLT_POSTOP_MORE_PROCESSING_REQUIRED);
    // Addresses: what they lead to is the driver's business, and lives until the operation goes on.
    let (machine, context) = (Arc::clone(call.machine()), Raw::of(context).address());
    let instance = flight.last_instance();
    let file = flight.target();
    std::thread::spawn(move || {
        Thread::enter(&machine, |thread| {
            let Some(FltObject::Instance(instance)) = machine.flt.objects.get(instance) else { return };
            let related = instance.related(file);
            let data = flight.data().pointer();
            let result = thread.call_driver(&driver, "SafePostCallback", 0, || {
                // SAFETY: as above.
                unsafe { callback(data, &raw const related, Raw::at(context).pointer(), flags) }
            });
            if result.is_ok_and(|result| result == flt::FLT_POSTOP_FINISHED_PROCESSING)
                && let Err(why) = stack::resume(thread, &flight, Resume::Post)
            {
                let message = format!("the operation was posted, and then completed by somebody else: {why}");
                super::record(&machine, &driver, "SafePostCallback", Rule::BadState, message);
            }
        });
    });
    1
}

extern "efiapi" fn flt_allocate_deferred_io_work_item() -> usize {
    let call = Call::enter();
    let machine = call.machine();
    let Ok(address) = ObjectTable::reserve(machine) else { return 0 };
    let item = DeferredWorkItem { driver: Arc::clone(call.driver()), queued: AtomicBool::new(false) };
    machine.flt.objects.insert(address, FltObject::DeferredWorkItem(Arc::new(item)));
    address
}

extern "efiapi" fn flt_free_deferred_io_work_item(address: usize) {
    let call = Call::enter();
    let item = object::deferred_work_item(&call, address);
    if item.queued.load(Ordering::Acquire) {
        call.stop(Rule::BadState, "the work item is freed while it is queued");
    }
    call.machine().flt.objects.remove(call.machine(), address);
}

extern "efiapi" fn flt_queue_deferred_io_work_item(
    address: usize,
    data: Raw<FLT_CALLBACK_DATA>,
    routine: PFLT_DEFERRED_IO_WORKITEM_ROUTINE,
    queue: i32,
    context: PVOID,
) -> NtStatus {
    /// `HyperCriticalWorkQueue` and above are the system's.
    const DELAYED_WORK_QUEUE: i32 = 1;
    let call = Call::enter();
    let item = object::deferred_work_item(&call, address);
    let flight = Flight::of(&call, data);
    let Some(routine) = routine else { call.stop(Rule::BadArgument, "the worker routine is NULL") };
    if !(0..=DELAYED_WORK_QUEUE).contains(&queue) {
        return NtStatus::INVALID_PARAMETER;
    }
    if flight.kind != Kind::Irp {
        call.stop(Rule::BadArgument, "only IRP-based operations can be posted to a work queue");
    }
    if serve::is_paging(&flight) {
        return NtStatus::FLT_NOT_SAFE_TO_POST_OPERATION;
    }
    let Some(FltObject::Instance(instance)) = call.machine().flt.objects.get(flight.last_instance()) else {
        return NtStatus::FLT_DELETING_OBJECT;
    };
    if let Err(status) = instance.rundown.enter() {
        return status;
    }
    if item.queued.swap(true, Ordering::AcqRel) {
        instance.rundown.leave();
        call.stop(Rule::BadState, "the work item is queued already");
    }
    let (machine, context) = (Arc::clone(call.machine()), Raw::of(context).address());
    // One thread each: NT's worker threads may run items in any order and at the same time, and so do these.
    std::thread::spawn(move || {
        Thread::enter(&machine, |thread| {
            item.queued.store(false, Ordering::Release);
            let data = flight.data().pointer();
            // A stop reaches whoever drives the machine.
            let _stopped = thread.call_driver(&item.driver, "DeferredIoWorkItemRoutine", 0, || {
                // SAFETY: the driver passed the function with this signature, and its instance's rundown keeps it loaded.
                unsafe { routine(Raw::at(address).pointer(), data, Raw::at(context).pointer()) }
            });
        });
        instance.rundown.leave();
    });
    NtStatus::SUCCESS
}
