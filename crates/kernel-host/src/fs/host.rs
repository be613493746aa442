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

use super::buffer::Buffer;
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

/// The names that lead from `folder` to the entry with this inode number, links not followed.
pub(crate) fn find_inode(folder: BorrowedFd<'_>, inode: u64) -> Result<Option<Vec<Vec<u16>>>, NtStatus> {
    for name in names(folder)? {
        let Ok(entry) = fs::statat(folder, name.as_os_str(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
        let Some(text) = name.to_str() else { continue };
        if entry.st_ino == inode {
            return Ok(Some(vec![wide(text)]));
        }
        if FileType::from_raw_mode(entry.st_mode) == FileType::Directory {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let Ok(below) = fs::openat(folder, name.as_os_str(), flags, Mode::empty()) else { continue };
            if let Some(mut rest) = find_inode(below.as_fd(), inode)? {
                rest.insert(0, wide(text));
                return Ok(Some(rest));
            }
        }
    }
    Ok(None)
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

/// Reads into memory that may not be there: the host's kernel looks.
///
/// # Errors
/// `INVALID_USER_BUFFER` for such memory, and the host's errors.
pub(crate) fn read_at(file: &OwnedFd, address: usize, length: usize, offset: u64) -> Result<usize, NtStatus> {
    use std::os::fd::AsRawFd;
    // Beyond what a file can have there is nothing.
    let Ok(offset) = i64::try_from(offset) else { return Ok(0) };
    loop {
        let target = crate::nt::raw::Raw::<u8>::at(address).pointer();
        // SAFETY: the kernel checks the range; what it writes to is the requester's, who said that the data go there.
        let count = unsafe { libc::pread(file.as_raw_fd(), target.cast(), length, offset) };
        if let Ok(count) = usize::try_from(count) {
            return Ok(count);
        }
        match std::io::Error::last_os_error().raw_os_error() {
            Some(libc::EINTR) => {}
            Some(libc::EINVAL) => return Ok(0),
            // Linux does not page in what the machine has hidden: a copy does, or finds a bad pointer.
            Some(libc::EFAULT) => {
                let mut bytes = vec![0; length];
                let count = rustix::io::pread(file, &mut bytes, offset.cast_unsigned()).map_err(status)?;
                return Buffer { address, length }.write(&bytes[..count]);
            }
            error => return Err(status(Errno::from_raw_os_error(error.unwrap_or(libc::EIO)))),
        }
    }
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
