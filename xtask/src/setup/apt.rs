//! apt-get, without questions.

use std::io::IsTerminal;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::process;

/// Installs packages, or says which command would.
///
/// `wanted` names the missing things for a person; `packages` are the names to install.
pub(crate) fn install(wanted: &[&str], packages: &[String]) -> Result<()> {
    let list = wanted.iter().map(|what| format!("  - {what}")).collect::<Vec<_>>().join("\n");
    if !is_available() {
        bail!(
            "missing on this machine:\n{list}\n\
             This is no Debian or Ubuntu (apt-get was not found), so install them with your own package manager; on \
             Debian they are: libclang1-14, mingw-w64-common, gcc-mingw-w64-x86-64, clang-19."
        );
    }
    let by_hand = format!("apt-get update && apt-get install {}", packages.join(" "));
    let explain = || format!("missing on this machine:\n{list}\nInstall them as root with: {by_hand}");
    let mut install = vec!["install", "--yes", "--no-install-recommends"];
    install.extend(packages.iter().map(String::as_str));
    eprintln!("setup: apt-get {}", install.join(" "));
    // Package lists that are a few weeks old name files the mirror no longer has: refresh them once, then try again.
    if as_root(&install).is_err() {
        eprintln!("setup: apt-get update, then the same again");
        as_root(&["update"]).with_context(explain)?;
        as_root(&install).with_context(explain)?;
    }
    Ok(())
}

/// Names of packages that match a regular expression; the lists are fetched first where there are none.
pub(crate) fn search(pattern: &str) -> Result<Vec<String>> {
    let ask = || -> Result<Vec<String>> {
        let printed = process::output(Command::new("apt-cache").args(["search", "--names-only", pattern]))?;
        Ok(printed.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect())
    };
    let found = ask()?;
    if found.is_empty() {
        eprintln!("setup: apt-get update (no package is called {pattern})");
        as_root(&["update"])?;
        return ask();
    }
    Ok(found)
}

/// Refreshes the package lists.
pub(crate) fn update() -> Result<()> {
    as_root(&["update"])
}

/// Whether this is a machine with apt.
pub(crate) fn is_available() -> bool {
    process::is_installed("apt-get")
}

/// Runs apt-get as root: directly, or through sudo, which may ask for a password only where somebody can type it.
fn as_root(arguments: &[&str]) -> Result<()> {
    let mut command = if is_root() {
        Command::new("apt-get")
    } else if process::is_installed("sudo") {
        let mut sudo = Command::new("sudo");
        if !std::io::stdin().is_terminal() {
            sudo.arg("--non-interactive");
        }
        sudo.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]);
        sudo
    } else {
        bail!("this needs root, and sudo is not installed");
    };
    command.env("DEBIAN_FRONTEND", "noninteractive").arg("--quiet").args(arguments);
    // apt-get reports on its standard output, which is kept for what a command was asked for.
    command.stdout(std::io::stderr());
    process::run(&mut command)
}

/// Whether this process runs as root.
fn is_root() -> bool {
    process::output(Command::new("id").arg("-u")).is_ok_and(|user| user.trim_end() == "0")
}
