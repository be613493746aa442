//! `SEC_IMAGE`: an executable file as it lies in memory.

use nt_types::NtStatus;

/// Largest image, in bytes: a hostile header must not take all page frames.
const LARGEST: usize = 256 << 20;

/// Where headers say things: the offset of the PE header, and fields behind it and behind the optional header's start.
const PE_OFFSET: usize = 0x3C;
const SECTION_COUNT: usize = 6;
const OPTIONAL_SIZE: usize = 20;
const OPTIONAL: usize = 24;
const SIZE_OF_IMAGE: usize = 56;
const SIZE_OF_HEADERS: usize = 60;
/// Bytes of a section header, and its fields.
const SECTION_HEADER: usize = 40;
const VIRTUAL_SIZE: usize = 8;
const VIRTUAL_ADDRESS: usize = 12;
const RAW_SIZE: usize = 16;
const RAW_OFFSET: usize = 20;

/// Lays an image file out; addresses stay those of its preferred base.
///
/// # Errors
/// `STATUS_INVALID_IMAGE_NOT_MZ`, `STATUS_INVALID_IMAGE_FORMAT`.
pub(super) fn lay_out(file: &[u8]) -> Result<Vec<u8>, NtStatus> {
    const BAD: NtStatus = NtStatus::INVALID_IMAGE_FORMAT;
    if !file.starts_with(b"MZ") {
        return Err(NtStatus::INVALID_IMAGE_NOT_MZ);
    }
    let number = |at: usize| {
        let bytes = file.get(at..)?.first_chunk::<4>()?;
        Some(u32::from_le_bytes(*bytes) as usize)
    };
    let short = |at: usize| number(at).map(|number| number & 0xFFFF);
    let header = number(PE_OFFSET).ok_or(BAD)?;
    if !file.get(header..).is_some_and(|header| header.starts_with(b"PE\0\0")) {
        return Err(BAD);
    }
    let optional = header + OPTIONAL;
    let size = number(optional + SIZE_OF_IMAGE).filter(|size| (1..=LARGEST).contains(size)).ok_or(BAD)?;
    let mut image = vec![0; size];
    let mut place = |from: usize, to: usize, length: usize| {
        let source = file.get(from..)?.get(..length)?;
        image.get_mut(to..)?.get_mut(..length)?.copy_from_slice(source);
        Some(())
    };
    let headers = number(optional + SIZE_OF_HEADERS).ok_or(BAD)?;
    place(0, 0, headers.min(file.len())).ok_or(BAD)?;
    let table = optional + short(header + OPTIONAL_SIZE).ok_or(BAD)?;
    for index in 0..short(header + SECTION_COUNT).ok_or(BAD)? {
        let field = |offset| number(table + index * SECTION_HEADER + offset).ok_or(BAD);
        let in_memory = field(VIRTUAL_SIZE)?;
        let raw = field(RAW_SIZE)?;
        let length = if in_memory == 0 { raw } else { raw.min(in_memory) };
        place(field(RAW_OFFSET)?, field(VIRTUAL_ADDRESS)?, length).ok_or(BAD)?;
    }
    Ok(image)
}
