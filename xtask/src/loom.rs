//! The models of the handle table: every order of its threads' steps.

use anyhow::{Context, Result};

use crate::process;
use crate::workspace::Workspace;

/// Builds crates/broker on the model checker's atomics and runs its models.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let mut command = process::cargo(workspace);
    // Optimised, since there are many orders; in a folder of its own, since the flag is for all crates alike.
    command.args(["test", "--locked", "--release", "--package", "broker", "--lib", "--target-dir"]);
    command.arg(workspace.generated("loom")).arg("loom_");
    process::run(command.env("RUSTFLAGS", "--cfg loom")).context("a model of the handle table failed")
}
