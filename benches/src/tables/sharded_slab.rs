//! `sharded-slab`: the closest relative. Pins, defers the removal to the last pin, has generations; needs `std`.
//!
//! It has no removal under a condition. To ask for the client first would take another pin, so its removal asks nobody.

use crate::table::{Quotas, Table};

/// `sharded_slab::Slab`.
pub(crate) struct ShardedSlab {
    slab: sharded_slab::Slab<(u64, usize)>,
    quotas: Quotas,
}

impl Table for ShardedSlab {
    const NAME: &'static str = "sharded-slab";
    // Two threads that call `remove` at once can both be told `true`; the value is dropped once all the same.
    const ONE_WINNER: bool = false;
    type Key = usize;

    fn new(_most: usize) -> Self {
        Self { slab: sharded_slab::Slab::new(), quotas: Quotas::new() }
    }

    fn insert(&self, client: usize, object: u64) -> usize {
        self.quotas.take(client);
        self.slab.insert((object, client)).expect("room for a handle")
    }

    fn get(&self, client: usize, key: usize) -> Option<u64> {
        self.slab.get(key).filter(|pinned| pinned.1 == client).map(|pinned| pinned.0)
    }

    fn remove(&self, client: usize, key: usize) -> bool {
        let removed = self.slab.remove(key);
        if removed {
            self.quotas.give_back(client);
        }
        removed
    }
}
