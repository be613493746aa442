//! Set-up: everything the other commands need, each step in a module of its own.
//!
//! Every step first looks whether its result is there and current, so that a repeated set-up costs milliseconds.

use std::fs::File;

use anyhow::{Result, bail};

use crate::workspace::Workspace;

pub(crate) mod apt;
pub(crate) mod clang;
pub(crate) mod exports;
pub(crate) mod kit;
mod packages;
pub(crate) mod stamp;
pub(crate) mod toolchain;
pub(crate) mod vendor;
mod wdk_build_edits;

/// Brings the machine and `target/` into the state that driver builds and tests need.
///
/// Returns the lock that serialises commands of this working copy; what the set-up made is stable while it is held.
pub(crate) fn run(workspace: &Workspace) -> Result<File> {
    if cfg!(windows) {
        bail!(
            "this command cross-builds on Linux; on Windows, with the WDK installed, `cargo make` builds and packages \
             the drivers (see README.md)"
        );
    }
    let lock = workspace.lock()?;
    toolchain::install_targets()?;
    packages::install()?;
    kit::generate(workspace)?;
    vendor::refresh(workspace)?;
    Ok(lock)
}
