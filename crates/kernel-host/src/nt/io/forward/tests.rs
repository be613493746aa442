//! A driver above the world's own, which passes its requests on in each of these ways.

use std::cell::Cell;

use nt_types::IRP_MJ_DEVICE_CONTROL;

use super::*;
use crate::conformance::conforms;
use crate::nt::io::request::iof_call_driver;
use crate::nt::io::tests::programs::{complete as answer, location_of, mark_pending};
use crate::nt::io::tests::stacks::{BELOW, KEPT, control, done, filtered, keep};

thread_local! {
    static SEEN: Cell<[u32; 2]> = const { Cell::new([0; 2]) };
}

/// Waits for the driver below, and completes the request with a status of its own.
extern "efiapi" fn forward(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    let irp = Raw::of(irp);
    let before = location_of(irp);
    let sent = io_forward_irp_synchronously(Raw::at(BELOW.get()), irp);
    SEEN.set([sent.into(), u32::from(before == location_of(irp))]);
    answer(irp, NtStatus::ACCESS_DENIED, 0)
}

#[test]
fn a_forwarded_request_comes_back_to_its_sender() {
    conforms!(
        "wdm/nf-wdm-ioforwardirpsynchronously.md",
        "TRUE is returned when the driver below has completed the request, which is then still the sender's."
    );
    let world = filtered(done, forward);
    assert_eq!(control(&world), Some((NtStatus::ACCESS_DENIED, NtStatus::ACCESS_DENIED)));
    assert_eq!(SEEN.get(), [1, 1]);
}

/// Completes the request on another thread, a little later.
extern "efiapi" fn done_later(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    mark_pending(Raw::of(irp));
    let (irp, machine) = (irp.addr(), Arc::clone(Thread::current().machine()));
    let driver = Thread::current().entry().map(|entry| entry.driver);
    std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(20));
        Thread::enter(&machine, |thread| {
            let driver = driver.expect("a dispatch routine was entered");
            thread.call_driver(&driver, "Test", 0, || answer(Raw::at(irp), NtStatus::SUCCESS, 0)).map(drop)
        })
    });
    NtStatus::PENDING
}

#[test]
fn a_sender_waits_for_a_request_that_is_pended() {
    conforms!("wdm/nf-wdm-ioforwardirpsynchronously.md", "The routine waits until the driver has completed the IRP.");
    let world = filtered(done_later, forward);
    assert_eq!(control(&world), Some((NtStatus::ACCESS_DENIED, NtStatus::ACCESS_DENIED)));
}

extern "efiapi" fn forward_without_room(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    let irp = Raw::of(irp);
    SEEN.set([io_forward_irp_synchronously(Raw::at(BELOW.get()), irp).into(), 7]);
    answer(irp, NtStatus::SUCCESS, 0)
}

#[test]
fn a_request_without_a_location_left_is_not_forwarded() {
    conforms!("wdm/nf-wdm-ioforwardirpsynchronously.md", "FALSE is returned when there is no next stack location.");
    let world = filtered(forward_without_room, done);
    SEEN.set([9; 2]);
    let below = Raw::<DEVICE_OBJECT>::at(world.device);
    // The upper device is taken away, so that the request has one location only, the lower driver's.
    world.run(|| crate::nt::io::attach::io_detach_device(below));
    assert_eq!(control(&world), Some((NtStatus::SUCCESS, NtStatus::SUCCESS)));
    assert_eq!(SEEN.get(), [0, 7]);
}

extern "efiapi" fn count(_: *mut DEVICE_OBJECT, _irp: *mut IRP, context: PVOID) -> NtStatus {
    SEEN.set([SEEN.get()[0] + context.addr() as u32, 0]);
    NtStatus::SUCCESS
}

extern "efiapi" fn with_routine(device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    let irp = Raw::of(irp);
    next_location(irp).write(location_of(irp).read());
    // The device's own driver calls, as far as the world's bench can tell.
    let ours = if SEEN.get()[1] == 0 { Raw::of(device) } else { Raw::at(BELOW.get()) };
    let status = io_set_completion_routine_ex(ours, irp, Some(count), Raw::<u8>::at(5).pointer().cast(), 1, 0, 0);
    assert_eq!(status, NtStatus::SUCCESS);
    iof_call_driver(Raw::at(BELOW.get()), irp)
}

#[test]
fn a_completion_routine_is_set_for_the_outcomes_that_are_asked_for() {
    conforms!(
        "wdm/nf-wdm-iosetcompletionroutineex.md",
        "The routine is called for a success, an error or a cancelled request as the three flags say."
    );
    SEEN.set([0, 0]);
    let world = filtered(done, with_routine);
    assert_eq!(control(&world), Some((NtStatus::SUCCESS, NtStatus::SUCCESS)));
    assert_eq!(SEEN.get(), [5, 0]);
    // It is kept, and then completed as cancelled: no success.
    let world = filtered(keep, with_routine);
    SEEN.set([0, 0]);
    assert_eq!(control(&world), Some((NtStatus::PENDING, NtStatus::CANCELLED)));
    assert_eq!(SEEN.get(), [0, 0]);
    assert_ne!(KEPT.get(), 0);
}

#[test]
fn a_completion_routine_belongs_to_the_drivers_own_device() {
    conforms!(
        "wdm/nf-wdm-iosetcompletionroutineex.md",
        "The routine has to belong to the driver that owns the device object."
    );
    let world = filtered(done, with_routine);
    SEEN.set([0, 1]);
    assert_eq!(control(&world), None);
    assert_eq!(world.bench.machine().finding().unwrap().rule, Rule::BadArgument);
}

/// Splits a request into two, and leaves its completion to their end.
extern "efiapi" fn split(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    let master = Raw::of(irp);
    mark_pending(master);
    field!(master, IRP, SystemBuffer).cast::<i32>().write(2);
    field!(master, IRP, IoStatus.Status).write(NtStatus::SUCCESS);
    let parts = [(); 2].map(|()| Raw::<IRP>::at(io_make_associated_irp(master, 1)));
    for part in parts {
        assert_eq!(field!(part, IRP, SystemBuffer).read().addr(), master.address());
        let next = next_location(part);
        field!(next, IO_STACK_LOCATION, MajorFunction).write(IRP_MJ_DEVICE_CONTROL);
        let _status = iof_call_driver(Raw::at(BELOW.get()), part);
    }
    NtStatus::PENDING
}

#[test]
fn a_master_request_is_complete_when_its_associated_ones_are() {
    conforms!(
        "ntddk/nf-ntddk-iomakeassociatedirp.md",
        "The I/O manager completes the master when lower drivers have completed all associated requests."
    );
    let world = filtered(done, split);
    let program = world.program();
    let device = program.open_device(crate::nt::io::tests::DEVICE_NAME).unwrap();
    let request = device.start_control(0x0022_0000 | 0x800 << 2, b"", 0).unwrap();
    assert_eq!(request.returned(), NtStatus::PENDING);
    assert_eq!(request.outcome().unwrap().status, NtStatus::SUCCESS);
    assert!(!world.leaks().iter().any(|leak| leak.contains("IRP")), "{:?}", world.leaks());
}
