//! IRPs: making and freeing them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use nt_types::{IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP, NtStatus};

use super::pending::Dispatched;
use super::transfer::Transfer;
use crate::ddi::{Call, exports};
use crate::finding::{Finding, Rule};
use crate::machine::{Driver, Inner};
use crate::nt::arena::{Access, PAGE, pages_for};
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    IoAllocateIrp(max 2, fails NULL) = io_allocate_irp;
    IoFreeIrp(max 2) = io_free_irp;
    IoReuseIrp(max 2) = io_reuse_irp;
    IoInitializeIrp(max 2) = io_initialize_irp;
    IoGetRequestorProcessId(max 2) = io_get_requestor_process_id;
    IoGetRequestorProcess(max 2) = io_get_requestor_process;
    IoIsOperationSynchronous(max 31) = io_is_operation_synchronous;
    IoIs32bitProcess(max 2) = io_is_32bit_process;
}

/// `IO_TYPE_IRP`.
const IO_TYPE_IRP: i16 = 6;

/// What the I/O manager remembers of a request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(super) kind: Kind,
    run: usize,
    /// 0 for a request in its maker's own memory.
    pages: usize,
    /// Entries into dispatch routines whose stack locations were not left behind yet: location and entry.
    dispatched: Vec<(i8, Arc<Dispatched>)>,
}

/// Who made a request, and so what happens when it is complete.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    /// `IoAllocateIrp`: its maker gets it back in a completion routine and frees it.
    Allocated(Arc<Driver>),
    /// `IoInitializeIrp`: as `Allocated`, in memory that is no business of the I/O manager's.
    Initialised(Arc<Driver>),
    /// `IoBuildDeviceIoControlRequest` and `IoBuildSynchronousFsdRequest`: the I/O manager copies the output, sets the
    /// event and frees it.
    Synchronous { driver: Arc<Driver>, buffered_output: Option<usize> },
    /// `IoMakeAssociatedIrp`: the I/O manager frees it, and completes its master after the last one.
    Associated { driver: Arc<Driver>, master: usize },
    /// The host itself, which waits for the outcome; for a process whose data it carries, if it carries any.
    Host { waiter: Arc<Waiter>, process_id: u64, transfer: Option<Arc<Transfer>> },
}

/// Where the host waits for a request of its own.
#[derive(Debug, Default)]
pub(super) struct Waiter {
    outcome: Mutex<Option<IO_STATUS_BLOCK>>,
    complete: Condvar,
    /// The request is complete. Its outcome follows when its file is let go of.
    ended: AtomicBool,
    /// Which driver has the request, and for what.
    sent: OnceLock<(Arc<Driver>, &'static str)>,
}

impl Waiter {
    /// Notes where the request goes first; that driver is to blame when it never ends.
    pub(super) fn sent_to(&self, driver: &Arc<Driver>, major: &'static str) {
        // A request is sent once.
        let _ = self.sent.set((Arc::clone(driver), major));
    }

    /// The request is complete; [`finish`](Self::finish) follows.
    pub(super) fn end(&self) {
        self.ended.store(true, Ordering::Release);
    }

    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(super) fn finish(&self, outcome: IO_STATUS_BLOCK) {
        self.end();
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
        self.complete.notify_all();
    }

    pub(super) fn outcome(&self) -> Option<IO_STATUS_BLOCK> {
        *self.outcome.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the outcome; `None` when the machine stopped first. It stops when that takes too long: a driver has lost the
    /// request, or waits for something that never comes.
    pub(super) fn wait(&self, machine: &Inner) -> Option<IO_STATUS_BLOCK> {
        let patience = machine.nt.dispatcher().deadlock_after();
        let outcome = self.wait_until(machine, Instant::now().checked_add(patience));
        if outcome.is_none() && machine.stopped().is_none() {
            let (driver, call) = self.sent.get().map_or(("", ""), |(driver, major)| (driver.name.as_str(), *major));
            let message = format!("the request was pended and is not complete after {patience:?}");
            machine.record(Finding::new(Rule::Deadlock, message, call, driver));
        }
        outcome
    }

    /// As [`Waiter::wait`]; `None` also when the deadline has passed.
    pub(super) fn wait_until(&self, machine: &Inner, deadline: Option<Instant>) -> Option<IO_STATUS_BLOCK> {
        let mut outcome = self.outcome.lock().unwrap_or_else(PoisonError::into_inner);
        while outcome.is_none()
            && machine.stopped().is_none()
            && deadline.is_none_or(|deadline| Instant::now() < deadline)
        {
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
            Kind::Allocated(driver) | Kind::Synchronous { driver, .. } | Kind::Associated { driver, .. } => {
                Some(driver)
            }
            Kind::Initialised(_) | Kind::Host { .. } => None,
        }
    }

    /// The driver whose completion routine is called where no device tells.
    pub(super) fn maker(&self) -> Option<&Arc<Driver>> {
        match &self.kind {
            Kind::Initialised(driver) => Some(driver),
            _ => self.owner(),
        }
    }

    pub(super) fn origin(&self) -> &'static str {
        match self.kind {
            Kind::Allocated(_) => "from IoAllocateIrp or IoBuildAsynchronousFsdRequest (without IoFreeIrp)",
            Kind::Initialised(_) => "from IoInitializeIrp",
            Kind::Synchronous { .. } => "from IoBuildDeviceIoControlRequest or IoBuildSynchronousFsdRequest",
            Kind::Associated { .. } => "from IoMakeAssociatedIrp",
            Kind::Host { .. } => "from the I/O manager",
        }
    }
}

/// Makes a request with `stack_size` locations and `extra` zeroed bytes behind them; the IRP and the extra bytes' address.
pub(super) fn create(machine: &Inner, kind: Kind, stack_size: i8, extra: usize) -> Option<(Raw<IRP>, usize)> {
    create_as(machine, stack_size, extra, |_| kind)
}

/// As [`create`], for a kind that wants to know where the extra bytes are.
fn create_as(
    machine: &Inner,
    stack_size: i8,
    extra: usize,
    kind: impl FnOnce(usize) -> Kind,
) -> Option<(Raw<IRP>, usize)> {
    let stack = usize::try_from(stack_size).ok()? * size_of::<IO_STACK_LOCATION>();
    let header = size_of::<IRP>() + stack;
    // The extra bytes end where the pages end, so that an access behind them faults.
    let length = (header + extra).next_multiple_of(16);
    let pages = pages_for(length);
    let run = machine.nt.arena().allocate(pages, Access::ReadWrite)?;
    let irp = Raw::<IRP>::at(run + pages * PAGE - length);
    initialise(irp, stack_size);
    let behind = irp.address() + header;
    let request = Request { kind: kind(behind), run, pages, dispatched: Vec::new() };
    machine.nt.io().lock().irps.insert(irp.address(), request);
    Some((irp, behind))
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
    if request.pages > 0 {
        machine.nt.arena().release(request.run, request.pages);
    }
}

/// Remembers that a dispatch routine is entered for a stack location.
pub(super) fn track(machine: &Inner, irp: Raw<IRP>, location: i8, entry: &Arc<Dispatched>) {
    if let Some(request) = machine.nt.io().lock().irps.get_mut(&irp.address()) {
        request.dispatched.push((location, Arc::clone(entry)));
    }
}

/// Takes out the entries whose stack location completion leaves behind.
pub(super) fn left_behind(machine: &Inner, irp: Raw<IRP>, location: i8) -> Vec<Arc<Dispatched>> {
    let mut state = machine.nt.io().lock();
    let Some(request) = state.irps.get_mut(&irp.address()) else { return Vec::new() };
    let (gone, left) = std::mem::take(&mut request.dispatched).into_iter().partition(|(at, _)| *at == location);
    request.dispatched = left;
    let gone: Vec<(i8, Arc<Dispatched>)> = gone;
    gone.into_iter().map(|(_, entry)| entry).collect()
}

/// Requests of the host's own that are under way for a file object.
pub(super) fn of_file(machine: &Inner, file: usize) -> Vec<usize> {
    let state = machine.nt.io().lock();
    let of_host = state.irps.iter().filter(|(_, request)| matches!(request.kind, Kind::Host { .. }));
    let is_its = |irp: &usize| field!(Raw::<IRP>::at(*irp), IRP, OriginalFileObject).read().addr() == file;
    of_host.map(|(irp, _)| *irp).filter(is_its).collect()
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
            check_idle(&call, irp);
            if let Some(request) = remove(call.machine(), irp) {
                release(call.machine(), &request);
            }
        }
        Some(_) => call.stop(Rule::BadState, format!("the IRP {irp:?} belongs to the I/O manager, which frees it")),
        None => call.stop(Rule::BadState, format!("{irp:?} is no IRP, or one that was freed before")),
    }
}

/// Stops when a driver below still has the request.
fn check_idle(call: &Call, irp: Raw<IRP>) {
    let current = field!(irp, IRP, CurrentLocation).read();
    if current <= field!(irp, IRP, StackCount).read() {
        call.stop(Rule::BadState, format!("the IRP {irp:?} is still with the driver that it was sent to"));
    }
}

pub(super) extern "efiapi" fn io_reuse_irp(irp: Raw<IRP>, status: NtStatus) {
    let call = Call::enter();
    if !matches!(find(call.machine(), irp).map(|request| request.kind), Some(Kind::Allocated(_) | Kind::Initialised(_)))
    {
        call.stop(Rule::BadState, format!("{irp:?} is no IRP from IoAllocateIrp or IoInitializeIrp"));
    }
    check_idle(&call, irp);
    let stack_size = field!(irp, IRP, StackCount).read();
    irp.cast::<u8>().fill(0, size_of::<IRP>() + stack_bytes(stack_size));
    initialise(irp, stack_size);
    field!(irp, IRP, IoStatus.Status).write(status);
}

extern "efiapi" fn io_initialize_irp(irp: Raw<IRP>, bytes: u16, stack_size: i8) {
    let call = Call::enter();
    if stack_size < 1 || usize::from(bytes) < size_of::<IRP>() + stack_bytes(stack_size) {
        call.stop(Rule::BadArgument, format!("{bytes} bytes do not hold an IRP with {stack_size} stack locations"));
    }
    if matches!(find(call.machine(), irp).map(|request| request.kind), Some(Kind::Allocated(_))) {
        call.stop(Rule::BadState, "an IRP from IoAllocateIrp is initialised already: IoReuseIrp makes it new");
    }
    irp.cast::<u8>().fill(0, bytes.into());
    initialise(irp, stack_size);
    let kind = Kind::Initialised(Arc::clone(call.driver()));
    let request = Request { kind, run: 0, pages: 0, dispatched: Vec::new() };
    call.machine().nt.io().lock().irps.insert(irp.address(), request);
}

extern "efiapi" fn io_get_requestor_process_id(irp: Raw<IRP>) -> u32 {
    let call = Call::enter();
    requestor(&call, irp) as u32
}

pub(super) fn requestor(call: &Call, irp: Raw<IRP>) -> u64 {
    match find(call.machine(), irp).map(|request| request.kind) {
        Some(Kind::Host { process_id, .. }) => process_id,
        Some(_) => crate::process::SYSTEM_PROCESS_ID,
        None => call.stop(Rule::BadArgument, format!("{irp:?} is no IRP, or one that is complete")),
    }
}

extern "efiapi" fn io_get_requestor_process(irp: Raw<IRP>) -> usize {
    let call = Call::enter();
    let id = requestor(&call, irp);
    call.machine().nt.process(id).map_or(0, |process| process.object())
}

/// Synchronous when the file is, or the request itself is marked so. Paging I/O of the second kind never is.
extern "efiapi" fn io_is_operation_synchronous(irp: Raw<IRP>) -> u8 {
    use nt_types::{FILE_OBJECT, FileObjectFlags, IrpFlags};
    let _call = Call::enter();
    let flags = IrpFlags::from_bits_retain(field!(irp, IRP, Flags).read());
    let file = Raw::<FILE_OBJECT>::of(field!(irp, IRP, OriginalFileObject).read());
    let file_flags = file.some().map_or(0, |file| field!(file, FILE_OBJECT, Flags).read());
    let synchronous_file = file_flags & FileObjectFlags::SYNCHRONOUS_IO.bits() != 0;
    let synchronous = synchronous_file || flags.intersects(IrpFlags::SYNCHRONOUS_API | IrpFlags::SYNCHRONOUS_PAGING_IO);
    let asynchronous_paging = flags.contains(IrpFlags::PAGING_IO) && !flags.contains(IrpFlags::SYNCHRONOUS_PAGING_IO);
    u8::from(synchronous && !asynchronous_paging)
}

/// No simulated program is a 32-bit one.
extern "efiapi" fn io_is_32bit_process(_irp: Raw<IRP>) -> u8 {
    let _call = Call::enter();
    0
}

/// Makes a request of the host's own, for a process, with what is to happen to its data at the end.
pub(super) fn create_for_host(
    thread: &Thread,
    stack_size: i8,
    extra: usize,
    process_id: u64,
    transfer: Option<Arc<Transfer>>,
) -> Option<(Raw<IRP>, usize, Arc<Waiter>)> {
    let waiter = Arc::new(Waiter::default());
    let kind = Kind::Host { waiter: Arc::clone(&waiter), process_id, transfer };
    let (irp, extra) = create(thread.machine(), kind, stack_size, extra)?;
    field!(irp, IRP, Thread).write(thread.object().cast_mut());
    Some((irp, extra, waiter))
}

/// As [`create_for_host`], for data whose place in the extra bytes matters.
pub(super) fn create_with(
    thread: &Thread,
    stack_size: i8,
    extra: usize,
    process_id: u64,
    transfer: impl FnOnce(usize) -> Arc<Transfer>,
) -> Option<(Raw<IRP>, usize, Arc<Waiter>)> {
    let waiter = Arc::new(Waiter::default());
    let kept = Arc::clone(&waiter);
    let (irp, extra) = create_as(thread.machine(), stack_size, extra, |extra| Kind::Host {
        waiter: kept,
        process_id,
        transfer: Some(transfer(extra)),
    })?;
    field!(irp, IRP, Thread).write(thread.object().cast_mut());
    Some((irp, extra, waiter))
}
