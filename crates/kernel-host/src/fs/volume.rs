//! A volume: a host folder that drivers and programs see as an NTFS disk.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use nt_types::NtStatus;
use rustix::fs::{self, FileType, Mode, OFlags};

use super::access::Audience;
use super::host::{self, Entry};
use super::path::{SEPARATOR, VolumePath, upcase, wide};
use super::stream::{FileKey, Stream, StreamKey};

/// Links followed in one open before it is given up, as many as NT's object manager follows.
const MAX_REPARSES: usize = 31;

/// A mounted volume.
#[derive(Debug)]
pub(crate) struct Volume {
    /// Number in `\Device\HarddiskVolumeN`, from 1.
    pub(crate) number: u32,
    /// Drive letter, upper case.
    pub(crate) letter: char,
    /// The folder on the host.
    pub(crate) folder: PathBuf,
    root: OwnedFd,
    dismounted: AtomicBool,
    /// Who watches folders.
    pub(super) notices: super::notify::Notices,
    state: Mutex<VolumeState>,
}

/// What changes while a volume is mounted. Its lock serialises creates and cleanups, as NTFS's VCB resource does.
#[derive(Debug, Default)]
pub(crate) struct VolumeState {
    /// Streams that some file object refers to.
    streams: HashMap<StreamKey, Weak<Stream>>,
    /// Named streams, kept in memory: the host's file system has none.
    pub(crate) named: HashMap<FileKey, Vec<NamedStream>>,
    /// Files that plain users may not open at all.
    audiences: HashMap<FileKey, Audience>,
    /// Extended attributes, kept in memory as named streams are.
    pub(super) extended: HashMap<FileKey, Vec<super::ea::ExtendedAttribute>>,
    /// Security descriptors that somebody set.
    pub(super) descriptors: HashMap<FileKey, super::security::Descriptor>,
    /// Volume label.
    pub(super) label: Vec<u16>,
    /// The open, by address, that has locked the volume.
    pub(super) locked_by: Option<usize>,
}

/// A named stream and its bytes.
#[derive(Clone, Debug)]
pub(crate) struct NamedStream {
    pub(crate) name: Vec<u16>,
    pub(crate) data: Arc<Mutex<Vec<u8>>>,
}

/// Where a name led.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "lives for one look-up")]
pub(crate) enum Found {
    /// To something that exists.
    Entry(Entry),
    /// To the root directory.
    Root,
    /// To a folder without an entry of the last component's name.
    Missing {
        /// The folder.
        parent: OwnedFd,
        /// The last component.
        name: Vec<u16>,
    },
}

/// How links in a name are treated.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "four independent flags of an open")]
pub(crate) struct WalkOptions {
    /// `FILE_OPEN_REPARSE_POINT`: a link as the last component is not followed.
    pub(crate) open_reparse_point: bool,
    /// `IO_STOP_ON_SYMLINK`.
    pub(crate) stop_on_symlink: bool,
    /// `OBJ_DONT_REPARSE`.
    pub(crate) dont_reparse: bool,
    /// The name is compared exactly.
    pub(crate) case_sensitive: bool,
}

/// `STATUS_REPARSE_POINT_ENCOUNTERED`.
pub(crate) const REPARSE_POINT_ENCOUNTERED: NtStatus = NtStatus::from_bits(0xC000_050B);

impl Volume {
    /// Mounts `folder`.
    ///
    /// # Errors
    /// The host's error, when the folder cannot be opened.
    pub(crate) fn mount(number: u32, letter: char, folder: &Path) -> std::io::Result<Arc<Self>> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = fs::open(folder, flags, Mode::empty())?;
        Ok(Arc::new(Self {
            number,
            letter: letter.to_ascii_uppercase(),
            folder: folder.to_owned(),
            root,
            dismounted: AtomicBool::new(false),
            notices: super::notify::Notices::default(),
            state: Mutex::default(),
        }))
    }

    /// `\Device\HarddiskVolumeN`.
    pub(crate) fn device_name(&self) -> String {
        format!(r"\Device\HarddiskVolume{}", self.number)
    }

    /// `\??\Volume{...}`: made from the number, so that it is the same on every run.
    pub(crate) fn guid_name(&self) -> String {
        format!(r"\??\Volume{{{:08x}-6677-6272-6f6b-657266777673}}", self.number)
    }

    /// Whether the volume has been dismounted: its open files are good for nothing but their close.
    pub(crate) fn is_dismounted(&self) -> bool {
        self.dismounted.load(Ordering::Acquire)
    }

    /// The volume goes.
    pub(super) fn set_dismounted(&self) {
        self.dismounted.store(true, Ordering::Release);
    }

    /// The root folder.
    pub(crate) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// Serial number, as `FileIdInformation` reports it.
    pub(crate) fn serial(&self) -> u64 {
        0x4677_4272_0000_0000 | u64::from(self.number)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, VolumeState> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Volume label.
    pub(crate) fn label(&self) -> Vec<u16> {
        self.lock().label.clone()
    }

    /// The path of the file with this id: 8 bytes of an internal number, or 16 of a FILE_ID_128.
    ///
    /// # Errors
    /// `INVALID_PARAMETER` for an id that is no file's, as NTFS answers.
    pub(super) fn path_of_id(&self, name: &[u16]) -> Result<VolumePath, NtStatus> {
        let number = |units: &[u16]| units.iter().rev().fold(0, |number, &unit| number << 16 | u64::from(unit));
        let inode = match name.len() {
            4 | 8 => number(&name[..4]),
            _ => return Err(NtStatus::INVALID_PARAMETER),
        };
        if inode == host::stat(self.root.as_fd())?.stx_ino {
            return Ok(VolumePath::root());
        }
        let components = host::find_inode(self.root.as_fd(), inode)?.ok_or(NtStatus::INVALID_PARAMETER)?;
        Ok(VolumePath { components, directory_only: false, ..VolumePath::root() })
    }

    /// Follows `path`, which becomes the name that was reached: links replaced, the stored case taken over.
    pub(crate) fn walk(&self, path: &mut VolumePath, options: WalkOptions) -> Result<Found, NtStatus> {
        for _ in 0..=MAX_REPARSES {
            match self.walk_once(path, options)? {
                Step::Found(found) => return Ok(found),
                Step::Link { index, target } => {
                    if options.dont_reparse {
                        return Err(REPARSE_POINT_ENCOUNTERED);
                    }
                    if options.stop_on_symlink {
                        return Err(NtStatus::STOPPED_ON_SYMLINK);
                    }
                    substitute(path, index, &target)?;
                }
            }
        }
        Err(NtStatus::OBJECT_NAME_NOT_FOUND)
    }

    fn walk_once(&self, path: &mut VolumePath, options: WalkOptions) -> Result<Step, NtStatus> {
        let mut folder = self.root.try_clone().map_err(|_| NtStatus::INSUFFICIENT_RESOURCES)?;
        let count = path.components.len();
        for (index, component) in path.components.iter_mut().enumerate() {
            let last = index + 1 == count;
            let Some(entry) = host::find(folder.as_fd(), component, options.case_sensitive)? else {
                return if last {
                    Ok(Step::Found(Found::Missing { parent: folder, name: component.clone() }))
                } else {
                    Err(NtStatus::OBJECT_PATH_NOT_FOUND)
                };
            };
            if let Some(stored) = entry.name.to_str() {
                *component = wide(stored);
            }
            let kind = entry.kind();
            if kind == FileType::Symlink && !(last && options.open_reparse_point) {
                return Ok(Step::Link { index, target: host::link_target(&entry)? });
            }
            if last {
                return Ok(Step::Found(Found::Entry(entry)));
            }
            if kind != FileType::Directory {
                return Err(NtStatus::OBJECT_PATH_NOT_FOUND);
            }
            folder = entry.fd;
        }
        Ok(Step::Found(Found::Root))
    }
}

#[expect(clippy::large_enum_variant, reason = "lives for one step of a look-up")]
enum Step {
    Found(Found),
    Link { index: usize, target: String },
}

/// Puts a link's target in place of component `index` and what leads to it.
///
/// An absolute target is taken below the volume's root, where a drive-relative Windows link would lead too; a relative one may
/// go up, but not above the root.
fn substitute(path: &mut VolumePath, index: usize, target: &str) -> Result<(), NtStatus> {
    let tail = path.components.split_off(index.saturating_add(1));
    path.components.truncate(index);
    if target.starts_with('/') {
        path.components.clear();
    }
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                path.components.pop().ok_or(NtStatus::IO_REPARSE_DATA_INVALID)?;
            }
            name if name.contains(['\\', ':']) => return Err(NtStatus::IO_REPARSE_DATA_INVALID),
            name => path.components.push(wide(name)),
        }
    }
    path.components.extend(tail);
    Ok(())
}

impl VolumeState {
    /// The stream with this key, if some file object refers to it.
    pub(crate) fn stream(&self, key: &StreamKey) -> Option<Arc<Stream>> {
        self.streams.get(key)?.upgrade()
    }

    /// Adds a stream, and forgets those that are gone.
    pub(crate) fn insert(&mut self, stream: &Arc<Stream>) {
        self.streams.retain(|_, known| known.strong_count() != 0);
        self.streams.insert(stream.key.clone(), Arc::downgrade(stream));
    }

    /// All streams in use.
    pub(crate) fn live(&self) -> Vec<Arc<Stream>> {
        self.streams.values().filter_map(Weak::upgrade).collect()
    }

    /// A named stream of a file.
    pub(crate) fn named(&self, file: FileKey, name: &[u16]) -> Option<&NamedStream> {
        let folded = upcase(name);
        self.named.get(&file)?.iter().find(|stream| upcase(&stream.name) == folded)
    }

    /// For whom the file is.
    pub(crate) fn audience(&self, file: FileKey) -> Audience {
        self.audiences.get(&file).copied().unwrap_or_default()
    }

    /// Says for whom the file is.
    pub(crate) fn set_audience(&mut self, file: FileKey, audience: Audience) {
        self.audiences.insert(file, audience);
    }

    /// Forgets what was kept about a file that is gone, before its inode number is used again.
    pub(crate) fn forget(&mut self, file: FileKey) {
        self.named.remove(&file);
        self.extended.remove(&file);
        self.descriptors.remove(&file);
        self.audiences.remove(&file);
    }
}

/// Joins a folder's name and an entry's.
pub(crate) fn join(folder: &[u16], name: &[u16]) -> Vec<u16> {
    let mut joined = folder.to_vec();
    if joined.last() != Some(&SEPARATOR) {
        joined.push(SEPARATOR);
    }
    joined.extend_from_slice(name);
    joined
}
