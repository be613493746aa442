//! Files as NDIS offers them to miniports: whole, and during initialisation only.
//!
//! `ndis.sys` reads the file when it is opened; mapping only exposes the copy. The DDIs do not exist on ARM64, where
//! [`NdisFile::open`] says `NDIS_STATUS_NOT_SUPPORTED`.

use core::marker::PhantomData;
use core::ops::Deref;

use crate::NdisStatus;
use crate::miniport::Initializing;
use crate::raw::NDIS_HANDLE;

#[cfg(target_arch = "x86_64")]
use {
    crate::raw::{NdisCloseFile, NdisMapFile, NdisOpenFile, NdisUnmapFile},
    core::ffi::c_void,
    core::{ptr, slice},
    nt_types::UNICODE_STRING,
};

/// An open file of NDIS. It cannot outlive the initialisation that opened it: NDIS demands that it be closed before
/// `MiniportInitializeEx` returns. Dropping it closes it. `PASSIVE_LEVEL`.
pub struct NdisFile<'init> {
    handle: NDIS_HANDLE,
    length: u32,
    init: PhantomData<&'init ()>,
}

#[cfg(target_arch = "x86_64")]
impl<'init> NdisFile<'init> {
    /// Opens and reads `name`, a bare file name in the system's driver folder (UTF-16 without NUL). No byte of the copy lies above
    /// the physical address `highest`; -1 for no limit.
    ///
    /// # Errors
    /// `NDIS_STATUS_FILE_NOT_FOUND`, `NDIS_STATUS_RESOURCES`, `NDIS_STATUS_ERROR_READING_FILE`; `NDIS_STATUS_INVALID_PARAMETER` for a
    /// name above 32,767 characters.
    pub fn open(_: &'init Initializing<'_>, name: &[u16], highest: i64) -> Result<Self, NdisStatus> {
        let name = UNICODE_STRING::from_utf16(name).ok_or(NdisStatus::INVALID_PARAMETER)?;
        let mut status = NdisStatus::FAILURE;
        let mut handle = ptr::null_mut();
        let mut length = 0;
        // SAFETY: all pointers are to locals that outlive the call, and the borrow proves that initialisation is under way.
        unsafe {
            NdisOpenFile(&raw mut status, &raw mut handle, &raw mut length, &raw const name, highest);
        }
        status.ok()?;
        Ok(Self { handle, length, init: PhantomData })
    }

    /// Exposes the contents. The exclusive borrow keeps a second mapping, which NDIS refuses, from compiling.
    ///
    /// # Errors
    /// `NDIS_STATUS_ALREADY_MAPPED`.
    pub fn map(&mut self) -> Result<MappedFile<'_>, NdisStatus> {
        let mut status = NdisStatus::FAILURE;
        let mut buffer: *mut c_void = ptr::null_mut();
        // SAFETY: the handle is open; the other pointers are to locals that outlive the call.
        unsafe { NdisMapFile(&raw mut status, &raw mut buffer, self.handle) };
        status.ok()?;
        let bytes: &[u8] = if buffer.is_null() {
            &[]
        } else {
            // SAFETY: a mapped file is `length` readable bytes until it is unmapped, which the result's drop does.
            unsafe { slice::from_raw_parts(buffer.cast(), self.length as usize) }
        };
        Ok(MappedFile { bytes, handle: self.handle })
    }
}

#[cfg(not(target_arch = "x86_64"))]
impl<'init> NdisFile<'init> {
    /// Not offered by NDIS on this architecture.
    ///
    /// # Errors
    /// `NDIS_STATUS_NOT_SUPPORTED`.
    pub fn open(_: &'init Initializing<'_>, _name: &[u16], _highest: i64) -> Result<Self, NdisStatus> {
        Err(NdisStatus::NOT_SUPPORTED)
    }

    /// Not offered by NDIS on this architecture.
    ///
    /// # Errors
    /// `NDIS_STATUS_NOT_SUPPORTED`.
    pub fn map(&mut self) -> Result<MappedFile<'_>, NdisStatus> {
        Err(NdisStatus::NOT_SUPPORTED)
    }
}

impl NdisFile<'_> {
    /// Length of the file in bytes.
    #[must_use]
    pub const fn len(&self) -> u32 {
        self.length
    }

    /// True for a file without content.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.length == 0
    }
}

impl Drop for NdisFile<'_> {
    fn drop(&mut self) {
        // SAFETY: opened by `open`, closed once, before `MiniportInitializeEx` returns (lifetime).
        #[cfg(target_arch = "x86_64")]
        unsafe {
            NdisCloseFile(self.handle);
        }
        let _ = self.handle;
    }
}

/// The contents of an [`NdisFile`]; dropping it unmaps them.
pub struct MappedFile<'file> {
    bytes: &'file [u8],
    handle: NDIS_HANDLE,
}

impl Deref for MappedFile<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl Drop for MappedFile<'_> {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, unmapped once, while the file is open (borrow).
        #[cfg(target_arch = "x86_64")]
        unsafe {
            NdisUnmapFile(self.handle);
        }
        let _ = self.handle;
    }
}
