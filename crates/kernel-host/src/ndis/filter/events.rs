//! What passes through a stack besides requests and data: status indications, events for the miniport, events for protocols.

use std::sync::Arc;

use ndis::NdisStatus;
use ndis::raw::{
    NDIS_STATUS_INDICATION, NET_DEVICE_PNP_EVENT, NET_PNP_EVENT_NOTIFICATION, NetEventPause, NetEventRestart,
};

use super::module::Module;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::ndis::adapter::AdapterError;
use crate::ndis::port::Port;
use crate::ndis::protocol::notification;
use crate::ndis::registration::is_entry_point;
use crate::ndis::scratch::Scratch;
use crate::ndis::status::check_indication;
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

exports! { pub(in crate::ndis) EXPORTS in "ndis.sys":
    NdisFIndicateStatus(max 2) = indicate_status;
    NdisFDevicePnPEventNotify(max 0) = device_pnp_event;
    NdisFNetPnPEvent(max 0, fails RETURNS_NDIS_FAILURE) = net_pnp_event;
    NdisMNetPnPEvent(max 0, fails NDIS_RESOURCES) = miniport_event;
    NdisFGetOptionalSwitchHandlers(max 2) = switch_handlers;
}

extern "efiapi" fn indicate_status(handle: usize, indication: Raw<NDIS_STATUS_INDICATION>) {
    let call = Call::enter();
    let module = call.machine().ndis.module(&call, handle);
    check_indication(&call, indication);
    call.detail(field!(indication, NDIS_STATUS_INDICATION, StatusCode).read());
    module.check_attached(&call, "a status indication");
    // A stop does not come back here.
    let _ = module.port.indicate(call.thread(), Some(&module), indication);
}

extern "efiapi" fn device_pnp_event(handle: usize, event: Raw<NET_DEVICE_PNP_EVENT>) {
    let call = Call::enter();
    let module = call.machine().ndis.module(&call, handle);
    module.check_attached(&call, "an event is passed on");
    // A stop does not come back here.
    let _ = module.port.tell_device_event(call.thread(), Some(&module), event);
}

extern "efiapi" fn net_pnp_event(handle: usize, event: Raw<NET_PNP_EVENT_NOTIFICATION>) -> NdisStatus {
    let call = Call::enter();
    let module = call.machine().ndis.module(&call, handle);
    module.check_attached(&call, "an event is passed on");
    if is_entry_point(call.thread(), "FilterOidRequest") == Some("FilterOidRequest") {
        call.stop(Rule::BadState, "not legal within FilterOidRequest");
    }
    let event = event.read().NetPnPEvent;
    if event.NetEvent == NetEventPause || event.NetEvent == NetEventRestart {
        call.stop(Rule::BadArgument, "pauses and restarts are NDIS's to tell protocols of");
    }
    let buffer = Raw::<u8>::of(event.Buffer.cast()).read_bytes(event.BufferLength as usize);
    let answer = module.port.tell_net_event(call.thread(), Some(&module), event.NetEvent, &buffer);
    // A stop does not come back here.
    answer.unwrap_or(NdisStatus::FAILURE)
}

extern "efiapi" fn miniport_event(handle: usize, event: Raw<NET_PNP_EVENT_NOTIFICATION>) -> NdisStatus {
    let call = Call::enter();
    let port = call.machine().ndis.port(&call, handle);
    let event = event.read().NetPnPEvent;
    let buffer = Raw::<u8>::of(event.Buffer.cast()).read_bytes(event.BufferLength as usize);
    // A stop does not come back here.
    port.tell_net_event(call.thread(), None, event.NetEvent, &buffer).unwrap_or(NdisStatus::FAILURE)
}

/// No adapter of this machine is an extensible switch.
extern "efiapi" fn switch_handlers(handle: usize, _context_out: usize, _handlers: usize) -> NdisStatus {
    let call = Call::enter();
    call.machine().ndis.module(&call, handle);
    NdisStatus::NOT_SUPPORTED
}

impl Port {
    /// Passes an event on its way down to the next filter that takes such events, else to the miniport.
    pub(in crate::ndis) fn tell_device_event(
        &self,
        thread: &Thread,
        from: Option<&Module>,
        event: Raw<NET_DEVICE_PNP_EVENT>,
    ) -> Result<(), AdapterError> {
        let next = self.below(from, |module| module.callbacks().DevicePnPEventNotifyHandler.is_some());
        let of_module =
            next.as_ref().and_then(|module| Some((module, module.callbacks().DevicePnPEventNotifyHandler?)));
        if let Some((module, handler)) = of_module {
            let context = module.context();
            return Ok(module.call(thread, "FilterDevicePnPEventNotify", 0, || {
                // SAFETY: the driver's callback, with the arguments that its page documents.
                unsafe { handler(context, event.pointer()) }
            })?);
        }
        let Some(handler) = self.miniport.callbacks.0.DevicePnPEventNotifyHandler else { return Ok(()) };
        let context = self.context();
        self.call(thread, "MiniportDevicePnPEventNotify", || {
            // SAFETY: the driver's callback, with the arguments that its page documents.
            unsafe { handler(context, event.cast().pointer()) }
        })?;
        Ok(())
    }

    /// Passes an event on its way up to the next filter that takes such events, else to the protocols. The answer: the first that is
    /// no success, and who is above it is not asked.
    pub(in crate::ndis) fn tell_net_event(
        &self,
        thread: &Arc<Thread>,
        from: Option<&Module>,
        event: u32,
        buffer: &[u8],
    ) -> Result<NdisStatus, AdapterError> {
        let next = self.above(from, |module| module.callbacks().NetPnPEventHandler.is_some());
        let of_module = next.as_ref().and_then(|module| Some((module, module.callbacks().NetPnPEventHandler?)));
        if let Some((module, handler)) = of_module {
            let short = AdapterError::Status(NdisStatus::RESOURCES);
            let machine = thread.machine();
            let data =
                if buffer.is_empty() { None } else { Some(Scratch::bytes(machine, buffer).ok_or(short.clone())?) };
            let memory = Scratch::new(machine, size_of::<NET_PNP_EVENT_NOTIFICATION>()).ok_or(short)?;
            memory.raw().write(notification(event, data.as_ref(), buffer.len() as u32));
            let context = module.context();
            return Ok(module.call(thread, "FilterNetPnPEvent", 0, || {
                // SAFETY: the driver's callback, with the arguments that its page documents.
                unsafe { handler(context, memory.raw().pointer()) }
            })?);
        }
        for binding in self.bindings(thread.machine()) {
            let status = binding.protocol.notify(thread, Some(&binding), event, buffer)?;
            if status != NdisStatus::SUCCESS {
                return Ok(status);
            }
        }
        Ok(NdisStatus::SUCCESS)
    }
}
