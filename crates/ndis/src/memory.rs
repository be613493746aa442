//! Non-paged memory from NDIS.

use core::mem;
use core::ops::{Deref, DerefMut};
use core::ptr::{self, NonNull};

use crate::NdisStatus;
use crate::miniport::AdapterHandle;
use crate::raw::{NdisAllocateMemoryWithTagPriority, NdisFreeMemory};

/// Priority of an allocation that may fail when memory is short (`NormalPoolPriority`).
const NORMAL_POOL_PRIORITY: u32 = 16;

/// Alignment that the pool guarantees, in bytes.
const POOL_ALIGNMENT: usize = 16;

/// A value in non-paged memory of NDIS. Usable and droppable at IRQL <= `DISPATCH_LEVEL`.
pub struct NdisBox<T> {
    value: NonNull<T>,
}

// SAFETY: the box owns its value, as `alloc::boxed::Box` does; pool memory may be used and freed on any thread.
unsafe impl<T: Send> Send for NdisBox<T> {}
// SAFETY: as above; a shared box gives out shared references only.
unsafe impl<T: Sync> Sync for NdisBox<T> {}

impl<T> NdisBox<T> {
    /// Moves `value` into memory tagged `tag` (four characters, first one in the lowest byte).
    ///
    /// # Errors
    /// `NDIS_STATUS_RESOURCES`; `value` is dropped then.
    pub fn new(adapter: AdapterHandle, tag: u32, value: T) -> Result<Self, NdisStatus> {
        const {
            assert!(mem::align_of::<T>() <= POOL_ALIGNMENT, "pool memory is 16-byte aligned");
            assert!(mem::size_of::<T>() > 0 && mem::size_of::<T>() <= 0x1_0000, "one allocation of pool");
        }
        // SAFETY: the handle is an adapter's; IRQL as documented on this function.
        let memory = unsafe {
            NdisAllocateMemoryWithTagPriority(adapter.as_raw(), mem::size_of::<T>() as u32, tag, NORMAL_POOL_PRIORITY)
        };
        let value_at = NonNull::new(memory.cast::<T>()).ok_or(NdisStatus::RESOURCES)?;
        // SAFETY: freshly allocated, large enough and aligned (asserted above), and owned by nobody else.
        unsafe { value_at.write(value) };
        Ok(Self { value: value_at })
    }

    /// Gives up ownership; [`from_raw`](Self::from_raw) takes it back.
    #[must_use]
    pub fn into_raw(self) -> *mut T {
        let value = self.value;
        mem::forget(self);
        value.as_ptr()
    }

    /// Takes back what [`into_raw`](Self::into_raw) gave up; `None` for NULL.
    ///
    /// # Safety
    /// `raw` is NULL or came from `into_raw`, and is taken back once.
    #[must_use]
    pub unsafe fn from_raw(raw: *mut T) -> Option<Self> {
        NonNull::new(raw).map(|value| Self { value })
    }

    /// Address of the value, which stays put for the life of the box.
    #[must_use]
    pub fn as_ptr(&self) -> *mut T {
        self.value.as_ptr()
    }
}

impl<T> Deref for NdisBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the box owns a valid value.
        unsafe { self.value.as_ref() }
    }
}

impl<T> DerefMut for NdisBox<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the box owns a valid value, and is borrowed exclusively.
        unsafe { self.value.as_mut() }
    }
}

impl<T> Drop for NdisBox<T> {
    fn drop(&mut self) {
        // SAFETY: the value is valid and not used afterwards.
        unsafe { ptr::drop_in_place(self.value.as_ptr()) };
        // SAFETY: allocated by `new`; flags must be 0 for such memory.
        unsafe { NdisFreeMemory(self.value.as_ptr().cast(), 0, 0) };
    }
}
