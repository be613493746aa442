//! The file DDIs: `NdisOpenFile`, `NdisMapFile`, `NdisUnmapFile`, `NdisCloseFile`.
//!
//! Function types only; the calls themselves are in the imports of Windows builds, and `crate::file` wraps them.

use core::ffi::c_void;

use nt_types::UNICODE_STRING;

use super::NDIS_HANDLE;
use crate::NdisStatus;

/// `HighestAcceptableAddress` that accepts every address.
pub const NDIS_ANY_ADDRESS: i64 = -1;

/// `NdisOpenFile`. `PASSIVE_LEVEL`, in `MiniportInitializeEx` only. Status comes back through the first parameter; handle and length
/// (bytes) are written on success only. The physical address is passed by value.
pub type NDIS_OPEN_FILE = unsafe extern "efiapi" fn(
    Status: *mut NdisStatus,
    FileHandle: *mut NDIS_HANDLE,
    FileLength: *mut u32,
    FileName: *const UNICODE_STRING,
    HighestAcceptableAddress: i64,
);

/// `NdisMapFile`. IRQL <= `DISPATCH_LEVEL`.
pub type NDIS_MAP_FILE =
    unsafe extern "efiapi" fn(Status: *mut NdisStatus, MappedBuffer: *mut *mut c_void, FileHandle: NDIS_HANDLE);

/// `NdisUnmapFile` and `NdisCloseFile`. `PASSIVE_LEVEL`.
pub type NDIS_FILE_RELEASE = unsafe extern "efiapi" fn(FileHandle: NDIS_HANDLE);
