//! Hostile messages: whatever a client sends, it gets a status, and the driver keeps nothing.

use fwbroker_tests::client::{REPLY_HEADER, encode, hello_bytes, refusal_in};
use fwbroker_tests::{Bench, Client, Refused};
use kernel_host::process::{Placement, Protection, UserBuffer};
use nt_types::NtStatus;
use protocol::{HelloRequest, Kind, Name, OpenRequest, ReadRequest, Reason, RequestBody};

const ROM: &[u8] = b"\x55\xaa firmware";

/// Sends `change`d hello bytes and expects `reason` in band.
fn hello_is_refused(change: impl FnOnce(&mut Vec<u8>), reason: Reason) {
    let bench = Bench::start();
    let client = Client::start_silent(bench.machine());
    let mut message = hello_bytes();
    change(&mut message);
    let reply = client.send(&message, 256).expect("answered in band");
    let status = i32::from_le_bytes(reply[16..20].try_into().unwrap());
    let code = u32::from_le_bytes(reply[20..24].try_into().unwrap());
    assert!(status < 0);
    assert_eq!(Reason::from_code(code), Some(reason));
    drop(client);
    bench.finish();
}

#[test]
fn a_message_shorter_than_a_header_is_refused() {
    for length in [1, 4, 8, 23] {
        hello_is_refused(|message| message.truncate(length), Reason::MessageTooShort);
    }
}

#[test]
fn a_short_message_is_refused() {
    hello_is_refused(|message| message.truncate(message.len() - 1), Reason::MessageSizeMismatch);
}

#[test]
fn a_long_message_is_refused() {
    hello_is_refused(|message| message.push(0), Reason::MessageSizeMismatch);
}

#[test]
fn a_message_above_the_limit_is_refused() {
    let bench = Bench::start();
    let client = bench.client();
    let length = protocol::MAX_REQUEST_BYTES as usize + 1;
    let mut message = hello_bytes();
    message.resize(length, 0);
    message[0..4].copy_from_slice(&(length as u32).to_le_bytes());
    let reply = client.send(&message, 256).expect("answered in band");
    let code = u32::from_le_bytes(reply[20..24].try_into().unwrap());
    assert_eq!(Reason::from_code(code), Some(Reason::MessageTooLarge));
    drop(client);
    bench.finish();
}

#[test]
fn an_unknown_version_is_refused() {
    hello_is_refused(|message| message[4] = 9, Reason::UnsupportedVersion);
}

#[test]
fn an_unknown_kind_is_refused() {
    hello_is_refused(|message| message[6] = 99, Reason::UnknownKind);
}

#[test]
fn reserved_fields_must_be_zero() {
    hello_is_refused(|message| message[20] = 1, Reason::ReservedNotZero);
}

#[test]
fn unknown_flags_are_refused() {
    hello_is_refused(|message| message[16] = 1, Reason::UnknownFlags);
}

#[test]
fn hello_without_a_common_version_is_refused() {
    let bench = Bench::start();
    let client = Client::start_silent(bench.machine());
    let body = RequestBody::Hello(HelloRequest { min_version: 2, max_version: 9 });
    let refused = client.request(body, 256, |_| ()).unwrap_err();
    assert_eq!(refused.reason, Some(Reason::NoCommonVersion));
    drop(client);
    bench.finish();
}

#[test]
fn the_first_message_must_be_hello_and_only_the_first() {
    let bench = Bench::start();
    let client = Client::start_silent(bench.machine());
    assert_eq!(client.close(1).unwrap_err().reason, Some(Reason::HelloRequired));
    client.hello().unwrap();
    assert_eq!(client.hello().unwrap_err().reason, Some(Reason::HelloRepeated));
    drop(client);
    bench.finish();
}

#[test]
fn a_name_longer_than_the_message_is_refused() {
    let bench = Bench::start();
    let client = bench.client();
    let name: Vec<u16> = r"\??\C:\x".encode_utf16().collect();
    let body = RequestBody::Open(OpenRequest { name: Name::from_units(&name) });
    for name_bytes in [u32::MAX, u32::MAX - 1, 0x7fff_fffe, 18, 1] {
        let mut message = encode(5, body);
        message[28..32].copy_from_slice(&name_bytes.to_le_bytes());
        let reply = client.send(&message, 256).unwrap();
        let refused = refusal_in(&reply, Kind::Open, 5);
        assert!(!refused.status.is_success(), "{name_bytes}: {refused:?}");
    }
    drop(client);
    bench.finish();
}

#[test]
fn a_length_that_overflows_is_refused() {
    let bench = Bench::start();
    let path = bench.write_firmware("good.rom", ROM);
    let client = bench.client();
    let handle = client.open(&path).unwrap().handle;
    for (offset, length) in [(u64::MAX, 1), (u64::MAX - 4, 8), (1 << 63, 16)] {
        let refused = client.read(handle, offset, length).unwrap_err();
        assert!(
            matches!(refused.reason, Some(Reason::OffsetOverflow | Reason::EndOfFile)),
            "{offset:#x}+{length}: {refused:?}"
        );
    }
    let refused = client.read(handle, 0, u32::MAX).unwrap_err();
    assert_eq!(refused.reason, Some(Reason::ReadTooLong));
    drop(client);
    bench.finish();
}

#[test]
fn an_output_buffer_that_cannot_hold_a_header_fails_the_call() {
    let bench = Bench::start();
    let client = Client::start_silent(bench.machine());
    for output in [0, 1, REPLY_HEADER - 1] {
        assert_eq!(client.send(&hello_bytes(), output), Err(Refused::call(NtStatus::BUFFER_TOO_SMALL)), "{output}");
    }
    client.hello().expect("none of them was taken for the hello");
    drop(client);
    bench.finish();
}

#[test]
fn an_output_buffer_too_small_for_the_body_is_said_in_band_and_undoes_the_open() {
    let bench = Bench::start();
    let path = bench.write_firmware("good.rom", ROM);
    let client = bench.client();
    let units: Vec<u16> = path.encode_utf16().collect();
    let body = RequestBody::Open(OpenRequest { name: Name::from_units(&units) });
    let refused = client.request(body, REPLY_HEADER, |_| ()).unwrap_err();
    assert_eq!(refused, Refused::with(NtStatus::BUFFER_TOO_SMALL, Reason::OutputBufferTooSmall));
    assert_eq!(bench.open_handles(), 0, "the file is not open");
    drop(client);
    bench.finish();
}

#[test]
fn an_unmapped_input_buffer_is_refused() {
    let bench = Bench::start();
    let client = Client::start_silent(bench.machine());
    let gone = memory(&client, 64, Protection::ReadWrite);
    let address = gone.address();
    drop(gone);
    let output = memory(&client, 256, Protection::ReadWrite);
    let sent = client.port().send_raw(address, 24, output.address(), 256);
    assert_buffer_refused(sent, &output.read().unwrap());
    drop(output);
    drop(client);
    bench.finish();
}

#[test]
fn an_input_buffer_that_ends_in_an_unmapped_page_is_refused() {
    let bench = Bench::start();
    let client = Client::start_silent(bench.machine());
    let input = memory(&client, 24, Protection::ReadWrite);
    let output = memory(&client, 256, Protection::ReadWrite);
    let sent = client.port().send_raw(input.address(), 4096, output.address(), 256);
    assert_buffer_refused(sent, &output.read().unwrap());
    drop((input, output));
    drop(client);
    bench.finish();
}

#[test]
fn an_unmapped_output_buffer_is_refused_and_undoes_the_open() {
    let bench = Bench::start();
    let path = bench.write_firmware("good.rom", ROM);
    let client = bench.client();
    let units: Vec<u16> = path.encode_utf16().collect();
    let message = encode(9, RequestBody::Open(OpenRequest { name: Name::from_units(&units) }));
    let input = memory(&client, message.len(), Protection::ReadWrite);
    input.write(&message).unwrap();
    let gone = memory(&client, 256, Protection::ReadWrite);
    let address = gone.address();
    drop(gone);
    let sent = client.port().send_raw(input.address(), message.len() as u32, address, 256);
    assert!(sent.is_err(), "{sent:?}");
    assert_eq!(bench.open_handles(), 0, "the file is not open");
    drop(input);
    drop(client);
    bench.finish();
}

#[test]
fn a_read_only_output_buffer_is_refused() {
    let bench = Bench::start();
    let client = Client::start_silent(bench.machine());
    let input = memory(&client, 24 + 8, Protection::ReadWrite);
    input.write(&hello_bytes()).unwrap();
    let output = memory(&client, 256, Protection::ReadOnly);
    let sent = client.port().send_raw(input.address(), hello_bytes().len() as u32, output.address(), 256);
    assert!(sent.is_err(), "{sent:?}");
    drop((input, output));
    drop(client);
    bench.finish();
}

#[test]
fn buffers_at_kernel_addresses_are_refused() {
    let bench = Bench::start();
    let client = Client::start_silent(bench.machine());
    let output = memory(&client, 256, Protection::ReadWrite);
    let kernel = std::ptr::from_ref(&bench).addr();
    let sent = client.port().send_raw(kernel, 24, output.address(), 256);
    assert!(sent.is_err(), "{sent:?}");
    let input = memory(&client, 64, Protection::ReadWrite);
    input.write(&hello_bytes()).unwrap();
    let length = hello_bytes().len() as u32;
    let sent = client.port().send_raw(input.address(), length, kernel, 256);
    assert!(sent.is_err(), "{sent:?}");
    drop((input, output));
    drop(client);
    bench.finish();
}

#[test]
fn null_buffers_are_refused_whatever_their_length() {
    let bench = Bench::start();
    let client = Client::start_silent(bench.machine());
    let output = memory(&client, 256, Protection::ReadWrite);
    for (input_length, output_address, output_length) in
        [(0, 0, 0), (24, 0, 256), (24, output.address(), 256), (0, output.address(), 256)]
    {
        let sent = client.port().send_raw(0, input_length, output_address, output_length);
        assert!(sent.is_err() || reason_of(&output.read().unwrap()) != 0, "{input_length} {output_length}: {sent:?}");
    }
    client.hello().expect("the session is as it was");
    drop(output);
    drop(client);
    bench.finish();
}

#[test]
fn input_and_output_may_be_the_same_buffer() {
    let bench = Bench::start();
    let client = Client::start_silent(bench.machine());
    let message = hello_bytes();
    let buffer = memory(&client, 256, Protection::ReadWrite);
    buffer.write(&message).unwrap();
    let sent = client
        .port()
        .send_raw(buffer.address(), message.len() as u32, buffer.address(), 256)
        .expect("aliased buffers are legal");
    assert!(sent as usize > REPLY_HEADER);
    assert_eq!(reason_of(&buffer.read().unwrap()), 0);
    drop(buffer);
    drop(client);
    bench.finish();
}

#[test]
fn a_read_into_a_buffer_that_ends_early_faults_without_harm() {
    let bench = Bench::start();
    let path = bench.write_firmware("big.rom", &vec![0x5a; 300_000]);
    let client = bench.client();
    let handle = client.open(&path).unwrap().handle;
    let message = encode(3, RequestBody::Read(ReadRequest { handle, offset: 0, length: 300_000 }));
    let input = memory(&client, message.len(), Protection::ReadWrite);
    input.write(&message).unwrap();
    let output = memory(&client, 100_000, Protection::ReadWrite);
    let sent = client.port().send_raw(input.address(), message.len() as u32, output.address(), 400_000);
    assert!(sent.is_err() || reason_of(&output.read().unwrap()) == Reason::BufferNotAccessible.code(), "{sent:?}");
    assert_eq!(client.read(handle, 0, 16).unwrap(), [0x5a; 16], "the handle still works");
    client.close(handle).unwrap();
    drop((input, output));
    drop(client);
    bench.finish();
}

/// User memory of the client whose first and last bytes lie next to inaccessible pages as far as possible.
fn memory(client: &Client, length: usize, protection: Protection) -> UserBuffer {
    client.process().allocate(length, protection, Placement::Exact).unwrap()
}

fn reason_of(reply: &[u8]) -> u32 {
    u32::from_le_bytes(reply[20..24].try_into().unwrap())
}

/// The driver could not read the request: it says so in band, or fails the call.
fn assert_buffer_refused(sent: Result<u32, NtStatus>, reply: &[u8]) {
    match sent {
        Err(status) => assert!(!status.is_success(), "{status:?}"),
        Ok(_) => assert_eq!(Reason::from_code(reason_of(reply)), Some(Reason::BufferNotAccessible)),
    }
}
