//! Events for protocols: `ProtocolNetPnPEvent` and its completion.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use ndis::NdisStatus;
use ndis::raw::{
    NDIS_OBJECT_HEADER, NDIS_OBJECT_TYPE_DEFAULT, NDIS_PROTOCOL_PAUSE_PARAMETERS, NDIS_PROTOCOL_RESTART_PARAMETERS,
    NDIS_SIZEOF_NET_PNP_EVENT_NOTIFICATION_REVISION_1, NET_PNP_EVENT, NET_PNP_EVENT_NOTIFICATION, NetEventPause,
    NetEventRestart,
};

use super::Protocol;
use super::binding::{Binding, BindingState};
use crate::ddi::{Call, exports};
use crate::finding::{Rule, Stopped};
use crate::machine::Inner;
use crate::ndis::adapter::AdapterError;
use crate::ndis::lifecycle::completion_time;
use crate::ndis::scratch::Scratch;
use crate::nt::raw::Raw;
use crate::thread::Thread;

exports! { pub(in crate::ndis) EXPORTS in "ndis.sys":
    NdisCompleteNetPnPEvent(max 0) = complete_event;
}

const CALLBACK: &str = "ProtocolNetPnPEvent";
/// The name under which a thread runs the callback for one binding, where less is allowed than for all.
const BINDING_CALLBACK: &str = "ProtocolNetPnPEvent of a binding";

/// How long a wait sleeps before it looks whether the machine has stopped.
const NAP: Duration = Duration::from_millis(20);

/// An event that a protocol has.
#[derive(Debug)]
pub(in crate::ndis) struct PendedEvent {
    protocol: Arc<Protocol>,
    status: Mutex<Option<NdisStatus>>,
    changed: Condvar,
}

impl PendedEvent {
    /// Waits for the completion when the callback pended; what was completed.
    fn outcome(&self, machine: &Inner, is_pended: bool) -> Result<Option<NdisStatus>, Stopped> {
        let deadline = std::time::Instant::now() + completion_time(machine);
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        while is_pended && status.is_none() && std::time::Instant::now() < deadline {
            if let Some(stopped) = machine.stopped() {
                return Err(stopped);
            }
            status = self.changed.wait_timeout(status, NAP).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(*status)
    }
}

impl Protocol {
    /// Tells the protocol of an event: of one binding, or of all. Its final answer.
    pub(in crate::ndis) fn notify(
        self: &Arc<Self>,
        thread: &Arc<Thread>,
        binding: Option<&Binding>,
        event: u32,
        buffer: &[u8],
    ) -> Result<NdisStatus, AdapterError> {
        let machine = thread.machine();
        let short = AdapterError::Status(NdisStatus::RESOURCES);
        let Some(handler) = self.callbacks.0.NetPnPEventHandler else { return Ok(NdisStatus::SUCCESS) };
        let data = if buffer.is_empty() { None } else { Some(Scratch::bytes(machine, buffer).ok_or(short.clone())?) };
        let memory = Scratch::new(machine, size_of::<NET_PNP_EVENT_NOTIFICATION>()).ok_or(short)?;
        memory.raw().write(notification(event, data.as_ref(), buffer.len() as u32));
        let pended =
            Arc::new(PendedEvent { protocol: Arc::clone(self), status: Mutex::default(), changed: Condvar::new() });
        machine.ndis.lock().events.insert(memory.address(), Arc::clone(&pended));
        let context = Raw::at(binding.map_or(0, |binding| binding.context)).pointer();
        let callback = if binding.is_some() { BINDING_CALLBACK } else { CALLBACK };
        let returned = thread.call_driver(&self.driver, callback, 0, || {
            // SAFETY: the driver's callback, with the arguments that its page documents.
            unsafe { handler(context, memory.raw().pointer()) }
        })?;
        let completed = pended.outcome(machine, returned == NdisStatus::PENDING)?;
        machine.ndis.lock().events.remove(&memory.address());
        match (returned, completed) {
            (NdisStatus::PENDING, Some(status)) => self.judge(thread, event, status),
            (NdisStatus::PENDING, None) => {
                let message = format!("event {event} is pended, and not completed in time");
                Err(self.find(thread, Rule::Deadlock, callback, message))
            }
            (_, Some(_)) => {
                let message =
                    format!("event {event}: completed with a call, although the callback returned {returned}");
                Err(self.find(thread, Rule::BadState, callback, message))
            }
            (status, None) => self.judge(thread, event, status),
        }
    }

    /// The page: an NDIS 6 protocol never answers that it does not support an event, and never fails a pause.
    fn judge(&self, thread: &Thread, event: u32, status: NdisStatus) -> Result<NdisStatus, AdapterError> {
        if status == NdisStatus::NOT_SUPPORTED {
            let message = format!("event {event}: NDIS 6 protocols must not answer NDIS_STATUS_NOT_SUPPORTED");
            return Err(self.find(thread, Rule::BadState, CALLBACK, message));
        }
        if event == NetEventPause && status != NdisStatus::SUCCESS {
            let message = format!("NetEventPause: answered {status}; a pause cannot fail");
            return Err(self.find(thread, Rule::BadState, CALLBACK, message));
        }
        Ok(status)
    }
}

/// The notification of an event, as drivers get it.
pub(in crate::ndis) fn notification(event: u32, data: Option<&Scratch>, length: u32) -> NET_PNP_EVENT_NOTIFICATION {
    let size = NDIS_SIZEOF_NET_PNP_EVENT_NOTIFICATION_REVISION_1;
    NET_PNP_EVENT_NOTIFICATION {
        Header: NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_DEFAULT, 1, size),
        PortNumber: 0,
        NetPnPEvent: NET_PNP_EVENT {
            NetEvent: event,
            Buffer: data.map_or(std::ptr::null_mut(), |data| data.raw().pointer()),
            BufferLength: length,
            NdisReserved: [0; 4],
            TransportReserved: [0; 4],
            TdiReserved: [0; 4],
            TdiClientReserved: [0; 4],
        },
    }
}

/// The bytes of a structure that an event brings.
fn bytes_of<T: Copy>(value: T) -> Vec<u8> {
    let mut bytes = vec![0; size_of::<T>()];
    // SAFETY: the vector is as long as the value; bytes of padding are copied as they are.
    unsafe { bytes.as_mut_ptr().cast::<T>().write_unaligned(value) };
    bytes
}

impl Binding {
    /// `NetEventPause`: Running, Pausing, Paused.
    pub(in crate::ndis) fn pause(&self, thread: &Arc<Thread>, reason: u32) -> Result<(), AdapterError> {
        if self.state() != BindingState::Running {
            return Ok(());
        }
        self.set_state(BindingState::Pausing);
        let header = NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_DEFAULT, 1, 12);
        let parameters = NDIS_PROTOCOL_PAUSE_PARAMETERS { Header: header, Flags: 0, PauseReason: reason };
        // No other answer comes back.
        let _ = self.protocol.notify(thread, Some(self), NetEventPause, &bytes_of(parameters))?;
        let (_, sends) = thread.machine().ndis.in_flight(self.handle);
        if sends != 0 {
            let message = format!("the pause is complete, and {sends} sends of the binding are not");
            return Err(self.protocol.find(thread, Rule::BadState, BINDING_CALLBACK, message));
        }
        self.set_state(BindingState::Paused);
        Ok(())
    }

    /// `NetEventRestart`: Paused, Restarting, Running; Paused again when the protocol cannot.
    pub(in crate::ndis) fn restart(&self, thread: &Arc<Thread>) -> Result<(), AdapterError> {
        if self.state() != BindingState::Paused {
            return Ok(());
        }
        self.set_state(BindingState::Restarting);
        let parameters = NDIS_PROTOCOL_RESTART_PARAMETERS {
            Header: NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_DEFAULT, 1, 52),
            FilterModuleNameBuffer: std::ptr::null_mut(),
            FilterModuleNameBufferLength: 0,
            RestartAttributes: std::ptr::null_mut(),
            BoundIfIndex: self.port.index,
            BoundIfNetluid: self.port.luid(),
            Flags: 0,
        };
        let status = self.protocol.notify(thread, Some(self), NetEventRestart, &bytes_of(parameters))?;
        let is_running = status == NdisStatus::SUCCESS;
        self.set_state(if is_running { BindingState::Running } else { BindingState::Paused });
        Ok(())
    }
}

extern "efiapi" fn complete_event(binding: usize, notification: usize, status: NdisStatus) {
    let call = Call::enter();
    call.detail(status);
    // Events of all bindings come without one.
    if binding != 0 {
        call.machine().ndis.binding(&call, binding);
    }
    if status == NdisStatus::PENDING {
        call.stop(Rule::BadArgument, "NDIS_STATUS_PENDING is no final status");
    }
    let pended = call.machine().ndis.lock().events.get(&notification).cloned();
    let Some(pended) = pended.filter(|pended| Arc::ptr_eq(&pended.protocol.driver, call.driver())) else {
        call.stop(
            Rule::BadState,
            format!("{notification:#x} is no event that this driver has, or one it has answered"),
        );
    };
    let mut slot = pended.status.lock().unwrap_or_else(PoisonError::into_inner);
    let is_first = slot.is_none();
    slot.get_or_insert(status);
    drop(slot);
    pended.changed.notify_all();
    if !is_first {
        call.stop(Rule::BadState, "the event is completed already");
    }
}
