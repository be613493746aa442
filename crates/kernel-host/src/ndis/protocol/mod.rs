//! Protocol drivers: `NdisRegisterProtocolDriver` and what follows from it.
//!
//! NDIS binds a protocol to each adapter that its `Linkage\Bind` names (to every adapter, where nothing is named). It does so
//! while the driver registers and whenever an adapter comes, always with the adapter's stack paused ([`operation`]). The driver opens
//! the adapter ([`open`]), which makes a [`Binding`]; events reach it through `ProtocolNetPnPEvent` ([`event`]).

use std::sync::Arc;

use ndis::NdisStatus;
use ndis::raw::{
    NDIS_OBJECT_HEADER, NDIS_OBJECT_TYPE_PROTOCOL_DRIVER_CHARACTERISTICS, NDIS_PROTOCOL_DRIVER_CHARACTERISTICS,
    NDIS_SIZEOF_PROTOCOL_DRIVER_CHARACTERISTICS_REVISION_1, NDIS_SIZEOF_PROTOCOL_DRIVER_CHARACTERISTICS_REVISION_2,
    NetEventBindsComplete,
};
use nt_types::UNICODE_STRING;

use super::adapter::AdapterError;
use super::port::Port;
use super::registration::{MINOR_VERSIONS, is_entry_point};
use super::{VERSION, end_handle, new_handle};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::{Driver, Inner};
use crate::nt::raw::{Raw, field};
use crate::nt::unicode;
use crate::thread::Thread;

mod binding;
mod event;
mod open;
mod operation;
mod parameters;
pub(crate) mod program;
mod unbind;

pub(super) use binding::Binding;
pub use binding::BindingState;
pub(super) use event::{EXPORTS as EVENT_EXPORTS, PendedEvent, notification};
pub(super) use open::EXPORTS as OPEN_EXPORTS;
pub(super) use operation::{EXPORTS as OPERATION_EXPORTS, Operation};
pub(super) use unbind::EXPORTS as UNBIND_EXPORTS;

exports! { pub(super) EXPORTS in "ndis.sys":
    NdisRegisterProtocolDriver(max 0, fails RETURNS_NDIS_FAILURE) = register;
    NdisDeregisterProtocolDriver(max 0) = deregister;
    NdisReEnumerateProtocolBindings(max 0) = re_enumerate;
}

/// Where services keep to which adapters they bind.
const SERVICES: &str = r"\Registry\Machine\System\CurrentControlSet\Services";

/// A registered protocol driver.
#[derive(Debug)]
pub(super) struct Protocol {
    pub(super) handle: usize,
    pub(super) driver: Arc<Driver>,
    /// Service name, as the characteristics say.
    pub(super) name: String,
    pub(super) context: usize,
    pub(super) callbacks: Callbacks,
}

/// The copy that NDIS makes of the characteristics.
pub(super) struct Callbacks(pub(super) NDIS_PROTOCOL_DRIVER_CHARACTERISTICS);

// SAFETY: the pointer in it, the buffer of the name, is never followed after the registration.
unsafe impl Send for Callbacks {}
// SAFETY: as above.
unsafe impl Sync for Callbacks {}

impl std::fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NDIS {}.{} protocol", self.0.MajorNdisVersion, self.0.MinorNdisVersion)
    }
}

extern "efiapi" fn register(
    context: usize,
    characteristics: Raw<NDIS_PROTOCOL_DRIVER_CHARACTERISTICS>,
    handle_out: Raw<usize>,
) -> NdisStatus {
    let call = Call::enter();
    let (name, callbacks) = match capture(characteristics) {
        Ok(captured) => captured,
        Err(status) => return status,
    };
    call.detail(&*name);
    let ndis = &call.machine().ndis;
    // One name, one protocol: bindings are kept in the registry by it. General knowledge, no page.
    if ndis.lock().protocols.values().any(|other| unicode::same_name(&other.name, &name)) {
        return NdisStatus::FAILURE;
    }
    let handle = new_handle(call.machine());
    if handle == 0 {
        return NdisStatus::RESOURCES;
    }
    let set_options = callbacks.0.SetOptionsHandler;
    let protocol = Arc::new(Protocol { handle, driver: Arc::clone(call.driver()), name, context, callbacks });
    ndis.lock().protocols.insert(handle, Arc::clone(&protocol));
    // Before any callback, which needs it.
    handle_out.write(handle);
    if let Some(set_options) = set_options {
        let status = call.thread().call_driver(&protocol.driver, "ProtocolSetOptions", 0, || {
            // SAFETY: the driver's callback, with the arguments that its page documents.
            unsafe { set_options(Raw::<_>::at(handle).pointer(), Raw::<_>::at(context).pointer()) }
        });
        if !matches!(status, Ok(NdisStatus::SUCCESS)) {
            protocol.forget(call.machine());
            return status.unwrap_or(NdisStatus::FAILURE);
        }
    }
    // The page: be prepared for calls at once. They come now, so that who is not prepared sees it in each run.
    let _ = protocol.bind_to_all(call.thread());
    NdisStatus::SUCCESS
}

/// Copies the characteristics and checks everything that the page of the structure demands.
fn capture(from: Raw<NDIS_PROTOCOL_DRIVER_CHARACTERISTICS>) -> Result<(String, Callbacks), NdisStatus> {
    let header = from.cast::<NDIS_OBJECT_HEADER>().read();
    if header.Type != NDIS_OBJECT_TYPE_PROTOCOL_DRIVER_CHARACTERISTICS {
        return Err(NdisStatus::BAD_CHARACTERISTICS);
    }
    let [major, minor] = from.cast::<[u8; 2]>().field::<[u8; 2]>(4).read();
    if major != VERSION.0 || minor > VERSION.1 || !MINOR_VERSIONS.contains(&minor) {
        return Err(NdisStatus::BAD_VERSION);
    }
    let (size, since) = match header.Revision {
        1 => (NDIS_SIZEOF_PROTOCOL_DRIVER_CHARACTERISTICS_REVISION_1, 0),
        2 => (NDIS_SIZEOF_PROTOCOL_DRIVER_CHARACTERISTICS_REVISION_2, 1),
        _ => return Err(NdisStatus::BAD_CHARACTERISTICS),
    };
    if header.Size < size || minor < since {
        return Err(NdisStatus::BAD_CHARACTERISTICS);
    }
    // Only what the revision has: the rest of our structure may be somebody else's memory.
    let bytes = from.cast::<u8>().read_bytes(usize::from(size));
    // SAFETY: all-zero bytes are a valid structure: no callbacks.
    let mut copy: NDIS_PROTOCOL_DRIVER_CHARACTERISTICS = unsafe { std::mem::zeroed() };
    // SAFETY: no revision is larger than the structure, and a callback may have any value but is only called when a driver gave it.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), (&raw mut copy).cast(), bytes.len()) };
    let name = unicode::name(field!(from, NDIS_PROTOCOL_DRIVER_CHARACTERISTICS, Name));
    let name = name.map_err(|_| NdisStatus::BAD_CHARACTERISTICS)?;
    if name.is_empty() || !has_required_handlers(&copy) {
        return Err(NdisStatus::BAD_CHARACTERISTICS);
    }
    copy.Name = UNICODE_STRING { Length: 0, MaximumLength: 0, Buffer: std::ptr::null_mut() };
    Ok((name, Callbacks(copy)))
}

fn has_required_handlers(of: &NDIS_PROTOCOL_DRIVER_CHARACTERISTICS) -> bool {
    of.BindAdapterHandlerEx.is_some()
        && of.UnbindAdapterHandlerEx.is_some()
        && of.OpenAdapterCompleteHandlerEx.is_some()
        && of.CloseAdapterCompleteHandlerEx.is_some()
        && of.NetPnPEventHandler.is_some()
        && of.OidRequestCompleteHandler.is_some()
        && of.ReceiveNetBufferListsHandler.is_some()
        && of.SendNetBufferListsCompleteHandler.is_some()
}

extern "efiapi" fn deregister(handle: usize) {
    let call = Call::enter();
    let protocol = call.machine().ndis.protocol(&call, handle);
    call.detail(&*protocol.name);
    if let Some(callback) = is_entry_point(call.thread(), "Protocol") {
        call.stop(Rule::BadState, format!("called from {callback}, which NDIS called: that can deadlock"));
    }
    let bindings: Vec<_> = {
        let state = call.machine().ndis.lock();
        state.bindings.iter().filter(|binding| binding.protocol.handle == handle).cloned().collect()
    };
    for binding in bindings {
        // A stop does not come back here.
        let _ = binding.unbind(call.thread());
    }
    protocol.forget(call.machine());
}

extern "efiapi" fn re_enumerate(handle: usize) {
    let call = Call::enter();
    let protocol = call.machine().ndis.protocol(&call, handle);
    call.detail(&*protocol.name);
    for forbidden in ["ProtocolBindAdapterEx", "ProtocolUnbindAdapterEx", "ProtocolNetPnPEvent of a binding"] {
        if is_entry_point(call.thread(), forbidden).is_some() {
            call.stop(Rule::BadState, format!("not legal within {forbidden}"));
        }
    }
    let _ = protocol.bind_to_all(call.thread());
}

impl Protocol {
    /// Binds to each adapter that is there and not bound to yet, then says that this was all.
    pub(super) fn bind_to_all(self: &Arc<Self>, thread: &Arc<Thread>) -> Result<(), AdapterError> {
        let ports: Vec<_> = thread.machine().ndis.lock().ports.values().cloned().collect();
        for port in ports.into_iter().filter(|port| self.is_configured_for(thread.machine(), port)) {
            match self.bind(thread, &port) {
                // The protocol said no: it will not be asked again, and other adapters are another matter.
                Ok(()) | Err(AdapterError::Status(_)) => {}
                Err(stopped) => return Err(stopped),
            }
        }
        self.notify(thread, None, NetEventBindsComplete, &[]).map(|_| ())
    }

    /// Whether `Linkage\Bind` of the service names the adapter. Where there is no such value, every adapter counts: nobody
    /// has run the network configuration of this machine.
    pub(super) fn is_configured_for(&self, machine: &Inner, port: &Port) -> bool {
        let linkage = machine.nt.hive().open(&format!(r"{SERVICES}\{}\Linkage", self.name));
        let Some(bound) = linkage.ok().and_then(|key| key.value("Bind").ok()) else { return true };
        let units: Vec<u16> = bound.data.chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
        let mut names = units.split(|unit| *unit == 0).map(String::from_utf16_lossy);
        names.any(|name| unicode::same_name(&name, &port.device_name))
    }

    /// Ends the registration.
    fn forget(&self, machine: &Inner) {
        if machine.ndis.lock().protocols.remove(&self.handle).is_some() {
            end_handle(machine, self.handle);
        }
    }
}

/// Binds every protocol that is configured for it to an adapter that has just been initialised. The stack is paused.
pub(super) fn bind_all_to(thread: &Arc<Thread>, port: &Arc<Port>) -> Result<(), AdapterError> {
    let protocols: Vec<_> = thread.machine().ndis.lock().protocols.values().cloned().collect();
    for protocol in protocols.into_iter().filter(|protocol| protocol.is_configured_for(thread.machine(), port)) {
        match protocol.bind_paused(thread, port) {
            Ok(()) | Err(AdapterError::Status(_)) => {}
            Err(stopped) => return Err(stopped),
        }
    }
    Ok(())
}

/// Binds protocols again that were unbound for the sake of a filter. The stack is paused.
pub(super) fn bind_again(
    thread: &Arc<Thread>,
    port: &Arc<Port>,
    protocols: &[Arc<Protocol>],
) -> Result<(), AdapterError> {
    for protocol in protocols {
        match protocol.bind_paused(thread, port) {
            Ok(()) | Err(AdapterError::Status(_)) => {}
            Err(stopped) => return Err(stopped),
        }
    }
    Ok(())
}

/// The registration of a service that is loaded.
pub(super) fn find(machine: &Inner, service: &str) -> Option<Arc<Protocol>> {
    let state = machine.ndis.lock();
    let found = state.protocols.values().find(|protocol| {
        unicode::same_name(&protocol.name, service) || unicode::same_name(&protocol.driver.service, service)
    });
    found.cloned()
}
