//! Driver objects: what `DriverEntry` is given.

use std::sync::{Arc, Weak};

use nt_types::{
    DEVICE_OBJECT, DO_DEVICE_INITIALIZING, DRIVER_EXTENSION, DRIVER_OBJECT, IRP, MAJOR_FUNCTION_COUNT, NtStatus,
    UNICODE_STRING,
};

use super::request;
use crate::machine::{Driver, Inner};
use crate::nt::ob::{ObjectBody, ObjectRef};
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

/// `IO_TYPE_DRIVER`.
const IO_TYPE_DRIVER: i16 = 4;

/// Where the extension lies in the body, behind the object itself.
const EXTENSION: usize = size_of::<DRIVER_OBJECT>();
/// Where the registry path's `UNICODE_STRING` lies.
const REGISTRY_PATH: usize = EXTENSION + size_of::<DRIVER_EXTENSION>();
/// Where the hardware database's `UNICODE_STRING` lies.
const HARDWARE: usize = REGISTRY_PATH + size_of::<UNICODE_STRING>();
/// Where the characters of all names begin.
const CHARACTERS: usize = HARDWARE + size_of::<UNICODE_STRING>();

/// Path that `DRIVER_OBJECT::HardwareDatabase` names, on every computer.
const HARDWARE_DATABASE: &str = "\\REGISTRY\\MACHINE\\HARDWARE\\DESCRIPTION\\SYSTEM";

/// Payload of a driver object.
#[derive(Debug)]
pub(crate) struct DriverBody {
    /// Weak, because the driver owns its object.
    driver: Weak<Driver>,
}

impl DriverBody {
    /// The driver, unless it is gone.
    pub(crate) fn driver(&self) -> Option<Arc<Driver>> {
        self.driver.upgrade()
    }
}

impl ObjectBody for DriverBody {
    fn type_name(&self) -> &'static str {
        "Driver"
    }
}

/// The image that a driver object is made for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ImageRange {
    /// Base address.
    pub(crate) base: usize,
    /// Bytes.
    pub(crate) size: usize,
    /// Address of the entry point.
    pub(crate) entry: usize,
}

/// A driver object, kept for as long as the driver is loaded.
#[derive(Debug)]
pub(crate) struct DriverObject {
    object: ObjectRef,
}

impl DriverObject {
    /// Makes `\Driver\service`, with every dispatch routine refusing requests, as the I/O manager does before `DriverEntry`.
    ///
    /// # Errors
    /// `STATUS_IMAGE_ALREADY_LOADED` when there is such a driver; `STATUS_INSUFFICIENT_RESOURCES`.
    pub(crate) fn create(
        machine: &Arc<Inner>,
        driver: &Arc<Driver>,
        image: ImageRange,
        service: &str,
    ) -> Result<Self, NtStatus> {
        let name = format!("\\Driver\\{service}");
        let registry_path = format!("\\REGISTRY\\MACHINE\\SYSTEM\\CurrentControlSet\\Services\\{service}");
        let texts = [name.as_str(), service, &registry_path, HARDWARE_DATABASE];
        let characters: usize = texts.iter().map(|text| text.encode_utf16().count() + 1).sum();
        let payload = Arc::new(DriverBody { driver: Arc::downgrade(driver) });
        let object = machine.nt.objects().create(CHARACTERS + characters * 2, payload)?;
        let inserted = machine.nt.objects().namespace().insert_object(&name, &object);
        inserted.map_err(|_| NtStatus::IMAGE_ALREADY_LOADED)?;
        let body = Raw::<u8>::at(object.body());
        let mut at = body.field::<u16>(CHARACTERS);
        let [name, service, registry_path, hardware] = texts.map(|text| write_text(&mut at, text));
        let this = Self { object };
        this.fill(image, name, service);
        body.field(REGISTRY_PATH).write(registry_path);
        body.field(HARDWARE).write(hardware);
        Ok(this)
    }

    fn fill(&self, image: ImageRange, name: UNICODE_STRING, service: UNICODE_STRING) {
        let driver = self.raw();
        let extension = driver.field::<DRIVER_EXTENSION>(EXTENSION);
        field!(driver, DRIVER_OBJECT, Type).write(IO_TYPE_DRIVER);
        field!(driver, DRIVER_OBJECT, Size).write((size_of::<DRIVER_OBJECT>() as u16).cast_signed());
        field!(driver, DRIVER_OBJECT, DriverStart).write(Raw::at(image.base).pointer());
        field!(driver, DRIVER_OBJECT, DriverSize).write(image.size as u32);
        field!(driver, DRIVER_OBJECT, DriverExtension).write(extension.pointer());
        field!(driver, DRIVER_OBJECT, DriverName).write(name);
        field!(driver, DRIVER_OBJECT, HardwareDatabase).write(driver.field(HARDWARE).pointer());
        field!(driver, DRIVER_OBJECT, DriverInit).cast::<usize>().write(image.entry);
        field!(driver, DRIVER_OBJECT, MajorFunction).write([Some(invalid_device_request); MAJOR_FUNCTION_COUNT]);
        field!(extension, DRIVER_EXTENSION, DriverObject).write(driver.pointer());
        field!(extension, DRIVER_EXTENSION, ServiceKeyName).write(service);
    }

    fn raw(&self) -> Raw<DRIVER_OBJECT> {
        Raw::at(self.object.body())
    }

    /// First argument of `DriverEntry`.
    pub(crate) fn address(&self) -> usize {
        self.object.body()
    }

    /// Second argument of `DriverEntry`: the address of a `UNICODE_STRING`.
    pub(crate) fn registry_path(&self) -> usize {
        self.object.body() + REGISTRY_PATH
    }

    /// Address of the `DriverUnload` routine; `None` when the driver set none and so cannot be unloaded.
    pub(crate) fn unload_routine(&self) -> Option<usize> {
        let routine = field!(self.raw(), DRIVER_OBJECT, DriverUnload).cast::<usize>().read();
        (routine != 0).then_some(routine)
    }

    /// After a successful `DriverEntry`: the devices it made can be opened from now on.
    pub(crate) fn entry_returned(&self) {
        let mut device = Raw::of(field!(self.raw(), DRIVER_OBJECT, DeviceObject).read());
        while !device.is_null() {
            let flags = field!(device, DEVICE_OBJECT, Flags);
            flags.write(flags.read() & !DO_DEVICE_INITIALIZING);
            device = Raw::of(field!(device, DEVICE_OBJECT, NextDevice).read());
        }
    }

    /// Takes the name away: the driver is unloaded.
    pub(crate) fn remove(&self, machine: &Inner) {
        if let Some(name) = self.object.name() {
            // Nobody else removes names of driver objects.
            let _ = machine.nt.objects().namespace().remove_object(&name);
        }
    }
}

/// Writes characters and a terminator at `at`, which moves behind them.
fn write_text(at: &mut Raw<u16>, text: &str) -> UNICODE_STRING {
    let start = *at;
    let mut length = 0;
    for unit in text.encode_utf16() {
        start.index(length).write(unit);
        length += 1;
    }
    *at = start.index(length + 1);
    let bytes = (length * 2) as u16;
    UNICODE_STRING { Length: bytes, MaximumLength: bytes + 2, Buffer: start.pointer() }
}

/// What every entry of `MajorFunction` is until the driver sets its own.
pub(crate) extern "efiapi" fn invalid_device_request(_device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    let irp = Raw::of(irp);
    field!(irp, IRP, IoStatus.Status).write(NtStatus::INVALID_DEVICE_REQUEST);
    request::complete(&Thread::current(), irp);
    NtStatus::INVALID_DEVICE_REQUEST
}
