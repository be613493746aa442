//! The Rust toolchain: standard libraries for the Windows targets, the linker, and the tools that checks need.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::arch;
use crate::process;

/// Target of the Windows build of fwbctl; mingw's gcc links it.
pub(crate) const CLIENT_TARGET: &str = "x86_64-pc-windows-gnu";

/// Components that rustup's minimal profile leaves out, and a program of each.
const COMPONENTS: [(&str, &str); 2] = [("rustfmt", "cargo-fmt"), ("clippy", "cargo-clippy")];

/// Adds missing targets to the toolchain in use.
///
/// The toolchain's folder is looked at instead of asking rustup: that is quicker, and right for toolchains from
/// elsewhere too.
pub(crate) fn install_targets() -> Result<()> {
    let sysroot = sysroot()?;
    let is_missing = |target: &&str| !sysroot.join("lib/rustlib").join(target).join("lib").is_dir();
    let missing: Vec<&str> =
        arch::BUILT.iter().map(|names| names.triple).chain([CLIENT_TARGET]).filter(is_missing).collect();
    add("target", &missing, &sysroot)?;
    linker().map(drop)
}

/// Adds missing components to the toolchain in use.
pub(crate) fn install_components() -> Result<()> {
    let sysroot = sysroot()?;
    let is_missing =
        |&(_, program): &(&str, &str)| !sysroot.join("bin").join(program).is_file() && !process::is_installed(program);
    let missing: Vec<&str> = COMPONENTS.into_iter().filter(is_missing).map(|(name, _)| name).collect();
    add("component", &missing, &sysroot)
}

/// `rustup <kind> add <names>`, or the reason why that cannot be done.
fn add(kind: &str, names: &[&str], sysroot: &Path) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let command = format!("rustup {kind} add {}", names.join(" "));
    if !process::is_installed("rustup") {
        bail!(
            "the Rust toolchain in {} lacks {}, and rustup, which could add that, is not installed.\n\
             Install rustup (https://rustup.rs), then run: {command}",
            sysroot.display(),
            names.join(" and ")
        );
    }
    eprintln!("setup: {command}");
    process::run(Command::new("rustup").args([kind, "add"]).args(names))
        .with_context(|| format!("the toolchain is incomplete; complete it with: {command}"))
}

/// Path of the active toolchain.
fn sysroot() -> Result<PathBuf> {
    let printed = process::output(Command::new("rustc").args(["--print", "sysroot"]))?;
    Ok(PathBuf::from(printed.trim_end()))
}

/// rust-lld, which links the drivers. rustup's toolchains have it; some distributions leave it out.
pub(crate) fn linker() -> Result<PathBuf> {
    let sysroot = sysroot()?;
    let about = process::output(Command::new("rustc").arg("-vV"))?;
    let host = about
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("`rustc -vV` does not say which host it is for")?;
    let linker = sysroot.join("lib/rustlib").join(host).join("bin/rust-lld");
    if linker.is_file() {
        return Ok(linker);
    }
    if process::is_installed("rust-lld") {
        return Ok(PathBuf::from("rust-lld"));
    }
    bail!(
        "rust-lld, the linker of the drivers, is neither at {} nor on PATH.\n\
         Use a toolchain from rustup (https://rustup.rs), which brings it along.",
        linker.display()
    );
}
