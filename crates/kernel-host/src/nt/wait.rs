//! `KeWaitForSingleObject` and its like.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nt_types::{APC_LEVEL, DISPATCH_LEVEL, DISPATCHER_HEADER, NtStatus};

use super::dispatcher::{Kind, state};
use super::locks::order::{Hold, Kind as LockKind};
use super::raw::Raw;
use super::time::system_time;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    KeWaitForSingleObject(max 2, fails WAIT_SINGLE) = ke_wait_for_single_object;
    KeWaitForMutexObject(max 2, fails WAIT_SINGLE) = ke_wait_for_single_object;
    KeWaitForMultipleObjects(max 2, fails WAIT_MULTIPLE) = ke_wait_for_multiple_objects;
    KeDelayExecutionThread(max 1) = ke_delay_execution_thread;
    KeStallExecutionProcessor(max 15) = ke_stall_execution_processor;
}

/// `MAXIMUM_WAIT_OBJECTS`.
const MAXIMUM_WAIT_OBJECTS: u32 = 64;
/// `THREAD_WAIT_OBJECTS`: how many objects need no wait block array.
const THREAD_WAIT_OBJECTS: u32 = 3;
/// `WaitAll`.
const WAIT_ALL: i32 = 0;
/// Field `OwnerThread` of a `KMUTANT`.
const MUTANT_OWNER: usize = 40;

/// How long a wait may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    None,
    /// Only look.
    Zero,
    Until(Instant),
}

impl Limit {
    /// The meaning of a `PLARGE_INTEGER Timeout`: NULL for ever, negative relative, positive a system time.
    pub(super) fn of(timeout: Raw<i64>) -> Self {
        let Some(timeout) = timeout.some() else { return Self::None };
        let value = timeout.read();
        let relative = if value > 0 { value.saturating_sub(system_time()) } else { value.saturating_neg() };
        match u64::try_from(relative) {
            Ok(1..) => {
                let time = Duration::from_nanos(relative.unsigned_abs().saturating_mul(100));
                // Centuries from now is as good as never.
                Instant::now().checked_add(time).map_or(Self::None, Self::Until)
            }
            _ => Self::Zero,
        }
    }

    pub(super) fn deadline(self) -> Option<Instant> {
        match self {
            Self::None => None,
            Self::Zero => Some(Instant::now()),
            Self::Until(deadline) => Some(deadline),
        }
    }
}

/// The pages' rule: at `DISPATCH_LEVEL` a thread may look, but not wait.
pub(super) fn check_irql(call: &Call, limit: Limit) {
    let irql = call.thread().irql();
    if irql > APC_LEVEL && limit != Limit::Zero {
        call.stop(Rule::IrqlTooHigh, format!("a wait with a time-out other than zero at IRQL {irql}"));
    }
    debug_assert!(irql <= DISPATCH_LEVEL, "the export table said so");
}

extern "efiapi" fn ke_wait_for_single_object(
    object: Raw<DISPATCHER_HEADER>,
    _reason: i32,
    mode: i8,
    _alertable: u8,
    timeout: Raw<i64>,
) -> NtStatus {
    let call = Call::enter();
    check_mode(&call, mode, object);
    wait_for(&call, object, timeout)
}

/// The pages' rule: the stack of a thread that waits in `UserMode` can be paged out, and what lies on it cannot be waited for.
pub(super) fn check_mode(call: &Call, mode: i8, object: Raw<DISPATCHER_HEADER>) {
    let is_on_stack = || Thread::driver_stack().is_some_and(|stack| stack.has_room_below(object.address()));
    if mode != nt_types::KERNEL_MODE && is_on_stack() {
        call.stop(Rule::BadArgument, format!("{object:?} lies on the stack, and the wait is made with UserMode"));
    }
}

/// Waits for one object in the name of a driver; the status that the page documents.
pub(crate) fn wait_for(call: &Call, object: Raw<DISPATCHER_HEADER>, timeout: Raw<i64>) -> NtStatus {
    wait_unless(call, object, timeout, || false)
}

/// As [`wait_for`], until `cancelled` says otherwise: `CANCELLED`, unless the object is signalled.
pub(crate) fn wait_unless(
    call: &Call,
    object: Raw<DISPATCHER_HEADER>,
    timeout: Raw<i64>,
    cancelled: impl Fn() -> bool,
) -> NtStatus {
    let limit = Limit::of(timeout);
    check_irql(call, limit);
    let kind = Kind::of(call, object);
    let mut taken = false;
    let satisfied = || {
        taken = try_take(call, object, kind);
        taken || cancelled()
    };
    let hold = Hold::of(call, object.address(), LockKind::Mutex, false);
    if kind == Kind::Mutant && limit == Limit::None && !owns(call, object) {
        call.machine().nt.lock_order().waiting(call, hold);
    }
    if !call.machine().nt.dispatcher().wait(call, limit.deadline(), satisfied) {
        return NtStatus::TIMEOUT;
    }
    if !taken {
        return NtStatus::CANCELLED;
    }
    if kind == Kind::Mutant {
        call.machine().nt.lock_order().acquired(call, hold);
    }
    NtStatus::SUCCESS
}

extern "efiapi" fn ke_wait_for_multiple_objects(
    count: u32,
    objects: Raw<Raw<DISPATCHER_HEADER>>,
    wait_type: i32,
    _reason: i32,
    mode: i8,
    _alertable: u8,
    timeout: Raw<i64>,
    wait_blocks: Raw<u8>,
) -> NtStatus {
    let call = Call::enter();
    wait_for_several(&call, &Several { count, objects, wait_type, timeout, wait_blocks }, mode, || false)
}

/// What a wait for several objects is told.
pub(crate) struct Several {
    pub(crate) count: u32,
    pub(crate) objects: Raw<Raw<DISPATCHER_HEADER>>,
    /// `WaitAll` or `WaitAny`.
    pub(crate) wait_type: i32,
    pub(crate) timeout: Raw<i64>,
    pub(crate) wait_blocks: Raw<u8>,
}

/// Waits for several objects in the name of a driver, until `cancelled` says otherwise; the status that the pages document.
pub(crate) fn wait_for_several(call: &Call, several: &Several, mode: i8, cancelled: impl Fn() -> bool) -> NtStatus {
    let &Several { count, objects, wait_type, timeout, wait_blocks } = several;
    let limit = Limit::of(timeout);
    check_irql(call, limit);
    let most = if wait_blocks.is_null() { THREAD_WAIT_OBJECTS } else { MAXIMUM_WAIT_OBJECTS };
    if count == 0 || count > most {
        call.stop(Rule::BadArgument, format!("a wait for {count} objects; {most} are allowed here"));
    }
    let objects: Vec<_> = objects.read_slice(count as usize);
    for object in &objects {
        check_mode(call, mode, *object);
    }
    let objects: Vec<_> = objects.into_iter().map(|object| (object, Kind::of(call, object))).collect();
    // STATUS_WAIT_0 + index; index 0 when all were waited for.
    let mut index = None;
    let satisfied = || {
        index = if wait_type == WAIT_ALL {
            try_take_all(call, &objects).then_some(0)
        } else {
            objects.iter().position(|(object, kind)| try_take(call, *object, *kind))
        };
        index.is_some() || cancelled()
    };
    if !call.machine().nt.dispatcher().wait(call, limit.deadline(), satisfied) {
        return NtStatus::TIMEOUT;
    }
    index.map_or(NtStatus::CANCELLED, |index| NtStatus(i32::from(index as u8)))
}

/// Takes all objects or none.
fn try_take_all(call: &Call, objects: &[(Raw<DISPATCHER_HEADER>, Kind)]) -> bool {
    for (taken, (object, kind)) in objects.iter().enumerate() {
        if !try_take(call, *object, *kind) {
            for (object, kind) in &objects[..taken] {
                give_back(*object, *kind);
            }
            return false;
        }
    }
    true
}

/// Whether the calling thread owns a mutex.
fn owns(call: &Call, mutex: Raw<DISPATCHER_HEADER>) -> bool {
    mutex.field::<usize>(MUTANT_OWNER).read() == call.thread().object().addr()
}

/// Undoes [`try_take`].
fn give_back(object: Raw<DISPATCHER_HEADER>, kind: Kind) {
    match kind {
        Kind::SynchronizationEvent | Kind::SynchronizationTimer => state(object).store(1, Ordering::Release),
        Kind::Semaphore | Kind::Mutant => {
            state(object).fetch_add(1, Ordering::Release);
        }
        Kind::NotificationEvent | Kind::Process | Kind::Thread | Kind::NotificationTimer | Kind::Queue => {}
    }
}

/// Whether a wait for the object is satisfied now; if so, the object is changed as its kind demands.
fn try_take(call: &Call, object: Raw<DISPATCHER_HEADER>, kind: Kind) -> bool {
    let state = state(object);
    match kind {
        Kind::NotificationEvent | Kind::Process | Kind::Thread | Kind::NotificationTimer => {
            state.load(Ordering::Acquire) > 0
        }
        Kind::SynchronizationEvent | Kind::SynchronizationTimer => {
            state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |value| (value > 0).then_some(0)).is_ok()
        }
        Kind::Semaphore => {
            state.fetch_update(Ordering::AcqRel, Ordering::Acquire, |value| (value > 0).then(|| value - 1)).is_ok()
        }
        Kind::Queue => {
            call.stop(Rule::BadArgument, format!("{object:?} is a queue: KeRemoveQueue waits for its entries"))
        }
        Kind::Mutant => {
            let owner = object.field::<usize>(MUTANT_OWNER);
            let me = call.thread().object().addr();
            let mine = owner.read() == me;
            let taken = state
                .fetch_update(Ordering::AcqRel, Ordering::Acquire, |value| (value > 0 || mine).then(|| value - 1))
                .is_ok();
            if taken && !mine {
                owner.write(me);
            }
            taken
        }
    }
}

/// Releases a mutex once; true when it is free now. Stops when another thread owns it.
pub(super) fn release_mutant(call: &Call, object: Raw<DISPATCHER_HEADER>) -> i32 {
    let owner = object.field::<usize>(MUTANT_OWNER);
    if owner.read() != call.thread().object().addr() {
        call.stop(Rule::BadState, format!("the mutex {object:?} is not owned by this thread"));
    }
    let before = state(object).load(Ordering::Acquire);
    if before == 0 {
        owner.write(0);
    }
    state(object).store(before + 1, Ordering::Release);
    call.machine().nt.lock_order().released(call.thread().object().addr(), object.address());
    call.machine().nt.dispatcher().wake();
    before
}

extern "efiapi" fn ke_delay_execution_thread(_mode: i8, _alertable: u8, interval: Raw<i64>) -> NtStatus {
    let call = Call::enter();
    match Limit::of(interval) {
        Limit::None => call.stop(Rule::BadArgument, "a delay without an interval"),
        Limit::Zero => std::thread::yield_now(),
        Limit::Until(deadline) => {
            call.machine().nt.dispatcher().wait(&call, Some(deadline), || false);
        }
    }
    NtStatus::SUCCESS
}

extern "efiapi" fn ke_stall_execution_processor(microseconds: u32) {
    let _call = Call::enter();
    let end = Instant::now() + Duration::from_micros(u64::from(microseconds));
    while Instant::now() < end {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;

    /// Signalled and unsignalled notification events, off the stack.
    fn events(states: &[u64]) -> Vec<[u64; 3]> {
        states.iter().map(|state| [0x6_0000 | state << 32, 0, 0]).collect()
    }

    fn wait_many(events: &mut [[u64; 3]], wait_type: i32, blocks: usize) -> Result<NtStatus, crate::finding::Stopped> {
        let mut objects: Vec<Raw<DISPATCHER_HEADER>> =
            events.iter_mut().map(|event| Raw::of((&raw mut *event).cast())).collect();
        let (count, list) = (objects.len() as u32, Raw::of(objects.as_mut_ptr()));
        Bench::new().run(|| {
            let mut zero = 0;
            ke_wait_for_multiple_objects(count, list, wait_type, 0, 0, 0, Raw::of(&raw mut zero), Raw::at(blocks))
        })
    }

    #[test]
    fn a_wait_for_any_names_the_object_and_one_for_all_needs_them_all() {
        conforms!(
            "wdm/nf-wdm-kewaitformultipleobjects.md",
            "With WaitAny the index of the object that satisfied the wait is returned."
        );
        conforms!(
            "wdm/nf-wdm-kewaitformultipleobjects.md",
            "With WaitAll STATUS_TIMEOUT is returned unless all objects are signalled."
        );
        assert_eq!(wait_many(&mut events(&[0, 0, 1]), 1, 0).unwrap(), NtStatus(2));
        assert_eq!(wait_many(&mut events(&[1, 0]), 0, 0).unwrap(), NtStatus::TIMEOUT);
        assert_eq!(wait_many(&mut events(&[1, 1]), 0, 0).unwrap(), NtStatus::SUCCESS);
    }

    #[test]
    fn more_than_three_objects_need_wait_blocks_and_64_are_the_most() {
        conforms!(
            "wdm/nf-wdm-kewaitformultipleobjects.md",
            "Without wait blocks at most THREAD_WAIT_OBJECTS objects can be waited for, else MAXIMUM_WAIT_OBJECTS."
        );
        assert_eq!(wait_many(&mut events(&[0; 4]), 1, 0).unwrap_err().0.rule, Rule::BadArgument);
        assert_eq!(wait_many(&mut events(&[0; 4]), 1, 0x1000).unwrap(), NtStatus::TIMEOUT);
        assert_eq!(wait_many(&mut events(&[0; 65]), 1, 0x1000).unwrap_err().0.rule, Rule::BadArgument);
    }

    #[test]
    fn an_object_on_the_stack_is_waited_for_in_kernel_mode_only() {
        conforms!("wdm/nf-wdm-kewaitforsingleobject.md", "An object on the stack is waited for with KernelMode.");
        let stopped = Bench::new().run(|| {
            let mut event = [0x1_0006_0000_u64, 0, 0];
            let mut zero = 0;
            let object = Raw::of((&raw mut event).cast());
            assert_eq!(ke_wait_for_single_object(object, 0, 0, 0, Raw::of(&raw mut zero)), NtStatus::SUCCESS);
            ke_wait_for_single_object(object, 0, 1, 0, Raw::of(&raw mut zero))
        });
        assert_eq!(stopped.unwrap_err().0.rule, Rule::BadArgument);
    }

    #[test]
    fn mutexes_taken_in_both_orders_are_a_potential_deadlock() {
        conforms!("docs:devtest/deadlock-detection.md", "Mutexes take part in the order of locks.");
        let mut memory = Box::new([[0_u64; 7]; 2]);
        let base = Raw::<[u64; 7]>::of((&raw mut *memory).cast());
        let [one, two] = [0, 1].map(|index| base.index(index).cast::<DISPATCHER_HEADER>());
        let stopped = Bench::new().run(|| {
            for mutex in [one, two] {
                super::super::dispatcher::initialise(mutex, Kind::Mutant, 56, 1);
            }
            for (first, second) in [(one, two), (two, one)] {
                let call = Call::enter();
                assert_eq!(wait_for(&call, first, Raw::NULL), NtStatus::SUCCESS);
                assert_eq!(wait_for(&call, second, Raw::NULL), NtStatus::SUCCESS);
                release_mutant(&call, second);
                release_mutant(&call, first);
            }
        });
        assert_eq!(stopped.unwrap_err().0.rule, Rule::LockOrder);
    }
}
