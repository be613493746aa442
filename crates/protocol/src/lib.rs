//! The messages between a client (`fwbctl`, or any program) and `fwbroker.sys`.
//!
//! They travel over the Filter Manager communication port `\FwBrokerPort`: one `FilterSendMessage` call is one request
//! (its input buffer) and one reply (its output buffer). Nothing is sent unasked, and no state of a message
//! outlives its call, so a client may have many calls under way on one port, one per thread.
//!
//! # For a C programmer
//! Every integer is little-endian. Every structure is packed, and laid out so that natural alignment would give the
//! same offsets: on x64 and ARM64 you can declare them as plain structs of `UINT32`, `UINT64` and so on. Names are UTF-16LE
//! without a terminator, counted in **bytes**, and follow the fixed part directly. Unused fields are called
//! `reserved`, must be 0, and are checked, so that they can get a meaning later.
//!
//! ```text
//! request header, 24 bytes                 reply header, 32 bytes
//!  0 u32 size        whole message          0 u32 size        whole reply
//!  4 u16 version     1                      4 u16 version     1
//!  6 u16 kind        see below              6 u16 kind        as in the request
//!  8 u64 request_id  chosen by the client   8 u64 request_id  as in the request
//! 16 u32 flags       0                     16 i32 status      NTSTATUS
//! 20 u32 reserved    0                     20 u32 reason      0, or why not (enum Reason)
//!                                          24 u64 detail      failures: phase | NTSTATUS << 32
//! ```
//! `size` must equal the number of bytes sent, to the byte: a longer buffer is refused just as a shorter one is.
//! Where `status` is a failure (negative) the reply ends after its header.
//!
//! ```text
//! kind         request body                                   reply body
//! 1 hello      u16 min_version, u16 max_version,              HelloReply, 56 bytes
//!              u32 reserved
//! 2 open       u32 access (0), u32 name_bytes, name           u64 handle, u64 size
//! 3 query      u64 handle                                     QueryReply, 64 bytes
//! 4 read       u64 handle, u64 offset, u32 length,            u32 bytes, u32 reserved, data
//!              u32 reserved
//! 5 close      u64 handle                                     nothing
//! 6 stage      StageRequest, 56 bytes, name                   u64 image_id, u64 size, u8 sha256[32],
//!                                                             u32 shared, u32 reserved
//! 7 unstage    u64 image_id, u32 name_bytes, u32 reserved,    u64 image_id, u64 size
//!              name (one of the two: id 0 means by name)
//! 8 list       u64 cursor (0 first), u64 reserved             u64 next_cursor (0 last), u32 count,
//!                                                             u32 total, count x ListEntry
//! 9 handles    as list                                        as list, count x HandleEntry
//! 10 sessions  as list                                        as list, count x SessionEntry
//! 11 revoke    u32 scope, u32 reserved, u64 id                u32 revoked, u32 kept
//! ```
//! The larger structures are drawn in [`wire`]. The first message of a session must be hello; its header carries
//! version 1 for ever, the others carry the version that hello agreed on.
//!
//! # Lists
//! Handles and sessions come and go while they are listed. Each entry is true of one moment; what is there from the first
//! request to the last is listed exactly once; and a reply may have no entries and yet a cursor to go on with. A cursor only
//! grows. Any number is a legal cursor: one that the driver did not give out leads to some place in the list, or to its end.
//!
//! # How a failure travels
//! `FilterSendMessage` turns a failure of the driver's callback into an HRESULT and may drop the output. Therefore a
//! request that arrived whole is always answered in band: the call succeeds and the reply's `status` says no.
//! Only where not even a reply header fits into the output buffer, or a buffer cannot be
//! touched, does the call itself fail.
//!
//! # In this crate
//! [`Request`] and [`Reply`] parse untrusted bytes into types whose every field has been checked, once. Builders write into a
//! caller's buffer and say when it is too small. Nothing here allocates, panics, or knows an operating system.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::arithmetic_side_effects
    )
)]

mod codes;
mod frame;
mod inventory;
mod list;
mod name;
mod reason;
mod reply;
mod reply_view;
mod request;
pub mod wire;

pub use codes::{HandlePhase, Kind, ObjectKind, Phase, Policy, RevokeScope};
pub use frame::{BufferTooSmall, FrameError};
pub use inventory::{HandleEntry, Quota, SessionEntry};
pub use list::{ListEntries, ListEntry, ListWriter, Record};
pub use name::Name;
pub use reason::Reason;
pub use reply::{
    Detail, HelloReply, OpenReply, QueryReply, ReadReply, RevokeReply, StageReply, UnstageReply, write_close,
    write_failure,
};
pub use reply_view::{Failure, Reply, ReplyBody, ReplyError};
pub use request::{HelloRequest, OpenRequest, ReadRequest, Request, RequestBody, RevokeRequest, StageRequest, Target};

/// The only protocol version there is so far, and the one that hello's header always carries.
pub const VERSION: u16 = 1;

/// Name of the communication port in the object namespace.
pub const PORT_NAME: &str = r"\FwBrokerPort";

/// Name of the port for clients without administrator rights. There is one only where the registry value `AllowUsers` of the driver's
/// `Parameters` key is 1. On it hello, open, query, read and close are served, and all else is refused with
/// [`Reason::NotAdministrator`].
pub const USER_PORT_NAME: &str = r"\FwBrokerUserPort";

/// Name of the driver's service, as `FilterLoad` takes it.
pub const SERVICE_NAME: &str = "FwBroker";

/// Longest name in bytes: 32,767 UTF-16 units, what a `UNICODE_STRING` can hold.
pub const MAX_NAME_BYTES: u32 = 65_534;

/// Longest request in bytes. Leaves room above the longest legal name, so that a name that is too long is told
/// apart from a message that is too long.
pub const MAX_REQUEST_BYTES: u32 = 128 * 1024;

/// Most data bytes one read returns. Large enough that the round trip does not matter, small enough for one allocation.
pub const MAX_READ_BYTES: u32 = 1024 * 1024;

/// Length of a SHA-256 digest in bytes.
pub const SHA256_BYTES: usize = 32;

/// `StageRequest::highest_address` of a client that does not care where in physical memory the image lies.
pub const ANY_ADDRESS: u64 = u64::MAX;
