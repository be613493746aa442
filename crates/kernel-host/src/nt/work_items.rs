//! I/O work items: routines that run in a system thread at `PASSIVE_LEVEL`.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::ob::ObjectRef;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::leak::{Leak, LeakKind};
use crate::machine::{Driver, Inner};
use crate::origin::Origin;
use crate::thread::Thread;

pub(crate) mod plain;

pub(crate) use plain::EXPORTS as PLAIN_EXPORTS;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    IoAllocateWorkItem(max 2, fails NULL) = io_allocate_work_item;
    IoFreeWorkItem(max 2) = io_free_work_item;
    IoQueueWorkItem(max 2) = io_queue_work_item;
    IoQueueWorkItemEx(max 2) = io_queue_work_item_ex;
    IoTryQueueWorkItem(max 2) = io_try_queue_work_item;
    IoInitializeWorkItem(max 31) = io_initialize_work_item;
    IoUninitializeWorkItem(max 31) = io_uninitialize_work_item;
    IoSizeofWorkItem(max 31) = io_sizeof_work_item;
}

/// Bytes of an `IO_WORKITEM`, for drivers that bring their own memory.
const ITEM_BYTES: u32 = 88;

/// Work items of a machine, by the address that drivers hold. Nothing is behind the address: the items are opaque, and who
/// looks into one faults.
#[derive(Debug, Default)]
pub(crate) struct WorkItems {
    items: Mutex<HashMap<usize, Item>>,
    /// One entry per routine that is queued or runs: the address of its driver's record.
    under_way: Mutex<Vec<usize>>,
    ended: Condvar,
    plain: plain::PlainItems,
}

#[derive(Debug)]
struct Item {
    /// The device or driver object it was allocated for.
    object: usize,
    driver: Arc<Driver>,
    /// `IoAllocateWorkItem`, or the driver's own memory.
    is_allocated: bool,
    is_queued: bool,
    site: Origin,
}

/// One run of a queued item.
struct Run {
    item: usize,
    /// Kept alive while the routine runs, as documented.
    object: Option<ObjectRef>,
    object_address: usize,
    driver: Arc<Driver>,
    routine: usize,
    context: usize,
    /// The Ex form passes the item as a third argument.
    extended: bool,
}

impl WorkItems {
    fn lock(&self) -> MutexGuard<'_, HashMap<usize, Item>> {
        self.items.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn under_way(&self) -> MutexGuard<'_, Vec<usize>> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no routine of `driver` runs: each keeps a reference to its device, and with it the driver's code. False when
    /// that takes longer than `patience`.
    pub(crate) fn wait_for_routines(&self, driver: &Arc<Driver>, patience: Duration) -> bool {
        let mine = Arc::as_ptr(driver).addr();
        let waited = self.ended.wait_timeout_while(self.under_way(), patience, |drivers| drivers.contains(&mine));
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn ended(&self, driver: &Arc<Driver>) {
        let mut drivers = self.under_way();
        if let Some(index) = drivers.iter().position(|other| *other == Arc::as_ptr(driver).addr()) {
            drivers.swap_remove(index);
        }
        self.ended.notify_all();
    }

    /// A queued item inside a range of memory that is about to be freed.
    pub(crate) fn active_in(&self, start: usize, length: usize) -> Option<String> {
        let inside = |address: usize| address.wrapping_sub(start) < length;
        let queued = self.lock().iter().find(|(address, item)| item.is_queued && inside(**address)).map(|(at, _)| *at);
        let queued = queued.or_else(|| self.plain.queued_in(inside));
        queued.map(|address| format!("the work item {address:#x} in it is still queued"))
    }

    /// Items that `driver` has not freed.
    pub(crate) fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let items = self.lock();
        let mine = items.iter().filter(|(_, item)| std::ptr::eq(Arc::as_ptr(&item.driver), driver));
        let leak = |(address, item): (&usize, &Item)| Leak {
            kind: LeakKind::Execution,
            count: 1,
            bytes: 0,
            detail: format!(
                "work item {address:#x}{}{}, from {}",
                if item.is_allocated { " (IoAllocateWorkItem)" } else { " (IoInitializeWorkItem)" },
                if item.is_queued { ", still queued" } else { "" },
                item.site
            ),
        };
        mine.map(leak).chain(self.plain.leaks(driver)).collect()
    }
}

extern "efiapi" fn io_allocate_work_item(object: usize) -> usize {
    let call = Call::enter();
    if call.machine().nt.objects().lookup(object).is_none() {
        call.stop(Rule::BadArgument, format!("{object:#x} is no device or driver object"));
    }
    let Some(address) = call.machine().nt.arena().take(1) else { return 0 };
    let site = Origin::of(call.site());
    let item = Item { object, driver: Arc::clone(call.driver()), is_allocated: true, is_queued: false, site };
    call.machine().nt.work_items().lock().insert(address, item);
    address
}

extern "efiapi" fn io_free_work_item(address: usize) {
    let call = Call::enter();
    let removed = {
        let mut items = call.machine().nt.work_items().lock();
        match items.get(&address) {
            None => Err("is no work item, or one that was freed before"),
            Some(item) if item.is_queued => Err("is still queued"),
            Some(item) if !item.is_allocated => Err("is the driver's own memory: IoUninitializeWorkItem ends it"),
            Some(_) => {
                items.remove(&address);
                Ok(())
            }
        }
    };
    match removed {
        Ok(()) => call.machine().nt.arena().release(address, 1),
        Err(why) => call.stop(Rule::BadState, format!("{address:#x} {why}")),
    }
}

extern "efiapi" fn io_initialize_work_item(object: usize, item: usize) {
    let call = Call::enter();
    if call.machine().nt.objects().lookup(object).is_none() {
        call.stop(Rule::BadArgument, format!("{object:#x} is no device or driver object"));
    }
    let site = Origin::of(call.site());
    let new = Item { object, driver: Arc::clone(call.driver()), is_allocated: false, is_queued: false, site };
    let before = call.machine().nt.work_items().lock().insert(item, new);
    if before.is_some_and(|before| before.is_queued) {
        call.stop(Rule::BadState, format!("{item:#x} is queued, and is initialised again"));
    }
}

extern "efiapi" fn io_uninitialize_work_item(item: usize) {
    let call = Call::enter();
    let removed = call.machine().nt.work_items().lock().remove(&item);
    match removed {
        Some(removed) if !removed.is_queued && !removed.is_allocated => {}
        Some(_) => call.stop(Rule::BadState, format!("{item:#x} is still queued, or from IoAllocateWorkItem")),
        None => call.stop(Rule::BadState, format!("{item:#x} is no work item that IoInitializeWorkItem has seen")),
    }
}

extern "efiapi" fn io_sizeof_work_item() -> u32 {
    let _call = Call::enter();
    ITEM_BYTES
}

/// As `IoQueueWorkItem`, but an item that is queued already is no error: FALSE.
extern "efiapi" fn io_try_queue_work_item(item: usize, routine: usize, _queue: i32, context: usize) -> u8 {
    let call = Call::enter();
    let is_queued = call.machine().nt.work_items().lock().get(&item).is_some_and(|item| item.is_queued);
    if is_queued {
        return 0;
    }
    queue(&call, item, routine, context, false);
    1
}

extern "efiapi" fn io_queue_work_item(item: usize, routine: usize, _queue: i32, context: usize) {
    queue(&Call::enter(), item, routine, context, false);
}

extern "efiapi" fn io_queue_work_item_ex(item: usize, routine: usize, _queue: i32, context: usize) {
    queue(&Call::enter(), item, routine, context, true);
}

fn queue(call: &Call, address: usize, routine: usize, context: usize, extended: bool) {
    let queued = {
        let mut items = call.machine().nt.work_items().lock();
        match items.get_mut(&address) {
            None => Err("is no work item, or one that was freed"),
            Some(item) if item.is_queued => Err("is queued already"),
            Some(item) => {
                item.is_queued = true;
                Ok((item.object, Arc::clone(&item.driver)))
            }
        }
    };
    let (object_address, driver) = match queued {
        Ok(queued) => queued,
        Err(why) => call.stop(Rule::BadState, format!("{address:#x} {why}")),
    };
    let object = call.machine().nt.objects().lookup(object_address);
    call.machine().nt.work_items().under_way().push(Arc::as_ptr(&driver).addr());
    let run = Run { item: address, object, object_address, driver, routine, context, extended };
    let machine = Arc::clone(call.machine());
    // One Linux thread each: system worker threads are many, and routines may wait for each other.
    std::thread::spawn(move || run.run(&machine));
}

impl Run {
    fn run(self, machine: &Arc<Inner>) {
        type Routine = unsafe extern "efiapi" fn(object: usize, context: usize, item: usize);
        // From now on the routine may queue or free its own item.
        if let Some(item) = machine.nt.work_items().lock().get_mut(&self.item) {
            item.is_queued = false;
        }
        // SAFETY: the address of an IO_WORKITEM_ROUTINE(_EX); the plain form ignores the third argument's register.
        let routine = unsafe { std::mem::transmute::<usize, Routine>(self.routine) };
        let item = if self.extended { self.item } else { 0 };
        Thread::enter(machine, |thread| {
            // SAFETY: the driver queued the routine for this object and context.
            let body = || unsafe { routine(self.object_address, self.context, item) };
            // A stop is recorded in the machine; this thread just ends.
            let _ = thread.call_driver(&self.driver, "IO_WORKITEM_ROUTINE", 0, body);
        });
        drop(self.object);
        machine.nt.work_items().ended(&self.driver);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;
    use crate::nt::ob::ObjectBody;
    use crate::nt::raw::Raw;
    use std::time::Instant;

    #[derive(Debug)]
    struct Device;

    impl ObjectBody for Device {
        fn type_name(&self) -> &'static str {
            "Device"
        }
    }

    extern "efiapi" fn note(object: u64, context: Raw<u64>) {
        let call = Call::enter();
        assert_eq!(call.thread().irql(), 0);
        context.write(object);
    }

    fn device(bench: &Bench) -> ObjectRef {
        bench.machine().inner().nt.objects().create(64, Arc::new(Device)).expect("memory")
    }

    #[test]
    fn a_work_item_runs_at_passive_level_with_its_device() {
        conforms!(
            "wdm/nf-wdm-ioqueueworkitem.md",
            "The routine gets the device object and the context that were given."
        );
        let bench = Bench::new();
        let device = device(&bench);
        let mut seen = 0_u64;
        let context = Raw::of(&raw mut seen);
        let item = bench
            .run(|| {
                let item = io_allocate_work_item(device.body());
                io_queue_work_item(item, note as *const () as usize, 1, context.address());
                item
            })
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while context.read() == 0 && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(context.read(), device.body() as u64);
        assert_eq!(bench.machine().inner().nt.work_items().leaks(bench.driver()).len(), 1);
        bench.run(|| io_free_work_item(item)).unwrap();
        assert!(bench.machine().inner().nt.work_items().leaks(bench.driver()).is_empty());
    }

    #[test]
    fn an_item_in_the_drivers_memory_is_uninitialised_not_freed() {
        conforms!(
            "wdm/nf-wdm-ioinitializeworkitem.md",
            "An item that IoInitializeWorkItem made is ended by IoUninitializeWorkItem before its memory is freed."
        );
        let bench = Bench::new();
        let device = device(&bench);
        let mut memory = [0_u64; 11];
        let item = Raw::<u64>::of(memory.as_mut_ptr()).address();
        bench
            .run(|| {
                assert_eq!(io_sizeof_work_item(), 88);
                io_initialize_work_item(device.body(), item);
                io_uninitialize_work_item(item);
            })
            .unwrap();
        let stopped = bench.run(|| {
            io_initialize_work_item(device.body(), item);
            io_free_work_item(item);
        });
        assert_eq!(stopped.unwrap_err().0.rule, Rule::BadState);
    }

    #[test]
    fn a_work_item_is_freed_once() {
        conforms!("wdm/nf-wdm-iofreeworkitem.md", "Only an item that IoAllocateWorkItem made is freed.");
        let bench = Bench::new();
        let device = device(&bench);
        let stopped = bench.run(|| {
            let item = io_allocate_work_item(device.body());
            io_free_work_item(item);
            io_free_work_item(item);
        });
        assert_eq!(stopped.unwrap_err().0.rule, Rule::BadState);
    }

    #[test]
    fn a_work_item_needs_an_object() {
        conforms!("wdm/nf-wdm-ioallocateworkitem.md", "The item belongs to a driver or device object of the caller.");
        let stopped = Bench::new().run(|| io_allocate_work_item(0x1000));
        assert_eq!(stopped.unwrap_err().0.rule, Rule::BadArgument);
    }
}
