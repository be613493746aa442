//! A loaded driver, as the kernel and the driver itself see it.

use crate::{BOOLEAN, DEVICE_OBJECT, IRP, LIST_ENTRY, NtStatus, PVOID, UNICODE_STRING};

/// `DRIVER_INITIALIZE`: DriverEntry. Runs once, at PASSIVE_LEVEL in the system process.
pub type DRIVER_INITIALIZE =
    Option<unsafe extern "efiapi" fn(DriverObject: *mut DRIVER_OBJECT, RegistryPath: *mut UNICODE_STRING) -> NtStatus>;

/// `DRIVER_DISPATCH`: handles one major function.
pub type DRIVER_DISPATCH =
    Option<unsafe extern "efiapi" fn(DeviceObject: *mut DEVICE_OBJECT, Irp: *mut IRP) -> NtStatus>;

/// `DRIVER_STARTIO`.
pub type DRIVER_STARTIO = Option<unsafe extern "efiapi" fn(DeviceObject: *mut DEVICE_OBJECT, Irp: *mut IRP)>;

/// `DRIVER_UNLOAD`. Runs at PASSIVE_LEVEL; a minifilter leaves it to the filter manager.
pub type DRIVER_UNLOAD = Option<unsafe extern "efiapi" fn(DriverObject: *mut DRIVER_OBJECT)>;

/// `DRIVER_ADD_DEVICE`.
pub type DRIVER_ADD_DEVICE = Option<
    unsafe extern "efiapi" fn(DriverObject: *mut DRIVER_OBJECT, PhysicalDeviceObject: *mut DEVICE_OBJECT) -> NtStatus,
>;

/// Number of entries in [`DRIVER_OBJECT::MajorFunction`].
pub const MAJOR_FUNCTION_COUNT: usize = 28;

/// `DRIVER_OBJECT`. DDI page: `wdm/ns-wdm-_driver_object`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DRIVER_OBJECT {
    /// `IO_TYPE_DRIVER`: 4.
    pub Type: i16,
    /// Size of this structure in bytes.
    pub Size: i16,
    /// First device the driver made; they are chained by `NextDevice`.
    pub DeviceObject: *mut DEVICE_OBJECT,
    /// `DRVO_*` flags.
    pub Flags: u32,
    /// Base address of the image.
    pub DriverStart: PVOID,
    /// Bytes of the image.
    pub DriverSize: u32,
    /// The loader's record of the image.
    pub DriverSection: PVOID,
    /// Extension, allocated with the object.
    pub DriverExtension: *mut DRIVER_EXTENSION,
    /// `\Driver\Name` or `\FileSystem\Name`.
    pub DriverName: UNICODE_STRING,
    /// Path of the hardware description in the registry.
    pub HardwareDatabase: *mut UNICODE_STRING,
    /// Fast I/O entry points of a file system, or NULL.
    pub FastIoDispatch: PVOID,
    /// DriverEntry.
    pub DriverInit: DRIVER_INITIALIZE,
    /// StartIo routine, or NULL.
    pub DriverStartIo: DRIVER_STARTIO,
    /// Unload routine; NULL means that the driver stays until shutdown.
    pub DriverUnload: DRIVER_UNLOAD,
    /// Dispatch routines, indexed by major function.
    pub MajorFunction: [DRIVER_DISPATCH; MAJOR_FUNCTION_COUNT],
}

crate::assert_layout!(DRIVER_OBJECT, 336, {
    Type: 0, Size: 2, DeviceObject: 8, Flags: 16, DriverStart: 24, DriverSize: 32,
    DriverSection: 40, DriverExtension: 48, DriverName: 56, HardwareDatabase: 72,
    FastIoDispatch: 80, DriverInit: 88, DriverStartIo: 96, DriverUnload: 104, MajorFunction: 112,
});

/// `DRIVER_EXTENSION`: the documented part. DDI page: `wdm/ns-wdm-_driver_object`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct DRIVER_EXTENSION {
    /// The driver it belongs to.
    pub DriverObject: *mut DRIVER_OBJECT,
    /// AddDevice routine.
    pub AddDevice: DRIVER_ADD_DEVICE,
    /// Times the reinitialisation routine ran.
    pub Count: u32,
    /// Name of the service key.
    pub ServiceKeyName: UNICODE_STRING,
}

crate::assert_layout!(DRIVER_EXTENSION, 40, {
    DriverObject: 0, AddDevice: 8, Count: 16, ServiceKeyName: 24,
});

/// `KLDR_DATA_TABLE_ENTRY`: the start of what `DriverSection` points at, for drivers that read
/// their own module name. Not on a DDI page; the first fields have never moved.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct LDR_DATA_TABLE_ENTRY {
    /// Link in the list of loaded modules.
    pub InLoadOrderLinks: LIST_ENTRY,
    /// Unspecified.
    pub Reserved1: [PVOID; 4],
    /// Base address of the image.
    pub DllBase: PVOID,
    /// Entry point.
    pub EntryPoint: PVOID,
    /// Bytes of the image.
    pub SizeOfImage: u32,
    /// Full path.
    pub FullDllName: UNICODE_STRING,
    /// File name.
    pub BaseDllName: UNICODE_STRING,
    /// Image flags.
    pub Flags: u32,
    /// References.
    pub LoadCount: u16,
    /// Non-zero when the image's signature was checked.
    pub SignatureInfo: u16,
    /// Unspecified.
    pub Reserved2: BOOLEAN,
}

crate::assert_layout!(LDR_DATA_TABLE_ENTRY, 120, {
    DllBase: 48, EntryPoint: 56, SizeOfImage: 64, FullDllName: 72, BaseDllName: 88, Flags: 104,
});
