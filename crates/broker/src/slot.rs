//! One slot of the handle table: its state word, and the storage that the word protects.
//!
//! # The state machine
//!
//! ```text
//!            publish              begin_close              all see it: drain
//!   Free ───────────────▶ Live ───────────────▶ Closing ─────────────────┐
//!    ▲                     │                                             ▼
//!    │                     │ close, by the first who ever            Draining
//!    │                     │ comes to the entry                          │ nobody is left: claim
//!    │                     ▼                                             ▼
//!    │                  Reaping ◀───────────────────────────────────  Reaping ─────▶ Retired
//!    └─────────────────────┘  the entry is out: back on a free list         (no generation left)
//! ```
//!
//! The word holds what threads have to agree on, so that each arrow out of `Live`, `Closing` and `Draining` is one atomic operation:
//!
//! ```text
//! 63        32 31  26  24     23       22     21  16 15     0
//! |  check   | kind |LIVE|CLOSING|DRAINING| users | counted |    Live 100  Closing 110  Draining 111
//! ```
//!
//! Free, Reaping and Retired have none of these bits, and no kind; the check is that of the next entry, or zero where the slot has never
//! had one. The check and the kind lie where they do in a handle.
//!
//! *Pins* keep an entry from being claimed. Most are not in the word: a thread *announces* the slot in the lane of its processor, where
//! nobody else writes, and then looks at the word. So a handle that all processors use is only read by them. The word
//! tells, in *users*, whose lanes have to be searched by who closes the entry: of nobody, of one, or of all. Before a pin is good, its
//! lane is among the users. Where a lane has no room, and for enumerations, pins are *counted* in the word.
//!
//! *Live*: a pin is good if the word is seen in this state, with the right check and kind, after the pin was announced.
//! *Closing*: pins that were good go on being good; no new ones are. The closer that set the bit is the one winner. Threads that
//! announced before may not be seen yet. *Draining*: they can be. From here on each who finds nobody left claims the
//! entry, and whoever leaves after the mark was set looks for others, so one of them does. *Reaping*: the claim clears the word, so
//! the claimant owns the entry alone and no second claim can follow. That the entry is still in its place is not in the word: it is
//! the value [`Claimed`](crate::slab::Claimed), which exists once, and takes the entry out.
//! *Free*: the storage is empty and belongs to whoever took the slot off a free list.
//! *Retired* is `Free`, but never on a free list again: its generations are used up.
//!
//! # Memory order
//!
//! `publish` releases the entry, the look that makes a pin good acquires it. Who leaves releases its uses: of a counted pin with a
//! read-modify-write on the word, of an announced one with the write to its place. The claim acquires both.
//!
//! An announcement and the look at the word are a write and a read, as are the mark of a closer and its search. So that at least one of
//! the two sees the other, all four are sequentially consistent, or lie on different sides of a
//! pair of [`Barriers`](crate::Barriers). The latter need a state more: between `Closing` and `Draining` the closer
//! passes the heavy barrier. Otherwise, and where only its own lane is to be searched, it marks both at once.
//! `loom_tests` tries the orders that this allows, and `slot_tests` every word that they can lead to.

#![expect(unsafe_code, reason = "the state word, not the borrow checker, says who may touch the entry")]

use core::mem::{ManuallyDrop, MaybeUninit};

use crate::atomics::{AtomicU32, AtomicU64, Cell, Ordering, in_sequence};
use crate::handle::SLOT_BITS;
use crate::lanes::order_self;
use crate::tickets::{Ticket, TicketCell};
use crate::{LockContext, Session, Shared};

const PIN: u64 = 1;
const PINS: u64 = (1 << 16) - 1;
const USERS_SHIFT: u32 = 16;
const USERS: u64 = 0x3F << USERS_SHIFT;
const DRAINING: u64 = 1 << 22;
const CLOSING: u64 = 1 << 23;
pub(crate) const LIVE: u64 = 1 << 24;
const CHECK_SHIFT: u32 = 32;

/// Far more counted pins than threads that could hold them, and far from running into the users.
const MANY_PINS: u64 = 1 << 15;

/// Threads of several lanes have used the entry.
const SEVERAL: u64 = USERS;

const _: () = assert!(LIVE < 1 << SLOT_BITS, "the check and the kind lie where they do in a handle");
const _: () = assert!(crate::lanes::LANES < (USERS >> USERS_SHIFT) as usize, "each lane has a number among the users");

/// Storage for one entry and its ticket.
pub(crate) struct Slot<T> {
    state: AtomicU64,
    /// The next slot of whichever list (free, waiting for the reaper) this one is in. Belongs to that list.
    pub(crate) link: AtomicU32,
    /// How many entries this slot has had. Changed only by the thread that took the slot off the free list.
    pub(crate) generation: AtomicU32,
    ticket: TicketCell,
    entry: Cell<MaybeUninit<T>>,
}

// SAFETY: [slot/send] a slot hands `&T` to threads that pin it (T: Sync) and moves T between threads (T: Send).
unsafe impl<T: Send + Sync> Sync for Slot<T> {}

/// Why there is no good pin, or nothing to close.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missed {
    /// The slot does not hold that entry.
    Stale,
    /// The slot holds an entry with that check, but of another kind.
    OtherKind,
    /// The slot holds that entry, but its close has begun.
    Closing,
    /// The slot has absurdly many pins.
    Busy,
    /// The slot holds that entry, but it belongs to another session.
    OtherSession,
}

/// Whose lanes may announce the entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Users {
    /// No lane.
    Nobody,
    /// The lane with this number.
    Lane(usize),
    /// Any lane.
    Several,
}

/// What a closer that has won has to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use = "an entry whose close does not go on is leaked"]
pub(crate) enum Begun {
    /// The slot is `Reaping`, and this thread has to see to the entry.
    Claimed,
    /// The slot is `Closing`: order everybody, then [`Slot::drain`].
    Closing,
    /// The slot is `Draining`: look who is left.
    Draining,
}

impl<T> Slot<T> {
    /// How many slots lie in a cache line of 64 bytes; one where they are larger.
    pub(crate) const IN_A_LINE: u32 = if size_of::<Self>() <= 32 { 2 } else { 1 };

    /// A slot in the state `Free`. Outside of tests slots come as zeroed memory, which is the same.
    #[cfg(any(test, loom))]
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU64::new(0),
            link: AtomicU32::new(0),
            generation: AtomicU32::new(0),
            ticket: TicketCell::new(),
            entry: Cell::new(MaybeUninit::uninit()),
        }
    }

    /// `Free` → `Live`: stores `entry` and lets it be found with `word`. What the thread reads next, it reads after whoever misses the
    /// entry has written.
    ///
    /// # Safety
    ///
    /// [slot/free] The slot is `Free` and this thread took it off the free list.
    #[inline]
    pub(crate) unsafe fn publish<C: LockContext>(&self, word: u64, ticket: Ticket, entry: T) {
        let storage = self.entry.write();
        // SAFETY: [slot/free] nobody reads the storage in `Free`, and only this thread may fill it.
        unsafe { storage.write(MaybeUninit::new(entry)) };
        self.ticket.put(ticket);
        // A store: in `Free` nobody else writes the word.
        let order = if C::BARRIERS.is_some() { Ordering::Release } else { Ordering::SeqCst };
        self.state.store(word, order);
        order_self::<C>();
    }

    /// The check of the next entry, which whoever emptied the slot left in the word. Zero where nobody did; then it has to be
    /// worked out. Of use to who took the slot off the free list.
    #[inline]
    pub(crate) fn next_check(&self) -> u32 {
        (self.state.load(Ordering::Relaxed) >> CHECK_SHIFT) as u32
    }

    /// Has the next check worked out anew.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn forget_next_check(&self) {
        self.state.store(0, Ordering::Relaxed);
    }

    /// Whether an announcement by lane number `lane` is a good pin of the entry with this `word`; adds the lane to the users.
    ///
    /// On success the caller may use [`entry`](Self::entry) until it withdraws the announcement.
    #[inline]
    pub(crate) fn look(&self, word: u64, lane: usize) -> Result<(), Missed> {
        let state = self.state.load(Ordering::SeqCst);
        let users = state & USERS;
        if fits(state, word) && (users == SEVERAL || users == users_of(lane)) {
            return Ok(());
        }
        self.join(word, lane)
    }

    #[cold]
    #[inline(never)]
    fn join(&self, word: u64, lane: usize) -> Result<(), Missed> {
        let mut state = self.state.load(Ordering::SeqCst);
        while fits(state, word) {
            let users = if state & USERS == 0 || state & USERS == users_of(lane) { users_of(lane) } else { SEVERAL };
            match self.state.compare_exchange(state, (state & !USERS) | users, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Ok(()),
                Err(now) => state = now,
            }
        }
        Err(why_not(state, word))
    }

    /// Counts a pin of the entry with this `word`; of whatever entry is live here without one. Returns the word that fitted.
    ///
    /// On success the caller may use [`entry`](Self::entry) until its [`uncount`](Self::uncount).
    #[cold]
    pub(crate) fn count(&self, word: Option<u64>) -> Result<u64, Missed> {
        let mut state = self.state.load(Ordering::SeqCst);
        loop {
            let found = state & !(USERS | PINS);
            let wanted = word.unwrap_or(found);
            if found & (LIVE | CLOSING) != LIVE || found != wanted {
                return Err(why_not(state, wanted));
            }
            if state & PINS >= MANY_PINS {
                return Err(Missed::Busy);
            }
            match self.state.compare_exchange(state, state.wrapping_add(PIN), Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Ok(found),
                Err(now) => state = now,
            }
        }
    }

    /// Takes off a counted pin; whether the caller has to look who is left.
    #[cold]
    pub(crate) fn uncount(&self) -> bool {
        let before = self.state.fetch_sub(PIN, Ordering::SeqCst);
        before & (DRAINING | PINS) == DRAINING | PIN
    }

    /// Whether a thread that has withdrawn its announcement must look who is left.
    #[inline]
    pub(crate) fn is_closing(&self) -> bool {
        self.state.load(Ordering::SeqCst) & CLOSING != 0
    }

    /// `Live` → `Closing`, or further where that is possible at once, for the entry with this `word`. The closer has no pin itself, or
    /// `pinned` says so. `owner`: only if it belongs to that session. `check` tells the check of a generation.
    #[inline]
    pub(crate) fn begin_close<C: LockContext>(
        &self,
        word: u64,
        check: &impl Fn(u32) -> u32,
        owner: Option<&Shared<Session>>,
        own_lane: Option<usize>,
    ) -> Result<Begun, Missed> {
        // Nobody has ever pinned most of the entries that are closed.
        let own = owner.is_none_or(|owner| self.ticket.is_of(owner));
        if own && self.state.load(Ordering::Acquire) == word {
            // Succeeds only where the word has not changed, so the ticket was the entry's, and so was the generation.
            let done = self.state.compare_exchange(word, self.free(check), Ordering::SeqCst, Ordering::Relaxed);
            if done.is_ok() {
                return Ok(Begun::Claimed);
            }
        }
        self.begin_close_of_used::<C>(word, check, owner, own_lane)
    }

    /// As [`begin_close`](Self::begin_close), whoever has used the entry.
    #[inline(never)]
    fn begin_close_of_used<C: LockContext>(
        &self,
        word: u64,
        check: &impl Fn(u32) -> u32,
        owner: Option<&Shared<Session>>,
        own_lane: Option<usize>,
    ) -> Result<Begun, Missed> {
        let mut state = self.state.load(Ordering::SeqCst);
        while fits(state, word) {
            if owner.is_some_and(|owner| !self.ticket.is_of(owner)) {
                // Believed only if the slot has not come to hold another entry since.
                let now = self.state.load(Ordering::SeqCst);
                if fits(now, word) {
                    return Err(Missed::OtherSession);
                }
                state = now;
                continue;
            }
            let users = state & USERS;
            let (next, begun) = if state & (USERS | PINS) == 0 {
                (self.free(check), Begun::Claimed)
            } else if C::BARRIERS.is_none() || users == 0 || own_lane.is_some_and(|lane| users == users_of(lane)) {
                (state | CLOSING | DRAINING, Begun::Draining)
            } else {
                (state | CLOSING, Begun::Closing)
            };
            match self.state.compare_exchange(state, next, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => {
                    in_sequence();
                    return Ok(begun);
                }
                Err(now) => state = now,
            }
        }
        Err(why_not(state, word))
    }

    /// `Closing` → `Draining`, by the winner, after it has ordered everybody.
    #[cold]
    pub(crate) fn drain(&self) {
        self.state.fetch_or(DRAINING, Ordering::SeqCst);
        in_sequence();
    }

    /// `Draining` → `Reaping`, if `is_left` finds none of the users: then this thread has to see to the entry, and gets its check.
    #[cold]
    pub(crate) fn claim(&self, check: &impl Fn(u32) -> u32, is_left: impl Fn(Users) -> bool) -> Option<u32> {
        let mut state = self.state.load(Ordering::SeqCst);
        // Whatever entry it is by now: who leaves looks on behalf of all.
        while state & DRAINING != 0 && state & PINS == 0 && !is_left(users(state)) {
            match self.state.compare_exchange(state, self.free(check), Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Some((state >> CHECK_SHIFT) as u32),
                Err(now) => state = now,
            }
        }
        None
    }

    /// The word of this slot without its entry: the check of the next one, so that who fills the slot need not wait for it.
    #[inline]
    fn free(&self, check: &impl Fn(u32) -> u32) -> u64 {
        u64::from(check(self.generation.load(Ordering::Relaxed).wrapping_add(1))) << CHECK_SHIFT
    }

    /// How many counted pins there are, and who else may have some; for reports.
    pub(crate) fn pins(&self) -> (u32, Users) {
        let state = self.state.load(Ordering::Relaxed);
        ((state & PINS) as u32, users(state))
    }

    /// The entry.
    ///
    /// # Safety
    ///
    /// [slot/pinned] The caller has a good pin, and keeps it for as long as it uses the reference.
    #[inline]
    pub(crate) unsafe fn entry(&self) -> &T {
        // SAFETY: [slot/pinned] from `Live` until the claim, which needs zero pins, nobody writes the storage.
        let storage = unsafe { &*self.entry.read() };
        // SAFETY: [slot/pinned] `publish` stored an entry before the pin could become good.
        unsafe { storage.assume_init_ref() }
    }

    /// The session of the entry.
    ///
    /// # Safety
    ///
    /// [slot/pinned] As [`entry`](Self::entry).
    #[inline]
    pub(crate) unsafe fn session(&self) -> ManuallyDrop<Shared<Session>> {
        // SAFETY: [ticket/in] `publish` put it in, and it goes with the entry.
        unsafe { self.ticket.session() }
    }

    /// Whether the entry is, or was, of `session`. To be believed by who has a good pin.
    #[inline]
    pub(crate) fn is_of(&self, session: &Shared<Session>) -> bool {
        self.ticket.is_of(session)
    }

    /// Takes the entry and its ticket out of a slot in `Reaping`.
    ///
    /// # Safety
    ///
    /// [slot/claimed] The slot is `Reaping`, and this thread is the claimant or got the slot from it; called once per claim.
    #[inline]
    pub(crate) unsafe fn take(&self) -> (T, Ticket) {
        let storage = self.entry.write();
        // SAFETY: [slot/claimed] no pin is good in `Reaping`, so nobody else reads the storage.
        let entry = unsafe { storage.read() };
        // SAFETY: [ticket/once] `publish` put it in, and each claim takes once.
        let ticket = unsafe { self.ticket.take() };
        // SAFETY: [slot/claimed] the entry that `publish` stored is still there, since each claim takes once.
        (unsafe { entry.assume_init() }, ticket)
    }
}

/// Whether the entry with this `word` is live in a slot whose word is `state`.
#[inline]
const fn fits(state: u64, word: u64) -> bool {
    state & !(USERS | PINS) == word
}

/// Why an entry does not fit.
#[cold]
const fn why_not(state: u64, word: u64) -> Missed {
    if state & !(USERS | PINS | DRAINING) == word | CLOSING {
        Missed::Closing
    } else if state & (LIVE | CLOSING) == LIVE && state >> CHECK_SHIFT == word >> CHECK_SHIFT {
        Missed::OtherKind
    } else {
        Missed::Stale
    }
}

/// The users of an entry that only threads of one lane have used.
#[inline]
const fn users_of(lane: usize) -> u64 {
    (lane as u64).wrapping_add(1) << USERS_SHIFT
}

const fn users(state: u64) -> Users {
    match state & USERS {
        0 => Users::Nobody,
        SEVERAL => Users::Several,
        one => Users::Lane(((one >> USERS_SHIFT) as usize).wrapping_sub(1)),
    }
}

impl<T> Drop for Slot<T> {
    fn drop(&mut self) {
        // The table closes everything before it is dropped; an entry that is still here has no reaper any more, but its
        // memory at least is not lost. Those in `Reaping` are not here but in the hands of a `Claimed`, or on the slab's list.
        if self.state.load(Ordering::Relaxed) & LIVE != 0 {
            // SAFETY: [slot/claimed] `&mut self`: there is no other thread, and in `Live` and `Closing` there is an entry.
            drop(unsafe { self.take() });
        }
    }
}

#[cfg(all(test, not(loom)))]
#[path = "slot_tests.rs"]
mod tests;
