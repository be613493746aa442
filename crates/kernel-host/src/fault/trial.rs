//! One run of a scenario.

use std::cell::RefCell;
use std::panic::{self, AssertUnwindSafe};

use super::{Progress, Site, SiteId};
use crate::machine::Machine;

/// What a scenario gets: the way to say when faults begin and end.
#[derive(Debug)]
pub struct Trial {
    plan: Vec<SiteId>,
    recording: bool,
    schedule: Option<u64>,
    machine: RefCell<Option<Machine>>,
    progress: RefCell<Option<Progress>>,
}

/// How a run went.
#[derive(Debug)]
pub(super) struct Outcome {
    /// The sites remembered, in the order of time.
    pub(super) sites: Vec<Site>,
    /// What was passed after the first failure.
    pub(super) after: Vec<SiteId>,
    /// The seed, if threads were held up.
    pub(super) schedule: Option<u64>,
    /// What is wrong, if something is.
    pub(super) problem: Option<String>,
}

impl Trial {
    /// From here on, sites of this machine count.
    ///
    /// # Panics
    /// When called twice: a trial has one machine.
    pub fn begin(&self, machine: &Machine) {
        let before = self.machine.replace(Some(machine.clone()));
        assert!(before.is_none(), "a trial watches one machine, once");
        if let Some(seed) = self.schedule {
            machine.perturb_schedules(seed);
        }
        machine.inner().faults.arm(self.plan.clone(), self.recording);
    }

    /// Faults are over: what follows must succeed. Does nothing when no machine is being watched.
    pub fn end(&self) {
        if let Some(machine) = &*self.machine.borrow() {
            self.progress.borrow_mut().get_or_insert_with(|| machine.inner().faults.disarm());
        }
    }

    /// Takes the result of something that may fail because of a fault: `None` when it did.
    ///
    /// # Panics
    /// When it failed in the run that only counts, where nothing is made to fail: the scenario would try less than it seems to.
    pub fn attempt<T, E: std::fmt::Debug>(&self, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) if self.plan.is_empty() => panic!("without any fault, this failed: {error:?}"),
            Err(_) => None,
        }
    }

    /// The sites that have failed in this run so far.
    #[must_use]
    pub fn failed(&self) -> Vec<Site> {
        match (&*self.progress.borrow(), &*self.machine.borrow()) {
            (Some(progress), _) => progress.failed(),
            (None, Some(machine)) => machine.inner().faults.failed(),
            (None, None) => Vec::new(),
        }
    }

    /// A run in which the sites of `plan` fail.
    pub(super) fn new(plan: Vec<SiteId>) -> Self {
        Self { plan, recording: false, schedule: None, machine: RefCell::default(), progress: RefCell::default() }
    }

    /// Remembers all sites, with their stacks.
    pub(super) fn recording(mut self) -> Self {
        self.recording = true;
        self
    }

    /// Holds threads up, as drawn from `seed`.
    pub(super) fn perturbed(mut self, seed: u64) -> Self {
        self.schedule = Some(seed);
        self
    }

    /// Runs the scenario, and looks at what it leaves.
    pub(super) fn run(self, scenario: &dyn Fn(&Self)) -> Outcome {
        let panicked = panic::catch_unwind(AssertUnwindSafe(|| scenario(&self))).err();
        self.end();
        let said = panicked.map(|payload| {
            let text = payload.downcast_ref::<String>().map(String::as_str);
            text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("the scenario panicked").to_owned()
        });
        // A finding explains the panic that follows from it, and a panic explains what is left over.
        let machine = self.machine.borrow().clone();
        let found = machine.as_ref().and_then(Machine::finding).map(|finding| finding.to_string());
        let problem = found.or(said).or_else(|| machine.as_ref().and_then(left_behind));
        let Progress { sites, after, .. } = self.progress.take().unwrap_or_default();
        Outcome { sites, after, schedule: self.schedule, problem }
    }
}

/// What a run must not leave: a driver, or anything of a driver's.
fn left_behind(machine: &Machine) -> Option<String> {
    let loaded = machine.drivers();
    if let Some(driver) = loaded.first() {
        return Some(format!("{} is still loaded", driver.name));
    }
    let unclean = machine.unload_reports().into_iter().find(|report| !report.is_clean())?;
    Some(format!("left behind: {unclean}"))
}
