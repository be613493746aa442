//! Communication ports: the server's, and the kernel's end of each connection.

use crate::irql::after_call;
use crate::raw::{
    FltCloseClientPort, FltCloseCommunicationPort, FltCreateCommunicationPort, PFLT_CONNECT_NOTIFY,
    PFLT_DISCONNECT_NOTIFY, PFLT_MESSAGE_NOTIFY, PFLT_PORT,
};
use crate::{FilterRef, Passive, SecurityDescriptor};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use nt_types::{NtStatus, OBJECT_ATTRIBUTES, ObjectFlags, UNICODE_STRING};

/// A port that clients connect to. Closed on drop, at PASSIVE_LEVEL.
///
/// Closing stops new connections only. It has to happen **before** the filter is unregistered:
/// an unload with an open server port never ends.
#[derive(Debug)]
pub struct ServerPort {
    port: PFLT_PORT,
}

/// What FltMgr calls for a port, all at PASSIVE_LEVEL and all in parallel.
#[derive(Clone, Copy, Debug)]
pub struct PortCallbacks {
    /// A client connects.
    pub connect: PFLT_CONNECT_NOTIFY,
    /// A client is gone.
    pub disconnect: PFLT_DISCONNECT_NOTIFY,
    /// A client sends.
    pub message: PFLT_MESSAGE_NOTIFY,
}

impl ServerPort {
    /// Creates the port (`FltCreateCommunicationPort`) for up to `connections` clients at a time.
    ///
    /// Clients can connect before this returns.
    ///
    /// # Errors
    /// STATUS_OBJECT_NAME_COLLISION (another filter has the name), STATUS_INSUFFICIENT_RESOURCES,
    /// STATUS_FLT_DELETING_OBJECT, STATUS_NAME_TOO_LONG.
    ///
    /// # Safety
    /// The callbacks stay in memory, and work, until the filter is unregistered.
    pub unsafe fn create(
        filter: FilterRef,
        name: &[u16],
        descriptor: &SecurityDescriptor,
        callbacks: PortCallbacks,
        connections: i32,
        _passive: Passive,
    ) -> Result<Self, NtStatus> {
        let name = UNICODE_STRING::from_utf16(name).ok_or(NtStatus::NAME_TOO_LONG)?;
        // FltMgr demands a kernel handle. Case-insensitive, as names of the object manager are
        // everywhere else.
        let flags = ObjectFlags::KERNEL_HANDLE | ObjectFlags::CASE_INSENSITIVE;
        let mut attributes = OBJECT_ATTRIBUTES {
            SecurityDescriptor: descriptor.as_ptr(),
            ..OBJECT_ATTRIBUTES::new(&raw const name, flags)
        };
        let mut port = ptr::null_mut();
        // SAFETY: name, descriptor and cells outlive the call, which copies them; the caller
        // vouches for the callbacks (rule: nf-fltkernel-fltcreatecommunicationport).
        let status = after_call(unsafe {
            FltCreateCommunicationPort(
                filter.as_ptr(),
                &raw mut port,
                &raw mut attributes,
                ptr::null_mut(),
                callbacks.connect,
                callbacks.disconnect,
                callbacks.message,
                connections,
            )
        });
        status.ok()?;
        Ok(Self { port })
    }
}

impl Drop for ServerPort {
    fn drop(&mut self) {
        // SAFETY: created once, closed only here (rule: ServerPort owns it).
        unsafe { FltCloseCommunicationPort(self.port) };
        after_call(0_u8);
    }
}

// SAFETY: FltMgr's functions take the port from any thread (rule: opaque object).
unsafe impl Send for ServerPort {}
// SAFETY: as above.
unsafe impl Sync for ServerPort {}

/// The kernel's end of one connection, in the one memory cell that FltMgr synchronises on.
///
/// FltCloseClientPort writes NULL through the cell's address, in step with FltSendMessage on the
/// same address. A copy of the pointer in another variable would escape that, so the cell is
/// never copied, and the object around it must not move once FltMgr has seen it. Objects behind a
/// reference-counted pointer do not move.
#[derive(Debug)]
pub struct ClientPort {
    cell: AtomicPtr<crate::raw::FLT_PORT>,
    closed: AtomicBool,
}

impl ClientPort {
    /// Takes over the port that PFLT_CONNECT_NOTIFY was given.
    ///
    /// The owner owes it one [`close`](Self::close), in PFLT_DISCONNECT_NOTIFY; a refused
    /// connection must not be closed.
    #[must_use]
    pub const fn new(port: PFLT_PORT) -> Self {
        Self { cell: AtomicPtr::new(port), closed: AtomicBool::new(false) }
    }

    /// Closes the connection (`FltCloseClientPort`); only the first call does anything.
    pub fn close(&self, filter: FilterRef, _passive: Passive) {
        if self.closed.swap(true, Ordering::AcqRel) {
            return;
        }
        // SAFETY: the cell holds the port of the connection, is stable memory, and `closed` lets
        // one caller through (rule: nf-fltkernel-fltcloseclientport).
        unsafe { FltCloseClientPort(filter.as_ptr(), self.cell.as_ptr()) };
        after_call(0_u8);
    }
}
