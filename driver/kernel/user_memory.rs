//! Memory of a client's process.
//!
//! A range of user memory can change or vanish between any two accesses. So nothing here gives out
//! a reference to it: a [`UserInput`] can be captured once, which consumes it, and a [`UserOutput`] takes
//! bytes at its front and moves on. What was captured is checked in kernel memory, where it cannot change any more.

use super::guarded_copy;
use super::imports::MmHighestUserAddress;
use alloc::vec::Vec;
use fltmgr::Passive;
use nt_types::{NtStatus, PVOID};

/// Bytes that a client sent, not looked at yet.
pub(crate) struct UserInput {
    range: UserRange,
}

/// Room for bytes that a client wants.
pub(crate) struct UserOutput {
    range: UserRange,
}

/// A range that lies in user space as a whole. That it is mapped is not known before it is touched.
struct UserRange {
    start: usize,
    length: usize,
}

impl UserInput {
    /// A client's input buffer. A NULL pointer means no bytes, whatever the length says.
    ///
    /// # Errors
    /// STATUS_ACCESS_VIOLATION when it reaches into kernel space or wraps around.
    pub(crate) fn new(buffer: PVOID, length: u32) -> Result<Self, NtStatus> {
        UserRange::new(buffer, length).map(|range| Self { range })
    }

    /// How many bytes there are.
    pub(crate) const fn len(&self) -> usize {
        self.range.length
    }

    /// Copies the first bytes, at most `limit`, to kernel memory. The only way to see them, and it works once.
    ///
    /// # Errors
    /// STATUS_ACCESS_VIOLATION, STATUS_INSUFFICIENT_RESOURCES.
    pub(crate) fn capture(self, limit: usize, _passive: Passive) -> Result<Vec<u8>, NtStatus> {
        let length = self.range.length.min(limit);
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(length).map_err(|_| NtStatus::INSUFFICIENT_RESOURCES)?;
        if length > 0 {
            let spare = bytes.spare_capacity_mut().as_mut_ptr().cast::<u8>();
            // SAFETY: PASSIVE_LEVEL in the client's process (message callback); `spare` has room for
            // `length` bytes of ours, and the source was checked to be user space (rule: guarded_copy).
            unsafe { guarded_copy::copy(spare, self.range.start as *const u8, length) }?;
            // SAFETY: `length` bytes were written, all of them, or we would not be here.
            unsafe { bytes.set_len(length) };
        }
        Ok(bytes)
    }
}

impl UserOutput {
    /// A client's output buffer. A NULL pointer means no room, whatever the length says.
    ///
    /// # Errors
    /// STATUS_ACCESS_VIOLATION when it reaches into kernel space or wraps around.
    pub(crate) fn new(buffer: PVOID, length: u32) -> Result<Self, NtStatus> {
        UserRange::new(buffer, length).map(|range| Self { range })
    }

    /// How many bytes fit.
    pub(crate) const fn room(&self) -> usize {
        self.range.length
    }

    /// Writes `bytes` and moves on behind them.
    ///
    /// # Errors
    /// STATUS_BUFFER_TOO_SMALL, with nothing written; STATUS_ACCESS_VIOLATION, with some of the bytes possibly written.
    pub(crate) fn write(&mut self, bytes: &[u8], _passive: Passive) -> Result<(), NtStatus> {
        let left = self.range.length.checked_sub(bytes.len()).ok_or(NtStatus::BUFFER_TOO_SMALL)?;
        if !bytes.is_empty() {
            // SAFETY: PASSIVE_LEVEL in the client's process (message callback); the destination was checked to be
            // user space and holds that many bytes (rule: guarded_copy).
            unsafe { guarded_copy::copy(self.range.start as *mut u8, bytes.as_ptr(), bytes.len()) }?;
        }
        self.range.start = self.range.start.wrapping_add(bytes.len());
        self.range.length = left;
        Ok(())
    }
}

impl UserRange {
    /// FltMgr has probed the range, but not one of length zero, and a driver that forgets is not
    /// told so by the type system; a comparison costs nothing.
    fn new(buffer: PVOID, length: u32) -> Result<Self, NtStatus> {
        let (start, length) = if buffer.is_null() { (0, 0) } else { (buffer as usize, length as usize) };
        let Some(last) = length.checked_sub(1) else {
            return Ok(Self { start, length });
        };
        let end = start.checked_add(last).ok_or(NtStatus::ACCESS_VIOLATION)?;
        // SAFETY: a constant that the kernel exports (rule: MmHighestUserAddress).
        let highest = unsafe { MmHighestUserAddress } as usize;
        if end > highest { Err(NtStatus::ACCESS_VIOLATION) } else { Ok(Self { start, length }) }
    }
}
