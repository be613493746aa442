//! The registration of a minifilter.

use crate::irql::after_call;
use crate::raw::{FLT_REGISTRATION, FltRegisterFilter, FltStartFiltering, FltUnregisterFilter, PFLT_FILTER};
use core::mem::ManuallyDrop;
use core::ptr;
use nt_types::{DRIVER_OBJECT, NtStatus};

/// A registered minifilter. Unregisters on drop.
///
/// Dropping it waits for every rundown reference on the filter: queued work items, instances and
/// volumes that are still referenced. What holds such references must be dropped first, and so
/// must the server port. It happens at IRQL <= APC_LEVEL, in FilterUnloadCallback or in a DriverEntry that fails.
#[derive(Debug)]
pub struct Filter {
    filter: PFLT_FILTER,
}

/// A registered minifilter, borrowed for calls. Valid while the [`Filter`] that it came from lives.
#[derive(Clone, Copy, Debug)]
pub struct FilterRef {
    filter: PFLT_FILTER,
}

impl Filter {
    /// Registers the minifilter (`FltRegisterFilter`). IRQL <= APC_LEVEL, in DriverEntry.
    ///
    /// No callback runs before [`start`](Self::start).
    ///
    /// # Errors
    /// STATUS_INSUFFICIENT_RESOURCES, STATUS_INVALID_PARAMETER (version), STATUS_FLT_NOT_INITIALIZED,
    /// STATUS_OBJECT_NAME_NOT_FOUND (the service has no instance in the registry).
    ///
    /// # Safety
    /// `driver` is the driver object that DriverEntry was given. The callbacks in `registration`
    /// stay in memory until the filter is unregistered.
    pub unsafe fn register(
        driver: *mut DRIVER_OBJECT,
        registration: &'static FLT_REGISTRATION,
    ) -> Result<Self, NtStatus> {
        let mut filter = ptr::null_mut();
        // SAFETY: the caller vouches for the driver object; the registration is static, and the
        // out cell is ours (rule: nf-fltkernel-fltregisterfilter).
        let status = after_call(unsafe { FltRegisterFilter(driver, registration, &raw mut filter) });
        status.ok()?;
        Ok(Self { filter })
    }

    /// Starts filtering (`FltStartFiltering`). IRQL <= APC_LEVEL.
    ///
    /// Callbacks, instance setup first, can run before this returns: everything that they use
    /// must be in place.
    ///
    /// # Errors
    /// STATUS_INVALID_PARAMETER when it was called before.
    pub fn start(&self) -> Result<(), NtStatus> {
        self.as_ref().start()
    }

    /// Gives up the owner, for a global that keeps only the pointer: [`Filter::from_ptr`] makes an owner of it again.
    #[must_use]
    pub fn into_ptr(self) -> PFLT_FILTER {
        ManuallyDrop::new(self).filter
    }

    /// The owner of a registered filter.
    ///
    /// # Safety
    /// `filter` came out of [`Filter::into_ptr`], and no other owner was made of it.
    #[must_use]
    pub const unsafe fn from_ptr(filter: PFLT_FILTER) -> Self {
        Self { filter }
    }

    /// For calls that name the filter.
    #[must_use]
    pub const fn as_ref(&self) -> FilterRef {
        FilterRef { filter: self.filter }
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        // SAFETY: registered once, unregistered only here (rule: Filter owns it).
        unsafe { FltUnregisterFilter(self.filter) };
        after_call(0_u8);
    }
}

// SAFETY: FltMgr's functions take the filter from any thread (rule: opaque, reference counted).
unsafe impl Send for Filter {}
// SAFETY: as above; no method changes anything of ours.
unsafe impl Sync for Filter {}

impl FilterRef {
    /// A filter by the pointer that FltMgr knows, for a global that keeps nothing else.
    ///
    /// # Safety
    /// The result is used only while the filter is registered.
    #[must_use]
    pub const unsafe fn from_ptr(filter: PFLT_FILTER) -> Self {
        Self { filter }
    }

    /// See [`Filter::start`].
    ///
    /// # Errors
    /// STATUS_INVALID_PARAMETER when it was called before.
    pub fn start(self) -> Result<(), NtStatus> {
        // SAFETY: registered (rule: FilterRef is valid while the Filter lives).
        after_call(unsafe { FltStartFiltering(self.filter) }).ok()
    }

    /// The pointer that FltMgr knows.
    #[must_use]
    pub const fn as_ptr(self) -> PFLT_FILTER {
        self.filter
    }
}

// SAFETY: as for `Filter`.
unsafe impl Send for FilterRef {}
// SAFETY: as for `Filter`.
unsafe impl Sync for FilterRef {}
