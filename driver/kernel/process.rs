//! Who calls.

use super::imports::{ExFreePool, SeLocateProcessImageName};
use broker::{Error, Name};
use core::{ptr, slice};
use fltmgr::Passive;
use nt_types::{NtStatus, UNICODE_STRING};
use wdk_sys::ntddk::{IoGetCurrentProcess, PsGetCurrentProcessId};

/// Longest image name that is kept, in UTF-16 units. Of a longer one the end is kept, which says more than its start.
const MAX_UNITS: usize = 260;

/// The process in whose context this thread runs.
pub(crate) fn current_id() -> u64 {
    // SAFETY: no preconditions (rule: PsGetCurrentProcessId).
    unsafe { PsGetCurrentProcessId() as u64 }
}

/// The full image name of the current process, as NT path. Empty where the system does not know it: the name is for
/// people, and a client must not be kept out for the want of one.
///
/// [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`), which does keep it out: it would be nameless in every list.
pub(crate) fn current_image_name(_passive: Passive) -> Result<Name, Error> {
    let mut located: *mut UNICODE_STRING = ptr::null_mut();
    // SAFETY: no preconditions (rule: IoGetCurrentProcess); the process cannot go while its thread is here.
    let process = unsafe { IoGetCurrentProcess() };
    // SAFETY: a process, a cell of ours, PASSIVE_LEVEL by the proof (rule: SeLocateProcessImageName).
    let status = unsafe { SeLocateProcessImageName(process.cast(), &raw mut located) };
    match status {
        NtStatus::INSUFFICIENT_RESOURCES | NtStatus::NO_MEMORY => return Err(Error::OutOfMemory),
        status if !status.is_success() => return Name::try_new(&[]),
        _ => {}
    }
    // SAFETY: NULL, or a string that the call allocated for us.
    let name = unsafe { units(located) };
    let last = name.get(name.len().saturating_sub(MAX_UNITS)..).unwrap_or(name);
    let kept = Name::try_new(last);
    if !located.is_null() {
        // SAFETY: string and characters are one block, the caller's to free (rule: SeLocateProcessImageName), and not
        // used any more.
        unsafe { ExFreePool(located.cast()) };
    }
    kept
}

/// The characters of a string.
///
/// # Safety
/// `string` is NULL, or valid for `'a`.
unsafe fn units<'a>(string: *const UNICODE_STRING) -> &'a [u16] {
    // SAFETY: the caller vouches for it.
    match unsafe { string.as_ref() } {
        Some(string) if !string.Buffer.is_null() => {
            // SAFETY: a valid string's buffer holds its length.
            unsafe { slice::from_raw_parts(string.Buffer, string.chars()) }
        }
        _ => &[],
    }
}
