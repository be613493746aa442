//! Net buffers.

use std::sync::Arc;

use ndis::raw::NET_BUFFER;
use nt_types::MDL;

use super::pools::{BufferPool, Gives};
use super::{block, chain, give_back, own};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Driver;
use crate::nt::mdl;
use crate::nt::raw::{Raw, field};

exports! { pub(in crate::ndis) EXPORTS in "ndis.sys":
    NdisAllocateNetBuffer(max 2, fails NULL) = allocate;
    NdisAllocateNetBufferMdlAndData(max 2, fails NULL) = allocate_with_data;
    NdisFreeNetBuffer(max 2) = free;
}

/// A net buffer, and what came with it.
#[derive(Clone, Debug)]
pub(super) struct Buffer {
    pub(super) driver: Arc<Driver>,
    /// Handle of the pool; 0 for those of derived lists.
    pub(super) pool: usize,
    /// The list that it came with.
    pub(super) list: Option<usize>,
    /// The MDL and the data that it came with, or 0.
    mdl: usize,
    data: usize,
}

/// What a new buffer describes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Data {
    pub(super) chain: Raw<MDL>,
    pub(super) offset: u32,
    pub(super) length: u64,
}

impl Data {
    /// None.
    pub(super) const NONE: Self = Self { chain: Raw::NULL, offset: 0, length: 0 };

    /// What a driver says of its chain. Stops on data without one.
    pub(super) fn of(call: &Call, chain: Raw<MDL>, offset: u32, length: u64) -> Self {
        if chain.is_null() && (offset != 0 || length != 0) {
            let message = format!("no MDL, and data at {offset} of length {length}: both must be 0 without one");
            call.stop(Rule::BadArgument, message);
        }
        Self { chain, offset, length }
    }
}

extern "efiapi" fn allocate(handle: usize, chain: Raw<MDL>, offset: u32, length: u64) -> Raw<NET_BUFFER> {
    let call = Call::enter();
    let pool = pool_of_buffers(&call, handle);
    if pool.data != 0 {
        call.stop(Rule::BadArgument, "the pool's buffers come with data: NdisAllocateNetBufferMdlAndData gives them");
    }
    let data = Data::of(&call, chain, offset, length);
    new(&call, handle, pool.tag, None, data)
}

extern "efiapi" fn allocate_with_data(handle: usize) -> Raw<NET_BUFFER> {
    let call = Call::enter();
    let pool = pool_of_buffers(&call, handle);
    if pool.data == 0 {
        call.stop(Rule::BadArgument, "the pool was allocated with a DataSize of 0: it has no data to give");
    }
    new_with_data(&call, handle, &pool, None)
}

fn pool_of_buffers(call: &Call, handle: usize) -> Arc<BufferPool> {
    let pool = call.machine().ndis.buffer_pool(call, handle);
    if pool.gives != Gives::Buffers {
        call.stop(Rule::BadArgument, format!("{handle:#x} is a pool of lists ({pool})"));
    }
    pool
}

/// A new buffer; NULL when memory is short.
pub(super) fn new(call: &Call, pool: usize, tag: u32, list: Option<usize>, data: Data) -> Raw<NET_BUFFER> {
    let raw = Raw::<NET_BUFFER>::at(block(call, size_of::<NET_BUFFER>(), tag));
    if raw.is_null() {
        return raw;
    }
    field!(raw, NET_BUFFER, NdisPoolHandle).write(Raw::at(pool).pointer());
    field!(raw, NET_BUFFER, MdlChain).write(data.chain.pointer());
    field!(raw, NET_BUFFER, DataOffset).write(data.offset);
    field!(raw, NET_BUFFER, DataLength).write(data.length);
    chain::find_current(call, raw);
    let buffer = Buffer { driver: Arc::clone(call.driver()), pool, list, mdl: 0, data: 0 };
    call.machine().ndis.lock().buffers.frames.insert(raw.address(), buffer);
    raw
}

/// A new buffer with data of its own, as its pool says; NULL when memory is short.
pub(super) fn new_with_data(call: &Call, handle: usize, pool: &BufferPool, list: Option<usize>) -> Raw<NET_BUFFER> {
    let data = block(call, pool.data, pool.tag);
    let list_of_pages = if data == 0 { Raw::NULL } else { mdl::describe(call, data, pool.data) };
    let of_pool = Data { chain: list_of_pages, offset: 0, length: pool.data as u64 };
    let raw = if list_of_pages.is_null() { Raw::NULL } else { new(call, handle, pool.tag, list, of_pool) };
    let mut state = call.machine().ndis.lock();
    let made = state.buffers.frames.get_mut(&raw.address());
    let is_made = made.is_some();
    if let Some(buffer) = made {
        (buffer.mdl, buffer.data) = (list_of_pages.address(), data);
    }
    drop(state);
    if !is_made {
        give_back(call, list_of_pages.address());
        give_back(call, data);
    }
    raw
}

extern "efiapi" fn free(raw: Raw<NET_BUFFER>) {
    let call = Call::enter();
    let found = call.machine().ndis.lock().buffers.frames.get(&raw.address()).cloned();
    let buffer = own(&call, found, |buffer| &buffer.driver, raw.address(), "net buffer");
    if buffer.list.is_some() {
        call.stop(Rule::BadPoolFree, "the net buffer came with its list: NdisFreeNetBufferList frees both");
    }
    release(&call, raw.address());
}

/// Frees a buffer and what came with it. Stops when its pool is not the one that it says, or when something was written beyond.
pub(super) fn release(call: &Call, address: usize) {
    let Some(buffer) = call.machine().ndis.lock().buffers.frames.remove(&address) else { return };
    let said = field!(Raw::<NET_BUFFER>::at(address), NET_BUFFER, NdisPoolHandle).read().addr();
    if said != buffer.pool {
        let message = format!("NdisPoolHandle of {address:#x} is {said:#x}, but it came from {:#x}", buffer.pool);
        call.stop(Rule::BadArgument, message);
    }
    give_back(call, buffer.mdl);
    give_back(call, buffer.data);
    give_back(call, address);
}
