//! The server, as programs see it.

use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fltlib_socket::{Connection, HResult};

use crate::machine::Machine;

/// A machine that is served, and the folder of its socket.
struct Served {
    machine: Machine,
    folder: tempfile::TempDir,
    server: JoinHandle<std::io::Result<()>>,
}

impl Served {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let machine = Machine::builder().volume("C:", folder.path()).build().unwrap();
        let path = folder.path().join("socket");
        let server = {
            let machine = machine.clone();
            std::thread::spawn(move || super::serve(&machine, &path))
        };
        let served = Self { machine, folder, server };
        let deadline = Instant::now() + Duration::from_secs(10);
        // The socket is in the folder a moment before somebody listens at it.
        while UnixStream::connect(served.path()).is_err() {
            assert!(Instant::now() < deadline, "the server does not listen");
            std::thread::yield_now();
        }
        served
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    fn connect(&self, administrator: bool) -> Connection {
        let stream = UnixStream::connect(self.path()).unwrap();
        Connection::over(stream, "client.exe", administrator).unwrap()
    }

    fn stop(self) {
        let mut client = self.connect(true);
        client.shutdown().unwrap().unwrap();
        self.server.join().unwrap().unwrap();
        assert!(!self.folder.path().join("socket").exists());
    }
}

/// Waits until the machine has `count` processes that clients run.
fn wait_for_processes(machine: &Machine, count: usize) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while machine.inner().nt.objects().count("Process") != count {
        assert!(Instant::now() < deadline, "{} processes", machine.inner().nt.objects().count("Process"));
        std::thread::yield_now();
    }
}

#[test]
fn the_socket_is_the_owner_s_alone_and_gone_at_the_end() {
    let served = Served::start();
    drop(served.connect(true));
    let mode = std::fs::metadata(served.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    served.stop();
}

#[test]
fn each_connection_is_a_process_that_ends_with_it() {
    let served = Served::start();
    let (first, second) = (served.connect(true), served.connect(false));
    assert_ne!(first.process_id(), second.process_id());
    assert!(first.administrator() && !second.administrator());
    wait_for_processes(&served.machine, 2);
    drop(first);
    wait_for_processes(&served.machine, 1);
    drop(second);
    wait_for_processes(&served.machine, 0);
    served.stop();
}

#[test]
fn loading_needs_an_administrator_s_token() {
    let served = Served::start();
    let mut user = served.connect(false);
    let refused = user.filter_load("Nobody").unwrap().unwrap_err();
    assert_eq!(refused.0, HResult::PRIVILEGE_NOT_HELD);
    assert_eq!(user.shutdown().unwrap().unwrap_err().0, HResult::PRIVILEGE_NOT_HELD);
    let missing = served.connect(true).filter_load("Nobody").unwrap().unwrap_err();
    assert_eq!(missing.0, HResult::FILE_NOT_FOUND);
    served.stop();
}

#[test]
fn a_filter_that_is_not_loaded_cannot_be_unloaded() {
    let served = Served::start();
    let refused = served.connect(true).filter_unload("Nobody").unwrap().unwrap_err();
    assert_eq!(refused.0.bits(), 0x801F_0013);
    served.stop();
}

#[test]
fn a_port_that_is_not_there_is_not_found() {
    let served = Served::start();
    let mut client = served.connect(true);
    let refused = client.filter_connect_communication_port(r"\NoPort", 0, b"").unwrap().unwrap_err();
    assert_eq!(refused.0, HResult::FILE_NOT_FOUND);
    assert_eq!(client.close_handle(4).unwrap().unwrap_err().0, HResult::INVALID_HANDLE);
    served.stop();
}

#[test]
fn the_target_names_the_host_folders() {
    let served = Served::start();
    let target = served.connect(false).target().unwrap().unwrap();
    assert_eq!(target.volumes["C:"], served.folder.path());
    assert_eq!(target.drivers, served.folder.path().join("Windows/System32/drivers"));
    served.stop();
}

#[test]
fn a_client_that_speaks_nonsense_loses_its_connection_only() {
    use std::io::Write as _;
    let served = Served::start();
    let mut stream = UnixStream::connect(served.path()).unwrap();
    stream.write_all(&[0x55; 64]).unwrap();
    let mut client = served.connect(true);
    assert!(client.status().unwrap().unwrap().drivers.is_empty());
    served.stop();
}

#[test]
fn shutting_down_ends_connections_that_wait() {
    let served = Served::start();
    let mut idle = served.connect(true);
    served.stop();
    assert!(idle.status().is_err());
}
