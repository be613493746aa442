//! Command line of `kernel-host`.

use std::process::ExitCode;

mod check;
mod run;

/// Runs unmodified Windows kernel drivers (.sys, x64) in a Linux process.
#[derive(Debug, clap::Parser)]
#[command(name = "kernel-host", version)]
pub(crate) enum Command {
    /// Keep a machine running until it is stopped (by a signal, or a client's request).
    Run(run::Run),
    /// Say what a driver file is and which of its imports this host serves.
    Check(check::Check),
}

impl Command {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Run(run) => run.execute(),
            Self::Check(check) => check.execute(),
        }
    }
}
