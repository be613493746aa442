//! Push locks (`EX_PUSH_LOCK`).

use std::sync::atomic::Ordering;

use super::order::{Hold, Kind};
use super::{acquired, check_recursion, disown, initialised, me, try_own, waiting};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::dispatcher::word;
use crate::nt::irql::normal_apcs_disabled;
use crate::nt::raw::Raw;

exports! { pub(super) EXPORTS in "ntoskrnl.exe":
    ExInitializePushLock(max 1) = initialize;
    ExAcquirePushLockExclusiveEx(max 1) = acquire_exclusive_ex;
    ExAcquirePushLockSharedEx(max 1) = acquire_shared_ex;
    ExReleasePushLockExclusiveEx(max 1) = release_exclusive_ex;
    ExReleasePushLockSharedEx(max 1) = release_shared_ex;
    ExReleasePushLockEx(max 1) = release_ex;
    ExfAcquirePushLockExclusive(max 1) = acquire_exclusive;
    ExfAcquirePushLockShared(max 1) = acquire_shared;
    ExfTryAcquirePushLockShared(max 1) = try_acquire_shared;
    ExfReleasePushLock(max 1) = release_any;
    ExfReleasePushLockExclusive(max 1) = release_exclusive;
    ExfReleasePushLockShared(max 1) = release_shared;
}

/// Set in a word that counts shared holders; the count is above it. Owners are 16-aligned addresses.
const SHARED: usize = 1;
const ONE_SHARED: usize = 2;

extern "efiapi" fn initialize(lock: Raw<usize>) {
    prepare(&Call::enter(), lock);
}

/// Makes a push lock, free.
pub(super) fn prepare(call: &Call, lock: Raw<usize>) {
    initialised(call, lock.address(), size_of::<usize>());
    lock.write(0);
}

extern "efiapi" fn acquire_exclusive_ex(lock: Raw<usize>, _flags: u32) {
    acquire_push_lock(&Call::enter(), lock, true);
}

extern "efiapi" fn acquire_shared_ex(lock: Raw<usize>, _flags: u32) {
    acquire_push_lock(&Call::enter(), lock, false);
}

extern "efiapi" fn release_exclusive_ex(lock: Raw<usize>, _flags: u32) {
    release_push_lock(&Call::enter(), lock, true);
}

extern "efiapi" fn release_shared_ex(lock: Raw<usize>, _flags: u32) {
    release_push_lock(&Call::enter(), lock, false);
}

extern "efiapi" fn release_ex(lock: Raw<usize>, _flags: u32) {
    release_either(&Call::enter(), lock);
}

extern "efiapi" fn acquire_exclusive(lock: Raw<usize>) {
    acquire_push_lock(&Call::enter(), lock, true);
}

extern "efiapi" fn acquire_shared(lock: Raw<usize>) {
    acquire_push_lock(&Call::enter(), lock, false);
}

extern "efiapi" fn release_any(lock: Raw<usize>) {
    release_either(&Call::enter(), lock);
}

extern "efiapi" fn release_exclusive(lock: Raw<usize>) {
    release_push_lock(&Call::enter(), lock, true);
}

extern "efiapi" fn release_shared(lock: Raw<usize>) {
    release_push_lock(&Call::enter(), lock, false);
}

extern "efiapi" fn try_acquire_shared(lock: Raw<usize>) -> u8 {
    let call = Call::enter();
    check_apcs(&call);
    let owned = try_share(lock);
    if owned {
        acquired(&call, Hold::of(&call, lock.address(), Kind::PushLock, true));
    }
    u8::from(owned)
}

fn try_share(lock: Raw<usize>) -> bool {
    let share = |value: usize| match value {
        0 => Some(SHARED + ONE_SHARED),
        value if value & SHARED != 0 => Some(value + ONE_SHARED),
        _ => None,
    };
    word(lock).fetch_update(Ordering::AcqRel, Ordering::Acquire, share).is_ok()
}

fn check_apcs(call: &Call) {
    if !normal_apcs_disabled(call) {
        call.stop(Rule::BadState, "a push lock needs normal kernel APCs disabled: enter a critical region first");
    }
}

/// Acquires a push lock. Stops when normal kernel APCs are on, or on recursion.
pub(crate) fn acquire_push_lock(call: &Call, lock: Raw<usize>, exclusive: bool) {
    check_apcs(call);
    check_recursion(call, lock, "push lock");
    // A thread that shares the lock and wants it again hangs as soon as somebody waits for it exclusively.
    if call.machine().nt.lock_order().hold_of(me(call), lock.address()).is_some() {
        call.stop(
            Rule::Deadlock,
            format!("this thread shares the push lock {lock:?} already: push locks are not recursive"),
        );
    }
    let hold = waiting(call, lock.address(), Kind::PushLock, !exclusive);
    let take = || if exclusive { try_own(call, lock) } else { try_share(lock) };
    call.machine().nt.dispatcher().wait(call, None, take);
    acquired(call, hold);
}

/// Releases a push lock. Stops when it is not held that way.
pub(crate) fn release_push_lock(call: &Call, lock: Raw<usize>, exclusive: bool) {
    check_apcs(call);
    if exclusive {
        return disown(call, lock, lock.address());
    }
    let unshare = |value: usize| match value {
        value if value == SHARED + ONE_SHARED => Some(0),
        value if value & SHARED != 0 => Some(value - ONE_SHARED),
        _ => None,
    };
    if word(lock).fetch_update(Ordering::AcqRel, Ordering::Acquire, unshare).is_err() {
        call.stop(Rule::BadState, format!("the push lock {lock:?} is not held shared"));
    }
    call.machine().nt.lock_order().released(me(call), lock.address());
    call.machine().nt.dispatcher().wake();
}

/// Releases a push lock however it is held.
pub(super) fn release_either(call: &Call, lock: Raw<usize>) {
    let value = word(lock).load(Ordering::Acquire);
    if value == 0 {
        call.stop(Rule::BadState, format!("the push lock {lock:?} is not held"));
    }
    release_push_lock(call, lock, value & SHARED == 0);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{broken, finding, region, works};
    use super::*;
    use crate::conformance::conforms;

    #[test]
    fn a_push_lock_needs_a_critical_region() {
        conforms!(
            "wdm/nf-wdm-exacquirepushlockexclusive.md",
            "Normal kernel APCs are disabled by the caller, until the lock is released."
        );
        assert_eq!(broken(|lock| acquire_exclusive(lock)), Rule::BadState);
        let rule = broken(|lock| {
            region(1);
            acquire_exclusive(lock);
            region(0);
            release_exclusive(lock);
        });
        assert_eq!(rule, Rule::BadState);
    }

    #[test]
    fn a_push_lock_is_held_exclusively_by_one() {
        works(|lock| {
            region(1);
            acquire_shared(lock);
            release_shared(lock);
            acquire_exclusive(lock);
            assert_eq!(try_acquire_shared(lock), 0);
            release_any(lock);
            assert_eq!(try_acquire_shared(lock), 1);
            release_any(lock);
            assert_eq!(lock.read(), 0);
            region(0);
        });
    }

    #[test]
    fn push_locks_are_not_recursive_and_released_as_they_are_held() {
        conforms!(
            "wdm/nf-wdm-exacquirepushlockexclusive.md",
            "A thread that holds a push lock must not acquire it again."
        );
        for exclusive in [true, false] {
            let rule = broken(|lock| {
                region(1);
                if exclusive {
                    acquire_exclusive(lock);
                } else {
                    acquire_shared(lock);
                }
                acquire_shared(lock);
            });
            assert_eq!(rule, Rule::Deadlock);
        }
        let rule = broken(|lock| {
            region(1);
            release_shared(lock);
        });
        assert_eq!(rule, Rule::BadState);
    }

    #[test]
    fn a_push_lock_held_at_the_end_of_a_callback_is_a_finding_of_its_own() {
        let finding = finding(|lock| {
            region(1);
            acquire_exclusive(lock);
            region(0);
        });
        assert_eq!(finding.rule, Rule::LockHeld);
        assert!(finding.message.contains("push lock"), "{}", finding.message);
    }

    #[test]
    fn locks_that_are_only_shared_have_no_order() {
        works(|a| {
            let b = a.index(1);
            region(1);
            for (first, second) in [(a, b), (b, a)] {
                acquire_shared(first);
                acquire_shared(second);
                release_shared(second);
                release_shared(first);
            }
            region(0);
        });
    }
}
