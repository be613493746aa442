//! The long run of the handle table and sessions, with the real driver.

use anyhow::{Context, Result};
use clap::Args;

use crate::arch::Arch;
use crate::driver;
use crate::process;
use crate::setup;
use crate::workspace::Workspace;

/// What to do, and how much of it.
#[derive(Args)]
pub(crate) struct Stress {
    /// Rounds of open, read and close, of all eight clients together.
    #[arg(long, default_value_t = 1_000_000)]
    rounds: u64,
    /// Seed of an earlier run, to disconnect and revoke as it did; without it, another one each time.
    #[arg(long)]
    seed: Option<String>,
}

/// Builds the drivers and runs the churn test of the system tests with as many rounds.
pub(crate) fn run(workspace: &Workspace, stress: &Stress) -> Result<()> {
    let lock = setup::run(workspace)?;
    let drivers = driver::build(workspace, Arch::X64.names()?)?;
    drop(lock);
    let mut command = process::cargo(workspace);
    command.args(["test", "--locked", "--profile", "host", "--package", "fwbroker-tests", "--test", "system"]);
    command.args(["--", "--exact", "churn::churn_closes_what_it_opens", "--nocapture"]);
    command.env("FWBROKER_DRIVER_DIR", &drivers).env("FWBROKER_STRESS_ROUNDS", stress.rounds.to_string());
    if let Some(seed) = &stress.seed {
        command.env("FWBROKER_STRESS_SEED", seed);
    }
    process::run(&mut command).context("what was opened was not closed, or not as it should be")
}
