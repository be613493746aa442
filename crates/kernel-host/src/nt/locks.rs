//! Spin locks, fast mutexes, push locks and rundown protection.
//!
//! A lock word holds the owning thread while it is held exclusively, so that recursion and a release by the wrong thread
//! are seen at the call, instead of as a hang.

use std::sync::atomic::Ordering;

use nt_types::{APC_LEVEL, DISPATCH_LEVEL};

use super::dispatcher::word;
use super::irql::{lower, normal_apcs_disabled, raise};
use super::raw::Raw;
use crate::ddi::{Call, exports};
use crate::finding::Rule;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    KeInitializeSpinLock(max 31) = ke_initialize_spin_lock;
    KeAcquireSpinLockRaiseToDpc(max 2) = ke_acquire_spin_lock_raise_to_dpc;
    KeReleaseSpinLock(max 2) = ke_release_spin_lock;
    KeAcquireSpinLockAtDpcLevel(max 15) = ke_acquire_spin_lock_at_dpc_level;
    KeReleaseSpinLockFromDpcLevel(max 15) = ke_release_spin_lock_from_dpc_level;
    KeTryToAcquireSpinLockAtDpcLevel(max 2) = ke_try_to_acquire_spin_lock_at_dpc_level;
    ExAcquireFastMutex(max 1) = ex_acquire_fast_mutex;
    ExTryToAcquireFastMutex(max 1) = ex_try_to_acquire_fast_mutex;
    ExReleaseFastMutex(max 1) = ex_release_fast_mutex;
    ExInitializePushLock(max 1) = ke_initialize_spin_lock;
    ExAcquirePushLockExclusiveEx(max 1) = ex_acquire_push_lock_exclusive;
    ExAcquirePushLockSharedEx(max 1) = ex_acquire_push_lock_shared;
    ExReleasePushLockExclusiveEx(max 1) = ex_release_push_lock_exclusive;
    ExReleasePushLockSharedEx(max 1) = ex_release_push_lock_shared;
    ExfAcquirePushLockExclusive(max 1) = exf_acquire_push_lock_exclusive;
    ExfAcquirePushLockShared(max 1) = exf_acquire_push_lock_shared;
    ExfReleasePushLockExclusive(max 1) = exf_release_push_lock_exclusive;
    ExfReleasePushLockShared(max 1) = exf_release_push_lock_shared;
    ExInitializeRundownProtection(max 1) = ke_initialize_spin_lock;
    ExAcquireRundownProtection(max 2) = ex_acquire_rundown_protection;
    ExReleaseRundownProtection(max 2) = ex_release_rundown_protection;
    ExWaitForRundownProtectionRelease(max 1) = ex_wait_for_rundown_protection_release;
    ExRundownCompleted(max 1) = ex_rundown_completed;
    ExReInitializeRundownProtection(max 1) = ke_initialize_spin_lock;
}

extern "efiapi" fn ke_initialize_spin_lock(lock: Raw<usize>) {
    let _call = Call::enter();
    lock.write(0);
}

fn me(call: &Call) -> usize {
    call.thread().object().addr()
}

/// Takes a word that is 0 when free; true when it was.
fn try_own(call: &Call, lock: Raw<usize>) -> bool {
    word(lock).compare_exchange(0, me(call), Ordering::AcqRel, Ordering::Acquire).is_ok()
}

/// Waits for a spin lock. The holder may be preempted by Linux, so that after a while spinning gives way to sleeping.
fn own(call: &Call, lock: Raw<usize>) {
    if word(lock).load(Ordering::Acquire) == me(call) {
        call.stop(Rule::Deadlock, format!("this thread holds the lock {lock:?} already"));
    }
    for _ in 0..100 {
        if try_own(call, lock) {
            return;
        }
        std::thread::yield_now();
    }
    call.machine().nt.dispatcher().wait(call, None, || try_own(call, lock));
}

fn disown(call: &Call, lock: Raw<usize>) {
    let released = word(lock).compare_exchange(me(call), 0, Ordering::AcqRel, Ordering::Acquire);
    if let Err(owner) = released {
        call.stop(Rule::BadState, format!("the lock {lock:?} is not held by this thread (owner {owner:#x})"));
    }
    call.machine().nt.dispatcher().wake();
}

fn check_dispatch(call: &Call) {
    if call.thread().irql() < DISPATCH_LEVEL {
        call.stop(Rule::BadState, format!("IRQL {}; this needs DISPATCH_LEVEL", call.thread().irql()));
    }
}

extern "efiapi" fn ke_acquire_spin_lock_raise_to_dpc(lock: Raw<usize>) -> u8 {
    let call = Call::enter();
    let before = raise(&call, DISPATCH_LEVEL);
    own(&call, lock);
    before
}

extern "efiapi" fn ke_release_spin_lock(lock: Raw<usize>, irql: u8) {
    let call = Call::enter();
    check_dispatch(&call);
    disown(&call, lock);
    lower(&call, irql);
}

extern "efiapi" fn ke_acquire_spin_lock_at_dpc_level(lock: Raw<usize>) {
    let call = Call::enter();
    check_dispatch(&call);
    own(&call, lock);
}

extern "efiapi" fn ke_release_spin_lock_from_dpc_level(lock: Raw<usize>) {
    let call = Call::enter();
    check_dispatch(&call);
    disown(&call, lock);
}

extern "efiapi" fn ke_try_to_acquire_spin_lock_at_dpc_level(lock: Raw<usize>) -> u8 {
    let call = Call::enter();
    check_dispatch(&call);
    u8::from(try_own(&call, lock))
}

/// `FAST_MUTEX`: the fields that the header's inline initialiser sets.
const FAST_MUTEX_OWNER: usize = 8;
const FAST_MUTEX_OLD_IRQL: usize = 48;

extern "efiapi" fn ex_acquire_fast_mutex(mutex: Raw<u8>) {
    let call = Call::enter();
    let owner = mutex.field(FAST_MUTEX_OWNER);
    if word(owner).load(Ordering::Acquire) == me(&call) {
        call.stop(Rule::Deadlock, format!("this thread holds the fast mutex {mutex:?} already"));
    }
    let before = raise(&call, APC_LEVEL);
    call.machine().nt.dispatcher().wait(&call, None, || try_own(&call, owner));
    mutex.field::<i32>(0).write(0);
    mutex.field::<u32>(FAST_MUTEX_OLD_IRQL).write(u32::from(before));
}

extern "efiapi" fn ex_try_to_acquire_fast_mutex(mutex: Raw<u8>) -> u8 {
    let call = Call::enter();
    if !try_own(&call, mutex.field(FAST_MUTEX_OWNER)) {
        return 0;
    }
    let before = raise(&call, APC_LEVEL);
    mutex.field::<i32>(0).write(0);
    mutex.field::<u32>(FAST_MUTEX_OLD_IRQL).write(u32::from(before));
    1
}

extern "efiapi" fn ex_release_fast_mutex(mutex: Raw<u8>) {
    let call = Call::enter();
    if call.thread().irql() != APC_LEVEL {
        call.stop(
            Rule::BadState,
            format!("a fast mutex is released at IRQL {}, not at APC_LEVEL", call.thread().irql()),
        );
    }
    let before = mutex.field::<u32>(FAST_MUTEX_OLD_IRQL).read() as u8;
    mutex.field::<i32>(0).write(1);
    disown(&call, mutex.field(FAST_MUTEX_OWNER));
    lower(&call, before);
}

/// Set in a push lock or rundown word that counts shared holders; the count is above it. Owners are 16-aligned addresses.
const SHARED: usize = 1;
const ONE_SHARED: usize = 2;

extern "efiapi" fn ex_acquire_push_lock_exclusive(lock: Raw<usize>, _flags: u32) {
    acquire_push_lock(&Call::enter(), lock, true);
}

extern "efiapi" fn ex_acquire_push_lock_shared(lock: Raw<usize>, _flags: u32) {
    acquire_push_lock(&Call::enter(), lock, false);
}

extern "efiapi" fn ex_release_push_lock_exclusive(lock: Raw<usize>, _flags: u32) {
    release_push_lock(&Call::enter(), lock, true);
}

extern "efiapi" fn ex_release_push_lock_shared(lock: Raw<usize>, _flags: u32) {
    release_push_lock(&Call::enter(), lock, false);
}

extern "efiapi" fn exf_acquire_push_lock_exclusive(lock: Raw<usize>) {
    acquire_push_lock(&Call::enter(), lock, true);
}

extern "efiapi" fn exf_acquire_push_lock_shared(lock: Raw<usize>) {
    acquire_push_lock(&Call::enter(), lock, false);
}

extern "efiapi" fn exf_release_push_lock_exclusive(lock: Raw<usize>) {
    release_push_lock(&Call::enter(), lock, true);
}

extern "efiapi" fn exf_release_push_lock_shared(lock: Raw<usize>) {
    release_push_lock(&Call::enter(), lock, false);
}

/// Acquires a push lock. Stops when normal kernel APCs are on, or on recursion.
pub(crate) fn acquire_push_lock(call: &Call, lock: Raw<usize>, exclusive: bool) {
    if !normal_apcs_disabled(call) {
        call.stop(Rule::BadState, "a push lock needs normal kernel APCs disabled: enter a critical region first");
    }
    if word(lock).load(Ordering::Acquire) == me(call) {
        call.stop(Rule::Deadlock, format!("this thread holds the push lock {lock:?} already"));
    }
    let share = |value: usize| match value {
        0 => Some(SHARED + ONE_SHARED),
        value if value & SHARED != 0 => Some(value + ONE_SHARED),
        _ => None,
    };
    call.machine().nt.dispatcher().wait(call, None, || {
        if exclusive {
            try_own(call, lock)
        } else {
            word(lock).fetch_update(Ordering::AcqRel, Ordering::Acquire, share).is_ok()
        }
    });
}

/// Releases a push lock. Stops when it is not held that way.
pub(crate) fn release_push_lock(call: &Call, lock: Raw<usize>, exclusive: bool) {
    if exclusive {
        return disown(call, lock);
    }
    let unshare = |value: usize| match value {
        value if value == SHARED + ONE_SHARED => Some(0),
        value if value & SHARED != 0 => Some(value - ONE_SHARED),
        _ => None,
    };
    if word(lock).fetch_update(Ordering::AcqRel, Ordering::Acquire, unshare).is_err() {
        call.stop(Rule::BadState, format!("the push lock {lock:?} is not held shared"));
    }
    call.machine().nt.dispatcher().wake();
}

/// Set in an `EX_RUNDOWN_REF` once rundown has begun; the count of holders is above it.
const RUNDOWN_ACTIVE: usize = 1;
const ONE_HOLDER: usize = 2;

extern "efiapi" fn ex_acquire_rundown_protection(rundown: Raw<usize>) -> u8 {
    let _call = Call::enter();
    let more = |value: usize| (value & RUNDOWN_ACTIVE == 0).then(|| value + ONE_HOLDER);
    u8::from(word(rundown).fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok())
}

extern "efiapi" fn ex_release_rundown_protection(rundown: Raw<usize>) {
    let call = Call::enter();
    let less = |value: usize| value.checked_sub(ONE_HOLDER);
    if word(rundown).fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_err() {
        call.stop(Rule::BadState, format!("the rundown protection {rundown:?} is not held"));
    }
    call.machine().nt.dispatcher().wake();
}

extern "efiapi" fn ex_wait_for_rundown_protection_release(rundown: Raw<usize>) {
    let call = Call::enter();
    word(rundown).fetch_or(RUNDOWN_ACTIVE, Ordering::AcqRel);
    let released = || word(rundown).load(Ordering::Acquire) == RUNDOWN_ACTIVE;
    call.machine().nt.dispatcher().wait(&call, None, released);
}

extern "efiapi" fn ex_rundown_completed(rundown: Raw<usize>) {
    let _call = Call::enter();
    word(rundown).store(RUNDOWN_ACTIVE, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ddi::testing::Bench;
    use crate::thread::Thread;
    use std::time::Duration;

    fn works(body: impl FnOnce(Raw<usize>)) {
        let mut object = [0_usize; 8];
        let raw = Raw::of(&raw mut object).cast();
        Bench::new().run(|| body(raw)).expect("no rule is broken");
    }

    fn broken(body: impl FnOnce(Raw<usize>)) -> Rule {
        let mut object = [0_usize; 8];
        let raw = Raw::of(&raw mut object).cast();
        let bench = Bench::new();
        bench.machine().set_deadlock_time(Duration::from_millis(50));
        bench.run(|| body(raw)).expect_err("a rule is broken").0.rule
    }

    #[test]
    fn a_spin_lock_raises_to_dispatch_level_and_back() {
        works(|lock| {
            let before = ke_acquire_spin_lock_raise_to_dpc(lock);
            assert_eq!((before, Thread::current().irql()), (0, 2));
            ke_release_spin_lock(lock, before);
            assert_eq!(Thread::current().irql(), 0);
        });
    }

    #[test]
    fn a_spin_lock_is_not_recursive() {
        let rule = broken(|lock| {
            ke_acquire_spin_lock_raise_to_dpc(lock);
            ke_acquire_spin_lock_at_dpc_level(lock);
        });
        assert_eq!(rule, Rule::Deadlock);
    }

    #[test]
    fn a_spin_lock_that_is_not_held_cannot_be_released() {
        let rule = broken(|lock| {
            Thread::current().set_irql(2);
            ke_release_spin_lock(lock, 0);
        });
        assert_eq!(rule, Rule::BadState);
    }

    #[test]
    fn the_dpc_level_forms_need_dispatch_level() {
        assert_eq!(broken(|lock| ke_acquire_spin_lock_at_dpc_level(lock)), Rule::BadState);
    }

    #[test]
    fn spin_locks_exclude_each_other_between_threads() {
        let bench = Bench::new();
        let mut lock = 0_usize;
        let mut count = 0_u64;
        let (lock, counter) = (Raw::of(&raw mut lock).address(), Raw::of(&raw mut count).address());
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    bench.run(|| {
                        for _ in 0..1000 {
                            let irql = ke_acquire_spin_lock_raise_to_dpc(Raw::at(lock));
                            let counter = Raw::<u64>::at(counter);
                            counter.write(counter.read() + 1);
                            ke_release_spin_lock(Raw::at(lock), irql);
                        }
                    })
                });
            }
        });
        assert_eq!(count, 2000);
    }

    #[test]
    fn a_fast_mutex_raises_to_apc_level_and_is_not_recursive() {
        works(|mutex| {
            ex_acquire_fast_mutex(mutex.cast());
            assert_eq!(Thread::current().irql(), 1);
            ex_release_fast_mutex(mutex.cast());
            assert_eq!(Thread::current().irql(), 0);
        });
        let rule = broken(|mutex| {
            ex_acquire_fast_mutex(mutex.cast());
            ex_acquire_fast_mutex(mutex.cast());
        });
        assert_eq!(rule, Rule::Deadlock);
    }

    #[test]
    fn a_push_lock_needs_a_critical_region() {
        assert_eq!(broken(|lock| exf_acquire_push_lock_exclusive(lock)), Rule::BadState);
    }

    #[test]
    fn a_push_lock_is_shared_by_many_or_held_by_one() {
        let region = |count| Thread::current().set_critical_regions(count);
        works(|lock| {
            region(1);
            exf_acquire_push_lock_shared(lock);
            exf_acquire_push_lock_shared(lock);
            exf_release_push_lock_shared(lock);
            exf_release_push_lock_shared(lock);
            exf_acquire_push_lock_exclusive(lock);
            exf_release_push_lock_exclusive(lock);
            assert_eq!(lock.read(), 0);
            region(0);
        });
        let rule = broken(|lock| {
            region(1);
            exf_acquire_push_lock_exclusive(lock);
            exf_acquire_push_lock_exclusive(lock);
        });
        assert_eq!(rule, Rule::Deadlock);
        let rule = broken(|lock| {
            region(1);
            exf_release_push_lock_shared(lock);
        });
        assert_eq!(rule, Rule::BadState);
    }

    #[test]
    fn after_rundown_nobody_gets_protection() {
        works(|rundown| {
            assert_eq!(ex_acquire_rundown_protection(rundown), 1);
            ex_release_rundown_protection(rundown);
            ex_wait_for_rundown_protection_release(rundown);
            assert_eq!(ex_acquire_rundown_protection(rundown), 0);
        });
    }

    #[test]
    fn rundown_waits_for_the_holders() {
        let rule = broken(|rundown| {
            ex_acquire_rundown_protection(rundown);
            ex_wait_for_rundown_protection_release(rundown);
        });
        assert_eq!(rule, Rule::Deadlock);
    }
}
