//! `\Device\FwBroker`.

use super::query;
use core::ptr;
use fltmgr::Passive;
use nt_types::{
    DEVICE_OBJECT, DRIVER_OBJECT, FILE_DEVICE_SECURE_OPEN, FILE_DEVICE_UNKNOWN, IO_NO_INCREMENT, IO_STATUS_BLOCK, IRP,
    IRP_MJ_CLEANUP, IRP_MJ_CLOSE, IRP_MJ_CREATE, IRP_MJ_INTERNAL_DEVICE_CONTROL, KERNEL_MODE, NtStatus, UNICODE_STRING,
    utf16,
};
use wdk_sys::ntddk::{IoCreateDevice, IoDeleteDevice, IofCompleteRequest};

/// The device object. Deleted on drop, at PASSIVE_LEVEL; it goes when its last file object does.
///
/// While a driver holds a file object of it, the I/O manager does not unload this driver.
pub(crate) struct Device {
    device: wdk_sys::PDEVICE_OBJECT,
}

impl Device {
    /// Creates the device (`IoCreateDevice`) and sets the dispatch routines.
    ///
    /// # Errors
    /// STATUS_OBJECT_NAME_COLLISION (the driver is loaded under another name already), STATUS_INSUFFICIENT_RESOURCES.
    ///
    /// # Safety
    /// `driver` is the driver object of this image, during DriverEntry.
    pub(crate) unsafe fn create(driver: *mut DRIVER_OBJECT, _passive: Passive) -> Result<Self, NtStatus> {
        let name = UNICODE_STRING::from_utf16(utf16!(ndis_firmware::interface::DEVICE_NAME));
        let mut name = name.ok_or(NtStatus::NAME_TOO_LONG)?;
        // Opens can come as soon as the device exists, so the routines are there first.
        // SAFETY: the driver object is ours, and nothing reads the table before there is a device.
        let routines = unsafe { &mut (*driver).MajorFunction };
        for (major, routine) in (0_u8..).zip(routines) {
            match major {
                IRP_MJ_CREATE => *routine = Some(create),
                IRP_MJ_CLEANUP | IRP_MJ_CLOSE => *routine = Some(succeed),
                IRP_MJ_INTERNAL_DEVICE_CONTROL => *routine = Some(internal_control),
                // The I/O manager's own routine refuses the rest.
                _ => {}
            }
        }
        let mut device = ptr::null_mut();
        // SAFETY: the name outlives the call, which copies it (rule: IoCreateDevice). SECURE_OPEN: names below the
        // device are checked like the device.
        let status = unsafe {
            IoCreateDevice(
                driver.cast(),
                0,
                (&raw mut name).cast(),
                FILE_DEVICE_UNKNOWN,
                FILE_DEVICE_SECURE_OPEN,
                0,
                &raw mut device,
            )
        };
        if wdk::nt_success(status) { Ok(Self { device }) } else { Err(NtStatus(status)) }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: created by us, deleted once (rule: IoDeleteDevice).
        unsafe { IoDeleteDevice(self.device) };
    }
}

// SAFETY: a device object may be deleted from any thread.
unsafe impl Send for Device {}

/// IRP_MJ_CREATE: drivers only. A program has the port, where it is checked who it is.
unsafe extern "efiapi" fn create(_device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    // SAFETY: the I/O manager's IRP is ours until it is completed.
    let mode = unsafe { (*irp).RequestorMode };
    let status = if mode == KERNEL_MODE { NtStatus::SUCCESS } else { NtStatus::ACCESS_DENIED };
    // SAFETY: as above; nothing touches it afterwards.
    unsafe { complete(irp, status, 0) }
}

/// IRP_MJ_CLEANUP and IRP_MJ_CLOSE: a file object has no state of its own.
unsafe extern "efiapi" fn succeed(_device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    // SAFETY: the I/O manager's IRP is ours until it is completed; nothing touches it afterwards.
    unsafe { complete(irp, NtStatus::SUCCESS, 0) }
}

/// IRP_MJ_INTERNAL_DEVICE_CONTROL: only other drivers can send it.
unsafe extern "efiapi" fn internal_control(_device: *mut DEVICE_OBJECT, irp: *mut IRP) -> NtStatus {
    // SAFETY: the I/O manager's IRP is ours until it is completed.
    let (status, information) = match unsafe { query::interface(irp) } {
        Ok(bytes) => (NtStatus::SUCCESS, bytes),
        Err(status) => (status, 0),
    };
    // SAFETY: as above; nothing touches it afterwards.
    unsafe { complete(irp, status, information) }
}

/// Completes a request (`IofCompleteRequest`) and returns its status.
///
/// # Safety
/// The IRP is ours, and is not touched afterwards.
unsafe fn complete(irp: *mut IRP, status: NtStatus, information: usize) -> NtStatus {
    // SAFETY: the caller owns the IRP.
    unsafe { (*irp).IoStatus = IO_STATUS_BLOCK::new(status, information) };
    // SAFETY: as above; the layouts of the two crates agree (`layout`).
    unsafe { IofCompleteRequest(irp.cast(), IO_NO_INCREMENT) };
    status
}
