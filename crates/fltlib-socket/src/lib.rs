//! `fltlib`'s calls over a Unix socket: how Linux programs reach drivers that run in kernel-host.
//!
//! On Windows a program calls `FilterConnectCommunicationPort` and `FilterSendMessage` in `fltlib.dll`, which ends in a
//! system call. Here the same calls travel to the kernel-host process, which makes them in the name of a
//! simulated process. **One connection is one process**: when it ends, however it ends, its ports are closed and its
//! handles cleaned up, as NT does for a process that dies.
//!
//! # Wire
//! A frame is a 24-byte little-endian header ([`frame::FrameHeader`]), then JSON, then raw bytes:
//!
//! ```text
//!  0 u32 magic        0x4C544C46, "FLTL"
//!  4 u16 version      1
//!  6 u16 kind         1 request, 2 reply
//!  8 u64 id           chosen by the client, comes back in the reply
//! 16 u32 json_bytes   at most 16 MiB
//! 20 u32 data_bytes   at most 16 MiB
//! 24 ...  JSON        a Call, or a Reply
//!    ...  data        context or message bytes, never encoded
//! ```
//! The client sends a request and waits for its reply before the next. The first request is
//! [`Call::Hello`]; it names the program. Whether it counts as an administrator is the server's decision, by the
//! credentials that the kernel keeps of the socket's peer.
//!
//! Results are HRESULTs, just as `fltlib.dll` makes them of the driver's NTSTATUS ([`HResult::from_status`]), so that a
//! client needs one error path for both systems.
//!
//! # Two sides
//! [`Connection`] is the client. [`ServerConnection`] is what kernel-host serves: it does framing and
//! hello, and hands out one [`Incoming`] request after the other.
#![cfg(unix)]
#![forbid(unsafe_code)]

mod call;
mod client;
pub mod frame;
mod hresult;
mod server;
mod status;

pub use call::{Answer, Call, Parameter, Reply};
pub use client::{Connection, Sent};
pub use frame::WireError;
pub use hresult::HResult;
pub use server::{Incoming, ServerConnection, bind};
pub use status::{
    AdapterStatus, DriverStatus, FilterStatus, MachineStatus, PortStatus, Target, TraceEntry, UnloadReport,
};

/// Environment variable that holds the path of the socket.
pub const SOCKET_VARIABLE: &str = "FWBROKER_SOCKET";
