//! Everything a newcomer or a build machine runs: set-up, the release drivers, checks and the test suite.
//!
//! The commands do their own set-up. What they generate goes under `target/`; the only thing they change outside it
//! are missing rustup targets and Debian packages, and a machine that cannot install those is told which command can.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod arch;
mod bench;
mod c_drivers;
mod check;
mod conformance;
mod demo;
mod driver;
mod firmware;
mod inf;
mod loom;
mod process;
mod programs;
mod setup;
mod stress;
mod test;
mod workspace;

use arch::Arch;
use workspace::Workspace;

/// Tasks of the fwbroker workspace.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Install and generate what the other commands need (they do this themselves).
    Setup,
    /// Build the release drivers into target/driver/ARCH/, each with its .pdb, .map and .inf.
    Driver {
        /// Processor architecture of the drivers.
        #[arg(long, value_enum, default_value_t = Arch::X64)]
        arch: Arch,
    },
    /// Build the C drivers of the test suite into target/driver-c/.
    CDrivers,
    /// Check formatting, lints for Linux and Windows, documentation, licences and the rules of this repository.
    Check,
    /// Build the drivers and fwbctl.exe, then run the whole test suite.
    Test {
        /// Arguments handed to `cargo test`, for example a test's name.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Show the main job: real firmware goes through fwbroker.sys into a NIC driver.
    Demo {
        /// Your own firmware file instead of Debian's; may be given more than once.
        #[arg(long = "image", value_name = "FILE")]
        images: Vec<std::path::PathBuf>,
    },
    /// Run the handle table's models: every order in which two or three threads can take its steps.
    Loom,
    /// Run kernel-host's tests and write docs/conformance.md: which documented rules they show.
    Conformance,
    /// A million rounds of open, read and close by eight clients, some of which disappear or lose their handles.
    Stress(stress::Stress),
    /// Measure; the machine should have nothing else to do.
    Bench {
        #[command(subcommand)]
        bench: bench::Bench,
    },
    /// Fetch the NIC firmware images that the demo uses into target/firmware/ and list them.
    Firmware,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Not anyhow's own report: a backtrace of this program helps nobody who lacks a package.
            eprintln!("error: {error}");
            for cause in error.chain().skip(1) {
                eprintln!("  because: {cause}");
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let workspace = Workspace::locate()?;
    match Cli::parse().task {
        Task::Setup => {
            // The guard is only for the set-up itself here; nothing follows it.
            let _ready = setup::run(&workspace)?;
            Ok(())
        }
        Task::Driver { arch } => driver::run(&workspace, arch),
        Task::CDrivers => {
            let _lock = setup::run(&workspace)?;
            println!("{}", c_drivers::build(&workspace, Arch::X64.names()?)?.display());
            Ok(())
        }
        Task::Check => check::run(&workspace),
        Task::Test { args } => test::run(&workspace, &args),
        Task::Demo { images } => demo::run(&workspace, &images),
        Task::Loom => loom::run(&workspace),
        Task::Conformance => conformance::run(&workspace),
        Task::Stress(stress) => stress::run(&workspace, &stress),
        Task::Bench { bench } => bench::run(&workspace, bench),
        Task::Firmware => {
            for image in firmware::images(&workspace)? {
                println!("{:<12} {:>7}  {}", image.device, image.bytes, image.path.display());
            }
            Ok(())
        }
    }
}
