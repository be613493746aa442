//! Protocols as tests and tools see them.

use ndis::NdisStatus;

use super::binding::Binding;
use super::{BindingState, find};
use crate::machine::Machine;
use crate::ndis::adapter::AdapterError;
use crate::thread::Thread;

/// A registered protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolSummary {
    /// Name in its characteristics.
    pub name: String,
    /// Image name of its driver.
    pub driver: String,
    /// Its bindings, in the order in which they were opened.
    pub bindings: Vec<BindingSummary>,
}

/// A protocol on an adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BindingSummary {
    /// Name of the protocol.
    pub protocol: String,
    /// Name of the adapter.
    pub adapter: String,
    /// Where the binding is in its life.
    pub state: BindingState,
    /// What it wants to receive: `NDIS_PACKET_TYPE_*`.
    pub packet_filter: u32,
    /// Its OID requests that are not complete.
    pub requests: usize,
}

impl From<&Binding> for BindingSummary {
    fn from(binding: &Binding) -> Self {
        Self {
            protocol: binding.protocol.name.clone(),
            adapter: binding.port.name.clone(),
            state: binding.state(),
            packet_filter: binding.packet_filter(),
            requests: binding.port.requests_of(binding).len(),
        }
    }
}

impl Machine {
    /// Protocols that are registered now.
    #[must_use]
    pub fn protocols(&self) -> Vec<ProtocolSummary> {
        let state = self.inner().ndis.lock();
        let (protocols, bindings) = (state.protocols.clone(), state.bindings.clone());
        drop(state);
        let summary = |protocol: &std::sync::Arc<super::Protocol>| ProtocolSummary {
            name: protocol.name.clone(),
            driver: protocol.driver.name.clone(),
            bindings: bindings
                .iter()
                .filter(|binding| binding.protocol.handle == protocol.handle)
                .map(|binding| BindingSummary::from(&**binding))
                .collect(),
        };
        protocols.values().map(summary).collect()
    }

    /// Binds a protocol to an adapter, as ticking the box in the adapter's properties does. Nothing happens when it is bound.
    ///
    /// # Errors
    /// `NDIS_STATUS_ADAPTER_NOT_FOUND` when there is no such protocol or adapter; the protocol's refusal; a finding.
    pub fn bind(&self, protocol: &str, adapter: &str) -> Result<(), AdapterError> {
        let missing = || AdapterError::Status(NdisStatus::ADAPTER_NOT_FOUND);
        let protocol = find(self.inner(), protocol).ok_or_else(missing)?;
        let port = self.inner().ndis.port_named(adapter).ok_or_else(missing)?;
        Thread::enter(self.inner(), |thread| protocol.bind(thread, &port))
    }

    /// Unbinds a protocol from an adapter, as clearing that box does.
    ///
    /// # Errors
    /// `NDIS_STATUS_ADAPTER_NOT_FOUND` when the protocol is not bound to such an adapter; a finding.
    pub fn unbind(&self, protocol: &str, adapter: &str) -> Result<(), AdapterError> {
        let missing = || AdapterError::Status(NdisStatus::ADAPTER_NOT_FOUND);
        let protocol = find(self.inner(), protocol).ok_or_else(missing)?;
        let port = self.inner().ndis.port_named(adapter).ok_or_else(missing)?;
        let bindings = port.bindings(self.inner());
        let binding = bindings.into_iter().find(|binding| binding.protocol.handle == protocol.handle);
        let binding = binding.ok_or_else(missing)?;
        Thread::enter(self.inner(), |thread| binding.unbind(thread))
    }

    /// Uninstalls a protocol: it is unbound from every adapter, then told by `ProtocolUninstall`. Its driver stays loaded.
    ///
    /// # Errors
    /// `NDIS_STATUS_ADAPTER_NOT_FOUND` when there is no such protocol; a finding.
    pub fn uninstall_protocol(&self, protocol: &str) -> Result<(), AdapterError> {
        let missing = || AdapterError::Status(NdisStatus::ADAPTER_NOT_FOUND);
        let protocol = find(self.inner(), protocol).ok_or_else(missing)?;
        Thread::enter(self.inner(), |thread| {
            let state = self.inner().ndis.lock();
            let is_its = |binding: &&std::sync::Arc<Binding>| binding.protocol.handle == protocol.handle;
            let bindings: Vec<_> = state.bindings.iter().filter(is_its).cloned().collect();
            drop(state);
            for binding in bindings {
                binding.unbind(thread)?;
            }
            let Some(handler) = protocol.callbacks.0.UninstallHandler else { return Ok(()) };
            thread.call_driver(&protocol.driver, "ProtocolUninstall", 0, || {
                // SAFETY: the driver's callback, which takes no arguments.
                unsafe { handler() }
            })?;
            Ok(())
        })
    }

    /// Tells a protocol that its configuration has changed: `NetEventReconfigure` with `data`, for all bindings. Its answer.
    ///
    /// # Errors
    /// `NDIS_STATUS_ADAPTER_NOT_FOUND` when there is no such protocol; a finding.
    pub fn reconfigure_protocol(&self, protocol: &str, data: &[u8]) -> Result<NdisStatus, AdapterError> {
        let missing = || AdapterError::Status(NdisStatus::ADAPTER_NOT_FOUND);
        let protocol = find(self.inner(), protocol).ok_or_else(missing)?;
        Thread::enter(self.inner(), |thread| protocol.notify(thread, None, ndis::raw::NetEventReconfigure, data))
    }
}
