//! IRP_MJ_DIRECTORY_CONTROL: listing a folder, and watching it.

use std::os::fd::AsFd;
use std::sync::Arc;

use fltmgr::raw::{FLT_IO_PARAMETER_BLOCK, NotifyDirectory, QueryDirectory};
use nt_types::{NtStatus, UNICODE_STRING};
use rustix::fs::{AtFlags, Statx, StatxFlags};

use super::buffer::Buffer;
use super::host;
use super::information::Writer;
use super::notify::Change;
use super::open::Open;
use super::path::{same_name, upcase, wide};
use super::serve::Served;
use super::stream::Kind;
use crate::flt::{Flight, complete_later, operation};
use crate::machine::Inner;
use crate::nt::raw::{Raw, field};

const IRP_MN_QUERY_DIRECTORY: u8 = 1;
const IRP_MN_NOTIFY_CHANGE_DIRECTORY: u8 = 2;

const SL_RESTART_SCAN: u8 = 0x01;
const SL_RETURN_SINGLE_ENTRY: u8 = 0x02;
const SL_WATCH_TREE: u8 = 0x01;

/// A listing under way: what NTFS keeps with the handle.
#[derive(Debug)]
pub(crate) struct Scan {
    pattern: Option<Vec<u16>>,
    /// `.` and `..`, then the names in their order on NTFS: upper-cased.
    names: Vec<Vec<u16>>,
    next: usize,
}

/// `FILE_*_INFORMATION` classes of listings.
mod class {
    pub(super) const DIRECTORY: u32 = 1;
    pub(super) const FULL: u32 = 2;
    pub(super) const BOTH: u32 = 3;
    pub(super) const NAMES: u32 = 12;
    pub(super) const ID_BOTH: u32 = 37;
    pub(super) const ID_FULL: u32 = 38;
    pub(super) const ID_EXTD: u32 = 60;
}

pub(super) fn serve(flight: &Arc<Flight>, open: &Arc<Open>) -> Served {
    match field!(flight.block(), FLT_IO_PARAMETER_BLOCK, MinorFunction).read() {
        _ if open.stream.kind != Kind::Directory => (NtStatus::INVALID_PARAMETER, 0).into(),
        IRP_MN_QUERY_DIRECTORY => match query(flight, open) {
            Ok((status, count)) => (status, count).into(),
            Err(status) => (status, 0).into(),
        },
        IRP_MN_NOTIFY_CHANGE_DIRECTORY => watch(flight, open),
        _ => (NtStatus::INVALID_DEVICE_REQUEST, 0).into(),
    }
}

fn watch(flight: &Arc<Flight>, open: &Arc<Open>) -> Served {
    let parameters: NotifyDirectory = operation::parameters(flight.block());
    let filter = Change::from_bits_retain(parameters.CompletionFilter);
    if filter.is_empty() {
        return (NtStatus::INVALID_PARAMETER, 0).into();
    }
    if open.is_cleaned_up() {
        return (NtStatus::NOTIFY_CLEANUP, 0).into();
    }
    let tree = field!(flight.block(), FLT_IO_PARAMETER_BLOCK, OperationFlags).read() & SL_WATCH_TREE != 0;
    open.volume.notices.wait(flight, Arc::as_ptr(open).addr(), open.name(), filter, tree);
    Served::Pending
}

/// The folder is cleaned up.
pub(super) fn clean_up(flight: &Flight, open: &Arc<Open>) {
    open.volume.notices.clean_up(Arc::as_ptr(open).addr());
    open.volume.notices.deliver(flight.machine());
}

/// Cancels a watch; true when it was one.
pub(super) fn cancel(machine: &Arc<Inner>, flight: &Arc<Flight>) -> bool {
    let found = machine.fs.volumes().iter().any(|mounted| mounted.volume.notices.take(flight));
    if found {
        complete_later(machine, flight, NtStatus::CANCELLED, 0);
    }
    found
}

fn query(flight: &Arc<Flight>, open: &Arc<Open>) -> Result<(NtStatus, usize), NtStatus> {
    let parameters: QueryDirectory = operation::parameters(flight.block());
    let flags = field!(flight.block(), FLT_IO_PARAMETER_BLOCK, OperationFlags).read();
    let buffer = Buffer::described(parameters.DirectoryBuffer.addr(), parameters.MdlAddress, parameters.Length);
    let given = Raw::<UNICODE_STRING>::of(parameters.FileName);
    let given = given.some().map(crate::nt::unicode::units).filter(|pattern| !pattern.is_empty());
    let class = parameters.FileInformationClass.cast_unsigned();
    let fixed = fixed_part(class).ok_or(NtStatus::INVALID_INFO_CLASS)?;
    if buffer.length < fixed {
        return Err(NtStatus::INFO_LENGTH_MISMATCH);
    }
    let mut slot = open.scan();
    let first = slot.is_none();
    let restart = flags & SL_RESTART_SCAN != 0;
    // The first call on a handle decides the pattern for all that follow.
    let pattern = slot.as_ref().map_or(given, |scan| scan.pattern.clone());
    if first || restart {
        *slot = Some(Scan { names: list(open)?, pattern, next: 0 });
    }
    let Some(scan) = slot.as_mut() else { return Err(NtStatus::NO_MORE_FILES) };
    let none = if first { NtStatus::NO_SUCH_FILE } else { NtStatus::NO_MORE_FILES };
    let (status, bytes) = fill(open, scan, class, buffer.length, flags & SL_RETURN_SINGLE_ENTRY != 0, none)?;
    drop(slot);
    Ok((status, buffer.write(&bytes)?))
}

fn list(open: &Open) -> Result<Vec<Vec<u16>>, NtStatus> {
    let mut names: Vec<Vec<u16>> =
        host::names(open.entry().as_fd())?.iter().filter_map(|name| name.to_str().map(wide)).collect();
    names.sort_by_cached_key(|name| upcase(name));
    let mut all = Vec::new();
    if open.name().len() > 1 {
        // The root has neither.
        all.extend([wide("."), wide("..")]);
    }
    all.extend(names);
    Ok(all)
}

/// As many entries as fit.
fn fill(
    open: &Open,
    scan: &mut Scan,
    class: u32,
    room: usize,
    single: bool,
    none: NtStatus,
) -> Result<(NtStatus, Vec<u8>), NtStatus> {
    let mut bytes: Vec<u8> = Vec::new();
    let mut last = None;
    while let Some(name) = scan.names.get(scan.next) {
        if !scan.pattern.as_ref().is_none_or(|pattern| matches(&upcase(pattern), &upcase(name))) {
            scan.next += 1;
            continue;
        }
        let Some(entry) = entry(open, name, class, scan.next) else {
            // It went since the names were read.
            scan.next += 1;
            continue;
        };
        let start = bytes.len().next_multiple_of(8);
        if start + entry.len() > room {
            if bytes.is_empty() {
                // Not even one: as much of it as fits, and it comes again.
                bytes.extend(entry.iter().take(room));
                return Ok((NtStatus::BUFFER_OVERFLOW, bytes));
            }
            break;
        }
        bytes.resize(start, 0);
        if let Some(last) = last.replace(start) {
            let next = ((start - last) as u32).to_le_bytes();
            bytes[last..last + 4].copy_from_slice(&next);
        }
        bytes.extend(entry);
        scan.next += 1;
        if single {
            break;
        }
    }
    if bytes.is_empty() { Err(none) } else { Ok((NtStatus::SUCCESS, bytes)) }
}

/// Bytes before the name.
fn fixed_part(which: u32) -> Option<usize> {
    match which {
        class::DIRECTORY => Some(64),
        class::FULL => Some(68),
        class::BOTH => Some(94),
        class::NAMES => Some(12),
        class::ID_BOTH => Some(104),
        class::ID_FULL => Some(80),
        class::ID_EXTD => Some(88),
        _ => None,
    }
}

/// One entry, laid out as its class.
fn entry(open: &Open, name: &[u16], which: u32, index: usize) -> Option<Vec<u8>> {
    let text = String::from_utf16(name).ok()?;
    // `..` of the host's folder may lead out of the volume, but only its times are shown.
    let flags = StatxFlags::BASIC_STATS | StatxFlags::BTIME;
    let stat = rustix::fs::statx(open.entry(), &text, AtFlags::SYMLINK_NOFOLLOW, flags).ok()?;
    let mut out = Writer::default();
    out.u32(0);
    out.u32(index as u32);
    let length = (name.len() * 2) as u32;
    if which == class::NAMES {
        out.u32(length);
    } else {
        common(&mut out, &stat, length);
    }
    match which {
        class::FULL => out.u32(0),
        class::BOTH | class::ID_BOTH => {
            out.u32(0);
            // No short name: length and padding, then twelve characters.
            out.zeros(26);
            if which == class::ID_BOTH {
                out.zeros(2);
                out.u64(stat.stx_ino);
            }
        }
        class::ID_FULL => {
            out.u32(0);
            out.zeros(4);
            out.u64(stat.stx_ino);
        }
        class::ID_EXTD => {
            out.u32(0);
            out.u32(0);
            out.u64(stat.stx_ino);
            out.u64(0);
        }
        _ => {}
    }
    out.units(name);
    Some(out.into_bytes())
}

/// Times, sizes, attributes and the length of the name: the part that all but the names class have.
fn common(out: &mut Writer, stat: &Statx, name_length: u32) {
    out.times(stat);
    let kind = rustix::fs::FileType::from_raw_mode(stat.stx_mode.into());
    let size = if kind == rustix::fs::FileType::RegularFile { stat.stx_size } else { 0 };
    out.u64(size);
    out.u64(super::information::allocation(size));
    out.u32(super::information::attributes_of(kind, stat));
    out.u32(name_length);
}

/// `FsRtlIsNameInExpression`, both upper-cased: `*`, `?` and the three that Win32 turns DOS patterns into.
fn matches(pattern: &[u16], name: &[u16]) -> bool {
    const STAR: u16 = b'*' as u16;
    const QUESTION: u16 = b'?' as u16;
    const DOS_STAR: u16 = b'<' as u16;
    const DOS_QUESTION: u16 = b'>' as u16;
    const DOS_DOT: u16 = b'"' as u16;
    const DOT: u16 = b'.' as u16;
    let Some((&first, rest)) = pattern.split_first() else { return name.is_empty() };
    match first {
        STAR => (0..=name.len()).any(|skipped| matches(rest, &name[skipped..])),
        DOS_STAR => {
            let dot = name.iter().rposition(|&unit| unit == DOT).unwrap_or(name.len());
            (0..=dot).any(|skipped| matches(rest, &name[skipped..]))
        }
        QUESTION => !name.is_empty() && matches(rest, &name[1..]),
        DOS_QUESTION => match name.first() {
            None | Some(&DOT) => matches(rest, name),
            Some(_) => matches(rest, &name[1..]),
        },
        DOS_DOT => match name.first() {
            None => matches(rest, name),
            Some(&unit) => unit == DOT && matches(rest, &name[1..]),
        },
        _ => name.first().is_some_and(|unit| same_name(&[first], &[*unit])) && matches(rest, &name[1..]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finds(pattern: &str, name: &str) -> bool {
        matches(&upcase(&wide(pattern)), &upcase(&wide(name)))
    }

    #[test]
    fn patterns_match_as_fsrtl_documents_them() {
        assert!(finds("*", "a.b") && finds("*.ROM", "boot.rom") && finds("b??t.rom", "boot.rom"));
        assert!(!finds("*.rom", "boot.romx") && !finds("?", ""));
        // What Win32 makes of `*.*`, `*.` and `?.txt`.
        assert!(finds("<.rom", "a.b.rom") && finds("*\"rom", "x.rom") && finds(">>>.txt", "a.txt"));
    }
}
