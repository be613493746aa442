//! Requests about files.

use super::failure::Failure;
use super::message::{Context, REPLY_BYTES, Reply};
use crate::entry::{Entry, OpenFile};
use crate::files::{self, File};
use crate::kernel::time;
use alloc::vec::Vec;
use broker::{Error, Handle, Kind};
use nt_types::NtStatus;
use protocol::wire::{self, ReplyHeader};
use protocol::{
    HelloReply, HelloRequest, MAX_NAME_BYTES, MAX_REQUEST_BYTES, Name, OpenReply, OpenRequest, ReadReply, ReadRequest,
    Reason, VERSION, write_close,
};

/// The driver's version, as three numbers.
const DRIVER_VERSION: [u16; 3] = [
    version_part(env!("CARGO_PKG_VERSION_MAJOR")),
    version_part(env!("CARGO_PKG_VERSION_MINOR")),
    version_part(env!("CARGO_PKG_VERSION_PATCH")),
];

/// Agrees on a version and tells the limits.
#[inline(never)]
pub(super) fn hello(context: &Context<'_>, hello: HelloRequest) -> Result<Reply, Failure> {
    context.need_room(size_of::<ReplyHeader>().saturating_add(size_of::<wire::HelloReply>()))?;
    if hello.min_version > VERSION || hello.max_version < VERSION {
        return Err(Failure::new(NtStatus::REVISION_MISMATCH, Reason::NoCommonVersion));
    }
    if !context.connection.say_hello() {
        return Err(Failure::new(NtStatus::INVALID_DEVICE_STATE, Reason::HelloRepeated));
    }
    let limits = &context.state.limits;
    let reply = HelloReply {
        version: VERSION,
        driver: DRIVER_VERSION,
        policy: context.state.policy,
        max_request_bytes: MAX_REQUEST_BYTES,
        max_read_bytes: limits.read_bytes,
        max_image_bytes: limits.image_bytes,
        max_name_bytes: MAX_NAME_BYTES,
        max_handles_per_session: context.session().limits().handles,
        max_staged_bytes: limits.total_bytes,
        session_id: context.connection.number(),
    };
    Reply::with(REPLY_BYTES, |out| reply.write(out, context.id))
}

/// Opens a file and gives the client a handle.
#[inline(never)]
pub(super) fn open(context: &Context<'_>, open: OpenRequest<'_>) -> Result<Reply, Failure> {
    context.need_room(size_of::<ReplyHeader>().saturating_add(size_of::<wire::OpenReply>()))?;
    // The room in the table comes first: undoing an open is more than not doing it.
    let reservation = context.state.table.reserve(context.session())?;
    let (file, size) = open_file(context, open.name)?;
    let handle = reservation.fill(Entry::File(OpenFile { file, size, opened_at: time::of_day() }))?;
    let reply = Reply::with(REPLY_BYTES, |out| OpenReply { handle: handle.raw(), size }.write(out, context.id));
    match reply {
        Ok(reply) => Ok(Reply { handle: Some(handle), ..reply }),
        Err(failure) => {
            // The client does not get the handle; an end of the session may have closed it before us.
            let _ = context.state.table.close(context.session(), handle);
            Err(failure)
        }
    }
}

/// Opens and checks a file; also its length in bytes.
pub(super) fn open_file(context: &Context<'_>, name: Name<'_>) -> Result<(File, u64), Error> {
    let _charge = context.session().charge_bytes(name.byte_len() as u64)?;
    let units = units(name)?;
    let state = context.state;
    let file = files::open_nt_path(state.filter(), &state.roots, &units, context.passive)?;
    let facts = file.facts(context.passive)?;
    facts.check(&state.limits)?;
    Ok((file, facts.identity.size))
}

/// Facts of an open file.
#[inline(never)]
pub(super) fn query(context: &Context<'_>, handle: u64) -> Result<Reply, Failure> {
    let pinned = context.state.table.get_kind(context.session(), Handle::from_raw(handle)?, Kind::File)?;
    let Entry::File(OpenFile { file, .. }) = &*pinned else { return Err(Error::HandleWrongKind.into()) };
    let reply = file.query(context.passive)?;
    context.need_room(size_of::<ReplyHeader>().saturating_add(size_of::<wire::QueryReply>()))?;
    Reply::with(REPLY_BYTES, |out| reply.write(out, context.id))
}

/// Bytes of an open file: read into kernel memory, since a lower driver must not be handed a client's address.
#[inline(never)]
pub(super) fn read(context: &Context<'_>, read: ReadRequest) -> Result<Reply, Failure> {
    let pinned = context.state.table.get_kind(context.session(), Handle::from_raw(read.handle)?, Kind::File)?;
    let Entry::File(OpenFile { file, .. }) = &*pinned else { return Err(Error::HandleWrongKind.into()) };
    let size = file.size(context.passive).map_err(Failure::reading)?;
    let length = context.state.limits.check_read(read.offset, read.length, size)?;
    let needed = ReadReply::encoded_len(length);
    context.need_room(needed)?;
    let _charge = context.session().charge_bytes(needed as u64)?;
    Reply::with(needed, |out| {
        let data = ReadReply::data_mut(out).ok_or(Error::OutOfMemory)?;
        let bytes = fill(file, read.offset, data, context).map_err(Failure::reading)?;
        if bytes == 0 {
            // It was longer when we asked.
            return Err(Failure::from(Error::EndOfFile));
        }
        ReadReply::finish(out, context.id, bytes).map_err(Failure::from)
    })
}

/// Reads until the buffer is full or the file ends: a file system may return less than it was asked for.
fn fill(file: &File, offset: u64, buffer: &mut [u8], context: &Context<'_>) -> Result<u32, Error> {
    let mut done = 0_usize;
    while let Some(rest) = buffer.get_mut(done..).filter(|rest| !rest.is_empty()) {
        let at = offset.checked_add(done as u64).ok_or(Error::OffsetOverflow)?;
        match file.read_at(at, rest, context.passive)? {
            0 => break,
            bytes => done = done.saturating_add(bytes),
        }
    }
    u32::try_from(done).map_err(|_| Error::ReadTooLarge)
}

/// Closes a handle. The file closes with the last request that uses it, most often here.
#[inline(never)]
pub(super) fn close(context: &Context<'_>, handle: u64) -> Result<Reply, Failure> {
    // The reply first: a close cannot be undone for want of memory.
    let reply = Reply::with(REPLY_BYTES, |out| write_close(out, context.id))?;
    context.state.table.close(context.session(), Handle::from_raw(handle)?)?;
    Ok(reply)
}

/// A name's UTF-16 units, aligned and on our heap.
pub(super) fn units(name: Name<'_>) -> Result<Vec<u16>, Error> {
    let mut units = Vec::new();
    units.try_reserve_exact(name.unit_len()).map_err(|_| Error::OutOfMemory)?;
    units.extend(name.units());
    Ok(units)
}

/// A decimal number, computed by the compiler. Cargo's version parts are nothing else.
#[expect(clippy::arithmetic_side_effects, clippy::indexing_slicing, reason = "evaluated at compile time only")]
const fn version_part(text: &str) -> u16 {
    let digits = text.as_bytes();
    let mut number = 0;
    let mut at = 0;
    while at < digits.len() {
        number = number * 10 + (digits[at] - b'0') as u16;
        at += 1;
    }
    number
}
