//! The I/O manager: driver, device and file objects, and the requests that travel between drivers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ob::ObjectRef;
use crate::leak::{Leak, LeakKind};
use crate::machine::Driver;

pub(crate) mod device;
pub(crate) mod driver_object;
pub(crate) mod file;
pub(crate) mod irp;
pub(crate) mod kernel_client;
pub(crate) mod open;
pub(crate) mod request;

/// What the I/O manager knows beyond what is in the objects themselves.
#[derive(Debug, Default)]
pub(crate) struct Io {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Device objects that were created and not yet deleted, by body.
    devices: HashMap<usize, Device>,
    /// Symbolic links that drivers made: path and driver.
    links: Vec<(String, Arc<Driver>)>,
    /// Requests that exist, by address.
    irps: HashMap<usize, irp::Request>,
}

#[derive(Debug)]
struct Device {
    /// Keeps the object alive until it is deleted.
    _object: ObjectRef,
    driver: Arc<Driver>,
    /// Path in the namespace.
    name: Option<String>,
}

impl Io {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Devices, links and requests that `driver` has not given back.
    pub(crate) fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let state = self.lock();
        let is_mine = |owner: &Arc<Driver>| std::ptr::eq(Arc::as_ptr(owner), driver);
        let leak = |detail: String| Leak { kind: LeakKind::Device, count: 1, bytes: 0, detail };
        let devices = state.devices.iter().filter(|(_, device)| is_mine(&device.driver)).map(|(body, device)| {
            leak(format!("device object {body:#x} {}", device.name.as_deref().unwrap_or("without a name")))
        });
        let links = state.links.iter().filter(|(_, owner)| is_mine(owner));
        let links = links.map(|(path, _)| leak(format!("symbolic link {path}")));
        let irps = state.irps.iter().filter(|(_, request)| request.owner().is_some_and(is_mine));
        let irps = irps.map(|(address, request)| Leak {
            kind: LeakKind::Execution,
            count: 1,
            bytes: 0,
            detail: format!("IRP {address:#x} {}", request.origin()),
        });
        devices.chain(links).chain(irps).collect()
    }
}

#[cfg(test)]
mod tests;
