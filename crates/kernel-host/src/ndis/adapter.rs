//! Adapters: what Plug and Play and the upper edge of NDIS do with a miniport.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ndis::NdisStatus;
use ndis::raw::{NDIS_PAUSE_NDIS_INTERNAL, NdisHaltDeviceDisabled};

use super::port::Port;
use super::protocol::program::BindingSummary;
use super::registration;
use super::status::StatusIndication;
use crate::finding::Stopped;
use crate::machine::Machine;
use crate::thread::Thread;

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

    pub(super) fn port(&self) -> &Arc<Port> {
        &self.port
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

    /// Has a method of an object carried out, with room for `output` bytes of answer.
    ///
    /// # Errors
    /// The miniport's status; a finding.
    pub fn oid_method(&self, oid: u32, method: u32, input: &[u8], output: usize) -> Result<Vec<u8>, AdapterError> {
        self.enter(|thread| self.port.method(thread, oid, method, input, output))
    }

    /// Protocols that are bound to the adapter, in the order in which they opened it.
    #[must_use]
    pub fn bindings(&self) -> Vec<BindingSummary> {
        self.port.bindings(self.machine.inner()).iter().map(|binding| BindingSummary::from(&**binding)).collect()
    }

    /// OID requests that are not complete, whoever made them.
    #[must_use]
    pub fn outstanding_requests(&self) -> usize {
        self.port.all_requests().len()
    }

    /// Status indications that came to the top of the adapter's stack so far, oldest first; the oldest may have been dropped to bound memory.
    #[must_use]
    pub fn status_indications(&self) -> Vec<StatusIndication> {
        self.port.lock().indications.iter().cloned().collect()
    }

    /// Stops the flow of data: first in the protocols, then in the miniport.
    ///
    /// # Errors
    /// `NDIS_STATUS_FAILURE` when it does not run; a finding.
    pub fn pause(&self) -> Result<(), AdapterError> {
        self.alone(|thread| {
            let was_running = self.port.pause_stack(thread, NDIS_PAUSE_NDIS_INTERNAL)?;
            if was_running { Ok(()) } else { Err(AdapterError::Status(NdisStatus::FAILURE)) }
        })
    }

    /// Lets data flow again: first in the miniport, then in the protocols.
    ///
    /// # Errors
    /// The miniport's status; `NDIS_STATUS_FAILURE` when it is not paused; a finding.
    pub fn restart(&self) -> Result<(), AdapterError> {
        self.alone(|thread| self.port.restart_stack(thread))
    }

    /// Resets the adapter, as NDIS does when it hangs.
    ///
    /// # Errors
    /// `NDIS_STATUS_NOT_RESETTABLE` when the miniport registered no `MiniportResetEx`; its status; a finding.
    pub fn reset(&self) -> Result<(), AdapterError> {
        self.enter(|thread| self.port.reset(thread))
    }

    /// Asks the miniport now, and not only every few seconds, whether the adapter hangs, and resets it if so. Whether it did.
    ///
    /// # Errors
    /// As of [`Adapter::reset`].
    pub fn check_for_hang(&self) -> Result<bool, AdapterError> {
        self.enter(|thread| self.port.check_for_hang(thread))
    }

    /// Puts the device to sleep (D3), protocols first.
    ///
    /// # Errors
    /// The miniport's refusal of `OID_PNP_SET_POWER`; a finding.
    pub fn sleep(&self) -> Result<(), AdapterError> {
        self.alone(|thread| self.port.sleep(thread))
    }

    /// Wakes the device up (D0), protocols last.
    ///
    /// # Errors
    /// The miniport's refusal of `OID_PNP_SET_POWER`; a finding.
    pub fn wake(&self) -> Result<(), AdapterError> {
        self.alone(|thread| self.port.wake(thread))
    }

    /// Asks the protocols whether the device may be removed, as "Safely Remove Hardware" does first. Nothing is removed.
    ///
    /// # Errors
    /// The status of the protocol that says no; a finding.
    pub fn query_remove(&self) -> Result<(), AdapterError> {
        self.alone(|thread| self.port.query_remove(thread))
    }

    /// The orderly end: the stack is paused, protocols unbind, `MiniportHaltEx`.
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

    /// As [`Adapter::enter`], with no other Plug and Play operation at the same time.
    fn alone<R>(&self, body: impl FnOnce(&Arc<Thread>) -> Result<R, AdapterError>) -> Result<R, AdapterError> {
        self.enter(|thread| {
            self.port.gate.enter(thread.machine())?;
            let result = body(thread);
            self.port.gate.leave();
            result
        })
    }

    fn enter<R>(&self, body: impl FnOnce(&Arc<Thread>) -> Result<R, AdapterError>) -> Result<R, AdapterError> {
        Thread::enter(self.machine.inner(), body)
    }
}
