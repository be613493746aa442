//! Context space of lists.

use ndis::NdisStatus;
use ndis::raw::{NET_BUFFER_LIST, NET_BUFFER_LIST_CONTEXT};

use super::{block, check_some, give_back};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::raw::{Raw, field};

exports! { pub(in crate::ndis) EXPORTS in "ndis.sys":
    NdisAllocateNetBufferListContext(max 2, fails RETURNS_NDIS_FAILURE) = allocate;
    NdisFreeNetBufferListContext(max 2) = free;
}

/// A block of `room` bytes of which the last `used` are used; NULL when memory is short.
pub(super) fn block_of(call: &Call, room: usize, used: usize, tag: u32) -> Raw<NET_BUFFER_LIST_CONTEXT> {
    let header = size_of::<NET_BUFFER_LIST_CONTEXT>();
    let Ok(size) = u16::try_from(room) else { return Raw::NULL };
    let raw = Raw::<NET_BUFFER_LIST_CONTEXT>::at(block(call, header + room, tag));
    if !raw.is_null() {
        let offset = size - used as u16;
        raw.write(NET_BUFFER_LIST_CONTEXT { Next: std::ptr::null_mut(), Size: size, Offset: offset });
    }
    raw
}

extern "efiapi" fn allocate(list: Raw<NET_BUFFER_LIST>, size: u16, back_fill: u16, tag: u32) -> NdisStatus {
    let call = Call::enter();
    check_some(&call, list, "net buffer list");
    for bytes in [size, back_fill] {
        check_size(&call, bytes);
    }
    let first = field!(list, NET_BUFFER_LIST, Context);
    let context = Raw::of(first.read());
    if let Some(context) = context.some() {
        let offset = field!(context, NET_BUFFER_LIST_CONTEXT, Offset);
        if let Some(left) = offset.read().checked_sub(size) {
            offset.write(left);
            return NdisStatus::SUCCESS;
        }
    }
    let Some(room) = size.checked_add(back_fill) else { return NdisStatus::FAILURE };
    let added = block_of(&call, usize::from(room), usize::from(size), tag);
    if added.is_null() {
        return NdisStatus::RESOURCES;
    }
    field!(added, NET_BUFFER_LIST_CONTEXT, Next).write(context.pointer());
    first.write(added.pointer());
    NdisStatus::SUCCESS
}

extern "efiapi" fn free(list: Raw<NET_BUFFER_LIST>, size: u16) {
    let call = Call::enter();
    check_some(&call, list, "net buffer list");
    check_size(&call, size);
    let first = field!(list, NET_BUFFER_LIST, Context);
    let Some(context) = Raw::of(first.read()).some() else {
        call.stop(Rule::BadState, "the list has no context space");
    };
    let NET_BUFFER_LIST_CONTEXT { Next, Size, Offset } = context.read();
    let known = call.machine().ndis.lock().buffers.lists.get(&list.address()).map(|list| list.context);
    // The block that the list came with keeps what was used from the start: it goes with the list.
    let end = known.filter(|(own, _)| *own == context.address()).map_or(Size, |(_, offset)| offset);
    let used = end.saturating_sub(Offset);
    if size > used {
        call.stop(Rule::BadArgument, format!("{size} bytes of context space are freed, but only {used} were added"));
    }
    field!(context, NET_BUFFER_LIST_CONTEXT, Offset).write(Offset + size);
    if end == Size && Offset + size == Size && known.is_none_or(|(own, _)| own != context.address()) {
        first.write(Next);
        give_back(&call, context.address());
    }
}

fn check_size(call: &Call, bytes: u16) {
    if !usize::from(bytes).is_multiple_of(size_of::<usize>()) {
        call.stop(Rule::BadArgument, format!("{bytes} bytes of context space; sizes are multiples of 8"));
    }
}
