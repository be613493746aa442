//! `ndis.sys`: NDIS 6, its miniports, filters and protocols, as their DDI pages document them.
//!
//! A miniport driver registers ([`registration`]); the machine adds adapters to it ([`adapter`]), which sets off
//! `MiniportInitializeEx` ([`lifecycle`]), in which the driver sets [`attributes`], reads its [`configuration`] and may open
//! [files](mod@file). A protocol driver registers too ([`protocol`]) and is bound to the adapters; filter drivers ([`filter`]) have
//! modules in between. OID requests ([`oid`]) go down, status indications ([`status`]) come up. Data go both ways ([`data_path`]), in
//! net buffer lists ([`buffers`]).
//!
//! Handles are addresses of reserved pages that nobody may touch: a driver that looks behind one faults, and a stale one is not
//! given out again soon.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::ddi::{Call, Export};
use crate::finding::{Rule, Stopped};
use crate::leak::{Leak, LeakKind, LeakSource};
use crate::machine::{Driver, Inner};
use crate::nt::hive::Key;
use crate::nt::unicode;
use crate::origin::Origin;
use crate::thread::Thread;

pub(crate) mod adapter;
mod attributes;
mod buffers;
mod configuration;
mod data_path;
mod device;
mod error_log;
mod event;
mod file;
pub(crate) mod filter;
mod gate;
mod generic;
mod hardware;
mod lifecycle;
mod lock;
mod memory;
mod names;
mod oid;
mod optional;
mod parameters;
mod port;
pub(crate) mod protocol;
mod registration;
mod reset;
mod scratch;
mod shared_memory;
mod stack;
pub(crate) mod status;
mod system;
#[cfg(test)]
mod tests;
mod text;
mod timer;
mod work_item;

use buffers::Buffers;
use configuration::OpenConfiguration;
use device::NdisDevice;
pub use error_log::ErrorLogEntry;
use file::OpenFile;
use filter::{Filter, Module};
pub use generic::EventLogEntry;
use lock::RwLock;
use port::Port;
use protocol::{Binding, Operation, PendedEvent, Protocol};
use registration::Miniport;
use shared_memory::SharedMemory;
use timer::Timer;
use work_item::WorkItem;

/// The NDIS version of the machine: 6.89, of Windows 11 24H2.
pub(crate) const VERSION: (u8, u8) = (6, 89);

/// State of this subsystem.
#[derive(Debug, Default)]
pub(crate) struct Ndis {
    state: Mutex<State>,
    /// Where drivers got handles from.
    origins: Mutex<HashMap<usize, Origin>>,
    /// See [`Machine::pend_opens`](crate::Machine::pend_opens).
    pends_opens: AtomicBool,
    pends_closes: AtomicBool,
}

/// Everything that has a handle, by handle.
#[derive(Debug, Default)]
struct State {
    miniports: BTreeMap<usize, Arc<Miniport>>,
    ports: BTreeMap<usize, Arc<Port>>,
    protocols: BTreeMap<usize, Arc<Protocol>>,
    filters: BTreeMap<usize, Arc<Filter>>,
    modules: BTreeMap<usize, Arc<Module>>,
    /// Open ones, in the order in which they were opened.
    bindings: Vec<Arc<Binding>>,
    /// Bind and unbind operations under way, by their context.
    operations: BTreeMap<usize, Arc<Operation>>,
    /// Events that protocols have, by the address of the notification.
    events: BTreeMap<usize, Arc<PendedEvent>>,
    configurations: BTreeMap<usize, OpenConfiguration>,
    files: BTreeMap<usize, OpenFile>,
    devices: BTreeMap<usize, NdisDevice>,
    timers: BTreeMap<usize, Timer>,
    work_items: BTreeMap<usize, WorkItem>,
    rw_locks: BTreeMap<usize, RwLock>,
    /// By virtual address.
    shared_memory: BTreeMap<usize, SharedMemory>,
    buffers: Buffers,
    /// Net buffer lists that are with another driver than their own, by address.
    flights: BTreeMap<usize, data_path::Flight>,
    /// OID requests that were copied, by address.
    clones: BTreeMap<usize, oid::ClonedRequest>,
    error_log: Vec<ErrorLogEntry>,
    event_log: Vec<EventLogEntry>,
    /// Who allocated a generic object, by its address.
    generic: BTreeMap<usize, Arc<Driver>>,
    /// `NET_LUID` indexes that drivers allocated, by interface type.
    luid_indexes: BTreeSet<(u16, u32)>,
    /// What installed packages give each new adapter, by service.
    defaults: BTreeMap<String, Arc<Key>>,
    next_instance: u32,
}

/// What drivers can import from here.
pub(crate) fn exports() -> impl Iterator<Item = &'static Export> {
    [
        registration::EXPORTS,
        attributes::EXPORTS,
        buffers::POOL_EXPORTS,
        buffers::LIST_EXPORTS,
        buffers::BUFFER_EXPORTS,
        buffers::CONTEXT_EXPORTS,
        buffers::MDL_EXPORTS,
        buffers::DATA_EXPORTS,
        buffers::COPY_EXPORTS,
        buffers::INFO_EXPORTS,
        buffers::DERIVED_EXPORTS,
        configuration::EXPORTS,
        data_path::SEND_EXPORTS,
        data_path::RECEIVE_EXPORTS,
        device::EXPORTS,
        error_log::EXPORTS,
        event::EXPORTS,
        file::EXPORTS,
        filter::EXPORTS,
        filter::ATTACH_EXPORTS,
        filter::LIFECYCLE_EXPORTS,
        filter::OID_EXPORTS,
        filter::EVENT_EXPORTS,
        generic::EXPORTS,
        hardware::EXPORTS,
        lock::EXPORTS,
        lock::OLD_EXPORTS,
        memory::EXPORTS,
        names::EXPORTS,
        optional::EXPORTS,
        parameters::EXPORTS,
        shared_memory::EXPORTS,
        system::EXPORTS,
        text::EXPORTS,
        timer::EXPORTS,
        work_item::EXPORTS,
        lifecycle::EXPORTS,
        oid::REQUEST_EXPORTS,
        oid::COMPLETE_EXPORTS,
        oid::CANCEL_EXPORTS,
        oid::CLONE_EXPORTS,
        oid::SYNCHRONOUS_EXPORTS,
        protocol::EXPORTS,
        protocol::OPEN_EXPORTS,
        protocol::OPERATION_EXPORTS,
        protocol::UNBIND_EXPORTS,
        protocol::EVENT_EXPORTS,
        reset::EXPORTS,
        status::EXPORTS,
    ]
    .into_iter()
    .flatten()
}

impl Ndis {
    fn origins(&self) -> MutexGuard<'_, HashMap<usize, Origin>> {
        self.origins.lock().unwrap_or_else(PoisonError::into_inner)
    }

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

    /// The adapter with a name, which is the test's or the one that protocols know.
    fn port_named(&self, name: &str) -> Option<Arc<Port>> {
        let state = self.lock();
        let is_it = |port: &&Arc<Port>| port.name == name || unicode::same_name(&port.device_name, name);
        state.ports.values().find(is_it).cloned()
    }

    /// Something that the adapter owns and must not own once it is halted, and the rule that it breaks.
    fn owned_by(&self, port: usize) -> Option<(Rule, String)> {
        let state = self.lock();
        if let Some(timer) = state.timers.values().find(|timer| timer.owner == port) {
            return Some((Rule::BadState, format!("{timer} (NdisAllocateTimerObject)")));
        }
        if let Some(item) = state.work_items.values().find(|item| item.owner == port) {
            let queued = if item.is_queued { "a queued work item" } else { "a work item" };
            return Some((Rule::BadState, format!("{queued} (NdisAllocateIoWorkItem)")));
        }
        if let Some(memory) = state.shared_memory.values().find(|memory| memory.owner == port) {
            let message = format!("{} bytes of shared memory (NdisMAllocateSharedMemory)", memory.length);
            return Some((Rule::HandleLeak, message));
        }
        let open = state.configurations.values().find(|open| open.handle == port);
        open.map(|open| (Rule::HandleLeak, format!("NdisOpenConfigurationEx for {}", open.owner)))
    }

    /// Names what is in `length` bytes at `start` and is NDIS's: an OID request that is not complete, a net buffer list.
    pub(crate) fn active_in(&self, start: usize, length: usize) -> Option<String> {
        if let Some(buffer) = self.lock().buffers.active_in(start, length) {
            return Some(buffer);
        }
        let ports: Vec<_> = self.lock().ports.values().cloned().collect();
        ports.iter().find_map(|port| port.active_in(start, length))
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
        let from = |handle: &usize| {
            let origin = self.origins().get(handle).copied();
            origin.map_or_else(String::new, |origin| format!(", from {origin}"))
        };
        let mut leaks = Vec::new();
        for miniport in state.miniports.values().filter(|miniport| of_driver(miniport)) {
            leaks.push(one(LeakKind::Registration, 0, format!("NdisMRegisterMiniportDriver of {}", miniport.service)));
        }
        for port in state.ports.values().filter(|port| of_driver(&port.miniport)) {
            leaks.push(one(LeakKind::Device, 0, format!("adapter {}", port.name)));
        }
        for protocol in state.protocols.values().filter(|protocol| std::ptr::eq(Arc::as_ptr(&protocol.driver), driver))
        {
            leaks.push(one(LeakKind::Registration, 0, format!("NdisRegisterProtocolDriver of {}", protocol.name)));
        }
        for filter in state.filters.values().filter(|filter| std::ptr::eq(Arc::as_ptr(&filter.driver), driver)) {
            leaks.push(one(LeakKind::Registration, 0, format!("NdisFRegisterFilterDriver of {}", filter.name)));
        }
        for binding in &state.bindings {
            if std::ptr::eq(Arc::as_ptr(&binding.protocol.driver), driver) {
                leaks.push(one(LeakKind::Handle, 0, format!("NdisOpenAdapterEx of adapter {}", binding.port.name)));
            }
        }
        for (handle, timer) in state.timers.iter().filter(|(_, timer)| std::ptr::eq(Arc::as_ptr(&timer.driver), driver))
        {
            let detail = format!("{timer} (NdisAllocateTimerObject){}", from(handle));
            leaks.push(one(LeakKind::Execution, 0, detail));
        }
        for (handle, item) in
            state.work_items.iter().filter(|(_, item)| std::ptr::eq(Arc::as_ptr(&item.driver), driver))
        {
            let queued = if item.is_queued { ", still queued" } else { "" };
            leaks.push(one(LeakKind::Execution, 0, format!("NdisAllocateIoWorkItem{queued}{}", from(handle))));
        }
        for (handle, lock) in
            state.rw_locks.iter().filter(|(_, lock)| std::ptr::eq(Arc::as_ptr(&lock.driver), driver) && !lock.is_static)
        {
            leaks.push(one(LeakKind::Handle, 0, format!("NdisAllocateRWLock{lock}{}", from(handle))));
        }
        for memory in state.shared_memory.values().filter(|memory| std::ptr::eq(Arc::as_ptr(&memory.driver), driver)) {
            leaks.push(one(LeakKind::Mapping, memory.length as u64, "NdisMAllocateSharedMemory".to_owned()));
        }
        for (handle, pool) in
            state.buffers.pools.iter().filter(|(_, pool)| std::ptr::eq(Arc::as_ptr(&pool.driver), driver))
        {
            leaks.push(one(LeakKind::Handle, 0, format!("{pool}{}", from(handle))));
        }
        for (handle, open) in
            state.configurations.iter().filter(|(_, open)| std::ptr::eq(&raw const *open.driver, driver))
        {
            leaks.push(one(LeakKind::Handle, 0, format!("NdisOpenConfigurationEx for {}{}", open.owner, from(handle))));
        }
        for (handle, file) in state.files.iter().filter(|(_, file)| std::ptr::eq(&raw const *file.driver, driver)) {
            let detail = format!("NdisOpenFile of {}{}", file.name, from(handle));
            leaks.push(one(LeakKind::Handle, file.length as u64, detail));
        }
        leaks
    }
}

/// A new handle; 0 when the machine's address space is exhausted.
fn new_handle(machine: &Inner) -> usize {
    let handle = machine.nt.arena().take(1).unwrap_or(0);
    if let Some(origin) = Origin::current().filter(|_| handle != 0) {
        machine.ndis.origins().insert(handle, origin);
    }
    handle
}

/// Ends a handle.
fn end_handle(machine: &Inner, handle: usize) {
    machine.ndis.origins().remove(&handle);
    machine.nt.arena().release(handle, 1);
}

/// Records a finding against `driver`, outside of driver code.
fn find(thread: &Thread, driver: &Driver, rule: Rule, callback: &str, message: String) -> Stopped {
    let mut finding = thread.finding(rule, message, None);
    callback.clone_into(&mut finding.call);
    finding.driver.clone_from(&driver.name);
    thread.machine().record(finding.clone());
    Stopped(Box::new(finding))
}
