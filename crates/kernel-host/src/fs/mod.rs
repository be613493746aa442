//! Volumes on host folders, with the file system semantics that drivers and programs see.
//!
//! From a name to bytes: [`path`] parses, [`host`] finds entries in the folder, [`volume`] follows the name, [`create`]
//! decides the open, [`stream`] and [`share`] are what opens of one file have in common, [`open`] moves the data.
//! [`device`] puts kernel objects around that and [`io`] sends requests through the filters first. [`program`] is what
//! simulated processes call.
#![allow(
    clippy::doc_markdown,
    reason = "prose is full of names of functions, statuses and callbacks; each in backticks reads worse"
)]

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nt_types::{DEVICE_OBJECT, NtStatus};

use crate::machine::Inner;

pub(crate) mod access;
pub(crate) mod buffer;
pub(crate) mod change;
pub(crate) mod control;
pub(crate) mod create;
mod create_io;
pub(crate) mod device;
mod directory;
mod ea;
pub(crate) mod host;
pub(crate) mod information;
pub(crate) mod io;
pub(crate) mod issue;
pub(crate) mod locks;
mod notify;
pub(crate) mod open;
pub(crate) mod options;
pub(crate) mod path;
pub(crate) mod program;
mod program_directory;
pub(crate) mod program_file;
pub(crate) mod program_overlapped;
pub(crate) mod program_view;
pub(crate) mod query_open;
pub(crate) mod ranges;
mod rename;
mod scratch;
pub(crate) mod section;
pub(crate) mod security;
pub(crate) mod serve;
mod set_io;
pub(crate) mod share;
pub(crate) mod shutdown;
pub(crate) mod stream;
pub(crate) mod volume;
mod volume_information;

use volume::Volume;

/// The volumes of a machine.
#[derive(Debug, Default)]
pub(crate) struct Fs {
    mounted: Mutex<Vec<Mounted>>,
}

/// A mounted volume. Its name in the namespace keeps its device object.
#[derive(Clone, Debug)]
pub(crate) struct Mounted {
    pub(crate) volume: Arc<Volume>,
}

impl Fs {
    /// All volumes, in the order of mounting.
    pub(crate) fn volumes(&self) -> Vec<Mounted> {
        self.lock().clone()
    }

    /// Writable user references (sections and views) to the stream whose `SECTION_OBJECT_POINTERS` are at `address`:
    /// what `MmDoesFileHaveUserWritableReferences` answers. `None` when no open stream has them there.
    pub(crate) fn writable_references(&self, address: usize) -> Option<u32> {
        let volumes = self.volumes();
        let streams = volumes.iter().flat_map(|mounted| mounted.volume.lock().live());
        let mut found = streams.filter(|stream| (&raw const stream.sections.0).addr() == address);
        found.next().map(|stream| stream.writable_sections.load(std::sync::atomic::Ordering::Acquire))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Mounted>> {
        self.mounted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Mounts `folder` as `drive` (such as `C:`): makes `\Device\HarddiskVolumeN` and its links, and tells the filters.
///
/// # Errors
/// `INVALID_PARAMETER` for a drive that is no letter, `OBJECT_NAME_COLLISION` for one in use, `OBJECT_PATH_NOT_FOUND` when the
/// folder cannot be opened.
pub(crate) fn mount(machine: &Arc<Inner>, drive: &str, folder: &Path) -> Result<Arc<Volume>, NtStatus> {
    let letter = match drive.trim_end_matches(':').as_bytes() {
        [letter] if letter.is_ascii_alphabetic() => char::from(letter.to_ascii_uppercase()),
        _ => return Err(NtStatus::INVALID_PARAMETER),
    };
    let mut mounted = machine.fs.lock();
    let number = mounted.iter().map(|mounted| mounted.volume.number).max().unwrap_or(0) + 1;
    let volume = Volume::mount(number, letter, folder).map_err(|_| NtStatus::OBJECT_PATH_NOT_FOUND)?;
    let objects = machine.nt.objects();
    let payload = device::VolumeDevice { volume: Arc::clone(&volume), machine: Arc::downgrade(machine) };
    let object = objects.create(size_of::<DEVICE_OBJECT>(), Arc::new(payload))?;
    device::initialise_device(object.body());
    let names = objects.namespace();
    names.insert_link(&format!(r"\GLOBAL??\{letter}:"), &volume.device_name())?;
    names.insert_object(&volume.device_name(), &object)?;
    names.insert_link(&volume.guid_name().replace(r"\??\", r"\GLOBAL??\"), &volume.device_name())?;
    mounted.push(Mounted { volume: Arc::clone(&volume) });
    drop(mounted);
    crate::flt::volume_mounted(machine, &volume);
    Ok(volume)
}

/// Dismounts `drive` by force: the filters are torn down, its names go, its open files get `VOLUME_DISMOUNTED`.
///
/// # Errors
/// `NO_SUCH_DEVICE` when there is no such drive.
pub(crate) fn dismount(machine: &Arc<Inner>, drive: &str) -> Result<(), NtStatus> {
    let letter = drive.chars().next().map(|letter| letter.to_ascii_uppercase());
    let found = machine.fs.volumes().into_iter().find(|mounted| Some(mounted.volume.letter) == letter);
    let volume = found.ok_or(NtStatus::NO_SUCH_DEVICE)?.volume;
    let names = machine.nt.objects().namespace();
    names.remove_link(&format!(r"\GLOBAL??\{}:", volume.letter))?;
    names.remove_link(&volume.guid_name().replace(r"\??\", r"\GLOBAL??\"))?;
    shutdown::dismounting(machine, &volume);
    crate::flt::volume_dismounted(machine, &volume);
    volume.set_dismounted();
    names.remove_object(&volume.device_name())?;
    machine.fs.lock().retain(|mounted| !Arc::ptr_eq(&mounted.volume, &volume));
    Ok(())
}

#[cfg(test)]
mod tests;
