//! fltlib's calls on Linux: they go to a kernel-host process over its socket.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fltlib_socket::{Connection, SOCKET_VARIABLE, Sent, WireError};

use crate::error::FltlibCall;
use crate::{Error, FilterLibrary, HResult, LibraryError, Port};

/// Longest a call may take. Staging has its own, shorter deadlines; this one is for a host that hangs.
const CALL_TIMEOUT: Duration = Duration::from_mins(5);

/// A simulated process inside kernel-host. Its ports share its connection, as handles share a process.
pub(crate) struct SocketLibrary {
    connection: Arc<Mutex<Connection>>,
}

struct SocketPort {
    connection: Arc<Mutex<Connection>>,
    handle: u64,
}

impl SocketLibrary {
    /// Connects to the socket at `path`, or at the one that the environment names.
    pub(crate) fn connect(path: Option<&Path>) -> Result<Self, Error> {
        let from_environment = std::env::var_os(SOCKET_VARIABLE).map(PathBuf::from);
        let Some(path) = path.map(Path::to_path_buf).or(from_environment) else {
            return Err(Error::Usage {
                message: "no socket of a kernel-host is given".into(),
                next: format!("give --socket PATH, or set {SOCKET_VARIABLE}"),
            });
        };
        let connection =
            Connection::connect(&path, "fwbctl.exe", true, CALL_TIMEOUT).map_err(|error| no_host(&path, &error))?;
        Ok(Self { connection: Arc::new(Mutex::new(connection)) })
    }
}

impl FilterLibrary for SocketLibrary {
    fn load(&mut self, service: &str) -> Result<(), LibraryError> {
        outcome(lock(&self.connection).filter_load(service))
    }

    fn unload(&mut self, service: &str) -> Result<(), LibraryError> {
        outcome(lock(&self.connection).filter_unload(service))
    }

    fn connect(&mut self, port_name: &str) -> Result<Box<dyn Port>, LibraryError> {
        let handle = outcome(lock(&self.connection).filter_connect_communication_port(port_name, 0, &[]))?;
        Ok(Box::new(SocketPort { connection: Arc::clone(&self.connection), handle }))
    }

    fn drivers_folder(&mut self) -> Result<PathBuf, LibraryError> {
        outcome(lock(&self.connection).target()).map(|target| target.drivers)
    }
}

impl Port for SocketPort {
    fn send_message(&mut self, input: &[u8], out_length: u32) -> Result<Vec<u8>, LibraryError> {
        outcome(lock(&self.connection).filter_send_message(self.handle, input, out_length))
    }
}

impl Drop for SocketPort {
    fn drop(&mut self) {
        // Where this fails the connection is gone, and the host closes the port with it.
        let _ = lock(&self.connection).close_handle(self.handle);
    }
}

/// A panic elsewhere does not make the connection unusable: it notices half-made calls itself.
fn lock(connection: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

fn outcome<T>(result: Result<Sent<T>, WireError>) -> Result<T, LibraryError> {
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err((hresult, text))) => Err(LibraryError::Failed { hresult: HResult(hresult.0), text }),
        Err(error) => Err(LibraryError::Unreachable {
            message: format!("kernel-host does not answer: {error}"),
            next: "see what kernel-host printed, and start it again".into(),
        }),
    }
}

fn no_host(path: &Path, error: &WireError) -> Error {
    let error = LibraryError::Unreachable {
        message: format!("no kernel-host answers at {}: {error}", path.display()),
        next: format!("start `kernel-host run --socket {} ...`, or correct the path", path.display()),
    };
    Error::Call { action: "reach the machine".into(), call: FltlibCall::Connect, error }
}
