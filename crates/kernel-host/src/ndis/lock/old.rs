//! Read/write locks as they were before NDIS 6.20: they lie in the driver's memory.

use std::collections::HashMap;
use std::sync::Arc;

use ndis::raw::LOCK_STATE;
use nt_types::DISPATCH_LEVEL;

use super::{READING, RwLock, WRITING, check, check_dispatch, enter, give_up, wait_read, wait_write};
use crate::ddi::{Call, exports};
use crate::nt::irql::lower;
use crate::nt::raw::Raw;

exports! { pub(in crate::ndis) EXPORTS in "ndis.sys":
    NdisInitializeReadWriteLock(max 31) = initialize;
    NdisAcquireReadWriteLock(max 2) = acquire;
    NdisReleaseReadWriteLock(max 2) = release;
    NdisDprAcquireReadWriteLock(max 2) = dpr_acquire;
    NdisDprReleaseReadWriteLock(max 2) = dpr_release;
}

extern "efiapi" fn initialize(lock: usize) {
    let call = Call::enter();
    let driver = Arc::clone(call.driver());
    let made = RwLock { driver, readers: HashMap::new(), writer: None, is_static: true };
    call.machine().ndis.lock().rw_locks.insert(lock, made);
}

extern "efiapi" fn acquire(lock: usize, for_write: u8, state: Raw<LOCK_STATE>) {
    take(&Call::enter(), lock, for_write != 0, state);
}

extern "efiapi" fn dpr_acquire(lock: usize, for_write: u8, state: Raw<LOCK_STATE>) {
    let call = Call::enter();
    check_dispatch(&call);
    take(&call, lock, for_write != 0, state);
}

fn take(call: &Call, lock: usize, for_write: bool, state: Raw<LOCK_STATE>) {
    let before = enter(call, lock, 0);
    let held = if for_write {
        wait_write(call, lock);
        WRITING
    } else {
        wait_read(call, lock);
        READING
    };
    state.write(LOCK_STATE { LockState: held.into(), OldIrql: before });
}

extern "efiapi" fn release(lock: usize, state: Raw<LOCK_STATE>) {
    let call = Call::enter();
    give_back(&call, lock, state);
    lower(&call, state.read().OldIrql);
}

extern "efiapi" fn dpr_release(lock: usize, state: Raw<LOCK_STATE>) {
    let call = Call::enter();
    give_back(&call, lock, state);
    lower(&call, DISPATCH_LEVEL);
}

fn give_back(call: &Call, lock: usize, state: Raw<LOCK_STATE>) {
    check(call, lock);
    check_dispatch(call);
    give_up(call, lock, state.read().LockState as u8);
}
