//! Models of revocation, beside those of [`loom_tests`](crate::loom_tests): every order of the steps of an administrator, an owner and a
//! disconnect.

use core::sync::atomic::AtomicU32;

use loom::sync::Arc;
use loom::thread;

use crate::{
    Closed, Entry, EntryIds, Error, Handle, HandleKey, HandleTable, Kind, LockContext, Reaper, Session, SessionId,
    SessionLimits, Shared,
};

struct Nothing;

impl Entry for Nothing {
    fn kind(&self) -> Kind {
        Kind::File
    }
}

/// Counts closes, without adding orders to the model.
#[derive(Default)]
struct Counter(AtomicU32);

impl Reaper<Nothing> for Counter {
    fn can_close_here(&self) -> bool {
        true
    }

    fn schedule_drain(&self) {}

    fn close(&self, closed: Closed<'_, Nothing>) {
        drop(closed);
        self.0.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
    }
}

struct OneProcessor;

impl LockContext for OneProcessor {
    type Saved = ();

    fn enter() {}

    fn leave((): ()) {}
}

struct World {
    table: HandleTable<Nothing, Counter, OneProcessor>,
    session: Shared<Session>,
    ids: EntryIds,
    handle: Handle,
}

impl World {
    /// One session with one handle.
    fn new() -> Arc<Self> {
        let limits = SessionLimits { handles: 10, bytes: 0, jobs: 0 };
        let session = Session::try_new(SessionId(1), 4, &limits).unwrap();
        let table = HandleTable::new(HandleKey::new([1, 2, 3, 4]), 2, Counter::default());
        let handle = table.reserve(&session).unwrap().fill(Nothing).unwrap();
        Arc::new(Self { table, session, ids: EntryIds::new(HandleKey::new([5, 6, 7, 8])), handle })
    }

    fn revoke(&self) -> u32 {
        let found = self.ids.find(&self.table, self.ids.id(self.handle));
        u32::from(found.is_some_and(|pinned| pinned.revoke().is_ok()))
    }

    fn close(&self) -> Result<(), Error> {
        self.table.close(&self.session, self.handle)
    }

    fn use_it(&self) -> Result<(), Error> {
        self.table.get(&self.session, self.handle).map(drop)
    }

    fn end(&self) -> u32 {
        u32::try_from(self.table.end_session(&self.session)).unwrap()
    }

    fn ends_with_one_close(&self) {
        assert_eq!(self.table.reaper().0.load(core::sync::atomic::Ordering::Relaxed), 1);
        assert!(self.table.is_empty());
        assert_eq!(self.table.handles_of(&self.session), 0);
    }
}

fn explore(preemptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(model);
}

fn spawn<T: 'static>(world: &Arc<World>, work: impl FnOnce(&World) -> T + 'static) -> thread::JoinHandle<T> {
    let world = Arc::clone(world);
    thread::spawn(move || work(&world))
}

#[test]
fn loom_disconnect_and_close_and_revoke_close_exactly_once() {
    explore(Some(3), || {
        let world = World::new();
        let admin = spawn(&world, World::revoke);
        let owner = spawn(&world, |world| u32::from(world.close().is_ok()));
        let swept = world.end();
        assert_eq!(swept + admin.join().unwrap() + owner.join().unwrap(), 1);
        world.ends_with_one_close();
    });
}

#[test]
fn loom_two_revocations_and_a_use_close_exactly_once() {
    explore(Some(2), || {
        let world = World::new();
        let admin = spawn(&world, World::revoke);
        let user = spawn(&world, World::use_it);
        let won = world.revoke();
        assert_eq!(won + admin.join().unwrap(), 1);
        // Nobody else closes it: where it is gone the owner knows why, in whatever order it happened.
        assert!(matches!(user.join().unwrap(), Ok(()) | Err(Error::HandleRevoked)));
        assert_eq!(world.use_it(), Err(Error::HandleRevoked));
        assert_eq!(world.session.revoked(), 1);
        world.ends_with_one_close();
    });
}

#[test]
fn loom_owner_who_comes_second_learns_that_the_handle_was_revoked() {
    explore(None, || {
        let world = World::new();
        let admin = spawn(&world, World::revoke);
        let closed = world.close();
        let revoked = admin.join().unwrap();
        match closed {
            Ok(()) => assert_eq!(revoked, 0),
            Err(error) => assert_eq!((error, revoked), (Error::HandleRevoked, 1)),
        }
        assert_eq!(world.session.revoked(), 0, "closing it is the end of it");
        world.ends_with_one_close();
    });
}
