//! A small NDIS 6 miniport whose NIC cannot work before its firmware is loaded.
//!
//! The NIC is simulated ([`device`]): it takes an image in bursts and boots from it. Everything around it is what a driver for
//! a real one does, and in the order in which it does it: read the image's name from the registry, open the image through the broker,
//! check it, feed it to the device, see the device run, give the image back ([`firmware`]).

#![no_std]
#![expect(unsafe_code, reason = "exports DriverEntry, and prints through DbgPrint")]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

extern crate alloc;
extern crate wdk_panic;

mod adapter;
mod device;
mod failure;
mod firmware;
mod image;
mod oid;

use ndis::miniport::MiniportDriver;
use nt_types::{DRIVER_OBJECT, NtStatus, UNICODE_STRING};
use wdk_alloc::WdkAllocator;

use crate::adapter::Nic;

#[global_allocator]
static ALLOCATOR: WdkAllocator = WdkAllocator;

/// The registration with NDIS.
static DRIVER: MiniportDriver = MiniportDriver::new();

/// Entry point. `PASSIVE_LEVEL`.
///
/// # Safety
/// Called by the I/O manager, once, with the arguments it documents.
#[unsafe(export_name = "DriverEntry")]
pub unsafe extern "system" fn driver_entry(
    driver: *mut DRIVER_OBJECT,
    registry_path: *const UNICODE_STRING,
) -> NtStatus {
    // SAFETY: these are the arguments of DriverEntry, which runs.
    match unsafe { DRIVER.register::<Nic>(driver, registry_path) } {
        Ok(()) => NtStatus::SUCCESS,
        // NDIS statuses of error severity are valid as NTSTATUS.
        Err(status) => NtStatus(status.0),
    }
}
