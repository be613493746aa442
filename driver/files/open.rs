//! Opening a firmware file.
//!
//! In the caller's thread, below our own instance, and with access checks: a client reads what its own account may read
//! and nothing else. What a name says is never trusted; it is checked, opened, and then the file itself is asked.

use super::{File, Roots};
use crate::kernel::time;
use broker::policy::{DeviceName, NtPath, Prefix};
use broker::{Error, Name};
use fltmgr::{FilterRef, Instance, OpenFile, OpenParameters, Passive, Volume};
use nt_types::{AccessMask, CreateOptions, FILE_OPEN, IO_FORCE_ACCESS_CHECK, NtStatus, ObjectFlags, ShareAccess};

/// Opens the file that a client names, and checks that it may be used as firmware.
///
/// Errors: the name's own ([`NtPath::parse`]); the file system's; [`Error::OutsideRoots`]. What the file *is* (size,
/// kind, mappings) is for the caller to check.
pub(crate) fn open_nt_path(filter: FilterRef, roots: &Roots, name: &[u16], passive: Passive) -> Result<File, Error> {
    let path = NtPath::parse(name)?;
    let (volume, rest) = split(&path).ok_or(Error::NameNoFile)?;
    match path.prefix() {
        Prefix::Drive | Prefix::VolumeGuid => open_checked(filter, roots, volume, name, passive),
        // `\SystemRoot` is a link that leads through another one; what it leads to has a volume.
        Prefix::SystemRoot => {
            let folder = roots.system_root(filter, passive)?;
            let name = Name::concat(&[folder.units(), SEPARATOR, rest])?;
            let volume = device_of(folder.units()).ok_or(Error::NameNoFile)?;
            open_checked(filter, roots, volume, name.units(), passive)
        }
    }
}

/// Opens a file by a name that was put together from a root's normalised name.
///
/// Errors as [`open_nt_path`].
pub(crate) fn open_device_name(
    filter: FilterRef,
    roots: &Roots,
    name: &[u16],
    passive: Passive,
) -> Result<File, Error> {
    let volume = device_of(name).ok_or(Error::NameNoFile)?;
    open_checked(filter, roots, volume, name, passive)
}

const SEPARATOR: &[u16] = nt_types::utf16!(r"\");

/// Opens `name` on `volume`, and lets nothing out that does not lie under a root.
#[inline(never)]
fn open_checked(
    filter: FilterRef,
    roots: &Roots,
    volume: &[u16],
    name: &[u16],
    passive: Passive,
) -> Result<File, Error> {
    let volume = Volume::by_name(filter, volume, passive).map_err(Error::System)?;
    let instance = Instance::on_volume(filter, &volume).map_err(Error::System)?;
    let opened = open_below(filter, &instance, name, passive)?;
    let file = File::new(opened, instance, &volume, passive)?;
    // Only now is it known which file the name led to.
    let search_path = roots.search_path(filter, passive)?;
    search_path.check(file.device_name()?, crate::kernel::upcase::upcase)?;
    Ok(file)
}

/// The open itself. Waits a little where somebody has to give up an oplock first.
#[inline(never)] // for the sake of the stack, as `open_checked`
fn open_below(filter: FilterRef, instance: &Instance, name: &[u16], passive: Passive) -> Result<OpenFile, Error> {
    let parameters = OpenParameters {
        name,
        // FORCE_ACCESS_CHECK in both places: the previous mode of this thread counts as kernel.
        flags: ObjectFlags::KERNEL_HANDLE | ObjectFlags::FORCE_ACCESS_CHECK | ObjectFlags::CASE_INSENSITIVE,
        access: AccessMask::FILE_READ_DATA | AccessMask::FILE_READ_ATTRIBUTES | AccessMask::SYNCHRONIZE,
        // Whoever wants to write or delete is locked out while we have the file.
        share: ShareAccess::READ,
        disposition: FILE_OPEN,
        // OPEN_REPARSE_POINT: a link is opened as such, and refused by what it is. COMPLETE_IF_OPLOCKED: a program that
        // holds an oplock and does not answer must not hold up this thread.
        options: CreateOptions::NON_DIRECTORY_FILE
            | CreateOptions::SYNCHRONOUS_IO_NONALERT
            | CreateOptions::SEQUENTIAL_ONLY
            | CreateOptions::OPEN_REPARSE_POINT
            | CreateOptions::COMPLETE_IF_OPLOCKED,
        io_flags: IO_FORCE_ACCESS_CHECK,
    };
    for attempt in 0..OPLOCK_ATTEMPTS {
        if attempt > 0 {
            time::sleep(OPLOCK_WAIT_MS, passive);
        }
        let opened = OpenFile::open(filter, Some(instance), &parameters, passive).map_err(Error::System)?;
        // A break under way: the handle is good, but the owner of the oplock may still hold data back, so what we
        // would read need not be what the file is. Let go, and come back when the owner has.
        if opened.status != NtStatus::OPLOCK_BREAK_IN_PROGRESS {
            return Ok(opened.file);
        }
    }
    Err(Error::System(NtStatus::SHARING_VIOLATION))
}

/// Indexers and virus scanners let go within milliseconds.
const OPLOCK_ATTEMPTS: u32 = 5;
const OPLOCK_WAIT_MS: u32 = 20;

/// A path in two: what names the volume, and what follows the backslash behind it.
fn split<'a>(path: &NtPath<'a>) -> Option<(&'a [u16], &'a [u16])> {
    let components = path.components().fold(0_usize, |sum, part| sum.saturating_add(part.len()).saturating_add(1));
    let units = path.units();
    let volume = units.len().checked_sub(components)?;
    let (volume, rest) = units.split_at_checked(volume)?;
    Some((volume, rest.get(1..)?))
}

/// The volume's own name in a normalised name: `\Device\HarddiskVolume3` of `\Device\HarddiskVolume3\Windows`.
fn device_of(name: &[u16]) -> Option<&[u16]> {
    let mut separators = name.iter().enumerate().filter(|(_, unit)| **unit == u16::from(b'\\')).map(|(at, _)| at);
    // The separators before `Device`, before the volume and behind it.
    let end = separators.nth(2).unwrap_or(name.len());
    // Shortest sensible name; anything else is no volume, and FltMgr would say so less clearly.
    DeviceName::from_normalized(name).ok().and_then(|_| name.get(..end))
}
