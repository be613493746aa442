//! What an administrator sees of handles and sessions.

use zerocopy::IntoBytes;

use crate::frame::{length_field, prefix};
use crate::list::{padded, split_record, write_record};
use crate::wire;
use crate::{BufferTooSmall, Name, Reason, Record};

/// One open handle, and who holds it.
///
/// The handle itself is not here: it is its owner's alone. [`id`](Self::id) names the entry for a revocation and for
/// nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandleEntry<'a> {
    /// Number of the entry.
    pub id: u64,
    /// [`ObjectKind`](crate::ObjectKind) as its code.
    pub kind: u32,
    /// [`HandlePhase`](crate::HandlePhase) as its code.
    pub phase: u32,
    /// The session that it belongs to.
    pub session_id: u64,
    /// The process that connected the session; 4, the system's, for a NIC driver.
    pub process_id: u64,
    /// When it was opened: 100 ns units since 1601-01-01 UTC.
    pub opened_at: i64,
    /// Length in bytes of the file or image, when it was opened.
    pub size: u64,
    /// Requests that use it at this moment.
    pub pins: u32,
    /// Image name of the process, or name of the NIC driver.
    pub owner: Name<'a>,
    /// Normalised name of the file.
    pub name: Name<'a>,
}

impl<'a> Record<'a> for HandleEntry<'a> {
    fn encoded_len(&self) -> usize {
        padded(size_of::<wire::HandleEntry>(), self.owner, self.name)
    }

    fn write(&self, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        let needed = self.encoded_len();
        let fixed = wire::HandleEntry {
            entry_bytes: length_field(needed).into(),
            kind: self.kind.into(),
            id: self.id.into(),
            session_id: self.session_id.into(),
            process_id: self.process_id.into(),
            opened_at: self.opened_at.into(),
            size: self.size.into(),
            phase: self.phase.into(),
            pins: self.pins.into(),
            owner_bytes: length_field(self.owner.byte_len()).into(),
            name_bytes: length_field(self.name.byte_len()).into(),
        };
        write_record(out, needed, &[fixed.as_bytes(), self.owner.as_bytes(), self.name.as_bytes()])
    }

    fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Reason> {
        let (fixed, _) = prefix::<wire::HandleEntry>(bytes)?;
        let lengths = [fixed.owner_bytes.get(), fixed.name_bytes.get()];
        let ([owner, name], rest) = split_record::<wire::HandleEntry>(bytes, fixed.entry_bytes.get(), lengths)?;
        let entry = Self {
            id: fixed.id.get(),
            kind: fixed.kind.get(),
            phase: fixed.phase.get(),
            session_id: fixed.session_id.get(),
            process_id: fixed.process_id.get(),
            opened_at: fixed.opened_at.get(),
            size: fixed.size.get(),
            pins: fixed.pins.get(),
            owner,
            name,
        };
        Ok((entry, rest))
    }
}

/// One session: a connected client or a NIC driver, and what of its quotas it uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionEntry<'a> {
    /// Number of the session.
    pub session_id: u64,
    /// The process that connected; 4, the system's, for a NIC driver.
    pub process_id: u64,
    /// When it connected: 100 ns units since 1601-01-01 UTC.
    pub connected_at: i64,
    /// `SESSION_*` flags of [`wire`].
    pub flags: u32,
    /// Handles held, those being closed included.
    pub handles: Quota<u32>,
    /// Bytes of memory that its requests use.
    pub bytes: Quota<u64>,
    /// Images being staged for it.
    pub jobs: Quota<u32>,
    /// Requests that are running.
    pub requests: u32,
    /// Handles that were taken away from it and that it has not closed yet.
    pub revoked: u32,
    /// Image name of the process, or name of the NIC driver.
    pub owner: Name<'a>,
}

/// How much of something is used, and how much may be at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quota<T> {
    /// In use now.
    pub used: T,
    /// Most that may be in use.
    pub limit: T,
}

impl<'a> Record<'a> for SessionEntry<'a> {
    fn encoded_len(&self) -> usize {
        padded(size_of::<wire::SessionEntry>(), self.owner, Name::default())
    }

    fn write(&self, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        let needed = self.encoded_len();
        let fixed = wire::SessionEntry {
            entry_bytes: length_field(needed).into(),
            flags: self.flags.into(),
            session_id: self.session_id.into(),
            process_id: self.process_id.into(),
            connected_at: self.connected_at.into(),
            bytes: self.bytes.used.into(),
            max_bytes: self.bytes.limit.into(),
            handles: self.handles.used.into(),
            max_handles: self.handles.limit.into(),
            jobs: self.jobs.used.into(),
            max_jobs: self.jobs.limit.into(),
            requests: self.requests.into(),
            revoked: self.revoked.into(),
            owner_bytes: length_field(self.owner.byte_len()).into(),
            reserved: 0.into(),
        };
        write_record(out, needed, &[fixed.as_bytes(), self.owner.as_bytes()])
    }

    fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Reason> {
        let (fixed, _) = prefix::<wire::SessionEntry>(bytes)?;
        let lengths = [fixed.owner_bytes.get(), 0];
        let ([owner, _], rest) = split_record::<wire::SessionEntry>(bytes, fixed.entry_bytes.get(), lengths)?;
        let entry = Self {
            session_id: fixed.session_id.get(),
            process_id: fixed.process_id.get(),
            connected_at: fixed.connected_at.get(),
            flags: fixed.flags.get(),
            handles: Quota { used: fixed.handles.get(), limit: fixed.max_handles.get() },
            bytes: Quota { used: fixed.bytes.get(), limit: fixed.max_bytes.get() },
            jobs: Quota { used: fixed.jobs.get(), limit: fixed.max_jobs.get() },
            requests: fixed.requests.get(),
            revoked: fixed.revoked.get(),
            owner,
        };
        Ok((entry, rest))
    }
}
