//! Atomics and cells, in the place of which a model checker can put its own.
//!
//! With `--cfg loom` the same code runs under `loom`, which tries every order in which threads can take steps, and
//! every value that the memory model lets a load return. Its atomics cannot be made at compile time, which is why constructors
//! in this crate are not `const`.

#[cfg(not(loom))]
pub(crate) use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicPtr, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};

/// Follows a `SeqCst` read-modify-write that a `SeqCst` load of another place comes after. The two orderings say it all, and
/// cost nothing more on a processor; but the model checker takes `SeqCst` for `AcqRel`, except in fences.
#[inline]
pub(crate) fn in_sequence() {
    #[cfg(loom)]
    fence(Ordering::SeqCst);
}

/// One turn of a loop that waits for another processor.
#[inline]
pub(crate) fn spin() {
    #[cfg(not(loom))]
    core::hint::spin_loop();
    #[cfg(loom)]
    loom::thread::yield_now();
}

/// A place that is read and written under rules which the compiler does not know. The model checker does: it stops at
/// a read and a write that nothing orders.
#[repr(transparent)]
pub(crate) struct Cell<T>(Inner<T>);

#[cfg(not(loom))]
type Inner<T> = core::cell::UnsafeCell<T>;
#[cfg(loom)]
type Inner<T> = loom::cell::UnsafeCell<T>;

impl<T> Cell<T> {
    #[cfg(any(test, loom))]
    pub(crate) fn new(value: T) -> Self {
        Self(Inner::new(value))
    }

    /// Where the value is, for reading at this moment.
    #[inline]
    pub(crate) fn read(&self) -> *const T {
        #[cfg(not(loom))]
        return self.0.get();
        #[cfg(loom)]
        self.0.with(|value| value)
    }

    /// Where the value is, for writing at this moment.
    #[inline]
    pub(crate) fn write(&self) -> *mut T {
        #[cfg(not(loom))]
        return self.0.get();
        #[cfg(loom)]
        self.0.with_mut(|value| value)
    }
}
