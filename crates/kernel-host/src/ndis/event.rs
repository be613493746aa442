//! Events and waits: `NdisInitializeEvent` and its like, `NdisMSleep`.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nt_types::{DISPATCHER_HEADER, NtStatus};

use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::dispatcher::{Kind, initialise, state};
use crate::nt::events;
use crate::nt::raw::Raw;
use crate::nt::wait::wait_for;

exports! { pub(super) EXPORTS in "ndis.sys":
    NdisInitializeEvent(max 31) = initialize;
    NdisSetEvent(max 2) = set;
    NdisResetEvent(max 2) = reset;
    NdisWaitEvent(max 0) = wait;
    NdisMSleep(max 1) = sleep;
}

/// Bytes of an `NDIS_EVENT`, which is a `KEVENT`.
const EVENT_LENGTH: usize = 24;

/// Longest sleep that the page allows, in microseconds.
const LONGEST_SLEEP: u32 = 30_000_000;

/// Intervals of 100 ns in a millisecond.
const MILLISECOND: i64 = 10_000;

extern "efiapi" fn initialize(event: Raw<DISPATCHER_HEADER>) {
    let _call = Call::enter();
    initialise(event, Kind::NotificationEvent, EVENT_LENGTH, 0);
}

/// Stops unless `event` was initialised.
fn check(call: &Call, event: Raw<DISPATCHER_HEADER>) {
    if Kind::of(call, event) != Kind::NotificationEvent {
        call.stop(Rule::BadArgument, format!("{event:?} is no event that NdisInitializeEvent has set up"));
    }
}

extern "efiapi" fn set(event: Raw<DISPATCHER_HEADER>) {
    let call = Call::enter();
    check(&call, event);
    events::set(&call, event);
}

extern "efiapi" fn reset(event: Raw<DISPATCHER_HEADER>) {
    let call = Call::enter();
    check(&call, event);
    state(event).store(0, Ordering::Release);
}

extern "efiapi" fn wait(event: Raw<DISPATCHER_HEADER>, milliseconds: u32) -> u8 {
    let call = Call::enter();
    check(&call, event);
    let mut timeout = -i64::from(milliseconds) * MILLISECOND;
    // Zero waits for ever.
    let timeout = if milliseconds == 0 { Raw::NULL } else { Raw::of(&raw mut timeout) };
    u8::from(wait_for(&call, event, timeout) == NtStatus::SUCCESS)
}

extern "efiapi" fn sleep(microseconds: u32) {
    let call = Call::enter();
    if microseconds > LONGEST_SLEEP {
        call.stop(Rule::BadArgument, format!("a sleep of {microseconds} microseconds; 30 seconds are the most"));
    }
    let deadline = Instant::now() + Duration::from_micros(microseconds.into());
    call.machine().nt.dispatcher().wait(&call, Some(deadline), || false);
}
