//! The state word: step by step, and all of it.

#![expect(unsafe_code, reason = "the tests are the slot's only users, and say so at each step")]

use std::collections::HashSet;
use std::vec::Vec;

use super::*;
use crate::slab::LAST_GENERATION;
use crate::testing::{NoIrql, OwnLanes, session};
use crate::{Handle, HandleKey, Kind};

fn word(check: u32) -> u64 {
    Handle::new(check, Kind::File, 5).word()
}

fn publish(slot: &Slot<u32>, check: u32, owner: &Shared<Session>) {
    let ticket = Ticket::charge(owner).unwrap();
    // SAFETY: [slot/free] the test owns the slot.
    unsafe { slot.publish::<NoIrql>(word(check), ticket, check) };
}

/// What the test has for the check of a generation.
fn next(generation: u32) -> u32 {
    generation
}

fn nobody_is_left(_: Users) -> bool {
    false
}

#[test]
fn look_finds_the_entry_of_its_word_only_and_adds_the_lane_to_the_users() {
    let (slot, owner) = (Slot::new(), session(1));
    assert_eq!(slot.look(word(7), 0), Err(Missed::Stale));
    publish(&slot, 7, &owner);
    assert_eq!(slot.look(word(8), 0), Err(Missed::Stale));
    assert_eq!(slot.look(Handle::new(7, Kind::Image, 5).word(), 0), Err(Missed::OtherKind));
    assert_eq!(slot.pins(), (0, Users::Nobody));
    assert_eq!((slot.look(word(7), 3), slot.pins()), (Ok(()), (0, Users::Lane(3))));
    assert_eq!((slot.look(word(7), 3), slot.pins()), (Ok(()), (0, Users::Lane(3))));
    assert_eq!((slot.look(word(7), 0), slot.pins()), (Ok(()), (0, Users::Several)));
    assert_eq!((slot.look(word(7), 1), slot.pins()), (Ok(()), (0, Users::Several)));
}

#[test]
fn close_of_an_unused_entry_is_one_step_and_of_others_has_one_winner() {
    let (slot, owner) = (Slot::new(), session(1));
    publish(&slot, 7, &owner);
    assert_eq!(slot.begin_close::<NoIrql>(word(7), &next, Some(&session(2)), Some(0)), Err(Missed::OtherSession));
    assert_eq!(slot.begin_close::<NoIrql>(word(7), &next, Some(&owner), Some(0)), Ok(Begun::Claimed));
    assert_eq!(slot.begin_close::<NoIrql>(word(7), &next, Some(&owner), Some(0)), Err(Missed::Stale));
    // SAFETY: [slot/claimed] claimed above.
    assert_eq!(unsafe { slot.take() }.0, 7);
    publish(&slot, 8, &owner);
    slot.look(word(8), 0).unwrap();
    assert_eq!(slot.begin_close::<OwnLanes>(word(8), &next, Some(&owner), Some(1)), Ok(Begun::Closing));
    assert_eq!(slot.begin_close::<OwnLanes>(word(8), &next, Some(&owner), Some(0)), Err(Missed::Closing));
    assert_eq!(slot.look(word(8), 0), Err(Missed::Closing));
    assert_eq!(slot.claim(&next, nobody_is_left), None, "not everybody can be seen yet");
    slot.drain();
    assert_eq!(slot.claim(&next, |users| users == Users::Lane(0)), None);
    assert_eq!(slot.claim(&next, nobody_is_left), Some(8));
    assert_eq!(slot.claim(&next, nobody_is_left), None, "claimed twice");
    // SAFETY: [slot/claimed] claimed above.
    assert_eq!(unsafe { slot.take() }.0, 8);
}

#[test]
fn counted_pins_keep_an_entry_and_absurd_numbers_of_them_are_refused() {
    let (slot, owner) = (Slot::new(), session(1));
    assert_eq!(slot.count(None), Err(Missed::Stale));
    publish(&slot, 7, &owner);
    assert_eq!(slot.count(Some(word(8))), Err(Missed::Stale));
    assert_eq!(slot.count(Some(word(7))), Ok(word(7)));
    assert_eq!(slot.count(None), Ok(word(7)));
    assert_eq!(slot.begin_close::<OwnLanes>(word(7), &next, None, None), Ok(Begun::Draining));
    assert_eq!((slot.count(Some(word(7))), slot.count(None)), (Err(Missed::Closing), Err(Missed::Stale)));
    assert_eq!((slot.uncount(), slot.claim(&next, nobody_is_left)), (false, None));
    assert_eq!((slot.uncount(), slot.claim(&next, nobody_is_left)), (true, Some(7)));
    // SAFETY: [slot/claimed] claimed above.
    assert_eq!(unsafe { slot.take() }.0, 7);
    publish(&slot, 8, &owner);
    slot.state.fetch_add(MANY_PINS, Ordering::Relaxed);
    assert_eq!(slot.count(Some(word(8))), Err(Missed::Busy));
    assert_eq!(slot.look(word(8), 0), Ok(()), "announced pins are not counted");
    slot.state.fetch_sub(MANY_PINS, Ordering::Relaxed);
    assert_eq!(slot.count(Some(word(8))), Ok(word(8)));
}

/// Does a step on a slot, and says which state it has to lead to.
type Go<'a> = &'a mut dyn FnMut(Model, &dyn Fn(&Slot<u32>));

/// What the word should say, kept apart from it: who is at the slot, and what they were promised.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Model {
    /// Whether closers order the others, by a pair of barriers.
    barriers: bool,
    generation: u32,
    phase: Phase,
    /// Lanes that had a good pin of this entry.
    users: [bool; 2],
    /// Counted pins.
    counted: u64,
    /// Announcements in each lane that may use the entry.
    good: [u64; 2],
    /// Announcements in each lane that may not, or that nobody has looked for yet.
    other: [u64; 2],
    /// Whether the closer has yet to look who is left.
    closer: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Free,
    Live,
    Closing,
    Draining,
    /// Claimed, the entry not taken out yet.
    Reaping,
}

const KEY: HandleKey = HandleKey::new([3, 1, 4, 1]);
const FIRST_GENERATION: u32 = LAST_GENERATION - 2;
const ALL_GENERATIONS: core::ops::RangeInclusive<u32> = FIRST_GENERATION..=LAST_GENERATION;

fn word_of(generation: u32) -> u64 {
    word(KEY.check(5, generation))
}

impl Model {
    fn word(&self) -> u64 {
        let users = match self.users {
            [false, false] => 0,
            [true, false] => users_of(0),
            [false, true] => users_of(1),
            [true, true] => SEVERAL,
        };
        let phase = match self.phase {
            Phase::Free if self.generation < FIRST_GENERATION => return 0,
            // The check of the next entry; after the last one that would be the first one's, but nobody is to use it.
            Phase::Free | Phase::Reaping => {
                return u64::from(KEY.check(5, self.generation.wrapping_add(1))) << CHECK_SHIFT;
            }
            Phase::Live => 0,
            Phase::Closing => CLOSING,
            Phase::Draining => CLOSING | DRAINING,
        };
        word_of(self.generation) | phase | users | self.counted
    }

    /// Does `step` on a slot in this state, and checks that it leads to where `model` says.
    fn try_step(&self, owner: &Shared<Session>, step: impl FnOnce(&Slot<u32>), model: &Self) {
        let slot = Slot::new();
        if self.phase != Phase::Free {
            publish(&slot, self.generation, owner);
        }
        slot.generation.store(self.generation, Ordering::Relaxed);
        slot.state.store(self.word(), Ordering::Relaxed);
        step(&slot);
        assert_eq!(slot.state.load(Ordering::Relaxed), model.word(), "from {self:?} to {model:?}");
        if model.phase == Phase::Reaping {
            // SAFETY: [slot/claimed] the model says so; the slot is not used again.
            drop(unsafe { slot.take() });
        }
    }

    /// Whether the entry can be claimed: nobody uses it, and nobody who does not use it is in the way.
    fn is_claimable(&self) -> bool {
        let in_the_way = |lane: usize| self.users[lane] && self.good[lane] + self.other[lane] > 0;
        self.phase == Phase::Draining && self.counted == 0 && !in_the_way(0) && !in_the_way(1)
    }

    /// What the slab tells who looks who is left.
    fn is_left(&self, users: Users) -> bool {
        let announced = |lane: usize| self.good[lane] + self.other[lane] > 0;
        match users {
            Users::Nobody => false,
            Users::Lane(lane) => announced(lane),
            Users::Several => announced(0) || announced(1),
        }
    }

    /// This state after somebody has looked who is left.
    fn looked(mut self) -> Self {
        if self.is_claimable() {
            assert_eq!((self.good, self.counted), ([0, 0], 0), "claimed under somebody's feet");
            self.phase = Phase::Reaping;
            self.users = [false, false];
        }
        self
    }

    fn claim(&self, slot: &Slot<u32>) {
        let claimed = slot.claim(&|generation| KEY.check(5, generation), |users| self.is_left(users));
        assert_eq!(claimed, self.is_claimable().then(|| KEY.check(5, self.generation)), "{self:?}");
    }

    /// Does everything that anybody could do next, each on a slot of its own, and returns where that leads.
    fn next(&self, owner: &Shared<Session>) -> Vec<Self> {
        let mut reached = Vec::new();
        let mut go = |model: Self, step: &dyn Fn(&Slot<u32>)| {
            self.try_step(owner, step, &model);
            reached.push(model);
        };
        if self.phase == Phase::Free && self.generation < LAST_GENERATION {
            let generation = self.generation + 1;
            let ticket = core::cell::Cell::new(Ticket::charge(owner).ok());
            go(Self { generation, phase: Phase::Live, ..self.clone() }, &|slot| {
                // SAFETY: [slot/free] the test owns the slot, and the model says that it is free.
                unsafe { slot.publish::<NoIrql>(word_of(generation), ticket.take().unwrap(), generation) };
            });
        }
        if self.phase == Phase::Reaping {
            let model = Self { phase: Phase::Free, ..self.clone() };
            // SAFETY: [slot/claimed] the model says so, and takes once.
            go(model, &|slot| assert_eq!(unsafe { slot.take() }.0, self.generation));
        }
        for lane in 0..2 {
            self.announce_and_leave(lane, &mut go);
        }
        self.count_and_leave(&mut go);
        self.close(&mut go);
        reached
    }

    fn announce_and_leave(&self, lane: usize, go: Go<'_>) {
        let mut announced = self.clone();
        announced.other[lane] += 1;
        go(announced, &|_| {});
        if self.other[lane] > 0 {
            // Handles of all generations there have been, the first one again after the last one included.
            for generation in ALL_GENERATIONS {
                let mut looked = self.clone();
                let expected = self.expected(generation);
                if expected.is_ok() {
                    looked.other[lane] -= 1;
                    looked.good[lane] += 1;
                    looked.users[lane] = true;
                }
                go(looked, &|slot| assert_eq!(slot.look(word_of(generation), lane), expected, "{self:?}"));
            }
        }
        for good in [false, true] {
            let mut left = self.clone();
            let announcements = if good { &mut left.good } else { &mut left.other };
            if announcements[lane] == 0 {
                continue;
            }
            announcements[lane] -= 1;
            go(left.clone().looked(), &|slot| {
                if slot.is_closing() {
                    left.claim(slot);
                }
            });
        }
    }

    fn count_and_leave(&self, go: Go<'_>) {
        for generation in ALL_GENERATIONS {
            let expected = self.expected(generation);
            let counted = self.counted + u64::from(expected.is_ok());
            go(Self { counted, ..self.clone() }, &|slot| {
                assert_eq!(slot.count(Some(word_of(generation))).map(drop), expected, "{self:?}");
            });
        }
        if self.counted > 0 {
            let left = Self { counted: self.counted - 1, ..self.clone() };
            go(left.clone().looked(), &|slot| {
                if slot.uncount() {
                    left.claim(slot);
                }
            });
        }
    }

    fn close(&self, go: Go<'_>) {
        for (generation, lane) in ALL_GENERATIONS.flat_map(|generation| [(generation, 0), (generation, 1)]) {
            let mut closed = self.clone();
            let expected = self.expected(generation).map(|()| {
                let alone = self.users == [false, false] || (self.users[lane] && !self.users[1 - lane]);
                if self.users == [false, false] && self.counted == 0 {
                    closed.phase = Phase::Reaping;
                    Begun::Claimed
                } else if alone || !self.barriers {
                    closed.phase = Phase::Draining;
                    closed.closer = true;
                    Begun::Draining
                } else {
                    closed.phase = Phase::Closing;
                    Begun::Closing
                }
            });
            go(closed, &|slot| {
                let begun = if self.barriers {
                    slot.begin_close::<OwnLanes>(
                        word_of(generation),
                        &|generation| KEY.check(5, generation),
                        None,
                        Some(lane),
                    )
                } else {
                    slot.begin_close::<NoIrql>(
                        word_of(generation),
                        &|generation| KEY.check(5, generation),
                        None,
                        Some(lane),
                    )
                };
                assert_eq!(begun, expected, "{self:?}");
            });
        }
        if self.phase == Phase::Closing {
            go(Self { phase: Phase::Draining, closer: true, ..self.clone() }, &|slot| slot.drain());
        }
        if self.closer {
            let looked = Self { closer: false, ..self.clone() };
            go(looked.clone().looked(), &|slot| {
                // Somebody else may have claimed the entry, and the slot may have another one by now.
                if matches!(self.phase, Phase::Draining | Phase::Reaping | Phase::Free) {
                    looked.claim(slot);
                }
            });
        }
    }

    fn expected(&self, generation: u32) -> Result<(), Missed> {
        match self.phase {
            Phase::Live if generation == self.generation => Ok(()),
            Phase::Closing | Phase::Draining if generation == self.generation => Err(Missed::Closing),
            _ => Err(Missed::Stale),
        }
    }

    /// An entry that is being closed is seen to by somebody: whoever is at the slot, or the closer.
    fn is_seen_to(&self) -> bool {
        self.phase != Phase::Draining || self.closer || !self.is_claimable()
    }
}

#[test]
#[cfg_attr(miri, ignore = "many steps of one thread; the steps themselves are in the tests above")]
fn every_word_that_three_pins_can_reach_up_to_the_last_generation_is_as_the_model_says() {
    let owner = session(1);
    for barriers in [false, true] {
        let start = Model {
            barriers,
            generation: FIRST_GENERATION - 1,
            phase: Phase::Free,
            users: [false, false],
            counted: 0,
            good: [0, 0],
            other: [0, 0],
            closer: false,
        };
        let mut seen = HashSet::from([start.clone()]);
        let mut open = Vec::from([start]);
        while let Some(model) = open.pop() {
            assert!(model.is_seen_to(), "nobody will ever claim {model:?}");
            for next in model.next(&owner) {
                let pins = next.counted + next.good.iter().sum::<u64>() + next.other.iter().sum::<u64>();
                if pins <= 3 && seen.insert(next.clone()) {
                    open.push(next);
                }
            }
        }
        assert!(seen.iter().any(|model| model.generation == LAST_GENERATION && model.phase == Phase::Reaping));
        assert_eq!(seen.iter().any(|model| model.phase == Phase::Closing), barriers);
        assert!(seen.len() > 1000, "{} states", seen.len());
    }
}
