//! `KeWaitForSingleObject` and its like.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nt_types::{APC_LEVEL, DISPATCH_LEVEL, DISPATCHER_HEADER, NtStatus};

use super::dispatcher::{Kind, state};
use super::raw::Raw;
use super::time::system_time;
use crate::ddi::{Call, exports};
use crate::finding::Rule;

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
enum Limit {
    None,
    /// Only look.
    Zero,
    Until(Instant),
}

impl Limit {
    /// The meaning of a `PLARGE_INTEGER Timeout`: NULL for ever, negative relative, positive a system time.
    fn of(timeout: Raw<i64>) -> Self {
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

    fn deadline(self) -> Option<Instant> {
        match self {
            Self::None => None,
            Self::Zero => Some(Instant::now()),
            Self::Until(deadline) => Some(deadline),
        }
    }
}

/// The pages' rule: at `DISPATCH_LEVEL` a thread may look, but not wait.
fn check_irql(call: &Call, limit: Limit) {
    let irql = call.thread().irql();
    if irql > APC_LEVEL && limit != Limit::Zero {
        call.stop(Rule::IrqlTooHigh, format!("a wait with a time-out other than zero at IRQL {irql}"));
    }
    debug_assert!(irql <= DISPATCH_LEVEL, "the export table said so");
}

extern "efiapi" fn ke_wait_for_single_object(
    object: Raw<DISPATCHER_HEADER>,
    _reason: i32,
    _mode: i8,
    _alertable: u8,
    timeout: Raw<i64>,
) -> NtStatus {
    let call = Call::enter();
    wait_for(&call, object, timeout)
}

/// Waits for one object in the name of a driver; the status that the page documents.
pub(crate) fn wait_for(call: &Call, object: Raw<DISPATCHER_HEADER>, timeout: Raw<i64>) -> NtStatus {
    let limit = Limit::of(timeout);
    check_irql(call, limit);
    let kind = Kind::of(call, object);
    let satisfied = || try_take(call, object, kind);
    if call.machine().nt.dispatcher().wait(call, limit.deadline(), satisfied) {
        NtStatus::SUCCESS
    } else {
        NtStatus::TIMEOUT
    }
}

extern "efiapi" fn ke_wait_for_multiple_objects(
    count: u32,
    objects: Raw<Raw<DISPATCHER_HEADER>>,
    wait_type: i32,
    _reason: i32,
    _mode: i8,
    _alertable: u8,
    timeout: Raw<i64>,
    wait_blocks: Raw<u8>,
) -> NtStatus {
    let call = Call::enter();
    let limit = Limit::of(timeout);
    check_irql(&call, limit);
    let most = if wait_blocks.is_null() { THREAD_WAIT_OBJECTS } else { MAXIMUM_WAIT_OBJECTS };
    if count == 0 || count > most {
        call.stop(Rule::BadArgument, format!("a wait for {count} objects; {most} are allowed here"));
    }
    let objects: Vec<_> = objects.read_slice(count as usize);
    let objects: Vec<_> = objects.into_iter().map(|object| (object, Kind::of(&call, object))).collect();
    let mut index = 0;
    let satisfied = || {
        if wait_type == WAIT_ALL {
            return try_take_all(&call, &objects);
        }
        let taken = objects.iter().position(|(object, kind)| try_take(&call, *object, *kind));
        index = taken.unwrap_or(0);
        taken.is_some()
    };
    if call.machine().nt.dispatcher().wait(&call, limit.deadline(), satisfied) {
        // STATUS_WAIT_0 + index; index 0 when all were waited for.
        NtStatus(i32::from(index as u8))
    } else {
        NtStatus::TIMEOUT
    }
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

/// Undoes [`try_take`].
fn give_back(object: Raw<DISPATCHER_HEADER>, kind: Kind) {
    match kind {
        Kind::SynchronizationEvent | Kind::SynchronizationTimer => state(object).store(1, Ordering::Release),
        Kind::Semaphore | Kind::Mutant => {
            state(object).fetch_add(1, Ordering::Release);
        }
        Kind::NotificationEvent | Kind::Process | Kind::Thread | Kind::NotificationTimer => {}
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
