//! File systems that drivers are, and the filters that want to hear of them.
//!
//! The host's own file systems are no drivers: a filter that attaches to device objects of file systems hears of those that
//! drivers register here, and of no others. Minifilters see all volumes.

use std::sync::Arc;

use nt_types::{DEVICE_OBJECT, NtStatus};

use super::request::target;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::raw::{Raw, field};
use crate::nt::registered::Kind;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    IoRegisterFileSystem(max 1) = io_register_file_system;
    IoUnregisterFileSystem(max 1) = io_unregister_file_system;
    IoRegisterFsRegistrationChange(max 1, fails RESOURCES) = io_register_fs_registration_change;
    IoRegisterFsRegistrationChangeMountAware(max 1, fails RESOURCES) = io_register_fs_registration_change_mount_aware;
    IoUnregisterFsRegistrationChange(max 1) = io_unregister_fs_registration_change;
}

/// `FILE_DEVICE_CD_ROM_FILE_SYSTEM`, `FILE_DEVICE_DISK_FILE_SYSTEM`, `FILE_DEVICE_NETWORK_FILE_SYSTEM`.
const FILE_SYSTEMS: [u32; 3] = [3, 8, 20];

/// Tells all filters, or only the one with this routine, of a file system.
fn notify(call: &Call, device: Raw<DEVICE_OBJECT>, is_active: bool, only: Option<usize>) {
    type Routine = unsafe extern "efiapi" fn(*mut DEVICE_OBJECT, u8);
    let filters = call.machine().nt.registered().of_kind(Kind::FileSystemChange);
    for filter in filters.into_iter().filter(|filter| only.is_none_or(|only| filter.key == only)) {
        // SAFETY: the address of the filter's DRIVER_FS_NOTIFICATION routine.
        let routine = unsafe { std::mem::transmute::<usize, Routine>(filter.routine) };
        // SAFETY: it gets the control device of a file system, which is there.
        let body = || unsafe { routine(device.pointer(), is_active.into()) };
        if call.thread().call_driver(&filter.driver, "DriverFSNotification", 0, body).is_err() {
            call.thread().leave_if_stopped();
        }
    }
}

extern "efiapi" fn io_register_file_system(device: Raw<DEVICE_OBJECT>) {
    let call = Call::enter();
    if target(call.thread(), device).is_none() {
        call.stop(Rule::BadArgument, format!("{device:?} is no device object of a driver"));
    }
    // The page: others are not registered, and nobody is told.
    if !FILE_SYSTEMS.contains(&field!(device, DEVICE_OBJECT, DeviceType).read()) {
        return;
    }
    if !call.machine().nt.registered().add(&call, Kind::FileSystem, device.address(), 0, 0) {
        call.stop(Rule::BadState, format!("the file system {device:?} is registered already"));
    }
    call.machine().nt.objects().reference(&call, device.address());
    notify(&call, device, true, None);
}

extern "efiapi" fn io_unregister_file_system(device: Raw<DEVICE_OBJECT>) {
    let call = Call::enter();
    if call.machine().nt.registered().remove(Kind::FileSystem, device.address()).is_none() {
        call.stop(Rule::BadState, format!("the file system {device:?} is not registered"));
    }
    notify(&call, device, false, None);
    call.machine().nt.objects().dereference(&call, device.address());
}

fn register_change(object: usize, routine: usize) -> NtStatus {
    let call = Call::enter();
    let registered = call.machine().nt.registered();
    if !registered.add(&call, Kind::FileSystemChange, routine, routine, object) {
        return NtStatus::DEVICE_ALREADY_ATTACHED;
    }
    for file_system in registered.of_kind(Kind::FileSystem) {
        notify(&call, Raw::at(file_system.key), true, Some(routine));
    }
    NtStatus::SUCCESS
}

extern "efiapi" fn io_register_fs_registration_change(object: usize, routine: usize) -> NtStatus {
    register_change(object, routine)
}

/// The last parameter says how the routine and mounts are kept apart, which only matters where volumes are mounted meanwhile.
extern "efiapi" fn io_register_fs_registration_change_mount_aware(
    object: usize,
    routine: usize,
    _synchronize_with_mounts: u8,
) -> NtStatus {
    register_change(object, routine)
}

extern "efiapi" fn io_unregister_fs_registration_change(_object: usize, routine: usize) {
    let call = Call::enter();
    let removed = call.machine().nt.registered().remove(Kind::FileSystemChange, routine);
    if removed.is_none_or(|entry| !Arc::ptr_eq(&entry.driver, call.driver())) {
        call.stop(Rule::BadState, format!("the notification routine {routine:#x} is not registered"));
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::super::device::io_create_device;
    use super::super::tests::World;
    use super::*;
    use crate::conformance::conforms;
    use crate::leak::LeakKind;

    thread_local! {
        static SEEN: RefCell<Vec<(usize, u8)>> = const { RefCell::new(Vec::new()) };
    }

    extern "efiapi" fn file_system_came(device: usize, is_active: u8) {
        SEEN.with_borrow_mut(|seen| seen.push((device, is_active)));
    }

    fn routine() -> usize {
        file_system_came as *const () as usize
    }

    /// A control device of a type.
    fn control_device(world: &World, device_type: u32) -> Raw<DEVICE_OBJECT> {
        let mut device = 0;
        let out = Raw::of(&raw mut device);
        let object = Raw::at(world.driver.address());
        let status = world.run(|| io_create_device(object, 0, Raw::NULL, device_type, 0, 0, out));
        assert_eq!(status, NtStatus::SUCCESS);
        Raw::at(out.read())
    }

    #[test]
    fn a_filter_hears_of_file_systems_that_are_there_come_and_go() {
        conforms!(
            "ntifs/nf-ntifs-ioregisterfsregistrationchange.md",
            "The routine is called at once for each registered file system, and later whenever one comes or goes."
        );
        conforms!("ntifs/nf-ntifs-ioregisterfilesystem.md", "Filters that have registered for it are notified.");
        conforms!("ntifs/nf-ntifs-iounregisterfilesystem.md", "Filters that have registered for it are notified.");
        conforms!("ntifs/nf-ntifs-iounregisterfsregistrationchange.md", "The routine is called no more.");
        SEEN.take();
        let world = World::new();
        let [first, second] = [8, 20].map(|kind| control_device(&world, kind));
        world.run(|| {
            io_register_file_system(first);
            assert_eq!(io_register_fs_registration_change(world.driver.address(), routine()), NtStatus::SUCCESS);
            assert_eq!(SEEN.take(), [(first.address(), 1)]);
            io_register_file_system(second);
            io_unregister_file_system(first);
            assert_eq!(SEEN.take(), [(second.address(), 1), (first.address(), 0)]);
            io_unregister_fs_registration_change(world.driver.address(), routine());
            io_unregister_file_system(second);
            assert_eq!(SEEN.take(), []);
        });
    }

    #[test]
    fn a_routine_is_registered_once_and_has_to_be_taken_back() {
        conforms!(
            "ntifs/nf-ntifs-ioregisterfsregistrationchange.md",
            "STATUS_DEVICE_ALREADY_ATTACHED is returned for the same driver and routine a second time."
        );
        let world = World::new();
        let object = world.driver.address();
        let statuses = world.run(|| [(); 2].map(|()| io_register_fs_registration_change(object, routine())));
        assert_eq!(statuses, [NtStatus::SUCCESS, NtStatus::DEVICE_ALREADY_ATTACHED]);
        let report = world.bench.machine().held_by(world.bench.driver());
        assert_eq!(report.count(LeakKind::Registration), 1);
        let twice = || (0..2).for_each(|_| io_unregister_fs_registration_change(object, routine()));
        assert_eq!(world.broken(twice), Rule::BadState);
    }

    #[test]
    fn a_device_of_another_type_is_not_registered() {
        conforms!(
            "ntifs/nf-ntifs-ioregisterfilesystem.md",
            "A device that has none of the three types of file systems is not registered."
        );
        let world = World::new();
        let device = control_device(&world, 0x22);
        world.run(|| io_register_file_system(device));
        assert_eq!(world.broken(|| io_unregister_file_system(device)), Rule::BadState);
    }
}
