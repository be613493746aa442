//! The checksum of PE images, as `ImageHlp`'s `CheckSumMappedFile` and `link /RELEASE` compute it.

/// Sums the file as little-endian 16-bit words with end-around carry, the checksum field counting as zero, and adds the
/// file's length in bytes. `field` is the offset of the checksum, which is always even.
pub(crate) fn compute(file: &[u8], field: usize) -> u32 {
    let mut sum = 0_u32;
    for (index, word) in file.chunks(2).enumerate() {
        let offset = index * 2;
        if (field..field + 4).contains(&offset) {
            continue;
        }
        let low = word.first().copied().unwrap_or_default();
        let high = word.get(1).copied().unwrap_or_default();
        sum += u32::from(u16::from_le_bytes([low, high]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum + u32::try_from(file.len()).unwrap_or(u32::MAX)
}

#[test]
fn the_checksum_covers_every_byte_but_its_own() {
    let mut file = vec![0xff_u8; 9];
    let whole = compute(&file, 4);
    file[5] = 0;
    assert_eq!(compute(&file, 4), whole, "the field itself counts");
    file[8] = 0;
    assert_ne!(compute(&file, 4), whole, "an odd last byte does not count");
}

#[test]
fn carries_wrap_around() {
    // 0xffff + 0x0002 carries once: 0x0002, plus eight bytes of length.
    assert_eq!(compute(&[0xff, 0xff, 2, 0, 0, 0, 0, 0], 4), 0x0002 + 8);
}
