//! An operation before any filter has seen it: what kind, on which file, with which parameters.

use std::sync::Arc;
use std::sync::atomic::AtomicU8;

use fltmgr::raw::{FLT_CALLBACK_DATA, FLT_IO_PARAMETER_BLOCK, FLT_PARAMETERS, FltCallbackDataFlags};
use nt_types::{FILE_OBJECT, IO_STATUS_BLOCK, IrpFlags, KERNEL_MODE, KPROCESSOR_MODE, NtStatus};

use super::major;
use crate::fs::io::OpenParameters;
use crate::fs::open::Open;
use crate::nt::ob::ObjectRef;
use crate::nt::raw::{Raw, field};
use crate::process::Process;

/// How an operation travels. The three differ in what callbacks may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A request packet: can be pended, synchronised, completed later.
    Irp,
    /// A direct call of the file system in the caller's thread; refused, it comes back as a packet.
    FastIo,
    /// A call of the memory or cache manager.
    FsFilter,
}

/// One operation on its way in.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) kind: Kind,
    pub(crate) mode: KPROCESSOR_MODE,
    /// All but the target instance, which is each filter's own.
    pub(crate) block: FLT_IO_PARAMETER_BLOCK,
    /// More `FLTFL_CALLBACK_DATA_*`.
    pub(crate) flags: FltCallbackDataFlags,
    /// What the file object stands for. `None` in a create, and where the file system looks for itself.
    pub(crate) open: Option<Arc<Open>>,
    /// A reference that lives as long as the operation, where its issuer does not wait.
    pub(crate) file: Option<ObjectRef>,
    /// The I/O manager's buffer, where the issuer does not wait: there as long as the operation.
    pub(crate) buffer: Option<Arc<[AtomicU8]>>,
    /// Who asks, when that is not the current process.
    pub(crate) process: Option<Arc<Process>>,
    /// What a create has beyond the parameters that filters see.
    pub(crate) create: Option<Box<OpenParameters>>,
}

// SAFETY: the pointers in the block are addresses of the machine's memory; the host dereferences them only where the
// operation's protocol says that they are valid, through `Raw`.
unsafe impl Send for Operation {}
// SAFETY: as above.
unsafe impl Sync for Operation {}

impl Operation {
    /// An operation without parameters on the file object at `file`.
    pub(crate) fn new(kind: Kind, major: u8, file: usize, mode: KPROCESSOR_MODE) -> Self {
        Self {
            kind,
            mode,
            block: FLT_IO_PARAMETER_BLOCK {
                IrpFlags: 0,
                MajorFunction: major,
                MinorFunction: 0,
                OperationFlags: 0,
                Reserved: 0,
                TargetFileObject: Raw::<FILE_OBJECT>::at(file).pointer(),
                TargetInstance: std::ptr::null_mut(),
                Parameters: FLT_PARAMETERS::ZERO,
            },
            flags: FltCallbackDataFlags::empty(),
            open: None,
            file: None,
            buffer: None,
            process: None,
            create: None,
        }
    }

    /// A packet for an open file.
    pub(crate) fn irp(major: u8, file: &ObjectRef, open: &Arc<Open>, mode: KPROCESSOR_MODE) -> Self {
        let mut operation = Self::new(Kind::Irp, major, file.body(), mode);
        operation.open = Some(Arc::clone(open));
        operation
    }

    /// IRP_MJ_CREATE. `security` is the address of its IO_SECURITY_CONTEXT.
    pub(crate) fn create(file: &ObjectRef, parameters: &OpenParameters, security: usize) -> Self {
        let operation = Self::new(Kind::Irp, major::CREATE, file.body(), parameters.mode);
        let mut operation = operation.irp_flags(IrpFlags::CREATE_OPERATION | IrpFlags::SYNCHRONOUS_API);
        operation.block.OperationFlags = parameters.operation_flags();
        operation.process = Some(Arc::clone(&parameters.process));
        operation.create = Some(Box::new(parameters.clone()));
        // Options in the low 24 bits, disposition above; attributes and share access are 16 bits each.
        operation
            .set(0, security)
            .set(8, parameters.options & 0x00FF_FFFF | parameters.disposition << 24)
            .set(16, parameters.file_attributes as u16)
            .set(18, parameters.share as u16)
            .set(24, parameters.ea.1)
            .set(32, parameters.ea.0)
            .set(40, parameters.allocation_size.unwrap_or(0))
    }

    /// Parameters of IRP_MJ_READ and IRP_MJ_WRITE.
    pub(crate) fn transfer(self, offset: i64, buffer: usize, length: u32, key: u32) -> Self {
        self.set(0, length).set(8, key).set(16, offset).set(24, buffer)
    }

    /// Parameters of IRP_MJ_QUERY_INFORMATION, IRP_MJ_SET_INFORMATION and their twins for volumes.
    pub(crate) fn information(self, class: u32, buffer: usize, length: u32) -> Self {
        let at = if self.block.MajorFunction == major::SET_INFORMATION { 32 } else { 16 };
        self.set(0, length).set(8, class).set(at, buffer)
    }

    /// Parameters of IRP_MJ_FILE_SYSTEM_CONTROL and IRP_MJ_DEVICE_CONTROL; the method is in the code.
    pub(crate) fn control(self, code: u32, input: (usize, u32), output: (usize, u32)) -> Self {
        self.set(0, output.1).set(8, input.1).set(16, code).set(24, input.0).set(32, output.0)
    }

    /// One parameter, by its offset in FLT_PARAMETERS.
    pub(crate) fn set<T: Copy>(mut self, offset: usize, value: T) -> Self {
        debug_assert!(offset + size_of::<T>() <= size_of::<FLT_PARAMETERS>(), "inside of the union");
        Raw::<u8>::at((&raw mut self.block.Parameters).expose_provenance()).field::<T>(offset).write(value);
        self
    }

    /// `IRP_MN_*`.
    pub(crate) fn minor(mut self, minor: u8) -> Self {
        self.block.MinorFunction = minor;
        self
    }

    /// `IRP_*` flags.
    pub(crate) fn irp_flags(mut self, flags: IrpFlags) -> Self {
        self.block.IrpFlags |= flags.bits();
        self
    }

    /// `SL_*` flags.
    pub(crate) fn operation_flags(mut self, flags: u8) -> Self {
        self.block.OperationFlags |= flags;
        self
    }

    /// Started by a filter.
    pub(crate) fn generated(mut self) -> Self {
        self.flags |= FltCallbackDataFlags::GENERATED_IO;
        self
    }

    /// The buffer is the I/O manager's.
    pub(crate) fn system_buffer(mut self) -> Self {
        self.flags |= FltCallbackDataFlags::SYSTEM_BUFFER;
        self
    }

    /// The issuer does not wait: the operation holds what it needs.
    pub(crate) fn kept(mut self, file: &ObjectRef, process: Option<&Arc<Process>>) -> Self {
        self.file = Some(file.clone());
        self.process = process.cloned();
        self
    }

    /// Past the cache.
    pub(crate) fn is_non_cached(&self) -> bool {
        self.block.IrpFlags & IrpFlags::NOCACHE.bits() != 0
    }

    /// The callback data for it. `thread` is the thread object's address.
    pub(crate) fn data(&self, thread: *const std::ffi::c_void) -> FLT_CALLBACK_DATA {
        let kind = match self.kind {
            Kind::Irp => FltCallbackDataFlags::IRP_OPERATION,
            Kind::FastIo => FltCallbackDataFlags::FAST_IO_OPERATION,
            Kind::FsFilter => FltCallbackDataFlags::FS_FILTER_OPERATION,
        };
        FLT_CALLBACK_DATA {
            Flags: (self.flags | kind).bits(),
            Thread: thread.cast_mut(),
            Iopb: std::ptr::null_mut(),
            IoStatus: IO_STATUS_BLOCK::new(NtStatus::SUCCESS, 0),
            TagData: std::ptr::null_mut(),
            FilterContext: [std::ptr::null_mut(); 4],
            RequestorMode: self.mode,
        }
    }

    /// IRP_MJ_CLOSE, where only the body is left of the file object.
    pub(crate) fn close(body: usize, open: &Arc<Open>) -> Self {
        let mut operation = Self::new(Kind::Irp, major::CLOSE, body, KERNEL_MODE);
        operation.open = Some(Arc::clone(open));
        operation.irp_flags(IrpFlags::CLOSE_OPERATION | IrpFlags::SYNCHRONOUS_API)
    }
}

/// Reads the parameters that `block` has now, as the member of the union that `T` is.
pub(crate) fn parameters<T: Copy>(block: Raw<FLT_IO_PARAMETER_BLOCK>) -> T {
    const { assert!(size_of::<T>() <= size_of::<FLT_PARAMETERS>(), "a member of the union") };
    field!(block, FLT_IO_PARAMETER_BLOCK, Parameters).cast::<T>().read()
}
