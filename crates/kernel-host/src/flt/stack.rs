//! Operations on their way through the instances on a volume: pre-operation callbacks down, post-operation callbacks up.

use std::sync::Arc;

use fltmgr::raw as flt;
use fltmgr::raw::{FLT_CALLBACK_DATA, FLT_IO_PARAMETER_BLOCK, FLT_PARAMETERS, FltCallbackDataFlags};
use nt_types::{FILE_OBJECT, IO_STATUS_BLOCK, KERNEL_MODE, KPROCESSOR_MODE, NtStatus, PVOID};

use super::Instance;
use super::registration::OperationCallbacks;
use crate::finding::Rule;
use crate::fs::io::{OpenParameters, Outcome};
use crate::fs::volume::Volume;
use crate::machine::Inner;
use crate::nt::ob::ObjectRef;
use crate::nt::raw::Raw;
use crate::thread::Thread;

/// IRP major functions.
pub(crate) mod major {
    pub(crate) const CREATE: u8 = 0x00;
    pub(crate) const CLOSE: u8 = 0x02;
    pub(crate) const READ: u8 = 0x03;
    pub(crate) const WRITE: u8 = 0x04;
    pub(crate) const QUERY_INFORMATION: u8 = 0x05;
    pub(crate) const SET_INFORMATION: u8 = 0x06;
    pub(crate) const CLEANUP: u8 = 0x12;

    /// What the file system sends through the filters. Others cannot be registered yet.
    pub(crate) const DELIVERED: &[u8] = &[CREATE, CLOSE, READ, WRITE, QUERY_INFORMATION, SET_INFORMATION, CLEANUP];

    /// The name in the header, as far as it matters for messages.
    pub(crate) fn name(major: u8) -> String {
        const NAMES: &[(u8, &str)] = &[
            (CREATE, "IRP_MJ_CREATE"),
            (0x01, "IRP_MJ_CREATE_NAMED_PIPE"),
            (CLOSE, "IRP_MJ_CLOSE"),
            (READ, "IRP_MJ_READ"),
            (WRITE, "IRP_MJ_WRITE"),
            (QUERY_INFORMATION, "IRP_MJ_QUERY_INFORMATION"),
            (SET_INFORMATION, "IRP_MJ_SET_INFORMATION"),
            (0x07, "IRP_MJ_QUERY_EA"),
            (0x08, "IRP_MJ_SET_EA"),
            (0x09, "IRP_MJ_FLUSH_BUFFERS"),
            (0x0A, "IRP_MJ_QUERY_VOLUME_INFORMATION"),
            (0x0B, "IRP_MJ_SET_VOLUME_INFORMATION"),
            (0x0C, "IRP_MJ_DIRECTORY_CONTROL"),
            (0x0D, "IRP_MJ_FILE_SYSTEM_CONTROL"),
            (0x0E, "IRP_MJ_DEVICE_CONTROL"),
            (0x0F, "IRP_MJ_INTERNAL_DEVICE_CONTROL"),
            (0x10, "IRP_MJ_SHUTDOWN"),
            (0x11, "IRP_MJ_LOCK_CONTROL"),
            (CLEANUP, "IRP_MJ_CLEANUP"),
            (0x14, "IRP_MJ_QUERY_SECURITY"),
            (0x15, "IRP_MJ_SET_SECURITY"),
            (0xFF, "IRP_MJ_ACQUIRE_FOR_SECTION_SYNCHRONIZATION"),
        ];
        let known = NAMES.iter().find(|(number, _)| *number == major);
        known.map_or_else(|| format!("IRP_MJ 0x{major:02X}"), |(_, name)| (*name).to_owned())
    }
}

/// `IRP_NOCACHE`.
const IRP_NOCACHE: u32 = 1;

/// One operation, before any filter has seen it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    major: u8,
    file: usize,
    mode: KPROCESSOR_MODE,
    parameters: FLT_PARAMETERS,
    non_cached: bool,
    of_volume: bool,
}

impl Operation {
    fn new(major: u8, file: usize, mode: KPROCESSOR_MODE) -> Self {
        Self { major, file, mode, parameters: FLT_PARAMETERS::ZERO, non_cached: false, of_volume: false }
    }

    /// Says what kind of file the operation is on: filters can skip some by their registration's flags.
    pub(crate) fn on(mut self, non_cached: bool, of_volume: bool) -> Self {
        (self.non_cached, self.of_volume) = (non_cached, of_volume);
        self
    }

    /// IRP_MJ_CREATE.
    pub(crate) fn create(file: &ObjectRef, parameters: &OpenParameters) -> Self {
        let mut operation = Self::new(major::CREATE, file.body(), parameters.mode);
        let block = operation.block();
        // Options in the low 24 bits, disposition above; attributes and share access are 16 bits each.
        block.field::<u32>(8).write(parameters.options & 0x00FF_FFFF | parameters.disposition << 24);
        block.field::<u16>(16).write(parameters.file_attributes as u16);
        block.field::<u16>(18).write(parameters.share as u16);
        operation
    }

    /// IRP_MJ_READ or IRP_MJ_WRITE.
    pub(crate) fn transfer(
        major: u8,
        file: &ObjectRef,
        mode: KPROCESSOR_MODE,
        offset: i64,
        buffer: usize,
        length: usize,
    ) -> Self {
        let mut operation = Self::new(major, file.body(), mode);
        let block = operation.block();
        block.field::<u32>(0).write(length as u32);
        block.field::<i64>(16).write(offset);
        block.field::<usize>(24).write(buffer);
        operation
    }

    /// IRP_MJ_QUERY_INFORMATION or IRP_MJ_SET_INFORMATION.
    pub(crate) fn information(major: u8, file: &ObjectRef, class: u32, buffer: usize, length: usize) -> Self {
        let mut operation = Self::new(major, file.body(), KERNEL_MODE);
        let block = operation.block();
        block.field::<u32>(0).write(length as u32);
        block.field::<u32>(8).write(class);
        let at = if major == major::SET_INFORMATION { 32 } else { 16 };
        block.field::<usize>(at).write(buffer);
        operation
    }

    /// IRP_MJ_CLEANUP.
    pub(crate) fn plain(major: u8, file: &ObjectRef) -> Self {
        Self::new(major, file.body(), KERNEL_MODE)
    }

    /// IRP_MJ_CLOSE, where only the body is left.
    pub(crate) fn close(body: usize) -> Self {
        Self::new(major::CLOSE, body, KERNEL_MODE)
    }

    fn block(&mut self) -> Raw<u8> {
        Raw::at((&raw mut self.parameters).expose_provenance())
    }
}

/// A filter that wants to hear about the end of the operation.
struct Waiting {
    running: Running,
    callbacks: OperationCallbacks,
    context: PVOID,
}

/// An operation that an instance has begun to see; the end of it lets go of the instance.
struct Running(Arc<Instance>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.rundown.leave();
    }
}

/// Runs an operation through the instances on `volume` that are below `below` (all of them for `None`), and `bottom` as the
/// file system.
pub(crate) fn run(
    machine: &Arc<Inner>,
    volume: &Arc<Volume>,
    below: Option<&Arc<Instance>>,
    operation: &Operation,
    bottom: &mut dyn FnMut() -> Outcome,
) -> Outcome {
    let mut interested = Vec::new();
    if let Some(stack) = machine.flt.stack_of(volume) {
        for instance in stack.instances() {
            let reached = below.is_none_or(|below| instance.altitude < below.altitude);
            if reached
                && let Some(callbacks) = instance.filter.registration.operation(operation.major)
                && callbacks.wants(operation.major, operation.non_cached, operation.of_volume)
            {
                interested.push((instance, callbacks));
            }
        }
    }
    if interested.is_empty() {
        return bottom();
    }
    Thread::enter(machine, |thread| Walk { thread, operation }.run(interested, bottom))
}

/// One operation on one thread.
struct Walk<'a> {
    thread: &'a Thread,
    operation: &'a Operation,
}

impl Walk<'_> {
    fn run(
        &self,
        interested: Vec<(Arc<Instance>, OperationCallbacks)>,
        bottom: &mut dyn FnMut() -> Outcome,
    ) -> Outcome {
        let mut waiting = Vec::new();
        let mut outcome = None;
        for (instance, callbacks) in interested {
            if instance.rundown.enter().is_err() {
                continue;
            }
            let callback = Running(instance);
            match self.pre(&callback.0, &callbacks) {
                Err(()) => return (super::MACHINE_STOPPED, 0),
                Ok(Decision::Pass) => {}
                // The instance's end waits for the post-operation callback too.
                Ok(Decision::Tell(context)) => waiting.push(Waiting { running: callback, callbacks, context }),
                Ok(Decision::Complete(status)) => {
                    outcome = Some(status);
                    break;
                }
            }
        }
        let mut outcome = outcome.unwrap_or_else(bottom);
        for filter in waiting.into_iter().rev() {
            match self.post(&filter, outcome) {
                Ok(changed) => outcome = changed,
                Err(()) => return (super::MACHINE_STOPPED, 0),
            }
        }
        outcome
    }

    fn pre(&self, instance: &Instance, callbacks: &OperationCallbacks) -> Result<Decision, ()> {
        let Some(callback) = callbacks.pre else {
            return Ok(if callbacks.post.is_some() { Decision::Tell(std::ptr::null_mut()) } else { Decision::Pass });
        };
        let mut frame = self.frame(instance, (NtStatus::SUCCESS, 0), 0);
        let mut context: PVOID = std::ptr::null_mut();
        let related = instance.related(self.operation.file);
        let (data, context_at) = (&raw mut frame.data, &raw mut context);
        let answer =
            self.thread.call_driver(&instance.filter.driver, "PreOperationCallback", self.thread.irql(), || {
                // SAFETY: the driver registered the function with this signature; all it gets lives until it returns.
                unsafe { callback(data, &raw const related, context_at) }
            });
        let answer = answer.map_err(|_| ())?;
        let status = frame.data.IoStatus.Status;
        let tells = matches!(answer, flt::FLT_PREOP_SUCCESS_WITH_CALLBACK | flt::FLT_PREOP_SYNCHRONIZE);
        if !tells && !context.is_null() {
            return self.broken(instance, Rule::BadState, "a completion context without a post-operation callback");
        }
        match answer {
            flt::FLT_PREOP_SUCCESS_NO_CALLBACK => Ok(Decision::Pass),
            flt::FLT_PREOP_SYNCHRONIZE if self.operation.major == major::CREATE => {
                self.broken(instance, Rule::BadState, "FLT_PREOP_SYNCHRONIZE is not for creates")
            }
            _ if tells && callbacks.post.is_none() => {
                self.broken(instance, Rule::BadState, "a post-operation callback is asked for but none is registered")
            }
            _ if tells => Ok(Decision::Tell(context)),
            flt::FLT_PREOP_COMPLETE if status == NtStatus::PENDING => {
                self.broken(instance, Rule::BadState, "FLT_PREOP_COMPLETE with STATUS_PENDING")
            }
            flt::FLT_PREOP_COMPLETE if self.must_succeed() && !status.is_success() => {
                self.broken(instance, Rule::BadState, "cleanup and close cannot be failed")
            }
            flt::FLT_PREOP_COMPLETE => Ok(Decision::Complete((status, frame.data.IoStatus.Information))),
            flt::FLT_PREOP_PENDING => {
                self.broken(instance, Rule::NotImplemented, "kernel-host does not pend operations yet")
            }
            flt::FLT_PREOP_DISALLOW_FASTIO | flt::FLT_PREOP_DISALLOW_FSFILTER_IO => {
                self.broken(instance, Rule::BadState, "the answer is not for IRP-based operations")
            }
            _ => self.broken(instance, Rule::BadState, &format!("{answer} is no FLT_PREOP_CALLBACK_STATUS")),
        }
    }

    fn post(&self, filter: &Waiting, outcome: Outcome) -> Result<Outcome, ()> {
        let Some(callback) = filter.callbacks.post else { return Ok(outcome) };
        let instance = &filter.running.0;
        let mut frame = self.frame(instance, outcome, FltCallbackDataFlags::POST_OPERATION.bits());
        let related = instance.related(self.operation.file);
        let (data, context) = (&raw mut frame.data, filter.context);
        let answer =
            self.thread.call_driver(&instance.filter.driver, "PostOperationCallback", self.thread.irql(), || {
                // SAFETY: the driver registered the function with this signature; all it gets lives until it returns.
                unsafe { callback(data, &raw const related, context, 0) }
            });
        match answer.map_err(|_| ())? {
            flt::FLT_POSTOP_FINISHED_PROCESSING => Ok((frame.data.IoStatus.Status, frame.data.IoStatus.Information)),
            flt::FLT_POSTOP_MORE_PROCESSING_REQUIRED => {
                self.broken(instance, Rule::NotImplemented, "kernel-host does not pend post-operations yet")
            }
            answer => {
                let message = format!("{answer} is no FLT_POSTOP_CALLBACK_STATUS for this operation");
                self.broken(instance, Rule::BadState, &message)
            }
        }
    }

    fn must_succeed(&self) -> bool {
        matches!(self.operation.major, major::CLEANUP | major::CLOSE)
    }

    /// The driver broke a rule by what its callback returned.
    fn broken<T>(&self, instance: &Instance, rule: Rule, message: &str) -> Result<T, ()> {
        let operation = major::name(self.operation.major);
        let message = format!("{operation}: {message}");
        super::record(self.thread.machine(), &instance.filter.driver, "PreOperationCallback", rule, message);
        self.thread.leave_if_stopped();
        Err(())
    }

    /// Callback data for one callback. Boxed, since the parts point at each other.
    fn frame(&self, instance: &Instance, outcome: Outcome, flags: u32) -> Box<Frame> {
        let mut frame = Box::new(Frame {
            data: FLT_CALLBACK_DATA {
                Flags: FltCallbackDataFlags::IRP_OPERATION.bits() | flags,
                Thread: self.thread.object().cast_mut(),
                Iopb: std::ptr::null_mut(),
                IoStatus: IO_STATUS_BLOCK::new(outcome.0, outcome.1),
                TagData: std::ptr::null_mut(),
                FilterContext: [std::ptr::null_mut(); 4],
                RequestorMode: self.operation.mode,
            },
            block: FLT_IO_PARAMETER_BLOCK {
                IrpFlags: u32::from(self.operation.non_cached) * IRP_NOCACHE,
                MajorFunction: self.operation.major,
                MinorFunction: 0,
                OperationFlags: 0,
                Reserved: 0,
                TargetFileObject: Raw::<FILE_OBJECT>::at(self.operation.file).pointer(),
                TargetInstance: Raw::at(instance.address).pointer(),
                Parameters: self.operation.parameters,
            },
        });
        frame.data.Iopb = &raw mut frame.block;
        frame
    }
}

/// What a pre-operation callback decided.
enum Decision {
    Pass,
    Tell(PVOID),
    Complete(Outcome),
}

/// What a callback gets.
struct Frame {
    data: FLT_CALLBACK_DATA,
    block: FLT_IO_PARAMETER_BLOCK,
}
