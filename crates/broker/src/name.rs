//! Owned UTF-16 names.

use core::fmt;

use crate::Error;
use crate::fixed_vec::FixedVec;

/// A counted UTF-16 string on the heap, as NT names are: it may contain any unit, unpaired
/// surrogates included, and has no terminator.
#[derive(PartialEq, Eq)]
pub struct Name {
    units: FixedVec<u16>,
}

impl Name {
    /// Copies `units`.
    ///
    /// [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`) when there is no room.
    pub fn try_new(units: &[u16]) -> Result<Self, Error> {
        Self::concat(&[units])
    }

    /// Copies `parts`, one after the other.
    ///
    /// [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`) when there is no room.
    pub fn concat(parts: &[&[u16]]) -> Result<Self, Error> {
        let total = parts.iter().try_fold(0_usize, |sum, part| sum.checked_add(part.len()));
        let mut units = FixedVec::try_with_capacity(total.ok_or(Error::OutOfMemory)?)?;
        for unit in parts.iter().copied().flatten() {
            units.push(*unit).map_err(|_| Error::OutOfMemory)?;
        }
        Ok(Self { units })
    }

    /// The name's UTF-16 units.
    #[must_use]
    pub fn units(&self) -> &[u16] {
        &self.units
    }
}

/// Whether `left` and `right` are the same name to a case-insensitive file system.
///
/// Unit by unit, as NT compares names; `upcase` is `RtlUpcaseUnicodeChar` in the driver.
#[must_use]
pub(crate) fn same_name(left: &[u16], right: &[u16], upcase: impl Fn(u16) -> u16) -> bool {
    left.len() == right.len() && left.iter().zip(right).all(|(l, r)| l == r || upcase(*l) == upcase(*r))
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in char::decode_utf16(self.units.iter().copied()) {
            write!(f, "{}", character.unwrap_or(char::REPLACEMENT_CHARACTER))?;
        }
        Ok(())
    }
}
