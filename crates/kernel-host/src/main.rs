//! The `kernel-host` command: runs Windows kernel drivers on Linux.

use std::process::ExitCode;

use clap::Parser as _;

mod cli;

fn main() -> ExitCode {
    match cli::Command::parse().run() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("kernel-host: {error:#}");
            ExitCode::FAILURE
        }
    }
}
