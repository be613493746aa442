//! One open of a stream: what NTFS keeps in its CCB.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nt_types::{AccessMask, FILE_OBJECT, NtStatus};
use rustix::fs::{AtFlags, Statx};

use super::buffer::Buffer;
use super::directory::Scan;
use super::host;
use super::notify::{Action, Change};
use super::options::{CreateRequest, option};
use super::share::ShareMode;
use super::stream::{Kind, Link, Stream};
use super::volume::Volume;
use crate::nt::raw::{Raw, field};

/// An open stream.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) volume: Arc<Volume>,
    pub(crate) stream: Arc<Stream>,
    /// Rights granted.
    pub(crate) granted: AccessMask,
    /// `FILE_*` create options.
    pub(crate) options: u32,
    pub(crate) share: ShareMode,
    /// Current byte offset of a synchronous open.
    pub(crate) position: AtomicI64,
    /// Name at the time of the open, and how many renames of the stream it knows.
    name: Vec<u16>,
    renames_seen: usize,
    link: Mutex<Option<Link>>,
    /// The entry itself, for metadata.
    fd: OwnedFd,
    data: Data,
    delete_on_close: AtomicBool,
    cleaned_up: AtomicBool,
    left_stream: AtomicBool,
    /// The cache is set up: fast I/O is possible.
    cached: AtomicBool,
    /// Where the next query of extended attributes goes on.
    pub(super) next_ea: AtomicUsize,
    /// The listing under way.
    scan: Mutex<Option<Scan>>,
}

/// Where the bytes are.
#[derive(Debug)]
pub(crate) enum Data {
    /// A host file.
    Host(OwnedFd),
    /// A named stream.
    Memory(Arc<Mutex<Vec<u8>>>),
    /// Directories, links and the volume have none.
    None,
}

impl Open {
    pub(super) fn new(
        volume: Arc<Volume>,
        stream: Arc<Stream>,
        request: &CreateRequest,
        granted: AccessMask,
        share: ShareMode,
        (fd, link): (OwnedFd, Option<Link>),
        data: Data,
    ) -> Self {
        let renames_seen = stream.lock().renames.len();
        stream.enter();
        Self {
            name: request.path.display(),
            renames_seen,
            link: Mutex::new(link),
            volume,
            stream,
            granted,
            options: request.options,
            share,
            position: AtomicI64::new(0),
            fd,
            data,
            delete_on_close: AtomicBool::new(request.options & option::DELETE_ON_CLOSE != 0),
            cleaned_up: AtomicBool::new(false),
            left_stream: AtomicBool::new(false),
            cached: AtomicBool::new(false),
            next_ea: AtomicUsize::new(0),
            scan: Mutex::default(),
        }
    }

    /// Whether requests on this open are synchronous, so that it has a current byte offset.
    pub(crate) fn is_synchronous(&self) -> bool {
        self.options & (option::SYNCHRONOUS_IO_ALERT | option::SYNCHRONOUS_IO_NONALERT) != 0
    }

    /// Whether transfers go past the cache.
    pub(crate) fn is_non_cached(&self) -> bool {
        self.options & option::NO_INTERMEDIATE_BUFFERING != 0
    }

    /// Whether the volume itself is open.
    pub(crate) fn is_volume(&self) -> bool {
        self.stream.kind == Kind::Volume
    }

    /// Whether IRP_MJ_CLEANUP has been through: I/O is illegal from then on.
    pub(crate) fn is_cleaned_up(&self) -> bool {
        self.cleaned_up.load(Ordering::Acquire)
    }

    /// Whether the last handle is closed, and the stream was deleted then or before.
    pub(crate) fn is_deleted(&self) -> bool {
        self.is_cleaned_up() && self.stream.lock().deleted
    }

    /// Whether the file has no name any more.
    pub(crate) fn is_file_deleted(&self) -> bool {
        self.stat().is_ok_and(|stat| stat.stx_nlink == 0)
    }

    /// Host metadata at this moment.
    pub(crate) fn stat(&self) -> Result<Statx, NtStatus> {
        host::stat(self.fd.as_fd())
    }

    /// Bytes of the stream at this moment.
    pub(crate) fn size(&self) -> Result<u64, NtStatus> {
        match &self.data {
            Data::Host(_) => Ok(self.stat()?.stx_size),
            Data::Memory(bytes) => Ok(bytes.lock().unwrap_or_else(PoisonError::into_inner).len() as u64),
            Data::None => Ok(0),
        }
    }

    /// Volume-relative name as the volume stores it: the one that was opened, as renamed since.
    pub(crate) fn name(&self) -> Vec<u16> {
        let state = self.stream.lock();
        let renames = state.renames.iter().skip(self.renames_seen);
        renames.fold(self.name.clone(), |name, (from, to)| if name == *from { to.clone() } else { name })
    }

    /// Names of the file's named streams and their sizes.
    pub(crate) fn named_streams(&self) -> Vec<(Vec<u16>, u64)> {
        let state = self.volume.lock();
        let streams = state.named.get(&self.stream.key.file);
        let length = |data: &Mutex<Vec<u8>>| data.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
        streams.into_iter().flatten().map(|stream| (stream.name.clone(), length(&stream.data))).collect()
    }

    /// The entry's descriptor, for metadata operations.
    pub(super) fn entry(&self) -> &OwnedFd {
        &self.fd
    }

    /// The bytes.
    pub(crate) fn data(&self) -> &Data {
        &self.data
    }

    /// IRP_MJ_READ: bytes from `offset` on, as many as `buffer` takes.
    ///
    /// # Errors
    /// `END_OF_FILE` when `offset` is at or behind the end (a read of no bytes succeeds), `INVALID_DEVICE_REQUEST` on what has
    /// no data, `INVALID_PARAMETER` for a negative offset, `INVALID_USER_BUFFER` where the buffer cannot be written.
    pub(crate) fn read_into(&self, offset: i64, buffer: Buffer) -> Result<usize, NtStatus> {
        let offset = u64::try_from(offset).map_err(|_| NtStatus::INVALID_PARAMETER)?;
        let done = match &self.data {
            Data::None => return Err(NtStatus::INVALID_DEVICE_REQUEST),
            Data::Memory(bytes) => {
                let bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
                buffer.write(&bytes[start..])?
            }
            Data::Host(fd) => buffer.fill(|address, length| {
                let mut done = 0;
                while done < length {
                    match host::read_at(fd, address + done, length - done, offset + done as u64)? {
                        0 => break,
                        count => done += count,
                    }
                }
                Ok(done)
            })?,
        };
        if done == 0 && buffer.length != 0 { Err(NtStatus::END_OF_FILE) } else { Ok(done) }
    }

    /// IRP_MJ_WRITE from a request's buffer. Paging I/O never makes a file longer.
    ///
    /// # Errors
    /// As for [`write`](Self::write), and `INVALID_USER_BUFFER`.
    pub(crate) fn write_from(&self, offset: i64, buffer: Buffer, paging: bool) -> Result<usize, NtStatus> {
        let mut buffer = buffer;
        if paging {
            let room = self.size()?.saturating_sub(offset.max(0).cast_unsigned());
            buffer.length = buffer.length.min(usize::try_from(room).unwrap_or(usize::MAX));
        }
        self.write(offset, &buffer.read()?)
    }

    /// The right that a request needs.
    ///
    /// # Errors
    /// `ACCESS_DENIED`.
    pub(crate) fn require(&self, access: AccessMask) -> Result<(), NtStatus> {
        if self.granted.contains(access) { Ok(()) } else { Err(NtStatus::ACCESS_DENIED) }
    }

    /// Whether the first cached transfer was made.
    pub(crate) fn has_cache(&self) -> bool {
        self.cached.load(Ordering::Relaxed)
    }

    /// The cache is there from now on: `PrivateCacheMap` says so to drivers.
    pub(super) fn set_up_cache(&self, file: Raw<FILE_OBJECT>) {
        if !self.has_cache() && !self.cached.swap(true, Ordering::Relaxed) {
            let map = (&raw const self.cached).cast_mut().cast();
            field!(file, FILE_OBJECT, PrivateCacheMap).write(map);
        }
    }

    /// Something about the file is different now: tells those who watch its folder.
    pub(super) fn changed(&self, change: Change) {
        self.volume.notices.note(change, Action::Modified, &self.name());
    }

    /// The listing that this handle has under way.
    pub(super) fn scan(&self) -> MutexGuard<'_, Option<Scan>> {
        self.scan.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// FILE_DISPOSITION_ON_CLOSE: changes what FILE_DELETE_ON_CLOSE said at the open.
    ///
    /// # Errors
    /// `NOT_SUPPORTED` for a handle that was not opened so, `CANNOT_DELETE` and `DIRECTORY_NOT_EMPTY` as for a deletion.
    pub(super) fn set_delete_on_close(&self, delete: bool) -> Result<(), NtStatus> {
        if self.options & option::DELETE_ON_CLOSE == 0 {
            return Err(NtStatus::NOT_SUPPORTED);
        }
        if delete {
            self.check_deletable(false)?;
        }
        self.delete_on_close.store(delete, Ordering::Release);
        Ok(())
    }

    /// IRP_MJ_WRITE.
    ///
    /// # Errors
    /// `INVALID_DEVICE_REQUEST` on what has no data, `INVALID_PARAMETER` for a negative offset, the host's errors.
    pub(crate) fn write(&self, offset: i64, buffer: &[u8]) -> Result<usize, NtStatus> {
        let offset = u64::try_from(offset).map_err(|_| NtStatus::INVALID_PARAMETER)?;
        match &self.data {
            Data::None => return Err(NtStatus::INVALID_DEVICE_REQUEST),
            Data::Memory(bytes) => {
                let start = usize::try_from(offset).map_err(|_| host::DISK_FULL)?;
                let end = start.checked_add(buffer.len()).filter(|&end| end <= 1 << 30).ok_or(host::DISK_FULL)?;
                let mut bytes = bytes.lock().unwrap_or_else(PoisonError::into_inner);
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[start..end].copy_from_slice(buffer);
            }
            Data::Host(fd) => {
                let mut done = 0;
                while done < buffer.len() {
                    let at = offset.checked_add(done as u64).ok_or(NtStatus::INVALID_PARAMETER)?;
                    match rustix::io::pwrite(fd, &buffer[done..], at) {
                        // As for a read: our own copy of it is not hidden.
                        Err(rustix::io::Errno::FAULT) => {
                            let bytes = buffer[done..].to_vec();
                            done += rustix::io::pwrite(fd, &bytes, at).map_err(host::status)?;
                        }
                        Ok(0) => return Err(host::DISK_FULL),
                        Ok(count) => done += count,
                        Err(rustix::io::Errno::INTR) => {}
                        Err(error) => return Err(host::status(error)),
                    }
                }
            }
        }
        Ok(buffer.len())
    }

    /// Marks the stream for deletion, or takes the mark back (`FileDispositionInformation`).
    ///
    /// # Errors
    /// `CANNOT_DELETE` for the root, a read-only file or one with a mapped section, `DIRECTORY_NOT_EMPTY`.
    pub(crate) fn set_delete_pending(&self, delete: bool, ignore_read_only: bool) -> Result<(), NtStatus> {
        let _volume = self.volume.lock();
        if delete {
            self.check_deletable(ignore_read_only)?;
            self.mark_for_deletion();
        } else {
            self.stream.lock().delete_pending = false;
        }
        Ok(())
    }

    /// The stream goes, under the name that this open has: a file's other hard links stay.
    fn mark_for_deletion(&self) {
        let link = self.link().as_ref().and_then(Link::duplicate);
        let mut state = self.stream.lock();
        state.delete_pending = true;
        state.link = link;
    }

    /// The directory entry that the open was made through.
    pub(super) fn link(&self) -> MutexGuard<'_, Option<Link>> {
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check_deletable(&self, ignore_read_only: bool) -> Result<(), NtStatus> {
        let stat = self.stat()?;
        let read_only = self.stream.kind == Kind::File && stat.stx_mode & 0o222 == 0 && !ignore_read_only;
        if self.link().is_none() || read_only || self.stream.has_user_writable_references() {
            return Err(NtStatus::CANNOT_DELETE);
        }
        if self.stream.kind == Kind::Directory && !host::names(self.fd.as_fd())?.is_empty() {
            return Err(host::DIRECTORY_NOT_EMPTY);
        }
        Ok(())
    }

    /// The open does not count for its stream any more: IRP_MJ_CLOSE is through.
    pub(crate) fn leave_stream(&self) {
        if !self.left_stream.swap(true, Ordering::AcqRel) {
            self.stream.leave();
        }
    }

    /// IRP_MJ_CLEANUP: the last handle is closed. Gives the share counts back and deletes what is marked.
    pub(crate) fn clean_up(&self) {
        if self.cleaned_up.swap(true, Ordering::AcqRel) {
            return;
        }
        let mut volume = self.volume.lock();
        volume.locked_by.take_if(|by| *by == std::ptr::from_ref(self).addr());
        if self.delete_on_close.load(Ordering::Acquire) && self.check_deletable(false).is_ok() {
            self.mark_for_deletion();
        }
        let name = self.name();
        let mut state = self.stream.lock();
        state.share.remove(self.share);
        state.handles = state.handles.saturating_sub(1);
        let posix = std::mem::take(&mut state.posix_delete);
        if !state.delete_pending || (state.handles != 0 && !posix) {
            state.posix_delete = posix;
            return;
        }
        let directory = self.stream.kind == Kind::Directory;
        let change = if directory { Change::DIR_NAME } else { Change::FILE_NAME };
        if let Some(name) = &self.stream.key.stream {
            if let Some(streams) = volume.named.get_mut(&self.stream.key.file) {
                streams.retain(|stream| super::path::upcase(&stream.name) != *name);
            }
            state.deleted = true;
        } else if let Some(link) = state.link.take() {
            let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
            // A name that somebody on the host removed meanwhile is as good as deleted.
            let _ = rustix::fs::unlinkat(&link.parent, link.name.as_os_str(), flags);
            // Another name of the file keeps it.
            if self.is_file_deleted() {
                volume.forget(self.stream.key.file);
                state.deleted = true;
            }
            drop(state);
            drop(volume);
            self.volume.notices.note(change, Action::Removed, &name);
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // A file object without a handle (a failed create, a stream file object) is cleaned up here at the latest.
        self.clean_up();
        self.leave_stream();
    }
}

impl Data {
    /// Sets the length.
    ///
    /// # Errors
    /// The host's.
    pub(crate) fn truncate(&self, length: u64) -> Result<(), NtStatus> {
        match self {
            Self::Host(fd) => rustix::fs::ftruncate(fd, length).map_err(host::status),
            Self::Memory(bytes) => {
                let length = usize::try_from(length).ok().filter(|&length| length <= 1 << 30).ok_or(host::DISK_FULL)?;
                bytes.lock().unwrap_or_else(PoisonError::into_inner).resize(length, 0);
                Ok(())
            }
            Self::None => Err(NtStatus::INVALID_DEVICE_REQUEST),
        }
    }
}
