//! What is done with open keys, each operation past the registry callbacks.

use nt_types::{NtStatus, UNICODE_STRING};

use super::KeyObject;
use crate::nt::hive::Value;
use crate::nt::raw::Raw;
use crate::nt::registry_callbacks::Notice;
use crate::nt::registry_callbacks::structures::{
    Class, DeleteValue, Enumerate, KeyInformation, QueryKey, QueryValue, SetValue,
};
use crate::nt::registry_information::{KEY_NAME, Record, key_record, name_record, value_record};
use crate::thread::Thread;

/// Where a record goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Answer {
    pub(super) buffer: Raw<u8>,
    /// Bytes of the buffer.
    pub(super) length: u32,
    /// Optional.
    pub(super) result_length: Raw<u32>,
}

/// A value's name, where the caller has it and as text.
pub(super) type Name<'a> = (Raw<UNICODE_STRING>, &'a str);

impl KeyObject {
    fn information(&self) -> KeyInformation {
        KeyInformation { object: self.object.body(), call_context: 0, object_context: 0, reserved: 0 }
    }

    pub(super) fn delete(&self, thread: &Thread) -> NtStatus {
        Notice::on(Class::DELETE_KEY, &self.object, &mut self.information()).run(thread, || {
            let deleted = self.open.parent.as_ref().ok_or(NtStatus::CANNOT_DELETE);
            settle(deleted.and_then(|parent| parent.delete(self.open.key.name())))
        })
    }

    /// The registry is in memory: there is nothing to write to.
    pub(super) fn flush(&self, thread: &Thread) -> NtStatus {
        Notice::on(Class::FLUSH_KEY, &self.object, &mut self.information()).run(thread, || NtStatus::SUCCESS)
    }

    pub(super) fn query(&self, thread: &Thread, class: i32, answer: Answer) -> NtStatus {
        let Answer { buffer, length, result_length } = answer;
        let object = self.object.body();
        let mut information =
            QueryKey { object, class, buffer, length, result_length, call_context: 0, object_context: 0, reserved: 0 };
        Notice::on(Class::QUERY_KEY, &self.object, &mut information).run(thread, || {
            let record =
                if class == KEY_NAME { Ok(name_record(&self.open.path)) } else { key_record(&self.open.key, class) };
            answer.hand_out(record)
        })
    }

    pub(super) fn enumerate(&self, thread: &Thread, index: u32, class: i32, answer: Answer) -> NtStatus {
        let mut information = self.enumeration(index, class, answer);
        Notice::on(Class::ENUMERATE_KEY, &self.object, &mut information).run(thread, || {
            let record = self.open.key.subkeys().and_then(|names| {
                let name = names.get(index as usize).ok_or(NtStatus::NO_MORE_ENTRIES)?;
                key_record(&*self.open.key.open(name)?, class)
            });
            answer.hand_out(record)
        })
    }

    pub(super) fn enumerate_values(&self, thread: &Thread, index: u32, class: i32, answer: Answer) -> NtStatus {
        let mut information = self.enumeration(index, class, answer);
        Notice::on(Class::ENUMERATE_VALUE, &self.object, &mut information).run(thread, || {
            let record = self.open.key.values().and_then(|values| {
                let (name, value) = values.get(index as usize).ok_or(NtStatus::NO_MORE_ENTRIES)?;
                value_record(name, value, class)
            });
            answer.hand_out(record)
        })
    }

    fn enumeration(&self, index: u32, class: i32, answer: Answer) -> Enumerate {
        let Answer { buffer, length, result_length } = answer;
        let object = self.object.body();
        let (call_context, object_context, reserved) = (0, 0, 0);
        Enumerate { object, index, class, buffer, length, result_length, call_context, object_context, reserved }
    }

    pub(super) fn query_value(&self, thread: &Thread, name: Name<'_>, class: i32, answer: Answer) -> NtStatus {
        let Answer { buffer, length, result_length } = answer;
        let (name, text) = name;
        let object = self.object.body();
        let (call_context, object_context, reserved) = (0, 0, 0);
        let mut information =
            QueryValue { object, name, class, buffer, length, result_length, call_context, object_context, reserved };
        Notice::on(Class::QUERY_VALUE, &self.object, &mut information).run(thread, || {
            answer.hand_out(self.open.key.value(text).and_then(|value| value_record(text, &value, class)))
        })
    }

    pub(super) fn set_value(
        &self,
        thread: &Thread,
        (name, text): Name<'_>,
        title_index: u32,
        kind: u32,
        (data, size): (Raw<u8>, u32),
    ) -> NtStatus {
        let object = self.object.body();
        let (call_context, object_context, reserved) = (0, 0, 0);
        let mut information =
            SetValue { object, name, title_index, kind, data, size, call_context, object_context, reserved };
        Notice::on(Class::SET_VALUE, &self.object, &mut information)
            .run(thread, || settle(self.open.key.set_value(text, Value { kind, data: data.read_bytes(size as usize) })))
    }

    pub(super) fn delete_value(&self, thread: &Thread, (name, text): Name<'_>) -> NtStatus {
        let object = self.object.body();
        let mut information = DeleteValue { object, name, call_context: 0, object_context: 0, reserved: 0 };
        Notice::on(Class::DELETE_VALUE, &self.object, &mut information)
            .run(thread, || settle(self.open.key.delete_value(text)))
    }
}

impl Answer {
    /// Copies a record out: nothing where its fixed part does not fit, as much as fits otherwise.
    fn hand_out(self, record: Result<Record, NtStatus>) -> NtStatus {
        let record = match record {
            Ok(record) => record,
            Err(status) => return status,
        };
        let needed = record.bytes.len();
        self.result_length.write_if_some(needed as u32);
        let length = self.length as usize;
        if length < record.fixed {
            return NtStatus::BUFFER_TOO_SMALL;
        }
        let fitting = record.bytes.get(..length).unwrap_or(&record.bytes);
        self.buffer.write_bytes(fitting);
        if length < needed { NtStatus::BUFFER_OVERFLOW } else { NtStatus::SUCCESS }
    }
}

fn settle(result: Result<(), NtStatus>) -> NtStatus {
    result.map_or_else(|status| status, |()| NtStatus::SUCCESS)
}
