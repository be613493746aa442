//! Spin locks, and read/write locks.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use ndis::raw::{LOCK_STATE_EX, NDIS_RWL_AT_DISPATCH_LEVEL, NDIS_SPIN_LOCK};
use nt_types::DISPATCH_LEVEL;

use super::memory::check_handle;
use super::{end_handle, new_handle};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Driver;
use crate::nt::irql::{lower, raise};
use crate::nt::locks::spin;
use crate::nt::raw::{Raw, field};

mod old;

pub(super) use old::EXPORTS as OLD_EXPORTS;

exports! { pub(super) EXPORTS in "ndis.sys":
    NdisAllocateSpinLock(max 31) = allocate_spin_lock;
    NdisFreeSpinLock(max 31) = free_spin_lock;
    NdisAcquireSpinLock(max 2) = acquire_spin_lock;
    NdisReleaseSpinLock(max 2) = release_spin_lock;
    NdisDprAcquireSpinLock(max 2) = dpr_acquire_spin_lock;
    NdisDprReleaseSpinLock(max 2) = dpr_release_spin_lock;
    NdisAllocateRWLock(max 2, fails NULL) = allocate_rw_lock;
    NdisFreeRWLock(max 2) = free_rw_lock;
    NdisAcquireRWLockRead(max 2) = acquire_read;
    NdisAcquireRWLockWrite(max 2) = acquire_write;
    NdisReleaseRWLock(max 2) = release_rw_lock;
}

/// `LOCK_STATE_EX.LockState` of a reader, and of a writer.
const READING: u8 = 3;
const WRITING: u8 = 4;

/// A read/write lock.
#[derive(Debug)]
pub(super) struct RwLock {
    pub(super) driver: Arc<Driver>,
    /// Threads that read, and how often each.
    readers: HashMap<u32, u32>,
    /// The thread that writes, and how often.
    writer: Option<(u32, u32)>,
    /// It lies in the driver's memory and is never freed: `NdisInitializeReadWriteLock`.
    pub(super) is_static: bool,
}

impl fmt::Display for RwLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let held = if self.writer.is_some() || !self.readers.is_empty() { ", still held" } else { "" };
        write!(f, "{held}")
    }
}

fn word(lock: Raw<NDIS_SPIN_LOCK>) -> Raw<usize> {
    field!(lock, NDIS_SPIN_LOCK, SpinLock)
}

fn old_irql(lock: Raw<NDIS_SPIN_LOCK>) -> Raw<u8> {
    field!(lock, NDIS_SPIN_LOCK, OldIrql)
}

extern "efiapi" fn allocate_spin_lock(lock: Raw<NDIS_SPIN_LOCK>) {
    let call = Call::enter();
    spin::reset(&call, word(lock));
    old_irql(lock).write(0);
}

extern "efiapi" fn free_spin_lock(lock: Raw<NDIS_SPIN_LOCK>) {
    // The page: the memory is cleared, so that it is no lock any more.
    let call = Call::enter();
    spin::reset(&call, word(lock));
}

extern "efiapi" fn acquire_spin_lock(lock: Raw<NDIS_SPIN_LOCK>) {
    let call = Call::enter();
    let before = spin::acquire(&call, word(lock));
    old_irql(lock).write(before);
}

extern "efiapi" fn release_spin_lock(lock: Raw<NDIS_SPIN_LOCK>) {
    let call = Call::enter();
    let before = old_irql(lock).read();
    spin::give_back(&call, word(lock), before);
}

extern "efiapi" fn dpr_acquire_spin_lock(lock: Raw<NDIS_SPIN_LOCK>) {
    let call = Call::enter();
    check_dispatch(&call);
    let before = spin::acquire(&call, word(lock));
    old_irql(lock).write(before);
}

extern "efiapi" fn dpr_release_spin_lock(lock: Raw<NDIS_SPIN_LOCK>) {
    let call = Call::enter();
    check_dispatch(&call);
    spin::give_back(&call, word(lock), DISPATCH_LEVEL);
}

fn check_dispatch(call: &Call) {
    if call.thread().irql() != DISPATCH_LEVEL {
        call.stop(Rule::BadState, format!("IRQL {}; legal at DISPATCH_LEVEL only", call.thread().irql()));
    }
}

extern "efiapi" fn allocate_rw_lock(handle: usize) -> usize {
    let call = Call::enter();
    // NULL is allowed from Windows 8 on: DriverEntry has no handle yet.
    if handle != 0 {
        check_handle(&call, handle);
    }
    let lock = new_handle(call.machine());
    if lock != 0 {
        let made =
            RwLock { driver: Arc::clone(call.driver()), readers: HashMap::new(), writer: None, is_static: false };
        call.machine().ndis.lock().rw_locks.insert(lock, made);
    }
    lock
}

extern "efiapi" fn free_rw_lock(lock: usize) {
    let call = Call::enter();
    check(&call, lock);
    let is_held = with(&call, lock, |lock| lock.writer.is_some() || !lock.readers.is_empty());
    if is_held {
        call.stop(Rule::BadState, "the lock is held: NdisReleaseRWLock comes first");
    }
    call.machine().ndis.lock().rw_locks.remove(&lock);
    end_handle(call.machine(), lock);
}

/// Stops unless `lock` is a lock of the calling driver.
fn check(call: &Call, lock: usize) {
    let state = call.machine().ndis.lock();
    let is_its = state.rw_locks.get(&lock).is_some_and(|lock| Arc::ptr_eq(&lock.driver, call.driver()));
    drop(state);
    if !is_its {
        call.stop(Rule::InvalidHandle, format!("{lock:#x} is no read/write lock of this driver, or one that is freed"));
    }
}

/// Looks at a lock that was checked; a lock that is gone meanwhile counts as free.
fn with<R: Default>(call: &Call, lock: usize, look: impl FnOnce(&mut RwLock) -> R) -> R {
    call.machine().ndis.lock().rw_locks.get_mut(&lock).map(look).unwrap_or_default()
}

extern "efiapi" fn acquire_read(lock: usize, lock_state: Raw<LOCK_STATE_EX>, flags: u8) {
    let call = Call::enter();
    let before = enter(&call, lock, flags);
    wait_read(&call, lock);
    lock_state.write(LOCK_STATE_EX { OldIrql: before, LockState: READING, Flags: flags });
}

/// Waits until the thread reads under the lock.
fn wait_read(call: &Call, lock: usize) {
    let me = call.thread().id();
    call.machine().nt.dispatcher().wait(call, None, || {
        with(call, lock, |lock| {
            let is_free = lock.writer.is_none_or(|(writer, _)| writer == me);
            if is_free {
                *lock.readers.entry(me).or_default() += 1;
            }
            is_free
        })
    });
}

extern "efiapi" fn acquire_write(lock: usize, lock_state: Raw<LOCK_STATE_EX>, flags: u8) {
    let call = Call::enter();
    let before = enter(&call, lock, flags);
    wait_write(&call, lock);
    lock_state.write(LOCK_STATE_EX { OldIrql: before, LockState: WRITING, Flags: flags });
}

/// Waits until the thread writes under the lock. Stops when it reads under it.
fn wait_write(call: &Call, lock: usize) {
    let me = call.thread().id();
    if with(call, lock, |lock| lock.writer.is_none() && lock.readers.contains_key(&me)) {
        call.stop(Rule::Deadlock, "this thread reads under the lock: it cannot be promoted to a writer");
    }
    call.machine().nt.dispatcher().wait(call, None, || {
        with(call, lock, |lock| match lock.writer {
            Some((writer, depth)) if writer == me => {
                lock.writer = Some((me, depth + 1));
                true
            }
            None if lock.readers.is_empty() => {
                lock.writer = Some((me, 1));
                true
            }
            _ => false,
        })
    });
}

/// Checks the lock and raises the IRQL; what it was.
fn enter(call: &Call, lock: usize, flags: u8) -> u8 {
    check(call, lock);
    if flags & NDIS_RWL_AT_DISPATCH_LEVEL != 0 {
        check_dispatch(call);
    }
    raise(call, DISPATCH_LEVEL)
}

extern "efiapi" fn release_rw_lock(lock: usize, lock_state: Raw<LOCK_STATE_EX>) {
    let call = Call::enter();
    check(&call, lock);
    check_dispatch(&call);
    let state = lock_state.read();
    give_up(&call, lock, state.LockState);
    lower(&call, state.OldIrql);
}

/// Ends one acquisition. Stops when the lock is not held so.
fn give_up(call: &Call, lock: usize, state: u8) {
    let me = call.thread().id();
    let released = with(call, lock, |lock| match (state, lock.writer) {
        (WRITING, Some((writer, depth))) if writer == me => {
            lock.writer = (depth > 1).then_some((me, depth - 1));
            true
        }
        (READING, _) => lock.release_read(me),
        _ => false,
    });
    if !released {
        call.stop(Rule::BadState, "the lock is not held by this thread in the way that LockState says");
    }
    call.machine().nt.dispatcher().wake();
}

impl RwLock {
    fn release_read(&mut self, thread: u32) -> bool {
        let Some(count) = self.readers.get_mut(&thread) else { return false };
        *count -= 1;
        if *count == 0 {
            self.readers.remove(&thread);
        }
        true
    }
}
