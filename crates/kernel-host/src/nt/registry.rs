//! `Zw*Key`: how drivers reach the registry. Pages: `wdm/nf-wdm-zwopenkey` and its neighbours.
//!
//! All calls are at `PASSIVE_LEVEL`. They come from kernel mode, so the access that a handle was opened with is not checked.

use std::sync::Arc;

use nt_types::{HANDLE, NtStatus, OBJECT_ATTRIBUTES, UNICODE_STRING};

use super::hive::{Key, Value};
use super::ob::ObjectBody;
use super::ob_exports::{make_handle, open_entry};
use super::raw::Raw;
use super::registry_information::{Record, key_record, value_record};
use super::unicode;
use crate::ddi::{Call, exports};
use crate::finding::Rule;

mod query;
mod rtl;

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
}

/// `Disposition` of `ZwCreateKey`.
const REG_CREATED_NEW_KEY: u32 = 1;
const REG_OPENED_EXISTING_KEY: u32 = 2;

/// Bytes of a key's body; drivers see a key only through handles.
const BODY_BYTES: usize = 16;

/// What a key handle stands for.
#[derive(Debug)]
struct OpenKey {
    key: Arc<Key>,
    parent: Option<Arc<Key>>,
}

impl ObjectBody for OpenKey {
    fn type_name(&self) -> &'static str {
        "Key"
    }
}

extern "efiapi" fn zw_open_key(handle: Raw<usize>, access: u32, attributes: Raw<OBJECT_ATTRIBUTES>) -> NtStatus {
    open(&Call::enter(), handle, access, attributes)
}

extern "efiapi" fn zw_open_key_ex(
    handle: Raw<usize>,
    access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    _options: u32,
) -> NtStatus {
    open(&Call::enter(), handle, access, attributes)
}

fn open(call: &Call, handle: Raw<usize>, access: u32, attributes: Raw<OBJECT_ATTRIBUTES>) -> NtStatus {
    let opened = place(call, attributes).and_then(|place| {
        let key = place.base.open(&place.name)?;
        Ok((place.parent_of_leaf(), key))
    });
    match opened {
        Ok((parent, key)) => give(call, handle, access, attributes, OpenKey { key, parent }),
        Err(status) => status,
    }
}

extern "efiapi" fn zw_create_key(
    handle: Raw<usize>,
    access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    _title_index: u32,
    _class: Raw<UNICODE_STRING>,
    _options: u32,
    disposition: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    let created = place(&call, attributes).and_then(|place| {
        // Only the last part may be new: the page wants its parent to exist.
        let (folder, leaf) = place.name.rsplit_once('\\').unwrap_or(("", &place.name));
        let parent = place.base.open(folder)?;
        let (key, is_new) = parent.create(leaf)?;
        Ok((OpenKey { key, parent: Some(parent) }, is_new))
    });
    match created {
        Ok((open, is_new)) => {
            disposition.write_if_some(if is_new { REG_CREATED_NEW_KEY } else { REG_OPENED_EXISTING_KEY });
            give(&call, handle, access, attributes, open)
        }
        Err(status) => status,
    }
}

/// Where an `OBJECT_ATTRIBUTES` leads: a key that exists, and a name below it.
struct Place {
    base: Arc<Key>,
    name: String,
}

impl Place {
    /// The key in which the last part of the name is.
    fn parent_of_leaf(&self) -> Option<Arc<Key>> {
        let (folder, leaf) = self.name.rsplit_once('\\').unwrap_or(("", &self.name));
        if leaf.is_empty() { None } else { self.base.open(folder).ok() }
    }
}

fn place(call: &Call, attributes: Raw<OBJECT_ATTRIBUTES>) -> Result<Place, NtStatus> {
    if attributes.is_null() {
        call.stop(Rule::BadArgument, "ObjectAttributes is NULL");
    }
    let attributes = attributes.read();
    if attributes.Length as usize != size_of::<OBJECT_ATTRIBUTES>() {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let name = unicode::name(Raw::of(attributes.ObjectName))?;
    call.detail(name.as_str());
    if attributes.RootDirectory.is_null() {
        let below = name.strip_prefix('\\').ok_or(NtStatus::OBJECT_PATH_SYNTAX_BAD)?;
        let (root, rest) = below.split_once('\\').unwrap_or((below, ""));
        let base = call.machine().nt.hive().open(&format!("\\{root}"))?;
        return Ok(Place { base, name: rest.to_owned() });
    }
    if name.starts_with('\\') {
        return Err(NtStatus::OBJECT_PATH_SYNTAX_BAD);
    }
    Ok(Place { base: Arc::clone(&key_of(call, attributes.RootDirectory)?.key), name })
}

fn give(call: &Call, handle: Raw<usize>, access: u32, attributes: Raw<OBJECT_ATTRIBUTES>, open: OpenKey) -> NtStatus {
    give_handle(call, handle, access, attributes.read().Attributes, open)
}

/// Makes the handle to a key that a call returns.
fn give_handle(call: &Call, handle: Raw<usize>, access: u32, attributes: u32, open: OpenKey) -> NtStatus {
    match call.machine().nt.objects().create(BODY_BYTES, Arc::new(open)) {
        Ok(object) => {
            handle.write(make_handle(call, &object, access, attributes));
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

fn key_of(call: &Call, handle: HANDLE) -> Result<Arc<OpenKey>, NtStatus> {
    let entry = open_entry(call, handle.addr(), 0, Some("Key"), nt_types::KERNEL_MODE)?;
    entry.object.payload().ok_or(NtStatus::OBJECT_TYPE_MISMATCH)
}

/// Runs `work` on the key behind a handle.
fn with_key(call: &Call, handle: HANDLE, work: impl FnOnce(&OpenKey) -> Result<NtStatus, NtStatus>) -> NtStatus {
    key_of(call, handle).and_then(|open| work(&open)).unwrap_or_else(|status| status)
}

extern "efiapi" fn zw_delete_key(handle: HANDLE) -> NtStatus {
    let call = Call::enter();
    with_key(&call, handle, |open| {
        let parent = open.parent.as_ref().ok_or(NtStatus::CANNOT_DELETE)?;
        parent.delete(open.key.name())?;
        Ok(NtStatus::SUCCESS)
    })
}

extern "efiapi" fn zw_query_key(
    handle: HANDLE,
    class: i32,
    buffer: Raw<u8>,
    length: u32,
    result_length: Raw<u32>,
) -> NtStatus {
    let call = Call::enter();
    with_key(&call, handle, |open| Ok(hand_out(&key_record(&open.key, class)?, buffer, length, result_length)))
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
    with_key(&call, handle, |open| {
        let names = open.key.subkeys()?;
        let name = names.get(index as usize).ok_or(NtStatus::NO_MORE_ENTRIES)?;
        let key = open.key.open(name)?;
        Ok(hand_out(&key_record(&key, class)?, buffer, length, result_length))
    })
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
    with_key(&call, handle, |open| {
        let name = unicode::name(name)?;
        call.detail(name.as_str());
        let value = open.key.value(&name)?;
        Ok(hand_out(&value_record(&name, &value, class)?, buffer, length, result_length))
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
    with_key(&call, handle, |open| {
        let values = open.key.values()?;
        let (name, value) = values.get(index as usize).ok_or(NtStatus::NO_MORE_ENTRIES)?;
        Ok(hand_out(&value_record(name, value, class)?, buffer, length, result_length))
    })
}

/// Copies a record out: nothing where its fixed part does not fit, as much as fits otherwise.
fn hand_out(record: &Record, buffer: Raw<u8>, length: u32, result_length: Raw<u32>) -> NtStatus {
    let needed = record.bytes.len();
    result_length.write_if_some(needed as u32);
    let length = length as usize;
    if length < record.fixed {
        return NtStatus::BUFFER_TOO_SMALL;
    }
    let fitting = record.bytes.get(..length).unwrap_or(&record.bytes);
    buffer.write_bytes(fitting);
    if length < needed { NtStatus::BUFFER_OVERFLOW } else { NtStatus::SUCCESS }
}

extern "efiapi" fn zw_set_value_key(
    handle: HANDLE,
    name: Raw<UNICODE_STRING>,
    _title_index: u32,
    kind: u32,
    data: Raw<u8>,
    length: u32,
) -> NtStatus {
    let call = Call::enter();
    call.bytes(u64::from(length));
    with_key(&call, handle, |open| {
        let name = unicode::name(name)?;
        call.detail(name.as_str());
        open.key.set_value(&name, Value { kind, data: data.read_bytes(length as usize) })?;
        Ok(NtStatus::SUCCESS)
    })
}

extern "efiapi" fn zw_delete_value_key(handle: HANDLE, name: Raw<UNICODE_STRING>) -> NtStatus {
    let call = Call::enter();
    with_key(&call, handle, |open| {
        open.key.delete_value(&unicode::name(name)?)?;
        Ok(NtStatus::SUCCESS)
    })
}

/// The registry is in memory: there is nothing to write to.
extern "efiapi" fn zw_flush_key(handle: HANDLE) -> NtStatus {
    let call = Call::enter();
    with_key(&call, handle, |_| Ok(NtStatus::SUCCESS))
}

#[cfg(test)]
mod tests;
