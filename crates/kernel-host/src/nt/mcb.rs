//! Map control blocks: which disk blocks the blocks of a file are in.
//!
//! A map is a row of runs that begins with the file's first block: mappings, and holes between them. The pairs of a map lie in
//! pool of the kind that its driver chose, so that a map that is not uninitialised is found as leaked pool. `BASE_MCB` is the
//! map alone; `LARGE_MCB` has a lock before it, and `MCB` is the same with 32-bit numbers.

use nt_types::NtStatus;

use super::pool::{PoolKind, Request};
use super::raw::Raw;
use crate::ddi::{Call, exports};
use crate::finding::Rule;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    FsRtlInitializeLargeMcb(max 1, fails POOL) = initialize_large;
    FsRtlInitializeMcb(max 1, fails POOL) = initialize_large;
    FsRtlInitializeBaseMcb(max 1, fails POOL) = initialize_base;
    FsRtlUninitializeLargeMcb(max 1) = uninitialize_large;
    FsRtlUninitializeMcb(max 1) = uninitialize_large;
    FsRtlUninitializeBaseMcb(max 1) = uninitialize_base;
    FsRtlAddLargeMcbEntry(max 1, fails POOL) = add_large;
    FsRtlAddMcbEntry(max 1, fails POOL) = add_small;
    FsRtlAddBaseMcbEntry(max 1, fails POOL) = add_base;
    FsRtlRemoveLargeMcbEntry(max 1) = remove_large;
    FsRtlRemoveMcbEntry(max 1) = remove_small;
    FsRtlRemoveBaseMcbEntry(max 1) = remove_base;
    FsRtlLookupLargeMcbEntry(max 1) = lookup_large;
    FsRtlLookupMcbEntry(max 1) = lookup_small;
    FsRtlLookupBaseMcbEntry(max 1) = lookup_base;
    FsRtlLookupLastLargeMcbEntry(max 1) = lookup_last_large;
    FsRtlLookupLastMcbEntry(max 1) = lookup_last_small;
    FsRtlLookupLastBaseMcbEntry(max 1) = lookup_last_base;
    FsRtlLookupLastLargeMcbEntryAndIndex(max 1) = lookup_last_large_and_index;
    FsRtlLookupLastBaseMcbEntryAndIndex(max 1) = lookup_last_base_and_index;
    FsRtlNumberOfRunsInLargeMcb(max 1) = number_large;
    FsRtlNumberOfRunsInMcb(max 1) = number_large;
    FsRtlNumberOfRunsInBaseMcb(max 1) = number_base;
    FsRtlGetNextLargeMcbEntry(max 1) = get_next_large;
    FsRtlGetNextMcbEntry(max 1) = get_next_small;
    FsRtlGetNextBaseMcbEntry(max 1) = get_next_base;
    FsRtlTruncateLargeMcb(max 1) = truncate_large;
    FsRtlTruncateMcb(max 1) = truncate_small;
    FsRtlTruncateBaseMcb(max 1) = truncate_base;
    FsRtlSplitLargeMcb(max 1, fails POOL) = split_large;
    FsRtlSplitBaseMcb(max 1, fails POOL) = split_base;
    FsRtlResetLargeMcb(max 1) = reset_large;
    FsRtlResetBaseMcb(max 1) = reset_base;
}

/// Where the map of a `LARGE_MCB` lies: behind its lock.
const BASE: usize = 8;

/// Fields of `BASE_MCB`.
mod base {
    pub(super) const MAXIMUM_PAIRS: usize = 0;
    pub(super) const PAIRS: usize = 4;
    pub(super) const POOL_TYPE: usize = 8;
    pub(super) const MAPPING: usize = 16;
}

/// Tag of the pairs.
const TAG: u32 = u32::from_le_bytes(*b"FSrm");
/// Pairs that a new map has room for.
const FIRST_PAIRS: u32 = 15;
/// The block number of a hole, as a pair has it.
const HOLE: u32 = u32::MAX;

/// What the routines use of a number: the pages say that the upper half of it is ignored.
fn low(number: i64) -> u32 {
    number.cast_unsigned() as u32
}

/// Blocks of a file in a row: where on the disk they are, unless they are a hole.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Run {
    count: u32,
    lbn: Option<u32>,
}

impl Run {
    /// The part of it from a block on.
    fn from(self, skip: u32) -> Self {
        Self { count: self.count - skip, lbn: self.lbn.map(|lbn| lbn.wrapping_add(skip)) }
    }

    /// What callers are told of where it is: -1 for a hole.
    fn place(self) -> i64 {
        self.lbn.map_or(-1, i64::from)
    }
}

/// Puts runs that follow each other on the disk together, and leaves out a hole at the end.
fn normal(runs: impl IntoIterator<Item = Run>) -> Vec<Run> {
    let mut all: Vec<Run> = Vec::new();
    for run in runs.into_iter().filter(|run| run.count > 0) {
        match all.last_mut() {
            Some(last) if last.lbn.map(|lbn| lbn.wrapping_add(last.count)) == run.lbn => last.count += run.count,
            _ => all.push(run),
        }
    }
    all.pop_if(|last| last.lbn.is_none());
    all
}

/// The runs before a block and those from it on; a hole fills up to a block behind the end.
fn split_at(runs: &[Run], vbn: u32) -> (Vec<Run>, Vec<Run>) {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let mut at = 0;
    for run in runs {
        let inside = vbn.saturating_sub(at).min(run.count);
        before.push(Run { count: inside, ..*run });
        after.push(run.from(inside));
        at += run.count;
    }
    before.push(Run { count: vbn.saturating_sub(at), lbn: None });
    (before, after)
}

/// Maps blocks; `None` where some are mapped to others already, or have numbers that do not fit.
fn add(runs: &[Run], vbn: u32, lbn: u32, count: u32) -> Option<Vec<Run>> {
    vbn.checked_add(count)?;
    let (before, rest) = split_at(runs, vbn);
    let (replaced, after) = split_at(&rest, count);
    let mut expected = lbn;
    for run in replaced.into_iter().filter(|run| run.count > 0) {
        if run.lbn.is_some_and(|mapped| mapped != expected) {
            return None;
        }
        expected = expected.wrapping_add(run.count);
    }
    Some(normal(before.into_iter().chain([Run { count, lbn: Some(lbn) }]).chain(after)))
}

/// The run that has a block: its index, and how far in it the block is.
fn find(runs: &[Run], vbn: u32) -> Option<(usize, Run, u32)> {
    let mut at = 0_u32;
    for (index, run) in runs.iter().enumerate() {
        if vbn - at < run.count {
            return Some((index, *run, vbn - at));
        }
        at += run.count;
    }
    None
}

/// A map in the driver's memory.
#[derive(Clone, Copy)]
struct Map(Raw<u8>);

impl Map {
    fn initialise(call: Call, at: Raw<u8>, pool_type: u16) {
        at.field::<u32>(base::MAXIMUM_PAIRS).write(FIRST_PAIRS);
        at.field::<u32>(base::PAIRS).write(0);
        at.field::<u16>(base::POOL_TYPE).write(pool_type);
        let memory = if call.falls_short() { 0 } else { Self(at).allocate(&call, FIRST_PAIRS) };
        at.field::<usize>(base::MAPPING).write(memory);
        if memory == 0 {
            call.raise(NtStatus::INSUFFICIENT_RESOURCES);
        }
    }

    fn of(call: &Call, at: Raw<u8>) -> Self {
        if at.field::<usize>(base::MAPPING).read() == 0 {
            call.stop(Rule::BadState, format!("the map control block {at:?} is not initialised"));
        }
        Self(at)
    }

    fn allocate(self, call: &Call, pairs: u32) -> usize {
        let paged = self.0.field::<u16>(base::POOL_TYPE).read() & 1 != 0;
        let kind = if paged { PoolKind::Paged } else { PoolKind::NonPaged };
        let length = pairs as usize * size_of::<[u32; 2]>();
        call.machine().nt.pool().allocate(call, Request { kind, length, tag: TAG, zeroed: false, cache_aligned: false })
    }

    fn pairs(self) -> Raw<[u32; 2]> {
        Raw::at(self.0.field::<usize>(base::MAPPING).read())
    }

    /// Pairs are the block behind a run and where the run begins on the disk.
    fn runs(self) -> Vec<Run> {
        let pairs = self.pairs().read_slice(self.0.field::<u32>(base::PAIRS).read() as usize);
        let mut start = 0;
        let run = |[end, lbn]: [u32; 2]| {
            let count = end - std::mem::replace(&mut start, end);
            Run { count, lbn: (lbn != HOLE).then_some(lbn) }
        };
        pairs.into_iter().map(run).collect()
    }

    /// Stores runs, in more memory if they need it; false when there is none.
    fn store(self, call: &Call, runs: &[Run]) -> bool {
        let maximum = self.0.field::<u32>(base::MAXIMUM_PAIRS);
        let count = runs.len() as u32;
        if count > maximum.read() {
            let room = count.next_multiple_of(FIRST_PAIRS + 1) * 2;
            let memory = if call.falls_short() { 0 } else { self.allocate(call, room) };
            if memory == 0 {
                return false;
            }
            call.machine().nt.pool().free(call, self.pairs().address(), TAG);
            self.0.field::<usize>(base::MAPPING).write(memory);
            maximum.write(room);
        }
        let mut end = 0;
        for (index, run) in runs.iter().enumerate() {
            end += run.count;
            self.pairs().index(index).write([end, run.lbn.unwrap_or(HOLE)]);
        }
        self.0.field::<u32>(base::PAIRS).write(count);
        true
    }
}

extern "efiapi" fn initialize_large(mcb: Raw<u8>, pool_type: i32) {
    let call = Call::enter();
    mcb.cast::<usize>().write(0);
    Map::initialise(call, mcb.field(BASE), pool_type.cast_unsigned() as u16);
}

extern "efiapi" fn initialize_base(mcb: Raw<u8>, pool_type: i32) {
    Map::initialise(Call::enter(), mcb, pool_type.cast_unsigned() as u16);
}

fn uninitialize(mcb: Raw<u8>) {
    let call = Call::enter();
    let map = Map::of(&call, mcb);
    call.machine().nt.pool().free(&call, map.pairs().address(), TAG);
    mcb.field::<usize>(base::MAPPING).write(0);
}

extern "efiapi" fn uninitialize_large(mcb: Raw<u8>) {
    uninitialize(mcb.field(BASE));
}

extern "efiapi" fn uninitialize_base(mcb: Raw<u8>) {
    uninitialize(mcb);
}

/// Stores what a change left of a map; an exception where memory is short.
fn changed(call: Call, map: Map, runs: Vec<Run>) -> u8 {
    let stored = map.store(&call, &runs);
    drop(runs);
    if !stored {
        call.raise(NtStatus::INSUFFICIENT_RESOURCES);
    }
    1
}

fn add_to(mcb: Raw<u8>, vbn: i64, lbn: i64, count: i64) -> u8 {
    let call = Call::enter();
    let map = Map::of(&call, mcb);
    match add(&map.runs(), low(vbn), low(lbn), low(count)) {
        Some(runs) => changed(call, map, runs),
        None => 0,
    }
}

extern "efiapi" fn add_large(mcb: Raw<u8>, vbn: i64, lbn: i64, count: i64) -> u8 {
    add_to(mcb.field(BASE), vbn, lbn, count)
}

extern "efiapi" fn add_small(mcb: Raw<u8>, vbn: u32, lbn: u32, count: u32) -> u8 {
    add_to(mcb.field(BASE), vbn.into(), lbn.into(), count.into())
}

extern "efiapi" fn add_base(mcb: Raw<u8>, vbn: i64, lbn: i64, count: i64) -> u8 {
    add_to(mcb, vbn, lbn, count)
}

fn remove_from(mcb: Raw<u8>, vbn: i64, count: i64) -> u8 {
    let call = Call::enter();
    let map = Map::of(&call, mcb);
    let runs = map.runs();
    let (before, rest) = split_at(&runs, low(vbn));
    let count = low(count.clamp(0, u32::MAX.into()));
    let (removed, after) = split_at(&rest, count.min(rest.iter().map(|run| run.count).sum()));
    let hole = Run { count: removed.iter().map(|run| run.count).sum(), lbn: None };
    let left = normal(before.into_iter().chain([hole]).chain(after));
    drop(removed);
    drop(rest);
    drop(runs);
    changed(call, map, left)
}

extern "efiapi" fn remove_large(mcb: Raw<u8>, vbn: i64, count: i64) {
    remove_from(mcb.field(BASE), vbn, count);
}

extern "efiapi" fn remove_small(mcb: Raw<u8>, vbn: u32, count: u32) {
    remove_from(mcb.field(BASE), vbn.into(), count.into());
}

extern "efiapi" fn remove_base(mcb: Raw<u8>, vbn: i64, count: i64) -> u8 {
    remove_from(mcb, vbn, count)
}

fn truncate_at(mcb: Raw<u8>, vbn: i64) {
    let call = Call::enter();
    let map = Map::of(&call, mcb);
    let (before, _) = split_at(&map.runs(), low(vbn));
    // Fewer runs than before need no memory.
    map.store(&call, &normal(before));
}

extern "efiapi" fn truncate_large(mcb: Raw<u8>, vbn: i64) {
    truncate_at(mcb.field(BASE), vbn);
}

extern "efiapi" fn truncate_small(mcb: Raw<u8>, vbn: u32) {
    truncate_at(mcb.field(BASE), vbn.into());
}

extern "efiapi" fn truncate_base(mcb: Raw<u8>, vbn: i64) {
    truncate_at(mcb, vbn);
}

extern "efiapi" fn reset_large(mcb: Raw<u8>, _self_synchronized: u8) {
    truncate_at(mcb.field(BASE), 0);
}

extern "efiapi" fn reset_base(mcb: Raw<u8>) {
    truncate_at(mcb, 0);
}

fn split_with_hole(mcb: Raw<u8>, vbn: i64, amount: i64) -> u8 {
    let call = Call::enter();
    let map = Map::of(&call, mcb);
    let runs = map.runs();
    let end: u32 = runs.iter().map(|run| run.count).sum();
    if end.checked_add(low(amount)).is_none() {
        return 0;
    }
    let (before, after) = split_at(&runs, low(vbn));
    drop(runs);
    let hole = Run { count: low(amount), lbn: None };
    let runs = normal(before.into_iter().chain([hole]).chain(after));
    changed(call, map, runs)
}

extern "efiapi" fn split_large(mcb: Raw<u8>, vbn: i64, amount: i64) -> u8 {
    split_with_hole(mcb.field(BASE), vbn, amount)
}

extern "efiapi" fn split_base(mcb: Raw<u8>, vbn: i64, amount: i64) -> u8 {
    split_with_hole(mcb, vbn, amount)
}

/// Where a lookup puts what it finds: block, blocks from there, start of the run, its blocks, its index. Each may be NULL.
struct Found {
    lbn: Raw<i64>,
    count: Raw<i64>,
    start: Raw<i64>,
    whole: Raw<i64>,
    index: Raw<u32>,
}

fn lookup(mcb: Raw<u8>, vbn: i64, out: &Found) -> u8 {
    let call = Call::enter();
    let Some((index, run, inside)) = find(&Map::of(&call, mcb).runs(), low(vbn)) else { return 0 };
    let rest = run.from(inside);
    out.lbn.write_if_some(rest.place());
    out.count.write_if_some(rest.count.into());
    out.start.write_if_some(run.place());
    out.whole.write_if_some(run.count.into());
    out.index.write_if_some(index as u32);
    1
}

extern "efiapi" fn lookup_large(
    mcb: Raw<u8>,
    vbn: i64,
    lbn: Raw<i64>,
    count: Raw<i64>,
    start: Raw<i64>,
    whole: Raw<i64>,
    index: Raw<u32>,
) -> u8 {
    lookup(mcb.field(BASE), vbn, &Found { lbn, count, start, whole, index })
}

extern "efiapi" fn lookup_base(
    mcb: Raw<u8>,
    vbn: i64,
    lbn: Raw<i64>,
    count: Raw<i64>,
    start: Raw<i64>,
    whole: Raw<i64>,
    index: Raw<u32>,
) -> u8 {
    lookup(mcb, vbn, &Found { lbn, count, start, whole, index })
}

extern "efiapi" fn lookup_small(mcb: Raw<u8>, vbn: u32, lbn: Raw<u32>, count: Raw<u32>, index: Raw<u32>) -> u8 {
    let call = Call::enter();
    let runs = Map::of(&call, mcb.field(BASE)).runs();
    let Some((at, run, inside)) = find(&runs, vbn) else { return 0 };
    lbn.write_if_some(low(run.from(inside).place()));
    count.write_if_some(run.count - inside);
    index.write_if_some(at as u32);
    1
}

/// The last block that is mapped, where, and the index of its run.
fn last(call: &Call, mcb: Raw<u8>) -> Option<(i64, i64, u32)> {
    let runs = Map::of(call, mcb).runs();
    let end: u32 = runs.iter().map(|run| run.count).sum();
    let run = runs.last()?;
    Some((i64::from(end) - 1, run.from(run.count - 1).place(), runs.len() as u32 - 1))
}

fn lookup_last(mcb: Raw<u8>, vbn: Raw<i64>, lbn: Raw<i64>, index: Raw<u32>) -> u8 {
    let call = Call::enter();
    let Some((block, place, at)) = last(&call, mcb) else { return 0 };
    vbn.write(block);
    lbn.write(place);
    index.write_if_some(at);
    1
}

extern "efiapi" fn lookup_last_large(mcb: Raw<u8>, vbn: Raw<i64>, lbn: Raw<i64>) -> u8 {
    lookup_last(mcb.field(BASE), vbn, lbn, Raw::NULL)
}

extern "efiapi" fn lookup_last_base(mcb: Raw<u8>, vbn: Raw<i64>, lbn: Raw<i64>) -> u8 {
    lookup_last(mcb, vbn, lbn, Raw::NULL)
}

extern "efiapi" fn lookup_last_large_and_index(mcb: Raw<u8>, vbn: Raw<i64>, lbn: Raw<i64>, index: Raw<u32>) -> u8 {
    lookup_last(mcb.field(BASE), vbn, lbn, index)
}

extern "efiapi" fn lookup_last_base_and_index(mcb: Raw<u8>, vbn: Raw<i64>, lbn: Raw<i64>, index: Raw<u32>) -> u8 {
    lookup_last(mcb, vbn, lbn, index)
}

extern "efiapi" fn lookup_last_small(mcb: Raw<u8>, vbn: Raw<u32>, lbn: Raw<u32>) -> u8 {
    let call = Call::enter();
    let Some((block, place, _)) = last(&call, mcb.field(BASE)) else { return 0 };
    vbn.write(low(block));
    lbn.write(low(place));
    1
}

extern "efiapi" fn number_large(mcb: Raw<u8>) -> u32 {
    let call = Call::enter();
    Map::of(&call, mcb.field(BASE)).runs().len() as u32
}

extern "efiapi" fn number_base(mcb: Raw<u8>) -> u32 {
    let call = Call::enter();
    Map::of(&call, mcb).runs().len() as u32
}

/// A run by its index: first block, where that is, and how many there are.
fn run_at(call: &Call, mcb: Raw<u8>, index: u32) -> Option<(i64, i64, i64)> {
    let runs = Map::of(call, mcb).runs();
    let run = runs.get(index as usize)?;
    let start: u32 = runs.iter().take(index as usize).map(|run| run.count).sum();
    Some((start.into(), run.place(), run.count.into()))
}

fn get_next(mcb: Raw<u8>, index: u32, vbn: Raw<i64>, lbn: Raw<i64>, count: Raw<i64>) -> u8 {
    let call = Call::enter();
    let run = run_at(&call, mcb, index);
    let (start, place, length) = run.unwrap_or_default();
    vbn.write(start);
    lbn.write(place);
    count.write(length);
    run.is_some().into()
}

extern "efiapi" fn get_next_large(mcb: Raw<u8>, index: u32, vbn: Raw<i64>, lbn: Raw<i64>, count: Raw<i64>) -> u8 {
    get_next(mcb.field(BASE), index, vbn, lbn, count)
}

extern "efiapi" fn get_next_base(mcb: Raw<u8>, index: u32, vbn: Raw<i64>, lbn: Raw<i64>, count: Raw<i64>) -> u8 {
    get_next(mcb, index, vbn, lbn, count)
}

extern "efiapi" fn get_next_small(mcb: Raw<u8>, index: u32, vbn: Raw<u32>, lbn: Raw<u32>, count: Raw<u32>) -> u8 {
    let call = Call::enter();
    let run = run_at(&call, mcb.field(BASE), index);
    let (start, place, length) = run.unwrap_or_default();
    vbn.write(low(start));
    lbn.write(low(place));
    count.write(low(length));
    run.is_some().into()
}

#[cfg(test)]
mod tests;
