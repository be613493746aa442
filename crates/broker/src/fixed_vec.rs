//! A vector that never grows by itself.

#![expect(
    unsafe_code,
    reason = "Vec::push carries code that grows and, where it cannot, panics; push_within_capacity is not stable"
)]

use alloc::vec::Vec;
use core::ops::Deref;

use crate::Error;

/// A `Vec` whose elements are added only into room that was reserved before.
///
/// The compiler cannot see that a `push` after `try_reserve` never allocates, so it links the panic for the case that
/// it does; and a driver that can panic is a driver that can bug-check. Reading is `Vec`'s, through `Deref`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FixedVec<T> {
    items: Vec<T>,
}

impl<T> FixedVec<T> {
    /// Nothing, and no room.
    pub(crate) const fn new() -> Self {
        Self { items: Vec::new() }
    }

    /// Room for `capacity` elements, at least.
    ///
    /// [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`).
    pub(crate) fn try_with_capacity(capacity: usize) -> Result<Self, Error> {
        let mut vec = Self::new();
        vec.items.try_reserve_exact(capacity).map_err(|_| Error::OutOfMemory)?;
        Ok(vec)
    }

    /// Makes room for one more element. [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`).
    pub(crate) fn try_reserve_one(&mut self) -> Result<(), Error> {
        self.items.try_reserve(1).map_err(|_| Error::OutOfMemory)
    }

    /// Whether there is no room for another element.
    pub(crate) fn is_full(&self) -> bool {
        self.items.len() == self.items.capacity()
    }

    /// Appends an element, or gives it back where there is no room. Returns its index.
    pub(crate) fn push(&mut self, item: T) -> Result<usize, T> {
        let index = self.items.len();
        let Some(place) = self.items.spare_capacity_mut().first_mut() else {
            return Err(item);
        };
        place.write(item);
        // SAFETY: [vec/len] the element at `index` was just written, and it lies within the capacity, which is never
        // so large that adding one overflows.
        unsafe { self.items.set_len(index.wrapping_add(1)) };
        Ok(index)
    }

    /// Takes out the element at `index`; the last one takes its place.
    pub(crate) fn swap_remove(&mut self, index: usize) -> Option<T> {
        if index >= self.items.len() {
            return None;
        }
        let last = self.items.pop()?;
        match self.items.get_mut(index) {
            Some(place) => Some(core::mem::replace(place, last)),
            // It was the last one itself.
            None => Some(last),
        }
    }

    /// Keeps only the elements for which `keep` says so.
    pub(crate) fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        self.items.retain(keep);
    }

    /// The element at `index`.
    pub(crate) fn get_mut(&mut self, index: usize) -> Option<&mut T> {
        self.items.get_mut(index)
    }

    /// All elements.
    pub(crate) fn iter_mut(&mut self) -> core::slice::IterMut<'_, T> {
        self.items.iter_mut()
    }
}

impl<T> Default for FixedVec<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Deref for FixedVec<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.items
    }
}

#[cfg(test)]
mod tests {
    use std::string::{String, ToString};

    use super::*;

    #[test]
    fn push_without_room_gives_the_element_back() {
        let mut vec = FixedVec::<String>::try_with_capacity(2).unwrap();
        while !vec.is_full() {
            vec.push("x".to_string()).unwrap();
        }
        let length = vec.len();
        assert_eq!(vec.push("y".to_string()), Err("y".to_string()));
        assert_eq!(vec.len(), length);
        vec.try_reserve_one().unwrap();
        assert_eq!(vec.push("y".to_string()), Ok(length));
    }

    #[test]
    fn swap_remove_takes_the_right_element_or_none() {
        let mut vec = FixedVec::try_with_capacity(3).unwrap();
        for n in 0..3 {
            vec.push(n.to_string()).unwrap();
        }
        assert_eq!(vec.swap_remove(0).as_deref(), Some("0"));
        assert_eq!(*vec, ["2".to_string(), "1".to_string()]);
        assert_eq!(vec.swap_remove(5), None);
        assert_eq!(vec.swap_remove(1).as_deref(), Some("1"));
        assert_eq!(vec.swap_remove(0).as_deref(), Some("2"));
        assert_eq!(vec.swap_remove(0), None);
    }
}
