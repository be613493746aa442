//! The tables against a sorted list, and what their pages say of orders and indices.

use super::*;
use crate::conformance::conforms;
use crate::ddi::testing::Bench;
use crate::finding::Rule;
use crate::nt::table_routines::testing::{self, allocate, allocate_nothing};
use std::collections::BTreeSet;

fn with_table(body: impl FnOnce(Raw<u8>)) {
    testing::with_table(initialize, allocate as *const () as usize, body);
}

fn add(table: Raw<u8>, value: u64) -> (usize, bool) {
    let mut value = value;
    let mut new = 9;
    let data = insert(table, Raw::of(&raw mut value).address(), 8, Raw::of(&raw mut new));
    (data, new == 1)
}

fn find(table: Raw<u8>, value: u64) -> usize {
    let mut value = value;
    lookup(table, Raw::of(&raw mut value).address())
}

fn remove(table: Raw<u8>, value: u64) -> bool {
    let mut value = value;
    delete(table, Raw::of(&raw mut value).address()) != 0
}

fn values(mut next: impl FnMut() -> usize) -> Vec<u64> {
    std::iter::from_fn(|| Some(next()).filter(|data| *data != 0)).map(|data| Raw::<u64>::at(data).read()).collect()
}

fn elements(table: Raw<u8>) -> Vec<u64> {
    let mut key = 0;
    let key = Raw::of(&raw mut key);
    values(|| enumerate_without_splaying(table, key))
}

fn by_index(table: Raw<u8>) -> Vec<u64> {
    (0..number(table)).map(|index| Raw::<u64>::at(get(table, index)).read()).collect()
}

#[test]
fn elements_come_in_order_whatever_was_inserted_and_deleted() {
    conforms!(
        "ntddk/nf-ntddk-rtlenumerategenerictablewithoutsplaying.md",
        "NULL is returned for an empty table and after the last element; the order is that of the compare routine."
    );
    conforms!(
        "ntddk/nf-ntddk-rtldeleteelementgenerictable.md",
        "TRUE is returned when the element was deleted, FALSE otherwise; the free routine gets its memory."
    );
    conforms!("ntddk/nf-ntddk-rtlnumbergenerictableelements.md", "The number of elements in the table is returned.");
    conforms!("ntddk/nf-ntddk-rtlisgenerictableempty.md", "FALSE is returned while there is an element, else TRUE.");
    with_table(|table| {
        let mut model = BTreeSet::new();
        for step in 0..600_u64 {
            let value = step.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56;
            if step % 3 == 2 {
                assert_eq!(remove(table, value), model.remove(&value));
            } else {
                assert_eq!(add(table, value).1, model.insert(value));
            }
            assert_eq!((number(table) as usize, is_empty(table) == 0), (model.len(), !model.is_empty()));
        }
        assert_eq!(elements(table), model.iter().copied().collect::<Vec<_>>());
        for value in model {
            assert!(remove(table, value));
        }
        assert_eq!((elements(table), is_empty(table)), (vec![], 1));
    });
}

#[test]
fn an_enumeration_restarts_when_told_so() {
    conforms!(
        "ntddk/nf-ntddk-rtlenumerategenerictable.md",
        "Restart begins with the first element, FALSE goes on; NULL comes after the last."
    );
    with_table(|table| {
        assert_eq!(enumerate(table, 1), 0);
        for value in [3, 1, 2] {
            add(table, value);
        }
        for _ in 0..2 {
            let mut restart = 1;
            assert_eq!(values(|| enumerate(table, std::mem::take(&mut restart))), [1, 2, 3]);
        }
        for value in 1..=3 {
            remove(table, value);
        }
    });
}

#[test]
fn an_index_counts_in_the_order_of_insertion() {
    conforms!(
        "ntddk/nf-ntddk-rtlgetelementgenerictable.md",
        "Index 0 is the element inserted first; one that is too large gives NULL."
    );
    conforms!(
        "ntddk/nf-ntddk-rtlgetelementgenerictable.md",
        "When an element is deleted, those inserted after it move down by one."
    );
    with_table(|table| {
        for value in [30, 10, 20, 5] {
            add(table, value);
        }
        assert_eq!(by_index(table), [30, 10, 20, 5]);
        assert_eq!((Raw::<u64>::at(get(table, 1)).read(), get(table, 4)), (10, 0));
        remove(table, 10);
        assert_eq!(by_index(table), [30, 20, 5]);
        add(table, 10);
        assert_eq!(by_index(table), [30, 20, 5, 10]);
        for value in [30, 10, 20, 5] {
            remove(table, value);
        }
    });
}

#[test]
fn an_equal_element_is_found_instead_of_inserted() {
    conforms!(
        "ntddk/nf-ntddk-rtlinsertelementgenerictable.md",
        "A matching element that is there already is returned, and NewElement is FALSE."
    );
    conforms!(
        "ntddk/nf-ntddk-rtlinsertelementgenerictable.md",
        "The data is copied: what is returned is never the caller's buffer."
    );
    conforms!(
        "ntddk/nf-ntddk-rtllookupelementgenerictable.md",
        "The data of the matching element is returned, which is the root then; NULL when there is none."
    );
    with_table(|table| {
        let (data, new) = add(table, 5);
        add(table, 6);
        assert!(new);
        assert_eq!(add(table, 5), (data, false));
        let mut key = 5_u64;
        assert_ne!(data, Raw::of(&raw mut key).address());
        find(table, 6);
        assert_eq!((find(table, 5), find(table, 7)), (data, 0));
        find(table, 5);
        assert_eq!(table.field::<usize>(table::ROOT).read(), data - DATA);
        assert!(remove(table, 5) && remove(table, 6));
    });
}

#[test]
fn a_place_found_is_one_to_insert_at() {
    with_table(|table| {
        for value in [8, 4, 12] {
            add(table, value);
        }
        let mut key = 6_u64;
        let (mut node, mut place) = (0, -1);
        let buffer = Raw::of(&raw mut key).address();
        assert_eq!(lookup_full(table, buffer, Raw::of(&raw mut node), Raw::of(&raw mut place)), 0);
        let mut new = 0;
        assert_ne!(insert_full(table, buffer, 8, Raw::of(&raw mut new), node, place), 0);
        assert_eq!((new, elements(table)), (1, vec![4, 6, 8, 12]));
        for value in [4, 6, 8, 12] {
            remove(table, value);
        }
    });
}

#[test]
fn an_element_without_memory_is_not_inserted() {
    conforms!("ntddk/nf-ntddk-rtlinsertelementgenerictable.md", "NULL is returned when the allocate routine fails.");
    testing::with_table(initialize, allocate_nothing as *const () as usize, |table| {
        assert_eq!(add(table, 5), (0, false));
        assert_eq!(number(table), 0);
    });
}

#[test]
fn a_table_that_was_never_initialised_is_found() {
    conforms!(
        "ntddk/nf-ntddk-rtlinitializegenerictable.md",
        "A table has to be initialised before any other routine is called for it."
    );
    let mut memory = [0_u64; 9];
    let stopped = Bench::new().run(|| number(Raw::<u64>::of((&raw mut memory).cast()).cast()));
    assert_eq!(stopped.unwrap_err().0.rule, Rule::BadArgument);
}
