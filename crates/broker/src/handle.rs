//! Handles as clients see them.

use core::num::NonZeroU64;

use crate::Error;
use crate::slot::LIVE;

/// A handle: 64 bits that mean something only to the table that gave them out, only in the
/// session that got them, and only until the next boot.
///
/// ```text
/// 63           32 31   26 25            0
/// |  check: 32   | kind:6 |   slot: 26   |
/// ```
///
/// `slot` says where the entry lies; it is public knowledge. `check` is the slot's generation number, passed through a
/// permutation that is keyed per boot ([`HandleKey`](crate::HandleKey)): no two generations of a
/// slot share a check, so a stale handle never fits a later entry, and without the key the next check cannot be told from the last.
/// `kind` is never zero, hence neither is a handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(NonZeroU64);

/// What a handle stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A firmware file opened by a client.
    File = 1,
    /// A staged image in somebody's hands.
    Image = 2,
    /// A file opened through `NdisOpenFile`.
    NdisFile = 3,
    /// A protocol binding to an adapter (`NdisOpenAdapterEx`).
    Binding = 4,
}

pub(crate) const SLOT_BITS: u32 = 26;
const KIND_BITS: u32 = 6;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;
const KIND_MASK: u64 = (1 << KIND_BITS) - 1;
const CHECK_SHIFT: u32 = SLOT_BITS + KIND_BITS;

impl Handle {
    /// Takes a number from a client for a handle.
    ///
    /// [`Error::HandleInvalid`] (`STATUS_INVALID_HANDLE`) where its shape already says that it was never given out.
    /// Success promises nothing: only [`HandleTable::get`](crate::HandleTable::get) knows.
    pub fn from_raw(raw: u64) -> Result<Self, Error> {
        let handle = Self(NonZeroU64::new(raw).ok_or(Error::HandleInvalid)?);
        handle.kind().map(|_| handle).ok_or(Error::HandleInvalid)
    }

    /// The number that a client is given.
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.0.get()
    }

    /// What the handle claims to stand for. `None` is impossible for values of this type outside this module.
    pub(crate) fn kind(self) -> Option<Kind> {
        match (self.raw() >> SLOT_BITS) & KIND_MASK {
            1 => Some(Kind::File),
            2 => Some(Kind::Image),
            3 => Some(Kind::NdisFile),
            4 => Some(Kind::Binding),
            _ => None,
        }
    }

    /// The word of a slot in which the entry is live: all but the slot, and that it is.
    #[inline]
    pub(crate) const fn word(self) -> u64 {
        (self.raw() & !SLOT_MASK) | LIVE
    }

    /// The handle of the entry in `slot` that is found with `word`.
    pub(crate) fn from_word(word: u64, slot: u32) -> Self {
        let raw = (word & !SLOT_MASK) | (u64::from(slot) & SLOT_MASK);
        // A word has a kind, which is not zero; see `new`.
        Self(NonZeroU64::new(raw).unwrap_or(NonZeroU64::MIN))
    }

    #[inline]
    pub(crate) fn new(check: u32, kind: Kind, slot: u32) -> Self {
        let raw = (u64::from(check) << CHECK_SHIFT) | ((kind as u64) << SLOT_BITS) | (u64::from(slot) & SLOT_MASK);
        // The kind is not zero, so `raw` is not; the fallback is unreachable but costs less than a panic.
        Self(NonZeroU64::new(raw).unwrap_or(NonZeroU64::MIN))
    }

    /// The highest slot that a handle can have.
    pub(crate) const LAST_SLOT: u32 = SLOT_MASK as u32;

    #[inline]
    pub(crate) const fn slot(self) -> u32 {
        (self.raw() & SLOT_MASK) as u32
    }

    #[inline]
    pub(crate) const fn check(self) -> u32 {
        (self.raw() >> CHECK_SHIFT) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_handle_come_back_as_they_went_in() {
        for kind in [Kind::File, Kind::Image, Kind::NdisFile, Kind::Binding] {
            let handle = Handle::new(0xFFFF_FFFF, kind, 0x3FF_FFFF);
            let parsed = Handle::from_raw(handle.raw()).unwrap();
            assert_eq!((parsed.check(), parsed.kind(), parsed.slot()), (u32::MAX, Some(kind), 0x3FF_FFFF));
        }
    }

    #[test]
    fn zero_and_unknown_kinds_are_no_handles() {
        assert_eq!(Handle::from_raw(0), Err(Error::HandleInvalid));
        assert_eq!(Handle::from_raw(1), Err(Error::HandleInvalid));
        assert_eq!(Handle::from_raw(5 << SLOT_BITS), Err(Error::HandleInvalid));
        assert_eq!(Handle::from_raw(u64::MAX), Err(Error::HandleInvalid));
    }
}
