//! The event that staging jobs signal.

use super::time::{now, relative};
use broker::{Completion, Error, Shared, Time};
use core::cell::UnsafeCell;
use wdk_sys::ntddk::{KeInitializeEvent, KeSetEvent, KeWaitForSingleObject};

/// A notification event: once signalled, it stays so.
///
/// Lies on the heap, since a KEVENT must not move once it is initialised.
pub(crate) struct Event {
    cell: Shared<EventCell>,
}

struct EventCell(UnsafeCell<wdk_sys::KEVENT>);

// SAFETY: a KEVENT is made for use by several threads, through the kernel's functions only.
unsafe impl Send for EventCell {}
// SAFETY: as above.
unsafe impl Sync for EventCell {}

impl Event {
    /// A new event, not signalled.
    ///
    /// [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`).
    pub(crate) fn try_new() -> Result<Self, Error> {
        let cell = Shared::try_new(EventCell(UnsafeCell::new(wdk_sys::KEVENT::default())))?;
        // SAFETY: storage of a KEVENT, not yet known to anybody else (rule: KeInitializeEvent).
        unsafe { KeInitializeEvent(cell.0.get(), wdk_sys::_EVENT_TYPE::NotificationEvent, 0) };
        Ok(Self { cell })
    }
}

impl Completion for Event {
    fn signal(&self) {
        // SAFETY: initialised in `try_new`; `Wait` is FALSE, so IRQL <= DISPATCH_LEVEL will do
        // (rule: KeSetEvent).
        unsafe { KeSetEvent(self.cell.0.get(), 0, 0) };
    }

    fn wait(&self, deadline: Time) -> bool {
        let mut timeout = relative(deadline.0.saturating_sub(now().0));
        // SAFETY: PASSIVE_LEVEL by the trait's contract; the event is initialised and outlives the wait
        // (rule: KeWaitForSingleObject).
        let status = unsafe {
            KeWaitForSingleObject(
                self.cell.0.get().cast(),
                wdk_sys::_KWAIT_REASON::Executive,
                nt_types::KERNEL_MODE,
                0,
                &raw mut timeout,
            )
        };
        // STATUS_TIMEOUT is success severity too, so compare.
        status == nt_types::NtStatus::SUCCESS.0
    }
}
