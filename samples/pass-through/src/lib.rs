//! The smallest useful minifilter in Rust: it sees operations on their way down and up again, counts them, changes nothing,
//! and prints the counts when it is unloaded. A place to start from.
//!
//! | module | what it holds |
//! |---|---|
//! | `lib` | registering, starting, unloading |
//! | `operations` | which operations, and what happens to them |

#![no_std]
#![expect(unsafe_code, reason = "exports DriverEntry, and is called by FltMgr")]
#![allow(clippy::doc_markdown, reason = "prose is full of DDI names; each of them in backticks reads worse")]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

extern crate wdk_panic;

mod operations;

use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use fltmgr::Filter;
use fltmgr::raw::{FLT_FILTER, FLT_REGISTRATION, FLTFL_FILTER_UNLOAD_MANDATORY};
use nt_types::{DRIVER_OBJECT, NtStatus, UNICODE_STRING};

/// What FltMgr is told about this filter. Without a setup callback it attaches to every volume.
static REGISTRATION: FLT_REGISTRATION = FLT_REGISTRATION {
    OperationRegistration: operations::REGISTERED.as_ptr(),
    FilterUnloadCallback: Some(unload),
    ..FLT_REGISTRATION::EMPTY
};

/// The registered filter, from DriverEntry until it is unloaded.
static FILTER: AtomicPtr<FLT_FILTER> = AtomicPtr::new(ptr::null_mut());

/// Entry point. `PASSIVE_LEVEL`.
///
/// # Safety
/// Called by the I/O manager, once, with the arguments it documents.
#[unsafe(export_name = "DriverEntry")]
pub unsafe extern "system" fn driver_entry(
    driver: *mut DRIVER_OBJECT,
    _registry_path: *const UNICODE_STRING,
) -> NtStatus {
    // SAFETY: our own driver object; the callbacks are functions of this image.
    let filter = match unsafe { Filter::register(driver, &REGISTRATION) } {
        Ok(filter) => filter,
        Err(status) => return status,
    };
    // Callbacks can run from here on. A filter that does not start is unregistered by its drop: FltMgr does not call the unload
    // callback of a driver whose DriverEntry fails.
    if let Err(status) = filter.start() {
        return status;
    }
    FILTER.store(filter.into_ptr(), Ordering::Release);
    NtStatus::SUCCESS
}

/// FilterUnloadCallback, `PASSIVE_LEVEL`. Nobody depends on this filter: it always goes.
unsafe extern "efiapi" fn unload(flags: u32) -> NtStatus {
    let filter = FILTER.swap(ptr::null_mut(), Ordering::AcqRel);
    if !filter.is_null() {
        // SAFETY: DriverEntry put it there, and the swap gave it to this call alone.
        drop(unsafe { Filter::from_ptr(filter) });
    }
    // Unregistering has waited for callbacks that were running: the counts are final.
    operations::print_counts(flags & FLTFL_FILTER_UNLOAD_MANDATORY != 0);
    NtStatus::SUCCESS
}
