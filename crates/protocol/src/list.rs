//! Lists in replies: entries written one by one until the buffer is full, and walked by the client.

use core::marker::PhantomData;

use zerocopy::IntoBytes;

use crate::frame::{View, length_field, prefix, write_parts};
use crate::reply::success_header;
use crate::wire;
use crate::{BufferTooSmall, Kind, Name, Reason, SHA256_BYTES};

/// What a list is made of.
pub trait Record<'a>: Copy {
    /// Bytes this entry takes in a reply, its padding included.
    #[must_use]
    fn encoded_len(&self) -> usize;

    /// Writes the entry to the start of `out`; returns its length in bytes.
    fn write(&self, out: &mut [u8]) -> Result<usize, BufferTooSmall>;

    /// The entry at the start of `bytes`, and what follows it.
    fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Reason>;
}

/// One staged image, or one being staged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListEntry<'a> {
    /// Number of the image.
    pub image_id: u64,
    /// [`Phase`](crate::Phase) as its code.
    pub phase: u32,
    /// Length in bytes.
    pub size: u64,
    /// Bytes read and hashed so far.
    pub bytes_done: u64,
    /// SHA-256, all zero until known.
    pub sha256: [u8; SHA256_BYTES],
    /// Drivers and sessions that hold the image now.
    pub open_count: u32,
    /// Name it was staged under.
    pub name: Name<'a>,
    /// Driver that opened it last, empty if none did.
    pub handed_to: Name<'a>,
}

impl<'a> Record<'a> for ListEntry<'a> {
    fn encoded_len(&self) -> usize {
        padded(size_of::<wire::ListEntry>(), self.name, self.handed_to)
    }

    fn write(&self, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        let needed = self.encoded_len();
        let fixed = wire::ListEntry {
            entry_bytes: length_field(needed).into(),
            phase: self.phase.into(),
            image_id: self.image_id.into(),
            size: self.size.into(),
            bytes_done: self.bytes_done.into(),
            sha256: self.sha256,
            open_count: self.open_count.into(),
            name_bytes: length_field(self.name.byte_len()).into(),
            handed_to_bytes: length_field(self.handed_to.byte_len()).into(),
            reserved: 0.into(),
        };
        write_record(out, needed, &[fixed.as_bytes(), self.name.as_bytes(), self.handed_to.as_bytes()])
    }

    fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), Reason> {
        let (fixed, _) = prefix::<wire::ListEntry>(bytes)?;
        let lengths = [fixed.name_bytes.get(), fixed.handed_to_bytes.get()];
        let ([name, handed_to], rest) = split_record::<wire::ListEntry>(bytes, fixed.entry_bytes.get(), lengths)?;
        let entry = Self {
            image_id: fixed.image_id.get(),
            phase: fixed.phase.get(),
            size: fixed.size.get(),
            bytes_done: fixed.bytes_done.get(),
            sha256: fixed.sha256,
            open_count: fixed.open_count.get(),
            name,
            handed_to,
        };
        Ok((entry, rest))
    }
}

/// Bytes of an entry with its names, up to where the next one starts.
pub(crate) const fn padded(fixed: usize, first: Name<'_>, second: Name<'_>) -> usize {
    fixed.saturating_add(first.byte_len()).saturating_add(second.byte_len()).next_multiple_of(8)
}

/// Writes an entry of `needed` bytes: its parts, then padding.
pub(crate) fn write_record(out: &mut [u8], needed: usize, parts: &[&[u8]]) -> Result<usize, BufferTooSmall> {
    let out = out.get_mut(..needed).ok_or(BufferTooSmall { needed })?;
    let used = write_parts(out, parts)?;
    // Old bytes of a reused buffer must not leave the kernel in the padding.
    out.get_mut(used..).unwrap_or_default().fill(0);
    Ok(needed)
}

/// The names of an entry whose fixed part is an `F`, and what follows the entry.
pub(crate) fn split_record<'a, F: View + 'a>(
    bytes: &'a [u8],
    entry_bytes: u32,
    lengths: [u32; 2],
) -> Result<([Name<'a>; 2], &'a [u8]), Reason> {
    let (entry, rest) = bytes.split_at_checked(entry_bytes as usize).ok_or(Reason::BodyTooShort)?;
    let (_, tail) = prefix::<F>(entry)?;
    let (first, tail) = split_name(tail, lengths[0])?;
    let (second, padding) = split_name(tail, lengths[1])?;
    if padding.len() >= 8 {
        return Err(Reason::BodyTooLong);
    }
    Ok(([first, second], rest))
}

fn split_name(bytes: &[u8], length: u32) -> Result<(Name<'_>, &[u8]), Reason> {
    let (name, rest) = bytes.split_at_checked(length as usize).ok_or(Reason::BodyTooShort)?;
    Ok((Name::from_bytes(name).ok_or(Reason::NameLengthOdd)?, rest))
}

/// Writes a list reply entry by entry.
#[derive(Debug)]
pub struct ListWriter<'a> {
    kind: Kind,
    out: &'a mut [u8],
    used: usize,
    count: u32,
}

impl<'a> ListWriter<'a> {
    /// Bytes before the first entry.
    const ENTRIES_OFFSET: usize = 48;

    /// Starts a reply of this kind in `out`. Its entries are for the caller to choose right.
    pub const fn new(kind: Kind, out: &'a mut [u8]) -> Result<Self, BufferTooSmall> {
        if out.len() < Self::ENTRIES_OFFSET {
            return Err(BufferTooSmall { needed: Self::ENTRIES_OFFSET });
        }
        Ok(Self { kind, out, used: Self::ENTRIES_OFFSET, count: 0 })
    }

    /// Adds an entry. Where it does not fit the reply stays as it was; end it and let the client ask for the rest.
    pub fn push<'e, R: Record<'e>>(&mut self, entry: &R) -> Result<(), BufferTooSmall> {
        let room = self.out.get_mut(self.used..).unwrap_or_default();
        let bytes =
            entry.write(room).map_err(|_| BufferTooSmall { needed: self.used.saturating_add(entry.encoded_len()) })?;
        self.used = self.used.saturating_add(bytes);
        self.count = self.count.saturating_add(1);
        Ok(())
    }

    /// Entries so far.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// Completes the reply to request `id`; returns its length in bytes. `next_cursor` is 0 after the last entry.
    pub fn finish(self, id: u64, next_cursor: u64, total: u32) -> Result<usize, BufferTooSmall> {
        let header = success_header(self.kind, id, self.used);
        let body = wire::ListReply { next_cursor: next_cursor.into(), count: self.count.into(), total: total.into() };
        write_parts(self.out, &[header.as_bytes(), body.as_bytes()])?;
        Ok(self.used)
    }
}

const _: () = assert!(ListWriter::ENTRIES_OFFSET == size_of::<wire::ReplyHeader>() + size_of::<wire::ListReply>());

/// The entries of one list reply. Checked as a whole before it exists, so that walking it cannot fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListEntries<'a, R = ListEntry<'a>> {
    /// Where to go on, 0 after the last entry.
    pub next_cursor: u64,
    /// Entries there are in all.
    pub total: u32,
    count: u32,
    bytes: &'a [u8],
    records: PhantomData<fn() -> R>,
}

impl<'a, R: Record<'a>> ListEntries<'a, R> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, Reason> {
        let (fixed, bytes) = prefix::<wire::ListReply>(body)?;
        let mut rest = bytes;
        for _ in 0..fixed.count.get() {
            rest = R::parse(rest)?.1;
        }
        if !rest.is_empty() {
            return Err(Reason::BodyTooLong);
        }
        let (next_cursor, total, count) = (fixed.next_cursor.get(), fixed.total.get(), fixed.count.get());
        Ok(Self { next_cursor, total, count, bytes, records: PhantomData })
    }

    /// Number of entries in this reply.
    #[must_use]
    pub const fn count(&self) -> u32 {
        self.count
    }

    /// The entries in order.
    pub fn iter(&self) -> impl Iterator<Item = R> + use<'a, R> {
        let mut rest = self.bytes;
        core::iter::from_fn(move || {
            let (entry, behind) = R::parse(rest).ok()?;
            rest = behind;
            Some(entry)
        })
    }
}
