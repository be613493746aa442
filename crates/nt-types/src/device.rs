//! Device objects.

use crate::{DRIVER_OBJECT, IRP, KDEVICE_QUEUE, KDPC, KEVENT, PVOID};

/// `DEVICE_TYPE` of a device that fits no other type.
pub const FILE_DEVICE_UNKNOWN: u32 = 0x22;
/// `DEVICE_TYPE` of a CD-ROM file system.
pub const FILE_DEVICE_CD_ROM_FILE_SYSTEM: u32 = 0x03;
/// `DEVICE_TYPE` of a disk file system.
pub const FILE_DEVICE_DISK_FILE_SYSTEM: u32 = 0x08;
/// `DEVICE_TYPE` of a network redirector.
pub const FILE_DEVICE_NETWORK_FILE_SYSTEM: u32 = 0x14;

/// Device characteristic: opens of names below the device are checked against its descriptor too.
pub const FILE_DEVICE_SECURE_OPEN: u32 = 0x0000_0100;

/// `DO_BUFFERED_IO`.
pub const DO_BUFFERED_IO: u32 = 0x0000_0004;
/// `DO_EXCLUSIVE`: one open at a time.
pub const DO_EXCLUSIVE: u32 = 0x0000_0008;
/// `DO_DIRECT_IO`.
pub const DO_DIRECT_IO: u32 = 0x0000_0010;
/// `DO_DEVICE_HAS_NAME`.
pub const DO_DEVICE_HAS_NAME: u32 = 0x0000_0040;
/// `DO_DEVICE_INITIALIZING`: opens are refused. The I/O manager clears it when DriverEntry returns.
pub const DO_DEVICE_INITIALIZING: u32 = 0x0000_0080;

/// `DO_SHUTDOWN_REGISTERED`: the driver gets `IRP_MJ_SHUTDOWN` for this device.
pub const DO_SHUTDOWN_REGISTERED: u32 = 0x0000_0800;

/// `DEVICE_OBJECT`. DDI page: `wdm/ns-wdm-_device_object`.
#[repr(C, align(16))]
#[derive(Clone, Copy, Debug)]
pub struct DEVICE_OBJECT {
    /// `IO_TYPE_DEVICE`: 3.
    pub Type: i16,
    /// Bytes of this structure and the device extension.
    pub Size: u16,
    /// Open file objects.
    pub ReferenceCount: i32,
    /// The driver that made it.
    pub DriverObject: *mut DRIVER_OBJECT,
    /// Next device of the same driver.
    pub NextDevice: *mut DEVICE_OBJECT,
    /// Device attached above.
    pub AttachedDevice: *mut DEVICE_OBJECT,
    /// IRP in StartIo.
    pub CurrentIrp: *mut IRP,
    /// I/O timer.
    pub Timer: PVOID,
    /// `DO_*` flags.
    pub Flags: u32,
    /// `FILE_*` device characteristics.
    pub Characteristics: u32,
    /// Volume parameter block.
    pub Vpb: PVOID,
    /// Driver's own memory, allocated with the object.
    pub DeviceExtension: PVOID,
    /// `FILE_DEVICE_*`.
    pub DeviceType: u32,
    /// Stack locations that an IRP for this device needs.
    pub StackSize: i8,
    /// `Queue`: a list entry or a wait context block, the kernel's.
    pub Queue: [u64; 9],
    /// Alignment that transfers need, as a mask.
    pub AlignmentRequirement: u32,
    /// IRPs that wait for StartIo.
    pub DeviceQueue: KDEVICE_QUEUE,
    /// The device's DPC.
    pub Dpc: KDPC,
    /// For file systems.
    pub ActiveThreadCount: u32,
    /// Who may open it.
    pub SecurityDescriptor: PVOID,
    /// For file systems.
    pub DeviceLock: KEVENT,
    /// Bytes of a sector, for volumes.
    pub SectorSize: u16,
    /// Unused.
    pub Spare1: u16,
    /// The kernel's extension.
    pub DeviceObjectExtension: PVOID,
    /// Unused.
    pub Reserved: PVOID,
}

crate::assert_layout!(DEVICE_OBJECT, 336, {
    Type: 0, Size: 2, ReferenceCount: 4, DriverObject: 8, NextDevice: 16, AttachedDevice: 24,
    CurrentIrp: 32, Timer: 40, Flags: 48, Characteristics: 52, Vpb: 56, DeviceExtension: 64,
    DeviceType: 72, StackSize: 76, Queue: 80, AlignmentRequirement: 152, DeviceQueue: 160,
    Dpc: 200, ActiveThreadCount: 264, SecurityDescriptor: 272, DeviceLock: 280, SectorSize: 304,
    DeviceObjectExtension: 312, Reserved: 320,
});
