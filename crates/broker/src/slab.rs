//! Slots under lists, and the values that prove what may be done with a slot.
//!
//! A slot may be filled by whoever took it off the free list and emptied by whoever claimed it. Neither can be told from the
//! slot, so both are values here: [`Vacant`], [`Claimed`] and, for readers, [`Pin`]. Only this module makes them,
//! one for each right, and none can be copied; with them the handle table needs no unsafe code.

#![expect(unsafe_code, reason = "turns the rights to a slot into values, and uses them")]

use core::marker::PhantomData;
use core::mem::ManuallyDrop;

use crate::atomics::{AtomicU32, Ordering, fence};
use crate::lanes::{Lane, order_everybody, own_number, withdraw};
use crate::segments::{MAX_SLOTS, Segments};
use crate::slot::{Begun, Missed, Slot, Users};
use crate::tickets::{Credit, Ticket, Tickets};
use crate::vacancies::{Full, NONE, Vacancies};
use crate::{Error, LockContext, Session, Shared};

/// All slots, in whichever state.
pub(crate) struct Slab<T, C: LockContext> {
    max_used: u32,
    segments: Segments<T>,
    vacancies: Vacancies<C>,
    /// The first slot's link of those in `Reaping` that wait for [`take_deferred`](Slab::take_deferred).
    deferred: AtomicU32,
}

/// After so many entries a slot is retired: its next check would be one it has had before.
pub(crate) const LAST_GENERATION: u32 = u32::MAX;

/// The right to fill a slot, which is `Free` and on no list. Has to be filled or given back.
pub(crate) struct Vacant<'a, T> {
    /// As wide as a register: written as half of one and read as a whole, it would wait for the store.
    number: u64,
    slot: &'a Slot<T>,
    ticket: Ticket,
}

/// The right to empty a slot, which is `Reaping`. Has to be emptied or deferred.
pub(crate) struct Claimed<'a, T> {
    number: u32,
    check: u32,
    slot: &'a Slot<T>,
}

/// The right to look at a slot's value. Dropping the last one of a value that is being closed claims it.
///
/// Stays with its thread, since the lane does where there are barriers.
pub(crate) struct Pin<'a, T, C: LockContext, O: OnClaim<T, C>> {
    number: u32,
    slot: &'a Slot<T>,
    owner: &'a O,
    /// Where the pin is announced; without one it is counted.
    place: Option<&'a AtomicU32>,
    thread: PhantomData<(*mut (), C)>,
}

/// Whom a pin's drop tells when it has claimed the value.
pub(crate) trait OnClaim<T, C: LockContext> {
    /// The slab that the owner is the owner of.
    fn slab(&self) -> &Slab<T, C>;

    /// The check of a slot's value in `generation`.
    fn check(&self, number: u32, generation: u32) -> u32;

    /// Sees to a value that has been claimed.
    fn on_claim(&self, claimed: Claimed<'_, T>);
}

impl<T, C: LockContext> Slab<T, C> {
    /// No slots yet. At most `max_used` will be in use at a time.
    pub(crate) fn new(max_used: u32) -> Self {
        Self {
            max_used: max_used.min(MAX_SLOTS),
            segments: Segments::new(),
            vacancies: Vacancies::new(),
            deferred: AtomicU32::new(NONE),
        }
    }

    /// Takes a free slot, or makes new ones, and charges `session` for it. May allocate, but not under a lock.
    ///
    /// [`Error::SessionHandles`], [`Error::TooManyHandles`] (`STATUS_TOO_MANY_OPENED_FILES`), [`Error::OutOfMemory`]
    /// (`STATUS_INSUFFICIENT_RESOURCES`).
    #[inline]
    pub(crate) fn vacant(&self, session: &Shared<Session>) -> Result<Vacant<'_, T>, Error> {
        let (ticket, slot) = match self.vacancies.lock() {
            Some(shelf) => (shelf.credit.take(session), Vacancies::<C>::pop(&self.segments, &shelf)),
            None => (None, None),
        };
        match (ticket, slot) {
            (Some(ticket), Some((number, slot))) => Ok(Vacant::new(number, slot, ticket)),
            (ticket, slot) => self.find_vacant(session, ticket, slot),
        }
    }

    /// Puts a slot on the free list; or, with its generations used up, nowhere: it is `Retired` then. The ticket is kept for the
    /// session's next entry where `keep` says, under the lock, that there may be one.
    #[inline]
    pub(crate) fn give_back(&self, vacant: Vacant<'_, T>, keep: impl FnOnce(&Session) -> bool) {
        let number = vacant.number();
        let Vacant { slot, ticket, .. } = vacant;
        // Dropped after the lock is.
        let _superfluous: Option<Tickets>;
        if let Some(shelf) = self.vacancies.lock() {
            if slot.generation.load(Ordering::Relaxed) == LAST_GENERATION {
                self.vacancies.retire(&shelf);
            } else {
                Vacancies::<C>::push(&shelf, number, slot);
            }
            let may_stay = keep(&ticket.session());
            _superfluous = if may_stay { shelf.credit.put(ticket) } else { Some(ticket.into()) };
        }
    }

    /// Gives back the tickets of `session` that lie ready, or those of all sessions without one. What is put back by others at
    /// the same time may stay.
    #[cold]
    pub(crate) fn collect_tickets(&self, session: Option<&Shared<Session>>) {
        order_everybody::<C>();
        for lane in self.vacancies.lanes().iter() {
            // Whoever is at its shelf since before the order may still put one back; later ones know better.
            lane.wait_until_left();
            let credit = lane.credit();
            if session.map_or(credit.count() != 0, |session| credit.is_of(session)) {
                drop(visit(lane, session));
            }
        }
    }

    /// How many tickets of `session` lie ready, that is, are counted in its quota without being in use.
    pub(crate) fn tickets_ready(&self, session: &Shared<Session>) -> u64 {
        let ready = |credit: &Credit| if credit.is_of(session) { credit.count() } else { 0 };
        self.vacancies.lanes().iter().fold(0, |sum: u64, lane| sum.saturating_add(ready(lane.credit()).into()))
    }

    /// Pins the value that is found with this `word` in slot `number`, if it is of `session`.
    #[inline]
    pub(crate) fn pin<'a, O: OnClaim<T, C>>(
        &'a self,
        owner: &'a O,
        number: u32,
        word: u64,
        session: &Shared<Session>,
    ) -> Result<Pin<'a, T, C, O>, Missed> {
        let slot = self.segments.get(number).ok_or(Missed::Stale)?;
        let announced = own_number::<C>().and_then(|lane| {
            let place = self.vacancies.lanes().get(lane)?.announce(number)?;
            Some((place, lane))
        });
        let Some((place, lane)) = announced else {
            return self.pin_counted(owner, number, Some(word)).map(|(pin, _)| pin);
        };
        // From here on a pin, good or not: its drop withdraws the announcement, and sees to what that may lead to.
        let pin = Pin { number, slot, owner, place: Some(place), thread: PhantomData };
        slot.look(word, lane)?;
        if slot.is_of(session) { Ok(pin) } else { Err(Missed::OtherSession) }
    }

    /// Counts a pin of the value that is found with this `word` in slot `number`; without one, of whatever is live there. Also returns
    /// the word.
    #[cold]
    #[inline(never)]
    pub(crate) fn pin_counted<'a, O: OnClaim<T, C>>(
        &'a self,
        owner: &'a O,
        number: u32,
        word: Option<u64>,
    ) -> Result<(Pin<'a, T, C, O>, u64), Missed> {
        let slot = self.segments.get(number).ok_or(Missed::Stale)?;
        let word = slot.count(word)?;
        Ok((Pin { number, slot, owner, place: None, thread: PhantomData }, word))
    }

    /// Closes the value that is found with this `word` in slot `number`, if it is of `session`.
    #[inline]
    pub(crate) fn close<O: OnClaim<T, C>>(
        &self,
        owner: &O,
        number: u32,
        word: u64,
        session: &Shared<Session>,
    ) -> Result<(), Missed> {
        let slot = self.segments.get(number).ok_or(Missed::Stale)?;
        let check = |generation| owner.check(number, generation);
        let begun = slot.begin_close::<C>(word, &check, Some(session), own_number::<C>())?;
        if begun == Begun::Claimed {
            owner.on_claim(Claimed { number, check: (word >> 32) as u32, slot });
        } else {
            self.go_on(owner, number, slot, begun);
        }
        Ok(())
    }

    /// Puts a claimed slot onto a list until [`take_deferred`](Self::take_deferred). Needs no memory; lock-free.
    #[expect(clippy::needless_pass_by_value, reason = "uses up the right")]
    pub(crate) fn defer(&self, claimed: Claimed<'_, T>) {
        let Claimed { number, slot, check: _ } = claimed;
        let mut head = self.deferred.load(Ordering::Relaxed);
        loop {
            slot.link.store(head, Ordering::Relaxed);
            match self.deferred.compare_exchange_weak(head, number, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return,
                Err(now) => head = now,
            }
        }
    }

    /// All slots that were deferred up to now; `check` tells a value's check from its slot and its generation. The caller has to
    /// exhaust the iterator.
    pub(crate) fn take_deferred(&self, check: impl Fn(u32, u32) -> u32) -> impl Iterator<Item = Claimed<'_, T>> {
        // Taking the whole list at once leaves no half-popped element for others to trip over (no ABA).
        let mut link = self.deferred.swap(NONE, Ordering::Acquire);
        core::iter::from_fn(move || {
            let number = link;
            // No slot has the number that ends the list.
            let slot = self.segments.get(number)?;
            link = slot.link.load(Ordering::Relaxed);
            Some(Claimed { number, slot, check: check(number, slot.generation.load(Ordering::Relaxed)) })
        })
    }

    /// How many slots were ever used.
    pub(crate) fn end(&self) -> u32 {
        self.vacancies.end()
    }

    /// How many slots are neither free nor retired.
    pub(crate) fn used(&self) -> u32 {
        self.vacancies.used()
    }

    /// How many slots are `Retired`.
    pub(crate) fn retired(&self) -> u32 {
        self.vacancies.retired()
    }

    /// How many values slot `number` has had.
    pub(crate) fn generation(&self, number: u32) -> u32 {
        self.segments.get(number).map_or(0, |slot| slot.generation.load(Ordering::Relaxed))
    }

    #[cfg(all(test, not(loom)))]
    pub(crate) fn set_generation(&self, number: u32, generation: u32) {
        let slot = self.segments.get(number).unwrap();
        slot.generation.store(generation, Ordering::Relaxed);
        slot.forget_next_check();
    }

    /// What [`vacant`](Self::vacant) does where not both lay ready in the lane.
    #[cold]
    #[inline(never)]
    fn find_vacant<'a>(
        &'a self,
        session: &Shared<Session>,
        ticket: Option<Ticket>,
        slot: Option<(u32, &'a Slot<T>)>,
    ) -> Result<Vacant<'a, T>, Error> {
        let charged = ticket.map_or_else(|| Ticket::charge(session), Ok).or_else(|_| {
            // What other lanes keep ready is nobody's yet.
            self.collect_tickets(Some(session));
            Ticket::charge(session)
        });
        let ticket = match (charged, slot) {
            (Ok(ticket), Some((number, slot))) => return Ok(Vacant::new(number, slot, ticket)),
            (Ok(ticket), None) => ticket,
            (Err(error), slot) => {
                if let (Some((number, slot)), Some(shelf)) = (slot, self.vacancies.lock()) {
                    Vacancies::<C>::push(&shelf, number, slot);
                }
                return Err(error);
            }
        };
        loop {
            match self.vacancies.find(&self.segments, self.max_used) {
                Ok((number, slot)) => return Ok(Vacant::new(number, slot, ticket)),
                Err(Full::Limit) => return Err(Error::TooManyHandles),
                Err(Full::Slots(number)) => match Segments::prepare(number) {
                    // What comes back is a segment that another thread was faster to install; this one frees it.
                    Ok(spare) => drop(self.segments.install(spare)),
                    Err(error) => {
                        let (number, slot) = self.vacancies.take_over(&self.segments, 1).ok_or(error)?;
                        return Ok(Vacant::new(number, slot, ticket));
                    }
                },
            }
        }
    }

    /// What [`close`](Self::close) does where somebody has used the value.
    #[inline(never)]
    fn go_on(&self, owner: &impl OnClaim<T, C>, number: u32, slot: &Slot<T>, begun: Begun) {
        let_all_see::<T, C>(slot, begun);
        self.look_who_is_left(owner, number, slot);
    }

    /// Claims the value in slot `number` if it is being closed and nobody is left who uses it.
    #[cold]
    #[inline(never)]
    fn look_who_is_left(&self, owner: &impl OnClaim<T, C>, number: u32, slot: &Slot<T>) {
        if C::BARRIERS.is_some() {
            // Between what this thread wrote last (the mark, or its leaving) and what it reads here: others look as well.
            fence(Ordering::SeqCst);
        }
        let lanes = self.vacancies.lanes();
        let check = |generation| owner.check(number, generation);
        let claimed = slot.claim(&check, |users| match users {
            Users::Nobody => false,
            Users::Lane(lane) => lanes.get(lane).is_some_and(|lane| lane.announcements(number) != 0),
            Users::Several => lanes.iter().any(|lane| lane.announcements(number) != 0),
        });
        if let Some(check) = claimed {
            owner.on_claim(Claimed { number, check, slot });
        }
    }
}

/// Takes a lane's tickets, if they are of `session` where there is one.
fn visit<C: LockContext>(lane: &Lane<C>, session: Option<&Shared<Session>>) -> Option<Tickets> {
    let shelf = lane.lock_as_visitor();
    if session.is_none_or(|session| shelf.credit.is_of(session)) { shelf.credit.take_all() } else { None }
}

/// Takes a close that has begun to where who is left can be seen.
fn let_all_see<T, C: LockContext>(slot: &Slot<T>, begun: Begun) {
    if begun == Begun::Closing {
        order_everybody::<C>();
        slot.drain();
    }
}

impl<T, C: LockContext> Drop for Slab<T, C> {
    fn drop(&mut self) {
        // Slots drop the values that are in them, except those that were claimed.
        self.take_deferred(|_, _| 0).for_each(|claimed| drop(claimed.take()));
    }
}

impl<'a, T> Vacant<'a, T> {
    #[inline]
    const fn new(number: u32, slot: &'a Slot<T>, ticket: Ticket) -> Self {
        Self { number: number as u64, slot, ticket }
    }

    #[inline]
    pub(crate) const fn number(&self) -> u32 {
        self.number as u32
    }

    /// The session that is charged for it.
    #[inline]
    pub(crate) fn session(&self) -> ManuallyDrop<Shared<Session>> {
        self.ticket.session()
    }

    /// Counts the value that is about to be published, and returns its check, which `check` tells where nobody knows it yet.
    #[inline]
    pub(crate) fn next_check(&mut self, check: impl FnOnce(u32) -> u32) -> u32 {
        // Never beyond the last: a slot that has had it is not vacant again.
        let generation = self.slot.generation.load(Ordering::Relaxed).saturating_add(1);
        self.slot.generation.store(generation, Ordering::Relaxed);
        match self.slot.next_check() {
            0 => check(generation),
            known => known,
        }
    }

    /// Makes `value` the slot's value, to be found with `word`.
    #[inline]
    pub(crate) fn publish<C: LockContext>(self, word: u64, value: T) {
        // SAFETY: [slot/free] `self` came from the free list, from fresh slots or from `Claimed::take`, is unique, and
        // is used up here.
        unsafe { self.slot.publish::<C>(word, self.ticket, value) };
    }
}

impl<'a, T> Claimed<'a, T> {
    #[inline]
    pub(crate) const fn number(&self) -> u32 {
        self.number
    }

    /// The check that the value was found with.
    #[inline]
    pub(crate) const fn check(&self) -> u32 {
        self.check
    }

    /// Takes the value out; the slot becomes `Free`, but is not on the free list yet.
    #[inline]
    pub(crate) fn take(self) -> (T, Vacant<'a, T>) {
        let Self { number, slot, check: _ } = self;
        // SAFETY: [slot/claimed] `self` was made by the one claim, possibly kept on the deferred list, and is used up here.
        let (value, ticket) = unsafe { slot.take() };
        (value, Vacant::new(number, slot, ticket))
    }
}

impl<T, C: LockContext, O: OnClaim<T, C>> Pin<'_, T, C, O> {
    #[inline]
    pub(crate) fn value(&self) -> &T {
        // SAFETY: [slot/pinned] `self` is a good pin, and the reference cannot outlive it.
        unsafe { self.slot.entry() }
    }

    /// The session of the value.
    #[inline]
    pub(crate) fn session(&self) -> ManuallyDrop<Shared<Session>> {
        // SAFETY: [slot/pinned] `self` is a good pin, and `Pinned` keeps the result no longer.
        unsafe { self.slot.session() }
    }

    /// Closes the value, which is found with this `word`, and lets go of it; whether this call is the winner.
    pub(crate) fn close(self, word: u64) -> bool {
        // The pin is among the users or counted, so the entry cannot be claimed before it is dropped.
        let check = |generation| self.owner.check(self.number, generation);
        match self.slot.begin_close::<C>(word, &check, None, own_number::<C>()) {
            Ok(begun) => {
                let_all_see::<T, C>(self.slot, begun);
                true
            }
            Err(_) => false,
        }
    }

    pub(crate) const fn number(&self) -> u32 {
        self.number
    }

    /// How many pins there are, at some moment during the call.
    pub(crate) fn pins(&self) -> u32 {
        let (counted, users) = self.slot.pins();
        if users == Users::Nobody {
            return counted;
        }
        let lanes = self.owner.slab().vacancies.lanes().iter();
        lanes.fold(counted, |sum, lane| sum.saturating_add(lane.announcements(self.number)))
    }
}

impl<T, C: LockContext, O: OnClaim<T, C>> Drop for Pin<'_, T, C, O> {
    #[inline]
    fn drop(&mut self) {
        let look = match self.place {
            Some(place) => {
                withdraw::<C>(place);
                self.slot.is_closing()
            }
            None => self.slot.uncount(),
        };
        if look {
            self.owner.slab().look_who_is_left(self.owner, self.number, self.slot);
        }
    }
}
