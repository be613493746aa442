//! File names as FltMgr hands them out.

use nt_types::{UNICODE_STRING, assert_layout};

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
pub const FLT_FILE_NAME_DO_NOT_CACHE: u32 = 0x0400_0000;
/// Flag: ask below the calling filter's instance.
pub const FLT_FILE_NAME_REQUEST_FROM_CURRENT_PROVIDER: u32 = 0x0100_0000;
