//! `RtlQueryRegistryValues`: a table of values to be fetched. Page: `wdm/nf-wdm-rtlqueryregistryvalues`.

use std::collections::VecDeque;
use std::sync::Arc;

use nt_types::{NtStatus, REG_EXPAND_SZ, REG_MULTI_SZ, REG_SZ, UNICODE_STRING};

use super::super::hive::{Key, Value};
use super::super::unicode::bytes_of;
use super::rtl::{Base, is_user, text};
use crate::cpu::bridge::call_out_keeping;
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
    let query = Query {
        context,
        is_trusted: base.is_trusted() && !is_user(relative_to),
        current: Some(Arc::clone(&top)),
        top,
        entry: table,
        due: VecDeque::new(),
    };
    drop(base);
    query.run(call)
}

/// A walk over the table. It owns all that there is while a routine runs, so that an exception of the routine's can drop it.
struct Query {
    context: usize,
    is_trusted: bool,
    top: Arc<Key>,
    /// The key that entries apply to; none where an optional subkey is missing.
    current: Option<Arc<Key>>,
    /// The entry whose turn it is.
    entry: Raw<Entry>,
    /// What is left to do for the entry before it.
    due: VecDeque<Step>,
}

/// A part of what an entry asks for.
enum Step {
    /// Calls the routine.
    Report(Report),
    /// Deletes a value that was reported.
    Delete(Arc<Key>, String),
}

/// One call of a routine.
struct Report {
    entry: Entry,
    /// With its terminator.
    name: Vec<u16>,
    kind: u32,
    data: Vec<u8>,
}

impl Query {
    fn run(mut self, mut call: Call) -> NtStatus {
        loop {
            match self.due.pop_front() {
                Some(Step::Report(report)) => {
                    let status;
                    (call, self, status) = self.call_routine(call, report);
                    // The page's one exception.
                    if !status.is_success() && status != NtStatus::BUFFER_TOO_SMALL {
                        return status;
                    }
                }
                Some(Step::Delete(key, name)) => {
                    if let Err(status) = key.delete_value(&name) {
                        return status;
                    }
                }
                None => match self.advance(&call) {
                    Ok(true) => {}
                    Ok(false) => return NtStatus::SUCCESS,
                    Err(status) => return status,
                },
            }
        }
    }

    /// Does what the next entry asks for, but for calls of its routine, which become due. False at the table's end.
    fn advance(&mut self, call: &Call) -> Result<bool, NtStatus> {
        let entry = self.entry.read();
        self.entry = self.entry.index(1);
        let is_last = entry.routine == 0 && entry.name.is_null();
        if is_last && entry.flags & (flag::SUBKEY | flag::DIRECT) == 0 {
            return Ok(false);
        }
        if entry.flags & flag::DIRECT != 0 && (entry.name.is_null() || entry.flags & flag::SUBKEY != 0) {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        self.check_trust(call, &entry);
        if entry.flags & (flag::TOPKEY | flag::SUBKEY) != 0 {
            self.current = Some(Arc::clone(&self.top));
        }
        if entry.flags & flag::SUBKEY != 0 {
            self.current = self.enter(&entry)?;
        } else if entry.name.is_null() {
            let key = self.current.clone();
            self.report_all(key.as_ref(), &entry)?;
        } else {
            self.fetch(call, &entry)?;
        }
        Ok(true)
    }

    /// What Windows bug-checks for, with `KERNEL_SECURITY_CHECK_FAILURE`.
    fn check_trust(&self, call: &Call, entry: &Entry) {
        if !self.is_trusted && entry.flags & flag::DIRECT != 0 && entry.flags & flag::TYPECHECK == 0 {
            call.stop(
                Rule::BugCheck,
                "bug check 0x139: RTL_QUERY_REGISTRY_DIRECT without RTL_QUERY_REGISTRY_TYPECHECK on a hive that is not trusted",
            );
        }
    }

    /// A subkey: the key of the following entries, and, with a routine, all its values.
    fn enter(&mut self, entry: &Entry) -> Result<Option<Arc<Key>>, NtStatus> {
        if entry.name.is_null() {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        match self.top.open(&text(entry.name)?) {
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
    fn report_all(&mut self, key: Option<&Arc<Key>>, entry: &Entry) -> Result<(), NtStatus> {
        if entry.flags & flag::NOVALUE != 0 {
            return self.report_once(entry, "", REG_NONE, &[]);
        }
        let values = key.map_or_else(|| Ok(Vec::new()), |key| key.values())?;
        if values.is_empty() && entry.flags & flag::REQUIRED != 0 {
            return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
        }
        for (name, value) in values {
            self.report(entry, &name, &value)?;
            self.delete(key, entry, &name);
        }
        Ok(())
    }

    fn fetch(&mut self, call: &Call, entry: &Entry) -> Result<(), NtStatus> {
        let name = text(entry.name)?;
        let key = self.current.clone();
        let found = key.as_ref().map_or(Err(NtStatus::OBJECT_NAME_NOT_FOUND), |key| key.value(&name));
        let value = match found {
            Ok(value) => value,
            Err(status) if entry.flags & flag::REQUIRED != 0 => return Err(status),
            Err(_) => match default_of(entry) {
                Some(default) => return self.deliver(call, entry, &name, &default),
                None => return Ok(()),
            },
        };
        if entry.flags & flag::TYPECHECK != 0 && entry.default_type >> TYPECHECK_SHIFT != value.kind {
            return Err(NtStatus::OBJECT_TYPE_MISMATCH);
        }
        self.deliver(call, entry, &name, &value)?;
        self.delete(key.as_ref(), entry, &name);
        Ok(())
    }

    fn deliver(&mut self, call: &Call, entry: &Entry, name: &str, value: &Value) -> Result<(), NtStatus> {
        if entry.flags & flag::DIRECT != 0 { store(call, entry, value) } else { self.report(entry, name, value) }
    }

    /// Hands a value to the routine: lists string by string, unless they are not to be expanded.
    fn report(&mut self, entry: &Entry, name: &str, value: &Value) -> Result<(), NtStatus> {
        if value.kind != REG_MULTI_SZ || entry.flags & flag::NOEXPAND != 0 {
            return self.report_once(entry, name, value.kind, &value.data);
        }
        let mut rest = value.data.as_slice();
        while let Some(end) = rest.as_chunks::<2>().0.iter().position(|unit| *unit == [0, 0]) {
            let (text, behind) = rest.split_at((end + 1) * 2);
            rest = behind;
            // The empty string ends the list.
            if end == 0 {
                break;
            }
            self.report_once(entry, name, REG_SZ, text)?;
        }
        Ok(())
    }

    fn report_once(&mut self, entry: &Entry, name: &str, kind: u32, data: &[u8]) -> Result<(), NtStatus> {
        if entry.routine == 0 {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        let name = name.encode_utf16().chain([0]).collect();
        self.due.push_back(Step::Report(Report { entry: *entry, name, kind, data: data.to_vec() }));
        Ok(())
    }

    /// Deletes a value that was queried, where the entry asks for it, once the routine has had it.
    fn delete(&mut self, key: Option<&Arc<Key>>, entry: &Entry, name: &str) {
        if let Some(key) = key.filter(|_| entry.flags & flag::DELETE != 0) {
            self.due.push_back(Step::Delete(Arc::clone(key), name.to_owned()));
        }
    }

    /// Calls the routine; its exceptions go on in the caller of the export.
    fn call_routine(self, call: Call, report: Report) -> (Call, Self, NtStatus) {
        type Routine = unsafe extern "efiapi" fn(*const u16, u32, *const u8, u32, usize, usize) -> NtStatus;
        // SAFETY: the address of the driver's QUERY_ROUTINE.
        let routine = unsafe { std::mem::transmute::<usize, Routine>(report.entry.routine) };
        let body = |(query, report): &(Self, Report)| {
            let Report { entry, name, kind, data } = report;
            let pointer = if data.is_empty() { std::ptr::null() } else { data.as_ptr() };
            // SAFETY: name and data live during the call; the contexts are the driver's.
            unsafe { routine(name.as_ptr(), *kind, pointer, data.len() as u32, query.context, entry.context) }
        };
        let (call, (query, _), status) =
            call_out_keeping(call, (self, report), |call, _| call.driver(), "QUERY_ROUTINE", body);
        (call, query, status)
    }
}

/// Stores a value where the entry says.
fn store(call: &Call, entry: &Entry, value: &Value) -> Result<(), NtStatus> {
    if matches!(value.kind, REG_SZ | REG_EXPAND_SZ | REG_MULTI_SZ) {
        if value.kind == REG_MULTI_SZ && entry.flags & flag::NOEXPAND == 0 {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        return store_text(call, Raw::at(entry.context), &value.data);
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

fn store_text(call: &Call, string: Raw<UNICODE_STRING>, data: &[u8]) -> Result<(), NtStatus> {
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
        buffer = call.machine().nt.pool().allocate(call, request);
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
