//! What passes between a driver that wants firmware and the broker behind `\Device\FwBroker`.
//!
//! The exchange follows the WDM `INTERFACE` convention: one internal device-control request fetches a table of
//! functions, everything after that is direct calls. A request per operation would cost an IRP each and could not be
//! made above `PASSIVE_LEVEL`, but a NIC that comes back from reset has to reach its image at `DISPATCH_LEVEL`.
//!
//! The shape is that of `NdisOpenFile`, `NdisMapFile`, `NdisUnmapFile` and `NdisCloseFile`, without their limits: the calls
//! return their status, work at any time and on every architecture, several drivers share one copy of an image, and the
//! digest says what was handed over.
//!
//! # Lifetime
//! 1. `IoGetDeviceObjectPointer` on [`DEVICE_NAME`] references a file object of the broker's device.
//! 2. [`IOCTL_INTERNAL_FWBROKER_QUERY_INTERFACE`] fills a [`FWBROKER_INTERFACE`] that is **already referenced once**.
//! 3. `Open`, `Map`, `Unmap`, `Close`.
//! 4. `InterfaceDereference`, once for the fetch and once for each `InterfaceReference` of one's own. No function of
//!    the table may be called afterwards.
//! 5. `ObDereferenceObject` on the file object, **after** step 4: until then it keeps the broker's code in memory.
//!
//! While a table is referenced or a handle is open, the broker refuses to be unloaded voluntarily.

use core::ffi::c_void;

use nt_types::{NtStatus, UNICODE_STRING, assert_layout};

/// Name of the broker's device object, for `IoGetDeviceObjectPointer` (ask for `FILE_READ_DATA`).
pub const DEVICE_NAME: &str = r"\Device\FwBroker";

/// Control code of the request that fetches a [`FWBROKER_INTERFACE`].
///
/// `CTL_CODE(FILE_DEVICE_UNKNOWN, 0x800, METHOD_NEITHER, FILE_ANY_ACCESS)`, valid in `IRP_MJ_INTERNAL_DEVICE_CONTROL` only:
/// I/O from user mode can never produce that major function, which is why `METHOD_NEITHER` is safe here and no copy
/// is made. Input (`Parameters.DeviceIoControl.Type3InputBuffer`, `InputBufferLength` bytes) is a
/// [`FWBROKER_QUERY_INTERFACE`], output (`Irp->UserBuffer`, `OutputBufferLength` bytes) a [`FWBROKER_INTERFACE`]; both in kernel memory.
///
/// Sent at `PASSIVE_LEVEL`. The broker completes it before its dispatch routine returns. `IoStatus.Information` is the number of
/// bytes written, 0 on failure. Statuses:
/// - `STATUS_SUCCESS`: the table is filled and referenced once.
/// - `STATUS_INVALID_PARAMETER`: input shorter than its version demands, `Size` or `Flags` not valid, `Consumer` empty or malformed.
/// - `STATUS_REVISION_MISMATCH`: a version that the broker does not speak (0, or above its own).
/// - `STATUS_BUFFER_TOO_SMALL`: the output cannot hold the table of that version.
/// - `STATUS_INSUFFICIENT_RESOURCES`: no memory to record the consumer.
/// - `STATUS_SHUTDOWN_IN_PROGRESS`: the broker is being unloaded.
/// - `STATUS_INVALID_DEVICE_REQUEST`: any other control code, or this one in `IRP_MJ_DEVICE_CONTROL`.
pub const IOCTL_INTERNAL_FWBROKER_QUERY_INTERFACE: u32 = 0x0022_2003;

/// Version of the interface that this file describes.
pub const FWBROKER_INTERFACE_VERSION_1: u16 = 1;

/// Longest name of a consumer, in bytes of UTF-16.
pub const MAX_CONSUMER_BYTES: u16 = 256;

/// Longest name of an image, in bytes of UTF-16.
pub const MAX_IMAGE_NAME_BYTES: u16 = 512;

/// Highest acceptable address that accepts every address (all bits set, as for `NdisOpenFile`).
pub const ANY_ADDRESS: i64 = -1;

/// Handle value that is never given out.
pub const NO_HANDLE: u64 = 0;

/// Input of [`IOCTL_INTERNAL_FWBROKER_QUERY_INTERFACE`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FWBROKER_QUERY_INTERFACE {
    /// Size of this structure in bytes: 24.
    pub Size: u16,
    /// Version asked for: [`FWBROKER_INTERFACE_VERSION_1`].
    pub Version: u16,
    /// Zero.
    pub Flags: u32,
    /// Service name of the asking driver (`samplenic`), 2 to [`MAX_CONSUMER_BYTES`] bytes. The broker copies it before the
    /// request completes and shows it wherever it says who holds an image.
    pub Consumer: UNICODE_STRING,
}
assert_layout!(FWBROKER_QUERY_INTERFACE, 24, { Size: 0, Version: 2, Flags: 4, Consumer: 8 });

/// Optional parameters of [`FWBROKER_OPEN`].
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FWBROKER_OPEN_PARAMETERS {
    /// Size of this structure in bytes: 16.
    pub Size: u16,
    /// [`FWBROKER_INTERFACE_VERSION_1`].
    pub Version: u16,
    /// Zero.
    pub Flags: u32,
    /// Longest time to wait for an image that is still being staged or read, in milliseconds; 0 for the broker's default.
    pub TimeoutMilliseconds: u32,
    /// Zero.
    pub Reserved: u32,
}
assert_layout!(FWBROKER_OPEN_PARAMETERS, 16, { Size: 0, Version: 2, Flags: 4, TimeoutMilliseconds: 8, Reserved: 12 });

/// What [`FWBROKER_OPEN`] hands back.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FWBROKER_IMAGE {
    /// Names the open image in the other calls; never [`NO_HANDLE`]. Meaningless to other consumers.
    pub Handle: u64,
    /// Length of the image in bytes, at least 1.
    pub Length: u64,
    /// SHA-256 of the image as the broker computed it while reading the file.
    pub Sha256: [u8; 32],
}
assert_layout!(FWBROKER_IMAGE, 48, { Handle: 0, Length: 8, Sha256: 16 });

/// Takes or drops a reference to the table. IRQL <= `DISPATCH_LEVEL`.
///
/// Dereferencing at 0 closes every handle opened through this table: a consumer that fails half-way leaks nothing.
pub type FWBROKER_REFERENCE = unsafe extern "efiapi" fn(Context: *mut c_void);

/// Opens the image `Name`. `PASSIVE_LEVEL`, kernel APCs enabled.
///
/// - `Name`: the image's file name (`e1000.rom`), or its path below a root (`intel\e1000.rom`), compared without regard to
///   case; 2 to [`MAX_IMAGE_NAME_BYTES`] bytes. Only read during the call.
/// - `HighestAcceptableAddress`: no byte of the mapped image may lie above this physical address; [`ANY_ADDRESS`] for no limit.
/// - `Parameters`: NULL for the defaults.
/// - `Image`: written on success only.
///
/// Returns:
/// - `STATUS_SUCCESS`: the caller owns a handle and has to close it.
/// - `STATUS_OBJECT_NAME_NOT_FOUND`: no image of that name.
/// - `STATUS_OBJECT_NAME_INVALID`: the name is empty, too long, of odd length, or has a character that no image name has.
/// - `STATUS_INVALID_PARAMETER`: a NULL pointer, or `Parameters` with a wrong size, version, flag or reserved field.
/// - `STATUS_INSUFFICIENT_RESOURCES`: no memory, or none below `HighestAcceptableAddress`.
/// - `STATUS_QUOTA_EXCEEDED`: the consumer holds as many handles or bytes as it may.
/// - `STATUS_IO_TIMEOUT`: the image did not become ready in time.
/// - `STATUS_SHUTDOWN_IN_PROGRESS`: the broker is being unloaded.
/// - otherwise the status with which staging the image failed.
pub type FWBROKER_OPEN = unsafe extern "efiapi" fn(
    Context: *mut c_void,
    Name: *const UNICODE_STRING,
    HighestAcceptableAddress: i64,
    Parameters: *const FWBROKER_OPEN_PARAMETERS,
    Image: *mut FWBROKER_IMAGE,
) -> NtStatus;

/// Gives access to the bytes of an open image. IRQL <= `DISPATCH_LEVEL`.
///
/// `Buffer` receives the address of `Length` bytes: non-paged, readable at any IRQL, **read-only** (a write is a bug check),
/// page-aligned, and the same for every `Map` of the handle. Mappings are counted and shared with other consumers of the image.
/// The buffer is valid until the last `Unmap` or until `Close`, whichever comes first.
///
/// Returns `STATUS_SUCCESS`; `STATUS_INVALID_HANDLE` (not open, or not opened through this table); `STATUS_INVALID_PARAMETER` (`Buffer` is
/// NULL). `*Buffer` is set to NULL on failure.
pub type FWBROKER_MAP =
    unsafe extern "efiapi" fn(Context: *mut c_void, Handle: u64, Buffer: *mut *const c_void) -> NtStatus;

/// Ends one `Map` of the handle. IRQL <= `DISPATCH_LEVEL`.
///
/// Returns `STATUS_SUCCESS`; `STATUS_INVALID_HANDLE`; `STATUS_INVALID_DEVICE_STATE` (the handle is not mapped).
pub type FWBROKER_UNMAP = unsafe extern "efiapi" fn(Context: *mut c_void, Handle: u64) -> NtStatus;

/// Closes an open image and ends its mappings. IRQL <= `DISPATCH_LEVEL`.
///
/// Returns `STATUS_SUCCESS`; `STATUS_INVALID_HANDLE` (not open, closed before, or not opened through this table: nothing is closed).
pub type FWBROKER_CLOSE = unsafe extern "efiapi" fn(Context: *mut c_void, Handle: u64) -> NtStatus;

/// The function table; starts with the members of WDM's `INTERFACE`.
///
/// Later versions only append. A consumer checks `Size` and `Version` before it looks at a member.
/// The members are `Option`s because a consumer's buffer starts out zeroed; in a table that the broker filled all are present.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct FWBROKER_INTERFACE {
    /// Size of the table in bytes: 64 for version 1.
    pub Size: u16,
    /// Version of the table: the one asked for.
    pub Version: u16,
    /// First argument of every function.
    pub Context: *mut c_void,
    /// Takes one more reference to the table.
    pub InterfaceReference: Option<FWBROKER_REFERENCE>,
    /// Drops a reference.
    pub InterfaceDereference: Option<FWBROKER_REFERENCE>,
    /// See [`FWBROKER_OPEN`].
    pub Open: Option<FWBROKER_OPEN>,
    /// See [`FWBROKER_MAP`].
    pub Map: Option<FWBROKER_MAP>,
    /// See [`FWBROKER_UNMAP`].
    pub Unmap: Option<FWBROKER_UNMAP>,
    /// See [`FWBROKER_CLOSE`].
    pub Close: Option<FWBROKER_CLOSE>,
}
assert_layout!(FWBROKER_INTERFACE, 64, {
    Size: 0, Version: 2, Context: 8, InterfaceReference: 16, InterfaceDereference: 24, Open: 32, Map: 40, Unmap: 48, Close: 56,
});

impl FWBROKER_INTERFACE {
    /// A table without content, as a consumer's output buffer starts out.
    pub const EMPTY: Self = Self {
        Size: 0,
        Version: 0,
        Context: core::ptr::null_mut(),
        InterfaceReference: None,
        InterfaceDereference: None,
        Open: None,
        Map: None,
        Unmap: None,
        Close: None,
    };
}
