//! I/O timers: one for each device, once a second.
//!
//! Pages: `wdm/nf-wdm-ioinitializetimer`, `wdm/nf-wdm-iostarttimer`, `wdm/nf-wdm-iostoptimer`, `wdm/nc-wdm-io_timer_routine`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use nt_types::{DEVICE_OBJECT, DISPATCH_LEVEL, NtStatus};

use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::{Driver, Inner};
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    IoInitializeTimer(max 0, fails RESOURCES) = io_initialize_timer;
    IoStartTimer(max 2) = io_start_timer;
    IoStopTimer(max 2) = io_stop_timer;
}

/// How often the routine runs.
const PERIOD: Duration = Duration::from_secs(1);

/// One device's timer.
#[derive(Debug)]
pub(crate) struct IoTimer {
    driver: Arc<Driver>,
    routine: usize,
    context: usize,
    /// Odd while it runs; each start and stop counts on, so that a thread of an earlier start ends.
    generation: Arc<AtomicU64>,
}

impl IoTimer {
    pub(super) fn driver(&self) -> &Arc<Driver> {
        &self.driver
    }

    pub(super) fn is_running(&self) -> bool {
        !self.generation.load(Ordering::Acquire).is_multiple_of(2)
    }
}

pub(super) extern "efiapi" fn io_initialize_timer(
    device: Raw<DEVICE_OBJECT>,
    routine: usize,
    context: usize,
) -> NtStatus {
    let call = Call::enter();
    if routine == 0 {
        call.stop(Rule::BadArgument, "TimerRoutine is NULL");
    }
    let timer = IoTimer { driver: Arc::clone(call.driver()), routine, context, generation: Arc::default() };
    let was_running = {
        let mut state = call.machine().nt.io().lock();
        if !state.devices.contains_key(&device.address()) {
            drop(state);
            call.stop(Rule::BadArgument, format!("{device:?} is no device object"));
        }
        state.timers.insert(device.address(), timer).is_some_and(|before| before.is_running())
    };
    if was_running {
        call.stop(Rule::BadState, "the device's timer runs and is initialised again");
    }
    // Only its being there means something to drivers.
    field!(device, DEVICE_OBJECT, Timer).write(device.cast().pointer());
    NtStatus::SUCCESS
}

pub(super) extern "efiapi" fn io_start_timer(device: Raw<DEVICE_OBJECT>) {
    let call = Call::enter();
    let started = {
        let state = call.machine().nt.io().lock();
        state.timers.get(&device.address()).map(|timer| {
            // Started twice, it runs once.
            let fresh = !timer.is_running();
            let generation = if fresh { timer.generation.fetch_add(1, Ordering::AcqRel) + 1 } else { 0 };
            let parts = (timer.routine, timer.context, Arc::clone(&timer.driver), Arc::clone(&timer.generation));
            (fresh.then_some(generation), parts)
        })
    };
    let Some((generation, (routine, context, driver, current))) = started else {
        call.stop(Rule::BadState, format!("the device {device:?} has no timer: IoInitializeTimer comes first"));
    };
    let Some(generation) = generation else { return };
    let machine = Arc::downgrade(call.machine());
    let device = device.address();
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(PERIOD);
            let Some(machine) = machine.upgrade() else { return };
            if current.load(Ordering::Acquire) != generation || !tick(&machine, &driver, (routine, device, context)) {
                return;
            }
        }
    });
}

/// Runs the routine as the DPC that it is; false when the machine has stopped.
fn tick(machine: &Arc<Inner>, driver: &Arc<Driver>, (routine, device, context): (usize, usize, usize)) -> bool {
    type Routine = unsafe extern "efiapi" fn(usize, usize);
    // SAFETY: the address of the driver's IO_TIMER_ROUTINE.
    let routine = unsafe { std::mem::transmute::<usize, Routine>(routine) };
    Thread::enter(machine, |thread| {
        // SAFETY: the device and the context that the driver named for its routine.
        let body = || unsafe { routine(device, context) };
        thread.call_driver(driver, "IO_TIMER_ROUTINE", DISPATCH_LEVEL, body).is_ok()
    })
}

pub(super) extern "efiapi" fn io_stop_timer(device: Raw<DEVICE_OBJECT>) {
    let call = Call::enter();
    let known = {
        let state = call.machine().nt.io().lock();
        state.timers.get(&device.address()).map(|timer| {
            if timer.is_running() {
                timer.generation.fetch_add(1, Ordering::AcqRel);
            }
        })
    };
    if known.is_none() {
        call.stop(Rule::BadState, format!("the device {device:?} has no timer"));
    }
}
