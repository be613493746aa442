//! Showing things: tables, times, progress, JSON objects.

use std::io::Write;

use serde_json::{Map, Value};

/// Where a command's results go.
pub(super) struct Terminal<'a> {
    /// Results.
    pub(super) out: &'a mut dyn Write,
    /// Errors and progress.
    pub(super) err: &'a mut dyn Write,
    /// Whether `err` is a terminal, on which progress can be drawn.
    pub(super) progress: bool,
}

/// What a command has done, for programs and for people.
pub(super) trait Output: ToJson {
    /// For people: whole lines.
    fn text(&self) -> String;
}

/// The JSON object of a serialisable result. A trait of its own, because `Serialize` cannot be a trait object.
pub(super) trait ToJson {
    /// For programs.
    fn json(&self) -> Map<String, Value>;
}

impl<T: serde::Serialize> ToJson for T {
    fn json(&self) -> Map<String, Value> {
        match serde_json::to_value(self) {
            Ok(Value::Object(object)) => object,
            _ => Map::new(),
        }
    }
}

/// A command that has nothing to show.
#[derive(serde::Serialize)]
pub(super) struct Nothing {}

impl Output for Nothing {
    fn text(&self) -> String {
        String::new()
    }
}

/// A line that shows how far something is, redrawn in place and removed at the end.
pub(super) struct Progress<'a> {
    err: Option<&'a mut dyn Write>,
    label: String,
    total: u64,
    done: u64,
    percent: u64,
}

impl<'a> Progress<'a> {
    /// Starts at nothing of `total` bytes.
    pub(super) fn new(terminal: &'a mut Terminal<'_>, label: String, total: u64) -> Self {
        let err = terminal.progress.then_some(&mut *terminal.err as &mut dyn Write);
        Self { err, label, total, done: 0, percent: u64::MAX }
    }

    /// Counts `bytes` more.
    pub(super) fn add(&mut self, bytes: usize) {
        self.done += bytes as u64;
        let percent = self.done.min(self.total) * 100 / self.total.max(1);
        if let Some(err) = &mut self.err
            && percent != self.percent
        {
            self.percent = percent;
            // Progress is a courtesy: what it cannot draw it leaves.
            let _ = write!(err, "\r{} {percent:3} %", self.label);
            let _ = err.flush();
        }
    }
}

impl Drop for Progress<'_> {
    fn drop(&mut self) {
        if let Some(err) = &mut self.err {
            let _ = write!(err, "\r\x1b[K");
            let _ = err.flush();
        }
    }
}

/// Rows under a heading, each column as wide as its widest cell; the last is not padded.
pub(super) fn table(heading: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .chain([heading[column].chars().count()])
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned() + "\n"
    };
    std::iter::once(line(heading.to_vec()))
        .chain(rows.iter().map(|row| line(row.iter().map(String::as_str).collect())))
        .collect()
}

/// Name and value, one pair a line.
pub(super) fn facts(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    pairs.iter().fold(String::new(), |lines, (name, value)| lines + &format!("{name:<width$}  {value}\n"))
}

/// An NT time (100 ns units since 1601-01-01 UTC) in the form of RFC 3339.
pub(super) fn nt_time(ticks: i64) -> String {
    let seconds = ticks.div_euclid(10_000_000);
    let fraction = ticks.rem_euclid(10_000_000);
    let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil(days);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{fraction:07}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Year, month and day of a day number that counts from 1601-01-01. 1601 starts a cycle of 400 years, so that eras,
/// centuries and leap years fall out of divisions.
fn civil(days: i64) -> (i64, i64, i64) {
    let (era, mut rest) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let century = (rest / 36_524).min(3);
    rest -= century * 36_524;
    let leap_cycle = rest / 1461;
    rest -= leap_cycle * 1461;
    let of_cycle = (rest / 365).min(3);
    rest -= of_cycle * 365;
    let year = 1601 + era * 400 + century * 100 + leap_cycle * 4 + of_cycle;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if rest < length {
            break;
        }
        rest -= length;
        month += 1;
    }
    (year, month, rest + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nt_times_hit_known_moments() {
        assert_eq!(nt_time(0), "1601-01-01T00:00:00.0000000Z");
        // 1970-01-01, the offset between the two epochs.
        assert_eq!(nt_time(116_444_736_000_000_000), "1970-01-01T00:00:00.0000000Z");
        // Unix time 951782399: the last second of 28 February 2000.
        assert_eq!(nt_time(125_962_559_990_000_001), "2000-02-28T23:59:59.0000001Z");
        assert_eq!(nt_time(125_962_560_000_000_000), "2000-02-29T00:00:00.0000000Z");
        // Unix time 1735603200: the last day of a leap year.
        assert_eq!(nt_time(133_800_768_000_000_000), "2024-12-31T00:00:00.0000000Z");
    }

    #[test]
    fn every_day_of_400_years_follows_the_one_before() {
        let mut last = civil(-1);
        assert_eq!(last, (1600, 12, 31));
        for day in 0..146_097 {
            let now = civil(day);
            let next_day = (now.0, now.1) == (last.0, last.1) && now.2 == last.2 + 1;
            let next_month = now.2 == 1 && last.2 >= 28;
            assert!(next_day || next_month, "{last:?} {now:?}");
            last = now;
        }
        assert_eq!(last, (2000, 12, 31));
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [vec!["1".into(), "nic.rom".into()], vec!["12".into(), "é".into()]];
        assert_eq!(table(&["id", "name"], &rows), "id  name\n1   nic.rom\n12  é\n");
    }

    #[test]
    fn progress_is_drawn_on_terminals_only_and_leaves_no_trace() {
        for progress in [true, false] {
            let (mut out, mut err) = (Vec::new(), Vec::new());
            let mut terminal = Terminal { out: &mut out, err: &mut err, progress };
            let mut line = Progress::new(&mut terminal, "reading".into(), 200);
            line.add(100);
            line.add(100);
            drop(line);
            let expected: &[u8] = if progress { b"\rreading  50 %\rreading 100 %\r\x1b[K" } else { b"" };
            assert_eq!(err, expected);
        }
    }
}
