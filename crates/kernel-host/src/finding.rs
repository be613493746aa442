//! What the verifier finds, and how a machine stops on it.

use std::fmt;

use crate::thread::Thread;

/// The rule a driver broke. Each has a stable name that tests and reports use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize)]
#[non_exhaustive]
pub enum Rule {
    /// A DDI was called above the IRQL its page allows.
    IrqlTooHigh,
    /// A callback returned at another IRQL than it was entered at.
    IrqlChanged,
    /// An exception that no handler in the driver took (bad pointer, illegal instruction).
    UnhandledException,
    /// The driver called `KeBugCheck` or `KeBugCheckEx`.
    BugCheck,
    /// Pool freed twice, with a wrong tag, or never allocated.
    BadPoolFree,
    /// Pool written outside its bounds or after it was freed.
    PoolCorruption,
    /// Pool still allocated when the driver was gone.
    PoolLeak,
    /// A kernel handle closed twice or never opened.
    InvalidHandle,
    /// A handle still open when the driver was gone.
    HandleLeak,
    /// An object reference dropped too often.
    ReferenceUnderflow,
    /// An object reference still held when the driver was gone.
    ReferenceLeak,
    /// A DDI was called with arguments its page forbids.
    BadArgument,
    /// A DDI was called in a state its page forbids (wrong order, wrong callback, twice).
    BadState,
    /// Locks are taken in an order in which they can deadlock.
    LockOrder,
    /// A lock was still held when the callback that acquired it returned.
    LockHeld,
    /// A wait without time-out that nothing can end.
    Deadlock,
    /// Driver code that loops without an end.
    NeverReturns,
    /// User memory touched outside a guarded region.
    UnguardedUserAccess,
    /// An import that kernel-host knows but does not implement yet was called.
    NotImplemented,
}

/// One broken rule, with all a reader needs to find the place.
#[derive(Clone, Debug, serde::Serialize)]
pub struct Finding {
    /// Which rule.
    pub rule: Rule,
    /// What happened, with the values that matter.
    pub message: String,
    /// The DDI or callback in which it was noticed.
    pub call: String,
    /// Driver that broke the rule, by image name.
    pub driver: String,
    /// Thread that was noticed, and the program in whose context it ran, as `thread 12 of client.exe (process 1000)`.
    pub thread: String,
    /// IRQL of the thread at that moment.
    pub irql: u8,
    /// The driver's stack, innermost frame first, as `image!symbol+0xoffset`.
    pub stack: Vec<String>,
    /// What has to be in the environment for the same to happen again; empty where the same test is enough.
    pub replay: String,
}

impl Finding {
    /// What the calling thread knows of itself goes in; a stack is the caller's to add.
    pub(crate) fn new(rule: Rule, message: String, call: &str, driver: &str) -> Self {
        let thread = Thread::try_current();
        Self {
            rule,
            message,
            call: call.to_owned(),
            driver: driver.to_owned(),
            irql: thread.as_ref().map_or(0, |thread| thread.irql()),
            thread: thread.map_or_else(|| "the host".to_owned(), |thread| thread.describe()),
            stack: Vec::new(),
            replay: String::new(),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:?}: {}", self.rule, self.message)?;
        writeln!(f, "  in {} called by {} at IRQL {} on {}", self.call, self.driver, self.irql, self.thread)?;
        for frame in &self.stack {
            writeln!(f, "    {frame}")?;
        }
        if self.replay.is_empty() { Ok(()) } else { writeln!(f, "  replay: the same test with {}", self.replay) }
    }
}

/// The machine has stopped on a finding; it serves nothing but its report any more.
#[derive(Clone, Debug, thiserror::Error)]
#[error("the machine stopped: {0}")]
pub struct Stopped(pub Box<Finding>);
