//! Models of the handle table: loom runs each of them in every order that threads can take their steps in, with every value
//! that the memory model lets them see, and stops at accesses to an entry that nothing orders.
//!
//! `cargo xtask loom` runs them. Three threads get at most three preemptions each run, which is where errors are found; two
//! threads are explored without a bound.

use core::sync::atomic::AtomicU32;
use std::vec::Vec;

use loom::sync::Arc;
use loom::thread;

use crate::{
    Closed, Entry, Error, Handle, HandleKey, HandleTable, Kind, LockContext, Reaper, Session, SessionId, SessionLimits,
    Shared,
};

struct Numbered(u32);

impl Entry for Numbered {
    fn kind(&self) -> Kind {
        Kind::File
    }
}

/// Counts closes. Not with loom's atomics: the counter is the model's, not the table's, and should add no orders.
#[derive(Default)]
struct Counter {
    closes: AtomicU32,
    raised: bool,
}

impl Reaper<Numbered> for Counter {
    fn can_close_here(&self) -> bool {
        !self.raised
    }

    fn schedule_drain(&self) {}

    fn close(&self, closed: Closed<Numbered>) {
        drop(closed);
        self.closes.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
    }
}

/// All threads on one processor's list: the most contended there is.
struct OneProcessor;

impl LockContext for OneProcessor {
    type Saved = ();

    fn enter() {}

    fn leave((): ()) {}
}

struct World {
    table: HandleTable<Numbered, Counter, OneProcessor>,
    session: Shared<Session>,
}

impl World {
    fn new(most: u32, raised: bool) -> Arc<Self> {
        let limits = SessionLimits { handles: 10, bytes: 0, jobs: 0 };
        let reaper = Counter { raised, ..Counter::default() };
        Arc::new(Self {
            table: HandleTable::new(HandleKey::new([1, 2, 3, 4]), most, reaper),
            session: Session::try_new(SessionId(1), 4, &limits).unwrap(),
        })
    }

    fn insert(&self, number: u32) -> Result<Handle, Error> {
        self.table.reserve(&self.session)?.fill(Numbered(number))
    }

    fn get(&self, handle: Handle) -> Option<u32> {
        self.table.get(&self.session, handle).ok().map(|pinned| pinned.0)
    }

    fn close(&self, handle: Handle) -> u32 {
        u32::from(self.table.close(&self.session, handle).is_ok())
    }

    fn closes(&self) -> u32 {
        self.table.reaper().closes.load(core::sync::atomic::Ordering::Relaxed)
    }

    fn ends_empty(&self, closes: u32) {
        assert_eq!(self.closes(), closes);
        assert!(self.table.is_empty());
        assert_eq!(self.session.handles(), 0);
    }
}

/// Runs `model` with at most `preemptions` of running threads.
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
fn loom_get_and_close_of_one_handle() {
    explore(None, || {
        let world = World::new(2, false);
        let handle = world.insert(7).unwrap();
        let other = spawn(&world, move |world| world.get(handle));
        assert_eq!(world.close(handle), 1);
        assert!(matches!(other.join().unwrap(), None | Some(7)));
        world.ends_empty(1);
    });
}

#[test]
fn loom_two_closes_and_a_get_of_one_handle() {
    explore(Some(3), || {
        let world = World::new(2, false);
        let handle = world.insert(7).unwrap();
        let user = spawn(&world, move |world| world.get(handle));
        let closer = spawn(&world, move |world| world.close(handle));
        let won = world.close(handle);
        assert_eq!(won + closer.join().unwrap(), 1);
        assert!(matches!(user.join().unwrap(), None | Some(7)));
        world.ends_empty(1);
    });
}

#[test]
fn loom_stale_handle_and_reuse_of_its_slot() {
    explore(Some(3), || {
        let world = World::new(1, false);
        let stale = world.insert(7).unwrap();
        let users: Vec<_> = (0..2).map(|_| spawn(&world, move |world| world.get(stale))).collect();
        assert_eq!(world.close(stale), 1);
        // A user who is still at it keeps the only slot in use.
        if let Ok(fresh) = world.insert(8) {
            assert_eq!(fresh.slot(), stale.slot());
            assert_eq!(world.get(fresh), Some(8));
            assert_eq!(world.close(fresh), 1);
        }
        for user in users {
            assert!(matches!(user.join().unwrap(), None | Some(7)));
        }
        let closed = world.closes();
        assert!((1..=2).contains(&closed));
        world.ends_empty(closed);
    });
}

#[test]
fn loom_stale_close_and_reuse_of_its_slot() {
    explore(Some(3), || {
        let world = World::new(1, false);
        let stale = world.insert(7).unwrap();
        let closer = spawn(&world, move |world| world.close(stale));
        let won = world.close(stale);
        if let Ok(fresh) = world.insert(8) {
            // Whatever the other thread does with the handle of old, this entry is not its to close.
            assert_eq!(world.get(fresh), Some(8));
            assert_eq!(world.close(fresh), 1);
        }
        assert_eq!(won + closer.join().unwrap(), 1);
        world.ends_empty(world.closes());
    });
}

#[test]
fn loom_two_inserts_into_an_empty_table() {
    explore(Some(3), || {
        let world = World::new(4, false);
        let other = spawn(&world, |world| world.insert(1).unwrap());
        let mine = world.insert(2).unwrap();
        let theirs = other.join().unwrap();
        assert_eq!((world.get(theirs), world.get(mine)), (Some(1), Some(2)));
        assert_eq!(world.close(theirs) + world.close(mine), 2);
        world.ends_empty(2);
    });
}

#[test]
fn loom_insert_while_its_session_ends() {
    explore(Some(3), || {
        let world = World::new(2, false);
        let other = spawn(&world, |world| {
            u32::from(world.table.reserve(&world.session).is_ok_and(|room| {
                let _ = room.fill(Numbered(1));
                true
            }))
        });
        world.table.end_session(&world.session);
        let filled = other.join().unwrap();
        // Nobody sweeps again: whoever came too late has to have closed it.
        world.ends_empty(filled);
    });
}

#[test]
fn loom_insert_into_a_used_slot_while_the_table_closes_for_good() {
    explore(Some(3), || {
        let world = World::new(1, false);
        let first = world.insert(1).unwrap();
        world.close(first);
        let other = spawn(&world, |world| {
            u32::from(world.table.reserve(&world.session).is_ok_and(|room| {
                let _ = room.fill(Numbered(2));
                true
            }))
        });
        world.table.close_all();
        let filled = other.join().unwrap();
        world.ends_empty(1 + filled);
    });
}

#[test]
fn loom_disconnect_and_close_and_use_close_exactly_once() {
    explore(Some(3), || {
        let world = World::new(2, false);
        let handle = world.insert(7).unwrap();
        let user = spawn(&world, move |world| world.get(handle));
        let closer = spawn(&world, move |world| world.close(handle));
        let swept = u32::try_from(world.table.end_session(&world.session)).unwrap();
        assert!(matches!(user.join().unwrap(), None | Some(7)));
        assert_eq!(swept + closer.join().unwrap(), 1);
        world.ends_empty(1);
    });
}

#[test]
fn loom_closes_at_a_raised_irql_and_drain() {
    explore(Some(3), || {
        let world = World::new(2, true);
        let handles = [world.insert(1).unwrap(), world.insert(2).unwrap()];
        let closer = spawn(&world, move |world| world.close(handles[0]));
        let drainer = spawn(&world, |world| world.table.drain());
        assert_eq!(world.close(handles[1]), 1);
        assert_eq!(closer.join().unwrap(), 1);
        let drained = drainer.join().unwrap() + world.table.drain();
        assert_eq!(drained, 2);
        world.ends_empty(2);
    });
}
