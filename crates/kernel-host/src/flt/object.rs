//! FltMgr's own objects: filters, instances, volumes, ports, work items.
//!
//! They are no kernel objects: drivers know them by opaque pointers, and keep them alive by *rundown references*. Here the
//! pointer is the address of a page that nobody can touch, so that a driver that looks inside faults at once.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nt_types::NtStatus;

use super::filter::Filter;
use super::instance::{Instance, VolumeStack};
use super::pended::DeferredWorkItem;
use super::port::{ClientPort, ServerPort};
use super::work_item::WorkItem;
use crate::ddi::{Call, CallSite};
use crate::finding::Rule;
use crate::machine::{Driver, Inner};
use crate::nt::arena::Access;
use crate::origin::Origin;

/// How long a rundown sees no progress before its wait counts as endless.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a pointer of FltMgr's stands for.
#[derive(Clone, Debug)]
pub(crate) enum FltObject {
    Filter(Arc<Filter>),
    Instance(Arc<Instance>),
    Volume(Arc<VolumeStack>),
    ServerPort(Arc<ServerPort>),
    ClientPort(Arc<ClientPort>),
    WorkItem(Arc<WorkItem>),
    DeferredWorkItem(Arc<DeferredWorkItem>),
}

impl FltObject {
    /// The type as drivers spell it.
    pub(crate) fn type_name(&self) -> &'static str {
        match self {
            Self::Filter(_) => "PFLT_FILTER",
            Self::Instance(_) => "PFLT_INSTANCE",
            Self::Volume(_) => "PFLT_VOLUME",
            Self::ServerPort(_) => "PFLT_PORT (server)",
            Self::ClientPort(_) => "PFLT_PORT (client)",
            Self::WorkItem(_) => "PFLT_GENERIC_WORKITEM",
            Self::DeferredWorkItem(_) => "PFLT_DEFERRED_IO_WORKITEM",
        }
    }

    /// Its rundown protection, for the types that FltObjectReference takes.
    pub(crate) fn rundown(&self) -> Option<&Rundown> {
        match self {
            Self::Filter(filter) => Some(&filter.rundown),
            Self::Instance(instance) => Some(&instance.rundown),
            Self::Volume(volume) => Some(&volume.rundown),
            Self::ServerPort(_) | Self::ClientPort(_) | Self::WorkItem(_) | Self::DeferredWorkItem(_) => None,
        }
    }
}

/// Pointers that drivers hold.
#[derive(Debug, Default)]
pub(crate) struct ObjectTable(Mutex<HashMap<usize, (FltObject, Option<Origin>)>>);

impl ObjectTable {
    /// A new pointer, which stands for nothing yet.
    pub(crate) fn reserve(machine: &Inner) -> Result<usize, NtStatus> {
        machine.nt.arena().allocate(1, Access::None).ok_or(NtStatus::INSUFFICIENT_RESOURCES)
    }

    /// Lets a reserved pointer stand for `object`.
    pub(crate) fn insert(&self, address: usize, object: FltObject) {
        // Where the driver asked for it; what came about by itself has no such place.
        let origin = Origin::current();
        self.lock().insert(address, (object, origin));
    }

    /// The pointer stands for nothing any more; it is not used again soon.
    pub(crate) fn remove(&self, machine: &Inner, address: usize) -> Option<FltObject> {
        let removed = self.lock().remove(&address).map(|(object, _)| object);
        if removed.is_some() {
            machine.nt.arena().release(address, 1);
        }
        removed
    }

    /// The object is gone. The pointer stays for those who hold references to it.
    pub(crate) fn retire(&self, machine: &Inner, address: usize) {
        let unused = self.get(address).and_then(|object| object.rundown().map(Rundown::retire));
        if unused == Some(true) {
            self.remove(machine, address);
        }
    }

    pub(crate) fn get(&self, address: usize) -> Option<FltObject> {
        self.lock().get(&address).map(|(object, _)| object.clone())
    }

    /// All objects, for reports.
    pub(crate) fn all(&self) -> Vec<(FltObject, Option<Origin>)> {
        self.lock().values().cloned().collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, (FltObject, Option<Origin>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Declares `fn $name(call, address) -> Arc<$type>`, which stops on any other pointer.
macro_rules! typed {
    ($($name:ident: $variant:ident, $type:ty, $spelling:literal;)*) => {$(
        #[doc = concat!("The object behind a `", $spelling, "` that the driver passes; stops when it is none.")]
        pub(crate) fn $name(call: &Call, address: usize) -> Arc<$type> {
            match call.machine().flt.objects.get(address) {
                Some(FltObject::$variant(object)) => object,
                other => wrong(call, address, $spelling, other.as_ref()),
            }
        }
    )*};
}

typed! {
    filter: Filter, Filter, "PFLT_FILTER";
    instance: Instance, Instance, "PFLT_INSTANCE";
    volume: Volume, VolumeStack, "PFLT_VOLUME";
    work_item: WorkItem, WorkItem, "PFLT_GENERIC_WORKITEM";
    deferred_work_item: DeferredWorkItem, DeferredWorkItem, "PFLT_DEFERRED_IO_WORKITEM";
}

pub(crate) fn wrong(call: &Call, address: usize, wanted: &str, found: Option<&FltObject>) -> ! {
    let is = found
        .map_or_else(|| "stands for nothing (any more)".to_owned(), |object| format!("is a {}", object.type_name()));
    call.stop(Rule::BadArgument, format!("{address:#x} is passed as {wanted} but {is}"));
}

/// Rundown protection: references that an object's end waits for.
#[derive(Debug, Default)]
pub(crate) struct Rundown {
    /// Set under the lock, for good: nobody gets in any more.
    ending: AtomicBool,
    /// Callbacks and work items under way, which end by themselves.
    busy: AtomicUsize,
    /// Threads that wait for changes: telling nobody costs a system call, and every callback ends here.
    waiting: AtomicUsize,
    state: Mutex<RundownState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct RundownState {
    /// The object is gone; its pointer lasts as long as the references.
    retired: bool,
    /// Driver references.
    holds: Vec<Hold>,
}

#[derive(Clone, Debug)]
struct Hold {
    driver: Arc<Driver>,
    ddi: &'static str,
    site: Origin,
}

impl Rundown {
    /// Takes a reference for the calling driver.
    ///
    /// # Errors
    /// `FLT_DELETING_OBJECT` when the object is on its way out.
    pub(crate) fn hold(&self, site: &CallSite) -> Result<(), NtStatus> {
        let mut state = self.lock();
        if self.is_ending() {
            return Err(NtStatus::FLT_DELETING_OBJECT);
        }
        let hold = Hold { driver: Arc::clone(&site.driver), ddi: site.export.name, site: Origin::of(site) };
        state.holds.push(hold);
        Ok(())
    }

    /// Drops a reference of `driver`. `None` when it holds none; else whether that was the last use of a pointer whose object
    /// is gone.
    pub(crate) fn release(&self, driver: &Arc<Driver>) -> Option<bool> {
        let mut state = self.lock();
        let index = state.holds.iter().rposition(|hold| Arc::ptr_eq(&hold.driver, driver))?;
        state.holds.remove(index);
        if self.waiting.load(Ordering::SeqCst) != 0 {
            self.changed.notify_all();
        }
        Some(state.retired && state.holds.is_empty())
    }

    /// The object is gone. Whether its pointer can go too: nobody holds a reference.
    fn retire(&self) -> bool {
        let mut state = self.lock();
        state.retired = true;
        state.holds.is_empty()
    }

    /// Notes that driver code runs for the object.
    ///
    /// # Errors
    /// `FLT_DELETING_OBJECT` when the object is on its way out.
    pub(crate) fn enter(&self) -> Result<(), NtStatus> {
        // Counted before looking: who sets `ending` afterwards sees the count, and waits.
        self.busy.fetch_add(1, Ordering::SeqCst);
        if self.is_ending() {
            self.leave();
            return Err(NtStatus::FLT_DELETING_OBJECT);
        }
        Ok(())
    }

    /// The end of [`enter`](Self::enter).
    pub(crate) fn leave(&self) {
        self.busy.fetch_sub(1, Ordering::SeqCst);
        if self.waiting.load(Ordering::SeqCst) != 0 {
            // The lock: whoever counted as waiting either sees the new count, or sleeps already.
            let _state = self.lock();
            self.changed.notify_all();
        }
    }

    /// Whether the object is on its way out.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::SeqCst)
    }

    /// From now on nobody gets a reference. False when that was so already.
    pub(crate) fn start_ending(&self) -> bool {
        let _state = self.lock();
        !self.ending.swap(true, Ordering::SeqCst)
    }

    /// References that are held, one text each.
    pub(crate) fn holders(&self) -> Vec<String> {
        self.lock()
            .holds
            .iter()
            .map(|hold| format!("by {} in {} from {}", hold.ddi, hold.driver.name, hold.site))
            .collect()
    }

    /// References that `driver` holds, one text each.
    pub(crate) fn held_by(&self, driver: &Driver) -> Vec<String> {
        let state = self.lock();
        let mine = state.holds.iter().filter(|hold| std::ptr::eq(Arc::as_ptr(&hold.driver), driver));
        mine.map(|hold| format!("by {} from {}", hold.ddi, hold.site)).collect()
    }

    /// Waits until all references and callbacks are gone.
    ///
    /// # Errors
    /// Who still holds on when nothing has changed for [`PATIENCE`]: on Windows the wait would go on.
    pub(crate) fn wait(&self) -> Result<(), Vec<String>> {
        self.wait_for(|state| state.holds.len())
    }

    /// Waits until all callbacks are gone, whoever holds references. Errors as for [`wait`](Self::wait).
    pub(crate) fn wait_for_callbacks(&self) -> Result<(), Vec<String>> {
        self.wait_for(|_| 0)
    }

    /// `count` tells how many references have to go; callbacks always have to.
    fn wait_for(&self, count: impl Fn(&RundownState) -> usize) -> Result<(), Vec<String>> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        let result = self.wait_as_counted(|state| (count(state), self.busy.load(Ordering::SeqCst)));
        self.waiting.fetch_sub(1, Ordering::SeqCst);
        result
    }

    fn wait_as_counted(&self, look: impl Fn(&RundownState) -> (usize, usize)) -> Result<(), Vec<String>> {
        let mut state = self.lock();
        let mut seen = look(&state);
        let mut since = Instant::now();
        while seen != (0, 0) {
            let left = PATIENCE.saturating_sub(since.elapsed());
            if left.is_zero() {
                let busy = self.busy.load(Ordering::SeqCst);
                drop(state);
                let mut holders = self.holders();
                if busy != 0 {
                    holders.push(format!("{busy} callback(s) or work item(s) that do not return"));
                }
                return Err(holders);
            }
            (state, _) = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
            let now = look(&state);
            if seen != now {
                (seen, since) = (now, Instant::now());
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, RundownState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
