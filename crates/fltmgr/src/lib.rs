//! The Windows Filter Manager for minifilters written in Rust.
//!
//! Two layers. [`raw`] declares FltMgr's structures, constants and functions as `fltkernel.h`
//! does, with every layout asserted: windows-sys' FltMgr unions have wrong offsets on x64, and
//! wdk-sys has no FltMgr at all. The modules above it are owners: each takes one of FltMgr's
//! obligations (unregister, dereference, close, free) and fulfils it exactly once.
//!
//! What calls FltMgr exists on Windows targets only; `raw` without its functions compiles
//! everywhere, so that a host program can implement the other side of the same declarations.
//!
//! Functions that need PASSIVE_LEVEL take a `Passive`, a zero-sized proof that costs nothing
//! to pass and cannot be made by accident.

#![no_std]
#![expect(unsafe_code, reason = "declares foreign functions, and wraps them where ownership makes that sound")]
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

pub mod raw;

#[cfg(windows)]
mod file;
#[cfg(windows)]
mod file_name;
#[cfg(windows)]
mod filter;
#[cfg(windows)]
mod irql;
#[cfg(windows)]
mod object;
#[cfg(windows)]
mod port;
#[cfg(windows)]
mod security;
#[cfg(windows)]
mod work_item;

#[cfg(windows)]
pub use file::{FileInformation, OpenFile, OpenParameters, Opened};
#[cfg(windows)]
pub use file_name::FileName;
#[cfg(windows)]
pub use filter::{Filter, FilterRef};
#[cfg(windows)]
pub use irql::{Passive, current_irql};
#[cfg(windows)]
pub use object::{Instance, Volume};
#[cfg(windows)]
pub use port::{ClientPort, PortCallbacks, ServerPort};
#[cfg(windows)]
pub use security::SecurityDescriptor;
#[cfg(windows)]
pub use work_item::GenericWorkItem;
