//! `NdisMSetMiniportAttributes`.

use ndis::NdisStatus;
use ndis::raw::{
    NDIS_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES, NDIS_MINIPORT_ADAPTER_REGISTRATION_ATTRIBUTES,
    NDIS_MINIPORT_ADD_DEVICE_REGISTRATION_ATTRIBUTES, NDIS_OBJECT_HEADER,
    NDIS_OBJECT_TYPE_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES, NDIS_OBJECT_TYPE_MINIPORT_ADAPTER_REGISTRATION_ATTRIBUTES,
    NDIS_OBJECT_TYPE_MINIPORT_ADD_DEVICE_REGISTRATION_ATTRIBUTES,
    NDIS_SIZEOF_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES_REVISION_1,
    NDIS_SIZEOF_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES_REVISION_2,
    NDIS_SIZEOF_MINIPORT_ADAPTER_REGISTRATION_ATTRIBUTES_REVISION_1,
};

use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::raw::{Raw, field};

exports! { pub(super) EXPORTS in "ndis.sys":
    NdisMSetMiniportAttributes(max 0, fails RETURNS_NDIS_FAILURE) = set_attributes;
}

/// What a miniport said about its adapter.
#[derive(Clone, Debug, Default)]
pub(super) struct Attributes {
    /// `MiniportAdapterContext`, once the registration attributes are set.
    pub(super) context: Option<usize>,
    /// `CheckForHangTimeInSeconds` of these.
    pub(super) hang_seconds: u32,
    /// `MiniportAddDeviceContext`, where `MiniportAddDevice` has set one.
    pub(super) device_context: usize,
    /// The general attributes, once they are set.
    pub(super) general: Option<General>,
}

/// What is kept of the general attributes.
#[derive(Clone, Debug)]
pub(super) struct General {
    pub(super) mac_address: Vec<u8>,
    pub(super) oids: Vec<u32>,
    /// `NDIS_MEDIUM`.
    pub(super) media: u32,
    pub(super) physical_medium: u32,
    pub(super) mtu: u32,
    /// In bits per second, as the three others.
    pub(super) max_xmit_speed: u64,
    pub(super) xmit_speed: u64,
    pub(super) max_rcv_speed: u64,
    pub(super) rcv_speed: u64,
    pub(super) connect_state: u32,
    pub(super) duplex_state: u32,
    pub(super) lookahead: u32,
    pub(super) mac_options: u32,
    pub(super) packet_filters: u32,
    pub(super) multicast_addresses: u32,
    pub(super) access: u32,
    pub(super) direction: u32,
    pub(super) connection: u32,
    pub(super) if_type: u16,
    pub(super) has_connector: u8,
    pub(super) data_back_fill: u32,
    pub(super) context_back_fill: u32,
}

extern "efiapi" fn set_attributes(handle: usize, attributes: Raw<NDIS_OBJECT_HEADER>) -> NdisStatus {
    let call = Call::enter();
    let port = call.machine().ndis.port(&call, handle);
    let header = attributes.read();
    let so_far = port.attributes();
    if header.Type == NDIS_OBJECT_TYPE_MINIPORT_ADD_DEVICE_REGISTRATION_ATTRIBUTES {
        if port.lock().adder != Some(call.thread().id()) {
            call.stop(Rule::BadState, "the context of an added device is set during MiniportAddDevice");
        }
        let raw = attributes.cast::<NDIS_MINIPORT_ADD_DEVICE_REGISTRATION_ATTRIBUTES>();
        let context = field!(raw, NDIS_MINIPORT_ADD_DEVICE_REGISTRATION_ATTRIBUTES, MiniportAddDeviceContext).read();
        port.set_attributes(Attributes { device_context: context.addr(), ..so_far });
        return NdisStatus::SUCCESS;
    }
    if !port.is_initialized_by(call.thread()) {
        call.stop(Rule::BadState, "legal only during MiniportInitializeEx of this adapter");
    }
    match header.Type {
        NDIS_OBJECT_TYPE_MINIPORT_ADAPTER_REGISTRATION_ATTRIBUTES => {
            call.detail("registration attributes");
            let minimum = NDIS_SIZEOF_MINIPORT_ADAPTER_REGISTRATION_ATTRIBUTES_REVISION_1;
            if let Some(refused) = check(&call, header, &[minimum, minimum]) {
                return refused;
            }
            let raw = attributes.cast::<NDIS_MINIPORT_ADAPTER_REGISTRATION_ATTRIBUTES>();
            let context = field!(raw, NDIS_MINIPORT_ADAPTER_REGISTRATION_ATTRIBUTES, MiniportAdapterContext)
                .cast::<usize>()
                .read();
            let hang_seconds =
                field!(raw, NDIS_MINIPORT_ADAPTER_REGISTRATION_ATTRIBUTES, CheckForHangTimeInSeconds).read();
            port.set_attributes(Attributes { context: Some(context), hang_seconds, ..so_far });
            NdisStatus::SUCCESS
        }
        _ if so_far.context.is_none() => {
            call.stop(Rule::BadState, format!("attributes {:#x} before the registration attributes", header.Type))
        }
        NDIS_OBJECT_TYPE_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES => {
            call.detail("general attributes");
            let sizes = [
                NDIS_SIZEOF_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES_REVISION_1,
                NDIS_SIZEOF_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES_REVISION_2,
            ];
            if let Some(refused) = check(&call, header, &sizes) {
                return refused;
            }
            let general = general(&call, attributes.cast());
            port.set_attributes(Attributes { general: Some(general), ..so_far });
            NdisStatus::SUCCESS
        }
        _ if so_far.general.is_none() => {
            call.stop(Rule::BadState, format!("attributes {:#x} before the general attributes", header.Type))
        }
        // Offloads, native 802.11, hardware assists: taken note of by nobody here, and none of our business to refuse.
        0xA0 | 0xA1 | 0xAF => NdisStatus::SUCCESS,
        _ => NdisStatus::BAD_VERSION,
    }
}

/// `sizes[n]` is the size of revision n + 1.
fn check(call: &Call, header: NDIS_OBJECT_HEADER, sizes: &[u16]) -> Option<NdisStatus> {
    let Some(size) = usize::from(header.Revision).checked_sub(1).and_then(|index| sizes.get(index)) else {
        return Some(NdisStatus::BAD_VERSION);
    };
    if header.Size < *size {
        call.stop(
            Rule::BadArgument,
            format!("Header.Size is {}, revision {} has {size} bytes", header.Size, header.Revision),
        );
    }
    None
}

fn general(call: &Call, raw: Raw<NDIS_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES>) -> General {
    type Attributes = NDIS_MINIPORT_ADAPTER_GENERAL_ATTRIBUTES;
    let address_length = usize::from(field!(raw, Attributes, MacAddressLength).read());
    let list = field!(raw, Attributes, SupportedOidList).cast::<usize>().read();
    let list_bytes = field!(raw, Attributes, SupportedOidListLength).read() as usize;
    if address_length > 32 {
        call.stop(Rule::BadArgument, format!("MacAddressLength is {address_length}, the highest is 32"));
    }
    if !list_bytes.is_multiple_of(4) || list == 0 && list_bytes != 0 {
        call.stop(Rule::BadArgument, format!("SupportedOidList {list:#x} of {list_bytes} bytes is no list of OIDs"));
    }
    General {
        mac_address: field!(raw, Attributes, CurrentMacAddress).cast::<u8>().read_bytes(address_length),
        oids: Raw::<u32>::at(list).read_slice(list_bytes / 4),
        media: field!(raw, Attributes, MediaType).read(),
        physical_medium: field!(raw, Attributes, PhysicalMediumType).read(),
        mtu: field!(raw, Attributes, MtuSize).read(),
        max_xmit_speed: field!(raw, Attributes, MaxXmitLinkSpeed).read(),
        xmit_speed: field!(raw, Attributes, XmitLinkSpeed).read(),
        max_rcv_speed: field!(raw, Attributes, MaxRcvLinkSpeed).read(),
        rcv_speed: field!(raw, Attributes, RcvLinkSpeed).read(),
        connect_state: field!(raw, Attributes, MediaConnectState).read(),
        duplex_state: field!(raw, Attributes, MediaDuplexState).read(),
        lookahead: field!(raw, Attributes, LookaheadSize).read(),
        mac_options: field!(raw, Attributes, MacOptions).read(),
        packet_filters: field!(raw, Attributes, SupportedPacketFilters).read(),
        multicast_addresses: field!(raw, Attributes, MaxMulticastListSize).read(),
        access: field!(raw, Attributes, AccessType).read(),
        direction: field!(raw, Attributes, DirectionType).read(),
        connection: field!(raw, Attributes, ConnectionType).read(),
        if_type: field!(raw, Attributes, IfType).read(),
        has_connector: field!(raw, Attributes, IfConnectorPresent).read(),
        data_back_fill: field!(raw, Attributes, DataBackFillSize).read(),
        context_back_fill: field!(raw, Attributes, ContextBackFillSize).read(),
    }
}
