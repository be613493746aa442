//! Share modes: who may have a stream open for what at the same time.
//!
//! The counts are NT's `SHARE_ACCESS`. An open that asks only for attributes, `SYNCHRONIZE` or the security descriptor takes no part: it
//! neither conflicts nor is counted, exactly as `IoCheckShareAccess` documents.

use nt_types::{AccessMask, NtStatus};

/// `FILE_SHARE_READ`.
pub(crate) const FILE_SHARE_READ: u32 = 1;
/// `FILE_SHARE_WRITE`.
pub(crate) const FILE_SHARE_WRITE: u32 = 2;
/// `FILE_SHARE_DELETE`.
pub(crate) const FILE_SHARE_DELETE: u32 = 4;

/// What one open contributes to the counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "the six booleans of a FILE_OBJECT")]
pub(crate) struct ShareMode {
    pub(crate) read: bool,
    pub(crate) write: bool,
    pub(crate) delete: bool,
    pub(crate) shared_read: bool,
    pub(crate) shared_write: bool,
    pub(crate) shared_delete: bool,
}

impl ShareMode {
    /// From the access granted and the `FILE_SHARE_*` bits given.
    pub(crate) fn new(access: AccessMask, share: u32) -> Self {
        Self {
            read: access.intersects(AccessMask::FILE_READ_DATA | AccessMask::FILE_EXECUTE),
            write: access.intersects(AccessMask::FILE_WRITE_DATA | AccessMask::FILE_APPEND_DATA),
            delete: access.contains(AccessMask::DELETE),
            shared_read: share & FILE_SHARE_READ != 0,
            shared_write: share & FILE_SHARE_WRITE != 0,
            shared_delete: share & FILE_SHARE_DELETE != 0,
        }
    }

    /// Whether the open takes part at all.
    pub(crate) fn counts(self) -> bool {
        self.read || self.write || self.delete
    }
}

/// `SHARE_ACCESS`: the sum over the opens of one stream.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ShareAccess {
    open: u32,
    readers: u32,
    writers: u32,
    deleters: u32,
    shared_read: u32,
    shared_write: u32,
    shared_delete: u32,
}

impl ShareAccess {
    /// `IoCheckShareAccess` without the update.
    ///
    /// # Errors
    /// `SHARING_VIOLATION`.
    pub(crate) fn check(&self, mode: ShareMode) -> Result<(), NtStatus> {
        let conflict = mode.counts()
            && ((mode.read && self.shared_read < self.open)
                || (mode.write && self.shared_write < self.open)
                || (mode.delete && self.shared_delete < self.open)
                || (self.readers != 0 && !mode.shared_read)
                || (self.writers != 0 && !mode.shared_write)
                || (self.deleters != 0 && !mode.shared_delete));
        if conflict { Err(NtStatus::SHARING_VIOLATION) } else { Ok(()) }
    }

    /// Counts an open that [`check`](Self::check) let through.
    pub(crate) fn add(&mut self, mode: ShareMode) {
        self.each(mode, |count, yes| *count = count.saturating_add(u32::from(yes)));
    }

    /// Takes an open off the counts, at cleanup.
    pub(crate) fn remove(&mut self, mode: ShareMode) {
        self.each(mode, |count, yes| *count = count.saturating_sub(u32::from(yes)));
    }

    fn each(&mut self, mode: ShareMode, change: impl Fn(&mut u32, bool)) {
        if !mode.counts() {
            return;
        }
        change(&mut self.open, true);
        change(&mut self.readers, mode.read);
        change(&mut self.writers, mode.write);
        change(&mut self.deleters, mode.delete);
        change(&mut self.shared_read, mode.shared_read);
        change(&mut self.shared_write, mode.shared_write);
        change(&mut self.shared_delete, mode.shared_delete);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: AccessMask = AccessMask::FILE_READ_DATA;
    const WRITE: AccessMask = AccessMask::FILE_WRITE_DATA;

    fn opened(access: AccessMask, share: u32) -> ShareAccess {
        let mut counts = ShareAccess::default();
        counts.add(ShareMode::new(access, share));
        counts
    }

    #[test]
    fn a_reader_that_shares_reading_only_locks_writers_out() {
        let held = opened(READ, FILE_SHARE_READ);
        assert_eq!(held.check(ShareMode::new(READ, FILE_SHARE_READ)), Ok(()));
        assert_eq!(held.check(ShareMode::new(WRITE, 7)), Err(NtStatus::SHARING_VIOLATION));
        assert_eq!(held.check(ShareMode::new(AccessMask::DELETE, 7)), Err(NtStatus::SHARING_VIOLATION));
    }

    #[test]
    fn a_writer_that_exists_refuses_a_reader_that_shares_reading_only() {
        let held = opened(WRITE, 7);
        assert_eq!(held.check(ShareMode::new(READ, FILE_SHARE_READ)), Err(NtStatus::SHARING_VIOLATION));
        assert_eq!(held.check(ShareMode::new(READ, FILE_SHARE_READ | FILE_SHARE_WRITE)), Ok(()));
    }

    #[test]
    fn an_open_for_attributes_takes_no_part() {
        let attributes = ShareMode::new(AccessMask::FILE_READ_ATTRIBUTES | AccessMask::SYNCHRONIZE, 0);
        assert_eq!(opened(READ | WRITE, 0).check(attributes), Ok(()));
        let mut counts = ShareAccess::default();
        counts.add(attributes);
        assert_eq!(counts.check(ShareMode::new(WRITE, 0)), Ok(()));
    }

    #[test]
    fn the_counts_return_to_nothing() {
        let mode = ShareMode::new(READ | WRITE, 0);
        let mut counts = opened(READ | WRITE, 0);
        assert_eq!(counts.writers, 1);
        counts.remove(mode);
        assert_eq!(counts.check(mode), Ok(()));
    }
}
