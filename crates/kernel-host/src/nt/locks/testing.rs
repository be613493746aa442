//! What the tests of locks share.

use std::time::Duration;

use crate::ddi::testing::Bench;
use crate::finding::{Finding, Rule};
use crate::nt::raw::Raw;
use crate::thread::Thread;

/// Runs `body` with a zeroed lock that is not on the kernel stack; no rule may be broken.
pub(super) fn works<R>(body: impl FnOnce(Raw<usize>) -> R) -> R {
    let mut object = Box::new([0_usize; 32]);
    let raw = Raw::of(&raw mut *object).cast();
    Bench::new().run(|| body(raw)).expect("no rule is broken")
}

/// The finding that `body` ends with.
pub(super) fn finding(body: impl FnOnce(Raw<usize>)) -> Finding {
    let mut object = Box::new([0_usize; 32]);
    let raw = Raw::of(&raw mut *object).cast();
    let bench = Bench::new();
    bench.machine().set_deadlock_time(Duration::from_millis(50));
    *bench.run(|| body(raw)).expect_err("a rule is broken").0
}

/// The rule that `body` breaks.
pub(super) fn broken(body: impl FnOnce(Raw<usize>)) -> Rule {
    finding(body).rule
}

/// Sets how many critical regions the thread is in.
pub(super) fn region(count: u32) {
    Thread::current().set_critical_regions(count);
}
