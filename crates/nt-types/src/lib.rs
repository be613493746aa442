//! NT base types shared by Windows kernel drivers and by the Linux program that runs them.
//!
//! Everything here is data: type layouts, constants and status codes, spelled as the Windows
//! headers spell them, because that spelling is what the DDI pages, debuggers and other drivers
//! use. Nothing in this crate calls the operating system, so it compiles for every target.
//!
//! Layouts are those of 64-bit Windows. Each is asserted at compile time, field by field
//! ([`assert_layout!`]): a driver built against one header and a host built against another
//! would otherwise disagree silently. Structures that the kernel owns (`DRIVER_OBJECT`, `IRP`, ...) are
//! declared with all their bytes, since the host has to allocate them.
//!
//! Function pointers use `extern "efiapi"`: the Microsoft x64 convention on every x86-64 target,
//! and the platform's C convention elsewhere. On `x86_64-pc-windows-msvc` it equals `extern "C"`.

#![no_std]
#![expect(
    non_camel_case_types,
    non_snake_case,
    reason = "types and fields keep the spelling of the Windows headers, by which they are looked up"
)]
#![allow(clippy::doc_markdown, reason = "prose is full of DDI names; each of them in backticks reads worse")]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::arithmetic_side_effects
    )
)]

mod layout;

mod device;
mod driver;
mod file;
mod file_information;
mod file_object;
mod interface;
mod irp;
mod irql;
mod mm;
mod object;
mod registry;
mod status;
mod string;
mod sync;

pub use device::*;
pub use driver::*;
pub use file::*;
pub use file_information::*;
pub use file_object::*;
pub use interface::*;
pub use irp::*;
pub use irql::*;
pub use mm::*;
pub use object::*;
pub use registry::*;
pub use status::NtStatus;
pub use string::*;
pub use sync::*;

/// Untyped pointer. What it points at, and who may touch it, is said where it is used.
pub type PVOID = *mut core::ffi::c_void;

/// Object handle: an index into a process's (or the kernel's) handle table, not an address.
pub type HANDLE = *mut core::ffi::c_void;

/// `LARGE_INTEGER`: in every use of this crate the signed 64-bit value.
pub type LARGE_INTEGER = i64;

/// One-byte truth value; any non-zero value is true.
pub type BOOLEAN = u8;

/// `KPROCESSOR_MODE`: [`KERNEL_MODE`] or [`USER_MODE`].
pub type KPROCESSOR_MODE = i8;

/// The request comes from the kernel; parameters are trusted.
pub const KERNEL_MODE: KPROCESSOR_MODE = 0;

/// The request comes from user mode; parameters must be probed and captured.
pub const USER_MODE: KPROCESSOR_MODE = 1;

/// A kernel object that only ever appears behind a pointer (`PEPROCESS`, `PETHREAD`, ...).
#[repr(C)]
#[derive(Debug)]
pub struct Opaque {
    _private: [u8; 0],
}
