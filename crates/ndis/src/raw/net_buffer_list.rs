//! The part of `NET_BUFFER_LIST` that a miniport without a data path needs: to walk a chain and fail it.

use core::ffi::c_void;

use nt_types::assert_layout;

use super::NDIS_HANDLE;
use crate::NdisStatus;

/// `NET_BUFFER_LIST` up to its status. NDIS owns and allocates it; a driver never has one by value.
/// DDI page: `nbl/ns-nbl-net_buffer_list`.
#[repr(C)]
pub struct NET_BUFFER_LIST {
    /// Next list of the chain.
    pub Next: *mut NET_BUFFER_LIST,
    /// First buffer.
    pub FirstNetBuffer: *mut c_void,
    /// Context area.
    pub Context: *mut c_void,
    /// List this one was cloned from.
    pub ParentNetBufferList: *mut NET_BUFFER_LIST,
    /// Pool it came from.
    pub NdisPoolHandle: NDIS_HANDLE,
    /// `NdisReserved` is 16-byte aligned in the header.
    _padding: u64,
    /// For NDIS.
    pub NdisReserved: [*mut c_void; 2],
    /// For the protocol.
    pub ProtocolReserved: [*mut c_void; 4],
    /// For the miniport while it owns the list.
    pub MiniportReserved: [*mut c_void; 2],
    /// For whoever owns the list.
    pub Scratch: *mut c_void,
    /// Binding or filter that sent it.
    pub SourceHandle: NDIS_HANDLE,
    /// Flags of NDIS.
    pub NblFlags: u32,
    /// Clones in use.
    pub ChildRefCount: i32,
    /// Flags of owners.
    pub Flags: u32,
    /// How the send went; set before completion.
    pub Status: NdisStatus,
}
assert_layout!(NET_BUFFER_LIST, 144, {
    Next: 0, FirstNetBuffer: 8, Context: 16, ParentNetBufferList: 24, NdisPoolHandle: 32, NdisReserved: 48,
    ProtocolReserved: 64, MiniportReserved: 96, Scratch: 112, SourceHandle: 120, NblFlags: 128, ChildRefCount: 132,
    Flags: 136, Status: 140,
});

/// Flag of `MiniportSendNetBufferLists`: the caller is at `DISPATCH_LEVEL`.
pub const NDIS_SEND_FLAGS_DISPATCH_LEVEL: u32 = 1;
/// Flag of `NdisMSendNetBufferListsComplete`: the caller is at `DISPATCH_LEVEL`.
pub const NDIS_SEND_COMPLETE_FLAGS_DISPATCH_LEVEL: u32 = 1;
