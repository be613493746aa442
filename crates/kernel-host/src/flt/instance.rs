//! Instances: a filter on a volume, at an altitude.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fltmgr::raw::{FLT_RELATED_OBJECTS, FltInstanceSetupFlags, FltTeardownReason};
use nt_types::{FILE_OBJECT, NtStatus};

use super::altitude::Altitude;
use super::filter::{Filter, InstanceDefinition};
use super::object::{FltObject, ObjectTable, Rundown};
use crate::finding::{Rule, Stopped};
use crate::fs::device::DISK_FILE_SYSTEM;
use crate::fs::volume::Volume;
use crate::machine::Inner;
use crate::nt::ob::ObjectRef;
use crate::nt::raw::Raw;
use crate::thread::Thread;

/// `FLT_FSTYPE_NTFS`.
pub(super) const FSTYPE_NTFS: i32 = 2;

/// A filter attached to a volume.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) address: usize,
    pub(crate) filter: Arc<Filter>,
    pub(crate) volume: Arc<VolumeStack>,
    pub(crate) name: String,
    pub(crate) altitude: Altitude,
    pub(crate) rundown: Rundown,
}

/// A volume as FltMgr sees it: the instances above it.
#[derive(Debug)]
pub(crate) struct VolumeStack {
    pub(crate) address: usize,
    pub(crate) volume: Arc<Volume>,
    pub(crate) rundown: Rundown,
    /// Highest altitude first. Operations under way keep the list that they began with.
    instances: Mutex<Arc<[Arc<Instance>]>>,
    /// The device object of the storage below, made when somebody asks.
    disk: Mutex<Option<ObjectRef>>,
}

impl VolumeStack {
    pub(crate) fn new(machine: &Inner, volume: &Arc<Volume>) -> Result<Arc<Self>, NtStatus> {
        let stack = Arc::new(Self {
            address: ObjectTable::reserve(machine)?,
            volume: Arc::clone(volume),
            rundown: Rundown::default(),
            instances: Mutex::new(Arc::from([])),
            disk: Mutex::default(),
        });
        machine.flt.objects.insert(stack.address, FltObject::Volume(Arc::clone(&stack)));
        Ok(stack)
    }

    /// The instances, highest first.
    pub(crate) fn instances(&self) -> Vec<Arc<Instance>> {
        self.lock().to_vec()
    }

    /// The instances as they are now, for an operation: costs no allocation.
    pub(super) fn snapshot(&self) -> Arc<[Arc<Instance>]> {
        Arc::clone(&self.lock())
    }

    fn forget(&self, instance: &Arc<Instance>) {
        let mut instances = self.lock();
        let others = instances.iter().filter(|other| !Arc::ptr_eq(other, instance)).cloned().collect();
        *instances = others;
    }

    /// The storage's device object, once somebody has asked for it.
    pub(crate) fn disk(&self) -> MutexGuard<'_, Option<ObjectRef>> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, Arc<[Arc<Instance>]>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Instance {
    /// `FLT_RELATED_OBJECTS` for a callback of this instance.
    pub(crate) fn related(&self, file: usize) -> FLT_RELATED_OBJECTS {
        FLT_RELATED_OBJECTS {
            Size: size_of::<FLT_RELATED_OBJECTS>() as u16,
            TransactionContext: 0,
            Filter: Raw::at(self.filter.address).pointer(),
            Volume: Raw::at(self.volume.address).pointer(),
            Instance: Raw::at(self.address).pointer(),
            FileObject: Raw::<FILE_OBJECT>::at(file).pointer(),
            Transaction: std::ptr::null_mut(),
        }
    }
}

/// Attaches every instance of a filter that its registry key wants attached automatically.
pub(crate) fn attach_automatically(thread: &Thread, filter: &Arc<Filter>, volume: &Arc<VolumeStack>, new_volume: bool) {
    const NOT_AUTOMATICALLY: u32 = 1;
    let mut flags = FltInstanceSetupFlags::AUTOMATIC_ATTACHMENT;
    if new_volume {
        flags |= FltInstanceSetupFlags::NEWLY_MOUNTED_VOLUME;
    }
    for definition in &filter.definitions {
        if definition.flags & NOT_AUTOMATICALLY == 0 {
            // A filter that declines a volume is simply not there; nobody is told.
            let _declined = attach(thread, filter, volume, definition, flags);
        }
    }
}

/// Attaches one instance: InstanceSetupCallback decides.
///
/// # Errors
/// `FLT_INSTANCE_NAME_COLLISION`, `FLT_INSTANCE_ALTITUDE_COLLISION`, `INSUFFICIENT_RESOURCES`, or what the callback answered:
/// any warning or error means that it does not attach.
pub(crate) fn attach(
    thread: &Thread,
    filter: &Arc<Filter>,
    volume: &Arc<VolumeStack>,
    definition: &InstanceDefinition,
    flags: FltInstanceSetupFlags,
) -> Result<Arc<Instance>, NtStatus> {
    let machine = thread.machine();
    let instance = Arc::new(Instance {
        address: ObjectTable::reserve(machine)?,
        filter: Arc::clone(filter),
        volume: Arc::clone(volume),
        name: definition.name.clone(),
        altitude: definition.altitude.clone(),
        rundown: Rundown::default(),
    });
    check_collisions(&instance, &volume.lock())?;
    machine.flt.objects.insert(instance.address, FltObject::Instance(Arc::clone(&instance)));
    let status = match filter.registration.setup {
        None => NtStatus::SUCCESS,
        Some(setup) => {
            let related = instance.related(0);
            let result = thread.call_driver(&filter.driver, "InstanceSetupCallback", 0, || {
                // SAFETY: the driver registered the function with this signature, and is loaded.
                unsafe { setup(&raw const related, flags.bits(), DISK_FILE_SYSTEM, FSTYPE_NTFS) }
            });
            result.unwrap_or(super::MACHINE_STOPPED)
        }
    };
    if !status.is_success() {
        machine.flt.objects.remove(machine, instance.address);
        return Err(status);
    }
    let mut instances = volume.lock();
    // Another instance may have come meanwhile.
    if let Err(status) = check_collisions(&instance, &instances) {
        drop(instances);
        machine.flt.objects.remove(machine, instance.address);
        return Err(status);
    }
    let position = instances.partition_point(|other| other.altitude > instance.altitude);
    let (above, below) = instances.split_at(position);
    let all = above.iter().chain([&instance]).chain(below).cloned().collect();
    *instances = all;
    drop(instances);
    filter.lock().instances.push(Arc::clone(&instance));
    Ok(instance)
}

fn check_collisions(instance: &Instance, others: &[Arc<Instance>]) -> Result<(), NtStatus> {
    for other in others {
        let same_filter = Arc::ptr_eq(&other.filter, &instance.filter);
        if same_filter && crate::nt::unicode::same_name(&other.name, &instance.name) {
            return Err(NtStatus::FLT_INSTANCE_NAME_COLLISION);
        }
        if other.altitude.collides(&instance.altitude) {
            return Err(NtStatus::FLT_INSTANCE_ALTITUDE_COLLISION);
        }
    }
    Ok(())
}

/// Detaches: no new callbacks, start callback, wait for the callbacks under way, complete callback.
///
/// References that drivers hold do not stop this; they only keep the pointer valid. False when somebody else detaches the
/// instance already.
pub(crate) fn detach(thread: &Thread, instance: &Arc<Instance>, reason: FltTeardownReason) -> bool {
    if !instance.rundown.start_ending() {
        return false;
    }
    let registration = &instance.filter.registration;
    let related = instance.related(0);
    // A stop is seen by whoever asked for the detachment.
    let _started: Option<Result<(), Stopped>> = registration.teardown_start.map(|callback| {
        thread.call_driver(&instance.filter.driver, "InstanceTeardownStartCallback", 0, || {
            // SAFETY: the driver registered the function with this signature, and is loaded.
            unsafe { callback(&raw const related, reason.bits()) }
        })
    });
    instance.volume.forget(instance);
    instance.filter.lock().instances.retain(|other| !Arc::ptr_eq(other, instance));
    super::drain::drain(thread, instance);
    if let Err(mut holders) = instance.rundown.wait_for_callbacks() {
        holders.extend(thread.machine().flt.pended.kept_by(instance));
        let message = format!("the teardown of instance {} waits for ever: {}", instance.name, holders.join("; "));
        super::record(thread.machine(), &instance.filter.driver, "InstanceTeardown", Rule::Deadlock, message);
        thread.leave_if_stopped();
    }
    let _completed: Option<Result<(), Stopped>> = registration.teardown_complete.map(|callback| {
        thread.call_driver(&instance.filter.driver, "InstanceTeardownCompleteCallback", 0, || {
            // SAFETY: as above.
            unsafe { callback(&raw const related, reason.bits()) }
        })
    });
    super::contexts::instance_gone(thread, instance);
    true
}

/// FilterDetach and FltDetachVolume: asks the instance, then detaches it.
///
/// # Errors
/// `FLT_DO_NOT_DETACH` without an InstanceQueryTeardownCallback, or what that answered; `FLT_DELETING_OBJECT` when it is on
/// its way out.
pub(crate) fn detach_manually(thread: &Thread, instance: &Arc<Instance>) -> Result<(), NtStatus> {
    if instance.rundown.is_ending() {
        return Err(NtStatus::FLT_DELETING_OBJECT);
    }
    let query = instance.filter.registration.query_teardown.ok_or(NtStatus::FLT_DO_NOT_DETACH)?;
    let related = instance.related(0);
    let answer = thread.call_driver(&instance.filter.driver, "InstanceQueryTeardownCallback", 0, || {
        // SAFETY: the driver registered the function with this signature, and is loaded.
        unsafe { query(&raw const related, 0) }
    });
    answer.unwrap_or(super::MACHINE_STOPPED).ok()?;
    if !detach(thread, instance, FltTeardownReason::MANUAL) {
        return Err(NtStatus::FLT_DELETING_OBJECT);
    }
    let machine = thread.machine();
    machine.flt.objects.retire(machine, instance.address);
    Ok(())
}
