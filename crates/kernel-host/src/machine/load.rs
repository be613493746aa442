//! Loading and unloading drivers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nt_types::{DRIVER_OBJECT, NtStatus, UNICODE_STRING};

use super::driver::DriverState;
use super::{Driver, DriverError, Inner, Machine};
use crate::finding::{Finding, Rule};
use crate::image::Image;
use crate::image::imports::Resolver;
use crate::leak::{LeakKind, LeakReport};
use crate::nt::io::driver_object::{DriverObject, ImageRange};
use crate::nt::io::extension;
use crate::nt::paging::Pageable;
use crate::nt::raw::Raw;
use crate::thread::Thread;

type DriverUnload = unsafe extern "efiapi" fn(*mut DRIVER_OBJECT);
type DriverEntry = unsafe extern "efiapi" fn(*mut DRIVER_OBJECT, *mut UNICODE_STRING) -> NtStatus;

impl Machine {
    /// Loads the driver of an installed service and runs its `DriverEntry`, in the system process at `PASSIVE_LEVEL`.
    ///
    /// `service` is the service's name or its image's file name.
    ///
    /// # Errors
    /// [`DriverError::AlreadyLoaded`] while the driver is loaded or on its way in or out; the image's or `DriverEntry`'s
    /// refusal, after which everything is as before.
    pub fn load_driver(&self, service: &str) -> Result<(), DriverError> {
        let service = self.service(service)?;
        let inner = self.inner();
        if let Some(stopped) = inner.stopped() {
            return Err(stopped.into());
        }
        let file_name = service.image.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let driver = Arc::new(Driver::new(file_name, service.installed.service, service.image));
        {
            let mut drivers = inner.drivers();
            if drivers.iter().any(|other| other.service == driver.service) {
                return Err(DriverError::AlreadyLoaded(driver.service.clone()));
            }
            drivers.push(Arc::clone(&driver));
        }
        let result = start(inner, &driver);
        match result {
            Ok(()) => driver.set_state(DriverState::Running),
            // What the report is about stays, so that a stopped machine can still be looked at.
            Err(DriverError::Stopped(_)) => {}
            Err(_) => forget(inner, &driver),
        }
        result
    }

    /// Unloads a driver: a minifilter through its `FilterUnloadCallback`, any other through `DriverUnload`.
    ///
    /// `mandatory` is what stopping the service means to a minifilter, which then cannot refuse; otherwise it is
    /// `fltmc unload`. What the driver has not given back is in the report, and is a finding.
    ///
    /// # Errors
    /// [`DriverError::NotLoaded`]; [`DriverError::UnloadRefused`] when the driver said no or has no unload routine;
    /// [`DriverError::UnloadHeldBack`] while somebody has a device of it open: new opens fail with
    /// `STATUS_NO_SUCH_DEVICE` from then on, and the driver is unloaded when the last one is closed.
    pub fn unload_driver(&self, service: &str, mandatory: bool) -> Result<LeakReport, DriverError> {
        let inner = self.inner();
        if let Some(stopped) = inner.stopped() {
            return Err(stopped.into());
        }
        let driver = self.driver(service).ok_or_else(|| DriverError::NotLoaded(service.to_owned()))?;
        if driver.is_leaving() {
            let why = inner.nt.io().held_open(&driver).unwrap_or_default();
            return Err(DriverError::UnloadHeldBack(why));
        }
        if !driver.change_state(DriverState::Running, DriverState::Unloading) {
            return Err(DriverError::NotLoaded(service.to_owned()));
        }
        // FilterUnload asks the minifilter first; the service control manager, and drivers that are none, the I/O manager.
        let asks_filter = !mandatory && inner.flt.filter_of(&driver).is_some();
        if !asks_filter && let Some(why) = hold_back(inner, &driver) {
            return Err(DriverError::UnloadHeldBack(why));
        }
        unload_now(inner, &driver, mandatory)
    }

    /// Waits until a driver whose unload is held back is gone; its report. `None` when that takes longer than `time`.
    #[must_use]
    pub fn wait_until_unloaded(&self, service: &str, time: Duration) -> Option<LeakReport> {
        let deadline = Instant::now() + time;
        loop {
            let gone = self.inner().gone();
            let found = gone.iter().rfind(|driver| driver.is_called(service)).map(|driver| driver.name.clone());
            drop(gone);
            if let (Some(image), None) = (found, self.driver(service)) {
                return self.unload_reports().into_iter().rfind(|report| report.driver == image);
            }
            if Instant::now() > deadline || self.inner().stopped().is_some() {
                return None;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// A loaded driver, by the name of its service or its image.
    pub(crate) fn driver(&self, name: &str) -> Option<Arc<Driver>> {
        let drivers = self.inner().drivers();
        drivers.iter().find(|driver| driver.is_called(name)).cloned()
    }

    /// Loaded drivers, in the order of loading.
    #[must_use]
    pub fn drivers(&self) -> Vec<Arc<Driver>> {
        self.inner().drivers().clone()
    }

    /// One report for each driver that was unloaded, oldest first.
    #[must_use]
    pub fn unload_reports(&self) -> Vec<LeakReport> {
        self.inner().reports().clone()
    }

    /// What a loaded driver holds at this moment.
    #[must_use]
    pub fn held_by(&self, driver: &Driver) -> LeakReport {
        self.inner().leaks_of(driver)
    }
}

/// Maps the image and runs `DriverEntry`.
fn start(inner: &Arc<Inner>, driver: &Arc<Driver>) -> Result<(), DriverError> {
    let image = {
        let drivers = inner.drivers();
        let images = drivers.iter().filter_map(|driver| driver.image.get()).collect();
        Image::load(&driver.path, &Resolver { machine: Some(inner), images }, &Arc::downgrade(driver))?
    };
    let image = driver.image.get_or_init(|| image);
    for (address, pages, access) in image.pageable_sections() {
        inner.nt.paging().add(address, pages, access, Pageable::Section);
    }
    let module = image.module();
    let range = ImageRange { base: module.base(), size: module.size(), entry: image.entry() };
    let object = DriverObject::create(inner, driver, range, &driver.service).map_err(DriverError::Host)?;
    let (address, path) = (object.address(), object.registry_path());
    driver.set_object(object);
    let image_path = format!("\\SystemRoot\\System32\\drivers\\{}", driver.name);
    as_system(inner, |thread| crate::nt::notify::image_loaded(thread, &image_path, module.base(), module.size()));
    // SAFETY: the address of the image's entry point, whose type the DDI page of DriverEntry gives.
    let entry = unsafe { std::mem::transmute::<usize, DriverEntry>(image.entry()) };
    let started = Instant::now();
    let status = as_system(inner, |thread| {
        thread.call_driver(driver, "DriverEntry", 0, || {
            // SAFETY: a driver object and a string as the page describes, alive during the call.
            unsafe { entry(Raw::at(address).pointer(), Raw::at(path).pointer()) }
        })
    })?;
    driver.set_entry_time(started.elapsed());
    if status.is_success() {
        driver.with_object(DriverObject::entry_returned);
        as_system(inner, |thread| extension::reinitialize(thread, driver))?;
        image.discard_initialisation();
        return Ok(());
    }
    extension::check_none(inner, driver);
    // Pool that it leaves behind now is leaked for good: Windows does not call DriverUnload after a failed start.
    let report = inner.leaks_of(driver);
    if let Some(finding) = leak_finding(driver, &report, "DriverEntry") {
        inner.record(finding);
    }
    Err(DriverError::EntryFailed { status, report })
}

/// Puts the unload off when a device of the driver is in use: the reason.
fn hold_back(inner: &Inner, driver: &Driver) -> Option<String> {
    inner.nt.io().held_open(driver)?;
    driver.set_state(DriverState::Leaving);
    // The last open may have gone between the look and the mark: nobody else would notice.
    let why = inner.nt.io().held_open(driver);
    if why.is_none() && !driver.change_state(DriverState::Leaving, DriverState::Unloading) {
        return Some("the last open has gone just now".to_owned());
    }
    why
}

/// A device of `driver` is not in use any more: an unload that was held back for it happens now, on a thread of the system.
pub(crate) fn go_on_unloading(inner: &Arc<Inner>, driver: &Arc<Driver>) {
    if !driver.is_leaving() || inner.nt.io().held_open(driver).is_some() {
        return;
    }
    if driver.change_state(DriverState::Leaving, DriverState::Unloading) {
        let (inner, driver) = (Arc::clone(inner), Arc::clone(driver));
        // The closing thread may hold locks of other drivers, and runs in some program's context.
        std::thread::spawn(move || {
            // Whether it worked is in the machine's reports and findings. A held-back unload is always the service's.
            let _ = unload_now(&inner, &driver, true);
        });
    }
}

/// Unloads a driver that nobody holds. Its state is `Unloading`.
fn unload_now(inner: &Arc<Inner>, driver: &Arc<Driver>, mandatory: bool) -> Result<LeakReport, DriverError> {
    if let Err(error) = run_unload(inner, driver, mandatory) {
        driver.set_state(DriverState::Running);
        return Err(error);
    }
    let report = inner.leaks_of(driver);
    if let Some(finding) = leak_finding(driver, &report, "DriverUnload") {
        inner.record(finding);
    }
    inner.reports().push(report.clone());
    forget(inner, driver);
    Ok(report)
}

fn run_unload(inner: &Arc<Inner>, driver: &Arc<Driver>, mandatory: bool) -> Result<(), DriverError> {
    let stopped = |status| inner.stopped().map_or(DriverError::UnloadRefused(status), DriverError::Stopped);
    let filter = inner.flt.filter_of(driver);
    if let Some(filter) = &filter {
        crate::flt::filter::unload(inner, filter, mandatory).map_err(stopped)?;
    }
    let routine = driver.with_object(DriverObject::unload_routine).flatten();
    match routine {
        Some(routine) => {
            // SAFETY: the driver (or NDIS for it) stored a routine of this type in its driver object.
            let routine = unsafe { std::mem::transmute::<usize, DriverUnload>(routine) };
            as_system(inner, |thread| {
                thread.call_driver(driver, "DriverUnload", 0, || {
                    // SAFETY: the routine's documented argument; the object is alive.
                    unsafe { routine(Raw::at(driver.object_address()).pointer()) }
                })
            })?;
        }
        None if filter.is_none() => return Err(DriverError::UnloadRefused(NtStatus::INVALID_DEVICE_REQUEST)),
        None => {}
    }
    let patience = inner.nt.dispatcher().deadlock_after();
    if inner.stopped().is_none() && !inner.nt.work_items().wait_for_routines(driver, patience) {
        let message = format!("the routine of a work item still runs {patience:?} after DriverUnload returned");
        inner.record(Finding::new(Rule::Deadlock, message, "IO_WORKITEM_ROUTINE", &driver.name));
    }
    inner.stopped().map_or(Ok(()), |stopped| Err(stopped.into()))
}

/// Takes a driver's memory and name away. Its address range stays known, for calls that come too late.
fn forget(inner: &Inner, driver: &Arc<Driver>) {
    driver.set_state(DriverState::Unloaded);
    if let Some(image) = driver.image.get() {
        for (address, ..) in image.pageable_sections() {
            inner.nt.paging().remove(address);
        }
        image.unload();
    }
    if let Some(object) = driver.take_object() {
        extension::free_all(inner, object.address());
        object.remove(inner);
    }
    inner.nt.objects().forget_driver(driver);
    inner.flt.file_locks.forget(driver);
    inner.flt.oplocks.forget(driver);
    let mut drivers = inner.drivers();
    drivers.retain(|other| !Arc::ptr_eq(other, driver));
    // Under the lock: who adds up over all drivers finds it in one of the two lists.
    inner.gone().push(Arc::clone(driver));
}

/// Runs `body` on the calling thread as a thread of the system process.
fn as_system<R>(inner: &Arc<Inner>, body: impl FnOnce(&Arc<Thread>) -> R) -> R {
    Thread::enter(inner, |thread| {
        let before = thread.set_process(None);
        let result = body(thread);
        thread.set_process(before);
        result
    })
}

/// The finding that a report which is not clean amounts to.
fn leak_finding(driver: &Driver, report: &LeakReport, call: &str) -> Option<Finding> {
    let first = report.leaks.first()?;
    let rule = match first.kind {
        LeakKind::Pool | LeakKind::Mapping => Rule::PoolLeak,
        LeakKind::Handle | LeakKind::Port => Rule::HandleLeak,
        LeakKind::Reference => Rule::ReferenceLeak,
        LeakKind::Registration | LeakKind::Device | LeakKind::Execution => Rule::BadState,
    };
    Some(Finding::new(rule, report.to_string(), call, &driver.name))
}
