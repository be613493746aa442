//! Locks taken twice, kept, given back twice, or taken in two orders.

use kernel_host::Rule;

use crate::family::Caught::While;
use crate::family::family;
use crate::rig::Rig;

family! { locks, Rig::exercise;
    spin_lock_taken_twice: While(Rule::Deadlock, "KeAcquireSpinLockAtDpcLevel", "TakeBoth");
    spin_lock_released_twice: While(Rule::BadState, "KeReleaseSpinLockFromDpcLevel", "TakeBoth");
    spin_lock_kept: While(Rule::Deadlock, "KeAcquireSpinLockRaiseToDpc", "TakeBothAgain");
    spin_locks_in_the_other_order: While(Rule::LockOrder, "KeAcquireSpinLockAtDpcLevel", "TakeBothAgain");
    dpc_level_lock_at_passive: While(Rule::BadState, "KeAcquireSpinLockAtDpcLevel", "TakeBothAgain");
    fast_mutex_taken_twice: While(Rule::Deadlock, "ExAcquireFastMutex", "TakeMutexes");
    file_opened_under_a_fast_mutex: While(Rule::IrqlTooHigh, "ZwCreateFile", "TakeMutexes");
    fast_mutex_not_owned: While(Rule::BadState, "ExReleaseFastMutex", "TakeMutexes");
    fast_mutexes_in_the_other_order: While(Rule::LockOrder, "ExAcquireFastMutex", "TakeMutexes");
    mutex_not_owned: While(Rule::BadState, "KeReleaseMutex", "TakeOwned");
}
