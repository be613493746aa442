//! Device objects and the symbolic links to them.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use nt_types::{
    DEVICE_OBJECT, DO_DEVICE_HAS_NAME, DO_DEVICE_INITIALIZING, DO_EXCLUSIVE, DRIVER_OBJECT, NtStatus, UNICODE_STRING,
};

use super::driver_object::DriverBody;
use super::{Device, Io, file};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::{Driver, Inner};
use crate::nt::device_queues::DeviceQueue;
use crate::nt::ob::{ObjectBody, ObjectRef};
use crate::nt::parse::ParseRequest;
use crate::nt::raw::{Raw, field};
use crate::nt::security::descriptor::Descriptor;
use crate::nt::unicode;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    IoCreateDevice(max 1, fails RESOURCES) = io_create_device;
    IoDeleteDevice(max 1) = io_delete_device;
    IoCreateSymbolicLink(max 0, fails RESOURCES) = io_create_symbolic_link;
    IoDeleteSymbolicLink(max 0) = io_delete_symbolic_link;
}

/// `IO_TYPE_DEVICE`.
const IO_TYPE_DEVICE: i16 = 3;

/// What everybody may do with a device whose driver sets no descriptor: read and write, as for most device types.
const DEFAULT_WORLD_ACCESS: u32 = 0x0012_019F;

/// Largest device extension in bytes: `DEVICE_OBJECT::Size` has 16 bits.
const MAX_EXTENSION: u32 = 0xFFFF - size_of::<DEVICE_OBJECT>() as u32;

impl Io {
    /// The devices of `driver` that somebody has open, or is attached to: while there are any, it is not unloaded.
    pub(crate) fn held_open(&self, driver: &Driver) -> Option<String> {
        let state = self.lock();
        let mine = state.devices.values().filter(|device| std::ptr::eq(Arc::as_ptr(&device.driver), driver));
        mine.into_iter().find_map(|device| {
            let raw = Raw::<DEVICE_OBJECT>::at(device.object.body());
            let opens = field!(raw, DEVICE_OBJECT, ReferenceCount).read();
            let attached = !field!(raw, DEVICE_OBJECT, AttachedDevice).read().is_null();
            let name = device.name.as_deref().unwrap_or("without a name");
            match (opens, attached) {
                (0, false) => None,
                (0, true) => Some(format!("another driver's device is attached to device {name}")),
                (opens, _) => Some(format!("{opens} file object(s) of device {name} are open")),
            }
        })
    }
}

/// Payload of a device object.
#[derive(Debug)]
pub(crate) struct DeviceBody {
    driver: Arc<Driver>,
    machine: Weak<Inner>,
    descriptor: Mutex<Descriptor>,
}

impl DeviceBody {
    /// The driver that made it.
    pub(crate) fn driver(&self) -> &Arc<Driver> {
        &self.driver
    }

    /// Who may open it.
    pub(crate) fn descriptor(&self) -> Descriptor {
        self.descriptor.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn set_descriptor(&self, descriptor: Descriptor) {
        *self.descriptor.lock().unwrap_or_else(PoisonError::into_inner) = descriptor;
    }
}

impl ObjectBody for DeviceBody {
    fn type_name(&self) -> &'static str {
        "Device"
    }

    fn parse(&self, object: &ObjectRef, request: &ParseRequest<'_>) -> Result<ObjectRef, NtStatus> {
        let machine = self.machine.upgrade().ok_or(NtStatus::NO_SUCH_DEVICE)?;
        file::open(&machine, object, request)
    }
}

pub(super) extern "efiapi" fn io_create_device(
    driver_object: Raw<DRIVER_OBJECT>,
    extension_length: u32,
    name: Raw<UNICODE_STRING>,
    device_type: u32,
    characteristics: u32,
    exclusive: u8,
    device: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    device.write(0);
    let exclusive = exclusive != 0;
    let new = NewDevice { driver_object, extension_length, name, device_type, characteristics, exclusive };
    match create(&call, &new) {
        Ok(body) => {
            device.write(body);
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

/// What `IoCreateDevice` is told of a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewDevice {
    pub(crate) driver_object: Raw<DRIVER_OBJECT>,
    /// In bytes.
    pub(crate) extension_length: u32,
    /// NULL for none.
    pub(crate) name: Raw<UNICODE_STRING>,
    pub(crate) device_type: u32,
    pub(crate) characteristics: u32,
    pub(crate) exclusive: bool,
}

/// Makes a device object for the calling driver; the address of its body.
///
/// # Errors
/// Those of `IoCreateDevice`.
pub(crate) fn create(call: &Call, new: &NewDevice) -> Result<usize, NtStatus> {
    let objects = call.machine().nt.objects();
    let owner = objects.payload::<DriverBody>(new.driver_object.address()).and_then(|body| body.driver());
    let Some(owner) = owner else {
        call.stop(Rule::BadArgument, format!("{:?} is no driver object", new.driver_object));
    };
    if new.extension_length > MAX_EXTENSION {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let path = new.name.some().map(unicode::name).transpose()?;
    call.detail(path.as_deref().unwrap_or("without a name"));
    let payload = Arc::new(DeviceBody {
        driver: owner,
        machine: Arc::downgrade(call.machine()),
        descriptor: Mutex::new(Descriptor::open_to_world(DEFAULT_WORLD_ACCESS)),
    });
    let object = objects.create(size_of::<DEVICE_OBJECT>() + new.extension_length as usize, payload)?;
    let flags = if new.exclusive { DO_EXCLUSIVE } else { 0 } | if path.is_some() { DO_DEVICE_HAS_NAME } else { 0 };
    let flags = flags | DO_DEVICE_INITIALIZING;
    fill(object.body(), new.extension_length, new.device_type, new.characteristics, flags);
    if let Some(path) = &path {
        objects.namespace().insert_object(path, &object)?;
    }
    let first = field!(new.driver_object, DRIVER_OBJECT, DeviceObject);
    let body = Raw::<DEVICE_OBJECT>::at(object.body());
    field!(body, DEVICE_OBJECT, DriverObject).write(new.driver_object.pointer());
    field!(body, DEVICE_OBJECT, NextDevice).write(first.read());
    first.write(body.pointer());
    let entry = Device { object, driver: Arc::clone(call.driver()), name: path };
    call.machine().nt.io().lock().devices.insert(body.address(), entry);
    Ok(body.address())
}

fn fill(body: usize, extension_length: u32, device_type: u32, characteristics: u32, flags: u32) {
    let device = Raw::<DEVICE_OBJECT>::at(body);
    field!(device, DEVICE_OBJECT, Type).write(IO_TYPE_DEVICE);
    field!(device, DEVICE_OBJECT, Size).write((size_of::<DEVICE_OBJECT>() as u32 + extension_length) as u16);
    field!(device, DEVICE_OBJECT, Flags).write(flags);
    field!(device, DEVICE_OBJECT, Characteristics).write(characteristics);
    field!(device, DEVICE_OBJECT, DeviceType).write(device_type);
    field!(device, DEVICE_OBJECT, StackSize).write(1);
    DeviceQueue::initialise(field!(device, DEVICE_OBJECT, DeviceQueue).cast());
    if extension_length > 0 {
        let extension = device.field::<std::ffi::c_void>(size_of::<DEVICE_OBJECT>());
        field!(device, DEVICE_OBJECT, DeviceExtension).write(extension.pointer());
    }
}

pub(super) extern "efiapi" fn io_delete_device(device: Raw<DEVICE_OBJECT>) {
    delete(&Call::enter(), device);
}

/// Deletes a device object; stops on one that is none.
pub(crate) fn delete(call: &Call, device: Raw<DEVICE_OBJECT>) {
    let removed = call.machine().nt.io().lock().devices.remove(&device.address());
    let Some(removed) = removed else {
        call.stop(Rule::BadState, format!("{device:?} is no device object, or one that was deleted before"));
    };
    call.detail(removed.name.as_deref().unwrap_or("without a name"));
    if !field!(device, DEVICE_OBJECT, AttachedDevice).read().is_null() {
        call.stop(Rule::BadState, "another device is still attached to the device that is deleted");
    }
    check_registrations(call, device);
    unlink(device);
    if let Some(name) = &removed.name {
        // The name is there: only this call removes it.
        let _ = call.machine().nt.objects().namespace().remove_object(name);
    }
    // Open files keep the object until they are closed, as documented.
    drop(removed);
}

/// What the device was given has to be taken back first: it would be used after the device is gone.
fn check_registrations(call: &Call, device: Raw<DEVICE_OBJECT>) {
    let left = {
        let mut state = call.machine().nt.io().lock();
        state.start_io.remove(&device.address());
        let timer = state.timers.remove(&device.address()).is_some_and(|timer| timer.is_running());
        let shutdown = state.shutdown.iter().any(|registration| registration.device == device.address());
        (timer, shutdown)
    };
    if left.0 {
        call.stop(Rule::BadState, "the device's timer runs: IoStopTimer comes before IoDeleteDevice");
    }
    if left.1 {
        call.stop(
            Rule::BadState,
            "the device is registered for IRP_MJ_SHUTDOWN: IoUnregisterShutdownNotification comes first",
        );
    }
}

/// Takes a device out of its driver's chain.
fn unlink(device: Raw<DEVICE_OBJECT>) {
    let driver = Raw::of(field!(device, DEVICE_OBJECT, DriverObject).read());
    let mut link = field!(driver, DRIVER_OBJECT, DeviceObject);
    while let Some(current) = Raw::of(link.read()).some() {
        let next = field!(current, DEVICE_OBJECT, NextDevice);
        if current == device {
            return link.write(next.read());
        }
        link = next;
    }
}

pub(crate) extern "efiapi" fn io_create_symbolic_link(
    link: Raw<UNICODE_STRING>,
    target: Raw<UNICODE_STRING>,
) -> NtStatus {
    create_link(&Call::enter(), link, target)
}

/// Makes a symbolic link of the calling driver.
pub(crate) fn create_link(call: &Call, link: Raw<UNICODE_STRING>, target: Raw<UNICODE_STRING>) -> NtStatus {
    let made = unicode::name(link).and_then(|link| {
        let target = unicode::name(target)?;
        call.detail(format_args!("{link} -> {target}"));
        call.machine().nt.objects().namespace().insert_link(&link, &target)?;
        Ok(link)
    });
    match made {
        Ok(link) => {
            call.machine().nt.io().lock().links.push((link, Arc::clone(call.driver())));
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}

pub(super) extern "efiapi" fn io_delete_symbolic_link(link: Raw<UNICODE_STRING>) -> NtStatus {
    let call = Call::enter();
    match unicode::name(link) {
        Ok(link) => delete_link(&call, &link),
        Err(status) => status,
    }
}

/// Removes a symbolic link.
pub(crate) fn delete_link(call: &Call, link: &str) -> NtStatus {
    let removed = call.machine().nt.objects().namespace().remove_link(link);
    match removed {
        Ok(()) => {
            let mut state = call.machine().nt.io().lock();
            state.links.retain(|(path, _)| !unicode::same_name(path, link));
            NtStatus::SUCCESS
        }
        Err(status) => status,
    }
}
