//! What happens to an entry of the handle table when it is closed.

use crate::{Handle, Kind, Session, Shared};

/// Something that a handle can stand for. The driver has one `enum` of them.
pub trait Entry: Send + Sync {
    /// What it is; must not change while the entry is in the table.
    fn kind(&self) -> Kind;
}

/// Does the real close (`FltClose`, `ObDereferenceObject`, `NdisCloseFile` ...) of entries that nobody uses any more.
///
/// Each entry that was ever put into the table comes here exactly once.
pub trait Reaper<E: Entry>: Send + Sync {
    /// Whether this thread may close things now: in the driver, whether the IRQL is `PASSIVE_LEVEL` and no APCs are
    /// disabled. Callable at IRQL <= `DISPATCH_LEVEL`.
    fn can_close_here(&self) -> bool;

    /// Arranges that [`HandleTable::drain`](crate::HandleTable::drain) is called soon at `PASSIVE_LEVEL` (queues the
    /// driver's work item, if it is not queued already). Callable at IRQL <= `DISPATCH_LEVEL`; must not fail.
    fn schedule_drain(&self);

    /// Closes one entry. Called at `PASSIVE_LEVEL`, without any lock; may block, and may use the table.
    fn close(&self, closed: Closed<'_, E>);
}

/// An entry that has left the table.
#[derive(Debug)]
pub struct Closed<'a, E> {
    /// The handle that it had. It is not valid any more, and its value will not be given out again.
    pub handle: Handle,
    /// The session that opened it.
    pub session: &'a Shared<Session>,
    /// The entry, now owned by the reaper.
    pub entry: E,
}
