//! The protocol driver, its callbacks and its bindings.

use core::ffi::c_void;

use nt_types::{UNICODE_STRING, assert_layout};

use super::{NDIS_HANDLE, NDIS_OBJECT_HEADER, NDIS_OID_REQUEST, NDIS_STATUS_INDICATION, NET_PNP_EVENT_NOTIFICATION};
use crate::NdisStatus;

/// `ProtocolSetOptions`. `PASSIVE_LEVEL`, within `NdisRegisterProtocolDriver`.
pub type PROTOCOL_SET_OPTIONS =
    unsafe extern "efiapi" fn(NdisDriverHandle: NDIS_HANDLE, DriverContext: NDIS_HANDLE) -> NdisStatus;
/// `ProtocolBindAdapterEx`. `PASSIVE_LEVEL`; the one place in which `NdisOpenAdapterEx` is legal.
pub type PROTOCOL_BIND_ADAPTER_EX = unsafe extern "efiapi" fn(
    ProtocolDriverContext: NDIS_HANDLE,
    BindContext: NDIS_HANDLE,
    BindParameters: *mut NDIS_BIND_PARAMETERS,
) -> NdisStatus;
/// `ProtocolUnbindAdapterEx`. `PASSIVE_LEVEL`; cannot fail.
pub type PROTOCOL_UNBIND_ADAPTER_EX =
    unsafe extern "efiapi" fn(UnbindContext: NDIS_HANDLE, ProtocolBindingContext: NDIS_HANDLE) -> NdisStatus;
/// `ProtocolOpenAdapterCompleteEx`. `PASSIVE_LEVEL`, when `NdisOpenAdapterEx` returned pending.
pub type PROTOCOL_OPEN_ADAPTER_COMPLETE_EX =
    unsafe extern "efiapi" fn(ProtocolBindingContext: NDIS_HANDLE, Status: NdisStatus);
/// `ProtocolCloseAdapterCompleteEx`. `PASSIVE_LEVEL`, when `NdisCloseAdapterEx` returned pending.
pub type PROTOCOL_CLOSE_ADAPTER_COMPLETE_EX = unsafe extern "efiapi" fn(ProtocolBindingContext: NDIS_HANDLE);
/// `ProtocolNetPnPEvent`. `PASSIVE_LEVEL`. The context is NULL for events that concern all bindings.
pub type PROTOCOL_NET_PNP_EVENT = unsafe extern "efiapi" fn(
    ProtocolBindingContext: NDIS_HANDLE,
    NetPnPEventNotification: *mut NET_PNP_EVENT_NOTIFICATION,
) -> NdisStatus;
/// `ProtocolUninstall`. `PASSIVE_LEVEL`.
pub type PROTOCOL_UNINSTALL = unsafe extern "efiapi" fn();
/// `ProtocolOidRequestComplete` and `ProtocolDirectOidRequestComplete`. IRQL <= `DISPATCH_LEVEL`.
pub type PROTOCOL_OID_REQUEST_COMPLETE = unsafe extern "efiapi" fn(
    ProtocolBindingContext: NDIS_HANDLE,
    OidRequest: *mut NDIS_OID_REQUEST,
    Status: NdisStatus,
);
/// `ProtocolStatusEx`. IRQL <= `DISPATCH_LEVEL`.
pub type PROTOCOL_STATUS_EX =
    unsafe extern "efiapi" fn(ProtocolBindingContext: NDIS_HANDLE, StatusIndication: *mut NDIS_STATUS_INDICATION);
/// `ProtocolReceiveNetBufferLists`. IRQL <= `DISPATCH_LEVEL`.
pub type PROTOCOL_RECEIVE_NET_BUFFER_LISTS = unsafe extern "efiapi" fn(
    ProtocolBindingContext: NDIS_HANDLE,
    NetBufferLists: *mut super::NET_BUFFER_LIST,
    PortNumber: u32,
    NumberOfNetBufferLists: u32,
    ReceiveFlags: u32,
);
/// `ProtocolSendNetBufferListsComplete`. IRQL <= `DISPATCH_LEVEL`.
pub type PROTOCOL_SEND_NET_BUFFER_LISTS_COMPLETE = unsafe extern "efiapi" fn(
    ProtocolBindingContext: NDIS_HANDLE,
    NetBufferList: *mut super::NET_BUFFER_LIST,
    SendCompleteFlags: u32,
);

/// `NDIS_PROTOCOL_DRIVER_CHARACTERISTICS`: what a protocol driver registers. NDIS copies it.
/// DDI page: `ndis/ns-ndis-_ndis_protocol_driver_characteristics`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NDIS_PROTOCOL_DRIVER_CHARACTERISTICS {
    /// Type 0x95, revision 1 or 2, size of that revision.
    pub Header: NDIS_OBJECT_HEADER,
    /// NDIS version the driver is written for: 6.
    pub MajorNdisVersion: u8,
    /// Its minor part.
    pub MinorNdisVersion: u8,
    /// The driver's own version.
    pub MajorDriverVersion: u8,
    /// Its minor part.
    pub MinorDriverVersion: u8,
    /// Reserved for NDIS: 0.
    pub Flags: u32,
    /// Service name of the driver, by value.
    pub Name: UNICODE_STRING,
    /// Optional.
    pub SetOptionsHandler: Option<PROTOCOL_SET_OPTIONS>,
    /// Required.
    pub BindAdapterHandlerEx: Option<PROTOCOL_BIND_ADAPTER_EX>,
    /// Required.
    pub UnbindAdapterHandlerEx: Option<PROTOCOL_UNBIND_ADAPTER_EX>,
    /// Required.
    pub OpenAdapterCompleteHandlerEx: Option<PROTOCOL_OPEN_ADAPTER_COMPLETE_EX>,
    /// Required.
    pub CloseAdapterCompleteHandlerEx: Option<PROTOCOL_CLOSE_ADAPTER_COMPLETE_EX>,
    /// Required.
    pub NetPnPEventHandler: Option<PROTOCOL_NET_PNP_EVENT>,
    /// Optional.
    pub UninstallHandler: Option<PROTOCOL_UNINSTALL>,
    /// Required.
    pub OidRequestCompleteHandler: Option<PROTOCOL_OID_REQUEST_COMPLETE>,
    /// Optional.
    pub StatusHandlerEx: Option<PROTOCOL_STATUS_EX>,
    /// Required.
    pub ReceiveNetBufferListsHandler: Option<PROTOCOL_RECEIVE_NET_BUFFER_LISTS>,
    /// Required.
    pub SendNetBufferListsCompleteHandler: Option<PROTOCOL_SEND_NET_BUFFER_LISTS_COMPLETE>,
    /// Optional (revision 2).
    pub DirectOidRequestCompleteHandler: Option<PROTOCOL_OID_REQUEST_COMPLETE>,
}
assert_layout!(NDIS_PROTOCOL_DRIVER_CHARACTERISTICS, 128, {
    Header: 0, MajorNdisVersion: 4, MinorNdisVersion: 5, MajorDriverVersion: 6, MinorDriverVersion: 7, Flags: 8, Name: 16,
    SetOptionsHandler: 32, BindAdapterHandlerEx: 40, UnbindAdapterHandlerEx: 48, OpenAdapterCompleteHandlerEx: 56,
    CloseAdapterCompleteHandlerEx: 64, NetPnPEventHandler: 72, UninstallHandler: 80, OidRequestCompleteHandler: 88,
    StatusHandlerEx: 96, ReceiveNetBufferListsHandler: 104, SendNetBufferListsCompleteHandler: 112,
    DirectOidRequestCompleteHandler: 120,
});

/// `Header.Size` of revision 1 (NDIS 6.0), in bytes.
pub const NDIS_SIZEOF_PROTOCOL_DRIVER_CHARACTERISTICS_REVISION_1: u16 = 120;
/// `Header.Size` of revision 2 (NDIS 6.1 and later), in bytes.
pub const NDIS_SIZEOF_PROTOCOL_DRIVER_CHARACTERISTICS_REVISION_2: u16 = 128;

/// `NDIS_OPEN_PARAMETERS`. The structure and `SelectedMediumIndex` must stay valid until the open is complete.
/// DDI page: `ndis/ns-ndis-_ndis_open_parameters`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NDIS_OPEN_PARAMETERS {
    /// Type 0x87, revision 1, size [`NDIS_SIZEOF_OPEN_PARAMETERS_REVISION_1`].
    pub Header: NDIS_OBJECT_HEADER,
    /// `AdapterName` of the bind parameters; needed until `NdisOpenAdapterEx` returns.
    pub AdapterName: *mut UNICODE_STRING,
    /// Media that the protocol supports: `NdisMedium*` values.
    pub MediumArray: *mut u32,
    /// How many, in elements.
    pub MediumArraySize: u32,
    /// Where NDIS stores the index of the medium in use.
    pub SelectedMediumIndex: *mut u32,
    /// Ethernet types that the protocol wants: a hint.
    pub FrameTypeArray: *mut u16,
    /// How many, in elements; at most [`NDIS_MAX_FRAME_TYPES_PER_OPEN`].
    pub FrameTypeArraySize: u32,
}
assert_layout!(NDIS_OPEN_PARAMETERS, 56, {
    Header: 0, AdapterName: 8, MediumArray: 16, MediumArraySize: 24, SelectedMediumIndex: 32, FrameTypeArray: 40,
    FrameTypeArraySize: 48,
});

/// `Header.Size` of revision 1, in bytes: through `FrameTypeArraySize`. The header spells it `REVSION`.
pub const NDIS_SIZEOF_OPEN_PARAMETERS_REVISION_1: u16 = 52;
/// `NDIS_MAX_FRAME_TYPES_PER_OPEN`.
pub const NDIS_MAX_FRAME_TYPES_PER_OPEN: u32 = 5;

/// `NDIS_BIND_PARAMETERS`: what NDIS says of an adapter to bind to. Valid until the bind operation is complete.
/// DDI page: `ndis/ns-ndis-_ndis_bind_parameters`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NDIS_BIND_PARAMETERS {
    /// Type 0x86, revision and size by the version of the protocol.
    pub Header: NDIS_OBJECT_HEADER,
    /// Registry path of the binding's parameters, from the protocol's service key on.
    pub ProtocolSection: *mut UNICODE_STRING,
    /// Name for `NdisOpenAdapterEx`.
    pub AdapterName: *mut UNICODE_STRING,
    /// Physical device object; NULL where there is no bus.
    pub PhysicalDeviceObject: *mut c_void,
    /// `NDIS_MEDIUM`.
    pub MediaType: u32,
    /// Largest payload of a frame, in bytes.
    pub MtuSize: u32,
    /// Highest send speed, in bits per second.
    pub MaxXmitLinkSpeed: u64,
    /// Current send speed, in bits per second.
    pub XmitLinkSpeed: u64,
    /// Highest receive speed, in bits per second.
    pub MaxRcvLinkSpeed: u64,
    /// Current receive speed, in bits per second.
    pub RcvLinkSpeed: u64,
    /// `NET_IF_MEDIA_CONNECT_STATE`.
    pub MediaConnectState: u32,
    /// `NET_IF_MEDIA_DUPLEX_STATE`.
    pub MediaDuplexState: u32,
    /// Bytes of a frame that can be indicated as look-ahead.
    pub LookaheadSize: u32,
    /// `NDIS_PNP_CAPABILITIES`, or NULL.
    pub PowerManagementCapabilities: *mut c_void,
    /// `NDIS_PACKET_TYPE_*` that the adapter can filter by.
    pub SupportedPacketFilters: u32,
    /// Longest multicast list, in addresses.
    pub MaxMulticastListSize: u32,
    /// Length of a MAC address, in bytes.
    pub MacAddressLength: u16,
    /// The address in use.
    pub CurrentMacAddress: [u8; 32],
    /// `NDIS_PHYSICAL_MEDIUM`.
    pub PhysicalMediumType: u32,
    /// `NDIS_RECEIVE_SCALE_CAPABILITIES`, or NULL.
    pub RcvScaleCapabilities: *mut c_void,
    /// LUID of the highest interface.
    pub BoundIfNetluid: u64,
    /// Index of the highest interface.
    pub BoundIfIndex: u32,
    /// LUID of the lowest interface.
    pub LowestIfNetluid: u64,
    /// Index of the lowest interface.
    pub LowestIfIndex: u32,
    /// `NET_IF_ACCESS_TYPE`.
    pub AccessType: u32,
    /// `NET_IF_DIRECTION_TYPE`.
    pub DirectionType: u32,
    /// `NET_IF_CONNECTION_TYPE`.
    pub ConnectionType: u32,
    /// IANA interface type.
    pub IfType: u16,
    /// Non-zero when there is a physical adapter.
    pub IfConnectorPresent: u8,
    /// `NDIS_PORT` list, or NULL.
    pub ActivePorts: *mut c_void,
    /// Bytes to reserve in front of data.
    pub DataBackFillSize: u32,
    /// Bytes to reserve in a context.
    pub ContextBackFillSize: u32,
    /// `NDIS_MAC_OPTION_*`.
    pub MacOptions: u32,
    /// Routing compartment.
    pub CompartmentId: u32,
    /// `NDIS_OFFLOAD`, or NULL.
    pub DefaultOffloadConfiguration: *mut c_void,
    /// `NDIS_TCP_CONNECTION_OFFLOAD`, or NULL.
    pub TcpConnectionOffloadCapabilities: *mut c_void,
    /// Name of the highest adapter of the stack.
    pub BoundAdapterName: *mut UNICODE_STRING,
    /// `NDIS_HD_SPLIT_CURRENT_CONFIG`, or NULL (revision 2).
    pub HDSplitCurrentConfig: *mut c_void,
    /// `NDIS_RECEIVE_FILTER_CAPABILITIES`, or NULL (revision 3).
    pub ReceiveFilterCapabilities: *mut c_void,
    /// `NDIS_PM_CAPABILITIES`, or NULL (revision 3).
    pub PowerManagementCapabilitiesEx: *mut c_void,
    /// `NDIS_NIC_SWITCH_CAPABILITIES`, or NULL (revision 3).
    pub NicSwitchCapabilities: *mut c_void,
    /// Non-zero when network direct is on (revision 4).
    pub NDKEnabled: u8,
    /// `NDIS_NDK_CAPABILITIES`, or NULL (revision 4).
    pub NDKCapabilities: *mut c_void,
    /// `NDIS_SRIOV_CAPABILITIES`, or NULL (revision 4).
    pub SriovCapabilities: *mut c_void,
    /// `NDIS_NIC_SWITCH_INFO_ARRAY`, or NULL (revision 4).
    pub NicSwitchArray: *mut c_void,
}
assert_layout!(NDIS_BIND_PARAMETERS, 312, {
    Header: 0, ProtocolSection: 8, AdapterName: 16, PhysicalDeviceObject: 24, MediaType: 32, MtuSize: 36,
    MaxXmitLinkSpeed: 40, XmitLinkSpeed: 48, MaxRcvLinkSpeed: 56, RcvLinkSpeed: 64, MediaConnectState: 72,
    MediaDuplexState: 76, LookaheadSize: 80, PowerManagementCapabilities: 88, SupportedPacketFilters: 96,
    MaxMulticastListSize: 100, MacAddressLength: 104, CurrentMacAddress: 106, PhysicalMediumType: 140,
    RcvScaleCapabilities: 144, BoundIfNetluid: 152, BoundIfIndex: 160, LowestIfNetluid: 168, LowestIfIndex: 176,
    AccessType: 180, DirectionType: 184, ConnectionType: 188, IfType: 192, IfConnectorPresent: 194, ActivePorts: 200,
    DataBackFillSize: 208, ContextBackFillSize: 212, MacOptions: 216, CompartmentId: 220,
    DefaultOffloadConfiguration: 224, TcpConnectionOffloadCapabilities: 232, BoundAdapterName: 240,
    HDSplitCurrentConfig: 248, ReceiveFilterCapabilities: 256, PowerManagementCapabilitiesEx: 264,
    NicSwitchCapabilities: 272, NDKEnabled: 280, NDKCapabilities: 288, SriovCapabilities: 296, NicSwitchArray: 304,
});

/// `Header.Size` of revision 1 (NDIS 6.0), in bytes: through `BoundAdapterName`.
pub const NDIS_SIZEOF_BIND_PARAMETERS_REVISION_1: u16 = 248;
/// `Header.Size` of revision 2 (NDIS 6.1), in bytes.
pub const NDIS_SIZEOF_BIND_PARAMETERS_REVISION_2: u16 = 256;
/// `Header.Size` of revision 3 (NDIS 6.20), in bytes.
pub const NDIS_SIZEOF_BIND_PARAMETERS_REVISION_3: u16 = 280;
/// `Header.Size` of revision 4 (NDIS 6.30 and later), in bytes.
pub const NDIS_SIZEOF_BIND_PARAMETERS_REVISION_4: u16 = 312;
