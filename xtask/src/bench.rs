//! Measurements.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Subcommand;

use crate::arch::Arch;
use crate::driver;
use crate::process;
use crate::setup;
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
    /// What drivers cost in kernel-host beside what Linux does without it: machine start, file read, port round trip.
    Host {
        /// Write one JSON object per measurement: {case, `ours_ns`, `baseline_ns`, ratio}.
        #[arg(long, value_name = "FILE")]
        json: Option<PathBuf>,
        /// Further options of the program, such as `--case read` or `--samples 20`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        more: Vec<String>,
    },
}

/// Builds the measuring program and runs it in its place.
pub(crate) fn run(workspace: &Workspace, bench: Bench) -> Result<()> {
    let mut command = process::cargo(workspace);
    match bench {
        Bench::Handles { json, short, more } => {
            command.args(["run", "--locked", "--profile", "bench", "--package", "handle-bench", "--"]);
            write_json(&mut command, json)?;
            if short {
                command.arg("--short");
            }
            process::run(command.args(more)).context("the handle tables could not be measured")
        }
        Bench::Host { json, more } => {
            let lock = setup::run(workspace)?;
            let drivers = driver::build(workspace, Arch::X64.names()?)?;
            drop(lock);
            command.args(["bench", "--locked", "--package", "fwbroker-tests", "--bench", "host", "--"]);
            write_json(&mut command, json)?;
            command.env("FWBROKER_DRIVER_DIR", drivers);
            process::run(command.args(more)).context("kernel-host could not be measured")
        }
    }
}

/// Tells a measuring program where its rows go: relative to where the user is, while it runs in the repository's root.
fn write_json(command: &mut Command, json: Option<PathBuf>) -> Result<()> {
    if let Some(path) = json {
        let path = std::path::absolute(&path).with_context(|| format!("no such path: {}", path.display()))?;
        command.arg("--json").arg(path);
    }
    Ok(())
}
