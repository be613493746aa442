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
            let is_version = line.split('=').next().is_some_and(|key| key.trim() == "DriverVer");
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
        Ok(text) => text.parse().with_context(|| format!("SOURCE_DATE_EPOCH is not a number of seconds: {text}")),
        Err(_) => Ok(SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?.as_secs()),
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
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
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
        let text = stamp("[Version]\nDriverVer =\n[DefaultInstall.NT$ARCH$]\n", "amd64", "1.2.3")?;
        assert!(text.contains("[DefaultInstall.NTamd64]\r\n"));
        assert!(text.contains(",1.2.3.0\r\n"));
        Ok(())
    }

    /// The value of a key in a section, without quotes around it.
    fn value<'a>(text: &'a str, section: &str, key: &str) -> Option<&'a str> {
        lines(text, section).find_map(|line| {
            let (name, value) = line.split_once('=')?;
            (name.trim() == key).then(|| value.split(';').next().unwrap_or_default().trim().trim_matches('"'))
        })
    }

    /// The lines of a section.
    fn lines<'a>(text: &'a str, section: &str) -> impl Iterator<Item = &'a str> {
        let head = format!("[{section}]");
        text.lines().skip_while(move |line| line.trim() != head).skip(1).take_while(|line| !line.starts_with('['))
    }

    const FWBROKER: &str = include_str!("../../inf/fwbroker.inx");
    const SAMPLENIC: &str = include_str!("../../inf/samplenic.inx");

    #[test]
    fn both_generations_of_fwbroker_install_the_same_service() {
        for key in ["ServiceType", "StartType", "ErrorControl", "LoadOrderGroup", "Dependencies"] {
            let current = value(FWBROKER, "FwBroker.Service", key);
            assert!(current.is_some(), "{key} is missing");
            assert_eq!(current, value(FWBROKER, "FwBroker.Service.Downlevel", key), "{key}");
        }
        assert_eq!(value(FWBROKER, "FwBroker.Service", "ServiceBinary"), Some("%13%\\fwbroker.sys"));
        assert_eq!(value(FWBROKER, "FwBroker.Service.Downlevel", "ServiceBinary"), Some("%12%\\fwbroker.sys"));
    }

    #[test]
    fn instances_are_where_each_generation_of_the_filter_manager_looks() {
        for (section, key) in
            [("FwBroker.Instances", "\"Parameters\\Instances"), ("FwBroker.Instances.Downlevel", "\"Instances")]
        {
            for name in ["DefaultInstance", "Altitude", "Flags"] {
                let wanted = format!("HKR, {key}");
                let quoted = format!("\"{name}\"");
                assert!(
                    lines(FWBROKER, section).any(|line| line.starts_with(&wanted) && line.contains(&quoted)),
                    "[{section}] sets no {name} below {key}"
                );
            }
        }
    }

    #[test]
    fn class_group_and_altitude_of_fwbroker_agree() {
        assert_eq!(value(FWBROKER, "Version", "Class"), Some("ContentScreener"));
        assert_eq!(value(FWBROKER, "Version", "ClassGuid"), Some("{3e3f0674-c83c-4558-bb26-9820e1eba5c5}"));
        assert_eq!(value(FWBROKER, "FwBroker.Service", "LoadOrderGroup"), Some("FSFilter Content Screener"));
        let altitude = value(FWBROKER, "Strings", "InstanceAltitude").and_then(|text| text.parse::<f64>().ok());
        assert!(altitude.is_some_and(|altitude| (260_000.0..270_000.0).contains(&altitude) && altitude.fract() != 0.0));
    }

    #[test]
    fn offloaded_writes_are_not_declared_as_supported() {
        // 3, which every sample has, would let FSCTL_OFFLOAD_WRITE pass a guard that does not look at it.
        for section in ["FwBroker.Instances", "FwBroker.Instances.Downlevel"] {
            let declared = lines(FWBROKER, section).find(|line| line.contains("\"SupportedFeatures\""));
            assert!(declared.is_some_and(|line| line.ends_with(", 0")), "[{section}]");
        }
    }

    #[test]
    fn an_update_keeps_the_settings_of_the_operator() {
        const NO_CLOBBER: u32 = 2;
        for name in ["Policy", "FirmwareRoots"] {
            let line = lines(FWBROKER, "FwBroker.Settings").find(|line| line.contains(name));
            let flags = line.and_then(|line| line.split(", 0x").nth(1)?.get(..8));
            let flags = flags.and_then(|flags| u32::from_str_radix(flags, 16).ok());
            assert!(flags.is_some_and(|flags| flags & NO_CLOBBER != 0), "{name}");
        }
    }

    #[test]
    fn every_string_and_section_that_is_named_exists() {
        for text in [FWBROKER, SAMPLENIC] {
            for token in
                text.lines().filter(|line| !line.starts_with(';')).flat_map(|line| line.split('%').skip(1).step_by(2))
            {
                let is_folder = token.parse::<u32>().is_ok();
                assert!(is_folder || value(text, "Strings", token).is_some(), "%{token}%");
            }
            for key in ["CopyFiles", "AddReg"] {
                for line in text.lines().filter(|line| line.starts_with(key)) {
                    let named = line.split_once('=').map_or("", |(_, names)| names);
                    for section in named.split(',') {
                        let head = format!("[{}]", section.trim());
                        assert!(text.lines().any(|line| line == head), "{head}");
                    }
                }
            }
        }
    }

    #[test]
    fn an_inx_without_a_version_line_is_refused() {
        assert!(stamp("[Version]\n", "amd64", "1.2.3").is_err());
    }
}
