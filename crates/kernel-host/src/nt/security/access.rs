//! The access check. Pages: `wdm/nf-wdm-seaccesscheck`, `ntddk/nf-ntddk-sesingleprivilegecheck`,
//! `ntifs/nf-ntifs-seprivilegecheck`, `ntddk/nf-ntddk-rtlmapgenericmask`.

use nt_types::{AccessMask, KERNEL_MODE, KPROCESSOR_MODE, NtStatus};

use super::descriptor::Descriptor;
use super::subject::SubjectContext;
use super::token::{TokenBody, primary, privilege};
use crate::ddi::{Call, exports};
use crate::nt::raw::Raw;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    SeAccessCheck(max 0) = se_access_check;
    SeFreePrivileges(max 1) = se_free_privileges;
    SePrivilegeCheck(max 0) = se_privilege_check;
    SeSinglePrivilegeCheck(max 0) = se_single_privilege_check;
    RtlMapGenericMask(max 1) = rtl_map_generic_mask;
    RtlAreAllAccessesGranted(max 31) = rtl_are_all_accesses_granted;
    RtlAreAnyAccessesGranted(max 31) = rtl_are_any_accesses_granted;
}

/// `GENERIC_MAPPING`: what generic rights mean for a type of objects.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct GenericMapping {
    pub(crate) read: u32,
    pub(crate) write: u32,
    pub(crate) execute: u32,
    pub(crate) all: u32,
}

/// What devices and files make of generic rights.
pub(crate) const FILE_MAPPING: GenericMapping =
    GenericMapping { read: 0x0012_0089, write: 0x0012_0116, execute: 0x0012_00A0, all: 0x001F_01FF };

impl GenericMapping {
    /// Replaces generic rights by what they stand for.
    pub(crate) fn map(&self, access: u32) -> u32 {
        let generic = [
            (AccessMask::GENERIC_READ, self.read),
            (AccessMask::GENERIC_WRITE, self.write),
            (AccessMask::GENERIC_EXECUTE, self.execute),
            (AccessMask::GENERIC_ALL, self.all),
        ];
        let all_generic = 0xF000_0000;
        let meant = generic.iter().filter(|(bit, _)| access & bit.bits() != 0).fold(0, |sum, (_, mask)| sum | mask);
        access & !all_generic | meant
    }
}

/// Decides what `token` gets of `desired`: the rights granted.
///
/// # Errors
/// `STATUS_ACCESS_DENIED`, `STATUS_PRIVILEGE_NOT_HELD` for `ACCESS_SYSTEM_SECURITY` without the privilege.
pub(crate) fn check(
    descriptor: &Descriptor,
    token: &TokenBody,
    desired: u32,
    mapping: &GenericMapping,
) -> Result<u32, NtStatus> {
    let desired = mapping.map(desired);
    let maximum = desired & AccessMask::MAXIMUM_ALLOWED.bits() != 0;
    let mut wanted = desired & !AccessMask::MAXIMUM_ALLOWED.bits();
    let mut granted = 0;
    let system_security = AccessMask::ACCESS_SYSTEM_SECURITY.bits();
    if wanted & system_security != 0 {
        if !token.is_enabled(privilege::SECURITY) {
            return Err(NtStatus::PRIVILEGE_NOT_HELD);
        }
        granted |= system_security;
    }
    let take = AccessMask::WRITE_OWNER.bits();
    if wanted & take != 0 && token.is_enabled(privilege::TAKE_OWNERSHIP) {
        granted |= take;
    }
    let Some(dacl) = &descriptor.dacl else {
        // No list protects nothing.
        let everything = if maximum { mapping.all } else { 0 };
        return Ok(wanted | granted | everything);
    };
    if descriptor.owner.as_ref().is_some_and(|owner| token.has(owner)) {
        // The owner can always read and change the list.
        let own = (AccessMask::READ_CONTROL | AccessMask::WRITE_DAC).bits();
        granted |= if maximum { own } else { own & wanted };
    }
    let (mut allowed, mut denied) = (granted, 0);
    for ace in dacl.0.iter().filter(|ace| token.has(&ace.sid)) {
        let mask = mapping.map(ace.mask);
        if ace.allow {
            allowed |= mask & !denied;
        } else {
            denied |= mask & !allowed;
        }
    }
    wanted &= !granted;
    if wanted & !allowed != 0 {
        return Err(NtStatus::ACCESS_DENIED);
    }
    if maximum && allowed == 0 {
        return Err(NtStatus::ACCESS_DENIED);
    }
    Ok(granted | wanted | if maximum { allowed } else { 0 })
}

pub(super) extern "efiapi" fn se_access_check(
    descriptor: Raw<u8>,
    context: Raw<SubjectContext>,
    locked: u8,
    desired: u32,
    previously_granted: u32,
    privileges: Raw<usize>,
    mapping: Raw<GenericMapping>,
    mode: KPROCESSOR_MODE,
    granted: Raw<u32>,
    access_status: Raw<NtStatus>,
) -> u8 {
    let call = Call::enter();
    // Privileges that were used are not listed: the output is optional for the caller, and for us.
    privileges.write_if_some(0);
    let mapping = mapping.read();
    let decided = if mode == KERNEL_MODE {
        // The kernel gets what it asks for, and everything when it asks for the most.
        let maximum = desired & AccessMask::MAXIMUM_ALLOWED.bits() != 0;
        Ok(if maximum { mapping.map(desired & !AccessMask::MAXIMUM_ALLOWED.bits()) | mapping.all } else { desired })
    } else {
        user_check(&call, descriptor, context, locked, desired, &mapping)
    };
    match decided {
        Ok(rights) => {
            granted.write(rights | previously_granted);
            access_status.write(NtStatus::SUCCESS);
            1
        }
        Err(status) => {
            granted.write(0);
            access_status.write(status);
            0
        }
    }
}

fn user_check(
    call: &Call,
    descriptor: Raw<u8>,
    context: Raw<SubjectContext>,
    locked: u8,
    desired: u32,
    mapping: &GenericMapping,
) -> Result<u32, NtStatus> {
    // An object without a descriptor is nobody's to open from user mode.
    let descriptor = Descriptor::read(descriptor.some().ok_or(NtStatus::ACCESS_DENIED)?)?;
    let context = context.read();
    context.check_lock(call, locked);
    if !context.can_act() {
        return Err(NtStatus::BAD_IMPERSONATION_LEVEL);
    }
    check(&descriptor, &context.effective(call), desired, mapping)
}

/// There is never anything to free: `SeAccessCheck` hands no privileges out.
extern "efiapi" fn se_free_privileges(_privileges: usize) {
    let _call = Call::enter();
}

/// `PRIVILEGE_SET`: a count, a control word, and entries of 12 bytes.
const SET_HEADER: usize = 8;
const ENTRY_BYTES: usize = 12;
/// `PRIVILEGE_SET_ALL_NECESSARY`, `SE_PRIVILEGE_USED_FOR_ACCESS`.
const ALL_NECESSARY: u32 = 1;
const USED_FOR_ACCESS: u32 = 0x8000_0000;

pub(super) extern "efiapi" fn se_privilege_check(
    required: Raw<u32>,
    context: Raw<SubjectContext>,
    mode: KPROCESSOR_MODE,
) -> u8 {
    let call = Call::enter();
    if mode == KERNEL_MODE {
        return 1;
    }
    let context = context.read();
    if !context.can_act() {
        return 0;
    }
    let token = context.effective(&call);
    let (count, control) = (required.read(), required.index(1).read());
    let mut held = 0;
    for index in 0..count as usize {
        let entry = required.field::<u32>(SET_HEADER + index * ENTRY_BYTES);
        if token.is_enabled(entry.read()) {
            held += 1;
            let attributes = entry.index(2);
            attributes.write(attributes.read() | USED_FOR_ACCESS);
        }
    }
    let wanted = if control & ALL_NECESSARY != 0 { count } else { count.min(1) };
    u8::from(held >= wanted)
}

pub(super) extern "efiapi" fn se_single_privilege_check(luid: u64, mode: KPROCESSOR_MODE) -> u8 {
    let call = Call::enter();
    if mode == KERNEL_MODE {
        return 1;
    }
    let number = luid as u32;
    let client = call.thread().impersonation();
    if let Some(client) = client {
        let token = client.token.payload::<TokenBody>();
        return u8::from(
            client.level >= super::impersonation::IMPERSONATION && token.is_some_and(|token| token.is_enabled(number)),
        );
    }
    let process = call.machine().nt.owner_of(call.thread());
    let token = primary(call.machine(), &process).ok().and_then(|token| token.payload::<TokenBody>());
    u8::from(token.is_some_and(|token| token.is_enabled(number)))
}

pub(super) extern "efiapi" fn rtl_map_generic_mask(access: Raw<u32>, mapping: Raw<GenericMapping>) {
    let _call = Call::enter();
    access.write(mapping.read().map(access.read()));
}

extern "efiapi" fn rtl_are_all_accesses_granted(granted: u32, desired: u32) -> u8 {
    let _call = Call::enter();
    u8::from(desired & !granted == 0)
}

extern "efiapi" fn rtl_are_any_accesses_granted(granted: u32, desired: u32) -> u8 {
    let _call = Call::enter();
    u8::from(desired & granted != 0)
}
