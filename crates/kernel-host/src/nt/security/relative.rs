//! Self-relative descriptors as drivers keep them for their own objects: checked, taken apart, merged.
//!
//! Pages: `wdm/nf-wdm-rtlvalidrelativesecuritydescriptor`, `wdm/nf-wdm-sevalidsecuritydescriptor`,
//! `ntifs/nf-ntifs-rtlselfrelativetoabsolutesd`, `ntifs/nf-ntifs-sequerysecuritydescriptorinfo`,
//! `ntifs/nf-ntifs-sesetsecuritydescriptorinfo`. System access lists are looked at by the checks only: nothing here audits.

use nt_types::NtStatus;

use super::descriptor::{BAD_FORMAT, Descriptor, REVISION, SELF_RELATIVE};
use super::object::{DACL, GROUP, OWNER, change, parts};
use crate::ddi::{Call, exports};
use crate::nt::pool::{PoolKind, Request};
use crate::nt::raw::Raw;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    RtlValidRelativeSecurityDescriptor(max 1) = rtl_valid_relative_security_descriptor;
    SeValidSecurityDescriptor(max 0) = se_valid_security_descriptor;
    RtlSelfRelativeToAbsoluteSD(max 1) = rtl_self_relative_to_absolute_sd;
    SeQuerySecurityDescriptorInfo(max 0) = se_query_security_descriptor_info;
    SeSetSecurityDescriptorInfo(max 0, fails RESOURCES) = se_set_security_descriptor_info;
    SeSetSecurityDescriptorInfoEx(max 0, fails RESOURCES) = se_set_security_descriptor_info_ex;
}

/// `SACL_SECURITY_INFORMATION`.
const SACL: u32 = 8;

/// Bytes of the header, and of the headers of identifiers, lists and entries.
const HEADER: usize = 20;
const SID_HEADER: usize = 8;
const ACL_HEADER: usize = 8;
const ACE_HEADER: usize = 4;
/// Bytes of the absolute form.
const ABSOLUTE: usize = 40;

/// What a well-formed descriptor contains, as `SECURITY_INFORMATION` bits; `None` for any other.
fn contents(bytes: &[u8]) -> Option<u32> {
    let control = u16::from_le_bytes([*bytes.get(2)?, *bytes.get(3)?]);
    if bytes.len() < HEADER || bytes.first() != Some(&REVISION) || control & SELF_RELATIVE == 0 {
        return None;
    }
    let mut found = 0;
    // Owner, group, system list, list: offsets behind the control bits.
    for (index, bit) in [OWNER, GROUP, SACL, DACL].into_iter().enumerate() {
        let offset = u32::from_le_bytes(*bytes.get(4 + 4 * index..)?.first_chunk()?) as usize;
        if offset == 0 {
            continue;
        }
        let part = bytes.get(offset..)?;
        let is_sound =
            offset.is_multiple_of(4) && if bit == OWNER || bit == GROUP { is_sid(part) } else { is_acl(part)? };
        if !is_sound {
            return None;
        }
        found |= bit;
    }
    Some(found)
}

fn is_sid(bytes: &[u8]) -> bool {
    match bytes {
        [1, count, ..] => *count <= 15 && bytes.len() >= SID_HEADER + 4 * usize::from(*count),
        _ => false,
    }
}

/// `None` where it is cut short.
fn is_acl(bytes: &[u8]) -> Option<bool> {
    let short = |at: usize| Some(usize::from(u16::from_le_bytes(*bytes.get(at..)?.first_chunk()?)));
    let (revision, size, count) = (*bytes.first()?, short(2)?, short(4)?);
    let list = bytes.get(..size)?;
    let mut at = ACL_HEADER;
    for _ in 0..count {
        let length = short(at + 2)?;
        if length < ACE_HEADER || at + length > list.len() {
            return Some(false);
        }
        at += length;
    }
    Some((2..=4).contains(&revision) && at <= list.len())
}

pub(super) extern "efiapi" fn rtl_valid_relative_security_descriptor(
    descriptor: Raw<u8>,
    length: u32,
    required: u32,
) -> u8 {
    let _call = Call::enter();
    let found = contents(&descriptor.read_bytes(length as usize));
    u8::from(found.is_some_and(|found| found & required == required))
}

pub(super) extern "efiapi" fn se_valid_security_descriptor(length: u32, descriptor: Raw<u8>) -> u8 {
    let _call = Call::enter();
    u8::from(contents(&descriptor.read_bytes(length as usize)).is_some())
}

/// A buffer for one part, and its size in and out.
type Target = (Raw<u8>, Raw<u32>);

/// Whether the part fits; what it takes is stored either way.
fn fits((_, size): Target, needed: usize) -> bool {
    let room = size.read() as usize;
    size.write(needed as u32);
    room >= needed
}

pub(super) extern "efiapi" fn rtl_self_relative_to_absolute_sd(
    relative: Raw<u8>,
    absolute: Raw<u8>,
    absolute_size: Raw<u32>,
    dacl: Raw<u8>,
    dacl_size: Raw<u32>,
    sacl: Raw<u8>,
    sacl_size: Raw<u32>,
    owner: Raw<u8>,
    owner_size: Raw<u32>,
    group: Raw<u8>,
    group_size: Raw<u32>,
) -> NtStatus {
    let _call = Call::enter();
    let control = relative.field::<u16>(2).read();
    if control & SELF_RELATIVE == 0 {
        return BAD_FORMAT;
    }
    let content = match Descriptor::read(relative) {
        Ok(content) => content,
        Err(status) => return status,
    };
    let owner_bytes = content.owner.map(|sid| sid.bytes().to_vec()).unwrap_or_default();
    let group_bytes = content.group.map(|sid| sid.bytes().to_vec()).unwrap_or_default();
    let dacl_bytes = content.dacl.map(|list| list.bytes()).unwrap_or_default();
    let targets = [
        ((owner, owner_size), owner_bytes),
        ((group, group_size), group_bytes),
        ((sacl, sacl_size), Vec::new()),
        ((dacl, dacl_size), dacl_bytes),
    ];
    // All of them say what they take, so that one more call is enough.
    let mut fit = fits((absolute, absolute_size), ABSOLUTE);
    for (target, bytes) in &targets {
        fit &= fits(*target, bytes.len());
    }
    if !fit {
        return NtStatus::BUFFER_TOO_SMALL;
    }
    absolute.fill(0, ABSOLUTE);
    absolute.write(REVISION);
    absolute.field::<u16>(2).write(control & !SELF_RELATIVE);
    for (index, ((buffer, _), bytes)) in targets.into_iter().enumerate() {
        if !bytes.is_empty() {
            buffer.write_bytes(&bytes);
            absolute.field::<usize>(8).index(index).write(buffer.address());
        }
    }
    NtStatus::SUCCESS
}

pub(super) extern "efiapi" fn se_query_security_descriptor_info(
    information: Raw<u32>,
    descriptor: Raw<u8>,
    length: Raw<u32>,
    object: Raw<usize>,
) -> NtStatus {
    let _call = Call::enter();
    let content = match Raw::<u8>::at(object.read()).some().map(Descriptor::read).transpose() {
        Ok(content) => content.unwrap_or_default(),
        Err(status) => return status,
    };
    let bytes = parts(content, information.read());
    if !fits((descriptor, length), bytes.len()) {
        return NtStatus::BUFFER_TOO_SMALL;
    }
    descriptor.write_bytes(&bytes);
    NtStatus::SUCCESS
}

extern "efiapi" fn se_set_security_descriptor_info(
    _object: usize,
    information: Raw<u32>,
    modification: Raw<u8>,
    object_descriptor: Raw<usize>,
    pool: u32,
    _mapping: usize,
) -> NtStatus {
    set(&Call::enter(), information, modification, object_descriptor, pool)
}

/// Inheritance flags say how entries of a parent come in; there is none here.
pub(super) extern "efiapi" fn se_set_security_descriptor_info_ex(
    _object: usize,
    information: Raw<u32>,
    modification: Raw<u8>,
    object_descriptor: Raw<usize>,
    _inherit: u32,
    pool: u32,
    _mapping: usize,
) -> NtStatus {
    set(&Call::enter(), information, modification, object_descriptor, pool)
}

/// Puts a new descriptor in the place of the object's. The old one stays the caller's.
fn set(
    call: &Call,
    information: Raw<u32>,
    modification: Raw<u8>,
    object_descriptor: Raw<usize>,
    pool: u32,
) -> NtStatus {
    let Some(old) = Raw::<u8>::at(object_descriptor.read()).some() else { return NtStatus::NO_SECURITY_ON_OBJECT };
    if old.field::<u16>(2).read() & SELF_RELATIVE == 0 {
        return BAD_FORMAT;
    }
    let merged = Descriptor::read(old).and_then(|mut current| {
        change(&mut current, Descriptor::read(modification)?, information.read());
        Ok(current.bytes())
    });
    let bytes = match merged {
        Ok(bytes) => bytes,
        Err(status) => return status,
    };
    // PagedPool and PagedPoolCacheAligned are odd.
    let kind = if pool & 1 == 0 { PoolKind::NonPaged } else { PoolKind::Paged };
    let tag = u32::from_le_bytes(*b"SeSd");
    let block = call
        .machine()
        .nt
        .pool()
        .allocate(call, Request { kind, length: bytes.len(), tag, zeroed: false, cache_aligned: false });
    if block == 0 {
        return NtStatus::INSUFFICIENT_RESOURCES;
    }
    Raw::<u8>::at(block).write_bytes(&bytes);
    object_descriptor.write(block);
    NtStatus::SUCCESS
}
