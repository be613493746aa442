//! `ExQueueWorkItem`: work items that belong to no device. Page: `wdm/nf-wdm-exqueueworkitem`.

use std::sync::{Arc, Mutex, PoisonError};

use nt_types::LIST_ENTRY;

use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::leak::{Leak, LeakKind};
use crate::machine::{Driver, Inner};
use crate::nt::raw::{Raw, field};
use crate::origin::Origin;
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    ExQueueWorkItem(max 2) = ex_queue_work_item;
}

/// Items whose routines have not returned.
#[derive(Debug, Default)]
pub(super) struct PlainItems(Mutex<Vec<PlainItem>>);

#[derive(Debug)]
struct PlainItem {
    address: usize,
    driver: Arc<Driver>,
    site: Origin,
    /// Its routine has not begun: that may free the item.
    is_queued: bool,
}

/// `WORK_QUEUE_ITEM`.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct QueueItem {
    list: LIST_ENTRY,
    routine: usize,
    parameter: usize,
}

impl PlainItems {
    /// Routines of `driver` that are still to run, or run.
    pub(super) fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let items = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = items.iter().filter(|item| std::ptr::eq(Arc::as_ptr(&item.driver), driver));
        let leak = |item: &PlainItem| Leak {
            kind: LeakKind::Execution,
            count: 1,
            bytes: 0,
            detail: format!(
                "work item {:#x} is queued or runs, queued by ExQueueWorkItem from {}",
                item.address, item.site
            ),
        };
        mine.map(leak).collect()
    }

    /// An item in some memory that is still queued.
    pub(super) fn queued_in(&self, inside: impl Fn(usize) -> bool) -> Option<usize> {
        let items = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        items.iter().find(|item| item.is_queued && inside(item.address)).map(|item| item.address)
    }

    /// The routine of an item begins.
    fn begin(&self, address: usize) {
        let mut items = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(item) = items.iter_mut().find(|item| item.is_queued && item.address == address) {
            item.is_queued = false;
        }
    }

    fn add(&self, address: usize, driver: &Arc<Driver>, site: Origin) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(PlainItem {
            address,
            driver: Arc::clone(driver),
            site,
            is_queued: true,
        });
    }

    fn remove(&self, item: usize) {
        let mut items = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = items.iter().position(|other| other.address == item) {
            items.swap_remove(index);
        }
    }
}

pub(super) extern "efiapi" fn ex_queue_work_item(item: Raw<QueueItem>, _queue: i32) {
    let call = Call::enter();
    let content = item.read();
    // ExInitializeWorkItem sets the link to NULL; the queue sets it while the item is in there.
    if !content.list.Flink.is_null() {
        call.stop(Rule::BadState, format!("{item:?} is queued already, or was not initialised"));
    }
    if content.routine == 0 {
        call.stop(Rule::BadArgument, "the work item has no routine");
    }
    queue(call.machine(), call.driver(), Origin::of(call.site()), item);
}

/// Has a system thread run an item of a driver's.
pub(crate) fn queue(machine: &Arc<Inner>, driver: &Arc<Driver>, origin: Origin, item: Raw<QueueItem>) {
    type Routine = unsafe extern "efiapi" fn(usize);
    let content = item.read();
    let link = field!(item, QueueItem, list.Flink);
    link.write(item.cast().pointer());
    let (machine, driver) = (Arc::clone(machine), Arc::clone(driver));
    let address = item.address();
    machine.nt.work_items().plain.add(address, &driver, origin);
    std::thread::spawn(move || {
        // SAFETY: the address of the driver's WORKER_THREAD_ROUTINE.
        let routine = unsafe { std::mem::transmute::<usize, Routine>(content.routine) };
        Thread::enter(&machine, |thread| {
            let body = || {
                machine.nt.work_items().plain.begin(address);
                // Out of the queue: the routine may free the item, or queue it again.
                field!(Raw::<QueueItem>::at(address), QueueItem, list.Flink).write(std::ptr::null_mut());
                // SAFETY: the parameter is what the driver stored for its routine.
                unsafe { routine(content.parameter) }
            };
            // A stop is recorded in the machine; this thread just ends.
            let _ = thread.call_driver(&driver, "WORKER_THREAD_ROUTINE", 0, body);
        });
        machine.nt.work_items().plain.remove(address);
    });
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;

    extern "efiapi" fn note(parameter: Raw<u32>) {
        parameter.write(u32::from(Thread::current().irql()) + 1);
    }

    #[test]
    fn a_plain_item_runs_in_a_system_thread_at_passive_level() {
        conforms!("wdm/nf-wdm-exqueueworkitem.md", "The routine runs in a system context at PASSIVE_LEVEL.");
        let bench = Bench::new();
        let mut seen = 0_u32;
        let seen = Raw::of(&raw mut seen);
        let null = std::ptr::null_mut();
        let list = LIST_ENTRY { Flink: null, Blink: null };
        let mut item = QueueItem { list, routine: note as *const () as usize, parameter: seen.address() };
        let item = Raw::of(&raw mut item);
        bench.run(|| ex_queue_work_item(item, 1)).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let leaks = || bench.machine().inner().nt.work_items().leaks(bench.driver()).len();
        while leaks() > 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!((seen.read(), leaks()), (1, 0));
    }

    #[test]
    fn an_item_that_is_queued_cannot_be_queued_again() {
        let bench = Bench::new();
        let itself = 8_usize;
        let list = LIST_ENTRY { Flink: std::ptr::without_provenance_mut(itself), Blink: std::ptr::null_mut() };
        let mut item = QueueItem { list, routine: 1, parameter: 0 };
        let item = Raw::of(&raw mut item);
        assert_eq!(bench.run(|| ex_queue_work_item(item, 1)).unwrap_err().0.rule, Rule::BadState);
    }
}
