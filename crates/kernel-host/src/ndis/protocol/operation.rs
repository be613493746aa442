//! Bind operations: `ProtocolBindAdapterEx` and its completion. Unbind operations use the same contexts.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ndis::NdisStatus;
use ndis::raw::NDIS_PAUSE_BIND_PROTOCOL;

use super::Protocol;
use super::binding::{Access, Binding, BindingState};
use super::parameters::Parameters;
use crate::ddi::{Call, exports};
use crate::finding::{Rule, Stopped};
use crate::machine::Inner;
use crate::ndis::adapter::{AdapterError, AdapterState};
use crate::ndis::lifecycle::completion_time;
use crate::ndis::port::Port;
use crate::ndis::{end_handle, new_handle};
use crate::nt::raw::Raw;
use crate::thread::Thread;

exports! { pub(in crate::ndis) EXPORTS in "ndis.sys":
    NdisCompleteBindAdapterEx(max 2) = complete_bind;
    NdisCompleteUnbindAdapterEx(max 2) = complete_unbind;
}

/// How long a wait sleeps before it looks whether the machine has stopped.
const NAP: Duration = Duration::from_millis(20);

/// What a `BindContext` or `UnbindContext` stands for.
#[derive(Debug)]
pub(in crate::ndis) struct Operation {
    pub(super) handle: usize,
    pub(in crate::ndis) protocol: Arc<Protocol>,
    pub(in crate::ndis) port: Arc<Port>,
    /// Whether it is a bind operation.
    pub(super) is_bind: bool,
    /// Address of the bind parameters.
    pub(in crate::ndis) parameters: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    /// The callback runs.
    is_running: bool,
    completed: Option<NdisStatus>,
    binding: Option<Arc<Binding>>,
}

impl Operation {
    /// Begins an operation; `None` when memory is short.
    pub(super) fn begin(
        machine: &Inner,
        protocol: &Arc<Protocol>,
        port: &Arc<Port>,
        parameters: usize,
        binding: Option<Arc<Binding>>,
    ) -> Option<Arc<Self>> {
        let handle = new_handle(machine);
        let operation = Arc::new(Self {
            handle,
            protocol: Arc::clone(protocol),
            port: Arc::clone(port),
            is_bind: binding.is_none(),
            parameters,
            state: Mutex::new(State { is_running: true, completed: None, binding }),
            changed: Condvar::new(),
        });
        if handle == 0 {
            return None;
        }
        machine.ndis.lock().operations.insert(handle, Arc::clone(&operation));
        Some(operation)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the callback runs, within which an adapter may be opened.
    pub(super) fn is_running(&self) -> bool {
        self.lock().is_running
    }

    pub(in crate::ndis) fn binding(&self) -> Option<Arc<Binding>> {
        self.lock().binding.clone()
    }

    pub(super) fn set_binding(&self, binding: Option<Arc<Binding>>) {
        self.lock().binding = binding;
    }

    /// The final status, when the callback returned `returned`. The context is over then.
    pub(super) fn outcome(&self, thread: &Thread, returned: NdisStatus) -> Result<NdisStatus, AdapterError> {
        let callback = if self.is_bind { "ProtocolBindAdapterEx" } else { "ProtocolUnbindAdapterEx" };
        let completed = self.completion(thread.machine(), returned == NdisStatus::PENDING)?;
        thread.machine().ndis.lock().operations.remove(&self.handle);
        end_handle(thread.machine(), self.handle);
        match (returned, completed) {
            (NdisStatus::PENDING, Some(status)) => Ok(status),
            (NdisStatus::PENDING, None) => {
                let message = "pended, and not completed in time".to_owned();
                Err(self.protocol.find(thread, Rule::Deadlock, callback, message))
            }
            (_, Some(_)) => {
                let message = format!("completed with a call, although it returned {returned}");
                Err(self.protocol.find(thread, Rule::BadState, callback, message))
            }
            (status, None) => Ok(status),
        }
    }

    fn completion(&self, machine: &Inner, is_pended: bool) -> Result<Option<NdisStatus>, Stopped> {
        let deadline = Instant::now() + completion_time(machine);
        let mut state = self.lock();
        state.is_running = false;
        while is_pended && state.completed.is_none() && Instant::now() < deadline {
            if let Some(stopped) = machine.stopped() {
                return Err(stopped);
            }
            state = self.changed.wait_timeout(state, NAP).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(state.completed)
    }

    fn complete(&self, status: NdisStatus) -> bool {
        let mut state = self.lock();
        let is_first = state.completed.is_none();
        state.completed.get_or_insert(status);
        self.changed.notify_all();
        is_first
    }
}

impl Protocol {
    /// Has the protocol bind to a running adapter: its stack is paused for that.
    pub(in crate::ndis) fn bind(self: &Arc<Self>, thread: &Arc<Thread>, port: &Arc<Port>) -> Result<(), AdapterError> {
        port.gate.enter(thread.machine())?;
        let bound = self.bind_running(thread, port);
        port.gate.leave();
        bound
    }

    fn bind_running(self: &Arc<Self>, thread: &Arc<Thread>, port: &Arc<Port>) -> Result<(), AdapterError> {
        if matches!(port.state(), AdapterState::Initializing | AdapterState::Halted) {
            return Err(AdapterError::Status(NdisStatus::ADAPTER_NOT_FOUND));
        }
        if self.is_bound_to(thread.machine(), port) {
            return Ok(());
        }
        let was_running = port.pause_stack(thread, NDIS_PAUSE_BIND_PROTOCOL)?;
        let bound = self.bind_paused(thread, port);
        if was_running && !matches!(bound, Err(AdapterError::Stopped(_))) {
            port.restart_stack(thread)?;
        }
        bound
    }

    /// Has the protocol bind to an adapter whose stack is paused. Nothing happens when it is bound already.
    pub(in crate::ndis) fn bind_paused(
        self: &Arc<Self>,
        thread: &Arc<Thread>,
        port: &Arc<Port>,
    ) -> Result<(), AdapterError> {
        const CALLBACK: &str = "ProtocolBindAdapterEx";
        let machine = thread.machine();
        let refuse = |status| Err(AdapterError::Status(status));
        if self.is_bound_to(machine, port) {
            return Ok(());
        }
        let Some(handler) = self.callbacks.0.BindAdapterHandlerEx else { return refuse(NdisStatus::FAILURE) };
        let Some(parameters) = Parameters::new(machine, self, port) else { return refuse(NdisStatus::RESOURCES) };
        let address = parameters.structure.address();
        let Some(operation) = Operation::begin(machine, self, port, address, None) else {
            return refuse(NdisStatus::RESOURCES);
        };
        let (context, bind_context) = (Raw::at(self.context).pointer(), Raw::at(operation.handle).pointer());
        let returned = thread.call_driver(&self.driver, CALLBACK, 0, || {
            // SAFETY: the driver's callback, with the arguments that its page documents.
            unsafe { handler(context, bind_context, parameters.structure.raw().pointer()) }
        })?;
        let status = operation.outcome(thread, returned)?;
        drop(parameters);
        let binding = operation.binding();
        if let Some(binding) = &binding {
            binding.set_may_close(false);
        }
        let open = binding.as_ref().map_or(Access::Closed, |binding| binding.open());
        match (status, open) {
            (NdisStatus::SUCCESS, Access::Open) => {
                // The open has made it Paused; a restart may follow.
                Ok(())
            }
            (NdisStatus::SUCCESS, open) => {
                let message = format!("bound with success, but the adapter is not open ({open:?})");
                Err(self.find(thread, Rule::BadState, CALLBACK, message))
            }
            (refused, Access::Closed) => refuse(refused),
            (refused, open) => {
                let message = format!(
                    "failed with {refused}, but the adapter is still open ({open:?}): close it, and wait for the close, first"
                );
                Err(self.find(thread, Rule::HandleLeak, CALLBACK, message))
            }
        }
    }

    fn is_bound_to(&self, machine: &Inner, port: &Port) -> bool {
        port.bindings(machine).iter().any(|binding| binding.protocol.handle == self.handle)
    }

    /// Records a finding against the protocol, outside of driver code.
    pub(super) fn find(&self, thread: &Thread, rule: Rule, callback: &str, message: String) -> AdapterError {
        AdapterError::Stopped(crate::ndis::find(thread, &self.driver, rule, callback, message))
    }
}

extern "efiapi" fn complete_bind(context: usize, status: NdisStatus) {
    let call = Call::enter();
    call.detail(status);
    let operation = operation(&call, context, true);
    if status == NdisStatus::PENDING {
        call.stop(Rule::BadArgument, "NDIS_STATUS_PENDING is no final status");
    }
    if !operation.complete(status) {
        call.stop(Rule::BadState, "the bind operation is completed already");
    }
}

extern "efiapi" fn complete_unbind(context: usize) {
    let call = Call::enter();
    let operation = operation(&call, context, false);
    let open = operation.binding().map_or(Access::Closed, |binding| binding.open());
    if !matches!(open, Access::Closed | Access::Completing) {
        call.stop(Rule::BadState, format!("the binding is not closed yet ({open:?}): NdisCloseAdapterEx comes first"));
    }
    if let Some(binding) = operation.binding() {
        binding.set_state(BindingState::Unbound);
    }
    if !operation.complete(NdisStatus::SUCCESS) {
        call.stop(Rule::BadState, "the unbind operation is completed already");
    }
}

/// The operation behind a context that a driver passed. Stops on one that is none, or is over.
fn operation(call: &Call, context: usize, is_bind: bool) -> Arc<Operation> {
    let operation = call.machine().ndis.lock().operations.get(&context).cloned();
    let operation = operation
        .filter(|operation| operation.is_bind == is_bind && Arc::ptr_eq(&operation.protocol.driver, call.driver()));
    operation.unwrap_or_else(|| {
        let what = if is_bind { "BindContext" } else { "UnbindContext" };
        call.stop(Rule::InvalidHandle, format!("{context:#x} is no {what}, or one whose operation is complete"))
    })
}
