//! The system's error log.

use crate::miniport::AdapterHandle;
use crate::raw::NdisWriteErrorLogEntry;

/// Writes an entry with `code` (an `NDIS_ERROR_CODE_*`) and two values for whoever reads it. `PASSIVE_LEVEL`.
///
/// Meant for failures that an administrator can do something about; two values because a place in the driver and a status are
/// what such a reader needs.
pub fn write(adapter: AdapterHandle, code: u32, place: u32, value: u32) {
    // SAFETY: the handle is an adapter's, and exactly two values of 32 bits follow the count.
    unsafe { NdisWriteErrorLogEntry(adapter.as_raw(), code, 2, place, value) };
}
