//! IRP_MJ_SET_INFORMATION: what changes a file through a handle.

use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

use nt_types::{AccessMask, NtStatus};
use rustix::fs::{AtFlags, RenameFlags};

use super::host;
use super::information::class;
use super::open::Open;
use super::path::{SEPARATOR, VolumePath};
use super::stream::{Kind, Link};
use super::volume::{Found, WalkOptions};

/// Applies one class.
///
/// # Errors
/// `INVALID_INFO_CLASS` for a class that is unknown here, `INFO_LENGTH_MISMATCH` for a short buffer, `ACCESS_DENIED` when the
/// handle lacks the right, and what the change itself can end with.
pub(crate) fn set(open: &Open, class: u32, bytes: &[u8]) -> Result<(), NtStatus> {
    match class {
        class::DISPOSITION => {
            require(open, AccessMask::DELETE)?;
            open.set_delete_pending(*bytes.first().ok_or(NtStatus::INFO_LENGTH_MISMATCH)? != 0)
        }
        class::DISPOSITION_EX => {
            require(open, AccessMask::DELETE)?;
            open.set_delete_pending(u32_at(bytes, 0)? & 1 != 0)
        }
        class::POSITION => {
            let offset = i64_at(bytes, 0)?;
            if offset < 0 {
                return Err(NtStatus::INVALID_PARAMETER);
            }
            open.position.store(offset, Ordering::Relaxed);
            Ok(())
        }
        class::END_OF_FILE => {
            require(open, AccessMask::FILE_WRITE_DATA)?;
            let length = u64::try_from(i64_at(bytes, 0)?).map_err(|_| NtStatus::INVALID_PARAMETER)?;
            open.data().truncate(length)
        }
        class::BASIC => {
            require(open, AccessMask::FILE_WRITE_ATTRIBUTES)?;
            set_attributes(open, u32_at(bytes, 32)?)
        }
        class::RENAME => {
            require(open, AccessMask::DELETE)?;
            let replace = *bytes.first().ok_or(NtStatus::INFO_LENGTH_MISMATCH)? != 0;
            let length = u32_at(bytes, 16)? as usize;
            let name = bytes.get(20..20 + length).ok_or(NtStatus::INFO_LENGTH_MISMATCH)?;
            let name: Vec<u16> = name.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
            rename(open, &name, replace)
        }
        _ => Err(NtStatus::INVALID_INFO_CLASS),
    }
}

fn require(open: &Open, access: AccessMask) -> Result<(), NtStatus> {
    if open.granted.contains(access) { Ok(()) } else { Err(NtStatus::ACCESS_DENIED) }
}

/// Only `FILE_ATTRIBUTE_READONLY` has a counterpart on the host: the write bits. 0 means "leave as it is".
fn set_attributes(open: &Open, attributes: u32) -> Result<(), NtStatus> {
    if attributes == 0 || open.stream.kind != Kind::File {
        return Ok(());
    }
    let mode = u32::from(open.stat()?.stx_mode) & 0o777;
    let mode = if attributes & 1 != 0 { mode & !0o222 } else { mode | 0o200 };
    let file = host::reopen(open.entry().as_fd(), rustix::fs::OFlags::RDONLY)?;
    rustix::fs::fchmod(&file, rustix::fs::Mode::from_raw_mode(mode)).map_err(host::status)
}

/// Renames within the volume: a full name (volume-relative here), or a plain one in the same folder.
fn rename(open: &Open, name: &[u16], replace: bool) -> Result<(), NtStatus> {
    if open.stream.key.stream.is_some() {
        return Err(NtStatus::NOT_SUPPORTED);
    }
    let volume = open.volume.lock();
    let current = open.name();
    let full = if name.first() == Some(&SEPARATOR) {
        name.to_vec()
    } else {
        let end = current.iter().rposition(|&unit| unit == SEPARATOR).unwrap_or(0);
        super::volume::join(&current[..end], name)
    };
    let mut path = VolumePath::parse(&full)?;
    let options = WalkOptions { open_reparse_point: true, ..WalkOptions::default() };
    let (parent, host_name) = match open.volume.walk(&mut path, options)? {
        Found::Root => return Err(NtStatus::ACCESS_DENIED),
        Found::Missing { parent, name } => {
            (parent, String::from_utf16(&name).map_err(|_| NtStatus::OBJECT_NAME_INVALID)?.into())
        }
        Found::Entry(entry) => {
            let key = super::create::file_key(&entry.stat);
            if key != open.stream.key.file {
                if !replace {
                    return Err(NtStatus::OBJECT_NAME_COLLISION);
                }
                let in_use = volume.live().iter().any(|stream| stream.key.file == key && stream.lock().handles != 0);
                if in_use || entry.kind() == rustix::fs::FileType::Directory {
                    return Err(NtStatus::ACCESS_DENIED);
                }
            }
            (entry.parent, entry.name)
        }
    };
    let mut own_link = open.link();
    let link = own_link.as_ref().ok_or(NtStatus::ACCESS_DENIED)?;
    let flags = if replace { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
    rustix::fs::renameat_with(&link.parent, link.name.as_os_str(), &parent, &host_name, flags).map_err(host::status)?;
    *own_link = Some(Link { parent, name: host_name });
    open.stream.lock().renames.push((current, path.display()));
    Ok(())
}

/// Makes a hard link for tests of identity: same file, second name.
pub(crate) fn link(open: &Open, name: &str) -> Result<(), NtStatus> {
    let own_link = open.link();
    let link = own_link.as_ref().ok_or(NtStatus::ACCESS_DENIED)?;
    rustix::fs::linkat(&link.parent, link.name.as_os_str(), &link.parent, name, AtFlags::empty()).map_err(host::status)
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, NtStatus> {
    let field = bytes.get(at..at + 4).and_then(|field| field.try_into().ok());
    field.map(u32::from_le_bytes).ok_or(NtStatus::INFO_LENGTH_MISMATCH)
}

fn i64_at(bytes: &[u8], at: usize) -> Result<i64, NtStatus> {
    let field = bytes.get(at..at + 8).and_then(|field| field.try_into().ok());
    field.map(i64::from_le_bytes).ok_or(NtStatus::INFO_LENGTH_MISMATCH)
}
