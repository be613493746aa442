//! The records in which `Zw*Key` return keys and values. Pages: `wdm/ne-wdm-_key_value_information_class`,
//! `wdm/ne-wdm-_key_information_class`, and the structures that they name.

use std::time::{SystemTime, UNIX_EPOCH};

use nt_types::NtStatus;

use super::hive::{Key, Value};
use super::unicode::bytes_of;

/// 100 ns intervals between 1601 and 1970.
const UNIX_EPOCH_IN_NT_TIME: u64 = 116_444_736_000_000_000;

/// A record, and how much of it is its fixed part.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) bytes: Vec<u8>,
    pub(super) fixed: usize,
}

/// `KEY_VALUE_*_INFORMATION` of a value.
///
/// # Errors
/// `STATUS_INVALID_PARAMETER` for a class that there is not.
pub(super) fn value_record(name: &str, value: &Value, class: i32) -> Result<Record, NtStatus> {
    let name = bytes_of(name);
    let (kind, name_length, data_length) = (value.kind, name.len() as u32, value.data.len() as u32);
    Ok(match class {
        // Basic: TitleIndex, Type, NameLength, Name.
        0 => record(&[0, kind, name_length], &[&name]),
        // Full and FullAlign64: TitleIndex, Type, DataOffset, DataLength, NameLength, Name, padding, Data.
        1 | 3 => {
            let align = if class == 3 { 8 } else { 4 };
            let offset = (20 + name.len()).next_multiple_of(align);
            let padding = vec![0; offset - 20 - name.len()];
            record(&[0, kind, offset as u32, data_length, name_length], &[&name, &padding, &value.data])
        }
        // Partial: TitleIndex, Type, DataLength, Data.
        2 => record(&[0, kind, data_length], &[&value.data]),
        // PartialAlign64: Type, DataLength, Data.
        4 => record(&[kind, data_length], &[&value.data]),
        _ => return Err(NtStatus::INVALID_PARAMETER),
    })
}

/// `KeyNameInformation`, which only the open key knows.
pub(super) const KEY_NAME: i32 = 3;

/// `KEY_NAME_INFORMATION`: the name's length, and the name.
pub(super) fn name_record(path: &str) -> Record {
    let name = bytes_of(path);
    record(&[name.len() as u32], &[&name])
}

/// `KEY_*_INFORMATION` of a key.
///
/// # Errors
/// `STATUS_INVALID_PARAMETER` for a class that is not served; `STATUS_KEY_DELETED`.
pub(super) fn key_record(key: &Key, class: i32) -> Result<Record, NtStatus> {
    let name = bytes_of(key.name());
    let time = nt_time(key.last_write()?);
    let (low, high) = (time as u32, (time >> 32) as u32);
    Ok(match class {
        // Basic: LastWriteTime, TitleIndex, NameLength, Name.
        0 => record(&[low, high, 0, name.len() as u32], &[&name]),
        // Node: LastWriteTime, TitleIndex, ClassOffset, ClassLength (none), NameLength, Name.
        1 => record(&[low, high, 0, u32::MAX, 0, name.len() as u32], &[&name]),
        // Full: LastWriteTime, TitleIndex, ClassOffset, ClassLength, SubKeys, MaxNameLen, MaxClassLen, Values,
        // MaxValueNameLen, MaxValueDataLen, Class (none).
        2 => {
            let subkeys = key.subkeys()?;
            let values = key.values()?;
            let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0) as u32;
            let fields = [
                low,
                high,
                0,
                u32::MAX,
                0,
                subkeys.len() as u32,
                longest(&mut subkeys.iter().map(|name| bytes_of(name).len())),
                0,
                values.len() as u32,
                longest(&mut values.iter().map(|(name, _)| bytes_of(name).len())),
                longest(&mut values.iter().map(|(_, value)| value.data.len())),
            ];
            record(&fields, &[])
        }
        _ => return Err(NtStatus::INVALID_PARAMETER),
    })
}

fn record(fields: &[u32], rest: &[&[u8]]) -> Record {
    let mut bytes: Vec<u8> = fields.iter().flat_map(|field| field.to_le_bytes()).collect();
    let fixed = bytes.len();
    for part in rest {
        bytes.extend_from_slice(part);
    }
    Record { bytes, fixed }
}

fn nt_time(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    (since.as_nanos() / 100) as u64 + UNIX_EPOCH_IN_NT_TIME
}
