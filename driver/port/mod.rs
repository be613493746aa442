//! The communication ports: where clients connect, send requests and get replies.
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

/// How many clients can be connected to each port at a time; FltMgr refuses the next with STATUS_CONNECTION_COUNT_LIMIT.
const PER_PORT: u8 = 64;

/// How many clients there can be in all.
pub(crate) const MAX_CONNECTIONS: u8 = 2 * PER_PORT;

/// Creates the port of administrators: they and the system may connect, nobody else.
///
/// A port for each role, rather than one on which roles are told apart: who may connect to which is decided by FltMgr, from the
/// token and the port's descriptor, when the client connects. And users cannot take up the administrators' connections.
pub(crate) fn create(filter: FilterRef, passive: Passive) -> Result<ServerPort, NtStatus> {
    let descriptor = SecurityDescriptor::administrators_only(FLT_PORT_ALL_ACCESS)?;
    create_for(filter, utf16!(protocol::PORT_NAME), &descriptor, connection::connect_administrator, passive)
}

/// Creates the port of everybody else: whoever has logged on may connect, and gets the rights of [`broker::Role::User`].
pub(crate) fn create_for_users(filter: FilterRef, passive: Passive) -> Result<ServerPort, NtStatus> {
    let descriptor = SecurityDescriptor::authenticated_users();
    create_for(filter, utf16!(protocol::USER_PORT_NAME), &descriptor, connection::connect_user, passive)
}

fn create_for(
    filter: FilterRef,
    name: &[u16],
    descriptor: &SecurityDescriptor,
    connect: connection::Connect,
    passive: Passive,
) -> Result<ServerPort, NtStatus> {
    let callbacks = PortCallbacks {
        connect: Some(connect),
        disconnect: Some(connection::disconnect),
        message: Some(message::message),
    };
    // SAFETY: functions of this image, which stays until the filter is unregistered.
    unsafe { ServerPort::create(filter, name, descriptor, callbacks, i32::from(PER_PORT), passive) }
}
