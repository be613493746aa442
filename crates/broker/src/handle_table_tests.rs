//! The handle table as its users see it, alone and under threads.

use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::collections::HashMap;
use std::sync::Mutex;
use std::vec::Vec;

use proptest::prelude::*;

use crate::testing::{NoIrql, depth};
use crate::{
    Closed, Entry, Error, Handle, HandleKey, HandleTable, Kind, Reaper, Session, SessionId, SessionLimits, Shared,
};

/// An entry with a number, to see which one comes back.
struct Numbered(u32, Kind);

impl Entry for Numbered {
    fn kind(&self) -> Kind {
        self.1
    }
}

/// Counts closes per number, at an IRQL that the test chooses.
#[derive(Default)]
struct Counter {
    closed: Mutex<HashMap<u32, u32>>,
    raised: AtomicBool,
    drains_asked: AtomicU32,
}

impl Reaper<Numbered> for Counter {
    fn can_close_here(&self) -> bool {
        !self.raised.load(Ordering::Relaxed)
    }

    fn schedule_drain(&self) {
        self.drains_asked.fetch_add(1, Ordering::Relaxed);
    }

    fn close(&self, closed: Closed<'_, Numbered>) {
        assert_eq!(depth(), 0, "closed under a lock");
        *self.closed.lock().unwrap().entry(closed.entry.0).or_default() += 1;
    }
}

type Table = HandleTable<Numbered, Counter, NoIrql>;

fn table(max: u32) -> Table {
    HandleTable::new(HandleKey::new([11, 22, 33, 44]), max, Counter::default())
}

fn session(id: u64) -> Shared<Session> {
    Session::try_new(SessionId(id), 4, &SessionLimits { handles: 100_000, bytes: 0, jobs: 0 }).unwrap()
}

fn insert(table: &Table, session: &Shared<Session>, number: u32) -> Result<Handle, Error> {
    table.reserve(session)?.fill(Numbered(number, Kind::File))
}

fn closes(table: &Table) -> HashMap<u32, u32> {
    table.reaper().closed.lock().unwrap().clone()
}

#[test]
fn handle_finds_its_entry_until_it_is_closed_once() {
    let (table, session) = (table(10), session(1));
    let handle = insert(&table, &session, 7).unwrap();
    assert_eq!(table.get(&session, handle).unwrap().0, 7);
    assert_eq!(table.close(&session, handle), Ok(()));
    assert_eq!(table.close(&session, handle), Err(Error::HandleClosed));
    assert_eq!(table.get(&session, handle).unwrap_err(), Error::HandleClosed);
    assert_eq!(closes(&table), HashMap::from([(7, 1)]));
    assert!(table.is_empty());
    assert_eq!(table.handles_of(&session), 0);
}

#[test]
fn stale_handle_does_not_reach_the_next_entry_of_its_slot() {
    let (table, session) = (table(1), session(1));
    let stale = insert(&table, &session, 1).unwrap();
    table.close(&session, stale).unwrap();
    let fresh = insert(&table, &session, 2).unwrap();
    assert_eq!(stale.slot(), fresh.slot());
    assert_eq!(table.close(&session, stale), Err(Error::HandleClosed));
    assert_eq!(table.get(&session, fresh).unwrap().0, 2);
}

#[test]
fn handles_of_others_and_made_up_ones_are_told_apart() {
    let (table, mine, other) = (table(10), session(1), session(2));
    let handle = insert(&table, &mine, 1).unwrap();
    assert_eq!(table.get(&other, handle).unwrap_err(), Error::HandleOfOtherSession);
    assert_eq!(table.close(&other, handle), Err(Error::HandleOfOtherSession));
    let other_kind = Handle::new(handle.check(), Kind::Binding, handle.slot());
    assert_eq!(table.get(&mine, other_kind).unwrap_err(), Error::HandleInvalid);
    let other_check = Handle::new(handle.check() ^ 1, Kind::File, handle.slot());
    assert_eq!(table.get(&mine, other_check).unwrap_err(), Error::HandleInvalid);
    let no_slot = Handle::new(handle.check(), Kind::File, 5_000_000);
    assert_eq!(table.get(&mine, no_slot).unwrap_err(), Error::HandleInvalid);
    assert_eq!(table.get_kind(&mine, handle, Kind::Image).unwrap_err(), Error::HandleWrongKind);
    assert!(table.get_kind(&mine, handle, Kind::File).is_ok());
    assert!(closes(&table).is_empty());
}

#[test]
fn pinned_entry_is_closed_when_its_last_user_lets_go() {
    let (table, session) = (table(10), session(1));
    let handle = insert(&table, &session, 1).unwrap();
    let first = table.get(&session, handle).unwrap();
    let second = table.get(&session, handle).unwrap();
    assert_eq!(first.pins(), 2);
    table.close(&session, handle).unwrap();
    assert_eq!(table.get(&session, handle).unwrap_err(), Error::HandleClosed);
    drop(first);
    assert_eq!(second.0, 1);
    assert!(closes(&table).is_empty());
    drop(second);
    assert_eq!(closes(&table), HashMap::from([(1, 1)]));
}

#[test]
fn closes_at_a_raised_irql_wait_for_the_drain() {
    let (table, session) = (table(10), session(1));
    let handles: Vec<_> = (0..3).map(|n| insert(&table, &session, n).unwrap()).collect();
    table.reaper().raised.store(true, Ordering::Relaxed);
    for handle in handles {
        table.close(&session, handle).unwrap();
    }
    assert!(closes(&table).is_empty());
    assert_eq!(table.len(), 3);
    assert_eq!(table.reaper().drains_asked.load(Ordering::Relaxed), 3);
    table.reaper().raised.store(false, Ordering::Relaxed);
    assert_eq!(table.drain(), 3);
    assert_eq!(closes(&table), HashMap::from([(0, 1), (1, 1), (2, 1)]));
    assert!(table.is_empty());
    assert_eq!(table.drain(), 0);
}

#[test]
fn limits_of_table_and_session_hold_and_reservations_count() {
    let table = table(2);
    let small = Session::try_new(SessionId(1), 4, &SessionLimits { handles: 1, bytes: 0, jobs: 0 }).unwrap();
    let large = session(2);
    let reservation = table.reserve(&small).unwrap();
    assert_eq!(table.reserve(&small).err(), Some(Error::SessionHandles));
    let handle = insert(&table, &large, 1).unwrap();
    assert_eq!(table.reserve(&large).err(), Some(Error::TooManyHandles));
    drop(reservation);
    assert_eq!((table.handles_of(&small), table.len()), (0, 1));
    assert!(table.reserve(&small).is_ok());
    table.close(&large, handle).unwrap();
    assert!(table.is_empty());
}

#[test]
fn slot_is_retired_before_a_check_could_repeat() {
    let (table, session) = (table(10), session(1));
    let handle = insert(&table, &session, 1).unwrap();
    table.close(&session, handle).unwrap();
    table.wear_out(handle.slot());
    let last = insert(&table, &session, 2).unwrap();
    assert_eq!(last.slot(), handle.slot());
    table.close(&session, last).unwrap();
    assert_eq!(table.retired_slots(), 1);
    let elsewhere = insert(&table, &session, 3).unwrap();
    assert_ne!(elsewhere.slot(), handle.slot());
    assert_eq!(table.get(&session, last).unwrap_err(), Error::HandleClosed);
}

#[test]
fn enumeration_sees_each_entry_once_and_goes_on_at_its_cursor() {
    let (table, session) = (table(1000), session(1));
    let handles: Vec<_> = (0..200).map(|n| insert(&table, &session, n).unwrap()).collect();
    for handle in handles.iter().step_by(2) {
        table.close(&session, *handle).unwrap();
    }
    let first: Vec<_> = table.iter().take(30).map(|p| (p.0, p.next_cursor(), p.handle())).collect();
    let rest: Vec<_> = table.iter_from(first[29].1).map(|p| p.0).collect();
    let seen: Vec<_> = first.iter().map(|(n, ..)| *n).chain(rest).collect();
    assert_eq!(seen, (0..200).filter(|n| n % 2 == 1).collect::<Vec<_>>());
    assert!(first.iter().all(|(n, _, handle)| handles[*n as usize] == *handle));
}

#[test]
fn end_of_a_session_closes_its_entries_and_nobody_elses() {
    let (table, ending, staying) = (table(100), session(1), session(2));
    for number in 0..5 {
        insert(&table, &ending, number).unwrap();
    }
    let kept = insert(&table, &staying, 9).unwrap();
    let reservation = table.reserve(&ending).unwrap();
    assert_eq!(table.end_session(&ending), 5);
    assert_eq!(table.end_session(&ending), 0);
    assert_eq!(table.reserve(&ending).err(), Some(Error::SessionEnded));
    // An entry that comes late goes to the reaper, not back to the caller.
    assert_eq!(reservation.fill(Numbered(6, Kind::File)), Err(Error::SessionEnded));
    assert_eq!(closes(&table).len(), 6);
    assert_eq!(table.handles_of(&ending), 0);
    assert!(table.get(&staying, kept).is_ok());
    assert_eq!(table.close_all(), 1);
    assert_eq!(table.reserve(&staying).err(), Some(Error::SessionEnded));
    assert!(table.is_empty());
}

#[test]
fn every_entry_is_closed_exactly_once_under_end_close_and_use() {
    let (rounds, per_thread) = if cfg!(miri) { (2, 4) } else { (200, 40) };
    for _ in 0..rounds {
        let (table, session) = (table(10_000), session(1));
        let handles: Mutex<Vec<Handle>> = Mutex::default();
        let number = AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..per_thread {
                        match table.reserve(&session) {
                            Ok(room) => {
                                let entry = Numbered(number.fetch_add(1, Ordering::Relaxed), Kind::File);
                                if let Ok(handle) = room.fill(entry) {
                                    handles.lock().unwrap().push(handle);
                                }
                            }
                            Err(error) => assert_eq!(error, Error::SessionEnded),
                        }
                    }
                });
            }
            scope.spawn(|| {
                for _ in 0..per_thread {
                    let handle = handles.lock().unwrap().last().copied();
                    if let Some(handle) = handle {
                        let pinned = table.get(&session, handle);
                        let _ = table.close(&session, handle);
                        drop(pinned);
                    }
                }
            });
            scope.spawn(|| {
                std::thread::yield_now();
                table.end_session(&session);
            });
        });
        let closes = closes(&table);
        assert_eq!(closes.len(), number.load(Ordering::Relaxed) as usize);
        assert!(closes.values().all(|count| *count == 1));
        assert!(table.is_empty());
        assert_eq!(table.handles_of(&session), 0);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Insert(bool),
    Close(prop::sample::Index, bool),
    Get(prop::sample::Index, bool),
    MadeUp(u64),
    End,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any::<bool>().prop_map(Step::Insert),
        4 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(i, s)| Step::Close(i, s)),
        4 => (any::<prop::sample::Index>(), any::<bool>()).prop_map(|(i, s)| Step::Get(i, s)),
        1 => any::<u64>().prop_map(Step::MadeUp),
        1 => Just(Step::End),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 3 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]

    /// The table does what a map from handles to (session, number) does.
    #[test]
    fn table_agrees_with_a_map(steps in prop::collection::vec(step(), 0..if cfg!(miri) { 30 } else { 200 })) {
        let table = table(50);
        let mut sessions = [session(1), session(2)];
        let mut live: HashMap<Handle, (SessionId, u32)> = HashMap::new();
        let mut ever: Vec<Handle> = Vec::new();
        let mut next = 0;
        for step in steps {
            match step {
                Step::Insert(which) => match insert(&table, &sessions[usize::from(which)], next) {
                    Ok(handle) => {
                        prop_assert!(!ever.contains(&handle), "a handle was given out twice");
                        ever.push(handle);
                        live.insert(handle, (sessions[usize::from(which)].id(), next));
                        next += 1;
                    }
                    Err(error) => {
                        prop_assert_eq!(error, Error::TooManyHandles);
                        prop_assert_eq!(live.len(), 50);
                    }
                },
                Step::Close(index, which) | Step::Get(index, which) if !ever.is_empty() => {
                    let handle = *index.get(&ever);
                    let session = &sessions[usize::from(which)];
                    let expected = match live.get(&handle) {
                        None => Err(Error::HandleClosed),
                        Some((owner, _)) if *owner != session.id() => Err(Error::HandleOfOtherSession),
                        Some((_, number)) => Ok(*number),
                    };
                    prop_assert_eq!(table.get(session, handle).map(|pinned| pinned.0), expected);
                    if matches!(step, Step::Close(..)) {
                        prop_assert_eq!(table.close(session, handle), expected.map(|_| ()));
                        if expected.is_ok() {
                            live.remove(&handle);
                        }
                    }
                }
                Step::Close(..) | Step::Get(..) => {}
                Step::MadeUp(raw) => {
                    if let Ok(handle) = Handle::from_raw(raw) {
                        prop_assert!(live.contains_key(&handle) || table.get(&sessions[0], handle).is_err());
                    }
                }
                Step::End => {
                    let ended = sessions[0].id();
                    let had = live.values().filter(|(owner, _)| *owner == ended).count();
                    prop_assert_eq!(table.end_session(&sessions[0]), had);
                    live.retain(|_, (owner, _)| *owner != ended);
                    sessions[0] = session(ended.0 + 2);
                }
            }
            prop_assert_eq!(table.len() as usize, live.len());
        }
        let closes = closes(&table);
        prop_assert!(closes.values().all(|count| *count == 1));
        prop_assert_eq!(closes.len() + live.len(), next as usize);
    }
}
