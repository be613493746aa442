//! IRPs: making and freeing them.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use nt_types::{
    DEVICE_OBJECT, DISPATCHER_HEADER, IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP, IRP_MJ_DEVICE_CONTROL,
    IRP_MJ_INTERNAL_DEVICE_CONTROL, IoStackDeviceIoControl, IoStackParameters, IrpFlags, MDL, METHOD_BUFFERED,
    METHOD_NEITHER, MdlFlags, NtStatus,
};

use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::{Driver, Inner};
use crate::nt::arena::{Access, PAGE, pages_for};
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    IoAllocateIrp(max 2, fails NULL) = io_allocate_irp;
    IoFreeIrp(max 2) = io_free_irp;
    IoReuseIrp(max 2) = io_reuse_irp;
    IoBuildDeviceIoControlRequest(max 1, fails NULL) = io_build_device_io_control_request;
    IoGetRequestorProcessId(max 2) = io_get_requestor_process_id;
}

/// `IO_TYPE_IRP`.
const IO_TYPE_IRP: i16 = 6;

/// Control codes with this bit set, and not both, move the output through an MDL.
const METHOD_MASK: u32 = 3;

/// What the I/O manager remembers of a request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(super) kind: Kind,
    run: usize,
    pages: usize,
}

/// Who made a request, and so what happens when it is complete.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// `IoAllocateIrp`: its maker gets it back in a completion routine and frees it.
    Allocated(Arc<Driver>),
    /// `IoBuildDeviceIoControlRequest`: the I/O manager copies the output, sets the event and frees it.
    Synchronous { driver: Arc<Driver>, buffered_output: Option<usize> },
    /// The host itself, which waits for the outcome.
    Host { waiter: Arc<Waiter>, process_id: u64 },
}

/// Where the host waits for a request of its own.
#[derive(Debug, Default)]
pub(super) struct Waiter {
    outcome: Mutex<Option<IO_STATUS_BLOCK>>,
    complete: Condvar,
}

impl Waiter {
    pub(super) fn finish(&self, outcome: IO_STATUS_BLOCK) {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.complete.notify_all();
    }

    pub(super) fn outcome(&self) -> Option<IO_STATUS_BLOCK> {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the outcome; `None` when the machine stopped first.
    pub(super) fn wait(&self, machine: &Inner) -> Option<IO_STATUS_BLOCK> {
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        while outcome.is_none() && machine.stopped().is_none() {
            let woken = self.complete.wait_timeout(outcome, Duration::from_millis(20));
            outcome = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        *outcome
    }
}

impl Request {
    /// The driver that has to see to the request's end.
    pub(super) fn owner(&self) -> Option<&Arc<Driver>> {
        match &self.kind {
            Kind::Allocated(driver) | Kind::Synchronous { driver, .. } => Some(driver),
            Kind::Host { .. } => None,
        }
    }

    pub(super) fn origin(&self) -> &'static str {
        match self.kind {
            Kind::Allocated(_) => "from IoAllocateIrp",
            Kind::Synchronous { .. } => "from IoBuildDeviceIoControlRequest",
            Kind::Host { .. } => "from the I/O manager",
        }
    }
}

/// Makes a request with `stack_size` locations and `extra` zeroed bytes behind them; the IRP and the extra bytes' address.
pub(super) fn create(machine: &Inner, kind: Kind, stack_size: i8, extra: usize) -> Option<(Raw<IRP>, usize)> {
    let stack = usize::try_from(stack_size).ok()? * size_of::<IO_STACK_LOCATION>();
    let header = size_of::<IRP>() + stack;
    let length = (header + extra).next_multiple_of(16);
    let pages = pages_for(length);
    let run = machine.nt.arena().allocate(pages, Access::ReadWrite)?;
    let irp = Raw::<IRP>::at(run + pages * PAGE - length);
    initialise(irp, stack_size);
    machine.nt.io().lock().irps.insert(irp.address(), Request { kind, run, pages });
    Some((irp, irp.address() + header))
}

fn stack_bytes(stack_size: i8) -> usize {
    usize::from(stack_size.unsigned_abs()) * size_of::<IO_STACK_LOCATION>()
}

/// `IoInitializeIrp` for zeroed memory.
fn initialise(irp: Raw<IRP>, stack_size: i8) {
    let locations = irp.field::<IO_STACK_LOCATION>(size_of::<IRP>());
    let list = field!(irp, IRP, ThreadListEntry);
    field!(irp, IRP, Type).write(IO_TYPE_IRP);
    field!(irp, IRP, Size).write((size_of::<IRP>() + stack_bytes(stack_size)) as u16);
    field!(irp, IRP, StackCount).write(stack_size);
    field!(irp, IRP, CurrentLocation).write(stack_size + 1);
    field!(irp, IRP, CurrentStackLocation)
        .write(locations.field::<IO_STACK_LOCATION>(stack_bytes(stack_size)).pointer());
    field!(list, nt_types::LIST_ENTRY, Flink).write(list.pointer());
    field!(list, nt_types::LIST_ENTRY, Blink).write(list.pointer());
}

/// The stack location that the next driver will see.
pub(super) fn next_location(irp: Raw<IRP>) -> Raw<IO_STACK_LOCATION> {
    let current = Raw::of(field!(irp, IRP, CurrentStackLocation).read());
    Raw::at(current.address().wrapping_sub(size_of::<IO_STACK_LOCATION>()))
}

/// Frees a request's memory. The caller took it out of the table.
pub(super) fn release(machine: &Inner, request: &Request) {
    machine.nt.arena().release(request.run, request.pages);
}

/// Takes a request out of the table.
pub(super) fn remove(machine: &Inner, irp: Raw<IRP>) -> Option<Request> {
    machine.nt.io().lock().irps.remove(&irp.address())
}

/// A request in the table.
pub(super) fn find(machine: &Inner, irp: Raw<IRP>) -> Option<Request> {
    machine.nt.io().lock().irps.get(&irp.address()).cloned()
}

pub(super) extern "efiapi" fn io_allocate_irp(stack_size: i8, _charge_quota: u8) -> usize {
    let call = Call::enter();
    if stack_size < 1 {
        call.stop(Rule::BadArgument, format!("an IRP with {stack_size} stack locations"));
    }
    let kind = Kind::Allocated(Arc::clone(call.driver()));
    create(call.machine(), kind, stack_size, 0).map_or(0, |(irp, _)| irp.address())
}

pub(super) extern "efiapi" fn io_free_irp(irp: Raw<IRP>) {
    let call = Call::enter();
    match find(call.machine(), irp).map(|request| request.kind) {
        Some(Kind::Allocated(_)) => {
            if let Some(request) = remove(call.machine(), irp) {
                release(call.machine(), &request);
            }
        }
        Some(_) => call.stop(Rule::BadState, format!("the IRP {irp:?} belongs to the I/O manager, which frees it")),
        None => call.stop(Rule::BadState, format!("{irp:?} is no IRP, or one that was freed before")),
    }
}

extern "efiapi" fn io_reuse_irp(irp: Raw<IRP>, status: NtStatus) {
    let call = Call::enter();
    if !matches!(find(call.machine(), irp).map(|request| request.kind), Some(Kind::Allocated(_))) {
        call.stop(Rule::BadState, format!("{irp:?} is no IRP from IoAllocateIrp"));
    }
    let stack_size = field!(irp, IRP, StackCount).read();
    irp.cast::<u8>().fill(0, size_of::<IRP>() + stack_bytes(stack_size));
    initialise(irp, stack_size);
    field!(irp, IRP, IoStatus.Status).write(status);
}

pub(super) extern "efiapi" fn io_build_device_io_control_request(
    code: u32,
    device: Raw<DEVICE_OBJECT>,
    input: usize,
    input_length: u32,
    output: usize,
    output_length: u32,
    internal: u8,
    event: Raw<DISPATCHER_HEADER>,
    status_block: Raw<IO_STATUS_BLOCK>,
) -> usize {
    let call = Call::enter();
    call.detail(format_args!("control code {code:#010x}"));
    if (input == 0 && input_length != 0) || (output == 0 && output_length != 0) {
        call.stop(Rule::BadArgument, "a buffer is NULL but its length is not zero");
    }
    let method = code & METHOD_MASK;
    let buffered = if method == METHOD_BUFFERED { input_length.max(output_length) } else { input_length };
    let with_system_buffer = method != METHOD_NEITHER;
    let extra = size_of::<MDL>() + if with_system_buffer { buffered as usize } else { 0 };
    let buffered_output = (method == METHOD_BUFFERED && output_length > 0).then_some(output_length as usize);
    let kind = Kind::Synchronous { driver: Arc::clone(call.driver()), buffered_output };
    let stack_size = field!(device, DEVICE_OBJECT, StackSize).read();
    let Some((irp, extra)) = create(call.machine(), kind, stack_size, extra) else { return 0 };
    let location = next_location(irp);
    let major = if internal == 0 { IRP_MJ_DEVICE_CONTROL } else { IRP_MJ_INTERNAL_DEVICE_CONTROL };
    field!(location, IO_STACK_LOCATION, MajorFunction).write(major);
    let mut parameters = IoStackDeviceIoControl::new(code, input_length, output_length);
    if with_system_buffer && buffered > 0 {
        let system_buffer = extra + size_of::<MDL>();
        Raw::<u8>::at(system_buffer).write_bytes(&Raw::<u8>::at(input).read_bytes(input_length as usize));
        field!(irp, IRP, SystemBuffer).write(Raw::at(system_buffer).pointer());
        let input_flag = if buffered_output.is_some() { IrpFlags::SYNCHRONOUS_PAGING_IO } else { IrpFlags::empty() };
        field!(irp, IRP, Flags).write((IrpFlags::BUFFERED_IO | input_flag).bits());
    }
    if method == METHOD_NEITHER {
        parameters.Type3InputBuffer = Raw::at(input).pointer();
    } else if method != METHOD_BUFFERED && output_length > 0 {
        describe(Raw::at(extra), output, output_length);
        field!(irp, IRP, MdlAddress).write(Raw::at(extra).pointer());
    }
    field!(irp, IRP, UserBuffer).write(Raw::at(output).pointer());
    field!(irp, IRP, UserEvent).write(event.cast().pointer());
    field!(irp, IRP, UserIosb).write(status_block.pointer());
    field!(irp, IRP, Thread).write(call.thread().object().cast_mut());
    field!(location, IO_STACK_LOCATION, Parameters).write(IoStackParameters { DeviceIoControl: parameters });
    irp.address()
}

/// Describes a caller's kernel buffer, which is where it is: locked and mapped.
fn describe(mdl: Raw<MDL>, address: usize, length: u32) {
    mdl.write(MDL {
        Size: i16::from(size_of::<MDL>() as u8),
        MdlFlags: (MdlFlags::SOURCE_IS_NONPAGED_POOL | MdlFlags::MAPPED_TO_SYSTEM_VA).bits(),
        MappedSystemVa: Raw::at(address).pointer(),
        StartVa: Raw::at(address & !(PAGE - 1)).pointer(),
        ByteCount: length,
        ByteOffset: (address % PAGE) as u32,
        ..MDL::ZERO
    });
}

extern "efiapi" fn io_get_requestor_process_id(irp: Raw<IRP>) -> u32 {
    let call = Call::enter();
    match find(call.machine(), irp).map(|request| request.kind) {
        Some(Kind::Host { process_id, .. }) => process_id as u32,
        Some(_) => crate::process::SYSTEM_PROCESS_ID as u32,
        None => call.stop(Rule::BadArgument, format!("{irp:?} is no IRP")),
    }
}

/// Makes a request of the host's own, for `process`.
pub(super) fn create_for_host(
    thread: &Thread,
    stack_size: i8,
    extra: usize,
    process_id: u64,
) -> Option<(Raw<IRP>, usize, Arc<Waiter>)> {
    let waiter = Arc::new(Waiter::default());
    let kind = Kind::Host { waiter: Arc::clone(&waiter), process_id };
    let (irp, extra) = create(thread.machine(), kind, stack_size, extra)?;
    field!(irp, IRP, Thread).write(thread.object().cast_mut());
    Some((irp, extra, waiter))
}
