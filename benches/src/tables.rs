//! The contenders.

mod fwbroker;
mod hashed;
mod locked;
mod sharded_slab;
mod windows;

pub(crate) use fwbroker::Fwbroker;
pub(crate) use hashed::{Papaya, Scc};
pub(crate) use locked::{Slab, SlotMap};
pub(crate) use sharded_slab::ShardedSlab;
pub(crate) use windows::Windows;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Table;

    fn finds_and_closes_once<T: Table>() {
        let table = T::new(100_000);
        let keys: Vec<_> = (0..3000).map(|object| table.insert(0, object)).collect();
        for (key, object) in keys.iter().zip(0..) {
            assert_eq!(table.get(0, *key), Some(object), "{}", T::NAME);
            assert_eq!(table.get(1, *key), None, "{}: a handle of another client is good", T::NAME);
        }
        for key in &keys {
            assert!(table.remove(0, *key), "{}", T::NAME);
            assert!(!table.remove(0, *key), "{}", T::NAME);
            assert_eq!(table.get(0, *key), None, "{}", T::NAME);
        }
    }

    #[test]
    fn every_contender_finds_what_it_was_given_and_closes_it_once() {
        finds_and_closes_once::<Fwbroker>();
        finds_and_closes_once::<ShardedSlab>();
        finds_and_closes_once::<Slab>();
        finds_and_closes_once::<SlotMap>();
        finds_and_closes_once::<Papaya>();
        finds_and_closes_once::<Scc>();
        finds_and_closes_once::<Windows>();
    }
}
