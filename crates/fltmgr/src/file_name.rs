//! Names of open files.

use crate::irql::after_call;
use crate::raw::{
    FLT_FILE_NAME_INFORMATION, FLT_FILE_NAME_NORMALIZED, FLT_FILE_NAME_QUERY_DEFAULT, FltGetFileNameInformationUnsafe,
    FltReleaseFileNameInformation,
};
use crate::{Instance, OpenFile, Passive};
use core::ptr::NonNull;
use core::{ptr, slice};
use nt_types::{NtStatus, UNICODE_STRING};

/// Name information of a file. Released on drop, IRQL <= APC_LEVEL.
///
/// The memory is paged and shared with every other filter on the stack: read only.
#[derive(Debug)]
pub struct FileName {
    information: NonNull<FLT_FILE_NAME_INFORMATION>,
}

impl FileName {
    /// The normalised name of an open file (`FltGetFileNameInformationUnsafe`): volume device name
    /// and long names, `\Device\HarddiskVolume1\Firmware\nic.rom`.
    ///
    /// # Errors
    /// STATUS_FLT_INVALID_NAME_REQUEST (a top-level IRP is set, APCs are disabled),
    /// STATUS_INSUFFICIENT_RESOURCES, STATUS_ACCESS_DENIED, other statuses of a file system.
    pub fn normalized(file: &OpenFile, instance: &Instance, _passive: Passive) -> Result<Self, NtStatus> {
        let mut information = ptr::null_mut();
        // SAFETY: the file is open and the instance referenced
        // (rule: nf-fltkernel-fltgetfilenameinformationunsafe).
        let status = after_call(unsafe {
            FltGetFileNameInformationUnsafe(
                file.object(),
                instance.as_ptr(),
                FLT_FILE_NAME_NORMALIZED | FLT_FILE_NAME_QUERY_DEFAULT,
                &raw mut information,
            )
        });
        status.ok()?;
        let information = NonNull::new(information).ok_or(NtStatus::UNSUCCESSFUL)?;
        Ok(Self { information })
    }

    /// The whole name.
    #[must_use]
    pub fn full(&self) -> &[u16] {
        // SAFETY: the string belongs to the structure, which lives as long as self.
        unsafe { as_slice(self.information().Name) }
    }

    /// The part of [`full`](Self::full) that names the volume's device.
    #[must_use]
    pub fn volume(&self) -> &[u16] {
        // SAFETY: as in `full`.
        unsafe { as_slice(self.information().Volume) }
    }

    fn information(&self) -> &FLT_FILE_NAME_INFORMATION {
        // SAFETY: FltMgr gave us a reference, and nobody writes to it (rule: read only).
        unsafe { self.information.as_ref() }
    }
}

impl Drop for FileName {
    fn drop(&mut self) {
        // SAFETY: one release per successful get, only here (rule: FileName owns it).
        unsafe { FltReleaseFileNameInformation(self.information.as_ptr()) };
        after_call(0_u8);
    }
}

/// The characters of a string of FltMgr's.
///
/// # Safety
/// The string's buffer holds its length and lives, unchanged, for `'a`.
unsafe fn as_slice<'a>(string: UNICODE_STRING) -> &'a [u16] {
    if string.Buffer.is_null() {
        return &[];
    }
    // SAFETY: not NULL, and the caller vouches for length and life (rule: UNICODE_STRING).
    unsafe { slice::from_raw_parts(string.Buffer, string.chars()) }
}
