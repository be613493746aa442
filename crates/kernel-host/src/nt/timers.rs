//! Timers and deferred procedure calls.
//!
//! One Linux thread per machine is the clock interrupt and the DPC queue at once: it sleeps until the next timer is due, signals
//! it, and runs the queued routines at `DISPATCH_LEVEL`, one after the other. It starts with the first timer or DPC.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use nt_types::{DISPATCH_LEVEL, DISPATCHER_HEADER, KDPC, KTIMER, NtStatus};

use super::dispatcher::{Kind, initialise, state};
use super::raw::{Raw, field};
use super::time::{interrupt_time, system_time};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::leak::{Leak, LeakKind};
use crate::machine::{Driver, Inner};
use crate::origin::Origin;
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    KeInitializeTimer(max 2) = ke_initialize_timer;
    KeInitializeTimerEx(max 2) = ke_initialize_timer_ex;
    KeSetTimer(max 2) = ke_set_timer;
    KeSetTimerEx(max 2) = ke_set_timer_ex;
    KeSetCoalescableTimer(max 2) = ke_set_coalescable_timer;
    KeCancelTimer(max 2) = ke_cancel_timer;
    KeReadStateTimer(max 2) = ke_read_state_timer;
    KeInitializeDpc(max 31) = ke_initialize_dpc;
    KeInitializeThreadedDpc(max 31) = ke_initialize_threaded_dpc;
    KeSetImportanceDpc(max 31) = ke_set_importance_dpc;
    KeSetTargetProcessorDpc(max 31) = ke_set_target_processor_dpc;
    KeSetTargetProcessorDpcEx(max 31) = ke_set_target_processor_dpc_ex;
    KeInsertQueueDpc(max 31) = ke_insert_queue_dpc;
    KeRemoveQueueDpc(max 31) = ke_remove_queue_dpc;
    KeFlushQueuedDpcs(max 0) = ke_flush_queued_dpcs;
}

/// `DpcObject`: the type of a `KDPC`.
const DPC_OBJECT: u8 = 19;

/// Intervals of 100 ns in a millisecond.
const MILLISECOND: u64 = 10_000;

/// Timers and DPCs of a machine.
#[derive(Debug, Default)]
pub(crate) struct Timers(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    timers: Vec<Timer>,
    dpcs: VecDeque<Dpc>,
    /// A DPC is being run.
    is_running: bool,
    has_thread: bool,
    is_closed: bool,
}

/// A timer that is set.
#[derive(Debug)]
struct Timer {
    address: usize,
    /// Interrupt time.
    due: u64,
    /// In 100 ns; 0 for one shot.
    period: u64,
    dpc: usize,
    driver: Arc<Driver>,
    site: Origin,
}

/// A DPC in the queue.
#[derive(Debug)]
struct Dpc {
    address: usize,
    driver: Arc<Driver>,
    site: Origin,
}

impl Timers {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }

    /// What of `driver` may still run.
    pub(crate) fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let state = self.lock();
        let is_mine = |owner: &Arc<Driver>| std::ptr::eq(Arc::as_ptr(owner), driver);
        let leak = |detail: String| Leak { kind: LeakKind::Execution, count: 1, bytes: 0, detail };
        let timers = state.timers.iter().filter(|timer| is_mine(&timer.driver));
        let timers = timers.map(|timer| leak(format!("timer {:#x} is set, from {}", timer.address, timer.site)));
        let dpcs = state.dpcs.iter().filter(|dpc| is_mine(&dpc.driver));
        let dpcs = dpcs.map(|dpc| leak(format!("DPC {:#x} is queued, from {}", dpc.address, dpc.site)));
        timers.chain(dpcs).collect()
    }

    /// A set timer, its DPC or a queued DPC inside a range of memory that is about to be freed.
    pub(crate) fn active_in(&self, start: usize, length: usize) -> Option<String> {
        let state = self.lock();
        let inside = |address: usize| address.wrapping_sub(start) < length;
        let timer = state.timers.iter().find(|timer| inside(timer.address));
        let dpc = state.dpcs.iter().find(|dpc| inside(dpc.address));
        let timers_dpc = state.timers.iter().find(|timer| inside(timer.dpc));
        timer
            .map(|timer| format!("the timer {:#x} in it is still set", timer.address))
            .or_else(|| dpc.map(|dpc| format!("the DPC {:#x} in it is still queued", dpc.address)))
            .or_else(|| {
                let set = |timer: &Timer| format!("the DPC {:#x} in it is that of a timer that is set", timer.dpc);
                timers_dpc.map(set)
            })
    }

    /// Starts the thread with the first use.
    fn start(&self, machine: &Arc<Inner>, state: &mut State) {
        if !state.has_thread {
            state.has_thread = true;
            let (shared, machine) = (Arc::clone(&self.0), Arc::downgrade(machine));
            std::thread::spawn(move || shared.run(&machine));
        }
        self.0.changed.notify_all();
    }
}

impl Drop for Timers {
    fn drop(&mut self) {
        self.lock().is_closed = true;
        self.0.changed.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread: until the machine is gone or has stopped.
    fn run(&self, machine: &Weak<Inner>) {
        let mut state = self.lock();
        while !state.is_closed {
            let now = interrupt_time();
            if let Some(dpc) = state.dpcs.pop_front() {
                state.is_running = true;
                drop(state);
                let ran = machine.upgrade().is_some_and(|machine| run_dpc(&machine, &dpc));
                state = self.lock();
                state.is_running = false;
                self.changed.notify_all();
                if !ran {
                    return;
                }
            } else if let Some(index) = state.timers.iter().position(|timer| timer.due <= now) {
                let timer = state.expire(index);
                // Until its DPC is queued the timer's end is under way, for those who wait for DPCs.
                state.is_running = true;
                drop(state);
                let Some(machine) = machine.upgrade() else { return };
                if !signal(&machine, &timer) {
                    return;
                }
                state = self.lock();
                state.is_running = false;
                self.changed.notify_all();
            } else {
                let next = state.timers.iter().map(|timer| timer.due).min();
                let nap = next.map_or(Duration::from_hours(1), |due| Duration::from_nanos((due - now) * 100));
                state = self.changed.wait_timeout(state, nap).unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }
}

impl State {
    /// Takes a timer that is due out, or sets it again when it is periodic.
    fn expire(&mut self, index: usize) -> Timer {
        let timer = self.timers.swap_remove(index);
        if timer.period > 0 {
            let again = Timer { due: timer.due + timer.period, driver: Arc::clone(&timer.driver), ..timer };
            self.timers.push(again);
        }
        timer
    }

    /// Takes a timer out; whether it was set.
    fn cancel(&mut self, address: usize) -> bool {
        let before = self.timers.len();
        self.timers.retain(|timer| timer.address != address);
        self.timers.len() < before
    }

    /// Queues a DPC; false when it is in the queue already.
    fn queue(&mut self, address: usize, driver: &Arc<Driver>, site: Origin) -> bool {
        let is_new = self.dpcs.iter().all(|dpc| dpc.address != address);
        if is_new {
            self.dpcs.push_back(Dpc { address, driver: Arc::clone(driver), site });
        }
        is_new
    }
}

/// A timer's end: waiters are released, its DPC is queued. False when the machine has stopped.
///
/// The timer is in the driver's memory, which may be gone: so this is done as driver code, whose faults are findings.
fn signal(machine: &Arc<Inner>, timer: &Timer) -> bool {
    let signalled = Thread::enter(machine, |thread| {
        thread.call_driver(&timer.driver, "KTIMER expiration", DISPATCH_LEVEL, || {
            state(Raw::at(timer.address)).store(1, Ordering::Release);
        })
    });
    machine.nt.dispatcher().wake();
    if timer.dpc != 0 {
        machine.nt.timers().lock().queue(timer.dpc, &timer.driver, timer.site);
    }
    signalled.is_ok()
}

/// Runs one DPC. False when the machine has stopped.
fn run_dpc(machine: &Arc<Inner>, dpc: &Dpc) -> bool {
    let ran = Thread::enter(machine, |thread| {
        thread.call_driver(&dpc.driver, "CustomDpc", DISPATCH_LEVEL, || {
            let raw = Raw::<KDPC>::at(dpc.address);
            let fields = raw.read();
            field!(raw, KDPC, DpcData).write(std::ptr::null_mut());
            if let Some(routine) = fields.DeferredRoutine {
                // SAFETY: the driver set the routine with KeInitializeDpc and queued the DPC.
                unsafe {
                    routine(raw.pointer(), fields.DeferredContext, fields.SystemArgument1, fields.SystemArgument2);
                }
            }
        })
    });
    ran.is_ok()
}

extern "efiapi" fn ke_initialize_timer(timer: Raw<KTIMER>) {
    let call = Call::enter();
    initialise_timer(&call, timer, Kind::NotificationTimer);
}

extern "efiapi" fn ke_initialize_timer_ex(timer: Raw<KTIMER>, kind: i32) {
    let call = Call::enter();
    match kind {
        0 => initialise_timer(&call, timer, Kind::NotificationTimer),
        1 => initialise_timer(&call, timer, Kind::SynchronizationTimer),
        other => call.stop(Rule::BadArgument, format!("timer type {other}")),
    }
}

/// Initialises a timer; stops when it is set.
pub(crate) fn initialise_timer(call: &Call, timer: Raw<KTIMER>, kind: Kind) {
    if let Some(why) = call.machine().nt.timers().active_in(timer.address(), 1) {
        call.stop(Rule::BadState, format!("a timer is initialised although {why}"));
    }
    timer.cast::<u8>().fill(0, size_of::<KTIMER>());
    initialise(timer.cast(), kind, size_of::<KTIMER>(), 0);
}

extern "efiapi" fn ke_set_timer(timer: Raw<KTIMER>, due: i64, dpc: usize) -> u8 {
    set_timer(&Call::enter(), timer, due, 0, dpc)
}

extern "efiapi" fn ke_set_timer_ex(timer: Raw<KTIMER>, due: i64, period: i32, dpc: usize) -> u8 {
    set_timer(&Call::enter(), timer, due, period, dpc)
}

extern "efiapi" fn ke_set_coalescable_timer(
    timer: Raw<KTIMER>,
    due: i64,
    period: u32,
    _tolerable_delay: u32,
    dpc: usize,
) -> u8 {
    // A timer that is on time is within any tolerance.
    set_timer(&Call::enter(), timer, due, period.cast_signed(), dpc)
}

/// Sets a timer, anew if it was set; whether it was.
pub(crate) fn set_timer(call: &Call, timer: Raw<KTIMER>, due: i64, period: i32, dpc: usize) -> u8 {
    let object: Raw<DISPATCHER_HEADER> = timer.cast();
    if !matches!(Kind::of(call, object), Kind::NotificationTimer | Kind::SynchronizationTimer) {
        call.stop(Rule::BadArgument, format!("{timer:?} is no timer"));
    }
    let Ok(period) = u32::try_from(period) else {
        call.stop(Rule::BadArgument, format!("a timer with period {period}"));
    };
    field!(timer, KTIMER, Period).write(period);
    set_timer_for(call, timer, due, u64::from(period) * MILLISECOND, dpc)
}

/// As [`set_timer`], with a period in 100 ns.
pub(crate) fn set_timer_for(call: &Call, timer: Raw<KTIMER>, due: i64, period: u64, dpc: usize) -> u8 {
    let object: Raw<DISPATCHER_HEADER> = timer.cast();
    // Negative: from now. Positive: a system time.
    let distance = if due < 0 { due.saturating_neg() } else { due.saturating_sub(system_time()) };
    let due = interrupt_time() + u64::try_from(distance).unwrap_or(0);
    state(object).store(0, Ordering::Release);
    field!(timer, KTIMER, DueTime).write(due.cast_signed());
    field!(timer, KTIMER, Dpc).cast::<usize>().write(dpc);
    let timers = call.machine().nt.timers();
    let mut state = timers.lock();
    let was_set = state.cancel(timer.address());
    let (address, driver) = (timer.address(), Arc::clone(call.driver()));
    state.timers.push(Timer { address, due, period, dpc, driver, site: Origin::of(call.site()) });
    timers.start(call.machine(), &mut state);
    u8::from(was_set)
}

extern "efiapi" fn ke_cancel_timer(timer: Raw<KTIMER>) -> u8 {
    cancel_timer(&Call::enter(), timer)
}

/// Takes a timer out of the queue; whether it was there.
pub(crate) fn cancel_timer(call: &Call, timer: Raw<KTIMER>) -> u8 {
    u8::from(call.machine().nt.timers().lock().cancel(timer.address()))
}

extern "efiapi" fn ke_read_state_timer(timer: Raw<KTIMER>) -> u8 {
    let call = Call::enter();
    Kind::of(&call, timer.cast());
    u8::from(state(timer.cast()).load(Ordering::Acquire) != 0)
}

extern "efiapi" fn ke_initialize_dpc(dpc: Raw<KDPC>, routine: usize, context: usize) {
    let _call = Call::enter();
    initialise_dpc(dpc, routine, context);
}

/// Initialises a DPC that runs `routine`.
pub(crate) fn initialise_dpc(dpc: Raw<KDPC>, routine: usize, context: usize) {
    dpc.cast::<u8>().fill(0, size_of::<KDPC>());
    field!(dpc, KDPC, Type).write(DPC_OBJECT);
    field!(dpc, KDPC, Importance).write(1);
    field!(dpc, KDPC, DeferredRoutine).cast::<usize>().write(routine);
    field!(dpc, KDPC, DeferredContext).cast::<usize>().write(context);
}

/// Where threaded DPCs are not enabled they run like ordinary ones, at `DISPATCH_LEVEL`, which their routines have to cope with.
extern "efiapi" fn ke_initialize_threaded_dpc(dpc: Raw<KDPC>, routine: usize, context: usize) {
    let _call = Call::enter();
    initialise_dpc(dpc, routine, context);
}

extern "efiapi" fn ke_set_importance_dpc(dpc: Raw<KDPC>, importance: u32) {
    let call = Call::enter();
    if importance > 3 {
        call.stop(Rule::BadArgument, format!("DPC importance {importance}"));
    }
    field!(dpc, KDPC, Importance).write(importance as u8);
}

extern "efiapi" fn ke_set_target_processor_dpc(dpc: Raw<KDPC>, number: u8) {
    let call = Call::enter();
    if number != 0 {
        call.stop(Rule::BadArgument, format!("there is no processor {number}"));
    }
    field!(dpc, KDPC, Number).write(u16::from(number));
}

extern "efiapi" fn ke_set_target_processor_dpc_ex(dpc: Raw<KDPC>, number: Raw<u32>) -> NtStatus {
    let _call = Call::enter();
    if number.read() != 0 {
        return NtStatus::INVALID_PARAMETER;
    }
    field!(dpc, KDPC, Number).write(0);
    NtStatus::SUCCESS
}

extern "efiapi" fn ke_insert_queue_dpc(dpc: Raw<KDPC>, first: usize, second: usize) -> u8 {
    let call = Call::enter();
    if field!(dpc, KDPC, Type).read() != DPC_OBJECT {
        call.stop(Rule::BadArgument, format!("{dpc:?} is no initialised DPC"));
    }
    if !field!(dpc, KDPC, DpcData).read().is_null() {
        return 0;
    }
    field!(dpc, KDPC, SystemArgument1).cast::<usize>().write(first);
    field!(dpc, KDPC, SystemArgument2).cast::<usize>().write(second);
    field!(dpc, KDPC, DpcData).write(dpc.cast().pointer());
    let timers = call.machine().nt.timers();
    let mut state = timers.lock();
    let is_new = state.queue(dpc.address(), call.driver(), Origin::of(call.site()));
    timers.start(call.machine(), &mut state);
    u8::from(is_new)
}

extern "efiapi" fn ke_remove_queue_dpc(dpc: Raw<KDPC>) -> u8 {
    let call = Call::enter();
    let removed = {
        let mut state = call.machine().nt.timers().lock();
        let before = state.dpcs.len();
        state.dpcs.retain(|queued| queued.address != dpc.address());
        state.dpcs.len() < before
    };
    if removed {
        field!(dpc, KDPC, DpcData).write(std::ptr::null_mut());
    }
    u8::from(removed)
}

extern "efiapi" fn ke_flush_queued_dpcs() {
    flush_dpcs(&Call::enter());
}

/// Waits until no DPC is queued or runs.
pub(crate) fn flush_dpcs(call: &Call) {
    call.machine().nt.dispatcher().wait(call, None, || {
        let state = call.machine().nt.timers().lock();
        state.dpcs.is_empty() && !state.is_running
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;
    use crate::nt::wait::wait_for;

    /// A timer and a DPC, at an address that does not change.
    #[repr(C, align(16))]
    struct Objects {
        timer: [u64; 8],
        dpc: [u64; 8],
        count: u64,
    }

    fn objects() -> Box<Objects> {
        Box::new(Objects { timer: [0; 8], dpc: [0; 8], count: 0 })
    }

    extern "efiapi" fn count(_dpc: usize, context: Raw<u64>, first: u64, _second: u64) {
        assert_eq!(Thread::current().irql(), DISPATCH_LEVEL);
        context.write(context.read() + first.max(1));
    }

    fn with(body: impl FnOnce(Raw<KTIMER>, Raw<KDPC>, Raw<u64>)) -> Result<(), crate::finding::Stopped> {
        let mut objects = objects();
        let timer = Raw::of(&raw mut objects.timer).cast();
        let dpc = Raw::of(&raw mut objects.dpc).cast();
        let counter = Raw::of(&raw mut objects.count);
        let bench = Bench::new();
        bench.run(|| {
            ke_initialize_timer_ex(timer, 0);
            ke_initialize_dpc(dpc, count as *const () as usize, counter.address());
            body(timer, dpc, counter);
            ke_cancel_timer(timer);
            ke_flush_queued_dpcs();
        })
    }

    fn wait(timer: Raw<KTIMER>, milliseconds: i64) -> NtStatus {
        let mut timeout = -milliseconds * 10_000;
        wait_for(&Call::enter(), timer.cast(), Raw::of(&raw mut timeout))
    }

    #[test]
    fn a_timer_is_signalled_when_it_is_due_and_runs_its_dpc() {
        conforms!("wdm/nf-wdm-kesettimer.md", "The timer is signalled and its DPC queued when the due time has come.");
        with(|timer, dpc, counter| {
            assert_eq!(ke_set_timer(timer, -50_000, dpc.address()), 0);
            assert_eq!(ke_read_state_timer(timer), 0);
            assert_eq!(wait(timer, 5000), NtStatus::SUCCESS);
            std::thread::sleep(Duration::from_millis(20));
            ke_flush_queued_dpcs();
            assert_eq!(counter.read(), 1);
        })
        .unwrap();
    }

    #[test]
    fn a_cancelled_timer_is_not_signalled() {
        conforms!("wdm/nf-wdm-kecanceltimer.md", "TRUE is returned when the timer was set; it does not expire then.");
        with(|timer, _, _| {
            ke_set_timer(timer, -200_000, 0);
            assert_eq!(ke_set_timer(timer, -200_000, 0), 1, "it was set");
            assert_eq!((ke_cancel_timer(timer), ke_cancel_timer(timer)), (1, 0));
            assert_eq!(wait(timer, 40), NtStatus::TIMEOUT);
        })
        .unwrap();
    }

    #[test]
    fn a_periodic_timer_runs_its_dpc_again_and_again() {
        conforms!("wdm/nf-wdm-kesettimerex.md", "A periodic timer is set again by itself, its period in milliseconds.");
        with(|timer, dpc, counter| {
            ke_set_timer_ex(timer, -10_000, 2, dpc.address());
            let deadline = std::time::Instant::now() + Duration::from_secs(5);
            while counter.read() < 3 && std::time::Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(2));
            }
            assert!(counter.read() >= 3);
        })
        .unwrap();
    }

    #[test]
    fn a_queued_dpc_runs_at_dispatch_level_with_its_arguments() {
        conforms!(
            "wdm/nf-wdm-keinsertqueuedpc.md",
            "The routine runs at DISPATCH_LEVEL with the two arguments; FALSE is returned while it is queued already."
        );
        with(|_, dpc, counter| {
            assert_eq!(ke_insert_queue_dpc(dpc, 5, 0), 1);
            ke_flush_queued_dpcs();
            assert_eq!(counter.read(), 5);
        })
        .unwrap();
    }

    #[test]
    fn a_timer_that_is_set_cannot_be_initialised_again() {
        conforms!("wdm/nf-wdm-keinitializetimerex.md", "A timer is not initialised anew while it is set.");
        let stopped = with(|timer, _, _| {
            ke_set_timer(timer, -100_000_000, 0);
            ke_initialize_timer(timer);
        });
        assert_eq!(stopped.unwrap_err().0.rule, Rule::BadState);
    }

    #[test]
    fn memory_that_is_no_timer_or_dpc_is_found() {
        let mut objects = objects();
        let timer = Raw::of(&raw mut objects.timer);
        timer.cast::<u8>().write(0x77);
        assert!(Bench::new().run(|| ke_set_timer(timer.cast(), -1, 0)).is_err());
        assert!(Bench::new().run(|| ke_insert_queue_dpc(timer.cast(), 0, 0)).is_err());
    }
}
