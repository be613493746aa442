//! Containers of one thread, under one lock.

use std::sync::Arc;

use slotmap::DefaultKey;

use crate::table::Table;

/// `slab::Slab` in `spin::Mutex`. Without generations: a handle that is closed twice hits a stranger.
pub(crate) struct Slab(spin::Mutex<slab::Slab<Arc<u64>>>);

impl Table for Slab {
    const NAME: &'static str = "slab";
    type Key = usize;

    fn new(_most: usize) -> Self {
        Self(spin::Mutex::new(slab::Slab::new()))
    }

    fn insert(&self, _client: usize, object: u64) -> usize {
        // Allocated outside the lock, as one would.
        let object = Arc::new(object);
        self.0.lock().insert(object)
    }

    fn get(&self, _client: usize, key: usize) -> Option<u64> {
        let pinned = self.0.lock().get(key).cloned();
        pinned.map(|object| *object)
    }

    fn remove(&self, _client: usize, key: usize) -> bool {
        let removed = self.0.lock().try_remove(key);
        removed.is_some()
    }
}

/// `slotmap::SlotMap` in `spin::RwLock`.
pub(crate) struct SlotMap(spin::RwLock<slotmap::SlotMap<DefaultKey, Arc<u64>>>);

impl Table for SlotMap {
    const NAME: &'static str = "slotmap";
    type Key = DefaultKey;

    fn new(_most: usize) -> Self {
        Self(spin::RwLock::new(slotmap::SlotMap::new()))
    }

    fn insert(&self, _client: usize, object: u64) -> DefaultKey {
        let object = Arc::new(object);
        self.0.write().insert(object)
    }

    fn get(&self, _client: usize, key: DefaultKey) -> Option<u64> {
        let pinned = self.0.read().get(key).cloned();
        pinned.map(|object| *object)
    }

    fn remove(&self, _client: usize, key: DefaultKey) -> bool {
        let removed = self.0.write().remove(key);
        removed.is_some()
    }
}
