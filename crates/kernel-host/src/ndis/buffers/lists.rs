//! Lists of net buffers.

use std::sync::Arc;

use ndis::raw::{NET_BUFFER, NET_BUFFER_LIST, NET_BUFFER_LIST_CONTEXT, NetBufferListProtocolId};
use nt_types::MDL;

use super::net_buffers::{self, Data};
use super::pools::{BufferPool, Gives};
use super::{CONTEXT_ALIGNMENT, block, context, give_back, own};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Driver;
use crate::nt::raw::{Raw, field};

exports! { pub(in crate::ndis) EXPORTS in "ndis.sys":
    NdisAllocateNetBufferList(max 2, fails NULL) = allocate;
    NdisAllocateNetBufferAndNetBufferList(max 2, fails NULL) = allocate_with_buffer;
    NdisFreeNetBufferList(max 2) = free;
    NdisGetNetBufferListProtocolId(max 2) = protocol_id;
}

/// How a list came to be, which says how it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// From a pool.
    Pool,
    /// `NdisAllocateCloneNetBufferList`, with these flags.
    Clone(u32),
    /// `NdisAllocateFragmentNetBufferList`, retreated by this many bytes.
    Fragment(u32),
    /// `NdisAllocateReassembledNetBufferList`, retreated by this many bytes.
    Reassembled(u32),
}

/// A list.
#[derive(Clone, Debug)]
pub(in crate::ndis) struct List {
    pub(in crate::ndis) driver: Arc<Driver>,
    /// Handle of the pool; 0 where a derived list has none.
    pub(super) pool: usize,
    pub(super) origin: Origin,
    /// The buffer that it came with, or 0.
    buffer: usize,
    /// The context block that it came with, or 0, and the offset of the used part in it.
    pub(super) context: (usize, u16),
}

extern "efiapi" fn allocate(handle: usize, size: u16, back_fill: u16) -> Raw<NET_BUFFER_LIST> {
    let call = Call::enter();
    let pool = pool_of_lists(&call, handle);
    new(&call, handle, &pool, (size, back_fill), Data::NONE)
}

extern "efiapi" fn allocate_with_buffer(
    handle: usize,
    size: u16,
    back_fill: u16,
    chain: Raw<MDL>,
    offset: u32,
    length: u64,
) -> Raw<NET_BUFFER_LIST> {
    let call = Call::enter();
    let pool = pool_of_lists(&call, handle);
    check_gives_plain_buffers(&call, &pool);
    let data = Data::of(&call, chain, offset, length);
    new(&call, handle, &pool, (size, back_fill), data)
}

/// Stops on a pool whose lists come without a buffer, or whose buffers come with data.
pub(super) fn check_gives_plain_buffers(call: &Call, pool: &BufferPool) {
    if !matches!(pool.gives, Gives::Lists { with_buffer: true, .. }) || pool.data != 0 {
        let message = format!("the pool ({pool}) must have been allocated with fAllocateNetBuffer and a DataSize of 0");
        call.stop(Rule::BadArgument, message);
    }
}

pub(super) fn pool_of_lists(call: &Call, handle: usize) -> Arc<BufferPool> {
    let pool = call.machine().ndis.buffer_pool(call, handle);
    if !matches!(pool.gives, Gives::Lists { .. }) {
        call.stop(Rule::BadArgument, format!("{handle:#x} is a pool of net buffers ({pool})"));
    }
    pool
}

/// A list as its pool gives it, with `size` bytes of context; NULL when memory is short.
fn new(call: &Call, handle: usize, pool: &BufferPool, context: (u16, u16), data: Data) -> Raw<NET_BUFFER_LIST> {
    let (size, back_fill) = context;
    let Gives::Lists { context: pooled, with_buffer } = pool.gives else { return Raw::NULL };
    for bytes in [size, back_fill] {
        if !usize::from(bytes).is_multiple_of(CONTEXT_ALIGNMENT) {
            call.stop(Rule::BadArgument, format!("{bytes} bytes of context; sizes are multiples of 16"));
        }
    }
    let room = (usize::from(size) + usize::from(back_fill)).max(pooled);
    let raw = bare(call, handle, pool.tag, Origin::Pool);
    if raw.is_null() {
        return raw;
    }
    let block = if room == 0 { Raw::NULL } else { context::block_of(call, room, usize::from(size), pool.tag) };
    let buffer = match (with_buffer, pool.data) {
        (false, _) => Raw::NULL,
        (true, 0) => net_buffers::new(call, 0, pool.tag, Some(raw.address()), data),
        (true, _) => net_buffers::new_with_data(call, 0, pool, Some(raw.address())),
    };
    let offset = if block.is_null() { 0 } else { field!(block, NET_BUFFER_LIST_CONTEXT, Offset).read() };
    if let Some(list) = call.machine().ndis.lock().buffers.lists.get_mut(&raw.address()) {
        (list.buffer, list.context) = (buffer.address(), (block.address(), offset));
    }
    field!(raw, NET_BUFFER_LIST, Context).write(block.pointer());
    field!(raw, NET_BUFFER_LIST, FirstNetBuffer).write(buffer.pointer());
    if (room != 0 && block.is_null()) || (with_buffer && buffer.is_null()) {
        release(call, raw);
        return Raw::NULL;
    }
    let info = field!(raw, NET_BUFFER_LIST, NetBufferListInfo).cast::<usize>();
    info.index(NetBufferListProtocolId).write(usize::from(pool.protocol));
    raw
}

/// A list with nothing in it; NULL when memory is short.
pub(super) fn bare(call: &Call, pool: usize, tag: u32, origin: Origin) -> Raw<NET_BUFFER_LIST> {
    let raw = Raw::<NET_BUFFER_LIST>::at(block(call, size_of::<NET_BUFFER_LIST>(), tag));
    if !raw.is_null() {
        field!(raw, NET_BUFFER_LIST, NdisPoolHandle).write(Raw::at(pool).pointer());
        let list = List { driver: Arc::clone(call.driver()), pool, origin, buffer: 0, context: (0, 0) };
        call.machine().ndis.lock().buffers.lists.insert(raw.address(), list);
    }
    raw
}

extern "efiapi" fn free(raw: Raw<NET_BUFFER_LIST>) {
    let call = Call::enter();
    let list = own_list(&call, raw);
    if list.origin != Origin::Pool {
        let message = format!("the list was made as {:?}: its own function frees it with its buffers", list.origin);
        call.stop(Rule::BadPoolFree, message);
    }
    let context = Raw::<NET_BUFFER_LIST_CONTEXT>::of(field!(raw, NET_BUFFER_LIST, Context).read());
    let (block, offset) = list.context;
    let is_as_it_was =
        context.address() == block && (block == 0 || field!(context, NET_BUFFER_LIST_CONTEXT, Offset).read() == offset);
    if !is_as_it_was {
        call.stop(Rule::BadState, "context space was added to the list: NdisFreeNetBufferListContext comes first");
    }
    release(&call, raw);
}

/// The list that the driver passes in order to free it. Stops on one that is none, another driver's, or under way.
pub(super) fn own_list(call: &Call, raw: Raw<NET_BUFFER_LIST>) -> List {
    let found = call.machine().ndis.lock().buffers.lists.get(&raw.address()).cloned();
    let list = own(call, found, |list| &list.driver, raw.address(), "net buffer list");
    if let Some(holder) = call.machine().ndis.holder(raw.address()) {
        call.stop(Rule::BadState, format!("the net buffer list {raw:?} is freed although {holder}"));
    }
    list
}

/// Frees a list and what came with it.
pub(super) fn release(call: &Call, raw: Raw<NET_BUFFER_LIST>) {
    let Some(list) = call.machine().ndis.lock().buffers.lists.remove(&raw.address()) else { return };
    let said = field!(raw, NET_BUFFER_LIST, NdisPoolHandle).read().addr();
    if said != list.pool {
        let message = format!("NdisPoolHandle of {raw:?} is {said:#x}, but it came from {:#x}", list.pool);
        call.stop(Rule::BadArgument, message);
    }
    net_buffers::release(call, list.buffer);
    give_back(call, list.context.0);
    give_back(call, raw.address());
}

/// The buffers of a list, in their order. A list of more than this many has lost its end.
pub(super) fn buffers_of(call: &Call, raw: Raw<NET_BUFFER_LIST>) -> Vec<Raw<NET_BUFFER>> {
    const MOST: usize = 65536;
    let mut buffers = Vec::new();
    let mut next = Raw::of(field!(raw, NET_BUFFER_LIST, FirstNetBuffer).read()).some();
    while let Some(buffer) = next {
        if buffers.len() == MOST {
            call.stop(Rule::BadArgument, format!("the net buffers of {raw:?} are a ring, or their end is overwritten"));
        }
        buffers.push(buffer);
        next = Raw::of(field!(buffer, NET_BUFFER, Next).read()).some();
    }
    buffers
}

extern "efiapi" fn protocol_id(raw: Raw<NET_BUFFER_LIST>) -> u8 {
    let _call = Call::enter();
    let info = field!(raw, NET_BUFFER_LIST, NetBufferListInfo).cast::<usize>();
    info.index(NetBufferListProtocolId).read() as u8
}
