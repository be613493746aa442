//! Serves a machine on a Unix socket: Linux programs reach its drivers through it, as Windows programs do through fltlib.
//!
//! One connection is one simulated process, served by one thread. When the connection ends, the process ends: its handles
//! are closed and the drivers see their disconnects, as when a process dies on Windows.
#![allow(
    clippy::doc_markdown,
    reason = "prose is full of names of functions, statuses and callbacks; each in backticks reads worse"
)]

mod describe;
mod session;

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::machine::Machine;
use crate::ndis::adapter::Adapter;
use session::Session;

/// What the connections share.
#[derive(Debug)]
struct Server {
    machine: Machine,
    path: PathBuf,
    stopping: AtomicBool,
    next_connection: AtomicU64,
    /// Streams of connections, to end their waits.
    streams: Mutex<HashMap<u64, UnixStream>>,
    /// Adapters that clients plugged in, by name.
    adapters: Mutex<HashMap<String, Adapter>>,
}

/// Serves clients until one of them asks for the machine's end.
///
/// The socket is the owner's alone (mode 0600), and is gone when this returns; so are the simulated processes, and the adapters that clients
/// plugged in. Drivers stay loaded: unloading them is the caller's.
///
/// # Errors
/// The host's, when `path` cannot be listened at; `AddrInUse` when somebody else does.
pub fn serve(machine: &Machine, path: &Path) -> io::Result<()> {
    let listener = fltlib_socket::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let server = Server {
        machine: machine.clone(),
        path: path.to_owned(),
        stopping: AtomicBool::new(false),
        next_connection: AtomicU64::new(0),
        streams: Mutex::default(),
        adapters: Mutex::default(),
    };
    let accepted = std::thread::scope(|scope| {
        let result = loop {
            match listener.accept() {
                Ok(_) if server.stopping.load(Ordering::Acquire) => break Ok(()),
                Ok((stream, _)) => {
                    scope.spawn(|| server.serve_one(stream));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => break Err(error),
            }
        };
        server.end_connections();
        result
    });
    server.unplug_all();
    let removed = std::fs::remove_file(path);
    accepted.and(removed)
}

impl Server {
    fn serve_one(&self, stream: UnixStream) {
        let number = self.next_connection.fetch_add(1, Ordering::Relaxed);
        if let Ok(second) = stream.try_clone() {
            self.streams().insert(number, second);
            // A connection that came in while the others were being ended ends too.
            if self.stopping.load(Ordering::Acquire) {
                self.end_connections();
            }
            // A client that breaks off, or speaks nonsense, is its own problem: its process ends either way.
            let _broken = Session::serve(self, stream);
        }
        self.streams().remove(&number);
    }

    /// Ends the server: wakes the loop that accepts. Connections end when their present request is answered.
    fn stop(&self) {
        self.stopping.store(true, Ordering::Release);
        // The loop is woken by a connection; when it is gone already, there is nothing to wake.
        let _woken = UnixStream::connect(&self.path);
    }

    fn end_connections(&self) {
        for stream in self.streams().values() {
            // Only the reading half: a reply that is on its way still arrives.
            let _ended = stream.shutdown(std::net::Shutdown::Read);
        }
    }

    fn unplug_all(&self) {
        for (_, adapter) in self.adapters().drain() {
            // A finding is the machine's to report.
            let _removed = adapter.remove();
        }
    }

    fn adapters(&self) -> MutexGuard<'_, HashMap<String, Adapter>> {
        self.adapters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn streams(&self) -> MutexGuard<'_, HashMap<u64, UnixStream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
