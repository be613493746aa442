//! `NET_BUFFER_LIST`, its context area and its pools.

use core::ffi::c_void;

use nt_types::assert_layout;

use super::{NDIS_HANDLE, NDIS_OBJECT_HEADER, NET_BUFFER};
use crate::NdisStatus;

/// Entries of `NET_BUFFER_LIST.NetBufferListInfo` that drivers for 64-bit Windows 11 may use. The two entries that the
/// kernel keeps behind them for itself are in the structure as well.
pub const MaxNetBufferListInfo: usize = 27;

/// `NET_BUFFER_LIST`. NDIS owns and allocates it; a driver never has one by value.
/// DDI page: `nbl/ns-nbl-net_buffer_list`.
#[repr(C)]
pub struct NET_BUFFER_LIST {
    /// Next list of the chain.
    pub Next: *mut NET_BUFFER_LIST,
    /// First buffer.
    pub FirstNetBuffer: *mut NET_BUFFER,
    /// Context area.
    pub Context: *mut NET_BUFFER_LIST_CONTEXT,
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
    /// What the buffers of the list have in common, by `NDIS_NET_BUFFER_LIST_INFO`.
    pub NetBufferListInfo: [*mut c_void; MaxNetBufferListInfo],
    /// For NDIS, behind what drivers see.
    pub NdisInfoReserved: [*mut c_void; 2],
    _alignment: u64,
}
assert_layout!(NET_BUFFER_LIST, 384, {
    Next: 0, FirstNetBuffer: 8, Context: 16, ParentNetBufferList: 24, NdisPoolHandle: 32, NdisReserved: 48,
    ProtocolReserved: 64, MiniportReserved: 96, Scratch: 112, SourceHandle: 120, NblFlags: 128, ChildRefCount: 132,
    Flags: 136, Status: 140, NetBufferListInfo: 144, NdisInfoReserved: 360,
});

/// Flag of `MiniportSendNetBufferLists`: the caller is at `DISPATCH_LEVEL`.
pub const NDIS_SEND_FLAGS_DISPATCH_LEVEL: u32 = 1;
/// Flag of `NdisMSendNetBufferListsComplete`: the caller is at `DISPATCH_LEVEL`.
pub const NDIS_SEND_COMPLETE_FLAGS_DISPATCH_LEVEL: u32 = 1;
/// Flag of `NdisMIndicateReceiveNetBufferLists`: the caller is at `DISPATCH_LEVEL`.
pub const NDIS_RECEIVE_FLAGS_DISPATCH_LEVEL: u32 = 1;
/// Flag of receive indications: the driver below keeps the lists, which are its own again when the call returns.
pub const NDIS_RECEIVE_FLAGS_RESOURCES: u32 = 2;
/// Flag of `NdisReturnNetBufferLists`: the caller is at `DISPATCH_LEVEL`.
pub const NDIS_RETURN_FLAGS_DISPATCH_LEVEL: u32 = 1;

/// Index of the checksum information in `NetBufferListInfo`.
pub const TcpIpChecksumNetBufferListInfo: usize = 0;
/// Index of the first kind of `IPsec` offload.
pub const IPsecOffloadV1NetBufferListInfo: usize = 1;
/// Index of the large send offload; of receives, the same entry is `TcpReceiveNoPush`.
pub const TcpLargeSendNetBufferListInfo: usize = 2;
/// Index of the VLAN and priority information.
pub const Ieee8021QNetBufferListInfo: usize = 4;
/// Index of the identifier by which sends are cancelled.
pub const NetBufferListCancelId: usize = 5;
/// Index of what the medium adds.
pub const MediaSpecificInformation: usize = 6;
/// Index of the frame type of receives, and of the protocol identifier of sends.
pub const NetBufferListProtocolId: usize = 7;
/// Index of the receive hash.
pub const NetBufferListHashValue: usize = 8;
/// Index of the type and function of the receive hash.
pub const NetBufferListHashInfo: usize = 9;
/// Index of the outer `IPsec` information.
pub const IPsecOffloadV2TunnelNetBufferListInfo: usize = 11;
/// Index of the inner `IPsec` information.
pub const IPsecOffloadV2HeaderNetBufferListInfo: usize = 12;
/// Index of the result of receive filtering.
pub const NetBufferListFilteringInfo: usize = 14;
/// Index of the virtual subnet.
pub const VirtualSubnetInfo: usize = 20;

/// `NET_BUFFER_LIST_CONTEXT`: a block of context space. Its data follow. DDI page: `nbl/ns-nbl-net_buffer_list_context`.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug)]
pub struct NET_BUFFER_LIST_CONTEXT {
    /// Next block of the list.
    pub Next: *mut NET_BUFFER_LIST_CONTEXT,
    /// Bytes of context space in this block, used or not.
    pub Size: u16,
    /// Bytes from the start of the space to the part that is used.
    pub Offset: u16,
}
assert_layout!(NET_BUFFER_LIST_CONTEXT, 16, { Next: 0, Size: 8, Offset: 10 });

/// `NET_BUFFER_LIST_POOL_PARAMETERS`, revision 1. DDI page: `nblapi/ns-nblapi-net_buffer_list_pool_parameters`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NET_BUFFER_LIST_POOL_PARAMETERS {
    /// Type DEFAULT.
    pub Header: NDIS_OBJECT_HEADER,
    /// `NDIS_PROTOCOL_ID_*`.
    pub ProtocolId: u8,
    /// TRUE when each list comes with a buffer.
    pub fAllocateNetBuffer: u8,
    /// Bytes of context space that each list comes with.
    pub ContextSize: u16,
    /// Names the owner of what comes from the pool.
    pub PoolTag: u32,
    /// Bytes of data that each list's buffer comes with.
    pub DataSize: u32,
}
assert_layout!(NET_BUFFER_LIST_POOL_PARAMETERS, 16, {
    Header: 0, ProtocolId: 4, fAllocateNetBuffer: 5, ContextSize: 6, PoolTag: 8, DataSize: 12,
});

/// Size of revision 1 of [`NET_BUFFER_LIST_POOL_PARAMETERS`].
pub const NDIS_SIZEOF_NET_BUFFER_LIST_POOL_PARAMETERS_REVISION_1: u16 = 16;
/// Flag of clones: they have the MDLs of the original.
pub const NDIS_CLONE_FLAGS_USE_ORIGINAL_MDLS: u32 = 2;
