//! `fwbctl handles` and `sessions`: who holds what, and taking it away.

use protocol::{HandlePhase, ObjectKind, Quota, RevokeScope};
use serde::Serialize;

use super::output::{Output, facts, nt_time, table};
use super::{HandlesArgs, Outcome};
use crate::nt_path::shown;
use crate::{Client, Error, HeldHandle, SessionInfo};

/// Lists, or revokes where it is told to.
pub(super) fn handles(client: &mut Client, args: &HandlesArgs) -> Result<Outcome, Error> {
    // One of them at most has something in it: the command line is checked.
    let single = args.revoke.iter().map(|id| (RevokeScope::Handle, *id));
    let session = args.revoke_session.map(|id| (RevokeScope::Session, id));
    let process = args.revoke_owner.map(|id| (RevokeScope::Process, id));
    let targets: Vec<_> = single.chain(session).chain(process).collect();
    if !targets.is_empty() {
        return Ok(revoke(client, &targets));
    }
    let wanted = |handle: &HeldHandle| {
        args.session.is_none_or(|id| handle.session_id == id) && args.owner.is_none_or(|id| handle.process_id == id)
    };
    let handles = client.handles()?.into_iter().filter(wanted).map(ListedHandle::from).collect();
    Ok((Box::new(ListedHandles { handles }), None))
}

/// Revokes one after the other. The first refusal ends it; what was done before is shown.
fn revoke(client: &mut Client, targets: &[(RevokeScope, u64)]) -> Outcome {
    let mut done = Revoked { revoked: Counts { handles: 0, kept: 0 } };
    for (scope, id) in targets {
        match client.revoke(*scope, *id) {
            Ok(reply) => {
                done.revoked.handles += reply.revoked;
                done.revoked.kept += reply.kept;
            }
            Err(error) => return (Box::new(done), Some(error)),
        }
    }
    (Box::new(done), None)
}

#[derive(Serialize)]
struct Revoked {
    revoked: Counts,
}

#[derive(Serialize)]
struct Counts {
    handles: u32,
    kept: u32,
}

impl Output for Revoked {
    fn text(&self) -> String {
        let kept = match self.revoked.kept {
            0 => String::new(),
            kept => format!("{kept} handles of NIC drivers are left: disable their adapters to take them back\n"),
        };
        facts(&[("revoked", format!("{} handles", self.revoked.handles))]) + &kept
    }
}

#[derive(Serialize)]
struct ListedHandles {
    handles: Vec<ListedHandle>,
}

#[derive(Serialize)]
struct ListedHandle {
    handle: String,
    kind: String,
    phase: String,
    pins: u32,
    session: u64,
    process_id: u64,
    owner: String,
    since: String,
    bytes: u64,
    name: String,
}

impl From<HeldHandle> for ListedHandle {
    fn from(handle: HeldHandle) -> Self {
        Self {
            handle: format!("{:#018x}", handle.id),
            kind: named(handle.kind, ObjectKind::from_code(handle.kind).map(ObjectKind::name)),
            phase: named(handle.phase, HandlePhase::from_code(handle.phase).map(HandlePhase::name)),
            pins: handle.pins,
            session: handle.session_id,
            process_id: handle.process_id,
            owner: handle.owner,
            since: nt_time(handle.opened_at),
            bytes: handle.size,
            name: shown(&handle.name).to_owned(),
        }
    }
}

/// The name of a number, or the number where this release does not know it.
fn named(code: u32, name: Option<&str>) -> String {
    name.map_or_else(|| format!("unknown ({code})"), str::to_owned)
}

/// The file name at the end of a path: enough for a table, in which the whole would not fit.
fn file_name(path: &str) -> &str {
    path.rsplit('\\').next().filter(|name| !name.is_empty()).unwrap_or("-")
}

/// A time without its fraction of a second, for tables.
fn seconds(time: &str) -> String {
    time.split_once('.').map_or_else(|| time.to_owned(), |(seconds, _)| format!("{seconds}Z"))
}

impl Output for ListedHandles {
    fn text(&self) -> String {
        if self.handles.is_empty() {
            return "no handle is open\n".into();
        }
        let row = |handle: &ListedHandle| {
            vec![
                handle.handle.clone(),
                handle.kind.clone(),
                handle.phase.clone(),
                handle.pins.to_string(),
                handle.session.to_string(),
                handle.process_id.to_string(),
                file_name(&handle.owner).to_owned(),
                seconds(&handle.since),
                handle.bytes.to_string(),
                handle.name.clone(),
            ]
        };
        let rows: Vec<_> = self.handles.iter().map(row).collect();
        table(&["handle", "kind", "phase", "pins", "session", "process", "owner", "since", "bytes", "name"], &rows)
    }
}

/// Lists the sessions.
pub(super) fn sessions(client: &mut Client) -> Result<ListedSessions, Error> {
    Ok(ListedSessions { sessions: client.sessions()?.into_iter().map(ListedSession::from).collect() })
}

#[derive(Serialize)]
pub(super) struct ListedSessions {
    sessions: Vec<ListedSession>,
}

#[derive(Serialize)]
struct ListedSession {
    session: u64,
    process_id: u64,
    owner: String,
    role: &'static str,
    ended: bool,
    since: String,
    handles: Usage,
    bytes: Usage,
    jobs: Usage,
    requests: u32,
    revoked: u32,
}

#[derive(Serialize)]
struct Usage {
    used: u64,
    limit: u64,
}

impl<T: Into<u64>> From<Quota<T>> for Usage {
    fn from(quota: Quota<T>) -> Self {
        Self { used: quota.used.into(), limit: quota.limit.into() }
    }
}

impl Usage {
    fn text(&self) -> String {
        format!("{}/{}", self.used, self.limit)
    }
}

impl From<SessionInfo> for ListedSession {
    fn from(session: SessionInfo) -> Self {
        Self {
            session: session.session_id,
            process_id: session.process_id,
            owner: session.owner,
            role: session.role.name(),
            ended: session.has_ended,
            since: nt_time(session.connected_at),
            handles: session.handles.into(),
            bytes: session.bytes.into(),
            jobs: session.jobs.into(),
            requests: session.requests,
            revoked: session.revoked,
        }
    }
}

impl Output for ListedSessions {
    fn text(&self) -> String {
        let row = |session: &ListedSession| {
            vec![
                session.session.to_string(),
                session.process_id.to_string(),
                file_name(&session.owner).to_owned(),
                if session.ended { format!("{}, ended", session.role) } else { session.role.to_owned() },
                seconds(&session.since),
                session.handles.text(),
                session.bytes.text(),
                session.jobs.text(),
                session.requests.to_string(),
                session.revoked.to_string(),
            ]
        };
        let rows: Vec<_> = self.sessions.iter().map(row).collect();
        table(
            &["session", "process", "owner", "role", "since", "handles", "bytes", "jobs", "requests", "revoked"],
            &rows,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_show_what_fits() {
        assert_eq!(file_name(r"\Device\HarddiskVolume3\Windows\agent.exe"), "agent.exe");
        assert_eq!((file_name("samplenic.sys"), file_name("")), ("samplenic.sys", "-"));
        assert_eq!(seconds("2025-01-31T12:00:00.0000001Z"), "2025-01-31T12:00:00Z");
    }
}
