//! A loaded driver.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::sync::atomic::{AtomicU8, Ordering};

use crate::image::Image;
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
    /// While it is loaded. The object refers back to the driver, so it has to be taken out in the end.
    object: Mutex<Option<DriverObject>>,
    state: AtomicU8,
}

/// Where a driver is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DriverState {
    /// DriverEntry has not returned.
    Starting,
    /// DriverEntry succeeded.
    Running,
    /// It is being asked to unload.
    Unloading,
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

    pub(super) fn set_object(&self, object: DriverObject) {
        *self.object() = Some(object);
    }

    pub(super) fn take_object(&self) -> Option<DriverObject> {
        self.object().take()
    }

    fn object(&self) -> MutexGuard<'_, Option<DriverObject>> {
        self.object.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it is in its life.
    pub(crate) fn state(&self) -> DriverState {
        match self.state.load(Ordering::Acquire) {
            0 => DriverState::Starting,
            1 => DriverState::Running,
            2 => DriverState::Unloading,
            _ => DriverState::Unloaded,
        }
    }

    pub(super) fn set_state(&self, state: DriverState) {
        self.state.store(state as u8, Ordering::Release);
    }

    /// Moves from `from` to `to`; false when another thread was faster.
    pub(super) fn change_state(&self, from: DriverState, to: DriverState) -> bool {
        self.state.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}
