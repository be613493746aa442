//! What a table has to do to be compared.

/// A table of handles, shared by threads.
///
/// What stands behind a handle is a number of 64 bits, the size of a pointer to an object. The rules are those of
/// a handle broker, so that every contender does the same work:
///
/// - what [`get`](Self::get) reads must stay valid, for as long as the caller likes, while others close the handle;
/// - a caller that has it must not hold up those who close it, nor those who use other handles;
/// - of several that close a handle, exactly one is told that it did.
///
/// A table that needs a lock for its look-up therefore holds its objects in `Arc`s and clones one under the lock.
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
