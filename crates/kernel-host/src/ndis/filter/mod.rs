//! Lightweight filters: `NdisFRegisterFilterDriver` and what follows from it.
//!
//! A filter driver has a [`Module`] in each adapter's stack, between the miniport and the protocols, at the place that its INF
//! says ([`order`]). NDIS attaches modules to a paused stack ([`attach`]), pauses and restarts them with it ([`lifecycle`]),
//! and passes OID requests ([`oid`]), status indications and events ([`events`]) through them. A module without a handler for
//! something is passed by.

use std::sync::Arc;

use ndis::NdisStatus;
use ndis::raw::{
    NDIS_FILTER_DRIVER_CHARACTERISTICS, NDIS_OBJECT_HEADER, NDIS_OBJECT_TYPE_FILTER_DRIVER_CHARACTERISTICS,
    NDIS_SIZEOF_FILTER_DRIVER_CHARACTERISTICS_REVISION_1, NDIS_SIZEOF_FILTER_DRIVER_CHARACTERISTICS_REVISION_2,
    NDIS_SIZEOF_FILTER_DRIVER_CHARACTERISTICS_REVISION_3,
};
use nt_types::{DRIVER_OBJECT, UNICODE_STRING};

use super::port::Port;
use super::registration::{MINOR_VERSIONS, is_entry_point};
use super::{Ndis, VERSION, end_handle, new_handle};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::{Driver, Inner};
use crate::nt::raw::{Raw, field};
use crate::nt::unicode;
use crate::thread::Thread;

mod attach;
mod events;
mod lifecycle;
mod module;
mod oid;
mod order;
pub(crate) mod program;

pub(super) use attach::EXPORTS as ATTACH_EXPORTS;
pub(super) use events::EXPORTS as EVENT_EXPORTS;
pub(super) use lifecycle::{EXPORTS as LIFECYCLE_EXPORTS, set_data_handlers};
pub use module::FilterState;
pub(super) use module::Module;
pub(super) use oid::EXPORTS as OID_EXPORTS;
pub use order::FilterClass;
use order::Place;

exports! { pub(super) EXPORTS in "ndis.sys":
    NdisFRegisterFilterDriver(max 0, fails RETURNS_NDIS_FAILURE) = register;
    NdisFDeregisterFilterDriver(max 0) = deregister;
}

/// A registered filter driver.
#[derive(Debug)]
pub(super) struct Filter {
    pub(super) handle: usize,
    pub(super) driver: Arc<Driver>,
    /// Service name, as the characteristics say.
    pub(super) name: String,
    friendly_name: String,
    /// The GUID in braces.
    unique_name: String,
    context: usize,
    driver_object: usize,
    callbacks: Callbacks,
    place: Place,
}

impl Filter {
    /// The driver object that was registered.
    pub(super) fn driver_object(&self) -> Raw<DRIVER_OBJECT> {
        Raw::at(self.driver_object)
    }
}

/// The copy that NDIS makes of the characteristics.
#[derive(Clone, Copy)]
struct Callbacks(NDIS_FILTER_DRIVER_CHARACTERISTICS);

// SAFETY: the pointers in it, the buffers of the names, are never followed after the registration.
unsafe impl Send for Callbacks {}
// SAFETY: as above.
unsafe impl Sync for Callbacks {}

impl std::fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NDIS {}.{} filter", self.0.MajorNdisVersion, self.0.MinorNdisVersion)
    }
}

/// What is copied out of the characteristics: friendly, unique and service name, and the rest.
type Captured = ([String; 3], Callbacks);

extern "efiapi" fn register(
    driver_object: Raw<DRIVER_OBJECT>,
    context: usize,
    characteristics: Raw<NDIS_FILTER_DRIVER_CHARACTERISTICS>,
    handle_out: Raw<usize>,
) -> NdisStatus {
    let call = Call::enter();
    if driver_object.is_null() || characteristics.is_null() || handle_out.is_null() {
        return NdisStatus::INVALID_PARAMETER;
    }
    let ([friendly_name, unique_name, name], callbacks) = match capture(characteristics) {
        Ok(captured) => captured,
        Err(status) => return status,
    };
    call.detail(&*name);
    let ndis = &call.machine().ndis;
    // One service and one GUID, one filter: modules are kept in the registry by them. General knowledge, no page.
    let is_taken = |other: &Arc<Filter>| {
        unicode::same_name(&other.name, &name) || unicode::same_name(&other.unique_name, &unique_name)
    };
    if ndis.lock().filters.values().any(is_taken) {
        return NdisStatus::FAILURE;
    }
    let handle = new_handle(call.machine());
    if handle == 0 {
        return NdisStatus::RESOURCES;
    }
    let place = Place::of(call.machine(), &name, &call.driver().service);
    let filter = Arc::new(Filter {
        handle,
        driver: Arc::clone(call.driver()),
        name,
        friendly_name,
        unique_name,
        context,
        driver_object: driver_object.address(),
        callbacks,
        place,
    });
    ndis.lock().filters.insert(handle, Arc::clone(&filter));
    // Before any callback, which needs it.
    handle_out.write(handle);
    if let Some(set_options) = callbacks.0.SetOptionsHandler {
        let status = call.thread().call_driver(&filter.driver, "FilterSetOptions", 0, || {
            // SAFETY: the driver's callback, with the arguments that its page documents.
            unsafe { set_options(Raw::<_>::at(handle).pointer(), Raw::<_>::at(context).pointer()) }
        });
        if !matches!(status, Ok(NdisStatus::SUCCESS)) {
            filter.forget(call.machine());
            return status.unwrap_or(NdisStatus::FAILURE);
        }
    }
    // The page: be prepared for calls at once. They come now, so that who is not prepared sees it in each run.
    for port in ndis.all_ports() {
        // What went wrong on one adapter is that adapter's matter; a stop does not come back here.
        let _ = port.insert_filter(call.thread(), &filter);
    }
    NdisStatus::SUCCESS
}

/// Copies the characteristics and checks everything that the page of the structure demands.
fn capture(from: Raw<NDIS_FILTER_DRIVER_CHARACTERISTICS>) -> Result<Captured, NdisStatus> {
    const BAD: NdisStatus = NdisStatus::BAD_CHARACTERISTICS;
    let header = from.cast::<NDIS_OBJECT_HEADER>().read();
    if header.Type != NDIS_OBJECT_TYPE_FILTER_DRIVER_CHARACTERISTICS {
        return Err(BAD);
    }
    let [major, minor] = from.cast::<[u8; 2]>().field::<[u8; 2]>(4).read();
    if major != VERSION.0 || minor > VERSION.1 || !MINOR_VERSIONS.contains(&minor) {
        return Err(NdisStatus::BAD_VERSION);
    }
    let (size, since) = match header.Revision {
        1 => (NDIS_SIZEOF_FILTER_DRIVER_CHARACTERISTICS_REVISION_1, 0),
        2 => (NDIS_SIZEOF_FILTER_DRIVER_CHARACTERISTICS_REVISION_2, 1),
        3 => (NDIS_SIZEOF_FILTER_DRIVER_CHARACTERISTICS_REVISION_3, 80),
        _ => return Err(BAD),
    };
    if header.Size < size || minor < since {
        return Err(BAD);
    }
    // Only what the revision has: the rest of our structure may be somebody else's memory.
    let bytes = from.cast::<u8>().read_bytes(usize::from(size));
    // SAFETY: all-zero bytes are a valid structure: no callbacks, empty names.
    let mut copy: NDIS_FILTER_DRIVER_CHARACTERISTICS = unsafe { std::mem::zeroed() };
    // SAFETY: no revision is larger than the structure, and a callback may have any value but is only called when a driver gave it.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), (&raw mut copy).cast(), bytes.len()) };
    let friendly = field!(from, NDIS_FILTER_DRIVER_CHARACTERISTICS, FriendlyName);
    let unique = field!(from, NDIS_FILTER_DRIVER_CHARACTERISTICS, UniqueName);
    let service = field!(from, NDIS_FILTER_DRIVER_CHARACTERISTICS, ServiceName);
    let name = |raw: Raw<UNICODE_STRING>| unicode::name(raw).map_err(|_| BAD);
    let names = [name(friendly)?, name(unique)?, name(service)?];
    let is_guid = names[1].len() == 38 && names[1].starts_with('{') && names[1].ends_with('}');
    if names[0].is_empty() || !is_guid || names[2].is_empty() || !has_required_handlers(&copy) {
        return Err(BAD);
    }
    Ok((names, Callbacks(copy)))
}

fn has_required_handlers(of: &NDIS_FILTER_DRIVER_CHARACTERISTICS) -> bool {
    of.AttachHandler.is_some()
        && of.DetachHandler.is_some()
        && of.RestartHandler.is_some()
        && of.PauseHandler.is_some()
        && of.OidRequestHandler.is_some() == of.OidRequestCompleteHandler.is_some()
        && of.DirectOidRequestHandler.is_some() == of.DirectOidRequestCompleteHandler.is_some()
}

extern "efiapi" fn deregister(handle: usize) {
    let call = Call::enter();
    let filter = call.machine().ndis.filter(&call, handle);
    call.detail(&*filter.name);
    if let Some(callback) = is_entry_point(call.thread(), "Filter") {
        call.stop(Rule::BadState, format!("called from {callback}, which NDIS called: that can deadlock"));
    }
    for port in call.machine().ndis.all_ports() {
        // A stop does not come back here.
        let _ = port.extract_filter(call.thread(), &filter);
    }
    filter.forget(call.machine());
}

impl Filter {
    /// Ends the registration.
    fn forget(&self, machine: &Inner) {
        if machine.ndis.lock().filters.remove(&self.handle).is_some() {
            end_handle(machine, self.handle);
        }
    }
}

impl Ndis {
    fn all_ports(&self) -> Vec<Arc<Port>> {
        self.lock().ports.values().cloned().collect()
    }

    /// The filter behind a handle that a driver passed. Stops on a handle that is none, or not of this driver.
    fn filter(&self, call: &Call, handle: usize) -> Arc<Filter> {
        let filter = self.lock().filters.get(&handle).cloned();
        filter.filter(|filter| Arc::ptr_eq(&filter.driver, call.driver())).unwrap_or_else(|| {
            call.stop(Rule::InvalidHandle, format!("{handle:#x} is no filter of this driver, or one that is over"))
        })
    }
}

/// The registration of a service that is loaded.
fn find(machine: &Inner, service: &str) -> Option<Arc<Filter>> {
    let state = machine.ndis.lock();
    let is_it = |filter: &&Arc<Filter>| {
        unicode::same_name(&filter.name, service) || unicode::same_name(&filter.driver.service, service)
    };
    state.filters.values().find(is_it).cloned()
}

/// Attaches every filter to an adapter that has just been initialised, from the miniport upwards.
pub(super) fn attach_all_to(thread: &Arc<Thread>, port: &Arc<Port>) -> Result<(), super::adapter::AdapterError> {
    let mut filters: Vec<_> = thread.machine().ndis.lock().filters.values().cloned().collect();
    filters.sort_by_key(|filter| filter.place.class);
    filters.iter().filter(|filter| filter.place.fits(port)).try_for_each(|filter| port.attach_paused(thread, filter))
}
