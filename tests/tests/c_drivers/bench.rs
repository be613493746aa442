//! A machine with one of the model drivers.

use std::path::Path;
use std::sync::Arc;

use fwbroker_tests::drivers::c_driver_dir;
use kernel_host::process::Process;
use kernel_host::{Machine, SweepReport, Trial};
use nt_types::NtStatus;
use tempfile::TempDir;

/// A machine on which one driver is installed.
#[derive(Debug)]
pub(crate) struct Bench {
    machine: Machine,
    disk: TempDir,
    service: String,
}

impl Bench {
    /// Installs the driver with this image name, and does not load it.
    pub(crate) fn installed(image: &str) -> Self {
        let disk = tempfile::tempdir().expect("a folder for the volume");
        std::fs::create_dir_all(disk.path().join("Windows/System32/drivers")).expect("folders on the volume");
        let machine = Machine::builder().volume("C:", disk.path()).build().expect("the machine starts");
        let sys = c_driver_dir().expect("the C drivers are built").join(image).with_extension("sys");
        let service = machine.install_service(&sys, None).expect("the package installs");
        Self { machine, disk, service }
    }

    /// Installs and loads the driver.
    pub(crate) fn started(image: &str) -> Self {
        let bench = Self::installed(image);
        bench.load().expect("the driver loads");
        bench
    }

    pub(crate) fn load(&self) -> Result<(), NtStatus> {
        self.machine.load_driver(&self.service).map_err(|error| error.status())
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Host folder of the volume `C:`.
    pub(crate) fn disk(&self) -> &Path {
        self.disk.path()
    }

    /// An administrator's program.
    pub(crate) fn program(&self) -> Arc<Process> {
        self.machine.process("program.exe").start().expect("there is room for a process")
    }

    /// Unloads the driver and checks that it kept all rules and left nothing.
    pub(crate) fn finish(self) {
        self.unload();
    }

    /// Unloads the driver and checks that it kept all rules and left nothing; the machine goes on.
    pub(crate) fn unload(&self) {
        if let Some(finding) = self.machine.finding() {
            panic!("the machine stopped: {finding}");
        }
        let report = self.machine.unload_driver(&self.service, false).expect("the driver unloads");
        assert!(report.is_clean(), "{report}");
    }

    /// Ends the faults of a trial: the driver must be loadable, and must leave nothing.
    pub(crate) fn recover(self, trial: &Trial) {
        trial.end();
        if let Some(finding) = self.machine.finding() {
            panic!("the machine stopped: {finding}");
        }
        if self.machine.drivers().is_empty() {
            self.load().expect("what failed once works again");
        }
        self.finish();
    }
}

/// The test fails when a run of a sweep went wrong, or nothing was tried.
pub(crate) fn check(report: &SweepReport) {
    println!("{report}");
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.exercised, report.sites.len(), "{report}");
    assert!(report.exercised > 0, "nothing was tried");
}
