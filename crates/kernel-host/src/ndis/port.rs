//! An adapter as NDIS sees it: a miniport at the bottom of a stack of bindings.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use ndis::NdisStatus;

use super::adapter::{AdapterError, AdapterState};
use super::attributes::Attributes;
use super::filter::Module;
use super::gate::Gate;
use super::new_handle;
use super::oid::Requests;
use super::protocol::Binding;
use super::registration::Miniport;
use super::status::StatusIndication;
use crate::ddi::Call;
use crate::finding::{Rule, Stopped};
use crate::machine::Inner;
use crate::nt::hive::{Key, Value};
use crate::nt::raw::Raw;
use crate::thread::Thread;

/// Where the software keys of network adapters live.
const CLASS: &str = r"\Registry\Machine\System\CurrentControlSet\Control\Class\{4d36e972-e325-11ce-bfc1-08002be10318}";

/// IANA interface type of Ethernet, as part of an interface LUID.
const ETHERNET_LUID: u64 = 6 << 48;

/// Status indications that are remembered.
const REMEMBERED: usize = 1024;

/// An adapter.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) handle: usize,
    pub(super) miniport: Arc<Miniport>,
    /// The name that the test gave.
    pub(super) name: String,
    /// The name by which protocols open it: `\DEVICE\{GUID}`.
    pub(super) device_name: String,
    /// Interface index, from 1.
    pub(super) index: u32,
    /// The adapter's software key.
    pub(super) parameters: Arc<Key>,
    /// OID requests that wait, and those that the miniport works on.
    pub(super) requests: Requests,
    /// One Plug and Play operation at a time.
    pub(super) gate: Gate,
    /// Filter modules, from the miniport upwards.
    modules: Mutex<Vec<Arc<Module>>>,
    state: Mutex<PortState>,
    pub(super) changed: Condvar,
}

/// What changes of an adapter.
#[derive(Debug)]
pub(super) struct PortState {
    pub(super) state: AdapterState,
    pub(super) attributes: Attributes,
    /// The thread that `MiniportInitializeEx` runs on.
    pub(super) initializer: Option<u32>,
    /// The thread that `MiniportAddDevice` runs on.
    pub(super) adder: Option<u32>,
    /// Status of a pended pause or restart.
    pub(super) completed: Option<NdisStatus>,
    /// `MiniportResetEx` was called and the reset is not complete.
    pub(super) is_resetting: bool,
    /// What `NdisMResetComplete` said: final status, and whether NDIS restores addresses.
    pub(super) reset: Option<(NdisStatus, bool)>,
    /// The device is in a low power state.
    pub(super) is_asleep: bool,
    /// No new request is taken: the adapter goes away.
    pub(super) is_closing: bool,
    /// Calls of `MiniportCheckForHangEx` that the request at work has seen.
    pub(super) hang_checks: u32,
    /// Status indications seen.
    pub(super) indications: VecDeque<StatusIndication>,
}

impl Port {
    /// Makes the adapter and its software key.
    pub(super) fn create(
        machine: &Inner,
        miniport: Arc<Miniport>,
        name: &str,
        parameters: &[(&str, &str)],
    ) -> Result<Arc<Self>, NdisStatus> {
        let mut state = machine.ndis.lock();
        let instance = state.next_instance;
        state.next_instance += 1;
        let defaults = state.defaults.get(&miniport.service.to_lowercase()).cloned();
        drop(state);
        let path = format!(r"{CLASS}\{instance:04}");
        let key = machine.nt.hive().create(&path).map_err(|_| NdisStatus::FAILURE)?;
        let guid = format!("{{6B65726E-656C-2D68-6F73-{instance:012X}}}");
        let set = |name: &str, value| key.set_value(name, value).map_err(|_| NdisStatus::FAILURE);
        set("NetCfgInstanceId", Value::text(&guid))?;
        if let Some(defaults) = defaults {
            for (value_name, value) in defaults.values().unwrap_or_default() {
                set(&value_name, value)?;
            }
        }
        for (parameter, value) in parameters {
            set(parameter, Value::text(value))?;
        }
        let handle = new_handle(machine);
        if handle == 0 {
            return Err(NdisStatus::RESOURCES);
        }
        Ok(Arc::new(Self {
            handle,
            miniport,
            name: name.to_owned(),
            device_name: format!(r"\DEVICE\{guid}"),
            index: instance + 1,
            parameters: key,
            requests: Requests::default(),
            gate: Gate::default(),
            modules: Mutex::default(),
            state: Mutex::new(PortState {
                state: AdapterState::Initializing,
                attributes: Attributes::default(),
                initializer: None,
                adder: None,
                completed: None,
                is_resetting: false,
                reset: None,
                is_asleep: false,
                is_closing: false,
                hang_checks: 0,
                indications: VecDeque::new(),
            }),
            changed: Condvar::new(),
        }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, PortState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> AdapterState {
        self.lock().state
    }

    pub(super) fn set_state(&self, state: AdapterState) {
        self.lock().state = state;
    }

    /// LUID of the interface: type and index.
    pub(super) fn luid(&self) -> u64 {
        ETHERNET_LUID | u64::from(self.index) << 24
    }

    pub(super) fn attributes(&self) -> Attributes {
        self.lock().attributes.clone()
    }

    pub(super) fn set_attributes(&self, attributes: Attributes) {
        self.lock().attributes = attributes;
    }

    /// Whether `MiniportInitializeEx` for this adapter runs on `thread`.
    pub(super) fn is_initialized_by(&self, thread: &Thread) -> bool {
        self.lock().initializer == Some(thread.id())
    }

    /// `MiniportAdapterContext` for callbacks.
    pub(super) fn context(&self) -> *mut std::ffi::c_void {
        Raw::at(self.lock().attributes.context.unwrap_or(0)).pointer()
    }

    /// Protocols that are bound to the adapter, in the order in which they opened it.
    pub(super) fn bindings(&self, machine: &Inner) -> Vec<Arc<Binding>> {
        let state = machine.ndis.lock();
        state.bindings.iter().filter(|binding| binding.port.handle == self.handle).cloned().collect()
    }

    fn lock_modules(&self) -> MutexGuard<'_, Vec<Arc<Module>>> {
        self.modules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Filter modules, from the miniport upwards, also while they attach.
    pub(super) fn all_modules(&self) -> Vec<Arc<Module>> {
        self.lock_modules().clone()
    }

    /// Puts a module into the stack, right below the first one that belongs above it.
    pub(super) fn insert_module(&self, module: Arc<Module>, is_above: impl Fn(&Module) -> bool) {
        let mut modules = self.lock_modules();
        let place = modules.iter().position(|other| is_above(other)).unwrap_or(modules.len());
        modules.insert(place, module);
    }

    /// Takes a module out of the stack.
    pub(super) fn remove_module(&self, handle: usize) {
        self.lock_modules().retain(|module| module.handle != handle);
    }

    /// Keeps an indication for [`Adapter::status_indications`](super::adapter::Adapter::status_indications).
    pub(super) fn remember(&self, indication: StatusIndication) {
        let indications = &mut self.lock().indications;
        if indications.len() == REMEMBERED {
            indications.pop_front();
        }
        indications.push_back(indication);
    }

    /// Calls a callback of the miniport at `PASSIVE_LEVEL`.
    pub(super) fn call<R>(
        &self,
        thread: &Thread,
        callback: &'static str,
        body: impl FnOnce() -> R,
    ) -> Result<R, Stopped> {
        thread.call_driver(&self.miniport.driver, callback, 0, body)
    }

    /// Records a finding against the miniport, outside of driver code.
    pub(super) fn find(&self, thread: &Thread, rule: Rule, callback: &str, message: String) -> AdapterError {
        AdapterError::Stopped(super::find(thread, &self.miniport.driver, rule, callback, message))
    }

    /// Stops on a callback or completion that comes while the adapter is not in a state that allows it.
    pub(super) fn wrong_state(&self, call: &Call, what: &str) -> ! {
        call.stop(Rule::BadState, format!("adapter {} is {:?}: {what}", self.name, self.state()));
    }
}
