//! Driver images: loading, relocating, binding, finding them again by address.

use std::sync::Weak;

use crate::ddi::Export;
use crate::machine::Driver;

/// One import of one driver: what the import gate leaves behind as proof of who called what.
///
/// The gate reads `target` at offset 0.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Binding {
    /// The function that serves the call.
    pub(crate) target: *const (),
    /// The calling driver.
    pub(crate) driver: Weak<Driver>,
    /// The export.
    pub(crate) export: &'static Export,
}

// SAFETY: `target` is the address of a function of this process and never changes.
unsafe impl Send for Binding {}
// SAFETY: as above; all fields are read only.
unsafe impl Sync for Binding {}
