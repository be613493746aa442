//! DriverEntry.

use crate::kernel::log::log;
use crate::kernel::upcase;
use crate::nic::Device;
use crate::port;
use crate::settings::Settings;
use crate::state::{self, State};
use crate::{instance, unload};
use broker::Error;
use core::slice;
use fltmgr::raw::{FLT_OPERATION_REGISTRATION, FLT_REGISTRATION, IRP_MJ_OPERATION_END};
use fltmgr::{Filter, Passive};
use nt_types::{DRIVER_OBJECT, NtStatus, UNICODE_STRING};
use wdk_sys::{NTSTATUS, PCUNICODE_STRING, PDRIVER_OBJECT};

/// What FltMgr is told about this filter.
///
/// No operations: files are guarded by share modes while they are read, and nothing is intercepted.
static REGISTRATION: FLT_REGISTRATION = FLT_REGISTRATION {
    OperationRegistration: OPERATIONS.as_ptr(),
    FilterUnloadCallback: Some(unload::filter_unload),
    InstanceSetupCallback: Some(instance::setup),
    InstanceQueryTeardownCallback: Some(instance::query_teardown),
    // Both: a request that ran during the first can have left a file for the second.
    InstanceTeardownStartCallback: Some(instance::teardown),
    InstanceTeardownCompleteCallback: Some(instance::teardown),
    ..FLT_REGISTRATION::EMPTY
};

static OPERATIONS: [FLT_OPERATION_REGISTRATION; 1] = [FLT_OPERATION_REGISTRATION {
    MajorFunction: IRP_MJ_OPERATION_END,
    Flags: 0,
    PreOperation: None,
    PostOperation: None,
    Reserved1: core::ptr::null_mut(),
}];

/// The driver's entry point. PASSIVE_LEVEL.
///
/// Returns `STATUS_SUCCESS`, or the status of the first step that failed, with all earlier steps undone.
///
/// # Safety
/// Called by the I/O manager, or by FltMgr, as the driver's entry point.
// SAFETY: the name is that of the one entry point of the image.
#[unsafe(export_name = "DriverEntry")]
pub(crate) unsafe extern "system" fn driver_entry(driver: PDRIVER_OBJECT, registry_path: PCUNICODE_STRING) -> NTSTATUS {
    // SAFETY: DriverEntry runs at PASSIVE_LEVEL.
    let passive = unsafe { Passive::assume() };
    // SAFETY: the I/O manager passes a valid string, which it keeps during the call.
    let service = unsafe { service_key(registry_path.cast()) };
    // SAFETY: the driver object is the one we were given.
    match unsafe { start(driver.cast(), service, passive) } {
        Ok(()) => {
            log!(c"fwbroker: started\n");
            NtStatus::SUCCESS.0
        }
        Err(error) => {
            let status = error.status();
            log!(c"fwbroker: cannot start, 0x%08x\n", status.bits());
            status.0
        }
    }
}

/// Starts the driver, or leaves nothing behind.
///
/// # Safety
/// `driver` is the driver object of this image.
unsafe fn start(driver: *mut DRIVER_OBJECT, service: &[u16], passive: Passive) -> Result<(), Error> {
    let state = state::install(State::try_new(Settings::read(service, passive)?)?)?;
    // SAFETY: as our caller's.
    let started = unsafe { register(state, driver, passive) };
    if started.is_err() {
        // FltMgr does not call FilterUnload for a driver that never started.
        unload::undo(state, passive);
    }
    started
}

/// Registers with the system, from the inside out: once the last step is done, anybody may call.
///
/// # Safety
/// `driver` is the driver object of this image.
unsafe fn register(state: &'static State, driver: *mut DRIVER_OBJECT, passive: Passive) -> Result<(), Error> {
    // Names without surprises compare right from the start.
    upcase::prepare(&[0], passive)?;

    // SAFETY: our own driver object; the callbacks are functions of this image.
    let filter = unsafe { Filter::register(driver, &REGISTRATION) }.map_err(Error::System)?;
    state.set_filter(filter.as_ref());
    let filter = state.registered.lock().filter.insert(filter).as_ref();

    // SAFETY: our own driver object.
    let device = unsafe { Device::create(driver, passive) }.map_err(Error::System)?;
    state.registered.lock().device = Some(device);

    let port = port::create(filter, passive).map_err(Error::System)?;
    state.registered.lock().port = Some(port);
    if state.allow_users {
        let port = port::create_for_users(filter, passive).map_err(Error::System)?;
        state.registered.lock().user_port = Some(port);
    }

    filter.start().map_err(Error::System)
}

/// The path of the service's key, `\Registry\Machine\System\CurrentControlSet\Services\FwBroker`.
///
/// # Safety
/// `path` is NULL or a valid string that lives for `'a`.
unsafe fn service_key<'a>(path: *const UNICODE_STRING) -> &'a [u16] {
    // SAFETY: the caller vouches for it.
    match unsafe { path.as_ref() } {
        Some(path) if !path.Buffer.is_null() => {
            // SAFETY: a valid string's buffer holds its length.
            unsafe { slice::from_raw_parts(path.Buffer, path.chars()) }
        }
        _ => &[],
    }
}
