//! Replies, as a client reads them.

use core::fmt;

use crate::frame::{exact, prefix};
use crate::wire;
use crate::{
    Detail, HandleEntry, HelloReply, Kind, ListEntries, OpenReply, QueryReply, Reason, RevokeReply, SessionEntry,
    StageReply, UnstageReply, VERSION,
};

/// One reply that fits its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply<'a> {
    /// NTSTATUS. Not negative unless the body is [`ReplyBody::Failed`].
    pub status: i32,
    /// What came back.
    pub body: ReplyBody<'a>,
}

/// What came back, by kind of the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyBody<'a> {
    /// The request was refused.
    Failed(Failure),
    /// Version and limits.
    Hello(HelloReply),
    /// A new handle.
    Open(OpenReply),
    /// Facts of a file.
    Query(QueryReply),
    /// Data of a file.
    Read(&'a [u8]),
    /// The handle is closed.
    Close,
    /// A staged image.
    Stage(StageReply),
    /// The image that was taken out.
    Unstage(UnstageReply),
    /// Staged images.
    List(ListEntries<'a>),
    /// Open handles.
    Handles(ListEntries<'a, HandleEntry<'a>>),
    /// Sessions.
    Sessions(ListEntries<'a, SessionEntry<'a>>),
    /// How many handles were taken away.
    Revoke(RevokeReply),
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// NTSTATUS, negative.
    pub status: i32,
    /// [`Reason`] as its code; 0 for none.
    pub reason: u32,
    /// Phase and system status.
    pub detail: Detail,
}

/// Bytes that are no reply to the request: the other side is broken, or is another driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplyError {
    /// There are fewer bytes than a reply header has.
    TooShort,
    /// The size field differs from the number of bytes received.
    SizeMismatch,
    /// The reply has another protocol version; this is it.
    Version(u16),
    /// The reply is to another request, by number or by kind.
    NotOurs,
    /// The body does not follow the format.
    Body(Reason),
}

impl<'a> Reply<'a> {
    /// The reply in `bytes` to request `id` of `kind`.
    pub fn parse(bytes: &'a [u8], kind: Kind, id: u64) -> Result<Self, ReplyError> {
        let (header, body) = prefix::<wire::ReplyHeader>(bytes).map_err(|_| ReplyError::TooShort)?;
        if header.size.get() as usize != bytes.len() {
            return Err(ReplyError::SizeMismatch);
        }
        if header.version.get() != VERSION {
            return Err(ReplyError::Version(header.version.get()));
        }
        if header.kind.get() != kind.code() || header.request_id.get() != id {
            return Err(ReplyError::NotOurs);
        }
        let status = header.status.get();
        let body = if status < 0 { ReplyBody::failed(header, body) } else { ReplyBody::parse(kind, body) };
        Ok(Self { status, body: body.map_err(ReplyError::Body)? })
    }
}

impl<'a> ReplyBody<'a> {
    fn failed(header: &wire::ReplyHeader, body: &[u8]) -> Result<Self, Reason> {
        if !body.is_empty() {
            return Err(Reason::BodyTooLong);
        }
        Ok(Self::Failed(Failure {
            status: header.status.get(),
            reason: header.reason.get(),
            detail: Detail::from_wire(header.detail.get()),
        }))
    }

    fn parse(kind: Kind, body: &'a [u8]) -> Result<Self, Reason> {
        match kind {
            Kind::Hello => Ok(Self::Hello(exact::<wire::HelloReply>(body)?.into())),
            Kind::Open => Ok(Self::Open(exact::<wire::OpenReply>(body)?.into())),
            Kind::Query => Ok(Self::Query(exact::<wire::QueryReply>(body)?.into())),
            Kind::Read => read_data(body).map(Self::Read),
            Kind::Close if body.is_empty() => Ok(Self::Close),
            Kind::Close => Err(Reason::BodyTooLong),
            Kind::Stage => Ok(Self::Stage(exact::<wire::StageReply>(body)?.into())),
            Kind::Unstage => Ok(Self::Unstage(exact::<wire::UnstageReply>(body)?.into())),
            Kind::List => ListEntries::parse(body).map(Self::List),
            Kind::Handles => ListEntries::parse(body).map(Self::Handles),
            Kind::Sessions => ListEntries::parse(body).map(Self::Sessions),
            Kind::Revoke => Ok(Self::Revoke(exact::<wire::RevokeReply>(body)?.into())),
        }
    }
}

fn read_data(body: &[u8]) -> Result<&[u8], Reason> {
    let (fixed, data) = prefix::<wire::ReadReply>(body)?;
    match data.len().cmp(&(fixed.bytes.get() as usize)) {
        core::cmp::Ordering::Less => Err(Reason::BodyTooShort),
        core::cmp::Ordering::Greater => Err(Reason::BodyTooLong),
        core::cmp::Ordering::Equal => Ok(data),
    }
}

impl Failure {
    /// The reason, `None` where there is none or this crate does not know it.
    #[must_use]
    pub const fn reason(&self) -> Option<Reason> {
        Reason::from_code(self.reason)
    }
}

impl From<&wire::HelloReply> for HelloReply {
    fn from(body: &wire::HelloReply) -> Self {
        Self {
            version: body.version.get(),
            driver: [body.driver_major.get(), body.driver_minor.get(), body.driver_patch.get()],
            policy: body.policy.get(),
            max_request_bytes: body.max_request_bytes.get(),
            max_read_bytes: body.max_read_bytes.get(),
            max_image_bytes: body.max_image_bytes.get(),
            max_name_bytes: body.max_name_bytes.get(),
            max_handles_per_session: body.max_handles_per_session.get(),
            max_staged_bytes: body.max_staged_bytes.get(),
            session_id: body.session_id.get(),
        }
    }
}

impl From<&wire::OpenReply> for OpenReply {
    fn from(body: &wire::OpenReply) -> Self {
        Self { handle: body.handle.get(), size: body.size.get() }
    }
}

impl From<&wire::QueryReply> for QueryReply {
    fn from(body: &wire::QueryReply) -> Self {
        Self {
            size: body.size.get(),
            allocation_size: body.allocation_size.get(),
            change_time: body.change_time.get(),
            volume_serial: body.volume_serial.get(),
            file_id: body.file_id,
            attributes: body.attributes.get(),
            number_of_links: body.number_of_links.get(),
            kind: body.kind.get(),
        }
    }
}

impl From<&wire::StageReply> for StageReply {
    fn from(body: &wire::StageReply) -> Self {
        Self {
            image_id: body.image_id.get(),
            size: body.size.get(),
            sha256: body.sha256,
            shared: body.shared.get() != 0,
        }
    }
}

impl From<&wire::UnstageReply> for UnstageReply {
    fn from(body: &wire::UnstageReply) -> Self {
        Self { image_id: body.image_id.get(), size: body.size.get() }
    }
}

impl From<&wire::RevokeReply> for RevokeReply {
    fn from(body: &wire::RevokeReply) -> Self {
        Self { revoked: body.revoked.get(), kept: body.kept.get() }
    }
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort => f.write_str("the reply is shorter than a reply header"),
            Self::SizeMismatch => f.write_str("the reply's size field differs from the bytes received"),
            Self::Version(version) => {
                write!(f, "the reply has protocol version {version}, not {VERSION}")
            }
            Self::NotOurs => f.write_str("the reply belongs to another request"),
            Self::Body(reason) => write!(f, "the reply's body is malformed ({})", reason.name()),
        }
    }
}

impl core::error::Error for ReplyError {}
