//! Client and server over a real socket, and what each does with a peer that misbehaves.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use fltlib_socket::frame::{FrameKind, MAGIC, MAX_DATA_BYTES, read_frame, write_frame};
use fltlib_socket::{
    Answer, Call, Connection, HResult, Incoming, MachineStatus, Parameter, Reply, ServerConnection, WireError, bind,
};

/// Tells whether an error is the one a test is about.
type Expected = fn(&WireError) -> bool;

/// A server that gives every request to `serve` until the client goes.
fn server(
    serve: impl Fn(&Incoming) -> (Reply, Vec<u8>) + Send + 'static,
) -> (UnixStream, thread::JoinHandle<Result<(), WireError>>) {
    let (client, stream) = UnixStream::pair().unwrap();
    let server = thread::spawn(move || {
        let mut connection = ServerConnection::accept(stream)?;
        connection.welcome(4242)?;
        while let Some(request) = connection.read_request()? {
            let (reply, data) = serve(&request);
            connection.write_reply(request.id, &reply, &data)?;
        }
        Ok(())
    });
    (client, server)
}

fn raw_frame(magic: u32, version: u16, kind: u16, json: &[u8], data_bytes: u32) -> Vec<u8> {
    [
        &magic.to_le_bytes()[..],
        &version.to_le_bytes(),
        &kind.to_le_bytes(),
        &7_u64.to_le_bytes(),
        &(json.len() as u32).to_le_bytes(),
        &data_bytes.to_le_bytes(),
        json,
    ]
    .concat()
}

#[test]
fn a_megabyte_message_comes_back_untouched() {
    let (stream, server) = server(|request| match &request.call {
        Call::FilterConnectCommunicationPort { port_name, .. } => {
            assert_eq!((port_name.as_str(), &request.data[..]), (r"\P", &b"ctx"[..]));
            (Reply::success(Answer::Port { port: 9 }), Vec::new())
        }
        Call::FilterSendMessage { port: 9, out_length } => {
            let mut data = request.data.clone();
            data.reverse();
            assert!(data.len() <= *out_length as usize);
            (Reply::success(Answer::Message { bytes_returned: data.len() as u32 }), data)
        }
        other => panic!("{other:?}"),
    });
    let mut client = Connection::over(stream, "fwbctl.exe", true).unwrap();
    assert_eq!(client.process_id(), 4242);
    let port = client.filter_connect_communication_port(r"\P", 0, b"ctx").unwrap().unwrap();
    let message: Vec<u8> = (0..1 << 20).map(|at: u32| at as u8).collect();
    let output = client.filter_send_message(port, &message, 1 << 20).unwrap().unwrap();
    assert!(output.iter().rev().eq(&message));
    drop(client);
    server.join().unwrap().unwrap();
}

#[test]
fn refusals_keep_their_hresult_and_the_connection() {
    let (stream, server) = server(|request| match request.call {
        Call::FilterUnload { .. } => {
            (Reply::failure(HResult(0x801F_0010_u32.cast_signed()), "images are mapped"), Vec::new())
        }
        _ => (Reply::success(Answer::Status(MachineStatus::default())), Vec::new()),
    });
    let mut client = Connection::over(stream, "fwbctl.exe", true).unwrap();
    let (hresult, message) = client.filter_unload("FwBroker").unwrap().unwrap_err();
    assert_eq!((hresult.bits(), message.as_str()), (0x801F_0010, "images are mapped"));
    assert_eq!(client.status().unwrap().unwrap(), MachineStatus::default());
    drop(client);
    server.join().unwrap().unwrap();
}

#[test]
fn adapter_parameters_keep_their_types() {
    let (stream, server) = server(|request| {
        let Call::AddAdapter { parameters, .. } = &request.call else { panic!() };
        assert_eq!(parameters["Limit"], Parameter::Dword(7));
        assert_eq!(parameters["Firmware"], Parameter::Text("nic.rom".into()));
        (Reply::success(Answer::Done), Vec::new())
    });
    let mut client = Connection::over(stream, "test.exe", true).unwrap();
    let parameters =
        BTreeMap::from([("Limit".into(), Parameter::Dword(7)), ("Firmware".into(), Parameter::Text("nic.rom".into()))]);
    client.add_adapter("samplenic.sys", "Ethernet", parameters).unwrap().unwrap();
    drop(client);
    server.join().unwrap().unwrap();
}

#[test]
fn only_those_who_ask_and_are_trusted_become_administrators() {
    for asked in [false, true] {
        let (stream, server) = server(|_| (Reply::success(Answer::Done), Vec::new()));
        let client = Connection::over(stream, "plain.exe", asked).unwrap();
        // This test's own user runs the server, so it is trusted.
        assert_eq!(client.administrator(), asked);
        drop(client);
        server.join().unwrap().unwrap();
    }
}

#[test]
fn a_client_that_does_not_say_hello_is_turned_away() {
    let (mut client, server) = server(|_| unreachable!());
    write_frame(&mut client, FrameKind::Request, 1, &Call::Status, &[]).unwrap();
    let refusal = read_frame::<Reply>(&mut client, FrameKind::Reply).unwrap().unwrap();
    assert_eq!(refusal.json.hresult, HResult::INVALID_PARAMETER);
    assert!(matches!(server.join().unwrap(), Err(WireError::OutOfTurn)));
}

#[test]
fn frames_that_are_not_ours_end_the_connection() {
    let hello = br#"{"call":"status"}"#;
    let cases: [(Vec<u8>, Expected); 6] = [
        (raw_frame(0x5454_4820, 1, 1, hello, 0), |e| matches!(e, WireError::NotOurs(0x5454_4820))),
        (raw_frame(MAGIC, 2, 1, hello, 0), |e| matches!(e, WireError::Version(2))),
        (raw_frame(MAGIC, 1, 2, hello, 0), |e| matches!(e, WireError::OutOfTurn)),
        (raw_frame(MAGIC, 1, 1, hello, MAX_DATA_BYTES + 1), |e| matches!(e, WireError::TooLarge { .. })),
        (raw_frame(MAGIC, 1, 1, b"{", 0), |e| matches!(e, WireError::Json(_))),
        (raw_frame(MAGIC, 1, 1, hello, 5), |e| matches!(e, WireError::Ended)),
    ];
    for (bytes, expected) in cases {
        let (mut client, server) = server(|_| unreachable!());
        client.write_all(&bytes).unwrap();
        drop(client);
        let error = server.join().unwrap().unwrap_err();
        assert!(expected(&error), "{error:?}");
    }
}

#[test]
fn an_output_buffer_that_could_not_be_sent_back_ends_the_connection() {
    let (stream, server) = server(|_| unreachable!());
    let mut client = Connection::over(stream, "fwbctl.exe", true).unwrap();
    client.filter_send_message(1, b"x", MAX_DATA_BYTES + 1).unwrap_err();
    assert!(matches!(server.join().unwrap(), Err(WireError::TooLarge { .. })));
}

#[test]
fn every_truncation_of_a_frame_is_noticed() {
    let mut whole = Vec::new();
    write_frame(&mut whole, FrameKind::Request, 1, &Call::Status, b"data").unwrap();
    for length in 1..whole.len() {
        let error = read_frame::<Call>(&mut &whole[..length], FrameKind::Request).unwrap_err();
        assert!(matches!(error, WireError::Ended), "{length}: {error:?}");
    }
    assert!(read_frame::<Call>(&mut &whole[..0], FrameKind::Request).unwrap().is_none());
    assert_eq!(read_frame::<Call>(&mut &whole[..], FrameKind::Request).unwrap().unwrap().data, b"data");
}

#[test]
fn a_reply_that_comes_too_late_breaks_the_connection_for_good() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let listener = bind(&path).unwrap();
    let server = thread::spawn(move || {
        let mut connection = ServerConnection::accept(listener.accept().unwrap().0).unwrap();
        connection.welcome(1).unwrap();
        let request = connection.read_request().unwrap().unwrap();
        thread::sleep(Duration::from_millis(300));
        // The client may have left by now.
        let _ = connection.write_reply(request.id, &Reply::success(Answer::Done), &[]);
    });
    let mut client = Connection::connect(&path, "a.exe", true, Duration::from_millis(100)).unwrap();
    let Err(WireError::Io(error)) = client.filter_load("X") else { panic!() };
    assert_eq!(error.kind(), ErrorKind::WouldBlock);
    assert!(matches!(client.filter_load("X"), Err(WireError::Broken)));
    server.join().unwrap();
}

#[test]
fn a_dead_socket_is_replaced_and_a_live_one_respected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("socket");
    let live = bind(&path).unwrap();
    assert_eq!(bind(&path).unwrap_err().kind(), ErrorKind::AddrInUse);
    drop(live);
    bind(&path).unwrap();
    assert!(bind(Path::new("/nonexistent/folder/socket")).is_err());
}
