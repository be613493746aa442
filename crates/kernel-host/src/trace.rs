//! DDI calls as they happened, for reports and for tests that assert what a driver did.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::ddi::CallSite;

/// Entries kept; older ones are dropped, so that a machine may run for days.
const CAPACITY: usize = 65_536;

/// One finished DDI call.
#[derive(Clone, Debug, serde::Serialize)]
pub struct TraceEntry {
    /// Position in the machine's history, from 0, without gaps also where old entries were dropped.
    pub sequence: u64,
    /// Image name of the calling driver.
    pub driver: String,
    /// Exported name of the DDI.
    pub name: &'static str,
    /// What the call was about, such as a file name.
    pub detail: String,
    /// Bytes that the call moved, where that has a meaning; else 0.
    pub bytes: u64,
    /// Time the call took.
    pub took: Duration,
}

impl fmt::Display for TraceEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sequence, driver, name, detail, bytes, took } = self;
        write!(f, "{sequence:>6} {driver:<16} {name:<32} {took:>10.1?}")?;
        if *bytes != 0 {
            write!(f, " {bytes} bytes")?;
        }
        if detail.is_empty() { Ok(()) } else { write!(f, " {detail}") }
    }
}

/// A machine's history of calls.
#[derive(Debug)]
pub(crate) struct Trace {
    kept: bool,
    history: Mutex<History>,
}

#[derive(Debug, Default)]
struct History {
    entries: VecDeque<TraceEntry>,
    next: u64,
}

impl Default for Trace {
    fn default() -> Self {
        Self::new(true)
    }
}

impl Trace {
    /// An empty history; one that is not `kept` stays so.
    pub(crate) fn new(kept: bool) -> Self {
        Self { kept, history: Mutex::default() }
    }

    /// Whether calls are recorded at all.
    pub(crate) fn is_kept(&self) -> bool {
        self.kept
    }

    pub(crate) fn record(&self, site: &CallSite, detail: String, bytes: u64, took: Duration) {
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let sequence = history.next;
        history.next += 1;
        if history.entries.len() == CAPACITY {
            history.entries.pop_front();
        }
        history.entries.push_back(TraceEntry {
            sequence,
            driver: site.driver.name.clone(),
            name: site.export.name,
            detail,
            bytes,
            took,
        });
    }

    /// Entries from `sequence` on that are still kept, oldest first.
    pub(crate) fn since(&self, sequence: u64) -> Vec<TraceEntry> {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let dropped = history.next - history.entries.len() as u64;
        let skip = sequence.saturating_sub(dropped) as usize;
        history.entries.iter().skip(skip).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ddi::testing::{Bench, call_site};

    #[test]
    fn old_entries_make_room_and_numbers_go_on() {
        let bench = Bench::new();
        let trace = Trace::default();
        let site = call_site(bench.driver().clone());
        for _ in 0..CAPACITY + 2 {
            trace.record(&site, String::new(), 0, Duration::ZERO);
        }
        let all = trace.since(0);
        assert_eq!((all.len(), all[0].sequence), (CAPACITY, 2));
        assert_eq!(trace.since(CAPACITY as u64).len(), 2);
    }
}
