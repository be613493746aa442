//! Timers and notifications of devices, and what deleting a device wants first.

use std::cell::Cell;
use std::time::{Duration, Instant};

use super::*;
use crate::conformance::conforms;
use crate::nt::io::shutdown::{io_register_shutdown_notification, io_unregister_shutdown_notification};
use crate::nt::io::timer::{io_initialize_timer, io_start_timer, io_stop_timer};
use crate::thread::Thread;
use nt_types::IRP_MJ_SHUTDOWN;

thread_local! {
    static SHUTDOWNS: Cell<u32> = const { Cell::new(0) };
}

extern "efiapi" fn shut_down(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    SHUTDOWNS.set(SHUTDOWNS.get() + 1);
    programs::complete(Raw::of(irp), NtStatus::SUCCESS, 0)
}

#[test]
fn registered_devices_hear_of_the_shutdown_and_unregistered_ones_do_not() {
    conforms!(
        "wdm/nf-wdm-ioregistershutdownnotification.md",
        "A registered device's driver gets IRP_MJ_SHUTDOWN when the system goes down."
    );
    conforms!("wdm/nf-wdm-iounregistershutdownnotification.md", "Unregistering ends that.");
    let world = World::serving(IRP_MJ_SHUTDOWN, shut_down);
    assert_eq!(world.run(|| io_register_shutdown_notification(Raw::at(world.device))), NtStatus::SUCCESS);
    assert_eq!(world.leaks().len(), 2, "{:?}", world.leaks());
    world.bench.machine().shut_down().unwrap();
    assert_eq!(SHUTDOWNS.get(), 1);
    let _ = world.run(|| io_register_shutdown_notification(Raw::at(world.device)));
    world.run(|| io_unregister_shutdown_notification(Raw::at(world.device)));
    world.bench.machine().shut_down().unwrap();
    assert_eq!(SHUTDOWNS.get(), 1);
}

#[test]
fn a_device_that_is_still_registered_cannot_be_deleted() {
    let world = World::serving(IRP_MJ_SHUTDOWN, shut_down);
    let rule = world.broken(|| {
        let _ = io_register_shutdown_notification(Raw::at(world.device));
        io_delete_device(Raw::at(world.device));
    });
    assert_eq!(rule, Rule::BadState);
}

extern "efiapi" fn tick(_device: usize, context: Raw<u32>) {
    context.write(u32::from(Thread::current().irql()) + 1);
}

#[test]
fn a_device_timer_runs_every_second_at_dispatch_level_until_it_is_stopped() {
    conforms!(
        "wdm/nf-wdm-ioinitializetimer.md",
        "Once started, the routine runs once a second, at DISPATCH_LEVEL, with its device and context."
    );
    let world = World::new();
    let mut seen = 0_u32;
    let context = Raw::of(&raw mut seen);
    world.run(|| {
        let status = io_initialize_timer(Raw::at(world.device), tick as *const () as usize, context.address());
        assert_eq!(status, NtStatus::SUCCESS);
        io_start_timer(Raw::at(world.device));
    });
    let deadline = Instant::now() + Duration::from_secs(10);
    while context.read() == 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(context.read(), 3, "DISPATCH_LEVEL is 2");
    assert_eq!(world.leaks().len(), 2);
    world.run(|| io_stop_timer(Raw::at(world.device)));
    assert_eq!(world.leaks().len(), 1);
}

#[test]
fn a_timer_that_was_not_initialised_cannot_be_started() {
    let world = World::new();
    assert_eq!(world.broken(|| io_start_timer(Raw::at(world.device))), Rule::BadState);
}

#[test]
fn a_device_with_a_running_timer_cannot_be_deleted() {
    let world = World::new();
    let rule = world.broken(|| {
        let _ = io_initialize_timer(Raw::at(world.device), tick as *const () as usize, 0);
        io_start_timer(Raw::at(world.device));
        io_delete_device(Raw::at(world.device));
    });
    assert_eq!(rule, Rule::BadState);
}

#[test]
fn an_open_device_holds_its_drivers_unload_back() {
    conforms!(
        "docs:kernel/unload-routine-environment.md",
        "The unload routine is not called while a device of the driver is referenced."
    );
    let world = World::new();
    let io = || world.bench.machine().inner().nt.io().held_open(world.bench.driver());
    assert_eq!(io(), None);
    let (_, file) = world.connect(DEVICE_NAME);
    assert!(io().unwrap().contains(DEVICE_NAME));
    world.run(|| obf_dereference_object(file));
    assert_eq!(io(), None);
}
