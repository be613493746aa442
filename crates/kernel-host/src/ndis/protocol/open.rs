//! `NdisOpenAdapterEx` and `NdisCloseAdapterEx`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use ndis::NdisStatus;
use ndis::raw::{
    NDIS_MAX_FRAME_TYPES_PER_OPEN, NDIS_OBJECT_TYPE_OPEN_PARAMETERS, NDIS_OPEN_PARAMETERS,
    NDIS_SIZEOF_OPEN_PARAMETERS_REVISION_1, OID_GEN_CURRENT_PACKET_FILTER,
};
use nt_types::UNICODE_STRING;

use super::Protocol;
use super::binding::{Access, Binding, BindingState};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::{Inner, Machine};
use crate::ndis::port::Port;
use crate::ndis::{end_handle, new_handle};
use crate::nt::raw::{Raw, field};
use crate::nt::unicode;
use crate::thread::Thread;

exports! { pub(in crate::ndis) EXPORTS in "ndis.sys":
    NdisOpenAdapterEx(max 0, fails RETURNS_NDIS_FAILURE) = open_adapter;
    NdisCloseAdapterEx(max 0) = close_adapter;
}

impl Machine {
    /// From now on `NdisOpenAdapterEx` returns `NDIS_STATUS_PENDING` and completes on a thread of its own, as it may on Windows;
    /// `false` for success at once, which is how a machine starts.
    pub fn pend_opens(&self, pend: bool) {
        self.inner().ndis.pends_opens.store(pend, Ordering::Relaxed);
    }

    /// As [`Machine::pend_opens`], for `NdisCloseAdapterEx`.
    pub fn pend_closes(&self, pend: bool) {
        self.inner().ndis.pends_closes.store(pend, Ordering::Relaxed);
    }
}

extern "efiapi" fn open_adapter(
    handle: usize,
    context: usize,
    parameters: Raw<NDIS_OPEN_PARAMETERS>,
    bind_context: usize,
    handle_out: Raw<usize>,
) -> NdisStatus {
    let call = Call::enter();
    let protocol = call.machine().ndis.protocol(&call, handle);
    let operation = call.machine().ndis.lock().operations.get(&bind_context).cloned();
    // The page: any attempt outside of ProtocolBindAdapterEx fails.
    let operation = operation.filter(|operation| {
        operation.is_bind && operation.is_running() && operation.protocol.handle == protocol.handle
    });
    let Some(operation) = operation else { return NdisStatus::FAILURE };
    if operation.binding().is_some_and(|binding| binding.open() != Access::Closed) {
        return NdisStatus::FAILURE;
    }
    let name = unicode::name(Raw::<UNICODE_STRING>::of(field!(parameters, NDIS_OPEN_PARAMETERS, AdapterName).read()));
    call.detail(name.as_deref().unwrap_or_default());
    let medium = match medium_index(&operation.port, parameters, name.as_deref().unwrap_or_default()) {
        Ok(index) => index,
        Err(refused) => return refused,
    };
    let binding_handle = new_handle(call.machine());
    if binding_handle == 0 {
        return NdisStatus::RESOURCES;
    }
    let binding = Arc::new(Binding::new(binding_handle, &protocol, &operation.port, context));
    operation.set_binding(Some(Arc::clone(&binding)));
    let opened = Opened { binding, parameters: parameters.address(), handle_out: handle_out.address(), medium };
    if call.machine().ndis.pends_opens.load(Ordering::Relaxed) {
        let machine = Arc::clone(call.machine());
        std::thread::spawn(move || Thread::enter(&machine, |thread| opened.complete_later(thread)));
        return NdisStatus::PENDING;
    }
    opened.publish(call.machine());
    NdisStatus::SUCCESS
}

/// Which of the protocol's media the adapter has.
fn medium_index(port: &Port, parameters: Raw<NDIS_OPEN_PARAMETERS>, name: &str) -> Result<u32, NdisStatus> {
    let header = field!(parameters, NDIS_OPEN_PARAMETERS, Header).read();
    if header.Type != NDIS_OBJECT_TYPE_OPEN_PARAMETERS
        || header.Revision == 0
        || header.Size < NDIS_SIZEOF_OPEN_PARAMETERS_REVISION_1
    {
        return Err(NdisStatus::FAILURE);
    }
    if !unicode::same_name(name, &port.device_name) {
        return Err(NdisStatus::ADAPTER_NOT_FOUND);
    }
    if field!(parameters, NDIS_OPEN_PARAMETERS, FrameTypeArraySize).read() > NDIS_MAX_FRAME_TYPES_PER_OPEN {
        return Err(NdisStatus::FAILURE);
    }
    let count = field!(parameters, NDIS_OPEN_PARAMETERS, MediumArraySize).read();
    let media = Raw::<u32>::of(field!(parameters, NDIS_OPEN_PARAMETERS, MediumArray).read());
    let own = port.attributes().general.map_or(u32::MAX, |general| general.media);
    // The same limit as NDIS has media; a protocol that claims more is not read further.
    let index = (0..count.min(64)).find(|index| media.index(*index as usize).read() == own);
    index.ok_or(NdisStatus::UNSUPPORTED_MEDIA)
}

/// An open on its way to the protocol.
#[derive(Debug)]
struct Opened {
    binding: Arc<Binding>,
    /// Addresses of the parameters and of the variable for the handle, which must stay until the open is complete.
    parameters: usize,
    handle_out: usize,
    medium: u32,
}

impl Opened {
    /// Writes what the protocol waits for. From now on it may use the binding.
    fn publish(&self, machine: &Inner) {
        let parameters = Raw::<NDIS_OPEN_PARAMETERS>::at(self.parameters);
        let index = Raw::<u32>::of(field!(parameters, NDIS_OPEN_PARAMETERS, SelectedMediumIndex).read());
        index.write_if_some(self.medium);
        Raw::<usize>::at(self.handle_out).write(self.binding.handle);
        machine.ndis.lock().bindings.push(Arc::clone(&self.binding));
        self.binding.set_state(BindingState::Paused);
        self.binding.set_open(Access::Open);
    }

    /// The rest of an open that returned pending. The parameters must still be there, so this is done as driver code, whose
    /// faults are findings.
    fn complete_later(&self, thread: &Thread) {
        let protocol = &self.binding.protocol;
        let Some(handler) = protocol.callbacks.0.OpenAdapterCompleteHandlerEx else { return };
        let context = Raw::at(self.binding.context).pointer();
        // A stop is recorded in the machine; this thread just ends.
        let _ = thread.call_driver(&protocol.driver, "ProtocolOpenAdapterCompleteEx", 0, || {
            self.publish(thread.machine());
            // SAFETY: the driver's callback, with the arguments that its page documents.
            unsafe { handler(context, NdisStatus::SUCCESS) }
        });
    }
}

extern "efiapi" fn close_adapter(handle: usize) -> NdisStatus {
    let call = Call::enter();
    let binding = call.machine().ndis.binding(&call, handle);
    call.detail(&*binding.port.name);
    if !binding.may_close() {
        call.stop(
            Rule::BadState,
            "legal only within ProtocolBindAdapterEx and ProtocolUnbindAdapterEx; elsewhere call NdisUnbindAdapter",
        );
    }
    if let Some(request) = binding.port.requests_of(&binding).first() {
        call.stop(Rule::BadState, format!("{request} is not complete: wait for all requests before the close"));
    }
    let (received, sent) = call.machine().ndis.in_flight(handle);
    if received + sent != 0 {
        let message =
            format!("{sent} sends are not complete and {received} received lists are not returned before the close");
        call.stop(Rule::BadState, message);
    }
    // The handle ends with the call, whatever it returns.
    call.machine().ndis.lock().bindings.retain(|other| other.handle != handle);
    end_handle(call.machine(), handle);
    binding.set_open(Access::Closing);
    drop_filter(call.thread(), &binding);
    if !call.machine().ndis.pends_closes.load(Ordering::Relaxed) {
        binding.set_open(Access::Closed);
        return NdisStatus::SUCCESS;
    }
    let machine = Arc::clone(call.machine());
    std::thread::spawn(move || {
        Thread::enter(&machine, |thread| complete_close(thread, &binding.protocol, &binding));
    });
    NdisStatus::PENDING
}

/// What the binding wanted to receive is wanted no more: the miniport gets what is left. A protocol should have done so itself.
fn drop_filter(thread: &Thread, binding: &Binding) {
    if binding.packet_filter() == 0 {
        return;
    }
    let rest = binding.port.bindings(thread.machine());
    let rest = rest.iter().fold(0, |all, other| all | other.packet_filter());
    // A miniport that refuses keeps the filter it has.
    let _ = binding.port.set(thread, OID_GEN_CURRENT_PACKET_FILTER, &rest.to_le_bytes());
}

fn complete_close(thread: &Thread, protocol: &Protocol, binding: &Binding) {
    let Some(handler) = protocol.callbacks.0.CloseAdapterCompleteHandlerEx else { return };
    let context = Raw::at(binding.context).pointer();
    binding.set_open(Access::Completing);
    // A stop is recorded in the machine; this thread just ends.
    let _ = thread.call_driver(&protocol.driver, "ProtocolCloseAdapterCompleteEx", 0, || {
        // SAFETY: the driver's callback, with the arguments that its page documents.
        unsafe { handler(context) }
    });
    binding.set_open(Access::Closed);
}
