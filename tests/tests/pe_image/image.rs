//! A .sys file and the parts of it that the checks look at.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail, ensure};
use object::LittleEndian as LE;
use object::pe::{self, ImageDosHeader, ImageNtHeaders64, ImageOptionalHeader64};
use object::read::pe::{
    DataDirectories, ImageNtHeaders, ImageOptionalHeader, Import, ImportTable, PeFile64, SectionTable,
};

use fwbroker_tests::drivers::driver_dir;

/// One driver.
pub(crate) struct Image {
    /// Where it was found.
    pub(crate) path: PathBuf,
    /// The file.
    pub(crate) bytes: Vec<u8>,
}

/// One section header.
pub(crate) struct Section {
    /// Name, such as `.text`.
    pub(crate) name: String,
    /// Address relative to the image base.
    pub(crate) start: u32,
    /// End of the section in memory, exclusive.
    pub(crate) end: u32,
    /// `IMAGE_SCN_*` flags.
    pub(crate) flags: u32,
}

/// All drivers of the release build.
pub(crate) fn load_all() -> Result<Vec<Image>> {
    let mut images = Vec::new();
    for entry in fs::read_dir(driver_dir()?)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "sys") {
            let bytes = fs::read(&path).with_context(|| path.display().to_string())?;
            images.push(Image { path, bytes });
        }
    }
    ensure!(images.len() >= 2, "both drivers, at least");
    Ok(images)
}

impl Image {
    /// File name without the extension.
    pub(crate) fn name(&self) -> String {
        self.path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }

    fn parse(&self) -> Result<PeFile64<'_>> {
        PeFile64::parse(&*self.bytes).context("not a PE32+ image")
    }

    fn headers(&self) -> Result<(&ImageNtHeaders64, DataDirectories<'_>)> {
        let mut offset = ImageDosHeader::parse(&*self.bytes)?.nt_headers_offset().into();
        ImageNtHeaders64::parse(&*self.bytes, &mut offset).context("not a PE32+ image")
    }

    /// `IMAGE_FILE_MACHINE_*`.
    pub(crate) fn machine(&self) -> Result<u16> {
        Ok(self.headers()?.0.file_header.machine.get(LE))
    }

    /// `IMAGE_FILE_*` flags of the file header.
    pub(crate) fn characteristics(&self) -> Result<u16> {
        Ok(self.headers()?.0.file_header.characteristics.get(LE))
    }

    /// The optional header, which no image is without.
    pub(crate) fn optional_header(&self) -> Result<&ImageOptionalHeader64> {
        Ok(&self.headers()?.0.optional_header)
    }

    /// Relative address of `DriverEntry`.
    pub(crate) fn entry_point(&self) -> Result<u32> {
        Ok(self.optional_header()?.address_of_entry_point())
    }

    /// File offset of the checksum field: 64 bytes into the optional header, which follows the signature (4 bytes) and
    /// the file header (20 bytes).
    pub(crate) fn checksum_offset(&self) -> Result<usize> {
        let headers = ImageDosHeader::parse(&*self.bytes)?.nt_headers_offset();
        Ok(usize::try_from(headers)? + 4 + 20 + 64)
    }

    fn section_table(&self) -> Result<SectionTable<'_>> {
        Ok(self.parse()?.section_table())
    }

    /// Headers of all sections, in address order.
    pub(crate) fn sections(&self) -> Result<Vec<Section>> {
        let table = self.section_table()?;
        let read = |header: &pe::ImageSectionHeader| Section {
            name: String::from_utf8_lossy(header.raw_name()).into_owned(),
            start: header.virtual_address.get(LE),
            end: header.virtual_address.get(LE) + header.virtual_size.get(LE),
            flags: header.characteristics.get(LE),
        };
        Ok(table.iter().map(read).collect())
    }

    /// Bytes of the image from a relative address to the end of its section's data in the file.
    pub(crate) fn at(&self, address: u32) -> Result<&[u8]> {
        let table = self.section_table()?;
        let data = table.pe_data_at(&*self.bytes, address);
        data.with_context(|| format!("{address:#x} is in no section"))
    }

    /// Address and length of a data directory; `None` where the image has none.
    pub(crate) fn directory(&self, index: usize) -> Result<Option<(u32, u32)>> {
        let (_, directories) = self.headers()?;
        Ok(directories.get(index).map(|entry| (entry.virtual_address.get(LE), entry.size.get(LE))))
    }

    /// Every import as module, in lower case as the loader compares it, and routine.
    pub(crate) fn imports(&self) -> Result<Vec<(String, String)>> {
        let file = self.parse()?;
        let table: ImportTable<'_> = file.import_table()?.context("no import table")?;
        let mut found = Vec::new();
        let mut descriptors = table.descriptors()?;
        while let Some(descriptor) = descriptors.next()? {
            let module = String::from_utf8_lossy(table.name(descriptor.name.get(LE))?).to_lowercase();
            let mut thunks = table.thunks(descriptor.original_first_thunk.get(LE))?;
            while let Some(thunk) = thunks.next::<ImageNtHeaders64>()? {
                match table.import::<ImageNtHeaders64>(thunk)? {
                    Import::Name(_, routine) => {
                        found.push((module.clone(), String::from_utf8_lossy(routine).into_owned()));
                    }
                    Import::Ordinal(ordinal) => bail!("imports {module} by ordinal {ordinal}"),
                }
            }
        }
        Ok(found)
    }

    /// GUID and file name of the .pdb that the image was linked with.
    pub(crate) fn debug_identity(&self) -> Result<([u8; 16], String)> {
        let file = self.parse()?;
        let info = object::Object::pdb_info(&file)?.context("no CodeView entry in the debug directory")?;
        Ok((info.guid(), String::from_utf8_lossy(info.path()).into_owned()))
    }
}
