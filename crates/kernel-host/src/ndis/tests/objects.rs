//! Timers, work items, events and clocks.

use std::time::Duration;

use super::*;
use crate::thread::Thread;

/// What timer and work item routines of the tests do: count, and note the IRQL.
struct Seen {
    count: std::sync::atomic::AtomicU32,
    irql: std::sync::atomic::AtomicU32,
}

impl Seen {
    fn new() -> &'static Self {
        Box::leak(Box::new(Self { count: 0.into(), irql: 99.into() }))
    }

    fn address(&'static self) -> usize {
        std::ptr::from_ref(self).expose_provenance()
    }

    fn note(context: *mut c_void) {
        // SAFETY: the tests pass a leaked `Seen`.
        let seen = unsafe { &*context.cast_const().cast::<Self>() };
        seen.irql.store(Thread::current().irql().into(), std::sync::atomic::Ordering::Release);
        seen.count.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
    }

    fn count(&self) -> u32 {
        self.count.load(std::sync::atomic::Ordering::Acquire)
    }

    fn irql(&self) -> u32 {
        self.irql.load(std::sync::atomic::Ordering::Acquire)
    }

    fn wait(&self, count: u32) {
        for _ in 0..500 {
            if self.count() >= count {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("{} of {count}", self.count());
    }
}

unsafe extern "efiapi" fn timer_function(_: *mut c_void, context: *mut c_void, _: *mut c_void, _: *mut c_void) {
    Seen::note(context);
}

unsafe extern "efiapi" fn work_item_routine(context: *mut c_void, _: NDIS_HANDLE) {
    Seen::note(context);
}

fn timer_characteristics(context: usize) -> NDIS_TIMER_CHARACTERISTICS {
    NDIS_TIMER_CHARACTERISTICS {
        Header: NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_TIMER_CHARACTERISTICS, 1, 24),
        AllocationTag: 7,
        TimerFunction: Some(timer_function),
        FunctionContext: Raw::at(context).pointer(),
    }
}

fn allocate_timer(handle: usize, characteristics: &NDIS_TIMER_CHARACTERISTICS) -> Result<usize, NdisStatus> {
    let mut timer = 0;
    call_ddi!(
        "NdisAllocateTimerObject",
        fn(usize, &NDIS_TIMER_CHARACTERISTICS, &mut usize) -> NdisStatus,
        handle,
        characteristics,
        &mut timer
    )
    .ok()
    .map(|()| timer)
}

fn set_timer(timer: usize, milliseconds: i64, period: u32, context: usize) -> u8 {
    let due = -milliseconds * 10_000;
    call_ddi!("NdisSetTimerObject", fn(usize, i64, u32, usize) -> u8, timer, due, period, context)
}

fn cancel_timer(timer: usize) -> u8 {
    call_ddi!("NdisCancelTimerObject", fn(usize) -> u8, timer)
}

fn free_timer(timer: usize) {
    call_ddi!("NdisFreeTimerObject", fn(usize), timer);
}

/// A NIC with an adapter, and the adapter's handle.
pub(super) fn adapter() -> (Nic, Adapter, usize) {
    let nic = Nic::new();
    let adapter = nic.add().unwrap();
    (nic, adapter, script().adapter.get())
}

#[test]
fn a_timer_fires_once_at_dispatch_level_with_the_context_of_its_characteristics() {
    conforms!("ndis/nf-ndis-ndissettimerobject.md", "When the time is over, the function runs once at DISPATCH_LEVEL.");
    conforms!(
        "ndis/nf-ndis-ndissettimerobject.md",
        "Without a FunctionContext the one in the timer's characteristics is passed."
    );
    let (nic, _adapter, handle) = adapter();
    let seen = Seen::new();
    let timer = nic.bench.run(|| allocate_timer(handle, &timer_characteristics(seen.address())).unwrap()).unwrap();
    assert_eq!(nic.bench.run(|| set_timer(timer, 5, 0, 0)).unwrap(), 0);
    seen.wait(1);
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!((seen.count(), seen.irql()), (1, 2));
    nic.bench.run(|| free_timer(timer)).unwrap();
}

#[test]
fn a_context_given_with_the_time_replaces_the_default() {
    conforms!("ndis/nf-ndis-ndissettimerobject.md", "A FunctionContext is passed instead of the default.");
    let (nic, _adapter, handle) = adapter();
    let (default, own) = (Seen::new(), Seen::new());
    let timer = nic.bench.run(|| allocate_timer(handle, &timer_characteristics(default.address())).unwrap()).unwrap();
    nic.bench.run(|| set_timer(timer, 1, 0, own.address())).unwrap();
    own.wait(1);
    assert_eq!(default.count(), 0);
    nic.bench.run(|| free_timer(timer)).unwrap();
}

#[test]
fn a_periodic_timer_fires_until_it_is_cancelled() {
    conforms!("ndis/nf-ndis-ndissettimerobject.md", "With a period the timer is queued again each time it fires.");
    let (nic, _adapter, handle) = adapter();
    let seen = Seen::new();
    let timer = nic.bench.run(|| allocate_timer(handle, &timer_characteristics(seen.address())).unwrap()).unwrap();
    nic.bench.run(|| set_timer(timer, 1, 2, 0)).unwrap();
    seen.wait(3);
    assert_eq!(nic.bench.run(|| cancel_timer(timer)).unwrap(), 1);
    let count = seen.count();
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(seen.count(), count, "nothing runs after the cancel");
    nic.bench.run(|| free_timer(timer)).unwrap();
}

#[test]
fn a_cancel_says_whether_the_timer_was_in_the_queue() {
    conforms!("ndis/nf-ndis-ndiscanceltimerobject.md", "TRUE when the timer was in the queue, else FALSE.");
    conforms!("ndis/nf-ndis-ndissettimerobject.md", "TRUE when the timer was in the queue already, else FALSE.");
    let (nic, _adapter, handle) = adapter();
    nic.bench
        .run(|| {
            let timer = allocate_timer(handle, &timer_characteristics(Seen::new().address())).unwrap();
            assert_eq!((set_timer(timer, 60_000, 0, 0), set_timer(timer, 60_000, 0, 0)), (0, 1));
            assert_eq!((cancel_timer(timer), cancel_timer(timer)), (1, 0));
            free_timer(timer);
        })
        .unwrap();
}

#[test]
fn a_periodic_timer_is_cancelled_at_passive_level() {
    conforms!("ndis/nf-ndis-ndiscanceltimerobject.md", "A periodic timer is cancelled at PASSIVE_LEVEL only.");
    let (nic, _adapter, handle) = adapter();
    let timer =
        nic.bench.run(|| allocate_timer(handle, &timer_characteristics(Seen::new().address())).unwrap()).unwrap();
    let high = nic.bench.run(|| {
        set_timer(timer, 60_000, 1, 0);
        Thread::current().set_irql(2);
        cancel_timer(timer)
    });
    assert_eq!(high.unwrap_err().0.rule, Rule::IrqlTooHigh);
}

#[test]
fn a_period_does_not_exceed_maxlong() {
    conforms!("ndis/nf-ndis-ndissettimerobject.md", "MillisecondsPeriod must not exceed MAXLONG.");
    let (nic, _adapter, handle) = adapter();
    let timer =
        nic.bench.run(|| allocate_timer(handle, &timer_characteristics(Seen::new().address())).unwrap()).unwrap();
    assert_eq!(nic.bench.run(|| set_timer(timer, 1, u32::MAX, 0)).unwrap_err().0.rule, Rule::BadArgument);
}

#[test]
fn timer_characteristics_are_checked() {
    conforms!(
        "ndis/nf-ndis-ndisallocatetimerobject.md",
        "Invalid characteristics are NDIS_STATUS_BAD_CHARACTERISTICS."
    );
    conforms!(
        "ndis/ns-ndis-_ndis_timer_characteristics.md",
        "The header has type TIMER_CHARACTERISTICS, revision 1 and the size of that revision."
    );
    let (nic, _adapter, handle) = adapter();
    let good = timer_characteristics(0);
    let mut others = [good, good, good];
    others[0].Header.Type = 0x96;
    others[1].Header.Size = 16;
    others[2].TimerFunction = None;
    for bad in others {
        let refused = nic.bench.run(|| allocate_timer(handle, &bad)).unwrap();
        assert_eq!(refused, Err(NdisStatus::BAD_CHARACTERISTICS));
    }
}

#[test]
fn a_timer_that_is_set_is_not_freed() {
    let (nic, _adapter, handle) = adapter();
    let freed = nic.bench.run(|| {
        let timer = allocate_timer(handle, &timer_characteristics(Seen::new().address())).unwrap();
        set_timer(timer, 60_000, 0, 0);
        free_timer(timer);
    });
    assert_eq!(freed.unwrap_err().0.rule, Rule::BadState);
}

#[test]
fn a_timer_of_the_adapter_left_by_the_halt_is_found() {
    conforms!(
        "ndis/nc-ndis-miniport_halt.md",
        "MiniportHaltEx frees all that was allocated for the adapter: its timers are cancelled."
    );
    let (nic, adapter, handle) = adapter();
    nic.bench.run(|| allocate_timer(handle, &timer_characteristics(Seen::new().address())).unwrap()).unwrap();
    assert_eq!(rule(adapter.remove()), Rule::BadState);
}

#[test]
fn a_failed_initialisation_keeps_nothing() {
    conforms!(
        "ndis/nc-ndis-miniport_initialize.md",
        "An initialisation that fails releases all that it has allocated before it returns."
    );
    let nic = Nic::new();
    nic.on_initialize(|handle| {
        allocate_timer(handle, &timer_characteristics(1)).unwrap();
        NdisStatus::FAILURE
    });
    assert_eq!(rule(nic.add()), Rule::BadState);
}

fn allocate_work_item(handle: usize) -> usize {
    call_ddi!("NdisAllocateIoWorkItem", fn(usize) -> usize, handle)
}

fn queue_work_item(item: usize, context: usize) {
    let routine: NDIS_IO_WORKITEM_ROUTINE = work_item_routine;
    call_ddi!("NdisQueueIoWorkItem", fn(usize, NDIS_IO_WORKITEM_ROUTINE, usize), item, routine, context);
}

fn free_work_item(item: usize) {
    call_ddi!("NdisFreeIoWorkItem", fn(usize), item);
}

#[test]
fn a_work_item_runs_at_passive_level_and_is_freed_once() {
    conforms!("ndis/nf-ndis-ndisqueueioworkitem.md", "The routine runs in a system thread at PASSIVE_LEVEL.");
    conforms!("ndis/nf-ndis-ndisfreeioworkitem.md", "The item is freed by NdisFreeIoWorkItem, once.");
    let (nic, _adapter, handle) = adapter();
    let seen = Seen::new();
    let item = nic.bench.run(|| allocate_work_item(handle)).unwrap();
    nic.bench
        .run(|| {
            Thread::current().set_irql(2);
            queue_work_item(item, seen.address());
            Thread::current().set_irql(0);
        })
        .unwrap();
    seen.wait(1);
    assert_eq!(seen.irql(), 0);
    nic.bench.run(|| free_work_item(item)).unwrap();
    assert_eq!(nic.bench.run(|| free_work_item(item)).unwrap_err().0.rule, Rule::InvalidHandle);
}

#[test]
fn a_work_item_of_the_driver_outlives_adapters_but_not_the_driver() {
    conforms!(
        "ndis/nf-ndis-ndisallocateioworkitem.md",
        "An item allocated with the driver's handle is freed before the driver unloads."
    );
    let (nic, adapter, _handle) = adapter();
    let item = nic.bench.run(|| allocate_work_item(REGISTERED.get())).unwrap();
    adapter.remove().unwrap();
    assert_eq!(nic.leaks(), 2, "the registration and the item");
    nic.bench.run(|| free_work_item(item)).unwrap();
    assert_eq!(nic.leaks(), 1);
}

#[test]
fn a_work_item_of_the_adapter_left_by_the_halt_is_found() {
    conforms!(
        "ndis/nf-ndis-ndisallocateioworkitem.md",
        "An item allocated with an adapter's handle is freed before or in MiniportHaltEx."
    );
    let (nic, adapter, handle) = adapter();
    nic.bench.run(|| allocate_work_item(handle)).unwrap();
    assert_eq!(rule(adapter.remove()), Rule::BadState);
}

#[test]
fn protocols_have_no_ndis_work_items() {
    conforms!(
        "ndis/nf-ndis-ndisallocateioworkitem.md",
        "Protocol drivers cannot use NDIS work items: no device belongs to their handles."
    );
    let (nic, _adapter, talk) = Nic::bound();
    let handle = talk.handle.load(std::sync::atomic::Ordering::Acquire);
    assert_eq!(nic.bench.run(|| allocate_work_item(handle)).unwrap_err().0.rule, Rule::BadArgument);
}

fn event() -> usize {
    let event = Box::leak(Box::new([0_u64; 3]));
    let event = std::ptr::from_mut(event).expose_provenance();
    call_ddi!("NdisInitializeEvent", fn(usize), event);
    event
}

fn wait_event(event: usize, milliseconds: u32) -> u8 {
    call_ddi!("NdisWaitEvent", fn(usize, u32) -> u8, event, milliseconds)
}

#[test]
fn an_event_stays_signalled_until_it_is_reset() {
    conforms!("ndis/nf-ndis-ndisinitializeevent.md", "A new event is a notification event and not signalled.");
    conforms!("ndis/nf-ndis-ndissetevent.md", "After NdisSetEvent the event stays signalled until NdisResetEvent.");
    conforms!("ndis/nf-ndis-ndiswaitevent.md", "TRUE when the event is signalled, FALSE when the time is over.");
    let nic = Nic::new();
    nic.bench
        .run(|| {
            let event = event();
            assert_eq!(wait_event(event, 1), 0);
            call_ddi!("NdisSetEvent", fn(usize), event);
            assert_eq!((wait_event(event, 1), wait_event(event, 0)), (1, 1));
            call_ddi!("NdisResetEvent", fn(usize), event);
            assert_eq!(wait_event(event, 1), 0);
        })
        .unwrap();
}

#[test]
fn a_wait_of_zero_milliseconds_has_no_end() {
    conforms!("ndis/nf-ndis-ndiswaitevent.md", "MsToWait 0 waits until the event is signalled.");
    let nic = Nic::new();
    nic.bench.machine().set_deadlock_time(Duration::from_millis(50));
    let waits = nic.bench.run(|| wait_event(event(), 0));
    assert_eq!(waits.unwrap_err().0.rule, Rule::Deadlock);
}

#[test]
fn waits_and_sleeps_need_a_low_irql() {
    conforms!("ndis/nf-ndis-ndiswaitevent.md", "NdisWaitEvent is called at PASSIVE_LEVEL.");
    conforms!("ndis/nf-ndis-ndismsleep.md", "NdisMSleep is called below DISPATCH_LEVEL.");
    assert_eq!((export("NdisWaitEvent").max_irql, export("NdisMSleep").max_irql), (0, 1));
}

#[test]
fn a_sleep_lasts_as_long_as_asked_and_at_most_half_a_minute() {
    conforms!("ndis/nf-ndis-ndismsleep.md", "The thread waits for the given microseconds; 30 seconds are the most.");
    let nic = Nic::new();
    let started = std::time::Instant::now();
    nic.bench.run(|| call_ddi!("NdisMSleep", fn(u32), 20_000)).unwrap();
    assert!(started.elapsed() >= Duration::from_millis(20));
    let long = nic.bench.run(|| call_ddi!("NdisMSleep", fn(u32), 30_000_001));
    assert_eq!(long.unwrap_err().0.rule, Rule::BadArgument);
}

#[test]
fn the_time_since_start_is_in_milliseconds() {
    conforms!("ndis/nf-ndis-ndisgetsystemuptimeex.md", "The time since the start of the computer in milliseconds.");
    let nic = Nic::new();
    let up = || {
        let mut time = 0_i64;
        call_ddi!("NdisGetSystemUpTimeEx", fn(&mut i64), &mut time);
        time
    };
    let before = nic.bench.run(up).unwrap();
    std::thread::sleep(Duration::from_millis(30));
    let passed = nic.bench.run(up).unwrap() - before;
    assert!((30..3000).contains(&passed), "{passed}");
}

#[test]
fn a_miniport_that_gives_up_is_halted() {
    let (nic, adapter, handle) = adapter();
    callbacks();
    let status = nic.bench.run(|| call_ddi!("NdisMRemoveMiniport", fn(usize) -> NdisStatus, handle)).unwrap();
    assert_eq!(status, NdisStatus::SUCCESS);
    for _ in 0..500 {
        if adapter.state() == crate::ndis::adapter::AdapterState::Halted {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(callbacks(), ["pause", "halt"]);
}
