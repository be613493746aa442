//! Allocation that fails with an error, and leaves no panic in the image.
//!
//! The compiler does not always see that a `push` after `try_reserve` cannot grow, nor that a boxed slice need not shrink; it
//! links the panic for the case that it does. These few functions have no such case.

use alloc::alloc::{Layout, alloc, alloc_zeroed, dealloc};
use alloc::vec::Vec;
use broker::Error;

/// Moves `value` to the heap. Freed with [`free`].
///
/// [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`); the value is dropped then.
pub(crate) fn boxed<T>(value: T) -> Result<*mut T, Error> {
    const { assert!(size_of::<T>() > 0 && align_of::<T>() <= 16, "pool aligns to 16 bytes") };
    // SAFETY: the size is not zero.
    let place = unsafe { alloc(Layout::new::<T>()) }.cast::<T>();
    if place.is_null() {
        return Err(Error::OutOfMemory);
    }
    // SAFETY: fresh memory of the layout of T.
    unsafe { place.write(value) };
    Ok(place)
}

/// A value of zeros on the heap, which never was on the stack. Freed with [`free`].
///
/// [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`).
pub(crate) fn zeroed_box<T: Zeroable>() -> Result<*mut T, Error> {
    const { assert!(size_of::<T>() > 0 && align_of::<T>() <= 16, "pool aligns to 16 bytes") };
    // SAFETY: the size is not zero.
    let place = unsafe { alloc_zeroed(Layout::new::<T>()) }.cast::<T>();
    if place.is_null() { Err(Error::OutOfMemory) } else { Ok(place) }
}

/// Types of which zeros are a value.
///
/// # Safety
/// Any instance of the type may be all zero bytes.
pub(crate) unsafe trait Zeroable {}

// SAFETY: zero is a number.
unsafe impl<const N: usize> Zeroable for [u16; N] {}

/// Drops and frees what [`boxed`] or [`zeroed_box`] made; NULL is left alone.
///
/// # Safety
/// `place` is NULL, or comes from [`boxed`] or [`zeroed_box`] and is not used by anybody any more.
pub(crate) unsafe fn free<T>(place: *mut T) {
    if place.is_null() {
        return;
    }
    // SAFETY: a live value that nobody uses (the caller's word).
    unsafe { place.drop_in_place() };
    // SAFETY: allocated with this very layout.
    unsafe { dealloc(place.cast(), Layout::new::<T>()) };
}

/// Appends to a vector that has room; whether it had.
#[must_use]
pub(crate) fn push<T>(vec: &mut Vec<T>, item: T) -> bool {
    let length = vec.len();
    let Some(place) = vec.spare_capacity_mut().first_mut() else { return false };
    place.write(item);
    // SAFETY: the element at `length` was just written, within the capacity.
    unsafe { vec.set_len(length.wrapping_add(1)) };
    true
}

/// A buffer of `length` zero bytes.
///
/// [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`).
pub(crate) fn zeroed(length: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(length).map_err(|_| Error::OutOfMemory)?;
    for place in bytes.spare_capacity_mut().iter_mut().take(length) {
        place.write(0);
    }
    // SAFETY: that many bytes were reserved, and have just been written.
    unsafe { bytes.set_len(length) };
    Ok(bytes)
}
