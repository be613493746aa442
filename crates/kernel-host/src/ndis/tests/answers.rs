//! What NDIS answers itself, and packet filters.

use super::protocol::{Talk, register_protocol};
use super::protocol_oid::{Ask, send, shared, transfer};
use super::*;
use crate::nt::raw::field;

/// What a protocol hears that asks for `oid`, from a miniport that must not be asked.
fn answered_by_ndis(oid: u32) -> Vec<u8> {
    let (nic, _adapter, _talk) = Nic::bound();
    nic.on_oid(|_| panic!("the miniport is asked"));
    let ask = Ask::query(oid, 64);
    assert_eq!(nic.bench.run(|| ask.send()).unwrap(), NdisStatus::SUCCESS);
    ask.bytes()
}

#[test]
fn what_the_miniport_said_at_its_start_it_is_not_asked_again() {
    conforms!("docs:network/oid-gen-supported-list.md", "Miniports are not asked for OID_GEN_SUPPORTED_LIST.");
    assert_eq!(answered_by_ndis(0x0001_0101), OID_GEN_STATISTICS.to_le_bytes());
}

#[test]
fn ndis_answers_the_largest_frame_from_the_attributes() {
    conforms!("docs:network/oid-gen-maximum-frame-size.md", "NDIS handles the query for miniports.");
    assert_eq!(answered_by_ndis(0x0001_0106), 1500_u32.to_le_bytes());
}

#[test]
fn ndis_answers_the_physical_medium_from_the_attributes() {
    conforms!("docs:network/oid-gen-physical-medium.md", "NDIS handles this OID for miniports.");
    assert_eq!(answered_by_ndis(0x0001_0202), 14_u32.to_le_bytes());
}

#[test]
fn ndis_answers_mac_options_from_the_attributes() {
    conforms!("docs:network/oid-gen-mac-options.md", "Miniports do not get the query of OID_GEN_MAC_OPTIONS.");
    assert_eq!(answered_by_ndis(0x0001_0113), 9_u32.to_le_bytes());
}

#[test]
fn ndis_answers_the_largest_lookahead_from_the_attributes() {
    conforms!("docs:network/oid-gen-maximum-lookahead.md", "NDIS handles the query of the largest look-ahead.");
    assert_eq!(answered_by_ndis(0x0001_0105), 128_u32.to_le_bytes());
}

#[test]
fn ndis_answers_its_version_for_the_miniport() {
    conforms!("docs:network/oid-gen-driver-version.md", "NDIS handles the query of the NDIS version of the miniport.");
    assert_eq!(answered_by_ndis(0x0001_0110), [30, 6]);
}

#[test]
fn ndis_answers_whether_the_medium_is_connected() {
    conforms!("docs:network/oid-gen-media-connect-status.md", "NDIS handles the query of the connection status.");
    assert_eq!(answered_by_ndis(0x0001_0114), 0_u32.to_le_bytes(), "NdisMediaStateConnected");
}

fn set_filter(talk: &Talk, filter: u32) -> NdisStatus {
    let ask = Ask::new(NdisRequestSetInformation, OID_GEN_CURRENT_PACKET_FILTER, &filter.to_le_bytes());
    send(talk.binding(), ask.request)
}

#[test]
fn each_binding_has_a_packet_filter_and_the_miniport_gets_all_of_them() {
    conforms!(
        "docs:network/oid-gen-current-packet-filter.md",
        "NDIS answers the query of the filter; the miniport gets sets."
    );
    let (nic, adapter, one) = Nic::bound();
    let two = nic.talk();
    nic.bench.run(|| register_protocol("second", |_| {})).unwrap().ok().unwrap();
    let (last, keep) = shared();
    nic.on_oid(move |request| {
        let data = transfer(request);
        *keep.lock().unwrap() = Raw::<u32>::of(data.read().InformationBuffer.cast()).read() as usize;
        data.write(NDIS_OID_TRANSFER { BytesDone: 4, ..data.read() });
        NdisStatus::SUCCESS
    });
    nic.bench.run(|| set_filter(one, 1)).unwrap().ok().unwrap();
    nic.bench.run(|| set_filter(two, 8)).unwrap().ok().unwrap();
    assert_eq!(*last.lock().unwrap(), 9);
    let filters: Vec<u32> = adapter.bindings().iter().map(|binding| binding.packet_filter).collect();
    assert_eq!(filters, [1, 8]);
    let ask = Ask::query(OID_GEN_CURRENT_PACKET_FILTER, 4);
    assert_eq!(nic.bench.run(|| send(one.binding(), ask.request)).unwrap(), NdisStatus::SUCCESS);
    assert_eq!(ask.bytes(), 1_u32.to_le_bytes());
    nic.bench.machine().unbind("second", "Ethernet").unwrap();
    assert_eq!(*last.lock().unwrap(), 1, "what the closed binding wanted is wanted no more");
}

#[test]
fn the_multicast_list_is_answered_by_ndis() {
    conforms!(
        "docs:network/oid-802-3-multicast-list.md",
        "NDIS handles queries of the multicast list; miniports never get them."
    );
    let (nic, _adapter, _talk) = Nic::bound();
    nic.on_oid(|request| {
        let kind = field!(Raw::<NDIS_OID_REQUEST>::at(request), NDIS_OID_REQUEST, RequestType).read();
        assert_eq!(kind, NdisRequestSetInformation);
        NdisStatus::SUCCESS
    });
    let list = [1, 0, 0x5E, 0, 0, 1];
    let set = Ask::new(NdisRequestSetInformation, OID_802_3_MULTICAST_LIST, &list);
    let query = Ask::query(OID_802_3_MULTICAST_LIST, 64);
    nic.bench.run(|| set.send()).unwrap().ok().unwrap();
    nic.bench.run(|| query.send()).unwrap().ok().unwrap();
    assert_eq!(query.bytes(), list);
}
