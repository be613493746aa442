//! An adapter while it is being initialised, and what is said about it.

use core::marker::PhantomData;
use core::ptr;

use crate::NdisStatus;
use crate::raw::{
    IF_TYPE_ETHERNET_CSMACD, MediaConnectStateConnected, MediaDuplexStateFull, NDIS_HANDLE,
    NDIS_MAC_OPTION_COPY_LOOKAHEAD_DATA, NDIS_MAC_OPTION_NO_LOOPBACK, NDIS_MAC_OPTION_TRANSFERS_NOT_PEND,
    NDIS_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES, NDIS_MINIPORT_ADAPTER_REGISTRATION_ATTRIBUTES, NDIS_OBJECT_HEADER,
    NDIS_OBJECT_TYPE_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES, NDIS_OBJECT_TYPE_MINIPORT_ADAPTER_REGISTRATION_ATTRIBUTES,
    NDIS_SIZEOF_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES_REVISION_2,
    NDIS_SIZEOF_MINIPORT_ADAPTER_REGISTRATION_ATTRIBUTES_REVISION_1, NET_IF_ACCESS_BROADCAST,
    NET_IF_CONNECTION_DEDICATED, NET_IF_DIRECTION_SENDRECEIVE, NdisMSetMiniportAttributes, NdisMedium802_3,
    NdisPhysicalMediumUnspecified,
};

/// NDIS's handle of an adapter (`NdisMiniportHandle`), valid until its halt.
#[derive(Clone, Copy)]
pub struct AdapterHandle(NDIS_HANDLE);

// SAFETY: an opaque value that NDIS accepts on every thread.
unsafe impl Send for AdapterHandle {}
// SAFETY: as above; there is nothing behind it that we touch.
unsafe impl Sync for AdapterHandle {}

impl AdapterHandle {
    /// The raw value.
    #[must_use]
    pub const fn as_raw(self) -> NDIS_HANDLE {
        self.0
    }
}

/// Proof that `MiniportInitializeEx` runs, for calls that are legal nowhere else.
pub struct Initializing<'init> {
    handle: AdapterHandle,
    init: PhantomData<&'init mut ()>,
}

impl Initializing<'_> {
    /// Only `MiniportInitializeEx` may make one, and has to drop it before it returns.
    pub(super) const fn new(handle: NDIS_HANDLE) -> Self {
        Self { handle: AdapterHandle(handle), init: PhantomData }
    }

    /// NDIS's handle of the adapter.
    #[must_use]
    pub const fn handle(&self) -> AdapterHandle {
        self.handle
    }

    /// Sets the registration attributes; `context` is what the other callbacks get.
    pub(super) fn set_registration(
        &self,
        context: NDIS_HANDLE,
        attributes: &RegistrationAttributes,
    ) -> Result<(), NdisStatus> {
        let raw = NDIS_MINIPORT_ADAPTER_REGISTRATION_ATTRIBUTES {
            Header: NDIS_OBJECT_HEADER::new(
                NDIS_OBJECT_TYPE_MINIPORT_ADAPTER_REGISTRATION_ATTRIBUTES,
                1,
                NDIS_SIZEOF_MINIPORT_ADAPTER_REGISTRATION_ATTRIBUTES_REVISION_1,
            ),
            MiniportAdapterContext: context,
            AttributeFlags: attributes.flags,
            CheckForHangTimeInSeconds: 0,
            InterfaceType: attributes.interface_type,
        };
        // SAFETY: the structure outlives the call, and initialisation is under way.
        unsafe { NdisMSetMiniportAttributes(self.handle.0, (&raw const raw).cast()) }.ok()
    }

    /// Sets the general attributes.
    ///
    /// Not inlined, so that the 224 bytes of the structure are off the stack while the device is started.
    #[inline(never)]
    pub(super) fn set_general(&self, attributes: &GeneralAttributes) -> Result<(), NdisStatus> {
        let mut address = [0; 32];
        if let Some(start) = address.first_chunk_mut::<6>() {
            *start = attributes.mac_address;
        }
        let raw = NDIS_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES {
            Header: NDIS_OBJECT_HEADER::new(
                NDIS_OBJECT_TYPE_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES,
                2,
                NDIS_SIZEOF_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES_REVISION_2,
            ),
            Flags: 0,
            MediaType: NdisMedium802_3,
            PhysicalMediumType: NdisPhysicalMediumUnspecified,
            MtuSize: attributes.mtu,
            MaxXmitLinkSpeed: attributes.link_speed,
            XmitLinkSpeed: attributes.link_speed,
            MaxRcvLinkSpeed: attributes.link_speed,
            RcvLinkSpeed: attributes.link_speed,
            MediaConnectState: MediaConnectStateConnected,
            MediaDuplexState: MediaDuplexStateFull,
            LookaheadSize: attributes.mtu,
            PowerManagementCapabilities: ptr::null_mut(),
            MacOptions: NDIS_MAC_OPTION_COPY_LOOKAHEAD_DATA
                | NDIS_MAC_OPTION_TRANSFERS_NOT_PEND
                | NDIS_MAC_OPTION_NO_LOOPBACK,
            SupportedPacketFilters: attributes.packet_filters,
            MaxMulticastListSize: attributes.multicast_list,
            MacAddressLength: 6,
            PermanentMacAddress: address,
            CurrentMacAddress: address,
            RecvScaleCapabilities: ptr::null_mut(),
            AccessType: NET_IF_ACCESS_BROADCAST,
            DirectionType: NET_IF_DIRECTION_SENDRECEIVE,
            ConnectionType: NET_IF_CONNECTION_DEDICATED,
            IfType: IF_TYPE_ETHERNET_CSMACD,
            IfConnectorPresent: 1,
            SupportedStatistics: attributes.statistics,
            SupportedPauseFunctions: 0,
            DataBackFillSize: 0,
            ContextBackFillSize: 0,
            SupportedOidList: attributes.oids.as_ptr().cast_mut(),
            SupportedOidListLength: size_of_val(attributes.oids) as u32,
            AutoNegotiationFlags: 0,
            PowerManagementCapabilitiesEx: ptr::null_mut(),
        };
        // SAFETY: the structure and the static OID list outlive the call (NDIS copies both), and initialisation is under way.
        unsafe { NdisMSetMiniportAttributes(self.handle.0, (&raw const raw).cast()) }.ok()
    }
}

/// What NDIS has to know first about an adapter.
#[derive(Clone, Copy, Debug)]
pub struct RegistrationAttributes {
    /// `NDIS_MINIPORT_ATTRIBUTES_*`.
    pub flags: u32,
    /// Bus of the device: an `NdisInterface*` value.
    pub interface_type: u32,
}

/// What an Ethernet adapter can do.
#[derive(Clone, Copy, Debug)]
pub struct GeneralAttributes {
    /// Address of the adapter.
    pub mac_address: [u8; 6],
    /// Largest payload of a frame, in bytes.
    pub mtu: u32,
    /// Speed of the link in both directions, in bits per second.
    pub link_speed: u64,
    /// `NDIS_PACKET_TYPE_*`.
    pub packet_filters: u32,
    /// Longest multicast list, in addresses.
    pub multicast_list: u32,
    /// `NDIS_STATISTICS_*_SUPPORTED`.
    pub statistics: u32,
    /// Every OID that [`Miniport::oid_request`](super::Miniport::oid_request) handles, private ones included.
    pub oids: &'static [u32],
}
