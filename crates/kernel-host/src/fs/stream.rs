//! What all opens of one stream share: share counts, deletion, sections.
//!
//! NTFS calls it the stream control block, and file objects point at it with `FsContext`. It lives while a file object refers to it.

use std::cell::UnsafeCell;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nt_types::SECTION_OBJECT_POINTERS;

use super::share::ShareAccess;

/// A file, on whichever name: the host's device and inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FileKey {
    pub(crate) device: u64,
    pub(crate) inode: u64,
}

/// A stream of a file; `None` is the default one. Named streams are compared upper-cased.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct StreamKey {
    pub(crate) file: FileKey,
    pub(crate) stream: Option<Vec<u16>>,
}

/// What a stream is a stream of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A file with data.
    File,
    /// A folder.
    Directory,
    /// A link, opened itself.
    Link,
    /// The volume.
    Volume,
}

/// The stream control block.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) key: StreamKey,
    pub(crate) kind: Kind,
    /// The object that `FILE_OBJECT::SectionObjectPointer` points at. Boxed, so that it never moves.
    pub(crate) sections: Box<SectionPointers>,
    /// Writable user references that outlive handles: sections and views.
    pub(crate) writable_sections: AtomicU32,
    /// Opens that have not seen the end of IRP_MJ_CLOSE: contexts live as long as there is one.
    file_objects: AtomicUsize,
    /// Byte-range locks.
    pub(super) locks: Mutex<super::locks::LockTable>,
    state: Mutex<StreamState>,
}

/// [`SECTION_OBJECT_POINTERS`] at a stable address.
#[derive(Debug)]
pub(crate) struct SectionPointers(pub(crate) UnsafeCell<SECTION_OBJECT_POINTERS>);

// SAFETY: the pointers inside are never followed by the host: they say whether there is a section, and the structure's address
// which stream it is. They are written through volatile accesses only.
unsafe impl Send for SectionPointers {}
// SAFETY: as above.
unsafe impl Sync for SectionPointers {}

/// The changing part.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, asked for at another place")]
pub(crate) struct StreamState {
    pub(crate) share: ShareAccess,
    /// Handles that were not cleaned up yet.
    pub(crate) handles: u32,
    /// Marked for deletion: new opens fail, the last cleanup deletes.
    pub(crate) delete_pending: bool,
    /// `FILE_ATTRIBUTE_SPARSE_FILE` was set.
    pub(crate) sparse: bool,
    /// ... and its name goes with the handle that asked, whoever else has it open.
    pub(crate) posix_delete: bool,
    /// It is deleted, by the cleanup of a handle.
    pub(crate) deleted: bool,
    /// Which directory entry goes when the stream is deleted.
    pub(crate) link: Option<Link>,
    /// Renames while the stream is in use, in order: volume-relative names, before and after.
    pub(crate) renames: Vec<(Vec<u16>, Vec<u16>)>,
}

/// A directory entry.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) parent: OwnedFd,
    pub(crate) name: OsString,
}

impl Link {
    /// The same entry once more; `None` when the host is out of descriptors.
    pub(crate) fn duplicate(&self) -> Option<Self> {
        Some(Self { parent: self.parent.try_clone().ok()?, name: self.name.clone() })
    }
}

impl Stream {
    pub(crate) fn new(key: StreamKey, kind: Kind) -> Arc<Self> {
        let null = std::ptr::null_mut();
        Arc::new(Self {
            key,
            kind,
            sections: Box::new(SectionPointers(UnsafeCell::new(SECTION_OBJECT_POINTERS {
                DataSectionObject: null,
                SharedCacheMap: null,
                ImageSectionObject: null,
            }))),
            writable_sections: AtomicU32::new(0),
            file_objects: AtomicUsize::new(0),
            locks: Mutex::default(),
            state: Mutex::default(),
        })
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, StreamState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens that are not closed yet.
    pub(crate) fn file_objects(&self) -> usize {
        self.file_objects.load(Ordering::Acquire)
    }

    /// An open comes.
    pub(super) fn enter(&self) {
        self.file_objects.fetch_add(1, Ordering::AcqRel);
    }

    /// An open goes.
    pub(super) fn leave(&self) {
        self.file_objects.fetch_sub(1, Ordering::AcqRel);
    }

    /// `MmDoesFileHaveUserWritableReferences`: writable sections and views of user mode, which outlive their handles.
    pub(crate) fn has_user_writable_references(&self) -> bool {
        self.writable_sections.load(Ordering::Acquire) != 0
    }
}
