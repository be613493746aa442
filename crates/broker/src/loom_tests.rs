//! Models of the handle table: loom runs each of them in every order that threads can take their steps in, with every value
//! that the memory model lets them see, and stops at accesses to an entry that nothing orders.
//!
//! `cargo xtask loom` runs them. Three threads get at most three preemptions each run, which is where errors are found; two
//! threads are explored without a bound.

#![expect(unsafe_code, reason = "promises what full barriers and numbers of threads are")]

use core::cell::Cell;
use core::sync::atomic::AtomicU32;
use std::vec::Vec;

use loom::sync::Arc;
use loom::thread;

use crate::{
    Barriers, Closed, Entry, Error, Handle, HandleKey, HandleTable, Kind, LockContext, Pinned, Reaper, Session,
    SessionId, SessionLimits, Shared,
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

    fn close(&self, closed: Closed<'_, Numbered>) {
        drop(closed);
        self.closes.fetch_add(1, core::sync::atomic::Ordering::Relaxed);
    }
}

/// Locked operations, and all threads in one lane: the most contended there is. Has room for one announcement, so others are counted.
struct OneLane;

impl LockContext for OneLane {
    type Saved = ();

    fn enter() {}

    fn leave((): ()) {}
}

/// Locked operations, and a lane for each of two threads; a third shares one.
struct Lanes;

impl LockContext for Lanes {
    type Saved = ();

    fn enter() {}

    fn leave((): ()) {}

    fn processor() -> usize {
        NUMBER.with(Cell::get)
    }
}

/// A pair of barriers, and a lane for each of two threads; a third has none.
struct OwnLanes;

impl LockContext for OwnLanes {
    type Saved = ();

    // SAFETY: [barriers/pair] two full barriers have an order: what the cheap one has to be together with the other is all that the model
    // can express. [barriers/number] `spawn` gives each thread its number.
    const BARRIERS: Option<Barriers> = Some(unsafe { Barriers::new(full, full) });

    fn enter() {}

    fn leave((): ()) {}

    fn processor() -> usize {
        NUMBER.with(Cell::get)
    }
}

fn full() {
    loom::sync::atomic::fence(loom::sync::atomic::Ordering::SeqCst);
}

loom::thread_local! {
    /// The first thread is number 0.
    static NUMBER: Cell<usize> = Cell::new(0);
}

struct World<C: LockContext> {
    table: HandleTable<Numbered, Counter, C>,
    session: Shared<Session>,
}

impl<C: LockContext> World<C> {
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

    fn pin(&self, handle: Handle) -> Pinned<'_, Numbered, Counter, C> {
        self.table.get(&self.session, handle).unwrap()
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
        assert_eq!(self.table.handles_of(&self.session), 0);
    }

    /// Nothing of a session that has ended lies ready for its next handle.
    fn keeps_nothing_ready(&self) {
        assert_eq!(self.session.charged_handles(), 0);
    }
}

/// Runs `model` with at most `preemptions` of running threads.
fn explore(preemptions: Option<usize>, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(model);
}

fn spawn<C: LockContext, T: 'static>(
    world: &Arc<World<C>>,
    number: usize,
    work: impl FnOnce(&World<C>) -> T + 'static,
) -> thread::JoinHandle<T> {
    let world = Arc::clone(world);
    thread::spawn(move || {
        NUMBER.with(|own| own.set(number));
        work(&world)
    })
}

fn get_and_close_of_one_handle<C: LockContext>() {
    explore(None, || {
        let world = World::<C>::new(2, false);
        let handle = world.insert(7).unwrap();
        let other = spawn(&world, 1, move |world| world.get(handle));
        assert_eq!(world.close(handle), 1);
        assert!(matches!(other.join().unwrap(), None | Some(7)));
        world.ends_empty(1);
    });
}

fn get_and_close_of_a_handle_that_both_have_used<C: LockContext>() {
    explore(Some(3), || {
        let world = World::<C>::new(2, false);
        let handle = world.insert(7).unwrap();
        let other = spawn(&world, 1, move |world| (world.get(handle), world.get(handle)));
        assert_eq!(world.get(handle), Some(7));
        assert_eq!(world.close(handle), 1);
        assert!(matches!(other.join().unwrap(), (None | Some(7), None) | (Some(7), Some(7))));
        world.ends_empty(1);
    });
}

fn close_of_a_handle_that_two_others_use<C: LockContext>() {
    explore(Some(2), || {
        let world = World::<C>::new(2, false);
        let handle = world.insert(7).unwrap();
        let users: Vec<_> = (1..3).map(|number| spawn(&world, number, move |world| world.get(handle))).collect();
        assert_eq!(world.get(handle), Some(7));
        assert_eq!(world.close(handle), 1);
        for user in users {
            assert!(matches!(user.join().unwrap(), None | Some(7)));
        }
        world.ends_empty(1);
    });
}

fn close_while_the_closer_has_pins_itself<C: LockContext>() {
    explore(Some(3), || {
        let world = World::<C>::new(2, false);
        let handle = world.insert(7).unwrap();
        let other = spawn(&world, 1, move |world| world.get(handle));
        // One is announced and one is counted, as there is room for one.
        let (first, second) = (world.pin(handle), world.pin(handle));
        assert_eq!(world.close(handle), 1);
        assert_eq!((world.closes(), first.0, second.0), (0, 7, 7));
        drop(first);
        drop(second);
        assert!(matches!(other.join().unwrap(), None | Some(7)));
        world.ends_empty(1);
    });
}

fn two_closes_and_a_get_of_one_handle<C: LockContext>() {
    explore(Some(3), || {
        let world = World::<C>::new(2, false);
        let handle = world.insert(7).unwrap();
        let user = spawn(&world, 1, move |world| world.get(handle));
        let closer = spawn(&world, 2, move |world| world.close(handle));
        let won = world.close(handle);
        assert_eq!(won + closer.join().unwrap(), 1);
        assert!(matches!(user.join().unwrap(), None | Some(7)));
        world.ends_empty(1);
    });
}

fn stale_handle_and_reuse_of_its_slot<C: LockContext>() {
    explore(Some(2), || {
        let world = World::<C>::new(1, false);
        let stale = world.insert(7).unwrap();
        let users: Vec<_> = (1..3).map(|number| spawn(&world, number, move |world| world.get(stale))).collect();
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

fn stale_close_and_reuse_of_its_slot<C: LockContext>() {
    explore(Some(3), || {
        let world = World::<C>::new(1, false);
        let stale = world.insert(7).unwrap();
        let closer = spawn(&world, 1, move |world| world.close(stale));
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

fn two_inserts_into_an_empty_table<C: LockContext>() {
    explore(Some(3), || {
        let world = World::<C>::new(4, false);
        let other = spawn(&world, 1, |world| world.insert(1).unwrap());
        let mine = world.insert(2).unwrap();
        let theirs = other.join().unwrap();
        assert_eq!((world.get(theirs), world.get(mine)), (Some(1), Some(2)));
        assert_eq!(world.close(theirs) + world.close(mine), 2);
        world.ends_empty(2);
    });
}

fn insert_of_what_another_lane_gave_back<C: LockContext>() {
    explore(Some(2), || {
        let world = World::<C>::new(1, false);
        let first = world.insert(1).unwrap();
        let other = spawn(&world, 1, move |world| (world.close(first), world.insert(2).is_ok()));
        // In the same lane or out of it: there is one slot, and at most one of the two gets it.
        let mine = world.insert(3).is_ok();
        let (closed, theirs) = other.join().unwrap();
        assert_eq!(closed, 1);
        assert!(!(mine && theirs));
        assert_eq!(world.table.len(), u32::from(mine) + u32::from(theirs));
        assert_eq!(world.table.close_all(), usize::from(mine) + usize::from(theirs));
        world.ends_empty(1 + u32::from(mine) + u32::from(theirs));
    });
}

fn insert_while_its_session_ends<C: LockContext>() {
    explore(Some(3), || {
        let world = World::<C>::new(2, false);
        let other = spawn(&world, 1, |world| {
            u32::from(world.table.reserve(&world.session).is_ok_and(|room| {
                let _ = room.fill(Numbered(1));
                true
            }))
        });
        world.table.end_session(&world.session);
        let filled = other.join().unwrap();
        // Nobody sweeps again: whoever came too late has to have closed it.
        world.ends_empty(filled);
        world.keeps_nothing_ready();
    });
}

fn close_while_its_session_ends<C: LockContext>() {
    explore(Some(3), || {
        let world = World::<C>::new(2, false);
        let handles = [world.insert(1).unwrap(), world.insert(2).unwrap()];
        let other = spawn(&world, 1, move |world| world.close(handles[1]));
        assert_eq!(world.close(handles[0]), 1);
        let swept = u32::try_from(world.table.end_session(&world.session)).unwrap();
        assert_eq!(other.join().unwrap() + swept, 1);
        world.ends_empty(2);
        world.keeps_nothing_ready();
    });
}

fn insert_into_a_used_slot_while_the_table_closes_for_good<C: LockContext>() {
    explore(Some(3), || {
        let world = World::<C>::new(1, false);
        let first = world.insert(1).unwrap();
        world.close(first);
        let other = spawn(&world, 1, |world| {
            u32::from(world.table.reserve(&world.session).is_ok_and(|room| {
                let _ = room.fill(Numbered(2));
                true
            }))
        });
        world.table.close_all();
        let filled = other.join().unwrap();
        world.ends_empty(1 + filled);
        world.keeps_nothing_ready();
    });
}

fn disconnect_and_close_and_use_close_exactly_once<C: LockContext>() {
    explore(Some(2), || {
        let world = World::<C>::new(2, false);
        let handle = world.insert(7).unwrap();
        let user = spawn(&world, 1, move |world| world.get(handle));
        let closer = spawn(&world, 2, move |world| world.close(handle));
        let swept = u32::try_from(world.table.end_session(&world.session)).unwrap();
        assert!(matches!(user.join().unwrap(), None | Some(7)));
        assert_eq!(swept + closer.join().unwrap(), 1);
        world.ends_empty(1);
        world.keeps_nothing_ready();
    });
}

fn closes_at_a_raised_irql_and_drain<C: LockContext>() {
    explore(Some(2), || {
        let world = World::<C>::new(2, true);
        let handles = [world.insert(1).unwrap(), world.insert(2).unwrap()];
        let closer = spawn(&world, 1, move |world| world.close(handles[0]));
        let drainer = spawn(&world, 2, |world| world.table.drain());
        assert_eq!(world.close(handles[1]), 1);
        assert_eq!(closer.join().unwrap(), 1);
        let drained = drainer.join().unwrap() + world.table.drain();
        assert_eq!(drained, 2);
        world.ends_empty(2);
    });
}

/// Each model with each way of ordering threads.
macro_rules! models {
    ($($model:ident)*) => {
        mod loom_one_lane { $(#[test] fn $model() { super::$model::<super::OneLane>(); })* }
        mod loom_lanes { $(#[test] fn $model() { super::$model::<super::Lanes>(); })* }
        mod loom_own_lanes { $(#[test] fn $model() { super::$model::<super::OwnLanes>(); })* }
    };
}

models! {
    get_and_close_of_one_handle
    get_and_close_of_a_handle_that_both_have_used
    close_of_a_handle_that_two_others_use
    close_while_the_closer_has_pins_itself
    two_closes_and_a_get_of_one_handle
    stale_handle_and_reuse_of_its_slot
    stale_close_and_reuse_of_its_slot
    two_inserts_into_an_empty_table
    insert_of_what_another_lane_gave_back
    insert_while_its_session_ends
    close_while_its_session_ends
    insert_into_a_used_slot_while_the_table_closes_for_good
    disconnect_and_close_and_use_close_exactly_once
    closes_at_a_raised_irql_and_drain
}
