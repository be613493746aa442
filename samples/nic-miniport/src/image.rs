//! What the driver looks at in an image before the device gets it.

/// Why an image is not fit for the device.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfit {
    /// No bytes at all.
    Empty,
    /// Starts like an option ROM and does not go on like one.
    BadOptionRom,
}

/// Checks what can be checked without knowing the device's instruction set.
///
/// A PCI option ROM announces itself with 55 AA and then has to keep its promises: its initialisation size lies within the file, and so does
/// the PCI data structure it points at. Anything else is a plain blob, of which the device is the judge.
pub(crate) fn check(image: &[u8]) -> Result<(), Unfit> {
    if image.is_empty() {
        return Err(Unfit::Empty);
    }
    if !image.starts_with(&[0x55, 0xAA]) {
        return Ok(());
    }
    check_option_rom(image).ok_or(Unfit::BadOptionRom)
}

fn check_option_rom(image: &[u8]) -> Option<()> {
    // Initialisation size in units of 512 bytes.
    let size = usize::from(*image.get(2)?).checked_mul(512)?;
    if size == 0 || size > image.len() {
        return None;
    }
    let pointer = image.get(0x18..0x1A)?.first_chunk::<2>()?;
    let start = usize::from(u16::from_le_bytes(*pointer));
    let signature = image.get(start..)?.first_chunk::<4>()?;
    (signature == b"PCIR").then_some(())
}

/// CRC-32 (IEEE 802.3), bit by bit: small, and speed is not what the sample is about.
pub(crate) struct Crc32(u32);

impl Crc32 {
    /// Of nothing yet.
    pub(crate) const fn new() -> Self {
        Self(u32::MAX)
    }

    /// Takes in `bytes`.
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 ^= u32::from(*byte);
            for _ in 0..8 {
                let carry = (self.0 & 1).wrapping_neg();
                self.0 = (self.0 >> 1) ^ (0xEDB8_8320 & carry);
            }
        }
    }

    /// The check sum so far.
    pub(crate) const fn value(&self) -> u32 {
        !self.0
    }

    /// The check sum of `bytes`.
    pub(crate) fn of(bytes: &[u8]) -> u32 {
        let mut crc = Self::new();
        crc.update(bytes);
        crc.value()
    }
}
