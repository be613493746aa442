//! Registry parameters of an adapter.

use core::ptr::{self, NonNull};
use core::slice;

use nt_types::UNICODE_STRING;

use crate::NdisStatus;
use crate::miniport::AdapterHandle;
use crate::raw::{
    NDIS_CONFIGURATION_OBJECT, NDIS_CONFIGURATION_PARAMETER, NDIS_HANDLE, NDIS_OBJECT_HEADER,
    NDIS_OBJECT_TYPE_CONFIGURATION_OBJECT, NDIS_SIZEOF_CONFIGURATION_OBJECT_REVISION_1, NdisCloseConfiguration,
    NdisOpenConfigurationEx, NdisParameterInteger, NdisParameterString, NdisReadConfiguration,
};

/// An open configuration; dropping it closes it, and with it all values read through it. `PASSIVE_LEVEL`.
pub struct Configuration {
    handle: NDIS_HANDLE,
}

impl Configuration {
    /// Opens the parameters of an adapter.
    ///
    /// # Errors
    /// `NDIS_STATUS_RESOURCES`, `NDIS_STATUS_FAILURE`.
    pub fn open(adapter: AdapterHandle) -> Result<Self, NdisStatus> {
        let object = NDIS_CONFIGURATION_OBJECT {
            Header: NDIS_OBJECT_HEADER::new(
                NDIS_OBJECT_TYPE_CONFIGURATION_OBJECT,
                1,
                NDIS_SIZEOF_CONFIGURATION_OBJECT_REVISION_1,
            ),
            NdisHandle: adapter.as_raw(),
            Flags: 0,
        };
        let mut handle = ptr::null_mut();
        // SAFETY: both pointers are to locals that outlive the call.
        unsafe { NdisOpenConfigurationEx(&raw const object, &raw mut handle) }.ok()?;
        Ok(Self { handle })
    }

    /// Reads the string value `name` (UTF-16 without NUL). The result lives as long as the configuration is open.
    ///
    /// Takes `self` exclusively because NDIS wants the calls on a handle serialised.
    ///
    /// # Errors
    /// `NDIS_STATUS_FAILURE` (no such value, or of another type), `NDIS_STATUS_RESOURCES`.
    pub fn read_string(&mut self, name: &[u16]) -> Result<&[u16], NdisStatus> {
        let parameter = self.read(name, NdisParameterString)?;
        if parameter.ParameterType != NdisParameterString {
            return Err(NdisStatus::FAILURE);
        }
        // SAFETY: the type says that this member is the valid one.
        let text = unsafe { parameter.ParameterData.StringData };
        if text.Buffer.is_null() {
            return Ok(&[]);
        }
        // SAFETY: NDIS keeps `Length` bytes at `Buffer` until the handle is closed, which needs `self` back.
        Ok(unsafe { slice::from_raw_parts(text.Buffer, text.chars()) })
    }

    /// Reads the number `name` (UTF-16 without NUL).
    ///
    /// # Errors
    /// As [`read_string`](Self::read_string).
    pub fn read_u32(&mut self, name: &[u16]) -> Result<u32, NdisStatus> {
        let parameter = self.read(name, NdisParameterInteger)?;
        if parameter.ParameterType != NdisParameterInteger {
            return Err(NdisStatus::FAILURE);
        }
        // SAFETY: the type says that this member is the valid one.
        Ok(unsafe { parameter.ParameterData.IntegerData })
    }

    fn read(&mut self, name: &[u16], kind: u32) -> Result<NDIS_CONFIGURATION_PARAMETER, NdisStatus> {
        let keyword = UNICODE_STRING::from_utf16(name).ok_or(NdisStatus::INVALID_PARAMETER)?;
        let mut status = NdisStatus::FAILURE;
        let mut value: *mut NDIS_CONFIGURATION_PARAMETER = ptr::null_mut();
        // SAFETY: the handle is open; the other pointers are to locals that outlive the call.
        unsafe {
            NdisReadConfiguration(&raw mut status, &raw mut value, self.handle, &raw const keyword, kind);
        }
        status.ok()?;
        let value = NonNull::new(value).ok_or(NdisStatus::FAILURE)?;
        // SAFETY: on success NDIS points `value` at a parameter that it keeps until the handle is closed.
        Ok(unsafe { value.read() })
    }
}

impl Drop for Configuration {
    fn drop(&mut self) {
        // SAFETY: opened by `open`, closed once.
        unsafe { NdisCloseConfiguration(self.handle) };
    }
}
