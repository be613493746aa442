//! Requests of administrators about handles and sessions: who holds what, and taking it away.
//!
//! That the client is an administrator has been checked before a request comes here. Nothing here
//! holds a lock, or keeps more than one entry from being closed, while a list is written.

use super::failure::Failure;
use super::message::{Context, REPLY_BYTES, Reply};
use super::staging::MAX_LIST_BYTES;
use crate::entry::Entry;
use crate::kernel::heap;
use crate::state::{State, Table};
use broker::{Error, Pinned, Role, Session, SessionId, Shared};
use protocol::wire::{self, ReplyHeader};
use protocol::{
    BufferTooSmall, HandleEntry, HandlePhase, Kind, ListWriter, Name, ObjectKind, Quota, RevokeReply, RevokeRequest,
    RevokeScope, SessionEntry,
};

/// How many slots of the table one request looks at. A table that was large once has many that are empty, and no
/// request should keep its thread in the kernel for long.
const MAX_SLOTS: u32 = 65_536;

/// Which handles are open, from a cursor on, as many as fit. A cursor is a slot's number, which is no secret.
#[inline(never)]
pub(super) fn handles(context: &Context<'_>, cursor: u64) -> Result<Reply, Failure> {
    let state = context.state;
    let capacity = context.room.min(MAX_LIST_BYTES);
    let _charge = context.session().charge_bytes(capacity as u64)?;
    Reply::with(capacity, |out| {
        let mut writer = ListWriter::new(Kind::Handles, out)?;
        let first = u32::try_from(cursor).unwrap_or(u32::MAX);
        let end = first.saturating_add(MAX_SLOTS);
        for pinned in state.table.iter_in(first..end) {
            if let Err(too_small) = push_handle(&mut writer, state, &pinned) {
                let next = u64::from(pinned.next_cursor()).saturating_sub(1);
                return finish(writer, too_small, context.id, next, state.table.len());
            }
        }
        let next = if end < state.table.slots() { u64::from(end) } else { 0 };
        writer.finish(context.id, next, state.table.len()).map_err(Failure::from)
    })
}

#[inline(never)] // for the sake of the stack
fn push_handle(
    writer: &mut ListWriter<'_>,
    state: &State,
    pinned: &Pinned<'_, Entry, crate::entry::Reaper, crate::kernel::irql::RaiseToDispatch>,
) -> Result<(), BufferTooSmall> {
    let session = pinned.session();
    // Without our own pin.
    let pins = pinned.pins().saturating_sub(1);
    let is_mapped = pinned.is_mapped();
    let phase = match pins {
        _ if is_mapped => HandlePhase::Mapped,
        0 => HandlePhase::Idle,
        _ => HandlePhase::InUse,
    };
    writer.push(&HandleEntry {
        id: state.entry_ids.id(pinned.handle()),
        kind: object_kind(pinned).code(),
        phase: phase.code(),
        session_id: session.id().0,
        process_id: session.owner_process(),
        opened_at: pinned.opened_at(),
        size: pinned.size(),
        pins,
        owner: Name::from_units(session.owner().name.units()),
        name: Name::from_units(pinned.name()),
    })
}

const fn object_kind(entry: &Entry) -> ObjectKind {
    match entry {
        Entry::File(_) => ObjectKind::File,
        Entry::Image(_) => ObjectKind::Image,
    }
}

/// Ends a list that is full. With not even one entry a cursor would lead the client to the same place for ever.
fn finish(writer: ListWriter<'_>, too_small: BufferTooSmall, id: u64, next: u64, total: u32) -> Result<usize, Failure> {
    if writer.count() == 0 {
        return Err(Failure::from(too_small));
    }
    writer.finish(id, next, total).map_err(Failure::from)
}

/// Which sessions there are, from a cursor on, as many as fit. A cursor is the number of the last session listed.
#[inline(never)]
pub(super) fn sessions(context: &Context<'_>, cursor: u64) -> Result<Reply, Failure> {
    let state = context.state;
    let capacity = context.room.min(MAX_LIST_BYTES);
    let _charge = context.session().charge_bytes(capacity as u64)?;
    Reply::with(capacity, |out| {
        let mut writer = ListWriter::new(Kind::Sessions, out)?;
        let total = state.connections.len().saturating_add(state.consumers.len());
        let total = u32::try_from(total).unwrap_or(u32::MAX);
        let mut last = cursor;
        while let Some(session) = next_session(state, last) {
            if let Err(too_small) = push_session(&mut writer, &session, state.table.handles_of(&session)) {
                return finish(writer, too_small, context.id, last, total);
            }
            last = session.id().0;
        }
        writer.finish(context.id, 0, total).map_err(Failure::from)
    })
}

/// The session with the smallest number above `last`, of a client or of a NIC driver.
fn next_session(state: &State, last: u64) -> Option<Shared<Session>> {
    let client = state.connections.next(last).map(|connection| connection.session().clone());
    let driver = state.consumers.next(last).map(|consumer| consumer.session().clone());
    match (client, driver) {
        (Some(client), Some(driver)) if driver.id() < client.id() => Some(driver),
        (Some(client), _) => Some(client),
        (None, driver) => driver,
    }
}

#[inline(never)] // for the sake of the stack
fn push_session(writer: &mut ListWriter<'_>, session: &Session, handles: u64) -> Result<(), BufferTooSmall> {
    let owner = session.owner();
    let limits = session.limits();
    let role = match owner.role {
        Role::Administrator => wire::SESSION_ADMINISTRATOR,
        Role::User => 0,
        Role::Driver => wire::SESSION_DRIVER,
    };
    let ended = if session.has_ended() { wire::SESSION_ENDED } else { 0 };
    let narrow = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    writer.push(&SessionEntry {
        session_id: session.id().0,
        process_id: owner.process,
        connected_at: owner.since,
        flags: role | ended,
        handles: Quota { used: narrow(handles), limit: limits.handles },
        bytes: Quota { used: session.bytes(), limit: limits.bytes },
        jobs: Quota { used: narrow(session.jobs()), limit: limits.jobs },
        requests: narrow(session.running_requests()),
        revoked: session.revoked(),
        owner: Name::from_units(owner.name.units()),
    })
}

/// Takes handles away. Requests that use them go on to their end; whoever comes later is told.
///
/// Handles of NIC drivers are left alone: the driver, or its device, may be reading the image at this moment, and a driver
/// whose handle fails under it is a driver that was never tested for that. Disabling the adapter takes them back in order.
#[inline(never)]
pub(super) fn revoke(context: &Context<'_>, request: RevokeRequest) -> Result<Reply, Failure> {
    context.need_room(size_of::<ReplyHeader>().saturating_add(size_of::<wire::RevokeReply>()))?;
    // The reply's memory first: a revocation cannot be undone for want of it.
    let mut bytes = heap::zeroed(REPLY_BYTES)?;
    let RevokeRequest { scope, id } = request;
    let state = context.state;
    let outcome = match scope {
        RevokeScope::Handle => revoke_one(state, id)?,
        RevokeScope::Session => {
            find_session(state, |session| session.id() == SessionId(id))?;
            revoke_all(&state.table, |session| session.id() == SessionId(id))?
        }
        RevokeScope::Process => {
            find_session(state, |session| session.owner_process() == id)?;
            revoke_all(&state.table, |session| session.owner_process() == id)?
        }
    };
    let used = outcome.write(&mut bytes, context.id)?;
    bytes.truncate(used);
    Ok(Reply { bytes, handle: None })
}

fn revoke_one(state: &State, id: u64) -> Result<RevokeReply, Error> {
    let pinned = state.entry_ids.find(&state.table, id).ok_or(Error::HandleNotFound)?;
    if is_of_driver(pinned.session()) {
        return Err(Error::HandleOfDriver);
    }
    match pinned.revoke() {
        Ok(()) => Ok(RevokeReply { revoked: 1, kept: 0 }),
        // Its owner, or another administrator, was faster.
        Err(Error::HandleClosed | Error::HandleRevoked) => Err(Error::HandleNotFound),
        Err(error) => Err(error),
    }
}

/// Revokes what there is now. What the owner opens meanwhile may or may not be seen: who wants to keep it out ends its process.
fn revoke_all(table: &Table, wanted: impl Fn(&Session) -> bool) -> Result<RevokeReply, Error> {
    let mut outcome = RevokeReply { revoked: 0, kept: 0 };
    for pinned in table.iter().filter(|pinned| wanted(pinned.session())) {
        if is_of_driver(pinned.session()) {
            outcome.kept = outcome.kept.saturating_add(1);
            continue;
        }
        match pinned.revoke() {
            Ok(()) => outcome.revoked = outcome.revoked.saturating_add(1),
            Err(Error::HandleClosed | Error::HandleRevoked) => {}
            // Those before are gone; asking again gets the others.
            Err(error) => return Err(error),
        }
    }
    Ok(outcome)
}

fn is_of_driver(session: &Session) -> bool {
    session.owner().role == Role::Driver
}

/// [`Error::SessionNotFound`] (`STATUS_NOT_FOUND`) where no session is wanted.
fn find_session(state: &State, wanted: impl Fn(&Session) -> bool) -> Result<(), Error> {
    let mut last = 0;
    while let Some(session) = next_session(state, last) {
        if wanted(&session) {
            return Ok(());
        }
        last = session.id().0;
    }
    Err(Error::SessionNotFound)
}
