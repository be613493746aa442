//! Operations that somebody keeps, and what becomes of them when an instance goes.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fltmgr::raw as flt;
use fltmgr::raw::{FLT_CALLBACK_DATA, FltCallbackDataFlags};
use nt_types::{IO_STATUS_BLOCK, NtStatus};

use super::Instance;
use super::flight::{Flight, Place};
use super::major;
use super::stack::{Waiting, Walk};
use crate::finding::Rule;
use crate::nt::raw::field;
use crate::thread::Thread;

/// Operations that are parked, in the order in which they stopped.
#[derive(Debug, Default)]
pub(crate) struct PendedTable(Mutex<Vec<Arc<Flight>>>);

impl PendedTable {
    pub(super) fn add(&self, flight: &Arc<Flight>) {
        self.lock().push(Arc::clone(flight));
    }

    pub(super) fn remove(&self, flight: &Arc<Flight>) {
        self.lock().retain(|pended| !Arc::ptr_eq(pended, flight));
    }

    /// What callbacks of `instance` keep, one text each.
    pub(super) fn kept_by(&self, instance: &Arc<Instance>) -> Vec<String> {
        let kept = |flight: &Arc<Flight>| {
            let place = flight.with_parked(|_, place| place.clone())?;
            let holds = matches!(&place, Place::Pre(by) | Place::Post(by) if Arc::ptr_eq(by, instance));
            holds.then(|| format!("{} is {place} and was never completed", major::name(flight.major())))
        };
        self.all().iter().filter_map(kept).collect()
    }

    fn all(&self) -> Vec<Arc<Flight>> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Flight>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An instance goes: its post-operation callbacks for operations that are kept below are called now, to clean up.
pub(super) fn drain(thread: &Thread, instance: &Arc<Instance>) {
    for flight in thread.machine().flt.pended.all() {
        let taken = flight.with_parked(|walk, _| take(walk, |running| Arc::ptr_eq(running, instance)));
        for waiting in taken.into_iter().flatten() {
            call(thread, &flight, &waiting);
        }
    }
}

/// An operation is about to be kept while instances above go.
pub(super) fn drain_ending(thread: &Thread, flight: &Arc<Flight>, walk: &mut Walk) {
    for waiting in take(walk, |running| running.rundown.is_ending()) {
        call(thread, flight, &waiting);
    }
}

/// Takes the filters' part out of the walk; the parameters that they changed are still put back.
fn take(walk: &mut Walk, goes: impl Fn(&Arc<Instance>) -> bool) -> Vec<Waiting> {
    let mut taken = Vec::new();
    for waiting in &mut walk.waiting {
        if waiting.running.as_ref().is_some_and(|running| goes(&running.0)) {
            taken.push(waiting.leave_restoring());
        }
    }
    taken
}

/// The post-operation callback with FLTFL_POST_OPERATION_DRAINING, on a copy of the callback data.
fn call(thread: &Thread, flight: &Arc<Flight>, waiting: &Waiting) {
    let (Some(callback), Some(running)) = (waiting.callbacks.post, &waiting.running) else { return };
    let mut copy = flight.copy();
    let data = copy.data();
    let flags = field!(data, FLT_CALLBACK_DATA, Flags);
    let draining = FltCallbackDataFlags::DRAINING_IO | FltCallbackDataFlags::POST_OPERATION;
    flags.write(flags.read() | draining.bits());
    let cleanup = IO_STATUS_BLOCK::new(NtStatus::FLT_POST_OPERATION_CLEANUP, 0);
    field!(data, FLT_CALLBACK_DATA, IoStatus).write(cleanup);
    let instance = &running.0;
    let related = instance.related(flight.target());
    let (pointer, context) = (data.pointer(), waiting.context);
    let answer = thread.call_driver(&instance.filter.driver, "PostOperationCallback", 0, || {
        // SAFETY: the driver registered the function with this signature; all it gets lives until it returns.
        unsafe { callback(pointer, &raw const related, context, flt::FLTFL_POST_OPERATION_DRAINING) }
    });
    if answer.is_ok_and(|answer| answer != flt::FLT_POSTOP_FINISHED_PROCESSING) {
        let message = format!(
            "{}: with FLTFL_POST_OPERATION_DRAINING the answer can only be FLT_POSTOP_FINISHED_PROCESSING",
            major::name(flight.major())
        );
        super::record(thread.machine(), &instance.filter.driver, "PostOperationCallback", Rule::BadState, message);
        thread.leave_if_stopped();
    }
}
