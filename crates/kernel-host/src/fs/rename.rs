//! FileRenameInformation and FileLinkInformation: new names for files, folders and streams.

use std::ffi::OsString;
use std::os::fd::OwnedFd;

use nt_types::{AccessMask, NtStatus};
use rustix::fs::{AtFlags, FileType, RenameFlags};

use super::change::u32_at;
use super::host::{self, Entry};
use super::notify::{Action, Change};
use super::open::Open;
use super::path::{SEPARATOR, VolumePath, upcase};
use super::stream::{Kind, Link};
use super::volume::{Found, VolumeState, WalkOptions};

/// Flags of the extended classes.
const REPLACE_IF_EXISTS: u32 = 0x01;
const POSIX_SEMANTICS: u32 = 0x02;
const IGNORE_READONLY: u32 = 0x40;

/// What a new name replaces, and how.
#[derive(Clone, Copy)]
struct Manner {
    replace: bool,
    /// Also what others have open.
    posix: bool,
    ignore_read_only: bool,
}

impl Manner {
    fn of(flags: u32, extended: bool) -> Self {
        if extended {
            let has = |flag: u32| flags & flag != 0;
            Self {
                replace: has(REPLACE_IF_EXISTS),
                posix: has(POSIX_SEMANTICS),
                ignore_read_only: has(IGNORE_READONLY),
            }
        } else {
            Self { replace: flags & 0xFF != 0, posix: false, ignore_read_only: false }
        }
    }
}

/// Flags and name of a FILE_RENAME_INFORMATION or FILE_LINK_INFORMATION.
pub(crate) fn target_name(bytes: &[u8]) -> Option<(u32, Vec<u16>)> {
    let length = u32_at(bytes, 16).ok()? as usize;
    let name = bytes.get(20..20_usize.checked_add(length)?)?;
    let name = name.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    Some((u32_at(bytes, 0).ok()?, name))
}

/// Where a new name goes.
struct Place {
    folder: OwnedFd,
    name: OsString,
    /// Volume-relative.
    path: Vec<u16>,
    /// Something has that name already.
    taken: bool,
    /// ... and it is this very file.
    same: bool,
}

/// Renames within the volume.
pub(super) fn rename(open: &Open, extended: bool, bytes: &[u8], parent: Option<&Open>) -> Result<(), NtStatus> {
    open.require(AccessMask::DELETE)?;
    let (flags, name) = target_name(bytes).ok_or(NtStatus::INFO_LENGTH_MISMATCH)?;
    let manner = Manner::of(flags, extended);
    if name.first() == Some(&u16::from(b':')) {
        return rename_stream(open, &name[1..], manner);
    }
    if open.stream.key.stream.is_some() {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let before = open.name();
    let mut volume = open.volume.lock();
    let place = place(open, &mut volume, &name, parent, manner)?;
    let mut own_link = open.link();
    let link = own_link.as_ref().ok_or(NtStatus::ACCESS_DENIED)?;
    let flags = if place.taken && !place.same { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
    let flags = if place.same { RenameFlags::empty() } else { flags };
    rustix::fs::renameat_with(&link.parent, link.name.as_os_str(), &place.folder, &place.name, flags)
        .map_err(host::status)?;
    *own_link = Some(Link { parent: place.folder, name: place.name });
    drop(own_link);
    drop(volume);
    let change = if open.stream.kind == Kind::Directory { Change::DIR_NAME } else { Change::FILE_NAME };
    open.stream.lock().renames.push((before.clone(), place.path.clone()));
    open.volume.notices.note(change, Action::RenamedOld, &before);
    open.volume.notices.note(change, Action::RenamedNew, &place.path);
    Ok(())
}

/// Gives a file a second name on the volume.
pub(super) fn link(open: &Open, extended: bool, bytes: &[u8], parent: Option<&Open>) -> Result<(), NtStatus> {
    let (flags, name) = target_name(bytes).ok_or(NtStatus::INFO_LENGTH_MISMATCH)?;
    let manner = Manner::of(flags, extended);
    match open.stream.kind {
        Kind::Directory | Kind::Volume => return Err(NtStatus::FILE_IS_A_DIRECTORY),
        _ if open.stream.key.stream.is_some() => return Err(NtStatus::INVALID_PARAMETER),
        _ => {}
    }
    let mut volume = open.volume.lock();
    let place = place(open, &mut volume, &name, parent, manner)?;
    if place.same {
        return Ok(());
    }
    if place.taken {
        rustix::fs::unlinkat(&place.folder, &place.name, AtFlags::empty()).map_err(host::status)?;
    }
    let own_link = open.link();
    let link = own_link.as_ref().ok_or(NtStatus::ACCESS_DENIED)?;
    rustix::fs::linkat(&link.parent, link.name.as_os_str(), &place.folder, &place.name, AtFlags::empty())
        .map_err(host::status)?;
    drop(own_link);
    drop(volume);
    open.volume.notices.note(Change::FILE_NAME, Action::Added, &place.path);
    Ok(())
}

/// Follows the new name: in the folder that was opened for it, from the volume's root, or beside the file.
fn place(
    open: &Open,
    volume: &mut VolumeState,
    name: &[u16],
    parent: Option<&Open>,
    manner: Manner,
) -> Result<Place, NtStatus> {
    let last = |name: &[u16]| name.iter().rposition(|&unit| unit == SEPARATOR).map_or(0, |at| at + 1);
    let full = if let Some(parent) = parent {
        super::volume::join(&parent.name(), &name[last(name)..])
    } else if name.first() == Some(&SEPARATOR) {
        name.to_vec()
    } else {
        let current = open.name();
        let end = last(&current).saturating_sub(1);
        super::volume::join(&current[..end], name)
    };
    let mut path = VolumePath::parse(&full)?;
    if path.stream.is_some() || path.components.is_empty() {
        return Err(NtStatus::OBJECT_NAME_INVALID);
    }
    let asked = path.components.last().cloned().unwrap_or_default();
    let options = WalkOptions { open_reparse_point: true, ..WalkOptions::default() };
    let host_name = |name: &[u16]| String::from_utf16(name).map_err(|_| NtStatus::OBJECT_NAME_INVALID);
    let (folder, taken, same) = match open.volume.walk(&mut path, options)? {
        Found::Root => return Err(NtStatus::ACCESS_DENIED),
        Found::Missing { parent, .. } => (parent, None, false),
        Found::Entry(entry) => {
            let same = super::create::file_key(&entry.stat) == open.stream.key.file;
            if !same {
                check_replaceable(volume, &entry, manner)?;
            }
            (entry.parent, Some(entry.name), same)
        }
    };
    // What is there keeps its spelling unless it is replaced or is this file itself: then the new one counts.
    if let Some(component) = path.components.last_mut() {
        component.clone_from(&asked);
    }
    let replaced = taken.clone().filter(|_| !same);
    let name = replaced.unwrap_or(host_name(&asked)?.into());
    Ok(Place { folder, name, path: path.display(), taken: taken.is_some(), same })
}

/// Whether what has the name may go.
fn check_replaceable(volume: &mut VolumeState, entry: &Entry, manner: Manner) -> Result<(), NtStatus> {
    if !manner.replace {
        return Err(NtStatus::OBJECT_NAME_COLLISION);
    }
    let key = super::create::file_key(&entry.stat);
    let in_use = volume.live().iter().any(|stream| stream.key.file == key && stream.lock().handles != 0);
    let read_only = entry.stat.stx_mode & 0o222 == 0 && !manner.ignore_read_only;
    if entry.kind() == FileType::Directory || read_only || (in_use && !manner.posix) {
        return Err(NtStatus::ACCESS_DENIED);
    }
    if entry.stat.stx_nlink == 1 && !in_use {
        volume.forget(key);
    }
    Ok(())
}

/// A name that begins with a colon renames the stream.
fn rename_stream(open: &Open, name: &[u16], manner: Manner) -> Result<(), NtStatus> {
    let colon = u16::from(b':');
    let name = name.split(|&unit| unit == colon).next().unwrap_or_default();
    let own = open.stream.key.stream.as_ref();
    // The default stream's data would have to move.
    let (Some(own), false) = (own, name.is_empty()) else { return Err(NtStatus::INVALID_PARAMETER) };
    let mut volume = open.volume.lock();
    let streams = volume.named.get_mut(&open.stream.key.file).ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)?;
    let folded = upcase(name);
    if folded != *own && streams.iter().any(|stream| upcase(&stream.name) == folded) {
        if !manner.replace {
            return Err(NtStatus::OBJECT_NAME_COLLISION);
        }
        streams.retain(|stream| upcase(&stream.name) != folded);
    }
    let stream = streams.iter_mut().find(|stream| upcase(&stream.name) == *own);
    stream.ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)?.name = name.to_vec();
    drop(volume);
    let before = open.name();
    let file = before.iter().rposition(|&unit| unit == colon).unwrap_or(before.len());
    let mut after = before[..file].to_vec();
    after.push(colon);
    after.extend(name);
    open.stream.lock().renames.push((before, after));
    Ok(())
}
