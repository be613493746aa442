//! Devices as programs use them: open `\\.\Name`, `DeviceIoControl`, read, write, cancel, close.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nt_types::{
    AccessMask, IO_STATUS_BLOCK, IRP_MJ_DEVICE_CONTROL, IRP_MJ_FLUSH_BUFFERS, IRP_MJ_READ, IRP_MJ_WRITE,
    IoStackDeviceIoControl, IoStackParameters, IoStackTransfer, NtStatus, USER_MODE,
};

use super::irp;
use super::transfer::{self, Method, Sending, Sent, Span};
use crate::machine::Inner;
use crate::nt::ob::ObjectRef;
use crate::nt::raw::Raw;
use crate::process::{Placement, Process, Protection, UserBuffer};
use crate::thread::Thread;

/// A device that a program has open. Dropping it closes the handle: `IRP_MJ_CLEANUP`, and `IRP_MJ_CLOSE` when no request
/// is under way any more.
#[derive(Debug)]
pub struct ProgramDevice {
    process: Arc<Process>,
    handle: usize,
}

/// A request that a program has started, as with an `OVERLAPPED`. It goes on when this is dropped.
#[derive(Debug)]
pub struct PendingRequest {
    process: Arc<Process>,
    sent: Sent,
    /// The program's memory that the request uses.
    output: UserBuffer,
    _input: UserBuffer,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestOutcome {
    /// `IoStatus.Status`.
    pub status: NtStatus,
    /// `IoStatus.Information`: bytes transferred, mostly.
    pub information: usize,
    /// The first `information` bytes of the output buffer, which may have room for less; all of it after `METHOD_NEITHER` or direct
    /// I/O is in the program's memory as well.
    pub output: Vec<u8>,
}

impl Process {
    /// Opens a device for reading and writing, as `CreateFile` does: `\\.\Name`, or an NT path (`\Device\Name`).
    ///
    /// # Errors
    /// What `NtCreateFile` returns: the name's, the device's descriptor's, or that of the driver's `IRP_MJ_CREATE`.
    pub fn open_device(self: &Arc<Self>, path: &str) -> Result<ProgramDevice, NtStatus> {
        self.open_device_with(path, AccessMask::GENERIC_READ | AccessMask::GENERIC_WRITE | AccessMask::SYNCHRONIZE)
    }

    /// As [`open_device`](Self::open_device), with the rights asked for.
    ///
    /// # Errors
    /// As for [`open_device`](Self::open_device).
    pub fn open_device_with(self: &Arc<Self>, path: &str, access: AccessMask) -> Result<ProgramDevice, NtStatus> {
        let path = path.strip_prefix(r"\\.\").map_or_else(|| path.to_owned(), |name| format!(r"\??\{name}"));
        let handle = self.open(&path, crate::fs::access::map_generic(access).bits())?;
        Ok(ProgramDevice { process: Arc::clone(self), handle })
    }
}

impl ProgramDevice {
    /// The handle's value in the process.
    #[must_use]
    pub fn handle(&self) -> usize {
        self.handle
    }

    /// The process that has it open.
    #[must_use]
    pub fn process(&self) -> &Arc<Process> {
        &self.process
    }

    /// `DeviceIoControl`: sends `input`, waits, and returns what the driver wrote into an output buffer of `output_length` bytes.
    ///
    /// # Errors
    /// The request's status when it is an error; [`start_control`](Self::start_control) also shows warnings.
    pub fn control(&self, code: u32, input: &[u8], output_length: usize) -> Result<Vec<u8>, NtStatus> {
        finished(self.start_control(code, input, output_length)?)
    }

    /// Starts a `DeviceIoControl`. The buffers are the program's, each with nothing accessible behind its end.
    ///
    /// # Errors
    /// Why it was not sent: `STATUS_ACCESS_DENIED` when the code wants another access than the handle has.
    pub fn start_control(&self, code: u32, input: &[u8], output_length: usize) -> Result<PendingRequest, NtStatus> {
        let input = self.process.buffer(input)?;
        let output = self.process.allocate(output_length, Protection::ReadWrite, Placement::Aligned)?;
        let spans = ((input.address(), input.len()), (output.address(), output.len()));
        let sent = self.send_control(code, spans.0, spans.1)?;
        Ok(PendingRequest { process: Arc::clone(&self.process), sent, output, _input: input })
    }

    /// `DeviceIoControl` with addresses of the caller's choice, good or bad, and waits.
    ///
    /// # Errors
    /// As for [`start_control`](Self::start_control); `STATUS_ACCESS_VIOLATION` for a buffer that the I/O manager copies
    /// and cannot.
    pub fn control_at(&self, code: u32, input: Span, output: Span) -> Result<IO_STATUS_BLOCK, NtStatus> {
        let sent = self.send_control(code, input, output)?;
        self.in_kernel(|machine| sent.waiter.wait(machine).ok_or(NtStatus::UNSUCCESSFUL))
    }

    fn send_control(&self, code: u32, input: Span, output: Span) -> Result<Sent, NtStatus> {
        let mut parameters = IoStackDeviceIoControl::new(code, input.1 as u32, output.1 as u32);
        parameters.Type3InputBuffer = Raw::at(input.0).pointer();
        let file = self.object(access_of(code))?;
        self.send(&Sending {
            file: &file,
            process: &self.process,
            mode: USER_MODE,
            major: IRP_MJ_DEVICE_CONTROL,
            minor: 0,
            parameters: IoStackParameters { DeviceIoControl: parameters },
            method: Some(Method::of_code(code)),
            input,
            output,
        })
    }

    /// Reads up to `length` bytes at `offset`.
    ///
    /// # Errors
    /// `STATUS_ACCESS_DENIED` without the right, and the driver's.
    pub fn read(&self, offset: i64, length: usize) -> Result<Vec<u8>, NtStatus> {
        finished(self.start_read(offset, length)?)
    }

    /// Starts a read.
    ///
    /// # Errors
    /// `STATUS_ACCESS_DENIED` without the right.
    pub fn start_read(&self, offset: i64, length: usize) -> Result<PendingRequest, NtStatus> {
        self.start_transfer(IRP_MJ_READ, offset, &[], length)
    }

    /// Writes `bytes` at `offset`; how many the driver took.
    ///
    /// # Errors
    /// `STATUS_ACCESS_DENIED` without the right, and the driver's.
    pub fn write(&self, offset: i64, bytes: &[u8]) -> Result<usize, NtStatus> {
        let outcome = self.start_transfer(IRP_MJ_WRITE, offset, bytes, 0)?.finish()?;
        outcome.status.ok()?;
        Ok(outcome.information)
    }

    fn start_transfer(&self, major: u8, offset: i64, bytes: &[u8], length: usize) -> Result<PendingRequest, NtStatus> {
        let right = if major == IRP_MJ_READ { AccessMask::FILE_READ_DATA } else { AccessMask::FILE_WRITE_DATA };
        let file = self.object(right)?;
        let input = self.process.buffer(bytes)?;
        let output = self.process.allocate(length, Protection::ReadWrite, Placement::Aligned)?;
        let transfer = IoStackTransfer::new(bytes.len().max(length) as u32, offset);
        let sent = self.send(&Sending {
            file: &file,
            process: &self.process,
            mode: USER_MODE,
            major,
            minor: 0,
            parameters: if major == IRP_MJ_READ {
                IoStackParameters { Read: transfer }
            } else {
                IoStackParameters { Write: transfer }
            },
            method: None,
            input: (input.address(), input.len()),
            output: (output.address(), output.len()),
        })?;
        Ok(PendingRequest { process: Arc::clone(&self.process), sent, output, _input: input })
    }

    /// `FlushFileBuffers`.
    ///
    /// # Errors
    /// The driver's.
    pub fn flush(&self) -> Result<(), NtStatus> {
        let file = self.object(AccessMask::empty())?;
        let sending = Sending {
            file: &file,
            process: &self.process,
            mode: USER_MODE,
            major: IRP_MJ_FLUSH_BUFFERS,
            minor: 0,
            parameters: IoStackParameters { Others: [std::ptr::null_mut(); 4] },
            method: Some(Method::Neither),
            input: (0, 0),
            output: (0, 0),
        };
        self.enter(|thread| transfer::send_and_wait(thread, &sending))?.Status.ok()
    }

    /// `CancelIoEx` without an `OVERLAPPED`: cancels all requests of this file. How many there were.
    #[expect(clippy::must_use_candidate, reason = "cancelling is the point")]
    pub fn cancel(&self) -> usize {
        let Ok(file) = self.object(AccessMask::empty()) else { return 0 };
        self.enter(|thread| {
            let requests = irp::of_file(thread.machine(), file.body());
            for irp in &requests {
                super::cancel::cancel(thread, Raw::at(*irp));
            }
            requests.len()
        })
    }

    fn send(&self, sending: &Sending<'_>) -> Result<Sent, NtStatus> {
        self.enter(|thread| transfer::send(thread, sending))
    }

    fn object(&self, access: AccessMask) -> Result<ObjectRef, NtStatus> {
        Ok(self.process.handles().reference(self.handle, access.bits(), Some("File"))?.object)
    }

    fn in_kernel<R>(&self, body: impl FnOnce(&Inner) -> Result<R, NtStatus>) -> Result<R, NtStatus> {
        body(&*self.process.machine().ok_or(NtStatus::PROCESS_IS_TERMINATING)?)
    }

    /// Runs kernel code on the program's thread. The machine outlives it: tests hold it.
    fn enter<R>(&self, body: impl FnOnce(&Thread) -> R) -> R {
        enter(&self.process, body)
    }
}

fn enter<R>(process: &Arc<Process>, body: impl FnOnce(&Thread) -> R) -> R {
    let machine = process.machine().expect("a program's devices are used while its machine is there");
    Thread::enter(&machine, |thread| super::file::in_context(thread, Some(process), || body(thread)))
}

/// `FILE_READ_ACCESS` and `FILE_WRITE_ACCESS` of a control code are the file rights of the same numbers.
fn access_of(code: u32) -> AccessMask {
    AccessMask::from_bits_retain(code >> 14 & 3)
}

fn finished(request: PendingRequest) -> Result<Vec<u8>, NtStatus> {
    let outcome = request.finish()?;
    outcome.status.ok()?;
    Ok(outcome.output)
}

impl PendingRequest {
    /// What `NtDeviceIoControlFile` returned at once: `STATUS_PENDING`, or the outcome.
    pub fn returned(&self) -> NtStatus {
        self.sent.status
    }

    /// The outcome, when the request is complete.
    #[must_use]
    pub fn outcome(&self) -> Option<RequestOutcome> {
        let block = self.sent.waiter.outcome()?;
        let mut output = self.output.read().unwrap_or_default();
        output.truncate(block.Information);
        Some(RequestOutcome { status: block.Status, information: block.Information, output })
    }

    /// Waits for the outcome; `None` when it takes longer, or the machine stopped.
    #[must_use]
    pub fn wait(&self, time: Duration) -> Option<RequestOutcome> {
        let machine = self.process.machine()?;
        let deadline = Instant::now() + time;
        self.sent.waiter.wait_until(&machine, Some(deadline))?;
        self.outcome()
    }

    /// Waits as long as it takes.
    ///
    /// # Errors
    /// `STATUS_UNSUCCESSFUL` when the machine stopped.
    pub fn finish(self) -> Result<RequestOutcome, NtStatus> {
        let machine = self.process.machine().ok_or(NtStatus::PROCESS_IS_TERMINATING)?;
        let waited = self.sent.waiter.wait(&machine);
        if machine.stopped().is_some() {
            return Err(NtStatus::UNSUCCESSFUL);
        }
        waited.and_then(|_| self.outcome()).ok_or(NtStatus::UNSUCCESSFUL)
    }

    /// `CancelIoEx`: true when the request was still under way and its driver's cancel routine was called.
    #[expect(clippy::must_use_candidate, reason = "cancelling is the point")]
    pub fn cancel(&self) -> bool {
        if self.sent.waiter.outcome().is_some() {
            return false;
        }
        enter(&self.process, |thread| super::cancel::cancel(thread, Raw::at(self.sent.irp)))
    }
}

impl Drop for ProgramDevice {
    fn drop(&mut self) {
        let Some(machine) = self.process.machine() else { return };
        // Fails only when the process exited meanwhile, which closed the handle.
        Thread::enter(&machine, |thread| {
            super::file::in_context(thread, Some(&self.process), || {
                let _closed = self.process.close_handle(self.handle);
            });
        });
    }
}
