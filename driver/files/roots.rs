//! The allowed roots, as they are on this machine now.
//!
//! The settings name folders by NT paths, which may lead through links and to volumes that are not mounted yet. What
//! counts is where they lead: each root is opened once, its normalised name is what files are compared with, and it is found
//! when it is first needed.

use crate::kernel::irql::RaiseToDispatch;
use crate::kernel::log::log;
use crate::kernel::upcase;
use alloc::vec::Vec;
use broker::policy::{Root, SearchPath};
use broker::{Error, IrqlLock, Name, Shared};
use fltmgr::{FileName, FilterRef, Instance, OpenFile, OpenParameters, Passive, Volume};
use nt_types::{AccessMask, CreateOptions, FILE_OPEN, NtStatus, ObjectFlags, ShareAccess, utf16};

/// The roots of the settings, and what is known of them.
pub(crate) struct Roots {
    configured: Vec<Name>,
    known: IrqlLock<Known, RaiseToDispatch>,
}

/// Normalised names. Kept until a volume goes away: a name that a folder had is no proof of anything then.
#[derive(Clone, Default)]
struct Known {
    system_root: Option<Shared<Name>>,
    /// Only when every root was found; an incomplete path is put together anew each time.
    search_path: Option<Shared<SearchPath>>,
}

impl Roots {
    /// Roots by their NT paths. Opens nothing yet.
    pub(crate) fn new(configured: Vec<Name>) -> Self {
        Self { configured, known: IrqlLock::new(Known { system_root: None, search_path: None }) }
    }

    /// The roots that exist now.
    ///
    /// [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`). A root that cannot be opened is left out, not an error,
    /// unless the next try may find it: a file of a later root must not stand in for one of its.
    pub(crate) fn search_path(&self, filter: FilterRef, passive: Passive) -> Result<Shared<SearchPath>, Error> {
        let known = self.known.lock().search_path.clone();
        if let Some(path) = known {
            return Ok(path);
        }
        let mut path = SearchPath::new();
        let mut complete = true;
        for configured in &self.configured {
            let root = normalized_folder(filter, configured.units(), passive);
            // A root that cannot be one is left out too: its error must not be said of every name that is asked for.
            match root.and_then(|name| Root::from_normalized(name.units())) {
                Ok(root) => path.push(root)?,
                Err(error) if is_passing(error.status()) => return Err(error),
                Err(error) => {
                    complete = false;
                    log!(c"fwbroker: a firmware root cannot be opened, 0x%08x\n", error.status().bits());
                }
            }
        }
        let path = Shared::try_new(path)?;
        if complete {
            // What it replaces, if another thread was as fast, is dropped without the lock.
            let replaced = self.known.lock().search_path.replace(path.clone());
            drop(replaced);
        }
        Ok(path)
    }

    /// The normalised name of `\SystemRoot`.
    ///
    /// Errors of the file system, and [`Error::OutOfMemory`].
    pub(crate) fn system_root(&self, filter: FilterRef, passive: Passive) -> Result<Shared<Name>, Error> {
        let known = self.known.lock().system_root.clone();
        if let Some(name) = known {
            return Ok(name);
        }
        let name = Shared::try_new(normalized_folder(filter, utf16!(r"\SystemRoot"), passive)?)?;
        let replaced = self.known.lock().system_root.replace(name.clone());
        drop(replaced);
        Ok(name)
    }

    /// Forgets the normalised names, because a volume went away: the next one may get its device's name.
    pub(crate) fn forget(&self) {
        let known = core::mem::take(&mut *self.known.lock());
        drop(known);
    }
}

/// Whether a failure says nothing about the folder: memory is short, or its volume is just going away.
fn is_passing(status: NtStatus) -> bool {
    matches!(status, NtStatus::INSUFFICIENT_RESOURCES | NtStatus::NO_MEMORY | NtStatus::FLT_DELETING_OBJECT)
}

/// The normalised name of a file by its NT path, whether or not there is such a file: its folder is asked, and the last
/// component taken as it is.
///
/// Errors of the file system for the folder, [`Error::NameNoFile`], [`Error::OutOfMemory`].
pub(crate) fn normalized_name(filter: FilterRef, path: &[u16], passive: Passive) -> Result<Name, Error> {
    const BACKSLASH: u16 = b'\\' as u16;
    let last = path.rsplit(|unit| *unit == BACKSLASH).next().ok_or(Error::NameNoFile)?;
    // With its separator: `\??\C:` would be the volume, and `\??\C:\` is its root folder.
    let folder = path.strip_suffix(last).ok_or(Error::NameNoFile)?;
    let folder = normalized_folder(filter, folder, passive)?;
    let folder = folder.units();
    let folder = folder.strip_suffix(&[BACKSLASH]).unwrap_or(folder);
    Name::concat(&[folder, &[BACKSLASH], last])
}

/// The normalised name of a folder.
///
/// Opened from the top of the stack and without access checks: the path is the administrator's, its volume is not
/// known yet, and nobody but us gets to see what is in it.
fn normalized_folder(filter: FilterRef, path: &[u16], passive: Passive) -> Result<Name, Error> {
    let parameters = OpenParameters {
        name: path,
        flags: ObjectFlags::KERNEL_HANDLE | ObjectFlags::CASE_INSENSITIVE,
        access: AccessMask::FILE_READ_DATA | AccessMask::FILE_READ_ATTRIBUTES | AccessMask::SYNCHRONIZE,
        share: ShareAccess::all(),
        disposition: FILE_OPEN,
        options: CreateOptions::DIRECTORY_FILE | CreateOptions::SYNCHRONOUS_IO_NONALERT,
        io_flags: 0,
    };
    let folder = OpenFile::open(filter, None, &parameters, passive).map_err(Error::System)?.file;
    let volume = Volume::of_file(filter, &folder).map_err(Error::System)?;
    // No instance: we are not attached there, so no file of it could be opened below us either.
    let instance = Instance::on_volume(filter, &volume).map_err(Error::System)?;
    let name = FileName::normalized(&folder, &instance, passive).map_err(Error::System)?;
    if name.full().is_empty() {
        return Err(Error::System(NtStatus::OBJECT_NAME_INVALID));
    }
    upcase::prepare(name.full(), passive)?;
    Name::try_new(name.full())
}
