//! Containers of one thread, under one lock.

use std::sync::Arc;

use slotmap::DefaultKey;

use crate::table::{CLIENTS, LockedQuotas, QUOTA, Table};

/// `slab::Slab` in `spin::Mutex`, with a generation in each entry.
pub(crate) struct Slab(spin::Mutex<Slabs>);

struct Slabs {
    entries: slab::Slab<Entry>,
    next_generation: u32,
    quotas: LockedQuotas,
}

struct Entry {
    object: Arc<u64>,
    generation: u32,
    client: u32,
}

impl Slabs {
    fn find(&self, client: usize, key: (u32, u32)) -> Option<&Entry> {
        let entry = self.entries.get(key.0 as usize)?;
        (entry.generation == key.1 && entry.client == client as u32).then_some(entry)
    }
}

impl Table for Slab {
    const NAME: &'static str = "slab";
    type Key = (u32, u32);

    fn new(_most: usize) -> Self {
        Self(spin::Mutex::new(Slabs { entries: slab::Slab::new(), next_generation: 0, quotas: [0; CLIENTS] }))
    }

    fn insert(&self, client: usize, object: u64) -> (u32, u32) {
        // Allocated outside the lock, as one would.
        let object = Arc::new(object);
        let mut slabs = self.0.lock();
        let slabs = &mut *slabs;
        assert!(slabs.quotas[client] < QUOTA, "a client has too many handles");
        slabs.quotas[client] += 1;
        // One count for all: no two entries of a place have the same.
        slabs.next_generation = slabs.next_generation.wrapping_add(1);
        let generation = slabs.next_generation;
        (slabs.entries.insert(Entry { object, generation, client: client as u32 }) as u32, generation)
    }

    fn get(&self, client: usize, key: (u32, u32)) -> Option<u64> {
        let pinned = self.0.lock().find(client, key).map(|entry| Arc::clone(&entry.object));
        pinned.map(|object| *object)
    }

    fn remove(&self, client: usize, key: (u32, u32)) -> bool {
        let removed = {
            let mut slabs = self.0.lock();
            if slabs.find(client, key).is_none() {
                return false;
            }
            slabs.quotas[client] -= 1;
            slabs.entries.remove(key.0 as usize)
        };
        drop(removed);
        true
    }
}

/// `slotmap::SlotMap` in `spin::RwLock`.
pub(crate) struct SlotMap(spin::RwLock<SlotMaps>);

struct SlotMaps {
    entries: slotmap::SlotMap<DefaultKey, (Arc<u64>, u32)>,
    quotas: LockedQuotas,
}

impl Table for SlotMap {
    const NAME: &'static str = "slotmap";
    type Key = DefaultKey;

    fn new(_most: usize) -> Self {
        Self(spin::RwLock::new(SlotMaps { entries: slotmap::SlotMap::new(), quotas: [0; CLIENTS] }))
    }

    fn insert(&self, client: usize, object: u64) -> DefaultKey {
        let object = Arc::new(object);
        let mut maps = self.0.write();
        assert!(maps.quotas[client] < QUOTA, "a client has too many handles");
        maps.quotas[client] += 1;
        maps.entries.insert((object, client as u32))
    }

    fn get(&self, client: usize, key: DefaultKey) -> Option<u64> {
        let pinned = {
            let maps = self.0.read();
            maps.entries.get(key).filter(|entry| entry.1 == client as u32).map(|entry| Arc::clone(&entry.0))
        };
        pinned.map(|object| *object)
    }

    fn remove(&self, client: usize, key: DefaultKey) -> bool {
        let removed = {
            let mut maps = self.0.write();
            if maps.entries.get(key).is_none_or(|entry| entry.1 != client as u32) {
                return false;
            }
            maps.quotas[client] -= 1;
            maps.entries.remove(key)
        };
        removed.is_some()
    }
}
