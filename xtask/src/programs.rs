//! The Linux programs that tests and the demo start.

use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::process;
use crate::workspace::Workspace;

/// Builds kernel-host and fwbctl and returns the folder that they are in.
///
/// `cargo test` alone would not: a package's binaries are only built for its own integration tests.
pub(crate) fn build(workspace: &Workspace) -> Result<PathBuf> {
    let mut command = process::cargo(workspace);
    command.args(["build", "--locked", "--profile", "host", "--package", "kernel-host", "--package", "fwbctl"]);
    process::run(&mut command).context("kernel-host and fwbctl do not build")?;
    Ok(workspace.generated("host"))
}
