//! One test per documented rule of resources.

use super::super::testing::{broken, finding, region, works};
use super::*;
use crate::conformance::conforms;
use crate::ddi::testing::Bench;
use crate::nt::pool_exports::allocate_from_type;

/// An initialised resource in a critical region, deleted at the end.
fn with_resource(body: impl FnOnce(Raw<u8>)) {
    works(|memory| {
        let resource = memory.cast();
        assert_eq!(initialize(resource), NtStatus::SUCCESS);
        region(1);
        body(resource);
        region(0);
        assert_eq!(delete(resource), NtStatus::SUCCESS);
    });
}

/// As [`with_resource`], for a body that breaks a rule.
fn rule_of(body: impl FnOnce(Raw<u8>)) -> Rule {
    broken(|memory| {
        let resource = memory.cast();
        assert_eq!(initialize(resource), NtStatus::SUCCESS);
        region(1);
        body(resource);
    })
}

#[test]
fn a_resource_needs_a_critical_region() {
    conforms!(
        "wdm/nf-wdm-exacquireresourceexclusivelite.md",
        "Normal kernel APCs are disabled by the caller, until the release."
    );
    let rule = rule_of(|resource| {
        region(0);
        acquire_exclusive(resource, 1);
    });
    assert_eq!(rule, Rule::BadState);
    let rule = rule_of(|resource| {
        acquire_shared(resource, 1);
        region(0);
        release(resource);
    });
    assert_eq!(rule, Rule::BadState);
}

#[test]
fn exclusive_access_is_recursive() {
    conforms!(
        "wdm/nf-wdm-exacquireresourceexclusivelite.md",
        "A thread with exclusive access gets it again, recursively."
    );
    conforms!(
        "wdm/nf-wdm-exacquireresourcesharedlite.md",
        "A thread with exclusive access that asks for shared access keeps the exclusive one."
    );
    conforms!(
        "wdm/nf-wdm-exisresourceacquiredsharedlite.md",
        "The number of acquisitions of both kinds by this thread is returned."
    );
    with_resource(|resource| {
        assert_eq!(acquire_exclusive(resource, 1), 1);
        assert_eq!(acquire_exclusive(resource, 0), 1);
        assert_eq!(acquire_shared(resource, 0), 1);
        assert_eq!((is_acquired_exclusive(resource), is_acquired_shared(resource)), (1, 3));
        (0..3).for_each(|_| release(resource));
        assert_eq!((is_acquired_exclusive(resource), is_acquired_shared(resource)), (0, 0));
    });
}

#[test]
fn shared_access_has_to_be_released_before_exclusive_access_is_asked_for() {
    conforms!(
        "wdm/nf-wdm-exacquireresourceexclusivelite.md",
        "A caller with shared access releases it before it acquires the resource exclusively."
    );
    conforms!(
        "wdm/nf-wdm-exacquireresourceexclusivelite.md",
        "Without Wait, FALSE is returned when access cannot be granted at once."
    );
    with_resource(|resource| {
        acquire_shared(resource, 1);
        assert_eq!(acquire_exclusive(resource, 0), 0);
        assert_eq!(try_to_acquire_exclusive(resource), 0);
        release(resource);
    });
    let rule = rule_of(|resource| {
        acquire_shared(resource, 1);
        acquire_exclusive(resource, 1);
    });
    assert_eq!(rule, Rule::Deadlock);
}

/// Makes the resource look as if another thread waited for exclusive access.
fn pretend_waiter(resource: Raw<u8>, count: u32) {
    with(&Call::enter(), resource, |state| state.exclusive_waiters = count);
}

/// Makes the resource look as if another thread shared it.
fn pretend_sharer(resource: Raw<u8>) {
    with(&Call::enter(), resource, |state| state.owners.insert(0x1000, 1));
}

#[test]
fn new_sharers_queue_behind_an_exclusive_waiter_and_old_ones_do_not() {
    conforms!(
        "wdm/nf-wdm-exacquireresourcesharedlite.md",
        "Shared access is not granted past an exclusive waiter, except to a thread that has it."
    );
    conforms!(
        "wdm/nf-wdm-exacquiresharedstarveexclusive.md",
        "Shared access is granted although another thread waits for exclusive access."
    );
    conforms!(
        "wdm/nf-wdm-exacquiresharedwaitforexclusive.md",
        "A pending exclusive attempt goes first, even where the caller shares already."
    );
    conforms!(
        "wdm/nf-wdm-exgetexclusivewaitercount.md",
        "The number of threads that wait for exclusive access is returned."
    );
    with_resource(|resource| {
        pretend_sharer(resource);
        pretend_waiter(resource, 1);
        assert_eq!((exclusive_waiters(resource), shared_waiters(resource)), (1, 0));
        assert_eq!(acquire_shared(resource, 0), 0);
        assert_eq!(acquire_wait_for_exclusive(resource, 0), 0);
        assert_eq!(acquire_starve_exclusive(resource, 0), 1);
        assert_eq!(acquire_shared(resource, 0), 1, "it shares already");
        assert_eq!(acquire_wait_for_exclusive(resource, 0), 0, "although it shares already");
        pretend_waiter(resource, 0);
        release(resource);
        release(resource);
        release_for_thread(resource, 0x1000);
    });
}

#[test]
fn an_exclusive_owner_can_let_others_share() {
    conforms!("wdm/nf-wdm-exconvertexclusivetosharedlite.md", "Exclusive access becomes shared access.");
    with_resource(|resource| {
        acquire_exclusive(resource, 1);
        convert_to_shared(resource);
        assert_eq!((is_acquired_exclusive(resource), is_acquired_shared(resource)), (0, 1));
        release(resource);
    });
    let rule = rule_of(|resource| {
        acquire_shared(resource, 1);
        convert_to_shared(resource);
    });
    assert_eq!(rule, Rule::BadState);
}

#[test]
fn ownership_is_handed_to_a_pointer_with_its_low_bits_set() {
    conforms!(
        "wdm/nf-wdm-exsetresourceownerpointer.md",
        "The two low bits of the owner pointer are set by the caller."
    );
    conforms!(
        "wdm/nf-wdm-exreleaseresourceforthreadlite.md",
        "A resource is released for the thread or owner pointer that is named."
    );
    with_resource(|resource| {
        acquire_exclusive(resource, 1);
        set_owner_pointer(resource, 0x1003);
        assert_eq!(is_acquired_exclusive(resource), 0);
        release_for_thread(resource, 0x1003);
    });
    let rule = rule_of(|resource| {
        acquire_exclusive(resource, 1);
        set_owner_pointer(resource, 0x1000);
    });
    assert_eq!(rule, Rule::BadArgument);
}

#[test]
fn only_an_owner_releases() {
    conforms!("wdm/nf-wdm-exreleaseresourcelite.md", "The resource is owned by the thread that releases it.");
    assert_eq!(rule_of(|resource| release(resource)), Rule::BadState);
}

#[test]
fn the_region_forms_enter_and_leave_a_critical_region() {
    conforms!(
        "wdm/nf-wdm-exentercriticalregionandacquireresourceexclusive.md",
        "A critical region is entered, then the resource acquired exclusively."
    );
    conforms!(
        "wdm/nf-wdm-exreleaseresourceandleavecriticalregion.md",
        "The resource is released, then the critical region left."
    );
    with_resource(|resource| {
        region(0);
        enter_and_acquire_exclusive(resource);
        enter_and_acquire_shared(resource);
        assert_eq!(crate::thread::Thread::current().critical_regions(), 2);
        release_and_leave(resource);
        release_and_leave(resource);
        assert_eq!(crate::thread::Thread::current().critical_regions(), 0);
    });
}

#[test]
fn a_resource_is_deleted_before_its_memory_is_freed_and_not_while_it_is_owned() {
    conforms!(
        "wdm/nf-wdm-exinitializeresourcelite.md",
        "ExDeleteResourceLite is called before the memory of a resource is freed."
    );
    let found = finding(|_| {
        let block = allocate_from_type(Call::enter(), 512, LENGTH, u32::from_le_bytes(*b"Test"));
        let _ = initialize(Raw::at(block));
        let call = Call::enter();
        call.machine().nt.pool().free(&call, block, 0);
    });
    assert!(found.message.contains("was not deleted"), "{}", found.message);
    let rule = rule_of(|resource| {
        acquire_shared(resource, 1);
        let _ = delete(resource);
    });
    assert_eq!(rule, Rule::BadState);
    let rule = rule_of(|resource| {
        let _ = delete(resource);
        acquire_shared(resource, 1);
    });
    assert_eq!(rule, Rule::BadState);
}

#[test]
fn a_resource_that_is_not_deleted_is_reported_at_unload() {
    let bench = Bench::new();
    let mut memory = Box::new([0_u8; LENGTH]);
    let resource = Raw::of(memory.as_mut_ptr());
    bench.run(|| _ = initialize(resource)).unwrap();
    assert_eq!(bench.machine().inner().nt.resources().leaks(bench.driver()).len(), 1);
}

#[test]
fn a_reinitialised_resource_is_free() {
    conforms!(
        "wdm/nf-wdm-exreinitializeresourcelite.md",
        "STATUS_SUCCESS is returned, and the resource can be used as after its initialisation."
    );
    with_resource(|resource| {
        acquire_exclusive(resource, 1);
        release(resource);
        assert_eq!(reinitialize(resource), NtStatus::SUCCESS);
        assert_eq!(acquire_exclusive(resource, 0), 1);
        release(resource);
    });
}

#[test]
fn a_thread_waits_until_the_owner_releases() {
    conforms!(
        "wdm/nf-wdm-exacquireresourceexclusivelite.md",
        "A caller that may wait does so until the resource can be acquired."
    );
    let bench = Bench::new();
    let mut memory = Box::new([0_u8; LENGTH]);
    let resource = Raw::<u8>::of(memory.as_mut_ptr()).address();
    assert_eq!(bench.run(|| initialize(Raw::at(resource))).unwrap(), NtStatus::SUCCESS);
    std::thread::scope(|scope| {
        let (owned, wait) = std::sync::mpsc::channel();
        let bench = &bench;
        scope.spawn(move || {
            bench
                .run(|| {
                    enter_and_acquire_exclusive(Raw::at(resource));
                    owned.send(()).unwrap();
                    while exclusive_waiters(Raw::at(resource)) == 0 {
                        std::thread::yield_now();
                    }
                    release_and_leave(Raw::at(resource));
                })
                .unwrap();
        });
        wait.recv().unwrap();
        bench
            .run(|| {
                enter_and_acquire_exclusive(Raw::at(resource));
                release_and_leave(Raw::at(resource));
            })
            .unwrap();
    });
    assert_eq!(bench.run(|| delete(Raw::at(resource))).unwrap(), NtStatus::SUCCESS);
}

#[test]
fn resources_taken_in_both_orders_are_a_potential_deadlock() {
    let mut memory = Box::new([0_u8; 2 * LENGTH]);
    let (first, second) = (Raw::<u8>::of(memory.as_mut_ptr()), Raw::of(memory[LENGTH..].as_mut_ptr()));
    let stopped = Bench::new().run(|| {
        let _ = initialize(first);
        let _ = initialize(second);
        region(1);
        for (one, two) in [(first, second), (second, first)] {
            acquire_exclusive(one, 1);
            acquire_exclusive(two, 1);
            release(two);
            release(one);
        }
    });
    assert_eq!(stopped.unwrap_err().0.rule, Rule::LockOrder);
}
