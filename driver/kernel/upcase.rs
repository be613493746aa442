//! The system's upper-case table, at any IRQL.
//!
//! RtlUpcaseUnicodeChar needs PASSIVE_LEVEL, but the broker compares names under its locks, at
//! DISPATCH_LEVEL. So every name that gets near the broker goes through [`prepare`] first, which copies the part of the
//! system's table that the name needs; [`upcase`] reads the copy. Firmware names hardly ever need more than one block.

use super::heap;
use broker::Error;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};
use fltmgr::Passive;
use wdk_sys::ntddk::RtlUpcaseUnicodeChar;

/// 256 consecutive units.
type Block = [u16; 256];

/// One pointer per high byte of a unit; NULL until some name had a unit of that block.
static BLOCKS: [AtomicPtr<Block>; 256] = [const { AtomicPtr::new(ptr::null_mut()) }; 256];

/// The upper-case form of a unit of a prepared name; other units may come back as they are.
pub(crate) fn upcase(unit: u16) -> u16 {
    let [high, low] = unit.to_be_bytes();
    let Some(block) = BLOCKS.get(usize::from(high)) else { return unit };
    // SAFETY: blocks are published complete and stay until `free`, after which no name is compared.
    let block = unsafe { block.load(Ordering::Acquire).as_ref() };
    block.and_then(|block| block.get(usize::from(low))).copied().unwrap_or(unit)
}

/// Makes sure that [`upcase`] knows every unit of `name`.
///
/// [`Error::OutOfMemory`] (`STATUS_INSUFFICIENT_RESOURCES`).
pub(crate) fn prepare(name: &[u16], passive: Passive) -> Result<(), Error> {
    for unit in name {
        let [high, _] = unit.to_be_bytes();
        if let Some(cell) = BLOCKS.get(usize::from(high))
            && cell.load(Ordering::Acquire).is_null()
        {
            publish(cell, high, passive)?;
        }
    }
    Ok(())
}

/// Frees the copies. Called when nothing runs any more: at the end of an unload, or in a DriverEntry that fails.
pub(crate) fn free() {
    for cell in &BLOCKS {
        let block = cell.swap(ptr::null_mut(), Ordering::AcqRel);
        // SAFETY: made by `publish`, taken out, and no name is compared any more.
        unsafe { heap::free(block) };
    }
}

fn publish(cell: &AtomicPtr<Block>, high: u8, _passive: Passive) -> Result<(), Error> {
    // Filled where it stays: half a kilobyte is too much for a kernel stack.
    let block = heap::zeroed_box::<Block>()?;
    // SAFETY: just made, and not known to anybody else (rule: zeroed_box).
    let units = unsafe { &mut *block };
    for (low, upper) in (0_u8..=u8::MAX).zip(units) {
        // SAFETY: PASSIVE_LEVEL; any unit is a valid argument (rule: RtlUpcaseUnicodeChar).
        *upper = unsafe { RtlUpcaseUnicodeChar(u16::from_be_bytes([high, low])) };
    }
    // Somebody else may have been faster; theirs is as good.
    if cell.compare_exchange(ptr::null_mut(), block, Ordering::AcqRel, Ordering::Acquire).is_err() {
        // SAFETY: made above, and not published.
        unsafe { heap::free(block) };
    }
    Ok(())
}
