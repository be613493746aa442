//! Registry filtering: `CmRegisterCallbackEx` and what hangs on it.
//!
//! Pages: `wdm/nf-wdm-cmregistercallbackex`, `wdm/nc-wdm-ex_callback_function`, `docs:kernel/handling-notifications.md`,
//! `docs:kernel/supporting-layered-registry-filtering-drivers.md`. [`notice`] is how one operation goes past the callbacks,
//! [`structures`] what they get, [`objects`] the contexts and names of keys.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nt_types::{NtStatus, UNICODE_STRING};

use super::raw::Raw;
use super::unicode;
use crate::ddi::{Call, Export, exports};
use crate::finding::Rule;
use crate::flt::altitude::Altitude;
use crate::leak::{Leak, LeakKind};
use crate::machine::Driver;
use crate::thread::Thread;

mod notice;
mod objects;
pub(super) mod structures;
#[cfg(test)]
mod tests;

pub(super) use notice::{Notice, closing};
pub(super) use objects::CountedName;

exports! { EXPORTS in "ntoskrnl.exe":
    CmRegisterCallback(max 1, fails RESOURCES) = cm_register_callback;
    CmRegisterCallbackEx(max 1, fails RESOURCES) = cm_register_callback_ex;
    CmUnRegisterCallback(max 1) = cm_un_register_callback;
    CmGetCallbackVersion(max 1) = cm_get_callback_version;
}

/// What drivers can import from here.
pub(super) fn exports() -> impl Iterator<Item = &'static Export> {
    [EXPORTS, objects::EXPORTS].into_iter().flatten()
}

/// Name of the callback, as its page has it.
const CALLBACK: &str = "EX_CALLBACK_FUNCTION";

/// Cookies of all machines, so that one of another machine is no cookie here.
static NEXT_COOKIE: AtomicI64 = AtomicI64::new(0x01DC_0000_0000_0001);

/// The registry filters of a machine.
#[derive(Debug, Default)]
pub(crate) struct RegistryCallbacks(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Highest altitude first.
    registrations: Vec<Arc<Registration>>,
    /// How many came without an altitude so far.
    without_altitude: u32,
    /// Contexts by cookie and key object.
    contexts: HashMap<(i64, usize), usize>,
    /// Names that drivers have to give back, by address.
    names: HashMap<usize, objects::LentName>,
}

#[derive(Debug)]
struct Registration {
    cookie: i64,
    altitude: Altitude,
    driver: Arc<Driver>,
    routine: usize,
    context: usize,
    /// Calls under way; unregistering waits for them.
    running: AtomicUsize,
}

impl Registration {
    /// Calls the routine. `None` when the machine stopped, which it remembers.
    fn call(&self, thread: &Thread, class: u32, information: usize) -> Option<NtStatus> {
        type Routine = unsafe extern "efiapi" fn(usize, usize, usize) -> NtStatus;
        // SAFETY: the address of the driver's EX_CALLBACK_FUNCTION.
        let routine = unsafe { std::mem::transmute::<usize, Routine>(self.routine) };
        let called = thread.call_driver(&self.driver, CALLBACK, 0, || {
            // SAFETY: the context is the driver's; the structure is the class's, and lives during the call.
            unsafe { routine(self.context, class as usize, information) }
        });
        called.ok()
    }
}

impl RegistryCallbacks {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What `driver` has not given back: registrations, and names.
    pub(crate) fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let state = self.lock();
        let mine = |owner: &Arc<Driver>| std::ptr::eq(Arc::as_ptr(owner), driver);
        let registrations = state.registrations.iter().filter(|entry| mine(&entry.driver)).map(|entry| Leak {
            kind: LeakKind::Registration,
            count: 1,
            bytes: 0,
            detail: format!(
                "the registry callback {:#x} (CmRegisterCallbackEx without CmUnRegisterCallback)",
                entry.routine
            ),
        });
        let names = state.names.values().filter(|name| mine(name.driver())).map(|name| Leak {
            kind: LeakKind::Pool,
            count: 1,
            bytes: name.bytes() as u64,
            detail: "name of a key (CmCallbackGetKeyObjectIDEx without CmCallbackReleaseKeyObjectIDEx)".to_owned(),
        });
        registrations.chain(names).collect()
    }
}

fn register(call: &Call, routine: usize, altitude: Option<Altitude>, context: usize) -> Result<i64, NtStatus> {
    if routine == 0 {
        call.stop(Rule::BadArgument, "the RegistryCallback routine is NULL");
    }
    let mut state = call.machine().nt.registry_callbacks().lock();
    let altitude = if let Some(altitude) = altitude {
        altitude
    } else {
        // Near the top, in the order in which they come: each right below the one before.
        state.without_altitude += 1;
        let text = format!("424999.{:06}", 999_999 - state.without_altitude);
        Altitude::parse(&text).ok_or(NtStatus::INSUFFICIENT_RESOURCES)?
    };
    if state.registrations.iter().any(|entry| entry.altitude.collides(&altitude)) {
        return Err(NtStatus::FLT_INSTANCE_ALTITUDE_COLLISION);
    }
    let cookie = NEXT_COOKIE.fetch_add(1, Ordering::Relaxed);
    let place = state.registrations.partition_point(|entry| entry.altitude > altitude);
    let (driver, running) = (Arc::clone(call.driver()), AtomicUsize::new(0));
    state.registrations.insert(place, Arc::new(Registration { cookie, altitude, driver, routine, context, running }));
    Ok(cookie)
}

fn answer(made: Result<i64, NtStatus>, cookie: Raw<i64>) -> NtStatus {
    match made {
        Ok(made) => {
            cookie.write(made);
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

extern "efiapi" fn cm_register_callback(routine: usize, context: usize, cookie: Raw<i64>) -> NtStatus {
    let call = Call::enter();
    answer(register(&call, routine, None, context), cookie)
}

extern "efiapi" fn cm_register_callback_ex(
    routine: usize,
    altitude: Raw<UNICODE_STRING>,
    _driver: usize,
    context: usize,
    cookie: Raw<i64>,
    _reserved: usize,
) -> NtStatus {
    let call = Call::enter();
    let made = unicode::name(altitude).and_then(|text| {
        call.detail(text.as_str());
        let altitude = Altitude::parse(&text).ok_or(NtStatus::INVALID_PARAMETER)?;
        register(&call, routine, Some(altitude), context)
    });
    answer(made, cookie)
}

extern "efiapi" fn cm_un_register_callback(cookie: i64) -> NtStatus {
    let call = Call::enter();
    let callbacks = call.machine().nt.registry_callbacks();
    let removed = {
        let mut state = callbacks.lock();
        let found = state.registrations.iter().position(|entry| entry.cookie == cookie);
        found.map(|index| state.registrations.remove(index))
    };
    let Some(removed) = removed else { return NtStatus::INVALID_PARAMETER };
    if call.thread().is_inside(CALLBACK) {
        call.stop(Rule::Deadlock, "a RegistryCallback routine calls CmUnRegisterCallback, which waits for its end");
    }
    let idle = || removed.running.load(Ordering::Acquire) == 0;
    call.machine().nt.dispatcher().wait(&call, None, idle);
    objects::drop_contexts(call.thread(), &removed);
    call.thread().leave_if_stopped();
    NtStatus::SUCCESS
}

/// Version 1.1, as since Windows 7.
extern "efiapi" fn cm_get_callback_version(major: Raw<u32>, minor: Raw<u32>) {
    let _call = Call::enter();
    major.write_if_some(1);
    minor.write_if_some(1);
}
