//! The simulated computer.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::fault::Faults;
use crate::finding::{Finding, Stopped};
use crate::leak::LeakReport;
use crate::process::UserMemoryChecks;
use crate::process::exposure::Watch;
use crate::schedule::Schedule;
use crate::thread::Identities;
use crate::trace::{Trace, TraceEntry};
use crate::watchdog::Limit;
use crate::{flt, fs, ndis, nt};

mod device;
mod driver;
mod error;
mod leaks;
mod load;
mod service;

pub use device::PlugInError;
pub use driver::Driver;
pub use error::DriverError;
pub(crate) use leaks::name_addresses;
pub(crate) use load::go_on_unloading;
use service::Service;

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
    /// Calls are not written down.
    pub(crate) untraced: bool,
    /// How often drivers are watched when they touch user memory.
    pub(crate) user_memory_checks: UserMemoryChecks,
    /// A kernel debugger is attached, which goes on at breakpoints.
    pub(crate) debugger: bool,
    /// How long driver code may run.
    pub(crate) time_limit: Limit,
}

/// Everything that makes up a machine, one field per subsystem; each subsystem's type lives in its own module.
#[derive(Debug, Default)]
pub struct Inner {
    pub(crate) config: Config,
    pub(crate) trace: Trace,
    pub(crate) identities: Identities,
    pub(crate) faults: Faults,
    pub(crate) schedule: Schedule,
    pub(crate) user_memory_watch: Arc<Watch>,
    pub(crate) nt: nt::Nt,
    pub(crate) fs: fs::Fs,
    pub(crate) flt: flt::Flt,
    pub(crate) ndis: ndis::Ndis,
    /// Set before `finding` can be seen, so that running threads pay one load per call.
    has_stopped: AtomicBool,
    /// The finding that stopped the machine.
    finding: Mutex<Option<Box<Finding>>>,
    thread_ids: AtomicU32,
    /// Installed services, by name in lower case.
    services: Mutex<BTreeMap<String, Service>>,
    drivers: Mutex<Vec<Arc<Driver>>>,
    /// Unloaded drivers; kept because their address ranges stay reserved.
    gone: Mutex<Vec<Arc<Driver>>>,
    reports: Mutex<Vec<LeakReport>>,
}

impl MachineBuilder {
    /// Adds a volume: `drive` such as `C:`, on the host folder `folder`. The first is the system volume.
    #[must_use]
    pub fn volume(mut self, drive: impl Into<String>, folder: impl Into<PathBuf>) -> Self {
        self.config.volumes.push((drive.into(), folder.into()));
        self
    }

    /// Keeps no trace of calls, for measurements and long runs. Everything is checked as before.
    #[must_use]
    pub fn without_trace(mut self) -> Self {
        self.config.untraced = true;
        self
    }

    /// How often drivers are watched when they touch user memory. See [`UserMemoryChecks`]; `KERNEL_HOST_USER_MEMORY`, as
    /// `sampled`, `always` or `never`, wins over this.
    #[must_use]
    pub fn user_memory_checks(mut self, checks: UserMemoryChecks) -> Self {
        self.config.user_memory_checks = checks;
        self
    }

    /// Attaches a kernel debugger, at which somebody types `g` at each breakpoint: a driver's `DbgBreakPoint` is a line of
    /// [`Machine::debug_log`] then. Without one a breakpoint is an exception that nobody handles, as on Windows.
    #[must_use]
    pub fn with_debugger(mut self) -> Self {
        self.config.debugger = true;
        self
    }

    /// How long driver code may burn processor time without returning or calling anything (a minute), and a tenth of how
    /// long a callback may take that does call something. `None` for ever; as it is while a debugger is attached.
    #[must_use]
    pub fn driver_time_limit(self, limit: Option<Duration>) -> Self {
        self.config.time_limit.set(limit);
        self
    }

    /// Makes the machine. Fails when a volume's folder is not there.
    pub fn build(self) -> std::io::Result<Machine> {
        for (_, folder) in &self.config.volumes {
            std::fs::read_dir(folder)?;
        }
        let mut inner = Inner::default();
        inner.schedule = Schedule::of_environment();
        inner.trace = Trace::new(!self.config.untraced);
        inner.user_memory_watch.set(UserMemoryChecks::of_environment().unwrap_or(self.config.user_memory_checks));
        inner.config = self.config;
        let machine = Arc::new(inner);
        for (drive, folder) in &machine.config.volumes {
            fs::mount(&machine, drive, folder).map_err(|status| std::io::Error::other(format!("{drive}: {status}")))?;
        }
        Ok(Machine(machine))
    }
}

impl Machine {
    /// Starts to configure a machine.
    #[must_use]
    pub fn builder() -> MachineBuilder {
        MachineBuilder::default()
    }

    /// The machine that a call happens in.
    pub(crate) fn of(inner: &Arc<Inner>) -> Self {
        Self(Arc::clone(inner))
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

    /// How often drivers have called the export of this name since the machine was built, those included that are unloaded.
    ///
    /// Counted always and cheaply, where [`trace`](Self::trace) forgets old calls or is not kept. Names are those that drivers
    /// import: `ObfDereferenceObject`, for which headers have a macro `ObDereferenceObject`.
    #[must_use]
    pub fn calls(&self, export: &str) -> u64 {
        // Both at once: a driver must not be missed on its way from one list to the other.
        let (drivers, gone) = (self.0.drivers(), self.0.gone());
        drivers.iter().chain(gone.iter()).map(|driver| driver.calls(export)).sum()
    }

    /// DDI calls from sequence number `first` on.
    #[must_use]
    pub fn trace_since(&self, first: u64) -> Vec<TraceEntry> {
        self.0.trace.since(first)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.identities.clear();
        // Driver objects and drivers refer to each other.
        for driver in self.drivers().drain(..) {
            drop(driver.take_object());
        }
    }
}

impl Inner {
    /// Stops the machine on `finding`. The first finding wins: what follows is usually its consequence.
    ///
    /// Threads in driver code leave it at their next call; the calling thread goes on.
    pub fn record(&self, mut finding: Finding) {
        finding.replay =
            [self.faults.replay(), self.schedule.replay()].into_iter().flatten().collect::<Vec<_>>().join(" ");
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

    fn services(&self) -> MutexGuard<'_, BTreeMap<String, Service>> {
        self.services.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drivers that are loaded, or on their way in or out.
    fn drivers(&self) -> MutexGuard<'_, Vec<Arc<Driver>>> {
        self.drivers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn gone(&self) -> MutexGuard<'_, Vec<Arc<Driver>>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reports(&self) -> MutexGuard<'_, Vec<LeakReport>> {
        self.reports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Thread ids are multiples of four, as on Windows, where handles and ids share one table.
    pub(crate) fn next_thread_id(&self) -> u32 {
        4 + 4 * self.thread_ids.fetch_add(1, Ordering::Relaxed)
    }
}
