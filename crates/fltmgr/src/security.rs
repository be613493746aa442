//! The security descriptor of a port.

use crate::irql::after_call;
use crate::raw::{FltBuildDefaultSecurityDescriptor, FltFreeSecurityDescriptor};
use core::ptr;
use nt_types::{NtStatus, PVOID};

/// FltMgr's default descriptor: SYSTEM and Administrators get the access asked for, nobody else
/// any. Freed on drop, IRQL <= APC_LEVEL; a port keeps a copy.
#[derive(Debug)]
pub struct SecurityDescriptor {
    descriptor: PVOID,
}

impl SecurityDescriptor {
    /// Builds it (`FltBuildDefaultSecurityDescriptor`). IRQL <= APC_LEVEL.
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
        Ok(Self { descriptor })
    }

    /// The descriptor, valid while `self` lives.
    #[must_use]
    pub const fn as_ptr(&self) -> PVOID {
        self.descriptor
    }
}

impl Drop for SecurityDescriptor {
    fn drop(&mut self) {
        // SAFETY: built by FltMgr and freed only here (rule: nf-fltkernel-fltfreesecuritydescriptor).
        unsafe { FltFreeSecurityDescriptor(self.descriptor) };
        after_call(0_u8);
    }
}
