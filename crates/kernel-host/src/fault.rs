//! Fault injection: every call that can fail does fail once, and the drivers must cope.
//!
//! A *site* is one way in which one call of a driver can fail. It is known by the call, the way, the driver's stack, and
//! how many times the same came before ([`SiteId`]), so that it is found again where threads race; a call that can fail in two
//! ways makes two sites. Which exports take part, and how they fail, is declared beside their
//! names in the export tables; the gate ([`crate::ddi::Call::enter`]) does the failing, before the export does anything.
//! User memory makes sites too: a page of a message buffer can vanish between the probe and the copy.
//!
//! A machine without a plan pays one relaxed load per call.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::ddi::CallSite;

mod failure;
mod site;
mod sweep;
mod trial;

pub use failure::Failure;
pub(crate) use failure::{
    BUSY, IO, NDIS_FAILURE, NDIS_FILE, NDIS_RESOURCES, NULL, QUOTA, QUOTA_STATUS, RESOURCES, RETURNS_NDIS_FAILURE,
};
pub(crate) use failure::{LOCKING, MAPPING, NO_MEMORY, PAGES, POOL, READ, REQUEST, SEND, WAIT_MULTIPLE, WAIT_SINGLE};
pub use site::{Site, SiteId};
pub use sweep::{Broken, Sweep, SweepReport};
pub use trial::Trial;

/// The plan of one machine, and how far it has come.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    armed: AtomicBool,
    progress: Mutex<Progress>,
}

/// What happened while the plan was armed.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    /// The sites that fail.
    plan: Vec<SiteId>,
    /// How many times each place has been passed.
    passed: HashMap<u64, u32>,
    /// Whether to remember all sites, with their stacks, not only those that fail.
    recording: bool,
    /// The sites remembered, in the order of time.
    pub(crate) sites: Vec<Site>,
    /// What was passed after the first failure, where the driver copes with it.
    pub(crate) after: Vec<SiteId>,
}

impl Progress {
    pub(crate) fn failed(&self) -> Vec<Site> {
        self.sites.iter().filter(|site| self.plan.contains(&site.id)).cloned().collect()
    }
}

impl Faults {
    /// From now on, sites count; those in `plan` fail. `recording` remembers all.
    pub(crate) fn arm(&self, plan: Vec<SiteId>, recording: bool) {
        *self.lock() = Progress { plan, recording, ..Progress::default() };
        self.armed.store(true, Ordering::Release);
    }

    /// The sites that have failed so far.
    pub(crate) fn failed(&self) -> Vec<Site> {
        self.lock().failed()
    }

    /// What has to be in the environment for the same failures.
    pub(crate) fn replay(&self) -> Option<String> {
        let plan: Vec<_> = self.lock().plan.iter().map(ToString::to_string).collect();
        (!plan.is_empty()).then(|| format!("{}={}", sweep::REPLAY, plan.join("+")))
    }

    /// Sites count no longer; what happened until now.
    pub(crate) fn disarm(&self) -> Progress {
        self.armed.store(false, Ordering::Release);
        std::mem::take(&mut *self.lock())
    }

    /// How this call is to fail, if the plan says so.
    pub(crate) fn of_call(&self, call: &CallSite) -> Option<Failure> {
        if !self.armed.load(Ordering::Relaxed) {
            return None;
        }
        let possible = call.export.failures.iter().copied().filter(|failure| failure.is_possible(call));
        // Each of them is a site and counts, also behind the one that is chosen.
        possible.fold(None, |chosen, failure| {
            let place = site::place_of_call(call, failure);
            let fails = self.pass(place, |id, with_stack| Site::of_call(id, call, failure, with_stack));
            chosen.or(fails.then_some(failure))
        })
    }

    /// Whether the plan makes something else than a call fail: `what` happens to `callback` of `driver`.
    pub(crate) fn of_callback(&self, driver: &str, callback: &'static str, what: &'static str) -> bool {
        self.armed.load(Ordering::Relaxed)
            && self.pass(site::place_of_callback(driver, callback, what), |id, _| {
                Site::of_callback(id, driver, callback, what)
            })
    }

    /// Passes a place once more, described by `site` with or without its stack; whether it fails.
    fn pass(&self, place: u64, site: impl FnOnce(SiteId, bool) -> Site) -> bool {
        let (id, fails, recording) = {
            let mut progress = self.lock();
            let times = progress.passed.entry(place).or_default();
            let id = SiteId::new(place, *times);
            *times += 1;
            if !progress.sites.is_empty() && !progress.recording {
                progress.after.push(id);
            }
            (id, progress.plan.contains(&id), progress.recording)
        };
        if fails || recording {
            // Described without the lock: finding symbols takes long, and other threads go on.
            let site = site(id, recording);
            self.lock().sites.push(site);
        }
        fails
    }

    fn lock(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pass(faults: &Faults) -> bool {
        faults.of_callback("test.sys", "Callback", "fails")
    }

    fn nth(times: u32) -> SiteId {
        SiteId::new(site::place_of_callback("test.sys", "Callback", "fails"), times)
    }

    #[test]
    fn without_a_plan_nothing_counts() {
        let faults = Faults::default();
        assert!(!pass(&faults));
        assert!(faults.disarm().passed.is_empty());
    }

    #[test]
    fn the_planned_sites_fail_and_only_they() {
        let faults = Faults::default();
        faults.arm(vec![nth(1), nth(3)], false);
        assert_eq!([0; 5].map(|_| pass(&faults)), [false, true, false, true, false]);
        let progress = faults.disarm();
        assert_eq!(progress.sites.iter().map(|site| site.id).collect::<Vec<_>>(), [nth(1), nth(3)]);
        assert_eq!(progress.after, [nth(2), nth(3), nth(4)]);
        assert!(!pass(&faults), "it is over");
    }

    #[test]
    fn recording_remembers_all_sites() {
        let faults = Faults::default();
        faults.arm(Vec::new(), true);
        assert_eq!([0; 3].map(|_| pass(&faults)), [false; 3]);
        assert_eq!(faults.disarm().sites.len(), 3);
    }
}
