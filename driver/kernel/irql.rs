//! How the broker's locks raise the IRQL.

use super::imports::{KeLowerIrql, KeRaiseIrqlToDpcLevel};
use broker::LockContext;
use nt_types::KIRQL;

/// DISPATCH_LEVEL while a lock is held: the holder cannot be preempted, and no DPC on this processor can
/// come in and wait for the same lock.
pub(crate) struct RaiseToDispatch;

impl LockContext for RaiseToDispatch {
    type Saved = KIRQL;

    fn enter() -> KIRQL {
        // SAFETY: the lock's callers are at or below DISPATCH_LEVEL (rule: IrqlLock's contract).
        unsafe { KeRaiseIrqlToDpcLevel() }
    }

    fn leave(saved: KIRQL) {
        // SAFETY: `saved` is what the matching `enter` returned, and locks are released in reverse
        // order (rule: LockContext).
        unsafe { KeLowerIrql(saved) };
    }

    fn processor() -> usize {
        // SAFETY: no PROCESSOR_NUMBER is wanted; callable at any IRQL.
        let index = unsafe { wdk_sys::ntddk::KeGetCurrentProcessorNumberEx(core::ptr::null_mut()) };
        index as usize
    }
}
