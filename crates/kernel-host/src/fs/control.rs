//! IRP_MJ_FILE_SYSTEM_CONTROL: the control codes that NTFS answers and that have a meaning on a host folder.

use std::os::fd::AsFd;
use std::sync::Arc;

use fltmgr::raw::{FLT_IO_PARAMETER_BLOCK, FileSystemControlNeither};
use nt_types::{AccessMask, NtStatus};

use super::buffer::Buffer;
use super::host;
use super::information::Writer;
use super::io::Outcome;
use super::open::{Data, Open};
use super::path::wide;
use super::stream::Kind;
use crate::flt::{Flight, operation};
use crate::nt::raw::{Raw, field};

const IRP_MN_USER_FS_REQUEST: u8 = 0;
const IRP_MN_KERNEL_CALL: u8 = 4;

/// Control codes, as `CTL_CODE` makes them.
pub(crate) mod code {
    pub(crate) const REQUEST_OPLOCK_LEVEL_1: u32 = 0x0009_0000;
    pub(crate) const REQUEST_OPLOCK_LEVEL_2: u32 = 0x0009_0004;
    pub(crate) const REQUEST_BATCH_OPLOCK: u32 = 0x0009_0008;
    pub(crate) const LOCK_VOLUME: u32 = 0x0009_0018;
    pub(crate) const UNLOCK_VOLUME: u32 = 0x0009_001C;
    pub(crate) const IS_VOLUME_MOUNTED: u32 = 0x0009_0028;
    pub(crate) const IS_PATHNAME_VALID: u32 = 0x0009_002C;
    pub(crate) const GET_COMPRESSION: u32 = 0x0009_003C;
    pub(crate) const SET_COMPRESSION: u32 = 0x0009_C040;
    pub(crate) const REQUEST_FILTER_OPLOCK: u32 = 0x0009_005C;
    pub(crate) const GET_NTFS_VOLUME_DATA: u32 = 0x0009_0064;
    pub(crate) const GET_OBJECT_ID: u32 = 0x0009_009C;
    pub(crate) const GET_REPARSE_POINT: u32 = 0x0009_00A8;
    pub(crate) const SET_SPARSE: u32 = 0x0009_00C4;
    pub(crate) const SET_ZERO_DATA: u32 = 0x0009_80C8;
    pub(crate) const QUERY_ALLOCATED_RANGES: u32 = 0x0009_40CF;
    pub(crate) const REQUEST_OPLOCK: u32 = 0x0009_0240;
}

/// Whether the operation asks for an opportunistic lock.
pub(crate) fn is_oplock_request(block: Raw<FLT_IO_PARAMETER_BLOCK>) -> bool {
    let parameters: FileSystemControlNeither = operation::parameters(block);
    is_oplock(parameters.FsControlCode)
}

fn is_oplock(code: u32) -> bool {
    matches!(
        code,
        code::REQUEST_OPLOCK_LEVEL_1
            | code::REQUEST_OPLOCK_LEVEL_2
            | code::REQUEST_BATCH_OPLOCK
            | code::REQUEST_FILTER_OPLOCK
            | code::REQUEST_OPLOCK
    )
}

pub(super) fn serve(flight: &Flight, open: &Arc<Open>) -> Outcome {
    let minor = field!(flight.block(), FLT_IO_PARAMETER_BLOCK, MinorFunction).read();
    if minor != IRP_MN_USER_FS_REQUEST && minor != IRP_MN_KERNEL_CALL {
        return (NtStatus::INVALID_DEVICE_REQUEST, 0);
    }
    let parameters: FileSystemControlNeither = operation::parameters(flight.block());
    let code = parameters.FsControlCode;
    let input = Buffer::new(parameters.InputBuffer.addr(), parameters.InputBufferLength);
    // METHOD_BUFFERED: one buffer for both ways.
    let output = match code & 3 {
        0 => Buffer::new(parameters.InputBuffer.addr(), parameters.OutputBufferLength),
        _ => Buffer::described(
            parameters.OutputBuffer.addr(),
            parameters.OutputMdlAddress,
            parameters.OutputBufferLength,
        ),
    };
    match answer(open, code, input) {
        Ok(bytes) if bytes.is_empty() => (NtStatus::SUCCESS, 0),
        Ok(bytes) if output.length < least(code) => {
            debug_assert!(!bytes.is_empty(), "an answer");
            (NtStatus::BUFFER_TOO_SMALL, 0)
        }
        Ok(bytes) => {
            let status = if output.length < bytes.len() { NtStatus::BUFFER_OVERFLOW } else { NtStatus::SUCCESS };
            super::serve::answered(output, status, &bytes)
        }
        Err(status) => (status, 0),
    }
}

/// Output below which there is no answer at all.
fn least(code: u32) -> usize {
    match code {
        code::GET_COMPRESSION => 2,
        code::GET_NTFS_VOLUME_DATA => 96,
        code::GET_REPARSE_POINT => 24,
        code::QUERY_ALLOCATED_RANGES => 16,
        _ => 0,
    }
}

/// The output; empty for a code that has none.
fn answer(open: &Arc<Open>, code: u32, input: Buffer) -> Result<Vec<u8>, NtStatus> {
    let mut out = Writer::default();
    match code {
        // Nobody is granted one: on Windows too a request may fail at any time.
        code if is_oplock(code) => return Err(NtStatus::OPLOCK_NOT_GRANTED),
        code::LOCK_VOLUME => lock_volume(open, true)?,
        code::UNLOCK_VOLUME => lock_volume(open, false)?,
        // Files here have no object id. The handle of a deleted stream still leads to the file that it was a stream of.
        code::GET_OBJECT_ID if open.is_file_deleted() => return Err(NtStatus::FILE_DELETED),
        code::GET_OBJECT_ID => return Err(NtStatus::OBJECTID_NOT_FOUND),
        code::IS_VOLUME_MOUNTED | code::IS_PATHNAME_VALID => {}
        // Never compressed.
        code::GET_COMPRESSION => out.bytes(&[0, 0]),
        code::SET_COMPRESSION => {
            open.require(AccessMask::FILE_WRITE_DATA)?;
            if number(input, 0, 2)? != 0 {
                return Err(NtStatus::INVALID_DEVICE_REQUEST);
            }
        }
        code::SET_SPARSE => {
            require_file(open)?;
            // Without input the file becomes sparse.
            open.stream.lock().sparse = input.length == 0 || number(input, 0, 1)? != 0;
        }
        code::SET_ZERO_DATA => {
            open.require(AccessMask::FILE_WRITE_DATA)?;
            let (start, end) = (number(input, 0, 8)?, number(input, 8, 8)?);
            zero(open, start, end)?;
        }
        code::QUERY_ALLOCATED_RANGES => {
            let (start, length) = (number(input, 0, 8)?, number(input, 8, 8)?);
            let end = start.saturating_add(length).min(open.size()?);
            if start < end {
                out.u64(start);
                out.u64(end - start);
            }
        }
        code::GET_REPARSE_POINT => return reparse_point(open),
        code::GET_NTFS_VOLUME_DATA => volume_data(open, &mut out)?,
        _ => return Err(NtStatus::INVALID_DEVICE_REQUEST),
    }
    Ok(out.into_bytes())
}

fn require_file(open: &Open) -> Result<(), NtStatus> {
    if open.stream.kind == Kind::File { Ok(()) } else { Err(NtStatus::INVALID_PARAMETER) }
}

/// A little-endian number of the input.
fn number(input: Buffer, at: usize, length: usize) -> Result<u64, NtStatus> {
    if input.length < at + length {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let bytes = Buffer { address: input.address + at, length }.read()?;
    Ok(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

/// FSCTL_LOCK_VOLUME: only while nobody else has anything open there.
fn lock_volume(open: &Arc<Open>, lock: bool) -> Result<(), NtStatus> {
    if open.stream.kind != Kind::Volume {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let mut volume = open.volume.lock();
    let me = Arc::as_ptr(open).addr();
    if !lock {
        return if volume.locked_by.take_if(|by| *by == me).is_some() { Ok(()) } else { Err(NtStatus::NOT_LOCKED) };
    }
    let handles: u32 = volume.live().iter().map(|stream| stream.lock().handles).sum();
    if handles > 1 || volume.locked_by.is_some() {
        return Err(NtStatus::ACCESS_DENIED);
    }
    volume.locked_by = Some(me);
    Ok(())
}

/// FSCTL_SET_ZERO_DATA: zeroes, without making the file longer.
fn zero(open: &Open, start: u64, end: u64) -> Result<(), NtStatus> {
    const STEP: u64 = 64 * 1024;
    if start > end || end > i64::MAX.cast_unsigned() {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let (mut at, end) = (start, end.min(open.size()?));
    while at < end {
        let length = (end - at).min(STEP);
        open.write(at.cast_signed(), &vec![0; length as usize])?;
        at += length;
    }
    Ok(())
}

/// REPARSE_DATA_BUFFER of a symbolic link.
fn reparse_point(open: &Open) -> Result<Vec<u8>, NtStatus> {
    const SYMLINK: u32 = 0xA000_000C;
    const RELATIVE: u32 = 1;
    if open.stream.kind != Kind::Link {
        return Err(NtStatus::NOT_A_REPARSE_POINT);
    }
    let link = open.link();
    let link = link.as_ref().ok_or(NtStatus::NOT_A_REPARSE_POINT)?;
    let target = rustix::fs::readlinkat(&link.parent, link.name.as_os_str(), Vec::new()).map_err(host::status)?;
    let target = target.to_str().map_err(|_| NtStatus::IO_REPARSE_DATA_INVALID)?.replace('/', "\\");
    let name = wide(&target);
    let bytes = name.len() as u32 * 2;
    let mut out = Writer::default();
    out.u32(SYMLINK);
    out.u32(12 + bytes * 2);
    for number in [0, bytes, bytes, bytes] {
        out.bytes(&(number as u16).to_le_bytes());
    }
    out.u32(if target.starts_with('\\') { 0 } else { RELATIVE });
    out.units(&name);
    out.units(&name);
    Ok(out.into_bytes())
}

/// NTFS_VOLUME_DATA_BUFFER.
fn volume_data(open: &Open, out: &mut Writer) -> Result<(), NtStatus> {
    let space = rustix::fs::fstatvfs(open.volume.root().as_fd()).map_err(host::status)?;
    let clusters = |blocks: u64| blocks.saturating_mul(space.f_frsize) / 4096;
    out.u64(open.volume.serial());
    out.u64(clusters(space.f_blocks) * 8);
    out.u64(clusters(space.f_blocks));
    out.u64(clusters(space.f_bavail));
    out.u64(0);
    // Sector, cluster, file record segment, and that in clusters.
    for number in [512, 4096, 1024, 0] {
        out.u32(number);
    }
    out.zeros(40);
    Ok(())
}

impl Open {
    /// IRP_MJ_FLUSH_BUFFERS: on NTFS any handle that can write may ask.
    pub(super) fn flush(&self) -> Outcome {
        let writable = AccessMask::FILE_WRITE_DATA | AccessMask::FILE_APPEND_DATA;
        if self.stream.kind == Kind::File && !self.granted.intersects(writable) {
            return (NtStatus::ACCESS_DENIED, 0);
        }
        match self.data() {
            Data::Host(file) => match rustix::fs::fdatasync(file) {
                Ok(()) => (NtStatus::SUCCESS, 0),
                Err(error) => (host::status(error), 0),
            },
            Data::Memory(_) | Data::None => (NtStatus::SUCCESS, 0),
        }
    }
}
