//! An entry in use.

use core::fmt;
use core::mem::ManuallyDrop;
use core::ops::Deref;

use crate::segments::ordinal_of;
use crate::slab::Pin;
use crate::{Entry, Error, Handle, HandleTable, Kind, LockContext, Reaper, Session, Shared};

/// An entry of a [`HandleTable`] that cannot be closed under the caller: a close that comes meanwhile takes effect for
/// others at once, and for the entry when the last `Pinned` is dropped.
///
/// That drop may run the real close, in place at `PASSIVE_LEVEL`, through the work item above it.
pub struct Pinned<'a, E: Entry, R: Reaper<E>, C: LockContext> {
    pin: Pin<'a, E, C, HandleTable<E, R, C>>,
    handle: Handle,
    /// The entry's own reference.
    session: ManuallyDrop<Shared<Session>>,
}

impl<'a, E: Entry, R: Reaper<E>, C: LockContext> Pinned<'a, E, R, C> {
    #[inline]
    pub(crate) fn new(pin: Pin<'a, E, C, HandleTable<E, R, C>>, handle: Handle) -> Self {
        let session = pin.session();
        Self { pin, handle, session }
    }

    /// The entry's handle.
    #[must_use]
    pub const fn handle(&self) -> Handle {
        self.handle
    }

    /// The session that the handle belongs to.
    #[must_use]
    pub fn session(&self) -> &Shared<Session> {
        &self.session
    }

    /// What the entry is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.pin.value().kind()
    }

    /// How many threads use the entry at this moment, this one included. For reports.
    #[must_use]
    pub fn pins(&self) -> u32 {
        self.pin.pins()
    }

    /// Where an enumeration goes on after this entry; see [`HandleTable::iter_from`].
    #[must_use]
    pub const fn next_cursor(&self) -> u32 {
        ordinal_of(self.pin.number()).saturating_add(1)
    }

    /// Closes the handle, whichever session it belongs to.
    ///
    /// [`Error::HandleClosed`] (`STATUS_INVALID_HANDLE`) where another closer was faster, be it an administrator.
    pub fn close(self) -> Result<(), Error> {
        if self.pin.close(self.handle.word()) { Ok(()) } else { Err(Error::HandleClosed) }
    }

    /// Closes the handle against its owner's will, who will be told so until it closes the handle itself.
    ///
    /// As every close, it takes effect at once for whoever comes, and for the entry when the requests that use it are done.
    /// IRQL <= `DISPATCH_LEVEL`.
    ///
    /// [`Error::HandleClosed`] (`STATUS_INVALID_HANDLE`) or [`Error::HandleRevoked`] where another closer was faster;
    /// [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`) where it could not be remembered, and nothing was done.
    pub fn revoke(self) -> Result<(), Error> {
        let (session, handle) = (self.session().clone(), self.handle);
        // Remembered first: whoever finds the handle closed must find out why. The close orders the two.
        session.revocations().add(handle)?;
        if self.pin.close(handle.word()) {
            return Ok(());
        }
        // Not ours after all. Another administrator's record of the same handle is another one.
        session.revocations().remove(handle);
        Err(session.explain_closed(handle))
    }
}

impl<E: Entry, R: Reaper<E>, C: LockContext> Deref for Pinned<'_, E, R, C> {
    type Target = E;

    #[inline]
    fn deref(&self) -> &E {
        self.pin.value()
    }
}

impl<E: Entry, R: Reaper<E>, C: LockContext> fmt::Debug for Pinned<'_, E, R, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pinned").field(&self.handle).finish()
    }
}
