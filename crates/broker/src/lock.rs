//! The one lock type of the project.

use core::fmt;
use core::marker::PhantomData;
use core::ops::{Deref, DerefMut};

use crate::Barriers;

#[cfg(loom)]
use loom::sync::{Mutex, MutexGuard};
#[cfg(not(loom))]
use spin::mutex::{SpinMutex, SpinMutexGuard};
#[cfg(not(loom))]
use spin::relax::Spin;

#[cfg(not(loom))]
type Mutex<T> = SpinMutex<T, Spin>;
#[cfg(not(loom))]
type MutexGuard<'a, T> = SpinMutexGuard<'a, T, Spin>;

/// A spin lock whose holder runs at `DISPATCH_LEVEL`, hence the name: what it disables is
/// everything that the IRQL disables (preemption, page faults, waits, calls that need `PASSIVE_LEVEL`).
///
/// A bare `spin` mutex is wrong in a kernel: its holder can be preempted, and everybody who wants
/// the lock then burns whole time slices; and a holder interrupted by a DPC that wants the same lock waits forever.
/// `C` raises the IRQL before the first attempt and puts it back after the release.
///
/// Contents must be non-paged, and so must every value dropped under the lock be droppable at `DISPATCH_LEVEL`.
///
/// Callers may be at any IRQL up to and including `DISPATCH_LEVEL`. The lock is not recursive.
pub struct IrqlLock<T, C: LockContext> {
    inner: Mutex<T>,
    context: PhantomData<fn() -> C>,
}

/// How the current processor is kept to this thread while a lock is held.
///
/// The driver implements it with `KeRaiseIrql`/`KeLowerIrql`; tests with a counter that catches recursion.
pub trait LockContext: 'static {
    /// What [`leave`](Self::leave) needs to undo [`enter`](Self::enter): in the driver, the old `KIRQL`.
    type Saved: Copy;

    /// Raises the IRQL to `DISPATCH_LEVEL` (`KeRaiseIrqlToDpcLevel`) and returns what it was.
    ///
    /// Callable at IRQL <= `DISPATCH_LEVEL`.
    fn enter() -> Self::Saved;

    /// A number that tells processors apart (`KeGetCurrentProcessorNumberEx`), so that each can have a list of its own.
    /// Correctness does not depend on it: the thread may run elsewhere by the time that the number is used.
    ///
    /// Called at any IRQL <= `DISPATCH_LEVEL`.
    #[must_use]
    fn processor() -> usize {
        0
    }

    /// Where present, numbers of processors belong to threads, and cheap barriers will do; see [`Barriers`].
    const BARRIERS: Option<Barriers> = None;

    /// Restores the IRQL (`KeLowerIrql`). Locks are released in the reverse order of their acquisition.
    fn leave(saved: Self::Saved);
}

/// Proof that the lock is held; releases it, then lowers the IRQL, on drop.
///
/// Bound to its thread: the IRQL belongs to the processor that raised it.
pub struct IrqlGuard<'a, T, C: LockContext> {
    // Fields drop in this order, and it matters: a lock released after the IRQL has gone down
    // could be held by a thread that is no longer running.
    inner: MutexGuard<'a, T>,
    _raised: Raised<C>,
}

/// The raised IRQL. Contains a raw pointer so that guards are neither `Send` nor `Sync`.
struct Raised<C: LockContext> {
    saved: C::Saved,
    not_send: PhantomData<*mut ()>,
}

impl<C: LockContext> Raised<C> {
    fn new() -> Self {
        Self { saved: C::enter(), not_send: PhantomData }
    }
}

impl<C: LockContext> Drop for Raised<C> {
    fn drop(&mut self) {
        C::leave(self.saved);
    }
}

impl<T, C: LockContext> IrqlLock<T, C> {
    /// A free lock around `value`.
    pub fn new(value: T) -> Self {
        Self { inner: Mutex::new(value), context: PhantomData }
    }

    /// Raises the IRQL and spins until the lock is ours.
    ///
    /// Holders never wait, so the spin is bounded by the work that other processors do under the lock.
    pub fn lock(&self) -> IrqlGuard<'_, T, C> {
        let raised = Raised::new();
        IrqlGuard { inner: acquire(&self.inner), _raised: raised }
    }

    /// The contents, without locking: `&mut self` proves that nobody else is there.
    #[cfg(not(loom))]
    pub fn get_mut(&mut self) -> &mut T {
        self.inner.get_mut()
    }
}

#[cfg(not(loom))]
#[inline]
fn acquire<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

/// The model checker has no poisoned locks: a model that panics is over.
#[cfg(loom)]
fn acquire<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl<T, C: LockContext> fmt::Debug for IrqlLock<T, C> {
    // Not the contents: formatting them would need the lock, possibly by its holder.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IrqlLock")
    }
}

impl<T, C: LockContext> Deref for IrqlGuard<'_, T, C> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T, C: LockContext> DerefMut for IrqlGuard<'_, T, C> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{NoIrql, depth};

    #[test]
    fn context_is_entered_before_and_left_after_the_lock_is_held() {
        let lock = IrqlLock::<u32, NoIrql>::new(1);
        assert_eq!(depth(), 0);
        {
            let mut guard = lock.lock();
            assert_eq!(depth(), 1);
            *guard += 1;
        }
        assert_eq!(depth(), 0);
        assert_eq!(*lock.lock(), 2);
    }

    #[test]
    fn locked_increments_of_several_threads_all_count() {
        let lock = IrqlLock::<u32, NoIrql>::new(0);
        let rounds = if cfg!(miri) { 20 } else { 2000 };
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    for _ in 0..rounds {
                        *lock.lock() += 1;
                    }
                });
            }
        });
        assert_eq!(*lock.lock(), 3 * rounds);
    }
}
