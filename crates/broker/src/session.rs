//! Sessions: one connected client each, or one NIC driver.

use crate::atomics::{AtomicU64, Ordering};
use crate::revocations::Revocations;
use crate::{Budget, Charge, Error, Handle, Name, Owner, Role, SessionLimits, Shared};

/// Names a session in reports. Given out by the driver, never twice in a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId(pub u64);

/// Who is asking, what they still may use, and whether they are still there.
///
/// A session is born *open* and *ends* once, when the client disconnects or the driver is unloaded
/// ([`HandleTable::end_session`](crate::HandleTable::end_session)). An ended session starts no request any more; those
/// that are running go on with what they hold, and the entries they have pinned close when they let go.
///
/// The object outlives the end for as long as somebody refers to it: requests, and entries not closed yet.
/// Everything here is callable at any IRQL.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    owner: Owner,
    /// [`ENDED`], and below it the number of requests that are running.
    requests: AtomicU64,
    handles: Budget,
    bytes: Shared<Budget>,
    jobs: Shared<Budget>,
    revocations: Revocations,
}

const ENDED: u64 = 1 << 63;

/// A request under way; counted in its session until dropped.
#[derive(Debug)]
pub struct Request {
    session: Shared<Session>,
}

impl Session {
    /// A new, open session of the process `owner_process` (`PsGetCurrentProcessId`), of which nothing else is known.
    ///
    /// [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`) when there is no room.
    pub fn try_new(id: SessionId, owner_process: u64, limits: &SessionLimits) -> Result<Shared<Self>, Error> {
        let owner = Owner { process: owner_process, name: Name::try_new(&[])?, role: Role::User, since: 0 };
        Self::with_owner(id, owner, limits)
    }

    /// A new, open session of `owner`.
    ///
    /// [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`) when there is no room.
    pub fn with_owner(id: SessionId, owner: Owner, limits: &SessionLimits) -> Result<Shared<Self>, Error> {
        Shared::try_new(Self {
            id,
            owner,
            requests: AtomicU64::new(0),
            handles: Budget::new(u64::from(limits.handles)),
            bytes: Shared::try_new(Budget::new(limits.bytes))?,
            jobs: Shared::try_new(Budget::new(u64::from(limits.jobs)))?,
            revocations: Revocations::new(),
        })
    }

    /// The session's name in reports.
    #[must_use]
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// The process that connected.
    #[must_use]
    pub const fn owner_process(&self) -> u64 {
        self.owner.process
    }

    /// Who connected, and when.
    #[must_use]
    pub const fn owner(&self) -> &Owner {
        &self.owner
    }

    /// Starts a request.
    ///
    /// [`Error::SessionEnded`] (`STATUS_PORT_DISCONNECTED`) once the session has ended.
    pub fn begin(this: &Shared<Self>) -> Result<Request, Error> {
        // Count first, look second: whoever ends the session either sees us counted or we see the end.
        let before = this.requests.fetch_add(1, Ordering::AcqRel);
        let request = Request { session: this.clone() };
        if before & ENDED == 0 { Ok(request) } else { Err(Error::SessionEnded) }
    }

    /// Whether the session has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        // Sequentially consistent, as is the end: who publishes an entry looks here afterwards.
        self.requests.load(Ordering::SeqCst) & ENDED != 0
    }

    /// How many requests are running. When it is zero after the end it stays zero.
    #[must_use]
    pub fn running_requests(&self) -> u64 {
        self.requests.load(Ordering::Acquire) & !ENDED
    }

    /// How many handles are charged to the session, those included that processors keep ready for it; see
    /// [`HandleTable::handles_of`](crate::HandleTable::handles_of).
    pub(crate) fn charged_handles(&self) -> u64 {
        self.handles.used()
    }

    /// How many bytes its requests use.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.used()
    }

    /// How many jobs it has under way.
    #[must_use]
    pub fn jobs(&self) -> u64 {
        self.jobs.used()
    }

    /// The most handles, bytes and jobs that it may have at a time.
    #[must_use]
    pub fn limits(&self) -> SessionLimits {
        let narrow = |budget: &Budget| u32::try_from(budget.limit()).unwrap_or(u32::MAX);
        SessionLimits { handles: narrow(&self.handles), bytes: self.bytes.limit(), jobs: narrow(&self.jobs) }
    }

    /// How many of its handles were taken away and not closed by it since.
    #[must_use]
    pub fn revoked(&self) -> u32 {
        self.revocations.len()
    }

    /// Takes memory for a request out of the session's quota; do this before allocating.
    ///
    /// [`Error::SessionBytes`] (`STATUS_QUOTA_EXCEEDED`) where that is too much.
    pub fn charge_bytes(&self, bytes: u64) -> Result<Charge, Error> {
        Budget::charge(&self.bytes, bytes, Error::SessionBytes)
    }

    /// Takes a job out of the session's quota.
    ///
    /// [`Error::SessionJobs`] (`STATUS_QUOTA_EXCEEDED`) where too many are under way.
    pub fn charge_job(&self) -> Result<Charge, Error> {
        Budget::charge(&self.jobs, 1, Error::SessionJobs)
    }

    pub(crate) fn take_handle(&self) -> Result<(), Error> {
        if self.handles.take(1) { Ok(()) } else { Err(Error::SessionHandles) }
    }

    pub(crate) fn give_back_handle(&self) {
        self.handles.give_back(1);
    }

    /// What became of its handles that are not open any more.
    pub(crate) const fn revocations(&self) -> &Revocations {
        &self.revocations
    }

    /// What a handle of this session is that has been closed.
    pub(crate) fn explain_closed(&self, handle: Handle) -> Error {
        if self.revocations.contains(handle) { Error::HandleRevoked } else { Error::HandleClosed }
    }

    /// Ends the session; whether this call was the one that did.
    pub(crate) fn end(&self) -> bool {
        self.requests.fetch_or(ENDED, Ordering::SeqCst) & ENDED == 0
    }
}

impl Request {
    /// Whose request it is.
    #[must_use]
    pub fn session(&self) -> &Shared<Session> {
        &self.session
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        self.session.requests.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> Shared<Session> {
        let limits = SessionLimits { handles: 1, bytes: 100, jobs: 1 };
        Session::try_new(SessionId(1), 4, &limits).unwrap()
    }

    #[test]
    fn ended_session_starts_no_request_but_lets_running_ones_finish() {
        let session = session();
        let running = Session::begin(&session).unwrap();
        assert!(session.end());
        assert!(!session.end());
        assert_eq!(Session::begin(&session).unwrap_err(), Error::SessionEnded);
        assert_eq!(session.running_requests(), 1);
        drop(running);
        assert_eq!(session.running_requests(), 0);
        assert!(session.has_ended());
    }

    #[test]
    fn quotas_have_their_own_errors_and_are_given_back() {
        let session = session();
        assert_eq!(session.charge_bytes(101).unwrap_err(), Error::SessionBytes);
        let job = session.charge_job().unwrap();
        assert_eq!(session.charge_job().unwrap_err(), Error::SessionJobs);
        drop(job);
        assert_eq!(session.jobs(), 0);
        assert_eq!(session.take_handle(), Ok(()));
        assert_eq!(session.take_handle(), Err(Error::SessionHandles));
    }
}
