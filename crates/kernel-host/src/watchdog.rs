//! Driver code that never comes back: a loop that waits for a flag, a list that leads into itself.
//!
//! A test would hang for ever, without a word about where. So one thread of the host looks after all threads that are in driver
//! code. A thread's *beats* count its calls of exports and its callbacks; one that burns processor time without a beat is in a
//! loop of the driver's own, and is interrupted with a signal (`cpu/signal.rs`), which finds it in the driver's code and
//! reports the stack. A loop that calls exports beats for ever: its callback is given ten times as long, by the clock, and the next
//! call is where it is reported. Waits have a deadlock detection of their own.
//!
//! Processor time is what counts, so that neither a slow or busy machine nor a suspended one makes an honest driver late. While
//! a debugger is attached, nobody is.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

/// How long driver code may run, in processor time, when nothing else is asked for.
const DEFAULT_LIMIT: Duration = Duration::from_mins(1);
/// A callback that calls exports may take so many times the limit, by the clock.
const PATIENCE: u32 = 10;
/// How often the host looks.
const TICK: Duration = Duration::from_millis(100);
/// The signal that interrupts a loop. Nothing happens to a process that does not expect it.
pub(crate) const SIGNAL: libc::c_int = libc::SIGURG;

/// A machine's limit, in milliseconds; 0 for none.
#[derive(Debug)]
pub(crate) struct Limit(AtomicU64);

thread_local! {
    /// Of the Linux thread, which outlives its visits to machines.
    static PULSE: Arc<Pulse> = Pulse::start();
}

impl Default for Limit {
    fn default() -> Self {
        let limit = Self(AtomicU64::new(0));
        limit.set(Some(DEFAULT_LIMIT));
        limit
    }
}

impl Limit {
    pub(crate) fn set(&self, limit: Option<Duration>) {
        let milliseconds = limit.map_or(0, |limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1));
        self.0.store(milliseconds, Ordering::Relaxed);
    }

    fn get(&self) -> Option<Duration> {
        let milliseconds = self.0.load(Ordering::Relaxed);
        (milliseconds != 0).then(|| Duration::from_millis(milliseconds))
    }
}

/// The thread does something that a loop of the driver's own does not.
pub(crate) fn beat() {
    PULSE.with(|pulse| pulse.beat());
}

/// A callback is entered from outside of drivers.
pub(crate) fn callback_begins(limit: &Limit) {
    PULSE.with(|pulse| {
        pulse.beat();
        pulse.limit.0.store(limit.0.load(Ordering::Relaxed), Ordering::Relaxed);
        pulse.callbacks.store(pulse.callbacks.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        pulse.is_inside.store(true, Ordering::Release);
    });
}

/// It is over.
pub(crate) fn callback_ends() {
    PULSE.with(|pulse| {
        pulse.is_inside.store(false, Ordering::Release);
        pulse.beat();
    });
}

/// How long driver code has run without a beat, when that is too long.
pub(crate) fn is_overdue() -> Option<Duration> {
    PULSE.with(|pulse| {
        let is_overdue = pulse.overdue.load(Ordering::Acquire) == pulse.beats.load(Ordering::Relaxed);
        is_overdue.then(|| pulse.limit.get()).flatten()
    })
}

/// How long the callback under way has taken, when that is too long. Asked at every call.
pub(crate) fn is_late() -> Option<Duration> {
    PULSE.with(|pulse| {
        let late = pulse.late.load(Ordering::Relaxed);
        let is_it = late != 0 && late == pulse.callbacks.load(Ordering::Relaxed);
        is_it.then(|| pulse.limit.get()).flatten().map(|limit| limit * PATIENCE)
    })
}

/// Signs of life of one thread. Written by the thread itself, but for what the watchdog tells it.
#[derive(Debug)]
struct Pulse {
    /// Linux's id of the thread.
    thread: libc::pid_t,
    /// Of the machine whose callback was entered last.
    limit: Limit,
    beats: AtomicU64,
    /// Callbacks entered from outside of drivers, so far; the last one is under way while `is_inside`.
    callbacks: AtomicU64,
    is_inside: AtomicBool,
    /// The beat since which the thread has burnt its time; `u64::MAX` for none.
    overdue: AtomicU64,
    /// The callback that takes too long though it calls exports; 0 for none.
    late: AtomicU64,
}

impl Pulse {
    /// Of the calling Linux thread, which is looked after from now on.
    fn start() -> Arc<Self> {
        let pulse = Arc::new(Self {
            // SAFETY: gettid has no preconditions.
            thread: unsafe { libc::gettid() },
            limit: Limit::default(),
            beats: AtomicU64::new(0),
            callbacks: AtomicU64::new(0),
            is_inside: AtomicBool::new(false),
            overdue: AtomicU64::new(u64::MAX),
            late: AtomicU64::new(0),
        });
        look_after(&pulse);
        pulse
    }

    fn beat(&self) {
        // Only this thread writes.
        self.beats.store(self.beats.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
    }

    /// Processor time of the thread; `None` when it is gone.
    fn processor_time(&self) -> Option<Duration> {
        /// Of a `clockid_t`: a thread's clock, which runs while the thread does.
        const OF_A_THREAD: libc::clockid_t = 6;
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let clock = (!self.thread << 3) | OF_A_THREAD;
        // SAFETY: the structure is ours; an id that means nothing is refused.
        let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
        let seconds = u64::try_from(time.tv_sec).ok()?;
        (result == 0).then(|| Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0)))
    }
}

/// What the watchdog saw of a thread.
struct Watched {
    pulse: Arc<Pulse>,
    beats: u64,
    /// Processor time of the thread when that beat was first seen.
    since: Duration,
    callback: u64,
    /// When that callback was first seen.
    began: Instant,
}

static WATCHED: Mutex<Vec<Watched>> = Mutex::new(Vec::new());

/// Looks after a thread from now on, for as long as it keeps its pulse.
fn look_after(pulse: &Arc<Pulse>) {
    static START: Once = Once::new();
    let watched =
        Watched { pulse: Arc::clone(pulse), beats: 0, since: Duration::ZERO, callback: 0, began: Instant::now() };
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner).push(watched);
    START.call_once(|| {
        let builder = std::thread::Builder::new().name("kernel-host watchdog".to_owned());
        // Without the thread nobody is late; nothing else depends on it.
        let _started = builder.spawn(|| {
            loop {
                std::thread::sleep(TICK);
                let mut all = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
                all.retain(|watched| Arc::strong_count(&watched.pulse) > 1);
                all.iter_mut().for_each(Watched::look);
            }
        });
    });
}

impl Watched {
    fn look(&mut self) {
        let Some(limit) = self.pulse.limit.get() else { return };
        let (beats, callback) =
            (self.pulse.beats.load(Ordering::Relaxed), self.pulse.callbacks.load(Ordering::Relaxed));
        if callback != self.callback {
            (self.callback, self.began) = (callback, Instant::now());
        }
        if !self.pulse.is_inside.load(Ordering::Acquire) {
            return;
        }
        let Some(time) = self.pulse.processor_time() else { return };
        if beats != self.beats {
            (self.beats, self.since) = (beats, time);
        }
        let is_overdue = time.saturating_sub(self.since) >= limit;
        let is_late = self.began.elapsed() >= limit * PATIENCE;
        if (!is_overdue && !is_late) || is_debugged() {
            return;
        }
        if is_late {
            self.pulse.late.store(callback, Ordering::Relaxed);
        }
        if is_overdue {
            self.pulse.overdue.store(beats, Ordering::Release);
            // SAFETY: getpid has no preconditions.
            let process = unsafe { libc::getpid() };
            // SAFETY: the signal has a handler since before the thread was a machine's; a thread that is gone is refused.
            unsafe { libc::syscall(libc::SYS_tgkill, process, self.pulse.thread, SIGNAL) };
        }
    }
}

/// Whether a debugger holds this Linux process: then time means nothing.
fn is_debugged() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().find_map(|line| line.strip_prefix("TracerPid:")).is_some_and(|tracer| tracer.trim() != "0")
}
