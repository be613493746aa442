//! A value that is made when it is first needed.

#![expect(unsafe_code, reason = "publishes a value to threads that take no lock")]

use alloc::alloc::{Layout, alloc, dealloc};
use core::marker::PhantomData;
use core::ptr::{NonNull, null_mut};

use crate::Error;
use crate::atomics::{AtomicPtr, Ordering};

/// A place for a `T` on the heap, empty until somebody needs it. Takes eight bytes until then.
///
/// Reading is one load and no lock, at any IRQL. The value stays until the place is dropped.
pub(crate) struct Once<T> {
    /// Null, or the value. Set once, by `get_or_try`; freed by `drop`.
    value: AtomicPtr<T>,
    owns: PhantomData<T>,
}

impl<T> Once<T> {
    const LAYOUT: Layout = Layout::new::<T>();
    /// Fails to compile for what the kernel heap cannot place: wdk-alloc ignores alignments above 16.
    const FITS: () = assert!(size_of::<T>() > 0 && align_of::<T>() <= 16, "the kernel heap aligns to 16 bytes only");

    pub(crate) fn new() -> Self {
        let () = Self::FITS;
        Self { value: AtomicPtr::new(null_mut()), owns: PhantomData }
    }

    /// The value, if it has been made.
    pub(crate) fn get(&self) -> Option<&T> {
        // Acquire: the value was written before the pointer was set.
        let value = NonNull::new(self.value.load(Ordering::Acquire))?;
        // SAFETY: [once/alive] set by `get_or_try` to a whole value, freed only by `drop`; nobody has it mutably.
        Some(unsafe { value.as_ref() })
    }

    /// The value, made by `make` if nobody has made it yet. Of two that make one at the same time, one is dropped.
    ///
    /// [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`), or the error of `make`. Allocates, so not under a lock.
    pub(crate) fn get_or_try(&self, make: impl FnOnce() -> Result<T, Error>) -> Result<&T, Error> {
        if let Some(value) = self.get() {
            return Ok(value);
        }
        let fresh = boxed(make()?)?;
        // Release: see `get`.
        let set = self.value.compare_exchange(null_mut(), fresh.as_ptr(), Ordering::Release, Ordering::Relaxed);
        if set.is_err() {
            // SAFETY: [once/own] made above and known to nobody else.
            unsafe { free(fresh) };
        }
        // Somebody has set it, and it stays.
        self.get().ok_or(Error::OutOfMemory)
    }
}

impl<T> Drop for Once<T> {
    fn drop(&mut self) {
        if let Some(value) = NonNull::new(self.value.load(Ordering::Acquire)) {
            // SAFETY: [once/own] set by `get_or_try`, and `&mut self` proves that nobody looks at it.
            unsafe { free(value) };
        }
    }
}

/// Moves `value` to the heap.
fn boxed<T>(value: T) -> Result<NonNull<T>, Error> {
    // SAFETY: [alloc/nonzero] `Once::FITS` keeps out types without a size.
    let memory = unsafe { alloc(Once::<T>::LAYOUT) };
    let place = NonNull::new(memory.cast::<T>()).ok_or(Error::OutOfMemory)?;
    // SAFETY: [ptr/own] fresh memory of the layout of `T`, which nobody else knows of.
    unsafe { place.write(value) };
    Ok(place)
}

/// # Safety
///
/// [once/own] `value` comes from `boxed`, is freed once, and nobody uses it any more.
unsafe fn free<T>(value: NonNull<T>) {
    // SAFETY: [once/own] a whole value, ours alone.
    unsafe { value.drop_in_place() };
    // SAFETY: [alloc/pair] allocated in `boxed` with this very layout.
    unsafe { dealloc(value.as_ptr().cast(), Once::<T>::LAYOUT) };
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::sync::atomic::AtomicU32;
    use core::sync::atomic::Ordering::Relaxed;

    use super::*;

    struct CountsDrops<'a>(&'a AtomicU32, u8);

    impl Drop for CountsDrops<'_> {
        fn drop(&mut self) {
            self.0.fetch_add(1, Relaxed);
        }
    }

    #[test]
    fn several_makers_agree_on_one_value_and_every_value_is_dropped_once() {
        let (made, drops) = (AtomicU32::new(0), AtomicU32::new(0));
        let once = Once::new();
        assert!(once.get().is_none());
        std::thread::scope(|scope| {
            let one = |number| {
                let make = || {
                    made.fetch_add(1, Relaxed);
                    Ok(CountsDrops(&drops, number))
                };
                core::ptr::from_ref(once.get_or_try(make).unwrap()) as usize
            };
            let threads: std::vec::Vec<_> = (0..3).map(|number| scope.spawn(move || one(number))).collect();
            let places: std::vec::Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
            assert!(places.iter().all(|place| *place == places[0]));
        });
        assert!(once.get().is_some_and(|value| value.1 < 3));
        drop(once);
        assert_eq!(made.load(Relaxed), drops.load(Relaxed));
    }

    #[test]
    fn what_cannot_be_made_can_be_tried_again() {
        let once = Once::<u8>::new();
        assert_eq!(once.get_or_try(|| Err(Error::OutOfMemory)), Err(Error::OutOfMemory));
        assert_eq!(once.get_or_try(|| Ok(7)), Ok(&7));
        assert_eq!(once.get_or_try(|| Ok(8)), Ok(&7));
    }
}
