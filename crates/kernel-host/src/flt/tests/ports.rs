//! Ports, messages and work items.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

thread_local! {
    /// Connection port and number of disconnects of the test that runs on this thread.
    static CLIENT: Cell<usize> = const { Cell::new(0) };
    static FILTER: Cell<usize> = const { Cell::new(0) };
    static DISCONNECTS: Cell<usize> = const { Cell::new(0) };
    static CONTEXT: Cell<u32> = const { Cell::new(0) };
}

unsafe extern "efiapi" fn connect(
    port: flt::PFLT_PORT,
    _: PVOID,
    context: PVOID,
    size: u32,
    cookie: *mut PVOID,
) -> NtStatus {
    CLIENT.set(port.addr());
    CONTEXT.set(size);
    if size == 3 {
        assert_eq!(Raw::of(context).cast::<u8>().read_bytes(3), b"bad");
        return NtStatus::INVALID_PARAMETER;
    }
    Raw::of(cookie).write(Raw::<u8>::at(0x1234).pointer().cast());
    NtStatus::SUCCESS
}

unsafe extern "efiapi" fn disconnect(cookie: PVOID) {
    assert_eq!(cookie.addr(), 0x1234);
    DISCONNECTS.set(DISCONNECTS.get() + 1);
    let mut cell = CLIENT.get();
    if cell != 0 {
        let filter = FILTER.get();
        ddi!(FltCloseClientPort: fn(usize, usize))(filter, (&raw mut cell).expose_provenance());
    }
    CLIENT.set(0);
}

/// Echoes the input, in upper case; the first byte says how to misbehave.
unsafe extern "efiapi" fn message(
    cookie: PVOID,
    input: PVOID,
    input_length: u32,
    output: PVOID,
    output_length: u32,
    returned: *mut u32,
) -> NtStatus {
    assert_eq!(cookie.addr(), 0x1234);
    if input.is_null() {
        return NtStatus::INVALID_USER_BUFFER;
    }
    let bytes = Raw::of(input).cast::<u8>().read_bytes(input_length as usize);
    if bytes.first() == Some(&b'!') {
        Raw::of(returned).write(output_length + 1);
        return NtStatus::SUCCESS;
    }
    let count = bytes.len().min(output_length as usize);
    Raw::of(output).cast::<u8>().write_bytes(&bytes[..count].to_ascii_uppercase());
    Raw::of(returned).write(count as u32);
    NtStatus::SUCCESS
}

/// FltCreateCommunicationPort with a default descriptor: status and port.
fn create(setup: &Setup, filter: usize, flags: ObjectFlags, max_connections: i32) -> Result<(NtStatus, usize), Rule> {
    FILTER.set(filter);
    let text = wide(r"\TestPort");
    let name = UNICODE_STRING::from_utf16(&text).unwrap();
    let mut port = 0usize;
    let port_at = (&raw mut port).expose_provenance();
    let build = ddi!(FltBuildDefaultSecurityDescriptor: fn(usize, u32) -> NtStatus);
    let free = ddi!(FltFreeSecurityDescriptor: fn(usize));
    let create = ddi!(FltCreateCommunicationPort: fn(
        usize, usize, usize, usize,
        flt::PFLT_CONNECT_NOTIFY, flt::PFLT_DISCONNECT_NOTIFY, flt::PFLT_MESSAGE_NOTIFY, i32
    ) -> NtStatus);
    let status = setup.run(|| {
        let mut descriptor = 0usize;
        let descriptor_at = (&raw mut descriptor).expose_provenance();
        assert_eq!(build(descriptor_at, flt::FLT_PORT_ALL_ACCESS), NtStatus::SUCCESS);
        let descriptor = Raw::<usize>::at(descriptor_at).read();
        let mut attributes = OBJECT_ATTRIBUTES::new(&raw const name, flags);
        attributes.SecurityDescriptor = Raw::<u8>::at(descriptor).pointer().cast();
        let attributes_at = (&raw const attributes).expose_provenance();
        let status =
            create(filter, port_at, attributes_at, 0, Some(connect), Some(disconnect), Some(message), max_connections);
        free(descriptor);
        status
    })?;
    Ok((status, Raw::<usize>::at(port_at).read()))
}

fn port(setup: &Setup, filter: usize) -> usize {
    let (status, port) = create(setup, filter, ObjectFlags::KERNEL_HANDLE, 2).unwrap();
    assert_eq!(status, NtStatus::SUCCESS);
    port
}

fn close_port(setup: &Setup, port: usize) -> Result<(), Rule> {
    setup.run(|| ddi!(FltCloseCommunicationPort: fn(usize))(port))
}

#[test]
fn a_message_goes_to_the_driver_and_its_answer_comes_back() {
    let setup = Setup::new();
    let filter = setup.filter();
    let port = port(&setup, filter);
    let connection = setup.process().connect(r"\TestPort", b"hello").unwrap();
    assert_eq!(CONTEXT.get(), 5);
    assert_eq!(connection.send_message(b"abc", 16), Ok(b"ABC".to_vec()));
    assert_eq!(connection.send_message(b"abc", 2), Ok(b"AB".to_vec()));
    drop(connection);
    assert_eq!(DISCONNECTS.get(), 1);
    close_port(&setup, port).unwrap();
    setup.unregister(filter).unwrap();
    assert_eq!(setup.leaks(), Vec::<String>::new());
}

#[test]
fn a_port_needs_a_kernel_handle_and_room_for_a_connection() {
    let setup = Setup::new();
    let filter = setup.filter();
    assert_eq!(create(&setup, filter, ObjectFlags::empty(), 1).unwrap().0, NtStatus::INVALID_PARAMETER);
    assert_eq!(create(&setup, filter, ObjectFlags::KERNEL_HANDLE, 0).unwrap().0, NtStatus::INVALID_PARAMETER);
    assert_eq!(create(&setup, filter, ObjectFlags::KERNEL_HANDLE, -1).unwrap().0, NtStatus::INVALID_PARAMETER);
}

#[test]
fn a_second_port_of_the_same_name_collides() {
    let setup = Setup::new();
    let filter = setup.filter();
    let port = port(&setup, filter);
    assert_eq!(create(&setup, filter, ObjectFlags::KERNEL_HANDLE, 1).unwrap().0, NtStatus::OBJECT_NAME_COLLISION);
    close_port(&setup, port).unwrap();
}

#[test]
fn connects_beyond_the_limit_are_refused() {
    let setup = Setup::new();
    let filter = setup.filter();
    port(&setup, filter);
    let process = setup.process();
    let first = process.connect(r"\TestPort", b"").unwrap();
    CLIENT.set(0);
    let second = process.connect(r"\TestPort", b"").unwrap();
    assert_eq!(process.connect(r"\TestPort", b"").map(|_| ()), Err(NtStatus::CONNECTION_COUNT_LIMIT));
    drop(second);
    let third = process.connect(r"\TestPort", b"").unwrap();
    CLIENT.set(0);
    drop((first, third));
}

#[test]
fn a_plain_user_cannot_connect_to_a_port_with_the_default_descriptor() {
    let setup = Setup::new();
    let filter = setup.filter();
    port(&setup, filter);
    let user = setup.bench.machine().process("user.exe").plain_user().start().unwrap();
    assert_eq!(user.connect(r"\TestPort", b"").map(|_| ()), Err(NtStatus::ACCESS_DENIED));
    assert_eq!(CLIENT.get(), 0, "the driver is not even asked");
}

#[test]
fn a_name_without_a_port_is_not_found() {
    let setup = Setup::new();
    assert_eq!(setup.process().connect(r"\NoPort", b"").map(|_| ()), Err(NtStatus::OBJECT_NAME_NOT_FOUND));
}

#[test]
fn a_refused_connection_gets_no_disconnect() {
    let setup = Setup::new();
    let filter = setup.filter();
    port(&setup, filter);
    assert_eq!(setup.process().connect(r"\TestPort", b"bad").map(|_| ()), Err(NtStatus::INVALID_PARAMETER));
    assert_eq!(DISCONNECTS.get(), 0);
    assert_eq!(setup.bench.machine().filters()[0].ports[0].connections, 0);
}

#[test]
fn buffers_above_user_memory_never_reach_the_driver() {
    let setup = Setup::new();
    let filter = setup.filter();
    port(&setup, filter);
    let process = setup.process();
    let connection = process.connect(r"\TestPort", b"").unwrap();
    let kernel = 0xFFFF_8000_0000_0000;
    let input = process.buffer(b"abc").unwrap();
    assert_eq!(connection.send_raw(kernel, 3, 0, 0), Err(NtStatus::ACCESS_VIOLATION));
    assert_eq!(connection.send_raw(input.address(), 3, kernel, 3), Err(NtStatus::ACCESS_VIOLATION));
    assert_eq!(connection.send_raw(usize::MAX, 3, 0, 0), Err(NtStatus::ACCESS_VIOLATION));
    // A length of 0 is not probed: the driver gets whatever address there is.
    assert_eq!(connection.send_raw(input.address(), 3, kernel, 0), Ok(0));
    // NULL passes the probe, whatever the length; the driver answers.
    assert_eq!(connection.send_raw(0, 3, 0, 0), Err(NtStatus::INVALID_USER_BUFFER));
}

#[test]
fn a_returned_length_above_the_buffer_is_found() {
    let setup = Setup::new();
    let filter = setup.filter();
    port(&setup, filter);
    let connection = setup.process().connect(r"\TestPort", b"").unwrap();
    assert!(connection.send_message(b"!", 4).is_err());
    assert_eq!(setup.bench.machine().finding().unwrap().rule, Rule::BadArgument);
}

#[test]
fn the_end_of_a_process_disconnects_its_ports() {
    let setup = Setup::new();
    let filter = setup.filter();
    port(&setup, filter);
    let process = setup.process();
    let connection = process.connect(r"\TestPort", b"").unwrap();
    Thread::enter(setup.bench.machine().inner(), |_| process.exit());
    assert_eq!(DISCONNECTS.get(), 1);
    assert_eq!(connection.send_message(b"abc", 3), Err(NtStatus::INVALID_HANDLE));
}

#[test]
fn closing_the_server_port_stops_new_connections_and_keeps_old_ones() {
    let setup = Setup::new();
    let filter = setup.filter();
    let port = port(&setup, filter);
    let connection = setup.process().connect(r"\TestPort", b"").unwrap();
    close_port(&setup, port).unwrap();
    assert_eq!(setup.process().connect(r"\TestPort", b"").map(|_| ()), Err(NtStatus::OBJECT_NAME_NOT_FOUND));
    assert_eq!(connection.send_message(b"abc", 3), Ok(b"ABC".to_vec()));
    assert_eq!(close_port(&setup, port), Err(Rule::BadArgument));
}

#[test]
fn unregistering_with_an_open_server_port_is_a_deadlock_that_names_it() {
    let setup = Setup::new();
    let filter = setup.filter();
    port(&setup, filter);
    let stopped = setup.bench.run(|| ddi!(FltUnregisterFilter: fn(usize))(filter)).unwrap_err();
    assert_eq!(stopped.0.rule, Rule::Deadlock);
    assert!(stopped.0.message.contains(r"\TestPort"), "{}", stopped.0.message);
}

#[test]
fn unregistering_disconnects_clients_that_are_left() {
    let setup = Setup::new();
    let filter = setup.filter();
    let port = port(&setup, filter);
    let connection = setup.process().connect(r"\TestPort", b"").unwrap();
    close_port(&setup, port).unwrap();
    setup.unregister(filter).unwrap();
    assert_eq!(DISCONNECTS.get(), 1);
    assert_eq!(connection.send_message(b"abc", 3), Err(NtStatus::PORT_DISCONNECTED));
    drop(connection);
    assert_eq!(DISCONNECTS.get(), 1, "once only");
    assert_eq!(setup.leaks(), Vec::<String>::new());
}

#[test]
fn closing_a_client_port_that_is_null_already_is_found() {
    let setup = Setup::new();
    let filter = setup.filter();
    let mut cell = 0usize;
    let cell_at = (&raw mut cell).expose_provenance();
    let outcome = setup.run(|| ddi!(FltCloseClientPort: fn(usize, usize))(filter, cell_at));
    assert_eq!(outcome, Err(Rule::BadArgument));
}

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
    let setup = Setup::new();
    let filter = setup.filter();
    port(&setup, filter);
    let connection = setup.process().connect(r"\TestPort", b"").unwrap();
    assert_eq!(send(&setup, filter, 0, -100_000).0, NtStatus::TIMEOUT);
    assert_eq!(connection.get_message(Duration::ZERO), Err(NtStatus::TIMEOUT), "it is not delivered later");
}

#[test]
fn a_program_fetches_a_message_and_replies() {
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

static RAN_ON: AtomicUsize = AtomicUsize::new(0);

unsafe extern "efiapi" fn routine(item: flt::PFLT_GENERIC_WORKITEM, object: PVOID, context: PVOID) {
    assert!(!object.is_null() && Thread::current().process().is_none());
    RAN_ON.store(context.addr(), Ordering::SeqCst);
    ddi!(FltFreeGenericWorkItem: fn(usize))(item.addr());
}

#[test]
fn unregistering_waits_for_queued_work() {
    let setup = Setup::new();
    let filter = setup.filter();
    let status = setup.run(|| {
        let item = ddi!(FltAllocateGenericWorkItem: fn() -> usize)();
        let queue = ddi!(FltQueueGenericWorkItem: fn(
            usize, usize, flt::PFLT_GENERIC_WORKITEM_ROUTINE, i32, usize
        ) -> NtStatus);
        queue(item, filter, Some(routine), 1, 42)
    });
    assert_eq!(status, Ok(NtStatus::SUCCESS));
    setup.unregister(filter).unwrap();
    assert_eq!(RAN_ON.load(Ordering::SeqCst), 42);
    assert_eq!(setup.leaks(), Vec::<String>::new());
}

#[test]
fn a_descriptor_that_is_freed_twice_is_found() {
    let setup = Setup::new();
    assert_eq!(setup.run(|| ddi!(FltFreeSecurityDescriptor: fn(usize))(0x1000)), Err(Rule::BadArgument));
}
