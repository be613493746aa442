//! Names for addresses, from the `.pdb` or the linker's `.map` beside the driver, or the symbol table that MinGW leaves in it.

use std::fs;
use std::path::Path;

use object::read::pe::PeFile64;
use object::{Object as _, ObjectSymbol as _, SymbolKind};
use pdb2::FallibleIterator as _;

/// Function names by offset in the image, sorted.
#[derive(Debug, Default)]
pub(super) struct Symbols(Vec<(u32, String)>);

impl Symbols {
    /// Looks for symbols beside `image`: the `.pdb` that its linker named, one with the image's own name, or a `.map`; then in the
    /// image itself. Without any, nothing has a name.
    pub(super) fn beside(image: &Path, pdb: Option<&str>) -> Self {
        let named = pdb.map(|name| image.with_file_name(name));
        let mut found =
            [named, Some(image.with_extension("pdb"))].into_iter().flatten().find_map(|path| from_pdb(&path));
        if found.as_ref().is_none_or(Vec::is_empty) {
            found = fs::read_to_string(image.with_extension("map")).ok().map(|text| from_map(&text));
        }
        if found.as_ref().is_none_or(Vec::is_empty) {
            found = fs::read(image).ok().and_then(|bytes| from_image(&bytes));
        }
        let mut symbols = found.unwrap_or_default();
        symbols.sort();
        symbols.dedup_by_key(|(offset, _)| *offset);
        Self(symbols)
    }

    /// The symbol at or before an offset, and how far past its start the offset is.
    pub(super) fn name(&self, offset: u32) -> Option<(&str, u32)> {
        let index = self.0.partition_point(|(start, _)| *start <= offset).checked_sub(1)?;
        let (start, name) = self.0.get(index)?;
        Some((name, offset - start))
    }
}

fn from_pdb(path: &Path) -> Option<Vec<(u32, String)>> {
    read_pdb(path).ok()
}

fn read_pdb(path: &Path) -> pdb2::Result<Vec<(u32, String)>> {
    let mut pdb = pdb2::PDB::open(fs::File::open(path)?)?;
    let addresses = pdb.address_map()?;
    let mut found = Vec::new();
    let mut add = |symbol: &pdb2::Symbol<'_>| {
        // Records of kinds that the crate does not know are passed over.
        let (offset, name) = match symbol.parse() {
            Ok(pdb2::SymbolData::Public(public)) if public.function => (public.offset, public.name),
            Ok(pdb2::SymbolData::Procedure(procedure)) => (procedure.offset, procedure.name),
            _ => return,
        };
        if let Some(offset) = offset.to_rva(&addresses) {
            found.push((offset.0, name.to_string().into_owned()));
        }
    };
    let globals = pdb.global_symbols()?;
    let mut symbols = globals.iter();
    while let Some(symbol) = symbols.next()? {
        add(&symbol);
    }
    let debug = pdb.debug_information()?;
    let mut modules = debug.modules()?;
    while let Some(module) = modules.next()? {
        let Some(info) = pdb.module_info(&module)? else {
            continue;
        };
        let mut symbols = info.symbols()?;
        while let Some(symbol) = symbols.next()? {
            add(&symbol);
        }
    }
    Ok(found)
}

/// Reads the table of a `/MAP` file: `0001:00000010  name  0000000140001010  f  object` per line.
fn from_map(text: &str) -> Vec<(u32, String)> {
    let base = text.lines().find_map(|line| {
        let (_, number) = line.split_once("Preferred load address is")?;
        u64::from_str_radix(number.trim(), 16).ok()
    });
    let base = base.unwrap_or(0);
    let symbol = |line: &str| {
        let mut words = line.split_whitespace();
        let (section, _) = words.next()?.split_once(':')?;
        u16::from_str_radix(section, 16).ok()?;
        let name = words.next()?;
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        let offset = u32::try_from(address.checked_sub(base)?).ok()?;
        Some((offset, name.to_owned()))
    };
    text.lines().filter_map(symbol).collect()
}

/// Reads the COFF symbol table, which GNU ld writes behind the sections.
fn from_image(bytes: &[u8]) -> Option<Vec<(u32, String)>> {
    let file = PeFile64::parse(bytes).ok()?;
    let base = file.relative_address_base();
    let functions = file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text);
    let named = functions.filter_map(|symbol| {
        let name = symbol.name().ok().filter(|name| !name.starts_with('.'))?;
        Some((u32::try_from(symbol.address().checked_sub(base)?).ok()?, name.to_owned()))
    });
    Some(named.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_file_names_addresses() {
        let folder = tempfile::tempdir().unwrap();
        let text = " test\n\n Preferred load address is 0000000140000000\n\n Start Length Name Class\n 0001:00000000 00001c48H .text CODE\n\n Address Publics by Value Rva+Base Lib:Object\n\n 0001:00000010       DriverEntry                0000000140001010     lib.obj\n 0001:00000040       helper                     0000000140001040     lib.obj\n";
        fs::write(folder.path().join("test.map"), text).unwrap();
        let symbols = Symbols::beside(&folder.path().join("test.sys"), None);
        assert_eq!(symbols.name(0x1015), Some(("DriverEntry", 5)));
        assert_eq!(symbols.name(0x1040), Some(("helper", 0)));
        assert_eq!(symbols.name(0x0), None);
    }

    #[test]
    fn without_files_nothing_has_a_name() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Symbols::beside(&folder.path().join("test.sys"), Some("gone.pdb")).name(1), None);
    }
}
