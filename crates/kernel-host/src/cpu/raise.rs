//! Exports that raise exceptions, and those that unwind without one.
//!
//! They end in a jump into the driver: each lets go of its [`Call`] first.

use nt_types::NtStatus;

use super::context::{Context, EXCEPTION_NONCONTINUABLE, ExceptionRecord};
use super::dispatch::{dispatch, unwind_to};
use super::registers::NonVolatile;
use crate::ddi::{Call, exports};
use crate::nt::raw::Raw;

exports! { pub(super) TABLE in "ntoskrnl.exe":
    ExRaiseStatus(max 1) = ex_raise_status;
    ExRaiseException(max 1) = rtl_raise_exception;
    ExRaiseAccessViolation(max 1) = ex_raise_access_violation;
    ExRaiseDatatypeMisalignment(max 1) = ex_raise_datatype_misalignment;
    RtlRaiseException(max 31) = rtl_raise_exception;
    RtlUnwind(max 31) = rtl_unwind;
    RtlUnwindEx(max 31) = rtl_unwind;
    _local_unwind(max 31) = local_unwind;
    __jump_unwind(max 31) = local_unwind;
    DbgBreakPoint(max 31) = dbg_break_point;
    DbgBreakPointWithStatus(max 31) = dbg_break_point;
}

extern "efiapi" fn ex_raise_status(status: NtStatus) {
    Call::enter().raise(status)
}

extern "efiapi" fn ex_raise_access_violation() {
    Call::enter().raise(NtStatus::ACCESS_VIOLATION)
}

extern "efiapi" fn ex_raise_datatype_misalignment() {
    Call::enter().raise(NtStatus::DATATYPE_MISALIGNMENT)
}

pub(crate) extern "efiapi" fn dbg_break_point(_status: u32) {
    let call = Call::enter();
    if call.machine().config.debugger {
        return crate::nt::debug::log_breakpoint(call.machine(), call.site().return_address as u64);
    }
    // Without a debugger a breakpoint is an exception like others; here it can be continued.
    let mut record = new_record(NtStatus::BREAKPOINT, 0);
    let mut context = Context::after_call(&leave(call));
    record.address = context.rip;
    dispatch(&mut record, &mut context)
}

/// Lets go of a call; the driver's registers at it.
fn leave(call: Call) -> NonVolatile {
    let registers = call.site().registers;
    drop(call);
    registers
}

fn new_record(code: NtStatus, flags: u32) -> ExceptionRecord {
    ExceptionRecord {
        code: code.0,
        flags,
        nested: std::ptr::null_mut(),
        address: 0,
        parameter_count: 0,
        parameters: [0; 15],
    }
}

extern "efiapi" fn rtl_raise_exception(record: Raw<ExceptionRecord>) {
    let call = Call::enter();
    let mut own = record.read();
    own.parameter_count = own.parameter_count.min(15);
    let mut context = Context::after_call(&leave(call));
    own.address = context.rip;
    // The caller's record says where it was raised, too.
    record.write(own);
    dispatch(&mut own, &mut context)
}

extern "efiapi" fn rtl_unwind(target_frame: u64, target_ip: u64, record: Raw<ExceptionRecord>, result: u64) {
    let call = Call::enter();
    let given = record.some().map(Raw::read);
    let context = Context::after_call(&leave(call));
    let mut record = given.unwrap_or(ExceptionRecord { address: context.rip, ..new_record(NtStatus::UNWIND, 0) });
    unwind_to(target_frame, target_ip, &mut record, result, &context)
}

extern "efiapi" fn local_unwind(target_frame: u64, target_ip: u64) {
    let context = Context::after_call(&leave(Call::enter()));
    let mut record = ExceptionRecord { address: context.rip, ..new_record(NtStatus::UNWIND, EXCEPTION_NONCONTINUABLE) };
    unwind_to(target_frame, target_ip, &mut record, 0, &context)
}
