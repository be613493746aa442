//! Opportunistic locks that a filter keeps: FltInitializeOplock to FltCheckOplockEx.
//!
//! [`rules`] has the tables, [`state`] applies them to one stream; here are the calls, and what is told to whom when something
//! ends. What a driver passes as `POPLOCK` is the address of its variable: that is the name by which the state is found.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fltmgr::raw as flt;
use fltmgr::raw::FLT_CALLBACK_DATA;
use nt_types::{BOOLEAN, FILE_OBJECT, FileObjectFlags, NtStatus, PVOID};

use super::flight::{Flight, Resume};
use super::operation::Kind;
use super::{major, stack};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::leak::{Leak, LeakKind};
use crate::machine::{Driver, Inner};
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

mod request;
mod rules;
mod state;

use rules::{Grant, Trigger};
use state::{Cancelled, Ended, State, Waiting};

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltInitializeOplock(max 1) = flt_initialize_oplock;
    FltUninitializeOplock(max 1) = flt_uninitialize_oplock;
    FltOplockFsctrl(max 1) = flt_oplock_fsctrl;
    FltOplockFsctrlEx(max 1) = flt_oplock_fsctrl_ex;
    FltCheckOplock(max 1) = flt_check_oplock;
    FltCheckOplockEx(max 1) = flt_check_oplock_ex;
    FltOplockBreakToNone(max 1) = flt_oplock_break_to_none;
    FltOplockBreakToNoneEx(max 1) = flt_oplock_break_to_none_ex;
    FltOplockBreakH(max 1) = flt_oplock_break_h;
    FltCurrentOplock(max 1) = flt_current_oplock;
    FltCurrentOplockH(max 1) = flt_current_oplock_h;
    FltCurrentBatchOplock(max 1) = flt_current_batch_oplock;
    FltOplockIsFastIoPossible(max 1) = flt_oplock_is_fast_io_possible;
    FltOplockIsSharedRequest(max 1) = flt_oplock_is_shared_request;
    FltOplockKeysEqual(max 1) = flt_oplock_keys_equal;
}

/// `OPLOCK_FLAG_*` of the calls that check.
const COMPLETE_IF_OPLOCKED: u32 = 1;
const OPLOCK_KEY_CHECK_ONLY: u32 = 2;
const BACK_OUT_ATOMIC_OPLOCK: u32 = 4;
const IGNORE_OPLOCK_KEYS: u32 = 8;

/// `PFLTOPLOCK_WAIT_COMPLETE_ROUTINE` and `PFLTOPLOCK_PREPOST_CALLBACKDATA_ROUTINE`.
type Routine = unsafe extern "efiapi" fn(*mut FLT_CALLBACK_DATA, PVOID);

/// What is to be done with an operation that has waited.
enum Then {
    /// FSCTL_OPLOCK_BREAK_NOTIFY: complete it.
    Complete,
    /// Call this with this context.
    Tell(Routine, usize),
}

/// One `OPLOCK`.
struct Oplock {
    driver: Arc<Driver>,
    state: Mutex<State<Then>>,
}

impl Oplock {
    fn state(&self) -> MutexGuard<'_, State<Then>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Initialised oplocks by the address of the driver's variable.
#[derive(Default)]
pub(crate) struct Oplocks(Mutex<HashMap<usize, Arc<Oplock>>>);

impl std::fmt::Debug for Oplocks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} oplocks", self.lock().len())
    }
}

impl Oplocks {
    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Arc<Oplock>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Oplocks with something in them that `driver` has not uninitialised. An empty one takes no memory on Windows either.
    pub(crate) fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let mine = |oplock: &&Arc<Oplock>| std::ptr::eq(Arc::as_ptr(&oplock.driver), driver);
        let used = |oplock: &&Arc<Oplock>| oplock.state().any(|_| true);
        let count = self.lock().values().filter(mine).filter(used).count() as u64;
        let detail = "oplocks that are held (FltUninitializeOplock is missing)".to_owned();
        if count == 0 { Vec::new() } else { vec![Leak { kind: LeakKind::Reference, count, bytes: 0, detail }] }
    }

    /// The driver's memory is gone, and what lies there with it.
    pub(crate) fn forget(&self, driver: &Driver) {
        self.lock().retain(|_, oplock| !std::ptr::eq(Arc::as_ptr(&oplock.driver), driver));
    }
}

/// Whether the owners of two file objects are the same, for oplocks: the same file object, since none has a key.
fn same(one: usize, other: usize) -> bool {
    one == other
}

/// The oplock that a driver passes; stops when it is none.
fn known(call: &Call, oplock: Raw<usize>) -> Arc<Oplock> {
    let found = call.machine().flt.oplocks.lock().get(&oplock.address()).cloned();
    found.unwrap_or_else(|| {
        let message =
            format!("the oplock at {oplock:?} was not initialised (FltInitializeOplock), or is uninitialised");
        call.stop(Rule::BadArgument, message)
    })
}

/// The packet behind callback data; the calls are for packets only.
fn packet(call: &Call, data: Raw<FLT_CALLBACK_DATA>) -> Arc<Flight> {
    let flight = Flight::of(call, data);
    if flight.kind != Kind::Irp {
        call.stop(Rule::BadArgument, "oplocks are for IRP-based operations only (FLT_IS_IRP_OPERATION)");
    }
    flight
}

extern "efiapi" fn flt_initialize_oplock(oplock: Raw<usize>) {
    let call = Call::enter();
    if oplock.read() != 0 {
        call.stop(Rule::BadArgument, format!("the variable at {oplock:?} has to be NULL before FltInitializeOplock"));
    }
    let new = Oplock { driver: Arc::clone(call.driver()), state: Mutex::default() };
    call.machine().flt.oplocks.lock().insert(oplock.address(), Arc::new(new));
}

extern "efiapi" fn flt_uninitialize_oplock(oplock: Raw<usize>) {
    let call = Call::enter();
    let known = known(&call, oplock);
    call.machine().flt.oplocks.lock().remove(&oplock.address());
    let ended = known.state().clear();
    oplock.write(0);
    settle(&call, &known, ended);
}

/// Tells everybody what has ended, and lets go on who can.
fn settle(call: &Call, oplock: &Oplock, ended: Vec<Ended>) {
    let released = oplock.state().released();
    for ended in ended {
        request::end(call.thread(), ended);
    }
    for waiting in released {
        go_on(call.thread(), &oplock.driver, waiting, NtStatus::SUCCESS);
    }
    // Those who wait in their calls look again.
    call.machine().nt.dispatcher().wake();
    call.thread().leave_if_stopped();
}

/// An operation does not wait any more.
fn go_on(thread: &Thread, driver: &Arc<Driver>, waiting: Waiting<Then>, status: NtStatus) {
    let Waiting { flight, then } = waiting;
    match then {
        Then::Complete => complete(thread, &flight, (status, 0)),
        Then::Tell(routine, context) => {
            flight.set_outcome((status, 0));
            tell(thread, driver, "WaitCompletionRoutine", routine, &flight, context);
        }
    }
}

fn tell(thread: &Thread, driver: &Arc<Driver>, name: &'static str, routine: Routine, flight: &Flight, context: usize) {
    let data = flight.data().pointer();
    // A stop reaches whoever drives the machine.
    let _stopped = thread.call_driver(driver, name, thread.irql(), || {
        // SAFETY: the driver passed the function with this signature, and the operation lives until it returns.
        unsafe { routine(data, Raw::at(context).pointer()) }
    });
}

/// Completes an operation that the driver's pre-operation callback left to the oplock.
fn complete(thread: &Thread, flight: &Arc<Flight>, outcome: (NtStatus, usize)) {
    flight.set_outcome(outcome);
    let answer = Resume::Pre(flt::FLT_PREOP_COMPLETE, std::ptr::null_mut());
    // A driver that completed it itself meanwhile was told so by that call.
    let _told = stack::resume(thread, flight, answer);
}

extern "efiapi" fn flt_oplock_fsctrl(oplock: Raw<usize>, data: Raw<FLT_CALLBACK_DATA>, open_count: u32) -> i32 {
    let call = Call::enter();
    request::control(&call, oplock, data, open_count, false)
}

extern "efiapi" fn flt_oplock_fsctrl_ex(
    oplock: Raw<usize>,
    data: Raw<FLT_CALLBACK_DATA>,
    open_count: u32,
    flags: u32,
) -> i32 {
    const ALL_KEYS_MATCH: u32 = 1;
    let call = Call::enter();
    request::control(&call, oplock, data, open_count, flags & ALL_KEYS_MATCH != 0)
}

/// The routines that a check is given, and their context.
struct Routines {
    context: PVOID,
    wait: Option<Routine>,
    prepost: Option<Routine>,
}

extern "efiapi" fn flt_check_oplock(
    oplock: Raw<usize>,
    data: Raw<FLT_CALLBACK_DATA>,
    context: PVOID,
    wait: Option<Routine>,
    prepost: Option<Routine>,
) -> i32 {
    let call = Call::enter();
    check_operation(&call, oplock, data, 0, &Routines { context, wait, prepost })
}

extern "efiapi" fn flt_check_oplock_ex(
    oplock: Raw<usize>,
    data: Raw<FLT_CALLBACK_DATA>,
    flags: u32,
    context: PVOID,
    wait: Option<Routine>,
    prepost: Option<Routine>,
) -> i32 {
    let call = Call::enter();
    check_operation(&call, oplock, data, flags, &Routines { context, wait, prepost })
}

fn check_operation(
    call: &Call,
    oplock: Raw<usize>,
    data: Raw<FLT_CALLBACK_DATA>,
    flags: u32,
    routines: &Routines,
) -> i32 {
    let known = known(call, oplock);
    let flight = packet(call, data);
    if flags & (OPLOCK_KEY_CHECK_ONLY | BACK_OUT_ATOMIC_OPLOCK) != 0 {
        // No file object has a key, and no oplock is prepared during its create: there is nothing to add or to revert.
        return flt::FLT_PREOP_SUCCESS_WITH_CALLBACK;
    }
    if flight.major() == major::CLEANUP {
        let ended = known.state().close(flight.target());
        settle(call, &known, ended);
        return flt::FLT_PREOP_SUCCESS_WITH_CALLBACK;
    }
    match request::trigger(&flight) {
        Some(trigger) => {
            let flags = flags | request::flags_of_create(&flight);
            check(call, &known, &flight, trigger, flags, routines)
        }
        None => flt::FLT_PREOP_SUCCESS_WITH_CALLBACK,
    }
}

/// Breaks what has to be broken, and holds the operation up for as long as that takes.
fn check(
    call: &Call,
    oplock: &Arc<Oplock>,
    flight: &Arc<Flight>,
    trigger: Trigger,
    flags: u32,
    routines: &Routines,
) -> i32 {
    let same = |one, other| flags & IGNORE_OPLOCK_KEYS == 0 && same(one, other);
    let (ended, must_wait) = oplock.state().check(trigger, flight.target(), same);
    let breaks = must_wait || ended.iter().any(|ended| ended.acknowledge);
    if breaks && flags & COMPLETE_IF_OPLOCKED != 0 {
        flight.set_outcome((NtStatus::OPLOCK_BREAK_IN_PROGRESS, 0));
        settle(call, oplock, ended);
        return flt::FLT_PREOP_SUCCESS_WITH_CALLBACK;
    }
    if !must_wait {
        settle(call, oplock, ended);
        return flt::FLT_PREOP_SUCCESS_WITH_CALLBACK;
    }
    if let Some(wait) = routines.wait {
        let context = Raw::of(routines.context).address();
        if let Some(prepost) = routines.prepost {
            tell(call.thread(), &oplock.driver, "PrePostCallbackDataRoutine", prepost, flight, context);
            call.thread().leave_if_stopped();
        }
        oplock.state().wait(flight, Then::Tell(wait, context));
        settle(call, oplock, ended);
        return flt::FLT_PREOP_PENDING;
    }
    settle(call, oplock, ended);
    let over = || !oplock.state().holds_up() || flight.is_cancelled();
    call.machine().nt.dispatcher().wait(call, None, over);
    if oplock.state().holds_up() {
        flight.set_outcome((NtStatus::CANCELLED, 0));
        return flt::FLT_PREOP_COMPLETE;
    }
    flt::FLT_PREOP_SUCCESS_WITH_CALLBACK
}

/// Somebody cancels an operation that an oplock keeps; true when one does.
pub(super) fn cancel(machine: &Arc<Inner>, thread: &Thread, flight: &Arc<Flight>) -> bool {
    let all: Vec<_> = machine.flt.oplocks.lock().values().cloned().collect();
    let mut found = all.iter().filter_map(|oplock| Some((oplock, oplock.state().cancel(flight)?)));
    let Some((oplock, cancelled)) = found.next() else { return false };
    match cancelled {
        Cancelled::Wait(waiting) => go_on(thread, &oplock.driver, waiting, NtStatus::CANCELLED),
        Cancelled::Oplock => complete(thread, flight, (NtStatus::CANCELLED, 0)),
    }
    true
}

extern "efiapi" fn flt_oplock_break_to_none(
    oplock: Raw<usize>,
    data: Raw<FLT_CALLBACK_DATA>,
    context: PVOID,
    wait: Option<Routine>,
    prepost: Option<Routine>,
) -> i32 {
    let call = Call::enter();
    let (known, flight) = (known(&call, oplock), packet(&call, data));
    check(&call, &known, &flight, Trigger::Everything, 0, &Routines { context, wait, prepost })
}

extern "efiapi" fn flt_oplock_break_to_none_ex(
    oplock: Raw<usize>,
    data: Raw<FLT_CALLBACK_DATA>,
    flags: u32,
    context: PVOID,
    wait: Option<Routine>,
    prepost: Option<Routine>,
) -> i32 {
    let call = Call::enter();
    let (known, flight) = (known(&call, oplock), packet(&call, data));
    check(&call, &known, &flight, Trigger::Everything, flags, &Routines { context, wait, prepost })
}

extern "efiapi" fn flt_oplock_break_h(
    oplock: Raw<usize>,
    data: Raw<FLT_CALLBACK_DATA>,
    flags: u32,
    context: PVOID,
    wait: Option<Routine>,
    prepost: Option<Routine>,
) -> i32 {
    let call = Call::enter();
    let (known, flight) = (known(&call, oplock), packet(&call, data));
    check(&call, &known, &flight, Trigger::Handles, flags, &Routines { context, wait, prepost })
}

extern "efiapi" fn flt_current_oplock(oplock: Raw<usize>) -> BOOLEAN {
    let call = Call::enter();
    known(&call, oplock).state().any(|_| true).into()
}

extern "efiapi" fn flt_current_oplock_h(oplock: Raw<usize>) -> BOOLEAN {
    let call = Call::enter();
    known(&call, oplock).state().any(|grant| grant.caching().contains(rules::Caching::HANDLE)).into()
}

extern "efiapi" fn flt_current_batch_oplock(oplock: Raw<usize>) -> BOOLEAN {
    let call = Call::enter();
    known(&call, oplock).state().any(Grant::is_batch_or_filter).into()
}

extern "efiapi" fn flt_oplock_is_fast_io_possible(oplock: Raw<usize>) -> BOOLEAN {
    let call = Call::enter();
    // NULL is what a variable is as long as there never was an oplock.
    if oplock.some().is_none_or(|oplock| oplock.read() == 0) {
        return 1;
    }
    let known = known(&call, oplock);
    let state = known.state();
    // An exclusive owner alone has the stream; shared ones have to hear of each write.
    (!state.is_breaking() && !state.any(Grant::is_shared)).into()
}

extern "efiapi" fn flt_oplock_is_shared_request(data: Raw<FLT_CALLBACK_DATA>) -> BOOLEAN {
    let call = Call::enter();
    let flight = Flight::of(&call, data);
    request::wanted(&flight).is_some_and(|wanted| wanted.is_ok_and(Grant::is_shared)).into()
}

extern "efiapi" fn flt_oplock_keys_equal(one: Raw<FILE_OBJECT>, other: Raw<FILE_OBJECT>) -> BOOLEAN {
    let _call = Call::enter();
    (!one.is_null() && same(one.address(), other.address())).into()
}

/// Whether requests on the file object are synchronous: no oplock is granted then.
fn is_synchronous(file: usize) -> bool {
    let flags = field!(Raw::<FILE_OBJECT>::at(file), FILE_OBJECT, Flags).read();
    flags & FileObjectFlags::SYNCHRONOUS_IO.bits() != 0
}
