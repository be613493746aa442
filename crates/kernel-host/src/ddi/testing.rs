//! Lets unit tests call exports as plain functions, as if a driver called them.
//!
//! No image and no thunk is involved; the calls are attributed to a driver named `test.sys`.

use std::cell::Cell;
use std::sync::Arc;

use super::{CallSite, Export, Target};
use crate::finding::Stopped;
use crate::machine::{Driver, Machine, MachineBuilder};
use crate::thread::Thread;

/// A machine with one pretended driver.
#[derive(Debug)]
pub(crate) struct Bench {
    machine: Machine,
    driver: Arc<Driver>,
}

/// Stands for exports that a test calls without saying which.
static ANY_EXPORT: Export = Export {
    module: "ntoskrnl.exe",
    name: "AnyExport",
    target: Target::Data(std::ptr::null()),
    max_irql: 31,
    failures: &[],
};

thread_local! {
    static EXPORT: Cell<&'static Export> = const { Cell::new(&ANY_EXPORT) };
}

impl Bench {
    /// A machine with nothing configured.
    pub(crate) fn new() -> Self {
        Self::with(Machine::builder())
    }

    /// A machine as configured.
    pub(crate) fn with(builder: MachineBuilder) -> Self {
        let machine = builder.build().expect("a test's machine can be built");
        let driver = Driver::without_image("test.sys");
        Self { machine, driver }
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }

    pub(crate) fn driver(&self) -> &Arc<Driver> {
        &self.driver
    }

    /// Runs host code as a thread of the machine.
    pub(crate) fn enter<R>(&self, body: impl FnOnce(&Arc<Thread>) -> R) -> R {
        Thread::enter(self.machine.inner(), body)
    }

    /// Runs `body` as driver code at `PASSIVE_LEVEL`; exports may be called as functions inside.
    pub(crate) fn run<R>(&self, body: impl FnOnce() -> R) -> Result<R, Stopped> {
        self.enter(|thread| thread.call_driver(&self.driver, "Test", 0, body))
    }

    /// As [`Bench::run`], with all calls counting as calls of `export`, so that its IRQL rule applies.
    pub(crate) fn call<R>(&self, export: &'static Export, body: impl FnOnce() -> R) -> Result<R, Stopped> {
        EXPORT.set(export);
        let result = self.run(body);
        EXPORT.set(&ANY_EXPORT);
        result
    }
}

/// What the import gate would have recorded.
pub(crate) fn call_site(driver: Arc<Driver>) -> CallSite {
    CallSite::new(driver, EXPORT.get(), 0, crate::cpu::registers::NonVolatile::default())
}
