//! NDIS 6 for drivers in Rust: declarations that match `ndis.h`, and safe wrappers for miniports.
//!
//! - [`raw`] is data: structures, constants and function types, each layout asserted at compile time. It compiles for every
//!   target, because the Linux program that plays the part of `ndis.sys` uses the same declarations.
//! - The wrappers (`file`, `configuration`, `memory`,
//!   `miniport`, `error_log`) call `ndis.sys` and exist in Windows builds only.
//!
//! What is here is the miniport's control side: registration, attributes, configuration, OID requests, and the file DDIs.
//! Sends are answered with a failure (`miniport` says how); the data path is not wrapped.
//!
//! NDIS statuses are [`NdisStatus`], a type of its own: NDIS has statuses that look like success to `NT_SUCCESS` and are not,
//! and two families of numbers under the same names.

#![no_std]
#![expect(
    unsafe_code,
    reason = "declares and calls the imports of ndis.sys; every wrapper is the one place of its unsafe call"
)]
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
pub mod configuration;
#[cfg(windows)]
pub mod error_log;
#[cfg(windows)]
pub mod file;
#[cfg(windows)]
pub mod memory;
#[cfg(windows)]
pub mod miniport;
pub mod oid;
#[expect(
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    reason = "types, fields and constants keep the spelling of ndis.h, by which they are looked up"
)]
pub mod raw;
mod status;

pub use status::NdisStatus;
