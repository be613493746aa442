//! IRP_MJ_QUERY_SECURITY and IRP_MJ_SET_SECURITY: descriptors that are kept and given back. What decides about access is the
//! smaller model of [`super::access`].

use std::sync::Arc;

use fltmgr::raw::{QuerySecurity, SetSecurity};
use nt_types::{AccessMask, NtStatus};

use super::buffer::Buffer;
use super::io::Outcome;
use super::open::Open;
use crate::flt::{Flight, operation};
use crate::nt;
use crate::nt::raw::Raw;
use crate::nt::security::acl::{Ace, Acl};
use crate::nt::security::sid::Sid;

const OWNER: u32 = 1;
const GROUP: u32 = 2;
const DACL: u32 = 4;
const SACL: u32 = 8;

/// `SE_DACL_PRESENT`, `SE_SACL_PRESENT`, `SE_SELF_RELATIVE`.
const DACL_PRESENT: u16 = 0x0004;
const SACL_PRESENT: u16 = 0x0010;
const SELF_RELATIVE: u16 = 0x8000;

/// `S-1-5-18`: LocalSystem.
pub(crate) const SYSTEM_SID: &[u8] = &[1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0];

/// A self-relative descriptor that lets SYSTEM do everything in a folder and what will be below it, and nobody else anything.
pub(crate) const SYSTEM_ONLY: &[u8] = &[
    // Revision, SE_DACL_PRESENT and SE_SELF_RELATIVE; only the discretionary list is there, at 20.
    1, 0, 4, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, // ACL_REVISION, 28 bytes, one entry.
    2, 0, 28, 0, 1, 0, 0, 0,
    // ACCESS_ALLOWED_ACE, OBJECT_INHERIT_ACE and CONTAINER_INHERIT_ACE, 20 bytes, FILE_ALL_ACCESS, S-1-5-18.
    0, 3, 20, 0, 0xFF, 1, 0x1F, 0, 1, 1, 0, 0, 0, 0, 0, 5, 18, 0, 0, 0,
];

/// A descriptor in parts, each in its binary form: what a filter or program set comes back byte for byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Descriptor {
    owner: Vec<u8>,
    group: Vec<u8>,
    dacl: Option<Vec<u8>>,
    sacl: Option<Vec<u8>>,
}

impl Default for Descriptor {
    /// What every file has until somebody says otherwise: everybody may do everything, as far as the descriptor goes.
    fn default() -> Self {
        let mask = super::access::FILE_ALL_ACCESS.bits();
        let everybody = Acl(vec![Ace { allow: true, mask, sid: Sid::world() }]);
        Self {
            owner: Sid::administrators().bytes().to_vec(),
            group: Sid::local_system().bytes().to_vec(),
            dacl: Some(everybody.bytes()),
            sacl: None,
        }
    }
}

impl Descriptor {
    /// The parts asked for, self-relative.
    fn pack(&self, parts: u32) -> Vec<u8> {
        let wanted: [(u32, usize, u16, Option<&Vec<u8>>); 4] = [
            (SACL, 12, SACL_PRESENT, self.sacl.as_ref()),
            (DACL, 16, DACL_PRESENT, self.dacl.as_ref()),
            (OWNER, 4, 0, Some(&self.owner)),
            (GROUP, 8, 0, Some(&self.group)),
        ];
        let mut bytes = vec![0_u8; 20];
        bytes[0] = 1;
        let mut control = SELF_RELATIVE;
        for (part, slot, present, value) in wanted {
            if parts & part != 0
                && let Some(value) = value
            {
                control |= present;
                let at = bytes.len().next_multiple_of(4);
                bytes.resize(at, 0);
                bytes[slot..slot + 4].copy_from_slice(&(at as u32).to_le_bytes());
                bytes.extend(value);
            }
        }
        bytes[2..4].copy_from_slice(&control.to_le_bytes());
        bytes
    }

    /// Takes the parts named from a self-relative descriptor.
    ///
    /// # Errors
    /// `INVALID_SECURITY_DESCR`.
    fn merge(&mut self, parts: u32, bytes: &[u8]) -> Result<(), NtStatus> {
        let bad = NtStatus::INVALID_SECURITY_DESCR;
        let head = bytes.get(..20).ok_or(bad)?;
        let control = u16::from_le_bytes([head[2], head[3]]);
        if control & SELF_RELATIVE == 0 {
            return Err(bad);
        }
        let offset = |slot: usize| u32::from_le_bytes([head[slot], head[slot + 1], head[slot + 2], head[slot + 3]]);
        let sid = |slot: usize| -> Result<Vec<u8>, NtStatus> {
            let at = offset(slot) as usize;
            let start = bytes.get(at..).filter(|_| at != 0).ok_or(bad)?;
            let count = usize::from(*start.get(1).ok_or(bad)?);
            Ok(start.get(..8 + 4 * count).ok_or(bad)?.to_vec())
        };
        let acl = |slot: usize, present: u16| -> Result<Option<Vec<u8>>, NtStatus> {
            let at = offset(slot) as usize;
            if control & present == 0 || at == 0 {
                return Ok(None);
            }
            let start = bytes.get(at..).ok_or(bad)?;
            let length = usize::from(u16::from_le_bytes([*start.get(2).ok_or(bad)?, *start.get(3).ok_or(bad)?]));
            Ok(Some(start.get(..length.max(8)).ok_or(bad)?.to_vec()))
        };
        if parts & OWNER != 0 {
            self.owner = sid(4)?;
        }
        if parts & GROUP != 0 {
            self.group = sid(8)?;
        }
        if parts & DACL != 0 {
            self.dacl = acl(16, DACL_PRESENT)?;
        }
        if parts & SACL != 0 {
            self.sacl = acl(12, SACL_PRESENT)?;
        }
        Ok(())
    }
}

/// Copies a caller's descriptor of either form, as SeCaptureSecurityDescriptor does: the copy is self-relative.
///
/// # Errors
/// `ACCESS_VIOLATION` for NULL, `UNKNOWN_REVISION`, `INVALID_SID`, `INVALID_ACL`.
pub(crate) fn captured(descriptor: Raw<u8>) -> Result<Vec<u8>, NtStatus> {
    const HEADER: usize = 20;
    let descriptor = descriptor.some().ok_or(NtStatus::ACCESS_VIOLATION)?;
    // Whether its parts are what they should be.
    nt::security::descriptor::Descriptor::read(descriptor)?;
    let control = descriptor.field::<u16>(2).read();
    let mut bytes = vec![0_u8; HEADER];
    bytes[0] = descriptor.read();
    bytes[2..4].copy_from_slice(&(control | SELF_RELATIVE).to_le_bytes());
    // Owner, group, system list, discretionary list; the lists count only when they are said to be there.
    for (index, needed) in [0, 0, SACL_PRESENT, DACL_PRESENT].into_iter().enumerate() {
        let part = if control & SELF_RELATIVE == 0 {
            Raw::<u8>::at(descriptor.field::<usize>(8).index(index).read())
        } else {
            match descriptor.field::<u32>(4).index(index).read() {
                0 => Raw::NULL,
                offset => descriptor.field(offset as usize),
            }
        };
        let Some(part) = part.some().filter(|_| needed == 0 || control & needed != 0) else { continue };
        let length = match needed {
            0 => 8 + 4 * usize::from(part.field::<u8>(1).read()),
            _ => usize::from(part.field::<u16>(2).read()),
        };
        let (at, slot) = (bytes.len(), 4 + 4 * index);
        bytes[slot..slot + 4].copy_from_slice(&(at as u32).to_le_bytes());
        bytes.extend(part.read_bytes(length));
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    Ok(bytes)
}

pub(super) fn query(flight: &Flight, open: &Arc<Open>) -> Outcome {
    let parameters: QuerySecurity = operation::parameters(flight.block());
    let parts = parameters.SecurityInformation;
    let buffer = Buffer::described(parameters.SecurityBuffer.addr(), parameters.MdlAddress, parameters.Length);
    let needs = if parts & SACL != 0 { AccessMask::ACCESS_SYSTEM_SECURITY } else { AccessMask::READ_CONTROL };
    if let Err(status) = open.require(needs) {
        return (status, 0);
    }
    let descriptor = open.volume.lock().descriptors.get(&open.stream.key.file).cloned().unwrap_or_default();
    let bytes = descriptor.pack(parts);
    if buffer.length < bytes.len() {
        // The page: Information has the length that it takes.
        return (NtStatus::BUFFER_OVERFLOW, bytes.len());
    }
    super::serve::answered(buffer, NtStatus::SUCCESS, &bytes)
}

pub(super) fn set(flight: &Flight, open: &Arc<Open>) -> Outcome {
    let parameters: SetSecurity = operation::parameters(flight.block());
    let parts = parameters.SecurityInformation;
    let mut needs = AccessMask::empty();
    for (part, right) in [
        (OWNER | GROUP, AccessMask::WRITE_OWNER),
        (DACL, AccessMask::WRITE_DAC),
        (SACL, AccessMask::ACCESS_SYSTEM_SECURITY),
    ] {
        if parts & part != 0 {
            needs |= right;
        }
    }
    let done = open.require(needs).and_then(|()| {
        let bytes = read(parameters.SecurityDescriptor.addr())?;
        let mut volume = open.volume.lock();
        volume.descriptors.entry(open.stream.key.file).or_default().merge(parts, &bytes)
    });
    match done {
        Ok(()) => {
            open.changed(super::notify::Change::SECURITY);
            (NtStatus::SUCCESS, 0)
        }
        Err(status) => (status, 0),
    }
}

/// A self-relative descriptor of unknown length: as much as can be read of the most that one has.
fn read(address: usize) -> Result<Vec<u8>, NtStatus> {
    const STEP: u32 = 16;
    const MOST: usize = 4096;
    let mut bytes = Vec::new();
    while bytes.len() < MOST {
        match Buffer::new(address + bytes.len(), STEP).read() {
            Ok(more) => bytes.extend(more),
            Err(_) => break,
        }
    }
    if bytes.is_empty() { Err(NtStatus::INVALID_USER_BUFFER) } else { Ok(bytes) }
}
