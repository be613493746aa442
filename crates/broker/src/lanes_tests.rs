//! The handle table with threads in lanes of their own, and with all of them in one.

use core::sync::atomic::{AtomicU32, Ordering};
use std::vec::Vec;

use crate::testing::{NoIrql, OwnLanes, session};
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

/// Counts closes.
#[derive(Default)]
struct Counter(AtomicU32);

impl Reaper<Numbered> for Counter {
    fn can_close_here(&self) -> bool {
        true
    }

    fn schedule_drain(&self) {}

    fn close(&self, _closed: Closed<'_, Numbered>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

type Table<C> = HandleTable<Numbered, Counter, C>;

fn table<C: LockContext>(most: u32) -> Table<C> {
    HandleTable::new(HandleKey::new([11, 22, 33, 44]), most, Counter::default())
}

fn insert<C: LockContext>(table: &Table<C>, session: &Shared<Session>, number: u32) -> Result<Handle, Error> {
    table.reserve(session)?.fill(Numbered(number))
}

fn closes<C: LockContext>(table: &Table<C>) -> u32 {
    table.reaper().0.load(Ordering::Relaxed)
}

fn more_pins_than_a_lane_has_room_for<C: LockContext>() {
    let (table, session) = (table::<C>(10), session(1));
    let handle = insert(&table, &session, 7).unwrap();
    let mut pins: Vec<_> = (0..40).map(|_| table.get(&session, handle).unwrap()).collect();
    assert!(pins.iter().all(|pinned| pinned.0 == 7 && pinned.pins() == 40));
    assert_eq!(table.close(&session, handle), Ok(()));
    assert_eq!(table.get(&session, handle).unwrap_err(), Error::HandleClosed);
    // Out of order: places in the lane are freed before and after counted ones.
    while pins.len() > 1 {
        drop(pins.swap_remove(pins.len() / 2));
        assert_eq!((closes(&table), pins[0].0), (0, 7));
    }
    drop(pins);
    assert_eq!(closes(&table), 1);
    assert!(table.is_empty());
}

#[test]
fn pins_beyond_a_lane_keep_the_entry_as_well() {
    more_pins_than_a_lane_has_room_for::<NoIrql>();
    more_pins_than_a_lane_has_room_for::<OwnLanes>();
}

fn quota_with_tickets_in_all_lanes<C: LockContext>() {
    let table = table::<C>(100);
    let small = Session::try_new(SessionId(1), 4, &SessionLimits { handles: 3, bytes: 0, jobs: 0 }).unwrap();
    // What other threads gave back lies ready in their lanes, and counts as free all the same.
    let handles: Vec<_> = (0..3).map(|number| insert(&table, &small, number).unwrap()).collect();
    std::thread::scope(|scope| {
        for handle in &handles {
            let (table, small) = (&table, &small);
            scope.spawn(move || table.close(small, *handle).unwrap()).join().unwrap();
        }
    });
    assert_eq!(table.handles_of(&small), 0);
    for number in 0..3 {
        assert_eq!(table.handles_of(&small), u64::from(number));
        insert(&table, &small, number).unwrap();
    }
    assert_eq!(insert(&table, &small, 3), Err(Error::SessionHandles));
    assert_eq!(table.end_session(&small), 3);
    assert_eq!((table.handles_of(&small), small.charged_handles()), (0, 0));
    assert_eq!(Shared::count(&small), 1, "a lane refers to a session that has ended");
}

#[test]
fn quota_is_exact_whichever_lane_its_tickets_lie_in() {
    quota_with_tickets_in_all_lanes::<NoIrql>();
    quota_with_tickets_in_all_lanes::<OwnLanes>();
}

fn slots_go_round<C: LockContext>() {
    let (table, session) = (table::<C>(8), session(1));
    for _ in 0..5 {
        let handles: Vec<_> = (0..8).map(|number| insert(&table, &session, number).unwrap()).collect();
        assert_eq!(insert(&table, &session, 8), Err(Error::TooManyHandles));
        std::thread::scope(|scope| {
            for half in handles.chunks(4) {
                let (table, session) = (&table, &session);
                scope.spawn(move || half.iter().for_each(|handle| table.close(session, *handle).unwrap()));
            }
        });
        assert!(table.is_empty());
    }
    assert_eq!(table.slots(), 8);
}

#[test]
fn slots_that_other_lanes_gave_back_are_found() {
    slots_go_round::<NoIrql>();
    slots_go_round::<OwnLanes>();
}

/// All threads use, close and replace the same few handles.
fn everybody_at_the_same_handles<C: LockContext>() {
    let rounds = if cfg!(miri) { 20 } else { 20_000 };
    let (table, session) = (table::<C>(1000), session(1));
    let slots: [std::sync::Mutex<Handle>; 2] =
        core::array::from_fn(|number| insert(&table, &session, number as u32).unwrap().into());
    let made = AtomicU32::new(2);
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (table, session, slots, made) = (&table, &session, &slots, &made);
            scope.spawn(move || {
                for round in 0..rounds {
                    let which = (round + thread) % 2;
                    let handle = *slots[which].lock().unwrap();
                    match table.get(session, handle) {
                        Ok(pinned) if round % 4 == thread => {
                            let nested = table.get(session, handle);
                            assert!(nested.is_ok_and(|nested| nested.0 == pinned.0) || closes(table) > 0);
                            if pinned.close().is_ok() {
                                let number = made.fetch_add(1, Ordering::Relaxed);
                                *slots[which].lock().unwrap() = insert(table, session, number).unwrap();
                            }
                        }
                        Ok(pinned) => assert!(pinned.0 < made.load(Ordering::Relaxed)),
                        Err(error) => assert_eq!(error, Error::HandleClosed),
                    }
                }
            });
        }
    });
    assert_eq!(closes(&table), made.load(Ordering::Relaxed) - 2);
    assert_eq!((table.len(), table.end_session(&session)), (2, 2));
    assert_eq!((closes(&table), table.len()), (made.load(Ordering::Relaxed), 0));
    assert_eq!(session.charged_handles(), 0);
}

#[test]
fn handles_that_all_threads_use_and_close_are_closed_once() {
    everybody_at_the_same_handles::<NoIrql>();
    everybody_at_the_same_handles::<OwnLanes>();
}
