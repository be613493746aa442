//! `RTL_BITMAP`.

use super::raw::Raw;
use crate::ddi::{Call, exports};
use crate::finding::Rule;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    RtlInitializeBitMap(max 31) = rtl_initialize_bit_map;
    RtlClearAllBits(max 31) = rtl_clear_all_bits;
    RtlSetAllBits(max 31) = rtl_set_all_bits;
    RtlSetBit(max 31) = rtl_set_bit;
    RtlClearBit(max 31) = rtl_clear_bit;
    RtlTestBit(max 31) = rtl_test_bit;
    RtlSetBits(max 31) = rtl_set_bits;
    RtlClearBits(max 31) = rtl_clear_bits;
    RtlAreBitsSet(max 31) = rtl_are_bits_set;
    RtlAreBitsClear(max 31) = rtl_are_bits_clear;
    RtlNumberOfSetBits(max 31) = rtl_number_of_set_bits;
    RtlNumberOfClearBits(max 31) = rtl_number_of_clear_bits;
    RtlFindClearBits(max 31) = rtl_find_clear_bits;
    RtlFindSetBits(max 31) = rtl_find_set_bits;
    RtlFindClearBitsAndSet(max 31) = rtl_find_clear_bits_and_set;
    RtlFindSetBitsAndClear(max 31) = rtl_find_set_bits_and_clear;
    RtlFindFirstRunClear(max 31) = rtl_find_first_run_clear;
    RtlFindNextForwardRunClear(max 31) = rtl_find_next_forward_run_clear;
    RtlFindLongestRunClear(max 31) = rtl_find_longest_run_clear;
    RtlFindClearRuns(max 31) = rtl_find_clear_runs;
    RtlFindLastBackwardRunClear(max 31) = rtl_find_last_backward_run_clear;
    RtlFindMostSignificantBit(max 31) = rtl_find_most_significant_bit;
    RtlFindLeastSignificantBit(max 31) = rtl_find_least_significant_bit;
    RtlNumberOfSetBitsUlongPtr(max 31) = rtl_number_of_set_bits_ulong_ptr;
}

/// What searches return that find nothing.
const NONE: u32 = u32::MAX;

/// `RTL_BITMAP`: size in bits, and at offset 8 the address of the words.
#[derive(Clone, Copy)]
struct Bits {
    size: u32,
    words: Raw<u32>,
}

impl Bits {
    fn of(header: Raw<u32>) -> Self {
        Self { size: header.read(), words: Raw::at(header.field::<usize>(8).read()) }
    }

    fn get(self, bit: u32) -> bool {
        self.words.index(bit as usize / 32).read() >> (bit % 32) & 1 != 0
    }

    fn set(self, bit: u32, value: bool) {
        let word = self.words.index(bit as usize / 32);
        let mask = 1 << (bit % 32);
        word.write(if value { word.read() | mask } else { word.read() & !mask });
    }

    fn count(self, value: bool) -> u32 {
        (0..self.size).filter(|bit| self.get(*bit) == value).count() as u32
    }

    /// Bits with this value in a row from `start`.
    fn run(self, start: u32, value: bool) -> u32 {
        (start..self.size).take_while(|bit| self.get(*bit) == value).count() as u32
    }

    /// The first run of at least `count` such bits from `from` on, looked for up to a start of `to`.
    fn find_between(self, from: u32, to: u32, count: u32, value: bool) -> Option<u32> {
        let mut start = from;
        while start < to {
            let run = self.run(start, value);
            if run >= count {
                return Some(start);
            }
            start += run + 1;
        }
        None
    }

    /// As the search routines do: from the hint on, then from the start.
    fn find(self, count: u32, hint: u32, value: bool) -> u32 {
        if count == 0 {
            return if hint < self.size { hint & !7 } else { 0 };
        }
        let hint = if hint < self.size { hint } else { 0 };
        let found = self.find_between(hint, self.size, count, value);
        found.or_else(|| self.find_between(0, hint, count, value)).unwrap_or(NONE)
    }

    /// Stops when a range leaves the map.
    fn check(self, call: &Call, start: u32, count: u32) {
        if start.checked_add(count).is_none_or(|end| end > self.size) {
            call.stop(
                Rule::BadArgument,
                format!("bits {start} and {} more of a bitmap of {} bits", count.saturating_sub(1), self.size),
            );
        }
    }

    fn fill(self, start: u32, count: u32, value: bool) {
        (start..start + count).for_each(|bit| self.set(bit, value));
    }
}

extern "efiapi" fn rtl_initialize_bit_map(header: Raw<u32>, buffer: usize, size: u32) {
    let _call = Call::enter();
    header.write(size);
    header.field::<usize>(8).write(buffer);
}

extern "efiapi" fn rtl_clear_all_bits(header: Raw<u32>) {
    let _call = Call::enter();
    let bits = Bits::of(header);
    // Whole words, as documented: the buffer's size is a multiple of them.
    (0..bits.size.div_ceil(32)).for_each(|word| bits.words.index(word as usize).write(0));
}

extern "efiapi" fn rtl_set_all_bits(header: Raw<u32>) {
    let _call = Call::enter();
    let bits = Bits::of(header);
    (0..bits.size.div_ceil(32)).for_each(|word| bits.words.index(word as usize).write(u32::MAX));
}

extern "efiapi" fn rtl_set_bit(header: Raw<u32>, bit: u32) {
    let call = Call::enter();
    Bits::of(header).check(&call, bit, 1);
    Bits::of(header).set(bit, true);
}

extern "efiapi" fn rtl_clear_bit(header: Raw<u32>, bit: u32) {
    let call = Call::enter();
    Bits::of(header).check(&call, bit, 1);
    Bits::of(header).set(bit, false);
}

extern "efiapi" fn rtl_test_bit(header: Raw<u32>, bit: u32) -> u8 {
    let call = Call::enter();
    Bits::of(header).check(&call, bit, 1);
    u8::from(Bits::of(header).get(bit))
}

extern "efiapi" fn rtl_set_bits(header: Raw<u32>, start: u32, count: u32) {
    let call = Call::enter();
    Bits::of(header).check(&call, start, count);
    Bits::of(header).fill(start, count, true);
}

extern "efiapi" fn rtl_clear_bits(header: Raw<u32>, start: u32, count: u32) {
    let call = Call::enter();
    Bits::of(header).check(&call, start, count);
    Bits::of(header).fill(start, count, false);
}

/// Whether a range is in the map, not empty, and all of one value.
fn all(header: Raw<u32>, start: u32, count: u32, value: bool) -> u8 {
    let bits = Bits::of(header);
    let inside = count > 0 && start.checked_add(count).is_some_and(|end| end <= bits.size);
    u8::from(inside && bits.run(start, value) >= count)
}

extern "efiapi" fn rtl_are_bits_set(header: Raw<u32>, start: u32, count: u32) -> u8 {
    let _call = Call::enter();
    all(header, start, count, true)
}

extern "efiapi" fn rtl_are_bits_clear(header: Raw<u32>, start: u32, count: u32) -> u8 {
    let _call = Call::enter();
    all(header, start, count, false)
}

extern "efiapi" fn rtl_number_of_set_bits(header: Raw<u32>) -> u32 {
    let _call = Call::enter();
    Bits::of(header).count(true)
}

extern "efiapi" fn rtl_number_of_clear_bits(header: Raw<u32>) -> u32 {
    let _call = Call::enter();
    Bits::of(header).count(false)
}

extern "efiapi" fn rtl_find_clear_bits(header: Raw<u32>, count: u32, hint: u32) -> u32 {
    let _call = Call::enter();
    Bits::of(header).find(count, hint, false)
}

extern "efiapi" fn rtl_find_set_bits(header: Raw<u32>, count: u32, hint: u32) -> u32 {
    let _call = Call::enter();
    Bits::of(header).find(count, hint, true)
}

fn find_and_change(header: Raw<u32>, count: u32, hint: u32, value: bool) -> u32 {
    let bits = Bits::of(header);
    let found = bits.find(count, hint, value);
    if found != NONE {
        bits.fill(found, count, !value);
    }
    found
}

extern "efiapi" fn rtl_find_clear_bits_and_set(header: Raw<u32>, count: u32, hint: u32) -> u32 {
    let _call = Call::enter();
    find_and_change(header, count, hint, false)
}

extern "efiapi" fn rtl_find_set_bits_and_clear(header: Raw<u32>, count: u32, hint: u32) -> u32 {
    let _call = Call::enter();
    find_and_change(header, count, hint, true)
}

/// The next clear run from `from` on: its length, and where it starts.
fn next_clear(bits: Bits, from: u32) -> (u32, u32) {
    let start = (from..bits.size).find(|bit| !bits.get(*bit));
    start.map_or((0, bits.size), |start| (bits.run(start, false), start))
}

extern "efiapi" fn rtl_find_first_run_clear(header: Raw<u32>, start: Raw<u32>) -> u32 {
    let _call = Call::enter();
    let (length, first) = next_clear(Bits::of(header), 0);
    start.write(first);
    length
}

extern "efiapi" fn rtl_find_next_forward_run_clear(header: Raw<u32>, from: u32, start: Raw<u32>) -> u32 {
    let _call = Call::enter();
    let (length, first) = next_clear(Bits::of(header), from);
    start.write(first);
    length
}

/// All clear runs from the start on: length and first bit of each.
fn clear_runs(bits: Bits) -> impl Iterator<Item = (u32, u32)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (length, first) = next_clear(bits, at);
        at = first + length;
        (length > 0).then_some((length, first))
    })
}

extern "efiapi" fn rtl_find_longest_run_clear(header: Raw<u32>, start: Raw<u32>) -> u32 {
    let _call = Call::enter();
    // Of equally long ones the first.
    let longest = clear_runs(Bits::of(header)).reduce(|best, run| if run.0 > best.0 { run } else { best });
    let (length, first) = longest.unwrap_or_default();
    start.write(first);
    length
}

/// Stores `RTL_BITMAP_RUN`s: first bit and length.
extern "efiapi" fn rtl_find_clear_runs(header: Raw<u32>, runs: Raw<[u32; 2]>, room: u32, longest: u8) -> u32 {
    let _call = Call::enter();
    let mut found: Vec<(u32, u32)> = clear_runs(Bits::of(header)).collect();
    if longest != 0 {
        found.sort_by_key(|(length, _)| std::cmp::Reverse(*length));
    }
    found.truncate(room as usize);
    found.iter().enumerate().for_each(|(index, (length, first))| runs.index(index).write([*first, *length]));
    found.len() as u32
}

extern "efiapi" fn rtl_find_last_backward_run_clear(header: Raw<u32>, from: u32, start: Raw<u32>) -> u32 {
    let _call = Call::enter();
    let bits = Bits::of(header);
    let last = (0..bits.size.min(from.saturating_add(1))).rev().find(|bit| !bits.get(*bit));
    let Some(last) = last else { return 0 };
    let length = (0..=last).rev().take_while(|bit| !bits.get(*bit)).count() as u32;
    start.write(last + 1 - length);
    length
}

extern "efiapi" fn rtl_find_most_significant_bit(value: u64) -> i8 {
    let _call = Call::enter();
    value.checked_ilog2().map_or(-1, |bit| bit as i8)
}

extern "efiapi" fn rtl_find_least_significant_bit(value: u64) -> i8 {
    let _call = Call::enter();
    if value == 0 { -1 } else { value.trailing_zeros() as i8 }
}

extern "efiapi" fn rtl_number_of_set_bits_ulong_ptr(value: usize) -> u32 {
    let _call = Call::enter();
    value.count_ones()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;

    fn with(size: u32, body: impl FnOnce(Raw<u32>)) -> Result<(), crate::finding::Stopped> {
        let (mut header, mut words) = ([0_u64; 2], [0_u32; 4]);
        let header = Raw::<u32>::of((&raw mut header).cast());
        let buffer = Raw::of(words.as_mut_ptr()).address();
        Bench::new().run(|| {
            rtl_initialize_bit_map(header, buffer, size);
            body(header);
        })
    }

    #[test]
    fn bits_are_set_cleared_tested_and_counted() {
        conforms!("wdm/nf-wdm-rtlsetbits.md", "All bits of the range are set.");
        conforms!(
            "wdm/nf-wdm-rtlarebitsset.md",
            "TRUE is returned when all bits of the range are set; FALSE for an empty range."
        );
        conforms!("wdm/nf-wdm-rtlnumberofsetbits.md", "The number of set bits is returned.");
        with(70, |map| {
            rtl_set_bits(map, 30, 10);
            assert_eq!((rtl_number_of_set_bits(map), rtl_number_of_clear_bits(map)), (10, 60));
            assert_eq!(
                (rtl_are_bits_set(map, 30, 10), rtl_are_bits_set(map, 29, 2), rtl_are_bits_set(map, 30, 0)),
                (1, 0, 0)
            );
            rtl_clear_bit(map, 35);
            assert_eq!((rtl_test_bit(map, 35), rtl_test_bit(map, 36), rtl_are_bits_clear(map, 40, 30)), (0, 1, 1));
            rtl_set_all_bits(map);
            assert_eq!(rtl_number_of_set_bits(map), 70);
        })
        .unwrap();
    }

    #[test]
    fn a_free_range_is_looked_for_from_the_hint_on_and_then_from_the_start() {
        conforms!(
            "wdm/nf-wdm-rtlfindclearbitsandset.md",
            "The range that is found is set, and its first bit returned."
        );
        conforms!("wdm/nf-wdm-rtlfindclearbits.md", "0xFFFFFFFF is returned when no such range is in the map.");
        with(64, |map| {
            assert_eq!(rtl_find_clear_bits_and_set(map, 8, 50), 50);
            assert_eq!(rtl_find_clear_bits_and_set(map, 8, 50), 0, "58 to 63 are too few");
            assert_eq!(rtl_find_clear_bits(map, 43, 0), NONE);
            assert_eq!(rtl_find_set_bits(map, 8, 1), 50);
            assert_eq!(rtl_find_set_bits_and_clear(map, 8, 50), 50);
            assert_eq!(rtl_find_clear_bits(map, 56, 0), 8);
        })
        .unwrap();
    }

    #[test]
    fn runs_are_found_in_order_and_by_length() {
        conforms!(
            "wdm/nf-wdm-rtlfindfirstrunclear.md",
            "The length of the first clear run is returned, and where it starts."
        );
        with(64, |map| {
            rtl_set_bits(map, 0, 4);
            rtl_set_bits(map, 10, 4);
            let mut start = 0;
            let at = Raw::of(&raw mut start);
            assert_eq!((rtl_find_first_run_clear(map, at), at.read()), (6, 4));
            assert_eq!((rtl_find_next_forward_run_clear(map, 11, at), at.read()), (50, 14));
            assert_eq!((rtl_find_longest_run_clear(map, at), at.read()), (50, 14));
        })
        .unwrap();
    }

    #[test]
    fn a_bit_outside_of_the_map_is_found() {
        assert_eq!(with(70, |map| rtl_set_bits(map, 69, 2)).unwrap_err().0.rule, Rule::BadArgument);
    }

    #[test]
    fn clear_runs_are_listed_in_order_or_by_length() {
        conforms!(
            "wdm/nf-wdm-rtlfindclearruns.md",
            "The number of runs found is returned; with LocateLongestRuns the longest come first."
        );
        conforms!(
            "wdm/nf-wdm-rtlfindlastbackwardrunclear.md",
            "The clear run at or before FromIndex is found, 0 returned when there is none."
        );
        Bench::new()
            .run(|| {
                // Clear: bits 1 and 2, bit 4, bits 6 to 8.
                let mut words = [0b10_0010_1001_u32, 0];
                let mut map = [0_u64; 2];
                let header = Raw::<u64>::of((&raw mut map).cast()).cast::<u32>();
                rtl_initialize_bit_map(header, Raw::of(&raw mut words).address(), 10);
                let mut runs = [[0_u32; 2]; 4];
                let out = Raw::<[u32; 2]>::of((&raw mut runs).cast());
                assert_eq!(rtl_find_clear_runs(header, out, 2, 0), 2);
                assert_eq!(out.read_slice(2), [[1, 2], [4, 1]]);
                assert_eq!(rtl_find_clear_runs(header, out, 4, 1), 3);
                assert_eq!(out.read_slice(3), [[6, 3], [1, 2], [4, 1]]);
                let mut start = 99;
                let start = Raw::of(&raw mut start);
                let before = |from| (rtl_find_last_backward_run_clear(header, from, start), start.read());
                assert_eq!([before(9), before(5), before(2), before(1)], [(3, 6), (1, 4), (2, 1), (1, 1)]);
                assert_eq!(before(0).0, 0);
            })
            .unwrap();
    }
}
