//! A handle's share of its session: one of the session's quota, and a reference to the session.
//!
//! Charging the quota and counting the reference take a locked operation each, and as many to undo them. A processor whose
//! threads close and open handles of one session would do that all the time for nothing; so what a close gives back
//! stays with the processor, as [`Credit`], for the next insertion of the same session.

#![expect(unsafe_code, reason = "keeps counted references as numbers")]

use core::mem::{ManuallyDrop, forget};
use core::ptr::{NonNull, null_mut};

use crate::atomics::{AtomicPtr, AtomicU32, Ordering};
use crate::{Error, Session, Shared};

/// The right to have one handle of a session: it is counted in the session's quota and refers to the session. Both are given
/// back on drop.
pub(crate) struct Ticket {
    session: NonNull<()>,
}

/// Tickets of one session, as many as `count`.
pub(crate) struct Tickets {
    session: NonNull<()>,
    count: u32,
}

/// A place for a ticket in a slot. Whether there is one in it, the slot's state says.
pub(crate) struct TicketCell(AtomicPtr<()>);

/// Tickets of one session that lie ready. Guarded by the lock of the lane that they are in: only who holds it calls anything here but
/// [`is_of`](Self::is_of).
pub(crate) struct Credit {
    session: AtomicPtr<()>,
    /// Zero if `session` is null.
    count: AtomicU32,
}

// SAFETY: [Shared/send] a ticket is a reference to a session, which is `Send` and `Sync`, as a pointer.
unsafe impl Send for Ticket {}
// SAFETY: [Shared/send] as above.
unsafe impl Send for Tickets {}

/// More than one processor keeps ready are of no use, and a session that is at its limit has to collect them.
const MOST: u32 = if cfg!(loom) { 1 } else { 64 };

impl Ticket {
    /// Takes one of `session`'s quota. [`Error::SessionHandles`] (`STATUS_TOO_MANY_OPENED_FILES`) where there is none left.
    pub(crate) fn charge(session: &Shared<Session>) -> Result<Self, Error> {
        session.take_handle()?;
        Ok(Self { session: Shared::into_raw(session.clone()) })
    }

    /// The session, with the ticket's own reference.
    #[inline]
    pub(crate) fn session(&self) -> ManuallyDrop<Shared<Session>> {
        // SAFETY: [Shared/raw] made from a reference in `charge` that lasts as long as the ticket; not dropped.
        ManuallyDrop::new(unsafe { Shared::from_raw(self.session) })
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        drop(Tickets { session: self.session, count: 1 });
    }
}

impl From<Ticket> for Tickets {
    fn from(ticket: Ticket) -> Self {
        let session = ticket.session;
        forget(ticket);
        Self { session, count: 1 }
    }
}

impl Drop for Tickets {
    fn drop(&mut self) {
        for _ in 0..self.count {
            // SAFETY: [Shared/raw] each ticket is a reference that `charge` made a pointer, used up here.
            let session = unsafe { Shared::<Session>::from_raw(self.session) };
            session.give_back_handle();
        }
    }
}

impl TicketCell {
    #[cfg(any(test, loom))]
    pub(crate) fn new() -> Self {
        Self(AtomicPtr::new(null_mut()))
    }

    /// Whether the ticket in here, or the last one that was, is of `session`. To be believed only where the slot's state did not
    /// change meanwhile.
    #[inline]
    pub(crate) fn is_of(&self, session: &Shared<Session>) -> bool {
        self.0.load(Ordering::Relaxed) == Shared::as_raw(session).as_ptr()
    }

    /// Puts a ticket in. What was in before has to have been taken, or is lost.
    pub(crate) fn put(&self, ticket: Ticket) {
        self.0.store(ticket.session.as_ptr(), Ordering::Relaxed);
        forget(ticket);
    }

    /// The session of the ticket in here.
    ///
    /// # Safety
    ///
    /// [ticket/in] There is a ticket in here, and it stays for as long as the result is used.
    #[inline]
    pub(crate) unsafe fn session(&self) -> ManuallyDrop<Shared<Session>> {
        // SAFETY: [ticket/in] `put` stored a pointer that is not null.
        let session = unsafe { NonNull::new_unchecked(self.0.load(Ordering::Relaxed)) };
        // SAFETY: [Shared/raw] the ticket's reference lasts as long as the ticket; not dropped.
        ManuallyDrop::new(unsafe { Shared::from_raw(session) })
    }

    /// Takes the ticket out.
    ///
    /// # Safety
    ///
    /// [ticket/once] There is a ticket in here, and this is the one call that takes it.
    pub(crate) unsafe fn take(&self) -> Ticket {
        // SAFETY: [ticket/once] `put` stored a pointer that is not null.
        let session = unsafe { NonNull::new_unchecked(self.0.load(Ordering::Relaxed)) };
        Ticket { session }
    }
}

impl Credit {
    pub(crate) fn new() -> Self {
        Self { session: AtomicPtr::new(null_mut()), count: AtomicU32::new(0) }
    }

    /// Whether the tickets are of `session`; only a hint to who does not hold the lock.
    #[inline]
    pub(crate) fn is_of(&self, session: &Shared<Session>) -> bool {
        self.session.load(Ordering::Relaxed) == Shared::as_raw(session).as_ptr()
    }

    /// A ticket of `session`, if one lies ready.
    #[inline]
    pub(crate) fn take(&self, session: &Shared<Session>) -> Option<Ticket> {
        if !self.is_of(session) {
            return None;
        }
        let left = self.count.load(Ordering::Relaxed).checked_sub(1)?;
        self.count.store(left, Ordering::Relaxed);
        Some(Ticket { session: Shared::as_raw(session) })
    }

    /// Keeps a ticket ready. Returns what there is no room for, to be dropped without the lock.
    #[inline]
    pub(crate) fn put(&self, ticket: Ticket) -> Option<Tickets> {
        let count = self.count.load(Ordering::Relaxed);
        if self.session.load(Ordering::Relaxed) != ticket.session.as_ptr() {
            let others = self.take_all();
            self.session.store(ticket.session.as_ptr(), Ordering::Relaxed);
            self.count.store(1, Ordering::Relaxed);
            forget(ticket);
            return others;
        }
        if count >= MOST {
            return Some(ticket.into());
        }
        self.count.store(count.saturating_add(1), Ordering::Relaxed);
        forget(ticket);
        None
    }

    /// All tickets, to be dropped without the lock.
    #[cold]
    pub(crate) fn take_all(&self) -> Option<Tickets> {
        let session = NonNull::new(self.session.load(Ordering::Relaxed))?;
        let count = self.count.load(Ordering::Relaxed);
        self.session.store(null_mut(), Ordering::Relaxed);
        self.count.store(0, Ordering::Relaxed);
        Some(Tickets { session, count })
    }

    /// How many tickets there are.
    pub(crate) fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Credit {
    fn drop(&mut self) {
        drop(self.take_all());
    }
}
