//! The simulated computer.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::finding::{Finding, Stopped};
use crate::trace::{Trace, TraceEntry};
use crate::{flt, fs, ndis, nt};

mod driver;

pub use driver::Driver;

/// A handle to a simulated computer; cheap to clone.
#[derive(Clone, Debug)]
pub struct Machine(Arc<Inner>);

/// Configures a [`Machine`].
#[derive(Debug, Default)]
pub struct MachineBuilder {
    config: Config,
}

/// What a machine was built with.
#[derive(Debug, Default)]
pub(crate) struct Config {
    /// Volumes in the order of definition: drive name such as `C:`, and the host folder behind it.
    pub(crate) volumes: Vec<(String, PathBuf)>,
}

/// Everything that makes up a machine, one field per subsystem; each subsystem's type lives in its own module.
#[derive(Debug, Default)]
pub struct Inner {
    pub(crate) config: Config,
    pub(crate) trace: Trace,
    pub(crate) nt: nt::Nt,
    pub(crate) fs: fs::Fs,
    pub(crate) flt: flt::Flt,
    pub(crate) ndis: ndis::Ndis,
    /// Set before `finding` can be seen, so that running threads pay one load per call.
    has_stopped: AtomicBool,
    /// The finding that stopped the machine.
    finding: Mutex<Option<Box<Finding>>>,
    thread_ids: AtomicU32,
}

impl MachineBuilder {
    /// Adds a volume: `drive` such as `C:`, on the host folder `folder`. The first is the system volume.
    #[must_use]
    pub fn volume(mut self, drive: impl Into<String>, folder: impl Into<PathBuf>) -> Self {
        self.config.volumes.push((drive.into(), folder.into()));
        self
    }

    /// Makes the machine. Fails when a volume's folder is not there.
    pub fn build(self) -> std::io::Result<Machine> {
        for (_, folder) in &self.config.volumes {
            std::fs::read_dir(folder)?;
        }
        Ok(Machine(Arc::new(Inner { config: self.config, ..Inner::default() })))
    }
}

impl Machine {
    /// Starts to configure a machine.
    #[must_use]
    pub fn builder() -> MachineBuilder {
        MachineBuilder::default()
    }

    /// What all operations work on.
    #[must_use]
    pub fn inner(&self) -> &Arc<Inner> {
        &self.0
    }

    /// The finding that stopped the machine, if one did.
    #[must_use]
    pub fn finding(&self) -> Option<Finding> {
        self.0.stopped().map(|stopped| *stopped.0)
    }

    /// DDI calls so far, oldest first; the oldest may have been dropped to bound memory.
    #[must_use]
    pub fn trace(&self) -> Vec<TraceEntry> {
        self.0.trace.since(0)
    }

    /// DDI calls from sequence number `first` on.
    #[must_use]
    pub fn trace_since(&self, first: u64) -> Vec<TraceEntry> {
        self.0.trace.since(first)
    }
}

impl Inner {
    /// Stops the machine on `finding`. The first finding wins: what follows is usually its consequence.
    ///
    /// Threads in driver code leave it at their next call; the calling thread goes on.
    pub fn record(&self, finding: Finding) {
        let mut slot = self.finding.lock().unwrap_or_else(PoisonError::into_inner);
        slot.get_or_insert_with(|| Box::new(finding));
        self.has_stopped.store(true, Ordering::Release);
    }

    /// The report, when the machine has stopped.
    #[must_use]
    pub fn stopped(&self) -> Option<Stopped> {
        if !self.has_stopped.load(Ordering::Acquire) {
            return None;
        }
        let slot = self.finding.lock().unwrap_or_else(PoisonError::into_inner);
        slot.clone().map(Stopped)
    }

    /// Thread ids are multiples of four, as on Windows, where handles and ids share one table.
    pub(crate) fn next_thread_id(&self) -> u32 {
        4 + 4 * self.thread_ids.fetch_add(1, Ordering::Relaxed)
    }
}
