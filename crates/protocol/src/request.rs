//! Requests: parsed once from untrusted bytes into types that need no second look, and written by clients.

use zerocopy::IntoBytes;

use crate::frame::{exact, length_field, name, prefix, total, write_parts};
use crate::wire::{self, STAGE_DIGEST_PRESENT};
use crate::{
    ANY_ADDRESS, BufferTooSmall, FrameError, Kind, MAX_READ_BYTES, MAX_REQUEST_BYTES, Name, Reason, RevokeScope,
    SHA256_BYTES, VERSION,
};

/// One request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// The client's own number for it; the reply carries it back.
    pub id: u64,
    /// What is asked for.
    pub body: RequestBody<'a>,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestBody<'a> {
    /// Agree on a version and learn the limits.
    Hello(HelloRequest),
    /// Open a file for reading.
    Open(OpenRequest<'a>),
    /// Facts of what this handle stands for.
    Query(u64),
    /// Bytes of a file.
    Read(ReadRequest),
    /// Close this handle.
    Close(u64),
    /// Stage an image.
    Stage(StageRequest<'a>),
    /// Take a staged image out.
    Unstage(Target<'a>),
    /// Staged images from this cursor on; 0 starts.
    List(u64),
    /// Open handles from this cursor on; 0 starts.
    Handles(u64),
    /// Sessions from this cursor on; 0 starts.
    Sessions(u64),
    /// Take handles away from their owners.
    Revoke(RevokeRequest),
}

/// Range of versions a client speaks. `min_version` is at least 1 and not above `max_version`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelloRequest {
    /// Lowest version.
    pub min_version: u16,
    /// Highest version.
    pub max_version: u16,
}

/// Which file to open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenRequest<'a> {
    /// NT path, neither empty nor above [`MAX_NAME_BYTES`](crate::MAX_NAME_BYTES).
    pub name: Name<'a>,
}

/// Which bytes to read. `offset + length` does not overflow a signed 64-bit file offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadRequest {
    /// Handle of a file, not checked.
    pub handle: u64,
    /// First byte wanted.
    pub offset: u64,
    /// Bytes wanted, 1 to [`MAX_READ_BYTES`].
    pub length: u32,
}

/// What to stage, and what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageRequest<'a> {
    /// NT path, neither empty nor above [`MAX_NAME_BYTES`](crate::MAX_NAME_BYTES).
    pub name: Name<'a>,
    /// SHA-256 the file must have.
    pub sha256: Option<[u8; SHA256_BYTES]>,
    /// Highest physical address the image may touch; `None` for no limit.
    pub highest_address: Option<u64>,
    /// Milliseconds it may take, 0 for the driver's own limit.
    pub deadline_ms: u32,
}

/// Which handles to take away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevokeRequest {
    /// What `id` is.
    pub scope: RevokeScope,
    /// Number of an entry in the list of handles, of a session, or of a process; never 0.
    pub id: u64,
}

/// One staged image, named in one of two ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// By the number that staging returned, never 0.
    Image(u64),
    /// By the name it was staged under, never empty.
    Name(Name<'a>),
}

impl<'a> Request<'a> {
    /// The request that `message` is, to the byte.
    ///
    /// Every rule of the format is checked here: length, version, kind, reserved fields, name lengths, ranges.
    /// What only the driver can know (handles, paths, its own lower limits) is not.
    pub fn parse(message: &'a [u8]) -> Result<Self, FrameError> {
        Self::try_parse(message).map_err(|reason| FrameError::new(message, reason))
    }

    fn try_parse(message: &'a [u8]) -> Result<Self, Reason> {
        let (header, body) = prefix::<wire::RequestHeader>(message).map_err(|_| Reason::MessageTooShort)?;
        if message.len() > MAX_REQUEST_BYTES as usize {
            return Err(Reason::MessageTooLarge);
        }
        if header.size.get() as usize != message.len() {
            return Err(Reason::MessageSizeMismatch);
        }
        if header.version.get() != VERSION {
            return Err(Reason::UnsupportedVersion);
        }
        if header.flags.get() != 0 {
            return Err(Reason::UnknownFlags);
        }
        zero(header.reserved.get())?;
        let kind = Kind::from_code(header.kind.get()).ok_or(Reason::UnknownKind)?;
        Ok(Self { id: header.request_id.get(), body: RequestBody::parse(kind, body)? })
    }

    /// Bytes that [`write`](Self::write) needs.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        self.with_parts(&mut |parts| total(parts))
    }

    /// Writes the request to the start of `out`; returns its length in bytes.
    pub fn write(&self, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        self.with_parts(&mut |parts| write_parts(out, parts))
    }

    /// Hands header, body and name to `use_parts`: length and bytes come from the same place.
    fn with_parts<R>(&self, use_parts: &mut dyn FnMut(&[&[u8]]) -> R) -> R {
        self.body.with_parts(&mut |body, name| {
            let header = wire::RequestHeader {
                size: length_field(total(&[body, name]).saturating_add(size_of::<wire::RequestHeader>())).into(),
                version: VERSION.into(),
                kind: self.body.kind().code().into(),
                request_id: self.id.into(),
                flags: 0.into(),
                reserved: 0.into(),
            };
            use_parts(&[header.as_bytes(), body, name])
        })
    }
}

impl<'a> RequestBody<'a> {
    /// The kind that goes into the header.
    #[must_use]
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Hello(_) => Kind::Hello,
            Self::Open(_) => Kind::Open,
            Self::Query(_) => Kind::Query,
            Self::Read(_) => Kind::Read,
            Self::Close(_) => Kind::Close,
            Self::Stage(_) => Kind::Stage,
            Self::Unstage(_) => Kind::Unstage,
            Self::List(_) => Kind::List,
            Self::Handles(_) => Kind::Handles,
            Self::Sessions(_) => Kind::Sessions,
            Self::Revoke(_) => Kind::Revoke,
        }
    }

    fn parse(kind: Kind, body: &'a [u8]) -> Result<Self, Reason> {
        match kind {
            Kind::Hello => HelloRequest::parse(body).map(Self::Hello),
            Kind::Open => OpenRequest::parse(body).map(Self::Open),
            Kind::Query => Ok(Self::Query(exact::<wire::HandleRequest>(body)?.handle.get())),
            Kind::Read => ReadRequest::parse(body).map(Self::Read),
            Kind::Close => Ok(Self::Close(exact::<wire::HandleRequest>(body)?.handle.get())),
            Kind::Stage => StageRequest::parse(body).map(Self::Stage),
            Kind::Unstage => Target::parse(body).map(Self::Unstage),
            Kind::List => cursor(body).map(Self::List),
            Kind::Handles => cursor(body).map(Self::Handles),
            Kind::Sessions => cursor(body).map(Self::Sessions),
            Kind::Revoke => RevokeRequest::parse(body).map(Self::Revoke),
        }
    }

    fn with_parts<R>(&self, use_parts: &mut dyn FnMut(&[u8], &[u8]) -> R) -> R {
        match *self {
            Self::Hello(hello) => {
                let body = wire::HelloRequest {
                    min_version: hello.min_version.into(),
                    max_version: hello.max_version.into(),
                    reserved: 0.into(),
                };
                use_parts(body.as_bytes(), &[])
            }
            Self::Open(open) => {
                let body =
                    wire::OpenRequest { access: 0.into(), name_bytes: length_field(open.name.byte_len()).into() };
                use_parts(body.as_bytes(), open.name.as_bytes())
            }
            Self::Query(handle) | Self::Close(handle) => {
                let body = wire::HandleRequest { handle: handle.into() };
                use_parts(body.as_bytes(), &[])
            }
            Self::Read(read) => {
                let body = wire::ReadRequest {
                    handle: read.handle.into(),
                    offset: read.offset.into(),
                    length: read.length.into(),
                    reserved: 0.into(),
                };
                use_parts(body.as_bytes(), &[])
            }
            Self::Stage(stage) => use_parts(stage.fixed_part().as_bytes(), stage.name.as_bytes()),
            Self::Unstage(target) => {
                let (image_id, name) = match target {
                    Target::Image(image_id) => (image_id, Name::default()),
                    Target::Name(name) => (0, name),
                };
                let body = wire::UnstageRequest {
                    image_id: image_id.into(),
                    name_bytes: length_field(name.byte_len()).into(),
                    reserved: 0.into(),
                };
                use_parts(body.as_bytes(), name.as_bytes())
            }
            Self::List(cursor) | Self::Handles(cursor) | Self::Sessions(cursor) => {
                let body = wire::ListRequest { cursor: cursor.into(), reserved: 0.into() };
                use_parts(body.as_bytes(), &[])
            }
            Self::Revoke(revoke) => {
                let body =
                    wire::RevokeRequest { scope: revoke.scope.code().into(), reserved: 0.into(), id: revoke.id.into() };
                use_parts(body.as_bytes(), &[])
            }
        }
    }
}

impl HelloRequest {
    /// What a client of this crate's version sends.
    pub const CURRENT: Self = Self { min_version: VERSION, max_version: VERSION };

    fn parse(body: &[u8]) -> Result<Self, Reason> {
        let hello = exact::<wire::HelloRequest>(body)?;
        zero(hello.reserved.get())?;
        let (min_version, max_version) = (hello.min_version.get(), hello.max_version.get());
        if min_version == 0 || min_version > max_version {
            return Err(Reason::ContradictoryFields);
        }
        Ok(Self { min_version, max_version })
    }
}

impl<'a> OpenRequest<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, Reason> {
        let (open, rest) = prefix::<wire::OpenRequest>(body)?;
        zero(open.access.get())?;
        Ok(Self { name: non_empty(name(rest, open.name_bytes.get())?)? })
    }
}

impl ReadRequest {
    fn parse(body: &[u8]) -> Result<Self, Reason> {
        let read = exact::<wire::ReadRequest>(body)?;
        zero(read.reserved.get())?;
        let (offset, length) = (read.offset.get(), read.length.get());
        match length {
            0 => return Err(Reason::ReadEmpty),
            1..=MAX_READ_BYTES => {}
            _ => return Err(Reason::ReadTooLong),
        }
        // The file system takes offsets as LARGE_INTEGER, where negative values have special meanings.
        if offset.saturating_add(length.into()) > i64::MAX.cast_unsigned() {
            return Err(Reason::OffsetOverflow);
        }
        Ok(Self { handle: read.handle.get(), offset, length })
    }
}

impl<'a> StageRequest<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, Reason> {
        let (stage, rest) = prefix::<wire::StageRequest>(body)?;
        zero(stage.reserved.get())?;
        let sha256 = match stage.flags.get() {
            0 if stage.sha256 == [0; SHA256_BYTES] => None,
            0 => return Err(Reason::ContradictoryFields),
            STAGE_DIGEST_PRESENT => Some(stage.sha256),
            _ => return Err(Reason::UnknownFlags),
        };
        Ok(Self {
            name: non_empty(name(rest, stage.name_bytes.get())?)?,
            sha256,
            highest_address: Some(stage.highest_address.get()).filter(|limit| *limit != ANY_ADDRESS),
            deadline_ms: stage.deadline_ms.get(),
        })
    }

    fn fixed_part(&self) -> wire::StageRequest {
        wire::StageRequest {
            flags: if self.sha256.is_some() { STAGE_DIGEST_PRESENT } else { 0 }.into(),
            name_bytes: length_field(self.name.byte_len()).into(),
            sha256: self.sha256.unwrap_or_default(),
            highest_address: self.highest_address.unwrap_or(ANY_ADDRESS).into(),
            deadline_ms: self.deadline_ms.into(),
            reserved: 0.into(),
        }
    }
}

impl<'a> Target<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, Reason> {
        let (unstage, rest) = prefix::<wire::UnstageRequest>(body)?;
        zero(unstage.reserved.get())?;
        let name = name(rest, unstage.name_bytes.get())?;
        match (unstage.image_id.get(), name.is_empty()) {
            (0, _) => non_empty(name).map(Self::Name),
            (image_id, true) => Ok(Self::Image(image_id)),
            (_, false) => Err(Reason::ContradictoryFields),
        }
    }
}

impl RevokeRequest {
    fn parse(body: &[u8]) -> Result<Self, Reason> {
        let revoke = exact::<wire::RevokeRequest>(body)?;
        zero(revoke.reserved.get())?;
        let scope = RevokeScope::from_code(revoke.scope.get()).ok_or(Reason::UnknownFlags)?;
        match revoke.id.get() {
            // No handle, session or process has it; a client that left it out must not hit one by accident.
            0 => Err(Reason::ContradictoryFields),
            id => Ok(Self { scope, id }),
        }
    }
}

/// The cursor of a request for a part of a list.
fn cursor(body: &[u8]) -> Result<u64, Reason> {
    let list = exact::<wire::ListRequest>(body)?;
    zero(list.reserved.get())?;
    Ok(list.cursor.get())
}

fn non_empty(name: Name<'_>) -> Result<Name<'_>, Reason> {
    if name.is_empty() { Err(Reason::NameEmpty) } else { Ok(name) }
}

/// Reserved fields must be zero, or they could never be given a meaning.
fn zero(reserved: impl Into<u64>) -> Result<(), Reason> {
    if reserved.into() == 0 { Ok(()) } else { Err(Reason::ReservedNotZero) }
}
