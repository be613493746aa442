//! Pools of net buffers and of lists.

use std::fmt;
use std::sync::Arc;

use ndis::raw::{
    NDIS_OBJECT_HEADER, NDIS_OBJECT_TYPE_DEFAULT, NDIS_SIZEOF_NET_BUFFER_LIST_POOL_PARAMETERS_REVISION_1,
    NDIS_SIZEOF_NET_BUFFER_POOL_PARAMETERS_REVISION_1, NET_BUFFER, NET_BUFFER_LIST, NET_BUFFER_LIST_POOL_PARAMETERS,
    NET_BUFFER_POOL_PARAMETERS,
};

use super::CONTEXT_ALIGNMENT;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Driver;
use crate::ndis::memory::check_handle;
use crate::ndis::{Ndis, end_handle, new_handle};
use crate::nt::pool::Tag;
use crate::nt::raw::{Raw, field};

exports! { pub(in crate::ndis) EXPORTS in "ndis.sys":
    NdisAllocateNetBufferListPool(max 2, fails NULL) = allocate_list_pool;
    NdisFreeNetBufferListPool(max 2) = free_list_pool;
    NdisAllocateNetBufferPool(max 2, fails NULL) = allocate_buffer_pool;
    NdisFreeNetBufferPool(max 2) = free_buffer_pool;
    NdisGetPoolFromNetBufferList(max 2) = pool_of_list;
    NdisGetPoolFromNetBuffer(max 2) = pool_of_buffer;
}

/// What a pool gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ndis) enum Gives {
    /// Lists: bytes of context, and whether each has a buffer.
    Lists { context: usize, with_buffer: bool },
    /// Buffers.
    Buffers,
}

/// A pool.
#[derive(Debug)]
pub(in crate::ndis) struct BufferPool {
    pub(in crate::ndis) driver: Arc<Driver>,
    pub(super) gives: Gives,
    /// Bytes of data that each buffer comes with.
    pub(super) data: usize,
    pub(super) tag: u32,
    pub(super) protocol: u8,
}

impl fmt::Display for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let call = match self.gives {
            Gives::Lists { .. } => "NdisAllocateNetBufferListPool",
            Gives::Buffers => "NdisAllocateNetBufferPool",
        };
        write!(f, "{call}, tag {}", Tag(self.tag))
    }
}

extern "efiapi" fn allocate_list_pool(handle: usize, parameters: Raw<NET_BUFFER_LIST_POOL_PARAMETERS>) -> usize {
    let call = Call::enter();
    check(&call, handle, parameters.cast(), NDIS_SIZEOF_NET_BUFFER_LIST_POOL_PARAMETERS_REVISION_1);
    let parameters = parameters.read();
    let context = usize::from(parameters.ContextSize);
    if !context.is_multiple_of(CONTEXT_ALIGNMENT) {
        call.stop(Rule::BadArgument, format!("ContextSize is {context}; it must be a multiple of 16"));
    }
    let with_buffer = parameters.fAllocateNetBuffer != 0;
    if parameters.DataSize != 0 && !with_buffer {
        call.stop(Rule::BadArgument, "a DataSize without fAllocateNetBuffer: data belong to a buffer");
    }
    add(&call, Gives::Lists { context, with_buffer }, parameters.DataSize, parameters.PoolTag, parameters.ProtocolId)
}

extern "efiapi" fn allocate_buffer_pool(handle: usize, parameters: Raw<NET_BUFFER_POOL_PARAMETERS>) -> usize {
    let call = Call::enter();
    check(&call, handle, parameters.cast(), NDIS_SIZEOF_NET_BUFFER_POOL_PARAMETERS_REVISION_1);
    let parameters = parameters.read();
    add(&call, Gives::Buffers, parameters.DataSize, parameters.PoolTag, 0)
}

/// Stops on a handle that is none (NULL is allowed), and on parameters that are none.
fn check(call: &Call, handle: usize, header: Raw<NDIS_OBJECT_HEADER>, size: u16) {
    if handle != 0 {
        check_handle(call, handle);
    }
    let NDIS_OBJECT_HEADER { Type, Revision, Size } = header.read();
    if Type != NDIS_OBJECT_TYPE_DEFAULT || Revision == 0 || Size < size {
        let message = format!(
            "{header:?} is no structure of pool parameters: type {Type:#x}, revision {Revision}, size {Size}; they \
             are NDIS_OBJECT_TYPE_DEFAULT, 1 and at least {size}"
        );
        call.stop(Rule::BadArgument, message);
    }
}

fn add(call: &Call, gives: Gives, data: u32, tag: u32, protocol: u8) -> usize {
    call.detail(Tag(tag));
    let handle = new_handle(call.machine());
    if handle != 0 {
        let driver = Arc::clone(call.driver());
        let pool = BufferPool { driver, gives, data: data as usize, tag, protocol };
        call.machine().ndis.lock().buffers.pools.insert(handle, Arc::new(pool));
    }
    handle
}

extern "efiapi" fn free_list_pool(handle: usize) {
    let call = Call::enter();
    free(&call, handle, true);
}

extern "efiapi" fn free_buffer_pool(handle: usize) {
    let call = Call::enter();
    free(&call, handle, false);
}

fn free(call: &Call, handle: usize, of_lists: bool) {
    let pool = call.machine().ndis.buffer_pool(call, handle);
    if matches!(pool.gives, Gives::Lists { .. }) != of_lists {
        call.stop(Rule::BadArgument, format!("{handle:#x} is a pool of the other kind ({pool})"));
    }
    let outstanding = call.machine().ndis.lock().buffers.outstanding(handle);
    if outstanding != 0 {
        let message = format!("{outstanding} structures of the pool ({pool}) are not freed: the pool goes last");
        call.stop(Rule::BadState, message);
    }
    call.machine().ndis.lock().buffers.pools.remove(&handle);
    end_handle(call.machine(), handle);
}

impl Ndis {
    /// The pool behind a handle that a driver passed. Stops on a handle that is none, or not of this driver.
    pub(super) fn buffer_pool(&self, call: &Call, handle: usize) -> Arc<BufferPool> {
        let pool = self.lock().buffers.pools.get(&handle).cloned();
        pool.filter(|pool| Arc::ptr_eq(&pool.driver, call.driver())).unwrap_or_else(|| {
            call.stop(Rule::InvalidHandle, format!("{handle:#x} is no pool of this driver, or one that is freed"))
        })
    }
}

extern "efiapi" fn pool_of_list(list: Raw<NET_BUFFER_LIST>) -> usize {
    let _call = Call::enter();
    field!(list, NET_BUFFER_LIST, NdisPoolHandle).read().addr()
}

extern "efiapi" fn pool_of_buffer(buffer: Raw<NET_BUFFER>) -> usize {
    let _call = Call::enter();
    field!(buffer, NET_BUFFER, NdisPoolHandle).read().addr()
}
