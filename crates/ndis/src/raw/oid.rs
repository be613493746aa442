//! OID requests and the OIDs that a plain Ethernet miniport answers.

use core::ffi::c_void;

use nt_types::assert_layout;

use super::{NDIS_HANDLE, NDIS_OBJECT_HEADER};

/// `NDIS_OID_REQUEST`. Owned by the requester; a miniport may touch it from `MiniportOidRequest` until the request completes.
/// DDI page: `oidrequest/ns-oidrequest-ndis_oid_request`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NDIS_OID_REQUEST {
    /// Type 0x96, revision 1 or 2, size [`NDIS_SIZEOF_OID_REQUEST_REVISION_1`] or [`NDIS_SIZEOF_OID_REQUEST_REVISION_2`].
    pub Header: NDIS_OBJECT_HEADER,
    /// `NdisRequest*`: says which member of `DATA` counts.
    pub RequestType: u32,
    /// Port, 0 for the default one.
    pub PortNumber: u32,
    /// Time-out in seconds, 0 for none.
    pub Timeout: u32,
    /// For cancelling.
    pub RequestId: *mut c_void,
    /// Who asked.
    pub RequestHandle: NDIS_HANDLE,
    /// The request itself.
    pub DATA: NDIS_OID_REQUEST_DATA,
    /// For NDIS.
    pub NdisReserved: [u8; 128],
    /// For the miniport while it has the request.
    pub MiniportReserved: [u8; 16],
    /// For the requester.
    pub SourceReserved: [u8; 16],
    /// Revision of the structure in the buffer that the miniport supports.
    pub SupportedRevision: u8,
    /// Zero.
    pub Reserved1: u8,
    /// Zero.
    pub Reserved2: u16,
    /// Extensible switch (revision 2).
    pub SwitchId: u32,
    /// Virtual port (revision 2).
    pub VPortId: u32,
    /// `NDIS_OID_REQUEST_FLAGS_*` (revision 2).
    pub Flags: u32,
}
assert_layout!(NDIS_OID_REQUEST, 248, {
    Header: 0, RequestType: 4, PortNumber: 8, Timeout: 12, RequestId: 16, RequestHandle: 24, DATA: 32, NdisReserved: 72,
    MiniportReserved: 200, SourceReserved: 216, SupportedRevision: 232, Reserved1: 233, Reserved2: 234, SwitchId: 236,
    VPortId: 240, Flags: 244,
});

/// `Header.Size` of revision 1, in bytes: through `Reserved2`.
pub const NDIS_SIZEOF_OID_REQUEST_REVISION_1: u16 = 236;
/// `Header.Size` of revision 2, in bytes: through `Flags`.
pub const NDIS_SIZEOF_OID_REQUEST_REVISION_2: u16 = 248;

/// The union in the middle of an OID request.
#[repr(C)]
#[derive(Clone, Copy)]
pub union NDIS_OID_REQUEST_DATA {
    /// For [`NdisRequestQueryInformation`] and [`NdisRequestQueryStatistics`].
    pub QUERY_INFORMATION: NDIS_OID_TRANSFER,
    /// For [`NdisRequestSetInformation`].
    pub SET_INFORMATION: NDIS_OID_TRANSFER,
    /// For [`NdisRequestMethod`].
    pub METHOD_INFORMATION: NDIS_OID_METHOD,
}

/// Parameters of a query or of a set; the two differ in one name only.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NDIS_OID_TRANSFER {
    /// Which object.
    pub Oid: u32,
    /// The data; non-paged.
    pub InformationBuffer: *mut c_void,
    /// Its length in bytes.
    pub InformationBufferLength: u32,
    /// `BytesWritten` of a query, `BytesRead` of a set.
    pub BytesDone: u32,
    /// Bytes that the request would have needed, when it failed for its length.
    pub BytesNeeded: u32,
}
assert_layout!(NDIS_OID_TRANSFER, 32, { Oid: 0, InformationBuffer: 8, InformationBufferLength: 16, BytesDone: 20, BytesNeeded: 24 });

/// Parameters of a method request.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NDIS_OID_METHOD {
    /// Which object.
    pub Oid: u32,
    /// Input, overwritten by the output; non-paged.
    pub InformationBuffer: *mut c_void,
    /// Input in bytes.
    pub InputBufferLength: u32,
    /// Room for output in bytes.
    pub OutputBufferLength: u32,
    /// Which method.
    pub MethodId: u32,
    /// Output in bytes.
    pub BytesWritten: u32,
    /// Input consumed in bytes.
    pub BytesRead: u32,
    /// Bytes that the request would have needed, when it failed for its length.
    pub BytesNeeded: u32,
}
assert_layout!(NDIS_OID_METHOD, 40, {
    Oid: 0, InformationBuffer: 8, InputBufferLength: 16, OutputBufferLength: 20, MethodId: 24, BytesWritten: 28,
    BytesRead: 32, BytesNeeded: 36,
});

/// Query.
pub const NdisRequestQueryInformation: u32 = 0;
/// Set.
pub const NdisRequestSetInformation: u32 = 1;
/// Query from WMI.
pub const NdisRequestQueryStatistics: u32 = 2;
/// Method.
pub const NdisRequestMethod: u32 = 12;

/// `NDIS_STATISTICS_INFO`, the answer to [`OID_GEN_STATISTICS`]. Counters are in frames, or in bytes where the name says octets.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NDIS_STATISTICS_INFO {
    /// Type 0x80, revision 1, size 152.
    pub Header: NDIS_OBJECT_HEADER,
    /// `NDIS_STATISTICS_FLAGS_VALID_*`: which counters count.
    pub SupportedStatistics: u32,
    /// The 18 counters, from `ifInDiscards` to `ifHCOutBroadcastOctets`.
    pub Counters: [u64; 18],
}
assert_layout!(NDIS_STATISTICS_INFO, 152, { Header: 0, SupportedStatistics: 4, Counters: 8 });

/// All counters of [`NDIS_STATISTICS_INFO`] count.
pub const NDIS_STATISTICS_FLAGS_VALID_ALL: u32 = 0x0003_FFFF;

/// `OID_GEN_VENDOR_ID`.
pub const OID_GEN_VENDOR_ID: u32 = 0x0001_010C;
/// `OID_GEN_VENDOR_DESCRIPTION`.
pub const OID_GEN_VENDOR_DESCRIPTION: u32 = 0x0001_010D;
/// `OID_GEN_CURRENT_PACKET_FILTER`.
pub const OID_GEN_CURRENT_PACKET_FILTER: u32 = 0x0001_010E;
/// `OID_GEN_CURRENT_LOOKAHEAD`.
pub const OID_GEN_CURRENT_LOOKAHEAD: u32 = 0x0001_010F;
/// `OID_GEN_VENDOR_DRIVER_VERSION`.
pub const OID_GEN_VENDOR_DRIVER_VERSION: u32 = 0x0001_0116;
/// `OID_GEN_TRANSMIT_BUFFER_SPACE`.
pub const OID_GEN_TRANSMIT_BUFFER_SPACE: u32 = 0x0001_0108;
/// `OID_GEN_RECEIVE_BUFFER_SPACE`.
pub const OID_GEN_RECEIVE_BUFFER_SPACE: u32 = 0x0001_0109;
/// `OID_GEN_TRANSMIT_BLOCK_SIZE`.
pub const OID_GEN_TRANSMIT_BLOCK_SIZE: u32 = 0x0001_010A;
/// `OID_GEN_RECEIVE_BLOCK_SIZE`.
pub const OID_GEN_RECEIVE_BLOCK_SIZE: u32 = 0x0001_010B;
/// `OID_GEN_MAXIMUM_TOTAL_SIZE`.
pub const OID_GEN_MAXIMUM_TOTAL_SIZE: u32 = 0x0001_0111;
/// `OID_GEN_XMIT_OK`.
pub const OID_GEN_XMIT_OK: u32 = 0x0002_0101;
/// `OID_GEN_RCV_OK`.
pub const OID_GEN_RCV_OK: u32 = 0x0002_0102;
/// `OID_GEN_STATISTICS`.
pub const OID_GEN_STATISTICS: u32 = 0x0002_0106;
/// `OID_802_3_PERMANENT_ADDRESS`.
pub const OID_802_3_PERMANENT_ADDRESS: u32 = 0x0101_0101;
/// `OID_802_3_CURRENT_ADDRESS`.
pub const OID_802_3_CURRENT_ADDRESS: u32 = 0x0101_0102;
/// `OID_802_3_MULTICAST_LIST`.
pub const OID_802_3_MULTICAST_LIST: u32 = 0x0101_0103;
/// `OID_802_3_MAXIMUM_LIST_SIZE`.
pub const OID_802_3_MAXIMUM_LIST_SIZE: u32 = 0x0101_0104;
/// `OID_PNP_SET_POWER`.
pub const OID_PNP_SET_POWER: u32 = 0xFD01_0101;
