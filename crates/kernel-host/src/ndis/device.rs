//! Devices that NDIS drivers make beside their adapters: `NdisRegisterDeviceEx`.
//!
//! NDIS owns the dispatch table of a miniport's driver object, so it is the one that requests come to; it passes each on to
//! the routine that was registered for the device.

use std::sync::Arc;

use ndis::NdisStatus;
use ndis::raw::{
    NDIS_DEVICE_OBJECT_ATTRIBUTES, NDIS_OBJECT_TYPE_DEVICE_OBJECT_ATTRIBUTES,
    NDIS_SIZEOF_DEVICE_OBJECT_ATTRIBUTES_REVISION_1,
};
use nt_types::{
    DEVICE_OBJECT, DO_DEVICE_INITIALIZING, DRIVER_DISPATCH, DRIVER_OBJECT, IO_STACK_LOCATION, IRP,
    MAJOR_FUNCTION_COUNT, NtStatus, UNICODE_STRING,
};

use super::{end_handle, new_handle};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Driver;
use crate::nt::io::device::{NewDevice, create, create_link, delete, delete_link};
use crate::nt::io::driver_object::invalid_device_request;
use crate::nt::raw::{Raw, field};
use crate::nt::unicode;
use crate::thread::Thread;

exports! { pub(super) EXPORTS in "ndis.sys":
    NdisRegisterDeviceEx(max 0, fails NDIS_RESOURCES) = register;
    NdisDeregisterDeviceEx(max 0) = deregister;
    NdisGetDeviceReservedExtension(max 31) = reserved_extension;
}

/// `FILE_DEVICE_NETWORK`.
const FILE_DEVICE_NETWORK: u32 = 0x12;
/// `FILE_DEVICE_SECURE_OPEN`.
const FILE_DEVICE_SECURE_OPEN: u32 = 0x100;

/// A registered device.
#[derive(Clone, Debug)]
pub(super) struct NdisDevice {
    pub(super) driver: Arc<Driver>,
    /// Address of the device object.
    object: usize,
    /// NT name, for reports.
    pub(super) name: String,
    link: Option<String>,
    routines: [DRIVER_DISPATCH; MAJOR_FUNCTION_COUNT],
}

extern "efiapi" fn register(
    handle: usize,
    attributes: Raw<NDIS_DEVICE_OBJECT_ATTRIBUTES>,
    object_out: Raw<usize>,
    handle_out: Raw<usize>,
) -> NdisStatus {
    let call = Call::enter();
    object_out.write(0);
    let Some(driver_object) = driver_object_of(&call, handle) else { return NdisStatus::NOT_SUPPORTED };
    let header = field!(attributes, NDIS_DEVICE_OBJECT_ATTRIBUTES, Header).read();
    if header.Type != NDIS_OBJECT_TYPE_DEVICE_OBJECT_ATTRIBUTES
        || header.Revision == 0
        || header.Size < NDIS_SIZEOF_DEVICE_OBJECT_ATTRIBUTES_REVISION_1
    {
        return NdisStatus::INVALID_PARAMETER;
    }
    let attributes = attributes.read();
    let device_handle = new_handle(call.machine());
    if device_handle == 0 {
        return NdisStatus::RESOURCES;
    }
    match make(&call, driver_object, &attributes) {
        Ok(device) => {
            object_out.write(device.object);
            call.machine().ndis.lock().devices.insert(device_handle, device);
            handle_out.write(device_handle);
            NdisStatus::SUCCESS
        }
        Err(status) => {
            end_handle(call.machine(), device_handle);
            // The page: what the kernel says is passed on.
            NdisStatus(status.0)
        }
    }
}

/// The driver object that was registered with a miniport driver's or a filter driver's handle, if it is the caller's.
fn driver_object_of(call: &Call, handle: usize) -> Option<Raw<DRIVER_OBJECT>> {
    let state = call.machine().ndis.lock();
    let is_callers = |driver: &Arc<Driver>| Arc::ptr_eq(driver, call.driver());
    let miniport = state.miniports.get(&handle).filter(|miniport| is_callers(&miniport.driver));
    let filter = state.filters.get(&handle).filter(|filter| is_callers(&filter.driver));
    miniport.map(|miniport| miniport.driver_object()).or(filter.map(|filter| filter.driver_object()))
}

fn make(
    call: &Call,
    driver_object: Raw<DRIVER_OBJECT>,
    attributes: &NDIS_DEVICE_OBJECT_ATTRIBUTES,
) -> Result<NdisDevice, NtStatus> {
    let name = Raw::<UNICODE_STRING>::of(attributes.DeviceName);
    let text = unicode::name(name)?;
    let new = NewDevice {
        driver_object,
        extension_length: attributes.ExtensionSize,
        name,
        device_type: FILE_DEVICE_NETWORK,
        characteristics: FILE_DEVICE_SECURE_OPEN,
        exclusive: false,
    };
    let object = create(call, &new)?;
    let device = Raw::<DEVICE_OBJECT>::at(object);
    let link = Raw::<UNICODE_STRING>::of(attributes.SymbolicName).some();
    let link = link.map(|link| match create_link(call, link, name) {
        NtStatus::SUCCESS => unicode::name(link),
        refused => Err(refused),
    });
    let link = link.transpose().inspect_err(|_| delete(call, device))?;
    let routines = Raw::<DRIVER_DISPATCH>::of(attributes.MajorFunctions);
    let mut table = [None; MAJOR_FUNCTION_COUNT];
    for (index, routine) in table.iter_mut().enumerate() {
        *routine = routines.index(index).read();
    }
    let all: [DRIVER_DISPATCH; MAJOR_FUNCTION_COUNT] = [Some(dispatch); MAJOR_FUNCTION_COUNT];
    field!(driver_object, DRIVER_OBJECT, MajorFunction).write(all);
    // NDIS made the device, so nobody else says that it is ready.
    let flags = field!(device, DEVICE_OBJECT, Flags);
    flags.write(flags.read() & !DO_DEVICE_INITIALIZING);
    Ok(NdisDevice { driver: Arc::clone(call.driver()), object, name: text, link, routines: table })
}

extern "efiapi" fn deregister(handle: usize) {
    let call = Call::enter();
    let device = call.machine().ndis.lock().devices.get(&handle).cloned();
    let Some(device) = device.filter(|device| Arc::ptr_eq(&device.driver, call.driver())) else {
        call.stop(Rule::InvalidHandle, format!("{handle:#x} is no device of NDIS, or one that is deregistered"));
    };
    call.detail(&*device.name);
    if let Some(link) = &device.link {
        // The link is there: only this call removes it.
        let _ = delete_link(&call, link);
    }
    delete(&call, Raw::at(device.object));
    call.machine().ndis.lock().devices.remove(&handle);
    end_handle(call.machine(), handle);
}

extern "efiapi" fn reserved_extension(device: Raw<DEVICE_OBJECT>) -> usize {
    let _call = Call::enter();
    field!(device, DEVICE_OBJECT, DeviceExtension).read().addr()
}

/// Every entry of the driver object's dispatch table, once there is a device. Runs as driver code, entered by the I/O manager.
extern "efiapi" fn dispatch(device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    let thread = Thread::current();
    let location = Raw::<IO_STACK_LOCATION>::of(field!(Raw::of(irp), IRP, CurrentStackLocation).read());
    let major = usize::from(field!(location, IO_STACK_LOCATION, MajorFunction).read());
    let state = thread.machine().ndis.lock();
    let found = state.devices.values().find(|known| known.object == device.addr());
    let routine = found.and_then(|known| known.routines.get(major).copied().flatten());
    drop(state);
    match routine {
        // SAFETY: the driver registered the routine for this device and this kind of request.
        Some(routine) => unsafe { routine(device, irp) },
        None => invalid_device_request(device, irp),
    }
}
