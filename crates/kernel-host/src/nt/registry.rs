//! `Zw*Key`: how drivers reach the registry. Pages: `wdm/nf-wdm-zwopenkey` and its neighbours.
//!
//! All calls are at `PASSIVE_LEVEL`. They come from kernel mode, so the access that a handle was opened with is not checked.
//! [`opening`](mod@opening) and [`operations`] are what drivers and [programs](program) have in common; both go past registry callbacks.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use nt_types::{
    HANDLE, IO_STATUS_BLOCK, KERNEL_MODE, NtStatus, OBJECT_ATTRIBUTES, ObjectFlags, UNICODE_STRING, USER_MODE,
};

use super::current_process;
use super::dispatcher::state;
use super::hive::{Key, Watch};
use super::ob::{ObjectBody, ObjectRef};
use super::ob_exports::{make_handle, open_entry};
use super::raw::Raw;
use super::registry_callbacks::{self, CountedName};
use super::unicode;
use super::work_items::plain::{QueueItem, queue};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::origin::Origin;
use crate::process::Process;

mod opening;
mod operations;
pub(crate) mod program;
mod query;
mod rtl;

use opening::{Caller, Opening};
use operations::Answer;

pub(crate) use query::EXPORTS as QUERY_EXPORTS;
pub(crate) use rtl::EXPORTS as RTL_EXPORTS;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    ZwOpenKey(max 0, fails RESOURCES) = zw_open_key;
    ZwOpenKeyEx(max 0, fails RESOURCES) = zw_open_key_ex;
    ZwCreateKey(max 0, fails RESOURCES) = zw_create_key;
    ZwDeleteKey(max 0) = zw_delete_key;
    ZwQueryKey(max 0, fails RESOURCES) = zw_query_key;
    ZwEnumerateKey(max 0, fails RESOURCES) = zw_enumerate_key;
    ZwQueryValueKey(max 0, fails RESOURCES) = zw_query_value_key;
    ZwEnumerateValueKey(max 0, fails RESOURCES) = zw_enumerate_value_key;
    ZwSetValueKey(max 0, fails RESOURCES) = zw_set_value_key;
    ZwDeleteValueKey(max 0) = zw_delete_value_key;
    ZwFlushKey(max 0, fails IO) = zw_flush_key;
    ZwNotifyChangeKey(max 0, fails RESOURCES) = zw_notify_change_key;
}

/// Bytes of a key's body, which drivers never look into.
const BODY_BYTES: usize = 16;

/// What a key object stands for.
#[derive(Debug)]
pub(super) struct OpenKey {
    key: Arc<Key>,
    parent: Option<Arc<Key>>,
    /// Full name, as registry callbacks and `ObQueryNameString` have it.
    path: String,
    /// The same for callbacks that ask for it, made when the first does.
    name: OnceLock<CountedName>,
}

impl OpenKey {
    fn new(path: String, key: Arc<Key>, parent: Option<Arc<Key>>) -> Self {
        Self { key, parent, path, name: OnceLock::new() }
    }

    /// Tells keys apart, whatever object they were opened as.
    pub(super) fn id(&self) -> usize {
        Arc::as_ptr(&self.key).addr()
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    /// The path at an address that stays as long as the object.
    pub(super) fn counted_name(&self) -> &CountedName {
        self.name.get_or_init(|| CountedName::new(&self.path).unwrap_or_default())
    }
}

impl ObjectBody for OpenKey {
    fn type_name(&self) -> &'static str {
        "Key"
    }

    fn on_last_handle_close(&self, object: &ObjectRef, _process: &Arc<Process>) {
        registry_callbacks::closing(object);
        self.key.watches().forget(object.body());
    }
}

/// A key object with its payload.
struct KeyObject {
    object: ObjectRef,
    open: Arc<OpenKey>,
}

extern "efiapi" fn zw_open_key(handle: Raw<usize>, access: u32, attributes: Raw<OBJECT_ATTRIBUTES>) -> NtStatus {
    let call = Call::enter();
    open(&call, handle, attributes, &Wanted { access, ..Wanted::default() })
}

extern "efiapi" fn zw_open_key_ex(
    handle: Raw<usize>,
    access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    options: u32,
) -> NtStatus {
    let call = Call::enter();
    open(&call, handle, attributes, &Wanted { access, options, ..Wanted::default() })
}

extern "efiapi" fn zw_create_key(
    handle: Raw<usize>,
    access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    _title_index: u32,
    class: Raw<UNICODE_STRING>,
    options: u32,
    disposition: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    open(&call, handle, attributes, &Wanted { access, options, class, disposition, creates: true })
}

/// What an open asks for beside its name.
struct Wanted {
    access: u32,
    options: u32,
    class: Raw<UNICODE_STRING>,
    disposition: Raw<u32>,
    creates: bool,
}

impl Default for Wanted {
    fn default() -> Self {
        Self { access: 0, options: 0, class: Raw::NULL, disposition: Raw::NULL, creates: false }
    }
}

fn open(call: &Call, handle: Raw<usize>, attributes: Raw<OBJECT_ATTRIBUTES>, wanted: &Wanted) -> NtStatus {
    if attributes.is_null() {
        call.stop(Rule::BadArgument, "ObjectAttributes is NULL");
    }
    let attributes = attributes.read();
    let opened = opening(call, &attributes, wanted).and_then(|opening| opening.carry_out(call.thread()));
    call.thread().leave_if_stopped();
    match opened {
        Ok((object, granted)) => {
            handle.write(make_handle(call, &object, granted, attributes.Attributes));
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

fn opening(call: &Call, attributes: &OBJECT_ATTRIBUTES, wanted: &Wanted) -> Result<Opening, NtStatus> {
    if attributes.Length as usize != size_of::<OBJECT_ATTRIBUTES>() {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let name = unicode::name(Raw::of(attributes.ObjectName))?;
    call.detail(name.as_str());
    let root = match attributes.RootDirectory {
        root if root.is_null() => None,
        root => Some(key_of(call, root)?),
    };
    let checks = attributes.Attributes & ObjectFlags::FORCE_ACCESS_CHECK.bits() != 0;
    Ok(Opening {
        caller: Caller { process: current_process(call), mode: if checks { USER_MODE } else { KERNEL_MODE } },
        root,
        name,
        given_name: Raw::of(attributes.ObjectName),
        attributes: attributes.Attributes,
        descriptor: attributes.SecurityDescriptor.addr(),
        access: wanted.access,
        options: wanted.options,
        class: wanted.class,
        disposition: wanted.disposition,
        creates: wanted.creates,
    })
}

/// Makes the handle to a key that a call returns without an open by name.
fn give_handle(call: &Call, handle: Raw<usize>, access: u32, attributes: u32, open: OpenKey) -> NtStatus {
    match opening::object_of(call.machine(), open) {
        Ok(object) => {
            handle.write(make_handle(call, &object, access, attributes));
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

fn key_of(call: &Call, handle: HANDLE) -> Result<KeyObject, NtStatus> {
    let object = open_entry(call, handle.addr(), 0, Some("Key"), KERNEL_MODE)?.object;
    let open = object.payload().ok_or(NtStatus::OBJECT_TYPE_MISMATCH)?;
    Ok(KeyObject { object, open })
}

/// Runs `work` on the key behind a handle.
fn with_key(call: &Call, handle: HANDLE, work: impl FnOnce(&KeyObject) -> NtStatus) -> NtStatus {
    let status = key_of(call, handle).map_or_else(|status| status, |key| work(&key));
    call.thread().leave_if_stopped();
    status
}

/// Runs `work` with a name that is noted in the trace.
fn with_name(call: &Call, name: Raw<UNICODE_STRING>, work: impl FnOnce(&str) -> NtStatus) -> NtStatus {
    match unicode::name(name) {
        Ok(text) => {
            call.detail(text.as_str());
            work(&text)
        }
        Err(status) => status,
    }
}

extern "efiapi" fn zw_delete_key(handle: HANDLE) -> NtStatus {
    let call = Call::enter();
    with_key(&call, handle, |key| key.delete(call.thread()))
}

extern "efiapi" fn zw_query_key(
    handle: HANDLE,
    class: i32,
    buffer: Raw<u8>,
    length: u32,
    result_length: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    with_key(&call, handle, |key| key.query(call.thread(), class, Answer { buffer, length, result_length }))
}

extern "efiapi" fn zw_enumerate_key(
    handle: HANDLE,
    index: u32,
    class: i32,
    buffer: Raw<u8>,
    length: u32,
    result_length: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    let answer = Answer { buffer, length, result_length };
    with_key(&call, handle, |key| key.enumerate(call.thread(), index, class, answer))
}

extern "efiapi" fn zw_query_value_key(
    handle: HANDLE,
    name: Raw<UNICODE_STRING>,
    class: i32,
    buffer: Raw<u8>,
    length: u32,
    result_length: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    let answer = Answer { buffer, length, result_length };
    with_key(&call, handle, |key| {
        with_name(&call, name, |text| key.query_value(call.thread(), (name, text), class, answer))
    })
}

extern "efiapi" fn zw_enumerate_value_key(
    handle: HANDLE,
    index: u32,
    class: i32,
    buffer: Raw<u8>,
    length: u32,
    result_length: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    let answer = Answer { buffer, length, result_length };
    with_key(&call, handle, |key| key.enumerate_values(call.thread(), index, class, answer))
}

extern "efiapi" fn zw_set_value_key(
    handle: HANDLE,
    name: Raw<UNICODE_STRING>,
    title_index: u32,
    kind: u32,
    data: Raw<u8>,
    length: u32,
) -> NtStatus {
    let call = Call::enter();
    call.bytes(u64::from(length));
    with_key(&call, handle, |key| {
        with_name(&call, name, |text| key.set_value(call.thread(), (name, text), title_index, kind, (data, length)))
    })
}

extern "efiapi" fn zw_delete_value_key(handle: HANDLE, name: Raw<UNICODE_STRING>) -> NtStatus {
    let call = Call::enter();
    with_key(&call, handle, |key| with_name(&call, name, |text| key.delete_value(call.thread(), (name, text))))
}

extern "efiapi" fn zw_flush_key(handle: HANDLE) -> NtStatus {
    let call = Call::enter();
    with_key(&call, handle, |key| key.flush(call.thread()))
}

/// `REG_LEGAL_CHANGE_FILTER`.
const ALL_CHANGES: u32 = 0x1000_000F;

extern "efiapi" fn zw_notify_change_key(
    handle: HANDLE,
    event: HANDLE,
    work_item: Raw<QueueItem>,
    _queue: usize,
    block: Raw<IO_STATUS_BLOCK>,
    filter: u32,
    tree: u8,
    _buffer: usize,
    _length: u32,
    asynchronous: u8,
) -> NtStatus {
    let call = Call::enter();
    if filter == 0 || filter & !ALL_CHANGES != 0 {
        return NtStatus::INVALID_PARAMETER;
    }
    let event = match event.addr() {
        0 => None,
        handle => match open_entry(&call, handle, 0, Some("Event"), KERNEL_MODE) {
            Ok(entry) => Some(entry.object),
            Err(status) => return status,
        },
    };
    let key = match key_of(&call, handle) {
        Ok(key) => key,
        Err(status) => return status,
    };
    let (machine, driver) = (Arc::downgrade(call.machine()), Arc::clone(call.driver()));
    let origin = Origin::of(call.site());
    let ended = Arc::new(AtomicBool::new(false));
    let is_ended = Arc::clone(&ended);
    let (block_at, item_at) = (block.address(), work_item.address());
    let done = Box::new(move |status| {
        let Some(machine) = machine.upgrade() else { return };
        Raw::at(block_at).write(IO_STATUS_BLOCK::new(status, 0));
        if let Some(event) = &event {
            state(Raw::at(event.body())).store(1, Ordering::Release);
        }
        // From kernel mode, what looks like an APC routine is a work item.
        if let Some(item) = Raw::<QueueItem>::at(item_at).some() {
            queue(&machine, &driver, origin, item);
        }
        is_ended.store(true, Ordering::Release);
        machine.nt.dispatcher().wake();
    });
    let watch = Watch { key: Arc::downgrade(&key.open.key), object: key.object.body(), filter, tree: tree != 0, done };
    key.open.key.watches().add(watch);
    if asynchronous != 0 {
        return NtStatus::PENDING;
    }
    call.machine().nt.dispatcher().wait(&call, None, || ended.load(Ordering::Acquire));
    block.read().Status
}

#[cfg(test)]
mod tests;
