//! Where a driver was when it took something that it has to give back.

use std::fmt;

use crate::ddi::CallSite;
use crate::thread::Thread;

/// Frames that are kept, the innermost ones. Enough to tell one caller of a driver's own allocation routine from another.
const DEPTH: usize = 10;

/// The driver's stack at a call, as bare return addresses: taken often, and named only when there is something to report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Origin {
    /// Innermost first; 0 behind the last.
    frames: [usize; DEPTH],
}

impl Origin {
    /// The stack of a driver that calls an export.
    pub(crate) fn of(site: &CallSite) -> Self {
        let mut frames = [0; DEPTH];
        if crate::cpu::backtrace::capture(&site.registers, &mut frames) == 0 {
            frames[0] = site.return_address;
        }
        Self { frames }
    }

    /// The stack of the driver whose call the host serves on this thread; `None` where it serves none.
    pub(crate) fn current() -> Option<Self> {
        Some(Self::of(&Thread::try_current()?.open_call()?))
    }
}

/// The place of the call, and its callers on lines of their own: as addresses, which a leak report puts names to.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut frames = self.frames.iter();
        write!(f, "{:#x}", frames.next().copied().unwrap_or_default())?;
        frames.take_while(|frame| **frame != 0).try_for_each(|frame| write!(f, "\n      called from {frame:#x}"))
    }
}
