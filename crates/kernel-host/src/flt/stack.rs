//! Operations on their way through the instances on a volume: pre-operation callbacks down, post-operation callbacks up.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use fltmgr::raw as flt;
use fltmgr::raw::{FLT_IO_PARAMETER_BLOCK, FltCallbackDataFlags};
use nt_types::{NtStatus, PVOID};

use super::Instance;
use super::answer::{self, Answer};
use super::buffers;
use super::flight::{Flight, Place, Resume, Stage};
use super::instance::VolumeStack;
pub(crate) use super::major;
use super::operation::{Kind, Operation};
use super::registration::OperationCallbacks;
use crate::fs::io::Outcome;
use crate::fs::serve::{self, Served};
use crate::fs::volume::Volume;
use crate::machine::Inner;
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

/// `DISPATCH_LEVEL`.
const DISPATCH_LEVEL: u8 = 2;

/// What one thread needs to drive an operation.
pub(super) struct Walk {
    /// All instances below the start, highest first.
    instances: Arc<[Arc<Instance>]>,
    next: usize,
    /// What has to be done on the way up, the lowest last.
    pub(super) waiting: Vec<Waiting>,
    /// The instance whose callback keeps the operation: its end waits for it.
    holder: Option<Waiting>,
    /// IRQL of the way up.
    irql: u8,
}

/// What a filter has to do with the end of the operation.
pub(super) struct Waiting {
    /// `None` once the instance was drained: only the parameters are put back.
    pub(super) running: Option<Running>,
    pub(super) callbacks: OperationCallbacks,
    pub(super) context: PVOID,
    /// The parameters before this filter changed them.
    pub(super) original: Option<Box<FLT_IO_PARAMETER_BLOCK>>,
    /// Whether the post-operation callback is wanted.
    tell: bool,
    /// The thread object on whose thread the post-operation callback has to run.
    thread: Option<usize>,
}

// SAFETY: the pointers are a driver's context and parameters, which only travel back to drivers.
unsafe impl Send for Walk {}

/// An operation that an instance has begun to see; the end of it lets go of the instance.
pub(super) struct Running(pub(super) Arc<Instance>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.rundown.leave();
    }
}

/// Which way the operation goes next.
enum Step {
    Down,
    Up,
    Park(Place),
    Land,
    /// The machine stopped.
    Broken,
}

/// How far a thread brought an operation.
pub(super) enum Flown {
    Landed(Outcome),
    /// Somebody keeps it.
    Parked,
    Broken,
}

/// Runs an operation through the instances on `volume` that are below `below` (all of them for `None`), and waits for its end.
pub(crate) fn run(
    machine: &Arc<Inner>,
    volume: &Arc<Volume>,
    below: Option<&Arc<Instance>>,
    operation: &Operation,
) -> Outcome {
    let stack = machine.flt.stack_of(volume);
    let instances = stack.as_ref().map_or_else(|| Arc::from([]), |stack| stack.snapshot());
    Thread::enter(machine, |thread| {
        let flight = Flight::new(machine, stack, operation, thread, None);
        run_flight(thread, &flight, Walk::new(instances, below))
    })
}

/// Flies and waits for the end.
pub(super) fn run_flight(thread: &Thread, flight: &Arc<Flight>, walk: Walk) -> Outcome {
    let mut flown = fly(thread, flight, walk);
    loop {
        flown = match flown {
            Flown::Landed(outcome) => return outcome,
            Flown::Broken => return (super::MACHINE_STOPPED, 0),
            Flown::Parked => match flight.wait_for_end(thread) {
                Some(Ok(outcome)) => return outcome,
                Some(Err(walk)) => drive(thread, flight, walk, Step::Up),
                None => return (super::MACHINE_STOPPED, 0),
            },
        }
    }
}

/// Starts an operation whose issuer does not wait.
pub(crate) fn launch(machine: &Arc<Inner>, volume: &Arc<Volume>, operation: &Operation) -> Arc<Flight> {
    let stack = machine.flt.stack_of(volume);
    let instances = stack.as_ref().map_or_else(|| Arc::from([]), |stack| stack.snapshot());
    Thread::enter(machine, |thread| {
        let flight = Flight::new(machine, stack, operation, thread, None);
        let _flown = fly(thread, &flight, Walk::new(instances, None));
        flight
    })
}

impl Walk {
    /// A journey through `instances` from below `below` on.
    pub(super) fn new(instances: Arc<[Arc<Instance>]>, below: Option<&Arc<Instance>>) -> Self {
        let next = below.map_or(0, |below| instances.partition_point(|instance| instance.altitude >= below.altitude));
        Self { instances, next, waiting: Vec::new(), holder: None, irql: 0 }
    }

    /// A journey on the volume of `stack`, from below `below` on.
    pub(super) fn on(stack: &VolumeStack, below: &Arc<Instance>) -> Self {
        Self::new(stack.snapshot(), Some(below))
    }
}

/// Drives an operation until it is complete or somebody keeps it.
pub(super) fn fly(thread: &Thread, flight: &Arc<Flight>, mut walk: Walk) -> Flown {
    walk.irql = thread.irql();
    drive(thread, flight, walk, Step::Down)
}

/// Goes on with a parked operation.
///
/// # Errors
/// What the operation is doing instead of waiting for that.
pub(super) fn resume(thread: &Thread, flight: &Arc<Flight>, resume: Resume) -> Result<(), String> {
    if let Some((mut walk, resume)) = flight.unpark(resume)? {
        let step = go_on(thread, flight, &mut walk, resume);
        let _flown = drive(thread, flight, walk, step);
    }
    Ok(())
}

fn drive(thread: &Thread, flight: &Arc<Flight>, walk: Walk, step: Step) -> Flown {
    let flown = drive_on(thread, flight, walk, step);
    if !matches!(flown, Flown::Broken) {
        super::operation_status::tell(thread, flight);
    }
    flown
}

fn drive_on(thread: &Thread, flight: &Arc<Flight>, mut walk: Walk, mut step: Step) -> Flown {
    let me = thread.object().addr();
    loop {
        step = match step {
            Step::Down => down(thread, flight, &mut walk),
            Step::Up => up(thread, flight, &mut walk),
            Step::Land => return land(thread, flight, &walk),
            Step::Broken => return Flown::Broken,
            Step::Park(place) => {
                let mine = walk.waiting.iter().any(|waiting| waiting.thread == Some(me));
                super::drain::drain_ending(thread, flight, &mut walk);
                match flight.park(walk, place) {
                    Some((resumed, resume)) => {
                        walk = resumed;
                        go_on(thread, flight, &mut walk, resume)
                    }
                    // This thread's own callback comes later, on this thread.
                    None if mine => match flight.wait_for_turn(thread) {
                        Some(resumed) => {
                            walk = resumed;
                            Step::Up
                        }
                        None => return Flown::Broken,
                    },
                    None => return Flown::Parked,
                }
            }
        };
    }
}

/// What the one who kept the operation decided.
fn go_on(thread: &Thread, flight: &Arc<Flight>, walk: &mut Walk, resume: Resume) -> Step {
    let holder = walk.holder.take();
    match (resume, holder) {
        (Resume::FileSystem(outcome), _) => {
            flight.set_outcome(outcome);
            Step::Up
        }
        (Resume::Pre(answer, context), Some(mut holder)) => {
            holder.context = context;
            // The Filter Manager brings every create back to the thread that started it.
            holder.thread = (flight.major() == major::CREATE).then_some(flight.issuer);
            let Some(running) = &holder.running else { return Step::Up };
            match answer::resumed_pre(thread, flight, &running.0, &holder, answer) {
                Ok(Answer::Complete) => {
                    restore(flight, holder.original.as_deref());
                    Step::Up
                }
                Ok(Answer::Tell { .. }) => {
                    holder.tell = true;
                    walk.waiting.push(holder);
                    Step::Down
                }
                Ok(_) => {
                    walk.pass(holder);
                    Step::Down
                }
                Err(()) => Step::Broken,
            }
        }
        (Resume::Post, _) | (Resume::Pre(..), None) => Step::Up,
    }
}

impl Waiting {
    /// Takes the filter's part; what is left puts the parameters back.
    pub(super) fn leave_restoring(&mut self) -> Self {
        Self {
            running: self.running.take(),
            callbacks: self.callbacks,
            context: self.context,
            original: None,
            tell: std::mem::take(&mut self.tell),
            thread: self.thread.take(),
        }
    }
}

impl Walk {
    /// A filter that does not want to hear of the end, but may have changed parameters.
    fn pass(&mut self, waiting: Waiting) {
        if waiting.original.is_some() {
            self.waiting.push(Waiting { running: None, tell: false, ..waiting });
        }
    }
}

/// Pre-operation callbacks, then the file system.
fn down(thread: &Thread, flight: &Arc<Flight>, walk: &mut Walk) -> Step {
    while let Some(instance) = walk.instances.get(walk.next) {
        walk.next += 1;
        let Some(callbacks) = wanted(flight, instance) else { continue };
        let instance = Arc::clone(instance);
        if instance.rundown.enter().is_err() {
            continue;
        }
        let running = Running(instance);
        let Ok((answer, context, original)) = pre(thread, flight, &running.0, &callbacks) else {
            return Step::Broken;
        };
        let waiting = Waiting { running: Some(running), callbacks, context, original, tell: false, thread: None };
        match answer {
            Answer::Pass => walk.pass(waiting),
            Answer::Tell { synchronised } => {
                let thread = synchronised.then(|| thread.object().addr());
                walk.waiting.push(Waiting { tell: true, thread, ..waiting });
            }
            Answer::Complete => {
                flight.completed_above.store(true, Ordering::Relaxed);
                restore(flight, waiting.original.as_deref());
                return Step::Up;
            }
            Answer::Pend => {
                let place = waiting.running.as_ref().map(|running| Place::Pre(Arc::clone(&running.0)));
                walk.holder = Some(waiting);
                return place.map_or(Step::Broken, Step::Park);
            }
            Answer::Redirect(target) => {
                if let Some(stack) = flight.machine.flt.stack_of(&target.volume.volume) {
                    let below = Walk::on(&stack, &target);
                    (walk.instances, walk.next) = (below.instances, below.next);
                }
                walk.pass(waiting);
            }
        }
    }
    match serve::serve(flight) {
        Served::Done(outcome) => {
            flight.note_sent(thread, outcome.0);
            flight.set_outcome(outcome);
            if serve::completes_at_dispatch(flight) {
                walk.irql = DISPATCH_LEVEL;
            }
            Step::Up
        }
        Served::Pending => {
            flight.note_sent(thread, NtStatus::PENDING);
            Step::Park(Place::FileSystem)
        }
    }
}

/// The callbacks that an instance has for the operation, unless its registration's flags leave it out.
fn wanted(flight: &Flight, instance: &Instance) -> Option<OperationCallbacks> {
    let major = flight.major();
    let callbacks = instance.filter.registration.operation(major)?;
    let wants = callbacks.flags == 0 || {
        let irp_flags = field!(flight.block(), FLT_IO_PARAMETER_BLOCK, IrpFlags).read();
        callbacks.wants(major, irp_flags, || flight.is_of_volume())
    };
    wants.then_some(callbacks)
}

type Answered = (Answer, PVOID, Option<Box<FLT_IO_PARAMETER_BLOCK>>);

/// One pre-operation callback: its answer, its completion context, and the parameters before it if it changed them.
fn pre(
    thread: &Thread,
    flight: &Arc<Flight>,
    instance: &Arc<Instance>,
    callbacks: &OperationCallbacks,
) -> Result<Answered, ()> {
    let synchronised = flight.major() == major::CREATE;
    let Some(callback) = callbacks.pre else {
        let answer = if callbacks.post.is_some() { Answer::Tell { synchronised } } else { Answer::Pass };
        return Ok((answer, std::ptr::null_mut(), None));
    };
    let block = flight.block();
    field!(block, FLT_IO_PARAMETER_BLOCK, TargetInstance).write(Raw::at(instance.address).pointer());
    let before = block.read();
    let status_before = flight.io_status().read();
    let mut context: PVOID = std::ptr::null_mut();
    let related = instance.related(before.TargetFileObject.addr());
    let (data, context_at) = (flight.data().pointer(), &raw mut context);
    flight.enter(Stage::Pre, instance);
    let answer = thread.call_driver(&instance.filter.driver, "PreOperationCallback", thread.irql(), || {
        // SAFETY: the driver registered the function with this signature; all it gets lives until it returns.
        unsafe { callback(data, &raw const related, context_at) }
    });
    flight.leave();
    let answer = answer.map_err(|_| ())?;
    if answer != flt::FLT_PREOP_PENDING && flight.early.load(Ordering::Relaxed) {
        return answer::broken(thread, flight, instance, "an operation that was not pended was completed");
    }
    let case = answer::Case { thread, flight, instance, callbacks };
    let answer = case.pre(answer, context, &before, status_before)?;
    if matches!(answer, Answer::Pend) {
        // From here on the operation may be anywhere.
        return Ok((answer, context, Some(Box::new(before))));
    }
    // Each filter says for itself that it changed something.
    let flags = flight.flags();
    flags.write(flags.read() & !FltCallbackDataFlags::DIRTY.bits());
    let changed = answer::differs(&before, &block.read());
    Ok((answer, context, changed.then(|| Box::new(before))))
}

/// Post-operation callbacks, the lowest filter's first.
fn up(thread: &Thread, flight: &Arc<Flight>, walk: &mut Walk) -> Step {
    let me = thread.object().addr();
    let flags = flight.flags();
    flags.write(flags.read() | FltCallbackDataFlags::POST_OPERATION.bits());
    while let Some(waiting) = walk.waiting.pop() {
        if let Some(other) = waiting.thread.filter(|&object| object != me && waiting.tell && waiting.running.is_some())
        {
            walk.waiting.push(waiting);
            return Step::Park(Place::Synchronised(other));
        }
        if waiting.original.is_some() {
            let swapped = buffers::described_by(flight.block());
            restore(flight, waiting.original.as_deref());
            let own = if swapped == buffers::described_by(flight.block()) { 0 } else { swapped };
            flight.swapped.store(own, Ordering::Relaxed);
        }
        match post(thread, flight, walk.irql, &waiting) {
            Ok(false) if waiting.original.is_some() => buffers::free_swapped(&flight.machine, flight),
            Ok(false) => {}
            Ok(true) => {
                let place = waiting.running.as_ref().map(|running| Place::Post(Arc::clone(&running.0)));
                walk.holder = Some(waiting);
                return place.map_or(Step::Broken, Step::Park);
            }
            Err(()) => return Step::Broken,
        }
    }
    flags.write(flags.read() & !FltCallbackDataFlags::POST_OPERATION.bits());
    Step::Land
}

/// Filters from here up get the parameters that they passed down.
fn restore(flight: &Flight, original: Option<&FLT_IO_PARAMETER_BLOCK>) {
    if let Some(original) = original {
        flight.block().write(*original);
    }
}

/// One post-operation callback. True when it keeps the operation.
fn post(thread: &Thread, flight: &Arc<Flight>, irql: u8, waiting: &Waiting) -> Result<bool, ()> {
    let (Some(callback), Some(running), true) = (waiting.callbacks.post, &waiting.running, waiting.tell) else {
        return Ok(false);
    };
    let instance = &running.0;
    let block = flight.block();
    field!(block, FLT_IO_PARAMETER_BLOCK, TargetInstance).write(Raw::at(instance.address).pointer());
    let before = flight.outcome();
    let related = instance.related(field!(block, FLT_IO_PARAMETER_BLOCK, TargetFileObject).read().addr());
    let (data, context) = (flight.data().pointer(), waiting.context);
    let irql = if waiting.thread.is_some() { 0 } else { irql.max(thread.irql()) };
    flight.synchronised.store(waiting.thread.is_some(), Ordering::Relaxed);
    if waiting.thread.is_some() {
        *flight.offered.lock().unwrap_or_else(PoisonError::into_inner) = Some(block.read());
    }
    let is_create = flight.major() == major::CREATE;
    let creates = || flight.machine.flt.creates.lock().unwrap_or_else(PoisonError::into_inner);
    if is_create {
        creates().push((flight.target(), Arc::clone(flight)));
    }
    flight.enter(Stage::Post, instance);
    let answer = thread.call_driver(&instance.filter.driver, "PostOperationCallback", irql, || {
        // SAFETY: the driver registered the function with this signature; all it gets lives until it returns.
        unsafe { callback(data, &raw const related, context, 0) }
    });
    if is_create {
        creates().retain(|(_, known)| !Arc::ptr_eq(known, flight));
    }
    flight.leave();
    let answer = answer.map_err(|_| ())?;
    if answer != flt::FLT_POSTOP_MORE_PROCESSING_REQUIRED && flight.early.load(Ordering::Relaxed) {
        return answer::broken(thread, flight, instance, "an operation that was not pended was completed");
    }
    answer::Case { thread, flight, instance, callbacks: &waiting.callbacks }.post(answer, before)
}

/// The end.
fn land(thread: &Thread, flight: &Arc<Flight>, walk: &Walk) -> Flown {
    let outcome = flight.outcome();
    if let Some(landing) = flight.land() {
        let before = thread.irql();
        thread.set_irql(walk.irql.max(before));
        landing(thread, flight);
        thread.set_irql(before);
    }
    Flown::Landed(outcome)
}

impl Flight {
    /// Whether the operation is on the volume itself.
    pub(super) fn is_of_volume(&self) -> bool {
        self.create.as_ref().map_or_else(|| self.open().is_some_and(|open| open.is_volume()), |create| create.of_volume)
    }
}

/// FltReissueSynchronousIo: once more below `instance`, with the parameters as they are if they are `dirty`. The outcome is
/// the operation's from now on.
pub(super) fn reissue(thread: &Thread, flight: &Arc<Flight>, instance: &Arc<Instance>, dirty: bool) -> Outcome {
    // Changes that are not marked do not count.
    let offered = flight.offered.lock().unwrap_or_else(PoisonError::into_inner).filter(|_| !dirty);
    let parameters = offered.unwrap_or_else(|| flight.block().read());
    let mut again = Operation::new(Kind::Irp, parameters.MajorFunction, flight.target(), flight.mode());
    again.block = parameters;
    again.flags = FltCallbackDataFlags::from_bits_retain(flight.flags().read()) & FltCallbackDataFlags::GENERATED_IO;
    again.flags |= FltCallbackDataFlags::REISSUED_IO;
    again.process = flight.process().cloned();
    again.create.clone_from(&flight.create);
    let stack = Arc::clone(&instance.volume);
    let walk = Walk::on(&stack, instance);
    let second = Flight::new(thread.machine(), Some(stack), &again, thread, None);
    let outcome = run_flight(thread, &second, walk);
    flight.set_outcome(outcome);
    outcome
}

/// A completion of the file system's that comes later than [`Served::Pending`].
pub(crate) fn complete_later(machine: &Arc<Inner>, flight: &Arc<Flight>, status: NtStatus, information: usize) {
    Thread::enter(machine, |thread| {
        if let Err(why) = resume(thread, flight, Resume::FileSystem((status, information))) {
            debug_assert!(false, "the file system completed {flight:?} although {why}");
        }
    });
}
