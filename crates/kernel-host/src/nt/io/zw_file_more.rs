//! `Zw*File` that few drivers need: byte-range locks, extended attributes, attributes by name; and the I/O manager's queries by
//! file object.
//!
//! Pages: `ntifs/nf-ntifs-zwlockfile`, `ntifs/nf-ntifs-zwqueryeafile`, `wdm/nf-wdm-zwqueryfullattributesfile`,
//! `ntifs/nf-ntifs-ioqueryfileinformation` and their neighbours.

use nt_types::{FILE_OBJECT, HANDLE, IO_STATUS_BLOCK, NtStatus, OBJECT_ATTRIBUTES};

use super::open::full_path;
use super::zw_file::{Target, Wanted, done, settle};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::fs::io::{self, Issue};
use crate::fs::query_open;
use crate::nt::current_process;
use crate::nt::raw::Raw;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    ZwLockFile(max 0, fails IO) = zw_lock_file;
    NtLockFile(max 0, fails IO) = zw_lock_file;
    ZwUnlockFile(max 0, fails IO) = zw_unlock_file;
    NtUnlockFile(max 0, fails IO) = zw_unlock_file;
    ZwQueryEaFile(max 0, fails IO) = zw_query_ea_file;
    NtQueryEaFile(max 0, fails IO) = zw_query_ea_file;
    ZwSetEaFile(max 0, fails IO) = zw_set_ea_file;
    NtSetEaFile(max 0, fails IO) = zw_set_ea_file;
    ZwQueryFullAttributesFile(max 0, fails IO) = zw_query_full_attributes_file;
    IoQueryFileInformation(max 0, fails IO) = io_query_file_information;
    IoQueryVolumeInformation(max 0, fails IO) = io_query_volume_information;
}

/// A range as the two calls have it.
fn range(call: &Call, offset: Raw<i64>, length: Raw<i64>) -> (i64, i64) {
    if offset.is_null() || length.is_null() {
        call.stop(Rule::BadArgument, "ByteOffset and Length are both required");
    }
    (offset.read(), length.read())
}

pub(super) extern "efiapi" fn zw_lock_file(
    handle: HANDLE,
    event: HANDLE,
    _apc: usize,
    _apc_context: usize,
    block: Raw<IO_STATUS_BLOCK>,
    offset: Raw<i64>,
    length: Raw<i64>,
    key: u32,
    fail_immediately: u8,
    exclusive: u8,
) -> NtStatus {
    let call = Call::enter();
    let (offset, length) = range(&call, offset, length);
    settle(Target::of(&call, handle).and_then(|target| {
        let wanted = Wanted::of(&call, event, block)?;
        let issue = target.issue(&call)?;
        let (status, information) = issue.lock(offset, length, exclusive != 0, key, fail_immediately != 0);
        call.thread().leave_if_stopped();
        Ok(done(&call, &wanted, status, information))
    }))
}

pub(super) extern "efiapi" fn zw_unlock_file(
    handle: HANDLE,
    block: Raw<IO_STATUS_BLOCK>,
    offset: Raw<i64>,
    length: Raw<i64>,
    key: u32,
) -> NtStatus {
    let call = Call::enter();
    let (offset, length) = range(&call, offset, length);
    on_file(&call, handle, block, |issue| issue.unlock(offset, length, key))
}

/// One request on a file of a volume, waited for.
fn on_file(
    call: &Call,
    handle: HANDLE,
    block: Raw<IO_STATUS_BLOCK>,
    request: impl FnOnce(&Issue<'_>) -> io::Outcome,
) -> NtStatus {
    settle(Target::of(call, handle).and_then(|target| {
        let (status, information) = request(&target.issue(call)?);
        call.thread().leave_if_stopped();
        Ok(done(call, &Wanted { block: block.address(), event: None }, status, information))
    }))
}

pub(super) extern "efiapi" fn zw_query_ea_file(
    handle: HANDLE,
    block: Raw<IO_STATUS_BLOCK>,
    buffer: usize,
    length: u32,
    single: u8,
    list: usize,
    list_length: u32,
    index: Raw<u32>,
    restart: u8,
) -> NtStatus {
    let call = Call::enter();
    let index = index.some().map(Raw::read);
    on_file(&call, handle, block, |issue| {
        issue.query_ea((buffer, length), (list, list_length), index, restart != 0, single != 0)
    })
}

pub(super) extern "efiapi" fn zw_set_ea_file(
    handle: HANDLE,
    block: Raw<IO_STATUS_BLOCK>,
    buffer: usize,
    length: u32,
) -> NtStatus {
    let call = Call::enter();
    on_file(&call, handle, block, |issue| issue.set_ea((buffer, length)))
}

pub(super) extern "efiapi" fn zw_query_full_attributes_file(
    attributes: Raw<OBJECT_ATTRIBUTES>,
    information: Raw<u8>,
) -> NtStatus {
    let call = Call::enter();
    if attributes.is_null() {
        call.stop(Rule::BadArgument, "ObjectAttributes is NULL");
    }
    let found = full_path(&call, &attributes.read()).and_then(|path| {
        call.detail(path.as_str());
        query_open::query(call.machine(), &current_process(&call), &path)
    });
    call.thread().leave_if_stopped();
    match found {
        Ok(bytes) => {
            information.write_bytes(&bytes);
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

/// A query by file object: what was answered goes to the caller's buffer and its length.
fn by_object(
    call: &Call,
    file: Raw<FILE_OBJECT>,
    buffer: Raw<u8>,
    returned: Raw<u32>,
    query: impl FnOnce(&Issue<'_>) -> (NtStatus, Vec<u8>),
) -> NtStatus {
    let Some(object) = call.machine().nt.objects().lookup(file.address()) else {
        call.stop(Rule::BadArgument, format!("{file:?} is no file object (any more)"));
    };
    let answered = Issue::on(call.machine(), &object, None, nt_types::KERNEL_MODE).map(|issue| query(&issue));
    call.thread().leave_if_stopped();
    match answered {
        Ok((status, bytes)) => {
            buffer.write_bytes(&bytes);
            returned.write_if_some(bytes.len() as u32);
            status
        }
        Err(status) => status,
    }
}

pub(super) extern "efiapi" fn io_query_file_information(
    file: Raw<FILE_OBJECT>,
    class: u32,
    length: u32,
    buffer: Raw<u8>,
    returned: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    by_object(&call, file, buffer, returned, |issue| {
        io::query_information(issue.machine, issue.object, None, class, length as usize)
    })
}

pub(super) extern "efiapi" fn io_query_volume_information(
    file: Raw<FILE_OBJECT>,
    class: u32,
    length: u32,
    buffer: Raw<u8>,
    returned: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    by_object(&call, file, buffer, returned, |issue| issue.query_volume(class, length))
}
