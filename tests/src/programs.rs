//! `kernel-host` and `fwbctl` as programs of their own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::drivers::driver_dir;

/// Longest time that anything here may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A `kernel-host run` process with fwbroker.sys loaded; killed when dropped.
#[derive(Debug)]
pub struct Host {
    process: Child,
    folder: TempDir,
    socket: PathBuf,
}

impl Host {
    /// Starts it and waits for its socket.
    #[must_use]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the volume");
        for path in ["Windows/Firmware", "Windows/System32/drivers"] {
            std::fs::create_dir_all(folder.path().join(path)).expect("folders on the volume");
        }
        let socket = folder.path().join("machine.sock");
        let driver = driver_dir().expect("the drivers are built").join("fwbroker.sys");
        let mut volume = std::ffi::OsString::from("C:=");
        volume.push(folder.path());
        let process = Command::new(program("kernel-host"))
            .args(["run", "--volume"])
            .arg(volume)
            .arg("--driver")
            .arg(driver)
            .arg("--socket")
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .expect("kernel-host starts");
        let mut host = Self { process, folder, socket };
        let started = Instant::now();
        while std::os::unix::net::UnixStream::connect(&host.socket).is_err() {
            let ended = host.process.try_wait().expect("its state can be asked for");
            assert!(ended.is_none() && started.elapsed() < PATIENCE, "kernel-host did not come up: {ended:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
        host
    }

    /// Host folder of the machine's volume.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Puts a file on the volume.
    pub fn write_file(&self, path: &str, content: &[u8]) {
        std::fs::write(self.folder().join(path), content).expect("the volume can be written");
    }

    /// Ends the machine; its exit code says that it found nothing.
    pub fn stop_clean(mut self) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
        let status = self.process.wait().expect("it ends");
        assert!(status.success(), "kernel-host ended with {status}");
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It is gone already when it was stopped.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// `fwbctl` against a machine.
#[derive(Debug)]
pub struct Fwbctl<'a> {
    host: &'a Host,
}

impl<'a> Fwbctl<'a> {
    /// For this machine.
    #[must_use]
    pub const fn new(host: &'a Host) -> Self {
        Self { host }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("fwbctl"));
        command.arg("--json").args(arguments).env("FWBROKER_SOCKET", &self.host.socket);
        command
    }

    fn run(&self, arguments: &[&str]) -> (i32, Value) {
        let done = self.command(arguments).output().expect("fwbctl starts");
        let text = String::from_utf8_lossy(&done.stdout);
        let json = serde_json::from_str(text.trim())
            .unwrap_or_else(|error| panic!("fwbctl {arguments:?} printed no JSON ({error}): {text}"));
        (done.status.code().expect("it ends by itself"), json)
    }

    /// Runs a command that must succeed; what it printed.
    pub fn ok(&self, arguments: &[&str]) -> Value {
        let (code, json) = self.run(arguments);
        assert_eq!(code, 0, "fwbctl {arguments:?}: {json}");
        json
    }

    /// Runs a command that the driver must refuse; the error that it printed.
    pub fn refused(&self, arguments: &[&str]) -> Value {
        let (code, json) = self.run(arguments);
        assert_eq!(code, 1, "fwbctl {arguments:?}: {json}");
        json["error"].clone()
    }

    /// Runs a command for its exit code.
    #[must_use]
    pub fn exit_code(&self, arguments: &[&str]) -> i32 {
        self.run(arguments).0
    }

    /// Starts a command and does not wait for it.
    #[must_use]
    pub fn spawn(&self, arguments: &[&str]) -> Child {
        self.command(arguments).stdout(Stdio::null()).spawn().expect("fwbctl starts")
    }

    /// Unloads the driver as soon as the machine has noticed that killed clients are gone.
    pub fn unload_when_free(&self) {
        let started = Instant::now();
        while self.run(&["unload"]).0 != 0 {
            assert!(started.elapsed() < PATIENCE, "a client that was killed still holds something");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// A program of this workspace, built beside the running test.
fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own path");
    let folder = test.ancestors().nth(2).expect("target/<profile>/deps/test");
    let path = folder.join(name);
    assert!(path.is_file(), "{} is not built; run: cargo build --profile host -p {name}", path.display());
    path
}
