//! One test per documented rule of devices, opens and requests. The driver is this file: its dispatch routines call the
//! exports as a driver's would.

use std::cell::RefCell;

use nt_types::{
    DEVICE_OBJECT, DISPATCHER_HEADER, IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP, IRP_MJ_CLEANUP, IRP_MJ_CLOSE,
    IRP_MJ_CREATE, IRP_MJ_INTERNAL_DEVICE_CONTROL, NtStatus, UNICODE_STRING, USER_MODE,
};

use super::build::io_build_device_io_control_request;
use super::device::{io_create_device, io_create_symbolic_link, io_delete_device, io_delete_symbolic_link};
use super::driver_object::{DriverObject, ImageRange};
use super::irp::{io_allocate_irp, io_free_irp, next_location};
use super::open::io_get_device_object_pointer;
use super::request::{iof_call_driver, iof_complete_request, routine_slot};
use crate::conformance::conforms;
use crate::ddi::testing::Bench;
use crate::finding::Rule;
use crate::nt::events::ke_initialize_event;
use crate::nt::ob_exports::obf_dereference_object;
use crate::nt::raw::{Raw, field};

mod cancelling;
mod more_files;
pub(in crate::nt::io) mod programs;
pub(in crate::nt::io) mod stacks;
mod unloading;
mod zw_files;

pub(in crate::nt::io) const DEVICE_NAME: &str = "\\Device\\Test";
/// Control codes whose methods are `METHOD_BUFFERED` and `METHOD_NEITHER`.
const BUFFERED: u32 = 0x0022_2000;
const NEITHER: u32 = 0x0022_2003;

thread_local! {
    /// Major functions and requestor modes that the driver saw.
    static SEEN: RefCell<Vec<(u8, i8)>> = const { RefCell::new(Vec::new()) };
}

pub(in crate::nt::io) fn seen() -> Vec<u8> {
    SEEN.with_borrow_mut(std::mem::take).into_iter().map(|(major, _)| major).collect()
}

/// Completes everything; refuses opens from user mode; answers control requests with the input doubled.
extern "efiapi" fn serve(_device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    let irp = Raw::of(irp);
    let location = Raw::of(field!(irp, IRP, CurrentStackLocation).read());
    let major = field!(location, IO_STACK_LOCATION, MajorFunction).read();
    let mode = field!(irp, IRP, RequestorMode).read();
    SEEN.with_borrow_mut(|seen| seen.push((major, mode)));
    let (mut status, mut information) = (NtStatus::SUCCESS, 0);
    if major == IRP_MJ_CREATE && mode == USER_MODE {
        status = NtStatus::ACCESS_DENIED;
    }
    if major == IRP_MJ_INTERNAL_DEVICE_CONTROL {
        let buffer = Raw::<u32>::at(field!(irp, IRP, SystemBuffer).read().addr());
        buffer.write(buffer.read() * 2);
        information = 4;
    }
    field!(irp, IRP, IoStatus).write(IO_STATUS_BLOCK::new(status, information));
    iof_complete_request(irp, 0);
    status
}

/// Returns without completing.
extern "efiapi" fn forget(_device: *mut DEVICE_OBJECT, _irp: *mut IRP) -> NtStatus {
    NtStatus::SUCCESS
}

pub(in crate::nt::io) struct World {
    pub(in crate::nt::io) bench: Bench,
    pub(in crate::nt::io) driver: DriverObject,
    pub(in crate::nt::io) device: usize,
}

pub(in crate::nt::io) fn string<R>(text: &str, body: impl FnOnce(Raw<UNICODE_STRING>) -> R) -> R {
    let units: Vec<u16> = text.encode_utf16().collect();
    let mut string = UNICODE_STRING::from_utf16(&units).expect("short");
    body(Raw::of(&raw mut string))
}

pub(in crate::nt::io) fn create_device(
    driver: &DriverObject,
    name: &str,
    extension: u32,
    exclusive: u8,
) -> (NtStatus, usize) {
    let mut device = 0;
    let out = Raw::of(&raw mut device);
    let status =
        string(name, |name| io_create_device(Raw::at(driver.address()), extension, name, 0x22, 0, exclusive, out));
    (status, out.read())
}

impl World {
    /// A driver with one device that serves, ready to be opened.
    pub(in crate::nt::io) fn new() -> Self {
        let world = Self::initialising(0);
        world.driver.entry_returned();
        world
    }

    fn initialising(exclusive: u8) -> Self {
        seen();
        let bench = Bench::new();
        let image = ImageRange { base: 0x10_0000, size: 0x1000, entry: 0x10_0000 };
        let driver = DriverObject::create(bench.machine().inner(), bench.driver(), image, "Test").expect("room");
        for major in [IRP_MJ_CREATE, IRP_MJ_CLEANUP, IRP_MJ_CLOSE, IRP_MJ_INTERNAL_DEVICE_CONTROL] {
            routine_slot(Raw::at(driver.address()), major).write(Some(serve));
        }
        let (status, device) = bench.run(|| create_device(&driver, DEVICE_NAME, 16, exclusive)).unwrap();
        assert_eq!(status, NtStatus::SUCCESS);
        Self { bench, driver, device }
    }

    /// Runs driver code; a broken rule fails the test.
    pub(in crate::nt::io) fn run<R>(&self, body: impl FnOnce() -> R) -> R {
        self.bench.run(body).expect("no rule is broken")
    }

    pub(in crate::nt::io) fn broken(&self, body: impl FnOnce()) -> Rule {
        self.bench.run(body).expect_err("a rule is broken").0.rule
    }

    /// Opens the device as a driver does: status, file object.
    pub(in crate::nt::io) fn connect(&self, name: &str) -> (NtStatus, usize) {
        let (mut file, mut device) = (0, 0);
        let outs = (Raw::of(&raw mut file), Raw::of(&raw mut device));
        let status = self.run(|| string(name, |name| io_get_device_object_pointer(name, 1, outs.0, outs.1)));
        if status.is_success() {
            assert_eq!(outs.1.read(), self.device);
        }
        (status, outs.0.read())
    }

    /// Sends a control request with a four-byte buffer both ways: status of the call, outcome, output, event.
    fn control(&self, code: u32, input: u32) -> (NtStatus, IO_STATUS_BLOCK, u32, i32) {
        let (mut data, mut outcome) = (input, IO_STATUS_BLOCK::default());
        let mut event = DISPATCHER_HEADER::ZERO;
        let buffer = Raw::of(&raw mut data);
        let (event, outcome) = (Raw::of(&raw mut event), Raw::of(&raw mut outcome));
        let status = self.run(|| {
            ke_initialize_event(event, 0, 0);
            let (device, address) = (Raw::at(self.device), buffer.address());
            let irp = io_build_device_io_control_request(code, device, address, 4, address, 4, 1, event, outcome);
            iof_call_driver(device, Raw::at(irp))
        });
        (status, outcome.read(), buffer.read(), field!(event, DISPATCHER_HEADER, SignalState).read())
    }

    pub(in crate::nt::io) fn leaks(&self) -> Vec<String> {
        let leaks = self.bench.machine().inner().nt.io().leaks(self.bench.driver());
        leaks.into_iter().map(|leak| leak.detail).collect()
    }
}

#[test]
fn a_device_object_has_its_extension_zeroed_behind_it_and_is_in_the_drivers_chain() {
    conforms!("wdm/nf-wdm-iocreatedevice.md", "The device extension is zeroed.");
    let world = World::new();
    let device = Raw::<DEVICE_OBJECT>::at(world.device);
    let extension = field!(device, DEVICE_OBJECT, DeviceExtension).read().addr();
    assert_eq!(extension, world.device + size_of::<DEVICE_OBJECT>());
    assert_eq!(Raw::<u64>::at(extension).read(), 0);
    let driver = Raw::<nt_types::DRIVER_OBJECT>::at(world.driver.address());
    assert_eq!(field!(driver, nt_types::DRIVER_OBJECT, DeviceObject).read().addr(), world.device);
    assert_eq!(field!(device, DEVICE_OBJECT, Flags).read() & 0xC0, 0x40, "named, not initialising any more");
}

#[test]
fn a_second_device_of_the_same_name_collides() {
    conforms!("wdm/nf-wdm-iocreatedevice.md", "STATUS_OBJECT_NAME_COLLISION is returned for a name that is in use.");
    let world = World::new();
    let (status, device) = world.run(|| create_device(&world.driver, "\\device\\TEST", 0, 0));
    assert_eq!((status, device), (NtStatus::OBJECT_NAME_COLLISION, 0));
}

#[test]
fn a_device_that_is_being_initialised_cannot_be_opened() {
    let world = World::initialising(0);
    assert_eq!(world.connect(DEVICE_NAME).0, NtStatus::NO_SUCH_DEVICE);
    world.driver.entry_returned();
    assert_eq!(world.connect(DEVICE_NAME).0, NtStatus::SUCCESS);
}

#[test]
fn a_kernel_open_is_create_and_cleanup_and_the_last_reference_is_close() {
    conforms!(
        "wdm/nf-wdm-iogetdeviceobjectpointer.md",
        "The device goes with the reference to the file object that is returned beside it."
    );
    let world = World::new();
    let (status, file) = world.connect(DEVICE_NAME);
    assert_eq!((status, seen()), (NtStatus::SUCCESS, vec![IRP_MJ_CREATE, IRP_MJ_CLEANUP]));
    world.run(|| obf_dereference_object(file));
    assert_eq!(seen(), [IRP_MJ_CLOSE]);
}

#[test]
fn opens_of_missing_names_say_what_is_missing() {
    let world = World::new();
    assert_eq!(world.connect("\\Device\\Other").0, NtStatus::OBJECT_NAME_NOT_FOUND);
    assert_eq!(world.connect("\\Nowhere\\Other").0, NtStatus::OBJECT_PATH_NOT_FOUND);
    assert_eq!(world.connect("Device").0, NtStatus::OBJECT_PATH_SYNTAX_BAD);
}

#[test]
fn a_program_reaches_the_device_through_a_symbolic_link_and_the_driver_can_refuse_it() {
    conforms!("wdm/nf-wdm-iocreatesymboliclink.md", "The link makes the device reachable by a name that programs see.");
    conforms!("wdm/nf-wdm-iodeletesymboliclink.md", "The name leads nowhere after its link was deleted.");
    let world = World::new();
    let link = |body: fn(Raw<UNICODE_STRING>, Raw<UNICODE_STRING>) -> NtStatus| {
        world.run(|| string("\\DosDevices\\TestLink", |link| string(DEVICE_NAME, |target| body(link, target))))
    };
    assert_eq!(link(|link, target| io_create_symbolic_link(link, target)), NtStatus::SUCCESS);
    assert_eq!(link(|link, target| io_create_symbolic_link(link, target)), NtStatus::OBJECT_NAME_COLLISION);
    let program = world.bench.machine().process("p.exe").start().expect("room");
    assert_eq!(program.open("\\??\\TestLink", 1), Err(NtStatus::ACCESS_DENIED));
    assert_eq!(SEEN.with_borrow(Clone::clone), [(IRP_MJ_CREATE, USER_MODE)], "no close for a refused open");
    assert_eq!(link(|link, _| io_delete_symbolic_link(link)), NtStatus::SUCCESS);
    assert_eq!(program.open("\\??\\TestLink", 1), Err(NtStatus::OBJECT_NAME_NOT_FOUND));
}

#[test]
fn an_exclusive_device_is_opened_once() {
    conforms!("wdm/nf-wdm-iocreatedevice.md", "An exclusive device has one open at a time.");
    let world = World::initialising(1);
    world.driver.entry_returned();
    let (_, file) = world.connect(DEVICE_NAME);
    assert_eq!(world.connect(DEVICE_NAME).0, NtStatus::ACCESS_DENIED);
    world.run(|| obf_dereference_object(file));
    assert_eq!(world.connect(DEVICE_NAME).0, NtStatus::SUCCESS);
}

#[test]
fn a_buffered_control_request_comes_back_with_output_status_and_event() {
    conforms!(
        "wdm/nf-wdm-iobuilddeviceiocontrolrequest.md",
        "The event is signalled when the lower driver has completed the request, whose output is copied back."
    );
    let (status, outcome, output, event) = World::new().control(BUFFERED, 21);
    assert_eq!(status, NtStatus::SUCCESS);
    assert_eq!((outcome.Status, outcome.Information, output, event), (NtStatus::SUCCESS, 4, 42, 1));
}

#[test]
fn a_request_that_the_driver_has_no_routine_for_is_invalid() {
    let world = World::new();
    let slot = routine_slot(Raw::at(world.driver.address()), IRP_MJ_INTERNAL_DEVICE_CONTROL);
    slot.write(routine_slot(Raw::at(world.driver.address()), 3).read());
    let (status, outcome, _, event) = world.control(NEITHER, 1);
    let invalid = NtStatus::INVALID_DEVICE_REQUEST;
    assert_eq!((status, outcome.Status, event), (invalid, invalid, 1));
}

#[test]
fn an_irp_completed_twice_is_found() {
    extern "efiapi" fn twice(device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
        let status = serve(device, irp);
        iof_complete_request(Raw::of(irp), 0);
        status
    }
    conforms!("docs:kernel/additional-errors-in-handling-irps.md", "A request must not be completed twice.");
    let world = World::new();
    routine_slot(Raw::at(world.driver.address()), IRP_MJ_CREATE).write(Some(twice));
    let rule = world.broken(|| {
        let mut out = 0;
        let out = Raw::of(&raw mut out);
        let _ = string(DEVICE_NAME, |name| io_get_device_object_pointer(name, 1, out, out));
    });
    assert_eq!(rule, Rule::BadState);
}

#[test]
fn a_routine_that_neither_completes_nor_pends_is_found() {
    conforms!(
        "wdm/nf-wdm-iomarkirppending.md",
        "A dispatch routine completes the request, passes it on, or marks it pending."
    );
    let world = World::new();
    routine_slot(Raw::at(world.driver.address()), IRP_MJ_CREATE).write(Some(forget));
    let program = world.bench.machine().process("p.exe").start().expect("room");
    assert!(program.open(DEVICE_NAME, 1).is_err());
    let finding = world.bench.machine().finding().expect("the machine stopped");
    assert_eq!(finding.rule, Rule::BadState);
    assert!(finding.message.contains("IRP_MJ_CREATE"), "{}", finding.message);
}

#[test]
fn completing_with_pending_is_found() {
    extern "efiapi" fn pending(_device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
        field!(Raw::of(irp), IRP, IoStatus).write(IO_STATUS_BLOCK::new(NtStatus::PENDING, 0));
        iof_complete_request(Raw::of(irp), 0);
        NtStatus::PENDING
    }
    conforms!("docs:devtest/i-o-verification.md", "A request is not completed with an invalid status.");
    let world = World::new();
    routine_slot(Raw::at(world.driver.address()), IRP_MJ_CREATE).write(Some(pending));
    let program = world.bench.machine().process("p.exe").start().expect("room");
    assert!(program.open(DEVICE_NAME, 1).is_err());
    assert_eq!(world.bench.machine().finding().map(|finding| finding.rule), Some(Rule::BadArgument));
}

#[test]
fn a_completion_routine_takes_its_own_irp_back() {
    extern "efiapi" fn completed(_: *mut DEVICE_OBJECT, _: *mut IRP, context: nt_types::PVOID) -> NtStatus {
        Raw::<u32>::at(context.addr()).write(1);
        NtStatus::from_bits(0xC000_0016)
    }
    conforms!("wdm/nf-wdm-iofreeirp.md", "A request of one's own is freed from its completion routine.");
    let world = World::new();
    let (mut called, mut data) = (0_u32, 4_u32);
    let (called, data) = (Raw::of(&raw mut called), Raw::of(&raw mut data));
    world.run(|| {
        let irp = Raw::<IRP>::at(io_allocate_irp(1, 0));
        let location = next_location(irp);
        field!(location, IO_STACK_LOCATION, MajorFunction).write(IRP_MJ_INTERNAL_DEVICE_CONTROL);
        field!(location, IO_STACK_LOCATION, CompletionRoutine).write(Some(completed));
        field!(location, IO_STACK_LOCATION, Context).write(called.cast().pointer());
        field!(location, IO_STACK_LOCATION, Control).write(0xE0);
        field!(irp, IRP, SystemBuffer).write(data.cast().pointer());
        assert_eq!(iof_call_driver(Raw::at(world.device), irp), NtStatus::SUCCESS);
        io_free_irp(irp);
    });
    assert_eq!((called.read(), data.read()), (1, 8));
}

#[test]
fn an_own_irp_that_goes_back_to_the_io_manager_is_found() {
    conforms!("wdm/nf-wdm-iocompleterequest.md", "The maker of a request needs a completion routine that releases it.");
    let world = World::new();
    let mut data = 4_u32;
    let data = Raw::of(&raw mut data);
    let rule = world.broken(|| {
        let irp = Raw::<IRP>::at(io_allocate_irp(1, 0));
        field!(next_location(irp), IO_STACK_LOCATION, MajorFunction).write(IRP_MJ_INTERNAL_DEVICE_CONTROL);
        field!(irp, IRP, SystemBuffer).write(data.cast().pointer());
        let _ = iof_call_driver(Raw::at(world.device), irp);
    });
    assert_eq!(rule, Rule::BadState);
}

#[test]
fn an_irp_without_a_stack_location_left_is_found() {
    let world = World::new();
    let rule = world.broken(|| {
        let irp = Raw::<IRP>::at(io_allocate_irp(1, 0));
        field!(irp, IRP, CurrentLocation).write(1);
        let _ = iof_call_driver(Raw::at(world.device), irp);
    });
    assert_eq!(rule, Rule::BadState);
}

#[test]
fn irps_are_freed_once_and_by_their_owner() {
    conforms!("wdm/nf-wdm-iofreeirp.md", "Only a request that the caller allocated is freed, and once.");
    let world = World::new();
    let rule = world.broken(|| {
        let irp = Raw::at(io_allocate_irp(1, 0));
        io_free_irp(irp);
        io_free_irp(irp);
    });
    assert_eq!(rule, Rule::BadState);
}

#[test]
fn a_device_deleted_twice_is_found_and_one_left_behind_is_reported() {
    let world = World::new();
    assert_eq!(world.leaks().len(), 1, "{:?}", world.leaks());
    assert!(world.leaks()[0].contains(DEVICE_NAME));
    world.run(|| io_delete_device(Raw::at(world.device)));
    assert!(world.leaks().is_empty());
    assert_eq!(world.broken(|| io_delete_device(Raw::at(world.device))), Rule::BadState);
}

#[test]
fn a_deleted_device_lives_until_its_files_are_closed() {
    conforms!("wdm/nf-wdm-iodeletedevice.md", "A device with references left is deleted when they are released.");
    let world = World::new();
    let (_, file) = world.connect(DEVICE_NAME);
    world.run(|| io_delete_device(Raw::at(world.device)));
    assert_eq!(world.connect(DEVICE_NAME).0, NtStatus::OBJECT_NAME_NOT_FOUND);
    let objects = world.bench.machine().inner().nt.objects();
    assert!(objects.lookup(world.device).is_some());
    world.run(|| obf_dereference_object(file));
    assert!(objects.lookup(world.device).is_none());
}

#[test]
fn driver_objects_name_their_service_key() {
    let world = World::new();
    let path = crate::nt::unicode::name(Raw::at(world.driver.registry_path())).expect("UTF-16");
    assert!(path.eq_ignore_ascii_case("\\Registry\\Machine\\System\\CurrentControlSet\\Services\\Test"), "{path}");
    assert_eq!(world.driver.unload_routine(), None);
    let machine = world.bench.machine().inner();
    let image = ImageRange { base: 0, size: 0, entry: 0 };
    let again = DriverObject::create(machine, world.bench.driver(), image, "TEST");
    assert_eq!(again.err(), Some(NtStatus::IMAGE_ALREADY_LOADED));
    world.driver.remove(machine);
}
