//! IRP_MJ_SET_INFORMATION: what changes a file through a handle. New names are in [`super::rename`].

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use nt_types::{AccessMask, NtStatus};
use rustix::fs::{Timespec, Timestamps};

use super::host;
use super::information::class;
use super::notify::Change;
use super::open::Open;
use super::stream::Kind;

pub(super) use super::rename::target_name;

/// `FILE_DISPOSITION_*` flags of the extended class.
mod disposition {
    pub(super) const DELETE: u32 = 0x01;
    pub(super) const POSIX_SEMANTICS: u32 = 0x02;
    pub(super) const ON_CLOSE: u32 = 0x08;
    pub(super) const IGNORE_READONLY: u32 = 0x10;
    pub(super) const VALID: u32 = 0x1F;
}

/// Applies one class. `parent` is the open folder that a rename or link goes to, where the I/O manager opened it.
///
/// # Errors
/// `INVALID_INFO_CLASS` for a class that is unknown here, `INFO_LENGTH_MISMATCH` for a short buffer, `ACCESS_DENIED` when the
/// handle lacks the right, and what the change itself can end with.
pub(crate) fn set(open: &Open, class: u32, bytes: &[u8], parent: Option<&Open>) -> Result<(), NtStatus> {
    match class {
        class::DISPOSITION => {
            open.require(AccessMask::DELETE)?;
            open.set_delete_pending(*bytes.first().ok_or(NtStatus::INFO_LENGTH_MISMATCH)? != 0, false)
        }
        class::DISPOSITION_EX => set_disposition(open, u32_at(bytes, 0)?),
        class::POSITION => {
            let offset = i64_at(bytes, 0)?;
            if offset < 0 {
                return Err(NtStatus::INVALID_PARAMETER);
            }
            open.position.store(offset, Ordering::Relaxed);
            Ok(())
        }
        class::MODE => set_mode(open, u32_at(bytes, 0)?),
        class::END_OF_FILE => {
            open.require(AccessMask::FILE_WRITE_DATA)?;
            set_length(open, length(i64_at(bytes, 0)?)?)
        }
        class::ALLOCATION => {
            open.require(AccessMask::FILE_WRITE_DATA)?;
            let length = length(i64_at(bytes, 0)?)?;
            // Less than there is cuts the file; more only reserves, which nobody can see here.
            if length < open.size()? { set_length(open, length) } else { Ok(()) }
        }
        class::VALID_DATA_LENGTH => {
            open.require(AccessMask::FILE_WRITE_DATA)?;
            let length = length(i64_at(bytes, 0)?)?;
            if length > open.size()? { Err(NtStatus::INVALID_PARAMETER) } else { Ok(()) }
        }
        class::BASIC => {
            open.require(AccessMask::FILE_WRITE_ATTRIBUTES)?;
            set_basic(open, bytes)
        }
        class::RENAME | class::RENAME_EX => super::rename::rename(open, class == class::RENAME_EX, bytes, parent),
        class::LINK | class::LINK_EX => super::rename::link(open, class == class::LINK_EX, bytes, parent),
        _ => Err(NtStatus::INVALID_INFO_CLASS),
    }
}

fn set_disposition(open: &Open, flags: u32) -> Result<(), NtStatus> {
    open.require(AccessMask::DELETE)?;
    if flags & !disposition::VALID != 0 {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let delete = flags & disposition::DELETE != 0;
    if flags & disposition::ON_CLOSE != 0 {
        // Only a handle that was opened to delete on close can change its mind about that.
        return open.set_delete_on_close(delete);
    }
    open.set_delete_pending(delete, flags & disposition::IGNORE_READONLY != 0)?;
    open.stream.lock().posix_delete = delete && flags & disposition::POSIX_SEMANTICS != 0;
    Ok(())
}

/// FileModeInformation: what can change after the open.
fn set_mode(open: &Open, mode: u32) -> Result<(), NtStatus> {
    const WRITE_THROUGH: u32 = 0x2;
    const SEQUENTIAL_ONLY: u32 = 0x4;
    const SYNCHRONOUS: u32 = 0x30;
    let synchronous = open.options & SYNCHRONOUS;
    if mode & !(WRITE_THROUGH | SEQUENTIAL_ONLY | SYNCHRONOUS) != 0 || (mode & SYNCHRONOUS == 0) != (synchronous == 0) {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    Ok(())
}

fn set_length(open: &Open, length: u64) -> Result<(), NtStatus> {
    if open.stream.has_user_writable_references() && length < open.size()? {
        return Err(NtStatus::USER_MAPPED_FILE);
    }
    open.data().truncate(length)?;
    open.changed(Change::WRITTEN);
    Ok(())
}

/// FILE_BASIC_INFORMATION: times of 0 or less stay as they are; so do attributes of 0.
fn set_basic(open: &Open, bytes: &[u8]) -> Result<(), NtStatus> {
    let (accessed, written) = (i64_at(bytes, 8)?, i64_at(bytes, 16)?);
    let attributes = u32_at(bytes, 32)?;
    if accessed > 0 || written > 0 {
        let stamps = Timestamps { last_access: timespec(accessed), last_modification: timespec(written) };
        let file = host::reopen(open.entry().as_fd(), rustix::fs::OFlags::RDONLY)?;
        rustix::fs::futimens(&file, &stamps).map_err(host::status)?;
    }
    set_attributes(open, attributes)?;
    open.changed(Change::ATTRIBUTES);
    Ok(())
}

/// The host's form of an NT time.
fn timespec(time: i64) -> Timespec {
    const EPOCH: i64 = 116_444_736_000_000_000;
    if time <= 0 {
        return Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
    }
    let ticks = time - EPOCH;
    Timespec { tv_sec: ticks.div_euclid(10_000_000), tv_nsec: ticks.rem_euclid(10_000_000) * 100 }
}

/// Only `FILE_ATTRIBUTE_READONLY` has a counterpart on the host: the write bits. 0 means "leave as it is".
fn set_attributes(open: &Open, attributes: u32) -> Result<(), NtStatus> {
    const DIRECTORY: u32 = 0x10;
    const TEMPORARY: u32 = 0x100;
    if attributes & DIRECTORY != 0 && open.stream.kind != Kind::Directory {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    if attributes & TEMPORARY != 0 && open.stream.kind == Kind::Directory {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    if attributes == 0 || open.stream.kind != Kind::File {
        return Ok(());
    }
    let mode = u32::from(open.stat()?.stx_mode) & 0o777;
    let mode = if attributes & 1 != 0 { mode & !0o222 } else { mode | 0o200 };
    let file = host::reopen(open.entry().as_fd(), rustix::fs::OFlags::RDONLY)?;
    rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(mode)).map_err(host::status)
}

fn length(given: i64) -> Result<u64, NtStatus> {
    u64::try_from(given).map_err(|_| NtStatus::INVALID_PARAMETER)
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> Result<u32, NtStatus> {
    let field = bytes.get(at..at + 4).and_then(|field| field.try_into().ok());
    field.map(u32::from_le_bytes).ok_or(NtStatus::INFO_LENGTH_MISMATCH)
}

pub(super) fn i64_at(bytes: &[u8], at: usize) -> Result<i64, NtStatus> {
    let field = bytes.get(at..at + 8).and_then(|field| field.try_into().ok());
    field.map(i64::from_le_bytes).ok_or(NtStatus::INFO_LENGTH_MISMATCH)
}
