//! All dependencies as source below `target/vendor/`, wdk-build edited to compile here.
//!
//! Cargo's own way of replacing a registry by a folder leaves Cargo.toml and Cargo.lock alone, so that Windows users
//! get the published crates from the same lock file.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::stamp::Stamp;
use super::wdk_build_edits as edits;
use crate::process;
use crate::workspace::Workspace;

/// Name of the source in cargo's configuration; it means something only between the options below.
const SOURCE: &str = "fwbroker-vendored";

/// Vendors again when Cargo.lock or the edits changed.
pub(crate) fn refresh(workspace: &Workspace) -> Result<()> {
    let folder = folder(workspace);
    let lock_file = workspace.root.join("Cargo.lock");
    let lock = fs::read(&lock_file).with_context(|| format!("cannot read {}", lock_file.display()))?;
    let stamp = Stamp::new(&folder, &[&lock, edits::SOURCE.as_bytes()]);
    if stamp.is_current() {
        return Ok(());
    }
    eprintln!("setup: vendoring the dependencies into {}", folder.display());
    // cargo leaves packages alone that look unchanged to it, and the edited one does not: start from nothing.
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
    }
    process::run_quietly(
        // A mirror that the user has configured is used as for any other build.
        process::cargo(workspace).args(["vendor", "--locked", "--respect-source-config"]).arg(&folder),
    )
    .context("cannot fetch the dependencies; this step needs the crate registry once per change of Cargo.lock")?;
    edits::apply(&folder.join("wdk-build"))?;
    stamp.write()
}

/// Makes a cargo command take its dependencies from the vendored folder, never from the network.
pub(crate) fn use_vendored<'a>(command: &'a mut Command, workspace: &Workspace) -> &'a mut Command {
    let folder = folder(workspace);
    command
        .args(["--locked", "--offline"])
        .arg("--config")
        .arg(format!("source.crates-io.replace-with='{SOURCE}'"))
        .arg("--config")
        .arg(format!("source.{SOURCE}.directory='{}'", folder.display()))
}

fn folder(workspace: &Workspace) -> PathBuf {
    workspace.generated("vendor")
}
