//! Reads and writes that a filter starts below itself: FltReadFile, FltWriteFile and their extended forms.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use fltmgr::raw::PFLT_COMPLETED_ASYNC_IO_CALLBACK;
use nt_types::{FILE_OBJECT, FileObjectFlags, IrpFlags, KERNEL_MODE, MDL, NtStatus, PVOID};

use super::Instance;
use super::callback_data::completed;
use super::create::file_object;
use super::flight::Flight;
use super::major;
use super::object;
use super::stack::{self, Flown, Walk};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::fs::io::{self, Issue};
use crate::fs::open::Open;
use crate::nt::ob::ObjectRef;
use crate::nt::raw::{Raw, field};
use crate::process::HIGHEST_USER_ADDRESS;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltReadFile(max 0, fails READ) = flt_read_file;
    FltReadFileEx(max 0, fails READ) = flt_read_file_ex;
    FltWriteFile(max 0, fails IO) = flt_write_file;
    FltWriteFileEx(max 0, fails IO) = flt_write_file_ex;
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
/// `FILE_WRITE_TO_END_OF_FILE`.
const END_OF_FILE: i64 = -1;

/// The parameters that all four share.
struct Arguments {
    major: u8,
    instance: usize,
    file: Raw<FILE_OBJECT>,
    offset: Raw<i64>,
    length: u32,
    buffer: usize,
    flags: u32,
    count: Raw<u32>,
    callback: PFLT_COMPLETED_ASYNC_IO_CALLBACK,
    context: PVOID,
    key: Raw<u32>,
    list: Raw<MDL>,
}

/// Declares the four exports, whose parameters differ at the end only.
macro_rules! transfers {
    ($($name:ident / $extended:ident: $major:expr;)*) => {$(
        extern "efiapi" fn $name(
            instance: usize,
            file: Raw<FILE_OBJECT>,
            offset: Raw<i64>,
            length: u32,
            buffer: usize,
            flags: u32,
            count: Raw<u32>,
            callback: PFLT_COMPLETED_ASYNC_IO_CALLBACK,
            context: PVOID,
        ) -> NtStatus {
            let (key, list) = (Raw::NULL, Raw::NULL);
            let arguments =
                Arguments { major: $major, instance, file, offset, length, buffer, flags, count, callback, context, key, list };
            transfer(&Call::enter(), &arguments, false)
        }

        extern "efiapi" fn $extended(
            instance: usize,
            file: Raw<FILE_OBJECT>,
            offset: Raw<i64>,
            length: u32,
            buffer: usize,
            flags: u32,
            count: Raw<u32>,
            callback: PFLT_COMPLETED_ASYNC_IO_CALLBACK,
            context: PVOID,
            key: Raw<u32>,
            list: Raw<MDL>,
        ) -> NtStatus {
            let arguments =
                Arguments { major: $major, instance, file, offset, length, buffer, flags, count, callback, context, key, list };
            transfer(&Call::enter(), &arguments, true)
        }
    )*};
}

transfers! {
    flt_read_file / flt_read_file_ex: major::READ;
    flt_write_file / flt_write_file_ex: major::WRITE;
}

fn transfer(call: &Call, arguments: &Arguments, extended: bool) -> NtStatus {
    match start(call, arguments, extended) {
        Ok((status, count)) => {
            call.bytes(count as u64);
            if arguments.callback.is_none() {
                arguments.count.write_if_some(count as u32);
            }
            status
        }
        Err(status) => {
            if arguments.callback.is_none() {
                arguments.count.write_if_some(0);
            }
            status
        }
    }
}

fn start(call: &Call, arguments: &Arguments, extended: bool) -> Result<(NtStatus, usize), NtStatus> {
    let instance = object::instance(call, arguments.instance);
    let (object, open) = target(call, &instance, arguments.file);
    check_buffer(call, arguments, extended);
    let offset = check_offset(arguments, &open)?;
    call.detail_of(|| format!("{} at {offset}, {} bytes", String::from_utf16_lossy(&open.name()), arguments.length));
    let issue =
        Issue { machine: call.machine(), object: &object, open: &open, below: Some(&instance), mode: KERNEL_MODE };
    let mut length = arguments.length;
    if call.falls_short() {
        length = fall_short(issue.open, offset, length);
    }
    let key = arguments.key.some().map_or(0, Raw::read);
    let operation = issue
        .transfer(arguments.major, offset, (arguments.buffer, length), irp_flags(arguments.flags))
        .set(8, key)
        .set(32, arguments.list.address());
    let keep = arguments.flags & DO_NOT_UPDATE_BYTE_OFFSET != 0;
    let before = io::current_offset(issue.open);
    let Some(callback) = arguments.callback else {
        // "This is true even if the file object was opened for asynchronous I/O."
        let outcome = issue.run(&operation.irp_flags(IrpFlags::SYNCHRONOUS_API));
        call.thread().leave_if_stopped();
        if keep {
            put_offset_back(&object, issue.open, before);
        }
        outcome.0.ok()?;
        return Ok(outcome);
    };
    let driver = call.driver();
    let landing = completed(callback, arguments.context, driver);
    let stack = Arc::clone(&instance.volume);
    let walk = Walk::on(&stack, &instance);
    let flight = Flight::new(call.machine(), Some(stack), &operation.kept(&object, None), call.thread(), None);
    let (restored, open) = (object.clone(), Arc::clone(issue.open));
    flight.on_landing(Box::new(move |thread, flight| {
        if keep {
            put_offset_back(&restored, &open, before);
        }
        landing(thread, flight);
    }));
    let flown = stack::fly(call.thread(), &flight, walk);
    call.thread().leave_if_stopped();
    match flown {
        Flown::Parked => Ok((NtStatus::PENDING, 0)),
        Flown::Landed((status, count)) => Ok((status, count)),
        Flown::Broken => Err(super::MACHINE_STOPPED),
    }
}

/// Fault injection: as at the end of a file that has become shorter.
fn fall_short(open: &Open, offset: i64, length: u32) -> u32 {
    let available = open.size().unwrap_or(0).saturating_sub(offset.max(0).cast_unsigned());
    u64::from(length).min(available.max(1)).div_ceil(2) as u32
}

fn put_offset_back(object: &ObjectRef, open: &Open, before: i64) {
    open.position.store(before, Ordering::Relaxed);
    field!(Raw::<FILE_OBJECT>::at(object.body()), FILE_OBJECT, CurrentByteOffset).write(before);
}

fn irp_flags(flags: u32) -> IrpFlags {
    let mut irp_flags = IrpFlags::empty();
    for (flag, irp_flag) in [
        (NON_CACHED, IrpFlags::NOCACHE),
        (PAGING, IrpFlags::PAGING_IO | IrpFlags::NOCACHE),
        (SYNCHRONOUS_PAGING, IrpFlags::SYNCHRONOUS_PAGING_IO),
    ] {
        if flags & flag != 0 {
            irp_flags |= irp_flag;
        }
    }
    irp_flags
}

fn check_buffer(call: &Call, arguments: &Arguments, extended: bool) {
    let Arguments { buffer, length, list, .. } = *arguments;
    if extended && !list.is_null() && buffer != 0 {
        call.stop(Rule::BadArgument, "both a buffer and an MDL are given: it is one or the other");
    }
    if length != 0 && buffer == 0 && list.is_null() {
        call.stop(Rule::BadArgument, "the buffer is NULL");
    }
    if length != 0 && buffer != 0 && buffer <= HIGHEST_USER_ADDRESS {
        call.stop(
            Rule::UnguardedUserAccess,
            format!("the buffer {buffer:#x} is user memory, which its process can unmap while lower filters touch it"),
        );
    }
}

/// Where the transfer starts, as the page says.
fn check_offset(arguments: &Arguments, open: &Open) -> Result<i64, NtStatus> {
    let flags = arguments.flags;
    let known = NON_CACHED | PAGING | DO_NOT_UPDATE_BYTE_OFFSET | SYNCHRONOUS_PAGING;
    if flags & !known != 0 || (flags & SYNCHRONOUS_PAGING != 0 && flags & PAGING == 0) {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let given = arguments.offset.some().map(Raw::read).filter(|&given| given != USE_FILE_POINTER);
    let offset = match given {
        Some(offset) => offset,
        None if open.is_synchronous() => io::current_offset(open),
        None => return Err(NtStatus::INVALID_PARAMETER),
    };
    if offset < 0 && !(offset == END_OF_FILE && arguments.major == major::WRITE) {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let uncached = flags & NON_CACHED != 0 || open.is_non_cached();
    let unaligned = !arguments.length.is_multiple_of(SECTOR) || offset.rem_euclid(i64::from(SECTOR)) != 0;
    if uncached && unaligned { Err(NtStatus::INVALID_PARAMETER) } else { Ok(offset) }
}

/// The open file of a request, whose last handle is not closed; stops where Windows asserts.
fn target(call: &Call, instance: &Instance, address: Raw<FILE_OBJECT>) -> (ObjectRef, Arc<Open>) {
    let (object, open) = target_until_close(call, instance, address);
    let flags = FileObjectFlags::from_bits_retain(field!(address, FILE_OBJECT, Flags).read());
    if flags.contains(FileObjectFlags::CLEANUP_COMPLETE) || open.is_cleaned_up() {
        call.stop(Rule::BadState, "the file object's last handle is closed: I/O on it is illegal");
    }
    (object, open)
}

/// As [`target`], for what file systems also serve between cleanup and close: all but reads and writes.
pub(super) fn target_until_close(
    call: &Call,
    instance: &Instance,
    address: Raw<FILE_OBJECT>,
) -> (ObjectRef, Arc<Open>) {
    let (object, file) = file_object(call, address);
    let Ok(open) = file.open().cloned() else {
        call.stop(Rule::BadState, "the file object is not open yet");
    };
    if !Arc::ptr_eq(&open.volume, &instance.volume.volume) {
        call.stop(Rule::BadArgument, "the file is on another volume than the instance");
    }
    (object, open)
}

/// "IRQL = PASSIVE_LEVEL and with APCs enabled".
pub(super) fn require_apcs(call: &Call) {
    let thread = call.thread();
    let (critical, guarded) = (thread.critical_regions(), thread.guarded_regions());
    if critical != 0 || guarded != 0 {
        call.stop(
            Rule::BadState,
            format!("APCs are disabled ({critical} critical, {guarded} guarded regions); the page wants them enabled"),
        );
    }
}
