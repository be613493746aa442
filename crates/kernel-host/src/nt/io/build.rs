//! Requests that drivers make for other drivers. Pages: `wdm/nf-wdm-iobuilddeviceiocontrolrequest`,
//! `wdm/nf-wdm-iobuildsynchronousfsdrequest`, `wdm/nf-wdm-iobuildasynchronousfsdrequest`.

use std::sync::Arc;

use nt_types::{
    DEVICE_OBJECT, DISPATCHER_HEADER, DO_BUFFERED_IO, DO_DIRECT_IO, IO_STACK_LOCATION, IO_STATUS_BLOCK, IRP,
    IRP_MJ_DEVICE_CONTROL, IRP_MJ_FLUSH_BUFFERS, IRP_MJ_INTERNAL_DEVICE_CONTROL, IRP_MJ_PNP, IRP_MJ_READ,
    IRP_MJ_SHUTDOWN, IRP_MJ_WRITE, IoStackDeviceIoControl, IoStackParameters, IoStackTransfer, IrpFlags,
    METHOD_BUFFERED, METHOD_NEITHER,
};

use super::irp::{Kind, create, next_location};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::mdl::direct;
use crate::nt::raw::{Raw, field};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    IoBuildDeviceIoControlRequest(max 1, fails NULL) = io_build_device_io_control_request;
    IoBuildSynchronousFsdRequest(max 1, fails NULL) = io_build_synchronous_fsd_request;
    IoBuildAsynchronousFsdRequest(max 1, fails NULL) = io_build_asynchronous_fsd_request;
}

/// Control codes with this bit set, and not both, move the output through an MDL.
const METHOD_MASK: u32 = 3;

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
    let described = (output, output_length as usize);
    let is_direct = with_system_buffer && method != METHOD_BUFFERED && output_length > 0;
    let list_length = if is_direct { direct::bytes_for(described).next_multiple_of(16) } else { 0 };
    let extra = list_length + if with_system_buffer { buffered as usize } else { 0 };
    let buffered_output = (method == METHOD_BUFFERED && output_length > 0).then_some(output_length as usize);
    let kind = Kind::Synchronous { driver: Arc::clone(call.driver()), buffered_output };
    let stack_size = field!(device, DEVICE_OBJECT, StackSize).read();
    let Some((irp, extra)) = create(call.machine(), kind, stack_size, extra) else { return 0 };
    let location = next_location(irp);
    let major = if internal == 0 { IRP_MJ_DEVICE_CONTROL } else { IRP_MJ_INTERNAL_DEVICE_CONTROL };
    field!(location, IO_STACK_LOCATION, MajorFunction).write(major);
    let mut parameters = IoStackDeviceIoControl::new(code, input_length, output_length);
    if with_system_buffer && buffered > 0 {
        let system_buffer = extra + list_length;
        Raw::<u8>::at(system_buffer).write_bytes(&Raw::<u8>::at(input).read_bytes(input_length as usize));
        field!(irp, IRP, SystemBuffer).write(Raw::at(system_buffer).pointer());
        let input_flag = if buffered_output.is_some() { IrpFlags::SYNCHRONOUS_PAGING_IO } else { IrpFlags::empty() };
        field!(irp, IRP, Flags).write((IrpFlags::BUFFERED_IO | input_flag).bits());
    }
    if method == METHOD_NEITHER {
        parameters.Type3InputBuffer = Raw::at(input).pointer();
    } else if is_direct {
        direct::describe_kernel(Raw::at(extra), described);
        field!(irp, IRP, MdlAddress).write(Raw::at(extra).pointer());
    }
    field!(irp, IRP, UserBuffer).write(Raw::at(output).pointer());
    field!(irp, IRP, UserEvent).write(event.cast().pointer());
    field!(irp, IRP, UserIosb).write(status_block.pointer());
    field!(irp, IRP, Thread).write(call.thread().object().cast_mut());
    field!(location, IO_STACK_LOCATION, Parameters).write(IoStackParameters { DeviceIoControl: parameters });
    irp.address()
}

pub(super) extern "efiapi" fn io_build_synchronous_fsd_request(
    major: u32,
    device: Raw<DEVICE_OBJECT>,
    buffer: usize,
    length: u32,
    offset: Raw<i64>,
    event: Raw<DISPATCHER_HEADER>,
    status_block: Raw<IO_STATUS_BLOCK>,
) -> usize {
    let call = Call::enter();
    let driver = Arc::clone(call.driver());
    let buffered = field!(device, DEVICE_OBJECT, Flags).read() & DO_BUFFERED_IO != 0;
    let back = major == u32::from(IRP_MJ_READ) && buffered && length > 0;
    let kind = Kind::Synchronous { driver, buffered_output: back.then_some(length as usize) };
    let Some(irp) = transfer(&call, kind, (major, device), (buffer, length), offset) else { return 0 };
    field!(irp, IRP, UserEvent).write(event.cast().pointer());
    field!(irp, IRP, UserIosb).write(status_block.pointer());
    irp.address()
}

/// Its maker frees the request in a completion routine, and the MDL with it.
pub(super) extern "efiapi" fn io_build_asynchronous_fsd_request(
    major: u32,
    device: Raw<DEVICE_OBJECT>,
    buffer: usize,
    length: u32,
    offset: Raw<i64>,
    status_block: Raw<IO_STATUS_BLOCK>,
) -> usize {
    let call = Call::enter();
    let kind = Kind::Allocated(Arc::clone(call.driver()));
    let Some(irp) = transfer(&call, kind, (major, device), (buffer, length), offset) else { return 0 };
    field!(irp, IRP, UserIosb).write(status_block.pointer());
    irp.address()
}

/// A read, write, flush, shutdown or Plug and Play request with the caller's kernel buffer.
fn transfer(
    call: &Call,
    kind: Kind,
    (major, device): (u32, Raw<DEVICE_OBJECT>),
    (buffer, length): (usize, u32),
    offset: Raw<i64>,
) -> Option<Raw<IRP>> {
    let allowed = [IRP_MJ_READ, IRP_MJ_WRITE, IRP_MJ_FLUSH_BUFFERS, IRP_MJ_SHUTDOWN, IRP_MJ_PNP].map(u32::from);
    if !allowed.contains(&major) {
        call.stop(Rule::BadArgument, format!("major function {major:#x} is none that this routine builds"));
    }
    let moves_data = major == u32::from(IRP_MJ_READ) || major == u32::from(IRP_MJ_WRITE);
    if moves_data && (offset.is_null() || (buffer == 0 && length > 0)) {
        call.stop(Rule::BadArgument, "a read or write needs a buffer and a StartingOffset");
    }
    let flags = field!(device, DEVICE_OBJECT, Flags).read();
    let buffered = moves_data && flags & DO_BUFFERED_IO != 0 && length > 0;
    let described = (buffer, length as usize);
    let is_direct = moves_data && !buffered && flags & DO_DIRECT_IO != 0 && length > 0;
    let extra = match (buffered, is_direct) {
        (true, _) => length as usize,
        (false, true) => direct::bytes_for(described),
        (false, false) => 0,
    };
    let stack_size = field!(device, DEVICE_OBJECT, StackSize).read();
    let (irp, extra) = create(call.machine(), kind, stack_size, extra)?;
    let location = next_location(irp);
    field!(location, IO_STACK_LOCATION, MajorFunction).write(major as u8);
    if moves_data {
        let parameters = IoStackTransfer::new(length, offset.read());
        field!(location, IO_STACK_LOCATION, Parameters).write(IoStackParameters { Read: parameters });
        field!(irp, IRP, UserBuffer).write(Raw::at(buffer).pointer());
    }
    if buffered {
        let system = Raw::<u8>::at(extra);
        if major == u32::from(IRP_MJ_WRITE) {
            system.write_bytes(&Raw::<u8>::at(buffer).read_bytes(length as usize));
        }
        field!(irp, IRP, SystemBuffer).write(system.cast().pointer());
        field!(irp, IRP, Flags).write(IrpFlags::BUFFERED_IO.bits());
    } else if is_direct {
        direct::describe_kernel(Raw::at(extra), described);
        field!(irp, IRP, MdlAddress).write(Raw::at(extra).pointer());
    }
    field!(irp, IRP, Thread).write(call.thread().object().cast_mut());
    Some(irp)
}
