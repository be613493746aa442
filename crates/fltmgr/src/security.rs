//! The security descriptor of a port.

use crate::irql::after_call;
use crate::raw::{FltBuildDefaultSecurityDescriptor, FltFreeSecurityDescriptor};
use core::ptr;
use nt_types::{NtStatus, PVOID};

/// Who may connect to a port. A port keeps a copy. Dropped at IRQL <= APC_LEVEL.
#[derive(Debug)]
pub struct SecurityDescriptor {
    descriptor: PVOID,
    /// FltMgr's to free; else a static of ours.
    is_built: bool,
}

/// A self-relative SECURITY_DESCRIPTOR with a DACL of one entry.
#[repr(C, align(8))]
struct SelfRelative([u8; 48]);

/// Lets S-1-5-11, authenticated users, do FLT_PORT_CONNECT and nothing else.
static AUTHENTICATED_USERS: SelfRelative = SelfRelative([
    1, 0, 0x04, 0x80, // revision; SE_DACL_PRESENT | SE_SELF_RELATIVE
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // no owner, no group, no SACL: the system's defaults
    20, 0, 0, 0, // where the DACL is
    2, 0, 28, 0, 1, 0, 0, 0, // ACL: revision, bytes, entries
    0, 0, 20, 0, // ACCESS_ALLOWED_ACE, flags, bytes
    1, 0, 0, 0, // FLT_PORT_CONNECT
    1, 1, 0, 0, 0, 0, 0, 5, 11, 0, 0, 0, // S-1-5-11
]);

impl SecurityDescriptor {
    /// Lets everybody connect who has logged on with an account of their own, and grants nothing beyond.
    #[must_use]
    pub const fn authenticated_users() -> Self {
        Self { descriptor: (&raw const AUTHENTICATED_USERS).cast_mut().cast(), is_built: false }
    }

    /// FltMgr's default: SYSTEM and Administrators get the access asked for, nobody else any
    /// (`FltBuildDefaultSecurityDescriptor`). IRQL <= APC_LEVEL.
    ///
    /// `access` is [`FLT_PORT_CONNECT`](crate::raw::FLT_PORT_CONNECT) or
    /// [`FLT_PORT_ALL_ACCESS`](crate::raw::FLT_PORT_ALL_ACCESS).
    ///
    /// # Errors
    /// STATUS_INSUFFICIENT_RESOURCES.
    pub fn administrators_only(access: u32) -> Result<Self, NtStatus> {
        let mut descriptor = ptr::null_mut();
        // SAFETY: the out cell is ours (rule: nf-fltkernel-fltbuilddefaultsecuritydescriptor).
        let status = after_call(unsafe { FltBuildDefaultSecurityDescriptor(&raw mut descriptor, access) });
        status.ok()?;
        Ok(Self { descriptor, is_built: true })
    }

    /// The descriptor, valid while `self` lives.
    #[must_use]
    pub const fn as_ptr(&self) -> PVOID {
        self.descriptor
    }
}

impl Drop for SecurityDescriptor {
    fn drop(&mut self) {
        if !self.is_built {
            return;
        }
        // SAFETY: built by FltMgr and freed only here (rule: nf-fltkernel-fltfreesecuritydescriptor).
        unsafe { FltFreeSecurityDescriptor(self.descriptor) };
        after_call(0_u8);
    }
}
