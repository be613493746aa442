//! One session with the driver: a typed method for each kind of request.

use protocol::{
    HelloReply, HelloRequest, ListEntry, Name, OpenReply, OpenRequest, PORT_NAME, QueryReply, ReadReply, ReadRequest,
    Reason, Reply, ReplyBody, ReplyError, Request, RequestBody, StageReply, StageRequest, Target, USER_PORT_NAME,
    UnstageReply,
};

use crate::error::FltlibCall;
use crate::{Error, FilterLibrary, HResult, LibraryError, NtPath, Port, Sha256Digest};

/// A session. Dropping it ends the session; the driver closes what is still open.
pub struct Client {
    session: Session,
    limits: HelloReply,
}

/// A staged image, as listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Number of the image.
    pub image_id: u64,
    /// Name it was staged under.
    pub name: String,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256, all zero until known.
    pub sha256: Sha256Digest,
    /// [`Phase`](protocol::Phase) code.
    pub phase: u32,
    /// Bytes read and hashed so far.
    pub bytes_done: u64,
    /// Drivers and sessions that hold it now.
    pub open_count: u32,
    /// Driver that opened it last; empty if none did.
    pub handed_to: String,
}

/// The HRESULT of `ERROR_ACCESS_DENIED`.
const E_ACCESSDENIED: i32 = 0x8007_0005_u32.cast_signed();

/// Output buffer in bytes for replies of fixed size.
pub(crate) const SMALL_REPLY: u32 = 4096;

/// Output buffer in bytes for a list. Two names can take 128 KiB, so that one entry always fits.
pub(crate) const LIST_REPLY: u32 = 256 * 1024;

impl Client {
    /// Connects to the driver and says hello. An account that is no administrator's gets the port for users, if the driver has one.
    pub fn connect(library: &mut dyn FilterLibrary) -> Result<Self, Error> {
        let action = "connect to the driver";
        let port = library.connect(PORT_NAME).or_else(|error| match error {
            // Why there is no port for users is less telling than why this one is closed.
            LibraryError::Failed { hresult: HResult(E_ACCESSDENIED), .. } => {
                library.connect(USER_PORT_NAME).map_err(|_| error)
            }
            error => Err(error),
        });
        let port = port.map_err(|error| Error::Call { action: action.into(), call: FltlibCall::Connect, error })?;
        let mut session = Session { port, next_id: 1 };
        let body = RequestBody::Hello(HelloRequest::CURRENT);
        let limits = session.call(action, body, SMALL_REPLY, |body| match body {
            ReplyBody::Hello(hello) => Some(hello),
            _ => None,
        })?;
        Ok(Self { session, limits })
    }

    /// What hello told: versions, policy, limits.
    #[must_use]
    pub const fn limits(&self) -> &HelloReply {
        &self.limits
    }

    pub(crate) const fn session(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Opens a file for reading.
    pub fn open(&mut self, path: &NtPath) -> Result<OpenReply, Error> {
        let body = RequestBody::Open(OpenRequest { name: path.name() });
        self.session.call(&format!("open {path}"), body, SMALL_REPLY, |body| match body {
            ReplyBody::Open(open) => Some(open),
            _ => None,
        })
    }

    /// Facts of an open file.
    pub fn query(&mut self, handle: u64) -> Result<QueryReply, Error> {
        let body = RequestBody::Query(handle);
        self.session.call("query the open file", body, SMALL_REPLY, |body| match body {
            ReplyBody::Query(query) => Some(query),
            _ => None,
        })
    }

    /// Up to `length` bytes from `offset` on; none at and behind the end of the file. One request: the driver's
    /// `max_read_bytes` holds.
    pub fn read(&mut self, handle: u64, offset: u64, length: u32) -> Result<Vec<u8>, Error> {
        let body = RequestBody::Read(ReadRequest { handle, offset, length });
        let room = u32::try_from(ReadReply::encoded_len(length)).unwrap_or(u32::MAX);
        let action = format!("read {length} bytes at offset {offset}");
        let read = self.session.call(&action, body, room, |body| match body {
            ReplyBody::Read(data) if data.len() <= length as usize => Some(data.to_vec()),
            _ => None,
        });
        match read {
            Err(Error::Refused { failure, .. }) if failure.reason() == Some(Reason::EndOfFile) => Ok(Vec::new()),
            other => other,
        }
    }

    /// Reads `length` bytes from `offset` on, or up to the end of the file, in pieces that the driver allows. Each piece goes to
    /// `sink`. Returns the bytes read.
    pub fn read_in_pieces(
        &mut self,
        handle: u64,
        offset: u64,
        length: Option<u64>,
        mut sink: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<u64, Error> {
        let piece = u64::from(self.limits.max_read_bytes.clamp(1, protocol::MAX_READ_BYTES));
        let mut done = 0;
        loop {
            let wanted = length.map_or(piece, |length| piece.min(length - done));
            if wanted == 0 {
                return Ok(done);
            }
            let data = self.read(handle, offset.saturating_add(done), wanted as u32)?;
            if data.is_empty() {
                return Ok(done);
            }
            done += data.len() as u64;
            sink(&data)?;
        }
    }

    /// Closes a handle.
    pub fn close(&mut self, handle: u64) -> Result<(), Error> {
        self.session.call("close the file", RequestBody::Close(handle), SMALL_REPLY, |body| {
            matches!(body, ReplyBody::Close).then_some(())
        })
    }

    /// Stages an image. `highest_address` is a physical address, `None` for any; a `deadline_ms` of 0 leaves it to the driver.
    pub fn stage(
        &mut self,
        path: &NtPath,
        sha256: Option<Sha256Digest>,
        highest_address: Option<u64>,
        deadline_ms: u32,
    ) -> Result<StageReply, Error> {
        let body = RequestBody::Stage(StageRequest {
            name: path.name(),
            sha256: sha256.map(|digest| digest.0),
            highest_address,
            deadline_ms,
        });
        self.session.call(&format!("stage {path}"), body, SMALL_REPLY, |body| match body {
            ReplyBody::Stage(stage) => Some(stage),
            _ => None,
        })
    }

    /// Takes the image with this number out.
    pub fn unstage(&mut self, image_id: u64) -> Result<UnstageReply, Error> {
        self.unstage_target(&format!("unstage image {image_id}"), Target::Image(image_id))
    }

    /// Takes the image staged under this name out.
    pub fn unstage_by_name(&mut self, path: &NtPath) -> Result<UnstageReply, Error> {
        self.unstage_target(&format!("unstage {path}"), Target::Name(path.name()))
    }

    fn unstage_target(&mut self, action: &str, target: Target<'_>) -> Result<UnstageReply, Error> {
        self.session.call(action, RequestBody::Unstage(target), SMALL_REPLY, |body| match body {
            ReplyBody::Unstage(unstage) => Some(unstage),
            _ => None,
        })
    }

    /// All staged images, and those being staged.
    pub fn list(&mut self) -> Result<Vec<Image>, Error> {
        let mut images = Vec::new();
        let mut cursor = 0;
        loop {
            let body = RequestBody::List(cursor);
            let next = self.session.call("list the images", body, LIST_REPLY, |body| match body {
                ReplyBody::List(list) => {
                    images.extend(list.iter().map(Image::from));
                    // A cursor that does not move would never end.
                    (list.next_cursor == 0 || list.count() > 0).then_some(list.next_cursor)
                }
                _ => None,
            })?;
            if next == 0 {
                return Ok(images);
            }
            cursor = next;
        }
    }
}

/// The port, and the numbering of requests on it.
pub(crate) struct Session {
    port: Box<dyn Port>,
    next_id: u64,
}

impl Session {
    /// Sends one request; `pick` takes what is wanted out of the reply.
    pub(crate) fn call<T>(
        &mut self,
        action: &str,
        body: RequestBody<'_>,
        out_length: u32,
        pick: impl FnOnce(ReplyBody<'_>) -> Option<T>,
    ) -> Result<T, Error> {
        let request = Request { id: self.next_id, body };
        self.next_id += 1;
        let mut message = vec![0; request.encoded_len()];
        request
            .write(&mut message)
            .map_err(|too_small| Error::Usage { message: too_small.to_string(), next: "give a shorter path".into() })?;
        let reply = self.port.send_message(&message, out_length).map_err(|error| send_error(action, error))?;
        let malformed = |error| Error::Protocol { action: action.into(), error };
        let reply = Reply::parse(&reply, request.body.kind(), request.id).map_err(malformed)?;
        match reply.body {
            ReplyBody::Failed(failure) => Err(Error::Refused { action: action.into(), failure }),
            body => pick(body).ok_or_else(|| malformed(ReplyError::NotOurs)),
        }
    }
}

fn send_error(action: &str, error: LibraryError) -> Error {
    Error::Call { action: action.into(), call: FltlibCall::Send, error }
}

impl From<ListEntry<'_>> for Image {
    fn from(entry: ListEntry<'_>) -> Self {
        Self {
            image_id: entry.image_id,
            name: text(entry.name),
            size: entry.size,
            sha256: Sha256Digest(entry.sha256),
            phase: entry.phase,
            bytes_done: entry.bytes_done,
            open_count: entry.open_count,
            handed_to: text(entry.handed_to),
        }
    }
}

/// A name for people: unpaired surrogates, which file systems allow, are shown as U+FFFD.
pub(crate) fn text(name: Name<'_>) -> String {
    char::decode_utf16(name.units()).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
}
