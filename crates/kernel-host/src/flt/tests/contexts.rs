//! Contexts: registering, allocating, setting, releasing, and when they end.

use std::cell::RefCell;

use fltmgr::raw::{
    FLT_CONTEXT_REGISTRATION, FLT_FILE_CONTEXT, FLT_INSTANCE_CONTEXT, FLT_SET_CONTEXT_KEEP_IF_EXISTS,
    FLT_STREAM_CONTEXT, FLT_STREAMHANDLE_CONTEXT, FLT_VARIABLE_SIZED_CONTEXTS, FLT_VOLUME_CONTEXT,
};

use super::files::{Opened, open};
use super::*;
use crate::conformance::conforms;

mod allocating;
mod deleting;
mod ending;
mod getting;
mod registration;
mod scanning;
mod setting;

/// `POOL_TYPE`.
const NON_PAGED: i32 = 0;
const PAGED: i32 = 1;

/// The types that can be set here.
const TYPES: [u16; 5] =
    [FLT_VOLUME_CONTEXT, FLT_INSTANCE_CONTEXT, FLT_FILE_CONTEXT, FLT_STREAM_CONTEXT, FLT_STREAMHANDLE_CONTEXT];

/// Those that are set on files.
const FILE_TYPES: [u16; 3] = [FLT_FILE_CONTEXT, FLT_STREAM_CONTEXT, FLT_STREAMHANDLE_CONTEXT];

/// No context.
const NONE: [usize; 0] = [];

const BOOT: &str = r"\??\C:\boot.rom";

thread_local! {
    /// Contexts that the cleanup callback saw on this thread: address, type, IRQL.
    static CLEANED: RefCell<Vec<(usize, u16, u8)>> = const { RefCell::new(Vec::new()) };
}

unsafe extern "efiapi" fn clean_up(context: flt::PFLT_CONTEXT, kind: u16) {
    CLEANED.with_borrow_mut(|cleaned| cleaned.push((context.addr(), kind, Thread::current().irql())));
}

/// What has been cleaned up since the last look.
fn cleaned() -> Vec<usize> {
    CLEANED.take().into_iter().map(|(context, ..)| context).collect()
}

/// A definition with a cleanup callback.
fn definition(kind: u16, size: usize) -> FLT_CONTEXT_REGISTRATION {
    FLT_CONTEXT_REGISTRATION {
        ContextType: kind,
        ContextCleanupCallback: Some(clean_up),
        Size: size,
        PoolTag: u32::from_le_bytes(*b"Ctxt"),
        ..FLT_CONTEXT_REGISTRATION::END
    }
}

/// A started filter that registers contexts.
struct Bed {
    setup: Setup,
    filter: usize,
}

impl Bed {
    /// All types with variable size.
    fn new() -> Self {
        Self::with(&TYPES.map(|kind| definition(kind, FLT_VARIABLE_SIZED_CONTEXTS)))
    }

    fn with(definitions: &[FLT_CONTEXT_REGISTRATION]) -> Self {
        Self::with_callbacks(definitions, FLT_REGISTRATION::EMPTY)
    }

    fn with_callbacks(definitions: &[FLT_CONTEXT_REGISTRATION], registration: FLT_REGISTRATION) -> Self {
        let setup = Setup::new();
        let list = [definitions, &[FLT_CONTEXT_REGISTRATION::END]].concat();
        let filter = setup.filter_with(&FLT_REGISTRATION { ContextRegistration: list.as_ptr(), ..registration });
        cleaned();
        Self { setup, filter }
    }

    fn instance(&self) -> usize {
        self.setup.instance()
    }

    fn volume(&self) -> usize {
        self.setup.volume()
    }

    /// Opens a file below the filter.
    fn open(&self, path: &str) -> Opened {
        let opened = open(&self.setup, self.filter, self.instance(), path).unwrap();
        assert_eq!(opened.status, NtStatus::SUCCESS);
        opened
    }

    fn try_allocate(&self, kind: u16, size: usize, pool: i32) -> Result<(NtStatus, usize), Rule> {
        let allocate = ddi!(FltAllocateContext: fn(usize, u16, usize, i32, usize) -> NtStatus);
        let (result, context) =
            with_out(|out| self.setup.call("FltAllocateContext", || allocate(self.filter, kind, size, pool, out)));
        Ok((result?, context))
    }

    /// A context of 16 bytes in nonpaged pool.
    fn allocate(&self, kind: u16) -> usize {
        let (status, context) = self.try_allocate(kind, 16, NON_PAGED).unwrap();
        assert_eq!(status, NtStatus::SUCCESS);
        context
    }

    fn release(&self, context: usize) -> Result<(), Rule> {
        self.setup.call("FltReleaseContext", || ddi!(FltReleaseContext: fn(usize))(context))
    }

    fn reference(&self, context: usize) -> Result<(), Rule> {
        self.setup.call("FltReferenceContext", || ddi!(FltReferenceContext: fn(usize))(context))
    }

    /// Allocates a context, sets it and releases the first reference: only the object refers to it.
    fn attach(&self, kind: u16, file: usize) -> usize {
        let context = self.allocate(kind);
        assert_eq!(self.set(kind, file, FLT_SET_CONTEXT_KEEP_IF_EXISTS, context), (NtStatus::SUCCESS, 0));
        self.release(context).unwrap();
        context
    }

    /// FltSetXxxContext: the status and `*OldContext`.
    fn set(&self, kind: u16, file: usize, operation: i32, context: usize) -> (NtStatus, usize) {
        let (result, old) = with_out(|old| self.set_with(kind, file, operation, context, old));
        (result.unwrap(), old)
    }

    fn set_with(&self, kind: u16, file: usize, operation: i32, new: usize, old: usize) -> Result<NtStatus, Rule> {
        type OnFile = extern "efiapi" fn(usize, usize, i32, usize, usize) -> NtStatus;
        let instance = self.instance();
        let on_file: OnFile = match kind {
            FLT_VOLUME_CONTEXT => {
                let set = ddi!(FltSetVolumeContext: fn(usize, i32, usize, usize) -> NtStatus);
                let volume = self.volume();
                return self.setup.run(|| set(volume, operation, new, old));
            }
            FLT_INSTANCE_CONTEXT => {
                let set = ddi!(FltSetInstanceContext: fn(usize, i32, usize, usize) -> NtStatus);
                return self.setup.run(|| set(instance, operation, new, old));
            }
            FLT_FILE_CONTEXT => ddi!(FltSetFileContext: fn(usize, usize, i32, usize, usize) -> NtStatus),
            FLT_STREAM_CONTEXT => ddi!(FltSetStreamContext: fn(usize, usize, i32, usize, usize) -> NtStatus),
            _ => ddi!(FltSetStreamHandleContext: fn(usize, usize, i32, usize, usize) -> NtStatus),
        };
        self.setup.run(|| on_file(instance, file, operation, new, old))
    }

    /// FltGetXxxContext: the status and `*Context`.
    fn get(&self, kind: u16, file: usize) -> (NtStatus, usize) {
        type OnFile = extern "efiapi" fn(usize, usize, usize) -> NtStatus;
        let instance = self.instance();
        let on_file: OnFile = match kind {
            FLT_VOLUME_CONTEXT => {
                let (filter, volume) = (self.filter, self.volume());
                let get = ddi!(FltGetVolumeContext: fn(usize, usize, usize) -> NtStatus);
                return with_out(|out| self.setup.run(|| get(filter, volume, out)).unwrap());
            }
            FLT_INSTANCE_CONTEXT => {
                let get = ddi!(FltGetInstanceContext: fn(usize, usize) -> NtStatus);
                return with_out(|out| self.setup.run(|| get(instance, out)).unwrap());
            }
            FLT_FILE_CONTEXT => ddi!(FltGetFileContext: fn(usize, usize, usize) -> NtStatus),
            FLT_STREAM_CONTEXT => ddi!(FltGetStreamContext: fn(usize, usize, usize) -> NtStatus),
            _ => ddi!(FltGetStreamHandleContext: fn(usize, usize, usize) -> NtStatus),
        };
        with_out(|out| self.setup.run(|| on_file(instance, file, out)).unwrap())
    }

    /// FltDeleteXxxContext with `OldContext` at `old`.
    fn delete(&self, kind: u16, file: usize, old: usize) -> NtStatus {
        type OnFile = extern "efiapi" fn(usize, usize, usize) -> NtStatus;
        let instance = self.instance();
        let on_file: OnFile = match kind {
            FLT_VOLUME_CONTEXT => {
                let (filter, volume) = (self.filter, self.volume());
                let delete = ddi!(FltDeleteVolumeContext: fn(usize, usize, usize) -> NtStatus);
                return self.setup.run(|| delete(filter, volume, old)).unwrap();
            }
            FLT_INSTANCE_CONTEXT => {
                let delete = ddi!(FltDeleteInstanceContext: fn(usize, usize) -> NtStatus);
                return self.setup.run(|| delete(instance, old)).unwrap();
            }
            FLT_FILE_CONTEXT => ddi!(FltDeleteFileContext: fn(usize, usize, usize) -> NtStatus),
            FLT_STREAM_CONTEXT => ddi!(FltDeleteStreamContext: fn(usize, usize, usize) -> NtStatus),
            _ => ddi!(FltDeleteStreamHandleContext: fn(usize, usize, usize) -> NtStatus),
        };
        self.setup.run(|| on_file(instance, file, old)).unwrap()
    }

    /// Unregisters, and sees that nothing is left.
    fn end(self) {
        self.setup.unregister(self.filter).unwrap();
        assert_eq!(self.setup.leaks(), Vec::<String>::new());
    }
}
