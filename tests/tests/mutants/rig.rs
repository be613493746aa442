//! A machine with one small driver, and the steps that scenarios are made of.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fwbroker_tests::drivers::c_driver_dir;
use kernel_host::process::Process;
use kernel_host::{DriverError, Finding, KernelDevice, KernelRequest, LeakReport, Machine, OpenOptions};
use nt_types::{KERNEL_MODE, NtStatus};
use tempfile::TempDir;

/// Why a scenario ended early.
#[derive(Debug)]
#[expect(dead_code, reason = "read through Debug, in the message of a failed test")]
pub(crate) enum Broken {
    /// The driver could not be loaded or unloaded.
    Driver(DriverError),
    /// A request failed, or the machine has stopped.
    Status(NtStatus),
    /// The driver did something else than it should.
    Odd(String),
}

impl From<DriverError> for Broken {
    fn from(error: DriverError) -> Self {
        Self::Driver(error)
    }
}

impl From<NtStatus> for Broken {
    fn from(status: NtStatus) -> Self {
        Self::Status(status)
    }
}

/// Goes on only when the driver did what it should. Scenarios do not assert: with a mutant, they only have to get far enough.
pub(crate) fn same<T: PartialEq + Debug>(actual: &T, expected: &T) -> Result<(), Broken> {
    if actual == expected { Ok(()) } else { Err(Broken::Odd(format!("{actual:?} instead of {expected:?}"))) }
}

/// Time after which a wait that nothing ends is a deadlock: short, since some mutants are meant to hang.
const DEADLOCK: Duration = Duration::from_secs(1);

/// Processor time that a callback may take, in a loop of its own; ten times as long by the clock, where it calls something.
const TIME_LIMIT: Duration = Duration::from_millis(500);

/// `IRP_MJ_DEVICE_CONTROL`.
const DEVICE_CONTROL: u8 = 0x0E;

/// `FILE_CREATE`.
const CREATE: u32 = 2;

/// A machine on which one driver is installed.
#[derive(Debug)]
pub(crate) struct Rig {
    machine: Machine,
    /// Folder behind the volume; it has to stay as long as the machine.
    _disk: TempDir,
    service: String,
}

impl Rig {
    /// Installs the image with this name. It is not loaded yet.
    pub(crate) fn new(image: &str) -> Self {
        let disk = tempfile::tempdir().expect("a folder for the volume");
        std::fs::create_dir_all(disk.path().join("Windows/System32/drivers")).expect("folders on the volume");
        let machine = Machine::builder()
            .volume("C:", disk.path())
            .driver_time_limit(Some(TIME_LIMIT))
            .build()
            .expect("the machine starts");
        machine.set_deadlock_time(DEADLOCK);
        let folder = c_driver_dir().expect("the C drivers are built");
        let inf = if image.starts_with("flt_") { "flt_mutant.inf" } else { "wdm_mutant.inf" };
        let sys = folder.join(format!("{image}.sys"));
        let service = machine.install_service(&sys, Some(&folder.join(inf))).expect("the package installs");
        Self { machine, _disk: disk, service }
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// What was found; a worker thread may still be on its way to it.
    pub(crate) fn finding(&self) -> Option<Finding> {
        let started = Instant::now();
        while self.machine.finding().is_none() && started.elapsed() < DEADLOCK {
            std::thread::sleep(Duration::from_millis(5));
        }
        self.machine.finding()
    }

    /// Loads the driver.
    pub(crate) fn load(&self) -> Result<(), Broken> {
        Ok(self.machine.load_driver(&self.service)?)
    }

    /// Unloads the driver, whatever it thinks of that.
    pub(crate) fn unload(&self) -> Result<LeakReport, Broken> {
        Ok(self.machine.unload_driver(&self.service, true)?)
    }

    /// Opens the control device as another driver does.
    pub(crate) fn open(&self) -> Result<KernelDevice, Broken> {
        Ok(self.machine.open_device(r"\Device\Mutant")?)
    }

    /// Loads a minifilter, and a program makes, writes, reads and closes a file.
    pub(crate) fn open_a_file(&self) -> Result<(), Broken> {
        self.load()?;
        let file =
            self.program().create_file(r"\??\C:\Windows\file.cmd", &OpenOptions::new().write().disposition(CREATE))?;
        file.write(0, b"some bytes")?;
        same(&file.read(0, 4)?.as_slice(), &b"some".as_slice())?;
        drop(file);
        Ok(())
    }

    /// An administrator's program.
    pub(crate) fn program(&self) -> Arc<Process> {
        self.machine.process("program.exe").start().expect("there is room for a process")
    }

    /// Loads the driver and sends it one request: all that most mistakes need.
    pub(crate) fn exercise(&self) -> Result<(), Broken> {
        self.load()?;
        let device = self.open()?;
        control(&device, 0)
    }
}

/// Sends one device-control request and waits for its end, which must be a good one.
pub(crate) fn control(device: &KernelDevice, code: u32) -> Result<(), Broken> {
    let request = KernelRequest {
        major: DEVICE_CONTROL,
        mode: KERNEL_MODE,
        code,
        input: 0,
        input_length: 0,
        output: 0,
        output_length: 0,
    };
    let ended = device.send(&request)?;
    Ok(ended.Status.ok()?)
}
