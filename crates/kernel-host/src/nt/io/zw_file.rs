//! `Zw*File`: drivers' own file and device I/O. Files go through the filters from the top of their volume's stack; devices get
//! IRPs, from kernel mode.
//!
//! Pages: `wdm/nf-wdm-zwreadfile`, `wdm/nf-wdm-zwqueryinformationfile`, `ntddk/nf-ntddk-zwdeviceiocontrolfile` and their neighbours.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use nt_types::{
    FILE_OBJECT, FileObjectFlags, HANDLE, IO_STATUS_BLOCK, IRP_MJ_DEVICE_CONTROL, IRP_MJ_FILE_SYSTEM_CONTROL,
    IRP_MJ_READ, IRP_MJ_WRITE, IoStackDeviceIoControl, IoStackParameters, IoStackTransfer, IrpFlags, KERNEL_MODE,
    NtStatus,
};

use super::file::DeviceFile;
use super::transfer::{self, Method, Sending, Span};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::fs::io::Issue;
use crate::nt::current_process;
use crate::nt::dispatcher::state;
use crate::nt::ob::ObjectRef;
use crate::nt::ob_exports::open_entry;
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    ZwReadFile(max 0, fails IO) = zw_read_file;
    ZwWriteFile(max 0, fails IO) = zw_write_file;
    ZwDeviceIoControlFile(max 0, fails IO) = zw_device_io_control_file;
    ZwFsControlFile(max 0, fails IO) = zw_fs_control_file;
    NtReadFile(max 0, fails IO) = zw_read_file;
    NtWriteFile(max 0, fails IO) = zw_write_file;
    NtDeviceIoControlFile(max 0, fails IO) = zw_device_io_control_file;
    NtFsControlFile(max 0, fails IO) = zw_fs_control_file;
}

/// `ByteOffset` values with a meaning: write to the end, use the current position.
const WRITE_TO_END: i64 = -1;
const USE_POSITION: i64 = -2;

/// A file as a driver's handle gives it.
pub(super) struct Target {
    pub(super) object: ObjectRef,
}

impl Target {
    pub(super) fn of(call: &Call, handle: HANDLE) -> Result<Self, NtStatus> {
        // The pages: special kernel APCs have to get through, or the completion never arrives.
        if call.thread().guarded_regions() > 0 {
            call.stop(Rule::BadState, "file I/O in a guarded region: special kernel APCs are disabled");
        }
        Ok(Self { object: open_entry(call, handle.addr(), 0, Some("File"), KERNEL_MODE)?.object })
    }

    pub(super) fn is_device(&self) -> bool {
        self.object.payload::<DeviceFile>().is_some()
    }

    pub(super) fn raw(&self) -> Raw<FILE_OBJECT> {
        Raw::at(self.object.body())
    }

    pub(super) fn is_synchronous(&self) -> bool {
        field!(self.raw(), FILE_OBJECT, Flags).read() & FileObjectFlags::SYNCHRONOUS_IO.bits() != 0
    }

    /// Where a transfer starts: as given, or at the current position of a file that has one.
    fn offset(&self, given: Raw<i64>, writes: bool) -> Result<i64, NtStatus> {
        match given.some().map(Raw::read) {
            // The end of the file is the file system's to find.
            Some(WRITE_TO_END) if writes && !self.is_device() => Ok(WRITE_TO_END),
            None | Some(USE_POSITION) if self.is_synchronous() => {
                Ok(field!(self.raw(), FILE_OBJECT, CurrentByteOffset).read())
            }
            // A device that is no disk ignores the offset.
            None if self.is_device() => Ok(0),
            Some(offset) if offset >= 0 => Ok(offset),
            _ => Err(NtStatus::INVALID_PARAMETER),
        }
    }

    /// A file of a volume, to issue requests on from the top of its filters.
    pub(super) fn issue<'a>(&'a self, call: &'a Call) -> Result<Issue<'a>, NtStatus> {
        Issue::on(call.machine(), &self.object, None, KERNEL_MODE)
    }

    /// Sends a request to a driver's device. One that is pending is waited for on a synchronous file; on another the status
    /// block and the event are set when it ends.
    pub(super) fn send(&self, call: &Call, request: &Request, wanted: &Wanted) -> NtStatus {
        let process = current_process(call);
        let sending = Sending {
            file: &self.object,
            process: &process,
            mode: KERNEL_MODE,
            major: request.major,
            minor: 0,
            parameters: request.parameters,
            method: request.method,
            input: request.input,
            output: request.output,
        };
        let sent = match transfer::send(call.thread(), &sending) {
            Ok(sent) => sent,
            Err(status) => {
                call.thread().leave_if_stopped();
                return status;
            }
        };
        let machine = call.machine();
        if sent.status == NtStatus::PENDING && !self.is_synchronous() && sent.waiter.outcome().is_none() {
            let (machine, wanted) = (Arc::clone(machine), wanted.clone());
            std::thread::spawn(move || {
                Thread::enter(&machine, |_| {
                    if let Some(outcome) = sent.waiter.wait(&machine) {
                        wanted.finish(outcome);
                        machine.nt.dispatcher().wake();
                    }
                });
            });
            return NtStatus::PENDING;
        }
        let Some(outcome) = sent.waiter.wait(machine) else {
            call.thread().leave_if_stopped();
            return NtStatus::UNSUCCESSFUL;
        };
        wanted.finish(outcome);
        machine.nt.dispatcher().wake();
        outcome.Status
    }
}

pub(super) struct Request {
    pub(super) major: u8,
    pub(super) parameters: IoStackParameters,
    pub(super) method: Option<Method>,
    pub(super) input: Span,
    pub(super) output: Span,
}

/// Whom to tell of the end.
#[derive(Clone)]
pub(super) struct Wanted {
    /// Address of the status block: a number, since another thread may write it.
    pub(super) block: usize,
    pub(super) event: Option<ObjectRef>,
}

impl Wanted {
    pub(super) fn of(call: &Call, event: HANDLE, block: Raw<IO_STATUS_BLOCK>) -> Result<Self, NtStatus> {
        let event = match event.addr() {
            0 => None,
            handle => {
                let object = open_entry(call, handle, 0, Some("Event"), KERNEL_MODE)?.object;
                // Set only when the request ends.
                state(Raw::at(object.body())).store(0, Ordering::Release);
                Some(object)
            }
        };
        Ok(Self { block: block.address(), event })
    }

    fn finish(&self, outcome: IO_STATUS_BLOCK) {
        Raw::at(self.block).write(outcome);
        if let Some(event) = &self.event {
            state(Raw::at(event.body())).store(1, Ordering::Release);
        }
    }
}

/// Ends a request that was carried out at once.
pub(super) fn done(call: &Call, wanted: &Wanted, status: NtStatus, information: usize) -> NtStatus {
    if !status.is_error() {
        wanted.finish(IO_STATUS_BLOCK::new(status, information));
        call.machine().nt.dispatcher().wake();
    }
    call.bytes(information as u64);
    status
}

pub(super) fn settle(result: Result<NtStatus, NtStatus>) -> NtStatus {
    result.unwrap_or_else(|status| status)
}

pub(super) extern "efiapi" fn zw_read_file(
    handle: HANDLE,
    event: HANDLE,
    _apc: usize,
    _apc_context: usize,
    block: Raw<IO_STATUS_BLOCK>,
    buffer: usize,
    length: u32,
    offset: Raw<i64>,
    _key: usize,
) -> NtStatus {
    let call = Call::enter();
    settle(transfer_data(&call, IRP_MJ_READ, (handle, event, block), (buffer, length), offset))
}

pub(super) extern "efiapi" fn zw_write_file(
    handle: HANDLE,
    event: HANDLE,
    _apc: usize,
    _apc_context: usize,
    block: Raw<IO_STATUS_BLOCK>,
    buffer: usize,
    length: u32,
    offset: Raw<i64>,
    _key: usize,
) -> NtStatus {
    let call = Call::enter();
    settle(transfer_data(&call, IRP_MJ_WRITE, (handle, event, block), (buffer, length), offset))
}

fn transfer_data(
    call: &Call,
    major: u8,
    (handle, event, block): (HANDLE, HANDLE, Raw<IO_STATUS_BLOCK>),
    (buffer, length): (usize, u32),
    offset: Raw<i64>,
) -> Result<NtStatus, NtStatus> {
    let target = Target::of(call, handle)?;
    let wanted = Wanted::of(call, event, block)?;
    let writes = major == IRP_MJ_WRITE;
    let offset = target.offset(offset, writes)?;
    if !target.is_device() {
        let issue = target.issue(call)?;
        let request = issue.transfer(major, offset, (buffer, length), IrpFlags::empty());
        let (status, count) = issue.run_transfer(request);
        call.thread().leave_if_stopped();
        return Ok(done(call, &wanted, status, count));
    }
    let transfer = IoStackTransfer::new(length, offset);
    let (nothing, all) = ((0, 0), (buffer, length as usize));
    let request = Request {
        major,
        parameters: if writes { IoStackParameters { Write: transfer } } else { IoStackParameters { Read: transfer } },
        method: None,
        input: if writes { all } else { nothing },
        output: if writes { nothing } else { all },
    };
    let status = target.send(call, &request, &wanted);
    if target.is_synchronous() && !status.is_error() {
        let count = Raw::<IO_STATUS_BLOCK>::at(wanted.block).read().Information;
        field!(target.raw(), FILE_OBJECT, CurrentByteOffset).write(offset.saturating_add_unsigned(count as u64));
    }
    Ok(status)
}

pub(super) extern "efiapi" fn zw_device_io_control_file(
    handle: HANDLE,
    event: HANDLE,
    _apc: usize,
    _apc_context: usize,
    block: Raw<IO_STATUS_BLOCK>,
    code: u32,
    input: usize,
    input_length: u32,
    output: usize,
    output_length: u32,
) -> NtStatus {
    let call = Call::enter();
    let (input, output) = ((input, input_length), (output, output_length));
    settle(control(&call, IRP_MJ_DEVICE_CONTROL, (handle, event, block), code, input, output))
}

pub(super) extern "efiapi" fn zw_fs_control_file(
    handle: HANDLE,
    event: HANDLE,
    _apc: usize,
    _apc_context: usize,
    block: Raw<IO_STATUS_BLOCK>,
    code: u32,
    input: usize,
    input_length: u32,
    output: usize,
    output_length: u32,
) -> NtStatus {
    let call = Call::enter();
    let (input, output) = ((input, input_length), (output, output_length));
    settle(control(&call, IRP_MJ_FILE_SYSTEM_CONTROL, (handle, event, block), code, input, output))
}

fn control(
    call: &Call,
    major: u8,
    (handle, event, block): (HANDLE, HANDLE, Raw<IO_STATUS_BLOCK>),
    code: u32,
    input: (usize, u32),
    output: (usize, u32),
) -> Result<NtStatus, NtStatus> {
    call.detail(format_args!("control code {code:#010x}"));
    let target = Target::of(call, handle)?;
    let wanted = Wanted::of(call, event, block)?;
    if !target.is_device() {
        let (status, information) = target.issue(call)?.run_control(major, code, input, output);
        call.thread().leave_if_stopped();
        return Ok(done(call, &wanted, status, information));
    }
    let mut parameters = IoStackDeviceIoControl::new(code, input.1, output.1);
    parameters.Type3InputBuffer = Raw::at(input.0).pointer();
    let request = Request {
        major,
        parameters: IoStackParameters { DeviceIoControl: parameters },
        method: Some(Method::of_code(code)),
        input: (input.0, input.1 as usize),
        output: (output.0, output.1 as usize),
    };
    Ok(target.send(call, &request, &wanted))
}
