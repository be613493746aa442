//! Driver images: checking, mapping, relocating, binding, and finding them again by address.
//!
//! Loading goes through three stages, each in its own file: `pe` checks the file and says what is in it, `map` lays it out in
//! memory, `gate` makes the thunks that imports are bound to. `registry` finds images by address for the fault handler and
//! the unwinder, `symbols` names addresses.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use crate::ddi::Export;
use crate::machine::Driver;
use crate::nt::arena::{Access, pages_for};

mod gate;
pub(crate) mod imports;
mod known;
pub(crate) mod late;
mod map;
pub(crate) mod pe;
pub(crate) mod registry;
mod report;
mod symbols;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use gate::Thunks;
pub use imports::ImportKind;
use imports::{Bound, Resolver};
use map::Mapping;
use pe::{PeFacts, RuntimeFunction, Section};
pub(crate) use registry::{find, generation, is_driver_address};
pub use report::{ImageReport, ImportReport, SectionReport};
use symbols::Symbols;

/// Why a driver file was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The file could not be read.
    #[error("cannot read the file: {0}")]
    Io(#[from] std::io::Error),
    /// The headers contradict themselves or the file.
    #[error("the image is malformed: {0}")]
    Malformed(String),
    /// Well-formed, but nothing this host can run.
    #[error("the image cannot be loaded: {0}")]
    Unsupported(&'static str),
    /// A section is writable and executable: refused, as by memory integrity (HVCI).
    #[error("section {0} is writable and executable")]
    WritableCode(String),
    /// Imports by ordinal have no meaning for kernel exports.
    #[error("it imports ordinal {ordinal} of {module}; kernel exports have names")]
    ImportByOrdinal {
        /// Exporting image.
        module: String,
        /// The ordinal.
        ordinal: u16,
    },
    /// Names that no export has.
    #[error("nothing exports: {}", .0.join(", "))]
    MissingImports(Vec<String>),
}

/// One import of one driver: what the import gate leaves behind as proof of who called what.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Binding {
    /// The function that serves the call.
    pub(crate) target: *const (),
    /// The calling driver.
    pub(crate) driver: Weak<Driver>,
    /// The export.
    pub(crate) export: &'static Export,
    /// How often the driver has called it so far; the gate counts.
    pub(crate) calls: AtomicU64,
}

// SAFETY: `target` is the address of a function of this process and never changes.
unsafe impl Send for Binding {}
// SAFETY: as above; all other fields are read only, but for the counter, which is atomic.
unsafe impl Sync for Binding {}

impl Binding {
    pub(crate) fn new(target: *const (), driver: Weak<Driver>, export: &'static Export) -> Self {
        Self { target, driver, export, calls: AtomicU64::new(0) }
    }
}

/// A driver image in memory. Dropping it gives its address range back; [`Image::unload`] only takes the memory away.
#[derive(Debug)]
pub(crate) struct Image {
    module: Arc<Module>,
    mapping: Mapping,
    /// Kept for as long as driver code may call through them.
    thunks: Thunks,
    exports: Vec<(String, u32)>,
    forwarders: Vec<(String, String, String)>,
    entry: u32,
}

/// What the rest of the host knows of an image: enough to unwind through it and to name its addresses.
#[derive(Debug)]
pub(crate) struct Module {
    name: String,
    base: usize,
    size: usize,
    functions: Vec<RuntimeFunction>,
    functions_offset: u32,
    unloaded: AtomicBool,
    sections: Vec<Section>,
    /// Whether the discardable ones of them are gone.
    discarded: AtomicBool,
    /// Where the file is, for the symbols beside it.
    path: PathBuf,
    pdb: Option<String>,
    symbols: OnceLock<Symbols>,
}

impl Image {
    /// Loads the driver file at `path`; its calls will be those of `driver`.
    pub(crate) fn load(path: &Path, resolver: &Resolver<'_>, driver: &Weak<Driver>) -> Result<Self, LoadError> {
        let file = std::fs::read(path)?;
        let facts = PeFacts::parse(&file)?;
        let bound = resolver.bind(&facts.imports)?;
        let mut bindings = Vec::new();
        for import in &bound {
            if let Bound::Gate(target, export) = *import {
                bindings.push(Binding::new(target, Weak::clone(driver), export));
            }
        }
        let thunks = Thunks::new(bindings.into_boxed_slice()).map_err(std::io::Error::from)?;
        let mut next_thunk = 0;
        let slots = facts.imports.iter().zip(&bound).map(|(import, bound)| match bound {
            Bound::Address(address) => (import.slot, *address),
            Bound::Gate(..) => {
                next_thunk += 1;
                (import.slot, thunks.address(next_thunk - 1))
            }
        });
        let mapping = Mapping::new(&file, &facts, slots)?;
        let module = Arc::new(Module {
            name: path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            base: mapping.base(),
            size: facts.image_size as usize,
            functions: facts.functions,
            functions_offset: facts.functions_offset,
            unloaded: AtomicBool::new(false),
            sections: facts.sections,
            discarded: AtomicBool::new(false),
            path: path.to_owned(),
            pdb: facts.pdb,
            symbols: OnceLock::new(),
        });
        registry::add(Arc::clone(&module));
        Ok(Self { module, mapping, thunks, exports: facts.exports, forwarders: facts.forwarders, entry: facts.entry })
    }

    /// Address, pages and access of each section that may be paged out.
    pub(crate) fn pageable_sections(&self) -> impl Iterator<Item = (usize, usize, Access)> {
        self.module.sections.iter().filter(|section| section.is_pageable()).map(|section| {
            let access = match (section.executable, section.writable) {
                (true, _) => Access::ReadExecute,
                (false, true) => Access::ReadWrite,
                (false, false) => Access::Read,
            };
            (self.module.base + section.offset as usize, pages_for(section.size as usize), access)
        })
    }

    /// `DriverEntry` has returned: what is only for it goes away.
    pub(crate) fn discard_initialisation(&self) {
        self.module.discarded.store(true, Ordering::Release);
        for section in self.module.sections.iter().filter(|section| section.discardable) {
            self.mapping.hide(section.offset as usize, section.size as usize);
        }
    }

    /// Address of the entry point.
    pub(crate) fn entry(&self) -> usize {
        self.module.base + self.entry as usize
    }

    /// How often the image has called an import of this name.
    pub(crate) fn calls(&self, export: &str) -> u64 {
        self.thunks.calls(export)
    }

    pub(crate) fn module(&self) -> &Arc<Module> {
        &self.module
    }

    /// Address of an exported name.
    pub(crate) fn export(&self, name: &str) -> Option<usize> {
        let (_, offset) = self.exports.iter().find(|(export, _)| export == name)?;
        Some(self.module.base + *offset as usize)
    }

    /// The module and name that an exported name stands for, if it is forwarded.
    pub(crate) fn forwarder(&self, name: &str) -> Option<(&str, &str)> {
        let found = self.forwarders.iter().find(|(export, ..)| export == name);
        found.map(|(_, module, target)| (module.as_str(), target.as_str()))
    }

    /// Makes the memory inaccessible. The range stays reserved and known, so that a late call into it is caught and
    /// attributed instead of hitting whatever came next.
    pub(crate) fn unload(&self) {
        self.module.unloaded.store(true, Ordering::Release);
        self.mapping.close();
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        registry::remove(self.module.base);
    }
}

impl Module {
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn base(&self) -> usize {
        self.base
    }

    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// The section that held `address` until `DriverEntry` had returned.
    pub(crate) fn discarded_section(&self, address: usize) -> Option<&str> {
        let offset = address.wrapping_sub(self.base);
        let holds = |section: &&Section| {
            section.discardable && offset.wrapping_sub(section.offset as usize) < section.size as usize
        };
        let gone = self.discarded.load(Ordering::Acquire).then(|| self.sections.iter().find(holds))?;
        gone.map(|section| section.name.trim_end_matches('\0'))
    }

    pub(crate) fn is_unloaded(&self) -> bool {
        self.unloaded.load(Ordering::Acquire)
    }

    /// The `.pdata` entry that covers an offset, and its own offset in the image.
    pub(crate) fn function_at(&self, offset: u32) -> Option<(RuntimeFunction, u32)> {
        let index = self.functions.partition_point(|function| function.end <= offset);
        let function = *self.functions.get(index)?;
        (function.begin <= offset).then(|| (function, self.functions_offset + 12 * index as u32))
    }

    /// Names an address in the image: `image!symbol+0xoffset`, or `image+0xoffset` without symbols.
    pub(crate) fn name_address(&self, address: usize) -> String {
        let offset = (address - self.base) as u32;
        let symbols = self.symbols.get_or_init(|| Symbols::beside(&self.path, self.pdb.as_deref()));
        let stem = self.name.strip_suffix(".sys").unwrap_or(&self.name);
        match symbols.name(offset) {
            Some((symbol, past)) => format!("{stem}!{symbol}+{past:#x}"),
            None => format!("{stem}+{offset:#x}"),
        }
    }
}
