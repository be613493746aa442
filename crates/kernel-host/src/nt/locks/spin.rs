//! `KSPIN_LOCK`, and its in-stack queued form.

use std::sync::atomic::Ordering;

use nt_types::DISPATCH_LEVEL;

use super::order::Kind;
use super::{acquired, check_recursion, disown, initialised, try_own, waiting};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::dispatcher::word;
use crate::nt::irql::{lower, raise};
use crate::nt::raw::Raw;

exports! { pub(super) EXPORTS in "ntoskrnl.exe":
    KeInitializeSpinLock(max 31) = initialize;
    KeAcquireSpinLockRaiseToDpc(max 2) = acquire_raise_to_dpc;
    KeReleaseSpinLock(max 2) = release;
    KeAcquireSpinLockAtDpcLevel(max 15) = acquire_at_dpc_level;
    KeReleaseSpinLockFromDpcLevel(max 15) = release_from_dpc_level;
    KeAcquireSpinLockForDpc(max 2) = acquire_for_dpc;
    KeReleaseSpinLockForDpc(max 2) = release;
    KeTryToAcquireSpinLockAtDpcLevel(max 2) = try_to_acquire_at_dpc_level;
    KeTestSpinLock(max 31) = test;
    KeAcquireInStackQueuedSpinLock(max 2) = acquire_queued;
    KeReleaseInStackQueuedSpinLock(max 2) = release_queued;
    KeAcquireInStackQueuedSpinLockAtDpcLevel(max 15) = acquire_queued_at_dpc_level;
    KeReleaseInStackQueuedSpinLockFromDpcLevel(max 15) = release_queued_from_dpc_level;
    KeAcquireInStackQueuedSpinLockForDpc(max 2) = acquire_queued;
    KeReleaseInStackQueuedSpinLockForDpc(max 2) = release_queued;
}

/// Fields of a `KLOCK_QUEUE_HANDLE`.
const HANDLE_LOCK: usize = 8;
const HANDLE_OLD_IRQL: usize = 16;

extern "efiapi" fn initialize(lock: Raw<usize>) {
    reset(&Call::enter(), lock);
}

/// Makes the word a free lock; stops when it is one that is held.
pub(crate) fn reset(call: &Call, lock: Raw<usize>) {
    initialised(call, lock.address(), size_of::<usize>());
    lock.write(0);
}

/// Waits for a spin lock. The holder may be preempted by Linux, so that after a while spinning gives way to sleeping.
fn own(call: &Call, lock: Raw<usize>) {
    if lock.is_null() {
        call.stop(Rule::BadArgument, "the spin lock is NULL");
    }
    check_recursion(call, lock, "spin lock");
    let hold = waiting(call, lock.address(), Kind::SpinLock, false);
    spin(call, lock);
    acquired(call, hold);
}

fn spin(call: &Call, lock: Raw<usize>) {
    for _ in 0..100 {
        if try_own(call, lock) {
            return;
        }
        std::thread::yield_now();
    }
    call.machine().nt.dispatcher().wait(call, None, || try_own(call, lock));
}

/// Runs `body` under the lock, at whatever IRQL: what `ExInterlockedInsertHeadList` and its like do.
pub(in crate::nt) fn hold_briefly<R>(call: &Call, lock: Raw<usize>, body: impl FnOnce() -> R) -> R {
    check_recursion(call, lock, "spin lock");
    spin(call, lock);
    let result = body();
    word(lock).store(0, Ordering::Release);
    call.machine().nt.dispatcher().wake();
    result
}

fn check_dispatch(call: &Call) {
    if call.thread().irql() < DISPATCH_LEVEL {
        call.stop(Rule::BadState, format!("IRQL {}; this needs DISPATCH_LEVEL", call.thread().irql()));
    }
}

extern "efiapi" fn acquire_raise_to_dpc(lock: Raw<usize>) -> u8 {
    acquire(&Call::enter(), lock)
}

/// Raises to `DISPATCH_LEVEL` and takes the lock; the IRQL before.
pub(crate) fn acquire(call: &Call, lock: Raw<usize>) -> u8 {
    let before = raise(call, DISPATCH_LEVEL);
    own(call, lock);
    before
}

extern "efiapi" fn acquire_for_dpc(lock: Raw<usize>) -> u8 {
    // For a threaded DPC, which may run at PASSIVE_LEVEL, or an ordinary one: both end up at DISPATCH_LEVEL.
    let call = Call::enter();
    let before = raise(&call, DISPATCH_LEVEL);
    own(&call, lock);
    before
}

extern "efiapi" fn release(lock: Raw<usize>, irql: u8) {
    give_back(&Call::enter(), lock, irql);
}

/// Gives the lock back and lowers to `irql`.
pub(crate) fn give_back(call: &Call, lock: Raw<usize>, irql: u8) {
    check_dispatch(call);
    disown(call, lock, lock.address());
    lower(call, irql);
}

extern "efiapi" fn acquire_at_dpc_level(lock: Raw<usize>) {
    let call = Call::enter();
    check_dispatch(&call);
    own(&call, lock);
}

extern "efiapi" fn release_from_dpc_level(lock: Raw<usize>) {
    let call = Call::enter();
    check_dispatch(&call);
    disown(&call, lock, lock.address());
}

extern "efiapi" fn try_to_acquire_at_dpc_level(lock: Raw<usize>) -> u8 {
    let call = Call::enter();
    check_dispatch(&call);
    let owned = try_own(&call, lock);
    if owned {
        acquired(&call, super::Hold::of(&call, lock.address(), Kind::SpinLock, false));
    }
    u8::from(owned)
}

extern "efiapi" fn test(lock: Raw<usize>) -> u8 {
    let _call = Call::enter();
    u8::from(word(lock).load(Ordering::Acquire) == 0)
}

extern "efiapi" fn acquire_queued(lock: Raw<usize>, handle: Raw<u8>) {
    let call = Call::enter();
    let before = raise(&call, DISPATCH_LEVEL);
    own(&call, lock);
    handle.field::<usize>(HANDLE_LOCK).write(lock.address());
    handle.field::<u8>(HANDLE_OLD_IRQL).write(before);
}

extern "efiapi" fn acquire_queued_at_dpc_level(lock: Raw<usize>, handle: Raw<u8>) {
    let call = Call::enter();
    check_dispatch(&call);
    own(&call, lock);
    handle.field::<usize>(HANDLE_LOCK).write(lock.address());
}

extern "efiapi" fn release_queued(handle: Raw<u8>) {
    let call = Call::enter();
    check_dispatch(&call);
    let lock = handle.field::<usize>(HANDLE_LOCK).read();
    disown(&call, Raw::at(lock), lock);
    lower(&call, handle.field::<u8>(HANDLE_OLD_IRQL).read());
}

extern "efiapi" fn release_queued_from_dpc_level(handle: Raw<u8>) {
    let call = Call::enter();
    check_dispatch(&call);
    let lock = handle.field::<usize>(HANDLE_LOCK).read();
    disown(&call, Raw::at(lock), lock);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{broken, finding, works};
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;
    use crate::thread::Thread;

    #[test]
    fn a_spin_lock_raises_to_dispatch_level_and_back() {
        conforms!(
            "wdm/nf-wdm-keacquirespinlock.md",
            "Acquiring raises the IRQL to DISPATCH_LEVEL and gives the one before."
        );
        conforms!("wdm/nf-wdm-kereleasespinlock.md", "Releasing restores the IRQL that it is given.");
        works(|lock| {
            let before = acquire_raise_to_dpc(lock);
            assert_eq!((before, Thread::current().irql()), (0, 2));
            assert_eq!(test(lock), 0);
            release(lock, before);
            assert_eq!((Thread::current().irql(), test(lock)), (0, 1));
        });
    }

    #[test]
    fn a_spin_lock_is_not_recursive() {
        conforms!("wdm/nf-wdm-keacquirespinlock.md", "A spin lock must not be acquired recursively.");
        let rule = broken(|lock| {
            acquire_raise_to_dpc(lock);
            acquire_at_dpc_level(lock);
        });
        assert_eq!(rule, Rule::Deadlock);
    }

    #[test]
    fn a_spin_lock_that_is_not_held_cannot_be_released() {
        let rule = broken(|lock| {
            Thread::current().set_irql(2);
            release(lock, 0);
        });
        assert_eq!(rule, Rule::BadState);
    }

    #[test]
    fn the_dpc_level_forms_need_dispatch_level() {
        conforms!("wdm/nf-wdm-keacquirespinlockatdpclevel.md", "The caller runs at DISPATCH_LEVEL or above.");
        assert_eq!(broken(|lock| acquire_at_dpc_level(lock)), Rule::BadState);
    }

    #[test]
    fn an_attempt_says_whether_it_got_the_lock() {
        conforms!("wdm/nf-wdm-ketrytoacquirespinlockatdpclevel.md", "FALSE is returned when the lock is held already.");
        works(|lock| {
            Thread::current().set_irql(2);
            assert_eq!(try_to_acquire_at_dpc_level(lock), 1);
            assert_eq!(try_to_acquire_at_dpc_level(lock), 0);
            release_from_dpc_level(lock);
            Thread::current().set_irql(0);
        });
    }

    #[test]
    fn a_queued_spin_lock_remembers_the_irql_in_its_handle() {
        conforms!("wdm/nf-wdm-keacquireinstackqueuedspinlock.md", "Acquiring raises the IRQL to DISPATCH_LEVEL.");
        conforms!(
            "wdm/nf-wdm-kereleaseinstackqueuedspinlock.md",
            "Releasing restores the IRQL from before the acquisition."
        );
        works(|lock| {
            let handle: Raw<u8> = lock.index(2).cast();
            Thread::current().set_irql(1);
            acquire_queued(lock, handle);
            assert_eq!(Thread::current().irql(), 2);
            release_queued(handle);
            assert_eq!((Thread::current().irql(), lock.read()), (1, 0));
            Thread::current().set_irql(0);
        });
    }

    #[test]
    fn a_spin_lock_held_at_the_end_of_a_callback_is_named() {
        let finding = finding(|lock| _ = acquire_raise_to_dpc(lock));
        assert!(finding.message.contains("spin lock"), "{}", finding.message);
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
                            let irql = acquire_raise_to_dpc(Raw::at(lock));
                            let counter = Raw::<u64>::at(counter);
                            counter.write(counter.read() + 1);
                            release(Raw::at(lock), irql);
                        }
                    })
                });
            }
        });
        assert_eq!(count, 2000);
    }

    #[test]
    fn two_locks_taken_in_both_orders_are_a_potential_deadlock() {
        conforms!(
            "docs:devtest/deadlock-detection.md",
            "Locks acquired in an order that can deadlock are reported, also when nothing hangs."
        );
        let finding = finding(|first| {
            let second = first.index(1);
            let irql = acquire_raise_to_dpc(first);
            acquire_at_dpc_level(second);
            release_from_dpc_level(second);
            release(first, irql);
            acquire_raise_to_dpc(second);
            acquire_at_dpc_level(first);
        });
        assert_eq!(finding.rule, Rule::LockOrder);
        assert!(finding.message.contains("potential deadlock"), "{}", finding.message);
    }

    #[test]
    fn three_locks_in_a_circle_are_a_potential_deadlock_and_a_new_lock_starts_anew() {
        conforms!(
            "docs:devtest/deadlock-detection.md",
            "Locks that are taken in an order that can deadlock are found, also over several locks."
        );
        let pair = |first: Raw<usize>, second: Raw<usize>| {
            let irql = acquire_raise_to_dpc(first);
            acquire_at_dpc_level(second);
            release_from_dpc_level(second);
            release(first, irql);
        };
        let rule = broken(|a| {
            pair(a, a.index(1));
            pair(a.index(1), a.index(2));
            pair(a.index(2), a);
        });
        assert_eq!(rule, Rule::LockOrder);
        works(|a| {
            pair(a, a.index(1));
            initialize(a);
            pair(a.index(1), a);
        });
    }
}
