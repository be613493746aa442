//! A machine with a system volume and the release drivers, and the checks that end every test.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use kernel_host::process::Process;
use kernel_host::registry::Value;
use kernel_host::{LeakReport, Machine, MachineBuilder, MappedView, OpenOptions, ProgramFile};
use nt_types::NtStatus;
use tempfile::TempDir;

use crate::client::Client;
use crate::drivers::driver_dir;

/// Service of the driver under test.
pub const SERVICE: &str = "FwBroker";

/// Service of the sample NIC driver.
pub const NIC_SERVICE: &str = "samplenic";

/// Registry key with the driver's settings.
const PARAMETERS: &str = r"\Registry\Machine\System\CurrentControlSet\Services\FwBroker\Parameters";

/// Where firmware lies by default, on the host below the volume and in the machine.
const FIRMWARE_FOLDER: &str = "Windows/Firmware";
const FIRMWARE_PATH: &str = r"\??\C:\Windows\Firmware";

/// A machine for one test.
///
/// Dropping it without [`finish`](Self::finish) checks nothing: every test that passes ends with one of the two `finish`es.
#[derive(Debug)]
pub struct Bench {
    machine: Machine,
    disk: TempDir,
}

impl Bench {
    /// A machine that runs fwbroker.sys, with the settings of its INF.
    #[must_use]
    pub fn start() -> Self {
        Self::with_parameters(&[])
    }

    /// A machine that runs fwbroker.sys, with some of its `REG_DWORD` settings changed.
    #[must_use]
    pub fn with_parameters(parameters: &[(&str, u32)]) -> Self {
        let values: Vec<_> = parameters.iter().map(|(name, number)| (*name, Value::dword(*number))).collect();
        Self::with_values(&values)
    }

    /// A machine that runs fwbroker.sys, with some of its settings changed to anything.
    #[must_use]
    pub fn with_values(values: &[(&str, Value)]) -> Self {
        let bench = Self::installed(values);
        bench.load();
        bench
    }

    /// As [`start`](Self::start), without a trace of calls, for long runs.
    #[must_use]
    pub fn untraced() -> Self {
        let bench = Self::of(Machine::builder().without_trace());
        bench.install_from_package("fwbroker.sys");
        bench.load();
        bench
    }

    /// A machine on which fwbroker is not installed.
    #[must_use]
    pub fn without_broker() -> Self {
        Self::of(Machine::builder())
    }

    /// A machine as configured, with a system volume.
    fn of(builder: MachineBuilder) -> Self {
        let disk = tempfile::tempdir().expect("a folder for the volume");
        for folder in [FIRMWARE_FOLDER, "Windows/System32/drivers"] {
            std::fs::create_dir_all(disk.path().join(folder)).expect("folders on the volume");
        }
        let machine = builder.volume("C:", disk.path()).build().expect("the machine starts");
        Self { machine, disk }
    }

    /// A machine on which fwbroker is installed, with some of the settings of its INF changed, and not loaded.
    #[must_use]
    pub fn installed(values: &[(&str, Value)]) -> Self {
        let bench = Self::without_broker();
        bench.install_from_package("fwbroker.sys");
        let key = bench.machine.registry().open(PARAMETERS).expect("the INF made it");
        for (name, value) in values {
            key.set_value(name, value.clone()).expect("nobody deletes it");
        }
        bench
    }

    /// A machine on which fwbroker is installed but its filter instances are missing; not loaded.
    #[must_use]
    pub fn without_instances() -> Self {
        let bench = Self::without_broker();
        bench.install_from_package("fwbroker.sys");
        let key = bench.machine.registry().open(PARAMETERS).expect("the INF made it");
        let instances = key.open("Instances").expect("the INF made it");
        for name in instances.subkeys().expect("nobody deletes it") {
            instances.delete(&name).expect("an instance has no subkeys");
        }
        key.delete("Instances").expect("it is empty now");
        bench
    }

    /// Installs one of the release drivers from its package: the .sys with the INF beside it.
    pub fn install_from_package(&self, driver: &str) {
        let folder = driver_dir().expect("the drivers are built");
        self.machine.install_service(&folder.join(driver), None).expect("the package installs");
    }

    /// Installs samplenic.sys.
    pub fn install_nic_driver(&self) {
        self.install_from_package("samplenic.sys");
    }

    /// Installs and loads samplenic.sys, once.
    pub fn load_nic_driver(&self) {
        if self.machine.is_device_service(NIC_SERVICE).is_err() {
            self.install_nic_driver();
            self.machine.load_driver(NIC_SERVICE).expect("samplenic.sys loads");
        }
    }

    /// The machine.
    #[must_use]
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Host folder of the default firmware root.
    #[must_use]
    pub fn firmware_dir(&self) -> PathBuf {
        self.disk.path().join(FIRMWARE_FOLDER)
    }

    /// Puts a file below the default root; its NT path.
    pub fn write_firmware(&self, name: &str, content: &[u8]) -> String {
        self.write_file(&format!("{FIRMWARE_FOLDER}/{name}"), content);
        format!(r"{FIRMWARE_PATH}\{name}")
    }

    /// Puts a file anywhere on the volume, with its folders.
    pub fn write_file(&self, path: &str, content: &[u8]) {
        let path = self.disk.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).expect("folders on the volume");
        std::fs::write(path, content).expect("the volume can be written");
    }

    /// Loads fwbroker.sys.
    pub fn load(&self) {
        self.machine.load_driver(SERVICE).expect("fwbroker.sys loads");
    }

    /// Whether fwbroker.sys is loaded.
    #[must_use]
    pub fn is_loaded(&self) -> bool {
        self.machine.drivers().iter().any(|driver| driver.service == SERVICE)
    }

    /// Tries to load fwbroker.sys.
    pub fn load_again(&self) -> Result<(), NtStatus> {
        self.machine.load_driver(SERVICE).map_err(|error| error.status())
    }

    /// Tries to load fwbroker.sys once more, as another service with an image file and an altitude of its own.
    ///
    /// # Panics
    /// When the copy cannot be made.
    pub fn load_twin(&self) -> Result<(), NtStatus> {
        let folder = driver_dir().expect("the drivers are built");
        let inf = std::fs::read_to_string(folder.join("fwbroker.inf")).expect("the INF lies beside the driver");
        let inf = inf.replace("\"FwBroker\"", "\"FwTwin\"").replace("fwbroker.sys", "fwtwin.sys");
        let (sys, inf_path) = (self.disk.path().join("fwtwin.sys"), self.disk.path().join("fwtwin.inf"));
        std::fs::write(&inf_path, inf).expect("the volume can be written");
        std::fs::copy(folder.join("fwbroker.sys"), &sys).expect("the volume can be written");
        let service = self.machine.install_service(&sys, Some(&inf_path)).expect("the package installs");
        assert_ne!(service, SERVICE, "the copy is a service of its own");
        self.machine.load_driver(&service).map_err(|error| error.status())
    }

    /// Unloads fwbroker.sys as `fltmc unload` does; it may refuse.
    pub fn unload(&self) -> Result<(), NtStatus> {
        let report = self.machine.unload_driver(SERVICE, false).map_err(|error| error.status())?;
        assert_clean(&report);
        Ok(())
    }

    /// Unloads fwbroker.sys as stopping the service does.
    pub fn unload_mandatory(&self) {
        let report = self.machine.unload_driver(SERVICE, true).expect("it cannot refuse");
        assert_clean(&report);
    }

    /// A client that has said hello.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::start(&self.machine)
    }

    /// A client that has said hello, unless the driver is gone or going.
    pub fn try_client(&self) -> Result<Client, NtStatus> {
        let client = Client::connect(self.administrator())?;
        client.hello().map_err(|refused| refused.status)?;
        Ok(client)
    }

    /// An administrator's process that does nothing yet.
    #[must_use]
    pub fn administrator(&self) -> Arc<Process> {
        self.machine.process("program.exe").start().expect("there is room for a process")
    }

    /// A program that has the file open for writing.
    #[must_use]
    pub fn writer(&self, path: &str) -> ProgramFile {
        self.try_writer(path).expect("nobody keeps writers out")
    }

    /// Tries to open the file for writing, sharing everything.
    pub fn try_writer(&self, path: &str) -> Result<ProgramFile, NtStatus> {
        self.administrator().create_file(path, &OpenOptions::new().write())
    }

    /// A view of the file through which a program can write, with the file itself closed again.
    #[must_use]
    pub fn map_writable(&self, path: &str) -> MappedView {
        self.writer(path).map_writable().expect("it was opened for writing")
    }

    /// What the drivers printed.
    #[must_use]
    pub fn log(&self) -> String {
        self.machine.debug_log().join("\n")
    }

    /// Whether a driver called this DDI.
    #[must_use]
    pub fn traced(&self, ddi: &str) -> bool {
        self.machine.trace().iter().any(|entry| entry.name == ddi)
    }

    /// Kernel handles that fwbroker.sys has open at this moment.
    #[must_use]
    pub fn open_handles(&self) -> u64 {
        let drivers = self.machine.drivers();
        let driver = drivers.iter().find(|driver| driver.name == "fwbroker.sys").expect("it is loaded");
        self.machine.held_by(driver).count(kernel_host::LeakKind::Handle)
    }

    /// Unloads everything, which the drivers must allow now, and checks that nothing is left.
    pub fn finish(self) {
        self.unload().expect("nobody uses fwbroker.sys any more");
        self.finish_unloaded();
    }

    /// As [`finish`](Self::finish), where fwbroker.sys is not loaded (any more).
    pub fn finish_unloaded(self) {
        if self.machine.drivers().iter().any(|driver| driver.name == "samplenic.sys") {
            let report = self.machine.unload_driver(NIC_SERVICE, true).expect("samplenic.sys unloads");
            assert_clean(&report);
        }
        assert!(self.machine.drivers().is_empty(), "all drivers are gone");
        if let Some(finding) = self.machine.finding() {
            panic!("the machine stopped: {finding}");
        }
    }
}

/// 0 handles, 0 pool bytes, 0 references, 0 of anything else.
fn assert_clean(report: &LeakReport) {
    assert!(report.is_clean(), "left behind: {report}");
}
