//! The filter driver, its callbacks and its modules.

use core::ffi::c_void;

use nt_types::{UNICODE_STRING, assert_layout};

use super::{
    NDIS_HANDLE, NDIS_OBJECT_HEADER, NDIS_OID_REQUEST, NDIS_STATUS_INDICATION, NET_BUFFER_LIST, NET_DEVICE_PNP_EVENT,
    NET_PNP_EVENT_NOTIFICATION,
};
use crate::NdisStatus;

/// `FilterSetOptions`. `PASSIVE_LEVEL`, within `NdisFRegisterFilterDriver`.
pub type FILTER_SET_OPTIONS =
    unsafe extern "efiapi" fn(NdisDriverHandle: NDIS_HANDLE, FilterDriverContext: NDIS_HANDLE) -> NdisStatus;
/// `FilterSetModuleOptions`. `PASSIVE_LEVEL`, before each restart.
pub type FILTER_SET_MODULE_OPTIONS = unsafe extern "efiapi" fn(FilterModuleContext: NDIS_HANDLE) -> NdisStatus;
/// `FilterAttach`. `PASSIVE_LEVEL`.
pub type FILTER_ATTACH = unsafe extern "efiapi" fn(
    NdisFilterHandle: NDIS_HANDLE,
    FilterDriverContext: NDIS_HANDLE,
    AttachParameters: *mut NDIS_FILTER_ATTACH_PARAMETERS,
) -> NdisStatus;
/// `FilterDetach`. `PASSIVE_LEVEL`; cannot fail.
pub type FILTER_DETACH = unsafe extern "efiapi" fn(FilterModuleContext: NDIS_HANDLE);
/// `FilterRestart`. `PASSIVE_LEVEL`.
pub type FILTER_RESTART = unsafe extern "efiapi" fn(
    FilterModuleContext: NDIS_HANDLE,
    RestartParameters: *mut NDIS_FILTER_RESTART_PARAMETERS,
) -> NdisStatus;
/// `FilterPause`. `PASSIVE_LEVEL`; cannot fail.
pub type FILTER_PAUSE = unsafe extern "efiapi" fn(
    FilterModuleContext: NDIS_HANDLE,
    PauseParameters: *mut NDIS_FILTER_PAUSE_PARAMETERS,
) -> NdisStatus;
/// `FilterSendNetBufferLists`. IRQL <= `DISPATCH_LEVEL`.
pub type FILTER_SEND_NET_BUFFER_LISTS = unsafe extern "efiapi" fn(
    FilterModuleContext: NDIS_HANDLE,
    NetBufferList: *mut NET_BUFFER_LIST,
    PortNumber: u32,
    SendFlags: u32,
);
/// `FilterSendNetBufferListsComplete` and `FilterReturnNetBufferLists`. IRQL <= `DISPATCH_LEVEL`.
pub type FILTER_NET_BUFFER_LISTS_BACK =
    unsafe extern "efiapi" fn(FilterModuleContext: NDIS_HANDLE, NetBufferList: *mut NET_BUFFER_LIST, Flags: u32);
/// `FilterReceiveNetBufferLists`. IRQL <= `DISPATCH_LEVEL`.
pub type FILTER_RECEIVE_NET_BUFFER_LISTS = unsafe extern "efiapi" fn(
    FilterModuleContext: NDIS_HANDLE,
    NetBufferLists: *mut NET_BUFFER_LIST,
    PortNumber: u32,
    NumberOfNetBufferLists: u32,
    ReceiveFlags: u32,
);
/// `FilterOidRequest` and `FilterDirectOidRequest`. IRQL <= `DISPATCH_LEVEL`.
pub type FILTER_OID_REQUEST =
    unsafe extern "efiapi" fn(FilterModuleContext: NDIS_HANDLE, OidRequest: *mut NDIS_OID_REQUEST) -> NdisStatus;
/// `FilterOidRequestComplete` and `FilterDirectOidRequestComplete`. IRQL <= `DISPATCH_LEVEL`.
pub type FILTER_OID_REQUEST_COMPLETE =
    unsafe extern "efiapi" fn(FilterModuleContext: NDIS_HANDLE, OidRequest: *mut NDIS_OID_REQUEST, Status: NdisStatus);
/// `FilterCancelOidRequest`, `FilterCancelDirectOidRequest`, `FilterCancelSendNetBufferLists`. IRQL <= `DISPATCH_LEVEL`.
pub type FILTER_CANCEL = unsafe extern "efiapi" fn(FilterModuleContext: NDIS_HANDLE, Id: *mut c_void);
/// `FilterDevicePnPEventNotify`. `PASSIVE_LEVEL`.
pub type FILTER_DEVICE_PNP_EVENT_NOTIFY =
    unsafe extern "efiapi" fn(FilterModuleContext: NDIS_HANDLE, NetDevicePnPEvent: *mut NET_DEVICE_PNP_EVENT);
/// `FilterNetPnPEvent`. `PASSIVE_LEVEL`.
pub type FILTER_NET_PNP_EVENT = unsafe extern "efiapi" fn(
    FilterModuleContext: NDIS_HANDLE,
    NetPnPEventNotification: *mut NET_PNP_EVENT_NOTIFICATION,
) -> NdisStatus;
/// `FilterStatus`. IRQL <= `DISPATCH_LEVEL`.
pub type FILTER_STATUS =
    unsafe extern "efiapi" fn(FilterModuleContext: NDIS_HANDLE, StatusIndication: *mut NDIS_STATUS_INDICATION);
/// `FilterSynchronousOidRequest`. IRQL <= `DISPATCH_LEVEL`.
pub type FILTER_SYNCHRONOUS_OID_REQUEST = unsafe extern "efiapi" fn(
    FilterModuleContext: NDIS_HANDLE,
    OidRequest: *mut NDIS_OID_REQUEST,
    CallContext: *mut *mut c_void,
) -> NdisStatus;
/// `FilterSynchronousOidRequestComplete`. IRQL <= `DISPATCH_LEVEL`.
pub type FILTER_SYNCHRONOUS_OID_REQUEST_COMPLETE = unsafe extern "efiapi" fn(
    FilterModuleContext: NDIS_HANDLE,
    OidRequest: *mut NDIS_OID_REQUEST,
    Status: *mut NdisStatus,
    CallContext: *mut c_void,
);

/// `NDIS_FILTER_DRIVER_CHARACTERISTICS`: what a filter driver registers. NDIS copies it.
/// DDI page: `ndis/ns-ndis-_ndis_filter_driver_characteristics`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NDIS_FILTER_DRIVER_CHARACTERISTICS {
    /// Type 0x8B, revision 1 to 3, size of that revision.
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
    /// What people call the driver.
    pub FriendlyName: UNICODE_STRING,
    /// Its GUID in braces: `NetCfgInstanceId` of its INF.
    pub UniqueName: UNICODE_STRING,
    /// Its service.
    pub ServiceName: UNICODE_STRING,
    /// Optional.
    pub SetOptionsHandler: Option<FILTER_SET_OPTIONS>,
    /// Optional.
    pub SetFilterModuleOptionsHandler: Option<FILTER_SET_MODULE_OPTIONS>,
    /// Required.
    pub AttachHandler: Option<FILTER_ATTACH>,
    /// Required.
    pub DetachHandler: Option<FILTER_DETACH>,
    /// Required.
    pub RestartHandler: Option<FILTER_RESTART>,
    /// Required.
    pub PauseHandler: Option<FILTER_PAUSE>,
    /// Optional, as all that follow.
    pub SendNetBufferListsHandler: Option<FILTER_SEND_NET_BUFFER_LISTS>,
    /// Sends of this filter or of those above it are complete.
    pub SendNetBufferListsCompleteHandler: Option<FILTER_NET_BUFFER_LISTS_BACK>,
    /// Sends with an identifier are to be given up.
    pub CancelSendNetBufferListsHandler: Option<FILTER_CANCEL>,
    /// Lists from below.
    pub ReceiveNetBufferListsHandler: Option<FILTER_RECEIVE_NET_BUFFER_LISTS>,
    /// Lists come back from above.
    pub ReturnNetBufferListsHandler: Option<FILTER_NET_BUFFER_LISTS_BACK>,
    /// Requests from above; with `OidRequestCompleteHandler`.
    pub OidRequestHandler: Option<FILTER_OID_REQUEST>,
    /// Requests of this filter are complete.
    pub OidRequestCompleteHandler: Option<FILTER_OID_REQUEST_COMPLETE>,
    /// A request is to be given up.
    pub CancelOidRequestHandler: Option<FILTER_CANCEL>,
    /// Events on their way to the miniport.
    pub DevicePnPEventNotifyHandler: Option<FILTER_DEVICE_PNP_EVENT_NOTIFY>,
    /// Events on their way to the protocols.
    pub NetPnPEventHandler: Option<FILTER_NET_PNP_EVENT>,
    /// Status indications from below.
    pub StatusHandler: Option<FILTER_STATUS>,
    /// Revision 2.
    pub DirectOidRequestHandler: Option<FILTER_OID_REQUEST>,
    /// Revision 2.
    pub DirectOidRequestCompleteHandler: Option<FILTER_OID_REQUEST_COMPLETE>,
    /// Revision 2.
    pub CancelDirectOidRequestHandler: Option<FILTER_CANCEL>,
    /// Revision 3.
    pub SynchronousOidRequestHandler: Option<FILTER_SYNCHRONOUS_OID_REQUEST>,
    /// Revision 3.
    pub SynchronousOidRequestCompleteHandler: Option<FILTER_SYNCHRONOUS_OID_REQUEST_COMPLETE>,
}
assert_layout!(NDIS_FILTER_DRIVER_CHARACTERISTICS, 240, {
    MajorNdisVersion: 4, Flags: 8, FriendlyName: 16, UniqueName: 32, ServiceName: 48, SetOptionsHandler: 64,
    AttachHandler: 80, PauseHandler: 104, SendNetBufferListsHandler: 112, ReturnNetBufferListsHandler: 144,
    OidRequestHandler: 152, DevicePnPEventNotifyHandler: 176, StatusHandler: 192, DirectOidRequestHandler: 200,
    SynchronousOidRequestHandler: 224,
});

/// `Header.Size` of revision 1, in bytes.
pub const NDIS_SIZEOF_FILTER_DRIVER_CHARACTERISTICS_REVISION_1: u16 = 200;
/// `Header.Size` of revision 2, of NDIS 6.1.
pub const NDIS_SIZEOF_FILTER_DRIVER_CHARACTERISTICS_REVISION_2: u16 = 224;
/// `Header.Size` of revision 3, of NDIS 6.80.
pub const NDIS_SIZEOF_FILTER_DRIVER_CHARACTERISTICS_REVISION_3: u16 = 240;

/// `NDIS_FILTER_ATTACH_PARAMETERS`: what `FilterAttach` is told. DDI page: `ndis/ns-ndis-_ndis_filter_attach_parameters`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NDIS_FILTER_ATTACH_PARAMETERS {
    /// Type 0x99, revision 1 to 4.
    pub Header: NDIS_OBJECT_HEADER,
    /// Interface index of the module.
    pub IfIndex: u32,
    /// Its interface LUID.
    pub NetLuid: u64,
    /// Its name.
    pub FilterModuleGuidName: *mut UNICODE_STRING,
    /// Interface index of the miniport.
    pub BaseMiniportIfIndex: u32,
    /// What people call the miniport's adapter.
    pub BaseMiniportInstanceName: *mut UNICODE_STRING,
    /// Its device name.
    pub BaseMiniportName: *mut UNICODE_STRING,
    /// `MediaConnectState*`.
    pub MediaConnectState: u32,
    /// `MediaDuplexState*`.
    pub MediaDuplexState: u32,
    /// Bits per second.
    pub XmitLinkSpeed: u64,
    /// Bits per second.
    pub RcvLinkSpeed: u64,
    /// `NdisMedium*`.
    pub MiniportMediaType: u32,
    /// `NdisPhysicalMedium*`.
    pub MiniportPhysicalMediaType: u32,
    /// Attributes of the medium, or NULL.
    pub MiniportMediaSpecificAttributes: *mut c_void,
    /// `NDIS_OFFLOAD`, or NULL.
    pub DefaultOffloadConfiguration: *mut c_void,
    /// Bytes of the address.
    pub MacAddressLength: u16,
    /// The address.
    pub CurrentMacAddress: [u8; 32],
    /// Interface LUID of the miniport.
    pub BaseMiniportNetLuid: u64,
    /// Interface index of what is just below.
    pub LowerIfIndex: u32,
    /// Its interface LUID.
    pub LowerIfNetLuid: u64,
    /// Reserved.
    pub Flags: u32,
    /// Revision 2; or NULL.
    pub HDSplitCurrentConfig: *mut c_void,
    /// Revision 3; or NULL, as the two that follow.
    pub ReceiveFilterCapabilities: *mut c_void,
    /// The miniport's device.
    pub MiniportPhysicalDeviceObject: *mut c_void,
    /// Capabilities of the NIC switch.
    pub NicSwitchCapabilities: *mut c_void,
    /// Revision 4: TRUE for a physical adapter.
    pub BaseMiniportIfConnectorPresent: u8,
    /// Or NULL.
    pub SriovCapabilities: *mut c_void,
    /// Or NULL.
    pub NicSwitchArray: *mut c_void,
}
assert_layout!(NDIS_FILTER_ATTACH_PARAMETERS, 224, {
    IfIndex: 4, NetLuid: 8, FilterModuleGuidName: 16, BaseMiniportIfIndex: 24, BaseMiniportInstanceName: 32,
    BaseMiniportName: 40, MediaConnectState: 48, XmitLinkSpeed: 56, MiniportMediaType: 72,
    MiniportMediaSpecificAttributes: 80, MacAddressLength: 96, CurrentMacAddress: 98, BaseMiniportNetLuid: 136,
    LowerIfIndex: 144, LowerIfNetLuid: 152, Flags: 160, HDSplitCurrentConfig: 168, NicSwitchCapabilities: 192,
    BaseMiniportIfConnectorPresent: 200, NicSwitchArray: 216,
});

/// `NDIS_FILTER_ATTRIBUTES`: argument of `NdisFSetAttributes`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NDIS_FILTER_ATTRIBUTES {
    /// Type 0x8D, revision 1, size 8.
    pub Header: NDIS_OBJECT_HEADER,
    /// Reserved: 0.
    pub Flags: u32,
}
assert_layout!(NDIS_FILTER_ATTRIBUTES, 8, { Header: 0, Flags: 4 });

/// `NDIS_FILTER_PAUSE_PARAMETERS`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NDIS_FILTER_PAUSE_PARAMETERS {
    /// Type 0x9A, revision 1, size 12.
    pub Header: NDIS_OBJECT_HEADER,
    /// Reserved.
    pub Flags: u32,
    /// `NDIS_PAUSE_NDIS_INTERNAL`.
    pub PauseReason: u32,
}
assert_layout!(NDIS_FILTER_PAUSE_PARAMETERS, 12, { Header: 0, Flags: 4, PauseReason: 8 });

/// `NDIS_FILTER_RESTART_PARAMETERS`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NDIS_FILTER_RESTART_PARAMETERS {
    /// Type 0x9B, revision 1, size 44 (through `Flags`).
    pub Header: NDIS_OBJECT_HEADER,
    /// `NdisMedium*` of the miniport.
    pub MiniportMediaType: u32,
    /// `NdisPhysicalMedium*` of the miniport.
    pub MiniportPhysicalMediaType: u32,
    /// `NDIS_RESTART_ATTRIBUTES`, or NULL.
    pub RestartAttributes: *mut c_void,
    /// Interface index of what is just below.
    pub LowerIfIndex: u32,
    /// Its interface LUID.
    pub LowerIfNetLuid: u64,
    /// Reserved.
    pub Flags: u32,
}
assert_layout!(NDIS_FILTER_RESTART_PARAMETERS, 48, {
    MiniportMediaType: 4, RestartAttributes: 16, LowerIfIndex: 24, LowerIfNetLuid: 32, Flags: 40,
});

/// `NDIS_FILTER_PARTIAL_CHARACTERISTICS`: the handlers that a module may change.
/// DDI page: `ndis/ns-ndis-_ndis_filter_partial_characteristics`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NDIS_FILTER_PARTIAL_CHARACTERISTICS {
    /// Type 0x8C, revision 1, size 48.
    pub Header: NDIS_OBJECT_HEADER,
    /// Reserved.
    pub Flags: u32,
    /// NULL to be passed by, as all that follow.
    pub SendNetBufferListsHandler: Option<FILTER_SEND_NET_BUFFER_LISTS>,
    /// See the characteristics of the driver.
    pub SendNetBufferListsCompleteHandler: Option<FILTER_NET_BUFFER_LISTS_BACK>,
    /// See the characteristics of the driver.
    pub CancelSendNetBufferListsHandler: Option<FILTER_CANCEL>,
    /// See the characteristics of the driver.
    pub ReceiveNetBufferListsHandler: Option<FILTER_RECEIVE_NET_BUFFER_LISTS>,
    /// See the characteristics of the driver.
    pub ReturnNetBufferListsHandler: Option<FILTER_NET_BUFFER_LISTS_BACK>,
}
assert_layout!(NDIS_FILTER_PARTIAL_CHARACTERISTICS, 48, {
    Flags: 4, SendNetBufferListsHandler: 8, CancelSendNetBufferListsHandler: 24, ReturnNetBufferListsHandler: 40,
});

/// `Header.Size` of revision 1 of [`NDIS_FILTER_PARTIAL_CHARACTERISTICS`].
pub const NDIS_SIZEOF_FILTER_PARTIAL_CHARACTERISTICS_REVISION_1: u16 = 48;
/// `Header.Size` of revision 1 of [`NDIS_FILTER_ATTRIBUTES`].
pub const NDIS_SIZEOF_FILTER_ATTRIBUTES_REVISION_1: u16 = 8;
