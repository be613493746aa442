//! The request that fetches a function table.

use super::consumer::Consumer;
use super::functions;
use crate::state;
use core::slice;
use ndis_firmware::interface::{
    FWBROKER_INTERFACE, FWBROKER_INTERFACE_VERSION_1, FWBROKER_QUERY_INTERFACE,
    IOCTL_INTERNAL_FWBROKER_QUERY_INTERFACE, MAX_CONSUMER_BYTES,
};
use nt_types::{IRP, IoStackDeviceIoControl, KERNEL_MODE, NtStatus, UNICODE_STRING};

/// Handles the request in `irp`: fills the caller's table and returns its size in bytes.
///
/// # Errors
/// Those of [`IOCTL_INTERNAL_FWBROKER_QUERY_INTERFACE`].
///
/// # Safety
/// `irp` is an internal control request that is ours to complete. As with every such request, its buffers are what the
/// sending driver says they are.
pub(super) unsafe fn interface(irp: *mut IRP) -> Result<usize, NtStatus> {
    // SAFETY: the IRP is ours.
    let irp = unsafe { &*irp };
    // SAFETY: the I/O manager sets the current stack location of an IRP that it dispatches.
    let stack = unsafe { &*irp.CurrentStackLocation };
    // SAFETY: every member of the union is plain data, and this is the one of control requests.
    let parameters = unsafe { stack.Parameters.DeviceIoControl };
    if parameters.IoControlCode != IOCTL_INTERNAL_FWBROKER_QUERY_INTERFACE || irp.RequestorMode != KERNEL_MODE {
        return Err(NtStatus::INVALID_DEVICE_REQUEST);
    }
    // SAFETY: the sender's input is valid for its length (this function's contract).
    let query = unsafe { input(&parameters) }?;
    if irp.UserBuffer.is_null() {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    if (parameters.OutputBufferLength as usize) < size_of::<FWBROKER_INTERFACE>() {
        return Err(NtStatus::BUFFER_TOO_SMALL);
    }
    // SAFETY: the string belongs to the sender's input (this function's contract).
    let name = unsafe { consumer_name(&query.Consumer) }?;
    let call = state::enter().ok_or(NtStatus::SHUTDOWN_IN_PROGRESS)?;
    let consumer = Consumer::register(&call, name).map_err(broker::Error::status)?;
    let table = functions::table(consumer.context());
    // SAFETY: the sender's output holds a table, as its length says; alignment is not promised.
    unsafe { irp.UserBuffer.cast::<FWBROKER_INTERFACE>().write_unaligned(table) };
    Ok(size_of::<FWBROKER_INTERFACE>())
}

/// What the sender asks for, checked.
///
/// # Safety
/// `Type3InputBuffer` is NULL or kernel memory of `InputBufferLength` bytes.
unsafe fn input(parameters: &IoStackDeviceIoControl) -> Result<FWBROKER_QUERY_INTERFACE, NtStatus> {
    let length = parameters.InputBufferLength as usize;
    let input = parameters.Type3InputBuffer;
    // Size and version come first in every version, whatever follows.
    if input.is_null() || length < size_of::<[u16; 2]>() {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    // SAFETY: at least four bytes, checked above.
    let [size, version] = unsafe { input.cast::<[u16; 2]>().read_unaligned() };
    if version != FWBROKER_INTERFACE_VERSION_1 {
        return Err(NtStatus::REVISION_MISMATCH);
    }
    let expected = size_of::<FWBROKER_QUERY_INTERFACE>();
    if length < expected || usize::from(size) != expected {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    // SAFETY: at least as long as the structure, checked above; plain data.
    let query = unsafe { input.cast::<FWBROKER_QUERY_INTERFACE>().read_unaligned() };
    if query.Flags != 0 { Err(NtStatus::INVALID_PARAMETER) } else { Ok(query) }
}

/// The characters of the consumer's name.
///
/// # Safety
/// The string is valid, and lives as long as the reference to it.
unsafe fn consumer_name(name: &UNICODE_STRING) -> Result<&[u16], NtStatus> {
    let well_formed = !name.Buffer.is_null()
        && name.Buffer.is_aligned()
        && (2..=MAX_CONSUMER_BYTES).contains(&name.Length)
        && name.Length.is_multiple_of(2)
        && name.Length <= name.MaximumLength;
    if !well_formed {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    // SAFETY: not NULL, aligned, and of this length by the caller's word.
    Ok(unsafe { slice::from_raw_parts(name.Buffer, name.chars()) })
}
