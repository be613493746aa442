//! What requests and replies have in common: checked views over bytes, and writing parts into a buffer.

use core::fmt;

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use crate::wire::RequestHeader;
use crate::{MAX_NAME_BYTES, Name, Reason};

/// A request that does not follow the format.
///
/// Carries what of the header could be read, because the refusal goes to the client in a reply of the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameError {
    reason: Reason,
    kind: u16,
    request_id: u64,
}

impl FrameError {
    /// An error about `message`, of which any number of bytes may be there.
    #[must_use]
    pub fn new(message: &[u8], reason: Reason) -> Self {
        let header = RequestHeader::read_from_prefix(message).ok();
        Self {
            reason,
            kind: header.map_or(0, |(header, _)| header.kind.get()),
            request_id: header.map_or(0, |(header, _)| header.request_id.get()),
        }
    }

    /// What is wrong.
    #[must_use]
    pub const fn reason(self) -> Reason {
        self.reason
    }

    /// The kind in the header, 0 where there was no whole header.
    #[must_use]
    pub const fn kind(self) -> u16 {
        self.kind
    }

    /// The request's number, 0 where there was no whole header.
    #[must_use]
    pub const fn request_id(self) -> u64 {
        self.request_id
    }

    /// The NTSTATUS that goes with the reason.
    #[must_use]
    pub const fn status(self) -> i32 {
        let status: u32 = match self.reason {
            Reason::MessageSizeMismatch => 0xC000_0004, // STATUS_INFO_LENGTH_MISMATCH
            Reason::UnknownKind => 0xC000_0010,         // STATUS_INVALID_DEVICE_REQUEST
            Reason::UnsupportedVersion => 0xC000_0059,  // STATUS_REVISION_MISMATCH
            Reason::LengthOverflow | Reason::OffsetOverflow => 0xC000_0095, // STATUS_INTEGER_OVERFLOW
            Reason::NameEmpty => 0xC000_0033,           // STATUS_OBJECT_NAME_INVALID
            Reason::NameTooLong => 0xC000_0106,         // STATUS_NAME_TOO_LONG
            Reason::MessageTooLarge | Reason::ReadTooLong => 0xC000_0206, // STATUS_INVALID_BUFFER_SIZE
            _ => 0xC000_000D,                           // STATUS_INVALID_PARAMETER
        };
        status.cast_signed()
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason.explain())
    }
}

impl core::error::Error for FrameError {}

/// A message does not fit into the buffer given for it. Nothing useful was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BufferTooSmall {
    /// Bytes the whole message takes.
    pub needed: usize,
}

impl fmt::Display for BufferTooSmall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the message needs a buffer of {} bytes", self.needed)
    }
}

impl core::error::Error for BufferTooSmall {}

/// What parsing a view from untrusted bytes needs of a type.
pub(crate) trait View: FromBytes + KnownLayout + Immutable + Unaligned {}
impl<T: FromBytes + KnownLayout + Immutable + Unaligned> View for T {}

/// The structure at the start of `body`, and what follows it.
pub(crate) fn prefix<T: View>(body: &[u8]) -> Result<(&T, &[u8]), Reason> {
    T::ref_from_prefix(body).map_err(|_| Reason::BodyTooShort)
}

/// The structure that `body` is, to the byte.
pub(crate) fn exact<T: View>(body: &[u8]) -> Result<&T, Reason> {
    match prefix(body)? {
        (view, []) => Ok(view),
        _ => Err(Reason::BodyTooLong),
    }
}

/// The name that `rest` is, to the byte, given the length that the fixed part claims for it.
///
/// The claim is checked before the bytes are compared with it, so that the client hears of its real mistake.
pub(crate) fn name(rest: &[u8], claimed: u32) -> Result<Name<'_>, Reason> {
    // No message can hold that much behind its headers: somebody computed a negative length.
    if claimed > i32::MAX.cast_unsigned() {
        return Err(Reason::LengthOverflow);
    }
    if claimed > MAX_NAME_BYTES {
        return Err(Reason::NameTooLong);
    }
    match rest.len().cmp(&(claimed as usize)) {
        core::cmp::Ordering::Less => Err(Reason::BodyTooShort),
        core::cmp::Ordering::Greater => Err(Reason::BodyTooLong),
        core::cmp::Ordering::Equal => Name::from_bytes(rest).ok_or(Reason::NameLengthOdd),
    }
}

/// A length as its header field has it. No real buffer is above 4 GiB; one that is gets a size nobody accepts.
pub(crate) fn length_field(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Bytes of all parts together.
pub(crate) fn total(parts: &[&[u8]]) -> usize {
    parts.iter().fold(0_usize, |sum, part| sum.saturating_add(part.len()))
}

/// Writes the parts one behind the other to the start of `out`; returns the bytes written.
pub(crate) fn write_parts(out: &mut [u8], parts: &[&[u8]]) -> Result<usize, BufferTooSmall> {
    let needed = total(parts);
    let mut rest = out.get_mut(..needed).ok_or(BufferTooSmall { needed })?;
    for part in parts {
        let (here, behind) = rest.split_at_mut_checked(part.len()).ok_or(BufferTooSmall { needed })?;
        here.copy_from_slice(part);
        rest = behind;
    }
    Ok(needed)
}
