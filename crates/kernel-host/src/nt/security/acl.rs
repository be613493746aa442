//! Access control lists. Pages: `ntifs/nf-ntifs-rtlcreateacl`, `ntifs/nf-ntifs-rtladdaccessallowedace`,
//! `wdm/ns-wdm-_acl`, `ntifs/ns-ntifs-_ace_header`.

use nt_types::NtStatus;

use super::sid::Sid;
use crate::ddi::{Call, exports};
use crate::nt::raw::Raw;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    RtlCreateAcl(max 1) = rtl_create_acl;
    RtlAddAccessAllowedAce(max 1) = rtl_add_access_allowed_ace;
    RtlAddAccessAllowedAceEx(max 1) = rtl_add_access_allowed_ace_ex;
    RtlAddAce(max 1) = rtl_add_ace;
    RtlGetAce(max 1) = rtl_get_ace;
    RtlDeleteAce(max 1) = rtl_delete_ace;
}

/// `ACL_REVISION` and `ACL_REVISION_DS`.
const REVISION: u8 = 2;
const REVISION_DS: u8 = 4;
/// Bytes of an `ACL`'s header, and of an ACE before its identifier.
const HEADER: usize = 8;
const ACE_HEADER: usize = 8;
/// `ACCESS_ALLOWED_ACE_TYPE`, `ACCESS_DENIED_ACE_TYPE`.
const ALLOWED: u8 = 0;
const DENIED: u8 = 1;
/// `INHERIT_ONLY_ACE`: says nothing about the object itself.
const INHERIT_ONLY: u8 = 8;

/// One entry that says something about access.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ace {
    pub(crate) allow: bool,
    pub(crate) mask: u32,
    pub(crate) sid: Sid,
}

/// The entries of a list, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Acl(pub(crate) Vec<Ace>);

impl Acl {
    /// Copies the list at an address. Entries of other kinds, and those that are only inherited, are left out.
    ///
    /// # Errors
    /// `STATUS_INVALID_ACL`, `STATUS_INVALID_SID`.
    pub(crate) fn read(acl: Raw<u8>) -> Result<Self, NtStatus> {
        let (size, count) = header(acl)?;
        let bytes = acl.read_bytes(size);
        let mut entries = Vec::new();
        let mut rest = bytes.get(HEADER..).ok_or(NtStatus::INVALID_ACL)?;
        for _ in 0..count {
            let (ace, behind) = split(rest)?;
            rest = behind;
            let mask = u32::from_le_bytes([ace[4], ace[5], ace[6], ace[7]]);
            if ace[0] <= DENIED && ace[1] & INHERIT_ONLY == 0 {
                entries.push(Ace { allow: ace[0] == ALLOWED, mask, sid: Sid::parse(&ace[ACE_HEADER..])? });
            }
        }
        Ok(Self(entries))
    }

    /// The binary form.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let entries: Vec<u8> = self.0.iter().flat_map(|ace| ace_bytes(ace.allow, 0, ace.mask, &ace.sid)).collect();
        let mut bytes = vec![REVISION, 0];
        bytes.extend(((HEADER + entries.len()) as u16).to_le_bytes());
        bytes.extend((self.0.len() as u16).to_le_bytes());
        bytes.extend([0, 0]);
        bytes.extend(entries);
        bytes
    }
}

/// Size in bytes and number of entries of a list whose header is sound.
fn header(acl: Raw<u8>) -> Result<(usize, u16), NtStatus> {
    let size = usize::from(acl.field::<u16>(2).read());
    let revision = acl.read();
    if !(REVISION..=REVISION_DS).contains(&revision) || size < HEADER {
        return Err(NtStatus::INVALID_ACL);
    }
    Ok((size, acl.field::<u16>(4).read()))
}

/// The first entry of some, with at least its header and mask, and what is behind it.
fn split(bytes: &[u8]) -> Result<(&[u8], &[u8]), NtStatus> {
    let length = bytes.get(2..4).map(|length| usize::from(u16::from_le_bytes([length[0], length[1]])));
    let length = length.filter(|length| *length >= ACE_HEADER).ok_or(NtStatus::INVALID_ACL)?;
    bytes.split_at_checked(length).ok_or(NtStatus::INVALID_ACL)
}

fn ace_bytes(allow: bool, flags: u8, mask: u32, sid: &Sid) -> Vec<u8> {
    let mut bytes = vec![if allow { ALLOWED } else { DENIED }, flags];
    bytes.extend(((ACE_HEADER + sid.bytes().len()) as u16).to_le_bytes());
    bytes.extend(mask.to_le_bytes());
    bytes.extend(sid.bytes());
    bytes
}

/// Offsets of the entries, and of the first free byte behind them.
fn places(acl: Raw<u8>) -> Result<(Vec<usize>, usize), NtStatus> {
    let (size, count) = header(acl)?;
    let bytes = acl.read_bytes(size);
    let (mut at, mut offsets) = (HEADER, Vec::new());
    for _ in 0..count {
        offsets.push(at);
        at += split(bytes.get(at..).ok_or(NtStatus::INVALID_ACL)?)?.0.len();
    }
    Ok((offsets, at))
}

pub(super) extern "efiapi" fn rtl_create_acl(acl: Raw<u8>, length: u32, revision: u32) -> NtStatus {
    let _call = Call::enter();
    if (length as usize) < HEADER {
        return NtStatus::BUFFER_TOO_SMALL;
    }
    if length > u32::from(u16::MAX) || !(u32::from(REVISION)..=u32::from(REVISION_DS)).contains(&revision) {
        return NtStatus::INVALID_PARAMETER;
    }
    // The size counts whole words.
    let size = (length as u16 & !3).to_le_bytes();
    acl.write_bytes(&[revision as u8, 0, size[0], size[1], 0, 0, 0, 0]);
    NtStatus::SUCCESS
}

pub(super) extern "efiapi" fn rtl_add_access_allowed_ace(
    acl: Raw<u8>,
    revision: u32,
    mask: u32,
    sid: Raw<u8>,
) -> NtStatus {
    let _call = Call::enter();
    add(acl, revision, 0, mask, sid)
}

extern "efiapi" fn rtl_add_access_allowed_ace_ex(
    acl: Raw<u8>,
    revision: u32,
    flags: u32,
    mask: u32,
    sid: Raw<u8>,
) -> NtStatus {
    let _call = Call::enter();
    add(acl, revision, flags as u8, mask, sid)
}

fn add(acl: Raw<u8>, revision: u32, flags: u8, mask: u32, sid: Raw<u8>) -> NtStatus {
    let sid = match Sid::read(sid) {
        Ok(sid) => sid,
        Err(status) => return status,
    };
    if revision > u32::from(REVISION_DS) || revision < u32::from(REVISION) {
        return NtStatus::REVISION_MISMATCH;
    }
    append(acl, &ace_bytes(true, flags, mask, &sid), 1)
}

/// Adds entries behind the last one.
fn append(acl: Raw<u8>, bytes: &[u8], count: u16) -> NtStatus {
    let end = match places(acl) {
        Ok((_, end)) => end,
        Err(status) => return status,
    };
    if end + bytes.len() > usize::from(acl.field::<u16>(2).read()) {
        return NtStatus::ALLOTTED_SPACE_EXCEEDED;
    }
    acl.field::<u8>(end).write_bytes(bytes);
    let counter = acl.field::<u16>(4);
    counter.write(counter.read() + count);
    NtStatus::SUCCESS
}

/// Entries are added at the end (`MAXULONG`) or before the one with the index.
extern "efiapi" fn rtl_add_ace(acl: Raw<u8>, revision: u32, index: u32, list: Raw<u8>, length: u32) -> NtStatus {
    let _call = Call::enter();
    if !(u32::from(REVISION)..=u32::from(REVISION_DS)).contains(&revision) {
        return NtStatus::INVALID_PARAMETER;
    }
    let new = list.read_bytes(length as usize);
    let (mut count, mut rest) = (0, new.as_slice());
    while !rest.is_empty() {
        let Ok((_, behind)) = split(rest) else { return NtStatus::INVALID_PARAMETER };
        (rest, count) = (behind, count + 1);
    }
    let (offsets, end) = match places(acl) {
        Ok(places) => places,
        Err(status) => return status,
    };
    let Some(at) = offsets.get(index as usize).copied() else { return append(acl, &new, count) };
    let moved = acl.field::<u8>(at).read_bytes(end - at);
    if end + new.len() > usize::from(acl.field::<u16>(2).read()) {
        return NtStatus::BUFFER_TOO_SMALL;
    }
    acl.field::<u8>(at).write_bytes(&new);
    acl.field::<u8>(at + new.len()).write_bytes(&moved);
    let counter = acl.field::<u16>(4);
    counter.write(counter.read() + count);
    NtStatus::SUCCESS
}

pub(super) extern "efiapi" fn rtl_get_ace(acl: Raw<u8>, index: u32, ace: Raw<usize>) -> NtStatus {
    let _call = Call::enter();
    let found = places(acl).ok().and_then(|(offsets, _)| offsets.get(index as usize).copied());
    let Some(offset) = found else { return NtStatus::INVALID_PARAMETER };
    ace.write(acl.address() + offset);
    NtStatus::SUCCESS
}

pub(super) extern "efiapi" fn rtl_delete_ace(acl: Raw<u8>, index: u32) -> NtStatus {
    let _call = Call::enter();
    let Ok((offsets, end)) = places(acl) else { return NtStatus::INVALID_PARAMETER };
    let Some(at) = offsets.get(index as usize).copied() else { return NtStatus::INVALID_PARAMETER };
    let next = offsets.get(index as usize + 1).copied().unwrap_or(end);
    let moved = acl.field::<u8>(next).read_bytes(end - next);
    acl.field::<u8>(at).write_bytes(&moved);
    let counter = acl.field::<u16>(4);
    counter.write(counter.read() - 1);
    NtStatus::SUCCESS
}
