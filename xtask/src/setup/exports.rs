//! Import libraries, made from lists of documented export names.
//!
//! A list is a text file in `xtask/exports/`, named after the module: one name per line, `#` starts a comment, and
//! ` DATA` after a name marks a variable. System tests read the same lists, so that no driver imports anything else.

use std::fmt::Write as _;
use std::io::Cursor;
use std::path::Path;

use anyhow::{Context, Result};
use implib::{Flavor, ImportLibrary, MachineType};

use crate::workspace::write_atomically;

/// A module that drivers import from, and the library that wdk-sys puts on the link line for it.
///
/// fltmgr.sys and ndis.sys are missing on purpose: Rust's imports of those are `raw-dylib` and need no library.
pub(crate) const MODULES: [Module; 3] = [
    Module { library: "ntoskrnl.lib", image: "ntoskrnl.exe", list: include_str!("../../exports/ntoskrnl.exe.txt") },
    Module { library: "hal.lib", image: "hal.dll", list: include_str!("../../exports/hal.dll.txt") },
    Module { library: "wmilib.lib", image: "wmilib.sys", list: include_str!("../../exports/wmilib.sys.txt") },
];

/// The modules that only drivers in C need a library for.
pub(crate) const FRAMEWORKS: [Module; 2] = [
    Module { library: "fltmgr.lib", image: "fltmgr.sys", list: include_str!("../../exports/fltmgr.sys.txt") },
    Module { library: "ndis.lib", image: "ndis.sys", list: include_str!("../../exports/ndis.sys.txt") },
];

/// One module's exports.
pub(crate) struct Module {
    /// File name of the import library.
    pub(crate) library: &'static str,
    /// File name that goes into the import tables of drivers.
    image: &'static str,
    /// Text of the list.
    pub(crate) list: &'static str,
}

impl Module {
    /// Writes the import library into `folder`.
    pub(crate) fn write_library(&self, folder: &Path, machine: MachineType) -> Result<()> {
        let definition = self.definition();
        let library = ImportLibrary::new(&definition, machine, Flavor::Msvc)
            .with_context(|| format!("the export list of {} is malformed", self.image))?;
        let mut bytes = Cursor::new(Vec::new());
        library.write_to(&mut bytes).with_context(|| format!("cannot make {}", self.library))?;
        write_atomically(&folder.join(self.library), bytes.get_ref())
    }

    /// The list as a module-definition file.
    pub(crate) fn definition(&self) -> String {
        let mut text = format!("LIBRARY \"{}\"\nEXPORTS\n", self.image);
        for line in self.list.lines() {
            let name = line.split('#').next().unwrap_or_default().trim();
            if !name.is_empty() {
                // Writing to a String cannot fail.
                let _ = writeln!(text, "    {name}");
            }
        }
        text
    }
}

/// Writes a library without members, for one that the link line names and nothing is taken from.
pub(crate) fn write_empty_library(path: &Path) -> Result<()> {
    write_atomically(path, b"!<arch>\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_becomes_a_definition_without_its_comments() {
        let module = Module { library: "x.lib", image: "x.sys", list: "# head\nOne\n\nTwo DATA # why\n" };
        assert_eq!(module.definition(), "LIBRARY \"x.sys\"\nEXPORTS\n    One\n    Two DATA\n");
    }

    #[test]
    fn import_libraries_name_the_module_and_the_routine() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("xtask-exports-{}", std::process::id()));
        let module = Module { library: "x.lib", image: "x.sys", list: "SomeRoutine\n" };
        module.write_library(&folder, MachineType::AMD64)?;
        let bytes = std::fs::read(folder.join("x.lib"))?;
        std::fs::remove_dir_all(&folder)?;
        let contains = |needle: &[u8]| bytes.windows(needle.len()).any(|window| window == needle);
        assert!(contains(b"SomeRoutine\0x.sys\0"), "the short import member is missing");
        Ok(())
    }
}
