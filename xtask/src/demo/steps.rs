//! One line for each DDI that ran, from the machine's own record.

use anyhow::Result;
use fltlib_socket::{Connection, TraceEntry};

use super::machine::answered;

/// Most entries to ask for at once.
const PIECE: u32 = 1000;

/// Families of DDIs that say nothing about the main job: memory, strings, locks and time.
const BORING: [&str; 9] = ["Ex", "Ke", "Kf", "Rtl", "mem", "Dbg", "Ps", "FltRelease", "FltObject"];

/// Reads on where the last step ended.
pub(super) struct Steps {
    next: u64,
    number: u32,
}

/// Calls of the same DDI in a row, as one line.
struct Line {
    first: TraceEntry,
    calls: u64,
}

impl Steps {
    pub(super) const fn new() -> Self {
        Self { next: 0, number: 0 }
    }

    /// Prints the heading and every call since the last step.
    pub(super) fn show(&mut self, control: &mut Connection, heading: &str) -> Result<()> {
        self.number += 1;
        println!("\n{}. {heading}", self.number);
        let mut lines: Vec<Line> = Vec::new();
        loop {
            let (entries, next) = answered(control.trace(self.next, PIECE)?)?;
            self.next = next;
            if entries.is_empty() {
                break;
            }
            for entry in entries.into_iter().filter(is_shown) {
                match lines.last_mut().filter(|line| line.is_same(&entry)) {
                    Some(line) => line.add(&entry),
                    None => lines.push(Line { first: entry, calls: 1 }),
                }
            }
        }
        for line in &lines {
            line.print();
        }
        Ok(())
    }
}

fn is_shown(entry: &TraceEntry) -> bool {
    !BORING.iter().any(|prefix| entry.name.starts_with(prefix))
}

impl Line {
    /// Calls of one DDI in a row are one line, with the detail of the first.
    fn is_same(&self, entry: &TraceEntry) -> bool {
        (&self.first.driver, &self.first.name) == (&entry.driver, &entry.name)
    }

    fn add(&mut self, entry: &TraceEntry) {
        self.first.bytes += entry.bytes;
        self.first.nanoseconds += entry.nanoseconds;
        self.calls += 1;
    }

    fn print(&self) {
        let TraceEntry { driver, name, detail, bytes, nanoseconds, .. } = &self.first;
        let name = if self.calls > 1 { format!("{name} x{}", self.calls) } else { name.clone() };
        let bytes = if *bytes > 0 { format!("{bytes} bytes") } else { String::new() };
        #[expect(clippy::cast_precision_loss, reason = "a duration to be read by people")]
        let micros = *nanoseconds as f64 / 1000.0;
        println!("   {driver:<13} {name:<34} {bytes:>14} {micros:>10.1} us  {detail}");
    }
}
