//! What drivers learn of the processor beyond its number: how it is built, what it runs, and when one is added.
//!
//! The simulated computer has one processor and gets no more: routines that want to hear of new ones are called for the one
//! that is there, if they ask for that. Its clock ticks as finely as Linux lets it, whatever resolution is asked for.

use nt_types::{DISPATCH_LEVEL, NtStatus};

use super::irql::raise;
use super::raw::Raw;
use super::registered::Kind;
use super::threads::thread_at;
use crate::cpu::bridge::call_out;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    KeRegisterProcessorChangeCallback(max 0, fails NULL) = register_change;
    KeDeregisterProcessorChangeCallback(max 0) = deregister_change;
    KeQueryLogicalProcessorRelationship(max 2) = query_relationship;
    KeQueryDpcWatchdogInformation(max 31) = query_dpc_watchdog;
    KeIsExecutingDpc(max 31) = is_executing_dpc;
    KeSetIdealProcessorThread(max 2) = set_ideal_processor;
    KeSaveFloatingPointState(max 2, fails RESOURCES) = save_floating_point;
    KeRestoreFloatingPointState(max 2) = restore_floating_point;
    KeGenericCallDpc(max 1) = generic_call_dpc;
    KeSignalCallDpcDone(max 2) = signal_call_dpc_done;
    KeSignalCallDpcSynchronize(max 2) = signal_call_dpc_synchronize;
    ExSetTimerResolution(max 1) = set_timer_resolution;
}

/// `KE_PROCESSOR_CHANGE_ADD_EXISTING`.
const ADD_EXISTING: u32 = 1;
/// `KE_PROCESSOR_CHANGE_NOTIFY_STATE`.
const ADD_START: u32 = 0;
const ADD_COMPLETE: u32 = 1;

extern "efiapi" fn register_change(routine: usize, context: usize, flags: u32) -> usize {
    type Routine = unsafe extern "efiapi" fn(usize, usize, usize);
    let call = Call::enter();
    if routine == 0 {
        call.stop(Rule::BadArgument, "CallbackFunction is NULL");
    }
    let Some(handle) = call.machine().nt.arena().take(1) else { return 0 };
    call.machine().nt.registered().add(&call, Kind::ProcessorChange, handle, routine, context);
    if flags & ADD_EXISTING == 0 {
        return handle;
    }
    // SAFETY: the address of the driver's PPROCESSOR_CALLBACK_FUNCTION.
    let routine = unsafe { std::mem::transmute::<usize, Routine>(routine) };
    for state in [ADD_START, ADD_COMPLETE] {
        // KE_PROCESSOR_CHANGE_NOTIFY_CONTEXT: state, number, status, and the number with its group.
        let mut change = [state, 0, 0, 0];
        let mut status = NtStatus::SUCCESS;
        let arguments = (context, Raw::of(&raw mut change).address(), Raw::of(&raw mut status).address());
        // SAFETY: it gets its context, and what its page says of the change.
        let body = || unsafe { routine(arguments.0, arguments.1, arguments.2) };
        if call.thread().call_driver(call.driver(), "ProcessorCallback", 0, body).is_err() {
            call.thread().leave_if_stopped();
        }
        // The page: a processor for which the routine failed is left out of the second round.
        if !Raw::<NtStatus>::at(arguments.2).read().is_success() {
            break;
        }
    }
    handle
}

extern "efiapi" fn deregister_change(handle: usize) {
    let call = Call::enter();
    if call.machine().nt.registered().remove(Kind::ProcessorChange, handle).is_none() {
        call.stop(Rule::BadState, format!("{handle:#x} is no registration: deregistered already, or never made"));
    }
    call.machine().nt.arena().release(handle, 1);
}

/// `LOGICAL_PROCESSOR_RELATIONSHIP`.
mod relation {
    pub(super) const CORE: u32 = 0;
    pub(super) const NUMA_NODE: u32 = 1;
    pub(super) const CACHE: u32 = 2;
    pub(super) const PACKAGE: u32 = 3;
    pub(super) const GROUP: u32 = 4;
    pub(super) const DIE: u32 = 5;
    pub(super) const NUMA_NODE_EX: u32 = 6;
    pub(super) const MODULE: u32 = 7;
    pub(super) const ALL: u32 = 0xFFFF;
}

/// One `SYSTEM_LOGICAL_PROCESSOR_INFORMATION_EX` about the processor; `None` for a relationship that there is not.
fn relationship(relation: u32) -> Option<Vec<u8>> {
    let (length, fields): (usize, &[(usize, u64)]) = match relation {
        // A group count of 1 at 30, behind the 8 bytes that all begin with, and the mask of group 0.
        relation::CORE
        | relation::PACKAGE
        | relation::DIE
        | relation::MODULE
        | relation::NUMA_NODE
        | relation::NUMA_NODE_EX => (48, &[(30, 1), (32, 1)]),
        // Level 1, eight ways, lines of 64 bytes, 32 KiB, data.
        relation::CACHE => (56, &[(8, 0x40_0801), (12, 0x8000), (16, 2), (38, 1), (40, 1)]),
        // Groups there can be and there are; processors of group 0 likewise, and their mask.
        relation::GROUP => (80, &[(8, 0x1_0001), (32, 0x0101), (72, 1)]),
        _ => return None,
    };
    let mut bytes = vec![0; length];
    let head = [(0, u64::from(relation)), (4, length as u64)];
    for (offset, value) in head.iter().chain(fields) {
        // The fields that follow are zero, or written after this one.
        let room = bytes.get_mut(*offset..).unwrap_or_default();
        room.iter_mut().zip(value.to_le_bytes()).for_each(|(byte, value)| *byte = value);
    }
    Some(bytes)
}

extern "efiapi" fn query_relationship(number: Raw<u32>, relation: u32, out: Raw<u8>, length: Raw<u32>) -> NtStatus {
    let _call = Call::enter();
    // PROCESSOR_NUMBER: group, number, and a reserved byte that has to be zero.
    if number.some().is_some_and(|number| number.read() != 0) {
        return NtStatus::INVALID_PARAMETER;
    }
    let wanted = if relation == relation::ALL { 0..=relation::DIE } else { relation..=relation };
    let Some(bytes) = wanted.map(relationship).collect::<Option<Vec<_>>>().map(|all| all.concat()) else {
        return NtStatus::INVALID_PARAMETER;
    };
    let room = length.read() as usize;
    length.write(bytes.len() as u32);
    if out.is_null() || room < bytes.len() {
        return NtStatus::INFO_LENGTH_MISMATCH;
    }
    out.write_bytes(&bytes);
    NtStatus::SUCCESS
}

/// The time-outs of Windows, 20 seconds for one DPC and 2 minutes for DPCs in a row, in ticks of 15.6 ms.
const DPC_TIME_LIMIT: u32 = 1280;
const DPC_WATCHDOG_LIMIT: u32 = 7680;

fn runs_dpc(thread: &Thread) -> bool {
    thread.is_inside("CustomDpc")
}

/// DPCs here do not grow old: what is left of the limits is all of them.
extern "efiapi" fn query_dpc_watchdog(information: Raw<[u32; 5]>) -> NtStatus {
    let call = Call::enter();
    if call.thread().irql() < DISPATCH_LEVEL && !runs_dpc(call.thread()) {
        return NtStatus::UNSUCCESSFUL;
    }
    information.write([DPC_TIME_LIMIT, DPC_TIME_LIMIT, DPC_WATCHDOG_LIMIT, DPC_WATCHDOG_LIMIT, 0]);
    NtStatus::SUCCESS
}

/// No page (general knowledge).
extern "efiapi" fn is_executing_dpc() -> u8 {
    runs_dpc(Call::enter().thread()).into()
}

/// Reserved by its page: the processor that was the thread's ideal one before (general knowledge).
extern "efiapi" fn set_ideal_processor(thread: usize, processor: u8) -> u8 {
    let call = Call::enter();
    thread_at(&call, thread);
    if processor != 0 {
        call.stop(Rule::BadArgument, format!("there is no processor {processor}"));
    }
    0
}

/// What `KFLOATING_SAVE`, one opaque word on x64, says of who saved: thread and IRQL. Linux keeps the registers themselves.
fn saver(call: &Call) -> u32 {
    call.thread().id() << 8 | 0x80 | u32::from(call.thread().irql())
}

extern "efiapi" fn save_floating_point(save: Raw<u32>) -> NtStatus {
    let call = Call::enter();
    save.write(saver(&call));
    NtStatus::SUCCESS
}

extern "efiapi" fn restore_floating_point(save: Raw<u32>) -> NtStatus {
    let call = Call::enter();
    if save.read() != saver(&call) {
        call.stop(
            Rule::BadState,
            "the floating-point state was not saved by this thread at this IRQL, or was restored before",
        );
    }
    save.write(0);
    NtStatus::SUCCESS
}

/// No page: the routine runs at `DISPATCH_LEVEL` on every processor, and tells through its arguments that it is done.
extern "efiapi" fn generic_call_dpc(routine: usize, context: usize) {
    type Routine = unsafe extern "efiapi" fn(usize, usize, usize, usize);
    let call = Call::enter();
    let before = raise(&call, DISPATCH_LEVEL);
    let mut left = 1_u32;
    let left = Raw::of(&raw mut left);
    // SAFETY: the address of the caller's PKDEFERRED_ROUTINE.
    let routine = unsafe { std::mem::transmute::<usize, Routine>(routine) };
    let count = left.address();
    // SAFETY: it gets its context, and twice the count that the two routines below know.
    let (call, ()) = call_out(call, "GenericCallDpc", || unsafe { routine(0, context, count, count) });
    if left.read() != 0 {
        call.stop(Rule::BadState, "the routine returned without KeSignalCallDpcDone");
    }
    call.thread().set_irql(before);
}

extern "efiapi" fn signal_call_dpc_done(count: Raw<u32>) {
    let call = Call::enter();
    if count.read() == 0 {
        call.stop(Rule::BadState, "KeSignalCallDpcDone is called twice");
    }
    count.write(count.read() - 1);
}

/// Waits for the other processors, of which there are none; TRUE on one of all.
extern "efiapi" fn signal_call_dpc_synchronize(_count: Raw<u32>) -> u8 {
    let _call = Call::enter();
    1
}

/// The system's timer resolution, and the finest that there is, in units of 100 ns.
const DEFAULT_RESOLUTION: u32 = 156_250;
const FINEST_RESOLUTION: u32 = 5_000;

extern "efiapi" fn set_timer_resolution(desired: u32, set: u8) -> u32 {
    let call = Call::enter();
    let registered = call.machine().nt.registered();
    let key = std::sync::Arc::as_ptr(call.driver()).addr();
    let current = || {
        let asked = registered.of_kind(Kind::TimerResolution).into_iter().map(|entry| entry.context as u32);
        asked.min().unwrap_or(DEFAULT_RESOLUTION)
    };
    let before = registered.remove(Kind::TimerResolution, key).map(|entry| entry.context as u32);
    if set != 0 {
        // The page: a request for less than what is set already changes nothing.
        let wanted = desired.clamp(FINEST_RESOLUTION, DEFAULT_RESOLUTION).min(before.unwrap_or(u32::MAX));
        registered.add(&call, Kind::TimerResolution, key, call.site().return_address, wanted as usize);
    }
    current()
}

#[cfg(test)]
mod tests;
