//! Firmware images for NIC drivers: open by name, map, use, drop.
//!
//! A driver built with this crate gets its firmware from the broker (`fwbroker.sys`) at any time and on every architecture.
//! [`interface`] is the contract between the two; C drivers find the same in `include/fwbroker.h`.

#![no_std]
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

#[expect(
    non_camel_case_types,
    non_snake_case,
    reason = "C drivers read the same names in fwbroker.h, in the spelling of the Windows headers"
)]
pub mod interface;
