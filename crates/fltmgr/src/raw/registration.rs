//! What a minifilter tells FltMgr about itself.

use super::{
    FLT_CALLBACK_DATA, FLT_CONTEXT_REGISTRATION, FLT_RELATED_OBJECTS, PFLT_GENERATE_FILE_NAME,
    PFLT_NORMALIZE_CONTEXT_CLEANUP, PFLT_NORMALIZE_NAME_COMPONENT, PFLT_NORMALIZE_NAME_COMPONENT_EX,
};
use nt_types::{NtStatus, PVOID, UNICODE_STRING, assert_layout};

/// `FLT_REGISTRATION`. Page: `ns-fltkernel-_flt_registration`.
///
/// FltMgr copies it in FltRegisterFilter; the arrays that it points at must stay.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FLT_REGISTRATION {
    /// Size of this structure in bytes.
    pub Size: u16,
    /// [`FLT_REGISTRATION_VERSION`].
    pub Version: u16,
    /// [`FltRegistrationFlags`] bits.
    pub Flags: u32,
    /// Contexts, ending in an entry of type [`FLT_CONTEXT_END`](super::FLT_CONTEXT_END); NULL for none.
    pub ContextRegistration: *const FLT_CONTEXT_REGISTRATION,
    /// Operations, ending in an entry for [`IRP_MJ_OPERATION_END`]; NULL for none.
    pub OperationRegistration: *const FLT_OPERATION_REGISTRATION,
    /// NULL: the minifilter can never be unloaded.
    pub FilterUnloadCallback: PFLT_FILTER_UNLOAD_CALLBACK,
    /// NULL: attach to every volume.
    pub InstanceSetupCallback: PFLT_INSTANCE_SETUP_CALLBACK,
    /// NULL: manual detach is refused.
    pub InstanceQueryTeardownCallback: PFLT_INSTANCE_QUERY_TEARDOWN_CALLBACK,
    /// Teardown begins.
    pub InstanceTeardownStartCallback: PFLT_INSTANCE_TEARDOWN_CALLBACK,
    /// Teardown is done but for the filter's own references.
    pub InstanceTeardownCompleteCallback: PFLT_INSTANCE_TEARDOWN_CALLBACK,
    /// Name provider callback, NULL for filters that change no names.
    pub GenerateFileNameCallback: PFLT_GENERATE_FILE_NAME,
    /// Name provider callback.
    pub NormalizeNameComponentCallback: PFLT_NORMALIZE_NAME_COMPONENT,
    /// Name provider callback.
    pub NormalizeContextCleanupCallback: PFLT_NORMALIZE_CONTEXT_CLEANUP,
    /// Transactions.
    pub TransactionNotificationCallback: PVOID,
    /// Name provider callback.
    pub NormalizeNameComponentExCallback: PFLT_NORMALIZE_NAME_COMPONENT_EX,
    /// Data-scan sections. Since version 0x0203.
    pub SectionNotificationCallback: PVOID,
}

assert_layout!(FLT_REGISTRATION, 112, {
    Size: 0, Version: 2, Flags: 4, ContextRegistration: 8, OperationRegistration: 16,
    FilterUnloadCallback: 24, InstanceSetupCallback: 32, InstanceQueryTeardownCallback: 40,
    InstanceTeardownStartCallback: 48, InstanceTeardownCompleteCallback: 56,
    GenerateFileNameCallback: 64, NormalizeNameComponentCallback: 72,
    NormalizeContextCleanupCallback: 80, TransactionNotificationCallback: 88,
    NormalizeNameComponentExCallback: 96, SectionNotificationCallback: 104,
});

impl FLT_REGISTRATION {
    /// A registration of this version without any callback.
    pub const EMPTY: Self = Self {
        Size: size_of::<Self>() as u16,
        Version: FLT_REGISTRATION_VERSION,
        Flags: 0,
        ContextRegistration: core::ptr::null(),
        OperationRegistration: core::ptr::null(),
        FilterUnloadCallback: None,
        InstanceSetupCallback: None,
        InstanceQueryTeardownCallback: None,
        InstanceTeardownStartCallback: None,
        InstanceTeardownCompleteCallback: None,
        GenerateFileNameCallback: None,
        NormalizeNameComponentCallback: None,
        NormalizeContextCleanupCallback: None,
        TransactionNotificationCallback: core::ptr::null_mut(),
        NormalizeNameComponentExCallback: None,
        SectionNotificationCallback: core::ptr::null_mut(),
    };
}

// SAFETY: the structure is read only, and so is what its pointers lead to (rule: FltMgr copies it).
unsafe impl Sync for FLT_REGISTRATION {}

/// Version 2.03: Windows 8 and later.
pub const FLT_REGISTRATION_VERSION: u16 = 0x0203;

bitflags::bitflags! {
    /// `FLTFL_REGISTRATION_*`.
    #[repr(transparent)]
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct FltRegistrationFlags: u32 {
        /// `sc stop` fails without asking the filter.
        const DO_NOT_SUPPORT_SERVICE_STOP = 1;
        /// Attaches to named pipes and mailslots too.
        const SUPPORT_NPFS_MSFS = 2;
        /// Attaches to DAX volumes too.
        const SUPPORT_DAX_VOLUME = 4;
        /// Knows Windows Core OS.
        const SUPPORT_WCOS = 8;
    }
}

/// `FLT_OPERATION_REGISTRATION`. Page: `ns-fltkernel-_flt_operation_registration`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FLT_OPERATION_REGISTRATION {
    /// `IRP_MJ_*`, or [`IRP_MJ_OPERATION_END`].
    pub MajorFunction: u8,
    /// [`FltOperationFlags`] bits.
    pub Flags: u32,
    /// Runs before the file system.
    pub PreOperation: PFLT_PRE_OPERATION_CALLBACK,
    /// Runs after it.
    pub PostOperation: PFLT_POST_OPERATION_CALLBACK,
    /// NULL.
    pub Reserved1: PVOID,
}

assert_layout!(FLT_OPERATION_REGISTRATION, 32, {
    MajorFunction: 0, Flags: 4, PreOperation: 8, PostOperation: 16, Reserved1: 24,
});

// SAFETY: read only, without interior (rule: registration arrays are constants).
unsafe impl Sync for FLT_OPERATION_REGISTRATION {}

/// Ends an array of [`FLT_OPERATION_REGISTRATION`].
pub const IRP_MJ_OPERATION_END: u8 = 0x80;

bitflags::bitflags! {
    /// `FLTFL_OPERATION_REGISTRATION_*`.
    #[repr(transparent)]
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct FltOperationFlags: u32 {
        /// Not for paging I/O.
        const SKIP_PAGING_IO = 1;
        /// Not for cached I/O, and no fast I/O.
        const SKIP_CACHED_IO = 2;
        /// Only for volume opens.
        const SKIP_NON_DASD_IO = 4;
        /// Not for non-cached I/O that is not paging.
        const SKIP_NON_CACHED_NON_PAGING_IO = 8;
    }
}

/// `PFLT_FILTER_UNLOAD_CALLBACK`, PASSIVE_LEVEL. Page: `nc-fltkernel-pflt_filter_unload_callback`.
///
/// `Flags` is 0 or [`FLTFL_FILTER_UNLOAD_MANDATORY`]; a refusal of a mandatory unload is ignored.
pub type PFLT_FILTER_UNLOAD_CALLBACK = Option<unsafe extern "efiapi" fn(Flags: u32) -> NtStatus>;

/// The unload cannot be refused.
pub const FLTFL_FILTER_UNLOAD_MANDATORY: u32 = 1;

/// `PFLT_INSTANCE_SETUP_CALLBACK`, PASSIVE_LEVEL. Page: `nc-fltkernel-pflt_instance_setup_callback`.
pub type PFLT_INSTANCE_SETUP_CALLBACK = Option<
    unsafe extern "efiapi" fn(
        FltObjects: *const FLT_RELATED_OBJECTS,
        Flags: u32,
        VolumeDeviceType: u32,
        VolumeFilesystemType: i32,
    ) -> NtStatus,
>;

bitflags::bitflags! {
    /// `FLTFL_INSTANCE_SETUP_*`.
    #[repr(transparent)]
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct FltInstanceSetupFlags: u32 {
        /// Attached because of the registry.
        const AUTOMATIC_ATTACHMENT = 1;
        /// Attached on request.
        const MANUAL_ATTACHMENT = 2;
        /// The volume was just mounted.
        const NEWLY_MOUNTED_VOLUME = 4;
        /// The volume has no storage behind it.
        const DETACHED_VOLUME = 8;
        /// A developer volume.
        const DEV_VOLUME = 0x10;
        /// A trusted developer volume.
        const TRUSTED_VOLUME = 0x20;
    }
}

/// `PFLT_INSTANCE_QUERY_TEARDOWN_CALLBACK`, PASSIVE_LEVEL; manual detach only.
pub type PFLT_INSTANCE_QUERY_TEARDOWN_CALLBACK =
    Option<unsafe extern "efiapi" fn(FltObjects: *const FLT_RELATED_OBJECTS, Flags: u32) -> NtStatus>;

/// `PFLT_INSTANCE_TEARDOWN_CALLBACK`, PASSIVE_LEVEL. `Reason` is a [`FltTeardownReason`].
pub type PFLT_INSTANCE_TEARDOWN_CALLBACK =
    Option<unsafe extern "efiapi" fn(FltObjects: *const FLT_RELATED_OBJECTS, Reason: u32)>;

bitflags::bitflags! {
    /// `FLTFL_INSTANCE_TEARDOWN_*`: why an instance goes.
    #[repr(transparent)]
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct FltTeardownReason: u32 {
        /// On request.
        const MANUAL = 0x01;
        /// FltUnregisterFilter after a voluntary unload.
        const FILTER_UNLOAD = 0x02;
        /// FltUnregisterFilter after a mandatory unload.
        const MANDATORY_FILTER_UNLOAD = 0x04;
        /// The volume goes.
        const VOLUME_DISMOUNT = 0x08;
        /// Setup failed inside FltMgr.
        const INTERNAL_ERROR = 0x10;
    }
}

/// `PFLT_PRE_OPERATION_CALLBACK`. Returns one of `FLT_PREOP_*`.
/// Page: `nc-fltkernel-pflt_pre_operation_callback`.
pub type PFLT_PRE_OPERATION_CALLBACK = Option<
    unsafe extern "efiapi" fn(
        Data: *mut FLT_CALLBACK_DATA,
        FltObjects: *const FLT_RELATED_OBJECTS,
        CompletionContext: *mut PVOID,
    ) -> i32,
>;

/// `PFLT_POST_OPERATION_CALLBACK`, IRQL <= DISPATCH_LEVEL. Returns one of `FLT_POSTOP_*`.
pub type PFLT_POST_OPERATION_CALLBACK = Option<
    unsafe extern "efiapi" fn(
        Data: *mut FLT_CALLBACK_DATA,
        FltObjects: *const FLT_RELATED_OBJECTS,
        CompletionContext: PVOID,
        Flags: u32,
    ) -> i32,
>;

/// Call the post-operation callback.
pub const FLT_PREOP_SUCCESS_WITH_CALLBACK: i32 = 0;
/// Do not call it.
pub const FLT_PREOP_SUCCESS_NO_CALLBACK: i32 = 1;
/// The filter completes the operation later.
pub const FLT_PREOP_PENDING: i32 = 2;
/// Fast I/O is refused; it comes back as an IRP.
pub const FLT_PREOP_DISALLOW_FASTIO: i32 = 3;
/// The filter has set the status.
pub const FLT_PREOP_COMPLETE: i32 = 4;
/// Call the post-operation callback in this thread.
pub const FLT_PREOP_SYNCHRONIZE: i32 = 5;
/// QueryOpen is refused.
pub const FLT_PREOP_DISALLOW_FSFILTER_IO: i32 = 6;

/// Completion goes on.
pub const FLT_POSTOP_FINISHED_PROCESSING: i32 = 0;
/// Completion goes on later.
pub const FLT_POSTOP_MORE_PROCESSING_REQUIRED: i32 = 1;
/// QueryOpen is refused after the fact.
pub const FLT_POSTOP_DISALLOW_FSFILTER_IO: i32 = 2;

/// Post-operation flag: the instance goes, only clean up.
pub const FLTFL_POST_OPERATION_DRAINING: u32 = 1;

/// `PFLT_GENERIC_WORKITEM_ROUTINE`, PASSIVE_LEVEL in a system worker thread.
pub type PFLT_GENERIC_WORKITEM_ROUTINE =
    Option<unsafe extern "efiapi" fn(FltWorkItem: super::PFLT_GENERIC_WORKITEM, FltObject: PVOID, Context: PVOID)>;

/// A name as FltMgr takes it.
pub type PCUNICODE_STRING = *const UNICODE_STRING;
