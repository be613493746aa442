//! Walks along MDL chains.

use ndis::raw::NET_BUFFER;
use nt_types::MDL;

use crate::ddi::Call;
use crate::finding::Rule;
use crate::nt::mdl;
use crate::nt::raw::{Raw, field};

/// Longest chain that is followed: one that is longer has lost its end.
const MOST: usize = 65536;

/// A run of bytes that lie together: address and length.
pub(in crate::ndis) type Segment = (usize, usize);

/// The MDLs of a chain, in their order.
pub(super) fn mdls_of(call: &Call, first: Raw<MDL>) -> Vec<Raw<MDL>> {
    let mut mdls = Vec::new();
    let mut next = first.some();
    while let Some(list) = next {
        if mdls.len() == MOST {
            call.stop(Rule::BadArgument, format!("the MDL chain at {first:?} is a ring, or its end is overwritten"));
        }
        mdls.push(list);
        next = Raw::of(field!(list, MDL, Next).read()).some();
    }
    mdls
}

/// Sets the current MDL and the offset in it from the offset of the data.
pub(super) fn find_current(call: &Call, buffer: Raw<NET_BUFFER>) {
    let mut offset = field!(buffer, NET_BUFFER, DataOffset).read();
    let mdls = mdls_of(call, Raw::of(field!(buffer, NET_BUFFER, MdlChain).read()));
    let mut current = Raw::NULL;
    for (index, list) in mdls.iter().enumerate() {
        let count = field!(*list, MDL, ByteCount).read();
        current = *list;
        // Data that end with the chain are at the end of its last MDL.
        if offset < count || index + 1 == mdls.len() {
            break;
        }
        offset -= count;
    }
    field!(buffer, NET_BUFFER, CurrentMdl).write(current.pointer());
    field!(buffer, NET_BUFFER, CurrentMdlOffset).write(if current.is_null() { 0 } else { offset });
}

/// All bytes from the current offset to the end of the chain, data or not, where they lie.
pub(super) fn room(call: &Call, buffer: Raw<NET_BUFFER>) -> Vec<Segment> {
    let mut skip = field!(buffer, NET_BUFFER, CurrentMdlOffset).read() as usize;
    let mut found = Vec::new();
    for list in mdls_of(call, Raw::of(field!(buffer, NET_BUFFER, CurrentMdl).read())) {
        let count = field!(list, MDL, ByteCount).read() as usize;
        if skip < count {
            found.push((mdl::system_address(call, list) + skip, count - skip));
        }
        skip = skip.saturating_sub(count);
    }
    found
}

/// The data of a buffer. Stops when its MDLs describe fewer bytes than it says.
pub(in crate::ndis) fn segments(call: &Call, buffer: Raw<NET_BUFFER>) -> Vec<Segment> {
    let length = field!(buffer, NET_BUFFER, DataLength).read() as u32 as usize;
    let room = room(call, buffer);
    let described: usize = room.iter().map(|(_, count)| count).sum();
    if described < length {
        let message =
            format!("{buffer:?} has {length} bytes of data, but its MDLs describe {described} from its offset on");
        call.stop(Rule::BadArgument, message);
    }
    part(&room, 0, length)
}

/// At most `length` bytes of the segments, from `start` on.
pub(super) fn part(of: &[Segment], start: usize, length: usize) -> Vec<Segment> {
    let (mut skip, mut left) = (start, length);
    let mut found = Vec::new();
    for (address, count) in of {
        let skipped = skip.min(*count);
        skip -= skipped;
        let taken = (count - skipped).min(left);
        left -= taken;
        if taken > 0 {
            found.push((address + skipped, taken));
        }
    }
    found
}
