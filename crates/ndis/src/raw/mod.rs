//! `ndis.h` as data: structures, constants and function types, for 64-bit Windows.
//!
//! Offsets and sizes are asserted against numbers taken from the header's public symbols; a structure's `Header.Size` is
//! **not** its `size_of` where NDIS counts through the last field of a revision and leaves out the padding.

mod attributes;
mod configuration;
mod event;
mod file;
mod filter;
#[cfg(windows)]
mod imports;
mod miniport;
mod net_buffer;
mod net_buffer_list;
mod object;
mod oid;
mod processor;
mod protocol;
mod timer;

pub use attributes::*;
pub use configuration::*;
pub use event::*;
pub use file::*;
pub use filter::*;
#[cfg(windows)]
pub use imports::*;
pub use miniport::*;
pub use net_buffer::*;
pub use net_buffer_list::*;
pub use object::*;
pub use oid::*;
pub use processor::*;
pub use protocol::*;
pub use timer::*;

/// `NDIS_HANDLE`: an opaque value that NDIS, or the driver, gave meaning to.
pub type NDIS_HANDLE = *mut core::ffi::c_void;
