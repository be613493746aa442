//! What there is to know about a driver file before it runs.

use std::path::Path;

use object::pe::{IMAGE_DLLCHARACTERISTICS_DYNAMIC_BASE, IMAGE_DLLCHARACTERISTICS_FORCE_INTEGRITY};
use object::pe::{IMAGE_DLLCHARACTERISTICS_NX_COMPAT, IMAGE_SUBSYSTEM_NATIVE};

use super::LoadError;
use super::imports::{ImportKind, kind};
use super::pe::PeFacts;

/// Facts about a driver file that this host could load.
#[derive(Clone, Debug, serde::Serialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is one flag of the header, reported by its name")]
pub struct ImageReport {
    /// Bytes of the mapped image.
    pub image_size: u32,
    /// Offset of the entry point.
    pub entry: u32,
    /// Whether the subsystem is native, as the Windows kernel's loader wants it.
    pub native: bool,
    /// `DYNAMIC_BASE`.
    pub dynamic_base: bool,
    /// `NX_COMPAT`.
    pub nx_compatible: bool,
    /// `FORCE_INTEGRITY`: the loader insists on a signature.
    pub force_integrity: bool,
    /// Sections in the order of their addresses.
    pub sections: Vec<SectionReport>,
    /// Number of entries in `.pdata`.
    pub functions: usize,
    /// Number of addresses that are relocated.
    pub relocations: usize,
    /// Name of the `.pdb` that the linker noted.
    pub pdb: Option<String>,
    /// Exported names.
    pub exports: Vec<String>,
    /// Imports, in the order of the import table.
    pub imports: Vec<ImportReport>,
}

/// One section of a driver file.
#[derive(Clone, Debug, serde::Serialize)]
pub struct SectionReport {
    /// Name, such as `.text`.
    pub name: String,
    /// Offset in the image.
    pub offset: u32,
    /// Bytes.
    pub size: u32,
    /// Whether it is writable.
    pub writable: bool,
    /// Whether it is executable.
    pub executable: bool,
}

/// One import of a driver file.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ImportReport {
    /// Exporting image.
    pub module: String,
    /// Name.
    pub name: String,
    /// How well this host serves it.
    pub kind: ImportKind,
}

impl ImageReport {
    /// Reads a driver file.
    ///
    /// # Errors
    /// The reasons for which loading would refuse the file, except for names that nothing exports.
    pub fn of_file(path: &Path) -> Result<Self, LoadError> {
        let facts = PeFacts::parse(&std::fs::read(path)?)?;
        let has = |flag| facts.characteristics & flag != 0;
        Ok(Self {
            image_size: facts.image_size,
            entry: facts.entry,
            native: facts.subsystem == IMAGE_SUBSYSTEM_NATIVE,
            dynamic_base: has(IMAGE_DLLCHARACTERISTICS_DYNAMIC_BASE),
            nx_compatible: has(IMAGE_DLLCHARACTERISTICS_NX_COMPAT),
            force_integrity: has(IMAGE_DLLCHARACTERISTICS_FORCE_INTEGRITY),
            functions: facts.functions.len(),
            relocations: facts.relocations.len(),
            sections: facts
                .sections
                .into_iter()
                .map(|section| SectionReport {
                    name: section.name.trim_end_matches('\0').to_owned(),
                    offset: section.offset,
                    size: section.size,
                    writable: section.writable,
                    executable: section.executable,
                })
                .collect(),
            pdb: facts.pdb,
            exports: facts.exports.into_iter().map(|(name, _)| name).collect(),
            imports: facts
                .imports
                .into_iter()
                .map(|import| ImportReport {
                    kind: kind(&import.module, &import.name),
                    module: import.module,
                    name: import.name,
                })
                .collect(),
        })
    }

    /// Imports of one kind.
    pub fn imports_of(&self, kind: ImportKind) -> impl Iterator<Item = &ImportReport> {
        self.imports.iter().filter(move |import| import.kind == kind)
    }
}
