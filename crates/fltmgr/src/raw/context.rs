//! Contexts: memory of a minifilter that FltMgr attaches to its objects.

use super::PFLT_CONTEXT;
use nt_types::{PVOID, assert_layout};

/// `FLT_CONTEXT_REGISTRATION`. Page: `ns-fltkernel-_flt_context_registration`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FLT_CONTEXT_REGISTRATION {
    /// `FLT_*_CONTEXT`, or [`FLT_CONTEXT_END`].
    pub ContextType: u16,
    /// 0 or [`FLTFL_CONTEXT_REGISTRATION_NO_EXACT_SIZE_MATCH`].
    pub Flags: u16,
    /// Runs before FltMgr frees a context; NULL for none.
    pub ContextCleanupCallback: PFLT_CONTEXT_CLEANUP_CALLBACK,
    /// Bytes of the filter's part, or [`FLT_VARIABLE_SIZED_CONTEXTS`].
    pub Size: usize,
    /// Tag of the memory. Not zero, unless the filter allocates by itself.
    pub PoolTag: u32,
    /// Own allocator, or NULL.
    pub ContextAllocateCallback: PFLT_CONTEXT_ALLOCATE_CALLBACK,
    /// Own release routine, or NULL.
    pub ContextFreeCallback: PFLT_CONTEXT_FREE_CALLBACK,
    /// NULL.
    pub Reserved1: PVOID,
}

assert_layout!(FLT_CONTEXT_REGISTRATION, 56, {
    ContextType: 0, Flags: 2, ContextCleanupCallback: 8, Size: 16, PoolTag: 24,
    ContextAllocateCallback: 32, ContextFreeCallback: 40, Reserved1: 48,
});

// SAFETY: read only, without interior (rule: registration arrays are constants).
unsafe impl Sync for FLT_CONTEXT_REGISTRATION {}

impl FLT_CONTEXT_REGISTRATION {
    /// The entry that ends an array.
    pub const END: Self = Self {
        ContextType: FLT_CONTEXT_END,
        Flags: 0,
        ContextCleanupCallback: None,
        Size: 0,
        PoolTag: 0,
        ContextAllocateCallback: None,
        ContextFreeCallback: None,
        Reserved1: core::ptr::null_mut(),
    };
}

/// `FLT_VOLUME_CONTEXT`: one for each filter on a volume, nonpaged.
pub const FLT_VOLUME_CONTEXT: u16 = 0x0001;
/// `FLT_INSTANCE_CONTEXT`: one for an instance.
pub const FLT_INSTANCE_CONTEXT: u16 = 0x0002;
/// `FLT_FILE_CONTEXT`: one for each instance on a file, whichever stream.
pub const FLT_FILE_CONTEXT: u16 = 0x0004;
/// `FLT_STREAM_CONTEXT`: one for each instance on a stream.
pub const FLT_STREAM_CONTEXT: u16 = 0x0008;
/// `FLT_STREAMHANDLE_CONTEXT`: one for each instance on a file object.
pub const FLT_STREAMHANDLE_CONTEXT: u16 = 0x0010;
/// `FLT_TRANSACTION_CONTEXT`.
pub const FLT_TRANSACTION_CONTEXT: u16 = 0x0020;
/// `FLT_SECTION_CONTEXT`.
pub const FLT_SECTION_CONTEXT: u16 = 0x0040;
/// `FLT_ALL_CONTEXTS`: every type, where contexts are asked for.
pub const FLT_ALL_CONTEXTS: u16 = 0x007F;
/// Ends an array of [`FLT_CONTEXT_REGISTRATION`].
pub const FLT_CONTEXT_END: u16 = 0xFFFF;

/// Size of contexts that are allocated with any size.
pub const FLT_VARIABLE_SIZED_CONTEXTS: usize = usize::MAX;

/// A fixed size also serves requests for less.
pub const FLTFL_CONTEXT_REGISTRATION_NO_EXACT_SIZE_MATCH: u16 = 1;

/// `FltSetXxxContext`: takes the place of a context that is set already.
pub const FLT_SET_CONTEXT_REPLACE_IF_EXISTS: i32 = 0;
/// `FltSetXxxContext`: leaves a context that is set already where it is.
pub const FLT_SET_CONTEXT_KEEP_IF_EXISTS: i32 = 1;

/// `PFLT_CONTEXT_CLEANUP_CALLBACK`, IRQL <= APC_LEVEL. Page: `nc-fltkernel-pflt_context_cleanup_callback`.
pub type PFLT_CONTEXT_CLEANUP_CALLBACK = Option<unsafe extern "efiapi" fn(Context: PFLT_CONTEXT, ContextType: u16)>;

/// `PFLT_CONTEXT_ALLOCATE_CALLBACK`, IRQL <= APC_LEVEL. NULL when memory is short.
/// Page: `nc-fltkernel-pflt_context_allocate_callback`.
///
/// `Size` counts FltMgr's part too, which lies before the filter's.
pub type PFLT_CONTEXT_ALLOCATE_CALLBACK =
    Option<unsafe extern "efiapi" fn(PoolType: i32, Size: usize, ContextType: u16) -> PVOID>;

/// `PFLT_CONTEXT_FREE_CALLBACK`, IRQL <= APC_LEVEL. Gets what the allocation returned.
/// Page: `nc-fltkernel-pflt_context_free_callback`.
pub type PFLT_CONTEXT_FREE_CALLBACK = Option<unsafe extern "efiapi" fn(Pool: PVOID, ContextType: u16)>;

/// `FLT_RELATED_CONTEXTS`: a filter's contexts for the objects of an operation. Page: `ns-fltkernel-_flt_related_contexts`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FLT_RELATED_CONTEXTS {
    /// Of the volume.
    pub VolumeContext: PFLT_CONTEXT,
    /// Of the instance.
    pub InstanceContext: PFLT_CONTEXT,
    /// Of the file.
    pub FileContext: PFLT_CONTEXT,
    /// Of the stream.
    pub StreamContext: PFLT_CONTEXT,
    /// Of the file object.
    pub StreamHandleContext: PFLT_CONTEXT,
    /// Of the transaction.
    pub TransactionContext: PFLT_CONTEXT,
}

assert_layout!(FLT_RELATED_CONTEXTS, 48, {
    VolumeContext: 0, InstanceContext: 8, FileContext: 16, StreamContext: 24, StreamHandleContext: 32,
    TransactionContext: 40,
});

/// `FLT_RELATED_CONTEXTS_EX`: as [`FLT_RELATED_CONTEXTS`], with the section's. Page: `ns-fltkernel-_flt_related_contexts_ex`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FLT_RELATED_CONTEXTS_EX {
    /// Of the volume.
    pub VolumeContext: PFLT_CONTEXT,
    /// Of the instance.
    pub InstanceContext: PFLT_CONTEXT,
    /// Of the file.
    pub FileContext: PFLT_CONTEXT,
    /// Of the stream.
    pub StreamContext: PFLT_CONTEXT,
    /// Of the file object.
    pub StreamHandleContext: PFLT_CONTEXT,
    /// Of the transaction.
    pub TransactionContext: PFLT_CONTEXT,
    /// Of the section.
    pub SectionContext: PFLT_CONTEXT,
}

assert_layout!(FLT_RELATED_CONTEXTS_EX, 56, {
    VolumeContext: 0, InstanceContext: 8, FileContext: 16, StreamContext: 24, StreamHandleContext: 32,
    TransactionContext: 40, SectionContext: 48,
});
