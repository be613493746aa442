//! A client program inside the machine: a process, its port connection, and the protocol's requests one by one.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use kernel_host::process::{Placement, Process, Protection, UserBuffer};
use kernel_host::{Machine, PortConnection};
use nt_types::NtStatus;
use protocol::{
    Failure, HandleEntry, HandlePhase, HelloReply, HelloRequest, Kind, Name, ObjectKind, OpenReply, OpenRequest,
    QueryReply, Quota, ReadRequest, Reason, Reply, ReplyBody, Request, RequestBody, RevokeReply, RevokeRequest,
    RevokeScope, SessionEntry, StageReply, StageRequest, Target, UnstageReply,
};

/// Length in bytes of a reply header.
pub const REPLY_HEADER: usize = 32;

/// A refusal: the status, and the reason where the driver could still write one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Status of the reply, or of the call itself.
    pub status: NtStatus,
    /// Reason of the reply; `None` where the call itself failed.
    pub reason: Option<Reason>,
}

impl Refused {
    /// What a refusal in band looks like.
    #[must_use]
    pub const fn with(status: NtStatus, reason: Reason) -> Self {
        Self { status, reason: Some(reason) }
    }

    /// What a failed call looks like.
    #[must_use]
    pub const fn call(status: NtStatus) -> Self {
        Self { status, reason: None }
    }
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self { status: NtStatus(failure.status), reason: failure.reason() }
    }
}

/// One staged image, owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// Number of the image.
    pub image_id: u64,
    /// Length in bytes.
    pub size: u64,
    /// Digest computed by the driver.
    pub sha256: [u8; 32],
    /// Open handles of drivers.
    pub open_count: u32,
    /// Name under which it was staged.
    pub name: String,
    /// Drivers that got it.
    pub handed_to: String,
}

/// One open handle, as an administrator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Number for a revocation.
    pub id: u64,
    /// What it stands for.
    pub kind: Option<ObjectKind>,
    /// What is done with it.
    pub phase: Option<HandlePhase>,
    /// Session that has it.
    pub session_id: u64,
    /// Process of the session.
    pub process_id: u64,
    /// When it was opened, in 100 ns since 1601.
    pub opened_at: i64,
    /// Length in bytes.
    pub size: u64,
    /// Requests that use it.
    pub pins: u32,
    /// Image name of the process, or name of the NIC driver.
    pub owner: String,
    /// Name of the file.
    pub name: String,
}

/// One session, as an administrator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// Number of the session.
    pub session_id: u64,
    /// Process that connected.
    pub process_id: u64,
    /// When it connected, in 100 ns since 1601.
    pub connected_at: i64,
    /// `SESSION_*` flags.
    pub flags: u32,
    /// Handles.
    pub handles: Quota<u32>,
    /// Bytes.
    pub bytes: Quota<u64>,
    /// Jobs.
    pub jobs: Quota<u32>,
    /// Requests that run.
    pub requests: u32,
    /// Handles taken away and not closed yet.
    pub revoked: u32,
    /// Image name of the process, or name of the NIC driver.
    pub owner: String,
}

impl From<HandleEntry<'_>> for Held {
    fn from(entry: HandleEntry<'_>) -> Self {
        let HandleEntry { id, session_id, process_id, opened_at, size, pins, .. } = entry;
        let (kind, phase) = (ObjectKind::from_code(entry.kind), HandlePhase::from_code(entry.phase));
        let (owner, name) = (text(entry.owner), text(entry.name));
        Self { id, kind, phase, session_id, process_id, opened_at, size, pins, owner, name }
    }
}

impl From<SessionEntry<'_>> for Connected {
    fn from(entry: SessionEntry<'_>) -> Self {
        let SessionEntry {
            session_id, process_id, connected_at, flags, handles, bytes, jobs, requests, revoked, ..
        } = entry;
        let owner = text(entry.owner);
        Self { session_id, process_id, connected_at, flags, handles, bytes, jobs, requests, revoked, owner }
    }
}

/// A connected client.
#[derive(Debug)]
pub struct Client {
    process: Arc<Process>,
    port: PortConnection,
    next_id: AtomicU64,
    limits: Option<HelloReply>,
    kept: Option<Mutex<Buffers>>,
}

/// Memory of the process for one message after the other, each of at most a page.
#[derive(Debug)]
struct Buffers {
    input: UserBuffer,
    output: UserBuffer,
}

const PAGE: usize = 4096;

impl Client {
    /// Starts an administrator's process, connects, and says hello.
    #[must_use]
    pub fn start(machine: &Machine) -> Self {
        let mut client = Self::start_silent(machine);
        client.limits = Some(client.hello().expect("hello is answered"));
        client
    }

    /// As [`start`](Self::start), without hello.
    #[must_use]
    pub fn start_silent(machine: &Machine) -> Self {
        let process = machine.process("client.exe").start().expect("there is room for a process");
        Self::connect(process).expect("an administrator may connect")
    }

    /// Connects `process` to the broker's port.
    pub fn connect(process: Arc<Process>) -> Result<Self, NtStatus> {
        Self::connect_to(process, protocol::PORT_NAME)
    }

    /// Connects `process` to a port of this name.
    pub fn connect_to(process: Arc<Process>, port: &str) -> Result<Self, NtStatus> {
        let port = process.connect(port, &[])?;
        Ok(Self { process, port, next_id: AtomicU64::new(1), limits: None, kept: None })
    }

    /// Sends all further messages from the same memory, which is faster but does not show overruns: for long runs.
    ///
    /// # Panics
    /// When the process is gone.
    #[must_use]
    pub fn keeping_buffers(mut self) -> Self {
        let page =
            || self.process.allocate(PAGE, Protection::ReadWrite, Placement::PageStart).expect("the process lives");
        self.kept = Some(Mutex::new(Buffers { input: page(), output: page() }));
        self
    }

    /// The process.
    #[must_use]
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// The port connection, for messages that the protocol's builders would not write.
    #[must_use]
    pub fn port(&self) -> &PortConnection {
        &self.port
    }

    /// Ends the process as a crash would: nothing is closed first.
    pub fn die(self) {
        self.process.terminate();
    }

    /// Sends raw bytes; the bytes of the reply come back.
    pub fn send(&self, message: &[u8], output: usize) -> Result<Vec<u8>, Refused> {
        let sent = match &self.kept {
            Some(kept) if message.len().max(output) <= PAGE => {
                // One message at a time: the memory is all of them's. A thread that panicked leaves it as good as before.
                let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
                self.send_from(&kept, message, output)
            }
            _ => self.port.send_message(message, output),
        };
        sent.map_err(Refused::call)
    }

    fn send_from(&self, kept: &Buffers, message: &[u8], output: usize) -> Result<Vec<u8>, NtStatus> {
        let (input_at, output_at) = (kept.input.address(), kept.output.address());
        self.process.memory().write(input_at, message)?;
        let returned = self.port.send_raw(input_at, message.len() as u32, output_at, output as u32)?;
        self.process.memory().read_vec(output_at, returned as usize)
    }

    /// Sends a request and hands the parsed reply to `read`.
    pub fn request<R>(
        &self,
        body: RequestBody<'_>,
        output: usize,
        read: impl FnOnce(ReplyBody<'_>) -> R,
    ) -> Result<R, Refused> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let message = encode(id, body);
        let kind = body.kind();
        let bytes = self.send(&message, output)?;
        let reply = Reply::parse(&bytes, kind, id).expect("the driver's replies are well formed");
        match reply.body {
            ReplyBody::Failed(failure) => Err(failure.into()),
            body => Ok(read(body)),
        }
    }

    /// Says hello.
    pub fn hello(&self) -> Result<HelloReply, Refused> {
        let body = RequestBody::Hello(HelloRequest { min_version: protocol::VERSION, max_version: protocol::VERSION });
        self.request(body, 256, |reply| match reply {
            ReplyBody::Hello(hello) => hello,
            other => panic!("not a hello reply: {other:?}"),
        })
    }

    /// Limits and policy, as the driver told them at [`start`](Self::start).
    ///
    /// # Panics
    /// When the client was started silently.
    #[must_use]
    pub fn limits(&self) -> HelloReply {
        self.limits.expect("the client has said hello")
    }

    /// Opens a file by its NT path.
    pub fn open(&self, path: &str) -> Result<OpenReply, Refused> {
        self.open_units(&path.encode_utf16().collect::<Vec<_>>())
    }

    /// Opens a file by a path in UTF-16 units, which need not be valid UTF-16.
    pub fn open_units(&self, path: &[u16]) -> Result<OpenReply, Refused> {
        let body = RequestBody::Open(OpenRequest { name: Name::from_units(path) });
        self.request(body, 256, |reply| match reply {
            ReplyBody::Open(open) => open,
            other => panic!("not an open reply: {other:?}"),
        })
    }

    /// Asks for the facts of an open file.
    pub fn query(&self, handle: u64) -> Result<QueryReply, Refused> {
        self.request(RequestBody::Query(handle), 256, |reply| match reply {
            ReplyBody::Query(query) => query,
            other => panic!("not a query reply: {other:?}"),
        })
    }

    /// Reads once.
    pub fn read(&self, handle: u64, offset: u64, length: u32) -> Result<Vec<u8>, Refused> {
        let body = RequestBody::Read(ReadRequest { handle, offset, length });
        let output = REPLY_HEADER + 8 + length.min(protocol::MAX_READ_BYTES) as usize;
        self.request(body, output, |reply| match reply {
            ReplyBody::Read(data) => data.to_vec(),
            other => panic!("not a read reply: {other:?}"),
        })
    }

    /// Reads a whole open file in pieces of `piece` bytes.
    pub fn read_all(&self, handle: u64, piece: u32) -> Vec<u8> {
        let mut all = Vec::new();
        loop {
            match self.read(handle, all.len() as u64, piece) {
                Ok(data) => all.extend(data),
                Err(refused) => {
                    assert_eq!(refused, Refused::with(NtStatus::END_OF_FILE, Reason::EndOfFile));
                    return all;
                }
            }
        }
    }

    /// Closes a handle.
    pub fn close(&self, handle: u64) -> Result<(), Refused> {
        self.request(RequestBody::Close(handle), 256, |reply| {
            assert_eq!(reply, ReplyBody::Close);
        })
    }

    /// Stages a file, with the digest that it must have.
    pub fn stage(&self, path: &str, sha256: Option<[u8; 32]>) -> Result<StageReply, Refused> {
        let path: Vec<u16> = path.encode_utf16().collect();
        let body = RequestBody::Stage(StageRequest {
            name: Name::from_units(&path),
            sha256,
            highest_address: None,
            deadline_ms: 10_000,
        });
        self.request(body, 256, |reply| match reply {
            ReplyBody::Stage(stage) => stage,
            other => panic!("not a stage reply: {other:?}"),
        })
    }

    /// Takes a staged image out by its number.
    pub fn unstage(&self, image_id: u64) -> Result<UnstageReply, Refused> {
        let body = RequestBody::Unstage(Target::Image(image_id));
        self.request(body, 256, |reply| match reply {
            ReplyBody::Unstage(unstage) => unstage,
            other => panic!("not an unstage reply: {other:?}"),
        })
    }

    /// The staged images, in one reply.
    pub fn list(&self) -> Result<Vec<Staged>, Refused> {
        self.request(RequestBody::List(0), 64 * 1024, |reply| match reply {
            ReplyBody::List(entries) => entries
                .iter()
                .map(|entry| Staged {
                    image_id: entry.image_id,
                    size: entry.size,
                    sha256: entry.sha256,
                    open_count: entry.open_count,
                    name: text(entry.name),
                    handed_to: text(entry.handed_to),
                })
                .collect(),
            other => panic!("not a list reply: {other:?}"),
        })
    }
}

impl Client {
    /// All open handles, in as many replies as it takes.
    pub fn handles(&self) -> Result<Vec<Held>, Refused> {
        let (mut all, mut cursor) = (Vec::new(), 0);
        loop {
            let (page, next) = self.handles_from(cursor, 32 * 1024)?;
            all.extend(page);
            assert!(next == 0 || next > cursor, "a cursor only grows");
            if next == 0 {
                return Ok(all);
            }
            cursor = next;
        }
    }

    /// One reply of open handles, of at most `output` bytes; also where to go on.
    pub fn handles_from(&self, cursor: u64, output: usize) -> Result<(Vec<Held>, u64), Refused> {
        self.request(RequestBody::Handles(cursor), output, |reply| match reply {
            ReplyBody::Handles(list) => (list.iter().map(Held::from).collect(), list.next_cursor),
            other => panic!("not a handles reply: {other:?}"),
        })
    }

    /// The sessions, in one reply.
    pub fn sessions(&self) -> Result<Vec<Connected>, Refused> {
        self.sessions_from(0, 64 * 1024).map(|(sessions, _)| sessions)
    }

    /// One reply of sessions, of at most `output` bytes; also where to go on.
    pub fn sessions_from(&self, cursor: u64, output: usize) -> Result<(Vec<Connected>, u64), Refused> {
        self.request(RequestBody::Sessions(cursor), output, |reply| match reply {
            ReplyBody::Sessions(list) => (list.iter().map(Connected::from).collect(), list.next_cursor),
            other => panic!("not a sessions reply: {other:?}"),
        })
    }

    /// Takes handles away.
    pub fn revoke(&self, scope: RevokeScope, id: u64) -> Result<RevokeReply, Refused> {
        self.request(RequestBody::Revoke(RevokeRequest { scope, id }), 256, |reply| match reply {
            ReplyBody::Revoke(revoke) => revoke,
            other => panic!("not a revoke reply: {other:?}"),
        })
    }

    /// Number of this session.
    #[must_use]
    pub fn session_id(&self) -> u64 {
        self.limits().session_id
    }
}

/// The bytes of a request.
#[must_use]
pub fn encode(id: u64, body: RequestBody<'_>) -> Vec<u8> {
    let request = Request { id, body };
    let mut bytes = vec![0; request.encoded_len()];
    request.write(&mut bytes).expect("the buffer has the encoded length");
    bytes
}

/// A hello message, the shortest request there is that is always legal.
#[must_use]
pub fn hello_bytes() -> Vec<u8> {
    encode(7, RequestBody::Hello(HelloRequest { min_version: protocol::VERSION, max_version: protocol::VERSION }))
}

/// The refusal in `reply`, which answers a request of `kind` with number `id`.
#[must_use]
pub fn refusal_in(reply: &[u8], kind: Kind, id: u64) -> Refused {
    match Reply::parse(reply, kind, id).expect("well formed").body {
        ReplyBody::Failed(failure) => failure.into(),
        body => panic!("not refused: {body:?}"),
    }
}

fn text(name: Name<'_>) -> String {
    String::from_utf16_lossy(&name.units().collect::<Vec<_>>())
}
