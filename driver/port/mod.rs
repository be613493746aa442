//! The communication port: where clients connect, send requests and get replies.
//!
//! All three callbacks run at PASSIVE_LEVEL, on threads of the clients, as many at a time as the clients have.

mod connection;
mod failure;
mod inventory;
mod message;
mod requests;
mod staging;

pub(crate) use connection::Connection;
pub(crate) use staging::CHUNK_BYTES;

use fltmgr::raw::FLT_PORT_ALL_ACCESS;
use fltmgr::{FilterRef, Passive, PortCallbacks, SecurityDescriptor, ServerPort};
use nt_types::{NtStatus, utf16};

/// How many clients can be connected at a time; FltMgr refuses the next with STATUS_CONNECTION_COUNT_LIMIT.
pub(crate) const MAX_CONNECTIONS: u8 = 64;

/// Creates the port: administrators and the system may connect, nobody else.
pub(crate) fn create(filter: FilterRef, passive: Passive) -> Result<ServerPort, NtStatus> {
    let descriptor = SecurityDescriptor::administrators_only(FLT_PORT_ALL_ACCESS)?;
    let callbacks = PortCallbacks {
        connect: Some(connection::connect),
        disconnect: Some(connection::disconnect),
        message: Some(message::message),
    };
    let name = utf16!(protocol::PORT_NAME);
    // SAFETY: functions of this image, which stays until the filter is unregistered.
    unsafe { ServerPort::create(filter, name, &descriptor, callbacks, i32::from(MAX_CONNECTIONS), passive) }
}
