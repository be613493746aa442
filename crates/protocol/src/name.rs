//! UTF-16LE names inside messages.

/// A name as it lies in a message: UTF-16LE, not terminated, of even length, not checked for its content.
///
/// Bytes in a message have no alignment, so units are read one by one or copied out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Name<'a> {
    bytes: &'a [u8],
}

impl<'a> Name<'a> {
    /// The name that these UTF-16LE bytes spell, `None` where their number is odd.
    #[must_use]
    pub const fn from_bytes(bytes: &'a [u8]) -> Option<Self> {
        if bytes.len().is_multiple_of(2) { Some(Self { bytes }) } else { None }
    }

    /// The name in these units, without copying. Only where the machine's own order is the wire's.
    #[cfg(target_endian = "little")]
    #[must_use]
    pub fn from_units(units: &'a [u16]) -> Self {
        Self { bytes: zerocopy::IntoBytes::as_bytes(units) }
    }

    /// The UTF-16LE bytes.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Length in bytes, as messages count it.
    #[must_use]
    pub const fn byte_len(self) -> usize {
        self.bytes.len()
    }

    /// Length in UTF-16 units.
    #[must_use]
    pub const fn unit_len(self) -> usize {
        self.bytes.len() / 2
    }

    /// Whether there is no unit at all.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.bytes.is_empty()
    }

    /// The UTF-16 units in order.
    #[must_use]
    pub fn units(self) -> impl ExactSizeIterator<Item = u16> + DoubleEndedIterator + Clone + 'a {
        let (pairs, _) = self.bytes.as_chunks::<2>();
        pairs.iter().map(|pair| u16::from_le_bytes(*pair))
    }

    /// Copies the units to the start of `out` and returns that part; `None` where `out` is too short.
    #[must_use]
    pub fn copy_to(self, out: &mut [u16]) -> Option<&mut [u16]> {
        let target = out.get_mut(..self.unit_len())?;
        for (to, unit) in target.iter_mut().zip(self.units()) {
            *to = unit;
        }
        Some(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_survive_a_misaligned_buffer() {
        let raw = [0xff, b'a', 0, 0x3d, 0xd8];
        let name = Name::from_bytes(&raw[1..]).unwrap();
        let mut out = [0; 3];
        assert_eq!(name.copy_to(&mut out).unwrap(), [0x61, 0xd83d]);
        assert_eq!((name.byte_len(), name.unit_len()), (4, 2));
    }

    #[test]
    fn odd_byte_counts_and_short_targets_are_refused() {
        assert_eq!(Name::from_bytes(b"abc"), None);
        assert!(Name::from_bytes(b"abcd").unwrap().copy_to(&mut [0]).is_none());
    }

    #[test]
    fn units_and_bytes_agree() {
        assert_eq!(Name::from_units(&[0x1234]).as_bytes(), [0x34, 0x12]);
    }
}
