//! Stacks of devices: attaching, passing requests down, completion routines, and what pending means.

use std::cell::Cell;

use nt_types::{IRP_MJ_DEVICE_CONTROL, PVOID, SL_INVOKE_ON_ERROR, SL_INVOKE_ON_SUCCESS};

use super::programs::{complete, location_of, mark_pending};
use super::*;
use crate::conformance::conforms;
use crate::nt::io::attach::{io_attach_device_to_device_stack, io_detach_device, io_get_attached_device_reference};
use crate::nt::io::irp::io_reuse_irp;

const FUNCTION: u32 = 0x0022_0000 | 0x800 << 2;

thread_local! {
    /// The device below, to which the filter sends.
    pub(in crate::nt::io) static BELOW: Cell<usize> = const { Cell::new(0) };
    pub(in crate::nt::io) static KEPT: Cell<usize> = const { Cell::new(0) };
}

/// A filter's device on top of the world's.
pub(in crate::nt::io) fn filtered(lower: programs::Routine, upper: programs::Routine) -> World {
    let world = World::serving(IRP_MJ_DEVICE_CONTROL, lower);
    let driver = crate::machine::Driver::without_image("upper.sys");
    let image = ImageRange { base: 0x20_0000, size: 0x1000, entry: 0x20_0000 };
    let object = DriverObject::create(world.bench.machine().inner(), &driver, image, "Upper").expect("room");
    for major in [IRP_MJ_CREATE, IRP_MJ_CLEANUP, IRP_MJ_CLOSE] {
        routine_slot(Raw::at(object.address()), major).write(Some(skip));
    }
    routine_slot(Raw::at(object.address()), IRP_MJ_DEVICE_CONTROL).write(Some(upper));
    let (status, device) = world.run(|| create_device(&object, "\\Device\\Upper", 0, 0));
    assert_eq!(status, NtStatus::SUCCESS);
    BELOW.set(world.run(|| io_attach_device_to_device_stack(Raw::at(device), Raw::at(world.device))));
    assert_eq!(BELOW.get(), world.device);
    object.entry_returned();
    // Both have to outlive the world's requests.
    std::mem::forget((object, driver));
    world
}

/// `IoSkipCurrentIrpStackLocation`, then on to the device below.
extern "efiapi" fn skip(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    let irp = Raw::of(irp);
    field!(irp, IRP, CurrentLocation).write(field!(irp, IRP, CurrentLocation).read() + 1);
    field!(irp, IRP, CurrentStackLocation).write(location_of(irp).index(1).pointer());
    iof_call_driver(Raw::at(BELOW.get()), irp)
}

/// `IoCopyCurrentIrpStackLocationToNext` with a completion routine, or none.
fn copy_down(irp: Raw<IRP>, routine: nt_types::IO_COMPLETION_ROUTINE) {
    let next = next_location(irp);
    next.write(location_of(irp).read());
    field!(next, IO_STACK_LOCATION, Control).write(0);
    field!(next, IO_STACK_LOCATION, CompletionRoutine).write(routine);
    if routine.is_some() {
        field!(next, IO_STACK_LOCATION, Control).write(SL_INVOKE_ON_SUCCESS | SL_INVOKE_ON_ERROR);
    }
}

extern "efiapi" fn pass_down(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    copy_down(Raw::of(irp), None);
    iof_call_driver(Raw::at(BELOW.get()), Raw::of(irp))
}

pub(in crate::nt::io) extern "efiapi" fn done(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    complete(Raw::of(irp), NtStatus::SUCCESS, 0)
}

pub(in crate::nt::io) extern "efiapi" fn keep(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    mark_pending(Raw::of(irp));
    KEPT.set(irp.addr());
    NtStatus::PENDING
}

/// Sends a control request of a program's: what the dispatch routine returned, and the final status once kept ones are done.
pub(in crate::nt::io) fn control(world: &World) -> Option<(NtStatus, NtStatus)> {
    let program = world.program();
    let device = program.open_device(DEVICE_NAME).unwrap();
    let request = device.start_control(FUNCTION, b"", 0).ok()?;
    if request.returned() == NtStatus::PENDING {
        let _done = world.bench.run(|| complete(Raw::at(KEPT.get()), NtStatus::CANCELLED, 0)).ok()?;
    }
    Some((request.returned(), request.outcome()?.status))
}

#[test]
fn requests_enter_at_the_top_of_the_stack_and_pass_down() {
    conforms!(
        "wdm/nf-wdm-ioattachdevicetodevicestack.md",
        "An attached device becomes the top of the stack; the result is the device that was the top before."
    );
    conforms!(
        "wdm/nf-wdm-ioattachdevicetodevicestack.md",
        "Attaching sets the upper device's StackSize to one more than that of the device below."
    );
    let world = filtered(done, pass_down);
    let top = world.run(|| {
        let top = io_get_attached_device_reference(Raw::at(world.device));
        obf_dereference_object(top);
        top
    });
    assert_ne!(top, world.device);
    assert_eq!(field!(Raw::<DEVICE_OBJECT>::at(top), DEVICE_OBJECT, StackSize).read(), 2);
    assert_eq!(control(&world), Some((NtStatus::SUCCESS, NtStatus::SUCCESS)));
    world.run(|| io_detach_device(Raw::at(world.device)));
    assert_eq!(field!(Raw::<DEVICE_OBJECT>::at(world.device), DEVICE_OBJECT, AttachedDevice).read().addr(), 0);
    assert_eq!(world.broken(|| io_detach_device(Raw::at(world.device))), Rule::BadState);
}

#[test]
fn a_skipped_location_serves_both_drivers() {
    conforms!(
        "wdm/nf-wdm-ioskipcurrentirpstacklocation.md",
        "The next driver gets the same stack location as the one that skipped."
    );
    let world = filtered(keep, skip);
    assert_eq!(control(&world), Some((NtStatus::PENDING, NtStatus::CANCELLED)));
}

#[test]
fn pending_is_propagated_where_no_routine_was_set() {
    conforms!(
        "docs:kernel/implementing-an-iocompletion-routine.md",
        "Without a completion routine, the I/O manager itself carries the pending mark up."
    );
    let world = filtered(keep, pass_down);
    assert_eq!(control(&world), Some((NtStatus::PENDING, NtStatus::CANCELLED)));
}

#[test]
fn a_completion_routine_that_propagates_pending_is_right() {
    extern "efiapi" fn completed(_: *mut DEVICE_OBJECT, irp: *mut IRP, _: PVOID) -> NtStatus {
        if field!(Raw::of(irp), IRP, PendingReturned).read() != 0 {
            mark_pending(Raw::of(irp));
        }
        NtStatus::SUCCESS
    }
    extern "efiapi" fn down(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
        copy_down(Raw::of(irp), Some(completed));
        iof_call_driver(Raw::at(BELOW.get()), Raw::of(irp))
    }
    conforms!(
        "wdm/nf-wdm-iomarkirppending.md",
        "A completion routine calls IoMarkIrpPending when PendingReturned is set."
    );
    let world = filtered(keep, down);
    assert_eq!(control(&world), Some((NtStatus::PENDING, NtStatus::CANCELLED)));
}

#[test]
fn a_completion_routine_that_forgets_pending_is_found() {
    extern "efiapi" fn completed(_: *mut DEVICE_OBJECT, _: *mut IRP, _: PVOID) -> NtStatus {
        NtStatus::SUCCESS
    }
    extern "efiapi" fn down(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
        copy_down(Raw::of(irp), Some(completed));
        iof_call_driver(Raw::at(BELOW.get()), Raw::of(irp))
    }
    conforms!(
        "wdm/nf-wdm-iomarkirppending.md",
        "A completion routine must not drop the mark of a request that was pended below."
    );
    let world = filtered(keep, down);
    assert_eq!(control(&world), None);
    let finding = world.finding();
    assert_eq!((finding.rule, finding.driver.as_str()), (Rule::BadState, "upper.sys"));
    assert!(finding.message.contains("PendingReturned"), "{}", finding.message);
}

#[test]
fn a_request_marked_pending_whose_routine_returns_something_else_is_found() {
    extern "efiapi" fn marked(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
        mark_pending(Raw::of(irp));
        complete(Raw::of(irp), NtStatus::SUCCESS, 0)
    }
    conforms!(
        "wdm/nf-wdm-iomarkirppending.md",
        "After IoMarkIrpPending the dispatch routine returns STATUS_PENDING, even if the request is complete by then."
    );
    let world = World::serving(IRP_MJ_DEVICE_CONTROL, marked);
    assert_eq!(control(&world), None);
    assert!(world.finding().message.contains("IoMarkIrpPending"), "{}", world.finding().message);
}

#[test]
fn pending_without_the_mark_is_found() {
    extern "efiapi" fn unmarked(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
        KEPT.set(irp.addr());
        NtStatus::PENDING
    }
    conforms!(
        "wdm/nf-wdm-iomarkirppending.md",
        "A request that is neither completed nor passed on is marked before STATUS_PENDING is returned."
    );
    let world = World::serving(IRP_MJ_DEVICE_CONTROL, unmarked);
    assert_eq!(control(&world), None);
    assert_eq!(world.finding().rule, Rule::BadState);
}

#[test]
fn a_routine_that_returns_another_status_than_it_completed_with_is_found() {
    extern "efiapi" fn other(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
        let _ = complete(Raw::of(irp), NtStatus::ACCESS_DENIED, 0);
        NtStatus::SUCCESS
    }
    conforms!(
        "docs:kernel/how-to-complete-an-irp-in-a-dispatch-routine.md",
        "A dispatch routine returns the status that it stored in the request it completed."
    );
    let world = World::serving(IRP_MJ_DEVICE_CONTROL, other);
    assert_eq!(control(&world), None);
    assert!(world.finding().message.contains("STATUS_ACCESS_DENIED"), "{}", world.finding().message);
}

#[test]
fn a_completion_routine_can_keep_the_request_and_complete_it_later() {
    extern "efiapi" fn completed(_: *mut DEVICE_OBJECT, _: *mut IRP, _: PVOID) -> NtStatus {
        NtStatus::MORE_PROCESSING_REQUIRED
    }
    extern "efiapi" fn wait_below(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
        let irp = Raw::of(irp);
        copy_down(irp, Some(completed));
        assert_eq!(iof_call_driver(Raw::at(BELOW.get()), irp), NtStatus::SUCCESS);
        complete(irp, NtStatus::DEVICE_NOT_READY, 0)
    }
    conforms!(
        "docs:kernel/implementing-an-iocompletion-routine.md",
        "STATUS_MORE_PROCESSING_REQUIRED stops completion; the driver completes the request again later."
    );
    let world = filtered(done, wait_below);
    assert_eq!(control(&world), Some((NtStatus::DEVICE_NOT_READY, NtStatus::DEVICE_NOT_READY)));
}

#[test]
fn an_irp_is_not_freed_or_reused_while_it_is_under_way() {
    extern "efiapi" fn completed(_: *mut DEVICE_OBJECT, _: *mut IRP, _: PVOID) -> NtStatus {
        NtStatus::MORE_PROCESSING_REQUIRED
    }
    fn sent(world: &World) -> Raw<IRP> {
        let irp = Raw::<IRP>::at(io_allocate_irp(1, 0));
        let location = next_location(irp);
        field!(location, IO_STACK_LOCATION, MajorFunction).write(IRP_MJ_DEVICE_CONTROL);
        field!(location, IO_STACK_LOCATION, CompletionRoutine).write(Some(completed));
        field!(location, IO_STACK_LOCATION, Control).write(0xE0);
        assert_eq!(iof_call_driver(Raw::at(world.device), irp), NtStatus::PENDING);
        irp
    }
    conforms!("wdm/nf-wdm-ioreuseirp.md", "IoReuseIrp makes an own request new, with the status given.");
    let world = World::serving(IRP_MJ_DEVICE_CONTROL, keep);
    world.run(|| {
        let irp = sent(&world);
        let _ = complete(irp, NtStatus::SUCCESS, 0);
        io_reuse_irp(irp, NtStatus::NOT_SUPPORTED);
        assert_eq!(field!(irp, IRP, IoStatus.Status).read(), NtStatus::NOT_SUPPORTED);
        io_free_irp(irp);
    });
    assert_eq!(world.broken(|| io_free_irp(sent(&world))), Rule::BadState);
    let world = World::serving(IRP_MJ_DEVICE_CONTROL, keep);
    assert_eq!(world.broken(|| io_reuse_irp(sent(&world), NtStatus::SUCCESS)), Rule::BadState);
}
