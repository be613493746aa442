//! A loaded driver.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use crate::image::Image;
use crate::image::late::LateThunks;
use crate::nt::io::driver_object::DriverObject;

/// A driver, from the moment its image is mapped until the machine is gone.
#[derive(Debug, Default)]
pub struct Driver {
    /// Image file name, such as `fwbroker.sys`.
    pub name: String,
    /// Name of its service.
    pub service: String,
    /// Host path of the image file.
    pub path: PathBuf,
    pub(super) image: OnceLock<Image>,
    /// Exports whose addresses it got while it ran.
    pub(crate) late: LateThunks,
    /// While it is loaded. The object refers back to the driver, so it has to be taken out in the end.
    object: Mutex<Option<DriverObject>>,
    state: Mutex<DriverState>,
    entry_time: OnceLock<Duration>,
}

/// Where a driver is in its life.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum DriverState {
    /// `DriverEntry` has not returned.
    #[default]
    Starting,
    /// `DriverEntry` succeeded.
    Running,
    /// It is being asked to unload.
    Unloading,
    /// Its unload is held back until nobody has its devices open.
    Leaving,
    /// Its code is gone.
    Unloaded,
}

impl Driver {
    pub(super) fn new(name: String, service: String, path: PathBuf) -> Self {
        Self { name, service, path, ..Self::default() }
    }

    /// A driver that exists in name only, for unit tests of exports.
    #[cfg(test)]
    pub(crate) fn without_image(name: &str) -> std::sync::Arc<Self> {
        let service = name.trim_end_matches(".sys").to_owned();
        std::sync::Arc::new(Self::new(name.to_owned(), service, PathBuf::new()))
    }

    /// Address of its `DRIVER_OBJECT`; 0 before there is one.
    pub(crate) fn object_address(&self) -> usize {
        self.with_object(DriverObject::address).unwrap_or(0)
    }

    pub(super) fn with_object<R>(&self, look: impl FnOnce(&DriverObject) -> R) -> Option<R> {
        self.object().as_ref().map(look)
    }

    /// How long `DriverEntry` took; zero while it runs.
    #[must_use]
    pub fn entry_time(&self) -> Duration {
        self.entry_time.get().copied().unwrap_or_default()
    }

    pub(super) fn set_entry_time(&self, took: Duration) {
        // DriverEntry runs once.
        let _ = self.entry_time.set(took);
    }

    /// Bytes of the mapped image; 0 before it is mapped.
    #[must_use]
    pub fn image_bytes(&self) -> usize {
        self.image.get().map_or(0, |image| image.module().size())
    }

    /// How often the driver has called the export of this name since it was loaded, such as `FltClose`. Counted always, also in a
    /// machine without a trace.
    #[must_use]
    pub fn calls(&self, export: &str) -> u64 {
        self.image.get().map_or(0, |image| image.calls(export)) + self.late.calls(export)
    }

    pub(super) fn set_object(&self, object: DriverObject) {
        *self.object() = Some(object);
    }

    pub(super) fn take_object(&self) -> Option<DriverObject> {
        self.object().take()
    }

    fn object(&self) -> MutexGuard<'_, Option<DriverObject>> {
        self.object.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether `name` is its service's or its image's, in any case.
    pub(super) fn is_called(&self, name: &str) -> bool {
        self.service.eq_ignore_ascii_case(name) || self.name.eq_ignore_ascii_case(name)
    }

    /// Whether an unload is held back: its devices cannot be opened any more.
    pub(crate) fn is_leaving(&self) -> bool {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) == DriverState::Leaving
    }

    pub(super) fn set_state(&self, state: DriverState) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }

    /// Moves from `from` to `to`; false when another thread was faster.
    pub(super) fn change_state(&self, from: DriverState, to: DriverState) -> bool {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_from = *state == from;
        if is_from {
            *state = to;
        }
        is_from
    }
}
