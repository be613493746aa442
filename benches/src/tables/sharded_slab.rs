//! `sharded-slab`: the closest relative. Pins, defers the removal to the last pin, has generations; needs `std`.

use crate::table::Table;

/// `sharded_slab::Slab`.
pub(crate) struct ShardedSlab(sharded_slab::Slab<u64>);

impl Table for ShardedSlab {
    const NAME: &'static str = "sharded-slab";
    // Two threads that call `remove` at once can both be told `true`; the value is dropped once all the same.
    const ONE_WINNER: bool = false;
    type Key = usize;

    fn new(_most: usize) -> Self {
        Self(sharded_slab::Slab::new())
    }

    fn insert(&self, _client: usize, object: u64) -> usize {
        self.0.insert(object).expect("room for a handle")
    }

    fn get(&self, _client: usize, key: usize) -> Option<u64> {
        self.0.get(key).map(|pinned| *pinned)
    }

    fn remove(&self, _client: usize, key: usize) -> bool {
        self.0.remove(key)
    }
}
