//! Clocks.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use super::raw::Raw;
use crate::ddi::{Call, exports};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    KeQueryPerformanceCounter(max 31) = ke_query_performance_counter;
    KeQuerySystemTimePrecise(max 31) = ke_query_system_time_precise;
    KeQueryInterruptTime(max 31) = ke_query_interrupt_time;
    KeQueryInterruptTimePrecise(max 31) = ke_query_interrupt_time_precise;
    KeQueryUnbiasedInterruptTime(max 31) = ke_query_interrupt_time;
    KeQueryTimeIncrement(max 31) = ke_query_time_increment;
}

/// 100 ns intervals from 1601 to 1970.
const UNIX_EPOCH_IN_NT_TIME: i64 = 116_444_736_000_000_000;

/// Counts per second of the performance counter, as on current Windows.
pub(crate) const PERFORMANCE_FREQUENCY: i64 = 10_000_000;

/// 100 ns intervals between two clock interrupts: 64 a second.
pub(crate) const TIME_INCREMENT: u32 = 156_250;

/// When the simulated computers of this process were switched on: a little before the first question, so that the time
/// since boot is never zero.
static BOOT: LazyLock<Instant> = LazyLock::new(Instant::now);

/// What the clocks show at [`BOOT`]: ten seconds.
const SINCE_BOOT: u64 = 100_000_000;

/// System time (UTC) in 100 ns since 1601.
pub(crate) fn system_time() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let intervals = i64::try_from(since.as_nanos() / 100).unwrap_or(i64::MAX);
    UNIX_EPOCH_IN_NT_TIME.saturating_add(intervals)
}

/// Time since boot in 100 ns; never goes back.
pub(crate) fn interrupt_time() -> u64 {
    let since = Instant::now().saturating_duration_since(*BOOT);
    SINCE_BOOT + u64::try_from(since.as_nanos() / 100).unwrap_or(u64::MAX / 2)
}

extern "efiapi" fn ke_query_performance_counter(frequency: Raw<i64>) -> i64 {
    let _call = Call::enter();
    frequency.write_if_some(PERFORMANCE_FREQUENCY);
    interrupt_time().cast_signed()
}

extern "efiapi" fn ke_query_system_time_precise(time: Raw<i64>) {
    let _call = Call::enter();
    time.write(system_time());
}

extern "efiapi" fn ke_query_interrupt_time() -> u64 {
    let _call = Call::enter();
    interrupt_time()
}

extern "efiapi" fn ke_query_interrupt_time_precise(performance_counter: Raw<u64>) -> u64 {
    let _call = Call::enter();
    let now = interrupt_time();
    performance_counter.write_if_some(now);
    now
}

extern "efiapi" fn ke_query_time_increment() -> u32 {
    let _call = Call::enter();
    TIME_INCREMENT
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;

    #[test]
    fn clocks_do_not_go_back_and_count_100_nanoseconds() {
        conforms!("wdm/nf-wdm-kequeryinterrupttime.md", "The time is counted in units of 100 ns, and is not set back.");
        Bench::new()
            .run(|| {
                let mut frequency = 0;
                let first = ke_query_performance_counter(Raw::of(&raw mut frequency));
                std::thread::sleep(std::time::Duration::from_millis(5));
                let second = ke_query_performance_counter(Raw::NULL);
                assert_eq!(frequency, 10_000_000);
                assert!((50_000..50_000_000).contains(&(second - first)), "{first} {second}");
            })
            .unwrap();
    }

    #[test]
    fn the_system_time_counts_from_1601() {
        conforms!("wdm/nf-wdm-kequerysystemtimeprecise.md", "System time counts 100 ns since January 1, 1601.");
        let years = system_time() / 10_000_000 / 31_556_952;
        assert!((420..600).contains(&years), "{years}");
    }
}
