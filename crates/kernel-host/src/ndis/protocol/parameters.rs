//! What `ProtocolBindAdapterEx` is told of an adapter.

use std::sync::Arc;

use ndis::raw::{
    NDIS_BIND_PARAMETERS, NDIS_OBJECT_HEADER, NDIS_OBJECT_TYPE_BIND_PARAMETERS, NDIS_SIZEOF_BIND_PARAMETERS_REVISION_1,
    NDIS_SIZEOF_BIND_PARAMETERS_REVISION_2, NDIS_SIZEOF_BIND_PARAMETERS_REVISION_3,
    NDIS_SIZEOF_BIND_PARAMETERS_REVISION_4,
};

use super::Protocol;
use crate::machine::Inner;
use crate::ndis::port::Port;
use crate::ndis::scratch::{Scratch, Text};

/// The structure and the strings that it points at.
#[derive(Debug)]
pub(super) struct Parameters {
    pub(super) structure: Scratch,
    _strings: [Text; 2],
}

/// The revision of the structure for an NDIS 6 minor version, and its size.
fn revision(minor: u8) -> (u8, u16) {
    match minor {
        0 => (1, NDIS_SIZEOF_BIND_PARAMETERS_REVISION_1),
        1 => (2, NDIS_SIZEOF_BIND_PARAMETERS_REVISION_2),
        2..30 => (3, NDIS_SIZEOF_BIND_PARAMETERS_REVISION_3),
        _ => (4, NDIS_SIZEOF_BIND_PARAMETERS_REVISION_4),
    }
}

impl Parameters {
    /// What `protocol` is told of `port`; `None` when memory is short.
    pub(super) fn new(machine: &Arc<Inner>, protocol: &Protocol, port: &Port) -> Option<Self> {
        let general = port.attributes().general?;
        let (revision, size) = revision(protocol.callbacks.0.MinorNdisVersion);
        let short = port.device_name.rsplit('\\').next().unwrap_or_default();
        let section = Text::new(machine, &format!(r"{}\Parameters\Adapters\{short}", protocol.name))?;
        let name = Text::new(machine, &port.device_name)?;
        // All revisions begin alike; the header says how far this one goes.
        let structure = Scratch::new(machine, size_of::<NDIS_BIND_PARAMETERS>())?;
        let mut address = [0; 32];
        for (to, from) in address.iter_mut().zip(&general.mac_address) {
            *to = *from;
        }
        let none = std::ptr::null_mut();
        let full = NDIS_BIND_PARAMETERS {
            Header: NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_BIND_PARAMETERS, revision, size),
            ProtocolSection: section.string(),
            AdapterName: name.string(),
            PhysicalDeviceObject: none,
            MediaType: general.media,
            MtuSize: general.mtu,
            MaxXmitLinkSpeed: general.max_xmit_speed,
            XmitLinkSpeed: general.xmit_speed,
            MaxRcvLinkSpeed: general.max_rcv_speed,
            RcvLinkSpeed: general.rcv_speed,
            MediaConnectState: general.connect_state,
            MediaDuplexState: general.duplex_state,
            LookaheadSize: general.lookahead,
            PowerManagementCapabilities: none,
            SupportedPacketFilters: general.packet_filters,
            MaxMulticastListSize: general.multicast_addresses,
            MacAddressLength: general.mac_address.len() as u16,
            CurrentMacAddress: address,
            PhysicalMediumType: general.physical_medium,
            RcvScaleCapabilities: none,
            BoundIfNetluid: port.luid(),
            BoundIfIndex: port.index,
            LowestIfNetluid: port.luid(),
            LowestIfIndex: port.index,
            AccessType: general.access,
            DirectionType: general.direction,
            ConnectionType: general.connection,
            IfType: general.if_type,
            IfConnectorPresent: general.has_connector,
            ActivePorts: none,
            DataBackFillSize: general.data_back_fill,
            ContextBackFillSize: general.context_back_fill,
            MacOptions: general.mac_options,
            // NET_IF_COMPARTMENT_ID_PRIMARY.
            CompartmentId: 1,
            DefaultOffloadConfiguration: none,
            TcpConnectionOffloadCapabilities: none,
            BoundAdapterName: name.string(),
            HDSplitCurrentConfig: none,
            ReceiveFilterCapabilities: none,
            PowerManagementCapabilitiesEx: none,
            NicSwitchCapabilities: none,
            NDKEnabled: 0,
            NDKCapabilities: none,
            SriovCapabilities: none,
            NicSwitchArray: none,
        };
        structure.raw().write(full);
        Some(Self { structure, _strings: [section, name] })
    }
}
