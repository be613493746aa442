//! Memory barriers of which one side is cheap.

#![expect(unsafe_code, reason = "a promise that the handle table relies on can only be made with an unsafe function")]

/// A pair of barriers, of which one is cheap because the other one is not.
///
/// A thread that announces what it uses, and one that asks whether anybody uses it, each write one place and then read the
/// other's. Without a full barrier between the write and the read, both could miss each other. Where most of the work is
/// done by those who announce, it pays to let the others order both sides.
#[derive(Debug, Clone, Copy)]
pub struct Barriers {
    /// Keeps the compiler from moving the read before the write.
    pub(crate) light: fn(),
    /// Makes every thread that is between a write and a read pass a full barrier (`membarrier` of Linux).
    pub(crate) heavy: fn(),
}

impl Barriers {
    /// The pair of a [`LockContext`](crate::LockContext).
    ///
    /// # Safety
    ///
    /// [barriers/pair] Of a call of `light` and one of `heavy`, one comes first: what the thread of the first wrote before it is
    /// read by the thread of the second after it.
    ///
    /// [barriers/number] While two threads live at the same time, [`LockContext::processor`](crate::LockContext::processor) does not return the same number in
    /// both, and it always returns the same number in one thread.
    #[must_use]
    pub const unsafe fn new(light: fn(), heavy: fn()) -> Self {
        Self { light, heavy }
    }
}
