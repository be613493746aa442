//! Objects that the outside world knows by number.

use super::heap;
use super::irql::RaiseToDispatch;
use alloc::vec::Vec;
use broker::{Error, IrqlLock, Shared};

/// A small set of shared objects, each under a number that is never used again.
///
/// Cookies and contexts that come back from FltMgr or from other drivers are such numbers and not
/// pointers: one that is stale finds nothing, instead of freed memory.
///
/// Its capacity is allocated at the start; looking up and removing work at IRQL <= DISPATCH_LEVEL.
pub(crate) struct Numbered<T> {
    entries: IrqlLock<Vec<(u64, Shared<T>)>, RaiseToDispatch>,
}

impl<T> Numbered<T> {
    /// An empty set for up to `capacity` objects.
    ///
    /// [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`).
    pub(crate) fn try_new(capacity: usize) -> Result<Self, Error> {
        let mut entries = Vec::new();
        entries.try_reserve_exact(capacity).map_err(|_| Error::OutOfMemory)?;
        Ok(Self { entries: IrqlLock::new(entries) })
    }

    /// Adds an object under a number that was never used before.
    ///
    /// [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`) where the set is full.
    pub(crate) fn insert(&self, number: u64, object: &Shared<T>) -> Result<(), Error> {
        // A clone goes in: where there is no room, what is dropped under the lock is not the last reference.
        let entry = (number, object.clone());
        let mut entries = self.entries.lock();
        if entries.len() == entries.capacity() {
            return Err(Error::OutOfMemory);
        }
        if heap::push(&mut entries, entry) { Ok(()) } else { Err(Error::OutOfMemory) }
    }

    /// The object under a number.
    pub(crate) fn get(&self, number: u64) -> Option<Shared<T>> {
        let entries = self.entries.lock();
        entries.iter().find(|(id, _)| *id == number).map(|(_, object)| object.clone())
    }

    /// Takes an object out; it lives on with those who have it.
    pub(crate) fn remove(&self, number: u64) -> Option<Shared<T>> {
        let mut entries = self.entries.lock();
        let index = entries.iter().position(|(id, _)| *id == number)?;
        // In range: just found. The order of the others does not matter.
        Some(entries.swap_remove(index).1)
    }

    /// The object with the smallest number above `last`, for walking through all of them without holding the lock.
    pub(crate) fn next(&self, last: u64) -> Option<Shared<T>> {
        let entries = self.entries.lock();
        entries.iter().filter(|(id, _)| *id > last).min_by_key(|(id, _)| *id).map(|(_, object)| object.clone())
    }

    /// Some object, if there is one: for taking them all out, one after the other.
    pub(crate) fn any(&self) -> Option<(u64, Shared<T>)> {
        let entries = self.entries.lock();
        entries.first().map(|(id, object)| (*id, object.clone()))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.entries.lock().len()
    }
}
