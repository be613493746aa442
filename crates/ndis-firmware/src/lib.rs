//! Firmware images for NIC drivers: open by name, map, use, drop.
//!
//! A driver built with this crate gets its firmware from the broker (`fwbroker.sys`), at any time and on every architecture:
//!
//! ```ignore
//! let broker = Broker::connect(utf16!("mynic"))?;            // PASSIVE_LEVEL
//! let file = broker.table().open(utf16!("mynic.bin"), ANY_ADDRESS)?; // PASSIVE_LEVEL
//! {
//!     let image = file.map()?;                               // up to DISPATCH_LEVEL, and so on
//!     device.load(&image);
//! }                                                          // unmapped
//! drop(file);                                                // closed
//! ```
//!
//! [`interface`] is the contract with the broker; C drivers find the same in `include/fwbroker.h`. With the feature `ndis`,
//! `source` falls back to `NdisOpenFile` where the broker is not loaded.

#![no_std]
#![expect(unsafe_code, reason = "calls through the broker's function table and into ntoskrnl")]
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

#[cfg(windows)]
mod broker;
mod file;
#[expect(
    non_camel_case_types,
    non_snake_case,
    reason = "C drivers read the same names in fwbroker.h, in the spelling of the Windows headers"
)]
pub mod interface;
#[cfg(all(windows, feature = "ndis"))]
pub mod source;
mod table;

#[cfg(windows)]
pub use broker::Broker;
pub use file::{FirmwareFile, Mapping};
pub use table::Table;
