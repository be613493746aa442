//! FltRegisterFilter, FltStartFiltering, FltUnregisterFilter.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fltmgr::raw::{FLT_REGISTRATION, FltTeardownReason};
use nt_types::{DRIVER_EXTENSION, DRIVER_OBJECT, NtStatus, UNICODE_STRING};

use super::altitude::Altitude;
use super::instance::{self, Instance};
use super::object::{self, FltObject, ObjectTable, Rundown};
use super::port::ServerPort;
use super::registration::Registration;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::{Driver, Inner};
use crate::nt::raw::{Raw, field};
use crate::nt::unicode;
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltRegisterFilter(max 1, fails RESOURCES) = flt_register_filter;
    FltStartFiltering(max 1, fails RESOURCES) = flt_start_filtering;
    FltUnregisterFilter(max 1) = flt_unregister_filter;
}

/// A registered filter.
#[derive(Debug)]
pub(crate) struct Filter {
    pub(crate) address: usize,
    pub(crate) driver: Arc<Driver>,
    /// Service name.
    pub(crate) name: String,
    pub(crate) registration: Registration,
    /// Instances that the registry defines, the default one first.
    pub(crate) definitions: Vec<InstanceDefinition>,
    pub(crate) rundown: Rundown,
    pub(crate) started: AtomicBool,
    /// The unload under way is mandatory: what teardown callbacks are told.
    pub(crate) mandatory: AtomicBool,
    state: Mutex<FilterState>,
}

/// What a filter has made.
#[derive(Debug, Default)]
pub(crate) struct FilterState {
    pub(crate) instances: Vec<Arc<Instance>>,
    pub(crate) ports: Vec<Arc<ServerPort>>,
}

/// An instance as the registry defines it.
#[derive(Clone, Debug)]
pub(crate) struct InstanceDefinition {
    pub(crate) name: String,
    pub(crate) altitude: Altitude,
    /// 1: not attached automatically; 2: not attached by hand.
    pub(crate) flags: u32,
}

impl Filter {
    pub(crate) fn lock(&self) -> MutexGuard<'_, FilterState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reason that teardown callbacks get during an unload.
    fn teardown_reason(&self) -> FltTeardownReason {
        if self.mandatory.load(Ordering::Acquire) {
            FltTeardownReason::MANDATORY_FILTER_UNLOAD
        } else {
            FltTeardownReason::FILTER_UNLOAD
        }
    }
}

/// Name of the service that a driver was loaded for, from its driver object.
fn service_name(driver_object: Raw<DRIVER_OBJECT>) -> Result<String, NtStatus> {
    let extension = Raw::of(field!(driver_object, DRIVER_OBJECT, DriverExtension).read());
    let extension = extension.some().ok_or(NtStatus::OBJECT_NAME_NOT_FOUND)?;
    unicode::name(Raw::<UNICODE_STRING>::at(field!(extension, DRIVER_EXTENSION, ServiceKeyName).address()))
}

/// Reads `Instances` below the service key; `Parameters\Instances`, where isolated drivers have it, comes first.
pub(super) fn definitions(machine: &Inner, service: &str) -> Result<Vec<InstanceDefinition>, NtStatus> {
    let path = format!(r"\Registry\Machine\System\CurrentControlSet\Services\{service}");
    let key = machine.nt.hive().open(&path)?;
    let instances = key.open(r"Parameters\Instances").or_else(|_| key.open("Instances"))?;
    let default = instances.value("DefaultInstance").ok().and_then(|value| value.as_text());
    let mut found = Vec::new();
    for name in instances.subkeys()? {
        let instance = instances.open(&name)?;
        let altitude = instance.value("Altitude").ok().and_then(|value| value.as_text());
        let Some(altitude) = altitude.as_deref().and_then(Altitude::parse) else { continue };
        let flags = instance.value("Flags").ok().and_then(|value| value.as_dword()).unwrap_or(0);
        let is_default = default.as_deref().is_some_and(|default| unicode::same_name(default, &name));
        let definition = InstanceDefinition { name, altitude, flags };
        if is_default { found.insert(0, definition) } else { found.push(definition) }
    }
    if found.is_empty() || default.is_none() { Err(NtStatus::OBJECT_NAME_NOT_FOUND) } else { Ok(found) }
}

extern "efiapi" fn flt_register_filter(
    driver_object: Raw<DRIVER_OBJECT>,
    registration: Raw<FLT_REGISTRATION>,
    filter: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    match register(&call, driver_object, registration) {
        Ok(registered) => {
            call.detail(&registered.name);
            filter.write(registered.address);
            NtStatus::SUCCESS
        }
        Err(status) => {
            call.detail(status);
            status
        }
    }
}

fn register(
    call: &Call,
    driver_object: Raw<DRIVER_OBJECT>,
    registration: Raw<FLT_REGISTRATION>,
) -> Result<Arc<Filter>, NtStatus> {
    let machine = call.machine();
    if driver_object.is_null() {
        call.stop(Rule::BadArgument, "the driver object is NULL");
    }
    let own = call.driver().object_address();
    if own != 0 && own != driver_object.address() {
        call.stop(Rule::BadArgument, "a filter registers itself only: Driver is another driver's object");
    }
    let registration = Registration::capture(registration)?;
    let name = service_name(driver_object)?;
    let definitions = definitions(machine, &name)?;
    let filter = Arc::new(Filter {
        address: ObjectTable::reserve(machine)?,
        driver: Arc::clone(call.driver()),
        name,
        registration,
        definitions,
        rundown: Rundown::default(),
        started: AtomicBool::new(false),
        mandatory: AtomicBool::new(false),
        state: Mutex::default(),
    });
    machine.flt.objects.insert(filter.address, FltObject::Filter(Arc::clone(&filter)));
    machine.flt.filters().push(Arc::clone(&filter));
    Ok(filter)
}

/// The calling driver's own filter: nobody starts or ends another's.
fn own_filter(call: &Call, address: usize) -> Arc<Filter> {
    let filter = object::filter(call, address);
    if !Arc::ptr_eq(&filter.driver, call.driver()) {
        call.stop(Rule::BadArgument, format!("the filter is {}'s; this is for a filter itself only", filter.name));
    }
    filter
}

extern "efiapi" fn flt_start_filtering(filter: usize) -> NtStatus {
    let call = Call::enter();
    let filter = own_filter(&call, filter);
    if filter.started.swap(true, Ordering::AcqRel) {
        return NtStatus::INVALID_PARAMETER;
    }
    call.detail(&filter.name);
    for volume in super::volume_stacks(call.machine()) {
        instance::attach_automatically(call.thread(), &filter, &volume, false);
    }
    NtStatus::SUCCESS
}

extern "efiapi" fn flt_unregister_filter(filter: usize) {
    let call = Call::enter();
    let filter = own_filter(&call, filter);
    call.detail(&filter.name);
    if let Some(port) = filter.lock().ports.first().cloned() {
        call.stop(
            Rule::Deadlock,
            format!(
                "FltUnregisterFilter waits for ever: the server port {} is still open \
                 (FltCloseCommunicationPort comes before FltUnregisterFilter)",
                port.name
            ),
        );
    }
    let machine = call.machine();
    super::port::disconnect_all(call.thread(), &filter);
    // From here on the filter gives out nothing any more: work items, contexts and references are refused.
    filter.rundown.start_ending();
    let reason = filter.teardown_reason();
    let instances = filter.lock().instances.clone();
    for instance in &instances {
        instance::detach(call.thread(), instance, reason);
    }
    if let Err(held) = super::contexts::filter_gone(call.thread(), &filter) {
        call.stop(Rule::ReferenceLeak, format!("contexts are still referenced in FltUnregisterFilter: {held}"));
    }
    for instance in &instances {
        wait(&call, &instance.rundown, &format!("the instance {}", instance.name));
        machine.flt.objects.remove(machine, instance.address);
    }
    wait(&call, &filter.rundown, &format!("the filter {}", filter.name));
    machine.flt.filters().retain(|known| !Arc::ptr_eq(known, &filter));
    machine.flt.objects.remove(machine, filter.address);
}

fn wait(call: &Call, rundown: &Rundown, what: &str) {
    if let Err(holders) = rundown.wait() {
        call.stop(
            Rule::Deadlock,
            format!("FltUnregisterFilter waits for ever: {what} is still referenced: {}", holders.join("; ")),
        );
    }
}

/// Asks a filter to unload: runs its FilterUnloadCallback on the calling thread.
///
/// # Errors
/// `FLT_DO_NOT_DETACH` when there is no callback, or a mandatory request meets
/// `FLTFL_REGISTRATION_DO_NOT_SUPPORT_SERVICE_STOP`; what the callback answered, when the request is not mandatory.
pub(crate) fn unload(machine: &Arc<Inner>, filter: &Arc<Filter>, mandatory: bool) -> Result<(), NtStatus> {
    const DO_NOT_SUPPORT_SERVICE_STOP: u32 = 1;
    let callback = filter.registration.unload.ok_or(NtStatus::FLT_DO_NOT_DETACH)?;
    if mandatory && filter.registration.flags & DO_NOT_SUPPORT_SERVICE_STOP != 0 {
        return Err(NtStatus::FLT_DO_NOT_DETACH);
    }
    filter.mandatory.store(mandatory, Ordering::Release);
    let status = Thread::enter(machine, |thread| {
        let system = thread.set_process(None);
        let flags = u32::from(mandatory);
        let result = thread.call_driver(&filter.driver, "FilterUnloadCallback", 0, || {
            // SAFETY: the driver registered the function with this signature, and is loaded.
            unsafe { callback(flags) }
        });
        thread.set_process(system);
        result
    });
    let status = status.map_err(|_| super::MACHINE_STOPPED)?;
    let gone = !machine.flt.filters().iter().any(|known| Arc::ptr_eq(known, filter));
    if mandatory || status.is_success() {
        if !gone {
            super::record(
                machine,
                &filter.driver,
                "FilterUnloadCallback",
                Rule::Deadlock,
                format!("the callback returned {status} without FltUnregisterFilter: unload would wait for ever"),
            );
            return Err(super::MACHINE_STOPPED);
        }
        return Ok(());
    }
    if gone {
        super::record(
            machine,
            &filter.driver,
            "FilterUnloadCallback",
            Rule::BadState,
            format!("the callback refused with {status} but had unregistered the filter"),
        );
    }
    filter.mandatory.store(false, Ordering::Release);
    Err(status)
}
