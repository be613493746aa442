//! Reference counting that reports a shortage of memory instead of dying of it.

#![expect(unsafe_code, reason = "Arc::try_new is not stable; the standard Arc aborts when memory is short")]

use alloc::alloc::{Layout, alloc, dealloc};
use core::fmt;
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::NonNull;

use crate::Error;
use crate::atomics::{AtomicUsize, Ordering, fence};

/// A shared owner of a `T` on the heap: `Arc`, but creating one can fail.
///
/// There are no weak references, since nothing here needs them: registries hold strong ones and
/// drop them on purpose.
///
/// Cloning is possible at any IRQL. The last drop runs `T`'s destructor in place, so `T` decides
/// at which IRQL the last reference may go.
pub struct Shared<T> {
    inner: NonNull<Inner<T>>,
    // Dropping a `Shared` may drop a `T`.
    owns: PhantomData<Inner<T>>,
}

struct Inner<T> {
    count: AtomicUsize,
    value: T,
}

/// More references than this mean that somebody leaks them in a loop; the count stops there and the value
/// is never freed, which is harmless, whereas a count that wraps is a use after free.
const SATURATED: usize = usize::MAX / 2;

// SAFETY: [Shared/send] the handle gives out `&T` on any thread (T: Sync) and may drop T on any thread (T: Send).
unsafe impl<T: Send + Sync> Send for Shared<T> {}
// SAFETY: [Shared/send] as above; a `&Shared<T>` can be cloned into a `Shared<T>`.
unsafe impl<T: Send + Sync> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// Fails to compile for types that the kernel heap cannot place: wdk-alloc ignores alignments above 16.
    const ALIGNED: () = assert!(align_of::<Inner<T>>() <= 16, "the kernel heap aligns to 16 bytes only");

    /// Moves `value` to the heap.
    ///
    /// [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`) when there is no room; `value` is dropped then.
    pub fn try_new(value: T) -> Result<Self, Error> {
        let () = Self::ALIGNED;
        let layout = Layout::new::<Inner<T>>();
        // SAFETY: [alloc/nonzero] `Inner` contains a counter, so the layout's size is not zero.
        let memory = unsafe { alloc(layout) };
        let inner = NonNull::new(memory.cast::<Inner<T>>()).ok_or(Error::OutOfMemory)?;
        let counted = Inner { count: AtomicUsize::new(1), value };
        // SAFETY: [ptr/own] fresh memory of the layout of `Inner<T>`, which nobody else knows of.
        unsafe { inner.write(counted) };
        Ok(Self { inner, owns: PhantomData })
    }

    /// Whether both refer to the same object (not merely to equal ones).
    #[must_use]
    pub fn ptr_eq(this: &Self, other: &Self) -> bool {
        this.inner == other.inner
    }

    /// How many references there are, at some moment during the call. For reports, not for decisions.
    #[must_use]
    pub fn count(this: &Self) -> usize {
        this.shared().count.load(Ordering::Relaxed)
    }

    /// The reference as a pointer that does not count, and whoever gets it has to see that the reference is not lost.
    pub(crate) const fn into_raw(this: Self) -> NonNull<()> {
        let inner = this.inner.cast();
        core::mem::forget(this);
        inner
    }

    /// Where the object lies, to compare with what [`into_raw`](Self::into_raw) returned.
    #[inline]
    pub(crate) const fn as_raw(this: &Self) -> NonNull<()> {
        this.inner.cast()
    }

    /// The reference that [`into_raw`](Self::into_raw) made a pointer.
    ///
    /// # Safety
    ///
    /// [Shared/raw] `raw` came from `into_raw` of this type, and that reference is not used up yet: either this call uses it up, or
    /// the result is never dropped and not used longer than the reference exists.
    #[inline]
    pub(crate) const unsafe fn from_raw(raw: NonNull<()>) -> Self {
        Self { inner: raw.cast(), owns: PhantomData }
    }

    #[inline]
    fn shared(&self) -> &Inner<T> {
        // SAFETY: [Shared/alive] this reference is counted, so the object has not been freed, and only shared
        // references to it exist until the count is zero.
        unsafe { self.inner.as_ref() }
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        // Relaxed: a new reference comes from an old one, whose owner orders the accesses.
        let before = self.shared().count.fetch_add(1, Ordering::Relaxed);
        if before >= SATURATED {
            self.shared().count.store(SATURATED, Ordering::Relaxed);
        }
        Self { inner: self.inner, owns: PhantomData }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        if self.shared().count.load(Ordering::Relaxed) >= SATURATED {
            return;
        }
        // Release: our uses of the value come before its destruction by whoever is last.
        if self.shared().count.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        fence(Ordering::Acquire);
        // SAFETY: [Shared/last] the count went from one to zero, so this was the only reference, and the
        // fence orders every other owner's uses before this.
        unsafe { self.inner.drop_in_place() };
        // SAFETY: [alloc/pair] allocated in `try_new` with this very layout and freed only here.
        unsafe { dealloc(self.inner.as_ptr().cast(), Layout::new::<Inner<T>>()) };
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.shared().value
    }
}

impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicU32;

    use super::*;

    struct CountsDrops<'a>(&'a AtomicU32);

    impl Drop for CountsDrops<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn value_is_dropped_once_with_its_last_owner() {
        let drops = AtomicU32::new(0);
        let first = Shared::try_new(CountsDrops(&drops)).unwrap();
        let second = first.clone();
        assert!(Shared::ptr_eq(&first, &second));
        assert_eq!(Shared::count(&first), 2);
        drop(first);
        assert_eq!(drops.load(Ordering::Relaxed), 0);
        drop(second);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn owners_on_several_threads_drop_the_value_once() {
        let drops = AtomicU32::new(0);
        let shared = Shared::try_new(CountsDrops(&drops)).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let mine = shared.clone();
                scope.spawn(move || {
                    let copies: std::vec::Vec<_> = (0..10).map(|_| mine.clone()).collect();
                    drop(mine);
                    drop(copies);
                });
            }
            drop(shared);
        });
        assert_eq!(drops.load(Ordering::Relaxed), 1);
    }
}
