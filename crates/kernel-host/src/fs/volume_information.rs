//! IRP_MJ_QUERY_VOLUME_INFORMATION and IRP_MJ_SET_VOLUME_INFORMATION: what a volume tells about itself.

use std::os::fd::AsFd;
use std::sync::Arc;

use fltmgr::raw::QueryVolumeInformation;
use nt_types::NtStatus;

use super::buffer::Buffer;
use super::information::Writer;
use super::io::Outcome;
use super::open::Open;
use super::path::wide;
use crate::flt::{Flight, operation};

/// `FS_INFORMATION_CLASS` values.
pub(crate) mod class {
    pub(crate) const VOLUME: u32 = 1;
    pub(crate) const LABEL: u32 = 2;
    pub(crate) const SIZE: u32 = 3;
    pub(crate) const DEVICE: u32 = 4;
    pub(crate) const ATTRIBUTE: u32 = 5;
    pub(crate) const FULL_SIZE: u32 = 7;
    pub(crate) const OBJECT_ID: u32 = 8;
    pub(crate) const SECTOR_SIZE: u32 = 11;
}

/// Bytes of a sector, and of a cluster in sectors.
const SECTOR: u32 = 512;
const SECTORS_PER_CLUSTER: u32 = 8;

/// What NTFS says of itself: case kept and searchable, Unicode, ACLs, sparse files, reparse points, named streams, hard links,
/// extended attributes, open by id.
const ATTRIBUTES: u32 = 0x0000_0001
    | 0x0000_0002
    | 0x0000_0004
    | 0x0000_0008
    | 0x0000_0040
    | 0x0000_0080
    | 0x0004_0000
    | 0x0040_0000
    | 0x0080_0000
    | 0x0100_0000;

/// `FILE_DEVICE_IS_MOUNTED`.
const DEVICE_IS_MOUNTED: u32 = 0x20;
/// `FILE_DEVICE_DISK`.
const DEVICE_DISK: u32 = 7;

pub(super) fn query(flight: &Flight, open: &Arc<Open>) -> Outcome {
    let parameters: QueryVolumeInformation = operation::parameters(flight.block());
    let buffer = Buffer::new(parameters.VolumeBuffer.addr(), parameters.Length);
    match answer(open, parameters.FsInformationClass.cast_unsigned()) {
        Err(status) => (status, 0),
        Ok((fixed, _)) if buffer.length < fixed => (NtStatus::INFO_LENGTH_MISMATCH, 0),
        Ok((_, bytes)) => {
            let status = if buffer.length < bytes.len() { NtStatus::BUFFER_OVERFLOW } else { NtStatus::SUCCESS };
            super::serve::answered(buffer, status, &bytes)
        }
    }
}

/// Bytes of the fixed part, and the answer.
fn answer(open: &Open, which: u32) -> Result<(usize, Vec<u8>), NtStatus> {
    let volume = &open.volume;
    let mut out = Writer::default();
    let space = || rustix::fs::fstatvfs(volume.root().as_fd()).map_err(super::host::status);
    let units = |blocks: u64, size: u64| blocks.saturating_mul(size) / u64::from(SECTOR * SECTORS_PER_CLUSTER);
    let fixed = match which {
        class::VOLUME => {
            let stat = super::host::stat(volume.root().as_fd())?;
            out.i64(super::information::nt_time(stat.stx_btime));
            out.u32(volume.serial() as u32);
            let label = volume.label();
            out.u32(label.len() as u32 * 2);
            // SupportsObjects, and its padding.
            out.bytes(&[1, 0]);
            out.units(&label);
            24
        }
        class::SIZE => {
            let space = space()?;
            out.u64(units(space.f_blocks, space.f_frsize));
            out.u64(units(space.f_bavail, space.f_frsize));
            out.u32(SECTORS_PER_CLUSTER);
            out.u32(SECTOR);
            24
        }
        class::FULL_SIZE => {
            let space = space()?;
            out.u64(units(space.f_blocks, space.f_frsize));
            out.u64(units(space.f_bavail, space.f_frsize));
            out.u64(units(space.f_bfree, space.f_frsize));
            out.u32(SECTORS_PER_CLUSTER);
            out.u32(SECTOR);
            32
        }
        class::DEVICE => {
            out.u32(DEVICE_DISK);
            out.u32(DEVICE_IS_MOUNTED);
            8
        }
        class::ATTRIBUTE => {
            let name = wide("NTFS");
            out.u32(ATTRIBUTES);
            out.u32(255);
            out.u32(name.len() as u32 * 2);
            out.units(&name);
            16
        }
        class::OBJECT_ID => {
            out.u64(volume.serial());
            out.zeros(56);
            64
        }
        class::SECTOR_SIZE => {
            for _ in 0..4 {
                out.u32(SECTOR);
            }
            // Aligned, no seek penalty known, and no trimming.
            out.u32(3);
            out.u32(0);
            out.u32(0);
            28
        }
        _ => return Err(NtStatus::INVALID_INFO_CLASS),
    };
    Ok((fixed, out.into_bytes()))
}

pub(super) fn set(flight: &Flight, open: &Arc<Open>) -> Outcome {
    let parameters: QueryVolumeInformation = operation::parameters(flight.block());
    let buffer = Buffer::new(parameters.VolumeBuffer.addr(), parameters.Length);
    let done = match parameters.FsInformationClass.cast_unsigned() {
        class::LABEL => buffer.read().and_then(|bytes| set_label(open, &bytes)),
        class::OBJECT_ID => Err(NtStatus::NOT_SUPPORTED),
        _ => Err(NtStatus::INVALID_INFO_CLASS),
    };
    match done {
        Ok(()) => (NtStatus::SUCCESS, 0),
        Err(status) => (status, 0),
    }
}

/// FILE_FS_LABEL_INFORMATION: at most 32 characters on NTFS.
fn set_label(open: &Open, bytes: &[u8]) -> Result<(), NtStatus> {
    const MAX_LABEL: usize = 32;
    let (head, body) = bytes.split_at_checked(4).ok_or(NtStatus::INFO_LENGTH_MISMATCH)?;
    let length = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    let label = body.get(..length).ok_or(NtStatus::INFO_LENGTH_MISMATCH)?;
    let label: Vec<u16> = label.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    if label.len() > MAX_LABEL {
        return Err(NtStatus::INVALID_VOLUME_LABEL);
    }
    open.volume.lock().label = label;
    Ok(())
}
