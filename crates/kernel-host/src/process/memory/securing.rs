//! User memory that a driver has secured: it is neither freed nor protected more strictly until it is unsecured, or its process ends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nt_types::NtStatus;

use super::{Protection, UserMemory};
use crate::nt::arena::PAGE;

/// Handles of all processes, so that one of another process is no handle here.
static NEXT: AtomicUsize = AtomicUsize::new(1);

/// The secured ranges of a process.
#[derive(Debug, Default)]
pub(super) struct SecuredRanges(Mutex<Vec<Secured>>);

#[derive(Debug)]
struct Secured {
    handle: usize,
    pages: std::ops::Range<usize>,
    /// It has to stay writable, not only readable.
    writable: bool,
}

impl SecuredRanges {
    /// Whether pages may get a protection.
    pub(super) fn check(&self, address: usize, length: usize, protection: Protection) -> Result<(), NtStatus> {
        let end = address.saturating_add(length.max(1));
        let forbids = |secured: &Secured| {
            let touched = secured.pages.start < end && address < secured.pages.end;
            touched && protection != Protection::ReadWrite && (secured.writable || protection != Protection::ReadOnly)
        };
        if self.lock().iter().any(forbids) { Err(NtStatus::INVALID_PAGE_PROTECTION) } else { Ok(()) }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Secured>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UserMemory {
    /// Secures the pages of a range; a handle to unsecure them with.
    ///
    /// # Errors
    /// `STATUS_ACCESS_VIOLATION` when they do not allow already what they are to keep allowing.
    pub(crate) fn secure(&self, address: usize, length: usize, writable: bool) -> Result<usize, NtStatus> {
        let end = address.checked_add(length).ok_or(NtStatus::ACCESS_VIOLATION)?;
        let first = address & !(PAGE - 1);
        for page in (first..end).step_by(PAGE) {
            let allowed = self.0.lock_page(page, |page| match page {
                Protection::ReadWrite => true,
                Protection::ReadOnly => !writable,
                _ => false,
            });
            if allowed != Some(true) {
                return Err(NtStatus::ACCESS_VIOLATION);
            }
        }
        let handle = NEXT.fetch_add(1, Ordering::Relaxed) << 4;
        self.0.secured.lock().push(Secured { handle, pages: first..end.next_multiple_of(PAGE), writable });
        Ok(handle)
    }

    /// Undoes [`secure`](Self::secure); false when the handle is none of this process's.
    pub(crate) fn unsecure(&self, handle: usize) -> bool {
        let mut secured = self.0.secured.lock();
        let before = secured.len();
        secured.retain(|range| range.handle != handle);
        secured.len() != before
    }
}
