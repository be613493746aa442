//! One function table in the hands of a driver.

use crate::kernel::time;
use crate::state::State;
use broker::staging::MAX_CONSUMER_UNITS;
use broker::{Error, Name, Owner, Role, Session, SessionId, Shared};
use core::sync::atomic::{AtomicU32, Ordering};
use nt_types::PVOID;

/// How many tables can be out at a time: more than any machine has NIC drivers.
pub(crate) const MAX_CONSUMERS: usize = 128;

/// Process id that sessions of drivers carry: that of the system process.
const SYSTEM_PROCESS: u64 = 4;

/// A driver that has fetched a table: its name, its handles, its references.
pub(crate) struct Consumer {
    number: u64,
    session: Shared<Session>,
    references: AtomicU32,
}

impl Consumer {
    /// A consumer with one reference, known to the state by its number.
    ///
    /// [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`).
    pub(super) fn register(state: &State, name: &[u16]) -> Result<Shared<Self>, Error> {
        let number = state.next_number();
        // What is longer than can be recorded is cut: the name is for people.
        let name = name.get(..MAX_CONSUMER_UNITS).unwrap_or(name);
        let owner =
            Owner { process: SYSTEM_PROCESS, name: Name::try_new(name)?, role: Role::Driver, since: time::of_day() };
        let consumer = Shared::try_new(Self {
            number,
            session: Session::with_owner(SessionId(number), owner, &state.limits.session)?,
            references: AtomicU32::new(1),
        })?;
        state.consumers.insert(number, &consumer)?;
        Ok(consumer)
    }

    /// The consumer that a context stands for; none if its last reference is gone.
    pub(super) fn of_context(state: &State, context: PVOID) -> Option<Shared<Self>> {
        state.consumers.get(context as usize as u64)
    }

    /// What the driver gets as context: the number, since a pointer could be stale.
    pub(super) fn context(&self) -> PVOID {
        self.number as usize as PVOID
    }

    /// What the driver may do and has.
    pub(crate) const fn session(&self) -> &Shared<Session> {
        &self.session
    }

    /// Who it is.
    pub(super) fn name(&self) -> &[u16] {
        self.session.owner().name.units()
    }

    /// Takes a reference.
    pub(super) fn reference(&self) {
        // Saturating: a driver that takes four billion references keeps its table for ever.
        let _ = self.references.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| count.checked_add(1));
    }

    /// Gives a reference back; with the last one everything that the driver left open is closed.
    pub(super) fn dereference(&self, state: &State) {
        let before = self.references.fetch_update(Ordering::AcqRel, Ordering::Acquire, |count| count.checked_sub(1));
        if before == Ok(1) {
            state.table.end_session(&self.session);
            // The caller still has a reference, so nothing is freed under the set's lock.
            state.consumers.remove(self.number);
        }
    }
}
