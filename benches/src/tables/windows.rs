//! A table in the manner of Windows' own: a lock bit in each entry of 16 bytes, and counted objects.

use std::sync::{Arc, OnceLock};

use crate::table::Table;

/// Look-up locks the entry, references the object and unlocks the entry; letting go dereferences the object. As in Windows
/// an entry has no generation, and free entries are on a list under a lock.
pub(crate) struct Windows {
    pages: Vec<OnceLock<Box<[Entry]>>>,
    free: spin::Mutex<Free>,
}

/// An entry and its lock bit.
type Entry = spin::Mutex<Option<Arc<u64>>>;

struct Free {
    reusable: Vec<u32>,
    fresh: u32,
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
            free: spin::Mutex::new(Free { reusable: Vec::new(), fresh: 0 }),
        }
    }

    fn insert(&self, _client: usize, object: u64) -> u32 {
        let object = Arc::new(object);
        let key = {
            let mut free = self.free.lock();
            free.reusable.pop().unwrap_or_else(|| {
                free.fresh += 1;
                free.fresh - 1
            })
        };
        let page = self.pages[key as usize / PAGE].get_or_init(|| (0..PAGE).map(|_| Entry::new(None)).collect());
        *page[key as usize % PAGE].lock() = Some(object);
        key
    }

    fn get(&self, _client: usize, key: u32) -> Option<u64> {
        let pinned = self.entry(key)?.lock().clone();
        pinned.map(|object| *object)
    }

    fn remove(&self, _client: usize, key: u32) -> bool {
        let Some(entry) = self.entry(key) else {
            return false;
        };
        let removed = entry.lock().take();
        if removed.is_some() {
            self.free.lock().reusable.push(key);
        }
        removed.is_some()
    }
}
