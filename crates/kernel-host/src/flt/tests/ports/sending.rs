//! FltSendMessage, and what the program does about it.

use super::*;

fn send(setup: &Setup, filter: usize, reply_room: u32, timeout: i64) -> (NtStatus, Vec<u8>) {
    let send = ddi!(FltSendMessage: fn(usize, usize, usize, u32, usize, usize, usize) -> NtStatus);
    let (mut cell, mut reply, mut length) = (CLIENT.get(), vec![0u8; reply_room as usize], reply_room);
    let (cell_at, reply_at) = ((&raw mut cell).expose_provenance(), reply.as_mut_ptr().expose_provenance());
    let length_at = (&raw mut length).expose_provenance();
    let timeout_at = (&raw const timeout).expose_provenance();
    let data = b"ping".as_ptr().expose_provenance();
    let reply_at = if reply_room == 0 { 0 } else { reply_at };
    let status = setup.run(|| send(filter, cell_at, data, 4, reply_at, length_at, timeout_at)).unwrap();
    reply.truncate(Raw::<u32>::at(length_at).read() as usize);
    (status, reply)
}

#[test]
fn a_message_that_nobody_fetches_times_out_with_a_success_severity() {
    conforms!(
        "fltkernel/nf-fltkernel-fltsendmessage.md",
        "A message that is not fetched in time is STATUS_TIMEOUT, a success code, and is not delivered later."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    port(&setup, filter);
    let connection = setup.process().connect(r"\TestPort", b"").unwrap();
    assert_eq!(send(&setup, filter, 0, -100_000).0, NtStatus::TIMEOUT);
    assert_eq!(connection.get_message(Duration::ZERO), Err(NtStatus::TIMEOUT), "it is not delivered later");
}

#[test]
fn a_program_fetches_a_message_and_replies() {
    conforms!(
        "fltkernel/nf-fltkernel-fltsendmessage.md",
        "With a reply buffer the call waits for FilterReplyMessage and returns what was replied."
    );
    conforms!(
        "fltuserstructures/ns-fltuserstructures-_filter_message_header.md",
        "ReplyLength counts FILTER_REPLY_HEADER too."
    );
    conforms!(
        "sdk:fltuser/nf-fltuser-filterreplymessage.md",
        "Without anybody waiting for the reply of that MessageId it is refused."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    port(&setup, filter);
    let connection = setup.process().connect(r"\TestPort", b"").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let message = connection.get_message(Duration::from_secs(10)).unwrap();
            // The reply's length counts FILTER_REPLY_HEADER, which is 16 bytes.
            assert_eq!((message.data.as_slice(), message.reply_length), (&b"ping"[..], 24));
            assert_eq!(
                connection.reply(message.id + 1, NtStatus::SUCCESS, b""),
                Err(NtStatus::FLT_NO_WAITER_FOR_REPLY)
            );
            connection.reply(message.id, NtStatus::SUCCESS, b"pong").unwrap();
        });
        assert_eq!(send(&setup, filter, 8, -100_000_000), (NtStatus::SUCCESS, b"pong".to_vec()));
    });
}

/// How FltSendMessage ends, and what it gets, when the program replies this.
fn send_and_reply(room: u32, reply: &[u8]) -> (NtStatus, Vec<u8>) {
    let setup = Setup::new();
    let filter = setup.filter();
    port(&setup, filter);
    let connection = setup.process().connect(r"\TestPort", b"").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let message = connection.get_message(Duration::from_secs(10)).unwrap();
            connection.reply(message.id, NtStatus::SUCCESS, reply).unwrap();
        });
        send(&setup, filter, room, -100_000_000)
    })
}

#[test]
fn a_reply_that_does_not_fit_is_cut() {
    conforms!(
        "fltkernel/nf-fltkernel-fltsendmessage.md",
        "A reply that is longer than ReplyLength is STATUS_BUFFER_OVERFLOW, with what fits."
    );
    assert_eq!(send_and_reply(3, b"pong"), (NtStatus::BUFFER_OVERFLOW, b"pon".to_vec()));
}

#[test]
fn the_length_of_the_reply_comes_back() {
    conforms!(
        "fltkernel/nf-fltkernel-fltsendmessage.md",
        "ReplyLength receives the number of bytes that were replied."
    );
    assert_eq!(send_and_reply(8, b"p"), (NtStatus::SUCCESS, b"p".to_vec()));
}

#[test]
fn a_message_without_a_reply_ends_with_its_delivery() {
    conforms!(
        "fltkernel/nf-fltkernel-fltsendmessage.md",
        "Without a reply buffer the call returns STATUS_SUCCESS once the message is delivered."
    );
    conforms!(
        "fltuserstructures/ns-fltuserstructures-_filter_message_header.md",
        "ReplyLength is zero when no reply is expected."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    port(&setup, filter);
    let connection = setup.process().connect(r"\TestPort", b"").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let message = connection.get_message(Duration::from_secs(10)).unwrap();
            assert_eq!((message.data.as_slice(), message.reply_length), (&b"ping"[..], 0));
            let reply = connection.reply(message.id, NtStatus::SUCCESS, b"");
            assert_eq!(reply, Err(NtStatus::FLT_NO_WAITER_FOR_REPLY));
        });
        assert_eq!(send(&setup, filter, 0, -100_000_000).0, NtStatus::SUCCESS);
    });
}

#[test]
fn a_reply_that_comes_too_late_finds_nobody() {
    conforms!(
        "fltkernel/nf-fltkernel-fltsendmessage.md",
        "A reply that does not come in time is STATUS_TIMEOUT, also when the message was delivered."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    port(&setup, filter);
    let connection = setup.process().connect(r"\TestPort", b"").unwrap();
    let message = std::thread::scope(|scope| {
        let program = scope.spawn(|| connection.get_message(Duration::from_secs(10)).unwrap());
        assert_eq!(send(&setup, filter, 8, -500_000).0, NtStatus::TIMEOUT);
        program.join().unwrap()
    });
    let reply = connection.reply(message.id, NtStatus::SUCCESS, b"late");
    assert_eq!(reply, Err(NtStatus::FLT_NO_WAITER_FOR_REPLY));
}

#[test]
fn an_absolute_time_out_that_has_passed_ends_at_once() {
    conforms!("fltkernel/nf-fltkernel-fltsendmessage.md", "A positive time-out is an absolute time since 1601.");
    let setup = Setup::new();
    let filter = setup.filter();
    port(&setup, filter);
    let _connection = setup.process().connect(r"\TestPort", b"").unwrap();
    assert_eq!(send(&setup, filter, 0, 1).0, NtStatus::TIMEOUT);
}

#[test]
fn a_disconnect_ends_a_wait_for_a_reply() {
    conforms!(
        "fltkernel/nf-fltkernel-fltsendmessage.md",
        "STATUS_PORT_DISCONNECTED when the client goes, also during the wait."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    port(&setup, filter);
    let connection = setup.process().connect(r"\TestPort", b"").unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let _message = connection.get_message(Duration::from_secs(10)).unwrap();
            drop(connection);
        });
        assert_eq!(send(&setup, filter, 8, -100_000_000).0, NtStatus::PORT_DISCONNECTED);
    });
    assert_eq!(send(&setup, filter, 8, -100_000).0, NtStatus::PORT_DISCONNECTED);
}

#[test]
fn a_message_needs_its_buffers() {
    conforms!("fltkernel/nf-fltkernel-fltsendmessage.md", "SenderBuffer is required.");
    conforms!("fltkernel/nf-fltkernel-fltsendmessage.md", "ReplyLength is not NULL where there is a reply buffer.");
    let send = ddi!(FltSendMessage: fn(usize, usize, usize, u32, usize, usize, usize) -> NtStatus);
    for (buffer, reply) in [(0, 0), (0x1000, 0x1000)] {
        let setup = Setup::new();
        let filter = setup.filter();
        port(&setup, filter);
        let _connection = setup.process().connect(r"\TestPort", b"").unwrap();
        let mut cell = CLIENT.get();
        let cell_at = (&raw mut cell).expose_provenance();
        assert_eq!(setup.run(|| send(filter, cell_at, buffer, 4, reply, 0, 0)), Err(Rule::BadArgument));
    }
}
