//! The I/O manager: driver, device and file objects, and the requests that travel between drivers.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::ob::ObjectRef;
use crate::ddi::Export;
use crate::leak::{Leak, LeakKind};
use crate::machine::Driver;

pub(crate) mod attach;
pub(crate) mod build;
pub(crate) mod cancel;
pub(crate) mod checks;
pub(crate) mod create_file;
pub(crate) mod create_irp;
pub(crate) mod csq;
pub(crate) mod device;
pub(crate) mod dos_names;
pub(crate) mod driver_object;
pub(crate) mod error_log;
pub(crate) mod extension;
pub(crate) mod file;
pub(crate) mod file_facts;
pub(crate) mod file_name;
pub(crate) mod file_systems;
pub(crate) mod forward;
pub(crate) mod irp;
pub(crate) mod kernel_client;
pub(crate) mod loading;
pub(crate) mod open;
pub(crate) mod pending;
pub(crate) mod plug_play;
pub(crate) mod program;
pub(crate) mod queue_routines;
pub(crate) mod remove_lock;
pub(crate) mod request;
pub(crate) mod share_access;
pub(crate) mod shutdown;
pub(crate) mod stack_limits;
pub(crate) mod start_io;
pub(crate) mod timer;
pub(crate) mod transfer;
pub(crate) mod volume_names;
pub(crate) mod zw_file;
pub(crate) mod zw_file_information;
pub(crate) mod zw_file_more;

/// What the I/O manager knows beyond what is in the objects themselves.
#[derive(Debug, Default)]
pub(crate) struct Io {
    state: Mutex<State>,
    cancel_lock: cancel::CancelLock,
}

#[derive(Debug, Default)]
struct State {
    /// Device objects that were created and not yet deleted, by body.
    devices: HashMap<usize, Device>,
    /// Symbolic links that drivers made: path and driver.
    links: Vec<(String, Arc<Driver>)>,
    /// Requests that exist, by address.
    irps: HashMap<usize, irp::Request>,
    /// Timers of devices, by device.
    timers: HashMap<usize, timer::IoTimer>,
    /// Devices whose drivers want to hear of the shutdown, in the order of registration.
    shutdown: Vec<shutdown::Registration>,
    /// Context areas of driver objects.
    extensions: Vec<extension::Extension>,
    /// Routines that run when their driver's initialisation is over.
    reinitialize: Vec<extension::Reinitialization>,
    /// Error log entries that drivers fill, and what they wrote.
    error_packets: Vec<error_log::Packet>,
    system_log: Vec<error_log::SystemLogEntry>,
    /// How devices serve one request at a time, by device.
    start_io: HashMap<usize, start_io::StartIo>,
}

#[derive(Debug)]
struct Device {
    /// Keeps the object alive until it is deleted.
    object: ObjectRef,
    driver: Arc<Driver>,
    /// Path in the namespace.
    name: Option<String>,
}

impl Io {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Devices, links, registrations and requests that `driver` has not given back.
    pub(crate) fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let state = self.lock();
        let is_mine = |owner: &Arc<Driver>| std::ptr::eq(Arc::as_ptr(owner), driver);
        let leak = |kind, detail: String| Leak { kind, count: 1, bytes: 0, detail };
        let devices = state.devices.iter().filter(|(_, device)| is_mine(&device.driver)).map(|(body, device)| {
            let name = device.name.as_deref().unwrap_or("without a name");
            leak(LeakKind::Device, format!("device object {body:#x} {name} (IoCreateDevice without IoDeleteDevice)"))
        });
        let links = state.links.iter().filter(|(_, owner)| is_mine(owner));
        let links = links.map(|(path, _)| {
            leak(LeakKind::Device, format!("symbolic link {path} (IoCreateSymbolicLink without IoDeleteSymbolicLink)"))
        });
        let irps = state.irps.iter().filter(|(_, request)| request.owner().is_some_and(is_mine));
        let irps =
            irps.map(|(address, request)| leak(LeakKind::Execution, format!("IRP {address:#x} {}", request.origin())));
        let timers = state.timers.iter().filter(|(_, timer)| timer.is_running() && is_mine(timer.driver()));
        let timers = timers.map(|(device, _)| {
            leak(
                LeakKind::Execution,
                format!("the I/O timer of device {device:#x} runs (IoStartTimer without IoStopTimer)"),
            )
        });
        let shutdown = state.shutdown.iter().filter(|registration| is_mine(&registration.driver));
        let shutdown = shutdown.map(|registration| {
            let device = registration.device;
            leak(LeakKind::Registration, format!("the shutdown notification of device {device:#x} is still registered"))
        });
        let packets = state.error_packets.iter().filter_map(|packet| packet.leak(driver));
        devices.chain(links).chain(irps).chain(timers).chain(shutdown).chain(packets).collect()
    }
}

/// What drivers can import from here.
pub(crate) fn exports() -> impl Iterator<Item = &'static Export> {
    [
        attach::EXPORTS,
        build::EXPORTS,
        cancel::EXPORTS,
        checks::EXPORTS,
        create_file::EXPORTS,
        csq::EXPORTS,
        device::EXPORTS,
        dos_names::EXPORTS,
        error_log::EXPORTS,
        extension::EXPORTS,
        file_facts::EXPORTS,
        file_name::EXPORTS,
        file_systems::EXPORTS,
        forward::EXPORTS,
        irp::EXPORTS,
        loading::EXPORTS,
        open::EXPORTS,
        plug_play::EXPORTS,
        remove_lock::EXPORTS,
        request::EXPORTS,
        share_access::EXPORTS,
        shutdown::EXPORTS,
        stack_limits::EXPORTS,
        start_io::EXPORTS,
        timer::EXPORTS,
        volume_names::EXPORTS,
        zw_file::EXPORTS,
        zw_file_information::EXPORTS,
        zw_file_more::EXPORTS,
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests;
