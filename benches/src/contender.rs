//! A filled table of whichever type, ready to be measured.

use crate::cases::{Case, Filled, OWNER, Spent};
use crate::heap;
use crate::table::Table;
use crate::tables::{Fwbroker, Papaya, Scc, ShardedSlab, Slab, SlotMap, Windows};

/// Makes a contender with so many live handles.
pub(crate) type Make = fn(usize) -> Contender;

/// All that are compared, ours first.
pub(crate) const ALL: [(&str, Make); 7] = [
    entry::<Fwbroker>(),
    entry::<ShardedSlab>(),
    entry::<Slab>(),
    entry::<SlotMap>(),
    entry::<Papaya>(),
    entry::<Scc>(),
    entry::<Windows>(),
];

/// A filled table.
pub(crate) struct Contender {
    /// The table's name.
    pub(crate) name: &'static str,
    /// What the fill took from the heap, divided by the number of live handles.
    pub(crate) bytes_per_handle: f64,
    /// Runs a case with so many threads and rounds per thread.
    pub(crate) run: Box<dyn Fn(Case, usize, u64) -> Spent>,
}

const fn entry<T: Table + 'static>() -> (&'static str, Make) {
    (T::NAME, fill::<T>)
}

#[expect(clippy::cast_precision_loss, reason = "bytes per handle to a few digits")]
fn fill<T: Table + 'static>(live: usize) -> Contender {
    // Room for the keys first: they are the measurement's, not the table's.
    let mut shuffled = Vec::with_capacity(live);
    let (table, bytes) = heap::growth(|| {
        let table = T::new(live + 65_536);
        shuffled.extend((0..live).map(|object| table.insert(OWNER, object as u64)));
        table
    });
    let first = shuffled.iter().take(16).copied().collect();
    shuffle(&mut shuffled);
    let filled = Filled { table, shuffled, first };
    Contender {
        name: T::NAME,
        bytes_per_handle: bytes as f64 / live as f64,
        run: Box::new(move |case, threads, rounds| case.run(&filled, threads, rounds)),
    }
}

/// Fisher-Yates with the same pseudo-random numbers in every run and for every table.
fn shuffle<K>(keys: &mut [K]) {
    let mut random = 0x2545_F491_4F6C_DD1D_u64;
    for last in (1..keys.len()).rev() {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        keys.swap(last, (random % (last as u64 + 1)) as usize);
    }
}
