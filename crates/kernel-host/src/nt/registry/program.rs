//! The registry as programs use it: `RegOpenKeyEx` and its neighbours.

use std::sync::Arc;

use nt_types::{NtStatus, ObjectFlags, UNICODE_STRING, USER_MODE};

use super::KeyObject;
use super::opening::{Caller, Opening};
use super::operations::Answer;
use crate::nt::hive::Value;
use crate::nt::raw::Raw;
use crate::process::{Placement, Process, Protection};
use crate::thread::Thread;

/// `KEY_QUERY_VALUE`, `KEY_SET_VALUE`, `KEY_ENUMERATE_SUB_KEYS`, `DELETE`.
const QUERY_VALUE: u32 = 0x1;
const SET_VALUE: u32 = 0x2;
const ENUMERATE: u32 = 0x8;
const DELETE: u32 = 0x1_0000;

/// Classes of records that are asked for: `KeyBasicInformation` and where its name is, `KeyValueBasicInformation` likewise,
/// `KeyValuePartialInformation` and its header.
const KEY_BASIC: (i32, usize) = (0, 16);
const VALUE_BASIC: (i32, usize) = (0, 12);
const VALUE_PARTIAL: (i32, usize) = (2, 12);

/// Bytes of the buffers for answers: values do not get larger than a megabyte.
const LARGEST: usize = 1 << 20;

/// A key that a program has open. Dropping it closes the handle.
#[derive(Debug)]
pub struct ProgramKey {
    process: Arc<Process>,
    handle: usize,
}

impl Process {
    /// `RegOpenKeyEx`, with an NT path such as `\Registry\Machine\Software\X` and `KEY_*` rights.
    ///
    /// # Errors
    /// `STATUS_OBJECT_NAME_NOT_FOUND`, `STATUS_ACCESS_DENIED`, and what registry filters answer.
    pub fn open_key(self: &Arc<Self>, path: &str, access: u32) -> Result<ProgramKey, NtStatus> {
        self.key(path, access, false).map(|(key, _)| key)
    }

    /// `RegCreateKeyEx`; true when the key is new. Errors as for [`open_key`](Self::open_key).
    ///
    /// # Errors
    /// As for [`open_key`](Self::open_key).
    pub fn create_key(self: &Arc<Self>, path: &str, access: u32) -> Result<(ProgramKey, bool), NtStatus> {
        self.key(path, access, true)
    }

    fn key(self: &Arc<Self>, path: &str, access: u32, creates: bool) -> Result<(ProgramKey, bool), NtStatus> {
        with_string(path, |given_name| {
            self.within(|thread| {
                let mut disposition = 0_u32;
                let disposition = Raw::of(&raw mut disposition);
                let opening = Opening {
                    caller: Caller { process: Arc::clone(self), mode: USER_MODE },
                    root: None,
                    name: path.to_owned(),
                    given_name,
                    attributes: ObjectFlags::CASE_INSENSITIVE.bits(),
                    descriptor: 0,
                    access,
                    options: 0,
                    class: Raw::NULL,
                    disposition,
                    creates,
                };
                let (object, granted) = opening.carry_out(thread)?;
                let handle = self.handles().insert(&object, granted, None);
                Ok((ProgramKey { process: Arc::clone(self), handle }, disposition.read() == 1))
            })
        })
    }
}

impl ProgramKey {
    /// The handle's value in the process.
    #[must_use]
    pub fn handle(&self) -> usize {
        self.handle
    }

    /// `RegQueryValueEx`.
    ///
    /// # Errors
    /// `STATUS_OBJECT_NAME_NOT_FOUND`, `STATUS_ACCESS_DENIED`, and what registry filters answer.
    pub fn value(&self, name: &str) -> Result<Value, NtStatus> {
        let bytes = with_string(name, |at| {
            self.answered(QUERY_VALUE, |thread, key, answer| {
                key.query_value(thread, (at, name), VALUE_PARTIAL.0, answer)
            })
        })?;
        let kind = bytes.get(4..).and_then(|rest| rest.first_chunk::<4>()).ok_or(NtStatus::DATA_ERROR)?;
        let data = bytes.get(VALUE_PARTIAL.1..).unwrap_or_default().to_vec();
        Ok(Value { kind: u32::from_le_bytes(*kind), data })
    }

    /// `RegSetValueEx`. Errors as for [`value`](Self::value).
    ///
    /// # Errors
    /// As for [`value`](Self::value).
    pub fn set_value(&self, name: &str, value: &Value) -> Result<(), NtStatus> {
        // The system has captured it before filters see it.
        let data = Raw::of(value.data.as_ptr().cast_mut());
        with_string(name, |at| {
            self.with(SET_VALUE, |thread, key| {
                key.set_value(thread, (at, name), 0, value.kind, (data, value.data.len() as u32)).ok()
            })
        })
    }

    /// `RegDeleteValue`. Errors as for [`value`](Self::value).
    ///
    /// # Errors
    /// As for [`value`](Self::value).
    pub fn delete_value(&self, name: &str) -> Result<(), NtStatus> {
        with_string(name, |at| self.with(SET_VALUE, |thread, key| key.delete_value(thread, (at, name)).ok()))
    }

    /// `RegDeleteKey`, of the open key itself.
    ///
    /// # Errors
    /// `STATUS_CANNOT_DELETE` with subkeys; else as for [`value`](Self::value).
    pub fn delete(&self) -> Result<(), NtStatus> {
        self.with(DELETE, |thread, key| key.delete(thread).ok())
    }

    /// `RegFlushKey`. Errors as for [`value`](Self::value).
    ///
    /// # Errors
    /// As for [`value`](Self::value).
    pub fn flush(&self) -> Result<(), NtStatus> {
        self.with(0, |thread, key| key.flush(thread).ok())
    }

    /// `RegEnumKeyEx`, to the end: names of the subkeys.
    ///
    /// # Errors
    /// As for [`value`](Self::value).
    pub fn subkeys(&self) -> Result<Vec<String>, NtStatus> {
        self.names(ENUMERATE, KEY_BASIC, |thread, key, index, answer| key.enumerate(thread, index, KEY_BASIC.0, answer))
    }

    /// `RegEnumValue`, to the end: names of the values.
    ///
    /// # Errors
    /// As for [`value`](Self::value).
    pub fn values(&self) -> Result<Vec<String>, NtStatus> {
        self.names(QUERY_VALUE, VALUE_BASIC, |thread, key, index, answer| {
            key.enumerate_values(thread, index, VALUE_BASIC.0, answer)
        })
    }

    fn names(
        &self,
        access: u32,
        (_, header): (i32, usize),
        next: impl Fn(&Thread, &KeyObject, u32, Answer) -> NtStatus,
    ) -> Result<Vec<String>, NtStatus> {
        let mut names = Vec::new();
        for index in 0.. {
            let record = self.answered(access, |thread, key, answer| next(thread, key, index, answer));
            let bytes = match record {
                Err(NtStatus::NO_MORE_ENTRIES) => break,
                record => record?,
            };
            let (units, _) = bytes.get(header..).unwrap_or_default().as_chunks::<2>();
            let units: Vec<u16> = units.iter().map(|unit| u16::from_le_bytes(*unit)).collect();
            names.push(String::from_utf16_lossy(&units));
        }
        Ok(names)
    }

    /// An operation that answers into the program's memory: what it wrote there.
    fn answered(
        &self,
        access: u32,
        operate: impl Fn(&Thread, &KeyObject, Answer) -> NtStatus,
    ) -> Result<Vec<u8>, NtStatus> {
        let buffer = self.process.allocate(LARGEST, Protection::ReadWrite, Placement::Aligned)?;
        let length = self.process.buffer(&0_u32.to_le_bytes())?;
        let answer = Answer {
            buffer: Raw::at(buffer.address()),
            length: LARGEST as u32,
            result_length: Raw::at(length.address()),
        };
        self.with(access, |thread, key| operate(thread, key, answer).ok())?;
        let length = *length.read()?.first_chunk::<4>().ok_or(NtStatus::DATA_ERROR)?;
        self.process.memory().read_vec(buffer.address(), u32::from_le_bytes(length) as usize)
    }

    fn with<R>(
        &self,
        access: u32,
        work: impl FnOnce(&Thread, &KeyObject) -> Result<R, NtStatus>,
    ) -> Result<R, NtStatus> {
        let object = self.process.handles().reference(self.handle, access, Some("Key"))?.object;
        let open = object.payload().ok_or(NtStatus::OBJECT_TYPE_MISMATCH)?;
        self.process.within(|thread| work(thread, &KeyObject { object, open }))
    }
}

impl Drop for ProgramKey {
    fn drop(&mut self) {
        // Fails only when the process exited meanwhile, which closed the handle.
        let _closed = self.process.within(|_| self.process.close_handle(self.handle));
    }
}

/// Runs `body` with a counted string.
fn with_string<R>(text: &str, body: impl FnOnce(Raw<UNICODE_STRING>) -> Result<R, NtStatus>) -> Result<R, NtStatus> {
    let units: Vec<u16> = text.encode_utf16().collect();
    let mut string = UNICODE_STRING::from_utf16(&units).ok_or(NtStatus::OBJECT_NAME_INVALID)?;
    body(Raw::of(&raw mut string))
}
