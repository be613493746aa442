//! Lists that describe the data of others: clones, fragments, reassembled lists.

use ndis::raw::{NDIS_CLONE_FLAGS_USE_ORIGINAL_MDLS, NET_BUFFER, NET_BUFFER_LIST};
use nt_types::MDL;

use super::chain::{self, Segment};
use super::data::{advance_one, retreat_one};
use super::lists::{Origin, bare, buffers_of, check_gives_plain_buffers, own_list, pool_of_lists, release};
use super::mdls::{self, Made};
use super::net_buffers::{self, Data};
use super::{check_some, give_back};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::mdl;
use crate::nt::raw::{Raw, field};

exports! { pub(in crate::ndis) EXPORTS in "ndis.sys":
    NdisAllocateCloneNetBufferList(max 2, fails NULL) = allocate_clone;
    NdisFreeCloneNetBufferList(max 2) = free_clone;
    NdisAllocateFragmentNetBufferList(max 2, fails NULL) = allocate_fragment;
    NdisFreeFragmentNetBufferList(max 2) = free_fragment;
    NdisAllocateReassembledNetBufferList(max 2, fails NULL) = allocate_reassembled;
    NdisFreeReassembledNetBufferList(max 2) = free_reassembled;
}

/// Tag of structures of lists without a pool.
const TAG: u32 = u32::from_le_bytes(*b"NDdl");

/// A derived list that is being made.
struct Making<'c> {
    call: &'c Call,
    list: Raw<NET_BUFFER_LIST>,
    tag: u32,
    /// Where the next buffer is linked in.
    link: Raw<*mut NET_BUFFER>,
    /// Pool of the buffers, or 0.
    buffer_pool: usize,
    origin: Origin,
}

impl<'c> Making<'c> {
    fn begin(call: &'c Call, list_pool: usize, buffer_pool: usize, origin: Origin) -> Option<Self> {
        let tag = if list_pool == 0 { TAG } else { pool_of_lists(call, list_pool).tag };
        if buffer_pool != 0 {
            let _ = call.machine().ndis.buffer_pool(call, buffer_pool);
        }
        let list = bare(call, list_pool, tag, origin).some()?;
        Some(Self { call, list, tag, link: field!(list, NET_BUFFER_LIST, FirstNetBuffer), buffer_pool, origin })
    }

    /// Adds a buffer; `None` when memory is short.
    fn add(&mut self, data: Data) -> Option<Raw<NET_BUFFER>> {
        let owner = (self.buffer_pool == 0).then_some(self.list.address());
        let buffer = net_buffers::new(self.call, self.buffer_pool, self.tag, owner, data).some()?;
        self.link.write(buffer.pointer());
        self.link = field!(buffer, NET_BUFFER, Next);
        Some(buffer)
    }

    /// Adds a buffer with MDLs of its own for the same bytes.
    fn add_describing(&mut self, segments: &[Segment]) -> Option<Raw<NET_BUFFER>> {
        let mut first: Raw<MDL> = Raw::NULL;
        let mut last = first;
        for (address, count) in segments {
            let Some(list) = mdl::describe(self.call, *address, *count).some() else {
                free_mdls(self.call, first);
                return None;
            };
            mdls::remember(self.call, list, Made::Derived);
            if first.is_null() {
                first = list;
            } else {
                field!(last, MDL, Next).write(list.pointer());
            }
            last = list;
        }
        let length = segments.iter().map(|(_, count)| *count as u64).sum();
        let added = self.add(Data { chain: first, offset: 0, length });
        if added.is_none() {
            free_mdls(self.call, first);
        }
        added
    }

    /// The list, if everything that it needs is there.
    fn end(self, made: Option<()>) -> Raw<NET_BUFFER_LIST> {
        if made.is_some() {
            return self.list;
        }
        free_all(self.call, self.list, self.origin);
        Raw::NULL
    }
}

/// Frees the MDLs of a chain that came with a derived list, and what it was retreated into.
fn free_mdls(call: &Call, first: Raw<MDL>) {
    for list in chain::mdls_of(call, first) {
        let data = match mdls::made(call, list) {
            Some(Made::Derived) => 0,
            Some(Made::Retreat(data)) => data,
            _ => continue,
        };
        mdls::forget(call, list);
        give_back(call, list.address());
        give_back(call, data);
    }
}

/// Frees a derived list with its buffers and their MDLs, unless these are the original's.
fn free_all(call: &Call, list: Raw<NET_BUFFER_LIST>, origin: Origin) {
    let has_own = !matches!(origin, Origin::Clone(flags) if flags & NDIS_CLONE_FLAGS_USE_ORIGINAL_MDLS != 0);
    for buffer in buffers_of(call, list) {
        if has_own {
            free_mdls(call, Raw::of(field!(buffer, NET_BUFFER, MdlChain).read()));
        }
        net_buffers::release(call, buffer.address());
    }
    release(call, list);
}

extern "efiapi" fn allocate_clone(
    original: Raw<NET_BUFFER_LIST>,
    list_pool: usize,
    buffer_pool: usize,
    flags: u32,
) -> Raw<NET_BUFFER_LIST> {
    let call = Call::enter();
    check_some(&call, original, "net buffer list");
    let buffers = buffers_of(&call, original);
    let Some(mut making) = Making::begin(&call, list_pool, buffer_pool, Origin::Clone(flags)) else { return Raw::NULL };
    let made = buffers.into_iter().try_for_each(|buffer| {
        if flags & NDIS_CLONE_FLAGS_USE_ORIGINAL_MDLS == 0 {
            return making.add_describing(&chain::segments(&call, buffer)).map(|_| ());
        }
        // Only what is used is cloned: it begins in the current MDL.
        let data = Data {
            chain: Raw::of(field!(buffer, NET_BUFFER, CurrentMdl).read()),
            offset: field!(buffer, NET_BUFFER, CurrentMdlOffset).read(),
            length: field!(buffer, NET_BUFFER, DataLength).read(),
        };
        making.add(data).map(|_| ())
    });
    making.end(made)
}

extern "efiapi" fn free_clone(list: Raw<NET_BUFFER_LIST>, flags: u32) {
    let call = Call::enter();
    check_origin(&call, list, Origin::Clone(flags));
    free_all(&call, list, Origin::Clone(flags));
}

/// Stops on a list that was made in another way.
fn check_origin(call: &Call, list: Raw<NET_BUFFER_LIST>, freed_as: Origin) {
    let origin = own_list(call, list).origin;
    if origin != freed_as {
        call.stop(Rule::BadArgument, format!("the list was made as {origin:?}, and is freed as {freed_as:?}"));
    }
}

extern "efiapi" fn allocate_fragment(
    original: Raw<NET_BUFFER_LIST>,
    list_pool: usize,
    buffer_pool: usize,
    start: u32,
    most: u32,
    delta: u32,
    back_fill: u32,
    _flags: u32,
) -> Raw<NET_BUFFER_LIST> {
    let call = Call::enter();
    check_some(&call, original, "net buffer list");
    if most == 0 {
        call.stop(Rule::BadArgument, "fragments of at most 0 bytes");
    }
    let buffers = buffers_of(&call, original);
    let origin = Origin::Fragment(delta);
    let Some(mut making) = Making::begin(&call, list_pool, buffer_pool, origin) else { return Raw::NULL };
    let made = buffers.into_iter().try_for_each(|buffer| {
        let data = chain::segments(&call, buffer);
        let length: usize = data.iter().map(|(_, count)| count).sum();
        (start as usize..length).step_by(most as usize).try_for_each(|at| {
            let fragment = making.add_describing(&chain::part(&data, at, most as usize))?;
            retreat_one(&call, fragment, delta, back_fill, None).is_success().then_some(())
        })
    });
    making.end(made)
}

extern "efiapi" fn free_fragment(list: Raw<NET_BUFFER_LIST>, delta: u32, _flags: u32) {
    let call = Call::enter();
    let origin = Origin::Fragment(delta);
    check_origin(&call, list, origin);
    free_retreated(&call, list, delta, origin);
}

/// Frees a list whose buffers were retreated when it was made.
fn free_retreated(call: &Call, list: Raw<NET_BUFFER_LIST>, delta: u32, origin: Origin) {
    for buffer in buffers_of(call, list) {
        advance_one(call, buffer, delta, true, None);
    }
    free_all(call, list, origin);
}

extern "efiapi" fn allocate_reassembled(
    fragments: Raw<NET_BUFFER_LIST>,
    pool: usize,
    start: u32,
    delta: u32,
    back_fill: u32,
    _flags: u32,
) -> Raw<NET_BUFFER_LIST> {
    let call = Call::enter();
    check_some(&call, fragments, "net buffer list");
    if pool != 0 {
        check_gives_plain_buffers(&call, &pool_of_lists(&call, pool));
    }
    let mut data = Vec::new();
    for buffer in buffers_of(&call, fragments) {
        data.extend(chain::part(&chain::segments(&call, buffer), start as usize, usize::MAX));
    }
    let Some(mut making) = Making::begin(&call, pool, 0, Origin::Reassembled(delta)) else { return Raw::NULL };
    let made = making.add_describing(&data).and_then(|whole| {
        let status = retreat_one(&call, whole, delta, back_fill, None);
        status.is_success().then_some(())
    });
    making.end(made)
}

extern "efiapi" fn free_reassembled(list: Raw<NET_BUFFER_LIST>, delta: u32, _flags: u32) {
    let call = Call::enter();
    let origin = Origin::Reassembled(delta);
    check_origin(&call, list, origin);
    free_retreated(&call, list, delta, origin);
}
