//! Frames: header, JSON, raw bytes.
//!
//! Neither side trusts the other's lengths. A length above its cap ends the connection, and memory grows only as
//! bytes arrive, so that a header alone cannot make the reader allocate.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// First field of every frame: "FLTL" in a dump.
pub const MAGIC: u32 = u32::from_le_bytes(*b"FLTL");

/// Version of this wire format.
pub const WIRE_VERSION: u16 = 1;

/// Most bytes of JSON in a frame.
pub const MAX_JSON_BYTES: u32 = 16 * 1024 * 1024;

/// Most raw bytes in a frame.
pub const MAX_DATA_BYTES: u32 = 16 * 1024 * 1024;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum FrameKind {
    /// From client to server; its JSON is a [`Call`](crate::Call).
    Request = 1,
    /// From server to client; its JSON is a [`Reply`](crate::Reply).
    Reply = 2,
}

/// Start of every frame.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct FrameHeader {
    /// [`MAGIC`].
    pub magic: U32,
    /// [`WIRE_VERSION`].
    pub version: U16,
    /// [`FrameKind`].
    pub kind: U16,
    /// The client's number for the request.
    pub id: U64,
    /// Bytes of JSON that follow.
    pub json_bytes: U32,
    /// Raw bytes that follow the JSON.
    pub data_bytes: U32,
}

const _: () = assert!(size_of::<FrameHeader>() == 24);

/// One frame, its JSON decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<T> {
    /// The client's number for the request.
    pub id: u64,
    /// The JSON part.
    pub json: T,
    /// The raw part.
    pub data: Vec<u8>,
}

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The socket failed, or the time was up.
    #[error("the socket failed: {0}")]
    Io(#[from] io::Error),
    /// The other side ended the connection in the middle of something.
    #[error("the other side ended the connection")]
    Ended,
    /// The bytes are not a frame of this format: the other side is some other program.
    #[error("the other side does not speak this protocol (magic {0:#010x})")]
    NotOurs(u32),
    /// The other side speaks another version of the format.
    #[error("the other side speaks version {0} of the protocol, not {WIRE_VERSION}; use programs of one release")]
    Version(u16),
    /// A request came where a reply was due, or the other way round, or out of turn.
    #[error("a frame came out of turn")]
    OutOfTurn,
    /// A length is above its cap.
    #[error("a frame of {bytes} bytes is above the limit of {limit}")]
    TooLarge {
        /// Bytes claimed, or to be sent.
        bytes: u64,
        /// Most bytes allowed.
        limit: u32,
    },
    /// The JSON part does not decode.
    #[error("a frame has malformed JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// An earlier call failed half way, so that what comes next on the socket is unknown.
    #[error("the connection is not usable after an earlier failure")]
    Broken,
}

/// Writes one frame.
pub fn write_frame(
    stream: &mut impl Write,
    kind: FrameKind,
    id: u64,
    json: &impl Serialize,
    data: &[u8],
) -> Result<(), WireError> {
    let json = serde_json::to_vec(json)?;
    let header = FrameHeader {
        magic: MAGIC.into(),
        version: WIRE_VERSION.into(),
        kind: (kind as u16).into(),
        id: id.into(),
        json_bytes: capped(json.len() as u64, MAX_JSON_BYTES)?.into(),
        data_bytes: capped(data.len() as u64, MAX_DATA_BYTES)?.into(),
    };
    // Header and JSON are small: one write for both spares the other side a wake-up.
    let mut front = header.as_bytes().to_vec();
    front.extend_from_slice(&json);
    stream.write_all(&front)?;
    stream.write_all(data)?;
    stream.flush()?;
    Ok(())
}

/// Reads one frame of the given kind; `None` where the other side has ended the connection between frames.
pub fn read_frame<T: DeserializeOwned>(stream: &mut impl Read, kind: FrameKind) -> Result<Option<Frame<T>>, WireError> {
    let mut header = [0; size_of::<FrameHeader>()];
    let first = loop {
        match stream.read(&mut header) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => break other?,
        }
    };
    if first == 0 {
        return Ok(None);
    }
    stream.read_exact(&mut header[first..]).map_err(ended)?;
    let header: FrameHeader = zerocopy::transmute!(header);
    if header.magic.get() != MAGIC {
        return Err(WireError::NotOurs(header.magic.get()));
    }
    if header.version.get() != WIRE_VERSION {
        return Err(WireError::Version(header.version.get()));
    }
    if header.kind.get() != kind as u16 {
        return Err(WireError::OutOfTurn);
    }
    let json_bytes = capped(header.json_bytes.get().into(), MAX_JSON_BYTES)?;
    let data_bytes = capped(header.data_bytes.get().into(), MAX_DATA_BYTES)?;
    let json = read_part(stream, json_bytes)?;
    let data = read_part(stream, data_bytes)?;
    Ok(Some(Frame { id: header.id.get(), json: serde_json::from_slice(&json)?, data }))
}

fn read_part(stream: &mut impl Read, bytes: u32) -> Result<Vec<u8>, WireError> {
    let mut part = Vec::new();
    stream.take(bytes.into()).read_to_end(&mut part)?;
    if part.len() == bytes as usize { Ok(part) } else { Err(WireError::Ended) }
}

fn capped(bytes: u64, limit: u32) -> Result<u32, WireError> {
    match u32::try_from(bytes) {
        Ok(bytes) if bytes <= limit => Ok(bytes),
        _ => Err(WireError::TooLarge { bytes, limit }),
    }
}

fn ended(error: io::Error) -> WireError {
    if error.kind() == io::ErrorKind::UnexpectedEof { WireError::Ended } else { error.into() }
}
