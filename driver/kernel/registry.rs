//! Reading the driver's settings.

use super::heap;
use alloc::vec::Vec;
use core::ptr;
use fltmgr::Passive;
use nt_types::{
    KEY_READ, KEY_VALUE_PARTIAL_INFORMATION, KEY_VALUE_PARTIAL_INFORMATION_CLASS, NtStatus, OBJECT_ATTRIBUTES,
    ObjectFlags, REG_DWORD, REG_MULTI_SZ, REG_QWORD, UNICODE_STRING,
};
use wdk_sys::HANDLE;
use wdk_sys::ntddk::{ZwClose, ZwOpenKey, ZwQueryValueKey};

/// An open registry key. Closed on drop, at PASSIVE_LEVEL.
pub(crate) struct Key {
    handle: HANDLE,
    // Where it was opened it is closed, and the proof does not leave the thread.
    _passive: Passive,
}

/// Longest value that is read, in bytes. A list of folders that is longer is a mistake.
const MAX_VALUE_BYTES: u32 = 16 * 1024;

impl Key {
    /// Opens a key by its full NT path, for reading (`ZwOpenKey`).
    ///
    /// # Errors
    /// STATUS_OBJECT_NAME_NOT_FOUND; STATUS_NAME_TOO_LONG; other statuses of the registry.
    pub(crate) fn open(path: &[u16], passive: Passive) -> Result<Self, NtStatus> {
        let name = UNICODE_STRING::from_utf16(path).ok_or(NtStatus::NAME_TOO_LONG)?;
        let flags = ObjectFlags::KERNEL_HANDLE | ObjectFlags::CASE_INSENSITIVE;
        let mut attributes = OBJECT_ATTRIBUTES::new(&raw const name, flags);
        let mut handle = ptr::null_mut();
        // SAFETY: name, attributes and cell outlive the call (rule: ZwOpenKey). The two crates' structures have
        // the same layout, which is asserted in `layout`.
        let status = unsafe { ZwOpenKey(&raw mut handle, KEY_READ, (&raw mut attributes).cast()) };
        NtStatus(status).ok()?;
        Ok(Self { handle, _passive: passive })
    }

    /// A number, REG_DWORD or REG_QWORD. `None` where there is none, or something else.
    ///
    /// # Errors
    /// STATUS_INSUFFICIENT_RESOURCES and other statuses of the registry: nobody knows then whether there is one.
    pub(crate) fn number(&self, name: &[u16]) -> Result<Option<u64>, NtStatus> {
        Ok(self.value_if_any(name)?.and_then(|(kind, data)| match kind {
            REG_DWORD => data.first_chunk().map(|bytes| u64::from(u32::from_le_bytes(*bytes))),
            REG_QWORD => data.first_chunk().map(|bytes| u64::from_le_bytes(*bytes)),
            _ => None,
        }))
    }

    /// Whether there is a value of this name, of whatever type.
    ///
    /// # Errors
    /// As [`number`](Self::number).
    pub(crate) fn has(&self, name: &[u16]) -> Result<bool, NtStatus> {
        match self.value(name) {
            Err(NtStatus::OBJECT_NAME_NOT_FOUND) => Ok(false),
            Ok(_) | Err(NtStatus::BUFFER_OVERFLOW | NtStatus::BUFFER_TOO_SMALL) => Ok(true),
            Err(status) => Err(status),
        }
    }

    /// The characters of a list of texts, REG_MULTI_SZ: each ends in NUL. `None` where there is none, or something else.
    ///
    /// # Errors
    /// As [`number`](Self::number).
    pub(crate) fn texts(&self, name: &[u16]) -> Result<Option<Vec<u16>>, NtStatus> {
        let Some((_, data)) = self.value_if_any(name)?.filter(|(kind, _)| *kind == REG_MULTI_SZ) else {
            return Ok(None);
        };
        let (pairs, _) = data.as_chunks::<2>();
        let mut units = Vec::new();
        units.try_reserve_exact(pairs.len()).map_err(|_| NtStatus::INSUFFICIENT_RESOURCES)?;
        units.extend(pairs.iter().map(|pair| u16::from_le_bytes(*pair)));
        Ok(Some(units))
    }

    /// As [`value`](Self::value), with `None` for one that is not there, or longer than anything that is read.
    fn value_if_any(&self, name: &[u16]) -> Result<Option<(u32, Vec<u8>)>, NtStatus> {
        match self.value(name) {
            Ok(value) => Ok(Some(value)),
            Err(NtStatus::OBJECT_NAME_NOT_FOUND | NtStatus::BUFFER_OVERFLOW | NtStatus::BUFFER_TOO_SMALL) => Ok(None),
            Err(status) => Err(status),
        }
    }

    /// Type and data of a value (`ZwQueryValueKey`).
    fn value(&self, name: &[u16]) -> Result<(u32, Vec<u8>), NtStatus> {
        const HEADER: usize = size_of::<KEY_VALUE_PARTIAL_INFORMATION>();
        let mut bytes: Vec<u8>;
        let mut length = MIN_VALUE_BYTES;
        // Twice at most: with a guess, then with the length that the registry asked for.
        loop {
            bytes = heap::zeroed(length as usize).map_err(broker::Error::status)?;
            match self.query(name, &mut bytes) {
                (NtStatus::BUFFER_OVERFLOW | NtStatus::BUFFER_TOO_SMALL, needed)
                    if needed > length && needed <= MAX_VALUE_BYTES =>
                {
                    length = needed;
                }
                (status, _) => {
                    // A value that did not fit is a warning: an error to `ok`.
                    status.ok()?;
                    break;
                }
            }
        }
        let (header, data) = bytes.split_first_chunk::<HEADER>().ok_or(NtStatus::REGISTRY_CORRUPT)?;
        let field = |at: usize| header.get(at..).and_then(<[u8]>::first_chunk).copied().map(u32::from_le_bytes);
        let (Some(kind), Some(data_length)) = (field(4), field(8)) else { return Err(NtStatus::REGISTRY_CORRUPT) };
        let data = data.get(..data_length as usize).ok_or(NtStatus::REGISTRY_CORRUPT)?;
        let mut owned = Vec::new();
        owned.try_reserve_exact(data.len()).map_err(|_| NtStatus::INSUFFICIENT_RESOURCES)?;
        owned.extend_from_slice(data);
        Ok((kind, owned))
    }

    /// One query; the status, and the bytes that there are to read.
    fn query(&self, name: &[u16], buffer: &mut [u8]) -> (NtStatus, u32) {
        let Some(mut name) = UNICODE_STRING::from_utf16(name) else { return (NtStatus::NAME_TOO_LONG, 0) };
        let mut needed = 0;
        // SAFETY: the key is open, name, buffer and cell outlive the call, and the length is the buffer's
        // (rule: ZwQueryValueKey).
        let status = unsafe {
            ZwQueryValueKey(
                self.handle,
                (&raw mut name).cast(),
                KEY_VALUE_PARTIAL_INFORMATION_CLASS,
                buffer.as_mut_ptr().cast(),
                u32::try_from(buffer.len()).unwrap_or(0),
                &raw mut needed,
            )
        };
        (NtStatus(status), needed)
    }
}

/// First guess: header and a number, or a short list.
const MIN_VALUE_BYTES: u32 = 256;

impl Drop for Key {
    fn drop(&mut self) {
        // SAFETY: opened by us, closed only here, PASSIVE_LEVEL by the proof we keep (rule: ZwClose).
        let _ = unsafe { ZwClose(self.handle) };
    }
}
