//! The kernel-host process of the demo.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use fltlib_socket::{Connection, Parameter, Sent};

use crate::workspace::Workspace;

/// Longest time that the machine may take to come up, or a call to be answered.
const PATIENCE: Duration = Duration::from_secs(30);

/// Image name under which the demo's own connection shows up in the machine.
const PROGRAM: &str = "demo.exe";

/// Name of the adapter.
const ADAPTER: &str = "nic0";

/// Service of the sample NIC driver.
const NIC_DRIVER: &str = "samplenic";

/// A running machine; killed when dropped, so that a failed demo leaves no process behind.
pub(super) struct Machine {
    process: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Machine {
    /// Starts kernel-host with both drivers and waits until it answers.
    pub(super) fn start(workspace: &Workspace, programs: &Path, disk: &Path) -> Result<Self> {
        let drivers = workspace.generated("driver/x64");
        let socket = workspace.generated("demo/machine.sock");
        let log = workspace.generated("demo/machine.log");
        // A socket of an earlier run that was killed would make the new one fail to bind.
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", socket.display()));
            }
            _ => {}
        }
        let output = fs::File::create(&log).with_context(|| format!("cannot create {}", log.display()))?;
        let mut volume = std::ffi::OsString::from("C:=");
        volume.push(disk);
        let mut command = Command::new(programs.join("kernel-host"));
        command.args(["run", "--volume"]).arg(volume);
        for driver in ["fwbroker.sys", "samplenic.sys"] {
            command.arg("--driver").arg(drivers.join(driver));
        }
        command.arg("--socket").arg(&socket);
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let process = command.spawn().context("cannot start kernel-host")?;
        let mut machine = Self { process, socket, log };
        machine.wait_until_ready()?;
        Ok(machine)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let started = Instant::now();
        while !self.socket.exists() || self.connect().is_err() {
            let ended = self.process.try_wait().context("cannot ask for kernel-host's state")?;
            if ended.is_some() || started.elapsed() > PATIENCE {
                let log = fs::read_to_string(&self.log).unwrap_or_default();
                bail!("kernel-host did not come up; it printed:\n{log}");
            }
            sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Connects this program to the machine.
    pub(super) fn connect(&self) -> Result<Connection> {
        Connection::connect(&self.socket, PROGRAM, true, PATIENCE).context("cannot reach kernel-host")
    }

    /// Ends the machine in good order; its exit code says whether it found anything.
    pub(super) fn stop(mut self) -> Result<()> {
        if let Ok(mut control) = self.connect() {
            answered(control.shutdown()?)?;
        }
        let status = self.process.wait().context("cannot wait for kernel-host")?;
        if !status.success() {
            let log = fs::read_to_string(&self.log).unwrap_or_default();
            bail!("kernel-host ended with {status}; it printed:\n{log}");
        }
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Nothing can be done about a process that is gone already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Prints how long each driver's `DriverEntry` took, start to ready.
pub(super) fn print_entry_times(control: &mut Connection) -> Result<()> {
    for driver in answered(control.status()?)?.drivers {
        #[expect(clippy::cast_precision_loss, reason = "a duration to be read by people")]
        let millis = driver.entry_nanoseconds as f64 / 1e6;
        println!("   {:<13} DriverEntry took {millis:.3} ms", driver.name);
    }
    Ok(())
}

/// Plugs in a NIC whose driver is told to boot it with `firmware`.
pub(super) fn plug_in(control: &mut Connection, firmware: &str) -> Result<()> {
    let parameters = BTreeMap::from([("FirmwareName".to_owned(), Parameter::Text(firmware.to_owned()))]);
    answered(control.add_adapter(NIC_DRIVER, ADAPTER, parameters)?).context("the NIC did not start")
}

/// Unplugs it.
pub(super) fn unplug(control: &mut Connection) -> Result<()> {
    answered(control.remove_adapter(ADAPTER)?).context("the NIC did not stop")
}

/// Stops the sample NIC driver.
pub(super) fn unload_nic_driver(control: &mut Connection) -> Result<()> {
    answered(control.unload_driver(NIC_DRIVER)?).context("samplenic.sys did not unload")
}

/// What a call gave back, with the machine's refusal as an error.
pub(super) fn answered<T>(sent: Sent<T>) -> Result<T> {
    sent.map_err(|(hresult, text)| anyhow!("{text} (HRESULT {:#010x})", hresult.0))
}
