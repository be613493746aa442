//! `ZwLoadDriver` and `ZwUnloadDriver`: drivers that start and stop others. Pages: `wdm/nf-wdm-zwloaddriver`,
//! `wdm/nf-wdm-zwunloaddriver`.

use nt_types::{NtStatus, UNICODE_STRING};

use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::{DriverError, Machine};
use crate::nt::raw::Raw;
use crate::nt::unicode;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    ZwLoadDriver(max 0, fails RESOURCES) = zw_load_driver;
    ZwUnloadDriver(max 0) = zw_unload_driver;
}

/// Where services' keys are.
const SERVICES: &str = r"\REGISTRY\MACHINE\SYSTEM\CURRENTCONTROLSET\SERVICES\";

/// The service whose key a path names.
///
/// # Errors
/// `STATUS_OBJECT_NAME_INVALID` for a path to anything else (general knowledge, no page).
fn service(call: &Call, path: Raw<UNICODE_STRING>) -> Result<String, NtStatus> {
    let path = unicode::name(path)?;
    call.detail(path.as_str());
    let upcased = unicode::upcase_str(&path);
    let is_service = upcased.strip_prefix(SERVICES).is_some_and(|name| !name.is_empty() && !name.contains('\\'));
    let name = path.rsplit('\\').next().filter(|_| is_service);
    name.map(str::to_owned).ok_or(NtStatus::OBJECT_NAME_INVALID)
}

pub(super) extern "efiapi" fn zw_load_driver(path: Raw<UNICODE_STRING>) -> NtStatus {
    let call = Call::enter();
    let service = match service(&call, path) {
        Ok(service) => service,
        Err(status) => return status,
    };
    let outcome = Machine::of(call.machine()).load_driver(&service);
    call.thread().leave_if_stopped();
    match outcome {
        Ok(()) => NtStatus::SUCCESS,
        Err(DriverError::EntryFailed { status, .. }) => status,
        Err(error) => error.status(),
    }
}

pub(super) extern "efiapi" fn zw_unload_driver(path: Raw<UNICODE_STRING>) -> NtStatus {
    let call = Call::enter();
    let service = match service(&call, path) {
        Ok(service) => service,
        Err(status) => return status,
    };
    if service.eq_ignore_ascii_case(&call.driver().service) {
        call.stop(
            Rule::BadState,
            "ZwUnloadDriver is not for the calling driver itself: its code would go under its feet",
        );
    }
    let outcome = Machine::of(call.machine()).unload_driver(&service, true);
    call.thread().leave_if_stopped();
    match outcome {
        // It goes when the last open of its devices is closed.
        Ok(_) | Err(DriverError::UnloadHeldBack(_)) => NtStatus::SUCCESS,
        // Without a DriverUnload routine.
        Err(DriverError::UnloadRefused(_)) => NtStatus::INVALID_DEVICE_REQUEST,
        Err(error) => error.status(),
    }
}
