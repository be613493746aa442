//! An operation under way: the callback data that filters hold, and where the operation is.
//!
//! One thread at a time drives it, with the [`Walk`] on its own stack. Where a filter or the file system keeps the operation, the
//! walk is *parked* here, and whoever resumes the operation drives on.

use std::cell::UnsafeCell;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use fltmgr::raw::{FLT_CALLBACK_DATA, FLT_IO_PARAMETER_BLOCK};
use nt_types::{IO_STATUS_BLOCK, KPROCESSOR_MODE, PVOID};

use super::Instance;
use super::buffers::LockedBuffer;
use super::cancel::Cancellation;
use super::instance::VolumeStack;
use super::major;
use super::operation::{Kind, Operation};
use super::operation_status::Inquiries;
use super::stack::Walk;
use crate::ddi::Call;
use crate::finding::Rule;
use crate::fs::io::{OpenParameters, Outcome};
use crate::fs::open::Open;
use crate::machine::{Driver, Inner};
use crate::nt::ob::ObjectRef;
use crate::nt::raw::{Raw, field};
use crate::process::Process;
use crate::thread::Thread;

/// How often a wait looks whether the machine has stopped.
const LOOK: Duration = Duration::from_millis(20);

/// How long a caller waits for a filter that keeps its operation, before that counts as for ever.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a frame has behind the structures, combined with its address: a pointer that drivers made up, or kept too long,
/// leads to something else.
const SEAL: usize = 0x4B48_464C_5444_4154;

/// The memory that drivers see.
#[repr(C)]
pub(super) struct Frame {
    data: FLT_CALLBACK_DATA,
    block: FLT_IO_PARAMETER_BLOCK,
    seal: usize,
    owner: *const Flight,
}

/// What a callback of the operation is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Stage {
    /// None runs.
    Between,
    /// A pre-operation callback.
    Pre,
    /// A post-operation callback.
    Post,
}

/// Where a parked operation is.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// An instance's pre-operation callback answered FLT_PREOP_PENDING.
    Pre(Arc<Instance>),
    /// An instance's post-operation callback answered FLT_POSTOP_MORE_PROCESSING_REQUIRED.
    Post(Arc<Instance>),
    /// The file system keeps it.
    FileSystem,
    /// Completion has come to a callback that runs on the thread with this object.
    Synchronised(usize),
}

/// How a parked operation goes on.
#[derive(Debug)]
pub(super) enum Resume {
    /// FltCompletePendedPreOperation: status and completion context.
    Pre(i32, PVOID),
    /// FltCompletePendedPostOperation.
    Post,
    /// The file system is done.
    FileSystem(Outcome),
}

// SAFETY: the completion context is a number to the host: it only travels from a driver to the same driver.
unsafe impl Send for Resume {}

/// Who hears of the end, when the issuer does not wait: runs on the thread that drove the operation last, at its IRQL.
pub(super) type Landing = Box<dyn FnOnce(&Thread, &Arc<Flight>) + Send>;

/// One operation.
pub(crate) struct Flight {
    frame: UnsafeCell<Frame>,
    pub(super) machine: Arc<Inner>,
    pub(super) volume: Option<Arc<VolumeStack>>,
    pub(super) kind: Kind,
    /// Whose rights and whose user memory; `None` is the system process.
    process: Option<Arc<Process>>,
    pub(crate) create: Option<Box<OpenParameters>>,
    /// The thread object of the thread that started the operation.
    pub(super) issuer: usize,
    /// What the file object was when the operation began, so that the file system need not look.
    open: Option<(usize, Arc<Open>)>,
    /// Keeps the file object alive where nobody waits.
    _file: Option<ObjectRef>,
    _buffer: Option<Arc<[AtomicU8]>>,
    /// Who allocated it, with FltAllocateCallbackData, and for which instance.
    pub(super) allocated: Option<(Arc<Driver>, Arc<Instance>)>,
    stage: AtomicU8,
    /// Address of the instance whose callback runs.
    at: AtomicUsize,
    /// A pended operation was completed before its callback returned.
    pub(super) early: AtomicBool,
    /// A filter completed it: the file system has not seen it.
    pub(super) completed_above: AtomicBool,
    /// The callback that runs was promised the thread of its pre-operation callback.
    pub(super) synchronised: AtomicBool,
    /// Lists that FltLockUserBuffer made.
    pub(super) locked: Mutex<Vec<LockedBuffer>>,
    /// The MDL that the filter whose post-operation callback runs had swapped in.
    pub(super) swapped: AtomicUsize,
    /// The parameters that a synchronised post-operation callback was given.
    pub(super) offered: Mutex<Option<FLT_IO_PARAMETER_BLOCK>>,
    /// FltCancelFileOpen undid the create.
    pub(super) open_cancelled: AtomicBool,
    pub(super) cancellation: Mutex<Cancellation>,
    pub(super) inquiries: Mutex<Inquiries>,
    /// The `IO_PRIORITY_HINT` that a filter gave the packet.
    pub(super) priority: Mutex<Option<u32>>,
    /// The activity that the packet belongs to.
    pub(super) activity: Mutex<Option<[u8; 16]>>,
    state: Mutex<State>,
    changed: Condvar,
}

// SAFETY: the frame is driver-visible memory that the host touches through `Raw` only; drivers are in control of one
// operation one at a time, which is the Filter Manager's protocol.
unsafe impl Sync for Flight {}
// SAFETY: as above; the rest is `Send`.
unsafe impl Send for Flight {}

#[derive(Default)]
struct State {
    parked: Option<(Walk, Place)>,
    early: Option<Resume>,
    outcome: Option<Outcome>,
    landing: Option<Landing>,
    /// Allocated callback data is on its journey.
    under_way: bool,
    /// Threads that wait for changes: telling nobody costs a system call, and every operation ends here.
    waiting: usize,
}

impl State {
    /// The walk, when completion has come to the thread with this object.
    fn turn(&mut self, object: usize) -> Option<Walk> {
        let mine = matches!(&self.parked, Some((_, Place::Synchronised(turn))) if *turn == object);
        if mine { self.parked.take().map(|(walk, _)| walk) } else { None }
    }
}

impl Flight {
    /// Makes the callback data for an operation.
    pub(super) fn new(
        machine: &Arc<Inner>,
        volume: Option<Arc<VolumeStack>>,
        operation: &Operation,
        thread: &Thread,
        allocated: Option<(Arc<Driver>, Arc<Instance>)>,
    ) -> Arc<Self> {
        let file = operation.block.TargetFileObject.addr();
        let flight = Arc::new(Self {
            frame: UnsafeCell::new(Frame {
                data: operation.data(thread.object()),
                block: operation.block,
                seal: 0,
                owner: std::ptr::null(),
            }),
            machine: Arc::clone(machine),
            volume,
            kind: operation.kind,
            process: operation.process.clone().or_else(|| thread.process()),
            create: operation.create.clone(),
            issuer: thread.object().addr(),
            open: operation.open.as_ref().map(|open| (file, Arc::clone(open))),
            _file: operation.file.clone(),
            _buffer: operation.buffer.clone(),
            allocated,
            stage: AtomicU8::new(Stage::Between as u8),
            at: AtomicUsize::new(0),
            early: AtomicBool::new(false),
            completed_above: AtomicBool::new(false),
            synchronised: AtomicBool::new(false),
            locked: Mutex::default(),
            swapped: AtomicUsize::new(0),
            offered: Mutex::default(),
            open_cancelled: AtomicBool::new(false),
            cancellation: Mutex::default(),
            inquiries: Mutex::default(),
            priority: Mutex::default(),
            activity: Mutex::default(),
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        let frame = flight.frame();
        field!(frame, Frame, seal).write(SEAL ^ frame.address());
        field!(frame, Frame, owner).write(Arc::as_ptr(&flight));
        flight.data_field().write(field!(frame, Frame, block).pointer());
        flight
    }

    fn frame(&self) -> Raw<Frame> {
        Raw::at(self.frame.get().expose_provenance())
    }

    fn data_field(&self) -> Raw<*mut FLT_IO_PARAMETER_BLOCK> {
        field!(self.data(), FLT_CALLBACK_DATA, Iopb)
    }

    /// What callbacks get as `Data`.
    pub(crate) fn data(&self) -> Raw<FLT_CALLBACK_DATA> {
        field!(self.frame(), Frame, data)
    }

    /// The parameters as they are now.
    pub(crate) fn block(&self) -> Raw<FLT_IO_PARAMETER_BLOCK> {
        field!(self.frame(), Frame, block)
    }

    /// `IRP_MJ_*`.
    pub(super) fn major(&self) -> u8 {
        field!(self.block(), FLT_IO_PARAMETER_BLOCK, MajorFunction).read()
    }

    /// Status and information.
    pub(super) fn io_status(&self) -> Raw<IO_STATUS_BLOCK> {
        field!(self.data(), FLT_CALLBACK_DATA, IoStatus)
    }

    pub(crate) fn outcome(&self) -> Outcome {
        let block = self.io_status().read();
        (block.Status, block.Information)
    }

    pub(super) fn set_outcome(&self, (status, information): Outcome) {
        self.io_status().write(IO_STATUS_BLOCK::new(status, information));
    }

    /// `FLTFL_CALLBACK_DATA_*`.
    pub(super) fn flags(&self) -> Raw<u32> {
        field!(self.data(), FLT_CALLBACK_DATA, Flags)
    }

    pub(crate) fn mode(&self) -> KPROCESSOR_MODE {
        field!(self.data(), FLT_CALLBACK_DATA, RequestorMode).read()
    }

    /// The process on whose behalf the operation runs; `None` is the system's.
    pub(crate) fn process(&self) -> Option<&Arc<Process>> {
        self.process.as_ref()
    }

    /// The open behind the target file object, which filters may have changed.
    pub(crate) fn open(&self) -> Option<Arc<Open>> {
        let file = field!(self.block(), FLT_IO_PARAMETER_BLOCK, TargetFileObject).read().addr();
        match &self.open {
            Some((known, open)) if *known == file => Some(Arc::clone(open)),
            _ => crate::fs::io::open_at(&self.machine, file),
        }
    }

    /// The flight behind a pointer that a driver passes; stops when it is none.
    pub(super) fn of(call: &Call, data: Raw<FLT_CALLBACK_DATA>) -> Arc<Self> {
        if data.is_null() {
            call.stop(Rule::BadArgument, "the callback data is NULL");
        }
        let frame = data.cast::<Frame>();
        if field!(frame, Frame, seal).read() != SEAL ^ data.address() {
            let message =
                format!("{data:?} is no FLT_CALLBACK_DATA (any more): the operation is complete, or never was");
            call.stop(Rule::BadArgument, message);
        }
        let owner = field!(frame, Frame, owner).read();
        // SAFETY: the seal is there from the making of the flight to its end, so `owner` is one that lives; a driver that
        // races with the end of an operation that is not its own breaks the DDI's contract.
        unsafe { Arc::increment_strong_count(owner) };
        // SAFETY: the count was taken just now.
        unsafe { Arc::from_raw(owner) }
    }

    /// A copy of the callback data, for a callback that must not see the original. It stands for the same operation.
    pub(super) fn copy(&self) -> Box<Frame> {
        let mut copy = Box::new(self.frame_value());
        let at = Raw::<Frame>::of(&raw mut *copy);
        field!(at, Frame, seal).write(SEAL ^ at.address());
        field!(at, Frame, data.Iopb).write(field!(at, Frame, block).pointer());
        copy
    }

    fn frame_value(&self) -> Frame {
        let frame = self.frame();
        Frame {
            data: field!(frame, Frame, data).read(),
            block: field!(frame, Frame, block).read(),
            seal: 0,
            owner: field!(frame, Frame, owner).read(),
        }
    }

    /// Marks that a callback of `instance` runs.
    pub(super) fn enter(&self, stage: Stage, instance: &Instance) {
        self.at.store(instance.address, Ordering::Relaxed);
        self.stage.store(stage as u8, Ordering::Relaxed);
    }

    /// ... and that it has returned.
    pub(super) fn leave(&self) {
        self.stage.store(Stage::Between as u8, Ordering::Relaxed);
    }

    /// Whether a filter has the operation on its way down: its pre-operation callback runs, or has pended it.
    pub(super) fn is_on_its_way_down(&self) -> bool {
        self.is_in(Stage::Pre) || matches!(self.state().parked, Some((_, Place::Pre(_))))
    }

    /// Whether a callback of that stage runs now.
    pub(super) fn is_in(&self, stage: Stage) -> bool {
        self.stage.load(Ordering::Relaxed) == stage as u8
    }

    /// The instance whose callback ran last, by address.
    pub(super) fn last_instance(&self) -> usize {
        self.at.load(Ordering::Relaxed)
    }

    /// Whether a filter completed it.
    pub(super) fn was_completed_above(&self) -> bool {
        self.completed_above.load(Ordering::Relaxed)
    }

    /// Whether the post-operation callback that runs may reissue the operation.
    pub(super) fn is_synchronised(&self) -> bool {
        self.synchronised.load(Ordering::Relaxed)
    }

    /// Says who is to hear of the end.
    pub(super) fn on_landing(&self, landing: Landing) {
        self.state().landing = Some(landing);
    }

    /// Keeps the walk for whoever resumes the operation; gives it back with what happened meanwhile, if anything did.
    pub(super) fn park(self: &Arc<Self>, walk: Walk, place: Place) -> Option<(Walk, Resume)> {
        self.machine.flt.pended.add(self);
        let mut state = self.state();
        if let Some(resume) = state.early.take() {
            self.early.store(false, Ordering::Relaxed);
            drop(state);
            self.machine.flt.pended.remove(self);
            return Some((walk, resume));
        }
        state.parked = Some((walk, place));
        self.tell(&state);
        None
    }

    /// Takes the walk to go on with `resume`. `Ok(None)`: its callback has not returned yet, and goes on by itself.
    ///
    /// # Errors
    /// What the operation is doing instead of waiting for that.
    pub(super) fn unpark(self: &Arc<Self>, resume: Resume) -> Result<Option<(Walk, Resume)>, String> {
        let mut state = self.state();
        match (&state.parked, &resume) {
            (Some((_, Place::Pre(_))), Resume::Pre(..))
            | (Some((_, Place::Post(_))), Resume::Post)
            | (Some((_, Place::FileSystem)), Resume::FileSystem(_)) => {
                let walk = state.parked.take().map(|(walk, _)| walk);
                drop(state);
                self.machine.flt.pended.remove(self);
                Ok(walk.map(|walk| (walk, resume)))
            }
            (Some((_, place)), _) => Err(format!("it is {place}")),
            (None, _) if state.outcome.is_some() => Err("it is complete".to_owned()),
            (None, _) if state.early.is_some() => Err("it was completed already".to_owned()),
            (None, _) => {
                state.early = Some(resume);
                self.early.store(true, Ordering::Relaxed);
                Ok(None)
            }
        }
    }

    /// Takes back the walk when completion has come to the thread with this object. Waits for that.
    pub(super) fn wait_for_turn(self: &Arc<Self>, thread: &Thread) -> Option<Walk> {
        let me = thread.object().addr();
        let walk = self.wait(thread, |state| state.turn(me))?;
        self.machine.flt.pended.remove(self);
        Some(walk)
    }

    /// Waits for the end, or for this thread's turn on the way there. `None` when the machine stopped.
    pub(super) fn wait_for_end(self: &Arc<Self>, thread: &Thread) -> Option<Result<Outcome, Walk>> {
        let me = thread.object().addr();
        let end = self.wait(thread, |state| state.outcome.map(Ok).or_else(|| state.turn(me).map(Err)))?;
        if end.is_err() {
            self.machine.flt.pended.remove(self);
        }
        Some(end)
    }

    /// Waits at most `patience` for the end; `None` when it has not come.
    pub(crate) fn outcome_within(&self, patience: Duration) -> Option<Outcome> {
        let end = Instant::now() + patience;
        let mut state = self.state();
        while state.outcome.is_none() && self.machine.stopped().is_none() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            state = self.wait_for_change(state, left.min(LOOK));
        }
        state.outcome.or(Some((super::MACHINE_STOPPED, 0)))
    }

    /// `None` when the machine stopped.
    fn wait<T>(&self, thread: &Thread, look: impl Fn(&mut State) -> Option<T>) -> Option<T> {
        let end = Instant::now() + PATIENCE;
        let mut state = self.state();
        loop {
            if let Some(found) = look(&mut state) {
                return Some(found);
            }
            let stopped = self.machine.stopped().is_some();
            // Whoever asks the file system to wait for something may wait for ever.
            let kept_by = match &state.parked {
                Some((_, place @ (Place::Pre(_) | Place::Post(_)))) if Instant::now() > end => Some(place.clone()),
                _ => None,
            };
            if stopped || kept_by.is_some() {
                drop(state);
                if let Some(place) = kept_by {
                    self.report_endless(&place);
                }
                thread.leave_if_stopped();
                return None;
            }
            state = self.wait_for_change(state, LOOK);
        }
    }

    fn wait_for_change<'a>(&'a self, mut state: MutexGuard<'a, State>, most: Duration) -> MutexGuard<'a, State> {
        state.waiting += 1;
        (state, _) = self.changed.wait_timeout(state, most).unwrap_or_else(PoisonError::into_inner);
        state.waiting -= 1;
        state
    }

    fn tell(&self, state: &State) {
        if state.waiting != 0 {
            self.changed.notify_all();
        }
    }

    fn report_endless(&self, place: &Place) {
        let (Place::Pre(instance) | Place::Post(instance)) = place else { return };
        let (callback, message) =
            (place.callback(), format!("{} waits for ever: it is {place}", major::name(self.major())));
        super::record(&self.machine, &instance.filter.driver, callback, Rule::Deadlock, message);
    }

    /// The end: from now on there is an outcome. Gives back who is to hear of it.
    pub(super) fn land(&self) -> Option<Landing> {
        let outcome = self.outcome();
        let mut state = self.state();
        state.outcome = Some(outcome);
        state.under_way = false;
        let landing = state.landing.take();
        self.tell(&state);
        landing
    }

    /// From now on the operation is under way.
    pub(super) fn depart(&self) {
        self.state().under_way = true;
    }

    /// Whether somebody drives or keeps it.
    pub(super) fn is_under_way(&self) -> bool {
        self.state().under_way
    }

    /// Ready for another journey: FltReuseCallbackData, and a reissue.
    pub(super) fn reset(&self) {
        let mut state = self.state();
        state.outcome = None;
        state.early = None;
        drop(state);
        self.early.store(false, Ordering::Relaxed);
        *self.cancellation.lock().unwrap_or_else(PoisonError::into_inner) = Cancellation::default();
    }

    /// Whether the operation is under way, or parked.
    pub(super) fn is_complete(&self) -> bool {
        self.state().outcome.is_some()
    }

    /// Works on the parked walk, if the operation is parked.
    pub(super) fn with_parked<R>(&self, body: impl FnOnce(&mut Walk, &Place) -> R) -> Option<R> {
        self.state().parked.as_mut().map(|(walk, place)| body(walk, place))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Frame {
    /// What a callback gets as `Data`.
    pub(super) fn data(&mut self) -> Raw<FLT_CALLBACK_DATA> {
        Raw::of(&raw mut self.data)
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        // Volatile: what is read later, if it is, is read through a driver's stale pointer.
        Raw::of(&raw mut self.seal).write(0);
    }
}

impl Place {
    /// The documented name of the callback that keeps the operation.
    pub(super) fn callback(&self) -> &'static str {
        match self {
            Self::Pre(_) => "PreOperationCallback",
            _ => "PostOperationCallback",
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pre(instance) => write!(f, "pended by the pre-operation callback of {}", instance.name),
            Self::Post(instance) => write!(f, "pended by the post-operation callback of {}", instance.name),
            Self::FileSystem => write!(f, "with the file system"),
            Self::Synchronised(_) => write!(f, "on its way to a synchronised post-operation callback"),
        }
    }
}

impl fmt::Debug for Flight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:?}", major::name(self.major()), self.data())
    }
}

/// What the file system asks of an operation.
impl Flight {
    pub(crate) fn machine(&self) -> &Arc<Inner> {
        &self.machine
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// `IRP_MJ_*`.
    pub(crate) fn major_function(&self) -> u8 {
        self.major()
    }

    /// The volume that the operation goes to.
    pub(crate) fn file_system(&self) -> Option<&crate::fs::volume::Volume> {
        self.volume.as_ref().map(|stack| &*stack.volume)
    }

    /// Address of the target file object.
    pub(crate) fn target(&self) -> usize {
        field!(self.block(), FLT_IO_PARAMETER_BLOCK, TargetFileObject).read().addr()
    }
}
