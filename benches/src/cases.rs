//! What is done to a table while the clock runs.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use clap::ValueEnum;
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::{ClockId, clock_gettime};

use crate::table::Table;

/// A pattern of use. Each thread does the same; `rounds` counts what one thread does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Case {
    /// Gets of all live handles in random order.
    GetRandom,
    /// Gets of one handle, the same for all threads.
    GetHot,
    /// Gets of one handle per thread; the handles were made one after the other.
    GetOwn,
    /// A handle is closed and another one made, as one operation; each thread keeps 16 of its own.
    Churn,
    /// Nine random gets, then alternately a handle made or one closed; each of them is one operation.
    Mixed,
    /// All threads close the same handles, one after the other; only closes that succeed count.
    Close,
}

/// How many handles are there for threads to race for, in [`Case::Close`].
const RACED: usize = 4096;

/// How many handles of its own a thread keeps in [`Case::Churn`] and [`Case::Mixed`].
const OWN: usize = 16;

/// A filled table.
pub(crate) struct Filled<T: Table> {
    pub(crate) table: T,
    /// The live handles, in random order.
    pub(crate) shuffled: Vec<T::Key>,
    /// The first handles that were made, in that order.
    pub(crate) first: Vec<T::Key>,
}

/// Who makes the handles that stay; threads are the clients from 1 on.
pub(crate) const OWNER: usize = 0;

impl Case {
    /// The name in reports.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::GetRandom => "get random",
            Self::GetHot => "get hot",
            Self::GetOwn => "get own",
            Self::Churn => "churn",
            Self::Mixed => "mixed 90/10",
            Self::Close => "close contended",
        }
    }

    /// Runs the case and returns how long it took: the processor time of a thread, on average. That is the time on the clock
    /// where every thread has a processor to itself; where it does not, the time that others take away does not count.
    pub(crate) fn run<T: Table>(self, on: &Filled<T>, threads: usize, rounds: u64) -> Duration {
        if self == Self::Close {
            return close(&on.table, threads, rounds);
        }
        let start = Gate::new(threads);
        let spent = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (start, spent) = (&start, &spent);
                scope.spawn(move || {
                    settle(thread);
                    let mut worker = Worker::new(on, thread, threads);
                    start.pass();
                    let began = processor_time();
                    match self {
                        Self::GetRandom => worker.get_random(rounds),
                        Self::GetHot => worker.get_one(0, rounds),
                        Self::GetOwn => worker.get_one(thread % on.first.len(), rounds),
                        Self::Churn => worker.churn(rounds),
                        Self::Mixed | Self::Close => worker.mixed(rounds),
                    }
                    spent.fetch_add(processor_time() - began, Ordering::Relaxed);
                    worker.clear();
                });
            }
        });
        Duration::from_nanos(spent.into_inner() / threads as u64)
    }
}

/// One thread's part.
struct Worker<'a, T: Table> {
    on: &'a Filled<T>,
    client: usize,
    next: usize,
    own: Vec<T::Key>,
    oldest: usize,
}

impl<'a, T: Table> Worker<'a, T> {
    fn new(on: &'a Filled<T>, thread: usize, threads: usize) -> Self {
        let client = thread + 1;
        let own = (0..OWN as u64).map(|object| on.table.insert(client, object)).collect();
        // Apart from each other, so that the threads do not follow in each other's cache lines.
        let next = on.shuffled.len() * thread / threads;
        Self { on, client, next, own, oldest: 0 }
    }

    fn get_next(&mut self) {
        let key = self.on.shuffled[self.next];
        self.next = if self.next + 1 == self.on.shuffled.len() { 0 } else { self.next + 1 };
        assert!(self.on.table.get(OWNER, key).is_some(), "a live handle is not found");
    }

    fn get_random(&mut self, rounds: u64) {
        for _ in 0..rounds {
            self.get_next();
        }
    }

    fn get_one(&mut self, index: usize, rounds: u64) {
        let key = self.on.first[index];
        for _ in 0..rounds {
            assert!(self.on.table.get(OWNER, key).is_some(), "a live handle is not found");
        }
    }

    fn churn(&mut self, rounds: u64) {
        for round in 0..rounds {
            let oldest = &mut self.own[self.oldest];
            assert!(self.on.table.remove(self.client, *oldest), "an own handle is not closed");
            *oldest = self.on.table.insert(self.client, round);
            self.oldest = (self.oldest + 1) % OWN;
        }
    }

    fn mixed(&mut self, rounds: u64) {
        for round in 0..rounds {
            match round % 20 {
                9 => {
                    let closed = self.own.swap_remove(self.oldest % self.own.len());
                    assert!(self.on.table.remove(self.client, closed), "an own handle is not closed");
                }
                19 => self.own.push(self.on.table.insert(self.client, round)),
                _ => self.get_next(),
            }
        }
    }

    fn clear(&mut self) {
        for key in self.own.drain(..) {
            self.on.table.remove(self.client, key);
        }
    }
}

/// [`Case::Close`]: batches of handles are made while nobody looks at the clock, and then fought over.
fn close<T: Table>(table: &T, threads: usize, rounds: u64) -> Duration {
    let mut total = Duration::ZERO;
    // `rounds` is per thread, and every handle counts once for all threads together.
    let mut left = rounds.saturating_mul(threads as u64);
    while left > 0 {
        let batch = left.min(RACED as u64);
        left -= batch;
        let keys: Vec<_> = (0..batch).map(|object| table.insert(OWNER, object)).collect();
        let start = Gate::new(threads);
        let (spent, closed) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (start, spent, closed, keys) = (&start, &spent, &closed, &keys);
                scope.spawn(move || {
                    settle(thread);
                    start.pass();
                    let began = processor_time();
                    let won = keys.iter().filter(|key| table.remove(OWNER, **key)).count();
                    spent.fetch_add(processor_time() - began, Ordering::Relaxed);
                    closed.fetch_add(won as u64, Ordering::Relaxed);
                });
            }
        });
        let closed = closed.into_inner();
        assert!(closed == batch || closed > batch && !T::ONE_WINNER, "{closed} closes of {batch} handles succeeded");
        total += Duration::from_nanos(spent.into_inner() / threads as u64);
    }
    total
}

/// Keeps this thread to one processor: threads that took turns on the same one would never be in each other's way.
fn settle(thread: usize) {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let mut set = CpuSet::new();
    set.set(thread % processors);
    // Where that is forbidden the measurement is less telling, but no less true.
    let _ = sched_setaffinity(None, &set);
}

/// The processor time of this thread up to now, in nanoseconds.
fn processor_time() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

/// Lets nobody through before all are there. Spins, since waking a sleeping thread takes longer than many a measurement.
struct Gate {
    missing: AtomicUsize,
}

impl Gate {
    fn new(threads: usize) -> Self {
        Self { missing: AtomicUsize::new(threads) }
    }

    fn pass(&self) {
        self.missing.fetch_sub(1, Ordering::SeqCst);
        while self.missing.load(Ordering::SeqCst) != 0 {
            std::thread::yield_now();
        }
    }
}
