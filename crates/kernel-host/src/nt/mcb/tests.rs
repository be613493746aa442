//! Maps against what their pages say, and one against a plain table of blocks.

use super::*;
use crate::conformance::conforms;
use crate::ddi::testing::Bench;

/// A map of paged pool, which is uninitialised at the end.
fn with_map(body: impl FnOnce(Raw<u8>)) {
    let mut memory = [0_u64; 4];
    let mcb = Raw::<u8>::of((&raw mut memory).cast());
    let bench = Bench::new();
    bench
        .run(|| {
            initialize_large(mcb, 1);
            body(mcb);
            uninitialize_large(mcb);
        })
        .unwrap();
    assert_eq!(bench.machine().inner().nt.pool().usage(), (0, 0));
}

/// All runs: first block, place, blocks.
fn runs(mcb: Raw<u8>) -> Vec<[i64; 3]> {
    let mut out = [0_i64; 3];
    let at = Raw::<i64>::of((&raw mut out).cast());
    let next = |index| {
        (get_next_large(mcb, index, at, at.index(1), at.index(2)) != 0)
            .then(|| [0, 1, 2].map(|field| at.index(field).read()))
    };
    (0..).map_while(next).collect()
}

/// What a lookup finds: block, blocks from there, start of the run, its blocks, its index.
fn look(mcb: Raw<u8>, vbn: i64) -> Option<[i64; 5]> {
    let (mut out, mut index) = ([0_i64; 4], 0_u32);
    let at = Raw::<i64>::of((&raw mut out).cast());
    let number = Raw::of(&raw mut index);
    let found = lookup_large(mcb, vbn, at, at.index(1), at.index(2), at.index(3), number);
    let [lbn, count, start, whole] = [0, 1, 2, 3].map(|field| at.index(field).read());
    (found != 0).then(|| [lbn, count, start, whole, number.read().into()])
}

#[test]
fn holes_between_mappings_are_runs_too() {
    conforms!(
        "ntifs/nf-ntifs-_fsrtl_advanced_fcb_header-fsrtlnumberofrunsinlargemcb.md",
        "Mappings and the holes between them are counted."
    );
    conforms!(
        "ntifs/nf-ntifs-_fsrtl_advanced_fcb_header-fsrtlgetnextlargemcbentry.md",
        "Runs are got by their index, holes among them; FALSE is returned behind the last."
    );
    conforms!(
        "ntifs/nf-ntifs-_fsrtl_advanced_fcb_header-fsrtllookuplargemcbentry.md",
        "A block in a hole gives TRUE and -1; one behind the last mapping FALSE."
    );
    with_map(|mcb| {
        assert_eq!((number_large(mcb), look(mcb, 0)), (0, None));
        assert_eq!([add_large(mcb, 0, 100, 1), add_large(mcb, 3, 200, 4)], [1, 1]);
        assert_eq!(number_large(mcb), 3);
        assert_eq!(runs(mcb), [[0, 100, 1], [1, -1, 2], [3, 200, 4]]);
        assert_eq!(look(mcb, 5), Some([202, 2, 200, 4, 2]));
        assert_eq!(look(mcb, 2), Some([-1, 1, -1, 2, 1]));
        assert_eq!(look(mcb, 7), None);
    });
}

#[test]
fn mappings_that_meet_are_one_and_those_that_contradict_are_refused() {
    conforms!(
        "ntifs/nf-ntifs-_fsrtl_advanced_fcb_header-fsrtladdlargemcbentry.md",
        "A run that overlaps an existing one is merged with it; FALSE is returned for one that cannot be added."
    );
    with_map(|mcb| {
        assert_eq!([add_large(mcb, 0, 100, 4), add_large(mcb, 2, 102, 6), add_large(mcb, 8, 108, 2)], [1; 3]);
        assert_eq!(runs(mcb), [[0, 100, 10]]);
        assert_eq!(add_large(mcb, 9, 200, 3), 0);
        assert_eq!(runs(mcb), [[0, 100, 10]], "nothing is changed");
    });
}

#[test]
fn the_last_block_is_told_with_its_place() {
    conforms!(
        "ntifs/nf-ntifs-_fsrtl_advanced_fcb_header-fsrtllookuplastlargemcbentry.md",
        "FALSE is returned for an empty map, else TRUE with the last mapped block and where it is."
    );
    with_map(|mcb| {
        let (mut vbn, mut lbn, mut index) = (0, 0, 9);
        let (vbn, lbn, index) = (Raw::of(&raw mut vbn), Raw::of(&raw mut lbn), Raw::of(&raw mut index));
        assert_eq!(lookup_last_large(mcb, vbn, lbn), 0);
        add_large(mcb, 2, 50, 5);
        assert_eq!((lookup_last_large_and_index(mcb, vbn, lbn, index), vbn.read(), lbn.read()), (1, 6, 54));
        assert_eq!(index.read(), 1);
    });
}

#[test]
fn a_map_is_cut_and_split() {
    conforms!(
        "ntifs/nf-ntifs-_fsrtl_advanced_fcb_header-fsrtltruncatelargemcb.md",
        "Mappings from the block on are removed, and a hole that then is at the end."
    );
    conforms!(
        "ntifs/nf-ntifs-_fsrtl_advanced_fcb_header-fsrtlsplitlargemcb.md",
        "Mappings from the block on are moved up, to make room for a hole."
    );
    conforms!(
        "ntifs/nf-ntifs-_fsrtl_advanced_fcb_header-fsrtlremovelargemcbentry.md",
        "Mappings in the range are removed; what was removed at the end is no run any more."
    );
    with_map(|mcb| {
        add_large(mcb, 0, 100, 4);
        assert_eq!(split_large(mcb, 2, 3), 1);
        assert_eq!(runs(mcb), [[0, 100, 2], [2, -1, 3], [5, 102, 2]]);
        truncate_large(mcb, 4);
        assert_eq!(runs(mcb), [[0, 100, 2]]);
        add_large(mcb, 2, 102, 6);
        remove_large(mcb, 3, 2);
        assert_eq!(runs(mcb), [[0, 100, 3], [3, -1, 2], [5, 105, 3]]);
        remove_large(mcb, 5, 100);
        assert_eq!(runs(mcb), [[0, 100, 3]]);
        reset_large(mcb, 1);
        assert_eq!(runs(mcb), Vec::<[i64; 3]>::new());
    });
}

#[test]
fn a_map_says_the_same_as_a_table_of_blocks() {
    const BLOCKS: usize = 64;
    with_map(|mcb| {
        let mut table = [None; BLOCKS];
        let mut seed = 7_u64;
        for _ in 0..400 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let bits = |shift: u32, count: u32| (seed >> shift) as usize & ((1 << count) - 1);
            let start = bits(33, 6);
            let range = start..BLOCKS.min(start + bits(40, 3) + 1);
            let number = |block: usize| i64::try_from(block).unwrap();
            let (vbn, count) = (number(start), number(range.len()));
            if bits(50, 1) == 0 {
                remove_large(mcb, vbn, count);
                table[range].fill(None);
            } else {
                // Two places per block, so that mappings contradict each other now and then.
                let lbn = number(start + 1000 * bits(51, 1));
                let places: Vec<Option<i64>> = (0..count).map(|at| Some(lbn + at)).collect();
                let fits = table[range.clone()].iter().zip(&places).all(|(old, new)| old.is_none() || old == new);
                assert_eq!(add_large(mcb, vbn, lbn, count) != 0, fits);
                if fits {
                    table[range].copy_from_slice(&places);
                }
            }
            for (block, place) in table.iter().enumerate() {
                let found = look(mcb, i64::try_from(block).unwrap()).map(|[lbn, ..]| lbn).filter(|lbn| *lbn != -1);
                assert_eq!(found, *place, "block {block}");
            }
        }
    });
}

#[test]
fn the_32_bit_routines_see_the_same_map() {
    with_map(|mcb| {
        assert_eq!(add_small(mcb, 1, 10, 2), 1);
        let (mut lbn, mut count, mut index) = (0, 0, 0);
        let (lbn, count, index) = (Raw::of(&raw mut lbn), Raw::of(&raw mut count), Raw::of(&raw mut index));
        assert_eq!((lookup_small(mcb, 2, lbn, count, index), lbn.read(), count.read()), (1, 11, 1));
        assert_eq!((lookup_small(mcb, 0, lbn, count, index), lbn.read()), (1, u32::MAX));
        assert_eq!((get_next_small(mcb, 1, index, lbn, count), index.read(), lbn.read()), (1, 1, 10));
        truncate_small(mcb, 0);
        assert_eq!(lookup_last_small(mcb, index, lbn), 0);
    });
}

#[test]
fn a_map_that_is_not_uninitialised_leaks_and_one_that_is_cannot_be_used() {
    conforms!(
        "ntifs/nf-ntifs-_fsrtl_advanced_fcb_header-fsrtlinitializelargemcb.md",
        "A map has to be initialised before any other routine gets it."
    );
    conforms!(
        "ntifs/nf-ntifs-_fsrtl_advanced_fcb_header-fsrtluninitializelargemcb.md",
        "An uninitialised map can be initialised again."
    );
    let mut memory = [0_u64; 4];
    let mcb = Raw::<u8>::of((&raw mut memory).cast());
    let bench = Bench::new();
    bench
        .run(|| {
            initialize_large(mcb, 0);
            uninitialize_large(mcb);
            initialize_large(mcb, 0);
        })
        .unwrap();
    assert_eq!(bench.machine().held_by(bench.driver()).bytes(crate::leak::LeakKind::Pool), 120);
    let twice = bench.run(|| {
        uninitialize_large(mcb);
        uninitialize_large(mcb);
    });
    assert_eq!(twice.unwrap_err().0.rule, Rule::BadState);
}
