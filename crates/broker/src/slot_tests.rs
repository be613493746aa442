//! The state word: step by step, and all of it.

#![expect(unsafe_code, reason = "the tests are the slot's only users, and say so at each step")]

use std::collections::HashSet;
use std::vec::Vec;

use super::*;
use crate::HandleKey;
use crate::slab::LAST_GENERATION;

fn publish(slot: &Slot<u32>, check: u32) {
    // SAFETY: [slot/free] the test owns the slot.
    unsafe { slot.publish(check, check) };
}

#[test]
fn stale_and_early_pins_fail_and_leave_no_trace() {
    let slot = Slot::new();
    assert_eq!(slot.pin(0), Err((Missed::Stale, Unpinned::Kept)));
    publish(&slot, 7);
    assert_eq!(slot.pin(8), Err((Missed::Stale, Unpinned::Kept)));
    assert_eq!(slot.pins(), 0);
    assert_eq!(slot.pin(7), Ok(()));
    assert_eq!(slot.unpin(), Unpinned::Kept);
}

#[test]
fn close_has_one_winner_and_the_last_pin_claims() {
    let slot = Slot::new();
    publish(&slot, 7);
    slot.pin(7).unwrap();
    slot.pin(7).unwrap();
    assert!(slot.begin_close());
    assert!(!slot.begin_close());
    assert_eq!(slot.pin(7), Err((Missed::Closing, Unpinned::Kept)));
    assert_eq!(slot.unpin(), Unpinned::Kept);
    assert_eq!(slot.unpin(), Unpinned::Claimed(7));
    // In `Reaping`, a late comer neither gets the entry nor claims it again.
    assert_eq!(slot.pin(7), Err((Missed::Stale, Unpinned::Kept)));
    // SAFETY: [slot/claimed] claimed two lines above.
    assert_eq!(unsafe { slot.take() }, 7);
    assert_eq!(slot.pin(7), Err((Missed::Stale, Unpinned::Kept)));
}

#[test]
fn close_by_the_only_user_claims_at_once_and_else_leaves_it_to_the_last() {
    let slot = Slot::new();
    publish(&slot, 7);
    slot.pin(7).unwrap();
    slot.pin(7).unwrap();
    assert_eq!(slot.close_unpin(7), (true, Unpinned::Kept));
    assert_eq!(slot.close_unpin(7), (false, Unpinned::Claimed(7)));
    // SAFETY: [slot/claimed] claimed in the line above.
    assert_eq!(unsafe { slot.take() }, 7);
    publish(&slot, 8);
    slot.pin(8).unwrap();
    assert_eq!(slot.close_unpin(8), (true, Unpinned::Claimed(8)));
    // SAFETY: [slot/claimed] claimed in the line above.
    assert_eq!(unsafe { slot.take() }, 8);
}

#[test]
fn pin_of_a_stale_handle_survives_reuse_and_can_be_the_one_that_claims() {
    let slot = Slot::new();
    // A thread with a stale handle has added its pin and not yet looked.
    slot.state.fetch_add(PIN, Ordering::Relaxed);
    publish(&slot, 9);
    slot.pin(9).unwrap();
    assert!(slot.begin_close());
    assert_eq!(slot.unpin(), Unpinned::Kept);
    assert_eq!(slot.unpin(), Unpinned::Claimed(9));
    // SAFETY: [slot/claimed] claimed above.
    assert_eq!(unsafe { slot.take() }, 9);
    assert_eq!(slot.state.load(Ordering::Relaxed), 0);
}

#[test]
fn absurd_numbers_of_pins_are_refused() {
    let slot = Slot::new();
    publish(&slot, 1);
    slot.state.fetch_add(MANY_PINS, Ordering::Relaxed);
    assert_eq!(slot.pin(1), Err((Missed::Busy, Unpinned::Kept)));
    slot.state.fetch_sub(MANY_PINS, Ordering::Relaxed);
    assert_eq!(slot.pin(1), Ok(()));
}

/// What the word should say, kept apart from it: who is at the slot, and what they were promised.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Model {
    generation: u32,
    phase: Phase,
    /// Pins that may use the entry.
    good: u64,
    /// Pins of stale handles, which have been added and will be taken off.
    stale: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    Free,
    Live,
    Closing,
    /// Claimed, the entry not taken out yet.
    Reaping,
}

const KEY: HandleKey = HandleKey::new([3, 1, 4, 1]);
const FIRST_GENERATION: u32 = LAST_GENERATION - 2;

impl Model {
    fn check(generation: u32) -> u32 {
        KEY.check(5, generation)
    }

    fn word(&self) -> u64 {
        let pins = self.good + self.stale;
        match self.phase {
            Phase::Free | Phase::Reaping => pins,
            Phase::Live => super::live(Self::check(self.generation)) | pins,
            Phase::Closing => super::live(Self::check(self.generation)) | CLOSING | pins,
        }
    }

    /// A slot in this state.
    fn slot(&self) -> Slot<u32> {
        let slot = Slot::new();
        if self.phase != Phase::Free {
            publish(&slot, self.generation);
        }
        slot.state.store(self.word(), Ordering::Relaxed);
        slot
    }

    /// After a pin has gone: what `unpin` has to say.
    fn settle(mut self, said: Unpinned) -> Self {
        let last = self.phase == Phase::Closing && self.good + self.stale == 0;
        let expected = if last { Unpinned::Claimed(Self::check(self.generation)) } else { Unpinned::Kept };
        assert_eq!(said, expected, "{self:?}");
        if last {
            self.phase = Phase::Reaping;
        }
        self
    }

    /// Does everything that anybody could do next, each on a slot of its own, and returns where that leads.
    fn next(&self) -> Vec<Self> {
        let mut reached = Vec::new();
        let mut arrive = |slot: Slot<u32>, model: Self| {
            assert_eq!(slot.state.load(Ordering::Relaxed), model.word(), "from {self:?} to {model:?}");
            // What is left of the test's entry is a number.
            slot.state.store(0, Ordering::Relaxed);
            reached.push(model);
        };
        if self.phase == Phase::Free && self.generation < LAST_GENERATION {
            let (slot, generation) = (self.slot(), self.generation + 1);
            // SAFETY: [slot/free] the test owns the slot, and the model says that it is free.
            unsafe { slot.publish(Self::check(generation), generation) };
            arrive(slot, Self { generation, phase: Phase::Live, ..self.clone() });
        }
        if self.phase == Phase::Reaping {
            let slot = self.slot();
            // SAFETY: [slot/claimed] the model says so, and takes once.
            assert_eq!(unsafe { slot.take() }, self.generation);
            arrive(slot, Self { phase: Phase::Free, ..self.clone() });
        }
        // The handles of all generations there have been, the first one again after the last one included.
        for generation in FIRST_GENERATION..=LAST_GENERATION {
            let (slot, current) = (self.slot(), generation == self.generation);
            match slot.pin(Self::check(generation)) {
                Ok(()) => {
                    assert!(current && self.phase == Phase::Live, "a pin is good that should not be: {self:?}");
                    arrive(slot, Self { good: self.good + 1, ..self.clone() });
                }
                Err((why, unpinned)) => {
                    assert!(!current || self.phase != Phase::Live, "a pin is no good that should be: {self:?}");
                    assert_eq!(why == Missed::Closing, current && self.phase == Phase::Closing);
                    arrive(slot, self.clone().settle(unpinned));
                }
            }
        }
        // The two steps of a failing pin, with whatever others do between them.
        let slot = self.slot();
        slot.state.fetch_add(PIN, Ordering::Relaxed);
        arrive(slot, Self { stale: self.stale + 1, ..self.clone() });
        if self.stale > 0 {
            let slot = self.slot();
            let said = slot.unpin();
            arrive(slot, Self { stale: self.stale - 1, ..self.clone() }.settle(said));
        }
        if self.good > 0 {
            let slot = self.slot();
            let said = slot.unpin();
            arrive(slot, Self { good: self.good - 1, ..self.clone() }.settle(said));
            let slot = self.slot();
            assert_eq!(slot.begin_close(), self.phase == Phase::Live);
            arrive(slot, Self { phase: Phase::Closing, ..self.clone() });
            let slot = self.slot();
            let (won, said) = slot.close_unpin(Self::check(self.generation));
            assert_eq!(won, self.phase == Phase::Live);
            let closed = Self { phase: Phase::Closing, good: self.good - 1, ..self.clone() };
            arrive(slot, closed.settle(said));
        }
        reached
    }
}

#[test]
fn every_word_that_three_threads_can_reach_up_to_the_last_generation_is_as_the_model_says() {
    let start = Model { generation: FIRST_GENERATION - 1, phase: Phase::Free, good: 0, stale: 0 };
    let mut seen = HashSet::from([start.clone()]);
    let mut open = Vec::from([start]);
    while let Some(model) = open.pop() {
        for next in model.next() {
            if next.good + next.stale <= 3 && seen.insert(next.clone()) {
                open.push(next);
            }
        }
    }
    // Three generations with up to three pins: good ones in Live and Closing, stale ones in every phase.
    assert!(seen.iter().any(|model| model.generation == LAST_GENERATION && model.phase == Phase::Reaping));
    assert!(seen.len() > 80, "{} states", seen.len());
}
