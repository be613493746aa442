//! The host folder behind a volume: finding an entry, one component at a time.
//!
//! Every step opens one component below an already opened folder with `O_NOFOLLOW`, and components cannot be `..` or contain
//! a slash ([`VolumePath`](super::path::VolumePath) sees to it), so that no name and no link can lead outside. A link
//! is data that this module reads; whoever resolves the name decides what to do with it.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nt_types::NtStatus;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, Statx, StatxFlags};
use rustix::io::Errno;

use super::path::{same_name, wide};

/// An entry that exists.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The folder it was found in.
    pub(crate) parent: OwnedFd,
    /// Its name there, with the host's case.
    pub(crate) name: OsString,
    /// The entry itself, opened for its path only.
    pub(crate) fd: OwnedFd,
    /// Metadata at the time of the look-up.
    pub(crate) stat: Statx,
}

impl Entry {
    /// What kind of entry it is.
    pub(crate) fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.stat.stx_mode.into())
    }
}

/// Looks `name` up in `parent`, without regard to case unless `case_sensitive`.
///
/// # Errors
/// Host errors as statuses; `Ok(None)` when there is no such entry.
pub(crate) fn find(parent: BorrowedFd<'_>, name: &[u16], case_sensitive: bool) -> Result<Option<Entry>, NtStatus> {
    let exact = OsString::from(String::from_utf16(name).map_err(|_| NtStatus::OBJECT_NAME_INVALID)?);
    // The exact spelling first: it is what most opens use, and it saves reading the folder.
    let host_name = if exists(parent, &exact)? {
        exact
    } else if case_sensitive {
        return Ok(None);
    } else {
        match find_folded(parent, name)? {
            Some(found) => found,
            None => return Ok(None),
        }
    };
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = match fs::openat(parent, host_name.as_os_str(), flags, Mode::empty()) {
        Ok(fd) => fd,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(status(error)),
    };
    let stat = stat(fd.as_fd())?;
    let parent = parent.try_clone_to_owned().map_err(|_| NtStatus::INSUFFICIENT_RESOURCES)?;
    Ok(Some(Entry { parent, name: host_name, fd, stat }))
}

fn exists(parent: BorrowedFd<'_>, name: &OsStr) -> Result<bool, NtStatus> {
    match fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT | Errno::NAMETOOLONG) => Ok(false),
        Err(error) => Err(status(error)),
    }
}

/// The first entry whose name differs in case only.
fn find_folded(parent: BorrowedFd<'_>, name: &[u16]) -> Result<Option<OsString>, NtStatus> {
    Ok(names(parent)?.into_iter().find(|entry| entry.to_str().is_some_and(|text| same_name(&wide(text), name))))
}

/// All names in a folder but `.` and `..`.
pub(crate) fn names(folder: BorrowedFd<'_>) -> Result<Vec<OsString>, NtStatus> {
    let mut found = Vec::new();
    // A descriptor that was opened for its path only cannot be read; the same folder opened again can.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let readable = fs::openat(folder, ".", flags, Mode::empty()).map_err(status)?;
    for entry in fs::Dir::new(readable).map_err(status)? {
        let entry = entry.map_err(status)?;
        let bytes = entry.file_name().to_bytes();
        if bytes != b"." && bytes != b".." {
            found.push(OsString::from_vec(bytes.to_vec()));
        }
    }
    Ok(found)
}

/// Metadata of an open entry.
pub(crate) fn stat(fd: BorrowedFd<'_>) -> Result<Statx, NtStatus> {
    let flags = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    fs::statx(fd, "", AtFlags::EMPTY_PATH, flags).map_err(status)
}

/// Target of a link as text.
pub(crate) fn link_target(entry: &Entry) -> Result<String, NtStatus> {
    let target = fs::readlinkat(&entry.parent, entry.name.as_os_str(), Vec::new()).map_err(status)?;
    let text = OsStr::from_bytes(target.as_bytes()).to_str().map(str::to_owned);
    text.ok_or(NtStatus::IO_REPARSE_DATA_INVALID)
}

/// Opens the same file again, for its data: an `O_PATH` descriptor cannot be read.
pub(crate) fn reopen(fd: BorrowedFd<'_>, flags: OFlags) -> Result<OwnedFd, NtStatus> {
    use std::os::fd::AsRawFd;
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    fs::open(path, flags | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()).map_err(status)
}

/// The nearest status of a host error.
pub(crate) fn status(error: Errno) -> NtStatus {
    match error {
        Errno::NOENT => NtStatus::OBJECT_NAME_NOT_FOUND,
        Errno::EXIST => NtStatus::OBJECT_NAME_COLLISION,
        Errno::ACCESS | Errno::PERM | Errno::ROFS => NtStatus::ACCESS_DENIED,
        Errno::NOTDIR => NtStatus::OBJECT_PATH_NOT_FOUND,
        Errno::ISDIR => NtStatus::FILE_IS_A_DIRECTORY,
        Errno::NOSPC | Errno::DQUOT => DISK_FULL,
        Errno::NAMETOOLONG => NtStatus::OBJECT_NAME_INVALID,
        Errno::NOTEMPTY => DIRECTORY_NOT_EMPTY,
        Errno::XDEV => NtStatus::NOT_SAME_DEVICE,
        Errno::MFILE | Errno::NFILE | Errno::NOMEM => NtStatus::INSUFFICIENT_RESOURCES,
        _ => NtStatus::UNSUCCESSFUL,
    }
}

/// `STATUS_DISK_FULL`.
pub(crate) const DISK_FULL: NtStatus = NtStatus::from_bits(0xC000_007F);
/// `STATUS_DIRECTORY_NOT_EMPTY`.
pub(crate) const DIRECTORY_NOT_EMPTY: NtStatus = NtStatus::from_bits(0xC000_0101);
