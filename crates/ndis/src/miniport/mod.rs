//! The miniport side of a NIC driver.
//!
//! A driver implements [`Miniport`] for its adapter type, keeps a [`MiniportDriver`] in a static, and calls
//! [`MiniportDriver::register`] from `DriverEntry`. The wrapper supplies the callbacks with the right ABI and owns the order of events that
//! NDIS prescribes: registration attributes first, general attributes before success, the context freed on failure and at halt.

mod adapter;
mod callbacks;

use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

use nt_types::{DRIVER_OBJECT, UNICODE_STRING};

use crate::NdisStatus;
use crate::oid::OidRequest;
use crate::raw::{
    NDIS_MINIPORT_DRIVER_CHARACTERISTICS, NDIS_OBJECT_HEADER, NDIS_OBJECT_TYPE_MINIPORT_DRIVER_CHARACTERISTICS,
    NDIS_SIZEOF_MINIPORT_DRIVER_CHARACTERISTICS_REVISION_2, NdisMDeregisterMiniportDriver, NdisMRegisterMiniportDriver,
};

pub use adapter::{AdapterHandle, GeneralAttributes, Initializing, RegistrationAttributes};

/// One adapter of a NIC driver: the value behind `MiniportAdapterContext`.
///
/// Callbacks can run at the same time, hence `Sync` and shared references. IRQL is `PASSIVE_LEVEL` except where said.
pub trait Miniport: Sync + Sized + 'static {
    /// Version of the driver, major and minor.
    const DRIVER_VERSION: (u8, u8);

    /// Tag of the adapter's memory: four characters, the first in the lowest byte.
    const POOL_TAG: u32;

    /// What NDIS has to know first about every adapter of this driver.
    const ATTRIBUTES: RegistrationAttributes;

    /// The registration of this driver.
    fn driver() -> &'static MiniportDriver;

    /// Makes the adapter, without touching the device. The first half of `MiniportInitializeEx`. The result is moved into non-paged
    /// memory; what is large belongs into a [`NdisBox`](crate::memory::NdisBox) of its own, for the stack is small.
    ///
    /// # Errors
    /// The status with which initialisation fails.
    fn create(adapter: &Initializing<'_>) -> Result<Self, NdisStatus>;

    /// Brings the device up and says what it can do. The second half of `MiniportInitializeEx`: the registration attributes are set.
    ///
    /// # Errors
    /// The status with which initialisation fails; the context is dropped then, without [`halt`](Self::halt).
    fn start(&mut self, adapter: &Initializing<'_>) -> Result<GeneralAttributes, NdisStatus>;

    /// `MiniportHaltEx`: stops the device; dropping the context afterwards frees everything.
    fn halt(&mut self, action: u32);

    /// `MiniportPause`: cannot fail.
    fn pause(&self);

    /// `MiniportRestart`.
    ///
    /// # Errors
    /// The status with which the adapter stays paused.
    fn restart(&self) -> Result<(), NdisStatus>;

    /// `MiniportOidRequest`, to be answered at once; `NDIS_STATUS_PENDING` is not an answer.
    fn oid_request(&self, request: &mut OidRequest<'_>) -> NdisStatus;

    /// `MiniportShutdownEx`: any IRQL when `action` is `NdisShutdownBugCheck`.
    fn shutdown(&self, action: u32);
}

/// The driver's registration with NDIS; lives in a static.
pub struct MiniportDriver {
    handle: AtomicPtr<c_void>,
}

impl MiniportDriver {
    /// Not registered.
    #[must_use]
    pub const fn new() -> Self {
        Self { handle: AtomicPtr::new(ptr::null_mut()) }
    }

    /// Registers `M` for NDIS 6.30. Only in `DriverEntry`, at `PASSIVE_LEVEL`.
    ///
    /// Undone by NDIS's call of the unload callback, or by [`deregister`](Self::deregister) when `DriverEntry` fails later on.
    ///
    /// # Errors
    /// `NDIS_STATUS_BAD_CHARACTERISTICS`, `NDIS_STATUS_BAD_VERSION`, `NDIS_STATUS_RESOURCES`, `NDIS_STATUS_FAILURE`.
    ///
    /// # Safety
    /// The pointers are the arguments of `DriverEntry`, which runs.
    pub unsafe fn register<M: Miniport>(
        &'static self,
        driver: *mut DRIVER_OBJECT,
        registry_path: *const UNICODE_STRING,
    ) -> Result<(), NdisStatus> {
        let characteristics = NDIS_MINIPORT_DRIVER_CHARACTERISTICS {
            Header: NDIS_OBJECT_HEADER::new(
                NDIS_OBJECT_TYPE_MINIPORT_DRIVER_CHARACTERISTICS,
                2,
                NDIS_SIZEOF_MINIPORT_DRIVER_CHARACTERISTICS_REVISION_2,
            ),
            MajorNdisVersion: 6,
            MinorNdisVersion: 30,
            MajorDriverVersion: M::DRIVER_VERSION.0,
            MinorDriverVersion: M::DRIVER_VERSION.1,
            Flags: 0,
            SetOptionsHandler: None,
            InitializeHandlerEx: Some(callbacks::initialize::<M>),
            HaltHandlerEx: Some(callbacks::halt::<M>),
            UnloadHandler: Some(callbacks::unload::<M>),
            PauseHandler: Some(callbacks::pause::<M>),
            RestartHandler: Some(callbacks::restart::<M>),
            OidRequestHandler: Some(callbacks::oid_request::<M>),
            SendNetBufferListsHandler: Some(callbacks::send::<M>),
            ReturnNetBufferListsHandler: Some(callbacks::return_net_buffer_lists),
            CancelSendHandler: Some(callbacks::cancel),
            CheckForHangHandlerEx: None,
            ResetHandlerEx: None,
            DevicePnPEventNotifyHandler: Some(callbacks::device_pnp_event),
            ShutdownHandlerEx: Some(callbacks::shutdown::<M>),
            CancelOidRequestHandler: Some(callbacks::cancel),
            DirectOidRequestHandler: None,
            CancelDirectOidRequestHandler: None,
            SynchronousOidRequestHandler: None,
        };
        let mut handle = ptr::null_mut();
        // SAFETY: the caller vouches for the first two; NDIS copies the characteristics; the callbacks live as long as the driver.
        let status = unsafe {
            NdisMRegisterMiniportDriver(
                driver,
                registry_path,
                ptr::null_mut(),
                &raw const characteristics,
                &raw mut handle,
            )
        };
        status.ok()?;
        self.handle.store(handle, Ordering::Release);
        Ok(())
    }

    /// Ends the registration; does nothing when there is none. `PASSIVE_LEVEL`.
    pub fn deregister(&self) {
        let handle = self.handle.swap(ptr::null_mut(), Ordering::AcqRel);
        if !handle.is_null() {
            // SAFETY: the handle came from the registration, and the swap makes sure that it is used once.
            unsafe { NdisMDeregisterMiniportDriver(handle) };
        }
    }
}

impl Default for MiniportDriver {
    fn default() -> Self {
        Self::new()
    }
}
