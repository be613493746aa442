//! Access to the data of buffers.

use ndis::NdisStatus;
use ndis::raw::{NET_BUFFER, NET_BUFFER_LIST};

use super::chain::{self, Segment};
use super::check_some;
use super::lists::buffers_of;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::arena::PAGE;
use crate::nt::raw::{Raw, field};

exports! { pub(in crate::ndis) EXPORTS in "ndis.sys":
    NdisGetDataBuffer(max 2, fails NULL) = get_data_buffer;
    NdisCopyFromNetBufferToNetBuffer(max 2, fails NDIS_RESOURCES) = copy;
    NdisQueryNetBufferPhysicalCount(max 2) = physical_count;
}

extern "efiapi" fn get_data_buffer(
    buffer: Raw<NET_BUFFER>,
    needed: u32,
    storage: Raw<u8>,
    align_multiple: u32,
    align_offset: u32,
) -> usize {
    let call = Call::enter();
    check_some(&call, buffer, "net buffer");
    if !align_multiple.is_power_of_two() {
        call.stop(Rule::BadArgument, format!("AlignMultiple is {align_multiple}; it must be a power of two"));
    }
    let needed = needed as usize;
    if (field!(buffer, NET_BUFFER, DataLength).read() as u32 as usize) < needed {
        return 0;
    }
    let data = chain::part(&chain::segments(&call, buffer), 0, needed);
    let is_aligned =
        |address: usize| (address.wrapping_sub(align_offset as usize)).is_multiple_of(align_multiple as usize);
    if let [(address, count)] = data[..]
        && count == needed
        && is_aligned(address)
    {
        return address;
    }
    if !storage.is_null() {
        let mut at = storage;
        for (address, count) in data {
            at.write_bytes(&Raw::<u8>::at(address).read_bytes(count));
            at = at.index(count);
        }
    }
    storage.address()
}

extern "efiapi" fn copy(
    destination: Raw<NET_BUFFER>,
    destination_offset: u32,
    bytes: u32,
    source: Raw<NET_BUFFER>,
    source_offset: u32,
    copied_out: Raw<u32>,
) -> NdisStatus {
    let call = Call::enter();
    check_some(&call, destination, "destination");
    check_some(&call, source, "source");
    let from = chain::part(&chain::segments(&call, source), source_offset as usize, bytes as usize);
    let to = chain::part(&chain::room(&call, destination), destination_offset as usize, bytes as usize);
    let copied = copy_segments(&from, &to);
    call.bytes(copied as u64);
    copied_out.write(copied as u32);
    NdisStatus::SUCCESS
}

/// Copies as much as both sides have; how much that was.
fn copy_segments(from: &[Segment], to: &[Segment]) -> usize {
    let contents: Vec<u8> =
        from.iter().flat_map(|(address, count)| Raw::<u8>::at(*address).read_bytes(*count)).collect();
    let mut rest = &contents[..];
    for (address, count) in to {
        let (now, later) = rest.split_at((*count).min(rest.len()));
        Raw::<u8>::at(*address).write_bytes(now);
        rest = later;
    }
    contents.len() - rest.len()
}

extern "efiapi" fn physical_count(list: Raw<NET_BUFFER_LIST>) -> u32 {
    let call = Call::enter();
    check_some(&call, list, "net buffer list");
    let pages = |(address, count): &Segment| (address % PAGE + count).div_ceil(PAGE);
    let of_buffer = |buffer| chain::segments(&call, buffer).iter().map(pages).sum::<usize>();
    buffers_of(&call, list).into_iter().map(of_buffer).sum::<usize>() as u32
}
