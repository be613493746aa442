//! Functions of fltmgr.sys, bound by raw-dylib: no import library is needed on any host.
//!
//! `extern "C"`, which is the Windows convention on every target that this module exists for;
//! raw-dylib does not take "efiapi".

use super::{
    FLT_FILE_NAME_INFORMATION, FLT_REGISTRATION, PCUNICODE_STRING, PFLT_CONNECT_NOTIFY, PFLT_DISCONNECT_NOTIFY,
    PFLT_FILTER, PFLT_GENERIC_WORKITEM, PFLT_GENERIC_WORKITEM_ROUTINE, PFLT_INSTANCE, PFLT_MESSAGE_NOTIFY, PFLT_PORT,
    PFLT_VOLUME,
};
use nt_types::{
    DRIVER_OBJECT, FILE_OBJECT, HANDLE, IO_STATUS_BLOCK, LARGE_INTEGER, NtStatus, OBJECT_ATTRIBUTES, PVOID,
    UNICODE_STRING,
};

/// `DelayedWorkQueue`: ordinary system worker threads.
pub const DELAYED_WORK_QUEUE: i32 = 1;

/// FltReadFile flag: the file object's current offset stays.
pub const FLTFL_IO_OPERATION_DO_NOT_UPDATE_BYTE_OFFSET: u32 = 4;

#[link(name = "fltmgr.sys", kind = "raw-dylib", modifiers = "+verbatim")]
unsafe extern "C" {
    /// Page: `nf-fltkernel-fltregisterfilter`. IRQL <= APC_LEVEL, DriverEntry only.
    pub fn FltRegisterFilter(
        Driver: *mut DRIVER_OBJECT,
        Registration: *const FLT_REGISTRATION,
        RetFilter: *mut PFLT_FILTER,
    ) -> NtStatus;

    /// Page: `nf-fltkernel-fltstartfiltering`. IRQL <= APC_LEVEL. Callbacks run before it returns.
    pub fn FltStartFiltering(Filter: PFLT_FILTER) -> NtStatus;

    /// Page: `nf-fltkernel-fltunregisterfilter`. IRQL <= APC_LEVEL. Waits for all references.
    pub fn FltUnregisterFilter(Filter: PFLT_FILTER);

    /// Page: `nf-fltkernel-fltcreatecommunicationport`. PASSIVE_LEVEL.
    pub fn FltCreateCommunicationPort(
        Filter: PFLT_FILTER,
        ServerPort: *mut PFLT_PORT,
        ObjectAttributes: *mut OBJECT_ATTRIBUTES,
        ServerPortCookie: PVOID,
        ConnectNotifyCallback: PFLT_CONNECT_NOTIFY,
        DisconnectNotifyCallback: PFLT_DISCONNECT_NOTIFY,
        MessageNotifyCallback: PFLT_MESSAGE_NOTIFY,
        MaxConnections: i32,
    ) -> NtStatus;

    /// Page: `nf-fltkernel-fltclosecommunicationport`. PASSIVE_LEVEL, once.
    pub fn FltCloseCommunicationPort(ServerPort: PFLT_PORT);

    /// Page: `nf-fltkernel-fltcloseclientport`. PASSIVE_LEVEL, once; writes NULL to `*ClientPort`.
    pub fn FltCloseClientPort(Filter: PFLT_FILTER, ClientPort: *mut PFLT_PORT);

    /// Page: `nf-fltkernel-fltbuilddefaultsecuritydescriptor`. IRQL <= APC_LEVEL.
    pub fn FltBuildDefaultSecurityDescriptor(SecurityDescriptor: *mut PVOID, DesiredAccess: u32) -> NtStatus;

    /// Page: `nf-fltkernel-fltfreesecuritydescriptor`. IRQL <= APC_LEVEL.
    pub fn FltFreeSecurityDescriptor(SecurityDescriptor: PVOID);

    /// Page: `nf-fltkernel-fltcreatefileex`. PASSIVE_LEVEL.
    pub fn FltCreateFileEx(
        Filter: PFLT_FILTER,
        Instance: PFLT_INSTANCE,
        FileHandle: *mut HANDLE,
        FileObject: *mut *mut FILE_OBJECT,
        DesiredAccess: u32,
        ObjectAttributes: *mut OBJECT_ATTRIBUTES,
        IoStatusBlock: *mut IO_STATUS_BLOCK,
        AllocationSize: *mut LARGE_INTEGER,
        FileAttributes: u32,
        ShareAccess: u32,
        CreateDisposition: u32,
        CreateOptions: u32,
        EaBuffer: PVOID,
        EaLength: u32,
        Flags: u32,
    ) -> NtStatus;

    /// Page: `nf-fltkernel-fltclose`. PASSIVE_LEVEL.
    pub fn FltClose(FileHandle: HANDLE) -> NtStatus;

    /// Page: `nf-fltkernel-fltreadfile`. PASSIVE_LEVEL.
    pub fn FltReadFile(
        InitiatingInstance: PFLT_INSTANCE,
        FileObject: *mut FILE_OBJECT,
        ByteOffset: *const LARGE_INTEGER,
        Length: u32,
        Buffer: PVOID,
        Flags: u32,
        BytesRead: *mut u32,
        CallbackRoutine: PVOID,
        CallbackContext: PVOID,
    ) -> NtStatus;

    /// Page: `nf-fltkernel-fltqueryinformationfile`. PASSIVE_LEVEL, APCs enabled.
    pub fn FltQueryInformationFile(
        Instance: PFLT_INSTANCE,
        FileObject: *mut FILE_OBJECT,
        FileInformation: PVOID,
        Length: u32,
        FileInformationClass: i32,
        LengthReturned: *mut u32,
    ) -> NtStatus;

    /// Page: `nf-fltkernel-fltgetvolumefromname`. PASSIVE_LEVEL.
    pub fn FltGetVolumeFromName(
        Filter: PFLT_FILTER,
        VolumeName: PCUNICODE_STRING,
        RetVolume: *mut PFLT_VOLUME,
    ) -> NtStatus;

    /// Page: `nf-fltkernel-fltgetvolumefromfileobject`. IRQL <= APC_LEVEL.
    pub fn FltGetVolumeFromFileObject(
        Filter: PFLT_FILTER,
        FileObject: *mut FILE_OBJECT,
        RetVolume: *mut PFLT_VOLUME,
    ) -> NtStatus;

    /// Page: `nf-fltkernel-fltgetvolumeinstancefromname`. IRQL <= APC_LEVEL.
    pub fn FltGetVolumeInstanceFromName(
        Filter: PFLT_FILTER,
        Volume: PFLT_VOLUME,
        InstanceName: PCUNICODE_STRING,
        RetInstance: *mut PFLT_INSTANCE,
    ) -> NtStatus;

    /// Page: `nf-fltkernel-fltgetvolumeguidname`. PASSIVE_LEVEL, never from a mount callback.
    pub fn FltGetVolumeGuidName(
        Volume: PFLT_VOLUME,
        VolumeGuidName: *mut UNICODE_STRING,
        BufferSizeNeeded: *mut u32,
    ) -> NtStatus;

    /// Page: `nf-fltkernel-fltobjectdereference`. IRQL <= APC_LEVEL.
    pub fn FltObjectDereference(FltObject: PVOID);

    /// Page: `nf-fltkernel-fltgetfilenameinformationunsafe`. IRQL <= APC_LEVEL.
    pub fn FltGetFileNameInformationUnsafe(
        FileObject: *mut FILE_OBJECT,
        Instance: PFLT_INSTANCE,
        NameOptions: u32,
        FileNameInformation: *mut *mut FLT_FILE_NAME_INFORMATION,
    ) -> NtStatus;

    /// Page: `nf-fltkernel-fltreleasefilenameinformation`. IRQL <= APC_LEVEL.
    pub fn FltReleaseFileNameInformation(FileNameInformation: *mut FLT_FILE_NAME_INFORMATION);

    /// Page: `nf-fltkernel-fltallocategenericworkitem`. IRQL <= DISPATCH_LEVEL; NULL without memory.
    pub fn FltAllocateGenericWorkItem() -> PFLT_GENERIC_WORKITEM;

    /// Page: `nf-fltkernel-fltqueuegenericworkitem`. IRQL <= DISPATCH_LEVEL.
    pub fn FltQueueGenericWorkItem(
        FltWorkItem: PFLT_GENERIC_WORKITEM,
        FltObject: PVOID,
        WorkerRoutine: PFLT_GENERIC_WORKITEM_ROUTINE,
        QueueType: i32,
        Context: PVOID,
    ) -> NtStatus;

    /// Page: `nf-fltkernel-fltfreegenericworkitem`. IRQL <= DISPATCH_LEVEL; not while queued.
    pub fn FltFreeGenericWorkItem(FltWorkItem: PFLT_GENERIC_WORKITEM);
}

#[link(name = "ntoskrnl.exe", kind = "raw-dylib", modifiers = "+verbatim")]
unsafe extern "C" {
    /// `ObDereferenceObject`. Page: `wdm/nf-wdm-obdereferenceobject`. IRQL <= DISPATCH_LEVEL.
    pub fn ObfDereferenceObject(Object: PVOID) -> isize;

    /// Page: `wdm/nf-wdm-kegetcurrentirql`. Any IRQL. x64 compilers read CR8 instead.
    #[cfg(not(target_arch = "x86_64"))]
    pub fn KeGetCurrentIrql() -> nt_types::KIRQL;
}
