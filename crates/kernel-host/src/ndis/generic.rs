//! Generic objects, which stand for an NDIS handle where a driver has none; what is logged for people.

use std::sync::Arc;

use ndis::NdisStatus;
use ndis::raw::{NDIS_GENERIC_OBJECT, NDIS_OBJECT_HEADER, NDIS_OBJECT_TYPE_GENERIC_OBJECT};
use nt_types::DRIVER_OBJECT;

use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::{Driver, Machine};
use crate::nt::pool::{PoolKind, Request};
use crate::nt::raw::Raw;

exports! { pub(super) EXPORTS in "ndis.sys":
    NdisAllocateGenericObject(max 2, fails NULL) = allocate;
    NdisFreeGenericObject(max 2) = free;
    NdisWriteEventLogEntry(max 2, fails NDIS_RESOURCES) = write_event;
}

/// Most bytes of strings and data in one entry of the event log: `MAX_EVENT_LOG_DATA_SIZE`.
const MOST_DATA: usize = 104;

extern "efiapi" fn allocate(driver_object: Raw<DRIVER_OBJECT>, tag: u32, size: u16) -> usize {
    let call = Call::enter();
    let length = size_of::<NDIS_GENERIC_OBJECT>() + usize::from(size);
    let request = Request { kind: PoolKind::NonPaged, length, tag, zeroed: true, cache_aligned: false };
    let address = call.machine().nt.pool().allocate(&call, request);
    if address != 0 {
        let size = size_of::<NDIS_GENERIC_OBJECT>() as u16;
        let site = Raw::at(call.site().return_address).pointer();
        Raw::at(address).write(NDIS_GENERIC_OBJECT {
            Header: NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_GENERIC_OBJECT, 1, size),
            Caller: site,
            CallersCaller: site,
            DriverObject: driver_object.pointer(),
        });
        call.machine().ndis.lock().generic.insert(address, Arc::clone(call.driver()));
    }
    address
}

extern "efiapi" fn free(object: usize) {
    let call = Call::enter();
    let owner: Option<Arc<Driver>> = call.machine().ndis.lock().generic.get(&object).cloned();
    if !owner.is_some_and(|owner| Arc::ptr_eq(&owner, call.driver())) {
        call.stop(Rule::BadPoolFree, format!("{object:#x} is no generic object of this driver, or one that is freed"));
    }
    if let Some((rule, left)) = call.machine().ndis.owned_by(object) {
        call.stop(rule, format!("the generic object is freed with {left} still there"));
    }
    call.machine().nt.pool().free(&call, object, 0);
    call.machine().ndis.lock().generic.remove(&object);
}

/// One entry that a driver wrote to the system's event log.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct EventLogEntry {
    /// Image name of the driver.
    pub driver: String,
    /// Status that describes the event.
    pub code: u32,
    /// Number of the occurrence, as the driver counts.
    pub unique: u32,
    /// Texts for the message.
    pub strings: Vec<String>,
    /// Data for the curious.
    pub data: Vec<u8>,
}

impl Machine {
    /// What drivers wrote with `NdisWriteEventLogEntry`, oldest first.
    #[must_use]
    pub fn ndis_event_log(&self) -> Vec<EventLogEntry> {
        self.inner().ndis.lock().event_log.clone()
    }
}

extern "efiapi" fn write_event(
    log: usize,
    code: u32,
    unique: u32,
    count: u16,
    strings: Raw<usize>,
    size: u32,
    data: Raw<u8>,
) -> NdisStatus {
    let call = Call::enter();
    if log == 0 || strings.is_null() && count != 0 || data.is_null() && size != 0 {
        call.stop(Rule::BadArgument, "LogHandle is the driver object; without strings or data their number is 0");
    }
    let texts: Vec<Vec<u16>> =
        strings.read_slice(usize::from(count)).into_iter().map(|text| terminated(Raw::at(text))).collect();
    let bytes: usize = texts.iter().map(|text| text.len() * 2 + 2).sum();
    if bytes + (size as usize).next_multiple_of(4) > MOST_DATA {
        return NdisStatus::BUFFER_TOO_SHORT;
    }
    call.detail(format_args!("{code:#010x}"));
    let entry = EventLogEntry {
        driver: call.driver().name.clone(),
        code,
        unique,
        strings: texts.iter().map(|text| String::from_utf16_lossy(text)).collect(),
        data: data.read_bytes(size as usize),
    };
    call.machine().ndis.lock().event_log.push(entry);
    NdisStatus::SUCCESS
}

/// A terminated string, as far as an entry can be long.
fn terminated(text: Raw<u16>) -> Vec<u16> {
    (0..=MOST_DATA / 2).map(|index| text.index(index).read()).take_while(|unit| *unit != 0).collect()
}
