//! What must not lie in memory that goes away.
//!
//! Driver Verifier looks for the same things when pool is freed: a kernel structure that is still in use in the block will be
//! followed later, by the kernel, into whatever is there then.

use super::Nt;

impl Nt {
    /// Names a structure in `length` bytes at `start` that is still in use: a timer that is set, a queued DPC or work item, a lock that is
    /// held, a lookaside list or a resource that was not deleted.
    ///
    /// Locks in the range that are free are forgotten: what is at their address next is another lock.
    pub(crate) fn active_in(&self, start: usize, length: usize) -> Option<String> {
        self.timers
            .active_in(start, length)
            .or_else(|| self.work_items.active_in(start, length))
            .or_else(|| self.lock_order.forget(start, length))
            .or_else(|| self.resources.active_in(start, length))
            .or_else(|| self.lookaside.active_in(start, length))
            .or_else(|| self.mappings.shown_in(&self.physical, start, length))
    }
}
