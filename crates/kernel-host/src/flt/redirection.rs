//! Whether operations can be sent on to another volume: FltIsIoRedirectionAllowed and its relatives.

use fltmgr::raw::FLT_CALLBACK_DATA;
use nt_types::{BOOLEAN, NtStatus};

use super::flight::Flight;
use super::object;
use super::operation::Kind;
use crate::ddi::{Call, exports};
use crate::nt::raw::Raw;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltIsIoRedirectionAllowed(max 2) = flt_is_io_redirection_allowed;
    FltIsIoRedirectionAllowedForOperation(max 2) = flt_is_io_redirection_allowed_for_operation;
    FltAdjustDeviceStackSizeForIoRedirection(max 2) = flt_adjust_device_stack_size_for_io_redirection;
}

extern "efiapi" fn flt_is_io_redirection_allowed(source: usize, target: usize, allowed: Raw<BOOLEAN>) -> NtStatus {
    let call = Call::enter();
    let _source = object::instance(&call, source);
    let _target = object::instance(&call, target);
    // All volumes of a machine have device stacks of the same depth, so a packet for one has room for any other.
    allowed.write(1);
    NtStatus::SUCCESS
}

extern "efiapi" fn flt_is_io_redirection_allowed_for_operation(
    data: Raw<FLT_CALLBACK_DATA>,
    target: usize,
    this: Raw<BOOLEAN>,
    all: Raw<BOOLEAN>,
) -> NtStatus {
    let call = Call::enter();
    let flight = Flight::of(&call, data);
    let _target = object::instance(&call, target);
    // Only packets are redirected: a direct call was made to the one file system that serves it.
    this.write((flight.kind == Kind::Irp).into());
    all.write_if_some(1);
    NtStatus::SUCCESS
}

extern "efiapi" fn flt_adjust_device_stack_size_for_io_redirection(
    source: usize,
    target: usize,
    modified: Raw<BOOLEAN>,
) -> NtStatus {
    let call = Call::enter();
    let _source = object::instance(&call, source);
    let _target = object::instance(&call, target);
    // As above: the stacks are equally deep already.
    modified.write_if_some(0);
    NtStatus::SUCCESS
}
