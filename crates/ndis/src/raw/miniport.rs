//! The miniport driver and its callbacks.

use core::ffi::c_void;

use nt_types::{DRIVER_OBJECT, UNICODE_STRING, assert_layout};

use super::{NDIS_HANDLE, NDIS_OBJECT_HEADER, NDIS_OID_REQUEST, NET_BUFFER_LIST};
use crate::NdisStatus;

/// `MiniportSetOptions`. `PASSIVE_LEVEL`, within `NdisMRegisterMiniportDriver`.
pub type MINIPORT_SET_OPTIONS =
    unsafe extern "efiapi" fn(NdisDriverHandle: NDIS_HANDLE, DriverContext: NDIS_HANDLE) -> NdisStatus;
/// `MiniportInitializeEx`. `PASSIVE_LEVEL`.
pub type MINIPORT_INITIALIZE = unsafe extern "efiapi" fn(
    NdisMiniportHandle: NDIS_HANDLE,
    MiniportDriverContext: NDIS_HANDLE,
    MiniportInitParameters: *mut NDIS_MINIPORT_INIT_PARAMETERS,
) -> NdisStatus;
/// `MiniportHaltEx`. `PASSIVE_LEVEL`.
pub type MINIPORT_HALT = unsafe extern "efiapi" fn(MiniportAdapterContext: NDIS_HANDLE, HaltAction: u32);
/// `MiniportDriverUnload`. `PASSIVE_LEVEL`.
pub type MINIPORT_UNLOAD = unsafe extern "efiapi" fn(DriverObject: *mut DRIVER_OBJECT);
/// `MiniportPause`. `PASSIVE_LEVEL`.
pub type MINIPORT_PAUSE = unsafe extern "efiapi" fn(
    MiniportAdapterContext: NDIS_HANDLE,
    PauseParameters: *mut NDIS_MINIPORT_PAUSE_PARAMETERS,
) -> NdisStatus;
/// `MiniportRestart`. `PASSIVE_LEVEL`.
pub type MINIPORT_RESTART = unsafe extern "efiapi" fn(
    MiniportAdapterContext: NDIS_HANDLE,
    RestartParameters: *mut NDIS_MINIPORT_RESTART_PARAMETERS,
) -> NdisStatus;
/// `MiniportOidRequest`. `PASSIVE_LEVEL`.
pub type MINIPORT_OID_REQUEST =
    unsafe extern "efiapi" fn(MiniportAdapterContext: NDIS_HANDLE, OidRequest: *mut NDIS_OID_REQUEST) -> NdisStatus;
/// `MiniportSendNetBufferLists`. IRQL <= `DISPATCH_LEVEL`.
pub type MINIPORT_SEND_NET_BUFFER_LISTS = unsafe extern "efiapi" fn(
    MiniportAdapterContext: NDIS_HANDLE,
    NetBufferLists: *mut NET_BUFFER_LIST,
    PortNumber: u32,
    SendFlags: u32,
);
/// `MiniportReturnNetBufferLists`. IRQL <= `DISPATCH_LEVEL`.
pub type MINIPORT_RETURN_NET_BUFFER_LISTS = unsafe extern "efiapi" fn(
    MiniportAdapterContext: NDIS_HANDLE,
    NetBufferLists: *mut NET_BUFFER_LIST,
    ReturnFlags: u32,
);
/// `MiniportCancelSend`. IRQL <= `DISPATCH_LEVEL`.
pub type MINIPORT_CANCEL_SEND = unsafe extern "efiapi" fn(MiniportAdapterContext: NDIS_HANDLE, CancelId: *mut c_void);
/// `MiniportCheckForHangEx`. `PASSIVE_LEVEL`.
pub type MINIPORT_CHECK_FOR_HANG = unsafe extern "efiapi" fn(MiniportAdapterContext: NDIS_HANDLE) -> u8;
/// `MiniportResetEx`. IRQL <= `DISPATCH_LEVEL`.
pub type MINIPORT_RESET =
    unsafe extern "efiapi" fn(MiniportAdapterContext: NDIS_HANDLE, AddressingReset: *mut u8) -> NdisStatus;
/// `MiniportDevicePnPEventNotify`. `PASSIVE_LEVEL`.
pub type MINIPORT_DEVICE_PNP_EVENT_NOTIFY =
    unsafe extern "efiapi" fn(MiniportAdapterContext: NDIS_HANDLE, NetDevicePnPEvent: *mut c_void);
/// `MiniportShutdownEx`. `PASSIVE_LEVEL`, or any IRQL after a bug check.
pub type MINIPORT_SHUTDOWN = unsafe extern "efiapi" fn(MiniportAdapterContext: NDIS_HANDLE, ShutdownAction: u32);
/// `MiniportCancelOidRequest`. IRQL <= `DISPATCH_LEVEL`.
pub type MINIPORT_CANCEL_OID_REQUEST =
    unsafe extern "efiapi" fn(MiniportAdapterContext: NDIS_HANDLE, RequestId: *mut c_void);

/// `NDIS_MINIPORT_DRIVER_CHARACTERISTICS`: what a driver registers. DDI page: `ndis/ns-ndis-_ndis_miniport_driver_characteristics`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NDIS_MINIPORT_DRIVER_CHARACTERISTICS {
    /// Type 0x8A, revision 1 to 3, size of that revision.
    pub Header: NDIS_OBJECT_HEADER,
    /// NDIS version the driver is written for: 6.
    pub MajorNdisVersion: u8,
    /// Its minor part.
    pub MinorNdisVersion: u8,
    /// The driver's own version.
    pub MajorDriverVersion: u8,
    /// Its minor part.
    pub MinorDriverVersion: u8,
    /// [`NDIS_INTERMEDIATE_DRIVER`], [`NDIS_WDM_DRIVER`].
    pub Flags: u32,
    /// Optional.
    pub SetOptionsHandler: Option<MINIPORT_SET_OPTIONS>,
    /// Required.
    pub InitializeHandlerEx: Option<MINIPORT_INITIALIZE>,
    /// Required.
    pub HaltHandlerEx: Option<MINIPORT_HALT>,
    /// Required.
    pub UnloadHandler: Option<MINIPORT_UNLOAD>,
    /// Required.
    pub PauseHandler: Option<MINIPORT_PAUSE>,
    /// Required.
    pub RestartHandler: Option<MINIPORT_RESTART>,
    /// Required for connection-less miniports.
    pub OidRequestHandler: Option<MINIPORT_OID_REQUEST>,
    /// Required.
    pub SendNetBufferListsHandler: Option<MINIPORT_SEND_NET_BUFFER_LISTS>,
    /// Required.
    pub ReturnNetBufferListsHandler: Option<MINIPORT_RETURN_NET_BUFFER_LISTS>,
    /// Required.
    pub CancelSendHandler: Option<MINIPORT_CANCEL_SEND>,
    /// Optional.
    pub CheckForHangHandlerEx: Option<MINIPORT_CHECK_FOR_HANG>,
    /// Required with a `CheckForHangHandlerEx`.
    pub ResetHandlerEx: Option<MINIPORT_RESET>,
    /// Required.
    pub DevicePnPEventNotifyHandler: Option<MINIPORT_DEVICE_PNP_EVENT_NOTIFY>,
    /// Required.
    pub ShutdownHandlerEx: Option<MINIPORT_SHUTDOWN>,
    /// Required.
    pub CancelOidRequestHandler: Option<MINIPORT_CANCEL_OID_REQUEST>,
    /// Optional, with its cancel handler (revision 2).
    pub DirectOidRequestHandler: Option<MINIPORT_OID_REQUEST>,
    /// Optional (revision 2).
    pub CancelDirectOidRequestHandler: Option<MINIPORT_CANCEL_OID_REQUEST>,
    /// Optional (revision 3).
    pub SynchronousOidRequestHandler: Option<MINIPORT_OID_REQUEST>,
}
assert_layout!(NDIS_MINIPORT_DRIVER_CHARACTERISTICS, 160, {
    Header: 0, MajorNdisVersion: 4, MinorNdisVersion: 5, MajorDriverVersion: 6, MinorDriverVersion: 7, Flags: 8,
    SetOptionsHandler: 16, InitializeHandlerEx: 24, HaltHandlerEx: 32, UnloadHandler: 40, PauseHandler: 48,
    RestartHandler: 56, OidRequestHandler: 64, SendNetBufferListsHandler: 72, ReturnNetBufferListsHandler: 80,
    CancelSendHandler: 88, CheckForHangHandlerEx: 96, ResetHandlerEx: 104, DevicePnPEventNotifyHandler: 112,
    ShutdownHandlerEx: 120, CancelOidRequestHandler: 128, DirectOidRequestHandler: 136,
    CancelDirectOidRequestHandler: 144, SynchronousOidRequestHandler: 152,
});

/// `Header.Size` of revision 1 (NDIS 6.0), in bytes.
pub const NDIS_SIZEOF_MINIPORT_DRIVER_CHARACTERISTICS_REVISION_1: u16 = 136;
/// `Header.Size` of revision 2 (NDIS 6.1 and later), in bytes.
pub const NDIS_SIZEOF_MINIPORT_DRIVER_CHARACTERISTICS_REVISION_2: u16 = 152;
/// `Header.Size` of revision 3 (NDIS 6.80 and later), in bytes.
pub const NDIS_SIZEOF_MINIPORT_DRIVER_CHARACTERISTICS_REVISION_3: u16 = 160;
/// Flag: an intermediate driver's virtual miniport.
pub const NDIS_INTERMEDIATE_DRIVER: u32 = 0x0000_0001;
/// Flag: the driver's lower edge is WDM.
pub const NDIS_WDM_DRIVER: u32 = 0x0000_0002;

/// `NDIS_MINIPORT_INIT_PARAMETERS`. DDI page: `ndis/ns-ndis-_ndis_miniport_init_parameters`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NDIS_MINIPORT_INIT_PARAMETERS {
    /// Type 0x81, revision 1, size 64.
    pub Header: NDIS_OBJECT_HEADER,
    /// Reserved for NDIS.
    pub Flags: u32,
    /// `CM_PARTIAL_RESOURCE_LIST` of the device, or NULL.
    pub AllocatedResources: *mut c_void,
    /// For intermediate drivers.
    pub IMDeviceInstanceContext: NDIS_HANDLE,
    /// What `MiniportAddDevice` registered, or NULL.
    pub MiniportAddDeviceContext: NDIS_HANDLE,
    /// Interface index.
    pub IfIndex: u32,
    /// Interface LUID.
    pub NetLuid: u64,
    /// Default port authentication, or NULL.
    pub DefaultPortAuthStates: *mut c_void,
    /// PCI properties, or NULL.
    pub PciDeviceCustomProperties: *mut c_void,
}
assert_layout!(NDIS_MINIPORT_INIT_PARAMETERS, 64, {
    Header: 0, Flags: 4, AllocatedResources: 8, IMDeviceInstanceContext: 16, MiniportAddDeviceContext: 24, IfIndex: 32,
    NetLuid: 40, DefaultPortAuthStates: 48, PciDeviceCustomProperties: 56,
});

/// `NDIS_MINIPORT_PAUSE_PARAMETERS`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NDIS_MINIPORT_PAUSE_PARAMETERS {
    /// Type 0x80, revision 1, size 12.
    pub Header: NDIS_OBJECT_HEADER,
    /// Reserved.
    pub Flags: u32,
    /// Why; meaningful from NDIS 6.40.
    pub PauseReason: u32,
}
assert_layout!(NDIS_MINIPORT_PAUSE_PARAMETERS, 12, { Header: 0, Flags: 4, PauseReason: 8 });

/// `NDIS_MINIPORT_RESTART_PARAMETERS`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NDIS_MINIPORT_RESTART_PARAMETERS {
    /// Type 0x80, revision 1, size 20 (through `Flags`).
    pub Header: NDIS_OBJECT_HEADER,
    /// `NDIS_RESTART_ATTRIBUTES`, or NULL.
    pub RestartAttributes: *mut c_void,
    /// Reserved.
    pub Flags: u32,
}
assert_layout!(NDIS_MINIPORT_RESTART_PARAMETERS, 24, { Header: 0, RestartAttributes: 8, Flags: 16 });

/// `MiniportAddDevice`. `PASSIVE_LEVEL`, before `MiniportInitializeEx`.
pub type MINIPORT_ADD_DEVICE =
    unsafe extern "efiapi" fn(NdisMiniportHandle: NDIS_HANDLE, MiniportDriverContext: NDIS_HANDLE) -> NdisStatus;
/// `MiniportRemoveDevice`. `PASSIVE_LEVEL`, when the device goes away.
pub type MINIPORT_REMOVE_DEVICE = unsafe extern "efiapi" fn(MiniportAddDeviceContext: NDIS_HANDLE);

/// `NDIS_MINIPORT_PNP_CHARACTERISTICS`: handlers for `NdisSetOptionalHandlers`. DDI page: `ndis/ns-ndis-_ndis_miniport_pnp_characteristics`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct NDIS_MINIPORT_PNP_CHARACTERISTICS {
    /// Type 0x92, revision 1, size [`NDIS_SIZEOF_MINIPORT_PNP_CHARACTERISTICS_REVISION_1`].
    pub Header: NDIS_OBJECT_HEADER,
    /// Called when a device is added.
    pub MiniportAddDeviceHandler: Option<MINIPORT_ADD_DEVICE>,
    /// Called when it is removed.
    pub MiniportRemoveDeviceHandler: Option<MINIPORT_REMOVE_DEVICE>,
    /// Called with `IRP_MN_FILTER_RESOURCE_REQUIREMENTS`.
    pub MiniportFilterResourceRequirementsHandler: usize,
    /// Called with `IRP_MN_START_DEVICE`, or NULL.
    pub MiniportStartDeviceHandler: usize,
    /// Reserved.
    pub Flags: u32,
}
assert_layout!(NDIS_MINIPORT_PNP_CHARACTERISTICS, 48, {
    Header: 0, MiniportAddDeviceHandler: 8, MiniportRemoveDeviceHandler: 16,
    MiniportFilterResourceRequirementsHandler: 24, MiniportStartDeviceHandler: 32, Flags: 40,
});

/// `Header.Size` of revision 1, in bytes: through `MiniportStartDeviceHandler`.
pub const NDIS_SIZEOF_MINIPORT_PNP_CHARACTERISTICS_REVISION_1: u16 = 40;

/// `NDIS_MINIPORT_ADD_DEVICE_REGISTRATION_ATTRIBUTES`: set by `MiniportAddDevice`.
/// DDI page: `ndis/ns-ndis-_ndis_miniport_add_device_registration_attributes`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NDIS_MINIPORT_ADD_DEVICE_REGISTRATION_ATTRIBUTES {
    /// Type 0xA4, revision 1, size 20 (through `Flags`).
    pub Header: NDIS_OBJECT_HEADER,
    /// What NDIS passes to `MiniportRemoveDevice` and in the parameters of `MiniportInitializeEx`.
    pub MiniportAddDeviceContext: NDIS_HANDLE,
    /// Reserved.
    pub Flags: u32,
}
assert_layout!(NDIS_MINIPORT_ADD_DEVICE_REGISTRATION_ATTRIBUTES, 24, {
    Header: 0, MiniportAddDeviceContext: 8, Flags: 16,
});

/// `NDIS_DEVICE_OBJECT_ATTRIBUTES`: what `NdisRegisterDeviceEx` is told. DDI page: `ndis/ns-ndis-_ndis_device_object_attributes`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NDIS_DEVICE_OBJECT_ATTRIBUTES {
    /// Type 0x85, revision 1, size [`NDIS_SIZEOF_DEVICE_OBJECT_ATTRIBUTES_REVISION_1`].
    pub Header: NDIS_OBJECT_HEADER,
    /// NT name of the device.
    pub DeviceName: *mut UNICODE_STRING,
    /// Name that programs see, or NULL.
    pub SymbolicName: *mut UNICODE_STRING,
    /// Dispatch routines by major function, all of them; NULL for requests that are not handled.
    pub MajorFunctions: *mut nt_types::DRIVER_DISPATCH,
    /// Bytes that `NdisGetDeviceReservedExtension` hands out.
    pub ExtensionSize: u32,
    /// Who may open the device, in SDDL; or NULL.
    pub DefaultSDDLString: *const UNICODE_STRING,
    /// Reserved.
    pub DeviceClassGuid: *const c_void,
}
assert_layout!(NDIS_DEVICE_OBJECT_ATTRIBUTES, 56, {
    Header: 0, DeviceName: 8, SymbolicName: 16, MajorFunctions: 24, ExtensionSize: 32, DefaultSDDLString: 40,
    DeviceClassGuid: 48,
});

/// `Header.Size` of revision 1, in bytes.
pub const NDIS_SIZEOF_DEVICE_OBJECT_ATTRIBUTES_REVISION_1: u16 = 56;

/// Halt: the device is removed or disabled.
pub const NdisHaltDeviceDisabled: u32 = 0;
/// Halt: the system goes to sleep.
pub const NdisHaltDevicePoweredDown: u32 = 2;
/// Halt: the device was pulled.
pub const NdisHaltDeviceSurpriseRemoved: u32 = 3;
/// Halt: the device failed.
pub const NdisHaltDeviceFailed: u32 = 4;
/// Halt: NDIS could not finish the initialisation.
pub const NdisHaltDeviceInitializationFailed: u32 = 5;
/// Halt: the device was stopped.
pub const NdisHaltDeviceStopped: u32 = 6;
/// Shutdown: power off.
pub const NdisShutdownPowerOff: u32 = 0;
/// Shutdown: bug check.
pub const NdisShutdownBugCheck: u32 = 1;
