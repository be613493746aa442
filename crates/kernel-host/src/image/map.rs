//! Lays a checked image out in memory.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use rustix::mm::{Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap_anonymous, mprotect, munmap};

use super::LoadError;
use super::gate::{cfg_check, cfg_dispatch};
use super::pe::PeFacts;

/// The memory of one image.
#[derive(Debug)]
pub(super) struct Mapping {
    base: usize,
    size: usize,
}

/// Fields of `IMAGE_LOAD_CONFIG_DIRECTORY64` that a kernel loader fills in.
const SECURITY_COOKIE: u32 = 0x58;
const CFG_CHECK: u32 = 0x70;
const CFG_DISPATCH: u32 = 0x78;

impl Mapping {
    /// Maps the image at an address of Linux's choice, relocates it, fills the import slots and sets each section's
    /// protection.
    pub(super) fn new(
        file: &[u8],
        facts: &PeFacts,
        slots: impl Iterator<Item = (u32, u64)>,
    ) -> Result<Self, LoadError> {
        let size = facts.image_size as usize;
        // SAFETY: a new anonymous mapping disturbs nothing.
        let base = unsafe {
            mmap_anonymous(std::ptr::null_mut(), size, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE)
        }
        .map_err(std::io::Error::from)?;
        let mapping = Self { base: base as usize, size };
        // SAFETY: `size` bytes, zeroed, known to nobody else until this function returns.
        let memory = unsafe { std::slice::from_raw_parts_mut(base.cast::<u8>(), size) };
        mapping.fill(memory, file, facts)?;
        for (slot, address) in slots {
            put(memory, slot, address)?;
        }
        mapping.protect(facts)?;
        Ok(mapping)
    }

    pub(super) fn base(&self) -> usize {
        self.base
    }

    /// Takes the memory away and keeps the address range.
    pub(super) fn close(&self) {
        let base = self.base as *mut _;
        // SAFETY: the driver is unloaded; if its code or data is used all the same, that faults, as it should.
        let result = unsafe { mprotect(base, self.size, MprotectFlags::empty()) };
        debug_assert!(result.is_ok(), "an image could not be made inaccessible");
        // SAFETY: nothing can read the contents any more.
        let result = unsafe { madvise(base, self.size, Advice::LinuxDontNeed) };
        debug_assert!(result.is_ok(), "an image's memory could not be given back");
    }

    /// Makes a part of the image inaccessible for good.
    pub(super) fn hide(&self, offset: usize, length: usize) {
        let result = self.protect_range(offset, length, MprotectFlags::empty());
        debug_assert!(result.is_ok(), "a section could not be made inaccessible");
    }

    fn fill(&self, memory: &mut [u8], file: &[u8], facts: &PeFacts) -> Result<(), LoadError> {
        copy(memory, 0, file.get(..facts.headers_size as usize))?;
        for section in &facts.sections {
            copy(memory, section.offset as usize, file.get(section.file.clone()))?;
        }
        let delta = (self.base as u64).wrapping_sub(facts.preferred_base);
        for &offset in &facts.relocations {
            let value = get(memory, offset)?;
            put(memory, offset, value.wrapping_add(delta))?;
        }
        if let Some((offset, size)) = facts.load_config {
            self.fill_load_config(memory, offset, size)?;
        }
        Ok(())
    }

    /// Sets what the load configuration points at: a fresh stack cookie, and control-flow-guard routines that let all pass.
    fn fill_load_config(&self, memory: &mut [u8], offset: u32, size: u32) -> Result<(), LoadError> {
        // The low word of a cookie is never all zero, and the high word always is.
        let cookie = (RandomState::new().build_hasher().finish() & 0xFFFF_FFFF_FFFF) | 0x1;
        for (field, value) in [(SECURITY_COOKIE, cookie), (CFG_CHECK, cfg_check()), (CFG_DISPATCH, cfg_dispatch())] {
            if field + 8 > size {
                break;
            }
            let target = get(memory, offset + field)?;
            if target == 0 {
                continue;
            }
            let target = target.wrapping_sub(self.base as u64);
            let target = u32::try_from(target).map_err(|_| outside())?;
            put(memory, target, value)?;
        }
        Ok(())
    }

    fn protect(&self, facts: &PeFacts) -> Result<(), LoadError> {
        // Headers, and any gap between sections, end up readable and no more.
        self.protect_range(0, self.size, MprotectFlags::READ)?;
        for section in &facts.sections {
            let mut flags = MprotectFlags::READ;
            flags.set(MprotectFlags::WRITE, section.writable);
            flags.set(MprotectFlags::EXEC, section.executable);
            self.protect_range(section.offset as usize, section.size as usize, flags)?;
        }
        Ok(())
    }

    fn protect_range(&self, offset: usize, length: usize, flags: MprotectFlags) -> Result<(), LoadError> {
        let start = (self.base + offset) as *mut _;
        // SAFETY: the range lies in our mapping (checked when the file was parsed), and no reference into it is alive.
        unsafe { mprotect(start, length.next_multiple_of(4096), flags) }.map_err(std::io::Error::from)?;
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: our own mapping; its owner is gone.
        let result = unsafe { munmap(self.base as *mut _, self.size) };
        debug_assert!(result.is_ok(), "an image could not be unmapped");
    }
}

fn outside() -> LoadError {
    LoadError::Malformed("a pointer in the image leads out of it".to_owned())
}

fn copy(memory: &mut [u8], at: usize, bytes: Option<&[u8]>) -> Result<(), LoadError> {
    let bytes = bytes.ok_or_else(outside)?;
    memory.get_mut(at..at + bytes.len()).ok_or_else(outside)?.copy_from_slice(bytes);
    Ok(())
}

fn get(memory: &[u8], offset: u32) -> Result<u64, LoadError> {
    let bytes = memory.get(offset as usize..).and_then(<[u8]>::first_chunk::<8>);
    bytes.map(|bytes| u64::from_le_bytes(*bytes)).ok_or_else(outside)
}

fn put(memory: &mut [u8], offset: u32, value: u64) -> Result<(), LoadError> {
    let bytes = memory.get_mut(offset as usize..).and_then(<[u8]>::first_chunk_mut::<8>);
    *bytes.ok_or_else(outside)? = value.to_le_bytes();
    Ok(())
}
