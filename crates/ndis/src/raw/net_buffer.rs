//! `NET_BUFFER` and its pools.

use core::ffi::c_void;

use nt_types::{MDL, assert_layout};

use super::{NDIS_HANDLE, NDIS_OBJECT_HEADER};

/// `NET_BUFFER`: one frame. NDIS owns and allocates it. DDI page: `nbl/ns-nbl-net_buffer`.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug)]
pub struct NET_BUFFER {
    /// Next buffer of the list.
    pub Next: *mut NET_BUFFER,
    /// The MDL in which the data begin.
    pub CurrentMdl: *mut MDL,
    /// Bytes from the start of that MDL to the data.
    pub CurrentMdlOffset: u32,
    /// Bytes of data; the header also sees it as a `SIZE_T`.
    pub DataLength: u64,
    /// First MDL.
    pub MdlChain: *mut MDL,
    /// Bytes from the start of the first MDL to the data: the unused data space.
    pub DataOffset: u32,
    _padding: u32,
    /// Bytes that a checksum leaves out.
    pub ChecksumBias: u16,
    /// Unused.
    pub Reserved: u16,
    /// Pool it came from.
    pub NdisPoolHandle: NDIS_HANDLE,
    /// For NDIS.
    pub NdisReserved: [*mut c_void; 2],
    /// For the protocol.
    pub ProtocolReserved: [*mut c_void; 6],
    /// For the miniport while it owns the buffer.
    pub MiniportReserved: [*mut c_void; 4],
    /// Physical address of the data, or 0.
    pub DataPhysicalAddress: i64,
    /// Shared memory that the data lie in.
    pub SharedMemoryInfo: *mut c_void,
}
assert_layout!(NET_BUFFER, 176, {
    Next: 0, CurrentMdl: 8, CurrentMdlOffset: 16, DataLength: 24, MdlChain: 32, DataOffset: 40, ChecksumBias: 48,
    NdisPoolHandle: 56, NdisReserved: 64, ProtocolReserved: 80, MiniportReserved: 128, DataPhysicalAddress: 160,
    SharedMemoryInfo: 168,
});

/// `NET_BUFFER_POOL_PARAMETERS`, revision 1. DDI page: `nblapi/nf-nblapi-ndisallocatenetbufferpool`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NET_BUFFER_POOL_PARAMETERS {
    /// Type DEFAULT.
    pub Header: NDIS_OBJECT_HEADER,
    /// Names the owner of what comes from the pool.
    pub PoolTag: u32,
    /// Bytes of data that each buffer comes with; 0 for none.
    pub DataSize: u32,
}
assert_layout!(NET_BUFFER_POOL_PARAMETERS, 12, { Header: 0, PoolTag: 4, DataSize: 8 });

/// Size of revision 1 of [`NET_BUFFER_POOL_PARAMETERS`].
pub const NDIS_SIZEOF_NET_BUFFER_POOL_PARAMETERS_REVISION_1: u16 = 12;

/// `NetAllocateMdl` of a driver: allocates memory and an MDL for it. The size in bytes may come back larger.
/// DDI page: `nblapi/nc-nblapi-net_buffer_allocate_mdl`.
pub type NET_BUFFER_ALLOCATE_MDL = unsafe extern "efiapi" fn(BufferSize: *mut u32) -> *mut MDL;
/// `NetFreeMdl` of a driver: the opposite. DDI page: `nblapi/nc-nblapi-net_buffer_free_mdl`.
pub type NET_BUFFER_FREE_MDL = unsafe extern "efiapi" fn(Mdl: *mut MDL);
