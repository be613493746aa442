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

    /// Runs the case and returns how long it took.
    pub(crate) fn run<T: Table>(self, on: &Filled<T>, threads: usize, rounds: u64) -> Spent {
        if self == Self::Close {
            return close(&on.table, threads, rounds);
        }
        let start = Gate::new(threads);
        let spent = Total::new();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (start, spent) = (&start, &spent);
                scope.spawn(move || {
                    settle(thread);
                    let mut worker = Worker::new(on, thread, threads);
                    start.pass();
                    let began = Moment::now();
                    match self {
                        Self::GetRandom => worker.get_random(rounds),
                        Self::GetHot => worker.get_one(0, rounds),
                        Self::GetOwn => worker.get_one(thread % on.first.len(), rounds),
                        Self::Churn => worker.churn(rounds),
                        Self::Mixed | Self::Close => worker.mixed(rounds),
                    }
                    spent.add(began);
                    worker.clear();
                });
            }
        });
        spent.average(threads)
    }
}

/// How long a run took.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Spent {
    /// Processor time of a thread, on average: the time on the clock where every thread has a processor to itself.
    pub(crate) processor: Duration,
    /// Time on the clock of a thread, on average. Much more than processor time where a thread had to wait for its processor: then
    /// the others went on without it, and a run that is to show how threads get in each other's way shows less of that.
    pub(crate) clock: Duration,
    /// Time on the clock from when the last thread began to when the first one had finished.
    pub(crate) together: Duration,
}

impl Spent {
    /// Whether all threads were running at the same time, nearly.
    pub(crate) fn is_undisturbed(self) -> bool {
        self.clock < self.processor.mul_f64(1.1) + Duration::from_micros(20) && self.together > self.clock.mul_f64(0.8)
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
fn close<T: Table>(table: &T, threads: usize, rounds: u64) -> Spent {
    let mut total = Spent::default();
    // `rounds` is per thread, and every handle counts once for all threads together.
    let mut left = rounds.saturating_mul(threads as u64);
    while left > 0 {
        let batch = left.min(RACED as u64);
        left -= batch;
        let keys: Vec<_> = (0..batch).map(|object| table.insert(OWNER, object)).collect();
        let start = Gate::new(threads);
        let (spent, closed) = (Total::new(), AtomicU64::new(0));
        std::thread::scope(|scope| {
            for thread in 0..threads {
                let (start, spent, closed, keys) = (&start, &spent, &closed, &keys);
                scope.spawn(move || {
                    settle(thread);
                    start.pass();
                    let began = Moment::now();
                    let won = keys.iter().filter(|key| table.remove(OWNER, **key)).count();
                    spent.add(began);
                    closed.fetch_add(won as u64, Ordering::Relaxed);
                });
            }
        });
        let closed = closed.into_inner();
        assert!(closed == batch || closed > batch && !T::ONE_WINNER, "{closed} closes of {batch} handles succeeded");
        let spent = spent.average(threads);
        total.processor += spent.processor;
        total.clock += spent.clock;
        total.together += spent.together;
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

/// A moment of a thread, in nanoseconds.
#[derive(Clone, Copy)]
struct Moment {
    processor: u64,
    clock: u64,
}

impl Moment {
    fn now() -> Self {
        let nanoseconds = |clock| {
            let time = clock_gettime(clock);
            time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
        };
        Self { processor: nanoseconds(ClockId::ThreadCPUTime), clock: nanoseconds(ClockId::Monotonic) }
    }
}

/// What all threads spent, in nanoseconds.
struct Total {
    processor: AtomicU64,
    clock: AtomicU64,
    last_began: AtomicU64,
    first_done: AtomicU64,
}

impl Total {
    fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self { processor: zero(), clock: zero(), last_began: zero(), first_done: AtomicU64::new(u64::MAX) }
    }

    /// Adds what this thread spent since `began`.
    fn add(&self, began: Moment) {
        let now = Moment::now();
        self.processor.fetch_add(now.processor - began.processor, Ordering::Relaxed);
        self.clock.fetch_add(now.clock - began.clock, Ordering::Relaxed);
        self.last_began.fetch_max(began.clock, Ordering::Relaxed);
        self.first_done.fetch_min(now.clock, Ordering::Relaxed);
    }

    fn average(self, threads: usize) -> Spent {
        let part = |total: AtomicU64| Duration::from_nanos(total.into_inner() / threads as u64);
        let together = self.first_done.into_inner().saturating_sub(self.last_began.into_inner());
        Spent { processor: part(self.processor), clock: part(self.clock), together: Duration::from_nanos(together) }
    }
}

/// Lets nobody through before all are there. Spins, since waking a sleeping thread takes longer than many a measurement, and lets others
/// run only where it would be for nothing.
struct Gate {
    missing: AtomicUsize,
}

impl Gate {
    fn new(threads: usize) -> Self {
        Self { missing: AtomicUsize::new(threads) }
    }

    fn pass(&self) {
        self.missing.fetch_sub(1, Ordering::SeqCst);
        let mut turns = 0_u32;
        while self.missing.load(Ordering::SeqCst) != 0 {
            turns += 1;
            if turns.is_multiple_of(20_000) {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
    }
}
