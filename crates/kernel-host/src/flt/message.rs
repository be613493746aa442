//! FltSendMessage: messages from the driver to the program, and the program's replies.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use nt_types::NtStatus;

use super::object::{self, FltObject};
use super::port::ClientPort;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::raw::Raw;
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltSendMessage(max 1, fails SEND) = flt_send_message;
}

/// How often a wait looks whether the machine has stopped.
const LOOK: Duration = Duration::from_millis(50);

/// Messages on their way to a program.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    last_id: u64,
    /// Sent, not fetched yet.
    queued: VecDeque<Message>,
    /// Fetched, and somebody waits for the reply.
    awaited: Vec<Awaited>,
}

/// A message as the program gets it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// `FILTER_MESSAGE_HEADER::MessageId`, to be given back with the reply.
    pub id: u64,
    /// `FILTER_MESSAGE_HEADER::ReplyLength`: 0 when no reply is expected, else with the 16-byte reply header.
    pub reply_length: u32,
    /// The message itself.
    pub data: Vec<u8>,
}

#[derive(Debug)]
struct Awaited {
    id: u64,
    reply: Option<(NtStatus, Vec<u8>)>,
}

/// How far a message came.
enum Progress {
    Queued,
    Fetched,
    Replied(Vec<u8>),
}

impl Outbox {
    /// Wakes everybody who waits: something about the connection has changed.
    pub(super) fn wake(&self) {
        let _state = self.lock();
        self.changed.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn put(&self, data: Vec<u8>, reply_length: u32) -> u64 {
        let mut state = self.lock();
        state.last_id += 1;
        let id = state.last_id;
        state.queued.push_back(Message { id, reply_length, data });
        if reply_length != 0 {
            state.awaited.push(Awaited { id, reply: None });
        }
        self.changed.notify_all();
        id
    }

    /// The sender gives up, or has what it wanted.
    fn forget(&self, id: u64) {
        let mut state = self.lock();
        state.queued.retain(|message| message.id != id);
        state.awaited.retain(|awaited| awaited.id != id);
    }

    fn progress(state: &mut State, id: u64) -> Progress {
        if state.queued.iter().any(|message| message.id == id) {
            return Progress::Queued;
        }
        let awaited = state.awaited.iter_mut().find(|awaited| awaited.id == id);
        match awaited.and_then(|awaited| awaited.reply.take()) {
            Some((_, bytes)) => Progress::Replied(bytes),
            None => Progress::Fetched,
        }
    }

    /// FilterGetMessage: the next message, waiting for it at most `patience`.
    ///
    /// # Errors
    /// `TIMEOUT` (a status of success severity) when none came, `PORT_DISCONNECTED`.
    pub(super) fn fetch(&self, port: &ClientPort, patience: Duration) -> Result<Message, NtStatus> {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        loop {
            if port.disconnected.load(Ordering::Acquire) {
                return Err(NtStatus::PORT_DISCONNECTED);
            }
            if let Some(message) = state.queued.pop_front() {
                self.changed.notify_all();
                return Ok(message);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(NtStatus::TIMEOUT);
            }
            (state, _) = self.changed.wait_timeout(state, left.min(LOOK)).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// FilterReplyMessage.
    ///
    /// # Errors
    /// `FLT_NO_WAITER_FOR_REPLY` when the sender has gone or never wanted one.
    pub(super) fn reply(&self, id: u64, status: NtStatus, data: Vec<u8>) -> Result<(), NtStatus> {
        let mut state = self.lock();
        let waiting = state.awaited.iter_mut().find(|awaited| awaited.id == id && awaited.reply.is_none());
        waiting.ok_or(NtStatus::FLT_NO_WAITER_FOR_REPLY)?.reply = Some((status, data));
        self.changed.notify_all();
        Ok(())
    }
}

/// The moment a time-out ends: NULL and zero wait for ever, negative is relative, positive absolute since 1601.
fn deadline(timeout: Raw<i64>) -> Option<Instant> {
    const EPOCH: u64 = 116_444_736_000_000_000;
    let ticks = timeout.some()?.read();
    let nanoseconds = |ticks: u64| Duration::from_nanos(ticks.saturating_mul(100));
    match ticks {
        0 => None,
        ..0 => Instant::now().checked_add(nanoseconds(ticks.unsigned_abs())),
        _ => {
            let since_1970 = nanoseconds(ticks.unsigned_abs().saturating_sub(EPOCH));
            let left = (SystemTime::UNIX_EPOCH + since_1970).duration_since(SystemTime::now()).unwrap_or_default();
            Instant::now().checked_add(left)
        }
    }
}

extern "efiapi" fn flt_send_message(
    filter: usize,
    cell: Raw<usize>,
    buffer: Raw<u8>,
    length: u32,
    reply: Raw<u8>,
    reply_length: Raw<u32>,
    timeout: Raw<i64>,
) -> NtStatus {
    /// Bytes of FILTER_REPLY_HEADER, which the program's view of the reply includes.
    const HEADER: u32 = 16;
    let call = Call::enter();
    let _filter = object::filter(&call, filter);
    if !reply.is_null() && reply_length.is_null() {
        call.stop(Rule::BadArgument, "ReplyLength is required where there is a reply buffer");
    }
    if buffer.is_null() {
        call.stop(Rule::BadArgument, "SenderBuffer is required");
    }
    let callback = call.thread().entry().map(|entry| entry.callback);
    if callback == Some("InstanceSetupCallback") {
        call.stop(
            Rule::Deadlock,
            "FltSendMessage in an InstanceSetupCallback: the program's answer may need the volume",
        );
    }
    let port = match call.machine().flt.objects.get(cell.read()) {
        Some(FltObject::ClientPort(port)) => port,
        None => return NtStatus::PORT_DISCONNECTED,
        other => object::wrong(&call, cell.read(), "PFLT_PORT (client)", other.as_ref()),
    };
    let room = if reply.is_null() { 0 } else { reply_length.read() };
    let wanted = if reply.is_null() { 0 } else { room.saturating_add(HEADER) };
    call.bytes(u64::from(length));
    let id = port.outbox.put(buffer.read_bytes(length as usize), wanted);
    let outcome = wait(call.thread(), &port, id, !reply.is_null(), deadline(timeout));
    port.outbox.forget(id);
    match outcome {
        Err(status) => status,
        Ok(bytes) if reply.is_null() => {
            debug_assert!(bytes.is_empty(), "nobody asked for a reply");
            NtStatus::SUCCESS
        }
        Ok(bytes) => {
            let fits = bytes.len().min(room as usize);
            reply.write_bytes(&bytes[..fits]);
            reply_length.write(fits as u32);
            if fits < bytes.len() { NtStatus::BUFFER_OVERFLOW } else { NtStatus::SUCCESS }
        }
    }
}

fn wait(
    thread: &Thread,
    port: &Arc<ClientPort>,
    id: u64,
    wants_reply: bool,
    deadline: Option<Instant>,
) -> Result<Vec<u8>, NtStatus> {
    let outbox = &port.outbox;
    loop {
        let state = outbox.lock();
        let mut state = state;
        match Outbox::progress(&mut state, id) {
            Progress::Replied(bytes) => return Ok(bytes),
            Progress::Fetched if !wants_reply => return Ok(Vec::new()),
            Progress::Queued | Progress::Fetched => {}
        }
        if port.disconnected.load(Ordering::Acquire) {
            return Err(NtStatus::PORT_DISCONNECTED);
        }
        let left = deadline.map_or(LOOK, |deadline| deadline.saturating_duration_since(Instant::now()));
        if left.is_zero() {
            return Err(NtStatus::TIMEOUT);
        }
        let waited = outbox.changed.wait_timeout(state, left.min(LOOK));
        drop(waited);
        thread.leave_if_stopped();
    }
}
