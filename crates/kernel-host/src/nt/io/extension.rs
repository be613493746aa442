//! What a driver hangs on its driver object: context areas, and routines that run when its initialisation is over.
//!
//! Pages: `wdm/nf-wdm-ioallocatedriverobjectextension`, `ntddk/nf-ntddk-ioregisterdriverreinitialization` and their neighbours.

use std::sync::Arc;

use nt_types::{DEVICE_OBJECT, DRIVER_EXTENSION, DRIVER_OBJECT, NtStatus};

use super::driver_object::DriverBody;
use crate::ddi::{Call, exports};
use crate::finding::{Finding, Rule, Stopped};
use crate::machine::{Driver, Inner};
use crate::nt::arena::{Access, PAGE, pages_for};
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    IoAllocateDriverObjectExtension(max 2, fails RESOURCES) = io_allocate_driver_object_extension;
    IoGetDriverObjectExtension(max 2) = io_get_driver_object_extension;
    IoRegisterDriverReinitialization(max 0) = io_register_driver_reinitialization;
    IoRegisterBootDriverReinitialization(max 0) = io_register_driver_reinitialization;
    IoEnumerateDeviceObjectList(max 2) = io_enumerate_device_object_list;
    IoIsWdmVersionAvailable(max 0) = io_is_wdm_version_available;
}

/// WDM of Windows Vista and everything after it.
const WDM_VERSION: (u8, u8) = (6, 0);

/// A context area.
#[derive(Debug)]
pub(crate) struct Extension {
    /// Address of the driver object.
    owner: usize,
    /// What the driver calls it by: an address that nobody looks behind.
    client: usize,
    address: usize,
    run: usize,
    pages: usize,
}

/// A routine that is to run once more when initialisation is over.
#[derive(Debug)]
pub(crate) struct Reinitialization {
    driver: Arc<Driver>,
    /// Address of the driver object.
    object: usize,
    routine: usize,
    context: usize,
}

/// The driver behind a driver object; stops when there is none.
fn driver_at(call: &Call, object: usize) -> Arc<Driver> {
    let body = call.machine().nt.objects().payload::<DriverBody>(object);
    let driver = body.and_then(|body| body.driver());
    driver.unwrap_or_else(|| call.stop(Rule::BadArgument, format!("{object:#x} is no driver object")))
}

extern "efiapi" fn io_allocate_driver_object_extension(
    object: usize,
    client: usize,
    length: u32,
    out: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    driver_at(&call, object);
    out.write(0);
    let io = call.machine().nt.io();
    if io.lock().extensions.iter().any(|entry| (entry.owner, entry.client) == (object, client)) {
        return NtStatus::OBJECT_NAME_COLLISION;
    }
    // It ends where its pages end, so that an access behind it faults.
    let length = (length as usize).next_multiple_of(16).max(16);
    let pages = pages_for(length);
    let Some(run) = call.machine().nt.arena().allocate(pages, Access::ReadWrite) else {
        return NtStatus::INSUFFICIENT_RESOURCES;
    };
    let address = run + pages * PAGE - length;
    io.lock().extensions.push(Extension { owner: object, client, address, run, pages });
    out.write(address);
    NtStatus::SUCCESS
}

extern "efiapi" fn io_get_driver_object_extension(object: usize, client: usize) -> usize {
    let call = Call::enter();
    driver_at(&call, object);
    let state = call.machine().nt.io().lock();
    let found = state.extensions.iter().find(|entry| (entry.owner, entry.client) == (object, client));
    found.map_or(0, |entry| entry.address)
}

/// A boot driver's routine runs after all devices were started: for a driver that is loaded into a running system, as here,
/// that is the same moment.
extern "efiapi" fn io_register_driver_reinitialization(object: usize, routine: usize, context: usize) {
    let call = Call::enter();
    let driver = driver_at(&call, object);
    let inside = ["DriverEntry", "Reinitialize"].iter().any(|callback| call.thread().is_inside(callback));
    if !inside {
        call.stop(Rule::BadState, "a Reinitialize routine is registered by DriverEntry or by such a routine");
    }
    let entry = Reinitialization { driver, object, routine, context };
    let mut state = call.machine().nt.io().lock();
    let is_second = state.reinitialize.iter().any(|other| other.object == object);
    if !is_second {
        return state.reinitialize.push(entry);
    }
    drop(state);
    call.stop(Rule::BadState, "the Reinitialize routine is registered already: DriverEntry may do that only once");
}

/// `DriverEntry` has succeeded: runs the routines that it registered, and that those register, until there are no more.
///
/// # Errors
/// The finding, when a routine broke a rule.
pub(crate) fn reinitialize(thread: &Thread, driver: &Arc<Driver>) -> Result<(), Stopped> {
    type Routine = unsafe extern "efiapi" fn(*mut DRIVER_OBJECT, usize, u32);
    while let Some(next) = take(thread.machine(), driver) {
        let object = Raw::<DRIVER_OBJECT>::at(next.object);
        let extension = Raw::of(field!(object, DRIVER_OBJECT, DriverExtension).read());
        let count = field!(extension, DRIVER_EXTENSION, Count);
        let times = count.read() + 1;
        count.write(times);
        // SAFETY: the address of the driver's DRIVER_REINITIALIZE routine.
        let routine = unsafe { std::mem::transmute::<usize, Routine>(next.routine) };
        // SAFETY: it gets its driver object, its context, and how often it ran with this time.
        let body = || unsafe { routine(object.pointer(), next.context, times) };
        thread.call_driver(driver, "Reinitialize", 0, body)?;
    }
    Ok(())
}

fn take(machine: &Inner, driver: &Arc<Driver>) -> Option<Reinitialization> {
    let mut state = machine.nt.io().lock();
    let index = state.reinitialize.iter().position(|entry| Arc::ptr_eq(&entry.driver, driver))?;
    Some(state.reinitialize.remove(index))
}

/// `DriverEntry` has failed: the page's rule for routines that it has registered all the same.
pub(crate) fn check_none(machine: &Inner, driver: &Arc<Driver>) {
    if take(machine, driver).is_some() {
        let message =
            "DriverEntry fails after it has registered a Reinitialize routine, which it may do only if it is \
                       going to succeed"
                .to_owned();
        machine.record(Finding::new(Rule::BadState, message, "DriverEntry", &driver.name));
    }
}

/// The driver object goes: so do its context areas.
pub(crate) fn free_all(machine: &Inner, object: usize) {
    let gone: Vec<Extension> = {
        let mut state = machine.nt.io().lock();
        state.extensions.extract_if(.., |entry| entry.owner == object).collect()
    };
    for entry in gone {
        machine.nt.arena().release(entry.run, entry.pages);
    }
}

extern "efiapi" fn io_enumerate_device_object_list(
    object: Raw<DRIVER_OBJECT>,
    list: Raw<usize>,
    length: u32,
    count: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    driver_at(&call, object.address());
    let first = Raw::of(field!(object, DRIVER_OBJECT, DeviceObject).read()).some();
    let next = |device: &Raw<DEVICE_OBJECT>| Raw::of(field!(*device, DEVICE_OBJECT, NextDevice).read()).some();
    let devices: Vec<Raw<DEVICE_OBJECT>> = std::iter::successors(first, next).collect();
    count.write(devices.len() as u32);
    let room = if list.is_null() { 0 } else { length as usize / size_of::<usize>() };
    for (index, device) in devices.iter().take(room).enumerate() {
        call.machine().nt.objects().reference(&call, device.address());
        list.index(index).write(device.address());
    }
    if devices.len() > room { NtStatus::BUFFER_TOO_SMALL } else { NtStatus::SUCCESS }
}

extern "efiapi" fn io_is_wdm_version_available(major: u8, minor: u8) -> u8 {
    let _call = Call::enter();
    u8::from((major, minor) <= WDM_VERSION)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{DEVICE_NAME, World, create_device};
    use super::*;
    use crate::conformance::conforms;
    use crate::nt::ob_exports::obf_dereference_object;

    fn allocate(object: usize, client: usize) -> (NtStatus, usize) {
        let mut area = 0;
        let out = Raw::of(&raw mut area);
        (io_allocate_driver_object_extension(object, client, 24, out), out.read())
    }

    #[test]
    fn a_context_area_is_found_by_its_identifier_and_goes_with_the_driver_object() {
        conforms!(
            "wdm/nf-wdm-ioallocatedriverobjectextension.md",
            "STATUS_OBJECT_NAME_COLLISION is returned for an identifier that is in use for the driver object."
        );
        conforms!("wdm/nf-wdm-iogetdriverobjectextension.md", "The area is returned, or NULL when there is none.");
        conforms!(
            "wdm/nf-wdm-ioallocatedriverobjectextension.md",
            "The area is freed by the I/O manager with the driver object."
        );
        let world = World::new();
        let object = world.driver.address();
        world.run(|| {
            let (status, area) = allocate(object, 0x1234);
            assert_eq!(status, NtStatus::SUCCESS);
            assert_eq!(Raw::<[u64; 3]>::at(area).read(), [0; 3]);
            assert_eq!(allocate(object, 0x1234), (NtStatus::OBJECT_NAME_COLLISION, 0));
            assert_eq!(io_get_driver_object_extension(object, 0x1234), area);
            assert_eq!(io_get_driver_object_extension(object, 0x1235), 0);
        });
        free_all(world.bench.machine().inner(), object);
        assert_eq!(world.run(|| io_get_driver_object_extension(object, 0x1234)), 0);
    }

    extern "efiapi" fn again(object: usize, context: Raw<u32>, count: u32) {
        context.write(context.read() * 10 + count);
        if count < 3 {
            io_register_driver_reinitialization(object, again as *const () as usize, context.address());
        }
    }

    #[test]
    fn a_reinitialize_routine_runs_as_often_as_it_is_registered() {
        conforms!(
            "ntddk/nf-ntddk-ioregisterdriverreinitialization.md",
            "The routine runs after DriverEntry, and again whenever it registers itself; Count says how often it ran."
        );
        let world = World::new();
        let mut seen = 0_u32;
        let context = Raw::of(&raw mut seen);
        let (object, routine) = (world.driver.address(), again as *const () as usize);
        world.bench.enter(|thread| {
            let entry = || io_register_driver_reinitialization(object, routine, context.address());
            thread.call_driver(world.bench.driver(), "DriverEntry", 0, entry).unwrap();
            assert_eq!(context.read(), 0, "not yet");
            reinitialize(thread, world.bench.driver()).unwrap();
        });
        assert_eq!(context.read(), 123);
    }

    #[test]
    fn a_reinitialize_routine_is_registered_once_by_an_entry_that_succeeds() {
        conforms!(
            "ntddk/nf-ntddk-ioregisterdriverreinitialization.md",
            "DriverEntry registers only once, and only if it is going to succeed."
        );
        conforms!("ntddk/nf-ntddk-ioregisterbootdriverreinitialization.md", "DriverEntry can register only once.");
        let register = |world: &World, times: usize| {
            let object = world.driver.address();
            world.bench.enter(|thread| {
                let entry = || (0..times).for_each(|_| io_register_driver_reinitialization(object, 1, 0));
                thread.call_driver(world.bench.driver(), "DriverEntry", 0, entry)
            })
        };
        assert_eq!(register(&World::new(), 2).unwrap_err().0.rule, Rule::BadState);
        let world = World::new();
        register(&world, 1).unwrap();
        check_none(world.bench.machine().inner(), world.bench.driver());
        assert_eq!(world.bench.machine().finding().unwrap().rule, Rule::BadState);
        let world = World::new();
        let object = world.driver.address();
        assert_eq!(world.broken(|| io_register_driver_reinitialization(object, 1, 0)), Rule::BadState);
    }

    #[test]
    fn the_devices_of_a_driver_are_listed_with_references() {
        conforms!(
            "ntifs/nf-ntifs-ioenumeratedeviceobjectlist.md",
            "With too small an array STATUS_BUFFER_TOO_SMALL is returned and as many pointers as fit are stored."
        );
        conforms!(
            "ntifs/nf-ntifs-ioenumeratedeviceobjectlist.md",
            "Each device that is stored is referenced; the caller dereferences it."
        );
        let world = World::new();
        let (status, second) = world.run(|| create_device(&world.driver, "\\Device\\Second", 0, 0));
        assert_eq!((status, DEVICE_NAME), (NtStatus::SUCCESS, "\\Device\\Test"));
        world.run(|| {
            let object = Raw::at(world.driver.address());
            let (mut list, mut count) = ([0_usize; 2], 0);
            let out = Raw::<usize>::of((&raw mut list).cast());
            let count = Raw::of(&raw mut count);
            let enumerate = |list, length| (io_enumerate_device_object_list(object, list, length, count), count.read());
            assert_eq!(enumerate(Raw::NULL, 0), (NtStatus::BUFFER_TOO_SMALL, 2));
            assert_eq!(enumerate(out, 8), (NtStatus::BUFFER_TOO_SMALL, 2));
            obf_dereference_object(second);
            assert_eq!(enumerate(out, 16), (NtStatus::SUCCESS, 2));
            assert_eq!(out.read_slice(2), [second, world.device]);
            out.read_slice(2).into_iter().for_each(|device| _ = obf_dereference_object(device));
        });
        assert!(world.leaks().iter().all(|leak| !leak.contains("reference")));
    }

    #[test]
    fn the_version_of_wdm_is_that_of_windows_vista_and_later() {
        conforms!(
            "wdm/nf-wdm-ioiswdmversionavailable.md",
            "TRUE is returned for a version up to the one of the system, FALSE for a later one."
        );
        World::new().run(|| {
            let available = [(1, 0x30), (6, 0), (6, 1), (7, 0)];
            assert_eq!(available.map(|(major, minor)| io_is_wdm_version_available(major, minor)), [1, 1, 0, 0]);
        });
    }
}
