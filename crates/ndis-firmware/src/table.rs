//! The broker's function table, checked and owned.

use core::ffi::c_void;

use nt_types::{NtStatus, UNICODE_STRING};

use crate::file::FirmwareFile;
use crate::interface::{
    FWBROKER_CLOSE, FWBROKER_IMAGE, FWBROKER_INTERFACE, FWBROKER_INTERFACE_VERSION_1, FWBROKER_MAP, FWBROKER_OPEN,
    FWBROKER_OPEN_PARAMETERS, FWBROKER_REFERENCE, FWBROKER_UNMAP, NO_HANDLE,
};

/// One reference to the broker's interface; dropping it gives the reference back, at IRQL <= `DISPATCH_LEVEL`.
pub struct Table {
    pub(crate) context: *mut c_void,
    pub(crate) map: FWBROKER_MAP,
    pub(crate) unmap: FWBROKER_UNMAP,
    pub(crate) close: FWBROKER_CLOSE,
    open: FWBROKER_OPEN,
    dereference: FWBROKER_REFERENCE,
}

// SAFETY: the broker's functions may be called from any thread, and at the same time.
unsafe impl Send for Table {}
// SAFETY: as above.
unsafe impl Sync for Table {}

impl Table {
    /// Takes over the reference that comes with a table that the broker filled.
    ///
    /// # Errors
    /// `STATUS_REVISION_MISMATCH`: not a complete table of version 1. Where the table has a dereference function at all, the
    /// reference has been given back.
    ///
    /// # Safety
    /// The broker filled `interface`, and its code stays loaded for the life of the result.
    pub unsafe fn from_interface(interface: &FWBROKER_INTERFACE) -> Result<Self, NtStatus> {
        let complete = interface.Version == FWBROKER_INTERFACE_VERSION_1
            && usize::from(interface.Size) >= size_of::<FWBROKER_INTERFACE>();
        match (interface.Open, interface.Map, interface.Unmap, interface.Close, interface.InterfaceDereference) {
            (Some(open), Some(map), Some(unmap), Some(close), Some(dereference)) if complete => {
                Ok(Self { context: interface.Context, open, map, unmap, close, dereference })
            }
            (.., Some(dereference)) => {
                // SAFETY: the table came with one reference, which nobody else will give back.
                unsafe { dereference(interface.Context) };
                Err(NtStatus::REVISION_MISMATCH)
            }
            _ => Err(NtStatus::REVISION_MISMATCH),
        }
    }

    /// Opens the image `name` (UTF-16 without NUL, a bare file name). `PASSIVE_LEVEL`.
    ///
    /// No byte lies above the physical address `highest`, [`ANY_ADDRESS`](crate::interface::ANY_ADDRESS) for no limit. The broker's default
    /// time-out applies.
    ///
    /// # Errors
    /// As [`FWBROKER_OPEN`] documents; `STATUS_OBJECT_NAME_INVALID` also for a name above 32,767 characters.
    pub fn open(&self, name: &[u16], highest: i64) -> Result<FirmwareFile<'_>, NtStatus> {
        self.open_with(name, highest, core::ptr::null())
    }

    /// As [`open`](Self::open), waiting at most `milliseconds` for an image that is still being staged; 0 for the broker's default.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_within(&self, name: &[u16], highest: i64, milliseconds: u32) -> Result<FirmwareFile<'_>, NtStatus> {
        let parameters = FWBROKER_OPEN_PARAMETERS {
            Size: size_of::<FWBROKER_OPEN_PARAMETERS>() as u16,
            Version: FWBROKER_INTERFACE_VERSION_1,
            Flags: 0,
            TimeoutMilliseconds: milliseconds,
            Reserved: 0,
        };
        self.open_with(name, highest, &raw const parameters)
    }

    fn open_with(
        &self,
        name: &[u16],
        highest: i64,
        parameters: *const FWBROKER_OPEN_PARAMETERS,
    ) -> Result<FirmwareFile<'_>, NtStatus> {
        let name = UNICODE_STRING::from_utf16(name).ok_or(NtStatus::OBJECT_NAME_INVALID)?;
        let mut image = FWBROKER_IMAGE { Handle: NO_HANDLE, Length: 0, Sha256: [0; 32] };
        // SAFETY: the table is referenced, and all pointers are to locals that outlive the call.
        let status = unsafe { (self.open)(self.context, &raw const name, highest, parameters, &raw mut image) };
        // Only SUCCESS means that there is a handle: a pending or informational status would be the broker's mistake.
        if status != NtStatus::SUCCESS {
            return Err(if status.is_success() { NtStatus::UNSUCCESSFUL } else { status });
        }
        Ok(FirmwareFile::new(self, image))
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: gives back the one reference this value stands for.
        unsafe { (self.dereference)(self.context) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::tests::{FakeBroker, name};

    #[test]
    fn a_dropped_table_gives_its_reference_back() {
        let broker = FakeBroker::new();
        drop(broker.table());
        assert_eq!(broker.references(), 0);
    }

    #[test]
    fn a_table_of_another_version_is_refused_and_given_back() {
        let broker = FakeBroker::new();
        let mut interface = broker.interface();
        interface.Version = 2;
        // SAFETY: the fake outlives the attempt.
        let refused = unsafe { Table::from_interface(&interface) };
        assert_eq!(refused.err(), Some(NtStatus::REVISION_MISMATCH));
        assert_eq!(broker.references(), 0);
    }

    #[test]
    fn a_table_with_a_function_missing_is_refused() {
        let broker = FakeBroker::new();
        let mut interface = broker.interface();
        interface.Map = None;
        // SAFETY: the fake outlives the attempt.
        assert!(unsafe { Table::from_interface(&interface) }.is_err());
        assert_eq!(broker.references(), 0);
    }

    #[test]
    fn a_refused_open_hands_back_the_brokers_status() {
        let broker = FakeBroker::new();
        let table = broker.table();
        let refused = table.open(&name("missing.bin"), -1).err();
        assert_eq!(refused, Some(NtStatus::OBJECT_NAME_NOT_FOUND));
    }
}
