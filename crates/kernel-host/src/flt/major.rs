//! Major functions: what a minifilter can register, and how each kind of operation reaches it.

pub(crate) const CREATE: u8 = 0x00;
pub(crate) const CLOSE: u8 = 0x02;
pub(crate) const READ: u8 = 0x03;
pub(crate) const WRITE: u8 = 0x04;
pub(crate) const QUERY_INFORMATION: u8 = 0x05;
pub(crate) const SET_INFORMATION: u8 = 0x06;
pub(crate) const QUERY_EA: u8 = 0x07;
pub(crate) const SET_EA: u8 = 0x08;
pub(crate) const FLUSH_BUFFERS: u8 = 0x09;
pub(crate) const QUERY_VOLUME_INFORMATION: u8 = 0x0A;
pub(crate) const SET_VOLUME_INFORMATION: u8 = 0x0B;
pub(crate) const DIRECTORY_CONTROL: u8 = 0x0C;
pub(crate) const FILE_SYSTEM_CONTROL: u8 = 0x0D;
pub(crate) const DEVICE_CONTROL: u8 = 0x0E;
pub(crate) const INTERNAL_DEVICE_CONTROL: u8 = 0x0F;
pub(crate) const SHUTDOWN: u8 = 0x10;
pub(crate) const LOCK_CONTROL: u8 = 0x11;
pub(crate) const CLEANUP: u8 = 0x12;
pub(crate) const QUERY_SECURITY: u8 = 0x14;
pub(crate) const SET_SECURITY: u8 = 0x15;
pub(crate) const QUERY_QUOTA: u8 = 0x19;
pub(crate) const SET_QUOTA: u8 = 0x1A;
pub(crate) const ACQUIRE_FOR_SECTION: u8 = 0xFF;
pub(crate) const RELEASE_FOR_SECTION: u8 = 0xFE;
pub(crate) const ACQUIRE_FOR_MOD_WRITE: u8 = 0xFD;
pub(crate) const RELEASE_FOR_MOD_WRITE: u8 = 0xFC;
pub(crate) const ACQUIRE_FOR_CC_FLUSH: u8 = 0xFB;
pub(crate) const RELEASE_FOR_CC_FLUSH: u8 = 0xFA;
pub(crate) const QUERY_OPEN: u8 = 0xF9;
pub(crate) const FAST_IO_CHECK: u8 = 0xF3;
pub(crate) const NETWORK_QUERY_OPEN: u8 = 0xF2;
pub(crate) const VOLUME_DISMOUNT: u8 = 0xEC;

/// Every function that `fltkernel.h` lets a minifilter register, with its name there.
///
/// Mail slots and named pipes, quotas, plug and play, system control and the MDL family never happen on kernel-host's volumes:
/// a filter may register them, and is not called, as on a Windows machine where nobody asks for them.
const NAMES: &[(u8, &str)] = &[
    (CREATE, "IRP_MJ_CREATE"),
    (0x01, "IRP_MJ_CREATE_NAMED_PIPE"),
    (CLOSE, "IRP_MJ_CLOSE"),
    (READ, "IRP_MJ_READ"),
    (WRITE, "IRP_MJ_WRITE"),
    (QUERY_INFORMATION, "IRP_MJ_QUERY_INFORMATION"),
    (SET_INFORMATION, "IRP_MJ_SET_INFORMATION"),
    (QUERY_EA, "IRP_MJ_QUERY_EA"),
    (SET_EA, "IRP_MJ_SET_EA"),
    (FLUSH_BUFFERS, "IRP_MJ_FLUSH_BUFFERS"),
    (QUERY_VOLUME_INFORMATION, "IRP_MJ_QUERY_VOLUME_INFORMATION"),
    (SET_VOLUME_INFORMATION, "IRP_MJ_SET_VOLUME_INFORMATION"),
    (DIRECTORY_CONTROL, "IRP_MJ_DIRECTORY_CONTROL"),
    (FILE_SYSTEM_CONTROL, "IRP_MJ_FILE_SYSTEM_CONTROL"),
    (DEVICE_CONTROL, "IRP_MJ_DEVICE_CONTROL"),
    (INTERNAL_DEVICE_CONTROL, "IRP_MJ_INTERNAL_DEVICE_CONTROL"),
    (SHUTDOWN, "IRP_MJ_SHUTDOWN"),
    (LOCK_CONTROL, "IRP_MJ_LOCK_CONTROL"),
    (CLEANUP, "IRP_MJ_CLEANUP"),
    (0x13, "IRP_MJ_CREATE_MAILSLOT"),
    (QUERY_SECURITY, "IRP_MJ_QUERY_SECURITY"),
    (SET_SECURITY, "IRP_MJ_SET_SECURITY"),
    (0x17, "IRP_MJ_SYSTEM_CONTROL"),
    (QUERY_QUOTA, "IRP_MJ_QUERY_QUOTA"),
    (SET_QUOTA, "IRP_MJ_SET_QUOTA"),
    (0x1B, "IRP_MJ_PNP"),
    (VOLUME_DISMOUNT, "IRP_MJ_VOLUME_DISMOUNT"),
    (0xED, "IRP_MJ_VOLUME_MOUNT"),
    (0xEE, "IRP_MJ_MDL_WRITE_COMPLETE"),
    (0xEF, "IRP_MJ_PREPARE_MDL_WRITE"),
    (0xF0, "IRP_MJ_MDL_READ_COMPLETE"),
    (0xF1, "IRP_MJ_MDL_READ"),
    (NETWORK_QUERY_OPEN, "IRP_MJ_NETWORK_QUERY_OPEN"),
    (FAST_IO_CHECK, "IRP_MJ_FAST_IO_CHECK_IF_POSSIBLE"),
    (QUERY_OPEN, "IRP_MJ_QUERY_OPEN"),
    (RELEASE_FOR_CC_FLUSH, "IRP_MJ_RELEASE_FOR_CC_FLUSH"),
    (ACQUIRE_FOR_CC_FLUSH, "IRP_MJ_ACQUIRE_FOR_CC_FLUSH"),
    (RELEASE_FOR_MOD_WRITE, "IRP_MJ_RELEASE_FOR_MOD_WRITE"),
    (ACQUIRE_FOR_MOD_WRITE, "IRP_MJ_ACQUIRE_FOR_MOD_WRITE"),
    (RELEASE_FOR_SECTION, "IRP_MJ_RELEASE_FOR_SECTION_SYNCHRONIZATION"),
    (ACQUIRE_FOR_SECTION, "IRP_MJ_ACQUIRE_FOR_SECTION_SYNCHRONIZATION"),
];

/// Whether a minifilter can register callbacks for it.
pub(crate) fn can_be_registered(major: u8) -> bool {
    NAMES.iter().any(|(number, _)| *number == major)
}

/// The name in the header.
pub(crate) fn name(major: u8) -> String {
    let known = NAMES.iter().find(|(number, _)| *number == major);
    known.map_or_else(|| format!("IRP_MJ 0x{major:02X}"), |(_, name)| (*name).to_owned())
}

/// Operations that the page of FLT_PREOP_COMPLETE says cannot fail.
pub(crate) fn must_succeed(major: u8) -> bool {
    matches!(major, CLEANUP | CLOSE)
}

/// Reads and writes: what the registration's SKIP flags are about.
pub(crate) fn is_transfer(major: u8) -> bool {
    matches!(major, READ | WRITE)
}
