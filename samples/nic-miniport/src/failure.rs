//! Why an adapter did not start, told to whoever reads the event log, a debugger, or the status.

use core::ffi::CStr;

use ndis::miniport::AdapterHandle;
use ndis::raw::{
    NDIS_ERROR_CODE_DRIVER_FAILURE, NDIS_ERROR_CODE_HARDWARE_FAILURE, NDIS_ERROR_CODE_MISSING_CONFIGURATION_PARAMETER,
    NDIS_ERROR_CODE_OUT_OF_RESOURCES,
};
use ndis::{NdisStatus, error_log};
use wdk_sys::ntddk::DbgPrint;

/// The step that failed, with the status it failed with. The numbers are in the event log: they stay as they are.
#[derive(Clone, Copy)]
pub(crate) enum Failure {
    /// 1: the registry has no usable `FirmwareName`.
    NoName(NdisStatus),
    /// 2: the broker is there and refuses to talk.
    Broker(NdisStatus),
    /// 3: the image cannot be opened.
    Open(NdisStatus),
    /// 4: the image cannot be mapped.
    Map(NdisStatus),
    /// 5: the bytes are not those that the broker verified.
    Digest,
    /// 6: the image is empty.
    Empty,
    /// 7: the image says that it is an option ROM, and is none.
    BadOptionRom,
    /// 8: the device did not start with it.
    Device,
}

impl Failure {
    /// Writes the log entry and returns the status for `MiniportInitializeEx`: one of the three that its page allows.
    pub(crate) fn report(self, adapter: AdapterHandle) -> NdisStatus {
        let (place, status, code, text) = self.describe();
        let code = if status == NdisStatus::RESOURCES { NDIS_ERROR_CODE_OUT_OF_RESOURCES } else { code };
        error_log::write(adapter, code, place, status.bits());
        // SAFETY: both strings end in NUL, and the format takes one string and one number.
        unsafe { DbgPrint(c"samplenic: %s (0x%08X)\n".as_ptr(), text.as_ptr(), status.0) };
        match status {
            NdisStatus::RESOURCES => NdisStatus::RESOURCES,
            _ => NdisStatus::FAILURE,
        }
    }

    const fn describe(self) -> (u32, NdisStatus, u32, &'static CStr) {
        const MISSING: u32 = NDIS_ERROR_CODE_MISSING_CONFIGURATION_PARAMETER;
        const DRIVER: u32 = NDIS_ERROR_CODE_DRIVER_FAILURE;
        const DEVICE: u32 = NDIS_ERROR_CODE_HARDWARE_FAILURE;
        match self {
            Self::NoName(status) => (1, status, MISSING, c"no FirmwareName in the registry"),
            Self::Broker(status) => (2, status, DRIVER, c"the firmware broker refuses to talk"),
            Self::Open(status) => (3, status, DRIVER, c"the firmware cannot be opened"),
            Self::Map(status) => (4, status, DRIVER, c"the firmware cannot be mapped"),
            Self::Digest => (5, NdisStatus::INVALID_DATA, DRIVER, c"the firmware is not what the broker verified"),
            Self::Empty => (6, NdisStatus::INVALID_DATA, DRIVER, c"the firmware is empty"),
            Self::BadOptionRom => (7, NdisStatus::INVALID_DATA, DRIVER, c"the option ROM is malformed"),
            Self::Device => (8, NdisStatus::DEVICE_FAILED, DEVICE, c"the device did not start"),
        }
    }
}
