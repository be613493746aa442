//! `Zw*File` beside reads, writes and controls: information, directories, volumes, flushing, deleting.
//!
//! Pages: `wdm/nf-wdm-zwqueryinformationfile`, `ntifs/nf-ntifs-zwquerydirectoryfile`,
//! `ntifs/nf-ntifs-zwqueryvolumeinformationfile`, `ntifs/nf-ntifs-zwdeletefile` and their neighbours.

use nt_types::{
    AccessMask, FILE_OBJECT, HANDLE, IO_STATUS_BLOCK, IRP_MJ_FLUSH_BUFFERS, IoStackParameters, NtStatus,
    OBJECT_ATTRIBUTES, UNICODE_STRING,
};

use super::open::open_by_attributes;
use super::transfer::Method;
use super::zw_file::{Request, Target, Wanted, done, settle};
use crate::ddi::{Call, exports};
use crate::fs::io;
use crate::fs::issue::Listing;
use crate::nt::current_process;
use crate::nt::parse::FileOpen;
use crate::nt::raw::{Raw, field};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    ZwQueryInformationFile(max 0, fails IO) = zw_query_information_file;
    ZwSetInformationFile(max 0, fails IO) = zw_set_information_file;
    ZwQueryDirectoryFile(max 0, fails IO) = zw_query_directory_file;
    ZwQueryDirectoryFileEx(max 0, fails IO) = zw_query_directory_file_ex;
    ZwQueryVolumeInformationFile(max 0, fails IO) = zw_query_volume_information_file;
    ZwSetVolumeInformationFile(max 0, fails IO) = zw_set_volume_information_file;
    ZwFlushBuffersFile(max 0, fails IO) = zw_flush_buffers_file;
    ZwDeleteFile(max 0, fails IO) = zw_delete_file;
    NtQueryInformationFile(max 0, fails IO) = zw_query_information_file;
    NtSetInformationFile(max 0, fails IO) = zw_set_information_file;
    NtQueryDirectoryFile(max 0, fails IO) = zw_query_directory_file;
    NtQueryVolumeInformationFile(max 0, fails IO) = zw_query_volume_information_file;
}

/// `FileDispositionInformation`, `FilePositionInformation`.
const DISPOSITION: u32 = 13;
const POSITION: u32 = 14;

/// `SL_RESTART_SCAN`, `SL_RETURN_SINGLE_ENTRY`: flags of the Ex form.
const RESTART_SCAN: u32 = 1;
const RETURN_SINGLE_ENTRY: u32 = 2;

/// Who waits for a request without an event.
fn silent(block: Raw<IO_STATUS_BLOCK>) -> Wanted {
    Wanted { block: block.address(), event: None }
}

pub(super) extern "efiapi" fn zw_query_information_file(
    handle: HANDLE,
    block: Raw<IO_STATUS_BLOCK>,
    buffer: Raw<u8>,
    length: u32,
    class: u32,
) -> NtStatus {
    let call = Call::enter();
    settle(Target::of(&call, handle).map(|target| {
        if target.is_device() && class == POSITION {
            buffer.cast().write(field!(target.raw(), FILE_OBJECT, CurrentByteOffset).read());
            return done(&call, &silent(block), NtStatus::SUCCESS, size_of::<i64>());
        }
        let (status, bytes) = io::query_information(call.machine(), &target.object, None, class, length as usize);
        call.thread().leave_if_stopped();
        buffer.write_bytes(&bytes);
        done(&call, &silent(block), status, bytes.len())
    }))
}

pub(super) extern "efiapi" fn zw_set_information_file(
    handle: HANDLE,
    block: Raw<IO_STATUS_BLOCK>,
    buffer: Raw<u8>,
    length: u32,
    class: u32,
) -> NtStatus {
    let call = Call::enter();
    settle(Target::of(&call, handle).and_then(|target| {
        let bytes = buffer.read_bytes(length as usize);
        if class == POSITION {
            // The I/O manager's own: no filter and no file system sees it.
            let position = i64::from_le_bytes(*bytes.first_chunk::<8>().ok_or(NtStatus::INFO_LENGTH_MISMATCH)?);
            field!(target.raw(), FILE_OBJECT, CurrentByteOffset).write(position);
            if let Ok((_, open)) = io::opened(&target.object) {
                open.position.store(position, std::sync::atomic::Ordering::Relaxed);
            }
            return Ok(done(&call, &silent(block), NtStatus::SUCCESS, 0));
        }
        let status = io::set_information(call.machine(), &target.object, None, class, &bytes);
        call.thread().leave_if_stopped();
        Ok(done(&call, &silent(block), status, 0))
    }))
}

pub(super) extern "efiapi" fn zw_query_directory_file(
    handle: HANDLE,
    event: HANDLE,
    _apc: usize,
    _apc_context: usize,
    block: Raw<IO_STATUS_BLOCK>,
    buffer: usize,
    length: u32,
    class: u32,
    single: u8,
    name: Raw<UNICODE_STRING>,
    restart: u8,
) -> NtStatus {
    let call = Call::enter();
    let pattern = name.some().map(Raw::read);
    let listing = Listing { class, pattern: pattern.as_ref(), restart: restart != 0, single: single != 0 };
    settle(list(&call, (handle, event, block), (buffer, length), listing))
}

extern "efiapi" fn zw_query_directory_file_ex(
    handle: HANDLE,
    event: HANDLE,
    _apc: usize,
    _apc_context: usize,
    block: Raw<IO_STATUS_BLOCK>,
    buffer: usize,
    length: u32,
    class: u32,
    flags: u32,
    name: Raw<UNICODE_STRING>,
) -> NtStatus {
    let call = Call::enter();
    let pattern = name.some().map(Raw::read);
    let (restart, single) = (flags & RESTART_SCAN != 0, flags & RETURN_SINGLE_ENTRY != 0);
    settle(list(
        &call,
        (handle, event, block),
        (buffer, length),
        Listing { class, pattern: pattern.as_ref(), restart, single },
    ))
}

fn list(
    call: &Call,
    (handle, event, block): (HANDLE, HANDLE, Raw<IO_STATUS_BLOCK>),
    buffer: (usize, u32),
    listing: Listing<'_>,
) -> Result<NtStatus, NtStatus> {
    let target = Target::of(call, handle)?;
    let wanted = Wanted::of(call, event, block)?;
    let (status, count) = target.issue(call)?.query_directory(buffer, listing);
    call.thread().leave_if_stopped();
    Ok(done(call, &wanted, status, count))
}

pub(super) extern "efiapi" fn zw_query_volume_information_file(
    handle: HANDLE,
    block: Raw<IO_STATUS_BLOCK>,
    buffer: Raw<u8>,
    length: u32,
    class: u32,
) -> NtStatus {
    let call = Call::enter();
    settle(Target::of(&call, handle).and_then(|target| {
        let (status, bytes) = target.issue(&call)?.query_volume(class, length);
        call.thread().leave_if_stopped();
        buffer.write_bytes(&bytes);
        Ok(done(&call, &silent(block), status, bytes.len()))
    }))
}

extern "efiapi" fn zw_set_volume_information_file(
    handle: HANDLE,
    block: Raw<IO_STATUS_BLOCK>,
    buffer: Raw<u8>,
    length: u32,
    class: u32,
) -> NtStatus {
    let call = Call::enter();
    settle(Target::of(&call, handle).and_then(|target| {
        let status = target.issue(&call)?.set_volume(class, &buffer.read_bytes(length as usize));
        call.thread().leave_if_stopped();
        Ok(done(&call, &silent(block), status, 0))
    }))
}

pub(super) extern "efiapi" fn zw_flush_buffers_file(handle: HANDLE, block: Raw<IO_STATUS_BLOCK>) -> NtStatus {
    let call = Call::enter();
    settle(Target::of(&call, handle).and_then(|target| {
        if target.is_device() {
            let parameters = IoStackParameters { Others: [std::ptr::null_mut(); 4] };
            let method = Some(Method::Neither);
            let request = Request { major: IRP_MJ_FLUSH_BUFFERS, parameters, method, input: (0, 0), output: (0, 0) };
            return Ok(target.send(&call, &request, &silent(block)));
        }
        let issue = target.issue(&call)?;
        let (status, _) = issue.run(&issue.synchronous_irp(IRP_MJ_FLUSH_BUFFERS));
        call.thread().leave_if_stopped();
        Ok(done(&call, &silent(block), status, 0))
    }))
}

/// Opens for deletion, marks, and closes.
pub(super) extern "efiapi" fn zw_delete_file(attributes: Raw<OBJECT_ATTRIBUTES>) -> NtStatus {
    let call = Call::enter();
    let open = FileOpen { share_access: 7, disposition: nt_types::FILE_OPEN, ..FileOpen::default() };
    let access = (AccessMask::DELETE | AccessMask::SYNCHRONIZE).bits();
    settle(open_by_attributes(&call, attributes, access, open).map(|object| {
        let process = current_process(&call);
        let handle = process.handles().insert(&object, access, None);
        io::handle_made(&object);
        let status = io::set_information(call.machine(), &object, None, DISPOSITION, &[1]);
        // The mark takes effect with the cleanup.
        let closed = process.handles().close(handle, &process);
        debug_assert!(closed.is_ok(), "the handle was opened just now");
        drop(object);
        call.thread().leave_if_stopped();
        status
    }))
}
