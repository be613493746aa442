//! Revocation: what the owner is told, what the administrator is told, and that every entry is closed once whoever is faster.

use std::collections::HashMap;
use std::sync::Mutex;
use std::vec::Vec;

use proptest::prelude::*;

use crate::testing::NoIrql;
use crate::{
    Closed, Entry, EntryIds, Error, Handle, HandleKey, HandleTable, Kind, Reaper, Session, SessionId, SessionLimits,
    Shared,
};

struct Numbered(u32);

impl Entry for Numbered {
    fn kind(&self) -> Kind {
        Kind::File
    }
}

/// How often each entry was closed.
#[derive(Default)]
struct Counter(Mutex<HashMap<u32, u32>>);

impl Reaper<Numbered> for Counter {
    fn can_close_here(&self) -> bool {
        true
    }

    fn schedule_drain(&self) {}

    fn close(&self, closed: Closed<'_, Numbered>) {
        *self.0.lock().unwrap().entry(closed.entry.0).or_default() += 1;
    }
}

type Table = HandleTable<Numbered, Counter, NoIrql>;

const IDS: EntryIds = EntryIds::new(HandleKey::new([9, 9, 9, 9]));

fn table() -> Table {
    HandleTable::new(HandleKey::new([1, 2, 3, 4]), 10_000, Counter::default())
}

fn session(id: u64) -> Shared<Session> {
    let limits = SessionLimits { handles: 5_000, bytes: 0, jobs: 0 };
    Session::try_new(SessionId(id), 4, &limits).unwrap()
}

fn insert(table: &Table, session: &Shared<Session>, number: u32) -> Handle {
    table.reserve(session).unwrap().fill(Numbered(number)).unwrap()
}

/// What an administrator does: find by number, revoke.
fn revoke(table: &Table, id: u64) -> Result<(), Error> {
    IDS.find(table, id).ok_or(Error::HandleNotFound)?.revoke()
}

fn closes_of(table: &Table, number: u32) -> u32 {
    table.reaper().0.lock().unwrap().get(&number).copied().unwrap_or(0)
}

#[test]
fn owner_of_a_revoked_handle_is_told_so_until_it_closes_it() {
    let (table, owner, other) = (table(), session(1), session(2));
    let handle = insert(&table, &owner, 7);
    let id = IDS.id(handle);
    assert_eq!(revoke(&table, id), Ok(()));
    assert_eq!(closes_of(&table, 7), 1, "nobody used it, so it is closed at once");
    assert_eq!(revoke(&table, id), Err(Error::HandleNotFound), "there is nothing left to revoke");
    for _ in 0..2 {
        assert_eq!(table.get(&owner, handle).unwrap_err(), Error::HandleRevoked);
    }
    assert_eq!(table.get(&other, handle).unwrap_err(), Error::HandleClosed, "it is nobody else's business");
    assert_eq!((owner.revoked(), table.handles_of(&owner)), (1, 0));
    assert_eq!(table.close(&owner, handle), Err(Error::HandleRevoked));
    assert_eq!(table.close(&owner, handle), Err(Error::HandleClosed));
    assert_eq!(table.get(&owner, handle).unwrap_err(), Error::HandleClosed);
    assert_eq!(owner.revoked(), 0);
}

#[test]
fn what_uses_a_handle_goes_on_when_it_is_revoked() {
    let (table, owner) = (table(), session(1));
    let handle = insert(&table, &owner, 7);
    let in_use = table.get(&owner, handle).unwrap();
    assert_eq!(revoke(&table, IDS.id(handle)), Ok(()));
    assert_eq!(table.get(&owner, handle).unwrap_err(), Error::HandleRevoked, "but nobody comes in any more");
    assert_eq!((in_use.0, closes_of(&table, 7)), (7, 0));
    assert_eq!(IDS.find(&table, IDS.id(handle)).map(|pinned| pinned.0), None);
    drop(in_use);
    assert_eq!(closes_of(&table, 7), 1);
}

#[test]
fn the_next_entry_of_a_slot_has_another_number() {
    let (table, owner) = (table(), session(1));
    let mut ids = std::collections::HashSet::new();
    for number in 0..100 {
        let handle = insert(&table, &owner, number);
        let id = IDS.id(handle);
        assert!(ids.insert(id));
        assert_eq!(IDS.find(&table, id).unwrap().handle(), handle);
        table.close(&owner, handle).unwrap();
        assert!(IDS.find(&table, id).is_none());
    }
    insert(&table, &owner, 100);
    assert!(ids.iter().all(|id| IDS.find(&table, *id).is_none()), "old numbers find nothing new");
    for forged in [0, 1, u64::MAX, u64::from(u32::MAX), 0x3F << 26, 1 << 63] {
        assert!(IDS.find(&table, forged).is_none());
    }
}

#[test]
fn revocation_and_end_of_the_session_close_once() {
    let (table, owner) = (table(), session(1));
    let handle = insert(&table, &owner, 7);
    let found = IDS.find(&table, IDS.id(handle)).unwrap();
    assert_eq!(table.end_session(&owner), 1);
    assert_eq!(found.revoke(), Err(Error::HandleClosed));
    assert_eq!((closes_of(&table, 7), owner.revoked()), (1, 0), "who lost leaves no record");
}

#[test]
fn everybody_closes_and_revokes_at_once_and_every_entry_is_closed_once() {
    let rounds = if cfg!(miri) { 2 } else { 100 };
    for _ in 0..rounds {
        let (table, owner) = (table(), session(1));
        let handles: Vec<_> = (0..20).map(|number| insert(&table, &owner, number)).collect();
        let won = Mutex::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let revoked = handles.iter().filter(|handle| revoke(&table, IDS.id(**handle)).is_ok()).count();
                    *won.lock().unwrap() += revoked;
                });
            }
            scope.spawn(|| {
                for handle in handles.iter().rev() {
                    match table.get(&owner, *handle).map(|pinned| pinned.0) {
                        Ok(number) => assert_eq!(*handle, handles[number as usize]),
                        Err(error) => assert!(matches!(error, Error::HandleRevoked | Error::HandleClosed), "{error:?}"),
                    }
                    let closed = usize::from(table.close(&owner, *handle).is_ok());
                    *won.lock().unwrap() += closed;
                }
            });
            scope.spawn(|| {
                std::thread::yield_now();
                *won.lock().unwrap() += table.end_session(&owner);
            });
        });
        assert_eq!(*won.lock().unwrap(), handles.len());
        assert!((0..20).all(|number| closes_of(&table, number) == 1));
        assert!(table.is_empty());
        assert_eq!(table.handles_of(&owner), 0);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Insert(bool),
    Close(prop::sample::Index),
    Get(prop::sample::Index),
    Revoke(prop::sample::Index),
    RevokeSession(bool),
    Disconnect(bool),
    Forge(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        8 => any::<bool>().prop_map(Step::Insert),
        4 => index().prop_map(Step::Close),
        4 => index().prop_map(Step::Get),
        4 => index().prop_map(Step::Revoke),
        1 => any::<bool>().prop_map(Step::RevokeSession),
        1 => any::<bool>().prop_map(Step::Disconnect),
        1 => any::<u64>().prop_map(Step::Forge),
    ]
}

/// What became of a handle, in the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open(u32),
    Revoked,
    Closed,
}

impl Fate {
    fn of_get(self) -> Result<u32, Error> {
        match self {
            Self::Open(number) => Ok(number),
            Self::Revoked => Err(Error::HandleRevoked),
            Self::Closed => Err(Error::HandleClosed),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 1 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]

    /// The table with revocations does what a map from handles to fates does.
    #[test]
    fn table_with_revocations_agrees_with_a_map(steps in prop::collection::vec(step(), 0..if cfg!(miri) { 12 } else { 200 })) {
        let table = table();
        let mut sessions = [session(1), session(2)];
        let mut fates: HashMap<Handle, (SessionId, Fate)> = HashMap::new();
        let mut ever: Vec<(Handle, Shared<Session>)> = Vec::new();
        let mut next = 0;
        for step in steps {
            match step {
                Step::Insert(which) => {
                    let session = &sessions[usize::from(which)];
                    let handle = insert(&table, session, next);
                    prop_assert!(fates.insert(handle, (session.id(), Fate::Open(next))).is_none());
                    ever.push((handle, session.clone()));
                    next += 1;
                }
                Step::Close(index) | Step::Get(index) | Step::Revoke(index) if !ever.is_empty() => {
                    let (handle, owner) = index.get(&ever);
                    let (_, fate) = fates.get_mut(handle).unwrap();
                    match step {
                        Step::Get(_) => {
                            prop_assert_eq!(table.get(owner, *handle).map(|pinned| pinned.0), fate.of_get());
                        }
                        Step::Close(_) => {
                            prop_assert_eq!(table.close(owner, *handle), fate.of_get().map(drop));
                            *fate = Fate::Closed;
                        }
                        _ => {
                            let open = matches!(fate, Fate::Open(_));
                            prop_assert_eq!(revoke(&table, IDS.id(*handle)), if open { Ok(()) } else { Err(Error::HandleNotFound) });
                            *fate = if open { Fate::Revoked } else { *fate };
                        }
                    }
                }
                Step::Close(_) | Step::Get(_) | Step::Revoke(_) => {}
                Step::RevokeSession(which) => {
                    let session = &sessions[usize::from(which)];
                    let revoked = table.iter().filter(|pinned| pinned.session().id() == session.id());
                    let revoked = revoked.map(|pinned| pinned.revoke().unwrap()).count();
                    let mine = fates.values_mut().filter(|(owner, fate)| *owner == session.id() && matches!(fate, Fate::Open(_)));
                    prop_assert_eq!(mine.map(|(_, fate)| *fate = Fate::Revoked).count(), revoked);
                }
                Step::Disconnect(which) => {
                    let ended = sessions[usize::from(which)].id();
                    let closed = table.end_session(&sessions[usize::from(which)]);
                    let mine = fates.values_mut().filter(|(owner, fate)| *owner == ended && matches!(fate, Fate::Open(_)));
                    prop_assert_eq!(mine.map(|(_, fate)| *fate = Fate::Closed).count(), closed);
                    sessions[usize::from(which)] = session(ended.0 + 2);
                }
                Step::Forge(raw) => {
                    let real = ever.iter().any(|(handle, _)| IDS.id(*handle) == raw);
                    prop_assert!(real || revoke(&table, raw) == Err(Error::HandleNotFound));
                }
            }
            let open = fates.values().filter(|(_, fate)| matches!(fate, Fate::Open(_))).count();
            prop_assert_eq!(table.len() as usize, open);
            for session in &sessions {
                let revoked = fates.values().filter(|(owner, fate)| *owner == session.id() && *fate == Fate::Revoked);
                prop_assert_eq!(session.revoked() as usize, revoked.count());
            }
        }
        table.close_all();
        prop_assert!((0..next).all(|number| closes_of(&table, number) == 1));
    }
}
