//! One message: captured, parsed, answered.

use super::connection::Connection;
use super::failure::Failure;
use super::{inventory, requests, staging};
use crate::kernel::heap;
use crate::kernel::user_memory::{UserInput, UserOutput};
use crate::state::{self, State};
use alloc::vec::Vec;
use broker::{Error, Session, Shared};
use fltmgr::Passive;
use nt_types::{NtStatus, PVOID};
use protocol::wire::{ReplyHeader, RequestHeader};
use protocol::{FrameError, MAX_REQUEST_BYTES, Reason, Request, RequestBody};

/// What a request's handler works with.
pub(super) struct Context<'a> {
    pub(super) state: &'a State,
    pub(super) connection: &'a Connection,
    /// The client's number of the request.
    pub(super) id: u64,
    /// Room in the client's output buffer, in bytes.
    pub(super) room: usize,
    pub(super) passive: Passive,
}

/// A reply in kernel memory, and what it cost to make it.
pub(super) struct Reply {
    /// The reply, whole.
    pub(super) bytes: Vec<u8>,
    /// A handle that the reply gives to the client; closed again where the reply does not get there.
    pub(super) handle: Option<broker::Handle>,
}

/// PFLT_MESSAGE_NOTIFY. Buffers are raw addresses of the client's.
///
/// Fails itself only where no reply can be delivered: STATUS_BUFFER_TOO_SMALL, STATUS_ACCESS_VIOLATION,
/// STATUS_PORT_DISCONNECTED, STATUS_INSUFFICIENT_RESOURCES. Everything else is said in the reply.
pub(super) unsafe extern "efiapi" fn message(
    cookie: PVOID,
    input: PVOID,
    input_bytes: u32,
    output: PVOID,
    output_bytes: u32,
    returned: *mut u32,
) -> NtStatus {
    // SAFETY: documented to run at PASSIVE_LEVEL.
    let passive = unsafe { Passive::assume() };
    // SAFETY: FltMgr passes a variable of its own (rule: nc-fltkernel-pflt_message_notify). Set on every path.
    let returned = unsafe { &mut *returned };
    *returned = 0;
    let Some(call) = state::enter() else { return NtStatus::PORT_DISCONNECTED };
    let Some(connection) = call.connections.get(cookie as usize as u64) else { return NtStatus::PORT_DISCONNECTED };
    let buffers = UserInput::new(input, input_bytes)
        .and_then(|input| UserOutput::new(output, output_bytes).map(|output| (input, output)));
    let answered = buffers.and_then(|(input, output)| answer(&call, &connection, input, output, passive));
    connection.forget_if_over(&call);
    match answered {
        Ok(bytes) => {
            *returned = bytes;
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

/// Answers one message; the length of the reply in bytes.
#[inline(never)] // for the sake of the stack: each step has a frame of its own
fn answer(
    state: &State,
    connection: &Connection,
    input: UserInput,
    mut output: UserOutput,
    passive: Passive,
) -> Result<u32, NtStatus> {
    if output.room() < size_of::<ReplyHeader>() {
        return Err(NtStatus::BUFFER_TOO_SMALL);
    }
    // Counts the request in its session, whose end waits for nobody but is seen by everybody who is counted.
    let request = Session::begin(connection.session()).map_err(Error::status)?;
    let reply = reply_to(state, connection, input, output.room(), passive)?;
    let length = u32::try_from(reply.bytes.len()).map_err(|_| NtStatus::BUFFER_TOO_SMALL)?;
    let written = output.write(&reply.bytes, passive);
    if let (Err(_), Some(handle)) = (written, reply.handle) {
        // The client will never learn of the handle, so it is closed for it. If its session ended it is closed already.
        let _ = state.table.close(request.session(), handle);
    }
    written.map(|()| length)
}

/// The reply to one message, in kernel memory. Fails only where there is no memory for it or no input to read.
#[inline(never)]
fn reply_to(
    state: &State,
    connection: &Connection,
    input: UserInput,
    room: usize,
    passive: Passive,
) -> Result<Reply, NtStatus> {
    let too_large = input.len() > MAX_REQUEST_BYTES as usize;
    // Of a message that is too long the header is enough, to answer under the right number.
    let limit = if too_large { size_of::<RequestHeader>() } else { input.len() };
    let _charge = match connection.session().charge_bytes(limit as u64) {
        Ok(charge) => charge,
        Err(error) => return refuse(FrameError::new(&[], Reason::SessionBytesExceeded), Some(error)),
    };
    let message = input.capture(limit, passive)?;
    if too_large {
        return refuse(FrameError::new(&message, Reason::MessageTooLarge), None);
    }
    let request = match Request::parse(&message) {
        Ok(request) => request,
        Err(error) => return refuse(error, None),
    };
    let context = Context { state, connection, id: request.id, room, passive };
    let result = check_hello(&context, &request.body)
        .and_then(|()| check_right(&context, &request.body))
        .and_then(|()| dispatch(&context, &request.body));
    result.or_else(|failure| {
        let kind = request.body.kind().code();
        Reply::with(REPLY_BYTES, |out| {
            protocol::write_failure(out, kind, request.id, failure.status.0, Some(failure.reason), failure.detail)
        })
        .map_err(|_| NtStatus::INSUFFICIENT_RESOURCES)
    })
}

/// A refusal of a message that could not be understood, or not even be read.
#[inline(never)]
fn refuse(frame: FrameError, error: Option<Error>) -> Result<Reply, NtStatus> {
    let status = error.map_or(frame.status(), |error| error.status().0);
    Reply::with(REPLY_BYTES, |out| {
        let (kind, id) = (frame.kind(), frame.request_id());
        protocol::write_failure(out, kind, id, status, Some(frame.reason()), protocol::Detail::default())
    })
    .map_err(|_| NtStatus::INSUFFICIENT_RESOURCES)
}

/// The first message of a session is hello, and there is one.
fn check_hello(context: &Context<'_>, body: &RequestBody<'_>) -> Result<(), Failure> {
    if context.connection.said_hello() || matches!(body, RequestBody::Hello(_)) {
        Ok(())
    } else {
        Err(Failure::new(NtStatus::INVALID_DEVICE_STATE, Reason::HelloRequired))
    }
}

/// Files are for whoever may read them; what concerns everybody is for administrators.
fn check_right(context: &Context<'_>, body: &RequestBody<'_>) -> Result<(), Failure> {
    match body {
        RequestBody::Hello(_)
        | RequestBody::Open(_)
        | RequestBody::Query(_)
        | RequestBody::Read(_)
        | RequestBody::Close(_) => Ok(()),
        RequestBody::Stage(_)
        | RequestBody::Unstage(_)
        | RequestBody::List(_)
        | RequestBody::Handles(_)
        | RequestBody::Sessions(_)
        | RequestBody::Revoke(_) => context.session().owner().role.check_administrator().map_err(Failure::from),
    }
}

#[inline(never)]
fn dispatch(context: &Context<'_>, body: &RequestBody<'_>) -> Result<Reply, Failure> {
    match *body {
        RequestBody::Hello(hello) => requests::hello(context, hello),
        RequestBody::Open(open) => requests::open(context, open),
        RequestBody::Query(handle) => requests::query(context, handle),
        RequestBody::Read(read) => requests::read(context, read),
        RequestBody::Close(handle) => requests::close(context, handle),
        RequestBody::Stage(stage) => staging::stage(context, stage),
        RequestBody::Unstage(target) => staging::unstage(context, target),
        RequestBody::List(cursor) => staging::list(context, cursor),
        RequestBody::Handles(cursor) => inventory::handles(context, cursor),
        RequestBody::Sessions(cursor) => inventory::sessions(context, cursor),
        RequestBody::Revoke(revoke) => inventory::revoke(context, revoke),
    }
}

/// Longest reply without data, in bytes.
pub(super) const REPLY_BYTES: usize = 128;

impl Reply {
    /// A reply that `write` writes into a buffer of `capacity` bytes.
    pub(super) fn with<E: Into<Failure>>(
        capacity: usize,
        write: impl FnOnce(&mut [u8]) -> Result<usize, E>,
    ) -> Result<Self, Failure> {
        let mut bytes = heap::zeroed(capacity)?;
        let used = write(&mut bytes).map_err(Into::into)?;
        bytes.truncate(used);
        Ok(Self { bytes, handle: None })
    }
}

impl Context<'_> {
    /// The session of the client.
    pub(super) const fn session(&self) -> &Shared<Session> {
        self.connection.session()
    }

    /// Whether a reply of `bytes` will fit. Asked before anything is changed, so that a client whose buffer is too
    /// short can try again as if nothing had happened.
    pub(super) fn need_room(&self, bytes: usize) -> Result<(), Failure> {
        if self.room < bytes {
            return Err(Failure::new(NtStatus::BUFFER_TOO_SMALL, Reason::OutputBufferTooSmall));
        }
        Ok(())
    }
}
