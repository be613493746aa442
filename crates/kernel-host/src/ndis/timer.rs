//! Timer objects: `NdisAllocateTimerObject` and what is done with them.
//!
//! A timer object is a kernel timer with its DPC, on a page that drivers have no handle to.

use std::fmt;
use std::sync::Arc;

use ndis::NdisStatus;
use ndis::raw::{
    NDIS_OBJECT_TYPE_TIMER_CHARACTERISTICS, NDIS_SIZEOF_TIMER_CHARACTERISTICS_REVISION_1, NDIS_TIMER_CHARACTERISTICS,
};
use nt_types::{KDPC, KTIMER};

use super::memory::check_handle;
use super::{end_handle, new_handle};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Driver;
use crate::nt::arena::Access;
use crate::nt::dispatcher::Kind;
use crate::nt::raw::{Raw, field};
use crate::nt::timers;

exports! { pub(super) EXPORTS in "ndis.sys":
    NdisAllocateTimerObject(max 2, fails NDIS_RESOURCES) = allocate;
    NdisSetTimerObject(max 2) = set;
    NdisSetCoalescableTimerObject(max 2) = set_coalescable;
    NdisCancelTimerObject(max 2) = cancel;
    NdisFreeTimerObject(max 2) = free;
}

/// Where the DPC lies behind the timer.
const DPC: usize = size_of::<KTIMER>();

/// A timer object.
#[derive(Clone, Debug)]
pub(super) struct Timer {
    pub(super) driver: Arc<Driver>,
    /// The NDIS handle that it was allocated with.
    pub(super) owner: usize,
    /// The page with timer and DPC.
    page: usize,
    function: usize,
    context: usize,
    /// Whether it was last set to be periodic.
    is_periodic: bool,
}

impl fmt::Display for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_periodic { "periodic timer" } else { "timer" };
        write!(f, "the {kind} of {:#x}", self.function)
    }
}

impl Timer {
    fn timer(&self) -> Raw<KTIMER> {
        Raw::at(self.page)
    }

    fn dpc(&self) -> Raw<KDPC> {
        Raw::at(self.page + DPC)
    }
}

extern "efiapi" fn allocate(
    handle: usize,
    characteristics: Raw<NDIS_TIMER_CHARACTERISTICS>,
    timer_out: Raw<usize>,
) -> NdisStatus {
    let call = Call::enter();
    check_handle(&call, handle);
    let header = field!(characteristics, NDIS_TIMER_CHARACTERISTICS, Header).read();
    let function = field!(characteristics, NDIS_TIMER_CHARACTERISTICS, TimerFunction).cast::<usize>().read();
    if header.Type != NDIS_OBJECT_TYPE_TIMER_CHARACTERISTICS
        || header.Revision == 0
        || header.Size < NDIS_SIZEOF_TIMER_CHARACTERISTICS_REVISION_1
        || function == 0
    {
        return NdisStatus::BAD_CHARACTERISTICS;
    }
    let page = call.machine().nt.arena().allocate(1, Access::ReadWrite);
    let timer_handle = new_handle(call.machine());
    let Some(page) = page.filter(|_| timer_handle != 0) else { return NdisStatus::RESOURCES };
    let context = field!(characteristics, NDIS_TIMER_CHARACTERISTICS, FunctionContext).read().addr();
    let driver = Arc::clone(call.driver());
    let timer = Timer { driver, owner: handle, page, function, context, is_periodic: false };
    timers::initialise_timer(&call, timer.timer(), Kind::NotificationTimer);
    call.machine().ndis.lock().timers.insert(timer_handle, timer);
    timer_out.write(timer_handle);
    NdisStatus::SUCCESS
}

extern "efiapi" fn set(handle: usize, due: i64, period: u32, context: usize) -> u8 {
    arm(&Call::enter(), handle, due, period, context)
}

extern "efiapi" fn set_coalescable(handle: usize, due: i64, period: u32, context: usize, _tolerance: u32) -> u8 {
    arm(&Call::enter(), handle, due, period, context)
}

fn arm(call: &Call, handle: usize, due: i64, period: u32, context: usize) -> u8 {
    let timer = timer(call, handle);
    let Ok(milliseconds) = i32::try_from(period) else {
        call.stop(Rule::BadArgument, format!("MillisecondsPeriod is {period}; it must not exceed MAXLONG"));
    };
    if let Some(timer) = call.machine().ndis.lock().timers.get_mut(&handle) {
        timer.is_periodic = period != 0;
    }
    // A DPC that is queued keeps its context: on Windows too the last one set wins only for runs to come.
    let context = if context == 0 { timer.context } else { context };
    timers::initialise_dpc(timer.dpc(), timer.function, context);
    timers::set_timer(call, timer.timer(), due, milliseconds, timer.dpc().address())
}

extern "efiapi" fn cancel(handle: usize) -> u8 {
    let call = Call::enter();
    let timer = timer(&call, handle);
    if timer.is_periodic && call.thread().irql() != 0 {
        call.stop(
            Rule::IrqlTooHigh,
            "a periodic timer is cancelled at PASSIVE_LEVEL only: the call waits for its function",
        );
    }
    let was_set = timers::cancel_timer(&call, timer.timer());
    if timer.is_periodic {
        timers::flush_dpcs(&call);
    }
    was_set
}

extern "efiapi" fn free(handle: usize) {
    let call = Call::enter();
    let timer = timer(&call, handle);
    if timers::cancel_timer(&call, timer.timer()) != 0 {
        call.stop(Rule::BadState, "the timer is still set: NdisCancelTimerObject comes first");
    }
    call.machine().ndis.lock().timers.remove(&handle);
    call.machine().nt.arena().release(timer.page, 1);
    end_handle(call.machine(), handle);
}

/// The timer behind a handle. Stops on a handle that is none, or not of this driver.
fn timer(call: &Call, handle: usize) -> Timer {
    let timer = call.machine().ndis.lock().timers.get(&handle).cloned();
    timer.filter(|timer| Arc::ptr_eq(&timer.driver, call.driver())).unwrap_or_else(|| {
        call.stop(Rule::InvalidHandle, format!("{handle:#x} is no timer object of this driver, or one that is freed"))
    })
}
