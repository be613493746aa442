//! `fltmgr.sys`: the Filter Manager, as its DDI pages document it.
//!
//! [`filter`] registers and unregisters, [`instance`] attaches to volumes, [`stack`] runs operations through the attached instances,
//! [`port`] and [`message`] are the way to user mode. [`object`] has what they share: opaque pointers with rundown protection.
#![allow(
    clippy::doc_markdown,
    reason = "prose is full of names of functions, statuses and callbacks; each in backticks reads worse"
)]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fltmgr::raw::FltTeardownReason;
use nt_types::NtStatus;

use crate::ddi::Export;
use crate::finding::{Finding, Rule};
use crate::fs::volume::Volume;
use crate::leak::{Leak, LeakKind, LeakSource};
use crate::machine::{Driver, Inner};
use crate::thread::Thread;

mod activity;
pub(crate) mod altitude;
mod answer;
mod attachment;
mod buffers;
mod callback_data;
mod cancel;
pub(crate) mod contexts;
mod create;
mod drain;
pub(crate) mod ecp;
mod file_io;
mod file_lock;
pub(crate) mod filter;
mod flight;
mod information;
pub(crate) mod instance;
mod instances;
pub(crate) mod major;
pub(crate) mod manager;
pub(crate) mod message;
mod names;
pub(crate) mod object;
pub(crate) mod operation;
mod operation_status;
mod oplock;
mod pended;
mod pipes;
pub(crate) mod port;
mod priority;
pub(crate) mod program;
mod query_io;
mod queue;
mod redirection;
mod registration;
mod requestor;
mod security;
mod service;
mod stack;
pub(crate) mod volume_device;
mod volume_io;
mod volumes;
mod waits;
mod work_item;

use filter::Filter;
pub(crate) use flight::Flight;
pub(crate) use instance::Instance;
use instance::VolumeStack;
use object::{FltObject, ObjectTable};
pub(crate) use operation::{Kind, Operation};
pub(crate) use stack::{complete_later, launch, run};

/// What an operation ends with when the machine stopped in the middle of it. Nobody but the host sees it.
pub(crate) const MACHINE_STOPPED: NtStatus = NtStatus::SHUTDOWN_IN_PROGRESS;

/// State of the filter manager.
#[derive(Debug, Default)]
pub(crate) struct Flt {
    pub(crate) objects: ObjectTable,
    filters: Mutex<Vec<Arc<Filter>>>,
    volumes: Mutex<Vec<Arc<VolumeStack>>>,
    pub(crate) contexts: contexts::Contexts,
    /// Operations that a filter or the file system keeps.
    pended: drain::PendedTable,
    /// Callback data that drivers allocated.
    allocated: callback_data::Allocated,
    /// Creates whose post-operation callbacks run, by file object.
    creates: Mutex<Vec<(usize, Arc<Flight>)>>,
    /// What FltGetIrpName has handed out, for good.
    irp_names: Mutex<std::collections::BTreeMap<u8, Arc<[u8]>>>,
    pub(crate) names: names::NameTable,
    pub(crate) descriptors: security::Descriptors,
    pub(crate) file_locks: file_lock::FileLocks,
    pub(crate) oplocks: oplock::Oplocks,
    ecps: ecp::Ecps,
}

impl Flt {
    /// Registered filters.
    pub(crate) fn filters(&self) -> MutexGuard<'_, Vec<Arc<Filter>>> {
        self.filters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The filter whose service has this name.
    pub(crate) fn filter_named(&self, name: &str) -> Option<Arc<Filter>> {
        self.filters().iter().find(|filter| crate::nt::unicode::same_name(&filter.name, name)).cloned()
    }

    /// The filter that `driver` registered.
    pub(crate) fn filter_of(&self, driver: &Arc<Driver>) -> Option<Arc<Filter>> {
        self.filters().iter().find(|filter| Arc::ptr_eq(&filter.driver, driver)).cloned()
    }

    /// FltMgr's side of a volume.
    pub(crate) fn stack_of(&self, volume: &Arc<Volume>) -> Option<Arc<VolumeStack>> {
        self.stacks().iter().find(|stack| Arc::ptr_eq(&stack.volume, volume)).cloned()
    }

    /// The create of a file object whose post-operation callback runs.
    fn creating(&self, file: usize) -> Option<Arc<Flight>> {
        let creates = self.creates.lock().unwrap_or_else(PoisonError::into_inner);
        creates.iter().rev().find(|(known, _)| *known == file).map(|(_, flight)| Arc::clone(flight))
    }

    fn stacks(&self) -> MutexGuard<'_, Vec<Arc<VolumeStack>>> {
        self.volumes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LeakSource for Flt {
    fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let mut leaks = self.contexts.leaks(driver);
        leaks.extend(self.names.leaks(driver));
        leaks.extend(self.allocated.leaks(driver));
        leaks.extend(self.descriptors.leaks(driver));
        leaks.extend(self.file_locks.leaks(driver));
        leaks.extend(self.oplocks.leaks(driver));
        leaks.extend(self.ecps.leaks(driver));
        let mine = |owner: &Arc<Driver>| std::ptr::eq(Arc::as_ptr(owner), driver);
        for (object, origin) in self.objects.all() {
            let (kind, owned) = match &object {
                FltObject::Filter(filter) => (LeakKind::Registration, mine(&filter.driver)),
                FltObject::Instance(instance) => (LeakKind::Registration, mine(&instance.filter.driver)),
                FltObject::ServerPort(port) => (LeakKind::Port, mine(&port.filter.driver)),
                FltObject::ClientPort(port) => (LeakKind::Port, mine(&port.filter().driver)),
                FltObject::WorkItem(item) => (LeakKind::Execution, mine(&item.driver)),
                FltObject::DeferredWorkItem(item) => (LeakKind::Execution, mine(&item.driver)),
                FltObject::Volume(_) => (LeakKind::Reference, false),
            };
            if owned {
                let from = origin.map_or_else(String::new, |origin| format!(", from {origin}"));
                leaks.push(Leak { kind, count: 1, bytes: 0, detail: format!("{}{from}", object.type_name()) });
            }
            let held = object.rundown().map(|rundown| rundown.held_by(driver)).unwrap_or_default();
            if !held.is_empty() {
                let detail = format!("{} rundown references, taken {}", object.type_name(), held.join("\n    and "));
                leaks.push(Leak { kind: LeakKind::Reference, count: held.len() as u64, bytes: 0, detail });
            }
        }
        leaks
    }
}

/// FltMgr's side of all volumes.
fn volume_stacks(machine: &Inner) -> Vec<Arc<VolumeStack>> {
    machine.flt.stacks().clone()
}

/// A volume was mounted: filters that filter already attach to it.
pub(crate) fn volume_mounted(machine: &Arc<Inner>, volume: &Arc<Volume>) {
    let Ok(stack) = VolumeStack::new(machine, volume) else { return };
    machine.flt.stacks().push(Arc::clone(&stack));
    let filters = machine.flt.filters().clone();
    for filter in filters.iter().filter(|filter| filter.started.load(std::sync::atomic::Ordering::Acquire)) {
        Thread::enter(machine, |thread| instance::attach_automatically(thread, filter, &stack, true));
    }
}

/// A volume is dismounted: all instances on it are torn down, whether they like it or not, and it is known no more.
pub(crate) fn volume_dismounted(machine: &Arc<Inner>, volume: &Arc<Volume>) {
    let Some(stack) = machine.flt.stack_of(volume) else { return };
    stack.rundown.start_ending();
    Thread::enter(machine, |thread| {
        for instance in stack.instances() {
            if instance::detach(thread, &instance, FltTeardownReason::VOLUME_DISMOUNT) {
                machine.flt.objects.retire(machine, instance.address);
            }
        }
        contexts::volume_gone(thread, stack.address);
    });
    machine.flt.stacks().retain(|other| !Arc::ptr_eq(other, &stack));
    machine.flt.objects.retire(machine, stack.address);
}

/// Records a finding that was noticed when `callback` had returned, not inside a call of the driver's.
fn record(machine: &Inner, driver: &Driver, callback: &str, rule: Rule, message: String) {
    machine.record(Finding::new(rule, message, callback, &driver.name));
}

/// What drivers can import from here.
pub(crate) fn exports() -> impl Iterator<Item = &'static Export> {
    [
        activity::EXPORTS,
        attachment::EXPORTS,
        buffers::EXPORTS,
        callback_data::EXPORTS,
        cancel::EXPORTS,
        create::EXPORTS,
        ecp::EXPORTS,
        ecp::LOOKASIDE_EXPORTS,
        ecp::NT_EXPORTS,
        file_io::EXPORTS,
        file_lock::EXPORTS,
        filter::EXPORTS,
        information::EXPORTS,
        instances::EXPORTS,
        message::EXPORTS,
        operation_status::EXPORTS,
        oplock::EXPORTS,
        pended::EXPORTS,
        pipes::EXPORTS,
        port::EXPORTS,
        priority::EXPORTS,
        query_io::EXPORTS,
        queue::EXPORTS,
        redirection::EXPORTS,
        requestor::EXPORTS,
        security::EXPORTS,
        service::EXPORTS,
        volume_device::EXPORTS,
        volume_io::EXPORTS,
        volumes::EXPORTS,
        waits::EXPORTS,
        work_item::EXPORTS,
    ]
    .into_iter()
    .flatten()
    .chain(contexts::exports())
    .chain(names::exports())
}

#[cfg(test)]
mod tests;
