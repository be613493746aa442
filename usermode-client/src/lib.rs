//! Client of fwbroker, as a library and as the program `fwbctl`. One code base for Windows and Linux.
//!
//! - [`Client`] is one session with the driver, with a typed method for each kind of request.
//! - [`FilterLibrary`] and [`Port`] are the few calls it needs of the system. On Windows they are `fltlib.dll`'s,
//!   on Linux they go to a kernel-host process; [`system_library`] gives the one that fits.
//! - [`publish`] puts verified bytes where `NdisOpenFile` looks, all or nothing.
//! - [`cli`] is the program: arguments, tables, exit codes.
//!
//! ```no_run
//! # fn main() -> Result<(), fwbctl::Error> {
//! let mut library = fwbctl::system_library(None)?;
//! let mut client = fwbctl::Client::connect(library.as_mut())?;
//! let file = client.open(&fwbctl::NtPath::from_user(r"C:\Firmware\nic.rom")?)?;
//! println!("{} bytes", file.size);
//! client.close(file.handle)?;
//! # Ok(())
//! # }
//! ```
//!
//! # JSON
#![doc = include_str!("../JSON.md")]
#![cfg_attr(not(windows), forbid(unsafe_code))]

pub mod cli;
mod client;
mod digest;
mod error;
mod filter_library;
#[cfg(windows)]
mod fltlib;
mod inventory;
mod nt_path;
pub mod publish;
#[cfg(unix)]
mod socket;

pub use client::{Client, Image};
pub use digest::{Hasher, Sha256Digest};
pub use error::{Error, ErrorReport};
pub use filter_library::{FilterLibrary, HResult, LibraryError, Port};
pub use inventory::{HeldHandle, SessionInfo, SessionRole};
pub use nt_path::NtPath;

use std::path::Path;

/// The system's own way to the Filter Manager: `fltlib.dll` on Windows, kernel-host's socket on Linux.
///
/// `socket` is the path of that socket; without one the environment variable `FWBROKER_SOCKET` has it. Windows needs neither.
pub fn system_library(socket: Option<&Path>) -> Result<Box<dyn FilterLibrary>, Error> {
    #[cfg(windows)]
    {
        let _ = socket;
        Ok(Box::new(fltlib::Fltlib))
    }
    #[cfg(unix)]
    {
        Ok(Box::new(socket::SocketLibrary::connect(socket)?))
    }
}
