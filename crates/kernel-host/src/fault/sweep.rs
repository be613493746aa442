//! A scenario run again and again, with another fault each time.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use super::trial::{Outcome, Trial};
use super::{Site, SiteId};
use crate::machine::Machine;
use crate::random::Random;

/// Names the sites that fail in the only run to be made, as `0123456789ab` or two of them joined by `+`.
pub(super) const REPLAY: &str = "KERNEL_HOST_FAULTS";
/// Names another seed for pairs.
const SEED: &str = "KERNEL_HOST_SEED";

/// More runs for a site that did not come up again: threads that race may come past it in the next one.
const SECOND_CHANCES: usize = 15;

/// Which faults to try.
#[derive(Clone, Debug)]
pub struct Sweep {
    pairs: usize,
    schedules: usize,
    seed: u64,
}

/// A run that went wrong.
#[derive(Debug)]
pub struct Broken {
    /// The sites that were to fail in it; empty in the run that only counts.
    pub plan: Vec<SiteId>,
    /// Those that were reached.
    pub sites: Vec<Site>,
    /// Seed of the perturbed schedule, where it was.
    pub schedule: Option<u64>,
    /// The finding, the leak, or what the scenario says.
    pub problem: String,
}

/// How a sweep went.
#[derive(Debug, Default)]
pub struct SweepReport {
    /// Sites that the scenario comes past when nothing fails, in the order of time; those that failed, when one run is replayed.
    pub sites: Vec<Site>,
    /// How many of them were reached and failed.
    pub exercised: usize,
    /// How many runs with two faults were made.
    pub pairs: usize,
    /// How many runs with perturbed schedules were made.
    pub schedules: usize,
    /// Seed from which the pairs were drawn.
    pub seed: u64,
    /// Sites that did not come up again in any of the runs in which they were to fail: threads race, and went another way.
    pub missed: Vec<Site>,
    /// Runs that went wrong.
    pub broken: Vec<Broken>,
    /// Time for all runs.
    pub took: Duration,
}

impl Machine {
    /// Runs `scenario` once to count injection sites, then once for each site with that site failing.
    ///
    /// The scenario makes a machine of its own, calls [`Trial::begin`] with it, does things that may now fail, calls
    /// [`Trial::end`], checks that all works again, and unloads all drivers. A run is good when the scenario does not panic,
    /// there is no finding, no driver is left, and no driver left anything.
    pub fn sweep(scenario: impl Fn(&Trial)) -> SweepReport {
        Sweep::new().run(scenario)
    }
}

impl Default for Sweep {
    fn default() -> Self {
        Self::new()
    }
}

impl Sweep {
    /// Every site once, no pairs.
    #[must_use]
    pub fn new() -> Self {
        let seed = std::env::var(SEED).ok().and_then(|text| text.parse().ok());
        Self { pairs: 0, schedules: 0, seed: seed.unwrap_or(0x5eed) }
    }

    /// Also makes `count` runs in which two sites fail, drawn at random. The seed is fixed, so that
    /// every run of a test is the same one; the environment variable `KERNEL_HOST_SEED` gives another.
    #[must_use]
    pub fn pairs(mut self, count: usize) -> Self {
        self.pairs = count;
        self
    }

    /// Also makes `count` runs without any fault in which threads are held up at random, each time otherwise.
    #[must_use]
    pub fn schedules(mut self, count: usize) -> Self {
        self.schedules = count;
        self
    }

    /// Runs it, as [`Machine::sweep`] describes.
    ///
    /// With the environment variable `KERNEL_HOST_FAULTS` set to what a report names, only that run is made.
    pub fn run(&self, scenario: impl Fn(&Trial)) -> SweepReport {
        let started = Instant::now();
        let mut report = SweepReport { seed: self.seed, ..SweepReport::default() };
        if let Some(plan) = replayed() {
            let outcome = Trial::new(plan.clone()).recording().run(&scenario);
            report.sites = outcome.sites.iter().filter(|site| plan.contains(&site.id)).cloned().collect();
            report.exercised = report.sites.len();
            report.judge(plan, outcome);
        } else {
            self.run_all(&scenario, &mut report);
        }
        report.took = started.elapsed();
        report
    }

    fn run_all(&self, scenario: &dyn Fn(&Trial), report: &mut SweepReport) {
        let counted = Trial::new(Vec::new()).recording().run(scenario);
        report.sites.clone_from(&counted.sites);
        report.judge(Vec::new(), counted);
        if !report.is_clean() {
            return;
        }
        // The first fault changes the way: the second is one that came up after it, where the driver cleans up and goes on.
        let mut followed = Vec::new();
        for site in report.sites.clone() {
            let plan = vec![site.id];
            let mut outcome = Trial::new(plan.clone()).run(scenario);
            for _ in 0..SECOND_CHANCES {
                if !outcome.sites.is_empty() || outcome.problem.is_some() {
                    break;
                }
                outcome = Trial::new(plan.clone()).run(scenario);
            }
            if outcome.sites.is_empty() {
                report.missed.push(site.clone());
            } else {
                report.exercised += 1;
            }
            if !outcome.after.is_empty() {
                followed.push((site.id, outcome.after.clone()));
            }
            report.judge(plan, outcome);
        }
        let mut random = Random::new(self.seed);
        for _ in 0..if followed.is_empty() { 0 } else { self.pairs } {
            let (first, after) = &followed[random.below(followed.len())];
            let plan = vec![*first, after[random.below(after.len())]];
            report.pairs += 1;
            report.judge(plan.clone(), Trial::new(plan).run(scenario));
        }
        for _ in 0..self.schedules {
            report.schedules += 1;
            report.judge(Vec::new(), Trial::new(Vec::new()).perturbed(random.next()).run(scenario));
        }
    }
}

impl SweepReport {
    /// Whether every run was good. A missed site is no failure, but less was tried than seems.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.broken.is_empty()
    }

    fn judge(&mut self, plan: Vec<SiteId>, outcome: Outcome) {
        if let Some(problem) = outcome.problem {
            let hit = outcome.sites.into_iter().filter(|site| plan.contains(&site.id));
            // With its stack, where the counting run saw the same site.
            let describe = |site: Site| {
                let counted = self.sites.iter().find(|counted| counted.id == site.id);
                counted.cloned().unwrap_or(site)
            };
            let sites = hit.map(describe).collect();
            self.broken.push(Broken { plan, sites, schedule: outcome.schedule, problem });
        }
    }
}

impl fmt::Display for SweepReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { sites, exercised, pairs, schedules, seed, missed, broken, took } = self;
        write!(f, "{} sites, {exercised} exercised, {} missed, {} broken", sites.len(), missed.len(), broken.len())?;
        if *pairs != 0 {
            write!(f, ", {pairs} pairs from seed {seed}")?;
        }
        if *schedules != 0 {
            write!(f, ", {schedules} schedules from seed {seed}")?;
        }
        writeln!(f, ", in {took:.1?}")?;
        let mut by_call = BTreeMap::new();
        for site in sites {
            *by_call.entry((site.call, &site.failure)).or_insert(0) += 1;
        }
        for ((call, failure), count) in by_call {
            writeln!(f, "  {count:>4} x {call}: {failure}")?;
        }
        for site in missed {
            writeln!(f, "missed: {site}")?;
        }
        for run in broken {
            writeln!(f, "{run}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { plan, sites, schedule, problem } = self;
        let thread = std::thread::current();
        let test = thread.name().unwrap_or_default();
        if let Some(seed) = schedule {
            writeln!(f, "broken under a perturbed schedule: {}", problem.trim_end().replace('\n', "\n  "))?;
            return write!(f, "  likely again with: KERNEL_HOST_SCHEDULE={seed} and the test {test}");
        }
        if plan.is_empty() {
            return write!(f, "broken without any fault: {problem}");
        }
        let numbers = plan.iter().map(ToString::to_string).collect::<Vec<_>>().join("+");
        for site in sites {
            writeln!(f, "site {}: {site}", site.id)?;
        }
        writeln!(f, "  {}", problem.trim_end().replace('\n', "\n  "))?;
        write!(f, "  replay: {REPLAY}={numbers} and the test {test}")
    }
}

/// The only run to be made, when somebody asked for one.
fn replayed() -> Option<Vec<SiteId>> {
    let text = std::env::var(REPLAY).ok()?;
    let sites: Result<Vec<SiteId>, _> = text.split('+').map(str::parse).collect();
    Some(sites.unwrap_or_else(|_| panic!("{REPLAY} is {text:?}; it takes sites as a report names them, joined by +")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A scenario with three sites of which the last must not fail.
    fn scenario(trial: &Trial) {
        let machine = Machine::builder().build().unwrap();
        trial.begin(&machine);
        let pass = || machine.inner().faults.of_callback("test.sys", "Callback", "fails");
        let failed = [pass(), pass(), pass()];
        trial.end();
        assert!(!failed[2], "the third site failed");
    }

    #[test]
    fn each_site_fails_once_and_the_bad_one_is_reported() {
        let report = Machine::sweep(scenario);
        assert_eq!((report.sites.len(), report.exercised), (3, 3));
        let broken = &report.broken[..];
        let third = report.sites[2].id;
        assert_eq!(broken.iter().map(|run| &run.plan[..]).collect::<Vec<_>>(), [[third]]);
        let text = report.to_string();
        assert!(text.contains("the third site failed"), "{text}");
        assert!(text.contains(&format!("KERNEL_HOST_FAULTS={third} ")), "{text}");
        assert_eq!(third.to_string().parse(), Ok(third));
    }

    #[test]
    fn a_scenario_that_fails_by_itself_is_not_swept() {
        let report = Machine::sweep(|_| panic!("on purpose"));
        assert_eq!((report.broken.len(), report.exercised), (1, 0));
        assert!(report.to_string().contains("without any fault"));
    }

    #[test]
    fn a_site_that_does_not_come_up_again_is_missed() {
        let runs = std::cell::Cell::new(0);
        let report = Machine::sweep(|trial| {
            let machine = Machine::builder().build().unwrap();
            trial.begin(&machine);
            let call = if runs.replace(runs.get() + 1) == 0 { "First" } else { "Second" };
            machine.inner().faults.of_callback("test.sys", call, "fails");
        });
        assert_eq!((report.missed.len(), report.is_clean()), (1, true));
    }

    #[test]
    fn perturbed_schedules_are_runs_without_faults_and_a_bad_one_names_its_seed() {
        let runs = std::cell::Cell::new(0);
        let report = Sweep::new().schedules(3).run(|trial| {
            let machine = Machine::builder().build().unwrap();
            trial.begin(&machine);
            assert!(trial.failed().is_empty());
            assert_ne!(runs.replace(runs.get() + 1), 2, "the second of them");
        });
        assert_eq!((runs.get(), report.schedules, report.broken.len()), (4, 3, 1));
        assert!(report.to_string().contains("KERNEL_HOST_SCHEDULE="), "{report}");
    }

    #[test]
    fn the_same_seed_draws_the_same_pairs() {
        let plans = || {
            let plans = std::cell::RefCell::new(Vec::new());
            Sweep::new().pairs(5).run(|trial| {
                plans.borrow_mut().push(format!("{trial:?}"));
                scenario(trial);
            });
            plans.into_inner()
        };
        let once = plans();
        assert_eq!(once.len(), 1 + 3 + 5);
        assert_eq!(once, plans());
    }
}
