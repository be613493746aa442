//! Ours, with everything that the driver uses: sessions with quotas, kinds, keyed handles, deferred closes.

use broker::{
    Barriers, Closed, Entry, Handle, HandleKey, HandleTable, Kind, LockContext, Reaper, Session, SessionId,
    SessionLimits, Shared,
};

use crate::table::{CLIENTS, Table};
use crate::thread::{self, THREADS};

/// `broker::HandleTable`.
pub(crate) struct Fwbroker {
    table: HandleTable<Object, Drop, NoIrql>,
    sessions: Vec<Shared<Session>>,
}

struct Object(u64);

impl Entry for Object {
    fn kind(&self) -> Kind {
        Kind::File
    }
}

/// Closes at once, by doing nothing: the object is a number.
struct Drop;

impl Reaper<Object> for Drop {
    fn can_close_here(&self) -> bool {
        true
    }

    fn schedule_drain(&self) {}

    fn close(&self, _closed: Closed<'_, Object>) {}
}

/// User mode has no IRQL, and threads stand for processors.
struct NoIrql;

impl LockContext for NoIrql {
    type Saved = ();

    const BARRIERS: Option<Barriers> = Some(THREADS);

    fn enter() {}

    fn leave((): ()) {}

    #[inline]
    fn processor() -> usize {
        thread::number()
    }
}

impl Table for Fwbroker {
    const NAME: &'static str = "fwbroker";
    type Key = Handle;

    fn new(most: usize) -> Self {
        let limits = SessionLimits { handles: u32::MAX, bytes: 0, jobs: 0 };
        let session = |id| Session::try_new(SessionId(id), 4, &limits).expect("memory for a session");
        Self {
            table: HandleTable::new(HandleKey::new([11, 22, 33, 44]), most as u32, Drop),
            sessions: (0..CLIENTS as u64).map(session).collect(),
        }
    }

    fn insert(&self, client: usize, object: u64) -> Handle {
        let room = self.table.reserve(&self.sessions[client]).expect("room for a handle");
        room.fill(Object(object)).expect("a session that has not ended")
    }

    fn get(&self, client: usize, key: Handle) -> Option<u64> {
        self.table.get(&self.sessions[client], key).ok().map(|pinned| pinned.0)
    }

    fn remove(&self, client: usize, key: Handle) -> bool {
        self.table.close(&self.sessions[client], key).is_ok()
    }
}
