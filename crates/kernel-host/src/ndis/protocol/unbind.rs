//! The end of a binding: `ProtocolUnbindAdapterEx`, and `NdisUnbindAdapter`.

use std::sync::Arc;

use ndis::NdisStatus;
use ndis::raw::NDIS_PAUSE_UNBIND_PROTOCOL;

use super::binding::{Access, Binding, BindingState};
use super::operation::Operation;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::ndis::adapter::AdapterError;
use crate::ndis::lifecycle::completion_time;
use crate::ndis::port::Port;
use crate::nt::raw::Raw;
use crate::thread::Thread;

exports! { pub(in crate::ndis) EXPORTS in "ndis.sys":
    NdisUnbindAdapter(max 2, fails NDIS_RESOURCES) = unbind_adapter;
}

extern "efiapi" fn unbind_adapter(handle: usize) -> NdisStatus {
    let call = Call::enter();
    let binding = call.machine().ndis.binding(&call, handle);
    call.detail(&*binding.port.name);
    let machine = Arc::clone(call.machine());
    // A stop is recorded in the machine; the thread just ends.
    std::thread::spawn(move || Thread::enter(&machine, |thread| binding.unbind(thread).ok()));
    NdisStatus::SUCCESS
}

impl Binding {
    /// Unbinds from a running adapter: its stack is paused for that. Nothing happens when the binding is gone already.
    pub(in crate::ndis) fn unbind(self: &Arc<Self>, thread: &Arc<Thread>) -> Result<(), AdapterError> {
        self.port.gate.enter(thread.machine())?;
        let unbound = self.unbind_running(thread);
        self.port.gate.leave();
        unbound
    }

    fn unbind_running(self: &Arc<Self>, thread: &Arc<Thread>) -> Result<(), AdapterError> {
        if self.open() == Access::Closed {
            return Ok(());
        }
        let was_running = self.port.pause_stack(thread, NDIS_PAUSE_UNBIND_PROTOCOL)?;
        self.unbind_paused(thread)?;
        if was_running { self.port.restart_stack(thread) } else { Ok(()) }
    }

    /// Unbinds from an adapter whose stack is paused.
    fn unbind_paused(self: &Arc<Self>, thread: &Arc<Thread>) -> Result<(), AdapterError> {
        const CALLBACK: &str = "ProtocolUnbindAdapterEx";
        let protocol = &self.protocol;
        let find = |rule, message: String| Err(protocol.find(thread, rule, CALLBACK, message));
        let Some(handler) = protocol.callbacks.0.UnbindAdapterHandlerEx else { return Ok(()) };
        let operation = Operation::begin(thread.machine(), protocol, &self.port, 0, Some(Arc::clone(self)));
        let operation = operation.ok_or(AdapterError::Status(NdisStatus::RESOURCES))?;
        self.set_state(BindingState::Closing);
        self.set_may_close(true);
        let (unbind_context, context) = (Raw::at(operation.handle).pointer(), Raw::at(self.context).pointer());
        let returned = thread.call_driver(&protocol.driver, CALLBACK, 0, || {
            // SAFETY: the driver's callback, with the arguments that its page documents.
            unsafe { handler(unbind_context, context) }
        })?;
        if returned == NdisStatus::SUCCESS && !matches!(self.open(), Access::Closed | Access::Completing) {
            let open = self.open();
            let message = format!("returned success, but the binding is not closed ({open:?})");
            return find(Rule::BadState, message);
        }
        match operation.outcome(thread, returned)? {
            NdisStatus::SUCCESS => {}
            refused => return find(Rule::BadState, format!("returned {refused}; an unbind cannot fail")),
        }
        // The callback that completed the close may still be on its way back.
        if !self.wait_closed(thread.machine(), completion_time(thread.machine()))? {
            return find(Rule::Deadlock, "ProtocolCloseAdapterCompleteEx does not return".to_owned());
        }
        self.set_state(BindingState::Unbound);
        Ok(())
    }
}

impl Port {
    /// Unbinds every protocol from an adapter whose stack is paused: the adapter goes away.
    pub(in crate::ndis) fn unbind_paused(&self, thread: &Arc<Thread>) -> Result<(), AdapterError> {
        self.bindings(thread.machine()).iter().try_for_each(|binding| binding.unbind_paused(thread))
    }
}
