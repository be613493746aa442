//! Everything that is checked without running the product.

use anyhow::{Context, Result, bail};

use crate::arch::Arch;
use crate::driver;
use crate::process;
use crate::setup::{self, toolchain};
use crate::test;
use crate::workspace::Workspace;

mod rules;

/// Warnings are errors here, and only here: while somebody works they stay warnings.
const STRICT: [&str; 3] = ["--", "--deny", "warnings"];

/// Nothing in a driver is public, and its modules refer to each other all the same.
const DRIVER_DOCS: [&str; 2] = ["--no-deps", "--document-private-items"];

/// A step of the check: what it shows, and how it is done.
type Step = (&'static str, fn(&Workspace) -> Result<()>);

const STEPS: [Step; 8] = [
    ("rules of this repository", |workspace| rules::check(&workspace.root)),
    ("formatting", |workspace| process::run(process::cargo(workspace).args(["fmt", "--all", "--check"]))),
    ("lints, host", |workspace| {
        let mut command = process::cargo(workspace);
        command.args(["clippy", "--locked", "--profile", "host", "--all-targets"]).args(STRICT);
        process::run(&mut command)
    }),
    ("lints, fwbctl.exe", |workspace| {
        let mut command = process::cargo(workspace);
        test::configure_client(command.arg("clippy"));
        process::run(command.args(STRICT))
    }),
    ("lints, drivers", |workspace| for_drivers(workspace, "clippy", &STRICT)),
    ("documentation, host", |workspace| {
        let mut command = process::cargo(workspace);
        command.args(["doc", "--locked", "--profile", "host", "--no-deps"]);
        process::run(command.env("RUSTDOCFLAGS", "--deny warnings"))
    }),
    ("documentation, drivers", |workspace| for_drivers(workspace, "doc", &DRIVER_DOCS)),
    ("licences and sources of dependencies", |workspace| dependencies(workspace)),
];

/// Runs every step, also after one that failed, and names those that did.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    toolchain::install_components()?;
    let _lock = setup::run(workspace)?;
    let mut failed = Vec::new();
    for (name, step) in STEPS {
        eprintln!("check: {name}");
        if let Err(error) = step(workspace) {
            eprintln!("check: {name}: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("{} of {} checks failed: {}", failed.len(), STEPS.len(), failed.join("; "));
    }
    println!("all {} checks passed", STEPS.len());
    Ok(())
}

/// Runs a cargo command over the drivers. In release like the build, which shares the bindings made from headers.
fn for_drivers(workspace: &Workspace, subcommand: &str, arguments: &[&str]) -> Result<()> {
    let mut command = process::cargo(workspace);
    command.args([subcommand, "--release"]);
    driver::configure(&mut command, workspace, Arch::X64.names()?);
    process::run(command.args(arguments).env("RUSTDOCFLAGS", "--deny warnings"))
}

/// Licences and sources of dependencies, where cargo-deny is installed; setting it up takes minutes of compiling.
fn dependencies(workspace: &Workspace) -> Result<()> {
    if !process::is_installed("cargo-deny") {
        eprintln!("check: skipped, cargo-deny is not installed (get it with: cargo install --locked cargo-deny)");
        return Ok(());
    }
    let mut command = process::cargo(workspace);
    command.args(["deny", "--locked", "--workspace", "check", "bans", "licenses", "sources"]);
    process::run(&mut command).context("a dependency breaks the rules of deny.toml")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_keeps_its_own_rules() -> Result<()> {
        rules::check(&Workspace::locate()?.root)
    }
}
