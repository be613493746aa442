//! What NDIS answers itself, and what it keeps of each binding.
//!
//! An NDIS 6 miniport says most of what protocols ask for once, in its general attributes; the pages of these OIDs say that the
//! miniport is not asked. The packet filter belongs to each binding: the miniport gets what all bindings together want.

use std::sync::Arc;

use ndis::NdisStatus;
use ndis::raw::{NDIS_OID_REQUEST, NdisRequestSetInformation, OID_GEN_CURRENT_PACKET_FILTER};

use super::program::Memory;
use super::transfer::Done;
use super::{Request, Transfer};
use crate::ndis::VERSION;
use crate::ndis::attributes::General;
use crate::ndis::port::Port;
use crate::ndis::protocol::Binding;
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

/// OIDs that never reach an NDIS 6 miniport as queries, by their own pages.
mod oid {
    pub(super) const GEN_SUPPORTED_LIST: u32 = 0x0001_0101;
    pub(super) const GEN_MEDIA_SUPPORTED: u32 = 0x0001_0103;
    pub(super) const GEN_MEDIA_IN_USE: u32 = 0x0001_0104;
    pub(super) const GEN_MAXIMUM_LOOKAHEAD: u32 = 0x0001_0105;
    pub(super) const GEN_MAXIMUM_FRAME_SIZE: u32 = 0x0001_0106;
    pub(super) const GEN_LINK_SPEED: u32 = 0x0001_0107;
    pub(super) const GEN_CURRENT_LOOKAHEAD: u32 = 0x0001_010F;
    pub(super) const GEN_DRIVER_VERSION: u32 = 0x0001_0110;
    pub(super) const GEN_MAC_OPTIONS: u32 = 0x0001_0113;
    pub(super) const GEN_MEDIA_CONNECT_STATUS: u32 = 0x0001_0114;
    pub(super) const GEN_PHYSICAL_MEDIUM: u32 = 0x0001_0202;
    pub(super) const GEN_PHYSICAL_MEDIUM_EX: u32 = 0x0001_0213;
    pub(super) const ETHERNET_MULTICAST_LIST: u32 = 0x0101_0103;
}

/// The answer to a question that NDIS does not pass on, written into the requester's buffer; `None` when the miniport is to be asked.
pub(super) fn by_ndis(port: &Port, binding: Option<&Binding>, transfer: Transfer) -> Option<(NdisStatus, Done)> {
    if !transfer.is_query() {
        return None;
    }
    let attributes = port.attributes().general?;
    let minor = port.miniport.callbacks.0.MinorNdisVersion;
    let value = match transfer.oid {
        // A filter asks on behalf of whom it does not say: the miniport has what all want.
        OID_GEN_CURRENT_PACKET_FILTER => binding?.packet_filter().to_le_bytes().to_vec(),
        oid::ETHERNET_MULTICAST_LIST => binding?.multicast_list(),
        oid => of_attributes(oid, &attributes, minor)?,
    };
    let room = transfer.output as usize;
    let needed = value.len() as u32;
    if room < value.len() {
        return Some((NdisStatus::BUFFER_TOO_SHORT, Done { read: 0, written: 0, needed }));
    }
    Raw::<u8>::at(transfer.buffer).write_bytes(&value);
    Some((NdisStatus::SUCCESS, Done { read: 0, written: needed, needed: 0 }))
}

/// What the miniport said when it was initialised.
fn of_attributes(oid: u32, general: &General, minor: u8) -> Option<Vec<u8>> {
    let number = match oid {
        oid::GEN_SUPPORTED_LIST => return Some(general.oids.iter().flat_map(|oid| oid.to_le_bytes()).collect()),
        oid::GEN_MEDIA_SUPPORTED | oid::GEN_MEDIA_IN_USE => general.media,
        oid::GEN_MAXIMUM_LOOKAHEAD | oid::GEN_CURRENT_LOOKAHEAD => general.lookahead,
        oid::GEN_MAXIMUM_FRAME_SIZE => general.mtu,
        // In units of 100 bits per second.
        oid::GEN_LINK_SPEED => u32::try_from(general.xmit_speed / 100).unwrap_or(u32::MAX),
        oid::GEN_DRIVER_VERSION => return Some((u16::from(VERSION.0) << 8 | u16::from(minor)).to_le_bytes().to_vec()),
        oid::GEN_MAC_OPTIONS => general.mac_options,
        // NdisMediaStateConnected is 0, MediaConnectStateConnected is 1.
        oid::GEN_MEDIA_CONNECT_STATUS => u32::from(general.connect_state != 1),
        oid::GEN_PHYSICAL_MEDIUM | oid::GEN_PHYSICAL_MEDIUM_EX => general.physical_medium,
        _ => return None,
    };
    Some(number.to_le_bytes().to_vec())
}

/// Replaces a packet filter by what all bindings together want. False when memory is short.
pub(super) fn combine(thread: &Thread, request: &mut Request) -> bool {
    let Some(binding) = &request.binding else { return true };
    let transfer = request.transfer;
    if !transfer.is_set() || transfer.oid != OID_GEN_CURRENT_PACKET_FILTER || transfer.input < 4 {
        return true;
    }
    let own = Raw::<u32>::at(transfer.buffer).read();
    let others = binding.port.bindings(thread.machine());
    let others = others.iter().filter(|other| !Arc::ptr_eq(other, binding));
    let all = others.fold(own, |all, other| all | other.packet_filter());
    if all == own {
        return true;
    }
    let memory = Memory::transfer(thread, NdisRequestSetInformation, transfer.oid, &all.to_le_bytes());
    let Some(memory) = memory else { return false };
    field!(memory.raw(), NDIS_OID_REQUEST, RequestId).write(Raw::at(request.id).pointer());
    request.address = memory.request.address();
    request.copies = vec![memory.request, memory.buffer];
    true
}

/// Keeps what a successful set of a binding changed.
pub(super) fn learn(request: &Request) {
    let Some(binding) = &request.binding else { return };
    let transfer = request.transfer;
    if !transfer.is_set() {
        return;
    }
    match transfer.oid {
        OID_GEN_CURRENT_PACKET_FILTER if transfer.input >= 4 => {
            binding.set_packet_filter(Raw::<u32>::at(transfer.buffer).read());
        }
        oid::ETHERNET_MULTICAST_LIST => {
            binding.set_multicast_list(Raw::<u8>::at(transfer.buffer).read_bytes(transfer.input as usize));
        }
        _ => {}
    }
}
