//! A table in the manner of Windows' own: a lock bit in each entry of 16 bytes, and counted objects.

use std::sync::{Arc, OnceLock};

use crate::table::{CLIENTS, LockedQuotas, QUOTA, Table};

/// Look-up locks the entry, references the object and unlocks the entry; letting go dereferences the object. As in Windows
/// an entry has no generation, and free entries are on a list under a lock. There each process has a table, and with it its quota; here
/// all clients share one, so an object knows its client.
pub(crate) struct Windows {
    pages: Vec<OnceLock<Box<[Entry]>>>,
    free: spin::Mutex<Free>,
}

/// An entry and its lock bit.
type Entry = spin::Mutex<Option<Arc<Object>>>;

struct Object {
    number: u64,
    client: usize,
}

struct Free {
    reusable: Vec<u32>,
    fresh: u32,
    quotas: LockedQuotas,
}

/// As many entries of 16 bytes as fill a page of memory.
const PAGE: usize = 256;

impl Windows {
    fn entry(&self, key: u32) -> Option<&Entry> {
        self.pages.get(key as usize / PAGE)?.get()?.get(key as usize % PAGE)
    }
}

impl Table for Windows {
    const NAME: &'static str = "windows";
    type Key = u32;

    fn new(most: usize) -> Self {
        Self {
            pages: (0..most.div_ceil(PAGE)).map(|_| OnceLock::new()).collect(),
            free: spin::Mutex::new(Free { reusable: Vec::new(), fresh: 0, quotas: [0; CLIENTS] }),
        }
    }

    fn insert(&self, client: usize, object: u64) -> u32 {
        let object = Arc::new(Object { number: object, client });
        let key = {
            let mut free = self.free.lock();
            assert!(free.quotas[client] < QUOTA, "a client has too many handles");
            free.quotas[client] += 1;
            free.reusable.pop().unwrap_or_else(|| {
                free.fresh += 1;
                free.fresh - 1
            })
        };
        let page = self.pages[key as usize / PAGE].get_or_init(|| (0..PAGE).map(|_| Entry::new(None)).collect());
        *page[key as usize % PAGE].lock() = Some(object);
        key
    }

    fn get(&self, client: usize, key: u32) -> Option<u64> {
        let pinned = self.entry(key)?.lock().clone();
        pinned.filter(|object| object.client == client).map(|object| object.number)
    }

    fn remove(&self, client: usize, key: u32) -> bool {
        let Some(entry) = self.entry(key) else {
            return false;
        };
        let removed = {
            let mut entry = entry.lock();
            if entry.as_ref().is_some_and(|object| object.client == client) { entry.take() } else { None }
        };
        if removed.is_some() {
            let mut free = self.free.lock();
            free.reusable.push(key);
            free.quotas[client] -= 1;
        }
        removed.is_some()
    }
}
