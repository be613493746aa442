//! Event Tracing for Windows: providers register, and what they write is decoded into the machine's log.
//!
//! Pages: `wdm/nf-wdm-etwregister`, `wdm/nf-wdm-etwwrite`, `wdm/nf-wdm-etwwritetransfer` and their neighbours. One session records
//! everything from the start: every provider is enabled, at every level, with every keyword.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nt_types::NtStatus;

use super::raw::Raw;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::leak::{Leak, LeakKind};
use crate::machine::{Driver, Machine};
use crate::origin::Origin;
use crate::process::HIGHEST_USER_ADDRESS;

pub(crate) mod activity;
mod metadata;
mod wpp;

pub use metadata::{EventField, EventValue};
pub(crate) use wpp::EXPORTS as WPP_EXPORTS;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    EtwRegister(max 0, fails RESOURCES) = etw_register;
    EtwUnregister(max 0) = etw_unregister;
    EtwWrite(max 31) = etw_write;
    EtwWriteEx(max 31) = etw_write_ex;
    EtwWriteTransfer(max 31) = etw_write_transfer;
    EtwWriteString(max 31) = etw_write_string;
    EtwEventEnabled(max 31) = etw_event_enabled;
    EtwProviderEnabled(max 31) = etw_provider_enabled;
    EtwSetInformation(max 0) = etw_set_information;
    EtwActivityIdControl(max 31) = etw_activity_id_control;
}

/// Most data descriptors of one event.
const MAX_DESCRIPTORS: u32 = 128;
/// Most characters of a string event: no session's buffer is larger.
const MAX_TEXT: usize = 32_768;
/// Events kept; older ones are dropped.
const CAPACITY: usize = 65_536;
/// `EVENT_CONTROL_CODE_ENABLE_PROVIDER`.
const ENABLE_PROVIDER: u32 = 1;

/// A GUID as it lies in memory.
type Guid = [u8; 16];

/// Providers and events of a machine.
#[derive(Debug, Default)]
pub(crate) struct Etw(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// By registration handle.
    providers: HashMap<u64, Provider>,
    events: std::collections::VecDeque<Event>,
}

#[derive(Clone, Debug)]
struct Provider {
    driver: Arc<Driver>,
    id: Guid,
    /// From its traits, once an event or `EtwSetInformation` told.
    name: Option<String>,
    site: Origin,
}

/// One event that a driver wrote.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// Image name of the driver.
    pub driver: String,
    /// The provider's name where it told one, else its GUID.
    pub provider: String,
    /// The event's name; `event N` for one that a manifest describes.
    pub name: String,
    /// Level: 1 critical, 2 error, 3 warning, 4 information, 5 verbose.
    pub level: u8,
    /// Keyword bits.
    pub keyword: u64,
    /// Fields of a self-describing event, decoded.
    pub fields: Vec<EventField>,
    /// The payload's bytes.
    pub payload: Vec<u8>,
}

impl Event {
    /// The value of a field by its name.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<&EventValue> {
        self.fields.iter().find(|field| field.name == name).map(|field| &field.value)
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} {} (level {})", self.driver, self.provider, self.name, self.level)?;
        self.fields.iter().try_for_each(|field| write!(f, " {}={}", field.name, field.value))
    }
}

/// `EVENT_DESCRIPTOR`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Descriptor {
    id: u16,
    version: u8,
    channel: u8,
    level: u8,
    opcode: u8,
    task: u16,
    keyword: u64,
}

/// `EVENT_DATA_DESCRIPTOR`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct DataDescriptor {
    address: u64,
    size: u32,
    /// 0 payload, 1 the event's metadata, 2 the provider's.
    kind: u8,
    reserved: [u8; 3],
}

const _: () = assert!(size_of::<DataDescriptor>() == 16 && size_of::<Descriptor>() == 16);

impl Etw {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Providers of `driver` that are still registered.
    pub(crate) fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let state = self.lock();
        let mine = state.providers.values().filter(|provider| std::ptr::eq(Arc::as_ptr(&provider.driver), driver));
        let leak = |provider: &Provider| Leak {
            kind: LeakKind::Registration,
            count: 1,
            bytes: 0,
            detail: format!(
                "the ETW provider {} (without EtwUnregister), registered from {}",
                provider.shown(),
                provider.site
            ),
        };
        mine.map(leak).collect()
    }

    fn record(&self, event: Event) {
        let mut state = self.lock();
        if state.events.len() == CAPACITY {
            state.events.pop_front();
        }
        state.events.push_back(event);
    }
}

impl Provider {
    fn shown(&self) -> String {
        self.name.clone().unwrap_or_else(|| metadata::guid_text(&self.id))
    }
}

impl Machine {
    /// Events that drivers wrote, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.inner().nt.etw().lock().events.iter().cloned().collect()
    }
}

/// Handles are like the kernel's: addresses, never used twice.
static NEXT_HANDLE: AtomicU64 = AtomicU64::new(0xFFFF_8A00_0000_1000);

extern "efiapi" fn etw_register(id: Raw<Guid>, callback: usize, context: usize, handle: Raw<u64>) -> NtStatus {
    type Enable = unsafe extern "efiapi" fn(*const Guid, u32, u8, u64, u64, usize, usize);
    let call = Call::enter();
    if id.is_null() || handle.is_null() {
        return NtStatus::INVALID_PARAMETER;
    }
    let guid = id.read();
    let number = NEXT_HANDLE.fetch_add(0x40, Ordering::Relaxed);
    let site = Origin::of(call.site());
    let provider = Provider { driver: Arc::clone(call.driver()), id: guid, name: None, site };
    call.machine().nt.etw().lock().providers.insert(number, provider);
    handle.write(number);
    if callback != 0 {
        // SAFETY: the address of the driver's ETWENABLECALLBACK.
        let enable = unsafe { std::mem::transmute::<usize, Enable>(callback) };
        let session: Guid = [0; 16];
        // SAFETY: the session's identifier lives during the call; the context is the driver's.
        let body = || unsafe { enable(&raw const session, ENABLE_PROVIDER, u8::MAX, u64::MAX, 0, 0, context) };
        let driver = Arc::clone(call.driver());
        if call.thread().call_driver(&driver, "ETWENABLECALLBACK", 0, body).is_err() {
            call.thread().leave_if_stopped();
        }
    }
    NtStatus::SUCCESS
}

extern "efiapi" fn etw_unregister(handle: u64) -> NtStatus {
    let call = Call::enter();
    if call.machine().nt.etw().lock().providers.remove(&handle).is_none() {
        call.stop(Rule::BadState, format!("{handle:#x} is no provider: unregistered already, or never registered"));
    }
    NtStatus::SUCCESS
}

extern "efiapi" fn etw_write(
    handle: u64,
    descriptor: Raw<Descriptor>,
    _activity: usize,
    count: u32,
    data: Raw<DataDescriptor>,
) -> NtStatus {
    write(&Call::enter(), handle, descriptor, count, data)
}

extern "efiapi" fn etw_write_transfer(
    handle: u64,
    descriptor: Raw<Descriptor>,
    _activity: usize,
    _related: usize,
    count: u32,
    data: Raw<DataDescriptor>,
) -> NtStatus {
    write(&Call::enter(), handle, descriptor, count, data)
}

extern "efiapi" fn etw_write_ex(
    handle: u64,
    descriptor: Raw<Descriptor>,
    _filter: u64,
    _flags: u32,
    _activity: usize,
    _related: usize,
    count: u32,
    data: Raw<DataDescriptor>,
) -> NtStatus {
    write(&Call::enter(), handle, descriptor, count, data)
}

fn write(call: &Call, handle: u64, descriptor: Raw<Descriptor>, count: u32, data: Raw<DataDescriptor>) -> NtStatus {
    let provider = call.machine().nt.etw().lock().providers.get(&handle).cloned();
    let Some(mut provider) = provider else { return NtStatus::INVALID_HANDLE };
    if count > MAX_DESCRIPTORS {
        return NtStatus::INVALID_PARAMETER;
    }
    let descriptor = descriptor.read();
    let (mut payload, mut described) = (Vec::new(), None);
    for part in data.read_slice(count as usize) {
        let address = part.address as usize;
        if part.size > 0 && address <= HIGHEST_USER_ADDRESS {
            call.stop(Rule::BadArgument, format!("event data at {address:#x}: they have to be in system space"));
        }
        let bytes = Raw::<u8>::at(address).read_bytes(part.size as usize);
        match part.kind {
            1 => described = Some(bytes),
            2 => provider.name = metadata::provider_name(&bytes).or(provider.name),
            _ => payload.extend(bytes),
        }
    }
    let decoded = described.and_then(|description| metadata::decode(&description, &payload));
    let (name, fields) = decoded.unwrap_or_else(|| (format!("event {}", descriptor.id), Vec::new()));
    call.detail(name.as_str());
    call.machine().nt.etw().record(Event {
        driver: call.driver().name.clone(),
        provider: provider.shown(),
        name,
        level: descriptor.level,
        keyword: descriptor.keyword,
        fields,
        payload,
    });
    NtStatus::SUCCESS
}

extern "efiapi" fn etw_write_string(
    handle: u64,
    level: u8,
    keyword: u64,
    _activity: usize,
    text: Raw<u16>,
) -> NtStatus {
    let call = Call::enter();
    let provider = call.machine().nt.etw().lock().providers.get(&handle).cloned();
    let Some(provider) = provider else { return NtStatus::INVALID_HANDLE };
    let units: Vec<u16> = (0..MAX_TEXT).map(|index| text.index(index).read()).take_while(|unit| *unit != 0).collect();
    call.machine().nt.etw().record(Event {
        driver: call.driver().name.clone(),
        provider: provider.shown(),
        name: String::from_utf16_lossy(&units),
        level,
        keyword,
        fields: Vec::new(),
        payload: units.iter().flat_map(|unit| unit.to_le_bytes()).collect(),
    });
    NtStatus::SUCCESS
}

fn is_registered(handle: u64) -> u8 {
    let call = Call::enter();
    u8::from(call.machine().nt.etw().lock().providers.contains_key(&handle))
}

extern "efiapi" fn etw_event_enabled(handle: u64, _descriptor: usize) -> u8 {
    is_registered(handle)
}

extern "efiapi" fn etw_provider_enabled(handle: u64, _level: u8, _keyword: u64) -> u8 {
    is_registered(handle)
}

/// `EventProviderSetTraits` tells the provider's name; `EventProviderUseDescriptorType` makes `DataDescriptor::kind` count,
/// which here it always does.
extern "efiapi" fn etw_set_information(handle: u64, class: u32, information: Raw<u8>, length: u32) -> NtStatus {
    const SET_TRAITS: u32 = 2;
    const USE_DESCRIPTOR_TYPE: u32 = 3;
    let call = Call::enter();
    let traits = (class == SET_TRAITS).then(|| information.read_bytes(length as usize));
    let mut state = call.machine().nt.etw().lock();
    let Some(provider) = state.providers.get_mut(&handle) else { return NtStatus::INVALID_HANDLE };
    match (class, traits) {
        (SET_TRAITS, Some(traits)) => match metadata::provider_name(&traits) {
            Some(name) => provider.name = Some(name),
            None => return NtStatus::INVALID_PARAMETER,
        },
        (USE_DESCRIPTOR_TYPE, _) => {}
        _ => return NtStatus::INVALID_DEVICE_REQUEST,
    }
    NtStatus::SUCCESS
}

thread_local! {
    /// The thread's activity.
    static ACTIVITY: std::cell::Cell<Guid> = const { std::cell::Cell::new([0; 16]) };
}

extern "efiapi" fn etw_activity_id_control(code: u32, id: Raw<Guid>) -> NtStatus {
    const CREATE_ID: u32 = 3;
    let call = Call::enter();
    if code != CREATE_ID && call.thread().irql() >= nt_types::DISPATCH_LEVEL {
        call.stop(Rule::IrqlTooHigh, "EtwActivityIdControl at DISPATCH_LEVEL only creates identifiers");
    }
    let fresh = || {
        let number = NEXT_HANDLE.fetch_add(1, Ordering::Relaxed);
        let mut guid = [0; 16];
        guid[..8].copy_from_slice(&number.to_le_bytes());
        guid
    };
    match code {
        1 => id.write(ACTIVITY.get()),
        2 => ACTIVITY.set(id.read()),
        CREATE_ID => id.write(fresh()),
        4 => id.write(ACTIVITY.replace(id.read())),
        5 => id.write(ACTIVITY.replace(fresh())),
        _ => return NtStatus::INVALID_PARAMETER,
    }
    NtStatus::SUCCESS
}

#[cfg(test)]
mod tests;
