//! The callbacks of generic tables, which tables over AVL trees and over splay trees call alike.
//!
//! Exceptions of a driver's routine may leave the export that calls it: see [`call_out`].

use super::raw::Raw;
use crate::cpu::bridge::call_out;
use crate::ddi::Call;
use crate::finding::Rule;

/// `RTL_GENERIC_COMPARE_RESULTS`.
pub(super) const LESS_THAN: i32 = 0;
pub(super) const GREATER_THAN: i32 = 1;
pub(super) const EQUAL: i32 = 2;

/// `TABLE_SEARCH_RESULT`.
pub(super) const EMPTY_TREE: i32 = 0;
pub(super) const FOUND_NODE: i32 = 1;
pub(super) const INSERT_AS_LEFT: i32 = 2;
pub(super) const INSERT_AS_RIGHT: i32 = 3;

/// Where in a table its routines lie.
#[derive(Clone, Copy)]
pub(super) struct Routines {
    /// Offset of the compare routine; allocate, free and context follow it.
    pub(super) compare: usize,
}

impl Routines {
    /// Stores what an initialisation was given.
    pub(super) fn store(self, call: &Call, table: Raw<u8>, routines: [usize; 3], context: usize) {
        if routines.contains(&0) {
            call.stop(Rule::BadArgument, "a table needs a compare, an allocate and a free routine");
        }
        table.field(self.compare).write(routines);
        table.field(self.compare + 24).write(context);
    }

    /// The table at `address`; stops when it was not initialised by `maker`.
    pub(super) fn check(self, call: &Call, address: Raw<u8>, maker: &str) {
        if address.is_null() || address.field::<usize>(self.compare).read() == 0 {
            call.stop(Rule::BadArgument, format!("{address:?} is no table that {maker} made"));
        }
    }

    /// How the key in `buffer` compares with an element: one of the three results.
    pub(super) fn compare(self, call: Call, table: Raw<u8>, buffer: usize, element: usize) -> (Call, i32) {
        type Compare = unsafe extern "efiapi" fn(usize, usize, usize) -> i32;
        let routine = table.field::<usize>(self.compare).read();
        // SAFETY: the table's compare routine, whose type the page of the initialisation gives.
        let routine = unsafe { std::mem::transmute::<usize, Compare>(routine) };
        let address = table.address();
        // SAFETY: the arguments are those that the page promises.
        let (call, order) = call_out(call, "CompareRoutine", || unsafe { routine(address, buffer, element) });
        if !matches!(order, LESS_THAN | GREATER_THAN | EQUAL) {
            call.stop(Rule::BadArgument, format!("the compare routine returned {order}"));
        }
        (call, order)
    }

    /// Memory for an element of `bytes`; 0 when the driver has none.
    pub(super) fn allocate(self, call: Call, table: Raw<u8>, bytes: u32) -> usize {
        type Allocate = unsafe extern "efiapi" fn(usize, u32) -> usize;
        let routine = table.field::<usize>(self.compare + 8).read();
        // SAFETY: the table's allocate routine, as above.
        let routine = unsafe { std::mem::transmute::<usize, Allocate>(routine) };
        let address = table.address();
        // SAFETY: the arguments are those that the page promises.
        call_out(call, "AllocateRoutine", || unsafe { routine(address, bytes) }).1
    }

    /// Gives an element's memory back.
    pub(super) fn free(self, call: Call, table: Raw<u8>, element: usize) {
        type Free = unsafe extern "efiapi" fn(usize, usize);
        let routine = table.field::<usize>(self.compare + 16).read();
        // SAFETY: the table's free routine, as above.
        let routine = unsafe { std::mem::transmute::<usize, Free>(routine) };
        let address = table.address();
        // SAFETY: the arguments are those that the page promises.
        let _ = call_out(call, "FreeRoutine", || unsafe { routine(address, element) });
    }
}

/// What the tests of both kinds of tables give theirs.
#[cfg(test)]
pub(super) mod testing {
    use super::{EQUAL, GREATER_THAN, LESS_THAN};
    use crate::ddi::Call;
    use crate::ddi::testing::Bench;
    use crate::nt::pool_exports::allocate_from_type;
    use crate::nt::raw::Raw;

    const TAG: u32 = u32::from_le_bytes(*b"Tabl");

    pub(crate) extern "efiapi" fn compare(_table: usize, left: Raw<u64>, right: Raw<u64>) -> i32 {
        match left.read().cmp(&right.read()) {
            std::cmp::Ordering::Less => LESS_THAN,
            std::cmp::Ordering::Greater => GREATER_THAN,
            std::cmp::Ordering::Equal => EQUAL,
        }
    }

    pub(crate) extern "efiapi" fn allocate(_table: usize, bytes: u32) -> usize {
        allocate_from_type(Call::enter(), 512, bytes as usize, TAG)
    }

    pub(crate) extern "efiapi" fn allocate_nothing(_table: usize, _bytes: u32) -> usize {
        0
    }

    pub(crate) extern "efiapi" fn free(_table: usize, memory: usize) {
        let call = Call::enter();
        call.machine().nt.pool().free(&call, memory, TAG);
    }

    pub(crate) type Initialize = extern "efiapi" fn(Raw<u8>, usize, usize, usize, usize);

    /// A table of numbers, which has to be empty again when `body` returns.
    pub(crate) fn with_table(initialize: Initialize, allocate: usize, body: impl FnOnce(Raw<u8>)) {
        let mut memory = [0_u64; 16];
        let address = Raw::<u8>::of((&raw mut memory).cast());
        let bench = Bench::new();
        bench
            .run(|| {
                initialize(address, compare as *const () as usize, allocate, free as *const () as usize, 7);
                body(address);
            })
            .unwrap();
        assert_eq!(bench.machine().inner().nt.pool().usage(), (0, 0), "all elements were freed");
    }
}
