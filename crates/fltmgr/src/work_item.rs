//! Work at PASSIVE_LEVEL, asked for above it.

use crate::FilterRef;
use crate::irql::after_call;
use crate::raw::{
    DELAYED_WORK_QUEUE, FltAllocateGenericWorkItem, FltFreeGenericWorkItem, FltQueueGenericWorkItem,
    PFLT_GENERIC_WORKITEM, PFLT_GENERIC_WORKITEM_ROUTINE,
};
use core::ptr;
use nt_types::NtStatus;

/// A work item, allocated ahead so that asking for work cannot fail for want of memory.
///
/// Freed on drop, IRQL <= DISPATCH_LEVEL; it must not be queued then.
#[derive(Debug)]
pub struct GenericWorkItem {
    item: PFLT_GENERIC_WORKITEM,
}

impl GenericWorkItem {
    /// Allocates an item (`FltAllocateGenericWorkItem`). IRQL <= DISPATCH_LEVEL.
    ///
    /// # Errors
    /// STATUS_INSUFFICIENT_RESOURCES.
    pub fn allocate() -> Result<Self, NtStatus> {
        // SAFETY: no preconditions (rule: nf-fltkernel-fltallocategenericworkitem).
        let item = after_call(unsafe { FltAllocateGenericWorkItem() });
        if item.is_null() {
            return Err(NtStatus::INSUFFICIENT_RESOURCES);
        }
        Ok(Self { item })
    }

    /// Has `routine` run in a system worker thread (`FltQueueGenericWorkItem`). IRQL <= DISPATCH_LEVEL.
    ///
    /// FltMgr references the filter until the routine has returned, so the filter cannot be
    /// unregistered under it.
    ///
    /// # Errors
    /// STATUS_FLT_DELETING_OBJECT.
    ///
    /// # Safety
    /// The item is not queued: its routine has started since it was queued last. The routine is
    /// sound to call with NULL as context.
    pub unsafe fn queue(&self, filter: FilterRef, routine: PFLT_GENERIC_WORKITEM_ROUTINE) -> Result<(), NtStatus> {
        // SAFETY: item and filter are live, and the caller vouches that the item is free
        // (rule: nf-fltkernel-fltqueuegenericworkitem).
        let status = after_call(unsafe {
            FltQueueGenericWorkItem(self.item, filter.as_ptr().cast(), routine, DELAYED_WORK_QUEUE, ptr::null_mut())
        });
        status.ok()
    }
}

impl Drop for GenericWorkItem {
    fn drop(&mut self) {
        // SAFETY: allocated once, freed only here, not queued (rule: the type's contract).
        unsafe { FltFreeGenericWorkItem(self.item) };
        after_call(0_u8);
    }
}

// SAFETY: FltMgr takes the item from any thread (rule: opaque object).
unsafe impl Send for GenericWorkItem {}
// SAFETY: as above; who may queue is in `queue`'s contract.
unsafe impl Sync for GenericWorkItem {}
