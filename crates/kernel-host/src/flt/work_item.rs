//! Generic work items: driver code that runs later, at PASSIVE_LEVEL in the system process.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fltmgr::raw::PFLT_GENERIC_WORKITEM_ROUTINE;
use nt_types::{NtStatus, PVOID};

use super::object::{self, FltObject, ObjectTable};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Driver;
use crate::nt::raw::Raw;
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltAllocateGenericWorkItem(max 2, fails NULL) = flt_allocate_generic_work_item;
    FltQueueGenericWorkItem(max 2, fails BUSY) = flt_queue_generic_work_item;
    FltFreeGenericWorkItem(max 2) = flt_free_generic_work_item;
}

/// A work item.
#[derive(Debug)]
pub(crate) struct WorkItem {
    pub(crate) driver: Arc<Driver>,
    /// From the queueing until the routine is entered, when the item is the driver's again.
    queued: AtomicBool,
}

extern "efiapi" fn flt_allocate_generic_work_item() -> usize {
    let call = Call::enter();
    let machine = call.machine();
    let Ok(address) = ObjectTable::reserve(machine) else { return 0 };
    let item = WorkItem { driver: Arc::clone(call.driver()), queued: AtomicBool::new(false) };
    machine.flt.objects.insert(address, FltObject::WorkItem(Arc::new(item)));
    address
}

extern "efiapi" fn flt_free_generic_work_item(address: usize) {
    let call = Call::enter();
    let item = object::work_item(&call, address);
    if item.queued.load(Ordering::Acquire) {
        call.stop(Rule::BadState, "the work item is freed while it is queued");
    }
    call.machine().flt.objects.remove(call.machine(), address);
}

extern "efiapi" fn flt_queue_generic_work_item(
    address: usize,
    target: usize,
    routine: PFLT_GENERIC_WORKITEM_ROUTINE,
    queue: i32,
    context: PVOID,
) -> NtStatus {
    /// `HyperCriticalWorkQueue` and above are the system's.
    const DELAYED_WORK_QUEUE: i32 = 1;
    let call = Call::enter();
    let item = object::work_item(&call, address);
    let Some(routine) = routine else { call.stop(Rule::BadArgument, "the worker routine is NULL") };
    if !(0..=DELAYED_WORK_QUEUE).contains(&queue) {
        return NtStatus::INVALID_PARAMETER;
    }
    let Some(held) = call.machine().flt.objects.get(target) else {
        object::wrong(&call, target, "PFLT_FILTER or PFLT_INSTANCE", None)
    };
    let Some(rundown) = held.rundown() else {
        object::wrong(&call, target, "PFLT_FILTER or PFLT_INSTANCE", Some(&held))
    };
    if let Err(status) = rundown.enter() {
        return status;
    }
    if item.queued.swap(true, Ordering::AcqRel) {
        call.stop(Rule::BadState, "the work item is queued already");
    }
    let machine = Arc::clone(call.machine());
    // An address: what it leads to is the driver's business.
    let context = Raw::of(context).address();
    // One thread each: NT's worker threads may run items in any order and at the same time, and so do these.
    std::thread::spawn(move || {
        Thread::enter(&machine, |thread| {
            item.queued.store(false, Ordering::Release);
            // A stop reaches whoever drives the machine.
            let _stopped = thread.call_driver(&item.driver, "GenericWorkItemRoutine", 0, || {
                // SAFETY: the driver passed the function with this signature, and its filter's rundown keeps it loaded.
                unsafe { routine(Raw::at(address).pointer(), Raw::at(target).pointer(), Raw::at(context).pointer()) }
            });
        });
        if let Some(rundown) = held.rundown() {
            rundown.leave();
        }
    });
    NtStatus::SUCCESS
}
