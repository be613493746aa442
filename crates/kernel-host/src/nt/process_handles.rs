//! Handles to processes: opening one by its id, ending it, asking what it is.
//!
//! Pages: `ntddk/nf-ntddk-zwopenprocess`, `ntddk/nf-ntddk-zwterminateprocess`, `sdk:winternl/nf-winternl-ntqueryinformationprocess`.

use std::sync::Arc;

use nt_types::{CLIENT_ID, HANDLE, KERNEL_MODE, NtStatus, OBJECT_ATTRIBUTES, ObjectFlags};

use super::current_process;
use super::ob::ObjectRef;
use super::ob_exports::{make_handle, open_entry};
use super::ob_named::put_name;
use super::processes::process_of_handle;
use super::raw::Raw;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Inner;
use crate::process::Process;
use crate::process::others;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    ZwOpenProcess(max 0, fails RESOURCES) = zw_open_process;
    NtOpenProcess(max 0, fails RESOURCES) = nt_open_process;
    ZwTerminateProcess(max 0) = zw_terminate_process;
    ZwQueryInformationProcess(max 0) = zw_query_information_process;
    NtQueryInformationProcess(max 0) = zw_query_information_process;
}

pub(super) extern "efiapi" fn zw_open_process(
    handle: Raw<usize>,
    access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    client: Raw<CLIENT_ID>,
) -> NtStatus {
    open(&Call::enter(), handle, access, attributes, client, false)
}

/// As the Zw form, with the caller's previous mode: in a program's thread, the program's rights count.
pub(super) extern "efiapi" fn nt_open_process(
    handle: Raw<usize>,
    access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    client: Raw<CLIENT_ID>,
) -> NtStatus {
    let call = Call::enter();
    let checks = call.thread().own_process().is_some();
    open(&call, handle, access, attributes, client, checks)
}

fn open(
    call: &Call,
    handle: Raw<usize>,
    access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    client: Raw<CLIENT_ID>,
    checks: bool,
) -> NtStatus {
    if attributes.is_null() {
        call.stop(Rule::BadArgument, "ObjectAttributes is NULL");
    }
    let attributes = attributes.read();
    if !attributes.ObjectName.is_null() || client.is_null() {
        return NtStatus::INVALID_PARAMETER_MIX;
    }
    let checks = checks || attributes.Attributes & ObjectFlags::FORCE_ACCESS_CHECK.bits() != 0;
    let opened = find(call.machine(), client.read()).and_then(|(process, object)| {
        call.detail(process.image_name());
        let subject = checks.then(|| current_process(call));
        Ok((others::granted(subject.as_deref(), &process, access)?, object))
    });
    match opened {
        Ok((granted, object)) => {
            let made = make_handle(call, &object, granted, attributes.Attributes);
            call.thread().leave_if_stopped();
            handle.write(made);
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

/// The process that a client id names, by its thread where it has one.
fn find(machine: &Arc<Inner>, client: CLIENT_ID) -> Result<(Arc<Process>, ObjectRef), NtStatus> {
    let (process_id, thread_id) = (client.UniqueProcess.addr() as u64 & !3, client.UniqueThread.addr() as u64 & !3);
    let owner = match thread_id {
        0 => process_id,
        thread => super::threads::process_id_of(machine, thread).ok_or(NtStatus::INVALID_CID)?,
    };
    if process_id != 0 && process_id != owner {
        return Err(NtStatus::INVALID_CID);
    }
    let process = machine.nt.process(owner).ok_or(NtStatus::INVALID_CID)?;
    let object = machine.nt.objects().lookup(process.object()).ok_or(NtStatus::INVALID_CID)?;
    Ok((process, object))
}

pub(super) extern "efiapi" fn zw_terminate_process(handle: HANDLE, status: NtStatus) -> NtStatus {
    let call = Call::enter();
    let process = match process_of_handle(&call, handle) {
        Ok(process) => process,
        Err(status) => return status,
    };
    if process.is_system() {
        call.stop(Rule::BugCheck, "bug check 0xEF (CRITICAL_PROCESS_DIED): the system process is terminated");
    }
    if Arc::ptr_eq(&process, &current_process(&call)) {
        call.stop(
            Rule::NotImplemented,
            "the current process terminates itself: the call does not return, and abandons the driver's stack",
        );
    }
    if process.has_exited() {
        return NtStatus::PROCESS_IS_TERMINATING;
    }
    process.terminate_with(status);
    call.thread().leave_if_stopped();
    NtStatus::SUCCESS
}

/// `PROCESSINFOCLASS` numbers that are answered.
mod class {
    pub(super) const BASIC: i32 = 0;
    pub(super) const TIMES: i32 = 4;
    pub(super) const DEBUG_PORT: i32 = 7;
    pub(super) const HANDLE_COUNT: i32 = 20;
    pub(super) const SESSION: i32 = 24;
    pub(super) const WOW64: i32 = 26;
    pub(super) const IMAGE_FILE_NAME: i32 = 27;
    pub(super) const BREAK_ON_TERMINATION: i32 = 29;
    pub(super) const COMMAND_LINE: i32 = 60;
}

pub(super) extern "efiapi" fn zw_query_information_process(
    handle: HANDLE,
    class: i32,
    buffer: Raw<u8>,
    length: u32,
    returned: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    let answer = open_entry(&call, handle.addr(), 0, Some("Process"), KERNEL_MODE).and_then(|_| {
        let process = process_of_handle(&call, handle)?;
        answer(&process, class)
    });
    match answer {
        Ok(Answer::Bytes(bytes)) if bytes.len() != length as usize => {
            returned.write_if_some(bytes.len() as u32);
            NtStatus::INFO_LENGTH_MISMATCH
        }
        Ok(Answer::Bytes(bytes)) => {
            returned.write_if_some(bytes.len() as u32);
            buffer.write_bytes(&bytes);
            NtStatus::SUCCESS
        }
        Ok(Answer::Text(text)) => put_name(&text, buffer.cast(), length, returned),
        Err(status) => status,
    }
}

/// What a class is answered with: a structure of exactly that length, or a string that is as long as it is.
enum Answer {
    Bytes(Vec<u8>),
    Text(String),
}

/// `NORMAL_BASE_PRIORITY`.
const NORMAL_PRIORITY: u64 = 8;

fn answer(process: &Process, class: i32) -> Result<Answer, NtStatus> {
    let numbers = |numbers: &[u64]| Answer::Bytes(numbers.iter().flat_map(|number| number.to_le_bytes()).collect());
    let number = |number: u32| Answer::Bytes(number.to_le_bytes().to_vec());
    // Simulated programs have no environment block, are 64-bit, and are not debugged.
    Ok(match class {
        class::BASIC => {
            let status = u64::from(process.exit_status().bits());
            numbers(&[status, 0, 1, NORMAL_PRIORITY, process.id(), process.parent_id()])
        }
        class::TIMES => numbers(&[process.created().cast_unsigned(), process.exit_time().cast_unsigned(), 0, 0]),
        class::DEBUG_PORT | class::WOW64 => numbers(&[0]),
        class::HANDLE_COUNT => number(process.handles().len() as u32),
        class::SESSION => number(u32::from(!process.is_system())),
        class::BREAK_ON_TERMINATION => number(u32::from(process.is_system())),
        class::IMAGE_FILE_NAME | class::COMMAND_LINE => Answer::Text(process.image_path().to_owned()),
        _ => return Err(NtStatus::INVALID_INFO_CLASS),
    })
}

#[cfg(test)]
mod tests;
