//! The filter manager's exports, called as a driver calls them. One test for each rule.

use std::sync::Arc;
use std::time::Duration;

use fltmgr::raw as flt;
use fltmgr::raw::{FLT_OPERATION_REGISTRATION, FLT_REGISTRATION};
use nt_types::{
    AccessMask, DRIVER_EXTENSION, DRIVER_OBJECT, IO_STATUS_BLOCK, NtStatus, OBJECT_ATTRIBUTES, ObjectFlags, PVOID,
    UNICODE_STRING,
};

use crate::ddi::testing::Bench;
use crate::finding::{Rule, Stopped};
use crate::fs::path::wide;
use crate::leak::LeakSource;
use crate::machine::Machine;
use crate::nt::hive::Value;
use crate::nt::raw::Raw;
use crate::process::Process;
use crate::thread::Thread;

mod asking;
mod attaching;
mod callbacks;
mod contexts;
mod files;
mod levels;
mod listing;
mod names;
mod opens;
mod operations;
mod ports;
mod registering;
mod services;
mod volumes;

/// A machine with a volume, a service key and a driver object, ready to register.
pub(super) struct Setup {
    folder: tempfile::TempDir,
    pub(super) bench: Bench,
    driver_object: Box<DRIVER_OBJECT>,
    _extension: Box<DRIVER_EXTENSION>,
    _name: Vec<u16>,
}

/// Calls an export: a function of a table by its name, as the type says.
macro_rules! ddi {
    ($name:ident: fn($($type:ty),*) $(-> $result:ty)?) => {{
        let export = crate::flt::exports()
            .chain(crate::nt::exports())
            .find(|export| export.name == stringify!($name))
            .expect("an export of that name");
        let crate::ddi::Target::Function(address) = export.target else { panic!("a function") };
        // SAFETY: the signature is the one that the export's page documents.
        unsafe { std::mem::transmute::<*const (), extern "efiapi" fn($($type),*) $(-> $result)?>(address) }
    }};
}
pub(super) use ddi;

/// Passes a name to an export: the address of a UNICODE_STRING.
pub(super) fn with_name<R>(text: &str, body: impl FnOnce(usize) -> R) -> R {
    let text = wide(text);
    let name = UNICODE_STRING::from_utf16(&text).unwrap();
    body((&raw const name).expose_provenance())
}

/// Calls an export with an out parameter: the result, and what was written.
pub(super) fn with_out<R>(body: impl FnOnce(usize) -> R) -> (R, usize) {
    // Neither NULL nor a pointer of anything, to see that it is overwritten.
    let mut slot = 0xBAD_usize;
    let at = (&raw mut slot).expose_provenance();
    let result = body(at);
    (result, Raw::<usize>::at(at).read())
}

impl Setup {
    pub(super) fn new() -> Self {
        let setup = Self::without_instances();
        let key = setup.service_key();
        key.create("Instances").unwrap().0.set_value("DefaultInstance", Value::text("Test Instance")).unwrap();
        let instance = key.create(r"Instances\Test Instance").unwrap().0;
        instance.set_value("Altitude", Value::text("370030")).unwrap();
        instance.set_value("Flags", Value::dword(0)).unwrap();
        setup
    }

    pub(super) fn without_instances() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("boot.rom"), b"0123456789").unwrap();
        let bench = Bench::with(Machine::builder().volume("C:", folder.path()));
        let mut name = wide("TestFilter");
        // SAFETY: all members are integers, pointers or Options of function pointers, for which zero is a value.
        let mut extension: Box<DRIVER_EXTENSION> = Box::new(unsafe { std::mem::zeroed() });
        extension.ServiceKeyName = UNICODE_STRING { Length: 20, MaximumLength: 20, Buffer: name.as_mut_ptr() };
        // SAFETY: as above.
        let mut driver_object: Box<DRIVER_OBJECT> = Box::new(unsafe { std::mem::zeroed() });
        driver_object.DriverExtension = &raw mut *extension;
        let setup = Self { folder, bench, driver_object, _extension: extension, _name: name };
        let _key = setup.service_key();
        setup
    }

    pub(super) fn service_key(&self) -> Arc<crate::nt::hive::Key> {
        let hive = self.bench.machine().inner().nt.hive();
        hive.create(r"\Registry\Machine\System\CurrentControlSet\Services\TestFilter").unwrap()
    }

    /// FltRegisterFilter: status and pointer.
    pub(super) fn register(&self, registration: &FLT_REGISTRATION) -> Result<(NtStatus, usize), Stopped> {
        let object = (&raw const *self.driver_object).expose_provenance();
        let registration = std::ptr::from_ref(registration).expose_provenance();
        self.bench.run(|| {
            let mut filter = 0usize;
            let out = (&raw mut filter).expose_provenance();
            let status = ddi!(FltRegisterFilter: fn(usize, usize, usize) -> NtStatus)(object, registration, out);
            (status, Raw::<usize>::at(out).read())
        })
    }

    /// A registered filter that filters.
    pub(super) fn filter(&self) -> usize {
        self.filter_with(&FLT_REGISTRATION::EMPTY)
    }

    pub(super) fn filter_with(&self, registration: &FLT_REGISTRATION) -> usize {
        let (status, filter) = self.register(registration).unwrap();
        assert_eq!(status, NtStatus::SUCCESS);
        assert_eq!(self.start(filter), Ok(NtStatus::SUCCESS));
        filter
    }

    pub(super) fn start(&self, filter: usize) -> Result<NtStatus, Rule> {
        self.run(|| ddi!(FltStartFiltering: fn(usize) -> NtStatus)(filter))
    }

    pub(super) fn unregister(&self, filter: usize) -> Result<(), Rule> {
        self.run(|| ddi!(FltUnregisterFilter: fn(usize))(filter))
    }

    /// Runs driver code; a finding is reported by its rule.
    pub(super) fn run<R>(&self, body: impl FnOnce() -> R) -> Result<R, Rule> {
        self.bench.run(body).map_err(|stopped| stopped.0.rule)
    }

    /// As [`Setup::run`], with the calls counted as calls of the export `name`.
    pub(super) fn call<R>(&self, name: &str, body: impl FnOnce() -> R) -> Result<R, Rule> {
        let export = super::exports().find(|export| export.name == name).expect("an export of that name");
        self.bench.call(export, body).map_err(|stopped| stopped.0.rule)
    }

    /// The volume C:, without a reference.
    pub(super) fn volume(&self) -> usize {
        super::volume_stacks(self.bench.machine().inner())[0].address
    }

    pub(super) fn dereference(&self, object: usize) -> Result<(), Rule> {
        self.run(|| ddi!(FltObjectDereference: fn(usize))(object))
    }

    /// The filter's instance on C:, without a reference.
    pub(super) fn instance(&self) -> usize {
        let stacks = super::volume_stacks(self.bench.machine().inner());
        stacks[0].instances().first().map(|instance| instance.address).expect("the filter is attached")
    }

    pub(super) fn process(&self) -> Arc<Process> {
        self.bench.machine().process("client.exe").start().unwrap()
    }

    /// Everything that the driver still owes to the filter manager and the object manager, as text.
    pub(super) fn leaks(&self) -> Vec<String> {
        let inner = self.bench.machine().inner();
        let driver = self.bench.driver();
        let mut leaks: Vec<String> = inner.flt.leaks(driver).iter().map(ToString::to_string).collect();
        leaks.extend(inner.nt.system_process(inner).handles().opened_by(driver));
        leaks.extend(inner.nt.objects().references_of(driver));
        leaks
    }
}
