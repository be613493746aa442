//! OID requests: what every Ethernet miniport has to answer, and what the device booted with.

use core::sync::atomic::Ordering;

use ndis::NdisStatus;
use ndis::oid::{OidKind, OidRequest};
use ndis::raw::{
    NDIS_OBJECT_HEADER, NDIS_OBJECT_TYPE_DEFAULT, NDIS_STATISTICS_FLAGS_VALID_ALL, NDIS_STATISTICS_INFO,
    OID_802_3_CURRENT_ADDRESS, OID_802_3_MAXIMUM_LIST_SIZE, OID_802_3_MULTICAST_LIST, OID_802_3_PERMANENT_ADDRESS,
    OID_GEN_CURRENT_LOOKAHEAD, OID_GEN_CURRENT_PACKET_FILTER, OID_GEN_MAXIMUM_TOTAL_SIZE, OID_GEN_RCV_OK,
    OID_GEN_RECEIVE_BLOCK_SIZE, OID_GEN_RECEIVE_BUFFER_SPACE, OID_GEN_STATISTICS, OID_GEN_TRANSMIT_BLOCK_SIZE,
    OID_GEN_TRANSMIT_BUFFER_SPACE, OID_GEN_VENDOR_DESCRIPTION, OID_GEN_VENDOR_DRIVER_VERSION, OID_GEN_VENDOR_ID,
    OID_GEN_XMIT_OK, OID_PNP_SET_POWER,
};

use crate::adapter::{MAC_ADDRESS, MTU, MULTICAST_LIST, Nic, PACKET_FILTERS};
use crate::firmware::BootReport;

/// Private OID, query only: what the device booted with. The answer is 56 bytes, little-endian:
///
/// | offset | type | meaning |
/// |---|---|---|
/// | 0 | u32 | length of the answer in bytes: 56 |
/// | 4 | u32 | source: 1 the broker, 2 `NdisOpenFile` |
/// | 8 | u64 | bytes that the device received |
/// | 16 | u32 | CRC-32 as the device computed it |
/// | 20 | u32 | 0 |
/// | 24 | 32 bytes | SHA-256 as the driver computed it over the mapped image |
pub(crate) const OID_SAMPLENIC_BOOT_REPORT: u32 = 0xFF46_5701;

/// Length of that answer in bytes.
const BOOT_REPORT_BYTES: u32 = 56;

/// A frame with its header, in bytes.
const FRAME: u32 = MTU + 14;

/// Length of an address, in bytes.
const ADDRESS: usize = 6;

/// Every OID that [`answer`] knows.
pub(crate) const SUPPORTED: &[u32] = &[
    OID_GEN_STATISTICS,
    OID_GEN_CURRENT_PACKET_FILTER,
    OID_GEN_CURRENT_LOOKAHEAD,
    OID_GEN_VENDOR_ID,
    OID_GEN_VENDOR_DESCRIPTION,
    OID_GEN_VENDOR_DRIVER_VERSION,
    OID_GEN_TRANSMIT_BUFFER_SPACE,
    OID_GEN_RECEIVE_BUFFER_SPACE,
    OID_GEN_TRANSMIT_BLOCK_SIZE,
    OID_GEN_RECEIVE_BLOCK_SIZE,
    OID_GEN_MAXIMUM_TOTAL_SIZE,
    OID_GEN_XMIT_OK,
    OID_GEN_RCV_OK,
    OID_802_3_PERMANENT_ADDRESS,
    OID_802_3_CURRENT_ADDRESS,
    OID_802_3_MULTICAST_LIST,
    OID_802_3_MAXIMUM_LIST_SIZE,
    OID_PNP_SET_POWER,
    OID_SAMPLENIC_BOOT_REPORT,
];

/// Answers `request`.
pub(crate) fn answer(nic: &Nic, request: &mut OidRequest<'_>) -> NdisStatus {
    match request.kind() {
        OidKind::Query => query(nic, request),
        OidKind::Set => set(nic, request),
        OidKind::Other(_) => NdisStatus::NOT_SUPPORTED,
    }
}

fn query(nic: &Nic, request: &mut OidRequest<'_>) -> NdisStatus {
    match request.oid() {
        OID_GEN_STATISTICS => request.answer(&statistics()),
        OID_GEN_CURRENT_PACKET_FILTER => request.answer_u32(nic.packet_filter.load(Ordering::Relaxed)),
        OID_GEN_CURRENT_LOOKAHEAD => request.answer_u32(nic.lookahead.load(Ordering::Relaxed)),
        // The first three bytes of the address; the fourth numbers the vendor's products.
        OID_GEN_VENDOR_ID => request.answer(&[MAC_ADDRESS[0], MAC_ADDRESS[1], MAC_ADDRESS[2], 1]),
        OID_GEN_VENDOR_DESCRIPTION => request.answer(b"fwbroker sample NIC\0"),
        OID_GEN_VENDOR_DRIVER_VERSION => request.answer_u32(0x0001_0000),
        OID_GEN_TRANSMIT_BUFFER_SPACE
        | OID_GEN_RECEIVE_BUFFER_SPACE
        | OID_GEN_TRANSMIT_BLOCK_SIZE
        | OID_GEN_RECEIVE_BLOCK_SIZE
        | OID_GEN_MAXIMUM_TOTAL_SIZE => request.answer_u32(FRAME),
        // No frame ever passes.
        OID_GEN_XMIT_OK | OID_GEN_RCV_OK => request.answer_counter(0),
        OID_802_3_PERMANENT_ADDRESS | OID_802_3_CURRENT_ADDRESS => request.answer(&MAC_ADDRESS),
        OID_802_3_MAXIMUM_LIST_SIZE => request.answer_u32(MULTICAST_LIST),
        OID_SAMPLENIC_BOOT_REPORT => request.answer(&boot_report(&nic.boot)),
        _ => NdisStatus::NOT_SUPPORTED,
    }
}

fn set(nic: &Nic, request: &mut OidRequest<'_>) -> NdisStatus {
    match request.oid() {
        OID_GEN_CURRENT_PACKET_FILTER => match request.take_u32() {
            Ok(filter) if filter & !PACKET_FILTERS != 0 => NdisStatus::NOT_SUPPORTED,
            Ok(filter) => {
                nic.packet_filter.store(filter, Ordering::Relaxed);
                NdisStatus::SUCCESS
            }
            Err(status) => status,
        },
        OID_GEN_CURRENT_LOOKAHEAD => match request.take_u32() {
            Ok(bytes) if bytes > MTU => NdisStatus::INVALID_DATA,
            Ok(bytes) => {
                nic.lookahead.store(bytes, Ordering::Relaxed);
                NdisStatus::SUCCESS
            }
            Err(status) => status,
        },
        OID_802_3_MULTICAST_LIST => {
            let (addresses, rest) = request.input().as_chunks::<ADDRESS>();
            let (count, whole) = (addresses.len(), rest.is_empty());
            if !whole {
                NdisStatus::INVALID_LENGTH
            } else if count > MULTICAST_LIST as usize {
                NdisStatus::RESOURCES
            } else {
                request.take_all()
            }
        }
        // The device keeps its state in every power state: it is memory.
        OID_PNP_SET_POWER => match request.take_u32() {
            Ok(_) => NdisStatus::SUCCESS,
            Err(status) => status,
        },
        _ => NdisStatus::NOT_SUPPORTED,
    }
}

/// `NDIS_STATISTICS_INFO` of an adapter that never carried a frame, as bytes.
fn statistics() -> [u8; size_of::<NDIS_STATISTICS_INFO>()] {
    const SIZE: usize = size_of::<NDIS_STATISTICS_INFO>();
    let header = NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_DEFAULT, 1, SIZE as u16);
    let mut bytes = [0; SIZE];
    if let Some(start) = bytes.first_chunk_mut::<8>() {
        let [low, high] = header.Size.to_le_bytes();
        let [a, b, c, d] = NDIS_STATISTICS_FLAGS_VALID_ALL.to_le_bytes();
        *start = [header.Type, header.Revision, low, high, a, b, c, d];
    }
    bytes
}

/// The answer to [`OID_SAMPLENIC_BOOT_REPORT`].
fn boot_report(boot: &BootReport) -> [u8; BOOT_REPORT_BYTES as usize] {
    let mut bytes = [0; BOOT_REPORT_BYTES as usize];
    let fields: [&[u8]; 6] = [
        &BOOT_REPORT_BYTES.to_le_bytes(),
        &boot.source.to_le_bytes(),
        &boot.received.to_le_bytes(),
        &boot.checksum.to_le_bytes(),
        &[0; 4],
        &boot.sha256,
    ];
    for (to, from) in bytes.iter_mut().zip(fields.iter().copied().flatten()) {
        *to = *from;
    }
    bytes
}
