//! Fast mutexes and guarded mutexes. Both are a `FAST_MUTEX` or a structure of the same layout; what differs is which APCs stay off.

use nt_types::APC_LEVEL;

use super::order::{Hold, Kind};
use super::{acquired, check_recursion, disown, initialised, try_own, waiting};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::irql::{
    enter_guarded_region, leave_critical_region, leave_guarded_region, lower, normal_apcs_disabled, raise,
};
use crate::nt::raw::Raw;

exports! { pub(super) EXPORTS in "ntoskrnl.exe":
    ExAcquireFastMutex(max 1) = acquire_fast;
    ExTryToAcquireFastMutex(max 1) = try_to_acquire_fast;
    ExReleaseFastMutex(max 1) = release_fast;
    ExAcquireFastMutexUnsafe(max 1) = acquire_fast_unsafe;
    ExReleaseFastMutexUnsafe(max 1) = release_fast_unsafe;
    ExEnterCriticalRegionAndAcquireFastMutexUnsafe(max 1) = enter_and_acquire_fast_unsafe;
    ExReleaseFastMutexUnsafeAndLeaveCriticalRegion(max 1) = release_fast_unsafe_and_leave;
    KeInitializeGuardedMutex(max 1) = initialize_guarded;
    KeAcquireGuardedMutex(max 1) = acquire_guarded;
    KeTryToAcquireGuardedMutex(max 1) = try_to_acquire_guarded;
    KeReleaseGuardedMutex(max 1) = release_guarded;
    KeAcquireGuardedMutexUnsafe(max 1) = acquire_guarded_unsafe;
    KeReleaseGuardedMutexUnsafe(max 1) = release_guarded_unsafe;
}

/// Fields of `FAST_MUTEX`, as the header's inline initialiser sets them. `Count` is 1 while the mutex is free.
const OWNER: usize = 8;
const OLD_IRQL: usize = 48;
const LENGTH: usize = 56;

/// Stops when the mutex, which the calling thread has just come to own, was never initialised.
fn check_initialised(call: &Call, mutex: Raw<u8>) {
    let count = mutex.cast::<i32>().read();
    if count != 1 {
        call.stop(Rule::BadState, format!("the mutex {mutex:?} is not initialised (Count {count})"));
    }
    mutex.cast::<i32>().write(0);
}

fn own(call: &Call, mutex: Raw<u8>, kind: Kind) {
    let owner = mutex.field(OWNER);
    let hold = waiting(call, mutex.address(), kind, false);
    call.machine().nt.dispatcher().wait(call, None, || try_own(call, owner));
    acquired(call, hold);
    check_initialised(call, mutex);
}

fn try_to_own(call: &Call, mutex: Raw<u8>, kind: Kind) -> bool {
    let owned = try_own(call, mutex.field(OWNER));
    if owned {
        acquired(call, Hold::of(call, mutex.address(), kind, false));
        check_initialised(call, mutex);
    }
    owned
}

fn give_back(call: &Call, mutex: Raw<u8>) {
    mutex.cast::<i32>().write(1);
    disown(call, mutex.field(OWNER), mutex.address());
}

extern "efiapi" fn acquire_fast(mutex: Raw<u8>) {
    let call = Call::enter();
    check_recursion(&call, mutex.field(OWNER), "fast mutex");
    let before = raise(&call, APC_LEVEL);
    own(&call, mutex, Kind::FastMutex);
    mutex.field::<u32>(OLD_IRQL).write(u32::from(before));
}

extern "efiapi" fn try_to_acquire_fast(mutex: Raw<u8>) -> u8 {
    let call = Call::enter();
    if !try_to_own(&call, mutex, Kind::FastMutex) {
        return 0;
    }
    let before = raise(&call, APC_LEVEL);
    mutex.field::<u32>(OLD_IRQL).write(u32::from(before));
    1
}

extern "efiapi" fn release_fast(mutex: Raw<u8>) {
    let call = Call::enter();
    let irql = call.thread().irql();
    if irql != APC_LEVEL {
        call.stop(Rule::BadState, format!("a fast mutex is released at IRQL {irql}, not at APC_LEVEL"));
    }
    let before = mutex.field::<u32>(OLD_IRQL).read() as u8;
    give_back(&call, mutex);
    lower(&call, before);
}

/// The pages' rule for the unsafe forms: `APC_LEVEL`, or a critical region.
fn check_apcs(call: &Call) {
    if !normal_apcs_disabled(call) {
        call.stop(
            Rule::BadState,
            "normal kernel APCs are enabled: raise to APC_LEVEL or enter a critical region first",
        );
    }
}

fn acquire_unsafe(call: &Call, mutex: Raw<u8>) {
    check_apcs(call);
    check_recursion(call, mutex.field(OWNER), "fast mutex");
    own(call, mutex, Kind::FastMutex);
}

extern "efiapi" fn acquire_fast_unsafe(mutex: Raw<u8>) {
    acquire_unsafe(&Call::enter(), mutex);
}

extern "efiapi" fn release_fast_unsafe(mutex: Raw<u8>) {
    let call = Call::enter();
    check_apcs(&call);
    give_back(&call, mutex);
}

extern "efiapi" fn enter_and_acquire_fast_unsafe(mutex: Raw<u8>) {
    let call = Call::enter();
    call.thread().set_critical_regions(call.thread().critical_regions() + 1);
    acquire_unsafe(&call, mutex);
}

extern "efiapi" fn release_fast_unsafe_and_leave(mutex: Raw<u8>) {
    let call = Call::enter();
    give_back(&call, mutex);
    leave_critical_region(&call);
}

extern "efiapi" fn initialize_guarded(mutex: Raw<u8>) {
    let call = Call::enter();
    initialised(&call, mutex.address(), LENGTH);
    mutex.fill(0, LENGTH);
    mutex.cast::<i32>().write(1);
}

extern "efiapi" fn acquire_guarded(mutex: Raw<u8>) {
    let call = Call::enter();
    check_recursion(&call, mutex.field(OWNER), "guarded mutex");
    enter_guarded_region(&call);
    own(&call, mutex, Kind::GuardedMutex);
}

extern "efiapi" fn try_to_acquire_guarded(mutex: Raw<u8>) -> u8 {
    let call = Call::enter();
    let owned = try_to_own(&call, mutex, Kind::GuardedMutex);
    if owned {
        enter_guarded_region(&call);
    }
    u8::from(owned)
}

extern "efiapi" fn release_guarded(mutex: Raw<u8>) {
    let call = Call::enter();
    give_back(&call, mutex);
    leave_guarded_region(&call);
}

extern "efiapi" fn acquire_guarded_unsafe(mutex: Raw<u8>) {
    let call = Call::enter();
    if call.thread().guarded_regions() == 0 && call.thread().irql() < APC_LEVEL {
        call.stop(Rule::BadState, "KeAcquireGuardedMutexUnsafe needs APC_LEVEL or a guarded region");
    }
    check_recursion(&call, mutex.field(OWNER), "guarded mutex");
    own(&call, mutex, Kind::GuardedMutex);
}

extern "efiapi" fn release_guarded_unsafe(mutex: Raw<u8>) {
    give_back(&Call::enter(), mutex);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{broken, region, works};
    use super::*;
    use crate::conformance::conforms;
    use crate::thread::Thread;

    /// What `ExInitializeFastMutex`, an inline function, leaves behind.
    fn fast(memory: Raw<usize>) -> Raw<u8> {
        memory.cast::<i32>().write(1);
        memory.cast()
    }

    #[test]
    fn a_fast_mutex_raises_to_apc_level_and_is_not_recursive() {
        conforms!("wdm/nf-wdm-exacquirefastmutex.md", "The caller runs at APC_LEVEL while it owns the mutex.");
        conforms!("wdm/nf-wdm-exreleasefastmutex.md", "The IRQL from before the acquisition is restored.");
        works(|memory| {
            let mutex = fast(memory);
            acquire_fast(mutex);
            assert_eq!(Thread::current().irql(), 1);
            assert_eq!(try_to_acquire_fast(mutex), 0);
            release_fast(mutex);
            assert_eq!(Thread::current().irql(), 0);
        });
        let rule = broken(|memory| {
            acquire_fast(fast(memory));
            acquire_fast(memory.cast());
        });
        assert_eq!(rule, Rule::Deadlock);
    }

    #[test]
    fn a_fast_mutex_has_to_be_initialised_and_released_at_apc_level() {
        conforms!("wdm/nf-wdm-exinitializefastmutex.md", "A fast mutex is initialised before it is used.");
        assert_eq!(broken(|memory| acquire_fast(memory.cast())), Rule::BadState);
        conforms!("wdm/nf-wdm-exreleasefastmutex.md", "The caller runs at APC_LEVEL.");
        let rule = broken(|memory| {
            acquire_fast(fast(memory));
            Thread::current().set_irql(0);
            release_fast(memory.cast());
        });
        assert_eq!(rule, Rule::BadState);
    }

    #[test]
    fn the_unsafe_form_needs_apcs_off_and_leaves_the_irql_alone() {
        conforms!("wdm/nf-wdm-exacquirefastmutexunsafe.md", "The caller is at APC_LEVEL or in a critical region.");
        assert_eq!(broken(|memory| acquire_fast_unsafe(fast(memory))), Rule::BadState);
        works(|memory| {
            let mutex = fast(memory);
            region(1);
            acquire_fast_unsafe(mutex);
            assert_eq!(Thread::current().irql(), 0);
            release_fast_unsafe(mutex);
            region(0);
            enter_and_acquire_fast_unsafe(mutex);
            assert_eq!(Thread::current().critical_regions(), 1);
            release_fast_unsafe_and_leave(mutex);
            assert_eq!(Thread::current().critical_regions(), 0);
        });
    }

    #[test]
    fn a_guarded_mutex_enters_a_guarded_region() {
        conforms!("wdm/nf-wdm-keacquireguardedmutex.md", "The owner runs in a guarded region, at its own IRQL.");
        conforms!("wdm/nf-wdm-ketrytoacquireguardedmutex.md", "FALSE is returned when the mutex is owned already.");
        works(|memory| {
            let mutex = memory.cast();
            initialize_guarded(mutex);
            acquire_guarded(mutex);
            let thread = Thread::current();
            assert_eq!((thread.irql(), thread.guarded_regions()), (0, 1));
            assert_eq!(try_to_acquire_guarded(mutex), 0);
            release_guarded(mutex);
            assert_eq!(thread.guarded_regions(), 0);
            assert_eq!(try_to_acquire_guarded(mutex), 1);
            release_guarded(mutex);
        });
        let rule = broken(|memory| {
            initialize_guarded(memory.cast());
            acquire_guarded(memory.cast());
            acquire_guarded(memory.cast());
        });
        assert_eq!(rule, Rule::Deadlock);
    }

    #[test]
    fn a_guarded_mutex_that_is_held_cannot_be_initialised_anew() {
        let rule = broken(|memory| {
            initialize_guarded(memory.cast());
            acquire_guarded(memory.cast());
            initialize_guarded(memory.cast());
        });
        assert_eq!(rule, Rule::BadState);
    }
}
