//! Queries, changes and controls that a filter starts below itself, on an open file.

use std::sync::Arc;

use nt_types::{BOOLEAN, FILE_OBJECT, IrpFlags, KERNEL_MODE, NtStatus, UNICODE_STRING};

use super::Instance;
use super::file_io::{require_apcs, target_until_close};
use super::major;
use super::object;
use crate::ddi::{Call, exports};
use crate::fs::io::{Issue, Outcome};
use crate::fs::issue::Listing;
use crate::fs::security::captured;
use crate::fs::stream::Kind as StreamKind;
use crate::nt::raw::Raw;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltQueryInformationFile(max 0, fails IO) = flt_query_information_file;
    FltSetInformationFile(max 0, fails IO) = flt_set_information_file;
    FltQueryVolumeInformationFile(max 0, fails IO) = flt_query_volume_information_file;
    FltQueryDirectoryFile(max 0, fails IO) = flt_query_directory_file;
    FltQueryDirectoryFileEx(max 0, fails IO) = flt_query_directory_file_ex;
    FltQueryEaFile(max 0, fails IO) = flt_query_ea_file;
    FltSetEaFile(max 0, fails IO) = flt_set_ea_file;
    FltQuerySecurityObject(max 0, fails IO) = flt_query_security_object;
    FltSetSecurityObject(max 0, fails IO) = flt_set_security_object;
    FltIsDirectory(max 1) = flt_is_directory;
    FltFlushBuffers(max 0, fails IO) = flt_flush_buffers;
    FltFlushBuffers2(max 0, fails IO) = flt_flush_buffers2;
    FltFsControlFile(max 0, fails IO) = flt_fs_control_file;
    FltDeviceIoControlFile(max 0, fails IO) = flt_device_io_control_file;
}

/// Runs `body` on the file, below the instance.
fn on<R>(call: &Call, instance: usize, file: Raw<FILE_OBJECT>, body: impl FnOnce(&Issue<'_>) -> R) -> R {
    let instance: Arc<Instance> = object::instance(call, instance);
    let (object, open) = target_until_close(call, &instance, file);
    call.detail_of(|| String::from_utf16_lossy(&open.name()));
    let issue =
        Issue { machine: call.machine(), object: &object, open: &open, below: Some(&instance), mode: KERNEL_MODE };
    let result = body(&issue);
    call.thread().leave_if_stopped();
    result
}

/// Status and length of an answer that went into the caller's buffer.
fn answered(call: &Call, (status, count): Outcome, returned: Raw<u32>) -> NtStatus {
    call.bytes(count as u64);
    returned.write_if_some(count as u32);
    status
}

extern "efiapi" fn flt_query_information_file(
    instance: usize,
    file: Raw<FILE_OBJECT>,
    information: usize,
    length: u32,
    class: u32,
    returned: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    require_apcs(&call);
    let outcome = on(&call, instance, file, |issue| {
        let irp = issue.synchronous_irp(major::QUERY_INFORMATION).irp_flags(IrpFlags::BUFFERED_IO).system_buffer();
        issue.run(&irp.information(class, information, length))
    });
    answered(&call, outcome, returned)
}

extern "efiapi" fn flt_set_information_file(
    instance: usize,
    file: Raw<FILE_OBJECT>,
    information: Raw<u8>,
    length: u32,
    class: u32,
) -> NtStatus {
    let call = Call::enter();
    require_apcs(&call);
    let bytes = information.read_bytes(length as usize);
    on(&call, instance, file, |issue| {
        crate::fs::io::set_information(issue.machine, issue.object, issue.below, class, &bytes)
    })
}

extern "efiapi" fn flt_query_volume_information_file(
    instance: usize,
    file: Raw<FILE_OBJECT>,
    information: usize,
    length: u32,
    class: u32,
    returned: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    let outcome = on(&call, instance, file, |issue| {
        let irp = issue.synchronous_irp(major::QUERY_VOLUME_INFORMATION).irp_flags(IrpFlags::BUFFERED_IO);
        issue.run(&irp.system_buffer().information(class, information, length))
    });
    answered(&call, outcome, returned)
}

extern "efiapi" fn flt_query_directory_file(
    instance: usize,
    file: Raw<FILE_OBJECT>,
    information: usize,
    length: u32,
    class: u32,
    single: BOOLEAN,
    name: Raw<UNICODE_STRING>,
    restart: BOOLEAN,
    returned: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    list(&call, (instance, file), (information, length), class, (restart != 0, single != 0), name, returned)
}

extern "efiapi" fn flt_query_directory_file_ex(
    instance: usize,
    file: Raw<FILE_OBJECT>,
    information: usize,
    length: u32,
    class: u32,
    flags: u32,
    name: Raw<UNICODE_STRING>,
    returned: Raw<u32>,
) -> NtStatus {
    const RESTART_SCAN: u32 = 1;
    const RETURN_SINGLE_ENTRY: u32 = 2;
    let call = Call::enter();
    let how = (flags & RESTART_SCAN != 0, flags & RETURN_SINGLE_ENTRY != 0);
    list(&call, (instance, file), (information, length), class, how, name, returned)
}

fn list(
    call: &Call,
    (instance, file): (usize, Raw<FILE_OBJECT>),
    buffer: (usize, u32),
    class: u32,
    (restart, single): (bool, bool),
    name: Raw<UNICODE_STRING>,
    returned: Raw<u32>,
) -> NtStatus {
    let pattern = name.some().map(Raw::read);
    let outcome = on(call, instance, file, |issue| {
        issue.query_directory(buffer, Listing { class, pattern: pattern.as_ref(), restart, single })
    });
    answered(call, outcome, returned)
}

extern "efiapi" fn flt_query_ea_file(
    instance: usize,
    file: Raw<FILE_OBJECT>,
    buffer: usize,
    length: u32,
    single: BOOLEAN,
    list: usize,
    list_length: u32,
    index: Raw<u32>,
    restart: BOOLEAN,
    returned: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    let list = if list == 0 { (0, 0) } else { (list, list_length) };
    let index = index.some().map(Raw::read);
    let outcome =
        on(&call, instance, file, |issue| issue.query_ea((buffer, length), list, index, restart != 0, single != 0));
    answered(&call, outcome, returned)
}

extern "efiapi" fn flt_set_ea_file(instance: usize, file: Raw<FILE_OBJECT>, buffer: usize, length: u32) -> NtStatus {
    let call = Call::enter();
    on(&call, instance, file, |issue| issue.set_ea((buffer, length))).0
}

extern "efiapi" fn flt_query_security_object(
    instance: usize,
    file: Raw<FILE_OBJECT>,
    parts: u32,
    descriptor: usize,
    length: u32,
    needed: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    let (status, count) = on(&call, instance, file, |issue| issue.query_security(parts, (descriptor, length)));
    needed.write_if_some(count as u32);
    // The page: too small a buffer is an error here, and the length that it takes is returned.
    if status == NtStatus::BUFFER_OVERFLOW { NtStatus::BUFFER_TOO_SMALL } else { status }
}

extern "efiapi" fn flt_set_security_object(
    instance: usize,
    file: Raw<FILE_OBJECT>,
    parts: u32,
    descriptor: usize,
) -> NtStatus {
    let call = Call::enter();
    let captured = match captured(Raw::at(descriptor)) {
        Ok(captured) => captured,
        Err(status) => return status,
    };
    on(&call, instance, file, |issue| issue.set_security(parts, &captured))
}

extern "efiapi" fn flt_is_directory(file: Raw<FILE_OBJECT>, instance: usize, is: Raw<BOOLEAN>) -> NtStatus {
    let call = Call::enter();
    let instance = object::instance(&call, instance);
    let (_, open) = target_until_close(&call, &instance, file);
    is.write((open.stream.kind == StreamKind::Directory).into());
    NtStatus::SUCCESS
}

extern "efiapi" fn flt_flush_buffers(instance: usize, file: Raw<FILE_OBJECT>) -> NtStatus {
    let call = Call::enter();
    on(&call, instance, file, |issue| issue.run(&issue.synchronous_irp(major::FLUSH_BUFFERS)).0)
}

extern "efiapi" fn flt_flush_buffers2(
    instance: usize,
    file: Raw<FILE_OBJECT>,
    flush_type: u32,
    _callback_data: usize,
) -> NtStatus {
    /// `FLT_FLUSH_TYPE_*`: an ordinary flush, and purge, data only, no sync, sync of data only. They are the minor function.
    const FLUSH_TYPES: [u32; 5] = [0, 1, 2, 4, 8];
    let call = Call::enter();
    if !FLUSH_TYPES.contains(&flush_type) {
        return NtStatus::INVALID_PARAMETER;
    }
    on(&call, instance, file, |issue| issue.run(&issue.synchronous_irp(major::FLUSH_BUFFERS).minor(flush_type as u8)).0)
}

extern "efiapi" fn flt_fs_control_file(
    instance: usize,
    file: Raw<FILE_OBJECT>,
    code: u32,
    input: usize,
    input_length: u32,
    output: usize,
    output_length: u32,
    returned: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    control(
        &call,
        major::FILE_SYSTEM_CONTROL,
        (instance, file),
        code,
        (input, input_length),
        (output, output_length),
        returned,
    )
}

extern "efiapi" fn flt_device_io_control_file(
    instance: usize,
    file: Raw<FILE_OBJECT>,
    code: u32,
    input: usize,
    input_length: u32,
    output: usize,
    output_length: u32,
    returned: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    control(
        &call,
        major::DEVICE_CONTROL,
        (instance, file),
        code,
        (input, input_length),
        (output, output_length),
        returned,
    )
}

fn control(
    call: &Call,
    major: u8,
    (instance, file): (usize, Raw<FILE_OBJECT>),
    code: u32,
    input: (usize, u32),
    output: (usize, u32),
    returned: Raw<u32>,
) -> NtStatus {
    call.detail(format_args!("control code {code:#x}"));
    let outcome = on(call, instance, file, |issue| issue.run_control(major, code, input, output));
    answered(call, outcome, returned)
}
