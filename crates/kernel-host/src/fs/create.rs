//! IRP_MJ_CREATE: from a name to an open stream, with NTFS's statuses.

use std::os::fd::AsFd;
use std::sync::Arc;

use nt_types::{AccessMask, NtStatus};
use rustix::fs::{self, FileType, Mode, OFlags, Statx};

use super::access::{self, Audience, FILE_ALL_ACCESS, Subject};
use super::host;
use super::notify::{Action, Change};
use super::open::{Data, Open};
use super::options::{CreateRequest, created, disposition, io_flag, option};
use super::path::wide;
use super::share::ShareMode;
use super::stream::{FileKey, Kind, Link, Stream, StreamKey};
use super::volume::{Found, NamedStream, Volume, VolumeState, WalkOptions};

/// `STATUS_USER_MAPPED_FILE`: a file with a mapped view cannot be truncated.
const USER_MAPPED_FILE: NtStatus = NtStatus::from_bits(0xC000_0243);

/// A create that succeeded.
#[derive(Debug)]
pub(crate) struct Created {
    pub(crate) open: Arc<Open>,
    /// `FILE_OPENED`, `FILE_CREATED`, ...
    pub(crate) information: usize,
}

/// What the name led to, in the terms of the file system.
struct Target {
    key: StreamKey,
    kind: Kind,
    mode: u32,
    link: Option<Link>,
    fd: std::os::fd::OwnedFd,
}

impl Volume {
    /// Opens or creates what `request` names.
    ///
    /// # Errors
    /// The status that NTFS returns; nothing is left behind.
    pub(crate) fn create(self: &Arc<Self>, mut request: CreateRequest) -> Result<Created, NtStatus> {
        request.validate()?;
        if request.io_flags & io_flag::OPEN_TARGET_DIRECTORY != 0 {
            request.path.components.pop();
            request.path.stream = None;
            request.path.directory_only = true;
        }
        let mut state = self.lock();
        if state.locked_by.is_some() {
            return Err(NtStatus::ACCESS_DENIED);
        }
        if request.path.volume {
            return self.open_volume(&mut state, &request);
        }
        let walk = WalkOptions {
            open_reparse_point: request.options & option::OPEN_REPARSE_POINT != 0,
            stop_on_symlink: request.io_flags & io_flag::STOP_ON_SYMLINK != 0,
            dont_reparse: request.dont_reparse,
            case_sensitive: request.case_sensitive,
        };
        match self.walk(&mut request.path, walk)? {
            Found::Root => {
                let fd = self.root().try_clone().map_err(|_| NtStatus::INSUFFICIENT_RESOURCES)?;
                let stat = host::stat(fd.as_fd())?;
                let target = target(&stat, Kind::Directory, None, fd);
                self.open_existing(&mut state, &request, target)
            }
            Found::Entry(entry) => {
                let kind = match entry.kind() {
                    FileType::RegularFile => Kind::File,
                    FileType::Directory => Kind::Directory,
                    FileType::Symlink => Kind::Link,
                    // Sockets, FIFOs and devices of the host have no counterpart on NTFS.
                    _ => return Err(NtStatus::ACCESS_DENIED),
                };
                let link = Link { parent: entry.parent, name: entry.name };
                let target = target(&entry.stat, kind, Some(link), entry.fd);
                self.open_existing(&mut state, &request, target)
            }
            Found::Missing { parent, name } => self.create_new(&mut state, &request, &parent, &name),
        }
    }

    fn open_volume(self: &Arc<Self>, state: &mut VolumeState, request: &CreateRequest) -> Result<Created, NtStatus> {
        if request.disposition != disposition::OPEN && request.disposition != disposition::OPEN_IF {
            return Err(NtStatus::ACCESS_DENIED);
        }
        if request.options & option::DIRECTORY_FILE != 0 {
            return Err(NtStatus::NOT_A_DIRECTORY);
        }
        let fd = self.root().try_clone().map_err(|_| NtStatus::INSUFFICIENT_RESOURCES)?;
        // Raw volume access is an administrator's.
        let granted = access::grant(request.subject, 0o600, Audience::Everyone, request.access)?;
        let mut target = target(&host::stat(fd.as_fd())?, Kind::Volume, None, fd);
        target.key.stream = Some(Vec::new());
        Ok(self.finish(state, request, target, granted, Data::None, created::OPENED))
    }

    fn open_existing(
        self: &Arc<Self>,
        state: &mut VolumeState,
        request: &CreateRequest,
        mut target: Target,
    ) -> Result<Created, NtStatus> {
        check_kind(request, target.kind)?;
        let named = match &request.path.stream {
            Some(name) => match Self::named_stream(state, request, &target, name)? {
                (stream, false) => Some((stream, created::OPENED)),
                (stream, true) => Some((stream, created::CREATED)),
            },
            None => None,
        };
        if let Some((stream, _)) = &named {
            target.key.stream = Some(super::path::upcase(&stream.name));
        }
        if request.disposition == disposition::CREATE && named.as_ref().is_none_or(|named| named.1 == created::OPENED) {
            return Err(NtStatus::OBJECT_NAME_COLLISION);
        }
        let mut overwrite =
            matches!(request.disposition, disposition::OVERWRITE | disposition::OVERWRITE_IF | disposition::SUPERSEDE);
        if overwrite && target.kind == Kind::Directory {
            return Err(NtStatus::OBJECT_NAME_COLLISION);
        }
        let mut information = if overwrite && request.disposition == disposition::SUPERSEDE {
            created::SUPERSEDED
        } else if overwrite {
            created::OVERWRITTEN
        } else {
            created::OPENED
        };
        if let Some((_, created::CREATED)) = named {
            (information, overwrite) = (created::CREATED, false);
        }
        let granted = check_access(state, request, &target, overwrite)?;
        if let Some(stream) = state.stream(&target.key) {
            let stream_state = stream.lock();
            if stream_state.delete_pending {
                return Err(NtStatus::DELETE_PENDING);
            }
            if request.io_flags & io_flag::IGNORE_SHARE_ACCESS_CHECK == 0 {
                stream_state.share.check(ShareMode::new(granted, request.share))?;
            }
            if overwrite && stream.has_user_writable_references() {
                return Err(USER_MAPPED_FILE);
            }
        }
        let data = match &named {
            Some((stream, _)) => Data::Memory(Arc::clone(&stream.data)),
            None if target.kind == Kind::File => Data::Host(open_data(&target, granted, overwrite)?),
            None => Data::None,
        };
        if overwrite {
            data.truncate(0)?;
            // The page of FILE_OVERWRITE: extended attributes are those of the create.
            state.extended.insert(target.key.file, request.extended_attributes.clone());
        }
        let change = if information == created::OPENED { None } else { Some((Change::WRITTEN, Action::Modified)) };
        let created = self.finish(state, request, target, granted, data, information);
        if let Some((change, action)) = change {
            self.notices.note(change, action, &created.open.name());
        }
        Ok(created)
    }

    /// The named stream asked for, and whether it was made just now.
    fn named_stream(
        state: &mut VolumeState,
        request: &CreateRequest,
        target: &Target,
        name: &[u16],
    ) -> Result<(NamedStream, bool), NtStatus> {
        let file = target.key.file;
        if let Some(stream) = state.named(file, name) {
            return Ok((stream.clone(), false));
        }
        if matches!(request.disposition, disposition::OPEN | disposition::OVERWRITE) {
            return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
        }
        access::grant(request.subject, target.mode, state.audience(file), AccessMask::FILE_WRITE_DATA)?;
        let stream = NamedStream { name: name.to_vec(), data: Arc::default() };
        state.named.entry(file).or_default().push(stream.clone());
        Ok((stream, true))
    }

    fn create_new(
        self: &Arc<Self>,
        state: &mut VolumeState,
        request: &CreateRequest,
        parent: &std::os::fd::OwnedFd,
        name: &[u16],
    ) -> Result<Created, NtStatus> {
        if matches!(request.disposition, disposition::OPEN | disposition::OVERWRITE) {
            return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
        }
        let directory = request.options & option::DIRECTORY_FILE != 0;
        if request.path.directory_only && !directory {
            return Err(NtStatus::OBJECT_NAME_INVALID);
        }
        let parent_stat = host::stat(parent.as_fd())?;
        access::grant(request.subject, parent_stat.stx_mode.into(), Audience::Everyone, AccessMask::FILE_WRITE_DATA)?;
        let host_name = String::from_utf16(name).map_err(|_| NtStatus::OBJECT_NAME_INVALID)?;
        if directory {
            fs::mkdirat(parent, &host_name, Mode::from_raw_mode(0o755)).map_err(host::status)?;
        } else {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let read_only = request.attributes & 1 != 0;
            let mode = if read_only { 0o444 } else { 0o644 };
            fs::openat(parent, &host_name, flags, Mode::from_raw_mode(mode)).map_err(host::status)?;
        }
        let entry = host::find(parent.as_fd(), &wide(&host_name), true)?.ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)?;
        let kind = if directory { Kind::Directory } else { Kind::File };
        let link = Link { parent: entry.parent, name: entry.name };
        let mut target = target(&entry.stat, kind, Some(link), entry.fd);
        // An inode number that is used again must not inherit what its last owner left.
        state.forget(target.key.file);
        // The creator gets what it asks for, whatever the new file's own protection will say to others.
        let granted = access::grant(Subject::Kernel, target.mode, Audience::Everyone, request.access)?;
        let data = match (&request.path.stream, kind) {
            (Some(stream), Kind::File) => {
                let (stream, _) = Self::named_stream(state, request, &target, stream)?;
                target.key.stream = Some(super::path::upcase(&stream.name));
                Data::Memory(stream.data)
            }
            (None, Kind::File) => Data::Host(open_data(&target, granted, false)?),
            _ => Data::None,
        };
        if !request.extended_attributes.is_empty() {
            let list = state.extended.entry(target.key.file).or_default();
            super::ea::merge(list, request.extended_attributes.clone())?;
        }
        let created = self.finish(state, request, target, granted, data, created::CREATED);
        let change = if directory { Change::DIR_NAME } else { Change::FILE_NAME };
        self.notices.note(change, Action::Added, &created.open.name());
        Ok(created)
    }

    fn finish(
        self: &Arc<Self>,
        state: &mut VolumeState,
        request: &CreateRequest,
        target: Target,
        granted: AccessMask,
        data: Data,
        information: usize,
    ) -> Created {
        let stream = state.stream(&target.key).unwrap_or_else(|| {
            let stream = Stream::new(target.key.clone(), target.kind);
            state.insert(&stream);
            stream
        });
        let share = if request.io_flags & io_flag::IGNORE_SHARE_ACCESS_CHECK == 0 {
            ShareMode::new(granted, request.share)
        } else {
            ShareMode::default()
        };
        {
            let mut stream_state = stream.lock();
            stream_state.share.add(share);
            stream_state.handles += 1;
        }
        let open = Open::new(Arc::clone(self), stream, request, granted, share, (target.fd, target.link), data);
        Created { open: Arc::new(open), information }
    }
}

fn target(stat: &Statx, kind: Kind, link: Option<Link>, fd: std::os::fd::OwnedFd) -> Target {
    Target { key: StreamKey { file: file_key(stat), stream: None }, kind, mode: stat.stx_mode.into(), link, fd }
}

/// The file's identity on the host.
pub(crate) fn file_key(stat: &Statx) -> FileKey {
    FileKey { device: fs::makedev(stat.stx_dev_major, stat.stx_dev_minor), inode: stat.stx_ino }
}

/// Directory or not, as the options demand it.
fn check_kind(request: &CreateRequest, kind: Kind) -> Result<(), NtStatus> {
    let directory = kind == Kind::Directory;
    if request.options & option::DIRECTORY_FILE != 0 && !directory {
        return Err(NtStatus::NOT_A_DIRECTORY);
    }
    if request.path.index && !directory {
        return Err(NtStatus::NOT_A_DIRECTORY);
    }
    if request.path.directory_only && !directory {
        return Err(NtStatus::OBJECT_NAME_INVALID);
    }
    // A named stream of a directory is a file.
    if request.options & option::NON_DIRECTORY_FILE != 0 && directory && request.path.stream.is_none() {
        return Err(NtStatus::FILE_IS_A_DIRECTORY);
    }
    Ok(())
}

fn check_access(
    state: &VolumeState,
    request: &CreateRequest,
    target: &Target,
    overwrite: bool,
) -> Result<AccessMask, NtStatus> {
    let audience = state.audience(target.key.file);
    let mut granted = access::grant(request.subject, target.mode, audience, request.access)?;
    if overwrite {
        access::grant(request.subject, target.mode, audience, AccessMask::FILE_WRITE_DATA)?;
    }
    // FILE_ATTRIBUTE_READONLY binds everybody, the kernel too, on files.
    if target.kind == Kind::File && target.mode & 0o222 == 0 {
        let write = AccessMask::FILE_WRITE_DATA | AccessMask::FILE_APPEND_DATA;
        if request.access.contains(AccessMask::MAXIMUM_ALLOWED) {
            granted = granted.difference(write);
        }
        if overwrite || granted.intersects(write) {
            return Err(NtStatus::ACCESS_DENIED);
        }
        if request.options & option::DELETE_ON_CLOSE != 0 {
            return Err(NtStatus::CANNOT_DELETE);
        }
    }
    Ok(granted & (FILE_ALL_ACCESS | AccessMask::ACCESS_SYSTEM_SECURITY))
}

/// A descriptor that can move the data the way the open may.
fn open_data(target: &Target, granted: AccessMask, overwrite: bool) -> Result<std::os::fd::OwnedFd, NtStatus> {
    let write = overwrite || granted.intersects(AccessMask::FILE_WRITE_DATA | AccessMask::FILE_APPEND_DATA);
    let flags = if write { OFlags::RDWR } else { OFlags::RDONLY };
    host::reopen(target.fd.as_fd(), flags)
}
