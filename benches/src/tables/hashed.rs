//! Concurrent hash maps. What was read stays valid under a guard of their memory reclamation, so they need no
//! `Arc`; but when a removed object is really dropped, nobody can tell.
//!
//! Keys count up and are not used twice, which is what others have generations for.

use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicU64, Ordering};

use rustc_hash::FxHasher;

use crate::table::{CLIENTS, Quotas, Table};

/// The cheapest hash there is: what these maps are measured with should not be `SipHash`.
type Hasher = BuildHasherDefault<FxHasher>;

/// What a client has made a handle for.
#[derive(Clone, Copy)]
struct Object {
    number: u64,
    client: usize,
}

/// `papaya::HashMap`.
pub(crate) struct Papaya {
    map: papaya::HashMap<u64, Object, Hasher>,
    names: Names,
    quotas: Quotas,
}

/// `scc::HashIndex`, scc's map for reading.
pub(crate) struct Scc {
    map: scc::HashIndex<u64, Object, Hasher>,
    names: Names,
    quotas: Quotas,
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
        Self { map: papaya::HashMap::with_hasher(Hasher::default()), names: Names::new(), quotas: Quotas::new() }
    }

    fn insert(&self, client: usize, object: u64) -> u64 {
        let key = self.names.next(client);
        self.quotas.take(client);
        self.map.pin().insert(key, Object { number: object, client });
        key
    }

    fn get(&self, client: usize, key: u64) -> Option<u64> {
        self.map.pin().get(&key).filter(|object| object.client == client).map(|object| object.number)
    }

    fn remove(&self, client: usize, key: u64) -> bool {
        let removed = matches!(self.map.pin().remove_if(&key, |_, object| object.client == client), Ok(Some(_)));
        if removed {
            self.quotas.give_back(client);
        }
        removed
    }
}

impl Table for Scc {
    const NAME: &'static str = "scc";
    type Key = u64;

    fn new(_most: usize) -> Self {
        Self { map: scc::HashIndex::with_hasher(Hasher::default()), names: Names::new(), quotas: Quotas::new() }
    }

    fn insert(&self, client: usize, object: u64) -> u64 {
        let key = self.names.next(client);
        self.quotas.take(client);
        let inserted = self.map.insert_sync(key, Object { number: object, client });
        assert!(inserted.is_ok(), "names are given out once");
        key
    }

    fn get(&self, client: usize, key: u64) -> Option<u64> {
        self.map.peek_with(&key, |_, object| (object.client == client).then_some(object.number)).flatten()
    }

    fn remove(&self, client: usize, key: u64) -> bool {
        let removed = self.map.remove_if_sync(&key, |object| object.client == client);
        if removed {
            self.quotas.give_back(client);
        }
        removed
    }
}
