//! IRP_MJ_QUERY_EA and IRP_MJ_SET_EA: extended attributes, kept in memory as the host's file system has others.

use std::sync::Arc;

use fltmgr::raw::{FLT_IO_PARAMETER_BLOCK, QueryEa, SetEa};
use nt_types::{AccessMask, NtStatus};

use super::buffer::Buffer;
use super::io::Outcome;
use super::open::Open;
use crate::flt::{Flight, operation};
use crate::nt::raw::field;

const SL_RESTART_SCAN: u8 = 0x01;
const SL_RETURN_SINGLE_ENTRY: u8 = 0x02;
const SL_INDEX_SPECIFIED: u8 = 0x04;

/// `FILE_NEED_EA`.
const NEED_EA: u8 = 0x80;

/// NTFS keeps at most this many bytes of them with a file.
const MAX_EA_BYTES: usize = 0xFFFF;

/// One extended attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExtendedAttribute {
    flags: u8,
    /// Upper case, without its NUL.
    name: Vec<u8>,
    value: Vec<u8>,
}

impl ExtendedAttribute {
    /// Bytes of its FILE_FULL_EA_INFORMATION.
    fn packed(&self) -> usize {
        8 + self.name.len() + 1 + self.value.len()
    }

    fn write(&self, out: &mut Vec<u8>, next: usize) {
        out.extend((next as u32).to_le_bytes());
        out.extend([self.flags, self.name.len() as u8]);
        out.extend((self.value.len() as u16).to_le_bytes());
        out.extend(&self.name);
        out.push(0);
        out.extend(&self.value);
    }
}

/// Bytes of all of a file's, as FileEaInformation reports them.
pub(crate) fn size(list: &[ExtendedAttribute]) -> u32 {
    list.iter().map(|ea| (ea.packed() as u32).next_multiple_of(4)).sum()
}

/// Takes a FILE_FULL_EA_INFORMATION list apart.
///
/// # Errors
/// `EA_LIST_INCONSISTENT`, `INVALID_EA_NAME`.
pub(crate) fn parse(bytes: &[u8]) -> Result<Vec<ExtendedAttribute>, NtStatus> {
    let mut list = Vec::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (head, body) = rest.split_at_checked(8).ok_or(NtStatus::EA_LIST_INCONSISTENT)?;
        let next = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let (name_length, value_length) = (usize::from(head[5]), usize::from(u16::from_le_bytes([head[6], head[7]])));
        let (name, body) = body.split_at_checked(name_length).ok_or(NtStatus::EA_LIST_INCONSISTENT)?;
        let (nul, body) = body.split_first().ok_or(NtStatus::EA_LIST_INCONSISTENT)?;
        let value = body.get(..value_length).ok_or(NtStatus::EA_LIST_INCONSISTENT)?;
        if *nul != 0 {
            return Err(NtStatus::EA_LIST_INCONSISTENT);
        }
        let illegal = |byte: &u8| *byte < 0x20 || b"\"*+,/:;<=>?[\\]|".contains(byte);
        if name.is_empty() || name.iter().any(illegal) {
            return Err(NtStatus::INVALID_EA_NAME);
        }
        list.push(ExtendedAttribute {
            flags: head[4] & NEED_EA,
            name: name.to_ascii_uppercase(),
            value: value.to_vec(),
        });
        if next == 0 {
            break;
        }
        rest = rest.get(next..).filter(|_| next.is_multiple_of(4)).ok_or(NtStatus::EA_LIST_INCONSISTENT)?;
    }
    Ok(list)
}

/// Attributes that a create brings.
///
/// # Errors
/// As for [`parse`]; `INVALID_USER_BUFFER` when they cannot be read.
pub(super) fn of_create(address: usize, length: u32) -> Result<Vec<ExtendedAttribute>, NtStatus> {
    if length == 0 { Ok(Vec::new()) } else { parse(&Buffer::new(address, length).read()?) }
}

/// Puts new values in; an empty value removes.
///
/// # Errors
/// `EA_TOO_LARGE`.
pub(crate) fn merge(list: &mut Vec<ExtendedAttribute>, new: Vec<ExtendedAttribute>) -> Result<(), NtStatus> {
    let mut merged = list.clone();
    for ea in new {
        merged.retain(|known| known.name != ea.name);
        if !ea.value.is_empty() {
            merged.push(ea);
        }
    }
    if merged.iter().map(ExtendedAttribute::packed).sum::<usize>() > MAX_EA_BYTES {
        return Err(NtStatus::EA_TOO_LARGE);
    }
    *list = merged;
    Ok(())
}

pub(super) fn set(flight: &Flight, open: &Arc<Open>) -> Outcome {
    let parameters: SetEa = operation::parameters(flight.block());
    let buffer = Buffer::described(parameters.EaBuffer.addr(), parameters.MdlAddress, parameters.Length);
    let done = open.require(AccessMask::FILE_WRITE_EA).and_then(|()| {
        let new = parse(&buffer.read()?)?;
        let mut volume = open.volume.lock();
        merge(volume.extended.entry(open.stream.key.file).or_default(), new)
    });
    match done {
        Ok(()) => {
            open.changed(super::notify::Change::EA);
            (NtStatus::SUCCESS, 0)
        }
        Err(status) => (status, 0),
    }
}

pub(super) fn query(flight: &Flight, open: &Arc<Open>) -> Outcome {
    let parameters: QueryEa = operation::parameters(flight.block());
    let buffer = Buffer::described(parameters.EaBuffer.addr(), parameters.MdlAddress, parameters.Length);
    let flags = field!(flight.block(), FLT_IO_PARAMETER_BLOCK, OperationFlags).read();
    let answer = open.require(AccessMask::FILE_READ_EA).and_then(|()| {
        let wanted = match parameters.EaListLength {
            0 => None,
            length => Some(names(&Buffer::new(parameters.EaList.addr(), length).read()?)?),
        };
        let list = open.volume.lock().extended.get(&open.stream.key.file).cloned().unwrap_or_default();
        select(open, &list, wanted, parameters.EaIndex, flags).and_then(|chosen| {
            let single = flags & SL_RETURN_SINGLE_ENTRY != 0;
            pack(open, &chosen, buffer.length, single)
        })
    });
    match answer {
        Ok((status, bytes)) => super::serve::answered(buffer, status, &bytes),
        Err(status) => (status, 0),
    }
}

/// Names of a FILE_GET_EA_INFORMATION list.
fn names(bytes: &[u8]) -> Result<Vec<Vec<u8>>, NtStatus> {
    let mut names = Vec::new();
    let mut rest = bytes;
    loop {
        let (head, body) = rest.split_at_checked(5).ok_or(NtStatus::EA_LIST_INCONSISTENT)?;
        let next = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let name = body.get(..usize::from(head[4])).ok_or(NtStatus::EA_LIST_INCONSISTENT)?;
        names.push(name.to_ascii_uppercase());
        if next == 0 {
            return Ok(names);
        }
        rest = rest.get(next..).ok_or(NtStatus::EA_LIST_INCONSISTENT)?;
    }
}

/// What the query is about: the named ones, or those from an index or from where the last query stopped.
fn select(
    open: &Open,
    list: &[ExtendedAttribute],
    wanted: Option<Vec<Vec<u8>>>,
    index: u32,
    flags: u8,
) -> Result<Vec<ExtendedAttribute>, NtStatus> {
    if let Some(wanted) = wanted {
        let value = |name: Vec<u8>| {
            let known = list.iter().find(|ea| ea.name == name).cloned();
            // One that is not there has no value.
            known.unwrap_or(ExtendedAttribute { flags: 0, name, value: Vec::new() })
        };
        return Ok(wanted.into_iter().map(value).collect());
    }
    let start = if flags & SL_INDEX_SPECIFIED != 0 {
        (index as usize).checked_sub(1).ok_or(NtStatus::NONEXISTENT_EA_ENTRY)?
    } else if flags & SL_RESTART_SCAN != 0 {
        0
    } else {
        open.next_ea.load(std::sync::atomic::Ordering::Relaxed)
    };
    open.next_ea.store(start, std::sync::atomic::Ordering::Relaxed);
    if list.is_empty() {
        return Err(NtStatus::NO_EAS_ON_FILE);
    }
    match list.get(start..) {
        Some(rest) if !rest.is_empty() => Ok(rest.to_vec()),
        _ if flags & SL_INDEX_SPECIFIED != 0 => Err(NtStatus::NONEXISTENT_EA_ENTRY),
        _ => Err(NtStatus::NO_MORE_EAS),
    }
}

fn pack(open: &Open, chosen: &[ExtendedAttribute], room: usize, single: bool) -> Result<(NtStatus, Vec<u8>), NtStatus> {
    let chosen = if single { chosen.get(..1).unwrap_or_default() } else { chosen };
    let mut bytes = Vec::new();
    let mut last = 0;
    for ea in chosen {
        let start = bytes.len().next_multiple_of(4);
        if start + ea.packed() > room {
            return if bytes.is_empty() {
                Err(NtStatus::BUFFER_TOO_SMALL)
            } else {
                Ok((NtStatus::BUFFER_OVERFLOW, bytes))
            };
        }
        if start != 0 {
            bytes.resize(start, 0);
            let next = ((start - last) as u32).to_le_bytes();
            bytes[last..last + 4].copy_from_slice(&next);
        }
        last = start;
        ea.write(&mut bytes, 0);
        open.next_ea.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    }
    Ok((NtStatus::SUCCESS, bytes))
}
