//! What programs do to filters with fltlib: load, unload, attach, detach, list. And what an administrator does to a volume.

use std::sync::Arc;

use nt_types::NtStatus;

use super::attachment;
use super::filter::Filter;
use super::instance::{Instance, VolumeStack};
use super::volumes::find_volume;
use crate::machine::{Inner, Machine};
use crate::process::{Process, Token};
use crate::thread::Thread;

/// An instance, for lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceSummary {
    /// Its name in the registry, or the one that it was attached by.
    pub name: String,
    /// Its altitude, as it was given.
    pub altitude: String,
    /// Service name of its filter.
    pub filter: String,
    /// Device name of its volume.
    pub volume: String,
}

impl InstanceSummary {
    fn of(instance: &Instance) -> Self {
        Self {
            name: instance.name.clone(),
            altitude: instance.altitude.text().to_owned(),
            filter: instance.filter.name.clone(),
            volume: instance.volume.volume.device_name(),
        }
    }
}

/// Filter manager functions of `fltuser.h`. Errors are statuses; fltlib shows each as the `HRESULT` of its Win32 error, or as
/// 0x801Fxxxx for a status of FltMgr's own.
impl Process {
    /// FilterLoad: loads and starts the filter of an installed service.
    ///
    /// # Errors
    /// `PRIVILEGE_NOT_HELD` for who may not load drivers, `OBJECT_NAME_NOT_FOUND` without such a service,
    /// `IMAGE_ALREADY_LOADED`, and the load's own.
    pub fn filter_load(&self, service: &str) -> Result<(), NtStatus> {
        let machine = self.filter_administration()?;
        Machine::of(&machine).load_driver(service).map_err(|error| error.status())
    }

    /// FilterUnload: asks a filter to unload, as `fltmc unload` does.
    ///
    /// # Errors
    /// `PRIVILEGE_NOT_HELD`, `FLT_FILTER_NOT_FOUND`, `FLT_DO_NOT_DETACH` of a filter that cannot be unloaded, or what its
    /// FilterUnloadCallback answers.
    pub fn filter_unload(&self, filter: &str) -> Result<(), NtStatus> {
        let machine = self.filter_administration()?;
        let service = named(&machine, filter)?.driver.service.clone();
        Machine::of(&machine).unload_driver(&service, false).map(drop).map_err(|error| error.status())
    }

    /// FilterAttach: a new instance of a filter on a volume, as the registry defines `instance` (or the default one).
    ///
    /// # Errors
    /// `PRIVILEGE_NOT_HELD`, `FLT_FILTER_NOT_FOUND`, `FLT_VOLUME_NOT_FOUND`, and those of FltAttachVolume.
    pub fn filter_attach(
        &self,
        filter: &str,
        volume: &str,
        instance: Option<&str>,
    ) -> Result<InstanceSummary, NtStatus> {
        self.with_both(filter, volume, |thread, filter, volume| {
            attachment::attach_by_name(thread, filter, volume, instance).map(|made| InstanceSummary::of(&made))
        })
    }

    /// FilterAttachAtAltitude: as [`filter_attach`](Self::filter_attach), at any altitude, for debugging.
    ///
    /// # Errors
    /// As there, and those of FltAttachVolumeAtAltitude.
    pub fn filter_attach_at_altitude(
        &self,
        filter: &str,
        volume: &str,
        altitude: &str,
        instance: Option<&str>,
    ) -> Result<InstanceSummary, NtStatus> {
        self.with_both(filter, volume, |thread, filter, volume| {
            let made = attachment::attach_at_altitude(thread, filter, volume, altitude, instance);
            made.map(|made| InstanceSummary::of(&made))
        })
    }

    /// FilterDetach: takes an instance (the highest of the filter for `None`) off a volume, when it agrees.
    ///
    /// # Errors
    /// `PRIVILEGE_NOT_HELD`, `FLT_FILTER_NOT_FOUND`, `FLT_VOLUME_NOT_FOUND`, `FLT_INSTANCE_NOT_FOUND`, `FLT_DO_NOT_DETACH`, or
    /// the instance's own answer.
    pub fn filter_detach(&self, filter: &str, volume: &str, instance: Option<&str>) -> Result<(), NtStatus> {
        self.with_both(filter, volume, |thread, filter, volume| attachment::detach(thread, filter, volume, instance))
    }

    /// FilterInstanceFindFirst and FilterInstanceFindNext: the instances of a filter.
    ///
    /// # Errors
    /// `FLT_FILTER_NOT_FOUND`.
    pub fn filter_instances(&self, filter: &str) -> Result<Vec<InstanceSummary>, NtStatus> {
        let machine = self.machine().ok_or(NtStatus::PROCESS_IS_TERMINATING)?;
        let instances = named(&machine, filter)?.lock().instances.clone();
        Ok(instances.iter().map(|instance| InstanceSummary::of(instance)).collect())
    }

    /// FilterVolumeInstanceFindFirst and FilterVolumeInstanceFindNext: the instances on a volume, highest first.
    ///
    /// # Errors
    /// `FLT_VOLUME_NOT_FOUND`.
    pub fn volume_instances(&self, volume: &str) -> Result<Vec<InstanceSummary>, NtStatus> {
        let machine = self.machine().ok_or(NtStatus::PROCESS_IS_TERMINATING)?;
        let stack = find_volume(&machine, volume).ok_or(NtStatus::FLT_VOLUME_NOT_FOUND)?;
        Ok(stack.instances().iter().map(|instance| InstanceSummary::of(instance)).collect())
    }

    /// FilterVolumeFindFirst and FilterVolumeFindNext: device names of the volumes that the filter manager knows.
    ///
    /// # Errors
    /// `PROCESS_IS_TERMINATING` when the machine is gone.
    pub fn filter_volumes(&self) -> Result<Vec<String>, NtStatus> {
        let machine = self.machine().ok_or(NtStatus::PROCESS_IS_TERMINATING)?;
        Ok(super::volume_stacks(&machine).iter().map(|stack| stack.volume.device_name()).collect())
    }

    /// The machine, for who holds `SeLoadDriverPrivilege`.
    fn filter_administration(&self) -> Result<Arc<Inner>, NtStatus> {
        let machine = self.machine().ok_or(NtStatus::PROCESS_IS_TERMINATING)?;
        if self.token() == Token::User { Err(NtStatus::PRIVILEGE_NOT_HELD) } else { Ok(machine) }
    }

    fn with_both<R>(
        &self,
        filter: &str,
        volume: &str,
        body: impl FnOnce(&Thread, &Arc<Filter>, &Arc<VolumeStack>) -> Result<R, NtStatus>,
    ) -> Result<R, NtStatus> {
        let machine = self.filter_administration()?;
        let filter = named(&machine, filter)?;
        let volume = find_volume(&machine, volume).ok_or(NtStatus::FLT_VOLUME_NOT_FOUND)?;
        Thread::enter(&machine, |thread| body(thread, &filter, &volume))
    }
}

fn named(machine: &Inner, filter: &str) -> Result<Arc<Filter>, NtStatus> {
    machine.flt.filter_named(filter).ok_or(NtStatus::FLT_FILTER_NOT_FOUND)
}

impl Machine {
    /// Dismounts a drive (such as `C:`) by force: every instance on it is torn down with
    /// `FLTFL_INSTANCE_TEARDOWN_VOLUME_DISMOUNT`, and files that are open get `VOLUME_DISMOUNTED` from then on.
    ///
    /// # Errors
    /// `NO_SUCH_DEVICE` when there is no such drive.
    pub fn dismount(&self, drive: &str) -> Result<(), NtStatus> {
        crate::fs::dismount(self.inner(), drive)
    }
}
