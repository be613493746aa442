//! Concurrent hash maps. What was read stays valid under a guard of their memory reclamation, so they need no
//! `Arc`; but when a removed object is really dropped, nobody can tell.

use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicU64, Ordering};

use rustc_hash::FxHasher;

use crate::table::{CLIENTS, Table};

/// The cheapest hash there is: what these maps are measured with should not be `SipHash`.
type Hasher = BuildHasherDefault<FxHasher>;

/// `papaya::HashMap`.
pub(crate) struct Papaya {
    map: papaya::HashMap<u64, u64, Hasher>,
    names: Names,
}

/// `scc::HashIndex`, scc's map for reading.
pub(crate) struct Scc {
    map: scc::HashIndex<u64, u64, Hasher>,
    names: Names,
}

/// Maps have no handles of their own: numbers count up, for each client apart.
struct Names([Name; CLIENTS]);

/// On a cache line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Name(AtomicU64);

impl Names {
    fn new() -> Self {
        Self(std::array::from_fn(|_| Name::default()))
    }

    fn next(&self, client: usize) -> u64 {
        let number = self.0[client].0.fetch_add(1, Ordering::Relaxed);
        number * CLIENTS as u64 + client as u64
    }
}

impl Table for Papaya {
    const NAME: &'static str = "papaya";
    type Key = u64;

    fn new(_most: usize) -> Self {
        Self { map: papaya::HashMap::with_hasher(Hasher::default()), names: Names::new() }
    }

    fn insert(&self, client: usize, object: u64) -> u64 {
        let key = self.names.next(client);
        self.map.pin().insert(key, object);
        key
    }

    fn get(&self, _client: usize, key: u64) -> Option<u64> {
        self.map.pin().get(&key).copied()
    }

    fn remove(&self, _client: usize, key: u64) -> bool {
        self.map.pin().remove(&key).is_some()
    }
}

impl Table for Scc {
    const NAME: &'static str = "scc";
    type Key = u64;

    fn new(_most: usize) -> Self {
        Self { map: scc::HashIndex::with_hasher(Hasher::default()), names: Names::new() }
    }

    fn insert(&self, client: usize, object: u64) -> u64 {
        let key = self.names.next(client);
        assert!(self.map.insert_sync(key, object).is_ok(), "names are given out once");
        key
    }

    fn get(&self, _client: usize, key: u64) -> Option<u64> {
        self.map.peek_with(&key, |_, object| *object)
    }

    fn remove(&self, _client: usize, key: u64) -> bool {
        self.map.remove_sync(&key)
    }
}
