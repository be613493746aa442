//! Cancel routines, cancel-safe queues, remove locks, and requests that drivers build.

use std::cell::RefCell;

use nt_types::{IRP_MJ_DEVICE_CONTROL, IRP_MJ_READ};

use super::programs::{complete, mark_pending};
use super::*;
use crate::conformance::conforms;
use crate::nt::io::build::{io_build_asynchronous_fsd_request, io_build_synchronous_fsd_request};
use crate::nt::io::cancel::swap_routine;
use crate::nt::io::csq::{
    Context, Csq, io_csq_initialize, io_csq_initialize_ex, io_csq_insert_irp_ex, io_csq_remove_irp,
    io_csq_remove_next_irp,
};
use crate::nt::io::remove_lock::{
    io_acquire_remove_lock_ex, io_initialize_remove_lock_ex, io_release_remove_lock_and_wait_ex,
    io_release_remove_lock_ex,
};
use crate::nt::irql::{lower, raise};

const FUNCTION: u32 = 0x0022_0000 | 0x800 << 2;

thread_local! {
    /// The driver's queue of requests, in order.
    static QUEUE: RefCell<Vec<usize>> = const { RefCell::new(Vec::new()) };
    static CSQ: RefCell<Box<[u64; 8]>> = RefCell::new(Box::new([0; 8]));
    /// What the next insertion answers.
    static ANSWER: std::cell::Cell<NtStatus> = const { std::cell::Cell::new(NtStatus::SUCCESS) };
}

fn csq() -> Raw<Csq> {
    CSQ.with_borrow_mut(|words| Raw::at(words.as_mut_ptr().expose_provenance()))
}

extern "efiapi" fn insert(_: usize, irp: usize, _: usize) -> NtStatus {
    if ANSWER.get().is_success() {
        QUEUE.with_borrow_mut(|queue| queue.push(irp));
    }
    ANSWER.get()
}

extern "efiapi" fn remove(_: usize, irp: usize) {
    QUEUE.with_borrow_mut(|queue| queue.retain(|other| *other != irp));
}

extern "efiapi" fn peek(_: usize, after: usize, _: usize) -> usize {
    QUEUE.with_borrow(|queue| {
        let from = queue.iter().position(|irp| *irp == after).map_or(0, |index| index + 1);
        queue.get(from).copied().unwrap_or(0)
    })
}

extern "efiapi" fn acquire(_: usize, irql: Raw<u8>) {
    irql.write(raise(&crate::ddi::Call::enter(), 2));
}

extern "efiapi" fn release(_: usize, irql: u8) {
    lower(&crate::ddi::Call::enter(), irql);
}

extern "efiapi" fn complete_cancelled(_: usize, irp: usize) {
    let _ = complete(Raw::at(irp), NtStatus::CANCELLED, 0);
}

fn initialise_queue() {
    QUEUE.set(Vec::new());
    ANSWER.set(NtStatus::SUCCESS);
    let [insert, remove, peek, acquire, release, complete] = [
        insert as *const () as usize,
        remove as *const () as usize,
        peek as *const () as usize,
        acquire as *const () as usize,
        release as *const () as usize,
        complete_cancelled as *const () as usize,
    ];
    let status = io_csq_initialize_ex(csq(), insert, remove, peek, acquire, release, complete);
    assert_eq!(status, NtStatus::SUCCESS);
}

extern "efiapi" fn enqueue(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    let status = io_csq_insert_irp_ex(csq(), Raw::of(irp), Raw::NULL, 0);
    if status.is_success() { NtStatus::PENDING } else { complete(Raw::of(irp), status, 0) }
}

#[test]
fn a_queued_request_is_taken_out_once_or_cancelled() {
    conforms!("wdm/nf-wdm-iocsqinsertirp.md", "Inserting marks the request pending and makes it cancellable.");
    conforms!(
        "wdm/nf-wdm-iocsqremovenextirp.md",
        "The next request is taken out of the queue with its cancel routine cleared; NULL when there is none."
    );
    let world = World::serving(IRP_MJ_DEVICE_CONTROL, enqueue);
    world.run(initialise_queue);
    let program = world.program();
    let device = program.open_device(DEVICE_NAME).unwrap();
    let first = device.start_control(FUNCTION, b"", 0).unwrap();
    let second = device.start_control(FUNCTION, b"", 0).unwrap();
    assert!(second.cancel(), "the queue's own cancel routine");
    assert_eq!(second.outcome().unwrap().status, NtStatus::CANCELLED);
    world.run(|| {
        let irp = Raw::<IRP>::at(io_csq_remove_next_irp(csq(), 0));
        assert_eq!(field!(irp, IRP, CancelRoutine).cast::<usize>().read(), 0);
        let _ = complete(irp, NtStatus::SUCCESS, 0);
        assert_eq!(io_csq_remove_next_irp(csq(), 0), 0);
    });
    assert_eq!(first.outcome().unwrap().status, NtStatus::SUCCESS);
}

#[test]
fn a_queue_that_refuses_leaves_the_request_with_its_driver() {
    conforms!(
        "wdm/nf-wdm-iocsqinsertirpex.md",
        "IoCsqInsertIrpEx returns what the driver's insertion routine returned; a failure inserts nothing."
    );
    let world = World::serving(IRP_MJ_DEVICE_CONTROL, enqueue);
    world.run(initialise_queue);
    ANSWER.set(NtStatus::DEVICE_BUSY);
    let program = world.program();
    let request = program.open_device(DEVICE_NAME).unwrap().start_control(FUNCTION, b"", 0).unwrap();
    assert_eq!((request.returned(), request.outcome().unwrap().status), (NtStatus::DEVICE_BUSY, NtStatus::DEVICE_BUSY));
}

#[test]
fn a_context_finds_its_request_while_that_is_queued() {
    extern "efiapi" fn with_context(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
        let _ = io_csq_insert_irp_ex(csq(), Raw::of(irp), context(), 0);
        NtStatus::PENDING
    }
    thread_local! {
        static CONTEXT: RefCell<Box<[u64; 3]>> = RefCell::new(Box::new([0; 3]));
    }
    fn context() -> Raw<Context> {
        CONTEXT.with_borrow_mut(|words| Raw::at(words.as_mut_ptr().expose_provenance()))
    }
    conforms!(
        "wdm/nf-wdm-iocsqremoveirp.md",
        "IoCsqRemoveIrp gives the request of a context, or NULL when it has left the queue."
    );
    let world = World::serving(IRP_MJ_DEVICE_CONTROL, with_context);
    world.run(initialise_queue);
    let program = world.program();
    let device = program.open_device(DEVICE_NAME).unwrap();
    let request = device.start_control(FUNCTION, b"", 0).unwrap();
    world.run(|| {
        let irp = io_csq_remove_irp(csq(), context());
        assert_ne!(irp, 0);
        assert_eq!(io_csq_remove_irp(csq(), context()), 0);
        let _ = complete(Raw::at(irp), NtStatus::SUCCESS, 0);
    });
    assert_eq!(request.outcome().unwrap().status, NtStatus::SUCCESS);
    let cancelled = device.start_control(FUNCTION, b"", 0).unwrap();
    assert!(cancelled.cancel());
    assert_eq!(world.run(|| io_csq_remove_irp(csq(), context())), 0);
}

#[test]
fn a_queue_without_all_its_routines_is_found() {
    let world = World::new();
    let rule = world.broken(|| {
        let _ = io_csq_initialize(csq(), 1, 2, 0, 4, 5, 6);
    });
    assert_eq!(rule, Rule::BadArgument);
}

#[test]
fn a_cancel_routine_that_keeps_the_spin_lock_is_found() {
    extern "efiapi" fn keep_lock(_: *mut DEVICE_OBJECT, irp: *mut IRP) {
        // The IRQL goes back, the lock does not.
        crate::thread::Thread::current().set_irql(field!(Raw::of(irp), IRP, CancelIrql).read());
    }
    extern "efiapi" fn keep(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
        mark_pending(Raw::of(irp));
        swap_routine(Raw::of(irp), keep_lock as *const () as usize);
        NtStatus::PENDING
    }
    conforms!("wdm/nc-wdm-driver_cancel.md", "A cancel routine releases the cancel spin lock.");
    let world = World::serving(IRP_MJ_DEVICE_CONTROL, keep);
    let program = world.program();
    let request = program.open_device(DEVICE_NAME).unwrap().start_control(FUNCTION, b"", 0).unwrap();
    request.cancel();
    assert!(world.finding().message.contains("IoReleaseCancelSpinLock"), "{}", world.finding().message);
}

#[test]
fn completing_with_the_cancel_routine_still_set_is_found() {
    extern "efiapi" fn never(_: *mut DEVICE_OBJECT, _: *mut IRP) {}
    extern "efiapi" fn forgetful(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
        swap_routine(Raw::of(irp), never as *const () as usize);
        complete(Raw::of(irp), NtStatus::SUCCESS, 0)
    }
    conforms!(
        "docs:kernel/points-to-consider-when-canceling-irps.md",
        "The cancel routine is reset to NULL before a cancellable request is completed."
    );
    let world = World::serving(IRP_MJ_DEVICE_CONTROL, forgetful);
    assert!(world.program().open_device(DEVICE_NAME).unwrap().control(FUNCTION, b"", 0).is_err());
    assert!(world.finding().message.contains("cancel routine"), "{}", world.finding().message);
}

#[test]
fn a_remove_lock_refuses_after_the_removal_began_and_waits_for_its_holders() {
    conforms!(
        "wdm/nf-wdm-ioacquireremovelock.md",
        "IoAcquireRemoveLock fails with STATUS_DELETE_PENDING once the removal has begun; what failed is not released."
    );
    let world = World::new();
    let mut words = [0_u64; 4];
    let lock = Raw::<u8>::of(words.as_mut_ptr().cast());
    world.run(|| {
        io_initialize_remove_lock_ex(lock, 0, 0, 0, 32);
        assert_eq!(io_acquire_remove_lock_ex(lock, 1, 0, 0, 32), NtStatus::SUCCESS);
        assert_eq!(io_acquire_remove_lock_ex(lock, 2, 0, 0, 32), NtStatus::SUCCESS);
        io_release_remove_lock_ex(lock, 1, 32);
        io_release_remove_lock_and_wait_ex(lock, 2, 32);
        assert_eq!(io_acquire_remove_lock_ex(lock, 3, 0, 0, 32), NtStatus::DELETE_PENDING);
    });
    let rule = world.broken(|| {
        io_initialize_remove_lock_ex(lock, 0, 0, 0, 32);
        io_release_remove_lock_ex(lock, 1, 32);
    });
    assert_eq!(rule, Rule::BadState);
}

extern "efiapi" fn read_of_seven(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    let irp = Raw::of(irp);
    let location = Raw::of(field!(irp, IRP, CurrentStackLocation).read());
    let transfer = field!(location, IO_STACK_LOCATION, Parameters).cast::<nt_types::IoStackTransfer>().read();
    let buffer = field!(irp, IRP, UserBuffer).read().addr();
    Raw::<u64>::at(buffer).write(transfer.ByteOffset.unsigned_abs());
    complete(irp, NtStatus::SUCCESS, transfer.Length as usize)
}

#[test]
fn a_synchronous_fsd_request_sets_its_event_and_status() {
    conforms!(
        "wdm/nf-wdm-iobuildsynchronousfsdrequest.md",
        "The I/O manager completes the request: status block and event are set, the IRP is freed."
    );
    let world = World::serving(IRP_MJ_READ, read_of_seven);
    let (mut data, mut offset, mut outcome) = (0_u64, 7_i64, IO_STATUS_BLOCK::default());
    let mut event = DISPATCHER_HEADER::ZERO;
    let (data, event, outcome) = (Raw::of(&raw mut data), Raw::of(&raw mut event), Raw::of(&raw mut outcome));
    let offset = Raw::of(&raw mut offset);
    let device = Raw::at(world.device);
    world.run(|| {
        ke_initialize_event(event, 0, 0);
        let major = u32::from(IRP_MJ_READ);
        let irp = io_build_synchronous_fsd_request(major, device, data.address(), 8, offset, event, outcome);
        assert_eq!(iof_call_driver(device, Raw::at(irp)), NtStatus::SUCCESS);
    });
    assert_eq!((data.read(), outcome.read().Information), (7, 8));
    assert_eq!(field!(event, DISPATCHER_HEADER, SignalState).read(), 1);
    assert_eq!(world.leaks().len(), 1, "the device and no IRP: {:?}", world.leaks());
}

#[test]
fn an_asynchronous_fsd_request_is_freed_by_its_maker() {
    extern "efiapi" fn free(_: *mut DEVICE_OBJECT, irp: *mut IRP, _: nt_types::PVOID) -> NtStatus {
        io_free_irp(Raw::of(irp));
        NtStatus::MORE_PROCESSING_REQUIRED
    }
    conforms!(
        "wdm/nf-wdm-iobuildasynchronousfsdrequest.md",
        "Its maker sets a completion routine that frees the request with IoFreeIrp."
    );
    let world = World::serving(IRP_MJ_READ, read_of_seven);
    let (mut data, mut offset) = (0_u64, 9_i64);
    let (data, offset) = (Raw::of(&raw mut data), Raw::of(&raw mut offset));
    let device = Raw::at(world.device);
    world.run(|| {
        let major = u32::from(IRP_MJ_READ);
        let irp = io_build_asynchronous_fsd_request(major, device, data.address(), 8, offset, Raw::NULL);
        let irp = Raw::<IRP>::at(irp);
        field!(next_location(irp), IO_STACK_LOCATION, CompletionRoutine).write(Some(free));
        field!(next_location(irp), IO_STACK_LOCATION, Control).write(0xE0);
        assert_eq!(iof_call_driver(device, irp), NtStatus::SUCCESS);
    });
    assert_eq!((data.read(), world.leaks().len()), (9, 1));
}
