//! What a miniport tells NDIS about an adapter through `NdisMSetMiniportAttributes`.

use core::ffi::c_void;

use nt_types::assert_layout;

use super::{NDIS_HANDLE, NDIS_OBJECT_HEADER};

/// `NDIS_MINIPORT_ADAPTER_REGISTRATION_ATTRIBUTES`: must be set first. DDI page: `ndis/ns-ndis-_ndis_miniport_adapter_registration_attributes`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NDIS_MINIPORT_ADAPTER_REGISTRATION_ATTRIBUTES {
    /// Type 0x9E, revision 1 or 2, size [`NDIS_SIZEOF_MINIPORT_ADAPTER_REGISTRATION_ATTRIBUTES_REVISION_1`].
    pub Header: NDIS_OBJECT_HEADER,
    /// What NDIS passes to the other callbacks of the adapter. Owned by the driver.
    pub MiniportAdapterContext: NDIS_HANDLE,
    /// `NDIS_MINIPORT_ATTRIBUTES_*`.
    pub AttributeFlags: u32,
    /// Interval of `MiniportCheckForHangEx` in seconds; 0 for the default of 2.
    pub CheckForHangTimeInSeconds: u32,
    /// Bus of the device: an `NdisInterface*` value.
    pub InterfaceType: u32,
}
assert_layout!(NDIS_MINIPORT_ADAPTER_REGISTRATION_ATTRIBUTES, 32, {
    Header: 0, MiniportAdapterContext: 8, AttributeFlags: 16, CheckForHangTimeInSeconds: 20, InterfaceType: 24,
});

/// `Header.Size` of revisions 1 and 2, in bytes: through `InterfaceType`.
pub const NDIS_SIZEOF_MINIPORT_ADAPTER_REGISTRATION_ATTRIBUTES_REVISION_1: u16 = 28;

/// The driver drives hardware and claims hardware resources.
pub const NDIS_MINIPORT_ATTRIBUTES_HARDWARE_DEVICE: u32 = 0x0000_0001;
/// The driver's lower edge is WDM.
pub const NDIS_MINIPORT_ATTRIBUTES_NDIS_WDM: u32 = 0x0000_0002;
/// The driver survives the removal of its device without notice.
pub const NDIS_MINIPORT_ATTRIBUTES_SURPRISE_REMOVE_OK: u32 = 0x0000_0004;
/// The NIC is a bus master.
pub const NDIS_MINIPORT_ATTRIBUTES_BUS_MASTER: u32 = 0x0000_0040;

/// The device is internal to the machine.
pub const NdisInterfaceInternal: u32 = 0;
/// The device is on PCI.
pub const NdisInterfacePci: u32 = 5;

/// `NDIS_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES`: set after the registration attributes and before all others; mandatory for a
/// successful initialisation. DDI page: `ndis/ns-ndis-_ndis_miniport_adapter_general_attributes`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct NDIS_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES {
    /// Type 0x9F, revision 1 or 2, size [`NDIS_SIZEOF_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES_REVISION_2`].
    pub Header: NDIS_OBJECT_HEADER,
    /// Reserved for NDIS.
    pub Flags: u32,
    /// `NDIS_MEDIUM`.
    pub MediaType: u32,
    /// `NDIS_PHYSICAL_MEDIUM`.
    pub PhysicalMediumType: u32,
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
    /// `NDIS_PNP_CAPABILITIES`; NULL for NDIS 6.20 and later.
    pub PowerManagementCapabilities: *mut c_void,
    /// `NDIS_MAC_OPTION_*`.
    pub MacOptions: u32,
    /// `NDIS_PACKET_TYPE_*` that the adapter can filter by.
    pub SupportedPacketFilters: u32,
    /// Longest multicast list, in addresses.
    pub MaxMulticastListSize: u32,
    /// Length of a MAC address, in bytes.
    pub MacAddressLength: u16,
    /// The burnt-in address.
    pub PermanentMacAddress: [u8; 32],
    /// The address in use.
    pub CurrentMacAddress: [u8; 32],
    /// `NDIS_RECEIVE_SCALE_CAPABILITIES`, or NULL.
    pub RecvScaleCapabilities: *mut c_void,
    /// `NET_IF_ACCESS_TYPE`.
    pub AccessType: u32,
    /// `NET_IF_DIRECTION_TYPE`.
    pub DirectionType: u32,
    /// `NET_IF_CONNECTION_TYPE`.
    pub ConnectionType: u32,
    /// IANA interface type.
    pub IfType: u16,
    /// Non-zero when the adapter has a connector.
    pub IfConnectorPresent: u8,
    /// `NDIS_STATISTICS_*_SUPPORTED`.
    pub SupportedStatistics: u32,
    /// `NDIS_SUPPORTED_PAUSE_FUNCTIONS`.
    pub SupportedPauseFunctions: u32,
    /// Bytes to reserve in front of data.
    pub DataBackFillSize: u32,
    /// Bytes to reserve in a context.
    pub ContextBackFillSize: u32,
    /// The OIDs that the miniport handles. NDIS copies the list.
    pub SupportedOidList: *mut u32,
    /// Length of that list, in bytes.
    pub SupportedOidListLength: u32,
    /// `NDIS_LINK_STATE_*_AUTO_NEGOTIATED`.
    pub AutoNegotiationFlags: u32,
    /// `NDIS_PM_CAPABILITIES`, or NULL (revision 2).
    pub PowerManagementCapabilitiesEx: *mut c_void,
}
assert_layout!(NDIS_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES, 224, {
    Header: 0, Flags: 4, MediaType: 8, PhysicalMediumType: 12, MtuSize: 16, MaxXmitLinkSpeed: 24, XmitLinkSpeed: 32,
    MaxRcvLinkSpeed: 40, RcvLinkSpeed: 48, MediaConnectState: 56, MediaDuplexState: 60, LookaheadSize: 64,
    PowerManagementCapabilities: 72, MacOptions: 80, SupportedPacketFilters: 84, MaxMulticastListSize: 88,
    MacAddressLength: 92, PermanentMacAddress: 94, CurrentMacAddress: 126, RecvScaleCapabilities: 160, AccessType: 168,
    DirectionType: 172, ConnectionType: 176, IfType: 180, IfConnectorPresent: 182, SupportedStatistics: 184,
    SupportedPauseFunctions: 188, DataBackFillSize: 192, ContextBackFillSize: 196, SupportedOidList: 200,
    SupportedOidListLength: 208, AutoNegotiationFlags: 212, PowerManagementCapabilitiesEx: 216,
});

/// `Header.Size` of revision 1, in bytes: through `AutoNegotiationFlags`.
pub const NDIS_SIZEOF_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES_REVISION_1: u16 = 216;
/// `Header.Size` of revision 2, in bytes: through `PowerManagementCapabilitiesEx`.
pub const NDIS_SIZEOF_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES_REVISION_2: u16 = 224;

/// Ethernet.
pub const NdisMedium802_3: u32 = 0;
/// No particular physical medium.
pub const NdisPhysicalMediumUnspecified: u32 = 0;
/// IANA type of Ethernet-like interfaces.
pub const IF_TYPE_ETHERNET_CSMACD: u16 = 6;
/// No link.
pub const MediaConnectStateDisconnected: u32 = 2;
/// Link is up.
pub const MediaConnectStateConnected: u32 = 1;
/// Duplex state not known (no link).
pub const MediaDuplexStateUnknown: u32 = 0;
/// Full duplex.
pub const MediaDuplexStateFull: u32 = 2;
/// Broadcast medium (`NET_IF_ACCESS_BROADCAST`).
pub const NET_IF_ACCESS_BROADCAST: u32 = 2;
/// Sends and receives (`NET_IF_DIRECTION_SENDRECEIVE`).
pub const NET_IF_DIRECTION_SENDRECEIVE: u32 = 0;
/// A connection that is always there (`NET_IF_CONNECTION_DEDICATED`).
pub const NET_IF_CONNECTION_DEDICATED: u32 = 1;
/// Frames to the adapter's own address.
pub const NDIS_PACKET_TYPE_DIRECTED: u32 = 0x0000_0001;
/// Frames to addresses of the multicast list.
pub const NDIS_PACKET_TYPE_MULTICAST: u32 = 0x0000_0002;
/// Frames to everybody.
pub const NDIS_PACKET_TYPE_BROADCAST: u32 = 0x0000_0008;
/// Look-ahead data can be copied with any instruction.
pub const NDIS_MAC_OPTION_COPY_LOOKAHEAD_DATA: u32 = 0x0000_0001;
/// Transfers complete at once.
pub const NDIS_MAC_OPTION_TRANSFERS_NOT_PEND: u32 = 0x0000_0004;
/// The adapter does not loop frames back.
pub const NDIS_MAC_OPTION_NO_LOOPBACK: u32 = 0x0000_0008;
