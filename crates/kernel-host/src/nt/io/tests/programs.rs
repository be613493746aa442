//! Devices from the side of programs: buffers by every method, rights, cancellation, and the end of a process.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use nt_types::{
    AccessMask, DO_BUFFERED_IO, DO_DIRECT_IO, IRP_MJ_DEVICE_CONTROL, IRP_MJ_READ, IRP_MJ_WRITE, MDL, MdlFlags,
};

use super::*;
use crate::conformance::conforms;
use crate::nt::io::cancel::{io_release_cancel_spin_lock, swap_routine};
use crate::nt::mdl::mm_map_locked_pages;
use crate::process::Process;
use crate::thread::Thread;
use std::sync::Arc;

const FUNCTION: u32 = 0x0022_0000 | 0x800 << 2;
const OUT_DIRECT: u32 = FUNCTION | 2;
/// Needs the right to write.
const WRITE_BUFFERED: u32 = FUNCTION | 2 << 14;

thread_local! {
    /// The request that the driver keeps.
    static KEPT: Cell<usize> = const { Cell::new(0) };
    /// What the driver saw: system buffer, MDL, user buffer.
    static BUFFERS: Cell<[usize; 3]> = const { Cell::new([0; 3]) };
}

pub(in crate::nt::io) fn location_of(irp: Raw<IRP>) -> Raw<IO_STACK_LOCATION> {
    Raw::of(field!(irp, IRP, CurrentStackLocation).read())
}

pub(in crate::nt::io) fn complete(irp: Raw<IRP>, status: NtStatus, information: usize) -> NtStatus {
    field!(irp, IRP, IoStatus).write(IO_STATUS_BLOCK::new(status, information));
    iof_complete_request(irp, 0);
    status
}

pub(in crate::nt::io) fn mark_pending(irp: Raw<IRP>) {
    let control = field!(location_of(irp), IO_STACK_LOCATION, Control);
    control.write(control.read() | 1);
}

/// What the macro `MmGetSystemAddressForMdlSafe` does.
fn system_address(mdl: Raw<MDL>) -> usize {
    let flags = MdlFlags::from_bits_retain(field!(mdl, MDL, MdlFlags).read());
    if flags.intersects(MdlFlags::MAPPED_TO_SYSTEM_VA | MdlFlags::SOURCE_IS_NONPAGED_POOL) {
        return field!(mdl, MDL, MappedSystemVa).read().addr();
    }
    mm_map_locked_pages(mdl, nt_types::KERNEL_MODE)
}

/// Notes the buffers, writes "answer" where output goes, and says that four bytes are valid.
extern "efiapi" fn answer(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    let irp = Raw::of(irp);
    let system = field!(irp, IRP, SystemBuffer).read().addr();
    let mdl = Raw::<MDL>::of(field!(irp, IRP, MdlAddress).read());
    BUFFERS.set([system, mdl.address(), field!(irp, IRP, UserBuffer).read().addr()]);
    let target = match mdl.some() {
        Some(mdl) => system_address(mdl),
        None => system,
    };
    Raw::<u8>::at(target).write_bytes(b"answer");
    complete(irp, NtStatus::SUCCESS, 4)
}

extern "efiapi" fn fail_with_data(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    let irp = Raw::of(irp);
    Raw::<u8>::at(field!(irp, IRP, SystemBuffer).read().addr()).write_bytes(b"answer");
    complete(irp, NtStatus::INVALID_PARAMETER, 6)
}

extern "efiapi" fn too_much(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    complete(Raw::of(irp), NtStatus::SUCCESS, 100)
}

/// Keeps the request, with a cancel routine.
extern "efiapi" fn keep(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    let irp = Raw::of(irp);
    mark_pending(irp);
    KEPT.set(irp.address());
    swap_routine(irp, cancelled as *const () as usize);
    NtStatus::PENDING
}

/// Keeps the request and cannot be cancelled.
extern "efiapi" fn lose(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    mark_pending(Raw::of(irp));
    NtStatus::PENDING
}

extern "efiapi" fn cancelled(_: *mut DEVICE_OBJECT, irp: *mut IRP) {
    let irp = Raw::of(irp);
    io_release_cancel_spin_lock(field!(irp, IRP, CancelIrql).read());
    let _ = complete(irp, NtStatus::CANCELLED, 0);
}

extern "efiapi" fn let_in(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    let irp = Raw::of(irp);
    SEEN.with_borrow_mut(|seen| seen.push((field!(location_of(irp), IO_STACK_LOCATION, MajorFunction).read(), 0)));
    complete(irp, NtStatus::SUCCESS, 0)
}

pub(in crate::nt::io) type Routine = extern "efiapi" fn(*mut DEVICE_OBJECT, *mut IRP) -> NtStatus;

impl World {
    /// A device that lets programs in, with `routine` for `major`.
    pub(in crate::nt::io) fn serving(major: u8, routine: Routine) -> Self {
        let world = Self::new();
        for opening in [IRP_MJ_CREATE, IRP_MJ_CLEANUP, IRP_MJ_CLOSE] {
            routine_slot(Raw::at(world.driver.address()), opening).write(Some(let_in));
        }
        routine_slot(Raw::at(world.driver.address()), major).write(Some(routine));
        world
    }

    pub(in crate::nt::io) fn program(&self) -> Arc<Process> {
        self.bench.machine().process("p.exe").start().expect("room")
    }

    pub(in crate::nt::io) fn set_flags(&self, flags: u32) {
        let slot = field!(Raw::<DEVICE_OBJECT>::at(self.device), DEVICE_OBJECT, Flags);
        slot.write(slot.read() | flags);
    }

    pub(in crate::nt::io) fn finding(&self) -> crate::Finding {
        self.bench.machine().finding().expect("the machine stopped")
    }
}

#[test]
fn a_buffered_request_copies_back_as_many_bytes_as_information_says() {
    conforms!(
        "docs:kernel/buffer-descriptions-for-i-o-control-codes.md",
        "METHOD_BUFFERED uses one system buffer for input and output, of the longer one's length."
    );
    conforms!("wdm/ns-wdm-_io_status_block.md", "Of buffered output, IoStatus.Information bytes reach the caller.");
    let world = World::serving(IRP_MJ_DEVICE_CONTROL, answer);
    let program = world.program();
    let device = program.open_device(DEVICE_NAME).unwrap();
    assert_eq!(device.control(FUNCTION, b"question", 16), Ok(b"answ".to_vec()));
    let [system, mdl, _] = BUFFERS.get();
    assert!(system > crate::process::HIGHEST_USER_ADDRESS && mdl == 0, "a kernel buffer and no MDL");
    let output = program.buffer(&[0xEE; 16]).unwrap();
    let block = device.control_at(FUNCTION, (0, 0), (output.address(), 16)).unwrap();
    assert_eq!((block.Status, block.Information), (NtStatus::SUCCESS, 4));
    assert_eq!(output.read().unwrap()[..6], *b"answ\xEE\xEE", "what lies behind Information is as it was");
}

#[test]
fn the_output_of_a_direct_request_is_behind_an_mdl() {
    conforms!(
        "docs:kernel/buffer-descriptions-for-i-o-control-codes.md",
        "METHOD_OUT_DIRECT describes the output buffer by an MDL and copies the input to a system buffer."
    );
    let world = World::serving(IRP_MJ_DEVICE_CONTROL, answer);
    let program = world.program();
    let device = program.open_device(DEVICE_NAME).unwrap();
    let output = program.buffer(&[0xEE; 16]).unwrap();
    let input = program.buffer(b"in").unwrap();
    let block = device.control_at(OUT_DIRECT, (input.address(), 2), (output.address(), 16)).unwrap();
    assert_eq!(block.Information, 4);
    let [system, mdl, user] = BUFFERS.get();
    assert!(system != 0 && mdl != 0 && user == output.address());
    assert_eq!(output.read().unwrap()[..7], *b"answer\xEE", "the driver writes to the program's pages");
}

#[test]
fn a_neither_request_passes_addresses_and_checks_nothing() {
    conforms!(
        "docs:kernel/buffer-descriptions-for-i-o-control-codes.md",
        "METHOD_NEITHER passes the caller's own addresses: Type3InputBuffer and UserBuffer."
    );
    let world = World::serving(IRP_MJ_DEVICE_CONTROL, note_addresses);
    let program = world.program();
    let device = program.open_device(DEVICE_NAME).unwrap();
    assert!(device.control_at(NEITHER, (0x1234, 5), (0x5678, 6)).is_ok());
    assert_eq!(BUFFERS.get(), [0x1234, 0, 0x5678]);
}

extern "efiapi" fn note_addresses(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    let irp = Raw::of(irp);
    let parameters = field!(location_of(irp), IO_STACK_LOCATION, Parameters).cast::<nt_types::IoStackDeviceIoControl>();
    let input = parameters.read().Type3InputBuffer.addr();
    BUFFERS.set([input, field!(irp, IRP, SystemBuffer).read().addr(), field!(irp, IRP, UserBuffer).read().addr()]);
    complete(irp, NtStatus::SUCCESS, 0)
}

#[test]
fn a_buffer_that_is_not_the_programs_fails_before_the_driver_is_called() {
    conforms!(
        "docs:kernel/using-buffered-i-o.md",
        "The I/O manager checks a program's buffers of buffered requests; the driver sees only the system buffer."
    );
    let world = World::serving(IRP_MJ_DEVICE_CONTROL, answer);
    let program = world.program();
    let device = program.open_device(DEVICE_NAME).unwrap();
    BUFFERS.set([7; 3]);
    let violation = NtStatus::ACCESS_VIOLATION;
    assert_eq!(device.control_at(FUNCTION, (0x1234, 5), (0, 0)).err(), Some(violation));
    assert_eq!(device.control_at(FUNCTION, (0, 0), (0x1234, 5)).err(), Some(violation));
    assert_eq!(device.control_at(OUT_DIRECT, (0, 0), (usize::MAX - 1, 5)).err(), Some(violation));
    assert_eq!(BUFFERS.get(), [7; 3]);
}

#[test]
fn a_failed_request_copies_nothing_back() {
    let world = World::serving(IRP_MJ_DEVICE_CONTROL, fail_with_data);
    let program = world.program();
    let device = program.open_device(DEVICE_NAME).unwrap();
    let output = program.buffer(&[0xEE; 16]).unwrap();
    let block = device.control_at(FUNCTION, (0, 0), (output.address(), 16)).unwrap();
    assert_eq!((block.Status, block.Information), (NtStatus::INVALID_PARAMETER, 6));
    assert_eq!(output.read().unwrap(), [0xEE; 16]);
}

#[test]
fn more_information_than_there_is_buffer_is_found() {
    let world = World::serving(IRP_MJ_DEVICE_CONTROL, too_much);
    let program = world.program();
    let device = program.open_device(DEVICE_NAME).unwrap();
    assert!(device.control(FUNCTION, b"", 16).is_err());
    let finding = world.finding();
    assert_eq!(finding.rule, Rule::BadArgument);
    assert!(finding.message.contains("Information = 100"), "{}", finding.message);
}

#[test]
fn a_code_that_wants_a_right_the_handle_lacks_is_refused() {
    conforms!(
        "docs:kernel/defining-i-o-control-codes.md",
        "A control code with FILE_WRITE_ACCESS is only sent for a handle opened with the right to write."
    );
    let world = World::serving(IRP_MJ_DEVICE_CONTROL, answer);
    let program = world.program();
    let reader = program.open_device_with(DEVICE_NAME, AccessMask::GENERIC_READ).unwrap();
    assert_eq!(reader.control(WRITE_BUFFERED, b"", 8), Err(NtStatus::ACCESS_DENIED));
    assert_eq!(reader.write(0, b"x"), Err(NtStatus::ACCESS_DENIED));
    let writer = program.open_device(DEVICE_NAME).unwrap();
    assert_eq!(writer.control(WRITE_BUFFERED, b"", 8), Ok(b"answ".to_vec()));
}

#[test]
fn reads_and_writes_are_buffered_as_the_devices_flags_say() {
    conforms!(
        "docs:kernel/methods-for-accessing-data-buffers.md",
        "DO_BUFFERED_IO gives reads a system buffer, DO_DIRECT_IO an MDL, neither the caller's address."
    );
    let world = World::serving(IRP_MJ_READ, answer);
    world.set_flags(DO_BUFFERED_IO);
    let program = world.program();
    assert_eq!(program.open_device(DEVICE_NAME).unwrap().read(0, 8), Ok(b"answ".to_vec()));
    assert!(BUFFERS.get()[0] != 0 && BUFFERS.get()[1] == 0);

    let world = World::serving(IRP_MJ_READ, answer);
    world.set_flags(DO_DIRECT_IO);
    let program = world.program();
    assert_eq!(program.open_device(DEVICE_NAME).unwrap().read(0, 8), Ok(b"answ".to_vec()));
    assert!(BUFFERS.get()[0] == 0 && BUFFERS.get()[1] != 0);

    let world = World::serving(IRP_MJ_READ, neither);
    let program = world.program();
    assert_eq!(program.open_device(DEVICE_NAME).unwrap().read(0, 8), Ok(b"answ".to_vec()));
    assert!(BUFFERS.get()[2] != 0);
}

extern "efiapi" fn neither(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    let irp = Raw::of(irp);
    let user = field!(irp, IRP, UserBuffer).read().addr();
    BUFFERS.set([0, 0, user]);
    Raw::<u8>::at(user).write_bytes(b"answer");
    complete(irp, NtStatus::SUCCESS, 4)
}

#[test]
fn a_write_arrives_in_the_system_buffer() {
    extern "efiapi" fn look(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
        let irp = Raw::of(irp);
        let bytes = Raw::<u8>::at(field!(irp, IRP, SystemBuffer).read().addr()).read_bytes(4);
        complete(irp, if bytes == b"data" { NtStatus::SUCCESS } else { NtStatus::DATA_ERROR }, 4)
    }
    let world = World::serving(IRP_MJ_WRITE, look);
    world.set_flags(DO_BUFFERED_IO);
    assert_eq!(world.program().open_device(DEVICE_NAME).unwrap().write(0, b"data"), Ok(4));
}

#[test]
fn a_kept_request_is_cancelled_through_its_cancel_routine() {
    conforms!(
        "wdm/nf-wdm-iocancelirp.md",
        "IoCancelIrp calls the cancel routine, with the cancel spin lock held, and is TRUE when there was one."
    );
    let world = World::serving(IRP_MJ_DEVICE_CONTROL, keep);
    let program = world.program();
    let device = program.open_device(DEVICE_NAME).unwrap();
    let request = device.start_control(FUNCTION, b"", 8).unwrap();
    assert_eq!(request.returned(), NtStatus::PENDING);
    assert_eq!(request.wait(Duration::from_millis(1)), None);
    assert!(request.cancel());
    assert_eq!(request.outcome().unwrap().status, NtStatus::CANCELLED);
    assert!(!request.cancel(), "it is complete");
}

#[test]
fn cancelling_by_file_reaches_all_its_requests() {
    let world = World::serving(IRP_MJ_DEVICE_CONTROL, keep);
    let program = world.program();
    let (one, two) = (program.open_device(DEVICE_NAME).unwrap(), program.open_device(DEVICE_NAME).unwrap());
    let requests = [0, 1].map(|_| one.start_control(FUNCTION, b"", 8).unwrap());
    let other = two.start_control(FUNCTION, b"", 8).unwrap();
    assert_eq!(one.cancel(), 2);
    assert!(requests.iter().all(|request| request.outcome().is_some()) && other.outcome().is_none());
    assert_eq!(two.cancel(), 1);
}

#[test]
fn a_cleanup_comes_with_the_handle_and_the_close_after_the_last_request() {
    conforms!(
        "docs:kernel/irp-mj-cleanup.md",
        "IRP_MJ_CLEANUP is sent when the last handle is closed, though requests may be outstanding."
    );
    conforms!(
        "docs:kernel/irp-mj-close.md",
        "IRP_MJ_CLOSE is sent when no references are left and no requests are outstanding."
    );
    let world = World::serving(IRP_MJ_DEVICE_CONTROL, keep);
    let program = world.program();
    let device = program.open_device(DEVICE_NAME).unwrap();
    let request = device.start_control(FUNCTION, b"", 8).unwrap();
    seen();
    drop(device);
    assert_eq!(seen(), [IRP_MJ_CLEANUP]);
    assert!(request.cancel());
    assert_eq!(seen(), [IRP_MJ_CLOSE]);
}

#[test]
fn who_waits_for_a_request_completed_at_dispatch_level_finds_its_file_closed() {
    static CLOSED: AtomicBool = AtomicBool::new(false);
    extern "efiapi" fn close(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
        std::thread::sleep(Duration::from_millis(20));
        CLOSED.store(true, Ordering::Release);
        complete(Raw::of(irp), NtStatus::SUCCESS, 0)
    }
    let world = World::serving(IRP_MJ_DEVICE_CONTROL, keep);
    routine_slot(Raw::at(world.driver.address()), IRP_MJ_CLOSE).write(Some(close));
    let program = world.program();
    let device = program.open_device(DEVICE_NAME).unwrap();
    let request = device.start_control(FUNCTION, b"", 0).unwrap();
    drop(device);
    let completed = world.bench.run(|| {
        let irp = Raw::at(KEPT.get());
        Thread::current().set_irql(2);
        swap_routine(irp, 0);
        let status = complete(irp, NtStatus::SUCCESS, 0);
        Thread::current().set_irql(0);
        status
    });
    assert_eq!(completed.unwrap(), NtStatus::SUCCESS);
    assert!(request.wait(Duration::from_secs(5)).is_some());
    assert!(CLOSED.load(Ordering::Acquire), "the close came before the outcome was told");
}

#[test]
fn a_process_that_ends_cancels_its_requests_and_closes_its_handles() {
    conforms!(
        "docs:kernel/introduction-to-cancel-routines.md",
        "Requests of a thread that ends are cancelled; the driver completes them with STATUS_CANCELLED."
    );
    let world = World::serving(IRP_MJ_DEVICE_CONTROL, keep);
    let program = world.program();
    let device = program.open_device(DEVICE_NAME).unwrap();
    let request = device.start_control(FUNCTION, b"", 8).unwrap();
    seen();
    program.terminate();
    assert_eq!(seen(), [IRP_MJ_CLEANUP, IRP_MJ_CLOSE]);
    assert_eq!(request.sent_status(), Some(NtStatus::CANCELLED));
}

impl crate::PendingRequest {
    /// Final status, also when the program's memory is gone.
    fn sent_status(&self) -> Option<NtStatus> {
        self.outcome().map(|outcome| outcome.status)
    }
}

#[test]
fn a_request_that_outlives_its_process_is_found() {
    let world = World::serving(IRP_MJ_DEVICE_CONTROL, lose);
    let program = world.program();
    let device = program.open_device(DEVICE_NAME).unwrap();
    let _request = device.start_control(FUNCTION, b"", 8).unwrap();
    program.terminate();
    let finding = world.finding();
    assert_eq!((finding.rule, finding.call.as_str()), (Rule::BadState, "IRP_MJ_DEVICE_CONTROL"));
    assert!(finding.message.contains("cancel routine"), "{}", finding.message);
}

#[test]
fn direct_i_o_is_to_the_pages_of_the_program() {
    /// Writes through the MDL and looks with the program's eyes, and the other way round.
    extern "efiapi" fn converse(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
        let irp = Raw::of(irp);
        let mdl = Raw::<MDL>::of(field!(irp, IRP, MdlAddress).read());
        let users = field!(mdl, MDL, StartVa).read().addr() + field!(mdl, MDL, ByteOffset).read() as usize;
        let (shared, program) = (Raw::<u8>::at(system_address(mdl)), Thread::current().process().unwrap());
        shared.write(1);
        let seen = program.memory().read_vec(users, 1);
        program.memory().write(users, &[2]).unwrap();
        let good = (seen, shared.read()) == (Ok(vec![1]), 2) && shared.address() != users;
        // The other page, too.
        shared.index(4096).write(7);
        complete(irp, if good { NtStatus::SUCCESS } else { NtStatus::UNSUCCESSFUL }, 5000)
    }
    conforms!(
        "docs:kernel/using-direct-i-o.md",
        "For direct I/O the I/O manager locks the user's buffer and describes its pages in an MDL: nothing is copied."
    );
    let world = World::serving(IRP_MJ_READ, converse);
    world.set_flags(DO_DIRECT_IO);
    let answer = world.program().open_device(DEVICE_NAME).unwrap().read(0, 5000).unwrap();
    assert_eq!((answer.len(), answer[0], answer[4096]), (5000, 2, 7));
    assert!(world.bench.machine().inner().nt.mappings().leaks(world.bench.driver()).is_empty(), "unmapped at the end");
}

#[test]
fn an_mdl_of_a_request_is_locked() {
    extern "efiapi" fn look(_: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
        let irp = Raw::of(irp);
        let mdl = Raw::<MDL>::of(field!(irp, IRP, MdlAddress).read());
        let flags = MdlFlags::from_bits_retain(field!(mdl, MDL, MdlFlags).read());
        let good = flags.contains(MdlFlags::PAGES_LOCKED) && field!(mdl, MDL, ByteCount).read() == 16;
        complete(irp, if good { NtStatus::SUCCESS } else { NtStatus::UNSUCCESSFUL }, 0)
    }
    let world = World::serving(IRP_MJ_DEVICE_CONTROL, look);
    assert!(world.program().open_device(DEVICE_NAME).unwrap().control(OUT_DIRECT, b"", 16).is_ok());
}

#[test]
fn a_win32_name_is_one_of_the_dos_devices() {
    let world = World::serving(IRP_MJ_DEVICE_CONTROL, answer);
    let made = world
        .run(|| string("\\??\\Tester", |link| string(DEVICE_NAME, |target| io_create_symbolic_link(link, target))));
    assert_eq!(made, NtStatus::SUCCESS);
    let device = world.program().open_device(r"\\.\Tester").unwrap();
    assert_eq!(device.control(FUNCTION, b"", 8), Ok(b"answ".to_vec()));
}
