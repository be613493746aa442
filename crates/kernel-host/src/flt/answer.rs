//! What callbacks may answer, and what follows from it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fltmgr::raw as flt;
use fltmgr::raw::{FLT_IO_PARAMETER_BLOCK, FltCallbackDataFlags};
use nt_types::{IO_STATUS_BLOCK, NtStatus, PVOID};

use super::Instance;
use super::flight::Flight;
use super::major;
use super::operation::Kind;
use super::registration::OperationCallbacks;
use super::stack::Waiting;
use crate::finding::Rule;
use crate::fs::io::Outcome;
use crate::fs::serve;
use crate::nt::raw::field;
use crate::thread::Thread;

/// What a pre-operation callback decided.
pub(super) enum Answer {
    /// Go on; the filter has nothing to do with the end.
    Pass,
    /// Go on, and call the post-operation callback, in this thread where that is promised.
    Tell { synchronised: bool },
    /// The status is set.
    Complete,
    /// The filter keeps the operation.
    Pend,
    /// Go on below the filter's instance on another volume.
    Redirect(Arc<Instance>),
}

/// A callback that has returned.
pub(super) struct Case<'a> {
    pub(super) thread: &'a Thread,
    pub(super) flight: &'a Arc<Flight>,
    pub(super) instance: &'a Arc<Instance>,
    pub(super) callbacks: &'a OperationCallbacks,
}

/// Whether two parameter blocks differ in what a filter may change.
pub(super) fn differs(before: &FLT_IO_PARAMETER_BLOCK, after: &FLT_IO_PARAMETER_BLOCK) -> bool {
    before.IrpFlags != after.IrpFlags
        || before.MinorFunction != after.MinorFunction
        || before.OperationFlags != after.OperationFlags
        || before.TargetFileObject != after.TargetFileObject
        || before.TargetInstance != after.TargetInstance
        || words(before) != words(after)
}

fn words(block: &FLT_IO_PARAMETER_BLOCK) -> [PVOID; 6] {
    // SAFETY: every bit pattern is six words, and all 48 bytes are set from the start.
    unsafe { block.Parameters.Others }
}

impl Case<'_> {
    pub(super) fn pre(
        &self,
        answer: i32,
        context: PVOID,
        before: &FLT_IO_PARAMETER_BLOCK,
        status_before: IO_STATUS_BLOCK,
    ) -> Result<Answer, ()> {
        let tells = matches!(answer, flt::FLT_PREOP_SUCCESS_WITH_CALLBACK | flt::FLT_PREOP_SYNCHRONIZE);
        if !tells && !context.is_null() {
            return self.broken("a completion context without a post-operation callback");
        }
        if tells && self.callbacks.post.is_none() {
            return self.broken("a post-operation callback is asked for but none is registered");
        }
        let is_irp = self.flight.kind == Kind::Irp;
        let is_create = before.MajorFunction == major::CREATE;
        let redirect =
            if answer == flt::FLT_PREOP_PENDING { None } else { self.changes(before, status_before, answer)? };
        match answer {
            flt::FLT_PREOP_SUCCESS_NO_CALLBACK => Ok(redirect.map_or(Answer::Pass, Answer::Redirect)),
            flt::FLT_PREOP_SUCCESS_WITH_CALLBACK => Ok(Answer::Tell { synchronised: is_create }),
            // Nobody needs it for a create; Microsoft's own samples return it, and FltMgr lets them.
            flt::FLT_PREOP_SYNCHRONIZE if is_create => Ok(Answer::Tell { synchronised: true }),
            flt::FLT_PREOP_SYNCHRONIZE if !is_irp => Ok(Answer::Tell { synchronised: false }),
            flt::FLT_PREOP_SYNCHRONIZE => {
                if let Some(what) = self.cannot_be_synchronised(before) {
                    return self.broken(&format!("FLT_PREOP_SYNCHRONIZE is not for {what}"));
                }
                Ok(Answer::Tell { synchronised: true })
            }
            flt::FLT_PREOP_COMPLETE => self.complete(),
            flt::FLT_PREOP_PENDING if is_irp => Ok(Answer::Pend),
            flt::FLT_PREOP_PENDING => self.broken("FLT_PREOP_PENDING is for IRP-based operations only"),
            flt::FLT_PREOP_DISALLOW_FASTIO if self.flight.kind == Kind::FastIo => {
                self.flight.set_outcome((NtStatus::FLT_DISALLOW_FAST_IO, 0));
                Ok(Answer::Complete)
            }
            flt::FLT_PREOP_DISALLOW_FASTIO => self.broken("FLT_PREOP_DISALLOW_FASTIO is for fast I/O only"),
            flt::FLT_PREOP_DISALLOW_FSFILTER_IO if before.MajorFunction == major::QUERY_OPEN => {
                self.flight.set_outcome((NtStatus::FLT_DISALLOW_FAST_IO, 0));
                Ok(Answer::Complete)
            }
            flt::FLT_PREOP_DISALLOW_FSFILTER_IO => {
                self.broken("FLT_PREOP_DISALLOW_FSFILTER_IO is for IRP_MJ_QUERY_OPEN only")
            }
            _ => self.broken(&format!("{answer} is no FLT_PREOP_CALLBACK_STATUS")),
        }
    }

    /// FLT_PREOP_COMPLETE: the rules for the status that is set.
    fn complete(&self) -> Result<Answer, ()> {
        let status = self.flight.outcome().0;
        if status == NtStatus::PENDING {
            return self.broken("FLT_PREOP_COMPLETE with STATUS_PENDING");
        }
        if major::must_succeed(self.flight.major()) && !status.is_success() {
            return self.broken("cleanup and close cannot be failed");
        }
        if status == NtStatus::FLT_DISALLOW_FAST_IO {
            return self.broken("only the Filter Manager can use STATUS_FLT_DISALLOW_FAST_IO");
        }
        if self.flight.kind == Kind::FsFilter && !status.is_success() && serve::must_not_fail(self.flight) {
            return self.broken("this call of the memory manager must not be failed");
        }
        Ok(Answer::Complete)
    }

    /// What the callback changed, and whether it said so. The instance to go on with, when that is another one now.
    fn changes(
        &self,
        before: &FLT_IO_PARAMETER_BLOCK,
        status_before: IO_STATUS_BLOCK,
        answer: i32,
    ) -> Result<Option<Arc<Instance>>, ()> {
        let after = self.flight.block().read();
        if before.MajorFunction != after.MajorFunction {
            return self.broken("the major function was changed: a minifilter starts a new operation instead");
        }
        if !differs(before, &after) {
            return Ok(None);
        }
        if answer == flt::FLT_PREOP_COMPLETE {
            // Nobody below sees the parameters.
            return Ok(None);
        }
        let dirty = self.flight.flags().read() & FltCallbackDataFlags::DIRTY.bits() != 0;
        if !dirty {
            let status_after = self.flight.io_status().read();
            let told =
                (status_before.Status, status_before.Information) != (status_after.Status, status_after.Information);
            if told {
                return Ok(None);
            }
            return self.broken("parameters were changed without FltSetCallbackDataDirty: Windows ignores the changes");
        }
        self.check_target(before, &after)
    }

    /// A changed target has to be on the volume of the target instance, and that an instance of the same filter's.
    fn check_target(
        &self,
        before: &FLT_IO_PARAMETER_BLOCK,
        after: &FLT_IO_PARAMETER_BLOCK,
    ) -> Result<Option<Arc<Instance>>, ()> {
        let mut target = Arc::clone(self.instance);
        if before.TargetInstance != after.TargetInstance {
            let named = self.flight.machine.flt.objects.get(after.TargetInstance.addr());
            let Some(super::object::FltObject::Instance(found)) = named else {
                return self.broken("TargetInstance was changed to what is no instance");
            };
            let twin = Arc::ptr_eq(&found.filter, &self.instance.filter)
                && found.altitude.text() == self.instance.altitude.text();
            if !twin {
                return self.broken("TargetInstance was changed to an instance of another filter or altitude");
            }
            target = found;
        }
        if before.TargetFileObject != after.TargetFileObject && before.MajorFunction != major::CREATE {
            let open = crate::fs::io::open_at(&self.flight.machine, after.TargetFileObject.addr());
            if !open.is_some_and(|open| Arc::ptr_eq(&open.volume, &target.volume.volume)) {
                return self
                    .broken("TargetFileObject was changed to a file that is not on the target instance's volume");
            }
        }
        Ok((!Arc::ptr_eq(&target, self.instance)).then_some(target))
    }

    fn cannot_be_synchronised(&self, block: &FLT_IO_PARAMETER_BLOCK) -> Option<&'static str> {
        const IRP_MN_NOTIFY_CHANGE_DIRECTORY: u8 = 2;
        const IRP_MN_LOCK: u8 = 1;
        match (block.MajorFunction, block.MinorFunction) {
            (major::READ | major::WRITE, _) if !serve::is_synchronous(self.flight) => {
                Some("asynchronous reads and writes")
            }
            (major::DIRECTORY_CONTROL, IRP_MN_NOTIFY_CHANGE_DIRECTORY) => Some("directory change notifications"),
            (major::LOCK_CONTROL, IRP_MN_LOCK) => Some("byte-range lock requests"),
            (major::FILE_SYSTEM_CONTROL, _) if crate::fs::control::is_oplock_request(self.flight.block()) => {
                Some("oplock requests")
            }
            _ => None,
        }
    }

    /// True when the filter keeps the operation.
    pub(super) fn post(&self, answer: i32, before: Outcome) -> Result<bool, ()> {
        let is_irp = self.flight.kind == Kind::Irp;
        match answer {
            flt::FLT_POSTOP_FINISHED_PROCESSING => self.finished(before).map(|()| false),
            flt::FLT_POSTOP_MORE_PROCESSING_REQUIRED if is_irp => Ok(true),
            flt::FLT_POSTOP_MORE_PROCESSING_REQUIRED => {
                self.broken_post("FLT_POSTOP_MORE_PROCESSING_REQUIRED is for IRP-based operations only")
            }
            flt::FLT_POSTOP_DISALLOW_FSFILTER_IO if self.flight.major() == major::QUERY_OPEN => {
                self.flight.set_outcome((NtStatus::FLT_DISALLOW_FAST_IO, 0));
                Ok(false)
            }
            flt::FLT_POSTOP_DISALLOW_FSFILTER_IO => {
                self.broken_post("FLT_POSTOP_DISALLOW_FSFILTER_IO is for IRP_MJ_QUERY_OPEN only")
            }
            _ => self.broken_post(&format!("{answer} is no FLT_POSTOP_CALLBACK_STATUS for this operation")),
        }
    }

    /// The rules for the status that a post-operation callback leaves.
    fn finished(&self, (before, _): Outcome) -> Result<(), ()> {
        let (after, _) = self.flight.outcome();
        if after == before {
            return Ok(());
        }
        if after == NtStatus::PENDING {
            return self.broken_post("the final status is STATUS_PENDING");
        }
        if after == NtStatus::FLT_DISALLOW_FAST_IO {
            return self.broken_post("only the Filter Manager can use STATUS_FLT_DISALLOW_FAST_IO");
        }
        let undone = self.flight.open_cancelled.load(Ordering::Acquire);
        let opened = before.is_success() && before != NtStatus::REPARSE;
        if self.flight.major() == major::CREATE && opened && !after.is_success() && !undone {
            return self
                .broken_post("a successful create was failed without FltCancelFileOpen: the file stays open below");
        }
        if major::must_succeed(self.flight.major()) && !after.is_success() {
            return self.broken_post("cleanup and close cannot be failed");
        }
        Ok(())
    }

    fn broken<T>(&self, message: &str) -> Result<T, ()> {
        broken(self.thread, self.flight, self.instance, message)
    }

    fn broken_post<T>(&self, message: &str) -> Result<T, ()> {
        report(self.thread, self.flight, self.instance, "PostOperationCallback", message)
    }
}

/// What FltCompletePendedPreOperation says. Its export has checked the value already.
pub(super) fn resumed_pre(
    thread: &Thread,
    flight: &Arc<Flight>,
    instance: &Arc<Instance>,
    holder: &Waiting,
    answer: i32,
) -> Result<Answer, ()> {
    let case = Case { thread, flight, instance, callbacks: &holder.callbacks };
    let redirect = match &holder.original {
        Some(before) => case.changes(before, IO_STATUS_BLOCK::new(NtStatus::SUCCESS, 0), answer)?,
        None => None,
    };
    let flags = flight.flags();
    flags.write(flags.read() & !FltCallbackDataFlags::DIRTY.bits());
    match answer {
        flt::FLT_PREOP_COMPLETE => case.complete(),
        flt::FLT_PREOP_SUCCESS_WITH_CALLBACK if holder.callbacks.post.is_none() => {
            case.broken("a post-operation callback is asked for but none is registered")
        }
        flt::FLT_PREOP_SUCCESS_WITH_CALLBACK => Ok(Answer::Tell { synchronised: false }),
        _ => Ok(redirect.map_or(Answer::Pass, Answer::Redirect)),
    }
}

/// The driver broke a rule by what its pre-operation callback did.
pub(super) fn broken<T>(thread: &Thread, flight: &Flight, instance: &Instance, message: &str) -> Result<T, ()> {
    report(thread, flight, instance, "PreOperationCallback", message)
}

fn report<T>(
    thread: &Thread,
    flight: &Flight,
    instance: &Instance,
    callback: &'static str,
    message: &str,
) -> Result<T, ()> {
    let operation = major::name(field!(flight.block(), FLT_IO_PARAMETER_BLOCK, MajorFunction).read());
    let message = format!("{operation}: {message}");
    super::record(thread.machine(), &instance.filter.driver, callback, Rule::BadState, message);
    thread.leave_if_stopped();
    Err(())
}
