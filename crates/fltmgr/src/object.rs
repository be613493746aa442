//! References on volumes and instances.

use crate::irql::after_call;
use crate::raw::{
    FltGetVolumeFromFileObject, FltGetVolumeFromName, FltGetVolumeGuidName, FltGetVolumeInstanceFromName,
    FltObjectDereference, PFLT_INSTANCE, PFLT_VOLUME,
};
use crate::{FilterRef, OpenFile, Passive};
use core::ptr;
use nt_types::{NtStatus, UNICODE_STRING};

/// A referenced volume. Dereferenced on drop, IRQL <= APC_LEVEL.
///
/// A leaked reference makes FltUnregisterFilter wait for ever.
#[derive(Debug)]
pub struct Volume {
    volume: PFLT_VOLUME,
}

impl Volume {
    /// Characters of `\??\Volume{xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx}`.
    pub const GUID_NAME_CHARS: usize = 48;

    /// Finds a volume by name (`FltGetVolumeFromName`).
    ///
    /// Takes `\Device\HarddiskVolume1`, `\??\C:` and `\??\Volume{...}` without a final separator.
    ///
    /// # Errors
    /// STATUS_FLT_VOLUME_NOT_FOUND, STATUS_FLT_DELETING_OBJECT, STATUS_ACCESS_DENIED,
    /// STATUS_INVALID_PARAMETER, STATUS_NAME_TOO_LONG.
    pub fn by_name(filter: FilterRef, name: &[u16], _passive: Passive) -> Result<Self, NtStatus> {
        let name = UNICODE_STRING::from_utf16(name).ok_or(NtStatus::NAME_TOO_LONG)?;
        let mut volume = ptr::null_mut();
        // SAFETY: name and cell outlive the call (rule: nf-fltkernel-fltgetvolumefromname).
        let status = after_call(unsafe { FltGetVolumeFromName(filter.as_ptr(), &raw const name, &raw mut volume) });
        status.ok()?;
        Ok(Self { volume })
    }

    /// The volume of an open file (`FltGetVolumeFromFileObject`). IRQL <= APC_LEVEL.
    ///
    /// # Errors
    /// STATUS_FLT_DELETING_OBJECT, STATUS_INVALID_PARAMETER (the file is on no volume).
    pub fn of_file(filter: FilterRef, file: &OpenFile) -> Result<Self, NtStatus> {
        let mut volume = ptr::null_mut();
        // SAFETY: the file object is referenced (rule: OpenFile owns a reference).
        let status = after_call(unsafe { FltGetVolumeFromFileObject(filter.as_ptr(), file.object(), &raw mut volume) });
        status.ok()?;
        Ok(Self { volume })
    }

    /// Writes the volume's GUID name (`FltGetVolumeGuidName`), [`GUID_NAME_CHARS`](Self::GUID_NAME_CHARS)
    /// characters; the part written. Never from a mount callback.
    ///
    /// # Errors
    /// STATUS_FLT_VOLUME_NOT_FOUND, STATUS_INVALID_DEVICE_REQUEST (a network volume),
    /// STATUS_BUFFER_TOO_SMALL, STATUS_INSUFFICIENT_RESOURCES.
    pub fn guid_name<'a>(
        &self,
        buffer: &'a mut [u16; Self::GUID_NAME_CHARS],
        _passive: Passive,
    ) -> Result<&'a [u16], NtStatus> {
        let mut name =
            UNICODE_STRING { Length: 0, MaximumLength: size_of_val(buffer) as u16, Buffer: buffer.as_mut_ptr() };
        // SAFETY: the volume is referenced and the string describes our buffer
        // (rule: nf-fltkernel-fltgetvolumeguidname).
        let status = after_call(unsafe { FltGetVolumeGuidName(self.volume, &raw mut name, ptr::null_mut()) });
        status.ok()?;
        buffer.get(..name.chars()).ok_or(NtStatus::UNSUCCESSFUL)
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // SAFETY: one reference is ours, given back only here (rule: Volume owns it).
        unsafe { FltObjectDereference(self.volume.cast()) };
        after_call(0_u8);
    }
}

// SAFETY: FltMgr objects are used from any thread (rule: opaque, reference counted).
unsafe impl Send for Volume {}
// SAFETY: as above.
unsafe impl Sync for Volume {}

/// A referenced instance. Dereferenced on drop, IRQL <= APC_LEVEL.
///
/// The reference keeps the object's memory; it does not keep the instance attached.
#[derive(Debug)]
pub struct Instance {
    instance: PFLT_INSTANCE,
}

impl Instance {
    /// The first instance of `filter` on `volume` (`FltGetVolumeInstanceFromName`). IRQL <= APC_LEVEL.
    ///
    /// # Errors
    /// STATUS_FLT_INSTANCE_NOT_FOUND, STATUS_FLT_DELETING_OBJECT.
    pub fn on_volume(filter: FilterRef, volume: &Volume) -> Result<Self, NtStatus> {
        let mut instance = ptr::null_mut();
        // SAFETY: filter and volume are referenced, no name is given
        // (rule: nf-fltkernel-fltgetvolumeinstancefromname).
        let status = after_call(unsafe {
            FltGetVolumeInstanceFromName(filter.as_ptr(), volume.volume, ptr::null(), &raw mut instance)
        });
        status.ok()?;
        Ok(Self { instance })
    }

    /// The pointer that FltMgr knows, for comparisons with a callback's instance.
    #[must_use]
    pub const fn as_ptr(&self) -> PFLT_INSTANCE {
        self.instance
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: one reference is ours, given back only here (rule: Instance owns it).
        unsafe { FltObjectDereference(self.instance.cast()) };
        after_call(0_u8);
    }
}

// SAFETY: FltMgr objects are used from any thread (rule: opaque, reference counted).
unsafe impl Send for Instance {}
// SAFETY: as above.
unsafe impl Sync for Instance {}
