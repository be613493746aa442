//! Adapters: what Plug and Play and the upper edge of NDIS do with a miniport.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ndis::NdisStatus;
use ndis::raw::{
    NDIS_MINIPORT_INIT_PARAMETERS, NDIS_MINIPORT_PAUSE_PARAMETERS, NDIS_MINIPORT_RESTART_PARAMETERS,
    NDIS_OBJECT_HEADER, NDIS_OBJECT_TYPE_DEFAULT, NDIS_OBJECT_TYPE_MINIPORT_INIT_PARAMETERS, NdisHaltDeviceDisabled,
    NdisHaltDeviceSurpriseRemoved, NdisShutdownPowerOff,
};

use super::attributes::Attributes;
use super::oid::InFlight;
use super::registration::{self, Miniport};
use super::{end_handle, file, new_handle};
use crate::ddi::{Call, exports};
use crate::finding::{Rule, Stopped};
use crate::machine::{Inner, Machine};
use crate::nt::hive::{Key, Value};
use crate::nt::raw::Raw;
use crate::thread::Thread;

exports! { pub(super) EXPORTS in "ndis.sys":
    NdisMPauseComplete(max 2) = pause_complete;
    NdisMRestartComplete(max 2) = restart_complete;
}

/// How long a miniport may take to complete what it pended, before that counts as never.
const COMPLETION_TIME: Duration = Duration::from_secs(10);

/// Where the software keys of network adapters live.
const CLASS: &str = r"\Registry\Machine\System\CurrentControlSet\Control\Class\{4d36e972-e325-11ce-bfc1-08002be10318}";

/// IANA interface type of Ethernet, as part of an interface LUID.
const ETHERNET_LUID: u64 = 6 << 48;

/// `NetDevicePnPEvent` of a device that was pulled.
const SURPRISE_REMOVED: u32 = 1;

/// Why an adapter could not be added, or a request of it failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AdapterError {
    /// The miniport, or NDIS, said no.
    #[error("{0}")]
    Status(NdisStatus),
    /// The machine stopped on a finding.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl AdapterError {
    /// The status, unless the machine stopped.
    #[must_use]
    pub fn status(&self) -> Option<NdisStatus> {
        match self {
            Self::Status(status) => Some(*status),
            Self::Stopped(_) => None,
        }
    }
}

/// States of an adapter, as the page "Miniport Adapter States and Operations" names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdapterState {
    /// `MiniportInitializeEx` runs.
    Initializing,
    /// Initialised, no data flows.
    Paused,
    /// `MiniportRestart` was called and is not complete.
    Restarting,
    /// Data may flow.
    Running,
    /// `MiniportPause` was called and is not complete.
    Pausing,
    /// Gone.
    Halted,
}

/// An adapter as NDIS sees it.
#[derive(Debug)]
pub(super) struct Port {
    pub(super) handle: usize,
    pub(super) miniport: Arc<Miniport>,
    pub(super) name: String,
    /// The adapter's software key.
    pub(super) parameters: Arc<Key>,
    pub(super) in_flight: Mutex<Option<InFlight>>,
    /// Serialises OID requests: a miniport gets one at a time.
    pub(super) one_request: Mutex<()>,
    state: Mutex<PortState>,
    changed: Condvar,
}

#[derive(Debug)]
struct PortState {
    state: AdapterState,
    attributes: Attributes,
    /// The thread that `MiniportInitializeEx` runs on.
    initializer: Option<u32>,
    /// Status of a pended pause or restart.
    completed: Option<NdisStatus>,
}

/// An adapter that a test added to a machine. Dropping it leaves the adapter where it is.
#[derive(Debug)]
pub struct Adapter {
    machine: Machine,
    port: Arc<Port>,
    is_gone: AtomicBool,
}

impl Machine {
    /// Plugs in a network adapter `name` for the loaded driver of `service`, and starts it: `MiniportInitializeEx`, `MiniportRestart`.
    ///
    /// Its registry parameters are the defaults of the service's INF, and over these `parameters` as texts.
    ///
    /// # Errors
    /// `NDIS_STATUS_ADAPTER_NOT_FOUND` when no miniport of that service is registered; the status with which `MiniportInitializeEx` or
    /// `MiniportRestart` failed; a finding.
    pub fn add_adapter(&self, service: &str, name: &str, parameters: &[(&str, &str)]) -> Result<Adapter, AdapterError> {
        let machine = self.inner();
        let miniport =
            registration::find(machine, service).ok_or(AdapterError::Status(NdisStatus::ADAPTER_NOT_FOUND))?;
        let port = Port::create(machine, miniport, name, parameters).map_err(AdapterError::Status)?;
        Thread::enter(machine, |thread| port.start(thread))?;
        Ok(Adapter { machine: self.clone(), port, is_gone: AtomicBool::new(false) })
    }
}

impl Adapter {
    /// Name, as given when it was added.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.port.name
    }

    /// Where the adapter is in its life.
    #[must_use]
    pub fn state(&self) -> AdapterState {
        self.port.lock().state
    }

    /// Address of the adapter, as its general attributes say.
    #[must_use]
    pub fn mac_address(&self) -> Vec<u8> {
        self.port.attributes().general.map(|general| general.mac_address).unwrap_or_default()
    }

    /// The OIDs that the miniport says it handles.
    #[must_use]
    pub fn supported_oids(&self) -> Vec<u32> {
        self.port.attributes().general.map(|general| general.oids).unwrap_or_default()
    }

    /// Asks for the value of an object, with room for `length` bytes.
    ///
    /// # Errors
    /// The miniport's status; a finding.
    pub fn oid_query(&self, oid: u32, length: usize) -> Result<Vec<u8>, AdapterError> {
        self.enter(|thread| self.port.query(thread, oid, length))
    }

    /// Sets an object.
    ///
    /// # Errors
    /// The miniport's status; a finding.
    pub fn oid_set(&self, oid: u32, value: &[u8]) -> Result<(), AdapterError> {
        self.enter(|thread| self.port.set(thread, oid, value))
    }

    /// Stops the flow of data.
    ///
    /// # Errors
    /// `NDIS_STATUS_FAILURE` when it does not run; a finding.
    pub fn pause(&self) -> Result<(), AdapterError> {
        self.enter(|thread| self.port.pause(thread))
    }

    /// Lets data flow again.
    ///
    /// # Errors
    /// The miniport's status; `NDIS_STATUS_FAILURE` when it is not paused; a finding.
    pub fn restart(&self) -> Result<(), AdapterError> {
        self.enter(|thread| self.port.restart(thread))
    }

    /// The orderly end: `MiniportPause`, `MiniportHaltEx`.
    ///
    /// # Errors
    /// A finding.
    pub fn remove(self) -> Result<(), AdapterError> {
        self.is_gone.store(true, Ordering::Relaxed);
        self.enter(|thread| self.port.remove(thread, NdisHaltDeviceDisabled))
    }

    /// The device is pulled: the miniport is told, and halted.
    ///
    /// # Errors
    /// A finding.
    pub fn surprise_remove(self) -> Result<(), AdapterError> {
        self.is_gone.store(true, Ordering::Relaxed);
        self.enter(|thread| self.port.surprise_remove(thread))
    }

    /// The machine is switched off: `MiniportShutdownEx`, and nothing after it.
    ///
    /// # Errors
    /// A finding.
    pub fn shut_down(self) -> Result<(), AdapterError> {
        self.is_gone.store(true, Ordering::Relaxed);
        self.enter(|thread| self.port.shut_down(thread))
    }

    fn enter<R>(&self, body: impl FnOnce(&Arc<Thread>) -> Result<R, AdapterError>) -> Result<R, AdapterError> {
        Thread::enter(self.machine.inner(), body)
    }
}

impl Port {
    fn create(
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
        if let Some(defaults) = defaults {
            for (value_name, value) in defaults.values().unwrap_or_default() {
                key.set_value(&value_name, value).map_err(|_| NdisStatus::FAILURE)?;
            }
        }
        for (parameter, value) in parameters {
            key.set_value(parameter, Value::text(value)).map_err(|_| NdisStatus::FAILURE)?;
        }
        let handle = new_handle(machine);
        if handle == 0 {
            return Err(NdisStatus::RESOURCES);
        }
        Ok(Arc::new(Self {
            handle,
            miniport,
            name: name.to_owned(),
            parameters: key,
            in_flight: Mutex::new(None),
            one_request: Mutex::new(()),
            state: Mutex::new(PortState {
                state: AdapterState::Initializing,
                attributes: Attributes::default(),
                initializer: None,
                completed: None,
            }),
            changed: Condvar::new(),
        }))
    }

    fn lock(&self) -> MutexGuard<'_, PortState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn state(&self) -> AdapterState {
        self.lock().state
    }

    fn set_state(&self, state: AdapterState) {
        self.lock().state = state;
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

    /// Calls a callback of the miniport at `PASSIVE_LEVEL`.
    pub(super) fn call<R>(
        &self,
        thread: &Thread,
        callback: &'static str,
        body: impl FnOnce() -> R,
    ) -> Result<R, Stopped> {
        thread.call_driver(&self.miniport.driver, callback, 0, body)
    }

    /// Records a finding outside of driver code.
    pub(super) fn find(&self, thread: &Thread, rule: Rule, callback: &str, message: String) -> AdapterError {
        let mut finding = thread.finding(rule, message, None);
        callback.clone_into(&mut finding.call);
        finding.driver.clone_from(&self.miniport.driver.name);
        thread.machine().record(finding.clone());
        AdapterError::Stopped(Stopped(Box::new(finding)))
    }

    fn start(self: &Arc<Self>, thread: &Arc<Thread>) -> Result<(), AdapterError> {
        thread.machine().ndis.lock().ports.insert(self.handle, Arc::clone(self));
        let started = self.initialize(thread).and_then(|()| {
            self.restart(thread).inspect_err(|error| {
                if error.status().is_some() {
                    // A finding of the halt is kept by the machine; what the caller wants to know is why the start failed.
                    let _ = self.halt(thread, ndis::raw::NdisHaltDeviceInitializationFailed);
                }
            })
        });
        if started.is_err() {
            self.forget(thread);
        }
        started
    }

    fn initialize(&self, thread: &Thread) -> Result<(), AdapterError> {
        const CALLBACK: &str = "MiniportInitializeEx";
        let callbacks = &self.miniport.callbacks.0;
        let Some(handler) = callbacks.InitializeHandlerEx else {
            return Err(AdapterError::Status(NdisStatus::FAILURE));
        };
        let size = size_of::<NDIS_MINIPORT_INIT_PARAMETERS>() as u16;
        let mut parameters = NDIS_MINIPORT_INIT_PARAMETERS {
            Header: NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_MINIPORT_INIT_PARAMETERS, 1, size),
            Flags: 0,
            AllocatedResources: std::ptr::null_mut(),
            IMDeviceInstanceContext: std::ptr::null_mut(),
            MiniportAddDeviceContext: std::ptr::null_mut(),
            IfIndex: 1,
            NetLuid: ETHERNET_LUID | 1 << 24,
            DefaultPortAuthStates: std::ptr::null_mut(),
            PciDeviceCustomProperties: std::ptr::null_mut(),
        };
        self.lock().initializer = Some(thread.id());
        let (handle, context) = (Raw::at(self.handle).pointer(), Raw::at(self.miniport.context).pointer());
        let parameters = &raw mut parameters;
        let result = self.call(thread, CALLBACK, || {
            // SAFETY: the driver's callback, with the arguments that its page documents.
            unsafe { handler(handle, context, parameters) }
        });
        self.lock().initializer = None;
        let status = result?;
        let left_open = file::left_open(thread.machine(), self.handle);
        if let Some(name) = left_open.first() {
            let message = format!("returned without NdisCloseFile for {name}");
            return Err(self.find(thread, Rule::HandleLeak, CALLBACK, message));
        }
        match status {
            NdisStatus::SUCCESS => {}
            NdisStatus::PENDING => {
                let message = "returned NDIS_STATUS_PENDING; initialisation cannot be pended".to_owned();
                return Err(self.find(thread, Rule::BadState, CALLBACK, message));
            }
            refused => return Err(AdapterError::Status(refused)),
        }
        if self.attributes().general.is_none() {
            let message = "returned success without having set the general attributes".to_owned();
            return Err(self.find(thread, Rule::BadState, CALLBACK, message));
        }
        self.set_state(AdapterState::Paused);
        Ok(())
    }

    fn restart(&self, thread: &Thread) -> Result<(), AdapterError> {
        let Some(handler) = self.miniport.callbacks.0.RestartHandler else {
            return Err(AdapterError::Status(NdisStatus::FAILURE));
        };
        self.begin(AdapterState::Paused, AdapterState::Restarting)?;
        let mut parameters = NDIS_MINIPORT_RESTART_PARAMETERS {
            Header: NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_DEFAULT, 1, 20),
            RestartAttributes: std::ptr::null_mut(),
            Flags: 0,
        };
        let (context, parameters) = (self.context(), &raw mut parameters);
        let status = self.call(thread, "MiniportRestart", || {
            // SAFETY: the driver's callback, with the arguments that its page documents.
            unsafe { handler(context, parameters) }
        })?;
        let status = self.completion(thread, "MiniportRestart", status)?;
        let restarted = status == NdisStatus::SUCCESS;
        self.set_state(if restarted { AdapterState::Running } else { AdapterState::Paused });
        if restarted { Ok(()) } else { Err(AdapterError::Status(status)) }
    }

    fn pause(&self, thread: &Thread) -> Result<(), AdapterError> {
        let Some(handler) = self.miniport.callbacks.0.PauseHandler else {
            return Err(AdapterError::Status(NdisStatus::FAILURE));
        };
        self.begin(AdapterState::Running, AdapterState::Pausing)?;
        let mut parameters = NDIS_MINIPORT_PAUSE_PARAMETERS {
            Header: NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_DEFAULT, 1, 12),
            Flags: 0,
            PauseReason: 0,
        };
        let (context, parameters) = (self.context(), &raw mut parameters);
        let status = self.call(thread, "MiniportPause", || {
            // SAFETY: the driver's callback, with the arguments that its page documents.
            unsafe { handler(context, parameters) }
        })?;
        let status = self.completion(thread, "MiniportPause", status)?;
        if status != NdisStatus::SUCCESS {
            let message = format!("returned {status}; a pause cannot fail");
            return Err(self.find(thread, Rule::BadState, "MiniportPause", message));
        }
        self.set_state(AdapterState::Paused);
        Ok(())
    }

    fn begin(&self, from: AdapterState, to: AdapterState) -> Result<(), AdapterError> {
        let mut state = self.lock();
        if state.state != from {
            return Err(AdapterError::Status(NdisStatus::FAILURE));
        }
        state.state = to;
        Ok(())
    }

    /// The final status of a pause or restart that returned `status`.
    fn completion(&self, thread: &Thread, callback: &str, status: NdisStatus) -> Result<NdisStatus, AdapterError> {
        let mut state = self.lock();
        if status == NdisStatus::PENDING {
            let waiting = self.changed.wait_timeout_while(state, COMPLETION_TIME, |state| state.completed.is_none());
            state = waiting.unwrap_or_else(PoisonError::into_inner).0;
        }
        let completed = state.completed.take();
        drop(state);
        match (status, completed) {
            (NdisStatus::PENDING, Some(status)) => Ok(status),
            (NdisStatus::PENDING, None) => {
                let message = format!("pended, and not completed within {COMPLETION_TIME:?}");
                Err(self.find(thread, Rule::Deadlock, callback, message))
            }
            (_, Some(_)) => {
                let message = format!("completed with a call, although it returned {status}");
                Err(self.find(thread, Rule::BadState, callback, message))
            }
            (status, None) => Ok(status),
        }
    }

    fn complete(&self, call: &Call, expected: AdapterState, status: NdisStatus) {
        let mut state = self.lock();
        let now = state.state;
        if now == expected && state.completed.is_none() {
            state.completed = Some(status);
            self.changed.notify_all();
            return;
        }
        drop(state);
        call.stop(Rule::BadState, format!("adapter {} is {now:?}: there is nothing to complete", self.name));
    }

    fn remove(&self, thread: &Thread, action: u32) -> Result<(), AdapterError> {
        let paused = if self.state() == AdapterState::Running { self.pause(thread) } else { Ok(()) };
        let removed = paused.and_then(|()| self.halt(thread, action));
        self.forget(thread);
        removed
    }

    fn surprise_remove(&self, thread: &Thread) -> Result<(), AdapterError> {
        // NET_DEVICE_PNP_EVENT: header, port number, event, buffer, its length.
        let mut event: [u64; 12] = [0; 12];
        event[0] = u64::from(NDIS_OBJECT_TYPE_DEFAULT) | 1 << 8 | (size_of_val(&event) as u64) << 16;
        event[1] = u64::from(SURPRISE_REMOVED);
        if let Some(handler) = self.miniport.callbacks.0.DevicePnPEventNotifyHandler {
            let (context, event) = (self.context(), (&raw mut event).cast());
            self.call(thread, "MiniportDevicePnPEventNotify", || {
                // SAFETY: the driver's callback, with the arguments that its page documents.
                unsafe { handler(context, event) }
            })?;
        }
        self.remove(thread, NdisHaltDeviceSurpriseRemoved)
    }

    fn halt(&self, thread: &Thread, action: u32) -> Result<(), AdapterError> {
        let Some(handler) = self.miniport.callbacks.0.HaltHandlerEx else { return Ok(()) };
        let context = self.context();
        self.call(thread, "MiniportHaltEx", || {
            // SAFETY: the driver's callback, with the arguments that its page documents.
            unsafe { handler(context, action) }
        })?;
        Ok(())
    }

    fn shut_down(&self, thread: &Thread) -> Result<(), AdapterError> {
        if let Some(handler) = self.miniport.callbacks.0.ShutdownHandlerEx {
            let context = self.context();
            self.call(thread, "MiniportShutdownEx", || {
                // SAFETY: the driver's callback, with the arguments that its page documents.
                unsafe { handler(context, NdisShutdownPowerOff) }
            })?;
        }
        self.set_state(AdapterState::Halted);
        Ok(())
    }

    /// Ends the handle.
    fn forget(&self, thread: &Thread) {
        self.set_state(AdapterState::Halted);
        if thread.machine().ndis.lock().ports.remove(&self.handle).is_some() {
            end_handle(thread.machine(), self.handle);
        }
    }
}

/// Removes every adapter of a driver that is about to be unloaded.
pub(super) fn halt_all(thread: &Thread, miniport: &Arc<Miniport>) {
    let state = thread.machine().ndis.lock();
    let ports: Vec<_> = state.ports.values().filter(|port| Arc::ptr_eq(&port.miniport, miniport)).cloned().collect();
    drop(state);
    for port in ports {
        if port.state() == AdapterState::Halted || port.remove(thread, NdisHaltDeviceDisabled).is_ok() {
            port.forget(thread);
        }
    }
}

extern "efiapi" fn pause_complete(handle: usize) {
    let call = Call::enter();
    call.machine().ndis.port(&call, handle).complete(&call, AdapterState::Pausing, NdisStatus::SUCCESS);
}

extern "efiapi" fn restart_complete(handle: usize, status: NdisStatus) {
    let call = Call::enter();
    call.machine().ndis.port(&call, handle).complete(&call, AdapterState::Restarting, status);
}
