//! Volumes as FltMgr describes them.

use nt_types::{UNICODE_STRING, assert_layout};

/// `FLT_VOLUME_PROPERTIES`. Page: `ns-fltkernel-_flt_volume_properties`.
///
/// The names' characters follow the structure in the caller's buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FLT_VOLUME_PROPERTIES {
    /// `FILE_DEVICE_*` of the storage.
    pub DeviceType: u32,
    /// `FILE_*` characteristics.
    pub DeviceCharacteristics: u32,
    /// `DO_*` flags.
    pub DeviceObjectFlags: u32,
    /// `FILE_*_ALIGNMENT` that the device wants of buffers.
    pub AlignmentRequirement: u32,
    /// Bytes in a sector.
    pub SectorSize: u16,
    /// 0, or 1 for a DAX volume.
    pub Flags: u16,
    /// The file system's driver.
    pub FileSystemDriverName: UNICODE_STRING,
    /// The file system's device.
    pub FileSystemDeviceName: UNICODE_STRING,
    /// The storage device; empty for network volumes.
    pub RealDeviceName: UNICODE_STRING,
}

assert_layout!(FLT_VOLUME_PROPERTIES, 72, {
    DeviceType: 0, DeviceCharacteristics: 4, DeviceObjectFlags: 8, AlignmentRequirement: 12, SectorSize: 16, Flags: 18,
    FileSystemDriverName: 24, FileSystemDeviceName: 40, RealDeviceName: 56,
});
