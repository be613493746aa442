//! What Windows demands of a driver image, and what this project promises about its own, checked on every release .sys.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context, Result, ensure};
use object::pe;

mod checksum;
mod exports;
mod image;
mod unwind;

use image::Image;

/// Largest `fwbroker.sys` in bytes.
const FWBROKER_LIMIT: usize = 128 * 1024;

/// Runs a check on every driver and names the one that failed it.
fn for_every_driver(check: impl Fn(&Image) -> Result<()>) -> Result<()> {
    for image in image::load_all()? {
        check(&image).with_context(|| image.path.display().to_string())?;
    }
    Ok(())
}

#[test]
fn drivers_are_native_pe32_plus_images_for_amd64() -> Result<()> {
    for_every_driver(|image| {
        ensure!(image.machine()? == pe::IMAGE_FILE_MACHINE_AMD64, "not for AMD64");
        // PE32 headers fail to parse as PE32+, which is how images are loaded here.
        ensure!(
            image.optional_header()?.subsystem.get(object::LittleEndian) == pe::IMAGE_SUBSYSTEM_NATIVE,
            "not native"
        );
        ensure!(image.entry_point()? != 0, "no entry point");
        Ok(())
    })
}

#[test]
fn the_pe_checksum_is_right() -> Result<()> {
    for_every_driver(|image| {
        let recorded = image.optional_header()?.check_sum.get(object::LittleEndian);
        let computed = checksum::compute(&image.bytes, image.checksum_offset()?);
        ensure!(recorded == computed, "the header says {recorded:#x}, the file sums up to {computed:#x}");
        Ok(())
    })
}

#[test]
fn every_mitigation_of_the_loader_is_asked_for() -> Result<()> {
    const WANTED: [(u16, &str); 4] = [
        (pe::IMAGE_DLLCHARACTERISTICS_NX_COMPAT, "NX_COMPAT"),
        (pe::IMAGE_DLLCHARACTERISTICS_DYNAMIC_BASE, "DYNAMIC_BASE"),
        (pe::IMAGE_DLLCHARACTERISTICS_HIGH_ENTROPY_VA, "HIGH_ENTROPY_VA"),
        (pe::IMAGE_DLLCHARACTERISTICS_FORCE_INTEGRITY, "FORCE_INTEGRITY"),
    ];
    for_every_driver(|image| {
        let flags = image.optional_header()?.dll_characteristics.get(object::LittleEndian);
        for (flag, name) in WANTED {
            ensure!(flags & flag != 0, "{name} is not set");
        }
        // Stripped relocations would contradict DYNAMIC_BASE.
        ensure!(image.characteristics()? & pe::IMAGE_FILE_RELOCS_STRIPPED == 0, "relocations are stripped");
        Ok(())
    })
}

#[test]
fn no_section_is_both_writable_and_executable() -> Result<()> {
    for_every_driver(|image| {
        for section in image.sections()? {
            let both = pe::IMAGE_SCN_MEM_WRITE | pe::IMAGE_SCN_MEM_EXECUTE;
            ensure!(section.flags & both != both, "{} is", section.name);
        }
        Ok(())
    })
}

#[test]
fn exception_data_is_what_the_unwinder_can_use() -> Result<()> {
    for_every_driver(|image| {
        let functions = unwind::check(image)?;
        ensure!(functions > 0, "no function has unwind data");
        Ok(())
    })
}

#[test]
fn imports_are_documented_exports_of_three_modules() -> Result<()> {
    for_every_driver(|image| {
        for (module, routine) in image.imports()? {
            let documented = exports::of(&module).with_context(|| format!("imports from {module}"))?;
            ensure!(documented.contains(routine.as_str()), "{module} documents no {routine}");
        }
        Ok(())
    })
}

#[test]
fn no_driver_can_stop_the_machine() -> Result<()> {
    // wdk-panic ends in KeBugCheckEx. Without it among the imports, no panic is reachable.
    const FORBIDDEN: [&str; 2] = ["KeBugCheck", "KeBugCheckEx"];
    for_every_driver(|image| {
        for (_, routine) in image.imports()? {
            ensure!(!FORBIDDEN.contains(&routine.as_str()), "imports {routine}");
        }
        Ok(())
    })
}

#[test]
fn only_filters_need_the_filter_manager_and_only_samplenic_needs_ndis() -> Result<()> {
    for_every_driver(|image| {
        let modules: BTreeSet<String> = image.imports()?.into_iter().map(|(module, _)| module).collect();
        ensure!(modules.contains("ndis.sys") == (image.name() == "samplenic"), "imports from {modules:?}");
        ensure!(modules.contains("fltmgr.sys") == (image.name() != "samplenic"), "imports from {modules:?}");
        Ok(())
    })
}

#[test]
fn fwbroker_is_small() -> Result<()> {
    for_every_driver(|image| {
        let limited = image.name() == "fwbroker";
        ensure!(!limited || image.bytes.len() < FWBROKER_LIMIT, "{} bytes", image.bytes.len());
        Ok(())
    })
}

#[test]
fn symbols_and_map_belong_to_the_image() -> Result<()> {
    for_every_driver(|image| {
        let (guid, pdb_name) = image.debug_identity()?;
        ensure!(pdb_name == format!("{}.pdb", image.name()), "the debug entry names {pdb_name}");
        let pdb = fs::read(image.path.with_extension("pdb")).context("no .pdb beside it")?;
        ensure!(pdb.starts_with(b"Microsoft C/C++ MSF 7.00"), "the .pdb is something else");
        ensure!(pdb.windows(guid.len()).any(|window| window == guid), "the .pdb is of another build");

        let map = fs::read_to_string(image.path.with_extension("map")).context("no .map beside it")?;
        let base = image.optional_header()?.image_base.get(object::LittleEndian);
        let entry = format!("{:016x}", base + u64::from(image.entry_point()?));
        let is_entry = |line: &str| line.contains("DriverEntry") && line.contains(&entry);
        ensure!(map.lines().any(is_entry), "the .map does not have DriverEntry at {entry}");
        Ok(())
    })
}
