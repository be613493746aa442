//! Operations on their way through one or two filters whose callbacks are closures of the test.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fltmgr::raw::{FLT_CALLBACK_DATA, FLT_IO_PARAMETER_BLOCK, FLT_RELATED_OBJECTS};

use super::*;
use crate::fs::program::OpenOptions;
use crate::fs::program_file::ProgramFile;
use crate::nt::raw::field;

mod answers;
mod buffers;
mod cancelling;
mod closing;
mod extra;
mod fast_io;
mod inquiring;
mod kinds;
mod locking;
mod oplocks;
mod own;
mod parameters;
mod pended;
mod posts;
mod queues;
mod sections;
mod tracing;
mod urgency;

pub(super) const BOOT: &str = r"\??\C:\boot.rom";

/// One callback, as the closures get it.
pub(super) struct Op {
    pub(super) data: Raw<FLT_CALLBACK_DATA>,
    pub(super) related: FLT_RELATED_OBJECTS,
    /// Where a pre-operation callback puts its completion context.
    pub(super) context: Raw<usize>,
    /// What a post-operation callback gets back.
    pub(super) given: usize,
    /// Flags of a post-operation callback.
    pub(super) flags: u32,
}

impl Op {
    pub(super) fn block(&self) -> Raw<FLT_IO_PARAMETER_BLOCK> {
        Raw::of(field!(self.data, FLT_CALLBACK_DATA, Iopb).read())
    }

    pub(super) fn major(&self) -> u8 {
        field!(self.block(), FLT_IO_PARAMETER_BLOCK, MajorFunction).read()
    }

    pub(super) fn minor(&self) -> u8 {
        field!(self.block(), FLT_IO_PARAMETER_BLOCK, MinorFunction).read()
    }

    pub(super) fn irp_flags(&self) -> u32 {
        field!(self.block(), FLT_IO_PARAMETER_BLOCK, IrpFlags).read()
    }

    /// A parameter by its offset in the union.
    pub(super) fn parameter<T>(&self, offset: usize) -> Raw<T> {
        field!(self.block(), FLT_IO_PARAMETER_BLOCK, Parameters).cast::<u8>().field(offset)
    }

    pub(super) fn flag(&self, flag: u32) -> bool {
        field!(self.data, FLT_CALLBACK_DATA, Flags).read() & flag != 0
    }

    pub(super) fn status(&self) -> NtStatus {
        field!(self.data, FLT_CALLBACK_DATA, IoStatus).read().Status
    }

    pub(super) fn set_status(&self, status: NtStatus, information: usize) {
        field!(self.data, FLT_CALLBACK_DATA, IoStatus).write(IO_STATUS_BLOCK::new(status, information));
    }

    pub(super) fn complete(&self, status: NtStatus) -> i32 {
        self.set_status(status, 0);
        flt::FLT_PREOP_COMPLETE
    }

    pub(super) fn set_dirty(&self) {
        ddi!(FltSetCallbackDataDirty: fn(usize))(self.data.address());
    }

    pub(super) fn instance(&self) -> usize {
        self.related.Instance.addr()
    }

    pub(super) fn file(&self) -> usize {
        self.related.FileObject.addr()
    }
}

type Hook = Arc<dyn Fn(&Op) -> i32 + Send + Sync>;

/// Closures by instance: pre-operation at 0, post-operation at 1.
static HOOKS: Mutex<Option<HashMap<(usize, usize), Hook>>> = Mutex::new(None);

fn hooks() -> MutexGuard<'static, Option<HashMap<(usize, usize), Hook>>> {
    HOOKS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn hook(instance: usize, which: usize) -> Option<Hook> {
    hooks().as_ref()?.get(&(instance, which)).cloned()
}

unsafe extern "efiapi" fn pre(
    data: *mut FLT_CALLBACK_DATA,
    related: *const FLT_RELATED_OBJECTS,
    context: *mut PVOID,
) -> i32 {
    let related = Raw::of(related.cast_mut()).read();
    let op = Op { data: Raw::of(data), related, context: Raw::of(context.cast()), given: 0, flags: 0 };
    hook(op.instance(), 0).map_or(flt::FLT_PREOP_SUCCESS_NO_CALLBACK, |hook| hook(&op))
}

unsafe extern "efiapi" fn post(
    data: *mut FLT_CALLBACK_DATA,
    related: *const FLT_RELATED_OBJECTS,
    given: PVOID,
    flags: u32,
) -> i32 {
    let related = Raw::of(related.cast_mut()).read();
    let op = Op { data: Raw::of(data), related, context: Raw::NULL, given: given.addr(), flags };
    hook(op.instance(), 1).map_or(flt::FLT_POSTOP_FINISHED_PROCESSING, |hook| hook(&op))
}

/// A machine with filters on C:.
pub(super) struct Rig {
    pub(super) setup: Setup,
    pub(super) filter: usize,
    pub(super) instance: usize,
}

/// Registered majors and their flags, both callbacks each.
fn entries(majors: &[(u8, u32)]) -> Vec<FLT_OPERATION_REGISTRATION> {
    let entry = |(major, flags): &(u8, u32)| FLT_OPERATION_REGISTRATION {
        MajorFunction: *major,
        Flags: *flags,
        PreOperation: Some(pre),
        PostOperation: if *major == 0x10 { None } else { Some(post) },
        Reserved1: std::ptr::null_mut(),
    };
    let mut entries: Vec<_> = majors.iter().map(entry).collect();
    let mut end = entry(&(flt::IRP_MJ_OPERATION_END, 0));
    (end.PreOperation, end.PostOperation) = (None, None);
    entries.push(end);
    entries
}

impl Rig {
    /// One filter for these operations.
    pub(super) fn new(majors: &[u8]) -> Self {
        Self::with_flags(&majors.iter().map(|&major| (major, 0)).collect::<Vec<_>>())
    }

    pub(super) fn with_flags(majors: &[(u8, u32)]) -> Self {
        let setup = Setup::new();
        let entries = entries(majors);
        let filter =
            setup.filter_with(&FLT_REGISTRATION { OperationRegistration: entries.as_ptr(), ..FLT_REGISTRATION::EMPTY });
        let instance = setup.instance();
        Self { setup, filter, instance }
    }

    /// A second filter at another altitude: filter and instance.
    pub(super) fn add(&self, name: &str, altitude: &str, majors: &[u8]) -> (usize, usize) {
        let hive = self.setup.bench.machine().inner().nt.hive();
        let key = hive.create(&format!(r"\Registry\Machine\System\CurrentControlSet\Services\{name}")).unwrap();
        key.create("Instances").unwrap().0.set_value("DefaultInstance", Value::text(name)).unwrap();
        let definition = key.create(&format!(r"Instances\{name}")).unwrap().0;
        definition.set_value("Altitude", Value::text(altitude)).unwrap();
        definition.set_value("Flags", Value::dword(0)).unwrap();
        let text = Box::leak(wide(name).into_boxed_slice());
        // SAFETY: all members are integers, pointers or Options of function pointers, for which zero is a value.
        let extension: &mut DRIVER_EXTENSION = Box::leak(Box::new(unsafe { std::mem::zeroed() }));
        extension.ServiceKeyName = UNICODE_STRING::from_utf16(text).unwrap();
        // SAFETY: as above.
        let object: &mut DRIVER_OBJECT = Box::leak(Box::new(unsafe { std::mem::zeroed() }));
        object.DriverExtension = &raw mut *extension;
        let entries = entries(&majors.iter().map(|&major| (major, 0)).collect::<Vec<_>>());
        let registration = FLT_REGISTRATION { OperationRegistration: entries.as_ptr(), ..FLT_REGISTRATION::EMPTY };
        let (object, registration) =
            ((&raw const *object).expose_provenance(), (&raw const registration).expose_provenance());
        let filter = self
            .run(|| {
                let mut filter = 0usize;
                let out = (&raw mut filter).expose_provenance();
                let status = ddi!(FltRegisterFilter: fn(usize, usize, usize) -> NtStatus)(object, registration, out);
                assert_eq!(status, NtStatus::SUCCESS);
                Raw::<usize>::at(out).read()
            })
            .unwrap();
        assert_eq!(self.setup.start(filter), Ok(NtStatus::SUCCESS));
        let stacks = crate::flt::volume_stacks(self.setup.bench.machine().inner());
        let found = stacks[0].instances().iter().find(|instance| instance.filter.address == filter).unwrap().address;
        (filter, found)
    }

    pub(super) fn pre(&self, hook: impl Fn(&Op) -> i32 + Send + Sync + 'static) {
        Self::pre_of(self.instance, hook);
    }

    pub(super) fn post(&self, hook: impl Fn(&Op) -> i32 + Send + Sync + 'static) {
        Self::post_of(self.instance, hook);
    }

    pub(super) fn pre_of(instance: usize, hook: impl Fn(&Op) -> i32 + Send + Sync + 'static) {
        hooks().get_or_insert_default().insert((instance, 0), Arc::new(hook));
    }

    pub(super) fn post_of(instance: usize, hook: impl Fn(&Op) -> i32 + Send + Sync + 'static) {
        hooks().get_or_insert_default().insert((instance, 1), Arc::new(hook));
    }

    pub(super) fn run<R>(&self, body: impl FnOnce() -> R) -> Result<R, Rule> {
        self.setup.run(body)
    }

    pub(super) fn open(&self, options: OpenOptions) -> Result<ProgramFile, NtStatus> {
        self.setup.process().create_file(BOOT, &options)
    }

    pub(super) fn reader(&self) -> ProgramFile {
        self.open(OpenOptions::new()).unwrap()
    }

    pub(super) fn writer(&self) -> ProgramFile {
        self.open(OpenOptions::new().write()).unwrap()
    }

    /// The rule that stopped the machine.
    pub(super) fn finding(&self) -> (Rule, String) {
        let finding = self.setup.bench.machine().finding().expect("a finding");
        (finding.rule, finding.message)
    }

    pub(super) fn assert_no_finding(&self) {
        assert!(self.setup.bench.machine().finding().is_none(), "{:?}", self.setup.bench.machine().finding());
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // Addresses may come again in another test's machine.
        if let Some(hooks) = hooks().as_mut() {
            hooks.retain(|(instance, _), _| *instance != self.instance);
        }
    }
}

/// Shared between a test and its closures.
pub(super) fn log<T: Send>() -> Arc<Mutex<Vec<T>>> {
    Arc::default()
}

pub(super) fn push<T>(log: &Mutex<Vec<T>>, entry: T) {
    log.lock().unwrap().push(entry);
}

pub(super) fn take<T>(log: &Mutex<Vec<T>>) -> Vec<T> {
    std::mem::take(&mut log.lock().unwrap())
}

pub(super) const IRP: u32 = 1;
pub(super) const FAST_IO: u32 = 2;
pub(super) const FS_FILTER: u32 = 4;
