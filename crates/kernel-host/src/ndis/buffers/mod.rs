//! Net buffers and lists of them: the structures in which NDIS drivers hand frames to each other.
//!
//! Every structure lies on pages of its own, as pool does, with the pool tag of its owner: what is written behind a structure or
//! behind the data faults, what is used after its free faults, and what is never freed is in the leak report with the place that
//! allocated it. What each structure is, whom it belongs to and what came with it is kept here, by address, since a driver may
//! have overwritten what the structure says of itself.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ddi::Call;
use crate::finding::Rule;
use crate::machine::Driver;
use crate::nt::pool::{PoolKind, Request};
use crate::nt::raw::Raw;

mod chain;
mod context;
mod copy;
mod data;
mod derived;
mod info;
mod lists;
mod mdls;
mod net_buffers;
mod pools;

pub(super) use chain::segments;
pub(super) use context::EXPORTS as CONTEXT_EXPORTS;
pub(super) use copy::EXPORTS as COPY_EXPORTS;
pub(super) use data::EXPORTS as DATA_EXPORTS;
pub(super) use derived::EXPORTS as DERIVED_EXPORTS;
pub(super) use info::EXPORTS as INFO_EXPORTS;
pub(super) use lists::{EXPORTS as LIST_EXPORTS, List};
pub(super) use mdls::EXPORTS as MDL_EXPORTS;
pub(super) use net_buffers::EXPORTS as BUFFER_EXPORTS;
pub(super) use pools::EXPORTS as POOL_EXPORTS;

use mdls::Mdl;
use net_buffers::Buffer;
pub(super) use pools::BufferPool;

/// Alignment that sizes of context space have, in bytes (`MEMORY_ALLOCATION_ALIGNMENT`).
const CONTEXT_ALIGNMENT: usize = 16;

/// Everything that is allocated, by address.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// By handle.
    pub(super) pools: BTreeMap<usize, Arc<BufferPool>>,
    pub(super) lists: BTreeMap<usize, List>,
    frames: BTreeMap<usize, Buffer>,
    mdls: BTreeMap<usize, Mdl>,
    /// MDLs that retreats got from a driver's `NetAllocateMdl`: the driver's `NetFreeMdl` frees them, however they were made.
    handled: BTreeSet<usize>,
}

impl Buffers {
    /// Names a structure in `length` bytes at `start` that only NDIS may free.
    pub(super) fn active_in(&self, start: usize, length: usize) -> Option<String> {
        let inside = start..start.saturating_add(length);
        if self.lists.range(inside.clone()).next().is_some() {
            return Some("a net buffer list in it is not freed: NdisFreeNetBufferList does that".to_owned());
        }
        if self.frames.range(inside.clone()).next().is_some() {
            return Some("a net buffer in it is not freed: NdisFreeNetBuffer does that".to_owned());
        }
        let mdl = self.mdls.range(inside).next();
        mdl.map(|_| "an MDL of NDIS in it is not freed: NdisFreeMdl does that".to_owned())
    }

    /// How much came from a pool and is not freed.
    fn outstanding(&self, pool: usize) -> usize {
        let lists = self.lists.values().filter(|list| list.pool == pool).count();
        lists + self.frames.values().filter(|buffer| buffer.pool == pool && buffer.list.is_none()).count()
    }
}

/// Memory for a structure or for data of the calling driver; 0 when memory is short.
fn block(call: &Call, length: usize, tag: u32) -> usize {
    let request = Request { kind: PoolKind::NonPaged, length, tag, zeroed: true, cache_aligned: false };
    call.machine().nt.pool().allocate(call, request)
}

/// The opposite of [`block`]; nothing for 0.
fn give_back(call: &Call, address: usize) {
    if address != 0 {
        call.machine().nt.pool().free(call, address, 0);
    }
}

/// What `found` says of a structure; stops when nothing is known of it, or another driver allocated it.
fn own<T>(call: &Call, found: Option<T>, driver: impl Fn(&T) -> &Arc<Driver>, address: usize, what: &str) -> T {
    match found {
        Some(found) if Arc::ptr_eq(driver(&found), call.driver()) => found,
        Some(found) => {
            let message = format!("{address:#x} is a {what} that {} allocated, and frees", driver(&found).name);
            call.stop(Rule::BadPoolFree, message);
        }
        None => {
            call.stop(Rule::BadPoolFree, format!("{address:#x} is no {what} that NDIS allocated, or one that is freed"))
        }
    }
}

/// Stops on a NULL structure.
fn check_some<T>(call: &Call, raw: Raw<T>, what: &str) {
    if raw.is_null() {
        call.stop(Rule::BadArgument, format!("the {what} is NULL"));
    }
}
