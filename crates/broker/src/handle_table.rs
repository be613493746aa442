//! The one table behind every handle.
//!
//! See the crate-private module `slot` for the life of an entry (`Free`, `Live`, `Closing`, `Reaping`, `Retired`) as a
//! state machine; this module finds slots, hands them out and sees that what was claimed gets closed.
//!
//! - **Get** is an array look-up, one atomic addition and a comparison; no lock.
//! - **Close** has one winner. The entry stays usable for those who have it pinned; the last of them runs the real close.
//! - **The real close** ([`Reaper::close`]) runs at `PASSIVE_LEVEL`: at once where the thread is there already, else the slot is
//!   pushed onto a list (which needs no memory: the link is part of the slot) and
//!   [`drain`](HandleTable::drain) runs it later.
//! - **Sessions**: an entry belongs to the session that opened it. Nobody else's handle or number reaches it.
//! - **Enumeration** pins one entry at a time; nothing is ever stopped. What is opened and closed
//!   meanwhile may or may not be seen; what lives throughout is seen exactly once.

use core::ops::Range;

use crate::atomics::{AtomicBool, Ordering, spin};
use crate::segments::number_of;
use crate::slab::{Claimed, OnClaim, Slab, Vacant};
use crate::slot::Missed;
use crate::{Closed, Entry, Error, Handle, HandleKey, Kind, LockContext, Pinned, Reaper, Session, Shared};

/// A table of entries `E`, closed by `R`, with the free list under a lock of context `C`.
///
/// Usable at IRQL <= `DISPATCH_LEVEL`, except where a method says `PASSIVE_LEVEL`.
pub struct HandleTable<E: Entry, R: Reaper<E>, C: LockContext> {
    key: HandleKey,
    reaper: R,
    slab: Slab<E, C>,
    closed_for_good: AtomicBool,
}

/// Room for one entry in the table and in its session's quota, taken before the entry exists.
///
/// Opening a file is expensive and undoing it is error-prone, so the driver reserves first; after that
/// [`fill`](Self::fill) cannot run out of anything. Dropped unfilled, the room is given back.
pub struct Reservation<'a, E: Entry, R: Reaper<E>, C: LockContext> {
    table: &'a HandleTable<E, R, C>,
    session: &'a Shared<Session>,
    /// `None` once filled.
    vacant: Option<Vacant<'a, E>>,
}

impl<E: Entry, R: Reaper<E>, C: LockContext> HandleTable<E, R, C> {
    /// An empty table for at most `max_handles` entries. Allocates nothing.
    pub fn new(key: HandleKey, max_handles: u32, reaper: R) -> Self {
        Self { key, reaper, slab: Slab::new(max_handles), closed_for_good: AtomicBool::new(false) }
    }

    /// Takes room for an entry of `session`. `PASSIVE_LEVEL` (it may allocate).
    ///
    /// [`Error::SessionEnded`] (`STATUS_PORT_DISCONNECTED`), [`Error::SessionHandles`] or [`Error::TooManyHandles`]
    /// (`STATUS_TOO_MANY_OPENED_FILES`), [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`).
    #[inline]
    pub fn reserve<'a>(&'a self, session: &'a Shared<Session>) -> Result<Reservation<'a, E, R, C>, Error> {
        if session.has_ended() || self.closed_for_good.load(Ordering::Acquire) {
            return Err(Error::SessionEnded);
        }
        Ok(Reservation { table: self, session, vacant: Some(self.slab.vacant(session)?) })
    }

    /// Finds the entry that `handle` stands for in `session`, and keeps it from being closed while the result lives.
    ///
    /// All errors have `STATUS_INVALID_HANDLE`, but differ in their reason: [`Error::HandleInvalid`] (never given out),
    /// [`Error::HandleClosed`], [`Error::HandleOfOtherSession`]; or `STATUS_FILE_FORCED_CLOSED`, [`Error::HandleRevoked`];
    /// or `STATUS_DEVICE_BUSY`, [`Error::HandleBusy`].
    #[inline]
    pub fn get(&self, session: &Shared<Session>, handle: Handle) -> Result<Pinned<'_, E, R, C>, Error> {
        match self.slab.pin(self, handle.slot(), handle.word(), session) {
            Ok(pin) => Ok(Pinned::new(pin, handle)),
            Err(why) => Err(self.explain(why, session, handle)),
        }
    }

    /// As [`get`](Self::get), for an entry of one kind.
    ///
    /// [`Error::HandleWrongKind`] (`STATUS_OBJECT_TYPE_MISMATCH`) where the handle stands for something else.
    #[inline]
    pub fn get_kind(
        &self,
        session: &Shared<Session>,
        handle: Handle,
        kind: Kind,
    ) -> Result<Pinned<'_, E, R, C>, Error> {
        let pinned = self.get(session, handle)?;
        // That the entry's kind is the handle's is what makes a pin good.
        if handle.kind() == Some(kind) { Ok(pinned) } else { Err(Error::HandleWrongKind) }
    }

    /// Closes a handle. The entry is closed when the last request that has it pinned lets go, often in this call.
    ///
    /// Errors as [`get`](Self::get); of several closers one succeeds and the others get [`Error::HandleClosed`]. Whose handle
    /// was revoked is told so, the last time: from then on the handle has been closed.
    #[inline]
    pub fn close(&self, session: &Shared<Session>, handle: Handle) -> Result<(), Error> {
        let closed = self.slab.close(self, handle.slot(), handle.word(), session);
        closed.map_err(|why| self.lose(why, session, handle))
    }

    /// Ends `session` and closes all its handles. Requests that are running keep what they have pinned until they let
    /// go; whatever they still try to add is closed at once. Returns how many handles this call closed.
    ///
    /// Calling it again does no harm, and is how a driver makes sure after its last request has gone.
    pub fn end_session(&self, session: &Shared<Session>) -> usize {
        session.end();
        self.slab.collect_tickets(Some(session));
        self.close_where(|pinned| Shared::ptr_eq(pinned.session(), session))
    }

    /// Refuses every further reservation and closes all handles of all sessions, for unload. Returns how many.
    pub fn close_all(&self) -> usize {
        self.closed_for_good.swap(true, Ordering::SeqCst);
        self.slab.collect_tickets(None);
        self.close_where(|_| true)
    }

    /// Runs the closes that threads above `PASSIVE_LEVEL` had to leave behind; how many. `PASSIVE_LEVEL`.
    pub fn drain(&self) -> usize {
        self.slab.take_deferred(|slot, generation| self.key.check(slot, generation)).fold(0, |count, claimed| {
            self.reap(claimed);
            count.saturating_add(1)
        })
    }

    /// The live entries, one after the other, each pinned while the caller looks at it.
    pub fn iter(&self) -> impl Iterator<Item = Pinned<'_, E, R, C>> {
        self.iter_from(0)
    }

    /// As [`iter`](Self::iter), from `cursor` on: 0, or [`Pinned::next_cursor`] of the last entry that was seen.
    pub fn iter_from(&self, cursor: u32) -> impl Iterator<Item = Pinned<'_, E, R, C>> {
        self.iter_in(cursor..u32::MAX)
    }

    /// As [`iter`](Self::iter), of the slots in `range` alone: a part of the work, where a table has many empty slots.
    pub fn iter_in(&self, range: Range<u32>) -> impl Iterator<Item = Pinned<'_, E, R, C>> {
        let in_use = range.start..range.end.min(self.slab.end());
        in_use.filter_map(|ordinal| self.pinned_at(number_of(ordinal)?))
    }

    /// How many slots the table has had in use; none beyond has an entry.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.slab.end()
    }

    /// The live entry in the slot with this number, whichever it is.
    pub(crate) fn pinned_at(&self, slot: u32) -> Option<Pinned<'_, E, R, C>> {
        let (pin, word) = self.slab.pin_counted(self, slot, None).ok()?;
        Some(Pinned::new(pin, Handle::from_word(word, slot)))
    }

    /// How many entries there are, those included that are being opened or closed.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.slab.used()
    }

    /// How many handles `session` has, those included that are being opened or closed.
    #[must_use]
    pub fn handles_of(&self, session: &Shared<Session>) -> u64 {
        session.charged_handles().saturating_sub(self.slab.tickets_ready(session))
    }

    /// Whether there are none: then every entry that was ever in the table has been closed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many slots have used up their generations and are out of service.
    #[must_use]
    pub fn retired_slots(&self) -> u32 {
        self.slab.retired()
    }

    /// The reaper given to [`new`](Self::new).
    pub const fn reaper(&self) -> &R {
        &self.reaper
    }

    /// Leaves the free slot `index` one generation, for a test that cannot wait for four billion.
    #[cfg(all(test, not(loom)))]
    pub(crate) fn wear_out(&self, index: u32) {
        self.slab.set_generation(index, crate::slab::LAST_GENERATION - 1);
    }

    fn close_where(&self, wanted: impl Fn(&Pinned<'_, E, R, C>) -> bool) -> usize {
        // An entry published behind our back is no loss: its `fill` adds it first and looks for the end of
        // the session second, while we, ending first and sweeping second, touched its slot before.
        self.iter().filter(wanted).fold(0, |count, pinned| count.saturating_add(usize::from(pinned.close().is_ok())))
    }

    /// Closes an entry that has been claimed, and gives its slot back. `PASSIVE_LEVEL`.
    #[inline]
    fn reap(&self, claimed: Claimed<'_, E>) {
        let (number, check) = (claimed.number(), claimed.check());
        let (entry, vacant) = claimed.take();
        let handle = Handle::new(check, entry.kind(), number);
        self.reaper.close(Closed { handle, session: &vacant.session(), entry });
        // Last: while the slot counts as used, the driver knows that a close is still under way.
        self.give_back(vacant);
    }

    fn give_back(&self, vacant: Vacant<'_, E>) {
        // A session that has ended opens nothing more, and whoever ended it has collected what lay ready, or is about to.
        self.slab.give_back(vacant, |session| !session.has_ended() && !self.closed_for_good.load(Ordering::SeqCst));
    }

    /// Why a close failed. The owner of a revoked handle has let go of it with that.
    #[cold]
    #[inline(never)]
    fn lose(&self, why: Missed, session: &Session, handle: Handle) -> Error {
        // Somebody who closes the same handles is just ahead, and needs the very cache lines that this thread comes for: let it get away.
        for _ in 0..LOSERS_WAIT {
            spin();
        }
        match self.explain(why, session, handle) {
            Error::HandleClosed | Error::HandleRevoked if session.revocations().remove(handle) => Error::HandleRevoked,
            Error::HandleRevoked => Error::HandleClosed,
            error => error,
        }
    }

    /// Why a handle did not fit, worked out only once it has not.
    #[cold]
    #[inline(never)]
    fn explain(&self, why: Missed, session: &Session, handle: Handle) -> Error {
        match why {
            Missed::Busy => Error::HandleBusy,
            Missed::Closing => session.explain_closed(handle),
            Missed::OtherSession => Error::HandleOfOtherSession,
            // The kind is part of the handle but not of its check: a handle with another one was made up.
            Missed::OtherKind => Error::HandleInvalid,
            Missed::Stale => {
                let generation = self.key.generation(handle.slot(), handle.check());
                let had = self.slab.generation(handle.slot());
                if (1..=had).contains(&generation) { session.explain_closed(handle) } else { Error::HandleInvalid }
            }
        }
    }
}

/// How many turns of a waiting loop a closer who comes too late lets pass.
const LOSERS_WAIT: u32 = if cfg!(loom) { 0 } else { 2 };

impl<E: Entry, R: Reaper<E>, C: LockContext> OnClaim<E, C> for HandleTable<E, R, C> {
    #[inline]
    fn slab(&self) -> &Slab<E, C> {
        &self.slab
    }

    #[inline]
    fn check(&self, number: u32, generation: u32) -> u32 {
        self.key.check(number, generation)
    }

    #[inline]
    fn on_claim(&self, claimed: Claimed<'_, E>) {
        if self.reaper.can_close_here() {
            self.reap(claimed);
        } else {
            self.slab.defer(claimed);
            self.reaper.schedule_drain();
        }
    }
}

impl<E: Entry, R: Reaper<E>, C: LockContext> Reservation<'_, E, R, C> {
    /// Puts `entry` into the reserved room and returns its handle.
    ///
    /// [`Error::SessionEnded`] (`STATUS_PORT_DISCONNECTED`) where the session ended since the reservation. The entry has then gone, or
    /// will go, to the [`Reaper`] like any other: it is never the caller's to close.
    #[inline]
    pub fn fill(mut self, entry: E) -> Result<Handle, Error> {
        let table = self.table;
        let Some(mut vacant) = self.vacant.take() else {
            // A reservation has its slot until it is filled, and that consumes it.
            return Err(Error::OutOfMemory);
        };
        let number = vacant.number();
        let check = vacant.next_check(|generation| table.key.check(number, generation));
        let handle = Handle::new(check, entry.kind(), number);
        vacant.publish::<C>(handle.word(), entry);
        // Published first, looked second; `end_session` ends first and sweeps second. One of the two sees the other, and
        // if both do, closing has one winner.
        if self.session.has_ended() || table.closed_for_good.load(Ordering::SeqCst) {
            // Already closed by the sweep is as good as closed by us.
            let _ = table.close(self.session, handle);
            return Err(Error::SessionEnded);
        }
        Ok(handle)
    }
}

impl<E: Entry, R: Reaper<E>, C: LockContext> Drop for Reservation<'_, E, R, C> {
    fn drop(&mut self) {
        if let Some(vacant) = self.vacant.take() {
            self.table.give_back(vacant);
        }
    }
}
