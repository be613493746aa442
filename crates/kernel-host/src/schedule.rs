//! Perturbed thread schedules: threads are held up at random around their calls of exports, so that orders come about
//! which an idle machine never shows.
//!
//! What is drawn depends on the seed, the thread, and how far the thread has come, not on the time. Linux still decides who
//! runs meanwhile, so a seed makes an order likely and does not force it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::machine::Machine;

/// Perturbs every machine of the process, as if its builder had been told to.
const SEED: &str = "KERNEL_HOST_SCHEDULE";

/// Of so many calls, one lets other threads go first.
const YIELD_EVERY: u64 = 8;
/// Of so many calls, one is held up for longer than most calls take.
const NAP_EVERY: u64 = 64;
/// Of so many calls, one is held up for longer than most callbacks take.
const SLEEP_EVERY: u64 = 1024;

const NAP: Duration = Duration::from_micros(50);
const SLEEP: Duration = Duration::from_millis(1);

/// Whether and how a machine's threads are held up. A machine that is not perturbed pays one relaxed load per call.
#[derive(Debug, Default)]
pub(crate) struct Schedule {
    is_perturbed: AtomicBool,
    seed: AtomicU64,
}

/// What happens to a thread at one point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Delay {
    None,
    Yield,
    For(Duration),
}

impl Machine {
    /// From now on, holds threads up around their calls, as drawn from `seed`, to bring about orders that are rare otherwise.
    ///
    /// `KERNEL_HOST_SCHEDULE=seed` in the environment does that for every machine, so that tests need not be changed for it.
    pub fn perturb_schedules(&self, seed: u64) {
        self.inner().schedule.perturb(seed);
    }
}

impl Schedule {
    /// As the environment says.
    pub(crate) fn of_environment() -> Self {
        let schedule = Self::default();
        if let Ok(text) = std::env::var(SEED) {
            schedule.perturb(text.parse().unwrap_or_else(|_| panic!("{SEED} is {text:?}; it takes a number")));
        }
        schedule
    }

    /// What has to be in the environment for the same delays.
    pub(crate) fn replay(&self) -> Option<String> {
        let is_perturbed = self.is_perturbed.load(Ordering::Relaxed);
        is_perturbed.then(|| format!("{SEED}={}", self.seed.load(Ordering::Relaxed)))
    }

    pub(crate) fn perturb(&self, seed: u64) {
        self.seed.store(seed, Ordering::Relaxed);
        self.is_perturbed.store(true, Ordering::Release);
    }

    /// Holds the calling thread up, or not. `steps` counts its points so far.
    pub(crate) fn delay(&self, thread: u32, steps: &AtomicU64) {
        if !self.is_perturbed.load(Ordering::Relaxed) {
            return;
        }
        let step = steps.fetch_add(1, Ordering::Relaxed);
        match Delay::drawn(self.seed.load(Ordering::Relaxed), thread, step) {
            Delay::None => {}
            Delay::Yield => std::thread::yield_now(),
            Delay::For(time) => std::thread::sleep(time),
        }
    }
}

impl Delay {
    fn drawn(seed: u64, thread: u32, step: u64) -> Self {
        let number = crate::random::mixed(seed ^ crate::random::mixed(u64::from(thread) << 40 ^ step));
        if number.is_multiple_of(SLEEP_EVERY) {
            Self::For(SLEEP)
        } else if number.is_multiple_of(NAP_EVERY) {
            Self::For(NAP)
        } else if number.is_multiple_of(YIELD_EVERY) {
            Self::Yield
        } else {
            Self::None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ddi::testing::Bench;
    use crate::finding::Rule;
    use crate::thread::Thread;

    #[test]
    fn a_finding_says_on_which_thread_and_how_to_see_it_again() {
        let bench = Bench::new();
        bench.machine().perturb_schedules(77);
        let finding = bench.run(|| Thread::current().stop(Rule::BadState, "on purpose".to_owned(), None)).unwrap_err();
        assert!(finding.0.thread.starts_with("thread ") && finding.0.thread.ends_with(" of the system"), "{finding}");
        assert_eq!(finding.0.replay, "KERNEL_HOST_SCHEDULE=77");
        assert!(finding.to_string().contains("replay: the same test with KERNEL_HOST_SCHEDULE=77"), "{finding}");
    }

    #[test]
    fn a_seed_draws_the_same_delays_again_and_another_seed_draws_others() {
        let drawn = |seed| (0..4096).map(|step| Delay::drawn(seed, 8, step)).collect::<Vec<_>>();
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
        let yields = drawn(1).iter().filter(|delay| **delay == Delay::Yield).count();
        assert!((300..600).contains(&yields), "{yields}");
        assert!(drawn(1).contains(&Delay::For(SLEEP)) && drawn(1).contains(&Delay::For(NAP)));
    }

    #[test]
    fn threads_are_held_up_at_different_points() {
        let drawn = |thread| (0..256).map(|step| Delay::drawn(1, thread, step)).collect::<Vec<_>>();
        assert_ne!(drawn(4), drawn(8));
    }
}
