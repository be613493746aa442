//! Connections: one client each.

use crate::kernel::heap;
use crate::kernel::irql::RaiseToDispatch;
use crate::kernel::platform::Kernel;
use crate::kernel::{process, time};
use crate::state::{self, State};
use alloc::vec::Vec;
use broker::staging::Job;
use broker::{Error, IrqlLock, Owner, Role, Session, SessionId, Shared};
use core::sync::atomic::{AtomicBool, Ordering};
use fltmgr::raw::PFLT_PORT;
use fltmgr::{ClientPort, Passive};
use nt_types::{NtStatus, PVOID};

/// A client's connection.
///
/// FltMgr carries its number as the cookie. A message can be under way while the connection is being closed, and
/// keeps the object until it is done; it finds its session ended.
pub(crate) struct Connection {
    number: u64,
    session: Shared<Session>,
    port: ClientPort,
    said_hello: AtomicBool,
    /// Staging under way for this client, to be cancelled when it goes.
    jobs: IrqlLock<Vec<Shared<Job<Kernel>>>, RaiseToDispatch>,
}

impl Connection {
    /// A connection of the current process.
    fn try_new(state: &State, port: PFLT_PORT, role: Role, passive: Passive) -> Result<Shared<Self>, Error> {
        let number = state.next_number();
        let owner = Owner {
            process: process::current_id(),
            name: process::current_image_name(passive)?,
            role,
            since: time::of_day(),
        };
        let limits = match role {
            Role::Administrator | Role::Driver => state.limits.session,
            Role::User => state.limits.session.of_user(),
        };
        let mut jobs = Vec::new();
        jobs.try_reserve_exact(limits.jobs as usize).map_err(|_| Error::OutOfMemory)?;
        Shared::try_new(Self {
            number,
            session: Session::with_owner(SessionId(number), owner, &limits)?,
            port: ClientPort::new(port),
            said_hello: AtomicBool::new(false),
            jobs: IrqlLock::new(jobs),
        })
    }

    /// What the client may do and has.
    pub(crate) const fn session(&self) -> &Shared<Session> {
        &self.session
    }

    /// The session's number.
    pub(super) const fn number(&self) -> u64 {
        self.number
    }

    /// Whether hello has been agreed on.
    pub(super) fn said_hello(&self) -> bool {
        self.said_hello.load(Ordering::Acquire)
    }

    /// Records hello; whether it is the first.
    pub(super) fn say_hello(&self) -> bool {
        !self.said_hello.swap(true, Ordering::AcqRel)
    }

    /// Registers a job, so that it is cancelled when the client goes.
    ///
    /// [`Error::SessionJobs`] (`STATUS_QUOTA_EXCEEDED`) where there are too many.
    pub(super) fn add_job(&self, job: &Shared<Job<Kernel>>) -> Result<(), Error> {
        let mut jobs = self.jobs.lock();
        // A job that starts while the client goes would not be cancelled by anybody.
        if self.session.has_ended() {
            return Err(Error::SessionEnded);
        }
        // The caller has a reference too: where there is no room nothing is freed under the lock.
        if heap::push(&mut jobs, job.clone()) { Ok(()) } else { Err(Error::SessionJobs) }
    }

    /// Forgets a job that is done.
    pub(super) fn remove_job(&self, job: &Shared<Job<Kernel>>) {
        let mut jobs = self.jobs.lock();
        let index = jobs.iter().position(|other| Shared::ptr_eq(other, job));
        let removed = index.map(|index| jobs.swap_remove(index));
        // The caller has a reference of its own, so nothing is freed here; but the lock goes first anyway.
        drop(jobs);
        drop(removed);
    }

    /// Forgets a connection that has ended once none of its requests runs any more; until then it is listed, so that one that
    /// does not come to its end can be found. Called after the end, and after each request.
    pub(super) fn forget_if_over(&self, state: &State) {
        // The end and each request's last step change the same word: whichever comes second sees both.
        if self.session.has_ended() && self.session.running_requests() == 0 {
            // The caller has a reference of its own, so nothing is freed under the set's lock.
            state.connections.remove(self.number);
        }
    }

    fn cancel_jobs(&self) {
        for job in self.jobs.lock().iter() {
            job.cancel();
        }
    }
}

/// What FltMgr calls when a client connects.
pub(super) type Connect = unsafe extern "efiapi" fn(PFLT_PORT, PVOID, PVOID, u32, *mut PVOID) -> NtStatus;

/// PFLT_CONNECT_NOTIFY of the administrators' port. That the client is one, FltMgr has checked against the port's
/// descriptor. The context that a client may send is not looked at.
pub(super) unsafe extern "efiapi" fn connect_administrator(
    port: PFLT_PORT,
    _server_cookie: PVOID,
    _context: PVOID,
    _context_bytes: u32,
    cookie: *mut PVOID,
) -> NtStatus {
    // SAFETY: FltMgr's own arguments, handed on.
    unsafe { connect(port, cookie, Role::Administrator) }
}

/// PFLT_CONNECT_NOTIFY of the users' port. An administrator who connects here is a user too.
pub(super) unsafe extern "efiapi" fn connect_user(
    port: PFLT_PORT,
    _server_cookie: PVOID,
    _context: PVOID,
    _context_bytes: u32,
    cookie: *mut PVOID,
) -> NtStatus {
    // SAFETY: FltMgr's own arguments, handed on.
    unsafe { connect(port, cookie, Role::User) }
}

/// # Safety
/// `port` and `cookie` are those of PFLT_CONNECT_NOTIFY.
unsafe fn connect(port: PFLT_PORT, cookie: *mut PVOID, role: Role) -> NtStatus {
    let Some(call) = state::enter() else { return NtStatus::SHUTDOWN_IN_PROGRESS };
    // SAFETY: documented to run at PASSIVE_LEVEL, in the client's process.
    let passive = unsafe { Passive::assume() };
    let connected = Connection::try_new(&call, port, role, passive)
        .and_then(|connection| call.connections.insert(connection.number, &connection).map(|()| connection.number));
    match connected {
        Ok(number) => {
            // SAFETY: FltMgr passes a cell for the cookie (rule: nc-fltkernel-pflt_connect_notify).
            unsafe { *cookie = number as usize as PVOID };
            NtStatus::SUCCESS
        }
        // Nothing to undo: the port of a refused connection is not ours to close.
        Err(error) => error.status(),
    }
}

/// PFLT_DISCONNECT_NOTIFY: the client is gone, or the driver is leaving.
pub(super) unsafe extern "efiapi" fn disconnect(cookie: PVOID) {
    // SAFETY: documented to run at PASSIVE_LEVEL.
    let passive = unsafe { Passive::assume() };
    let Some(state) = state::enter_to_leave() else { return };
    let Some(connection) = state.connections.get(cookie as usize as u64) else { return };
    connection.port.close(state.filter(), passive);
    // Ended first: what is started from now on is refused, what was registered before is cancelled here.
    state.table.end_session(&connection.session);
    connection.cancel_jobs();
    connection.forget_if_over(&state);
}
