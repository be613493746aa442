//! `RtlQueryRegistryValues`: a table of values to be fetched. Page: `wdm/nf-wdm-rtlqueryregistryvalues`.

use std::sync::Arc;

use nt_types::{NtStatus, REG_EXPAND_SZ, REG_MULTI_SZ, REG_SZ, UNICODE_STRING};

use super::super::hive::{Key, Value};
use super::super::unicode::bytes_of;
use super::rtl::{Base, is_user, text};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::pool::{PoolKind, Request};
use crate::nt::raw::{Raw, field};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    RtlQueryRegistryValues(max 0, fails RESOURCES) = rtl_query_registry_values;
    RtlQueryRegistryValuesEx(max 0, fails RESOURCES) = rtl_query_registry_values;
}

/// A value without a type.
const REG_NONE: u32 = 0;

/// `RTL_QUERY_REGISTRY_*`.
mod flag {
    pub(super) const SUBKEY: u32 = 0x01;
    pub(super) const TOPKEY: u32 = 0x02;
    pub(super) const REQUIRED: u32 = 0x04;
    pub(super) const NOVALUE: u32 = 0x08;
    pub(super) const NOEXPAND: u32 = 0x10;
    pub(super) const DIRECT: u32 = 0x20;
    pub(super) const DELETE: u32 = 0x40;
    pub(super) const TYPECHECK: u32 = 0x100;
}

/// `RTL_QUERY_REGISTRY_TYPECHECK_SHIFT`.
const TYPECHECK_SHIFT: u32 = 24;

/// `RTL_QUERY_REGISTRY_TABLE`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) routine: usize,
    pub(super) flags: u32,
    pub(super) name: Raw<u16>,
    pub(super) context: usize,
    pub(super) default_type: u32,
    pub(super) default_data: Raw<u8>,
    pub(super) default_length: u32,
}

const _: () = assert!(size_of::<Entry>() == 56);

pub(super) extern "efiapi" fn rtl_query_registry_values(
    relative_to: u32,
    path: Raw<u16>,
    table: Raw<Entry>,
    context: usize,
    _environment: usize,
) -> NtStatus {
    let call = Call::enter();
    let base = match Base::of(&call, relative_to, path) {
        Ok(base) => base,
        Err(status) => return status,
    };
    let top = match base.open(&call) {
        Ok(top) => top,
        Err(status) => return status,
    };
    let query = Query { call: &call, context, is_trusted: base.is_trusted() && !is_user(relative_to) };
    query.run(&top, table).map_or_else(|status| status, |()| NtStatus::SUCCESS)
}

struct Query<'a> {
    call: &'a Call,
    context: usize,
    is_trusted: bool,
}

impl Query<'_> {
    fn run(&self, top: &Arc<Key>, table: Raw<Entry>) -> Result<(), NtStatus> {
        // The key that entries apply to; none where an optional subkey is missing.
        let mut current = Some(Arc::clone(top));
        for index in 0.. {
            let entry = table.index(index).read();
            let is_last = entry.routine == 0 && entry.name.is_null();
            if is_last && entry.flags & (flag::SUBKEY | flag::DIRECT) == 0 {
                break;
            }
            if entry.flags & flag::DIRECT != 0 && (entry.name.is_null() || entry.flags & flag::SUBKEY != 0) {
                return Err(NtStatus::INVALID_PARAMETER);
            }
            self.check_trust(&entry);
            if entry.flags & (flag::TOPKEY | flag::SUBKEY) != 0 {
                current = Some(Arc::clone(top));
            }
            if entry.flags & flag::SUBKEY != 0 {
                current = self.enter(top, &entry)?;
            } else if entry.name.is_null() {
                self.report_all(current.as_ref(), &entry)?;
            } else {
                self.fetch(current.as_ref(), &entry)?;
            }
        }
        Ok(())
    }

    /// What Windows bug-checks for, with `KERNEL_SECURITY_CHECK_FAILURE`.
    fn check_trust(&self, entry: &Entry) {
        if !self.is_trusted && entry.flags & flag::DIRECT != 0 && entry.flags & flag::TYPECHECK == 0 {
            self.call.stop(
                Rule::BugCheck,
                "bug check 0x139: RTL_QUERY_REGISTRY_DIRECT without RTL_QUERY_REGISTRY_TYPECHECK on a hive that is not trusted",
            );
        }
    }

    /// A subkey: the key of the following entries, and, with a routine, all its values.
    fn enter(&self, top: &Arc<Key>, entry: &Entry) -> Result<Option<Arc<Key>>, NtStatus> {
        if entry.name.is_null() {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        match top.open(&text(entry.name)?) {
            Ok(key) => {
                if entry.routine != 0 {
                    self.report_all(Some(&key), entry)?;
                }
                Ok(Some(key))
            }
            Err(status) if entry.flags & flag::REQUIRED != 0 => Err(status),
            Err(_) => Ok(None),
        }
    }

    /// Every value of the key, or with `NOVALUE` one call for the key itself.
    fn report_all(&self, key: Option<&Arc<Key>>, entry: &Entry) -> Result<(), NtStatus> {
        if entry.flags & flag::NOVALUE != 0 {
            return self.call_routine(entry, "", REG_NONE, &[]);
        }
        let values = key.map_or_else(|| Ok(Vec::new()), |key| key.values())?;
        if values.is_empty() && entry.flags & flag::REQUIRED != 0 {
            return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
        }
        for (name, value) in values {
            self.report(entry, &name, &value)?;
            delete(key, entry, &name)?;
        }
        Ok(())
    }

    fn fetch(&self, key: Option<&Arc<Key>>, entry: &Entry) -> Result<(), NtStatus> {
        let name = text(entry.name)?;
        let found = key.map_or(Err(NtStatus::OBJECT_NAME_NOT_FOUND), |key| key.value(&name));
        let value = match found {
            Ok(value) => value,
            Err(status) if entry.flags & flag::REQUIRED != 0 => return Err(status),
            Err(_) => match default_of(entry) {
                Some(default) => return self.deliver(entry, &name, &default),
                None => return Ok(()),
            },
        };
        if entry.flags & flag::TYPECHECK != 0 && entry.default_type >> TYPECHECK_SHIFT != value.kind {
            return Err(NtStatus::OBJECT_TYPE_MISMATCH);
        }
        self.deliver(entry, &name, &value)?;
        delete(key, entry, &name)
    }

    fn deliver(&self, entry: &Entry, name: &str, value: &Value) -> Result<(), NtStatus> {
        if entry.flags & flag::DIRECT != 0 { self.store(entry, value) } else { self.report(entry, name, value) }
    }

    /// Hands a value to the routine: lists string by string, unless they are not to be expanded.
    fn report(&self, entry: &Entry, name: &str, value: &Value) -> Result<(), NtStatus> {
        if value.kind != REG_MULTI_SZ || entry.flags & flag::NOEXPAND != 0 {
            return self.call_routine(entry, name, value.kind, &value.data);
        }
        let mut rest = value.data.as_slice();
        while let Some(end) = rest.as_chunks::<2>().0.iter().position(|unit| *unit == [0, 0]) {
            let (text, behind) = rest.split_at((end + 1) * 2);
            rest = behind;
            // The empty string ends the list.
            if end == 0 {
                break;
            }
            self.call_routine(entry, name, REG_SZ, text)?;
        }
        Ok(())
    }

    fn call_routine(&self, entry: &Entry, name: &str, kind: u32, data: &[u8]) -> Result<(), NtStatus> {
        type Routine = unsafe extern "efiapi" fn(*const u16, u32, *const u8, u32, usize, usize) -> NtStatus;
        if entry.routine == 0 {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        // SAFETY: the address of the driver's QUERY_ROUTINE.
        let routine = unsafe { std::mem::transmute::<usize, Routine>(entry.routine) };
        let name: Vec<u16> = name.encode_utf16().chain([0]).collect();
        let (length, pointer) = (data.len() as u32, if data.is_empty() { std::ptr::null() } else { data.as_ptr() });
        let (name, context, own) = (name.as_ptr(), self.context, entry.context);
        let driver = Arc::clone(self.call.driver());
        let called = self.call.thread().call_driver(&driver, "QUERY_ROUTINE", 0, || {
            // SAFETY: name and data live during the call; the contexts are the driver's.
            unsafe { routine(name, kind, pointer, length, context, own) }
        });
        let Ok(status) = called else {
            self.call.thread().leave_if_stopped();
            return Err(NtStatus::UNSUCCESSFUL);
        };
        // The page's one exception.
        if status == NtStatus::BUFFER_TOO_SMALL { Ok(()) } else { status.ok() }
    }

    /// Stores a value where the entry says.
    fn store(&self, entry: &Entry, value: &Value) -> Result<(), NtStatus> {
        if matches!(value.kind, REG_SZ | REG_EXPAND_SZ | REG_MULTI_SZ) {
            if value.kind == REG_MULTI_SZ && entry.flags & flag::NOEXPAND == 0 {
                return Err(NtStatus::INVALID_PARAMETER);
            }
            return self.store_text(Raw::at(entry.context), &value.data);
        }
        let target = Raw::<u8>::at(entry.context);
        if value.data.len() <= size_of::<u32>() {
            target.write_bytes(&value.data);
            return Ok(());
        }
        // The buffer begins with its size; negative when only the data are wanted.
        let room = target.cast::<i32>().read();
        let header = if room < 0 { 0 } else { 2 * size_of::<u32>() };
        if value.data.len() + header > room.unsigned_abs() as usize {
            return Err(NtStatus::BUFFER_TOO_SMALL);
        }
        if header > 0 {
            target.cast::<u32>().write(value.data.len() as u32);
            target.cast::<u32>().index(1).write(value.kind);
        }
        target.field::<u8>(header).write_bytes(&value.data);
        Ok(())
    }

    fn store_text(&self, string: Raw<UNICODE_STRING>, data: &[u8]) -> Result<(), NtStatus> {
        let mut data = data.to_vec();
        if !data.ends_with(&[0, 0]) {
            data.extend([0, 0]);
        }
        let bytes = u16::try_from(data.len()).map_err(|_| NtStatus::BUFFER_TOO_SMALL)?;
        let mut buffer = field!(string, UNICODE_STRING, Buffer).read().addr();
        if buffer == 0 {
            let request = Request {
                kind: PoolKind::Paged,
                length: data.len(),
                tag: u32::from_le_bytes(*b"RRqv"),
                zeroed: false,
                cache_aligned: false,
            };
            buffer = self.call.machine().nt.pool().allocate(self.call, request);
            if buffer == 0 {
                return Err(NtStatus::NO_MEMORY);
            }
            field!(string, UNICODE_STRING, Buffer).write(Raw::at(buffer).pointer());
            field!(string, UNICODE_STRING, MaximumLength).write(bytes);
        } else if field!(string, UNICODE_STRING, MaximumLength).read() < bytes {
            return Err(NtStatus::BUFFER_TOO_SMALL);
        }
        Raw::<u8>::at(buffer).write_bytes(&data);
        field!(string, UNICODE_STRING, Length).write(bytes - 2);
        Ok(())
    }
}

/// Deletes a value that was queried, where the entry asks for it.
fn delete(key: Option<&Arc<Key>>, entry: &Entry, name: &str) -> Result<(), NtStatus> {
    match key {
        Some(key) if entry.flags & flag::DELETE != 0 => key.delete_value(name),
        _ => Ok(()),
    }
}

/// The value that an entry brings along for when there is none.
fn default_of(entry: &Entry) -> Option<Value> {
    let kind = entry.default_type & 0xFF;
    if kind == REG_NONE {
        return None;
    }
    let is_text = matches!(kind, REG_SZ | REG_EXPAND_SZ);
    let data = if entry.default_length == 0 && is_text {
        let mut data = bytes_of(&text(entry.default_data.cast()).ok()?);
        data.extend([0, 0]);
        data
    } else {
        entry.default_data.read_bytes(entry.default_length as usize)
    };
    Some(Value { kind, data })
}

#[cfg(test)]
#[path = "query_tests.rs"]
mod tests;
