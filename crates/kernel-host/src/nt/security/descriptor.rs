//! Security descriptors, absolute and self-relative. Pages: `wdm/nf-wdm-rtlcreatesecuritydescriptor`,
//! `wdm/nf-wdm-rtlsetdaclsecuritydescriptor`, `ntifs/nf-ntifs-rtlabsolutetoselfrelativesd` and their neighbours.

use nt_types::NtStatus;

use super::acl::{Ace, Acl};
use super::sid::Sid;
use crate::ddi::{Call, exports};
use crate::nt::raw::Raw;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    RtlCreateSecurityDescriptor(max 0) = rtl_create_security_descriptor;
    RtlSetDaclSecurityDescriptor(max 0) = rtl_set_dacl_security_descriptor;
    RtlSetOwnerSecurityDescriptor(max 1) = rtl_set_owner_security_descriptor;
    RtlSetGroupSecurityDescriptor(max 1) = rtl_set_group_security_descriptor;
    RtlGetDaclSecurityDescriptor(max 1) = rtl_get_dacl_security_descriptor;
    RtlGetSaclSecurityDescriptor(max 1) = rtl_get_sacl_security_descriptor;
    RtlGetOwnerSecurityDescriptor(max 1) = rtl_get_owner_security_descriptor;
    RtlGetGroupSecurityDescriptor(max 1) = rtl_get_group_security_descriptor;
    RtlValidSecurityDescriptor(max 0) = rtl_valid_security_descriptor;
    RtlLengthSecurityDescriptor(max 0) = rtl_length_security_descriptor;
    RtlAbsoluteToSelfRelativeSD(max 1) = rtl_absolute_to_self_relative_sd;
}

/// `SECURITY_DESCRIPTOR_REVISION`.
pub(super) const REVISION: u8 = 1;
/// Control bits: `SE_OWNER_DEFAULTED`, `SE_GROUP_DEFAULTED`, `SE_DACL_PRESENT`, `SE_DACL_DEFAULTED`, `SE_SELF_RELATIVE`.
const OWNER_DEFAULTED: u16 = 0x0001;
const GROUP_DEFAULTED: u16 = 0x0002;
const DACL_PRESENT: u16 = 0x0004;
const DACL_DEFAULTED: u16 = 0x0008;
/// `SE_SACL_PRESENT`, `SE_SACL_DEFAULTED`.
const SACL_PRESENT: u16 = 0x0010;
const SACL_DEFAULTED: u16 = 0x0020;
pub(super) const SELF_RELATIVE: u16 = 0x8000;
/// `STATUS_BAD_DESCRIPTOR_FORMAT`.
pub(super) const BAD_FORMAT: NtStatus = NtStatus::from_bits(0xC000_00E7);
/// Bytes of the absolute form, and of the other one's header.
const ABSOLUTE: usize = 40;
const RELATIVE: usize = 20;

/// The parts, by their place among the pointers (or offsets) behind the control bits.
#[derive(Clone, Copy)]
enum Part {
    Owner = 0,
    Group = 1,
    Sacl = 2,
    Dacl = 3,
}

/// What a descriptor says, read out of either form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Descriptor {
    pub(crate) owner: Option<Sid>,
    pub(crate) group: Option<Sid>,
    /// `None`: there is no list, or a NULL one; both let everybody do everything.
    pub(crate) dacl: Option<Acl>,
}

impl Descriptor {
    /// SYSTEM and administrators may do everything, everybody else what `world` says. Owned by the administrators.
    pub(crate) fn open_to_world(world: u32) -> Self {
        let all = nt_types::AccessMask::GENERIC_ALL.bits();
        let allow = |sid, mask| Ace { allow: true, mask, sid };
        let entries =
            vec![allow(Sid::world(), world), allow(Sid::local_system(), all), allow(Sid::administrators(), all)];
        let owner = Some(Sid::administrators());
        Self { group: owner.clone(), owner, dacl: Some(Acl(entries)) }
    }

    /// Copies the descriptor at an address.
    ///
    /// # Errors
    /// `STATUS_UNKNOWN_REVISION`, `STATUS_INVALID_SID`, `STATUS_INVALID_ACL`.
    pub(crate) fn read(descriptor: Raw<u8>) -> Result<Self, NtStatus> {
        if descriptor.read() != REVISION {
            return Err(NtStatus::UNKNOWN_REVISION);
        }
        let sid = |part| part_of(descriptor, part).some().map(Sid::read).transpose();
        let dacl = if control(descriptor) & DACL_PRESENT == 0 { Raw::NULL } else { part_of(descriptor, Part::Dacl) };
        Ok(Self { owner: sid(Part::Owner)?, group: sid(Part::Group)?, dacl: dacl.some().map(Acl::read).transpose()? })
    }

    /// The self-relative form.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let parts = [
            self.owner.as_ref().map(|sid| sid.bytes().to_vec()),
            self.group.as_ref().map(|sid| sid.bytes().to_vec()),
            None,
            self.dacl.as_ref().map(Acl::bytes),
        ];
        let mut bytes = vec![REVISION, 0];
        // A descriptor without a list has a NULL one: present, and open.
        bytes.extend((SELF_RELATIVE | DACL_PRESENT).to_le_bytes());
        let mut at = RELATIVE;
        for part in &parts {
            bytes.extend(if part.is_some() { (at as u32).to_le_bytes() } else { [0; 4] });
            at += part.as_ref().map_or(0, Vec::len);
        }
        bytes.extend(parts.into_iter().flatten().flatten());
        bytes
    }
}

fn control(descriptor: Raw<u8>) -> u16 {
    descriptor.field::<u16>(2).read()
}

/// Where a part lies; NULL when there is none.
fn part_of(descriptor: Raw<u8>, part: Part) -> Raw<u8> {
    let index = part as usize;
    if control(descriptor) & SELF_RELATIVE == 0 {
        return Raw::at(descriptor.field::<usize>(8).index(index).read());
    }
    match descriptor.field::<u32>(4).index(index).read() {
        0 => Raw::NULL,
        offset => descriptor.field(offset as usize),
    }
}

/// Stores a part's address and its "defaulted" bit in an absolute descriptor.
fn set_part(descriptor: Raw<u8>, part: Part, address: usize, bit: u16, defaulted: u8) -> NtStatus {
    if let Err(status) = check_absolute(descriptor) {
        return status;
    }
    let bits = control(descriptor) & !bit | if defaulted != 0 { bit } else { 0 };
    descriptor.field::<u16>(2).write(bits);
    descriptor.field::<usize>(8).index(part as usize).write(address);
    NtStatus::SUCCESS
}

fn check_absolute(descriptor: Raw<u8>) -> Result<(), NtStatus> {
    if descriptor.read() != REVISION {
        return Err(NtStatus::UNKNOWN_REVISION);
    }
    if control(descriptor) & SELF_RELATIVE != 0 { Err(NtStatus::INVALID_SECURITY_DESCR) } else { Ok(()) }
}

pub(super) extern "efiapi" fn rtl_create_security_descriptor(descriptor: Raw<u8>, revision: u32) -> NtStatus {
    let _call = Call::enter();
    if revision != u32::from(REVISION) {
        return NtStatus::UNKNOWN_REVISION;
    }
    descriptor.fill(0, ABSOLUTE);
    descriptor.write(REVISION);
    NtStatus::SUCCESS
}

pub(super) extern "efiapi" fn rtl_set_dacl_security_descriptor(
    descriptor: Raw<u8>,
    present: u8,
    dacl: usize,
    defaulted: u8,
) -> NtStatus {
    let _call = Call::enter();
    if let Err(status) = check_absolute(descriptor) {
        return status;
    }
    let bits = control(descriptor) & !DACL_PRESENT;
    if present == 0 {
        descriptor.field::<u16>(2).write(bits);
        return NtStatus::SUCCESS;
    }
    descriptor.field::<u16>(2).write(bits | DACL_PRESENT);
    set_part(descriptor, Part::Dacl, dacl, DACL_DEFAULTED, defaulted)
}

extern "efiapi" fn rtl_set_owner_security_descriptor(descriptor: Raw<u8>, owner: usize, defaulted: u8) -> NtStatus {
    let _call = Call::enter();
    set_part(descriptor, Part::Owner, owner, OWNER_DEFAULTED, defaulted)
}

extern "efiapi" fn rtl_set_group_security_descriptor(descriptor: Raw<u8>, group: usize, defaulted: u8) -> NtStatus {
    let _call = Call::enter();
    set_part(descriptor, Part::Group, group, GROUP_DEFAULTED, defaulted)
}

pub(super) extern "efiapi" fn rtl_get_dacl_security_descriptor(
    descriptor: Raw<u8>,
    present: Raw<u8>,
    dacl: Raw<usize>,
    defaulted: Raw<u8>,
) -> NtStatus {
    let _call = Call::enter();
    get_list(descriptor, Part::Dacl, (DACL_PRESENT, DACL_DEFAULTED), present, dacl, defaulted)
}

pub(super) extern "efiapi" fn rtl_get_sacl_security_descriptor(
    descriptor: Raw<u8>,
    present: Raw<u8>,
    sacl: Raw<usize>,
    defaulted: Raw<u8>,
) -> NtStatus {
    let _call = Call::enter();
    get_list(descriptor, Part::Sacl, (SACL_PRESENT, SACL_DEFAULTED), present, sacl, defaulted)
}

fn get_list(
    descriptor: Raw<u8>,
    part: Part,
    (present_bit, defaulted_bit): (u16, u16),
    present: Raw<u8>,
    list: Raw<usize>,
    defaulted: Raw<u8>,
) -> NtStatus {
    if descriptor.read() != REVISION {
        return NtStatus::UNKNOWN_REVISION;
    }
    let bits = control(descriptor);
    present.write(u8::from(bits & present_bit != 0));
    if bits & present_bit != 0 {
        list.write(part_of(descriptor, part).address());
        defaulted.write(u8::from(bits & defaulted_bit != 0));
    }
    NtStatus::SUCCESS
}

extern "efiapi" fn rtl_get_owner_security_descriptor(
    descriptor: Raw<u8>,
    owner: Raw<usize>,
    defaulted: Raw<u8>,
) -> NtStatus {
    get_sid(descriptor, Part::Owner, OWNER_DEFAULTED, owner, defaulted)
}

extern "efiapi" fn rtl_get_group_security_descriptor(
    descriptor: Raw<u8>,
    group: Raw<usize>,
    defaulted: Raw<u8>,
) -> NtStatus {
    get_sid(descriptor, Part::Group, GROUP_DEFAULTED, group, defaulted)
}

fn get_sid(descriptor: Raw<u8>, part: Part, bit: u16, out: Raw<usize>, defaulted: Raw<u8>) -> NtStatus {
    let _call = Call::enter();
    if descriptor.read() != REVISION {
        return NtStatus::UNKNOWN_REVISION;
    }
    out.write(part_of(descriptor, part).address());
    defaulted.write(u8::from(control(descriptor) & bit != 0));
    NtStatus::SUCCESS
}

extern "efiapi" fn rtl_valid_security_descriptor(descriptor: Raw<u8>) -> u8 {
    let _call = Call::enter();
    u8::from(!descriptor.is_null() && Descriptor::read(descriptor).is_ok())
}

pub(super) extern "efiapi" fn rtl_length_security_descriptor(descriptor: Raw<u8>) -> u32 {
    let _call = Call::enter();
    let header = if control(descriptor) & SELF_RELATIVE == 0 { ABSOLUTE } else { RELATIVE };
    let parts = Descriptor::read(descriptor).map_or(0, |content| content.bytes().len() - RELATIVE);
    (header + parts) as u32
}

pub(super) extern "efiapi" fn rtl_absolute_to_self_relative_sd(
    absolute: Raw<u8>,
    relative: Raw<u8>,
    length: Raw<u32>,
) -> NtStatus {
    let _call = Call::enter();
    if check_absolute(absolute).is_err() {
        return BAD_FORMAT;
    }
    let bytes = match Descriptor::read(absolute) {
        Ok(descriptor) => descriptor.bytes(),
        Err(status) => return status,
    };
    let room = length.read() as usize;
    if room < bytes.len() {
        length.write(bytes.len() as u32);
        return NtStatus::BUFFER_TOO_SMALL;
    }
    relative.write_bytes(&bytes);
    // Of the control bits, the copy keeps what the original says of its list.
    relative.field::<u16>(2).write(control(absolute) | SELF_RELATIVE);
    NtStatus::SUCCESS
}
