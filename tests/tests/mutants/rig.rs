//! A machine with one small driver, and the steps that scenarios are made of.

use fwbroker_tests::drivers::c_driver_dir;
use kernel_host::{DriverError, KernelDevice, KernelRequest, LeakReport, Machine};
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

/// `IRP_MJ_DEVICE_CONTROL`.
const DEVICE_CONTROL: u8 = 0x0E;

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
        let machine = Machine::builder().volume("C:", disk.path()).build().expect("the machine starts");
        let folder = c_driver_dir().expect("the C drivers are built");
        let inf = folder.join("wdm_mutant.inf");
        let sys = folder.join(format!("{image}.sys"));
        let service = machine.install_service(&sys, Some(&inf)).expect("the package installs");
        Self { machine, _disk: disk, service }
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
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

    /// Sends one device-control request and waits for its end, which must be a good one.
    pub(crate) fn control(&self, device: &KernelDevice, code: u32) -> Result<(), Broken> {
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

    /// Loads the driver and sends it one request: all that most mistakes need.
    pub(crate) fn exercise(&self) -> Result<(), Broken> {
        self.load()?;
        let device = self.open()?;
        self.control(&device, 0)
    }
}
