//! Cancelling operations: FltCancelIo, FltSetCancelCompletion and their relatives.

use std::sync::{Arc, PoisonError};

use fltmgr::raw::{FLT_CALLBACK_DATA, PFLT_COMPLETE_CANCELED_CALLBACK};
use nt_types::{BOOLEAN, NtStatus};

use super::flight::Flight;
use super::operation::Kind;
use super::queue::Queued;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Driver;
use crate::nt::raw::Raw;
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltCancelIo(max 2) = flt_cancel_io;
    FltIsIoCanceled(max 2) = flt_is_io_canceled;
    FltSetCancelCompletion(max 2) = flt_set_cancel_completion;
    FltClearCancelCompletion(max 2) = flt_clear_cancel_completion;
}

/// The cancel bit and routine of an operation.
#[derive(Debug, Default)]
pub(crate) struct Cancellation {
    requested: bool,
    routine: Option<Routine>,
}

/// Who is told.
#[derive(Clone, Debug)]
enum Routine {
    /// FltSetCancelCompletion.
    Callback { driver: Arc<Driver>, callback: unsafe extern "efiapi" fn(*mut FLT_CALLBACK_DATA) },
    /// The operation is in a queue of callback data.
    Queue(Queued),
}

impl Cancellation {
    /// Whether a filter wants to be told.
    pub(super) fn has_routine(&self) -> bool {
        self.routine.is_some()
    }
}

impl Flight {
    /// Asks for the end of the operation. True when whoever keeps it was told; false when nobody can be, or it was asked before.
    pub(crate) fn cancel(self: &Arc<Self>, thread: &Thread) -> bool {
        let routine = {
            let mut cancellation = self.cancellation.lock().unwrap_or_else(PoisonError::into_inner);
            if std::mem::replace(&mut cancellation.requested, true) {
                return false;
            }
            cancellation.routine.take()
        };
        let data = self.data().pointer();
        let (driver, callback) = match routine {
            Some(Routine::Callback { driver, callback }) => (driver, callback),
            Some(Routine::Queue(queued)) => {
                queued.cancelled(thread, self.data());
                return true;
            }
            None => {
                return crate::fs::serve::cancel(thread.machine(), self)
                    || super::file_lock::cancel(thread.machine(), thread, self)
                    || super::oplock::cancel(thread.machine(), thread, self);
            }
        };
        // A stop reaches whoever drives the machine.
        let _stopped = thread.call_driver(&driver, "CanceledCallback", thread.irql(), || {
            // SAFETY: the driver passed the function with this signature, and the operation lives.
            unsafe { callback(data) }
        });
        true
    }

    /// Puts the operation under a queue's care: `None` when it has a cancel routine, else whether it was cancelled before.
    pub(super) fn watch(&self, queued: Queued) -> Option<bool> {
        let mut cancellation = self.cancellation.lock().unwrap_or_else(PoisonError::into_inner);
        if cancellation.routine.is_some() {
            return None;
        }
        if !cancellation.requested {
            cancellation.routine = Some(Routine::Queue(queued));
        }
        Some(cancellation.requested)
    }

    /// Takes the operation out of the care of the queue at `queue`; `None` when it is not, or is being cancelled right now.
    pub(super) fn unwatch(&self, queue: usize) -> Option<Queued> {
        let mut cancellation = self.cancellation.lock().unwrap_or_else(PoisonError::into_inner);
        match cancellation.routine.take() {
            Some(Routine::Queue(queued)) if queued.queue() == queue => Some(queued),
            other => {
                cancellation.routine = other;
                None
            }
        }
    }

    /// Whether somebody asked for the end.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.cancellation.lock().unwrap_or_else(PoisonError::into_inner).requested
    }
}

extern "efiapi" fn flt_cancel_io(data: Raw<FLT_CALLBACK_DATA>) -> BOOLEAN {
    let call = Call::enter();
    let flight = Flight::of(&call, data);
    BOOLEAN::from(flight.kind == Kind::Irp && !flight.is_complete() && flight.cancel(call.thread()))
}

extern "efiapi" fn flt_is_io_canceled(data: Raw<FLT_CALLBACK_DATA>) -> BOOLEAN {
    let call = Call::enter();
    BOOLEAN::from(Flight::of(&call, data).is_cancelled())
}

extern "efiapi" fn flt_set_cancel_completion(
    data: Raw<FLT_CALLBACK_DATA>,
    callback: PFLT_COMPLETE_CANCELED_CALLBACK,
) -> NtStatus {
    let call = Call::enter();
    let flight = Flight::of(&call, data);
    if flight.kind != Kind::Irp || crate::fs::serve::is_paging(&flight) {
        call.stop(Rule::BadArgument, "only IRP-based operations that are no paging I/O have a cancel routine");
    }
    let Some(callback) = callback else { call.stop(Rule::BadArgument, "the cancel routine is NULL") };
    let mut cancellation = flight.cancellation.lock().unwrap_or_else(PoisonError::into_inner);
    // General knowledge, no page: as IoSetCancelRoutine and a look at the cancel bit would find.
    if cancellation.requested {
        return NtStatus::CANCELLED;
    }
    if cancellation.routine.is_some() {
        drop(cancellation);
        call.stop(Rule::BadState, "the operation has a cancel routine already");
    }
    cancellation.routine = Some(Routine::Callback { driver: Arc::clone(call.driver()), callback });
    NtStatus::SUCCESS
}

extern "efiapi" fn flt_clear_cancel_completion(data: Raw<FLT_CALLBACK_DATA>) -> NtStatus {
    let call = Call::enter();
    let flight = Flight::of(&call, data);
    if flight.kind != Kind::Irp {
        call.stop(Rule::BadArgument, "only IRP-based operations have a cancel routine");
    }
    let mut cancellation = flight.cancellation.lock().unwrap_or_else(PoisonError::into_inner);
    let removed = matches!(cancellation.routine, Some(Routine::Callback { .. }));
    if removed {
        cancellation.routine = None;
    }
    if removed { NtStatus::SUCCESS } else { NtStatus::CANCELLED }
}
