//! Requests that carry data: how the I/O manager passes buffers to drivers, and back.
//!
//! ```text
//!  METHOD_BUFFERED, DO_BUFFERED_IO      one system buffer, as long as the longer side; copied in before, and back after
//!                                       as far as IoStatus.Information says
//!  METHOD_IN_DIRECT, METHOD_OUT_DIRECT  input in a system buffer, output behind an MDL
//!  DO_DIRECT_IO                         everything behind an MDL
//!  METHOD_NEITHER, neither flag         the caller's own addresses
//! ```
//! Page: `docs:kernel/buffer-descriptions-for-i-o-control-codes.md`. An MDL of a program's memory has the program's own pages,
//! locked until the request is complete.

use std::sync::Arc;

use nt_types::{
    DEVICE_OBJECT, DO_BUFFERED_IO, DO_DIRECT_IO, FILE_OBJECT, IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP,
    IoStackParameters, IrpFlags, KERNEL_MODE, KPROCESSOR_MODE, METHOD_BUFFERED, METHOD_NEITHER, NtStatus,
};

use super::attach::top_of;
use super::irp::{self, Waiter};
use super::request;
use crate::finding::Rule;
use crate::nt::arena::PAGE;
use crate::nt::mdl::direct::{self, LockedPages};
use crate::nt::ob::ObjectRef;
use crate::nt::raw::{Raw, field};
use crate::process::Process;
use crate::thread::Thread;

/// What memory that nobody has written holds, so that drivers that give it away are seen.
const POISON: u8 = 0xCD;

/// The method whose output buffer holds data for the driver, too.
const METHOD_IN_DIRECT: u32 = 1;

/// How the data of a request travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Buffered,
    /// Output (of a write, the data) behind an MDL. `reads`: the driver only reads that, too (`METHOD_IN_DIRECT`).
    Direct {
        reads: bool,
    },
    Neither,
}

impl Method {
    /// By the two low bits of a control code.
    pub(crate) fn of_code(code: u32) -> Self {
        match code & 3 {
            METHOD_BUFFERED => Self::Buffered,
            METHOD_NEITHER => Self::Neither,
            method => Self::Direct { reads: method == METHOD_IN_DIRECT },
        }
    }

    /// By the flags of a device, for reads and writes.
    fn of_device(flags: u32, writes: bool) -> Self {
        match flags {
            _ if flags & DO_BUFFERED_IO != 0 => Self::Buffered,
            _ if flags & DO_DIRECT_IO != 0 => Self::Direct { reads: writes },
            _ => Self::Neither,
        }
    }
}

/// A buffer as its owner passes it: address and length in bytes.
pub(crate) type Span = (usize, usize);

/// A request before it is sent.
#[derive(Clone, Debug)]
pub(crate) struct Sending<'a> {
    pub(crate) file: &'a ObjectRef,
    pub(crate) process: &'a Arc<Process>,
    /// Whose addresses they are: a program's are checked and captured.
    pub(crate) mode: KPROCESSOR_MODE,
    pub(crate) major: u8,
    pub(crate) minor: u8,
    pub(crate) parameters: IoStackParameters,
    /// `None`: as the device's flags say.
    pub(crate) method: Option<Method>,
    /// Data for the driver; of a write, that is all there is.
    pub(crate) input: Span,
    pub(crate) output: Span,
}

/// What is to happen with the data when the request is complete.
#[derive(Debug)]
pub(crate) struct Transfer {
    /// Open until the request is complete, whoever closes its handle meanwhile.
    file: std::sync::Mutex<Option<ObjectRef>>,
    process: Arc<Process>,
    mode: KPROCESSOR_MODE,
    back: Back,
    major: u8,
}

#[derive(Debug)]
enum Back {
    Nothing,
    /// From the system buffer to the caller's, as many bytes as `Information` says.
    Buffered {
        system: usize,
        to: Span,
    },
    /// The program's pages, which the MDL at an address describes, are let go.
    Direct {
        pages: LockedPages,
        list: usize,
    },
}

/// A request on its way.
#[derive(Clone, Debug)]
pub(crate) struct Sent {
    pub(super) irp: usize,
    pub(super) waiter: Arc<Waiter>,
    /// What the topmost dispatch routine returned.
    pub(crate) status: NtStatus,
}

/// Sends a request to the top of its file's device stack, in the context of its process.
///
/// # Errors
/// `STATUS_ACCESS_VIOLATION` for a buffer of a program's that is not its memory, `STATUS_INSUFFICIENT_RESOURCES`,
/// `STATUS_UNSUCCESSFUL` when the machine stopped.
pub(crate) fn send(thread: &Thread, sending: &Sending<'_>) -> Result<Sent, NtStatus> {
    let file = Raw::<FILE_OBJECT>::at(sending.file.body());
    let device = top_of(Raw::of(field!(file, FILE_OBJECT, DeviceObject).read()));
    let flags = field!(device, DEVICE_OBJECT, Flags).read();
    let method = sending.method.unwrap_or_else(|| Method::of_device(flags, sending.is_write()));
    let input = match method {
        Method::Neither => Vec::new(),
        Method::Direct { .. } if sending.is_write() => Vec::new(),
        Method::Buffered | Method::Direct { .. } => sending.capture()?,
    };
    if method == Method::Buffered {
        sending.probe_output()?;
    }
    let prepared = Prepared::new(thread, sending, method, device, &input)?;
    let stopped = || NtStatus::UNSUCCESSFUL;
    let Prepared { irp, waiter } = prepared;
    let status =
        super::file::in_context(thread, Some(sending.process), || request::start(thread, device, irp, &waiter));
    Ok(Sent { irp: irp.address(), waiter, status: status.ok_or_else(stopped)? })
}

/// As [`send`], and waits for the end.
///
/// # Errors
/// As for [`send`].
pub(crate) fn send_and_wait(thread: &Thread, sending: &Sending<'_>) -> Result<IO_STATUS_BLOCK, NtStatus> {
    let sent = send(thread, sending)?;
    sent.waiter.wait(thread.machine()).ok_or(NtStatus::UNSUCCESSFUL)
}

impl Sending<'_> {
    fn is_write(&self) -> bool {
        self.major == nt_types::IRP_MJ_WRITE
    }

    /// Copies the caller's data.
    fn capture(&self) -> Result<Vec<u8>, NtStatus> {
        let (address, length) = self.input;
        if self.mode == KERNEL_MODE {
            return Ok(Raw::<u8>::at(address).read_bytes(length));
        }
        self.process.memory().read_vec(address, length)
    }

    /// `ProbeForWrite` of a program's output buffer.
    fn probe_output(&self) -> Result<(), NtStatus> {
        let (address, length) = self.output;
        if self.mode == KERNEL_MODE || length == 0 {
            return Ok(());
        }
        let memory = self.process.memory();
        let last = address.checked_add(length - 1).ok_or(NtStatus::ACCESS_VIOLATION)?;
        let mut pages = (address..=last).step_by(PAGE).chain([last]);
        if pages.all(|at| memory.is_accessible(at)) { Ok(()) } else { Err(NtStatus::ACCESS_VIOLATION) }
    }
}

struct Prepared {
    irp: Raw<IRP>,
    waiter: Arc<Waiter>,
}

impl Prepared {
    fn new(
        thread: &Thread,
        sending: &Sending<'_>,
        method: Method,
        device: Raw<DEVICE_OBJECT>,
        input: &[u8],
    ) -> Result<Self, NtStatus> {
        let described = if sending.is_write() { sending.input } else { sending.output };
        let (mut list_length, mut pages) = (0, None);
        if let Method::Direct { reads } = method
            && described.1 > 0
        {
            list_length = direct::bytes_for(described).next_multiple_of(16);
            if sending.mode != KERNEL_MODE {
                pages = Some(LockedPages::new(thread.machine(), sending.process, described, !reads)?);
            }
        }
        let system_length = match method {
            Method::Buffered if sending.is_write() => input.len(),
            Method::Buffered => input.len().max(sending.output.1),
            Method::Direct { .. } => input.len(),
            Method::Neither => 0,
        };
        let extra = list_length + system_length;
        let transfer = |back| {
            Arc::new(Transfer {
                file: std::sync::Mutex::new(Some(sending.file.clone())),
                process: Arc::clone(sending.process),
                mode: sending.mode,
                back,
                major: sending.major,
            })
        };
        let stack_size = field!(device, DEVICE_OBJECT, StackSize).read();
        // Where the system buffer lies is only known when the request is made, which in turn wants to know.
        let made = irp::create_with(thread, stack_size, extra, sending.process.id(), |extra| {
            let back = match pages.take() {
                Some(pages) => {
                    pages.describe(Raw::at(extra));
                    Back::Direct { pages, list: extra }
                }
                None if method == Method::Buffered && !sending.is_write() && sending.output.1 > 0 => {
                    Back::Buffered { system: extra, to: sending.output }
                }
                None => Back::Nothing,
            };
            transfer(back)
        });
        if let Some(pages) = pages {
            // No memory for the request.
            pages.unlock(thread.machine());
        }
        let (irp, extra, waiter) = made.ok_or(NtStatus::INSUFFICIENT_RESOURCES)?;
        if system_length > 0 {
            let system = Raw::<u8>::at(extra + list_length);
            system.fill(POISON, system_length);
            system.write_bytes(input);
            field!(irp, IRP, SystemBuffer).write(system.cast().pointer());
            field!(irp, IRP, Flags).write(IrpFlags::BUFFERED_IO.bits());
        }
        if list_length > 0 {
            if sending.mode == KERNEL_MODE {
                direct::describe_kernel(Raw::at(extra), described);
            }
            field!(irp, IRP, MdlAddress).write(Raw::at(extra).pointer());
        }
        sending.fill(irp, method);
        Ok(Self { irp, waiter })
    }
}

impl Sending<'_> {
    fn fill(&self, irp: Raw<IRP>, method: Method) {
        let file = Raw::<FILE_OBJECT>::at(self.file.body());
        let user = if self.is_write() { self.input.0 } else { self.output.0 };
        if method == Method::Neither || !self.is_write() {
            field!(irp, IRP, UserBuffer).write(Raw::at(user).pointer());
        }
        field!(irp, IRP, RequestorMode).write(self.mode);
        field!(irp, IRP, OriginalFileObject).write(file.pointer());
        let location = irp::next_location(irp);
        field!(location, IO_STACK_LOCATION, MajorFunction).write(self.major);
        field!(location, IO_STACK_LOCATION, MinorFunction).write(self.minor);
        field!(location, IO_STACK_LOCATION, FileObject).write(file.pointer());
        field!(location, IO_STACK_LOCATION, Parameters).write(self.parameters);
    }
}

impl Transfer {
    /// The request is complete: hands the data back. What its sender learns.
    pub(super) fn finish(&self, thread: &Thread, outcome: IO_STATUS_BLOCK) -> IO_STATUS_BLOCK {
        let mut outcome = outcome;
        match &self.back {
            Back::Nothing => {}
            &Back::Buffered { system, to } => {
                // Errors copy nothing back; warnings, such as STATUS_BUFFER_OVERFLOW, do.
                if !outcome.Status.is_error() {
                    self.check_information(thread, outcome.Information, to.1);
                    let count = outcome.Information.min(to.1);
                    if self.copy_out(to.0, &Raw::<u8>::at(system).read_bytes(count)).is_err() {
                        outcome.Status = NtStatus::ACCESS_VIOLATION;
                    }
                }
            }
            Back::Direct { pages, list } => {
                thread.machine().nt.mappings().unmap_all(thread.machine(), Raw::at(*list));
                pages.unlock(thread.machine());
            }
        }
        outcome
    }

    /// Lets go of the file, then tells who waits: what comes next finds the file closed. Its driver may hear of the
    /// end, at `PASSIVE_LEVEL`.
    pub(super) fn leave(&self, thread: &Thread, told: impl FnOnce() + Send + 'static) {
        let file = self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        if thread.irql() == nt_types::PASSIVE_LEVEL || file.is_none() {
            drop(file);
            return told();
        }
        let machine = Arc::clone(thread.machine());
        std::thread::spawn(move || {
            Thread::enter(&machine, |_| drop(file));
            told();
        });
    }

    /// The I/O manager of Windows copies what `Information` says without looking further.
    fn check_information(&self, thread: &Thread, information: usize, length: usize) {
        if information <= length {
            return;
        }
        let name = request::name_of(self.major);
        let message = format!(
            "{name} is completed with IoStatus.Information = {information}, but the output buffer has {length} bytes: \
             on Windows, what lies behind the system buffer is copied out"
        );
        thread.machine().record(thread.finding(Rule::BadArgument, message, None));
    }

    fn copy_out(&self, address: usize, bytes: &[u8]) -> Result<(), NtStatus> {
        if self.mode == KERNEL_MODE {
            Raw::<u8>::at(address).write_bytes(bytes);
            return Ok(());
        }
        self.process.memory().write(address, bytes)
    }
}
