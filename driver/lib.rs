//! `fwbroker.sys`: a file-system minifilter that brokers firmware images.
//!
//! This package is glue. What is decided (which names are acceptable, who may use which handle, what is staged) is
//! decided in `crates/broker`; what is here calls the system and keeps the system's rules:
//!
//! | module | what it holds |
//! |---|---|
//! | `start`, `unload` | DriverEntry's order of things, and its reverse |
//! | `state` | the one global, and how long it lives |
//! | `settings` | the `Parameters` key |
//! | `entry` | what handles stand for, and closing it |
//! | `instance` | attaching to volumes and leaving them |
//! | `port` | requests of clients |
//! | `nic` | `\Device\FwBroker` and the function table of NIC drivers |
//! | `report` | what is open, for the debugger |
//! | `files` | opening and reading firmware files |
//! | `kernel` | services of ntoskrnl, each behind a type |
//!
//! No panic is reachable: the release link proves it, since it must not import KeBugCheckEx.

#![no_std]
#![expect(unsafe_code, reason = "calls the kernel, and is called by it")]
#![allow(clippy::doc_markdown, reason = "prose is full of DDI names; each of them in backticks reads worse")]
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::arithmetic_side_effects
)]

extern crate alloc;
// Brings the panic handler of last resort.
extern crate wdk_panic;

mod entry;
mod files;
mod instance;
mod kernel;
mod layout;
mod nic;
mod port;
mod report;
mod settings;
mod start;
mod state;
mod unload;

/// Non-paged pool for everything, tagged; it aligns to 16 bytes and no more.
#[global_allocator]
static ALLOCATOR: wdk_alloc::WdkAllocator = wdk_alloc::WdkAllocator;
