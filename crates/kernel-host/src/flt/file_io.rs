//! Synchronous I/O that a filter starts below itself: FltReadFile, FltWriteFile, FltQueryInformationFile, FltSetInformationFile.

use std::sync::Arc;

use nt_types::{FILE_OBJECT, FileObjectFlags, KERNEL_MODE, NtStatus};

use super::Instance;
use super::create::file_object;
use super::object;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::fs::io;
use crate::fs::open::Open;
use crate::nt::ob::ObjectRef;
use crate::nt::raw::{Raw, field};
use crate::process::HIGHEST_USER_ADDRESS;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltReadFile(max 0, fails READ) = flt_read_file;
    FltReadFileEx(max 0, fails READ) = flt_read_file_ex;
    FltWriteFile(max 0, fails IO) = flt_write_file;
    FltQueryInformationFile(max 0, fails IO) = flt_query_information_file;
    FltSetInformationFile(max 0, fails IO) = flt_set_information_file;
}

/// `FLTFL_IO_OPERATION_*`.
const NON_CACHED: u32 = 1;
const PAGING: u32 = 2;
const DO_NOT_UPDATE_BYTE_OFFSET: u32 = 4;
const SYNCHRONOUS_PAGING: u32 = 8;

/// Bytes of a sector, to whose multiples non-cached transfers are bound.
const SECTOR: u32 = 512;

/// `FILE_USE_FILE_POINTER_POSITION`, as the low part of an offset whose high part is -1.
const USE_FILE_POINTER: i64 = -2;

/// A transfer, its parameters checked.
struct Transfer {
    instance: Arc<Instance>,
    object: ObjectRef,
    open: Arc<Open>,
    offset: i64,
    advance: bool,
}

extern "efiapi" fn flt_read_file(
    instance: usize,
    file: Raw<FILE_OBJECT>,
    offset: Raw<i64>,
    length: u32,
    buffer: Raw<u8>,
    flags: u32,
    bytes_read: Raw<u32>,
    callback: usize,
    _context: usize,
) -> NtStatus {
    let call = Call::enter();
    read(&call, (instance, file), offset, (buffer, length), flags, bytes_read, callback)
}

extern "efiapi" fn flt_read_file_ex(
    instance: usize,
    file: Raw<FILE_OBJECT>,
    offset: Raw<i64>,
    length: u32,
    buffer: Raw<u8>,
    flags: u32,
    bytes_read: Raw<u32>,
    callback: usize,
    _context: usize,
    _key: Raw<u32>,
    mdl: usize,
) -> NtStatus {
    let call = Call::enter();
    if mdl != 0 {
        call.stop(Rule::NotImplemented, "kernel-host reads into buffers only, not into MDLs, yet");
    }
    read(&call, (instance, file), offset, (buffer, length), flags, bytes_read, callback)
}

fn read(
    call: &Call,
    target: (usize, Raw<FILE_OBJECT>),
    offset: Raw<i64>,
    (buffer, length): (Raw<u8>, u32),
    flags: u32,
    bytes_read: Raw<u32>,
    callback: usize,
) -> NtStatus {
    let transfer = match prepare(call, target, offset, (buffer, length), flags, callback) {
        Ok(transfer) => transfer,
        Err(status) => return fail(bytes_read, status),
    };
    // A length above what is there costs no memory: nobody gets more than the file has.
    let available = transfer.open.size().unwrap_or(0).saturating_sub(transfer.offset.max(0).unsigned_abs());
    let mut bytes = vec![0; u64::from(length).min(available.max(1)) as usize];
    if call.falls_short() {
        bytes.truncate(bytes.len().div_ceil(2));
    }
    let below = Some(&transfer.instance);
    let (status, count) = io::read(call.machine(), &transfer.object, below, KERNEL_MODE, transfer.offset, &mut bytes);
    if !status.is_success() {
        return fail(bytes_read, status);
    }
    let count = count.min(bytes.len());
    buffer.write_bytes(&bytes[..count]);
    finish(call, &transfer, count, bytes_read)
}

extern "efiapi" fn flt_write_file(
    instance: usize,
    file: Raw<FILE_OBJECT>,
    offset: Raw<i64>,
    length: u32,
    buffer: Raw<u8>,
    flags: u32,
    bytes_written: Raw<u32>,
    callback: usize,
    _context: usize,
) -> NtStatus {
    let call = Call::enter();
    let transfer = match prepare(&call, (instance, file), offset, (buffer, length), flags, callback) {
        Ok(transfer) => transfer,
        Err(status) => return fail(bytes_written, status),
    };
    let bytes = buffer.read_bytes(length as usize);
    let below = Some(&transfer.instance);
    let (status, count) = io::write(call.machine(), &transfer.object, below, KERNEL_MODE, transfer.offset, &bytes);
    if !status.is_success() {
        return fail(bytes_written, status);
    }
    finish(&call, &transfer, count, bytes_written)
}

fn fail(count: Raw<u32>, status: NtStatus) -> NtStatus {
    count.write_if_some(0);
    status
}

fn finish(call: &Call, transfer: &Transfer, count: usize, out: Raw<u32>) -> NtStatus {
    call.bytes(count as u64);
    if transfer.advance {
        io::advance(&transfer.object, &transfer.open, transfer.offset, count);
    }
    out.write_if_some(count as u32);
    NtStatus::SUCCESS
}

/// The checks that reads and writes share.
fn prepare(
    call: &Call,
    (instance, file): (usize, Raw<FILE_OBJECT>),
    offset: Raw<i64>,
    (buffer, length): (Raw<u8>, u32),
    flags: u32,
    callback: usize,
) -> Result<Transfer, NtStatus> {
    let instance = object::instance(call, instance);
    if callback != 0 {
        call.stop(Rule::NotImplemented, "kernel-host completes a filter's own I/O synchronously only, yet");
    }
    let (object, open) = target(call, &instance, file);
    if length != 0 && buffer.is_null() {
        call.stop(Rule::BadArgument, "the buffer is NULL");
    }
    if length != 0 && buffer.address() <= HIGHEST_USER_ADDRESS {
        call.stop(
            Rule::UnguardedUserAccess,
            format!(
                "the buffer {buffer:?} is user memory, which its process can unmap while lower filters write to it"
            ),
        );
    }
    if flags & !(NON_CACHED | PAGING | DO_NOT_UPDATE_BYTE_OFFSET | SYNCHRONOUS_PAGING) != 0
        || (flags & SYNCHRONOUS_PAGING != 0 && flags & PAGING == 0)
    {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let given = offset.some().map(Raw::read).filter(|&given| given != USE_FILE_POINTER);
    let offset = match given {
        Some(offset) => offset,
        None if open.is_synchronous() => io::current_offset(&open),
        None => return Err(NtStatus::INVALID_PARAMETER),
    };
    let unaligned = !length.is_multiple_of(SECTOR) || offset.rem_euclid(i64::from(SECTOR)) != 0;
    if flags & NON_CACHED != 0 && unaligned {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    call.detail(format_args!("{} at {offset}, {length} bytes", String::from_utf16_lossy(&open.name())));
    Ok(Transfer { instance, object, open, offset, advance: flags & DO_NOT_UPDATE_BYTE_OFFSET == 0 })
}

/// The open file of a request; stops where Windows asserts.
fn target(call: &Call, instance: &Instance, address: Raw<FILE_OBJECT>) -> (ObjectRef, Arc<Open>) {
    let (object, file) = file_object(call, address);
    let Ok(open) = file.open().cloned() else {
        call.stop(Rule::BadState, "the file object is not open yet");
    };
    if !Arc::ptr_eq(&open.volume, &instance.volume.volume) {
        call.stop(Rule::BadArgument, "the file is on another volume than the instance");
    }
    let flags = FileObjectFlags::from_bits_retain(field!(address, FILE_OBJECT, Flags).read());
    if flags.contains(FileObjectFlags::CLEANUP_COMPLETE) || open.is_cleaned_up() {
        call.stop(Rule::BadState, "the file object's last handle is closed: I/O on it is illegal");
    }
    (object, open)
}

/// "IRQL = PASSIVE_LEVEL and with APCs enabled".
fn require_apcs(call: &Call) {
    let thread = call.thread();
    let (critical, guarded) = (thread.critical_regions(), thread.guarded_regions());
    if critical != 0 || guarded != 0 {
        call.stop(
            Rule::BadState,
            format!("APCs are disabled ({critical} critical, {guarded} guarded regions); the page wants them enabled"),
        );
    }
}

extern "efiapi" fn flt_query_information_file(
    instance: usize,
    file: Raw<FILE_OBJECT>,
    information: Raw<u8>,
    length: u32,
    class: u32,
    length_returned: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    require_apcs(&call);
    let instance = object::instance(&call, instance);
    let (object, open) = target(&call, &instance, file);
    call.detail(format_args!("{} class {class}", String::from_utf16_lossy(&open.name())));
    let (status, bytes) = io::query_information(call.machine(), &object, Some(&instance), class, length as usize);
    information.write_bytes(&bytes);
    call.bytes(bytes.len() as u64);
    length_returned.write_if_some(bytes.len() as u32);
    status
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
    let instance = object::instance(&call, instance);
    let (object, open) = target(&call, &instance, file);
    call.detail(format_args!("{} class {class}", String::from_utf16_lossy(&open.name())));
    let bytes = information.read_bytes(length as usize);
    io::set_information(call.machine(), &object, Some(&instance), class, &bytes)
}
