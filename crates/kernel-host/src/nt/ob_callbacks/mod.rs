//! `ObRegisterCallbacks`: drivers hear of handles to processes and threads, and take rights out of them.
//!
//! Pages: `wdm/nf-wdm-obregistercallbacks`, `wdm/ns-wdm-_ob_callback_registration`,
//! `wdm/nc-wdm-pob_pre_operation_callback` and their neighbours. Whether a callback is in a signed image is decided as for process
//! notify routines: by the `/INTEGRITYCHECK` flag of the image that it is in, which Windows loads with a checked signature
//! only. [`Operation`] is what everything that makes such handles goes through.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nt_types::{NtStatus, UNICODE_STRING};

use super::notify::is_integrity_checked;
use super::ob_exports::type_of;
use super::raw::{Raw, field};
use super::unicode;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::flt::altitude::Altitude;
use crate::leak::{Leak, LeakKind};
use crate::machine::Driver;

mod operation;
#[cfg(test)]
mod tests;

pub(crate) use operation::{Duplication, Operation};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    ObRegisterCallbacks(max 1, fails RESOURCES) = ob_register_callbacks;
    ObUnRegisterCallbacks(max 1) = ob_un_register_callbacks;
    ObGetFilterVersion(max 1) = ob_get_filter_version;
}

/// `OB_FLT_REGISTRATION_VERSION`.
const VERSION: u16 = 0x0100;

/// `OB_OPERATION_HANDLE_CREATE`, `OB_OPERATION_HANDLE_DUPLICATE`.
const HANDLE_CREATE: u32 = 1;
const HANDLE_DUPLICATE: u32 = 2;

/// Types whose handles can be watched; nothing here makes handles to desktops.
const TYPES: [&str; 3] = ["Process", "Thread", "Desktop"];

/// `OB_CALLBACK_REGISTRATION`.
#[repr(C)]
#[derive(Clone, Copy)]
struct CallbackRegistration {
    version: u16,
    count: u16,
    altitude: UNICODE_STRING,
    context: usize,
    operations: Raw<OperationRegistration>,
}

const _: () = assert!(size_of::<CallbackRegistration>() == 40);

/// `OB_OPERATION_REGISTRATION`.
#[repr(C)]
#[derive(Clone, Copy)]
struct OperationRegistration {
    /// Address of the exported variable, such as `PsProcessType`.
    object_type: Raw<usize>,
    operations: u32,
    pre: usize,
    post: usize,
}

const _: () = assert!(size_of::<OperationRegistration>() == 32);

/// The registrations of a machine, highest altitude first.
#[derive(Debug, Default)]
pub(crate) struct ObCallbacks(Mutex<Vec<Arc<Registration>>>);

#[derive(Debug)]
struct Registration {
    /// What the driver holds: an address with nothing behind it.
    handle: usize,
    altitude: Altitude,
    driver: Arc<Driver>,
    context: usize,
    watched: Vec<Watched>,
    /// Calls under way; unregistering waits for them.
    running: AtomicUsize,
}

/// One type's operations and their callbacks; 0 for none.
#[derive(Clone, Copy, Debug)]
struct Watched {
    type_name: &'static str,
    operations: u32,
    pre: usize,
    post: usize,
}

impl ObCallbacks {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Registration>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Registrations of `driver` that are still there.
    pub(crate) fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let registrations = self.lock();
        let mine = registrations.iter().filter(|entry| std::ptr::eq(Arc::as_ptr(&entry.driver), driver));
        let leak = |entry: &Arc<Registration>| Leak {
            kind: LeakKind::Registration,
            count: 1,
            bytes: 0,
            detail: format!(
                "the object callbacks at altitude {} (ObRegisterCallbacks without ObUnRegisterCallbacks)",
                entry.altitude.text()
            ),
        };
        mine.map(leak).collect()
    }
}

pub(super) extern "efiapi" fn ob_get_filter_version() -> u16 {
    let _call = Call::enter();
    VERSION
}

pub(super) extern "efiapi" fn ob_register_callbacks(registration: Raw<()>, handle: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    if registration.is_null() || handle.is_null() {
        call.stop(Rule::BadArgument, "CallbackRegistration and RegistrationHandle are both required");
    }
    register(&call, registration.cast()).map_or_else(
        |status| status,
        |made| {
            handle.write(made);
            NtStatus::SUCCESS
        },
    )
}

fn register(call: &Call, registration: Raw<CallbackRegistration>) -> Result<usize, NtStatus> {
    let mut altitude = field!(registration, CallbackRegistration, altitude).read();
    let registration = registration.read();
    if registration.version != VERSION || registration.count == 0 {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let altitude = unicode::name(Raw::of(&raw mut altitude))?;
    call.detail(altitude.as_str());
    let altitude = Altitude::parse(&altitude).ok_or(NtStatus::INVALID_PARAMETER)?;
    let watched = (0..usize::from(registration.count))
        .map(|index| watched(call, &registration.operations.index(index).read()))
        .collect::<Result<Vec<_>, _>>()?;
    let nt = &call.machine().nt;
    let handle = nt.arena().take(1).ok_or(NtStatus::INSUFFICIENT_RESOURCES)?;
    let mut registrations = nt.ob_callbacks().lock();
    if registrations.iter().any(|entry| entry.altitude.collides(&altitude)) {
        drop(registrations);
        nt.arena().release(handle, 1);
        return Err(NtStatus::FLT_INSTANCE_ALTITUDE_COLLISION);
    }
    let place = registrations.partition_point(|entry| entry.altitude > altitude);
    let driver = Arc::clone(call.driver());
    let (context, running) = (registration.context, AtomicUsize::new(0));
    registrations.insert(place, Arc::new(Registration { handle, altitude, driver, context, watched, running }));
    Ok(handle)
}

fn watched(call: &Call, wanted: &OperationRegistration) -> Result<Watched, NtStatus> {
    let object_type = wanted.object_type.some().ok_or(NtStatus::INVALID_PARAMETER)?.read();
    let type_name = type_of(call, object_type).filter(|name| TYPES.contains(name));
    let type_name = type_name.ok_or(NtStatus::INVALID_PARAMETER)?;
    let operations = wanted.operations;
    let known = operations != 0 && operations & !(HANDLE_CREATE | HANDLE_DUPLICATE) == 0;
    if !known || (wanted.pre == 0 && wanted.post == 0) {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let routines = [wanted.pre, wanted.post];
    if routines.into_iter().any(|routine| routine != 0 && !is_integrity_checked(routine)) {
        return Err(NtStatus::ACCESS_DENIED);
    }
    Ok(Watched { type_name, operations, pre: wanted.pre, post: wanted.post })
}

pub(super) extern "efiapi" fn ob_un_register_callbacks(handle: usize) {
    let call = Call::enter();
    let removed = {
        let mut registrations = call.machine().nt.ob_callbacks().lock();
        let found = registrations.iter().position(|entry| entry.handle == handle);
        found.map(|index| registrations.remove(index))
    };
    let Some(removed) = removed else {
        // SYSTEM_THREAD_EXCEPTION_NOT_HANDLED: what is freed already is freed again.
        call.stop(
            Rule::BugCheck,
            format!("bug check 0x7E: {handle:#x} is no registration, or one that is unregistered"),
        );
    };
    if [operation::PRE, operation::POST].into_iter().any(|callback| call.thread().is_inside(callback)) {
        call.stop(Rule::Deadlock, "an object callback unregisters itself: the call waits for its end");
    }
    let idle = || removed.running.load(Ordering::Acquire) == 0;
    call.machine().nt.dispatcher().wait(&call, None, idle);
    call.machine().nt.arena().release(handle, 1);
}
