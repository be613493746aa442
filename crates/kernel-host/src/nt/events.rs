//! Events, mutexes and semaphores.

use std::sync::atomic::Ordering;

use nt_types::{DISPATCHER_HEADER, NtStatus};

use super::dispatcher::{Kind, initialise, state};
use super::raw::Raw;
use super::wait::{release_mutant, wait_for};
use crate::ddi::{Call, exports};
use crate::finding::Rule;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    KeInitializeEvent(max 31) = ke_initialize_event;
    KeSetEvent(max 2) = ke_set_event;
    KeClearEvent(max 2) = ke_clear_event;
    KePulseEvent(max 2) = ke_pulse_event;
    KeResetEvent(max 2) = ke_reset_event;
    KeReadStateEvent(max 2) = ke_read_state;
    KeInitializeMutex(max 31) = ke_initialize_mutex;
    KeReleaseMutex(max 2) = ke_release_mutex;
    KeReadStateMutex(max 2) = ke_read_state;
    KeInitializeMutant(max 2) = ke_initialize_mutant;
    KeReleaseMutant(max 2) = ke_release_mutant;
    KeReadStateMutant(max 2) = ke_read_state;
    KeInitializeSemaphore(max 0) = ke_initialize_semaphore;
    KeReleaseSemaphore(max 2) = ke_release_semaphore;
    KeReadStateSemaphore(max 31) = ke_read_state;
}

/// Bytes of a `KEVENT`.
const EVENT_LENGTH: usize = 24;
/// Bytes of a `KMUTANT`.
const MUTANT_LENGTH: usize = 56;
/// Bytes of a `KSEMAPHORE`.
const SEMAPHORE_LENGTH: usize = 32;
/// Field `Limit` of a `KSEMAPHORE`.
const SEMAPHORE_LIMIT: usize = 24;

pub(super) extern "efiapi" fn ke_initialize_event(event: Raw<DISPATCHER_HEADER>, kind: i32, signalled: u8) {
    let call = Call::enter();
    let kind = match kind {
        0 => Kind::NotificationEvent,
        1 => Kind::SynchronizationEvent,
        other => call.stop(Rule::BadArgument, format!("event type {other}")),
    };
    initialise(event, kind, EVENT_LENGTH, i32::from(signalled != 0));
}

/// Stops unless `event` is an initialised event.
fn check_event(call: &Call, event: Raw<DISPATCHER_HEADER>) {
    let kind = Kind::of(call, event);
    if !matches!(kind, Kind::NotificationEvent | Kind::SynchronizationEvent) {
        call.stop(Rule::BadArgument, format!("{event:?} is no event but a {kind:?}"));
    }
}

extern "efiapi" fn ke_set_event(event: Raw<DISPATCHER_HEADER>, _increment: i32, wait: u8) -> i32 {
    let call = Call::enter();
    check_event(&call, event);
    // The page: with Wait TRUE a wait follows at once, so the limits of waits apply.
    if wait != 0 && call.thread().irql() > nt_types::APC_LEVEL {
        call.stop(Rule::IrqlTooHigh, "KeSetEvent with Wait TRUE above APC_LEVEL");
    }
    set(&call, event)
}

/// Signals an event for the I/O manager and other host code; the state before.
pub(crate) fn set(call: &Call, event: Raw<DISPATCHER_HEADER>) -> i32 {
    let before = state(event).swap(1, Ordering::AcqRel);
    call.machine().nt.dispatcher().wake();
    before
}

/// Long enough for those who wait to see the state.
const PULSE: std::time::Duration = std::time::Duration::from_millis(30);

extern "efiapi" fn ke_pulse_event(event: Raw<DISPATCHER_HEADER>, _increment: i32, wait: u8) -> i32 {
    let call = Call::enter();
    check_event(&call, event);
    if wait != 0 && call.thread().irql() > nt_types::APC_LEVEL {
        call.stop(Rule::IrqlTooHigh, "KePulseEvent with Wait TRUE above APC_LEVEL");
    }
    let before = set(&call, event);
    std::thread::sleep(PULSE);
    state(event).store(0, Ordering::Release);
    before
}

extern "efiapi" fn ke_clear_event(event: Raw<DISPATCHER_HEADER>) {
    let call = Call::enter();
    check_event(&call, event);
    state(event).store(0, Ordering::Release);
}

extern "efiapi" fn ke_reset_event(event: Raw<DISPATCHER_HEADER>) -> i32 {
    let call = Call::enter();
    check_event(&call, event);
    state(event).swap(0, Ordering::AcqRel)
}

extern "efiapi" fn ke_read_state(object: Raw<DISPATCHER_HEADER>) -> i32 {
    let call = Call::enter();
    Kind::of(&call, object);
    state(object).load(Ordering::Acquire)
}

extern "efiapi" fn ke_initialize_mutex(mutex: Raw<DISPATCHER_HEADER>, _level: u32) {
    let _call = Call::enter();
    mutex.cast::<u8>().fill(0, MUTANT_LENGTH);
    initialise(mutex, Kind::Mutant, MUTANT_LENGTH, 1);
}

extern "efiapi" fn ke_release_mutex(mutex: Raw<DISPATCHER_HEADER>, _wait: u8) -> i32 {
    let call = Call::enter();
    if Kind::of(&call, mutex) != Kind::Mutant {
        call.stop(Rule::BadArgument, format!("{mutex:?} is no mutex"));
    }
    release_mutant(&call, mutex)
}

/// Reserved by its page: a mutex that may be owned from the start (general knowledge).
extern "efiapi" fn ke_initialize_mutant(mutant: Raw<DISPATCHER_HEADER>, owned: u8) {
    let call = Call::enter();
    mutant.cast::<u8>().fill(0, MUTANT_LENGTH);
    initialise(mutant, Kind::Mutant, MUTANT_LENGTH, 1);
    if owned != 0 {
        let mut zero = 0;
        // It is free, so that the wait is over at once.
        let _ = wait_for(&call, mutant, Raw::of(&raw mut zero));
    }
}

/// Reserved by its page, as above. An abandoned one is free whoever owned it, and however often.
extern "efiapi" fn ke_release_mutant(mutant: Raw<DISPATCHER_HEADER>, _increment: i32, abandoned: u8, _wait: u8) -> i32 {
    let call = Call::enter();
    if Kind::of(&call, mutant) != Kind::Mutant {
        call.stop(Rule::BadArgument, format!("{mutant:?} is no mutant"));
    }
    if abandoned == 0 {
        return release_mutant(&call, mutant);
    }
    let before = state(mutant).load(Ordering::Acquire);
    while state(mutant).load(Ordering::Acquire) < 1 {
        release_mutant(&call, mutant);
    }
    before
}

extern "efiapi" fn ke_initialize_semaphore(semaphore: Raw<DISPATCHER_HEADER>, count: i32, limit: i32) {
    let call = Call::enter();
    if limit <= 0 || !(0..=limit).contains(&count) {
        call.stop(Rule::BadArgument, format!("a semaphore with count {count} and limit {limit}"));
    }
    initialise(semaphore, Kind::Semaphore, SEMAPHORE_LENGTH, count);
    semaphore.field::<i32>(SEMAPHORE_LIMIT).write(limit);
}

extern "efiapi" fn ke_release_semaphore(
    semaphore: Raw<DISPATCHER_HEADER>,
    _increment: i32,
    adjustment: i32,
    wait: u8,
) -> i32 {
    let call = Call::enter();
    if Kind::of(&call, semaphore) != Kind::Semaphore {
        call.stop(Rule::BadArgument, format!("{semaphore:?} is no semaphore"));
    }
    if wait != 0 && call.thread().irql() > nt_types::APC_LEVEL {
        call.stop(Rule::IrqlTooHigh, "KeReleaseSemaphore with Wait TRUE above APC_LEVEL");
    }
    let limit = semaphore.field::<i32>(SEMAPHORE_LIMIT).read();
    let before = state(semaphore).fetch_add(adjustment, Ordering::AcqRel);
    if adjustment <= 0 || before.checked_add(adjustment).is_none_or(|count| count > limit) {
        // Windows raises STATUS_SEMAPHORE_LIMIT_EXCEEDED, which drivers do not expect.
        let status = NtStatus::INVALID_PARAMETER;
        call.stop(
            Rule::BadArgument,
            format!("a semaphore at {before} of {limit} is raised by {adjustment} ({status:?})"),
        );
    }
    call.machine().nt.dispatcher().wake();
    before
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;
    use crate::thread::Thread;
    use std::time::{Duration, Instant};

    type Object = [u64; 8];

    /// Waits for the object for `hundred_ns` (relative).
    fn wait(object: Raw<DISPATCHER_HEADER>, hundred_ns: i64) -> NtStatus {
        let mut timeout = -hundred_ns;
        wait_for(&Call::enter(), object, Raw::of(&raw mut timeout))
    }

    fn works(body: impl FnOnce(Raw<DISPATCHER_HEADER>)) {
        let mut object: Object = [0; 8];
        let raw = Raw::of(&raw mut object).cast();
        Bench::new().run(|| body(raw)).expect("no rule is broken");
    }

    fn broken(body: impl FnOnce(Raw<DISPATCHER_HEADER>)) -> Rule {
        let mut object: Object = [0; 8];
        let raw = Raw::of(&raw mut object).cast();
        let bench = Bench::new();
        bench.machine().set_deadlock_time(Duration::from_millis(50));
        bench.run(|| body(raw)).expect_err("a rule is broken").0.rule
    }

    #[test]
    fn a_notification_event_stays_signalled_until_it_is_reset() {
        conforms!(
            "wdm/nf-wdm-keresetevent.md",
            "The event is not signalled afterwards, and its previous state is returned."
        );
        conforms!("wdm/nf-wdm-kesetevent.md", "The previous state is returned; a notification event stays signalled.");
        works(|event| {
            ke_initialize_event(event, 0, 0);
            assert_eq!(wait(event, 0), NtStatus::TIMEOUT);
            assert_eq!(ke_set_event(event, 0, 0), 0);
            assert_eq!(wait(event, 0), NtStatus::SUCCESS);
            assert_eq!(wait(event, 0), NtStatus::SUCCESS);
            assert_eq!(ke_reset_event(event), 1);
            assert_eq!(ke_read_state(event), 0);
        });
    }

    #[test]
    fn a_synchronization_event_releases_one_wait() {
        conforms!("wdm/nf-wdm-keinitializeevent.md", "A synchronization event is reset by the wait that it satisfies.");
        works(|event| {
            ke_initialize_event(event, 1, 1);
            assert_eq!(wait(event, 0), NtStatus::SUCCESS);
            assert_eq!(wait(event, 0), NtStatus::TIMEOUT);
        });
    }

    #[test]
    fn a_relative_time_out_is_in_100_nanoseconds() {
        conforms!(
            "wdm/nf-wdm-kewaitforsingleobject.md",
            "A negative time-out is relative, in units of 100 ns; STATUS_TIMEOUT is returned when it ends the wait."
        );
        works(|event| {
            ke_initialize_event(event, 0, 0);
            let started = Instant::now();
            assert_eq!(wait(event, 300_000), NtStatus::TIMEOUT);
            assert!((30..3000).contains(&started.elapsed().as_millis()));
        });
    }

    #[test]
    fn an_absolute_time_that_has_passed_does_not_wait() {
        conforms!("wdm/nf-wdm-kewaitforsingleobject.md", "A positive time-out is an absolute system time.");
        works(|event| {
            ke_initialize_event(event, 0, 0);
            let mut timeout = crate::nt::time::system_time() - 10;
            let status = wait_for(&Call::enter(), event, Raw::of(&raw mut timeout));
            assert_eq!(status, NtStatus::TIMEOUT);
        });
    }

    #[test]
    fn a_wait_ends_when_another_thread_sets_the_event() {
        conforms!("wdm/nf-wdm-kesetevent.md", "A thread that waits for the event is released.");
        let bench = Bench::new();
        let mut object: Object = [0; 8];
        let event: Raw<DISPATCHER_HEADER> = Raw::of(&raw mut object).cast();
        bench.run(|| ke_initialize_event(event, 1, 0)).unwrap();
        let address = event.address();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                bench.run(|| ke_set_event(Raw::at(address), 0, 0)).unwrap();
            });
            let status = bench.run(|| wait_for(&Call::enter(), Raw::at(address), Raw::NULL));
            assert_eq!(status.unwrap(), NtStatus::SUCCESS);
        });
    }

    #[test]
    fn a_pulse_releases_who_waits_and_leaves_the_event_unsignalled() {
        conforms!(
            "ntddk/nf-ntddk-kepulseevent.md",
            "Threads that wait are released, and the event is not signalled afterwards."
        );
        let bench = Bench::new();
        let mut object: Object = [0; 8];
        let event: Raw<DISPATCHER_HEADER> = Raw::of(&raw mut object).cast();
        bench.run(|| ke_initialize_event(event, 0, 0)).unwrap();
        let address = event.address();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                bench.run(|| ke_pulse_event(Raw::at(address), 0, 0)).unwrap();
            });
            let status = bench.run(|| wait_for(&Call::enter(), Raw::at(address), Raw::NULL));
            assert_eq!(status.unwrap(), NtStatus::SUCCESS);
        });
        assert_eq!(bench.run(|| ke_read_state(event)).unwrap(), 0);
    }

    #[test]
    fn a_wait_at_dispatch_level_may_only_look() {
        conforms!("wdm/nf-wdm-kewaitforsingleobject.md", "At DISPATCH_LEVEL the time-out has to be zero.");
        works(|event| {
            ke_initialize_event(event, 0, 0);
            Thread::current().set_irql(2);
            assert_eq!(wait(event, 0), NtStatus::TIMEOUT);
            Thread::current().set_irql(0);
        });
        let rule = broken(|event| {
            ke_initialize_event(event, 0, 0);
            Thread::current().set_irql(2);
            let _ = wait(event, 1);
        });
        assert_eq!(rule, Rule::IrqlTooHigh);
    }

    #[test]
    fn a_wait_that_nothing_ends_is_a_deadlock() {
        let rule = broken(|event| {
            ke_initialize_event(event, 0, 0);
            let _ = wait_for(&Call::enter(), event, Raw::NULL);
        });
        assert_eq!(rule, Rule::Deadlock);
    }

    #[test]
    fn memory_that_is_no_event_is_found() {
        let rule = broken(|event| {
            event.cast::<u8>().write(0x77);
            ke_set_event(event, 0, 0);
        });
        assert_eq!(rule, Rule::BadArgument);
    }

    #[test]
    fn a_mutex_is_recursive_and_released_by_its_owner_only() {
        conforms!("wdm/nf-wdm-kereleasemutex.md", "The mutex is released by the thread that owns it.");
        works(|mutex| {
            ke_initialize_mutex(mutex, 0);
            assert_eq!(wait(mutex, 0), NtStatus::SUCCESS);
            assert_eq!(wait(mutex, 0), NtStatus::SUCCESS);
            ke_release_mutex(mutex, 0);
            ke_release_mutex(mutex, 0);
            assert_eq!(ke_read_state(mutex), 1);
        });
        let rule = broken(|mutex| {
            ke_initialize_mutex(mutex, 0);
            ke_release_mutex(mutex, 0);
        });
        assert_eq!(rule, Rule::BadState);
    }

    #[test]
    fn a_semaphore_counts_down_with_each_wait_and_not_above_its_limit() {
        conforms!(
            "wdm/nf-wdm-kereleasesemaphore.md",
            "The count does not go above the limit; the previous count is returned."
        );
        works(|semaphore| {
            ke_initialize_semaphore(semaphore, 0, 2);
            assert_eq!(ke_release_semaphore(semaphore, 0, 2, 0), 0);
            assert_eq!(wait(semaphore, 0), NtStatus::SUCCESS);
            assert_eq!(wait(semaphore, 0), NtStatus::SUCCESS);
            assert_eq!(wait(semaphore, 0), NtStatus::TIMEOUT);
        });
        let rule = broken(|semaphore| {
            ke_initialize_semaphore(semaphore, 1, 1);
            ke_release_semaphore(semaphore, 0, 1, 0);
        });
        assert_eq!(rule, Rule::BadArgument);
    }

    #[test]
    fn a_mutant_may_be_owned_from_the_start() {
        works(|mutant| {
            ke_initialize_mutant(mutant, 1);
            assert_eq!(ke_read_state(mutant), 0);
            assert_eq!(wait(mutant, 0), NtStatus::SUCCESS);
            assert_eq!([ke_release_mutant(mutant, 0, 0, 0), ke_release_mutant(mutant, 0, 0, 0)], [-1, 0]);
            assert_eq!(ke_read_state(mutant), 1);
            ke_initialize_mutant(mutant, 1);
            assert_eq!(wait(mutant, 0), NtStatus::SUCCESS);
            assert_eq!(ke_release_mutant(mutant, 0, 1, 0), -1);
            assert_eq!(ke_read_state(mutant), 1);
        });
        let rule = broken(|mutant| {
            ke_initialize_mutant(mutant, 0);
            ke_release_mutant(mutant, 0, 0, 0);
        });
        assert_eq!(rule, Rule::BadState);
    }

    #[test]
    fn a_queue_is_not_waited_for_like_an_event() {
        let rule = broken(|queue| {
            initialise(queue, Kind::Queue, 64, 0);
            let _ = wait(queue, 0);
        });
        assert_eq!(rule, Rule::BadArgument);
    }
}
