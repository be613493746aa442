//! Rundown protection (`EX_RUNDOWN_REF`), and the cache-aware form, which differs in where it lies only.

use std::sync::atomic::Ordering;

use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::dispatcher::word;
use crate::nt::pool_exports::allocate_from_type;
use crate::nt::raw::Raw;

exports! { pub(super) EXPORTS in "ntoskrnl.exe":
    ExInitializeRundownProtection(max 1) = initialize;
    ExReInitializeRundownProtection(max 1) = reinitialize;
    ExAcquireRundownProtection(max 2) = acquire;
    ExAcquireRundownProtectionEx(max 2) = acquire_many;
    ExReleaseRundownProtection(max 2) = release;
    ExReleaseRundownProtectionEx(max 2) = release_many;
    ExWaitForRundownProtectionRelease(max 1) = wait_for_release;
    ExRundownCompleted(max 1) = completed;
    ExAllocateCacheAwareRundownProtection(max 1, fails NULL) = allocate_cache_aware;
    ExFreeCacheAwareRundownProtection(max 1) = free_cache_aware;
    ExSizeOfRundownProtectionCacheAware(max 1) = size_of_cache_aware;
    ExInitializeRundownProtectionCacheAware(max 1) = initialize_cache_aware;
    ExReInitializeRundownProtectionCacheAware(max 1) = reinitialize;
    ExAcquireRundownProtectionCacheAware(max 2) = acquire;
    ExAcquireRundownProtectionCacheAwareEx(max 2) = acquire_many;
    ExReleaseRundownProtectionCacheAware(max 2) = release;
    ExReleaseRundownProtectionCacheAwareEx(max 2) = release_many;
    ExWaitForRundownProtectionReleaseCacheAware(max 1) = wait_for_release;
    ExRundownCompletedCacheAware(max 1) = completed;
}

/// Set once rundown has begun; the count of holders is above it.
const ACTIVE: usize = 1;
const ONE_HOLDER: usize = 2;
/// Bytes of the cache-aware form: a cache line per processor, of which there is one.
const CACHE_AWARE_LENGTH: usize = 64;

extern "efiapi" fn initialize(rundown: Raw<usize>) {
    let _call = Call::enter();
    rundown.write(0);
}

extern "efiapi" fn initialize_cache_aware(rundown: Raw<usize>, length: usize) {
    let call = Call::enter();
    if length < CACHE_AWARE_LENGTH {
        call.stop(
            Rule::BadArgument,
            format!("{length} bytes; ExSizeOfRundownProtectionCacheAware says {CACHE_AWARE_LENGTH}"),
        );
    }
    rundown.write(0);
}

extern "efiapi" fn size_of_cache_aware() -> usize {
    let _call = Call::enter();
    CACHE_AWARE_LENGTH
}

extern "efiapi" fn allocate_cache_aware(pool_type: i32, tag: u32) -> Raw<usize> {
    // Zeroed (1024): a protection that nobody holds.
    Raw::at(allocate_from_type(Call::enter(), pool_type | 1024, CACHE_AWARE_LENGTH, tag))
}

extern "efiapi" fn free_cache_aware(rundown: Raw<usize>) {
    let call = Call::enter();
    if rundown.read() >= ONE_HOLDER {
        call.stop(Rule::BadState, format!("the rundown protection {rundown:?} is freed while it is held"));
    }
    call.machine().nt.pool().free(&call, rundown.address(), 0);
}

extern "efiapi" fn reinitialize(rundown: Raw<usize>) {
    let call = Call::enter();
    if word(rundown).load(Ordering::Acquire) != ACTIVE {
        call.stop(
            Rule::BadState,
            format!("{rundown:?} was not run down: wait for the release of the old object first"),
        );
    }
    rundown.write(0);
}

fn add(rundown: Raw<usize>, count: usize) -> u8 {
    let more = |value: usize| (value & ACTIVE == 0).then(|| value + count * ONE_HOLDER);
    u8::from(word(rundown).fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_ok())
}

fn subtract(call: &Call, rundown: Raw<usize>, count: usize) {
    let less = |value: usize| value.checked_sub(count * ONE_HOLDER);
    if word(rundown).fetch_update(Ordering::AcqRel, Ordering::Acquire, less).is_err() {
        call.stop(Rule::BadState, format!("the rundown protection {rundown:?} is not held {count} times"));
    }
    call.machine().nt.dispatcher().wake();
}

extern "efiapi" fn acquire(rundown: Raw<usize>) -> u8 {
    let _call = Call::enter();
    add(rundown, 1)
}

extern "efiapi" fn acquire_many(rundown: Raw<usize>, count: u32) -> u8 {
    let _call = Call::enter();
    add(rundown, count as usize)
}

extern "efiapi" fn release(rundown: Raw<usize>) {
    subtract(&Call::enter(), rundown, 1);
}

extern "efiapi" fn release_many(rundown: Raw<usize>, count: u32) {
    subtract(&Call::enter(), rundown, count as usize);
}

extern "efiapi" fn wait_for_release(rundown: Raw<usize>) {
    let call = Call::enter();
    word(rundown).fetch_or(ACTIVE, Ordering::AcqRel);
    let released = || word(rundown).load(Ordering::Acquire) == ACTIVE;
    call.machine().nt.dispatcher().wait(&call, None, released);
}

extern "efiapi" fn completed(rundown: Raw<usize>) {
    let call = Call::enter();
    if word(rundown).load(Ordering::Acquire) >= ONE_HOLDER {
        call.stop(Rule::BadState, format!("the rundown of {rundown:?} is called complete while it is held"));
    }
    word(rundown).store(ACTIVE, Ordering::Release);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{broken, works};
    use super::*;
    use crate::conformance::conforms;

    #[test]
    fn after_rundown_nobody_gets_protection_until_it_is_made_anew() {
        conforms!("wdm/nf-wdm-exacquirerundownprotection.md", "FALSE is returned once rundown has begun.");
        conforms!(
            "wdm/nf-wdm-exreinitializerundownprotection.md",
            "After the reinitialisation protection can be acquired again."
        );
        works(|rundown| {
            initialize(rundown);
            assert_eq!(acquire(rundown), 1);
            release(rundown);
            wait_for_release(rundown);
            assert_eq!(acquire(rundown), 0);
            completed(rundown);
            assert_eq!(acquire(rundown), 0);
            reinitialize(rundown);
            assert_eq!(acquire(rundown), 1);
            release(rundown);
        });
    }

    #[test]
    fn rundown_waits_for_the_holders() {
        conforms!(
            "wdm/nf-wdm-exwaitforrundownprotectionrelease.md",
            "The wait lasts until all protections that were granted are released."
        );
        let rule = broken(|rundown| {
            acquire(rundown);
            wait_for_release(rundown);
        });
        assert_eq!(rule, Rule::Deadlock);
    }

    #[test]
    fn an_object_that_was_not_run_down_is_not_reinitialised() {
        conforms!("wdm/nf-wdm-exreinitializerundownprotection.md", "The old object must have been run down.");
        assert_eq!(broken(|rundown| reinitialize(rundown)), Rule::BadState);
    }

    #[test]
    fn several_protections_are_acquired_and_released_at_once() {
        conforms!("wdm/nf-wdm-exreleaserundownprotectionex.md", "Protections are released in whatever portions.");
        works(|rundown| {
            assert_eq!(acquire_many(rundown, 3), 1);
            release_many(rundown, 2);
            release(rundown);
            assert_eq!(rundown.read(), 0);
        });
        let rule = broken(|rundown| {
            acquire_many(rundown, 3);
            release_many(rundown, 4);
        });
        assert_eq!(rule, Rule::BadState);
    }

    #[test]
    fn the_cache_aware_form_is_allocated_and_freed() {
        conforms!(
            "wdm/nf-wdm-exallocatecacheawarerundownprotection.md",
            "The structure comes initialised, and is freed by its own routine."
        );
        works(|_| {
            let rundown = allocate_cache_aware(512, u32::from_le_bytes(*b"Rund"));
            assert_eq!(acquire(rundown), 1);
            release(rundown);
            free_cache_aware(rundown);
        });
    }
}
