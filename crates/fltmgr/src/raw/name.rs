//! File names as FltMgr hands them out.

use super::{FLT_CALLBACK_DATA, PCUNICODE_STRING, PFLT_INSTANCE};
use nt_types::{FILE_OBJECT, NtStatus, PVOID, UNICODE_STRING, assert_layout};

/// `FLT_FILE_NAME_INFORMATION`. Page: `ns-fltkernel-_flt_file_name_information`.
///
/// Paged pool, shared with every other filter: read only. All strings point into one buffer and
/// have no terminator. The parts after `Volume` are empty until FltParseFileNameInformation ran.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FLT_FILE_NAME_INFORMATION {
    /// Size of this structure in bytes.
    pub Size: u16,
    /// `FLTFL_FILE_NAME_PARSED_*`: which parts are valid.
    pub NamesParsed: u16,
    /// One of the `FLT_FILE_NAME_*` formats.
    pub Format: u32,
    /// The whole name.
    pub Name: UNICODE_STRING,
    /// Volume device name.
    pub Volume: UNICODE_STRING,
    /// Network share.
    pub Share: UNICODE_STRING,
    /// Extension without its dot.
    pub Extension: UNICODE_STRING,
    /// Stream, starting with its colon.
    pub Stream: UNICODE_STRING,
    /// Last component, stream included.
    pub FinalComponent: UNICODE_STRING,
    /// Directory, relative to the volume, with both separators.
    pub ParentDir: UNICODE_STRING,
}

assert_layout!(FLT_FILE_NAME_INFORMATION, 120, {
    Size: 0, NamesParsed: 2, Format: 4, Name: 8, Volume: 24, Share: 40, Extension: 56,
    Stream: 72, FinalComponent: 88, ParentDir: 104,
});

/// Format: long names, links resolved as far as the file system does.
pub const FLT_FILE_NAME_NORMALIZED: u32 = 0x01;
/// Format: as it was opened.
pub const FLT_FILE_NAME_OPENED: u32 = 0x02;
/// Format: 8.3 name of the last component.
pub const FLT_FILE_NAME_SHORT: u32 = 0x03;

/// Method: the cache, then the file system where that is safe.
pub const FLT_FILE_NAME_QUERY_DEFAULT: u32 = 0x0100;
/// Method: the cache only.
pub const FLT_FILE_NAME_QUERY_CACHE_ONLY: u32 = 0x0200;
/// Method: the file system only.
pub const FLT_FILE_NAME_QUERY_FILESYSTEM_ONLY: u32 = 0x0300;
/// Method: the cache also where the file system must not be asked.
pub const FLT_FILE_NAME_QUERY_ALWAYS_ALLOW_CACHE_LOOKUP: u32 = 0x0400;

/// Flag: do not add the result to the cache.
pub const FLT_FILE_NAME_DO_NOT_CACHE: u32 = 0x0200_0000;
/// Flag: ask also after a create that ended in STATUS_REPARSE.
pub const FLT_FILE_NAME_ALLOW_QUERY_ON_REPARSE: u32 = 0x0400_0000;
/// Flag: ask below the calling filter's instance.
pub const FLT_FILE_NAME_REQUEST_FROM_CURRENT_PROVIDER: u32 = 0x0100_0000;

/// `FLT_NAME_CONTROL`: a name that a provider fills in. Page: `ns-fltkernel-_flt_name_control`.
///
/// The buffer is FltMgr's; FltCheckAndGrowNameControl replaces it by a larger one.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct FLT_NAME_CONTROL {
    /// The name.
    pub Name: UNICODE_STRING,
}

assert_layout!(FLT_NAME_CONTROL, 16, { Name: 0 });

/// `PFLT_GENERATE_FILE_NAME`, PASSIVE_LEVEL. Page: `nc-fltkernel-pflt_generate_file_name`.
///
/// `CallbackData` is NULL outside of an operation. `CacheFileNameInformation` says whether the name may be cached.
pub type PFLT_GENERATE_FILE_NAME = Option<
    unsafe extern "efiapi" fn(
        Instance: PFLT_INSTANCE,
        FileObject: *mut FILE_OBJECT,
        CallbackData: *mut FLT_CALLBACK_DATA,
        NameOptions: u32,
        CacheFileNameInformation: *mut u8,
        FileName: *mut FLT_NAME_CONTROL,
    ) -> NtStatus,
>;

/// `PFLT_NORMALIZE_NAME_COMPONENT`, PASSIVE_LEVEL. STATUS_NO_SUCH_FILE for what does not exist.
/// Page: `nc-fltkernel-pflt_normalize_name_component`.
///
/// `ExpandComponentName` is a FILE_NAMES_INFORMATION; lengths are in bytes.
pub type PFLT_NORMALIZE_NAME_COMPONENT = Option<
    unsafe extern "efiapi" fn(
        Instance: PFLT_INSTANCE,
        ParentDirectory: PCUNICODE_STRING,
        VolumeNameLength: u16,
        Component: PCUNICODE_STRING,
        ExpandComponentName: PVOID,
        ExpandComponentNameLength: u32,
        Flags: u32,
        NormalizationContext: *mut PVOID,
    ) -> NtStatus,
>;

/// `PFLT_NORMALIZE_NAME_COMPONENT_EX`, as [`PFLT_NORMALIZE_NAME_COMPONENT`] with the file object.
/// Page: `nc-fltkernel-pflt_normalize_name_component_ex`.
pub type PFLT_NORMALIZE_NAME_COMPONENT_EX = Option<
    unsafe extern "efiapi" fn(
        Instance: PFLT_INSTANCE,
        FileObject: *mut FILE_OBJECT,
        ParentDirectory: PCUNICODE_STRING,
        VolumeNameLength: u16,
        Component: PCUNICODE_STRING,
        ExpandComponentName: PVOID,
        ExpandComponentNameLength: u32,
        Flags: u32,
        NormalizationContext: *mut PVOID,
    ) -> NtStatus,
>;

/// `PFLT_NORMALIZE_CONTEXT_CLEANUP`, PASSIVE_LEVEL. Page: `nc-fltkernel-pflt_normalize_context_cleanup`.
pub type PFLT_NORMALIZE_CONTEXT_CLEANUP = Option<unsafe extern "efiapi" fn(NormalizationContext: *mut PVOID)>;
