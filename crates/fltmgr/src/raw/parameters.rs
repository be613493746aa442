//! The parameters union of an operation.

use super::{
    AcquireForModifiedPageWriter, AcquireForSectionSynchronization, Create, DeviceIoControlBuffered,
    DeviceIoControlNeither, FastIoCheckIfPossible, FileSystemControlBuffered, FileSystemControlNeither, LockControl,
    NetworkQueryOpen, NotifyDirectory, QueryDirectory, QueryEa, QueryFileInformation, QueryOpen, QuerySecurity,
    QueryVolumeInformation, ReleaseForModifiedPageWriter, SetEa, SetFileInformation, SetSecurity, Transfer,
    VerifyVolume,
};
use core::fmt;
use nt_types::{PVOID, assert_layout};

/// `FLT_PARAMETERS`. Page: `ns-fltkernel-_flt_parameters`.
///
/// Which member is valid follows from the major function of the parameter block around it.
/// Reading another one is memory-safe here, since every member is plain data, and meaningless.
#[repr(C)]
#[derive(Clone, Copy)]
pub union FLT_PARAMETERS {
    /// IRP_MJ_CREATE.
    pub Create: Create,
    /// IRP_MJ_READ.
    pub Read: Transfer,
    /// IRP_MJ_WRITE.
    pub Write: Transfer,
    /// IRP_MJ_QUERY_INFORMATION.
    pub QueryFileInformation: QueryFileInformation,
    /// IRP_MJ_SET_INFORMATION.
    pub SetFileInformation: SetFileInformation,
    /// IRP_MJ_QUERY_VOLUME_INFORMATION and IRP_MJ_SET_VOLUME_INFORMATION.
    pub QueryVolumeInformation: QueryVolumeInformation,
    /// IRP_MJ_DIRECTORY_CONTROL, IRP_MN_QUERY_DIRECTORY.
    pub QueryDirectory: QueryDirectory,
    /// IRP_MJ_DIRECTORY_CONTROL, IRP_MN_NOTIFY_CHANGE_DIRECTORY.
    pub NotifyDirectory: NotifyDirectory,
    /// IRP_MJ_FILE_SYSTEM_CONTROL, METHOD_NEITHER (and the part common to all methods).
    pub FileSystemControlNeither: FileSystemControlNeither,
    /// IRP_MJ_FILE_SYSTEM_CONTROL, METHOD_BUFFERED.
    pub FileSystemControlBuffered: FileSystemControlBuffered,
    /// IRP_MJ_DEVICE_CONTROL, METHOD_NEITHER (and the part common to all methods).
    pub DeviceIoControlNeither: DeviceIoControlNeither,
    /// IRP_MJ_DEVICE_CONTROL, METHOD_BUFFERED.
    pub DeviceIoControlBuffered: DeviceIoControlBuffered,
    /// IRP_MJ_LOCK_CONTROL.
    pub LockControl: LockControl,
    /// IRP_MJ_QUERY_SECURITY.
    pub QuerySecurity: QuerySecurity,
    /// IRP_MJ_SET_SECURITY.
    pub SetSecurity: SetSecurity,
    /// IRP_MJ_ACQUIRE_FOR_SECTION_SYNCHRONIZATION.
    pub AcquireForSectionSynchronization: AcquireForSectionSynchronization,
    /// IRP_MJ_QUERY_OPEN.
    pub QueryOpen: QueryOpen,
    /// IRP_MJ_QUERY_EA.
    pub QueryEa: QueryEa,
    /// IRP_MJ_SET_EA.
    pub SetEa: SetEa,
    /// IRP_MJ_FILE_SYSTEM_CONTROL, IRP_MN_MOUNT_VOLUME and IRP_MN_VERIFY_VOLUME.
    pub VerifyVolume: VerifyVolume,
    /// IRP_MJ_FAST_IO_CHECK_IF_POSSIBLE.
    pub FastIoCheckIfPossible: FastIoCheckIfPossible,
    /// IRP_MJ_NETWORK_QUERY_OPEN.
    pub NetworkQueryOpen: NetworkQueryOpen,
    /// IRP_MJ_ACQUIRE_FOR_MOD_WRITE.
    pub AcquireForModifiedPageWriter: AcquireForModifiedPageWriter,
    /// IRP_MJ_RELEASE_FOR_MOD_WRITE.
    pub ReleaseForModifiedPageWriter: ReleaseForModifiedPageWriter,
    /// `Others`: all six words.
    pub Others: [PVOID; 6],
}

assert_layout!(FLT_PARAMETERS, 48);

impl FLT_PARAMETERS {
    /// All zero.
    pub const ZERO: Self = Self { Others: [core::ptr::null_mut(); 6] };
}

impl fmt::Debug for FLT_PARAMETERS {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Which member is valid depends on the major function, which is not here.
        f.write_str("FLT_PARAMETERS")
    }
}
