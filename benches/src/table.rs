//! What a table has to do to be compared.

use std::sync::atomic::{AtomicU64, Ordering};

/// A table of handles, shared by threads.
///
/// What stands behind a handle is a number of 64 bits, the size of a pointer to an object. The rules are those of
/// a handle broker, so that every contender does the same work:
///
/// - what [`get`](Self::get) reads must stay valid, for as long as the caller likes, while others close the handle;
/// - a caller that has it must not hold up those who close it, nor those who use other handles;
/// - of several that close a handle, exactly one is told that it did;
/// - a handle is good for the client that it was made for, and for nobody else;
/// - a handle that was closed is not good for what comes after it;
/// - each client has at most so many handles.
///
/// A table that needs a lock for its look-up therefore holds its objects in `Arc`s and clones one under the lock. Each does what a rule asks
/// for in the cheapest way that it has; where it has none, or where what it is compared for is not to have one, its module says so.
pub(crate) trait Table: Send + Sync + Sized {
    /// The table's name in reports.
    const NAME: &'static str;
    /// Whether the last of the rules above is kept. It is measured with threads racing, so a table that breaks it has to say so.
    const ONE_WINNER: bool = true;
    /// What the table calls a handle.
    type Key: Copy + Send + Sync;

    /// An empty table for up to `most` handles.
    fn new(most: usize) -> Self;

    /// Adds `object` for `client`. Each thread that adds is a client of its own.
    fn insert(&self, client: usize, object: u64) -> Self::Key;

    /// Takes hold of the object, looks at it, and lets go.
    fn get(&self, client: usize, key: Self::Key) -> Option<u64>;

    /// Closes the handle; whether this call was the one that did.
    fn remove(&self, client: usize, key: Self::Key) -> bool;
}

/// How many clients a table has to tell apart: the one that fills it, and one per thread.
pub(crate) const CLIENTS: usize = 17;

/// How many handles a client may have.
pub(crate) const QUOTA: u64 = 1 << 32;

/// The handles that clients have, for tables without a lock to count them under. On cache lines of their own.
pub(crate) struct Quotas([Quota; CLIENTS]);

#[derive(Default)]
#[repr(align(64))]
struct Quota(AtomicU64);

impl Quotas {
    pub(crate) fn new() -> Self {
        Self(std::array::from_fn(|_| Quota::default()))
    }

    /// Counts a handle. One locked operation: what is too much is taken back.
    #[inline]
    pub(crate) fn take(&self, client: usize) {
        let before = self.0[client].0.fetch_add(1, Ordering::Relaxed);
        // Signed: a table that tells two closers of a handle that they closed it gives back too much.
        assert!(before.cast_signed() < QUOTA.cast_signed(), "a client has too many handles");
    }

    #[inline]
    pub(crate) fn give_back(&self, client: usize) {
        self.0[client].0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The same, under a lock.
pub(crate) type LockedQuotas = [u64; CLIENTS];
