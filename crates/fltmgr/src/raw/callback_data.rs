//! One I/O operation, as callbacks see it.

use super::{FLT_PARAMETERS, PFLT_FILTER, PFLT_INSTANCE, PFLT_VOLUME};
use nt_types::{FILE_OBJECT, IO_STATUS_BLOCK, KPROCESSOR_MODE, NtStatus, PVOID, assert_layout};

/// `FLT_CALLBACK_DATA`. Page: `ns-fltkernel-_flt_callback_data`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FLT_CALLBACK_DATA {
    /// [`FltCallbackDataFlags`] bits.
    pub Flags: u32,
    /// Thread that started the operation, or NULL.
    pub Thread: PVOID,
    /// Parameters. Changes need FltSetCallbackDataDirty.
    pub Iopb: *mut FLT_IO_PARAMETER_BLOCK,
    /// Outcome.
    pub IoStatus: IO_STATUS_BLOCK,
    /// Reparse data of a create.
    pub TagData: PVOID,
    /// `QueueLinks` and `QueueContext`, or `FilterContext`: for a filter that pended the operation.
    pub FilterContext: [PVOID; 4],
    /// Who asks.
    pub RequestorMode: KPROCESSOR_MODE,
}

assert_layout!(FLT_CALLBACK_DATA, 88, {
    Flags: 0, Thread: 8, Iopb: 16, IoStatus: 24, TagData: 40, FilterContext: 48, RequestorMode: 80,
});

bitflags::bitflags! {
    /// `FLTFL_CALLBACK_DATA_*`.
    #[repr(transparent)]
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct FltCallbackDataFlags: u32 {
        /// An IRP.
        const IRP_OPERATION = 0x0000_0001;
        /// Fast I/O.
        const FAST_IO_OPERATION = 0x0000_0002;
        /// A call of the memory or cache manager.
        const FS_FILTER_OPERATION = 0x0000_0004;
        /// The buffer is a system buffer.
        const SYSTEM_BUFFER = 0x0000_0008;
        /// A filter started it.
        const GENERATED_IO = 0x0001_0000;
        /// It was started again.
        const REISSUED_IO = 0x0002_0000;
        /// The instance goes.
        const DRAINING_IO = 0x0004_0000;
        /// After the operation.
        const POST_OPERATION = 0x0008_0000;
        /// The parameters were changed.
        const DIRTY = 0x8000_0000;
    }
}

/// `FLT_IO_PARAMETER_BLOCK`. Page: `ns-fltkernel-_flt_io_parameter_block`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FLT_IO_PARAMETER_BLOCK {
    /// `IRP_*` flags.
    pub IrpFlags: u32,
    /// `IRP_MJ_*`.
    pub MajorFunction: u8,
    /// `IRP_MN_*`.
    pub MinorFunction: u8,
    /// `SL_*` flags.
    pub OperationFlags: u8,
    /// Zero.
    pub Reserved: u8,
    /// File the operation is for.
    pub TargetFileObject: *mut FILE_OBJECT,
    /// Instance the operation is for.
    pub TargetInstance: PFLT_INSTANCE,
    /// Depends on the major function.
    pub Parameters: FLT_PARAMETERS,
}

assert_layout!(FLT_IO_PARAMETER_BLOCK, 72, {
    IrpFlags: 0, MajorFunction: 4, MinorFunction: 5, OperationFlags: 6, TargetFileObject: 8,
    TargetInstance: 16, Parameters: 24,
});

/// `FLT_RELATED_OBJECTS`. Page: `ns-fltkernel-_flt_related_objects`.
///
/// Valid, without references of their own, during the callback.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FLT_RELATED_OBJECTS {
    /// Size of this structure in bytes.
    pub Size: u16,
    /// Transaction context, as a number.
    pub TransactionContext: u16,
    /// The minifilter.
    pub Filter: PFLT_FILTER,
    /// The volume.
    pub Volume: PFLT_VOLUME,
    /// The instance.
    pub Instance: PFLT_INSTANCE,
    /// The file, or NULL.
    pub FileObject: *mut FILE_OBJECT,
    /// The transaction, or NULL.
    pub Transaction: PVOID,
}

assert_layout!(FLT_RELATED_OBJECTS, 48, {
    Size: 0, TransactionContext: 2, Filter: 8, Volume: 16, Instance: 24, FileObject: 32,
    Transaction: 40,
});

/// Major functions that only minifilters see: fast I/O and calls of the memory manager, as bytes
/// (`(UCHAR)-1` and so on in the header).
pub mod fs_filter_major {
    /// A section of the file is being made.
    pub const IRP_MJ_ACQUIRE_FOR_SECTION_SYNCHRONIZATION: u8 = 0xFF;
    /// ... is done.
    pub const IRP_MJ_RELEASE_FOR_SECTION_SYNCHRONIZATION: u8 = 0xFE;
    /// The modified page writer starts.
    pub const IRP_MJ_ACQUIRE_FOR_MOD_WRITE: u8 = 0xFD;
    /// ... is done.
    pub const IRP_MJ_RELEASE_FOR_MOD_WRITE: u8 = 0xFC;
    /// The cache flushes.
    pub const IRP_MJ_ACQUIRE_FOR_CC_FLUSH: u8 = 0xFB;
    /// ... is done.
    pub const IRP_MJ_RELEASE_FOR_CC_FLUSH: u8 = 0xFA;
    /// A query by name that may avoid an open.
    pub const IRP_MJ_QUERY_OPEN: u8 = 0xF9;
    /// May fast I/O be used?
    pub const IRP_MJ_FAST_IO_CHECK_IF_POSSIBLE: u8 = 0xF3;
    /// Fast query of network information.
    pub const IRP_MJ_NETWORK_QUERY_OPEN: u8 = 0xF2;
    /// Cache pages for reading.
    pub const IRP_MJ_MDL_READ: u8 = 0xF1;
    /// ... given back.
    pub const IRP_MJ_MDL_READ_COMPLETE: u8 = 0xF0;
    /// Cache pages for writing.
    pub const IRP_MJ_PREPARE_MDL_WRITE: u8 = 0xEF;
    /// ... given back.
    pub const IRP_MJ_MDL_WRITE_COMPLETE: u8 = 0xEE;
    /// A volume is being mounted.
    pub const IRP_MJ_VOLUME_MOUNT: u8 = 0xED;
    /// A volume is being dismounted.
    pub const IRP_MJ_VOLUME_DISMOUNT: u8 = 0xEC;
}

/// `PFLT_COMPLETE_CANCELED_CALLBACK`, called without any lock. Page: `nf-fltkernel-fltsetcancelcompletion`.
pub type PFLT_COMPLETE_CANCELED_CALLBACK = Option<unsafe extern "efiapi" fn(CallbackData: *mut FLT_CALLBACK_DATA)>;

/// `PFLT_GET_OPERATION_STATUS_CALLBACK`, IRQL <= APC_LEVEL in the thread that started the operation. Page:
/// `nc-fltkernel-pflt_get_operation_status_callback`.
pub type PFLT_GET_OPERATION_STATUS_CALLBACK = Option<
    unsafe extern "efiapi" fn(
        FltObjects: *const FLT_RELATED_OBJECTS,
        IopbSnapshot: *const FLT_IO_PARAMETER_BLOCK,
        OperationStatus: NtStatus,
        RequesterContext: PVOID,
    ),
>;

/// `PFLT_COMPLETED_ASYNC_IO_CALLBACK`, IRQL <= DISPATCH_LEVEL in any thread. Page:
/// `nc-fltkernel-pflt_completed_async_io_callback`.
pub type PFLT_COMPLETED_ASYNC_IO_CALLBACK =
    Option<unsafe extern "efiapi" fn(CallbackData: *mut FLT_CALLBACK_DATA, Context: PVOID)>;

/// `PFLT_DEFERRED_IO_WORKITEM_ROUTINE`, PASSIVE_LEVEL in a system worker thread. Page:
/// `nf-fltkernel-fltqueuedeferredioworkitem`.
pub type PFLT_DEFERRED_IO_WORKITEM_ROUTINE = Option<
    unsafe extern "efiapi" fn(
        FltWorkItem: super::PFLT_DEFERRED_IO_WORKITEM,
        CallbackData: *mut FLT_CALLBACK_DATA,
        Context: PVOID,
    ),
>;
