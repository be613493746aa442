//! IRP_MJ_QUERY_INFORMATION: what a file tells about itself, in the layouts of the `FILE_*_INFORMATION` pages.

use nt_types::NtStatus;
use rustix::fs::{Statx, StatxTimestamp};

use super::open::Open;
use super::stream::Kind;

/// `FILE_INFORMATION_CLASS` values.
pub(crate) mod class {
    pub(crate) const BASIC: u32 = 4;
    pub(crate) const STANDARD: u32 = 5;
    pub(crate) const INTERNAL: u32 = 6;
    pub(crate) const EA: u32 = 7;
    pub(crate) const ACCESS: u32 = 8;
    pub(crate) const NAME: u32 = 9;
    pub(crate) const RENAME: u32 = 10;
    pub(crate) const LINK: u32 = 11;
    pub(crate) const DISPOSITION: u32 = 13;
    pub(crate) const POSITION: u32 = 14;
    pub(crate) const MODE: u32 = 16;
    pub(crate) const ALIGNMENT: u32 = 17;
    pub(crate) const ALL: u32 = 18;
    pub(crate) const ALLOCATION: u32 = 19;
    pub(crate) const END_OF_FILE: u32 = 20;
    pub(crate) const STREAM: u32 = 22;
    pub(crate) const NETWORK_OPEN: u32 = 34;
    pub(crate) const ATTRIBUTE_TAG: u32 = 35;
    pub(crate) const VALID_DATA_LENGTH: u32 = 39;
    pub(crate) const NORMALIZED_NAME: u32 = 48;
    pub(crate) const ID: u32 = 59;
    pub(crate) const DISPOSITION_EX: u32 = 64;
    pub(crate) const RENAME_EX: u32 = 65;
    pub(crate) const STANDARD_LINK: u32 = 54;
    pub(crate) const LINK_EX: u32 = 72;
}

/// `FILE_ATTRIBUTE_READONLY`.
const READONLY: u32 = 0x1;
/// `FILE_ATTRIBUTE_DIRECTORY`.
const DIRECTORY: u32 = 0x10;
/// `FILE_ATTRIBUTE_ARCHIVE`: what NTFS gives every file that it creates.
const ARCHIVE: u32 = 0x20;
/// `FILE_ATTRIBUTE_SPARSE_FILE`.
const SPARSE_FILE: u32 = 0x200;
/// `FILE_ATTRIBUTE_REPARSE_POINT`.
pub(crate) const REPARSE_POINT: u32 = 0x400;
/// `IO_REPARSE_TAG_SYMLINK`.
const REPARSE_TAG_SYMLINK: u32 = 0xA000_000C;

/// Bytes of a cluster: allocation sizes are multiples of it.
const CLUSTER: u64 = 4096;

/// An answer, before it meets the caller's buffer.
struct Answer {
    bytes: Vec<u8>,
    /// Shorter buffers are refused; longer answers than the buffer are cut with `BUFFER_OVERFLOW`.
    fixed: usize,
}

/// Answers a query into at most `length` bytes: the status, and the bytes to hand over.
///
/// `INFO_LENGTH_MISMATCH` when even the fixed part does not fit, `BUFFER_OVERFLOW` (a warning, with what fitted) when a name
/// does not, `INVALID_INFO_CLASS` for a class that is unknown.
pub(crate) fn query(open: &Open, class: u32, length: usize) -> (NtStatus, Vec<u8>) {
    match answer(open, class) {
        Err(status) => (status, Vec::new()),
        Ok(answer) if length < answer.fixed => (NtStatus::INFO_LENGTH_MISMATCH, Vec::new()),
        Ok(mut answer) if length < answer.bytes.len() => {
            answer.bytes.truncate(length);
            (NtStatus::BUFFER_OVERFLOW, answer.bytes)
        }
        Ok(answer) => (NtStatus::SUCCESS, answer.bytes),
    }
}

fn answer(open: &Open, class: u32) -> Result<Answer, NtStatus> {
    if open.is_deleted() {
        return Err(NtStatus::FILE_DELETED);
    }
    let stat = open.stat()?;
    let mut out = Writer::default();
    match class {
        class::BASIC => out.basic(open, &stat),
        class::STANDARD => out.standard(open, &stat)?,
        class::INTERNAL => out.u64(stat.stx_ino),
        class::EA => out.u32(extended(open)),
        // No alignment that buffers need.
        class::ALIGNMENT => out.u32(0),
        class::ACCESS => out.u32(open.granted.bits()),
        class::POSITION => out.i64(open.position.load(std::sync::atomic::Ordering::Relaxed)),
        class::MODE => out.u32(open.options & 0x103E),
        class::NETWORK_OPEN => {
            out.times(&stat);
            out.u64(allocation(open.size()?));
            out.u64(open.size()?);
            out.u32(attributes(open, &stat));
            out.u32(0);
        }
        class::ATTRIBUTE_TAG => {
            let attributes = attributes(open, &stat);
            out.u32(attributes);
            out.u32(if attributes & REPARSE_POINT != 0 { REPARSE_TAG_SYMLINK } else { 0 });
        }
        class::ID => {
            out.u64(open.volume.serial());
            out.u64(stat.stx_ino);
            // The upper half of the 128-bit id: 0 on NTFS; the host's device where a folder spans several.
            out.u64(open.stream.key.file.device);
        }
        class::NAME | class::NORMALIZED_NAME => return Ok(out.name(open, 4)),
        class::ALL => {
            out.basic(open, &stat);
            out.standard(open, &stat)?;
            out.u64(stat.stx_ino);
            out.u32(extended(open));
            out.u32(open.granted.bits());
            out.i64(open.position.load(std::sync::atomic::Ordering::Relaxed));
            out.u32(open.options & 0x103E);
            out.u32(0);
            // FILE_ALL_INFORMATION is 104 bytes, of which 100 precede the name.
            return Ok(out.name(open, 8));
        }
        class::STREAM => return out.streams(open),
        class::STANDARD_LINK => {
            out.u32(stat.stx_nlink);
            out.u32(stat.stx_nlink);
            let (deleted, directory) = (open.stream.lock().delete_pending, open.stream.kind == Kind::Directory);
            out.bytes(&[u8::from(deleted), u8::from(directory), 0, 0]);
        }
        _ => return Err(NtStatus::INVALID_INFO_CLASS),
    }
    let fixed = out.0.len();
    Ok(Answer { bytes: out.0, fixed })
}

/// `FILE_ATTRIBUTE_*` of an open file.
pub(crate) fn attributes(open: &Open, stat: &Statx) -> u32 {
    let read_only = if stat.stx_mode & 0o222 == 0 { READONLY } else { 0 };
    let sparse = if open.stream.lock().sparse { SPARSE_FILE } else { 0 };
    match open.stream.kind {
        Kind::Directory | Kind::Volume => DIRECTORY,
        Kind::Link => REPARSE_POINT | ARCHIVE,
        Kind::File => ARCHIVE | read_only | sparse,
    }
}

/// `FILE_ATTRIBUTE_*` of an entry that is not open.
pub(crate) fn attributes_of(kind: rustix::fs::FileType, stat: &Statx) -> u32 {
    match kind {
        rustix::fs::FileType::Directory => DIRECTORY,
        rustix::fs::FileType::Symlink => REPARSE_POINT | ARCHIVE,
        _ if stat.stx_mode & 0o222 == 0 => ARCHIVE | READONLY,
        _ => ARCHIVE,
    }
}

/// Bytes of the file's extended attributes.
fn extended(open: &Open) -> u32 {
    open.volume.lock().extended.get(&open.stream.key.file).map_or(0, |list| super::ea::size(list))
}

pub(super) fn allocation(size: u64) -> u64 {
    size.div_ceil(CLUSTER).saturating_mul(CLUSTER)
}

/// NT time: 100 ns units since 1601.
pub(crate) fn nt_time(time: StatxTimestamp) -> i64 {
    const EPOCH: i64 = 116_444_736_000_000_000;
    let ticks = time.tv_sec.saturating_mul(10_000_000).saturating_add(i64::from(time.tv_nsec / 100));
    EPOCH.saturating_add(ticks)
}

/// Appends little-endian fields.
#[derive(Default)]
pub(super) struct Writer(Vec<u8>);

impl Writer {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn zeros(&mut self, count: usize) {
        self.0.resize(self.0.len() + count, 0);
    }

    pub(super) fn units(&mut self, units: &[u16]) {
        self.0.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn times(&mut self, stat: &Statx) {
        let created = if stat.stx_btime.tv_sec == 0 { stat.stx_mtime } else { stat.stx_btime };
        for time in [created, stat.stx_atime, stat.stx_mtime, stat.stx_ctime] {
            self.i64(nt_time(time));
        }
    }

    fn basic(&mut self, open: &Open, stat: &Statx) {
        self.times(stat);
        self.u32(attributes(open, stat));
        self.u32(0);
    }

    fn standard(&mut self, open: &Open, stat: &Statx) -> Result<(), NtStatus> {
        let size = open.size()?;
        self.u64(allocation(size));
        self.u64(size);
        self.u32(stat.stx_nlink);
        let delete_pending = open.stream.lock().delete_pending;
        let directory = matches!(open.stream.kind, Kind::Directory | Kind::Volume);
        self.0.extend_from_slice(&[u8::from(delete_pending), u8::from(directory), 0, 0]);
        Ok(())
    }

    /// Length in bytes, then the name; `alignment` is that of the structure, whose size is the fixed part.
    fn name(mut self, open: &Open, alignment: usize) -> Answer {
        let name = open.name();
        self.u32((name.len() * 2) as u32);
        let fixed = (self.0.len() + 2).next_multiple_of(alignment);
        self.0.extend(name.iter().flat_map(|unit| unit.to_le_bytes()));
        Answer { bytes: self.0, fixed }
    }

    /// `FILE_STREAM_INFORMATION` entries, each on an 8-byte boundary.
    fn streams(mut self, open: &Open) -> Result<Answer, NtStatus> {
        let mut streams = Vec::new();
        if open.stream.kind == Kind::File {
            streams.push(("::$DATA".encode_utf16().collect(), open.stat()?.stx_size));
        }
        for (name, size) in open.named_streams() {
            let mut text = vec![u16::from(b':')];
            text.extend(name);
            text.extend(":$DATA".encode_utf16());
            streams.push((text, size));
        }
        let count = streams.len();
        for (index, (name, size)) in streams.into_iter().enumerate() {
            let length = 24 + name.len() * 2;
            let next = if index + 1 == count { 0 } else { length.next_multiple_of(8) };
            self.u32(next as u32);
            self.u32((name.len() * 2) as u32);
            self.u64(size);
            self.u64(allocation(size));
            self.0.extend(name.iter().flat_map(|unit: &u16| unit.to_le_bytes()));
            if next != 0 {
                self.0.resize(self.0.len().next_multiple_of(8), 0);
            }
        }
        Ok(Answer { bytes: self.0, fixed: 0 })
    }
}
