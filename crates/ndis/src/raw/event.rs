//! What NDIS and miniports tell: Plug and Play and power events, and status indications.

use core::ffi::c_void;

use nt_types::assert_layout;

use super::{NDIS_HANDLE, NDIS_OBJECT_HEADER};
use crate::NdisStatus;

/// `NET_PNP_EVENT`: an event and what belongs to it.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NET_PNP_EVENT {
    /// `NetEvent*`.
    pub NetEvent: u32,
    /// What the event brings, by its code; or NULL.
    pub Buffer: *mut c_void,
    /// Its length in bytes.
    pub BufferLength: u32,
    /// For NDIS.
    pub NdisReserved: [usize; 4],
    /// For the protocol, until it has completed the event.
    pub TransportReserved: [usize; 4],
    /// For TDI.
    pub TdiReserved: [usize; 4],
    /// For TDI clients.
    pub TdiClientReserved: [usize; 4],
}
assert_layout!(NET_PNP_EVENT, 152, {
    NetEvent: 0, Buffer: 8, BufferLength: 16, NdisReserved: 24, TransportReserved: 56, TdiReserved: 88,
    TdiClientReserved: 120,
});

/// `NET_PNP_EVENT_NOTIFICATION`: argument of `ProtocolNetPnPEvent`. DDI page: `ndis/ns-ndis-_net_pnp_event_notification`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NET_PNP_EVENT_NOTIFICATION {
    /// Type 0x80, revision 1, size [`NDIS_SIZEOF_NET_PNP_EVENT_NOTIFICATION_REVISION_1`].
    pub Header: NDIS_OBJECT_HEADER,
    /// Port that the event concerns; 0 for the default port.
    pub PortNumber: u32,
    /// The event.
    pub NetPnPEvent: NET_PNP_EVENT,
}
assert_layout!(NET_PNP_EVENT_NOTIFICATION, 160, { Header: 0, PortNumber: 4, NetPnPEvent: 8 });

/// `Header.Size` of revision 1, in bytes.
pub const NDIS_SIZEOF_NET_PNP_EVENT_NOTIFICATION_REVISION_1: u16 = 160;

/// The device goes to the power state in the buffer.
pub const NetEventSetPower: u32 = 0;
/// May the device go to the power state in the buffer?
pub const NetEventQueryPower: u32 = 1;
/// May the device be removed?
pub const NetEventQueryRemoveDevice: u32 = 2;
/// It will not be removed after all.
pub const NetEventCancelRemoveDevice: u32 = 3;
/// The configuration has changed.
pub const NetEventReconfigure: u32 = 4;
/// The list of adapters to bind to has changed.
pub const NetEventBindList: u32 = 5;
/// The protocol is bound to all adapters that there are.
pub const NetEventBindsComplete: u32 = 6;
/// Wake-up capabilities.
pub const NetEventPnPCapabilities: u32 = 7;
/// Stop sending; the buffer holds [`NDIS_PROTOCOL_PAUSE_PARAMETERS`].
pub const NetEventPause: u32 = 8;
/// Send again; the buffer holds [`NDIS_PROTOCOL_RESTART_PARAMETERS`].
pub const NetEventRestart: u32 = 9;

/// `NDIS_PROTOCOL_PAUSE_PARAMETERS`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NDIS_PROTOCOL_PAUSE_PARAMETERS {
    /// Type 0x80, revision 1, size 12.
    pub Header: NDIS_OBJECT_HEADER,
    /// Reserved.
    pub Flags: u32,
    /// `NDIS_PAUSE_*`.
    pub PauseReason: u32,
}
assert_layout!(NDIS_PROTOCOL_PAUSE_PARAMETERS, 12, { Header: 0, Flags: 4, PauseReason: 8 });

/// `NDIS_PROTOCOL_RESTART_PARAMETERS`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NDIS_PROTOCOL_RESTART_PARAMETERS {
    /// Type 0x80, revision 1, size 52 (through `Flags`).
    pub Header: NDIS_OBJECT_HEADER,
    /// Names of the filter modules in the stack, one after the other.
    pub FilterModuleNameBuffer: *mut u8,
    /// Length of these, in bytes.
    pub FilterModuleNameBufferLength: u32,
    /// `NDIS_RESTART_ATTRIBUTES`, or NULL.
    pub RestartAttributes: *mut c_void,
    /// Index of the highest interface.
    pub BoundIfIndex: u32,
    /// LUID of the highest interface.
    pub BoundIfNetluid: u64,
    /// Reserved.
    pub Flags: u32,
}
assert_layout!(NDIS_PROTOCOL_RESTART_PARAMETERS, 56, {
    Header: 0, FilterModuleNameBuffer: 8, FilterModuleNameBufferLength: 16, RestartAttributes: 24, BoundIfIndex: 32,
    BoundIfNetluid: 40, Flags: 48,
});

/// `PauseReason`: NDIS pauses the stack for a reason of its own.
pub const NDIS_PAUSE_NDIS_INTERNAL: u32 = 0x0000_0001;
/// `PauseReason`: the device goes to a low power state.
pub const NDIS_PAUSE_LOW_POWER: u32 = 0x0000_0002;
/// `PauseReason`: a protocol is being bound.
pub const NDIS_PAUSE_BIND_PROTOCOL: u32 = 0x0000_0004;
/// `PauseReason`: a protocol is being unbound.
pub const NDIS_PAUSE_UNBIND_PROTOCOL: u32 = 0x0000_0008;
/// `PauseReason`: the miniport's device is removed.
pub const NDIS_PAUSE_MINIPORT_DEVICE_REMOVE: u32 = 0x0000_0100;

/// `NDIS_DEVICE_POWER_STATE`: fully on.
pub const NdisDeviceStateD0: u32 = 1;
/// `NDIS_DEVICE_POWER_STATE`: off.
pub const NdisDeviceStateD3: u32 = 4;

/// `NET_DEVICE_PNP_EVENT`: argument of `MiniportDevicePnPEventNotify`. DDI page: `ndis/ns-ndis-_net_device_pnp_event`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NET_DEVICE_PNP_EVENT {
    /// Type 0x80, revision 1, size [`NDIS_SIZEOF_NET_DEVICE_PNP_EVENT_REVISION_1`].
    pub Header: NDIS_OBJECT_HEADER,
    /// Port that the event concerns.
    pub PortNumber: u32,
    /// `NdisDevicePnPEvent*`.
    pub DevicePnPEvent: u32,
    /// What the event brings, or NULL.
    pub InformationBuffer: *mut c_void,
    /// Its length in bytes.
    pub InformationBufferLength: u32,
    /// For NDIS.
    pub NdisReserved: [u8; 16],
}
assert_layout!(NET_DEVICE_PNP_EVENT, 48, {
    Header: 0, PortNumber: 4, DevicePnPEvent: 8, InformationBuffer: 16, InformationBufferLength: 24, NdisReserved: 28,
});

/// `Header.Size` of revision 1, in bytes: through `NdisReserved`.
pub const NDIS_SIZEOF_NET_DEVICE_PNP_EVENT_REVISION_1: u16 = 44;
/// The device was pulled.
pub const NdisDevicePnPEventSurpriseRemoved: u32 = 1;
/// The machine's power source changed; the buffer holds a ULONG.
pub const NdisDevicePnPEventPowerProfileChanged: u32 = 4;
/// `NdisPowerProfileBattery`.
pub const NdisPowerProfileBattery: u32 = 0;
/// `NdisPowerProfileAcOnLine`.
pub const NdisPowerProfileAcOnLine: u32 = 1;

/// `NDIS_STATUS_INDICATION`: argument of `NdisMIndicateStatusEx` and `ProtocolStatusEx`.
/// DDI page: `ndis/ns-ndis-_ndis_status_indication`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NDIS_STATUS_INDICATION {
    /// Type 0x98, revision 1, size [`NDIS_SIZEOF_STATUS_INDICATION_REVISION_1`].
    pub Header: NDIS_OBJECT_HEADER,
    /// Who indicates: the miniport's adapter handle.
    pub SourceHandle: NDIS_HANDLE,
    /// Port, 0 for the default one.
    pub PortNumber: u32,
    /// What happened: `NDIS_STATUS_*`.
    pub StatusCode: NdisStatus,
    /// Reserved.
    pub Flags: u32,
    /// The one binding that the indication is for (`RequestHandle` of its OID request), or NULL for all.
    pub DestinationHandle: NDIS_HANDLE,
    /// `RequestId` of the OID request that led to it, or NULL.
    pub RequestId: *mut c_void,
    /// Data, by the status code.
    pub StatusBuffer: *mut c_void,
    /// Its length in bytes.
    pub StatusBufferSize: u32,
    /// For a GUID that WMI clients see.
    pub Guid: [u32; 4],
    /// For NDIS.
    pub NdisReserved: [*mut c_void; 4],
}
assert_layout!(NDIS_STATUS_INDICATION, 112, {
    Header: 0, SourceHandle: 8, PortNumber: 16, StatusCode: 20, Flags: 24, DestinationHandle: 32, RequestId: 40,
    StatusBuffer: 48, StatusBufferSize: 56, Guid: 60, NdisReserved: 80,
});

/// `Header.Size` of revision 1, in bytes.
pub const NDIS_SIZEOF_STATUS_INDICATION_REVISION_1: u16 = 112;
