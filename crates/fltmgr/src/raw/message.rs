//! Communication ports.

use super::PFLT_PORT;
use nt_types::{NtStatus, PVOID, assert_layout};

/// `FILTER_MESSAGE_HEADER`: what user mode receives before a message of the kernel's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FILTER_MESSAGE_HEADER {
    /// Bytes expected in reply, the reply header included; 0 for no reply.
    pub ReplyLength: u32,
    /// Goes back in the reply.
    pub MessageId: u64,
}

assert_layout!(FILTER_MESSAGE_HEADER, 16, { ReplyLength: 0, MessageId: 8 });

/// `FILTER_REPLY_HEADER`: what user mode sends before its reply.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FILTER_REPLY_HEADER {
    /// Given to the kernel's sender.
    pub Status: NtStatus,
    /// From the message.
    pub MessageId: u64,
}

assert_layout!(FILTER_REPLY_HEADER, 16, { Status: 0, MessageId: 8 });

/// Right to connect to a port.
pub const FLT_PORT_CONNECT: u32 = 0x0001;
/// All rights on a port.
pub const FLT_PORT_ALL_ACCESS: u32 = 0x001F_0001;

/// `PFLT_CONNECT_NOTIFY`, PASSIVE_LEVEL in the connecting process.
/// Page: `nc-fltkernel-pflt_connect_notify`.
///
/// An error refuses the connection, and PFLT_DISCONNECT_NOTIFY is then not called for it.
pub type PFLT_CONNECT_NOTIFY = Option<
    unsafe extern "efiapi" fn(
        ClientPort: PFLT_PORT,
        ServerPortCookie: PVOID,
        ConnectionContext: PVOID,
        SizeOfContext: u32,
        ConnectionPortCookie: *mut PVOID,
    ) -> NtStatus,
>;

/// `PFLT_DISCONNECT_NOTIFY`, PASSIVE_LEVEL. Calls FltCloseClientPort, exactly once.
///
/// A PFLT_MESSAGE_NOTIFY of the same connection can still be running in another thread.
pub type PFLT_DISCONNECT_NOTIFY = Option<unsafe extern "efiapi" fn(ConnectionCookie: PVOID)>;

/// `PFLT_MESSAGE_NOTIFY`, PASSIVE_LEVEL in the sending process.
/// Page: `nc-fltkernel-pflt_message_notify`.
///
/// Both buffers are raw user memory: not locked, not captured, of any alignment, either possibly
/// NULL, possibly overlapping, and free to change or vanish between any two accesses.
pub type PFLT_MESSAGE_NOTIFY = Option<
    unsafe extern "efiapi" fn(
        PortCookie: PVOID,
        InputBuffer: PVOID,
        InputBufferLength: u32,
        OutputBuffer: PVOID,
        OutputBufferLength: u32,
        ReturnOutputBufferLength: *mut u32,
    ) -> NtStatus,
>;
