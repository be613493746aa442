//! Who holds what in the driver, and taking it away: for administrators.

use protocol::{HandleEntry, Quota, RevokeReply, RevokeRequest, RevokeScope, SessionEntry, wire};
use protocol::{ReplyBody, RequestBody};

use crate::client::{LIST_REPLY, SMALL_REPLY, text};
use crate::{Client, Error};

/// An open handle, as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldHandle {
    /// Number for [`Client::revoke`]. It is not the handle: no other request takes it.
    pub id: u64,
    /// [`ObjectKind`](protocol::ObjectKind) code.
    pub kind: u32,
    /// [`HandlePhase`](protocol::HandlePhase) code.
    pub phase: u32,
    /// Session that it belongs to.
    pub session_id: u64,
    /// Process that connected the session; 4, the system's, for a NIC driver.
    pub process_id: u64,
    /// When it was opened: 100 ns units since 1601-01-01 UTC.
    pub opened_at: i64,
    /// Length in bytes of the file or image, when it was opened.
    pub size: u64,
    /// Requests that use it at this moment.
    pub pins: u32,
    /// Image name of the process, or name of the NIC driver.
    pub owner: String,
    /// Normalised name of the file.
    pub name: String,
}

/// A session, as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Number of the session.
    pub session_id: u64,
    /// Process that connected; 4, the system's, for a NIC driver.
    pub process_id: u64,
    /// Image name of the process, or name of the NIC driver.
    pub owner: String,
    /// What it may do.
    pub role: SessionRole,
    /// Whether its client is gone, and it only waits for requests that are still running.
    pub has_ended: bool,
    /// When it connected: 100 ns units since 1601-01-01 UTC.
    pub connected_at: i64,
    /// Handles it holds.
    pub handles: Quota<u32>,
    /// Bytes of memory that its requests use.
    pub bytes: Quota<u64>,
    /// Images being staged for it.
    pub jobs: Quota<u32>,
    /// Requests that are running.
    pub requests: u32,
    /// Handles that were taken away from it and that it has not closed yet.
    pub revoked: u32,
}

/// What a session may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionRole {
    /// Everything.
    Administrator,
    /// Opening, querying, reading and closing files.
    User,
    /// It is a NIC driver.
    Driver,
}

impl SessionRole {
    /// Lower-case name, as in JSON output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Administrator => "administrator",
            Self::User => "user",
            Self::Driver => "driver",
        }
    }
}

impl Client {
    /// All open handles of all sessions. Each entry is true of one moment; handles come and go meanwhile.
    pub fn handles(&mut self) -> Result<Vec<HeldHandle>, Error> {
        let mut handles = Vec::new();
        self.pages("list the handles", RequestBody::Handles, |body| match body {
            ReplyBody::Handles(list) => {
                handles.extend(list.iter().map(HeldHandle::from));
                Some(list.next_cursor)
            }
            _ => None,
        })?;
        Ok(handles)
    }

    /// All sessions, this one included.
    pub fn sessions(&mut self) -> Result<Vec<SessionInfo>, Error> {
        let mut sessions = Vec::new();
        self.pages("list the sessions", RequestBody::Sessions, |body| match body {
            ReplyBody::Sessions(list) => {
                sessions.extend(list.iter().map(SessionInfo::from));
                Some(list.next_cursor)
            }
            _ => None,
        })?;
        Ok(sessions)
    }

    /// Takes handles away from their owners, who are told when they use them next. Those of NIC drivers are kept: a single one is
    /// refused, of several they are counted.
    pub fn revoke(&mut self, scope: RevokeScope, id: u64) -> Result<RevokeReply, Error> {
        let action = match scope {
            RevokeScope::Handle => format!("revoke handle {id:#x}"),
            RevokeScope::Session => format!("revoke the handles of session {id}"),
            RevokeScope::Process => format!("revoke the handles of process {id}"),
        };
        let body = RequestBody::Revoke(RevokeRequest { scope, id });
        self.session().call(&action, body, SMALL_REPLY, |body| match body {
            ReplyBody::Revoke(revoke) => Some(revoke),
            _ => None,
        })
    }

    /// Asks for one page after the other; `pick` takes what is wanted, and returns where to go on.
    fn pages(
        &mut self,
        action: &str,
        request: fn(u64) -> RequestBody<'static>,
        mut pick: impl FnMut(ReplyBody<'_>) -> Option<u64>,
    ) -> Result<(), Error> {
        let mut cursor = 0;
        loop {
            let next = self.session().call(action, request(cursor), LIST_REPLY, |body| {
                // A cursor that does not grow would never end.
                pick(body).filter(|next| *next == 0 || *next > cursor)
            })?;
            if next == 0 {
                return Ok(());
            }
            cursor = next;
        }
    }
}

impl From<HandleEntry<'_>> for HeldHandle {
    fn from(entry: HandleEntry<'_>) -> Self {
        Self {
            id: entry.id,
            kind: entry.kind,
            phase: entry.phase,
            session_id: entry.session_id,
            process_id: entry.process_id,
            opened_at: entry.opened_at,
            size: entry.size,
            pins: entry.pins,
            owner: text(entry.owner),
            name: text(entry.name),
        }
    }
}

impl From<SessionEntry<'_>> for SessionInfo {
    fn from(entry: SessionEntry<'_>) -> Self {
        let role = match entry.flags {
            flags if flags & wire::SESSION_DRIVER != 0 => SessionRole::Driver,
            flags if flags & wire::SESSION_ADMINISTRATOR != 0 => SessionRole::Administrator,
            _ => SessionRole::User,
        };
        Self {
            session_id: entry.session_id,
            process_id: entry.process_id,
            owner: text(entry.owner),
            role,
            has_ended: entry.flags & wire::SESSION_ENDED != 0,
            connected_at: entry.connected_at,
            handles: entry.handles,
            bytes: entry.bytes,
            jobs: entry.jobs,
            requests: entry.requests,
            revoked: entry.revoked,
        }
    }
}
