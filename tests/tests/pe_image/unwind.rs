//! `.pdata` and `.xdata`: Windows walks them for every exception, and a wrong entry there is a crash of its own.
//!
//! The format is that of "x64 exception handling" in Microsoft's C++ documentation.

use anyhow::{Context, Result, ensure};
use object::pe;

use crate::image::{Image, Section};

/// Length in bytes of one `RUNTIME_FUNCTION`.
const ENTRY: u32 = 12;

/// Flags of an unwind record: exception handler, termination handler, chained to another function's record.
const HANDLERS: u8 = 0x01 | 0x02;
const CHAINED: u8 = 0x04;

/// Checks all function entries and returns how many there are.
pub(crate) fn check(image: &Image) -> Result<usize> {
    let (start, size) = image.directory(pe::IMAGE_DIRECTORY_ENTRY_EXCEPTION)?.context("no exception directory")?;
    ensure!(size.is_multiple_of(ENTRY), "the table is {size} bytes, no multiple of {ENTRY}");
    let sections = image.sections()?;
    let mut last_end = 0;
    for address in (start..start + size).step_by(ENTRY as usize) {
        let function = Function::read(image, address)?;
        let shown = format!("function {:#x}", function.begin);
        ensure!(function.begin < function.end, "{shown} ends before it begins");
        // The unwinder searches the table by halving, so order is not a matter of taste.
        ensure!(function.begin >= last_end, "{shown} is out of order or overlaps");
        ensure!(is_code(&sections, function.begin, function.end), "{shown} is not in code");
        check_record(image, &sections, function.unwind).with_context(|| shown)?;
        last_end = function.end;
    }
    Ok((size / ENTRY) as usize)
}

/// One `RUNTIME_FUNCTION`; addresses are relative to the image base.
struct Function {
    begin: u32,
    end: u32,
    unwind: u32,
}

impl Function {
    fn read(image: &Image, address: u32) -> Result<Self> {
        Ok(Self {
            begin: read_u32(image, address)?,
            end: read_u32(image, address + 4)?,
            unwind: read_u32(image, address + 8)?,
        })
    }
}

/// Checks one unwind record, and what it points at.
fn check_record(image: &Image, sections: &[Section], address: u32) -> Result<()> {
    ensure!(address.is_multiple_of(4), "the unwind record at {address:#x} is misaligned");
    let head = image.at(address)?;
    let &[version_and_flags, prologue, codes, _frame, ..] = head else {
        anyhow::bail!("the unwind record at {address:#x} is cut off");
    };
    let (version, flags) = (version_and_flags & 7, version_and_flags >> 3);
    ensure!(matches!(version, 1 | 2), "unwind record version {version}");
    check_code_offsets(head, codes, prologue)?;
    // Codes are 2 bytes each, and padded to an even number.
    let after_codes = address + 4 + u32::from(codes).next_multiple_of(2) * 2;
    ensure!(flags & HANDLERS == 0 || flags & CHAINED == 0, "a chained record has a handler");
    if flags & HANDLERS != 0 {
        let handler = read_u32(image, after_codes)?;
        ensure!(is_code(sections, handler, handler + 1), "the handler {handler:#x} is not in code");
    }
    if flags & CHAINED != 0 {
        let parent = Function::read(image, after_codes)?;
        ensure!(is_code(sections, parent.begin, parent.end), "the chained function is not in code");
        image.at(parent.unwind).context("the chained record")?;
    }
    Ok(())
}

/// Unwind codes undo the prologue backwards, so their offsets into it never grow. Operands of longer codes lie between
/// them, which is why only the first code, the one that is always a code, is compared with the prologue's length.
fn check_code_offsets(record: &[u8], codes: u8, prologue: u8) -> Result<()> {
    ensure!(record.len() >= 4 + usize::from(codes) * 2, "the unwind codes are cut off");
    let first = record.get(4).copied().unwrap_or_default();
    ensure!(codes == 0 || first <= prologue, "an unwind code is for {first:#x}, after the prologue");
    Ok(())
}

/// Whether a range of relative addresses lies in one executable section.
fn is_code(sections: &[Section], begin: u32, end: u32) -> bool {
    sections
        .iter()
        .any(|section| section.flags & pe::IMAGE_SCN_MEM_EXECUTE != 0 && section.start <= begin && end <= section.end)
}

fn read_u32(image: &Image, address: u32) -> Result<u32> {
    let bytes = image.at(address)?;
    let word = bytes.first_chunk::<4>().with_context(|| format!("{address:#x} is cut off"))?;
    Ok(u32::from_le_bytes(*word))
}
