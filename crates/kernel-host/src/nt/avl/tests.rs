//! The tables against a sorted list.

use super::*;
use crate::conformance::conforms;
use crate::nt::table_routines::testing::{self, allocate, allocate_nothing};
use std::collections::BTreeSet;

fn with_table(allocate: usize, body: impl FnOnce(Raw<u8>)) {
    testing::with_table(initialize, allocate, body);
}

fn add(table: Raw<u8>, value: u64) -> (usize, bool) {
    let mut value = value;
    let mut new = 9;
    let data = insert(table, Raw::of(&raw mut value).address(), 8, Raw::of(&raw mut new));
    (data, new == 1)
}

fn remove(table: Raw<u8>, value: u64) -> bool {
    let mut value = value;
    delete(table, Raw::of(&raw mut value).address()) != 0
}

fn elements(table: Raw<u8>) -> Vec<u64> {
    let mut key = 0;
    let key = Raw::of(&raw mut key);
    std::iter::from_fn(|| Some(enumerate_without_splaying(table, key)).filter(|data| *data != 0))
        .map(|data| Raw::<u64>::at(data).read())
        .collect()
}

#[test]
fn elements_come_in_order_whatever_was_inserted_and_deleted() {
    conforms!(
        "ntddk/nf-ntddk-rtlenumerategenerictablewithoutsplayingavl.md",
        "Elements are enumerated in the order of the compare routine, NULL after the last."
    );
    conforms!(
        "ntddk/nf-ntddk-rtldeleteelementgenerictableavl.md",
        "TRUE is returned when the element was deleted, FALSE when there was none."
    );
    with_table(allocate as *const () as usize, |table| {
        let mut model = BTreeSet::new();
        for step in 0..600_u64 {
            let value = step.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56;
            if step % 3 == 2 {
                assert_eq!(remove(table, value), model.remove(&value));
            } else {
                assert_eq!(add(table, value).1, model.insert(value));
            }
            assert_eq!(number(table) as usize, model.len());
        }
        assert_eq!(elements(table), model.iter().copied().collect::<Vec<_>>());
        let depth = table.field::<u32>(table::DEPTH).read();
        assert!(f64::from(depth) <= 1.45 * f64::from(number(table)).log2() + 2.0, "depth {depth}");
        for value in model {
            assert!(remove(table, value));
        }
        assert_eq!(is_empty(table), 1);
    });
}

#[test]
fn an_equal_element_is_found_instead_of_inserted() {
    conforms!(
        "ntddk/nf-ntddk-rtlinsertelementgenerictableavl.md",
        "A matching element that is there already is returned, and NewElement is FALSE."
    );
    conforms!(
        "ntddk/nf-ntddk-rtlinsertelementgenerictableavl.md",
        "The data is copied: what is returned is not the caller's buffer."
    );
    with_table(allocate as *const () as usize, |table| {
        let (data, new) = add(table, 5);
        assert!(new);
        assert_eq!(add(table, 5), (data, false));
        let mut key = 5_u64;
        let key = Raw::of(&raw mut key);
        assert_ne!(data, key.address());
        assert_eq!((lookup(table, key.address()), get(table, 0), get(table, 1)), (data, data, 0));
        assert!(remove(table, 5));
        assert_eq!(lookup(table, key.address()), 0);
    });
}

#[test]
fn an_element_without_memory_is_not_inserted() {
    conforms!("ntddk/nf-ntddk-rtlinsertelementgenerictableavl.md", "NULL is returned when the allocate routine fails.");
    with_table(allocate_nothing as *const () as usize, |table| {
        assert_eq!(add(table, 5), (0, false));
        assert_eq!(number(table), 0);
    });
}
