//! The program itself, over a real socket: what it prints and how it exits when the machine is there, and when it is not.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::thread::{self, JoinHandle};

use crate::fake::Fake;
use fltlib_socket::{Answer, Call, HResult, Reply, ServerConnection, Target, bind};
use fwbctl::Port as _;
use serde_json::{Value, json};

const FILE: &str = r"C:\Firmware\nic.rom";

/// Serves one client with the fake driver; returns the calls it made.
fn serve(listener: UnixListener, drivers: PathBuf) -> JoinHandle<Vec<Call>> {
    thread::spawn(move || {
        let mut connection = ServerConnection::accept(listener.accept().unwrap().0).unwrap();
        connection.welcome(4).unwrap();
        let mut driver = Fake::with_file(r"\??\C:\Firmware\nic.rom", &[7; 5000]);
        let mut calls = Vec::new();
        while let Some(request) = connection.read_request().unwrap() {
            let mut data = Vec::new();
            let answer = match &request.call {
                Call::FilterConnectCommunicationPort { .. } => Answer::Port { port: 3 },
                Call::FilterSendMessage { port: 3, out_length } => {
                    data = driver.send_message(&request.data, *out_length).unwrap();
                    Answer::Message { bytes_returned: data.len() as u32 }
                }
                Call::CloseHandle { port: 3 } => Answer::Done,
                Call::Target => Answer::Target(Target {
                    volumes: [("C:".into(), drivers.clone())].into(),
                    system_root: drivers.clone(),
                    drivers: drivers.clone(),
                }),
                other => {
                    let refusal = Reply::failure(HResult::ALREADY_EXISTS, "loaded at start");
                    connection.write_reply(request.id, &refusal, &[]).unwrap();
                    calls.push(other.clone());
                    continue;
                }
            };
            connection.write_reply(request.id, &Reply::success(answer), &data).unwrap();
            calls.push(request.call);
        }
        calls
    })
}

fn fwbctl(socket: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fwbctl")).args(args).env("FWBROKER_SOCKET", socket).output().unwrap()
}

fn json_of(output: &Output) -> Value {
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn publish_writes_to_the_folder_that_the_host_names() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let drivers = folder.path().join("drivers");
    std::fs::create_dir(&drivers).unwrap();
    let server = serve(bind(&socket).unwrap(), drivers.clone());
    let output = fwbctl(&socket, &["publish", FILE, "--json"]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(json_of(&output)["published"]["size"], 5000);
    assert_eq!(std::fs::read(drivers.join("nic.rom")).unwrap(), [7; 5000]);
    // The port is closed by the program, not only by its end.
    assert_eq!(server.join().unwrap().last(), Some(&Call::CloseHandle { port: 3 }));
}

#[test]
fn a_second_load_is_refused_with_the_hosts_words() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let server = serve(bind(&socket).unwrap(), folder.path().into());
    let output = fwbctl(&socket, &["load"]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stderr).unwrap();
    assert!(text.contains("loaded already (loaded at start)"), "{text}");
    assert!(text.contains("ERROR_ALREADY_EXISTS (0x800700B7)"), "{text}");
    assert_eq!(server.join().unwrap(), [Call::FilterLoad { service: "FwBroker".into() }]);
}

#[test]
fn a_socket_nobody_serves_is_exit_code_3_with_advice() {
    let output = fwbctl(Path::new("/nonexistent/socket"), &["status", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    let error = &json_of(&output)["error"];
    assert!(error["message"].as_str().unwrap().contains("/nonexistent/socket"), "{error}");
    assert!(error["next"].as_str().unwrap().contains("kernel-host run"), "{error}");
    assert_eq!(error["status"], json!(null));
}

#[test]
fn a_host_that_dies_in_the_middle_is_exit_code_3() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let listener = bind(&socket).unwrap();
    let server = thread::spawn(move || {
        let mut connection = ServerConnection::accept(listener.accept().unwrap().0).unwrap();
        connection.welcome(4).unwrap();
        connection.read_request().unwrap();
    });
    let output = fwbctl(&socket, &["list", "--json"]);
    assert_eq!(output.status.code(), Some(3));
    assert!(json_of(&output)["error"]["message"].as_str().unwrap().contains("does not answer"));
    server.join().unwrap();
}

#[test]
fn wrong_usage_is_exit_code_2() {
    for args in [&["stage"][..], &["open", "relative.rom"], &["unload", "now"]] {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let _server = serve(bind(&socket).unwrap(), folder.path().into());
        assert_eq!(fwbctl(&socket, args).status.code(), Some(2), "{args:?}");
    }
    let output =
        Command::new(env!("CARGO_BIN_EXE_fwbctl")).arg("status").env_remove("FWBROKER_SOCKET").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8(output.stderr).unwrap().contains("FWBROKER_SOCKET"));
}

#[test]
fn programs_get_json_for_mistakes_on_the_command_line_too() {
    let output = fwbctl(Path::new("/nonexistent"), &["--json", "stage", "x", "--deadline", "0"]);
    assert_eq!(output.status.code(), Some(2));
    let error = &json_of(&output)["error"];
    assert!(error["message"].as_str().unwrap().contains("--deadline"), "{error}");
    assert_eq!(error["next"], "see `fwbctl --help`");
    let help = fwbctl(Path::new("/nonexistent"), &["--json", "--help"]);
    assert_eq!(help.status.code(), Some(0));
    assert!(String::from_utf8(help.stdout).unwrap().contains("Exit codes:"));
}
