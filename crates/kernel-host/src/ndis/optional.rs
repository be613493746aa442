//! Optional services of miniports: `NdisSetOptionalHandlers`, `MiniportAddDevice`, `MiniportRemoveDevice`.

use std::sync::{Arc, PoisonError};

use ndis::NdisStatus;
use ndis::raw::{
    MINIPORT_ADD_DEVICE, MINIPORT_REMOVE_DEVICE, NDIS_MINIPORT_PNP_CHARACTERISTICS, NDIS_OBJECT_HEADER,
    NDIS_OBJECT_TYPE_MINIPORT_PNP_CHARACTERISTICS, NDIS_SIZEOF_MINIPORT_PNP_CHARACTERISTICS_REVISION_1,
};

use super::adapter::AdapterError;
use super::filter;
use super::port::Port;
use super::registration::is_entry_point;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

exports! { pub(super) EXPORTS in "ndis.sys":
    NdisSetOptionalHandlers(max 0, fails NDIS_RESOURCES) = set_optional_handlers;
}

/// Handlers of Plug and Play that a miniport driver registered.
///
/// Those for IRPs that only a bus driver sends (start, filter resource requirements) are never called: the adapters of this
/// machine are on no bus.
#[derive(Clone, Copy, Debug)]
pub(super) struct PnpHandlers {
    add_device: Option<MINIPORT_ADD_DEVICE>,
    remove_device: Option<MINIPORT_REMOVE_DEVICE>,
}

extern "efiapi" fn set_optional_handlers(handle: usize, handlers: Raw<NDIS_OBJECT_HEADER>) -> NdisStatus {
    let call = Call::enter();
    let state = call.machine().ndis.lock();
    let miniport = state.miniports.get(&handle).cloned();
    let module = state.modules.get(&handle).cloned();
    let is_filter = state.filters.get(&handle).is_some_and(|filter| Arc::ptr_eq(&filter.driver, call.driver()));
    drop(state);
    if let Some(module) = module.filter(|module| Arc::ptr_eq(&module.filter.driver, call.driver())) {
        return filter::set_data_handlers(&call, &module, handlers);
    }
    if is_filter {
        // The page: there are no optional services of filter drivers.
        return NdisStatus::NOT_SUPPORTED;
    }
    let Some(miniport) = miniport.filter(|miniport| Arc::ptr_eq(&miniport.driver, call.driver())) else {
        // A protocol's services are connection-oriented calls and offloads, none of which is simulated.
        call.machine().ndis.protocol(&call, handle);
        return NdisStatus::NOT_SUPPORTED;
    };
    if is_entry_point(call.thread(), "MiniportSetOptions").is_none() {
        call.stop(Rule::BadState, "miniports set optional handlers in MiniportSetOptions");
    }
    let header = handlers.read();
    if header.Type != NDIS_OBJECT_TYPE_MINIPORT_PNP_CHARACTERISTICS {
        return NdisStatus::NOT_SUPPORTED;
    }
    if header.Revision == 0 || header.Size < NDIS_SIZEOF_MINIPORT_PNP_CHARACTERISTICS_REVISION_1 {
        return NdisStatus::FAILURE;
    }
    let raw = handlers.cast::<NDIS_MINIPORT_PNP_CHARACTERISTICS>();
    let handlers = PnpHandlers {
        add_device: field!(raw, NDIS_MINIPORT_PNP_CHARACTERISTICS, MiniportAddDeviceHandler).read(),
        remove_device: field!(raw, NDIS_MINIPORT_PNP_CHARACTERISTICS, MiniportRemoveDeviceHandler).read(),
    };
    *miniport.pnp.lock().unwrap_or_else(PoisonError::into_inner) = Some(handlers);
    NdisStatus::SUCCESS
}

impl Port {
    fn pnp(&self) -> Option<PnpHandlers> {
        *self.miniport.pnp.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `MiniportAddDevice`, before everything else. A failure is the end of the adapter.
    pub(super) fn add_device(&self, thread: &Thread) -> Result<(), AdapterError> {
        let Some(handler) = self.pnp().and_then(|handlers| handlers.add_device) else { return Ok(()) };
        let (handle, context) = (Raw::at(self.handle).pointer(), Raw::at(self.miniport.context).pointer());
        self.lock().adder = Some(thread.id());
        let status = self.call(thread, "MiniportAddDevice", || {
            // SAFETY: the driver's callback, with the arguments that its page documents.
            unsafe { handler(handle, context) }
        });
        self.lock().adder = None;
        match status? {
            NdisStatus::SUCCESS => Ok(()),
            refused => Err(AdapterError::Status(refused)),
        }
    }

    /// `MiniportRemoveDevice`, after everything else.
    pub(super) fn remove_device(&self, thread: &Thread) -> Result<(), AdapterError> {
        let Some(handler) = self.pnp().and_then(|handlers| handlers.remove_device) else { return Ok(()) };
        let context = Raw::at(self.attributes().device_context).pointer();
        self.call(thread, "MiniportRemoveDevice", || {
            // SAFETY: the driver's callback, with the argument that its page documents.
            unsafe { handler(context) }
        })?;
        Ok(())
    }
}
