//! Callback objects: named lists of routines that one component notifies and others register with.
//!
//! Pages: `wdm/nf-wdm-excreatecallback`, `wdm/nf-wdm-exregistercallback`, `wdm/nf-wdm-exnotifycallback`,
//! `wdm/nf-wdm-exunregistercallback`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nt_types::{NtStatus, OBJECT_ATTRIBUTES, ObjectFlags, UNICODE_STRING};

use super::ob::{ObjectBody, ObjectRef};
use super::raw::{Raw, field};
use super::unicode;
use crate::ddi::{Call, exports};
use crate::finding::{Rule, Stopped};
use crate::leak::{Leak, LeakKind};
use crate::machine::{Driver, Inner, Machine};
use crate::origin::Origin;
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    ExCreateCallback(max 1, fails RESOURCES) = ex_create_callback;
    ExRegisterCallback(max 1, fails NULL) = ex_register_callback;
    ExUnregisterCallback(max 1) = ex_unregister_callback;
    ExNotifyCallback(max 2) = ex_notify_callback;
}

/// Callback objects that the system itself makes and notifies.
const SYSTEM: [&str; 3] = ["\\Callback\\SetSystemTime", "\\Callback\\PowerState", "\\Callback\\ProcessorAdd"];

/// Bytes of a callback object's body, which is opaque.
const BODY_BYTES: usize = 32;

/// Registrations of a machine, in the order in which they were made.
#[derive(Debug, Default)]
pub(crate) struct Callbacks(Mutex<Vec<Arc<Registration>>>);

/// One routine on one callback object.
#[derive(Debug)]
struct Registration {
    /// What the driver holds: an address with nothing behind it.
    handle: usize,
    /// Keeps the callback object alive.
    object: ObjectRef,
    driver: Arc<Driver>,
    routine: usize,
    context: usize,
    site: Origin,
    /// Calls under way; unregistering waits for them.
    running: AtomicUsize,
}

/// Payload of a callback object.
#[derive(Debug)]
struct CallbackBody {
    allows_many: bool,
    is_system: bool,
}

impl ObjectBody for CallbackBody {
    fn type_name(&self) -> &'static str {
        "Callback"
    }
}

impl Callbacks {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Registration>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Routines of `driver` that are still registered.
    pub(crate) fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let registrations = self.lock();
        let mine = registrations.iter().filter(|entry| std::ptr::eq(Arc::as_ptr(&entry.driver), driver));
        let leak = |entry: &Arc<Registration>| Leak {
            kind: LeakKind::Registration,
            count: 1,
            bytes: 0,
            detail: format!(
                "the routine {:#x} of the callback object {} (ExRegisterCallback without ExUnregisterCallback), registered from {}",
                entry.routine,
                entry.object.name().unwrap_or_default(),
                entry.site
            ),
        };
        mine.map(leak).collect()
    }

    /// Calls every routine of an object, in the order of registration, at the caller's IRQL.
    fn notify(&self, thread: &Thread, object: usize, arguments: (usize, usize)) -> Result<(), Stopped> {
        type Routine = unsafe extern "efiapi" fn(usize, usize, usize);
        let entries: Vec<_> = self.lock().iter().filter(|entry| entry.object.body() == object).cloned().collect();
        for entry in entries {
            entry.running.fetch_add(1, Ordering::AcqRel);
            // SAFETY: the address of the driver's CALLBACK_FUNCTION.
            let routine = unsafe { std::mem::transmute::<usize, Routine>(entry.routine) };
            // SAFETY: the context is the driver's, the arguments what the object's owner says they are.
            let body = || unsafe { routine(entry.context, arguments.0, arguments.1) };
            let called = thread.call_driver(&entry.driver, "CALLBACK_FUNCTION", thread.irql(), body);
            entry.running.fetch_sub(1, Ordering::AcqRel);
            called?;
        }
        Ok(())
    }
}

impl Machine {
    /// Notifies one of the system's callback objects (`\Callback\PowerState`), as a change of power or time does.
    ///
    /// # Errors
    /// The finding, when a driver's routine broke a rule. That nobody has opened the object is no error.
    pub fn notify_callback(&self, path: &str, first: usize, second: usize) -> Result<(), Stopped> {
        let inner = self.inner();
        let Ok(found) = inner.nt.objects().namespace().lookup(path) else { return Ok(()) };
        Thread::enter(inner, |thread| inner.nt.callbacks().notify(thread, found.object.body(), (first, second)))
    }
}

pub(super) extern "efiapi" fn ex_create_callback(
    out: Raw<usize>,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    create: u8,
    allows_many: u8,
) -> NtStatus {
    let call = Call::enter();
    let name = Raw::<UNICODE_STRING>::of(field!(attributes, OBJECT_ATTRIBUTES, ObjectName).read());
    let flags = field!(attributes, OBJECT_ATTRIBUTES, Attributes).read();
    let path = match name.some().map(unicode::name) {
        None => return NtStatus::UNSUCCESSFUL,
        Some(Err(status)) => return status,
        Some(Ok(path)) => path,
    };
    call.detail(path.as_str());
    let is_system = SYSTEM.iter().any(|system| unicode::same_name(system, &path));
    let opened = call.machine().nt.objects().namespace().lookup(&path).map(|found| found.object);
    let object = match opened {
        Ok(object) if object.payload::<CallbackBody>().is_none() => Err(NtStatus::OBJECT_TYPE_MISMATCH),
        Ok(object) => Ok(object),
        // The system's own are there from the start; here, from the first use.
        Err(_) if is_system => make(call.machine(), &path, true, CallbackBody { allows_many: true, is_system }),
        Err(NtStatus::OBJECT_NAME_NOT_FOUND) if create != 0 => {
            // The name goes with the handle that the routine closes before it returns, unless it is permanent.
            let permanent = flags & ObjectFlags::PERMANENT.bits() != 0;
            make(call.machine(), &path, permanent, CallbackBody { allows_many: allows_many != 0, is_system })
        }
        Err(status) => Err(status),
    };
    match object {
        Ok(object) => {
            out.write(call.machine().nt.objects().give(&object, &call));
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

fn make(machine: &Inner, path: &str, named: bool, body: CallbackBody) -> Result<ObjectRef, NtStatus> {
    let object = machine.nt.objects().create(BODY_BYTES, Arc::new(body))?;
    if named {
        machine.nt.objects().namespace().insert_object(path, &object)?;
    }
    Ok(object)
}

/// The callback object at an address; stops when there is none.
fn callback_at(call: &Call, body: usize) -> (ObjectRef, Arc<CallbackBody>) {
    let object = call.machine().nt.objects().lookup(body);
    let found = object.and_then(|object| object.payload().map(|payload| (object, payload)));
    found.unwrap_or_else(|| call.stop(Rule::BadArgument, format!("{body:#x} is no callback object")))
}

pub(super) extern "efiapi" fn ex_register_callback(object: usize, routine: usize, context: usize) -> usize {
    let call = Call::enter();
    let (object, body) = callback_at(&call, object);
    if routine == 0 {
        call.stop(Rule::BadArgument, "CallbackFunction is NULL");
    }
    let Some(handle) = call.machine().nt.arena().take(1) else { return 0 };
    let is_taken = {
        let mut registrations = call.machine().nt.callbacks().lock();
        let taken = !body.allows_many && registrations.iter().any(|entry| entry.object.same(&object));
        if !taken {
            let driver = Arc::clone(call.driver());
            let (running, site) = (AtomicUsize::new(0), Origin::of(call.site()));
            registrations.push(Arc::new(Registration { handle, object, driver, routine, context, site, running }));
        }
        taken
    };
    if is_taken {
        call.machine().nt.arena().release(handle, 1);
        return 0;
    }
    handle
}

pub(super) extern "efiapi" fn ex_unregister_callback(handle: usize) {
    let call = Call::enter();
    let removed = {
        let mut registrations = call.machine().nt.callbacks().lock();
        let found = registrations.iter().position(|entry| entry.handle == handle);
        found.map(|index| registrations.remove(index))
    };
    let Some(removed) = removed else {
        call.stop(Rule::BadState, format!("{handle:#x} is no registration: unregistered already, or never made"));
    };
    let idle = || removed.running.load(Ordering::Acquire) == 0;
    call.machine().nt.dispatcher().wait(&call, None, idle);
    call.machine().nt.arena().release(handle, 1);
}

pub(super) extern "efiapi" fn ex_notify_callback(object: usize, first: usize, second: usize) {
    let call = Call::enter();
    let (object, body) = callback_at(&call, object);
    if body.is_system {
        call.stop(Rule::BadArgument, "drivers do not notify the callback objects of the system");
    }
    if call.machine().nt.callbacks().notify(call.thread(), object.body(), (first, second)).is_err() {
        call.thread().leave_if_stopped();
    }
}

#[cfg(test)]
mod tests;
