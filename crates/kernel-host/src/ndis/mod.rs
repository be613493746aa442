//! `ndis.sys`: the miniport side of NDIS 6, as its DDI pages document it.
//!
//! A driver registers ([`registration`]); the machine adds adapters to it ([`adapter`]), which sets off
//! `MiniportInitializeEx`, in which the driver sets [`attributes`], reads its [`configuration`] and may open [`file`]s; OID requests
//! ([`oid`]) reach an adapter from then until it is halted.
//!
//! Handles are addresses of reserved pages that nobody may touch: a driver that looks behind one faults, and a stale one is not
//! given out again soon.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ddi::{Call, Export};
use crate::finding::Rule;
use crate::leak::{Leak, LeakKind, LeakSource};
use crate::machine::{Driver, Inner};
use crate::nt::hive::Key;

pub(crate) mod adapter;
mod attributes;
mod configuration;
mod error_log;
mod file;
mod memory;
mod oid;
mod registration;
#[cfg(test)]
mod tests;

use adapter::Port;
use configuration::OpenConfiguration;
pub use error_log::ErrorLogEntry;
use file::OpenFile;
use registration::Miniport;

/// The NDIS version of the machine: 6.89, of Windows 11 24H2.
pub(crate) const VERSION: (u8, u8) = (6, 89);

/// State of this subsystem.
#[derive(Debug, Default)]
pub(crate) struct Ndis {
    state: Mutex<State>,
}

/// Everything that has a handle, by handle.
#[derive(Debug, Default)]
struct State {
    miniports: BTreeMap<usize, Arc<Miniport>>,
    ports: BTreeMap<usize, Arc<Port>>,
    configurations: BTreeMap<usize, OpenConfiguration>,
    files: BTreeMap<usize, OpenFile>,
    error_log: Vec<ErrorLogEntry>,
    /// What installed packages give each new adapter, by service.
    defaults: BTreeMap<String, Arc<Key>>,
    next_instance: u32,
}

/// What drivers can import from here.
pub(crate) fn exports() -> impl Iterator<Item = &'static Export> {
    [
        registration::EXPORTS,
        attributes::EXPORTS,
        configuration::EXPORTS,
        error_log::EXPORTS,
        file::EXPORTS,
        memory::EXPORTS,
        oid::EXPORTS,
        adapter::EXPORTS,
    ]
    .into_iter()
    .flatten()
}

impl Ndis {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers what an installed package's INF gives each new adapter of `service`.
    pub(crate) fn set_device_defaults(&self, service: &str, defaults: Arc<Key>) {
        self.lock().defaults.insert(service.to_lowercase(), defaults);
    }

    /// Adapters that exist now: name, the miniport driver's image name, state.
    pub(crate) fn adapters(&self) -> Vec<(String, String, adapter::AdapterState)> {
        let ports: Vec<Arc<Port>> = self.lock().ports.values().cloned().collect();
        ports.iter().map(|port| (port.name.clone(), port.miniport.driver.name.clone(), port.state())).collect()
    }

    /// The adapter behind a handle that a driver passed. Stops on a handle that is none, or not of this driver.
    fn port(&self, call: &Call, handle: usize) -> Arc<Port> {
        let port = self.lock().ports.get(&handle).cloned();
        match port {
            Some(port) if Arc::ptr_eq(&port.miniport.driver, call.driver()) => port,
            Some(_) => call.stop(Rule::InvalidHandle, format!("{handle:#x} is another driver's adapter")),
            None => call.stop(Rule::InvalidHandle, format!("{handle:#x} is no adapter, or one that is halted")),
        }
    }

    /// The adapter that the calling thread initialises; stops when `MiniportInitializeEx` does not run on this thread.
    fn initializing(&self, call: &Call) -> Arc<Port> {
        let port = self
            .lock()
            .ports
            .values()
            .find(|port| port.is_initialized_by(call.thread()) && Arc::ptr_eq(&port.miniport.driver, call.driver()))
            .cloned();
        port.unwrap_or_else(|| {
            call.stop(Rule::BadState, "legal only during MiniportInitializeEx, which does not run on this thread")
        })
    }
}

impl LeakSource for Ndis {
    fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let state = self.lock();
        let of_driver = |miniport: &Arc<Miniport>| std::ptr::eq(&raw const *miniport.driver, driver);
        let one = |kind, bytes, detail| Leak { kind, count: 1, bytes, detail };
        let mut leaks = Vec::new();
        for miniport in state.miniports.values().filter(|miniport| of_driver(miniport)) {
            leaks.push(one(LeakKind::Registration, 0, format!("NdisMRegisterMiniportDriver of {}", miniport.service)));
        }
        for port in state.ports.values().filter(|port| of_driver(&port.miniport)) {
            leaks.push(one(LeakKind::Device, 0, format!("adapter {}", port.name)));
        }
        for open in state.configurations.values().filter(|open| std::ptr::eq(&raw const *open.driver, driver)) {
            leaks.push(one(LeakKind::Handle, 0, format!("NdisOpenConfigurationEx for {}", open.owner)));
        }
        for file in state.files.values().filter(|file| std::ptr::eq(&raw const *file.driver, driver)) {
            leaks.push(one(LeakKind::Handle, file.length as u64, format!("NdisOpenFile of {}", file.name)));
        }
        leaks
    }
}

/// A new handle; 0 when the machine's address space is exhausted.
fn new_handle(machine: &Inner) -> usize {
    machine.nt.arena().take(1).unwrap_or(0)
}

/// Ends a handle.
fn end_handle(machine: &Inner, handle: usize) {
    machine.nt.arena().release(handle, 1);
}
