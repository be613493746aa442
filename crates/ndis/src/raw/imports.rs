//! The functions of `ndis.sys`.

use core::ffi::c_void;

use nt_types::{DRIVER_OBJECT, UNICODE_STRING};

use super::{
    NDIS_CONFIGURATION_OBJECT, NDIS_CONFIGURATION_PARAMETER, NDIS_HANDLE, NDIS_MINIPORT_DRIVER_CHARACTERISTICS,
    NDIS_OID_REQUEST, NET_BUFFER_LIST,
};
use crate::NdisStatus;

#[link(name = "ndis.sys", kind = "raw-dylib", modifiers = "+verbatim")]
unsafe extern "C" {
    /// `PASSIVE_LEVEL`, from `DriverEntry`. NDIS copies the characteristics.
    pub fn NdisMRegisterMiniportDriver(
        DriverObject: *mut DRIVER_OBJECT,
        RegistryPath: *const UNICODE_STRING,
        MiniportDriverContext: NDIS_HANDLE,
        MiniportDriverCharacteristics: *const NDIS_MINIPORT_DRIVER_CHARACTERISTICS,
        NdisMiniportDriverHandle: *mut NDIS_HANDLE,
    ) -> NdisStatus;
    /// `PASSIVE_LEVEL`, from `MiniportDriverUnload` or a failing `DriverEntry`.
    pub fn NdisMDeregisterMiniportDriver(NdisMiniportDriverHandle: NDIS_HANDLE);
    /// `PASSIVE_LEVEL`, from `MiniportInitializeEx`. The second argument points at one of the attribute structures.
    pub fn NdisMSetMiniportAttributes(NdisMiniportHandle: NDIS_HANDLE, MiniportAttributes: *const c_void)
    -> NdisStatus;
    /// IRQL <= `DISPATCH_LEVEL`, once for each request answered with `NDIS_STATUS_PENDING`.
    pub fn NdisMOidRequestComplete(
        NdisMiniportHandle: NDIS_HANDLE,
        OidRequest: *mut NDIS_OID_REQUEST,
        Status: NdisStatus,
    );
    /// IRQL <= `DISPATCH_LEVEL`.
    pub fn NdisMSendNetBufferListsComplete(
        NdisMiniportHandle: NDIS_HANDLE,
        NetBufferLists: *mut NET_BUFFER_LIST,
        SendCompleteFlags: u32,
    );

    /// `PASSIVE_LEVEL`.
    pub fn NdisOpenConfigurationEx(
        ConfigObject: *const NDIS_CONFIGURATION_OBJECT,
        ConfigurationHandle: *mut NDIS_HANDLE,
    ) -> NdisStatus;
    /// `PASSIVE_LEVEL`, one call at a time per handle.
    pub fn NdisReadConfiguration(
        Status: *mut NdisStatus,
        ParameterValue: *mut *mut NDIS_CONFIGURATION_PARAMETER,
        ConfigurationHandle: NDIS_HANDLE,
        Keyword: *const UNICODE_STRING,
        ParameterType: u32,
    );
    /// `PASSIVE_LEVEL`.
    pub fn NdisCloseConfiguration(ConfigurationHandle: NDIS_HANDLE);

    /// IRQL <= `DISPATCH_LEVEL`. NULL when memory is short.
    pub fn NdisAllocateMemoryWithTagPriority(
        NdisHandle: NDIS_HANDLE,
        Length: u32,
        Tag: u32,
        Priority: u32,
    ) -> *mut c_void;
    /// IRQL <= `DISPATCH_LEVEL`. `MemoryFlags` must be 0.
    pub fn NdisFreeMemory(VirtualAddress: *mut c_void, Length: u32, MemoryFlags: u32);

    /// See [`NDIS_OPEN_FILE`](super::NDIS_OPEN_FILE).
    #[cfg(target_arch = "x86_64")]
    pub fn NdisOpenFile(
        Status: *mut NdisStatus,
        FileHandle: *mut NDIS_HANDLE,
        FileLength: *mut u32,
        FileName: *const UNICODE_STRING,
        HighestAcceptableAddress: i64,
    );
    /// See [`NDIS_MAP_FILE`](super::NDIS_MAP_FILE).
    #[cfg(target_arch = "x86_64")]
    pub fn NdisMapFile(Status: *mut NdisStatus, MappedBuffer: *mut *mut c_void, FileHandle: NDIS_HANDLE);
    /// See [`NDIS_FILE_RELEASE`](super::NDIS_FILE_RELEASE).
    #[cfg(target_arch = "x86_64")]
    pub fn NdisUnmapFile(FileHandle: NDIS_HANDLE);
    /// See [`NDIS_FILE_RELEASE`](super::NDIS_FILE_RELEASE).
    #[cfg(target_arch = "x86_64")]
    pub fn NdisCloseFile(FileHandle: NDIS_HANDLE);
}

#[link(name = "ndis.sys", kind = "raw-dylib", modifiers = "+verbatim")]
unsafe extern "C" {
    /// IRQL <= `DISPATCH_LEVEL`. `NumberOfErrorValues` values of 32 bits follow.
    pub fn NdisWriteErrorLogEntry(NdisAdapterHandle: NDIS_HANDLE, ErrorCode: u32, NumberOfErrorValues: u32, ...);
}
