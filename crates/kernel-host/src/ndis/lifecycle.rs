//! Starting, pausing and halting a miniport's adapter.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ndis::NdisStatus;
use ndis::raw::{
    NDIS_MINIPORT_INIT_PARAMETERS, NDIS_MINIPORT_PAUSE_PARAMETERS, NDIS_MINIPORT_RESTART_PARAMETERS,
    NDIS_OBJECT_HEADER, NDIS_OBJECT_TYPE_DEFAULT, NDIS_OBJECT_TYPE_MINIPORT_INIT_PARAMETERS,
    NDIS_PAUSE_MINIPORT_DEVICE_REMOVE, NDIS_SIZEOF_NET_DEVICE_PNP_EVENT_REVISION_1, NET_DEVICE_PNP_EVENT,
    NdisDevicePnPEventPowerProfileChanged, NdisDevicePnPEventSurpriseRemoved, NdisHaltDeviceDisabled,
    NdisHaltDeviceInitializationFailed, NdisHaltDeviceSurpriseRemoved, NdisPowerProfileAcOnLine, NdisShutdownPowerOff,
};

use super::adapter::{AdapterError, AdapterState};
use super::port::Port;
use super::registration::Miniport;
use super::scratch::Scratch;
use super::{end_handle, file, filter, protocol};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Inner;
use crate::nt::raw::Raw;
use crate::thread::Thread;

exports! { pub(super) EXPORTS in "ndis.sys":
    NdisMPauseComplete(max 2) = pause_complete;
    NdisMRestartComplete(max 2) = restart_complete;
}

/// Longest time that a driver has to complete what it pended, before that counts as never.
const LONGEST: Duration = Duration::from_secs(10);

/// How long a driver of this machine has: not longer than a wait that counts as a deadlock.
pub(super) fn completion_time(machine: &Inner) -> Duration {
    LONGEST.min(machine.nt.dispatcher().deadlock_after())
}

/// The final status of an operation whose callback returned `returned`, and that a call completed with `completed` within `time`.
///
/// # Errors
/// The rule that the driver broke, and how.
pub(super) fn final_status(
    returned: NdisStatus,
    completed: Option<NdisStatus>,
    time: Duration,
) -> Result<NdisStatus, (Rule, String)> {
    match (returned, completed) {
        (NdisStatus::PENDING, Some(status)) => Ok(status),
        (NdisStatus::PENDING, None) => Err((Rule::Deadlock, format!("pended, and not completed within {time:?}"))),
        (_, Some(_)) => Err((Rule::BadState, format!("completed with a call, although it returned {returned}"))),
        (status, None) => Ok(status),
    }
}

impl Port {
    /// `MiniportInitializeEx`, the protocols that bind to the adapter, and the restart of the stack.
    pub(super) fn start(self: &Arc<Self>, thread: &Arc<Thread>) -> Result<(), AdapterError> {
        thread.machine().ndis.lock().ports.insert(self.handle, Arc::clone(self));
        self.gate.enter(thread.machine())?;
        let started = self.add_device(thread).and_then(|()| {
            let started = self.initialize(thread).and_then(|()| self.start_stack(thread));
            // The device goes, if only its driver's part of it has come.
            if matches!(started, Err(AdapterError::Status(_))) {
                self.remove_device(thread)?;
            }
            started
        });
        self.gate.leave();
        if started.is_err() {
            self.forget(thread);
        } else {
            self.watch(thread.machine());
        }
        started
    }

    fn start_stack(self: &Arc<Self>, thread: &Arc<Thread>) -> Result<(), AdapterError> {
        let started = filter::attach_all_to(thread, self)
            .and_then(|()| protocol::bind_all_to(thread, self))
            .and_then(|()| self.restart_stack(thread));
        started.inspect_err(|error| {
            if error.status().is_some() {
                // A finding of the way back is kept by the machine; what the caller wants to know is why the start failed.
                let _ = self.unbind_paused(thread);
                let _ = self.detach_all(thread);
                let _ = self.halt(thread, NdisHaltDeviceInitializationFailed);
            }
        })
    }

    fn initialize(&self, thread: &Arc<Thread>) -> Result<(), AdapterError> {
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
            MiniportAddDeviceContext: Raw::at(self.attributes().device_context).pointer(),
            IfIndex: self.index,
            NetLuid: self.luid(),
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
            refused => {
                self.check_released(thread, CALLBACK, "failed")?;
                return Err(AdapterError::Status(refused));
            }
        }
        if self.attributes().general.is_none() {
            let message = "returned success without having set the general attributes".to_owned();
            return Err(self.find(thread, Rule::BadState, CALLBACK, message));
        }
        self.set_state(AdapterState::Paused);
        self.tell_power_profile(thread)
    }

    /// After the initialisation, and each time the device is powered up again.
    pub(super) fn tell_power_profile(&self, thread: &Arc<Thread>) -> Result<(), AdapterError> {
        let profile = Scratch::bytes(thread.machine(), &NdisPowerProfileAcOnLine.to_le_bytes());
        let profile = profile.ok_or(AdapterError::Status(NdisStatus::RESOURCES))?;
        self.tell(thread, NdisDevicePnPEventPowerProfileChanged, Some(&profile))
    }

    fn tell(&self, thread: &Arc<Thread>, event: u32, buffer: Option<&Scratch>) -> Result<(), AdapterError> {
        let memory = Scratch::new(thread.machine(), size_of::<NET_DEVICE_PNP_EVENT>());
        let memory = memory.ok_or(AdapterError::Status(NdisStatus::RESOURCES))?;
        let header = NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_DEFAULT, 1, NDIS_SIZEOF_NET_DEVICE_PNP_EVENT_REVISION_1);
        memory.raw().write(NET_DEVICE_PNP_EVENT {
            Header: header,
            PortNumber: 0,
            DevicePnPEvent: event,
            InformationBuffer: buffer.map_or(std::ptr::null_mut(), |buffer| buffer.raw().pointer()),
            InformationBufferLength: if buffer.is_some() { 4 } else { 0 },
            NdisReserved: [0; 16],
        });
        self.tell_device_event(thread, None, memory.raw())
    }

    /// `MiniportRestart`.
    pub(super) fn restart(&self, thread: &Thread) -> Result<(), AdapterError> {
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

    /// `MiniportPause`, for an `NDIS_PAUSE_*` reason.
    pub(super) fn pause(&self, thread: &Arc<Thread>, reason: u32) -> Result<(), AdapterError> {
        let Some(handler) = self.miniport.callbacks.0.PauseHandler else {
            return Err(AdapterError::Status(NdisStatus::FAILURE));
        };
        self.begin(AdapterState::Running, AdapterState::Pausing)?;
        let mut parameters = NDIS_MINIPORT_PAUSE_PARAMETERS {
            Header: NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_DEFAULT, 1, 12),
            Flags: 0,
            PauseReason: reason,
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
        self.check_no_lists(thread, "MiniportPause")?;
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
        let time = completion_time(thread.machine());
        let mut state = self.lock();
        if status == NdisStatus::PENDING {
            let waiting = self.changed.wait_timeout_while(state, time, |state| state.completed.is_none());
            state = waiting.unwrap_or_else(PoisonError::into_inner).0;
        }
        let completed = state.completed.take();
        drop(state);
        final_status(status, completed, time).map_err(|(rule, message)| self.find(thread, rule, callback, message))
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

    /// The whole way out: the stack is paused, the protocols unbind, the filters are detached, the miniport is halted. Nothing,
    /// when a mandatory filter's failure has halted it already.
    pub(super) fn remove(self: &Arc<Self>, thread: &Arc<Thread>, action: u32) -> Result<(), AdapterError> {
        self.gate.enter(thread.machine())?;
        let is_there = self.state() != AdapterState::Halted;
        let removed = if is_there { self.tear_down(thread, action) } else { Ok(()) };
        self.gate.leave();
        removed
    }

    /// As [`Port::remove`], within an operation.
    pub(super) fn tear_down(self: &Arc<Self>, thread: &Arc<Thread>, action: u32) -> Result<(), AdapterError> {
        let paused = self.pause_stack(thread, NDIS_PAUSE_MINIPORT_DEVICE_REMOVE).map(|_| ());
        let removed = paused
            .and_then(|()| self.unbind_paused(thread))
            .and_then(|()| self.detach_all(thread))
            .and_then(|()| self.halt(thread, action))
            .and_then(|()| self.remove_device(thread));
        self.forget(thread);
        removed
    }

    pub(super) fn surprise_remove(self: &Arc<Self>, thread: &Arc<Thread>) -> Result<(), AdapterError> {
        self.tell(thread, NdisDevicePnPEventSurpriseRemoved, None)?;
        self.remove(thread, NdisHaltDeviceSurpriseRemoved)
    }

    fn halt(&self, thread: &Arc<Thread>, action: u32) -> Result<(), AdapterError> {
        const CALLBACK: &str = "MiniportHaltEx";
        let Some(handler) = self.miniport.callbacks.0.HaltHandlerEx else { return Ok(()) };
        self.lock().is_closing = true;
        // The page: never with requests outstanding. So who keeps one for ever is never halted.
        if let Some(request) = self.requests.drain(thread.machine(), completion_time(thread.machine())) {
            let message = format!("adapter {} cannot be halted: {request} is not complete", self.name);
            return Err(self.find(thread, Rule::Deadlock, "MiniportOidRequest", message));
        }
        let context = self.context();
        self.call(thread, CALLBACK, || {
            // SAFETY: the driver's callback, with the arguments that its page documents.
            unsafe { handler(context, action) }
        })?;
        self.check_released(thread, CALLBACK, "returned")
    }

    /// Stops when the adapter still owns what it must not own from now on.
    fn check_released(&self, thread: &Thread, callback: &str, what: &str) -> Result<(), AdapterError> {
        match thread.machine().ndis.owned_by(self.handle) {
            Some((rule, left)) => {
                let message = format!("{what} with {left} of adapter {} still there", self.name);
                Err(self.find(thread, rule, callback, message))
            }
            None => Ok(()),
        }
    }

    pub(super) fn shut_down(&self, thread: &Thread) -> Result<(), AdapterError> {
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
pub(super) fn halt_all(thread: &Arc<Thread>, miniport: &Arc<Miniport>) {
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
    if status == NdisStatus::PENDING {
        call.stop(Rule::BadArgument, "NDIS_STATUS_PENDING is no final status");
    }
    call.machine().ndis.port(&call, handle).complete(&call, AdapterState::Restarting, status);
}
