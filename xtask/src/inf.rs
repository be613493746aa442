//! INF files from the .inx sources in `inf/`: what the kit's stampinf does on Windows.

use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};

/// Fills in the architecture, the driver's date and version.
///
/// # Errors
/// The source must have exactly one empty `DriverVer` line: a date that is already there would be a stale one.
pub(crate) fn stamp(source: &str, architecture: &str, version: &str) -> Result<String> {
    let stamped = format!("DriverVer   = {},{version}.0", date_of(build_time()?));
    let mut lines = 0;
    let text: Vec<String> = source
        .lines()
        .map(|line| {
            let is_version = line
                .split('=')
                .next()
                .is_some_and(|key| key.trim() == "DriverVer");
            if is_version {
                lines += 1;
                stamped.clone()
            } else {
                line.replace("$ARCH$", architecture)
            }
        })
        .collect();
    if lines != 1 {
        bail!("the .inx has {lines} DriverVer lines; it needs one");
    }
    // Windows' own tools write CR LF, and so do these.
    Ok(text.join("\r\n") + "\r\n")
}

/// Seconds since 1970: now, or what `SOURCE_DATE_EPOCH` says, so that builds can be reproduced.
fn build_time() -> Result<u64> {
    match env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text
            .parse()
            .with_context(|| format!("SOURCE_DATE_EPOCH is not a number of seconds: {text}")),
        Err(_) => Ok(SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .context("the clock is before 1970")?
            .as_secs()),
    }
}

/// A moment's UTC date as INF files write it, `MM/DD/YYYY`.
///
/// Counts days from 1 March 0000, so that the leap day is the last of its year and month lengths follow one formula.
fn date_of(seconds: u64) -> String {
    const DAYS_TO_1970: u64 = 719_468;
    const DAYS_PER_ERA: u64 = 146_097;
    let days = seconds / 86_400 + DAYS_TO_1970;
    let (era, day_of_era) = (days / DAYS_PER_ERA, days % DAYS_PER_ERA);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{month:02}/{day:02}/{year}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days_and_years() {
        assert_eq!(date_of(0), "01/01/1970");
        assert_eq!(date_of(951_782_400), "02/29/2000");
        assert_eq!(date_of(1_709_251_199), "02/29/2024");
        assert_eq!(date_of(1_709_251_200), "03/01/2024");
        assert_eq!(date_of(4_102_444_799), "12/31/2099");
    }

    #[test]
    fn stamping_fills_in_architecture_and_version() -> Result<()> {
        let text = stamp(
            "[Version]\nDriverVer =\n[DefaultInstall.NT$ARCH$]\n",
            "amd64",
            "1.2.3",
        )?;
        assert!(text.contains("[DefaultInstall.NTamd64]\r\n"));
        assert!(text.contains(",1.2.3.0\r\n"));
        Ok(())
    }

    #[test]
    fn an_inx_without_a_version_line_is_refused() {
        assert!(stamp("[Version]\n", "amd64", "1.2.3").is_err());
    }
}
