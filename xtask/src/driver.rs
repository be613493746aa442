//! Release drivers: built for Windows on Linux, collected with their symbols, map and INF.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::arch::{Arch, Names};
use crate::inf;
use crate::process;
use crate::setup::{self, kit, vendor};
use crate::workspace::{Workspace, read_text, write_atomically};

/// Packages that become a .sys of the same name, each with an `inf/<name>.inx`.
pub(crate) const DRIVERS: [&str; 3] = ["fwbroker", "samplenic", "passthru"];

/// What the linker writes beside each other: extension there, extension here.
const PRODUCTS: [(&str, &str); 3] = [("dll", "sys"), ("pdb", "pdb"), ("map", "map")];

/// Sets up, builds, and says where the drivers are.
pub(crate) fn run(workspace: &Workspace, arch: Arch) -> Result<()> {
    let names = arch.names()?;
    let _lock = setup::run(workspace)?;
    let folder = build(workspace, names)?;
    for driver in DRIVERS {
        let image = folder.join(driver).with_extension("sys");
        let bytes = fs::metadata(&image).with_context(|| format!("cannot find {}", image.display()))?.len();
        println!("{} ({bytes} bytes)", image.display());
    }
    Ok(())
}

/// Builds all drivers and returns the folder with the results.
pub(crate) fn build(workspace: &Workspace, names: &Names) -> Result<PathBuf> {
    let mut command = process::cargo(workspace);
    command.args(["build", "--release"]);
    configure(&mut command, workspace, names);
    process::run(&mut command).context("the drivers do not build")?;

    let built = output_folder(workspace).join(names.triple).join("release");
    let folder = workspace.generated("driver").join(names.kit);
    for driver in DRIVERS {
        for (extension, kept_as) in PRODUCTS {
            collect(&built, driver, extension, &folder.join(driver).with_extension(kept_as))?;
        }
        let source = workspace.root.join("inf").join(driver).with_extension("inx");
        let text = inf::stamp(&read_text(&source)?, names.inf, env!("CARGO_PKG_VERSION"))
            .with_context(|| format!("cannot make an INF of {}", source.display()))?;
        write_atomically(&folder.join(driver).with_extension("inf"), text.as_bytes())?;
    }
    Ok(folder)
}

/// Points a cargo command at the drivers: packages, target, kit, linker, vendored dependencies.
pub(crate) fn configure(command: &mut Command, workspace: &Workspace, names: &Names) {
    for driver in DRIVERS {
        command.args(["--package", driver]);
    }
    command.args(["--target", names.triple]).arg("--target-dir").arg(output_folder(workspace));
    let linker_variable = format!("CARGO_TARGET_{}_LINKER", names.triple.to_uppercase().replace('-', "_"));
    command
        .env(linker_variable, "rust-lld")
        .env("WDKContentRoot", kit::root(workspace))
        .env("BINDGEN_EXTRA_CLANG_ARGS", kit::CLANG_ARGUMENTS);
    vendor::use_vendored(command, workspace);
}

/// A target folder of its own: the vendored sources would otherwise evict the builds of host programs, and the other
/// way round.
fn output_folder(workspace: &Workspace) -> PathBuf {
    workspace.generated("driver-build")
}

/// Copies one product. cargo lifts the .dll and .pdb out of `deps/`, the map stays there.
fn collect(built: &Path, driver: &str, extension: &str, to: &Path) -> Result<()> {
    let lifted = built.join(driver).with_extension(extension);
    let from = if lifted.is_file() { lifted } else { built.join("deps").join(driver).with_extension(extension) };
    let contents =
        fs::read(&from).with_context(|| format!("the linker left no {extension} of {driver} at {}", from.display()))?;
    write_atomically(to, &contents)
}
