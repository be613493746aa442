//! `fwbctl`, run as the operator would run it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The built program and the machine it talks to.
pub(super) struct Fwbctl {
    program: PathBuf,
    socket: PathBuf,
}

impl Fwbctl {
    pub(super) fn new(programs: &Path, socket: &Path) -> Self {
        Self { program: programs.join("fwbctl"), socket: socket.to_owned() }
    }

    /// Runs one command with `--json`; what it printed comes back, a refusal is an error with its text.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<Value> {
        let shown = format!("fwbctl {}", arguments.join(" "));
        let mut command = Command::new(&self.program);
        command.arg("--json").args(arguments).env("FWBROKER_SOCKET", &self.socket);
        let done = command.output().with_context(|| format!("cannot start `{shown}`"))?;
        let printed = String::from_utf8_lossy(&done.stdout);
        let json: Value = serde_json::from_str(printed.trim()).with_context(|| {
            format!("`{shown}` printed no JSON but: {printed}{}", String::from_utf8_lossy(&done.stderr))
        })?;
        if !done.status.success() {
            let text = |field: &str| json["error"][field].as_str().unwrap_or("?").to_owned();
            bail!("`{shown}` was refused: {} ({}). Next: {}", text("message"), text("status_name"), text("next"));
        }
        Ok(json)
    }
}
