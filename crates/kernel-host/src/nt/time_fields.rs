//! Calendars: `TIME_FIELDS`, seconds since 1970 and 1980, and local time.

use super::raw::Raw;
use crate::ddi::{Call, exports};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    RtlTimeToTimeFields(max 31) = rtl_time_to_time_fields;
    RtlTimeFieldsToTime(max 31) = rtl_time_fields_to_time;
    RtlTimeToSecondsSince1970(max 31) = rtl_time_to_seconds_since_1970;
    RtlSecondsSince1970ToTime(max 31) = rtl_seconds_since_1970_to_time;
    RtlTimeToSecondsSince1980(max 31) = rtl_time_to_seconds_since_1980;
    RtlSecondsSince1980ToTime(max 31) = rtl_seconds_since_1980_to_time;
    RtlTimeToElapsedTimeFields(max 31) = rtl_time_to_elapsed_time_fields;
    ExSystemTimeToLocalTime(max 31) = copy_time;
    ExLocalTimeToSystemTime(max 31) = copy_time;
}

/// 100 ns intervals.
const SECOND: i64 = 10_000_000;
const DAY: i64 = 86_400 * SECOND;
/// Seconds from 1601 to 1970 and to 1980.
const TO_1970: i64 = 11_644_473_600;
const TO_1980: i64 = 11_960_006_400;
/// Days from 1 March of the year 0 to 1 January 1601, in the calendar that civil time counts by.
const DAYS_BEFORE_1601: i64 = 584_694;
/// Days of 400 years.
const ERA: i64 = 146_097;

/// Year, month and day of a day number (days since 1601). Years are counted from March, so that the leap day is the last.
fn civil(day: i64) -> (i64, i64, i64) {
    let days = day + DAYS_BEFORE_1601;
    let era = days.div_euclid(ERA);
    let of_era = days.rem_euclid(ERA);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + i64::from(month <= 2), month, day)
}

/// The day number of a date.
fn day_number(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    era * ERA + of_era * 365 + of_era / 4 - of_era / 100 + of_year - DAYS_BEFORE_1601
}

/// `TIME_FIELDS` of a system time: year, month, day, hour, minute, second, milliseconds, weekday (Sunday is 0).
pub(crate) fn fields_of(time: i64) -> [i16; 8] {
    let (days, rest) = (time.div_euclid(DAY), time.rem_euclid(DAY));
    let (year, month, day) = civil(days);
    let seconds = rest / SECOND;
    // 1 January 1601 was a Monday.
    let all = [year, month, day, seconds / 3600, seconds / 60 % 60, seconds % 60, rest / 10_000 % 1000, (days + 1) % 7];
    all.map(|field| field as i16)
}

extern "efiapi" fn rtl_time_to_time_fields(time: Raw<i64>, fields: Raw<[i16; 8]>) {
    let _call = Call::enter();
    fields.write(fields_of(time.read()));
}

extern "efiapi" fn rtl_time_fields_to_time(fields: Raw<[i16; 8]>, time: Raw<i64>) -> u8 {
    let _call = Call::enter();
    let [year, month, day, hour, minute, second, milliseconds, _] = fields.read().map(i64::from);
    let days = day_number(year, month, day);
    let valid = year >= 1601
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..60).contains(&second)
        && (0..1000).contains(&milliseconds)
        && (1..=12).contains(&month)
        // A day that its month does not have comes back as one of the next.
        && civil(days) == (year, month, day);
    if valid {
        time.write(days * DAY + (hour * 3600 + minute * 60 + second) * SECOND + milliseconds * 10_000);
    }
    u8::from(valid)
}

fn seconds_since(time: Raw<i64>, start: i64, seconds: Raw<u32>) -> u8 {
    let value = u32::try_from(time.read().div_euclid(SECOND) - start);
    value
        .is_ok_and(|value| {
            seconds.write(value);
            true
        })
        .into()
}

extern "efiapi" fn rtl_time_to_seconds_since_1970(time: Raw<i64>, seconds: Raw<u32>) -> u8 {
    let _call = Call::enter();
    seconds_since(time, TO_1970, seconds)
}

extern "efiapi" fn rtl_time_to_seconds_since_1980(time: Raw<i64>, seconds: Raw<u32>) -> u8 {
    let _call = Call::enter();
    seconds_since(time, TO_1980, seconds)
}

extern "efiapi" fn rtl_seconds_since_1970_to_time(seconds: u32, time: Raw<i64>) {
    let _call = Call::enter();
    time.write((i64::from(seconds) + TO_1970) * SECOND);
}

extern "efiapi" fn rtl_seconds_since_1980_to_time(seconds: u32, time: Raw<i64>) {
    let _call = Call::enter();
    time.write((i64::from(seconds) + TO_1980) * SECOND);
}

extern "efiapi" fn rtl_time_to_elapsed_time_fields(time: Raw<i64>, fields: Raw<[i16; 8]>) {
    let _call = Call::enter();
    let time = time.read();
    let seconds = time / SECOND;
    let all = [0, 0, seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60, seconds % 60, time / 10_000 % 1000, 0];
    fields.write(all.map(|field| field as i16));
}

/// The simulated computer's time zone is UTC.
extern "efiapi" fn copy_time(from: Raw<i64>, to: Raw<i64>) {
    let _call = Call::enter();
    to.write(from.read());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;

    #[test]
    fn dates_are_those_of_the_calendar_and_come_back() {
        conforms!("wdm/nf-wdm-rtltimetotimefields.md", "The time counts 100 ns intervals from the start of 1601.");
        conforms!("wdm/nf-wdm-rtltimefieldstotime.md", "FALSE is returned for fields that are no date.");
        assert_eq!(fields_of(0), [1601, 1, 1, 0, 0, 0, 0, 1]);
        assert_eq!(fields_of(133_536_384_000_000_000), [2024, 2, 29, 0, 0, 0, 0, 4]);
        Bench::new()
            .run(|| {
                let (mut time, mut fields) = (0_i64, [0_i16; 8]);
                let (at, to) = (Raw::of(&raw mut time), Raw::of(&raw mut fields));
                for value in [1, 126_000_000_123_450_000, 133_536_384_000_010_000, 9_000_000_000_000_000_000_i64] {
                    at.write(value);
                    rtl_time_to_time_fields(at, to);
                    assert_eq!(rtl_time_fields_to_time(to, at), 1);
                    assert_eq!(at.read(), value - value % 10_000);
                }
                for bad in [
                    [2023, 2, 29, 0, 0, 0, 0, 0],
                    [2024, 13, 1, 0, 0, 0, 0, 0],
                    [2024, 1, 1, 24, 0, 0, 0, 0],
                    [1600, 1, 1, 0, 0, 0, 0, 0],
                ] {
                    to.write(bad);
                    assert_eq!(rtl_time_fields_to_time(to, at), 0, "{bad:?}");
                }
            })
            .unwrap();
    }

    #[test]
    fn seconds_since_1970_have_32_bits() {
        conforms!(
            "ntifs/nf-ntifs-rtltimetosecondssince1970.md",
            "FALSE is returned for a time before 1970 or too late for 32 bits."
        );
        Bench::new()
            .run(|| {
                let (mut time, mut seconds) = (0_i64, 7_u32);
                let (at, to) = (Raw::of(&raw mut time), Raw::of(&raw mut seconds));
                assert_eq!(rtl_time_to_seconds_since_1970(at, to), 0);
                rtl_seconds_since_1970_to_time(1_700_000_000, at);
                assert_eq!((rtl_time_to_seconds_since_1970(at, to), to.read()), (1, 1_700_000_000));
                assert_eq!(fields_of(at.read())[..3], [2023, 11, 14]);
            })
            .unwrap();
    }
}
