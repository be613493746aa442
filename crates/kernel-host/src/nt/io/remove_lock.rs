//! Remove locks: a device stays while somebody works with it.
//!
//! Pages: `wdm/nf-wdm-ioinitializeremovelock`, `wdm/nf-wdm-ioacquireremovelock`,
//! `wdm/nf-wdm-ioreleaseremovelockandwait`.

use std::sync::atomic::{AtomicI32, Ordering};

use nt_types::NtStatus;

use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::dispatcher::{Kind, initialise, state};
use crate::nt::raw::Raw;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    IoInitializeRemoveLockEx(max 0) = io_initialize_remove_lock_ex;
    IoAcquireRemoveLockEx(max 2) = io_acquire_remove_lock_ex;
    IoReleaseRemoveLockEx(max 2) = io_release_remove_lock_ex;
    IoReleaseRemoveLockAndWaitEx(max 0) = io_release_remove_lock_and_wait_ex;
}

/// Fields of an `IO_REMOVE_LOCK`: `Removed`, `IoCount`, `RemoveEvent`. Opaque to drivers, who allocate it.
const REMOVED: usize = 0;
const IO_COUNT: usize = 4;
const REMOVE_EVENT: usize = 8;
/// Bytes of the free-build structure: the least that `RemlockSize` can say.
const LOCK_BYTES: u32 = 32;
const EVENT_BYTES: usize = 24;

/// The count of holders; one more while the lock lives.
fn count<'a>(lock: Raw<u8>) -> &'a AtomicI32 {
    let count = lock.field::<i32>(IO_COUNT);
    // SAFETY: an aligned field of the driver's structure, which only these functions change.
    unsafe { AtomicI32::from_ptr(count.pointer()) }
}

pub(super) extern "efiapi" fn io_initialize_remove_lock_ex(
    lock: Raw<u8>,
    _tag: u32,
    _max_locked_minutes: u32,
    _high_watermark: u32,
    size: u32,
) {
    let call = Call::enter();
    if size < LOCK_BYTES {
        call.stop(Rule::BadArgument, format!("a remove lock of {size} bytes"));
    }
    lock.fill(0, LOCK_BYTES as usize);
    count(lock).store(1, Ordering::Release);
    initialise(lock.field(REMOVE_EVENT), Kind::SynchronizationEvent, EVENT_BYTES, 0);
}

pub(super) extern "efiapi" fn io_acquire_remove_lock_ex(
    lock: Raw<u8>,
    _tag: usize,
    _file: usize,
    _line: u32,
    _size: u32,
) -> NtStatus {
    let call = Call::enter();
    if count(lock).fetch_add(1, Ordering::AcqRel) < 0 {
        call.stop(Rule::BadState, format!("{lock:?} is no remove lock that was initialised"));
    }
    if lock.field::<u8>(REMOVED).read() == 0 {
        return NtStatus::SUCCESS;
    }
    // Too late: the caller does not hold it and must not release it.
    leave(&call, lock);
    NtStatus::DELETE_PENDING
}

/// One holder less; the last one wakes whoever waits to remove the device.
fn leave(call: &Call, lock: Raw<u8>) {
    let left = count(lock).fetch_sub(1, Ordering::AcqRel) - 1;
    if left < 0 {
        call.stop(Rule::BadState, "the remove lock is released more often than it was acquired");
    }
    if left == 0 {
        state(lock.field(REMOVE_EVENT)).store(1, Ordering::Release);
        call.machine().nt.dispatcher().wake();
    }
}

pub(super) extern "efiapi" fn io_release_remove_lock_ex(lock: Raw<u8>, _tag: usize, _size: u32) {
    let call = Call::enter();
    leave(&call, lock);
    // The lock's own count is only given back by the release that waits.
    if count(lock).load(Ordering::Acquire) == 0 && lock.field::<u8>(REMOVED).read() == 0 {
        call.stop(Rule::BadState, "the remove lock is released more often than it was acquired");
    }
}

pub(super) extern "efiapi" fn io_release_remove_lock_and_wait_ex(lock: Raw<u8>, _tag: usize, _size: u32) {
    let call = Call::enter();
    lock.field::<u8>(REMOVED).write(1);
    // The caller's own hold, then the lock's.
    leave(&call, lock);
    leave(&call, lock);
    call.machine().nt.dispatcher().wait(&call, None, || count(lock).load(Ordering::Acquire) == 0);
}
