//! NIC drivers: `\Device\FwBroker`, and the functions they get from it.
//!
//! The protocol is that of `ndis_firmware::interface`. A driver fetches a function table once, through an internal
//! control request; after that it calls straight into `functions`, at any IRQL that the interface allows.

mod consumer;
mod device;
mod functions;
mod image;
mod query;

pub(crate) use consumer::{Consumer, MAX_CONSUMERS};
pub(crate) use device::Device;
