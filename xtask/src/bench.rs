//! Measurements.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Subcommand;

use crate::process;
use crate::workspace::Workspace;

/// What is measured.
#[derive(Subcommand)]
pub(crate) enum Bench {
    /// The handle table beside other concurrent tables, in one process and one run.
    Handles {
        /// Write one JSON object per measurement: {table, case, threads, live, mops, `bytes_per_handle`}.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Few and short samples, and at most 1,000 live handles: whether it works, not how fast it is.
        #[arg(long)]
        short: bool,
        /// Further options of the program, such as `--live 1,1000`, `--case get-hot` or `--table fwbroker,slab`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        more: Vec<String>,
    },
}

/// Builds the measuring program and runs it in its place.
pub(crate) fn run(workspace: &Workspace, bench: Bench) -> Result<()> {
    let Bench::Handles { json, short, more } = bench;
    let mut command = process::cargo(workspace);
    command.args(["run", "--locked", "--profile", "bench", "--package", "handle-bench", "--"]);
    if let Some(path) = json {
        // Relative to where the user is; the command runs in the repository's root.
        let path = std::path::absolute(&path).with_context(|| format!("no such path: {}", path.display()))?;
        command.arg("--json").arg(path);
    }
    if short {
        command.arg("--short");
    }
    process::run(command.args(more)).context("the handle tables could not be measured")
}
