//! `EX_TIMER`: timers that the system allocates.
//!
//! One is a page of its own with an ordinary timer and its DPC, so that what is done with a deleted timer faults.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nt_types::{KDPC, KTIMER};

use super::arena::Access;
use super::dispatcher::{Kind, state};
use super::raw::Raw;
use super::timers::{cancel_timer, flush_dpcs, initialise_dpc, initialise_timer, set_timer_for};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::leak::{Leak, LeakKind};
use crate::machine::Driver;
use crate::origin::Origin;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    ExAllocateTimer(max 2, fails NULL) = ex_allocate_timer;
    ExSetTimer(max 2) = ex_set_timer;
    ExCancelTimer(max 2) = ex_cancel_timer;
    ExDeleteTimer(max 2) = ex_delete_timer;
}

/// Attributes: `EX_TIMER_HIGH_RESOLUTION`, `EX_TIMER_NO_WAKE`, `EX_TIMER_NOTIFICATION`.
const HIGH_RESOLUTION: u32 = 4;
const NO_WAKE: u32 = 8;
const NOTIFICATION: u32 = 0x8000_0000;

/// Places in the page.
const DPC: usize = 64;
const CALLBACK: usize = 128;
const CONTEXT: usize = 136;

/// Timers that are allocated, by address.
#[derive(Debug, Default)]
pub(crate) struct ExTimers(Mutex<HashMap<usize, (Arc<Driver>, Origin)>>);

impl ExTimers {
    fn lock(&self) -> MutexGuard<'_, HashMap<usize, (Arc<Driver>, Origin)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Timers that `driver` has not deleted.
    pub(crate) fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let timers = self.lock();
        let mine = timers.iter().filter(|(_, (owner, _))| std::ptr::eq(Arc::as_ptr(owner), driver));
        let leak = |(address, (_, site)): (&usize, &(Arc<Driver>, Origin))| Leak {
            kind: LeakKind::Execution,
            count: 1,
            bytes: 0,
            detail: format!("the timer {address:#x} was not deleted (allocated from {site})"),
        };
        mine.map(leak).collect()
    }
}

/// The DPC of all these timers: calls the driver's `ExTimerCallback`.
extern "efiapi" fn expired(_dpc: usize, timer: Raw<u8>, _first: usize, _second: usize) {
    type Callback = unsafe extern "efiapi" fn(usize, usize);
    let callback = timer.field::<usize>(CALLBACK).read();
    // SAFETY: the driver gave the address of its EXT_CALLBACK.
    let callback = unsafe { std::mem::transmute::<usize, Callback>(callback) };
    // SAFETY: it gets the timer and its context, at DISPATCH_LEVEL, in the DPC that calls this.
    unsafe { callback(timer.address(), timer.field::<usize>(CONTEXT).read()) };
}

extern "efiapi" fn ex_allocate_timer(callback: usize, context: usize, attributes: u32) -> Raw<u8> {
    let call = Call::enter();
    if attributes & !(HIGH_RESOLUTION | NO_WAKE | NOTIFICATION) != 0
        || attributes & (HIGH_RESOLUTION | NO_WAKE) == HIGH_RESOLUTION | NO_WAKE
    {
        call.stop(Rule::BadArgument, format!("timer attributes {attributes:#x}"));
    }
    let Some(page) = call.machine().nt.arena().allocate(1, Access::ReadWrite) else { return Raw::NULL };
    let timer = Raw::<u8>::at(page);
    let kind = if attributes & NOTIFICATION != 0 { Kind::NotificationTimer } else { Kind::SynchronizationTimer };
    initialise_timer(&call, timer.cast(), kind);
    initialise_dpc(timer.field(DPC), expired as *const () as usize, page);
    timer.field::<usize>(CALLBACK).write(callback);
    timer.field::<usize>(CONTEXT).write(context);
    let owner = (Arc::clone(call.driver()), Origin::of(call.site()));
    call.machine().nt.ex_timers().lock().insert(page, owner);
    timer
}

/// Stops unless the timer is allocated.
fn check(call: &Call, timer: Raw<u8>) -> Raw<KTIMER> {
    if !call.machine().nt.ex_timers().lock().contains_key(&timer.address()) {
        call.stop(Rule::BadState, format!("{timer:?} is no timer of ExAllocateTimer, or it was deleted"));
    }
    timer.cast()
}

extern "efiapi" fn ex_set_timer(timer: Raw<u8>, due: i64, period: i64, _parameters: usize) -> u8 {
    let call = Call::enter();
    let object = check(&call, timer);
    let Ok(period) = u64::try_from(period) else {
        call.stop(Rule::BadArgument, format!("a timer with period {period}"));
    };
    let dpc: Raw<KDPC> = timer.field(DPC);
    let dpc = if timer.field::<usize>(CALLBACK).read() == 0 { 0 } else { dpc.address() };
    set_timer_for(&call, object, due, period, dpc)
}

extern "efiapi" fn ex_cancel_timer(timer: Raw<u8>, _parameters: usize) -> u8 {
    let call = Call::enter();
    let object = check(&call, timer);
    cancel_timer(&call, object)
}

extern "efiapi" fn ex_delete_timer(timer: Raw<u8>, cancel: u8, wait: u8, _parameters: usize) -> u8 {
    let call = Call::enter();
    let object = check(&call, timer);
    if wait != 0 && (cancel == 0 || call.thread().irql() > nt_types::APC_LEVEL) {
        call.stop(Rule::BadArgument, "ExDeleteTimer with Wait TRUE needs Cancel TRUE, and APC_LEVEL at most");
    }
    let cancelled = if cancel != 0 { cancel_timer(&call, object) } else { 0 };
    if cancel == 0 && call.machine().nt.timers().active_in(timer.address(), 1).is_some() {
        call.stop(Rule::BadState, format!("the timer {timer:?} is deleted with Cancel FALSE while it is set"));
    }
    if wait != 0 {
        flush_dpcs(&call);
    }
    state(timer.cast()).store(0, Ordering::Release);
    call.machine().nt.ex_timers().lock().remove(&timer.address());
    // A callback that is under way still finds the page: the system frees a timer only behind it.
    if wait != 0 {
        call.machine().nt.arena().release(timer.address(), 1);
    }
    cancelled
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;
    use crate::nt::wait::wait_for;
    use crate::thread::Thread;
    use nt_types::NtStatus;

    extern "efiapi" fn count(_timer: usize, counter: Raw<u64>) {
        assert_eq!(Thread::current().irql(), 2);
        counter.write(counter.read() + 1);
    }

    fn timer(counter: Raw<u64>, attributes: u32) -> Raw<u8> {
        ex_allocate_timer(count as *const () as usize, counter.address(), attributes)
    }

    #[test]
    fn a_timer_calls_back_at_dispatch_level_and_is_signalled() {
        conforms!(
            "wdm/nf-wdm-exsettimer.md",
            "A negative due time is relative; the callback runs and waiters are released when it expires."
        );
        conforms!("wdm/nf-wdm-exdeletetimer.md", "With Wait a callback that runs has ended when the routine returns.");
        let mut counter = Box::new(0_u64);
        let counter = Raw::of(&raw mut *counter);
        let bench = Bench::new();
        bench
            .run(|| {
                let timer = timer(counter, HIGH_RESOLUTION);
                assert_eq!(ex_set_timer(timer, -10_000, 0, 0), 0);
                let mut timeout = -50_000_000;
                let status = wait_for(&Call::enter(), timer.cast(), Raw::of(&raw mut timeout));
                assert_eq!(status, NtStatus::SUCCESS);
                ex_delete_timer(timer, 1, 1, 0);
                assert_eq!(counter.read(), 1);
            })
            .unwrap();
        assert!(bench.machine().inner().nt.ex_timers().leaks(bench.driver()).is_empty());
    }

    #[test]
    fn setting_and_cancelling_say_whether_the_timer_was_set() {
        conforms!("wdm/nf-wdm-excanceltimer.md", "TRUE is returned when a timer that was set is cancelled.");
        let mut counter = Box::new(0_u64);
        let counter = Raw::of(&raw mut *counter);
        let bench = Bench::new();
        bench
            .run(|| {
                let timer = timer(counter, 0);
                assert_eq!(ex_set_timer(timer, -100_000_000, 0, 0), 0);
                assert_eq!(ex_set_timer(timer, -100_000_000, 0, 0), 1);
                assert_eq!((ex_cancel_timer(timer, 0), ex_cancel_timer(timer, 0)), (1, 0));
            })
            .unwrap();
        assert_eq!(bench.machine().inner().nt.ex_timers().leaks(bench.driver()).len(), 1, "it was not deleted");
    }

    #[test]
    fn a_deleted_timer_cannot_be_set() {
        let stopped = Bench::new().run(|| {
            let timer = ex_allocate_timer(0, 0, 0);
            ex_delete_timer(timer, 1, 0, 0);
            ex_set_timer(timer, -1, 0, 0);
        });
        assert_eq!(stopped.unwrap_err().0.rule, Rule::BadState);
    }
}
