//! Replies, as the driver writes them. Each `write` fills the start of a buffer and returns the reply's length in bytes.

use zerocopy::IntoBytes;

use crate::frame::{length_field, write_parts};
use crate::wire;
use crate::{BufferTooSmall, FrameError, Kind, Phase, Policy, Reason, SHA256_BYTES, VERSION};

/// Limits and identity that hello returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HelloReply {
    /// Agreed protocol version.
    pub version: u16,
    /// Version of the driver: major, minor, patch.
    pub driver: [u16; 3],
    /// Staging [`Policy`] in force, as its code: a newer driver may have one that this crate does not know.
    pub policy: u32,
    /// Longest request in bytes.
    pub max_request_bytes: u32,
    /// Most data bytes one read returns.
    pub max_read_bytes: u32,
    /// Largest file in bytes.
    pub max_image_bytes: u64,
    /// Longest name in bytes.
    pub max_name_bytes: u32,
    /// Most handles a session can hold.
    pub max_handles_per_session: u32,
    /// Most bytes all staged images may take.
    pub max_staged_bytes: u64,
    /// Number of the session.
    pub session_id: u64,
}

impl HelloReply {
    /// The policy, `None` where this crate does not know it.
    #[must_use]
    pub const fn policy(&self) -> Option<Policy> {
        Policy::from_code(self.policy)
    }

    /// Writes the reply to request `id`.
    pub fn write(&self, out: &mut [u8], id: u64) -> Result<usize, BufferTooSmall> {
        let [major, minor, patch] = self.driver;
        let body = wire::HelloReply {
            version: self.version.into(),
            reserved: 0.into(),
            driver_major: major.into(),
            driver_minor: minor.into(),
            driver_patch: patch.into(),
            reserved2: 0.into(),
            policy: self.policy.into(),
            max_request_bytes: self.max_request_bytes.into(),
            max_read_bytes: self.max_read_bytes.into(),
            max_image_bytes: self.max_image_bytes.into(),
            max_name_bytes: self.max_name_bytes.into(),
            max_handles_per_session: self.max_handles_per_session.into(),
            max_staged_bytes: self.max_staged_bytes.into(),
            session_id: self.session_id.into(),
        };
        write_success(out, Kind::Hello, id, body.as_bytes())
    }
}

/// A file that has been opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenReply {
    /// The handle, never 0.
    pub handle: u64,
    /// Length of the file in bytes.
    pub size: u64,
}

impl OpenReply {
    /// Writes the reply to request `id`.
    pub fn write(&self, out: &mut [u8], id: u64) -> Result<usize, BufferTooSmall> {
        let body = wire::OpenReply { handle: self.handle.into(), size: self.size.into() };
        write_success(out, Kind::Open, id, body.as_bytes())
    }
}

/// Facts of an open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueryReply {
    /// Length in bytes (`EndOfFile`).
    pub size: u64,
    /// Bytes on disk (`AllocationSize`).
    pub allocation_size: u64,
    /// `ChangeTime`: 100 ns units since 1601-01-01 UTC.
    pub change_time: i64,
    /// Serial number of the volume.
    pub volume_serial: u64,
    /// 128-bit file id, unique on its volume.
    pub file_id: [u8; 16],
    /// `FILE_ATTRIBUTE_*`.
    pub attributes: u32,
    /// Hard links to the file.
    pub number_of_links: u32,
    /// [`ObjectKind`](crate::ObjectKind) as its code.
    pub kind: u32,
}

impl QueryReply {
    /// Writes the reply to request `id`.
    pub fn write(&self, out: &mut [u8], id: u64) -> Result<usize, BufferTooSmall> {
        let body = wire::QueryReply {
            size: self.size.into(),
            allocation_size: self.allocation_size.into(),
            change_time: self.change_time.into(),
            volume_serial: self.volume_serial.into(),
            file_id: self.file_id,
            attributes: self.attributes.into(),
            number_of_links: self.number_of_links.into(),
            kind: self.kind.into(),
            reserved: 0.into(),
        };
        write_success(out, Kind::Query, id, body.as_bytes())
    }
}

/// A reply with file data. The data is read straight to its place in the reply, then the headers are put before it.
#[derive(Clone, Copy, Debug)]
pub struct ReadReply;

impl ReadReply {
    /// Bytes before the data.
    pub const DATA_OFFSET: usize = 40;

    /// Bytes of a whole reply with `length` data bytes.
    #[must_use]
    pub const fn encoded_len(length: u32) -> usize {
        Self::DATA_OFFSET.saturating_add(length as usize)
    }

    /// Where the data goes in the buffer `out`; `None` where not even the headers fit.
    #[must_use]
    pub fn data_mut(out: &mut [u8]) -> Option<&mut [u8]> {
        out.get_mut(Self::DATA_OFFSET..)
    }

    /// Completes the reply to request `id` after `bytes` data bytes were put in place.
    pub fn finish(out: &mut [u8], id: u64, bytes: u32) -> Result<usize, BufferTooSmall> {
        let needed = Self::encoded_len(bytes);
        if out.len() < needed {
            return Err(BufferTooSmall { needed });
        }
        let header = success_header(Kind::Read, id, needed);
        let body = wire::ReadReply { bytes: bytes.into(), reserved: 0.into() };
        write_parts(out, &[header.as_bytes(), body.as_bytes()])?;
        Ok(needed)
    }
}

const _: () = assert!(ReadReply::DATA_OFFSET == size_of::<wire::ReplyHeader>() + size_of::<wire::ReadReply>());

/// An image that has been staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageReply {
    /// Number of the image, never 0.
    pub image_id: u64,
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 as the driver computed it.
    pub sha256: [u8; SHA256_BYTES],
    /// Whether the image was there already, or was just being staged for somebody else.
    pub shared: bool,
}

impl StageReply {
    /// Writes the reply to request `id`.
    pub fn write(&self, out: &mut [u8], id: u64) -> Result<usize, BufferTooSmall> {
        let body = wire::StageReply {
            image_id: self.image_id.into(),
            size: self.size.into(),
            sha256: self.sha256,
            shared: u32::from(self.shared).into(),
            reserved: 0.into(),
        };
        write_success(out, Kind::Stage, id, body.as_bytes())
    }
}

/// An image that has been taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnstageReply {
    /// Number of the image.
    pub image_id: u64,
    /// Its length in bytes.
    pub size: u64,
}

impl UnstageReply {
    /// Writes the reply to request `id`.
    pub fn write(&self, out: &mut [u8], id: u64) -> Result<usize, BufferTooSmall> {
        let body = wire::UnstageReply { image_id: self.image_id.into(), size: self.size.into() };
        write_success(out, Kind::Unstage, id, body.as_bytes())
    }
}

/// How many handles a revocation took away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevokeReply {
    /// Handles that this request took away.
    pub revoked: u32,
    /// Handles that were left, since NIC drivers have them.
    pub kept: u32,
}

impl RevokeReply {
    /// Writes the reply to request `id`.
    pub fn write(&self, out: &mut [u8], id: u64) -> Result<usize, BufferTooSmall> {
        let body = wire::RevokeReply { revoked: self.revoked.into(), kept: self.kept.into() };
        write_success(out, Kind::Revoke, id, body.as_bytes())
    }
}

/// Writes the reply to close request `id`, which has no body.
pub fn write_close(out: &mut [u8], id: u64) -> Result<usize, BufferTooSmall> {
    write_success(out, Kind::Close, id, &[])
}

/// What a failure's `detail` field holds beside status and reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detail {
    /// [`Phase`] code of the staging that failed, 0 for none.
    pub phase: u32,
    /// NTSTATUS of the system call behind the failure, 0 for none.
    pub system_status: i32,
}

impl Detail {
    /// A failure in `phase` of staging.
    #[must_use]
    pub const fn new(phase: Option<Phase>, system_status: i32) -> Self {
        let phase = match phase {
            Some(phase) => phase.code(),
            None => 0,
        };
        Self { phase, system_status }
    }

    /// The field's value: phase in the low half, status in the high one.
    #[must_use]
    pub const fn to_wire(self) -> u64 {
        self.phase as u64 | (self.system_status.cast_unsigned() as u64) << 32
    }

    /// What a field's value means.
    #[must_use]
    pub const fn from_wire(detail: u64) -> Self {
        Self { phase: detail as u32, system_status: ((detail >> 32) as u32).cast_signed() }
    }
}

/// Writes a refusal. `kind` and `id` are the request's own; `status` is a failure NTSTATUS.
pub fn write_failure(
    out: &mut [u8],
    kind: u16,
    id: u64,
    status: i32,
    reason: Option<Reason>,
    detail: Detail,
) -> Result<usize, BufferTooSmall> {
    let header = wire::ReplyHeader {
        size: length_field(size_of::<wire::ReplyHeader>()).into(),
        version: VERSION.into(),
        kind: kind.into(),
        request_id: id.into(),
        status: status.into(),
        reason: reason.map_or(0, Reason::code).into(),
        detail: detail.to_wire().into(),
    };
    write_parts(out, &[header.as_bytes()])
}

impl FrameError {
    /// Writes the refusal of a message that does not follow the format.
    pub fn write(&self, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        write_failure(out, self.kind(), self.request_id(), self.status(), Some(self.reason()), Detail::default())
    }
}

fn write_success(out: &mut [u8], kind: Kind, id: u64, body: &[u8]) -> Result<usize, BufferTooSmall> {
    let size = size_of::<wire::ReplyHeader>().saturating_add(body.len());
    let header = success_header(kind, id, size);
    write_parts(out, &[header.as_bytes(), body])
}

pub(crate) fn success_header(kind: Kind, id: u64, size: usize) -> wire::ReplyHeader {
    wire::ReplyHeader {
        size: length_field(size).into(),
        version: VERSION.into(),
        kind: kind.code().into(),
        request_id: id.into(),
        status: 0.into(),
        reason: 0.into(),
        detail: 0.into(),
    }
}
