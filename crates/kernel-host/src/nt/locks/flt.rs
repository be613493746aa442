//! The filter manager's names for push locks and resources: the same locks, with the critical region included.
//! Pages: `fltkernel/nf-fltkernel-fltacquirepushlockexclusive` and its neighbours.

use super::push::{acquire_push_lock, prepare, release_either};
use super::resource::{Access, acquire, release_own};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::irql::{enter_critical_region, leave_critical_region};
use crate::nt::raw::Raw;

exports! { pub(super) EXPORTS in "fltmgr.sys":
    FltInitializePushLock(max 1) = initialize_push_lock;
    FltDeletePushLock(max 1) = delete_push_lock;
    FltAcquirePushLockExclusive(max 1) = acquire_push_lock_exclusive;
    FltAcquirePushLockShared(max 1) = acquire_push_lock_shared;
    FltReleasePushLock(max 1) = release_push_lock;
    FltAcquirePushLockExclusiveEx(max 1) = acquire_push_lock_exclusive_ex;
    FltAcquirePushLockSharedEx(max 1) = acquire_push_lock_shared_ex;
    FltReleasePushLockEx(max 1) = release_push_lock_ex;
    FltAcquireResourceExclusive(max 1) = acquire_resource_exclusive;
    FltAcquireResourceShared(max 1) = acquire_resource_shared;
    FltReleaseResource(max 2) = release_resource;
}

extern "efiapi" fn initialize_push_lock(lock: Raw<usize>) {
    prepare(&Call::enter(), lock);
}

extern "efiapi" fn delete_push_lock(lock: Raw<usize>) {
    let call = Call::enter();
    if lock.read() != 0 {
        call.stop(Rule::BadState, format!("the push lock {lock:?} is deleted while it is held"));
    }
    prepare(&call, lock);
}

fn acquire_in_region(call: &Call, lock: Raw<usize>, exclusive: bool) {
    enter_critical_region(call);
    acquire_push_lock(call, lock, exclusive);
}

fn release_in_region(call: &Call, lock: Raw<usize>) {
    release_either(call, lock);
    leave_critical_region(call);
}

extern "efiapi" fn acquire_push_lock_exclusive(lock: Raw<usize>) {
    acquire_in_region(&Call::enter(), lock, true);
}

extern "efiapi" fn acquire_push_lock_shared(lock: Raw<usize>) {
    acquire_in_region(&Call::enter(), lock, false);
}

extern "efiapi" fn release_push_lock(lock: Raw<usize>) {
    release_in_region(&Call::enter(), lock);
}

extern "efiapi" fn acquire_push_lock_exclusive_ex(lock: Raw<usize>, _flags: u32) {
    acquire_in_region(&Call::enter(), lock, true);
}

extern "efiapi" fn acquire_push_lock_shared_ex(lock: Raw<usize>, _flags: u32) {
    acquire_in_region(&Call::enter(), lock, false);
}

extern "efiapi" fn release_push_lock_ex(lock: Raw<usize>, _flags: u32) {
    release_in_region(&Call::enter(), lock);
}

extern "efiapi" fn acquire_resource_exclusive(resource: Raw<u8>) {
    let call = Call::enter();
    enter_critical_region(&call);
    acquire(&call, resource, Access::Exclusive, true);
}

extern "efiapi" fn acquire_resource_shared(resource: Raw<u8>) {
    let call = Call::enter();
    enter_critical_region(&call);
    acquire(&call, resource, Access::Shared, true);
}

extern "efiapi" fn release_resource(resource: Raw<u8>) {
    let call = Call::enter();
    release_own(&call, resource);
    leave_critical_region(&call);
}

#[cfg(test)]
mod tests {
    use super::super::testing::{broken, works};
    use super::*;
    use crate::conformance::conforms;
    use crate::thread::Thread;

    #[test]
    fn the_critical_region_comes_and_goes_with_the_push_lock() {
        conforms!(
            "fltkernel/nf-fltkernel-fltacquirepushlockexclusive.md",
            "Normal kernel APCs are disabled while the lock is held; the caller need not do it."
        );
        conforms!(
            "fltkernel/nf-fltkernel-fltacquirepushlockshared.md",
            "Normal kernel APCs are disabled while the lock is held; the caller need not do it."
        );
        conforms!(
            "fltkernel/nf-fltkernel-fltreleasepushlock.md",
            "A lock is released with the same routine however it was acquired."
        );
        works(|lock| {
            initialize_push_lock(lock);
            acquire_push_lock_exclusive(lock);
            assert_eq!(Thread::current().critical_regions(), 1);
            release_push_lock(lock);
            acquire_push_lock_shared(lock);
            assert_eq!(Thread::current().critical_regions(), 1);
            release_push_lock(lock);
            assert_eq!(Thread::current().critical_regions(), 0);
            delete_push_lock(lock);
        });
    }

    #[test]
    fn a_push_lock_is_not_acquired_or_deleted_while_it_is_held() {
        conforms!("fltkernel/nf-fltkernel-fltacquirepushlockexclusive.md", "Push locks are not recursive.");
        let rule = broken(|lock| {
            acquire_push_lock_exclusive(lock);
            acquire_push_lock_exclusive(lock);
        });
        assert_eq!(rule, Rule::Deadlock);
        let rule = broken(|lock| {
            acquire_push_lock_exclusive(lock);
            delete_push_lock(lock);
        });
        assert_eq!(rule, Rule::BadState);
        assert_eq!(broken(|lock| release_push_lock(lock)), Rule::BadState);
    }

    #[test]
    fn a_resource_is_acquired_in_a_critical_region() {
        conforms!(
            "fltkernel/nf-fltkernel-fltacquireresourceexclusive.md",
            "Normal kernel APCs are disabled while the resource is held."
        );
        conforms!("fltkernel/nf-fltkernel-fltreleaseresource.md", "Normal kernel APCs are enabled again.");
        works(|memory| {
            let resource = memory.cast();
            super::super::resource::tests_initialise(resource);
            acquire_resource_exclusive(resource);
            acquire_resource_shared(resource);
            assert_eq!(Thread::current().critical_regions(), 2);
            release_resource(resource);
            release_resource(resource);
            assert_eq!(Thread::current().critical_regions(), 0);
            super::super::resource::tests_delete(resource);
        });
    }
}
