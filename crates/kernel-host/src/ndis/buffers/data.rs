//! The data space of buffers: retreat, advance.

use ndis::NdisStatus;
use ndis::raw::{NET_BUFFER, NET_BUFFER_ALLOCATE_MDL, NET_BUFFER_FREE_MDL, NET_BUFFER_LIST};
use nt_types::MDL;

use super::lists::buffers_of;
use super::mdls::{self, Made};
use super::{block, chain, check_some, give_back};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::mdl;
use crate::nt::raw::{Raw, field};

exports! { pub(in crate::ndis) EXPORTS in "ndis.sys":
    NdisRetreatNetBufferDataStart(max 2, fails RETURNS_NDIS_FAILURE) = retreat;
    NdisRetreatNetBufferListDataStart(max 2, fails RETURNS_NDIS_FAILURE) = retreat_list;
    NdisAdvanceNetBufferDataStart(max 2) = advance;
    NdisAdvanceNetBufferListDataStart(max 2) = advance_list;
    NdisAdjustNetBufferCurrentMdl(max 31) = adjust;
}

/// Tag of the data that a retreat allocates.
const TAG: u32 = u32::from_le_bytes(*b"NDrt");

type Allocate = Option<NET_BUFFER_ALLOCATE_MDL>;
type Free = Option<NET_BUFFER_FREE_MDL>;

extern "efiapi" fn retreat(buffer: Raw<NET_BUFFER>, delta: u32, back_fill: u32, allocate: Allocate) -> NdisStatus {
    let call = Call::enter();
    check_some(&call, buffer, "net buffer");
    retreat_one(&call, buffer, delta, back_fill, allocate)
}

extern "efiapi" fn retreat_list(
    list: Raw<NET_BUFFER_LIST>,
    delta: u32,
    back_fill: u32,
    allocate: Allocate,
    free: Free,
) -> NdisStatus {
    let call = Call::enter();
    check_some(&call, list, "net buffer list");
    let buffers = buffers_of(&call, list);
    for (index, buffer) in buffers.iter().enumerate() {
        let status = retreat_one(&call, *buffer, delta, back_fill, allocate);
        if status != NdisStatus::SUCCESS {
            for done in buffers.iter().take(index) {
                advance_one(&call, *done, delta, true, free);
            }
            return status;
        }
    }
    NdisStatus::SUCCESS
}

/// Makes `delta` bytes before the data part of them.
pub(super) fn retreat_one(
    call: &Call,
    buffer: Raw<NET_BUFFER>,
    delta: u32,
    back_fill: u32,
    allocate: Allocate,
) -> NdisStatus {
    let (offset, length) = (field!(buffer, NET_BUFFER, DataOffset), field!(buffer, NET_BUFFER, DataLength));
    let unused = offset.read();
    let start = if let Some(start) = unused.checked_sub(delta) {
        start
    } else {
        // What is unused so far will be used, since the data stay in one piece: only what is missing is allocated.
        let Some(size) = (delta - unused).checked_add(back_fill) else { return NdisStatus::FAILURE };
        let Some(added) = new_space(call, size, allocate) else { return NdisStatus::RESOURCES };
        let chain = field!(buffer, NET_BUFFER, MdlChain);
        let last = chain::mdls_of(call, added).last().copied().unwrap_or(added);
        field!(last, MDL, Next).write(chain.read());
        chain.write(added.pointer());
        back_fill
    };
    offset.write(start);
    length.write(length.read() + u64::from(delta));
    chain::find_current(call, buffer);
    NdisStatus::SUCCESS
}

/// Memory of `size` bytes with an MDL, from the driver or from NDIS.
fn new_space(call: &Call, size: u32, allocate: Allocate) -> Option<Raw<MDL>> {
    if let Some(allocate) = allocate {
        let mut wanted = size;
        let (wanted, irql) = (&raw mut wanted, call.thread().irql());
        let made = call.thread().call_driver(call.driver(), "NetAllocateMdl", irql, || {
            // SAFETY: the driver's callback, with the argument that its page documents.
            unsafe { allocate(wanted) }
        });
        let made = Raw::of(made.ok()?).some()?;
        let count = field!(made, MDL, ByteCount).read();
        if count != size {
            call.stop(Rule::BadArgument, format!("NetAllocateMdl gave {count} bytes, {size} were asked for"));
        }
        mdls::set_handled(call, made, true);
        return Some(made);
    }
    let data = block(call, size as usize, TAG);
    let list = if data == 0 { Raw::NULL } else { mdl::describe(call, data, size as usize) };
    if list.is_null() {
        give_back(call, data);
        return None;
    }
    mdls::remember(call, list, Made::Retreat(data));
    Some(list)
}

extern "efiapi" fn advance(buffer: Raw<NET_BUFFER>, delta: u32, free_mdl: u8, free: Free) {
    let call = Call::enter();
    check_some(&call, buffer, "net buffer");
    advance_one(&call, buffer, delta, free_mdl != 0, free);
}

extern "efiapi" fn advance_list(list: Raw<NET_BUFFER_LIST>, delta: u32, free_mdl: u8, free: Free) {
    let call = Call::enter();
    check_some(&call, list, "net buffer list");
    for buffer in buffers_of(&call, list) {
        advance_one(&call, buffer, delta, free_mdl != 0, free);
    }
}

/// Takes `delta` bytes from the start of the data; frees what a retreat allocated for them, when it is asked to.
pub(super) fn advance_one(call: &Call, buffer: Raw<NET_BUFFER>, delta: u32, may_free: bool, free: Free) {
    let (offset, length) = (field!(buffer, NET_BUFFER, DataOffset), field!(buffer, NET_BUFFER, DataLength));
    let Some(left) = length.read().checked_sub(u64::from(delta)) else {
        let message = format!("{delta} bytes of {buffer:?} are released, which has {} bytes of data", length.read());
        call.stop(Rule::BadArgument, message);
    };
    length.write(left);
    let mut start = offset.read() + delta;
    let chain = field!(buffer, NET_BUFFER, MdlChain);
    while may_free && let Some(first) = Raw::of(chain.read()).some() {
        let (count, next) = (field!(first, MDL, ByteCount).read(), field!(first, MDL, Next).read());
        if start < count {
            break;
        }
        match (mdls::is_handled(call, first), mdls::made(call, first), free) {
            (false, Some(Made::Retreat(data)), _) => {
                mdls::forget(call, first);
                give_back(call, first.address());
                give_back(call, data);
            }
            (true, _, Some(free)) => {
                mdls::set_handled(call, first, false);
                let irql = call.thread().irql();
                // A stop does not come back here.
                let _ = call.thread().call_driver(call.driver(), "NetFreeMdl", irql, || {
                    // SAFETY: the driver's callback, with the argument that its page documents.
                    unsafe { free(first.pointer()) }
                });
            }
            (true, _, None) => {
                call.stop(Rule::BadArgument, "the MDL came from a NetAllocateMdl: its NetFreeMdl has to be passed");
            }
            _ => break,
        }
        chain.write(next);
        start -= count;
    }
    offset.write(start);
    chain::find_current(call, buffer);
}

extern "efiapi" fn adjust(buffer: Raw<NET_BUFFER>) {
    let call = Call::enter();
    check_some(&call, buffer, "net buffer");
    chain::find_current(&call, buffer);
}
