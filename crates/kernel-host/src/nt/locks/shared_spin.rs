//! `EX_SPIN_LOCK`: a 32-bit spin lock that is shared or exclusive.

use std::sync::atomic::{AtomicU32, Ordering};

use nt_types::DISPATCH_LEVEL;

use super::order::{Hold, Kind};
use super::{acquired, me, waiting};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::irql::{lower, raise};
use crate::nt::raw::Raw;

exports! { pub(super) EXPORTS in "ntoskrnl.exe":
    ExAcquireSpinLockExclusive(max 2) = acquire_exclusive;
    ExAcquireSpinLockExclusiveAtDpcLevel(max 15) = acquire_exclusive_at_dpc_level;
    ExAcquireSpinLockShared(max 2) = acquire_shared;
    ExAcquireSpinLockSharedAtDpcLevel(max 15) = acquire_shared_at_dpc_level;
    ExReleaseSpinLockExclusive(max 2) = release_exclusive;
    ExReleaseSpinLockExclusiveFromDpcLevel(max 15) = release_exclusive_from_dpc_level;
    ExReleaseSpinLockShared(max 2) = release_shared;
    ExReleaseSpinLockSharedFromDpcLevel(max 15) = release_shared_from_dpc_level;
    ExTryConvertSharedSpinLockExclusive(max 2) = try_convert;
    ExTryAcquireSpinLockExclusiveAtDpcLevel(max 15) = try_acquire_exclusive_at_dpc_level;
    ExTryAcquireSpinLockSharedAtDpcLevel(max 15) = try_acquire_shared_at_dpc_level;
}

/// The word while the lock is held exclusively; else it counts who shares it.
const EXCLUSIVE: u32 = 0x8000_0000;

fn word<'a>(lock: Raw<u32>) -> &'a AtomicU32 {
    // SAFETY: the driver's lock, see `Raw`; it is aligned as a LONG, and all host code uses atomics on it.
    unsafe { AtomicU32::from_ptr(lock.pointer()) }
}

fn try_own(lock: Raw<u32>, shared: bool) -> bool {
    let taken = |value: u32| match value {
        0 if !shared => Some(EXCLUSIVE),
        value if shared && value < EXCLUSIVE => Some(value + 1),
        _ => None,
    };
    word(lock).fetch_update(Ordering::AcqRel, Ordering::Acquire, taken).is_ok()
}

fn own(call: &Call, lock: Raw<u32>, shared: bool) {
    // The pages: recursive acquisition causes deadlock and is not allowed, in either form.
    if call.machine().nt.lock_order().hold_of(me(call), lock.address()).is_some() {
        call.stop(Rule::Deadlock, format!("this thread holds the spin lock {lock:?} already"));
    }
    let hold = waiting(call, lock.address(), Kind::SpinLock, shared);
    call.machine().nt.dispatcher().wait(call, None, || try_own(lock, shared));
    acquired(call, hold);
}

fn disown(call: &Call, lock: Raw<u32>, shared: bool) {
    let held = call.machine().nt.lock_order().hold_of(me(call), lock.address());
    if held.is_none_or(|hold| hold.shared != shared) {
        let how = if shared { "shared" } else { "exclusively" };
        call.stop(Rule::BadState, format!("the spin lock {lock:?} is not held {how} by this thread"));
    }
    call.machine().nt.lock_order().released(me(call), lock.address());
    word(lock).fetch_sub(if shared { 1 } else { EXCLUSIVE }, Ordering::AcqRel);
    call.machine().nt.dispatcher().wake();
}

fn check_dispatch(call: &Call) {
    if call.thread().irql() < DISPATCH_LEVEL {
        call.stop(Rule::BadState, format!("IRQL {}; this needs DISPATCH_LEVEL", call.thread().irql()));
    }
}

extern "efiapi" fn acquire_exclusive(lock: Raw<u32>) -> u8 {
    let call = Call::enter();
    let before = raise(&call, DISPATCH_LEVEL);
    own(&call, lock, false);
    before
}

extern "efiapi" fn acquire_shared(lock: Raw<u32>) -> u8 {
    let call = Call::enter();
    let before = raise(&call, DISPATCH_LEVEL);
    own(&call, lock, true);
    before
}

extern "efiapi" fn acquire_exclusive_at_dpc_level(lock: Raw<u32>) {
    let call = Call::enter();
    check_dispatch(&call);
    own(&call, lock, false);
}

extern "efiapi" fn acquire_shared_at_dpc_level(lock: Raw<u32>) {
    let call = Call::enter();
    check_dispatch(&call);
    own(&call, lock, true);
}

extern "efiapi" fn release_exclusive(lock: Raw<u32>, irql: u8) {
    let call = Call::enter();
    check_dispatch(&call);
    disown(&call, lock, false);
    lower(&call, irql);
}

extern "efiapi" fn release_shared(lock: Raw<u32>, irql: u8) {
    let call = Call::enter();
    check_dispatch(&call);
    disown(&call, lock, true);
    lower(&call, irql);
}

extern "efiapi" fn release_exclusive_from_dpc_level(lock: Raw<u32>) {
    let call = Call::enter();
    check_dispatch(&call);
    disown(&call, lock, false);
}

extern "efiapi" fn release_shared_from_dpc_level(lock: Raw<u32>) {
    let call = Call::enter();
    check_dispatch(&call);
    disown(&call, lock, true);
}

fn attempt(call: &Call, lock: Raw<u32>, shared: bool) -> u32 {
    check_dispatch(call);
    let owned = try_own(lock, shared);
    if owned {
        acquired(call, Hold::of(call, lock.address(), Kind::SpinLock, shared));
    }
    u32::from(owned)
}

extern "efiapi" fn try_acquire_exclusive_at_dpc_level(lock: Raw<u32>) -> u32 {
    attempt(&Call::enter(), lock, false)
}

extern "efiapi" fn try_acquire_shared_at_dpc_level(lock: Raw<u32>) -> u32 {
    attempt(&Call::enter(), lock, true)
}

extern "efiapi" fn try_convert(lock: Raw<u32>) -> u32 {
    let call = Call::enter();
    check_dispatch(&call);
    let held = call.machine().nt.lock_order().hold_of(me(&call), lock.address());
    if held.is_none_or(|hold| !hold.shared) {
        call.stop(Rule::BadState, format!("the spin lock {lock:?} is not held shared by this thread"));
    }
    let converted = word(lock).compare_exchange(1, EXCLUSIVE, Ordering::AcqRel, Ordering::Acquire).is_ok();
    if converted {
        call.machine().nt.lock_order().released(me(&call), lock.address());
        acquired(&call, Hold::of(&call, lock.address(), Kind::SpinLock, false));
    }
    u32::from(converted)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{broken, works};
    use super::*;
    use crate::conformance::conforms;
    use crate::thread::Thread;

    #[test]
    fn the_lock_raises_the_irql_and_gives_it_back() {
        conforms!(
            "wdm/nf-wdm-exacquirespinlockexclusive.md",
            "The IRQL is raised to DISPATCH_LEVEL, the one before returned."
        );
        conforms!("wdm/nf-wdm-exreleasespinlockexclusive.md", "The IRQL from before the acquisition is restored.");
        works(|lock| {
            let irql = acquire_exclusive(lock.cast());
            assert_eq!((irql, Thread::current().irql()), (0, 2));
            assert_eq!(try_acquire_shared_at_dpc_level(lock.cast()), 0);
            release_exclusive(lock.cast(), irql);
            assert_eq!((Thread::current().irql(), lock.read()), (0, 0));
        });
    }

    #[test]
    fn only_a_sole_sharer_becomes_exclusive() {
        conforms!(
            "wdm/nf-wdm-extryconvertsharedspinlockexclusive.md",
            "The conversion succeeds only while nobody else shares the lock."
        );
        works(|lock| {
            let irql = acquire_shared(lock.cast());
            word(lock.cast()).fetch_add(1, Ordering::AcqRel); // somebody else
            assert_eq!(try_convert(lock.cast()), 0);
            word(lock.cast()).fetch_sub(1, Ordering::AcqRel);
            assert_ne!(try_convert(lock.cast()), 0);
            release_exclusive(lock.cast(), irql);
        });
    }

    #[test]
    fn recursion_and_the_wrong_release_are_found() {
        conforms!("wdm/nf-wdm-exacquirespinlockshared.md", "Recursive acquisition is not allowed.");
        let rule = broken(|lock| {
            acquire_shared(lock.cast());
            acquire_shared_at_dpc_level(lock.cast());
        });
        assert_eq!(rule, Rule::Deadlock);
        let rule = broken(|lock| {
            let irql = acquire_shared(lock.cast());
            release_exclusive(lock.cast(), irql);
        });
        assert_eq!(rule, Rule::BadState);
    }
}
