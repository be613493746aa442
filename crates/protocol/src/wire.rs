//! The byte-exact structures: what lies where. No meaning is checked here; see [`Request`](crate::Request) and
//! [`Reply`](crate::Reply) for that.
//!
//! All fields are little-endian with alignment 1, so that a view can be laid over any buffer without copying, and the layout
//! is the same on every target. The assertions at the end are the format: a change there is a new version.

use zerocopy::little_endian::{I32, I64, U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Declares structures with what every one of them needs, so that none forgets a derive.
macro_rules! wire {
    ($($(#[$doc:meta])* pub struct $name:ident { $($(#[$fdoc:meta])* pub $field:ident: $ty:ty,)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
        #[repr(C)]
        pub struct $name { $($(#[$fdoc])* pub $field: $ty,)* }
    )*};
}

wire! {
    /// Starts every request.
    pub struct RequestHeader {
        /// Bytes of the whole message, this header included.
        pub size: U32,
        /// Protocol version, [`VERSION`](crate::VERSION).
        pub version: U16,
        /// What is asked for, a [`Kind`](crate::Kind).
        pub kind: U16,
        /// The client's own number for the request; comes back in the reply.
        pub request_id: U64,
        /// No flag is defined: 0.
        pub flags: U32,
        /// 0.
        pub reserved: U32,
    }

    /// Starts every reply.
    pub struct ReplyHeader {
        /// Bytes of the whole reply, this header included.
        pub size: U32,
        /// Protocol version, [`VERSION`](crate::VERSION).
        pub version: U16,
        /// The request's kind, also where the driver does not know it.
        pub kind: U16,
        /// The request's number.
        pub request_id: U64,
        /// NTSTATUS of the request.
        pub status: I32,
        /// 0, or a [`Reason`](crate::Reason) that says more than the status.
        pub reason: U32,
        /// 0, or for failures a [`Detail`](crate::Detail): phase, and the status of the system call behind.
        pub detail: U64,
    }

    /// Body of a hello request.
    pub struct HelloRequest {
        /// Lowest version the client speaks.
        pub min_version: U16,
        /// Highest version the client speaks.
        pub max_version: U16,
        /// 0.
        pub reserved: U32,
    }

    /// Body of a hello reply.
    pub struct HelloReply {
        /// Agreed version of all later messages.
        pub version: U16,
        /// 0.
        pub reserved: U16,
        /// Version of the driver: major.
        pub driver_major: U16,
        /// Version of the driver: minor.
        pub driver_minor: U16,
        /// Version of the driver: patch.
        pub driver_patch: U16,
        /// 0.
        pub reserved2: U16,
        /// Staging [`Policy`](crate::Policy) in force.
        pub policy: U32,
        /// Longest request in bytes.
        pub max_request_bytes: U32,
        /// Most data bytes that one read returns.
        pub max_read_bytes: U32,
        /// Largest file in bytes that can be opened or staged.
        pub max_image_bytes: U64,
        /// Longest name in bytes.
        pub max_name_bytes: U32,
        /// Most handles a session can hold at once.
        pub max_handles_per_session: U32,
        /// Most bytes that all staged images together may take.
        pub max_staged_bytes: U64,
        /// Number of this session in the driver's log and lists.
        pub session_id: U64,
    }

    /// Fixed part of an open request; the name follows.
    pub struct OpenRequest {
        /// 0: files are opened for reading.
        pub access: U32,
        /// Bytes of the NT path that follows.
        pub name_bytes: U32,
    }

    /// Body of an open reply.
    pub struct OpenReply {
        /// The new handle, never 0.
        pub handle: U64,
        /// Length of the file in bytes.
        pub size: U64,
    }

    /// Body of a query or close request.
    pub struct HandleRequest {
        /// Which handle.
        pub handle: U64,
    }

    /// Body of a query reply.
    pub struct QueryReply {
        /// Length in bytes (`EndOfFile`).
        pub size: U64,
        /// Bytes on disk (`AllocationSize`).
        pub allocation_size: U64,
        /// `ChangeTime`: 100 ns units since 1601-01-01 UTC.
        pub change_time: I64,
        /// Serial number of the volume.
        pub volume_serial: U64,
        /// 128-bit file id (`FILE_ID_128`), unique on its volume.
        pub file_id: [u8; 16],
        /// `FILE_ATTRIBUTE_*`.
        pub attributes: U32,
        /// Hard links to the file.
        pub number_of_links: U32,
        /// What the handle stands for, an [`ObjectKind`](crate::ObjectKind).
        pub kind: U32,
        /// 0.
        pub reserved: U32,
    }

    /// Body of a read request.
    pub struct ReadRequest {
        /// Handle of a file.
        pub handle: U64,
        /// First byte wanted.
        pub offset: U64,
        /// How many bytes are wanted at most.
        pub length: U32,
        /// 0.
        pub reserved: U32,
    }

    /// Fixed part of a read reply; the data follows.
    pub struct ReadReply {
        /// Data bytes that follow; fewer than asked for only where the file ends.
        pub bytes: U32,
        /// 0.
        pub reserved: U32,
    }

    /// Fixed part of a stage request; the name follows.
    pub struct StageRequest {
        /// Bit 0: `sha256` is given. All others 0.
        pub flags: U32,
        /// Bytes of the NT path that follows.
        pub name_bytes: U32,
        /// SHA-256 the file must have; all zero where bit 0 of `flags` is clear.
        pub sha256: [u8; 32],
        /// Highest physical address the image may touch, [`ANY_ADDRESS`](crate::ANY_ADDRESS) for no limit.
        pub highest_address: U64,
        /// Milliseconds the request may take, 0 for the driver's own limit.
        pub deadline_ms: U32,
        /// 0.
        pub reserved: U32,
    }

    /// Body of a stage reply.
    pub struct StageReply {
        /// Number of the image, never 0.
        pub image_id: U64,
        /// Length in bytes.
        pub size: U64,
        /// SHA-256 as the driver computed it.
        pub sha256: [u8; 32],
        /// 1 where an image with these bytes was there already, or was just being staged; else 0.
        pub shared: U32,
        /// 0.
        pub reserved: U32,
    }

    /// Fixed part of an unstage request; the name follows.
    pub struct UnstageRequest {
        /// Which image, or 0 to go by name.
        pub image_id: U64,
        /// Bytes of the NT path that follows; 0 where `image_id` is given.
        pub name_bytes: U32,
        /// 0.
        pub reserved: U32,
    }

    /// Body of an unstage reply.
    pub struct UnstageReply {
        /// The image that was taken out.
        pub image_id: U64,
        /// Its length in bytes.
        pub size: U64,
    }

    /// Body of a list, handles or sessions request.
    pub struct ListRequest {
        /// 0, or `next_cursor` of the reply before.
        pub cursor: U64,
        /// 0.
        pub reserved: U64,
    }

    /// Fixed part of a list, handles or sessions reply; the entries follow.
    pub struct ListReply {
        /// Where to go on, 0 after the last entry.
        pub next_cursor: U64,
        /// Entries in this reply.
        pub count: U32,
        /// Entries there are in all, at some moment during the request.
        pub total: U32,
    }

    /// Fixed part of one entry of a list reply. The name follows, then `handed_to`, then zeros up to a multiple of 8.
    pub struct ListEntry {
        /// Bytes from here to the next entry.
        pub entry_bytes: U32,
        /// How far staging has come, a [`Phase`](crate::Phase).
        pub phase: U32,
        /// Number of the image.
        pub image_id: U64,
        /// Length in bytes.
        pub size: U64,
        /// Bytes read and hashed so far.
        pub bytes_done: U64,
        /// SHA-256, all zero until it is known.
        pub sha256: [u8; 32],
        /// Drivers and sessions that hold the image open now.
        pub open_count: U32,
        /// Bytes of the name.
        pub name_bytes: U32,
        /// Bytes of the name of the driver that opened the image last, 0 if none did.
        pub handed_to_bytes: U32,
        /// 0.
        pub reserved: U32,
    }

    /// Fixed part of one entry of a handles reply. The owner's name follows, then the file's, then zeros up to a multiple of 8.
    pub struct HandleEntry {
        /// Bytes from here to the next entry.
        pub entry_bytes: U32,
        /// What the handle stands for, an [`ObjectKind`](crate::ObjectKind).
        pub kind: U32,
        /// Number of the entry, for [`RevokeRequest`]. No request takes it for a handle.
        pub id: U64,
        /// The session that the handle belongs to.
        pub session_id: U64,
        /// The process that connected the session; 4, the system's, for a NIC driver.
        pub process_id: U64,
        /// When the handle was opened: 100 ns units since 1601-01-01 UTC.
        pub opened_at: I64,
        /// Length in bytes of the file or image, when it was opened.
        pub size: U64,
        /// What is being done with it, a [`HandlePhase`](crate::HandlePhase).
        pub phase: U32,
        /// Requests that use it at this moment.
        pub pins: U32,
        /// Bytes of the owner's name.
        pub owner_bytes: U32,
        /// Bytes of the file's name.
        pub name_bytes: U32,
    }

    /// Fixed part of one entry of a sessions reply. The owner's name follows, then zeros up to a multiple of 8.
    pub struct SessionEntry {
        /// Bytes from here to the next entry.
        pub entry_bytes: U32,
        /// `SESSION_*` flags; bits without a name are 0.
        pub flags: U32,
        /// Number of the session, never used again in a boot.
        pub session_id: U64,
        /// The process that connected; 4, the system's, for a NIC driver.
        pub process_id: U64,
        /// When it connected: 100 ns units since 1601-01-01 UTC.
        pub connected_at: I64,
        /// Bytes of memory that its requests use.
        pub bytes: U64,
        /// Most bytes they may use at once.
        pub max_bytes: U64,
        /// Handles it holds, those being closed included.
        pub handles: U32,
        /// Most handles it may hold at once.
        pub max_handles: U32,
        /// Images being staged for it.
        pub jobs: U32,
        /// Most images that may be staged for it at once.
        pub max_jobs: U32,
        /// Requests that are running.
        pub requests: U32,
        /// Handles that were taken away from it and that it has not closed yet.
        pub revoked: U32,
        /// Bytes of the owner's name.
        pub owner_bytes: U32,
        /// 0.
        pub reserved: U32,
    }

    /// Body of a revoke request.
    pub struct RevokeRequest {
        /// What `id` is, a [`RevokeScope`](crate::RevokeScope).
        pub scope: U32,
        /// 0.
        pub reserved: U32,
        /// Which handle, session or process; never 0.
        pub id: U64,
    }

    /// Body of a revoke reply.
    pub struct RevokeReply {
        /// Handles that this request took away.
        pub revoked: U32,
        /// Handles that were left, since NIC drivers have them.
        pub kept: U32,
    }
}

/// Bit 0 of `StageRequest::flags`: the request carries the SHA-256 the file must have.
pub const STAGE_DIGEST_PRESENT: u32 = 1;

/// Bit 0 of `SessionEntry::flags`: an administrator's, who may use every request.
pub const SESSION_ADMINISTRATOR: u32 = 1;

/// Bit 1 of `SessionEntry::flags`: not a client but a NIC driver.
pub const SESSION_DRIVER: u32 = 2;

/// Bit 2 of `SessionEntry::flags`: it has ended, and only waits for requests that are still running.
pub const SESSION_ENDED: u32 = 4;

const _: () = {
    assert!(size_of::<RequestHeader>() == 24);
    assert!(size_of::<ReplyHeader>() == 32);
    assert!(size_of::<HelloRequest>() == 8);
    assert!(size_of::<HelloReply>() == 56);
    assert!(size_of::<OpenRequest>() == 8);
    assert!(size_of::<OpenReply>() == 16);
    assert!(size_of::<HandleRequest>() == 8);
    assert!(size_of::<QueryReply>() == 64);
    assert!(size_of::<ReadRequest>() == 24);
    assert!(size_of::<ReadReply>() == 8);
    assert!(size_of::<StageRequest>() == 56);
    assert!(size_of::<StageReply>() == 56);
    assert!(size_of::<UnstageRequest>() == 16);
    assert!(size_of::<UnstageReply>() == 16);
    assert!(size_of::<ListRequest>() == 16);
    assert!(size_of::<ListReply>() == 16);
    assert!(size_of::<ListEntry>() == 80);
    assert!(size_of::<HandleEntry>() == 64);
    assert!(size_of::<SessionEntry>() == 80);
    assert!(size_of::<RevokeRequest>() == 16);
    assert!(size_of::<RevokeReply>() == 8);
};
