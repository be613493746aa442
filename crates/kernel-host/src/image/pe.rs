//! Reads a `.sys` file and says no early: everything later code relies on is checked here, once.

use object::LittleEndian as LE;
use object::Object as _;
use object::pe;
use object::read::pe::{ExportTarget, ImageNtHeaders as _, ImageThunkData as _, PeFile64};

use super::LoadError;

/// Largest image accepted, in bytes. Real drivers stay far below; a hostile header must not reserve the address space.
const LARGEST: u32 = 256 << 20;
/// Images are mapped page by page.
const PAGE: u32 = 4096;

/// What a loader has to know about a driver file. All ranges lie within the image, and file ranges within the file.
#[derive(Debug)]
pub(crate) struct PeFacts {
    /// Preferred address.
    pub(crate) preferred_base: u64,
    /// Bytes of the mapped image: a multiple of the page size.
    pub(crate) image_size: u32,
    /// Bytes of the headers.
    pub(crate) headers_size: u32,
    /// Entry point.
    pub(crate) entry: u32,
    pub(crate) sections: Vec<Section>,
    pub(crate) imports: Vec<Import>,
    /// Exported functions and variables: name and offset in the image.
    pub(crate) exports: Vec<(String, u32)>,
    /// Exported names that stand for another image's: own name, module (with extension) and name there.
    pub(crate) forwarders: Vec<(String, String, String)>,
    /// Offsets of the 64-bit addresses to relocate.
    pub(crate) relocations: Vec<u32>,
    /// `.pdata`, sorted by address.
    pub(crate) functions: Vec<RuntimeFunction>,
    /// Offset of the exception directory.
    pub(crate) functions_offset: u32,
    /// Offset and size of the load configuration.
    pub(crate) load_config: Option<(u32, u32)>,
    /// File name of the .pdb that the linker noted.
    pub(crate) pdb: Option<String>,
    /// `DllCharacteristics` of the optional header.
    pub(crate) characteristics: u16,
    /// `Subsystem` of the optional header.
    pub(crate) subsystem: u16,
}

/// One section.
#[derive(Debug)]
pub(crate) struct Section {
    pub(crate) name: String,
    pub(crate) offset: u32,
    /// Bytes in memory, before rounding up to pages.
    pub(crate) size: u32,
    /// Range of the file that initialises it; not longer than `size`.
    pub(crate) file: std::ops::Range<usize>,
    pub(crate) writable: bool,
    pub(crate) executable: bool,
    /// Goes away when `DriverEntry` has returned.
    pub(crate) discardable: bool,
}

impl Section {
    /// Whether Windows may page the section out: those whose names begin with `PAGE`.
    pub(crate) fn is_pageable(&self) -> bool {
        self.name.starts_with("PAGE")
    }
}

/// One import slot.
#[derive(Debug)]
pub(crate) struct Import {
    /// Exporting image, as the table spells it.
    pub(crate) module: String,
    pub(crate) name: String,
    /// Offset of the slot in the image.
    pub(crate) slot: u32,
}

/// `RUNTIME_FUNCTION`: one entry of `.pdata`. Offsets in the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RuntimeFunction {
    pub(crate) begin: u32,
    pub(crate) end: u32,
    pub(crate) unwind: u32,
}

fn malformed(what: &str) -> LoadError {
    LoadError::Malformed(what.to_owned())
}

impl From<object::Error> for LoadError {
    fn from(error: object::Error) -> Self {
        Self::Malformed(error.to_string())
    }
}

impl PeFacts {
    /// Checks a file and extracts what loading needs.
    pub(crate) fn parse(file: &[u8]) -> Result<Self, LoadError> {
        match object::FileKind::parse(file)? {
            object::FileKind::Pe64 => {}
            object::FileKind::Pe32 => return Err(LoadError::Unsupported("it is a 32-bit image")),
            _ => return Err(LoadError::Unsupported("it is not a PE image")),
        }
        let image = PeFile64::parse(file)?;
        match image.nt_headers().file_header().machine.get(LE) {
            pe::IMAGE_FILE_MACHINE_AMD64 => {}
            pe::IMAGE_FILE_MACHINE_ARM64 => {
                return Err(LoadError::Unsupported("it is built for ARM64, this host runs x64"));
            }
            _ => return Err(LoadError::Unsupported("it is not built for x64")),
        }
        refuse_directories(&image)?;
        let header = &image.nt_headers().optional_header;
        let image_size = header.size_of_image.get(LE);
        if image_size == 0 || image_size > LARGEST || !image_size.is_multiple_of(PAGE) {
            return Err(malformed("SizeOfImage is zero, too large or not a multiple of the page size"));
        }
        let headers_size = header.size_of_headers.get(LE);
        if headers_size as usize > file.len() || headers_size > image_size {
            return Err(malformed("SizeOfHeaders is larger than the file or the image"));
        }
        let mut facts = Self {
            preferred_base: header.image_base.get(LE),
            image_size,
            headers_size,
            entry: header.address_of_entry_point.get(LE),
            sections: sections(&image, file, headers_size, image_size)?,
            imports: imports(&image, image_size)?,
            exports: exports(&image, image_size)?,
            forwarders: forwarders(&image)?,
            relocations: Vec::new(),
            functions: Vec::new(),
            functions_offset: 0,
            load_config: directory(&image, pe::IMAGE_DIRECTORY_ENTRY_LOAD_CONFIG, image_size)?,
            pdb: pdb_name(&image),
            characteristics: header.dll_characteristics.get(LE),
            subsystem: header.subsystem.get(LE),
        };
        let entry_section = facts.section_at(facts.entry, 1);
        if !entry_section.is_some_and(|section| section.executable) {
            return Err(malformed("the entry point is not in an executable section"));
        }
        facts.relocations = facts.relocations(&image, file)?;
        let stripped = image.nt_headers().file_header().characteristics.get(LE) & pe::IMAGE_FILE_RELOCS_STRIPPED != 0;
        if stripped && facts.relocations.is_empty() {
            // Two drivers could want the same address, and Windows chooses none of them.
            return Err(LoadError::Unsupported(
                "its relocations are stripped, and drivers are never loaded at their preferred address (MinGW's linker \
                 needs --dynamicbase)",
            ));
        }
        if let Some((offset, size)) = directory(&image, pe::IMAGE_DIRECTORY_ENTRY_EXCEPTION, image_size)? {
            facts.functions_offset = offset;
            facts.functions = facts.functions(file, offset, size)?;
        }
        Ok(facts)
    }

    /// The section that holds all of `length` bytes at `offset`.
    pub(crate) fn section_at(&self, offset: u32, length: u32) -> Option<&Section> {
        self.sections.iter().find(|section| {
            let mapped = section.size.next_multiple_of(PAGE);
            offset >= section.offset && u64::from(offset) + u64::from(length) <= u64::from(section.offset + mapped)
        })
    }

    fn relocations(&self, image: &PeFile64<'_>, file: &[u8]) -> Result<Vec<u32>, LoadError> {
        let mut offsets = Vec::new();
        let Some(mut blocks) = image.data_directories().relocation_blocks(file, &image.section_table())? else {
            return Ok(offsets);
        };
        while let Some(block) = blocks.next()? {
            for relocation in block {
                match relocation.typ {
                    pe::IMAGE_REL_BASED_ABSOLUTE => {}
                    pe::IMAGE_REL_BASED_DIR64 => {
                        if self.section_at(relocation.virtual_address, 8).is_none() {
                            return Err(malformed("a relocation lies outside of the sections"));
                        }
                        offsets.push(relocation.virtual_address);
                    }
                    _ => return Err(malformed("a relocation has a type that x64 images do not use")),
                }
            }
        }
        Ok(offsets)
    }

    fn functions(&self, file: &[u8], offset: u32, size: u32) -> Result<Vec<RuntimeFunction>, LoadError> {
        let section = self.section_at(offset, size).ok_or_else(|| malformed(".pdata lies outside of the sections"))?;
        let start = section.file.start + (offset - section.offset) as usize;
        let bytes = file
            .get(start..start + size as usize)
            .filter(|_| start + size as usize <= section.file.end && size.is_multiple_of(12))
            .ok_or_else(|| malformed(".pdata is cut short"))?;
        let word =
            |bytes: &[u8], at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let functions: Vec<_> = bytes
            .chunks_exact(12)
            .map(|entry| RuntimeFunction { begin: word(entry, 0), end: word(entry, 4), unwind: word(entry, 8) })
            .collect();
        let in_image = |function: &RuntimeFunction| {
            function.begin < function.end && function.end <= self.image_size && function.unwind < self.image_size
        };
        if !functions.iter().all(in_image) || !functions.is_sorted_by(|a, b| a.end <= b.begin) {
            return Err(malformed(".pdata is not sorted, or names addresses outside of the image"));
        }
        Ok(functions)
    }
}

/// Directories that kernel images do not have, or that no loader of drivers supports.
fn refuse_directories(image: &PeFile64<'_>) -> Result<(), LoadError> {
    let refused = [
        (pe::IMAGE_DIRECTORY_ENTRY_TLS, "it has thread-local storage, which the kernel does not provide"),
        (pe::IMAGE_DIRECTORY_ENTRY_DELAY_IMPORT, "it has delay-loaded imports"),
        (pe::IMAGE_DIRECTORY_ENTRY_COM_DESCRIPTOR, "it is a .NET image"),
    ];
    for (index, why) in refused {
        if image.data_directories().get(index).is_some_and(|directory| directory.virtual_address.get(LE) != 0) {
            return Err(LoadError::Unsupported(why));
        }
    }
    Ok(())
}

/// A data directory's offset and size, if it is there; checked to lie in the image.
fn directory(image: &PeFile64<'_>, index: usize, image_size: u32) -> Result<Option<(u32, u32)>, LoadError> {
    let Some(directory) = image.data_directories().get(index) else {
        return Ok(None);
    };
    let (offset, size) = (directory.virtual_address.get(LE), directory.size.get(LE));
    if offset == 0 || size == 0 {
        return Ok(None);
    }
    if u64::from(offset) + u64::from(size) > u64::from(image_size) {
        return Err(malformed("a data directory lies outside of the image"));
    }
    Ok(Some((offset, size)))
}

fn sections(image: &PeFile64<'_>, file: &[u8], headers_size: u32, image_size: u32) -> Result<Vec<Section>, LoadError> {
    let mut free = u64::from(headers_size.next_multiple_of(PAGE));
    let mut sections = Vec::new();
    for header in image.section_table().iter() {
        let offset = header.virtual_address.get(LE);
        let raw_size = header.size_of_raw_data.get(LE);
        let size = match header.virtual_size.get(LE) {
            0 => raw_size,
            size => size,
        };
        let end = u64::from(offset) + u64::from(size).next_multiple_of(u64::from(PAGE));
        if !offset.is_multiple_of(PAGE) {
            return Err(LoadError::Unsupported("its sections are not aligned to pages"));
        }
        if u64::from(offset) < free || end > u64::from(image_size) {
            return Err(malformed("sections overlap, are out of order or exceed the image"));
        }
        free = end;
        let start = header.pointer_to_raw_data.get(LE) as usize;
        let initialised = raw_size.min(size) as usize;
        let range = if initialised == 0 || start == 0 { 0..0 } else { start..start + initialised };
        if range.end > file.len() {
            return Err(malformed("a section's data lies outside of the file"));
        }
        let flags = header.characteristics.get(LE);
        let section = Section {
            name: String::from_utf8_lossy(header.raw_name()).into_owned(),
            offset,
            size,
            file: range,
            writable: flags & pe::IMAGE_SCN_MEM_WRITE != 0,
            executable: flags & pe::IMAGE_SCN_MEM_EXECUTE != 0,
            // By its name too, as `#pragma alloc_text(INIT, ...)` leaves it without a linker option (general knowledge, no page).
            discardable: flags & pe::IMAGE_SCN_MEM_DISCARDABLE != 0 || header.raw_name() == b"INIT",
        };
        if section.writable && section.executable {
            return Err(LoadError::WritableCode(section.name));
        }
        sections.push(section);
    }
    Ok(sections)
}

fn imports(image: &PeFile64<'_>, image_size: u32) -> Result<Vec<Import>, LoadError> {
    let mut imports = Vec::new();
    let Some(table) = image.import_table()? else {
        return Ok(imports);
    };
    let mut descriptors = table.descriptors()?;
    while let Some(descriptor) = descriptors.next()? {
        let module = String::from_utf8_lossy(table.name(descriptor.name.get(LE))?).into_owned();
        let mut slot = descriptor.first_thunk.get(LE);
        // Some linkers leave the name table out and keep the names in the slots.
        let names = match descriptor.original_first_thunk.get(LE) {
            0 => slot,
            names => names,
        };
        let mut thunks = table.thunks(names)?;
        while let Some(thunk) = thunks.next::<pe::ImageNtHeaders64>()? {
            if thunk.is_ordinal() {
                return Err(LoadError::ImportByOrdinal { module, ordinal: thunk.ordinal() });
            }
            let (_, name) = table.hint_name(thunk.address())?;
            // Not always a multiple of eight: lld packs the tables of GNU import libraries, and x64 does not mind.
            if u64::from(slot) + 8 > u64::from(image_size) {
                return Err(malformed("an import slot lies outside of the image"));
            }
            imports.push(Import { module: module.clone(), name: String::from_utf8_lossy(name).into_owned(), slot });
            slot += 8;
        }
    }
    Ok(imports)
}

fn exports(image: &PeFile64<'_>, image_size: u32) -> Result<Vec<(String, u32)>, LoadError> {
    let mut exports = Vec::new();
    let Some(table) = image.export_table()? else {
        return Ok(exports);
    };
    for export in table.exports()? {
        // Exports by ordinal alone are left out: drivers do not import them.
        if let (Some(name), ExportTarget::Address(offset)) = (export.name, export.target)
            && offset < image_size
        {
            exports.push((String::from_utf8_lossy(name).into_owned(), offset));
        }
    }
    Ok(exports)
}

fn forwarders(image: &PeFile64<'_>) -> Result<Vec<(String, String, String)>, LoadError> {
    let mut forwarders = Vec::new();
    let Some(table) = image.export_table()? else {
        return Ok(forwarders);
    };
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    for export in table.exports()? {
        if let (Some(name), ExportTarget::ForwardByName(module, target)) = (export.name, export.target) {
            let module = text(module);
            // The kernel is the one image whose extension is not that of drivers.
            let extension = if module.eq_ignore_ascii_case("ntoskrnl") { "exe" } else { "sys" };
            let module =
                if module.eq_ignore_ascii_case("hal") { "hal.dll".to_owned() } else { format!("{module}.{extension}") };
            forwarders.push((text(name), module, text(target)));
        }
    }
    Ok(forwarders)
}

fn pdb_name(image: &PeFile64<'_>) -> Option<String> {
    let info = image.pdb_info().ok()??;
    let path = String::from_utf8_lossy(info.path());
    path.rsplit(['\\', '/']).next().map(str::to_owned)
}
