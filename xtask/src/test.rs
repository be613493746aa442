//! The whole test suite, as a newcomer and the build machine run it.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::arch::Arch;
use crate::c_drivers;
use crate::conformance::Collection;
use crate::driver;
use crate::process;
use crate::programs;
use crate::setup;
use crate::setup::toolchain::CLIENT_TARGET;
use crate::workspace::Workspace;

/// Sets up, builds the drivers and the programs, and runs `cargo test` with `arguments`.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<()> {
    let mut phases = Phases::default();
    let names = Arch::X64.names()?;
    let lock = phases.time("set-up", || setup::run(workspace))?;
    let drivers = phases.time("drivers", || driver::build(workspace, names))?;
    let c_drivers = phases.time("C drivers", || c_drivers::build(workspace, names))?;
    phases.time("fwbctl.exe", || build_client(workspace))?;
    phases.time("programs", || programs::build(workspace))?;
    // Tests only read what has been generated, and may take long: let other commands go on.
    drop(lock);
    let collection = Collection::begin(workspace)?;
    let tested = phases.time("tests", || {
        let mut command = process::cargo(workspace);
        command.args(["test", "--locked", "--profile", "host"]).args(arguments);
        collection.tell(&mut command);
        process::run(command.env("FWBROKER_DRIVER_DIR", &drivers).env("FWBROKER_C_DRIVER_DIR", &c_drivers))
    });
    phases.report();
    tested.context("the test suite failed")?;
    // With arguments only some tests may have run.
    if arguments.is_empty()
        && let Err(stale) = collection.compare(workspace)
    {
        eprintln!("note: {stale}");
    }
    Ok(())
}

/// Builds fwbctl.exe into `target/x86_64-pc-windows-gnu/host/`.
pub(crate) fn build_client(workspace: &Workspace) -> Result<()> {
    let mut command = process::cargo(workspace);
    configure_client(command.arg("build"));
    process::run(&mut command).context("fwbctl.exe does not build")
}

/// Points a cargo command at the Windows build of fwbctl.
pub(crate) fn configure_client(command: &mut Command) {
    command.args(["--locked", "--profile", "host", "--package", "fwbctl", "--target", CLIENT_TARGET]);
}

/// How long each phase took.
#[derive(Default)]
struct Phases(Vec<(&'static str, Duration)>);

impl Phases {
    fn time<T>(&mut self, name: &'static str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let result = work();
        self.0.push((name, start.elapsed()));
        result
    }

    /// Prints the times to the error stream: the standard output is cargo test's.
    fn report(&self) {
        let total: Duration = self.0.iter().map(|(_, time)| *time).sum();
        for (name, time) in &self.0 {
            eprintln!("{name:>12}: {:7.1} s", time.as_secs_f64());
        }
        eprintln!("{:>12}: {:7.1} s", "total", total.as_secs_f64());
    }
}
