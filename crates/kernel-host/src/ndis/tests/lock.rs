//! Spin locks and read/write locks.

use super::*;
use crate::thread::Thread;

fn spin_lock() -> usize {
    let lock = std::ptr::from_mut(Box::leak(Box::new([0_u64; 2]))).expose_provenance();
    call_ddi!("NdisAllocateSpinLock", fn(usize), lock);
    lock
}

#[test]
fn a_spin_lock_raises_to_dispatch_level_and_back() {
    conforms!("ndis/nf-ndis-ndisreleasespinlock.md", "The release restores the IRQL from before the acquisition.");
    let nic = Nic::new();
    nic.bench
        .run(|| {
            let lock = spin_lock();
            call_ddi!("NdisAcquireSpinLock", fn(usize), lock);
            assert_eq!(Thread::current().irql(), 2);
            call_ddi!("NdisReleaseSpinLock", fn(usize), lock);
            assert_eq!(Thread::current().irql(), 0);
            call_ddi!("NdisFreeSpinLock", fn(usize), lock);
        })
        .unwrap();
}

#[test]
fn a_spin_lock_acquired_twice_is_found() {
    conforms!("ndis/nf-ndis-ndisreleasespinlock.md", "Each acquisition needs a release before the next one.");
    let nic = Nic::new();
    let twice = nic.bench.run(|| {
        let lock = spin_lock();
        call_ddi!("NdisAcquireSpinLock", fn(usize), lock);
        call_ddi!("NdisAcquireSpinLock", fn(usize), lock);
    });
    assert_eq!(twice.unwrap_err().0.rule, Rule::Deadlock);
}

#[test]
fn the_dpr_form_of_a_spin_lock_needs_dispatch_level() {
    conforms!("ndis/nf-ndis-ndisdpracquirespinlock.md", "NdisDprAcquireSpinLock is called at DISPATCH_LEVEL only.");
    let nic = Nic::new();
    let low = nic.bench.run(|| {
        let lock = spin_lock();
        call_ddi!("NdisDprAcquireSpinLock", fn(usize), lock);
    });
    assert_eq!(low.unwrap_err().0.rule, Rule::BadState);
}

fn rw_lock() -> usize {
    call_ddi!("NdisAllocateRWLock", fn(usize) -> usize, 0)
}

fn acquire(name: &'static str, lock: usize, flags: u8) -> LOCK_STATE_EX {
    let mut state = LOCK_STATE_EX { OldIrql: 9, LockState: 9, Flags: 9 };
    // SAFETY: the signature is that of both acquisitions.
    let function: extern "efiapi" fn(usize, &mut LOCK_STATE_EX, u8) = unsafe { std::mem::transmute(ddi(name)) };
    function(lock, &mut state, flags);
    state
}

fn release(lock: usize, state: LOCK_STATE_EX) {
    call_ddi!("NdisReleaseRWLock", fn(usize, &LOCK_STATE_EX), lock, &state);
}

#[test]
fn readers_share_a_lock_and_may_take_it_again() {
    conforms!("ndis/nf-ndis-ndisacquirerwlockread.md", "A read lock can be taken recursively; each needs its release.");
    conforms!("ndis/nf-ndis-ndisacquirerwlockread.md", "The IRQL is raised to DISPATCH_LEVEL.");
    let nic = Nic::new();
    nic.bench
        .run(|| {
            let lock = rw_lock();
            let outer = acquire("NdisAcquireRWLockRead", lock, 0);
            let inner = acquire("NdisAcquireRWLockRead", lock, NDIS_RWL_AT_DISPATCH_LEVEL);
            assert_eq!(Thread::current().irql(), 2);
            release(lock, inner);
            assert_eq!(Thread::current().irql(), 2);
            release(lock, outer);
            assert_eq!(Thread::current().irql(), 0);
            call_ddi!("NdisFreeRWLock", fn(usize), lock);
        })
        .unwrap();
}

#[test]
fn a_reader_is_not_promoted_to_a_writer() {
    conforms!(
        "ndis/nf-ndis-ndisacquirerwlockwrite.md",
        "Who reads under the lock must not acquire it for writing before the release."
    );
    let nic = Nic::new();
    let promoted = nic.bench.run(|| {
        let lock = rw_lock();
        acquire("NdisAcquireRWLockRead", lock, 0);
        acquire("NdisAcquireRWLockWrite", lock, 0);
    });
    assert_eq!(promoted.unwrap_err().0.rule, Rule::Deadlock);
}

#[test]
fn a_writer_may_take_its_lock_again() {
    conforms!("ndis/nf-ndis-ndisacquirerwlockwrite.md", "A write lock can be taken recursively.");
    let nic = Nic::new();
    nic.bench
        .run(|| {
            let lock = rw_lock();
            let outer = acquire("NdisAcquireRWLockWrite", lock, 0);
            let inner = acquire("NdisAcquireRWLockWrite", lock, 0);
            release(lock, inner);
            release(lock, outer);
        })
        .unwrap();
}

#[test]
fn a_held_lock_is_not_freed() {
    conforms!("ndis/nf-ndis-ndisfreerwlock.md", "A lock is released before it is freed.");
    let nic = Nic::new();
    let freed = nic.bench.run(|| {
        let lock = rw_lock();
        acquire("NdisAcquireRWLockRead", lock, 0);
        call_ddi!("NdisFreeRWLock", fn(usize), lock);
    });
    assert_eq!(freed.unwrap_err().0.rule, Rule::BadState);
}

#[test]
fn the_flag_of_the_lock_functions_tells_the_truth() {
    conforms!(
        "ndis/nf-ndis-ndisacquirerwlockread.md",
        "NDIS_RWL_AT_DISPATCH_LEVEL is passed only when the IRQL is DISPATCH_LEVEL."
    );
    let nic = Nic::new();
    let lie = nic.bench.run(|| acquire("NdisAcquireRWLockRead", rw_lock(), NDIS_RWL_AT_DISPATCH_LEVEL));
    assert_eq!(lie.map(|_| ()).unwrap_err().0.rule, Rule::BadState);
}
