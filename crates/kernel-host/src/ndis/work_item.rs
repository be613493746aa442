//! Work items: `NdisAllocateIoWorkItem`, `NdisQueueIoWorkItem`, `NdisFreeIoWorkItem`.

use std::sync::Arc;

use ndis::raw::NDIS_IO_WORKITEM_ROUTINE;

use super::{end_handle, new_handle};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::{Driver, Inner};
use crate::nt::raw::Raw;
use crate::thread::Thread;

exports! { pub(super) EXPORTS in "ndis.sys":
    NdisAllocateIoWorkItem(max 2, fails NULL) = allocate;
    NdisQueueIoWorkItem(max 2) = queue;
    NdisFreeIoWorkItem(max 2) = free;
}

/// A work item.
#[derive(Debug)]
pub(super) struct WorkItem {
    pub(super) driver: Arc<Driver>,
    /// The NDIS handle that it was allocated with.
    pub(super) owner: usize,
    pub(super) is_queued: bool,
}

extern "efiapi" fn allocate(owner: usize) -> usize {
    let call = Call::enter();
    let state = call.machine().ndis.lock();
    let has_device = state.miniports.contains_key(&owner)
        || state.ports.contains_key(&owner)
        || state.filters.contains_key(&owner)
        || state.modules.contains_key(&owner)
        || state.generic.contains_key(&owner);
    let is_protocol =
        state.protocols.contains_key(&owner) || state.bindings.iter().any(|binding| binding.handle == owner);
    drop(state);
    if is_protocol {
        let message = "protocol drivers cannot use NDIS work items: no device belongs to the handle";
        call.stop(Rule::BadArgument, message);
    }
    if !has_device {
        let message = format!("{owner:#x} is no handle of a miniport driver, an adapter, a filter or a filter module");
        call.stop(Rule::InvalidHandle, message);
    }
    let handle = new_handle(call.machine());
    if handle != 0 {
        let item = WorkItem { driver: Arc::clone(call.driver()), owner, is_queued: false };
        call.machine().ndis.lock().work_items.insert(handle, item);
    }
    handle
}

extern "efiapi" fn queue(handle: usize, routine: usize, context: usize) {
    let call = Call::enter();
    let queued = {
        let mut state = call.machine().ndis.lock();
        match state.work_items.get_mut(&handle) {
            None => Err((Rule::InvalidHandle, "is no work item, or one that is freed")),
            Some(item) if item.is_queued => Err((Rule::BadState, "is queued already")),
            Some(item) => {
                item.is_queued = true;
                Ok(Arc::clone(&item.driver))
            }
        }
    };
    match queued {
        Ok(driver) => {
            let machine = Arc::clone(call.machine());
            // One Linux thread each: system worker threads are many, and routines may wait for each other.
            std::thread::spawn(move || run(&machine, &driver, handle, routine, context));
        }
        Err((rule, why)) => call.stop(rule, format!("{handle:#x} {why}")),
    }
}

fn run(machine: &Arc<Inner>, driver: &Arc<Driver>, handle: usize, routine: usize, context: usize) {
    // From now on the routine may queue or free its own item.
    if let Some(item) = machine.ndis.lock().work_items.get_mut(&handle) {
        item.is_queued = false;
    }
    // SAFETY: the driver queued the address of an NDIS_IO_WORKITEM_ROUTINE.
    let routine = unsafe { std::mem::transmute::<usize, NDIS_IO_WORKITEM_ROUTINE>(routine) };
    let (context, handle) = (context, handle);
    Thread::enter(machine, |thread| {
        // A stop is recorded in the machine; this thread just ends.
        let _ = thread.call_driver(driver, "NDIS_IO_WORKITEM_ROUTINE", 0, || {
            // SAFETY: the driver queued the routine for this context.
            unsafe { routine(Raw::at(context).pointer(), Raw::at(handle).pointer()) }
        });
    });
}

extern "efiapi" fn free(handle: usize) {
    let call = Call::enter();
    let freed = {
        let mut state = call.machine().ndis.lock();
        match state.work_items.get(&handle) {
            None => Err((Rule::InvalidHandle, "is no work item, or one that was freed before")),
            Some(item) if item.is_queued => Err((Rule::BadState, "is still queued")),
            Some(_) => {
                state.work_items.remove(&handle);
                Ok(())
            }
        }
    };
    match freed {
        Ok(()) => end_handle(call.machine(), handle),
        Err((rule, why)) => call.stop(rule, format!("{handle:#x} {why}")),
    }
}
