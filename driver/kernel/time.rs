//! Time since boot, and waiting for it to pass.

use super::imports::{KeQueryInterruptTimePrecise, KeQuerySystemTimePrecise};
use broker::Time;
use fltmgr::Passive;
use wdk_sys::LARGE_INTEGER;
use wdk_sys::ntddk::KeDelayExecutionThread;

/// The time since boot. Any IRQL.
pub(crate) fn now() -> Time {
    let mut counter = 0;
    // SAFETY: the out cell is ours (rule: KeQueryInterruptTimePrecise, any level).
    Time(unsafe { KeQueryInterruptTimePrecise(&raw mut counter) })
}

/// The time of day, for people: 100 ns since 1601-01-01 UTC. Jumps when the clock is set. Any IRQL.
pub(crate) fn of_day() -> i64 {
    let mut now = 0;
    // SAFETY: the out cell is ours (rule: KeQuerySystemTimePrecise, any level).
    unsafe { KeQuerySystemTimePrecise(&raw mut now) };
    now
}

/// Whole seconds since `then`, a time of day; 0 where the clock was set back meanwhile.
pub(crate) fn seconds_since(then: i64) -> u64 {
    const TICKS_PER_SECOND: u64 = 10_000_000;
    u64::try_from(of_day().saturating_sub(then)).unwrap_or(0) / TICKS_PER_SECOND
}

/// Lets `milliseconds` pass.
pub(crate) fn sleep(milliseconds: u32, _passive: Passive) {
    let mut interval = relative(u64::from(milliseconds).saturating_mul(TICKS_PER_MILLISECOND));
    // SAFETY: PASSIVE_LEVEL, kernel mode, not alertable (rule: KeDelayExecutionThread).
    // It can only return success then.
    let _ = unsafe { KeDelayExecutionThread(nt_types::KERNEL_MODE, 0, &raw mut interval) };
}

/// A timeout of so many 100 ns, in the form that the kernel takes for one that starts now.
pub(crate) fn relative(ticks: u64) -> LARGE_INTEGER {
    // Zero would mean "do not wait"; a negative number is relative.
    LARGE_INTEGER { QuadPart: i64::try_from(ticks).unwrap_or(i64::MAX).saturating_neg() }
}

const TICKS_PER_MILLISECOND: u64 = 10_000;
