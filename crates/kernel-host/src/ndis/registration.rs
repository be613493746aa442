//! Miniport drivers: `NdisMRegisterMiniportDriver` and its opposite.

use std::sync::{Arc, Mutex};

use ndis::NdisStatus;
use ndis::raw::{
    NDIS_INTERMEDIATE_DRIVER, NDIS_MINIPORT_DRIVER_CHARACTERISTICS, NDIS_OBJECT_HEADER,
    NDIS_OBJECT_TYPE_MINIPORT_DRIVER_CHARACTERISTICS, NDIS_SIZEOF_MINIPORT_DRIVER_CHARACTERISTICS_REVISION_1,
    NDIS_SIZEOF_MINIPORT_DRIVER_CHARACTERISTICS_REVISION_2, NDIS_SIZEOF_MINIPORT_DRIVER_CHARACTERISTICS_REVISION_3,
};
use nt_types::{DRIVER_OBJECT, UNICODE_STRING};

use super::optional::PnpHandlers;
use super::{VERSION, end_handle, new_handle};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::{Driver, Inner};
use crate::nt::raw::{Raw, field};
use crate::nt::unicode;
use crate::thread::Thread;

exports! { pub(super) EXPORTS in "ndis.sys":
    NdisMRegisterMiniportDriver(max 0, fails RETURNS_NDIS_FAILURE) = register;
    NdisMDeregisterMiniportDriver(max 0) = deregister;
}

/// Minor versions of NDIS 6 that exist.
pub(super) const MINOR_VERSIONS: &[u8] = &[0, 1, 20, 30, 40, 50, 51, 60, 70, 80, 81, 82, 83, 84, 85, 86, 87, 88, 89];

/// A registered miniport driver.
#[derive(Debug)]
pub(super) struct Miniport {
    pub(super) handle: usize,
    pub(super) driver: Arc<Driver>,
    /// Service name: the last component of the registry path.
    pub(super) service: String,
    pub(super) context: usize,
    pub(super) callbacks: Callbacks,
    /// Optional handlers, once `NdisSetOptionalHandlers` has set them.
    pub(super) pnp: Mutex<Option<PnpHandlers>>,
    driver_object: usize,
}

impl Miniport {
    /// The driver object that was registered.
    pub(super) fn driver_object(&self) -> Raw<DRIVER_OBJECT> {
        Raw::at(self.driver_object)
    }
}

/// The copy that NDIS makes of the characteristics.
pub(super) struct Callbacks(pub(super) NDIS_MINIPORT_DRIVER_CHARACTERISTICS);

impl std::fmt::Debug for Callbacks {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NDIS {}.{} miniport", self.0.MajorNdisVersion, self.0.MinorNdisVersion)
    }
}

extern "efiapi" fn register(
    driver_object: Raw<DRIVER_OBJECT>,
    registry_path: Raw<UNICODE_STRING>,
    context: usize,
    characteristics: Raw<NDIS_MINIPORT_DRIVER_CHARACTERISTICS>,
    handle_out: Raw<usize>,
) -> NdisStatus {
    let call = Call::enter();
    let path = String::from_utf16_lossy(&unicode::units(registry_path));
    call.detail(&*path);
    let callbacks = match capture(characteristics) {
        Ok(callbacks) => callbacks,
        Err(status) => return status,
    };
    if callbacks.Flags & NDIS_INTERMEDIATE_DRIVER != 0 {
        call.stop(Rule::NotImplemented, "NDIS_INTERMEDIATE_DRIVER: intermediate drivers are not simulated");
    }
    let ndis = &call.machine().ndis;
    let taken = ndis.lock().miniports.values().any(|other| other.driver_object == driver_object.address());
    if taken {
        return NdisStatus::FAILURE;
    }
    let handle = new_handle(call.machine());
    if handle == 0 {
        return NdisStatus::RESOURCES;
    }
    let miniport = Arc::new(Miniport {
        handle,
        driver: Arc::clone(call.driver()),
        service: path.rsplit('\\').next().unwrap_or_default().to_owned(),
        context,
        callbacks: Callbacks(callbacks),
        pnp: Mutex::default(),
        driver_object: driver_object.address(),
    });
    ndis.lock().miniports.insert(handle, Arc::clone(&miniport));
    // NDIS takes the driver object over: the I/O manager's unload comes here, and goes on to MiniportDriverUnload.
    field!(driver_object, DRIVER_OBJECT, DriverUnload).cast::<usize>().write(unload as *const () as usize);
    handle_out.write(handle);
    if let Some(set_options) = callbacks.SetOptionsHandler {
        let status = enter(call.thread(), &miniport, "MiniportSetOptions", || {
            // SAFETY: the driver's callback, with the arguments that its page documents.
            unsafe { set_options(Raw::<_>::at(handle).pointer(), Raw::<_>::at(context).pointer()) }
        });
        if status != Some(NdisStatus::SUCCESS) {
            ndis.lock().miniports.remove(&handle);
            end_handle(call.machine(), handle);
            return status.unwrap_or(NdisStatus::FAILURE);
        }
    }
    NdisStatus::SUCCESS
}

/// Calls driver code from within an export; `None` when the machine stopped.
fn enter<R>(thread: &Thread, miniport: &Miniport, callback: &'static str, body: impl FnOnce() -> R) -> Option<R> {
    thread.call_driver(&miniport.driver, callback, 0, body).ok()
}

/// Copies the characteristics and checks everything that the page of the structure demands.
fn capture(
    from: Raw<NDIS_MINIPORT_DRIVER_CHARACTERISTICS>,
) -> Result<NDIS_MINIPORT_DRIVER_CHARACTERISTICS, NdisStatus> {
    let header = from.cast::<NDIS_OBJECT_HEADER>().read();
    if header.Type != NDIS_OBJECT_TYPE_MINIPORT_DRIVER_CHARACTERISTICS {
        return Err(NdisStatus::BAD_CHARACTERISTICS);
    }
    let [major, minor] = from.cast::<[u8; 2]>().field::<[u8; 2]>(4).read();
    if major != VERSION.0 || minor > VERSION.1 || !MINOR_VERSIONS.contains(&minor) {
        return Err(NdisStatus::BAD_VERSION);
    }
    // Each revision came with a version: a driver for an older NDIS cannot know the newer structure.
    let (size, since) = match header.Revision {
        1 => (NDIS_SIZEOF_MINIPORT_DRIVER_CHARACTERISTICS_REVISION_1, 0),
        2 => (NDIS_SIZEOF_MINIPORT_DRIVER_CHARACTERISTICS_REVISION_2, 1),
        3 => (NDIS_SIZEOF_MINIPORT_DRIVER_CHARACTERISTICS_REVISION_3, 80),
        _ => return Err(NdisStatus::BAD_CHARACTERISTICS),
    };
    if header.Size < size || minor < since {
        return Err(NdisStatus::BAD_CHARACTERISTICS);
    }
    // Only what the revision has: the rest of our structure may be somebody else's memory.
    let bytes = from.cast::<u8>().read_bytes(usize::from(size));
    // SAFETY: all-zero bytes are a valid structure: no callbacks.
    let mut copy: NDIS_MINIPORT_DRIVER_CHARACTERISTICS = unsafe { std::mem::zeroed() };
    // SAFETY: no revision is larger than the structure, and a callback may have any value but is only called when a driver gave it.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), (&raw mut copy).cast(), bytes.len()) };
    if has_required_handlers(&copy) { Ok(copy) } else { Err(NdisStatus::BAD_CHARACTERISTICS) }
}

fn has_required_handlers(of: &NDIS_MINIPORT_DRIVER_CHARACTERISTICS) -> bool {
    of.InitializeHandlerEx.is_some()
        && of.HaltHandlerEx.is_some()
        && of.UnloadHandler.is_some()
        && of.PauseHandler.is_some()
        && of.RestartHandler.is_some()
        && of.OidRequestHandler.is_some()
        && of.SendNetBufferListsHandler.is_some()
        && of.ReturnNetBufferListsHandler.is_some()
        && of.CancelSendHandler.is_some()
        && of.DevicePnPEventNotifyHandler.is_some()
        && of.ShutdownHandlerEx.is_some()
        && of.CancelOidRequestHandler.is_some()
        && (of.CheckForHangHandlerEx.is_none() || of.ResetHandlerEx.is_some())
        && of.DirectOidRequestHandler.is_some() == of.CancelDirectOidRequestHandler.is_some()
}

extern "efiapi" fn deregister(handle: usize) {
    let call = Call::enter();
    let state = call.machine().ndis.lock();
    let found = state.miniports.get(&handle).cloned();
    let adapter = state.ports.values().find(|port| port.miniport.handle == handle).map(|port| port.name.clone());
    drop(state);
    let Some(miniport) = found.filter(|miniport| Arc::ptr_eq(&miniport.driver, call.driver())) else {
        call.stop(Rule::InvalidHandle, format!("{handle:#x} is no registration of this driver, or one that is over"));
    };
    call.detail(&*miniport.service);
    if let Some(name) = adapter {
        call.stop(Rule::BadState, format!("adapter {name} is not halted yet"));
    }
    call.machine().ndis.lock().miniports.remove(&handle);
    end_handle(call.machine(), handle);
}

/// The callback that the driver's present code belongs to, when its name begins with `prefix`.
pub(super) fn is_entry_point(thread: &Thread, prefix: &str) -> Option<&'static str> {
    thread.entry().map(|entry| entry.callback).filter(|callback| callback.starts_with(prefix))
}

/// The registration of a service that is loaded.
pub(super) fn find(machine: &Inner, service: &str) -> Option<Arc<Miniport>> {
    let state = machine.ndis.lock();
    let found = state.miniports.values().find(|miniport| unicode::same_name(&miniport.service, service));
    found.cloned()
}

/// `DRIVER_OBJECT.DriverUnload` of miniport drivers. Runs as driver code, entered by the machine.
///
/// Plug and Play removes the devices first: adapters that are still there are halted here.
extern "efiapi" fn unload(driver_object: Raw<DRIVER_OBJECT>) {
    let thread = Thread::current();
    let machine = thread.machine();
    let state = machine.ndis.lock();
    let found = state.miniports.values().find(|miniport| miniport.driver_object == driver_object.address()).cloned();
    drop(state);
    let Some(miniport) = found else { return };
    super::lifecycle::halt_all(&thread, &miniport);
    if let Some(handler) = miniport.callbacks.0.UnloadHandler {
        // SAFETY: the driver's callback, with the argument that its page documents.
        let _ = enter(&thread, &miniport, "MiniportDriverUnload", || unsafe { handler(driver_object.pointer()) });
    }
}
