//! Ports, messages and work items.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::conformance::conforms;

mod sending;

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
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatecommunicationport.md",
        "The connect callback gets the context of the program and its length; its cookie comes back in the other callbacks."
    );
    conforms!(
        "sdk:fltuser/nf-fltuser-filtersendmessage.md",
        "The bytes that the driver returned in the output buffer are counted for the program."
    );
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
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatecommunicationport.md",
        "Without OBJ_KERNEL_HANDLE: STATUS_INVALID_PARAMETER."
    );
    conforms!("fltkernel/nf-fltkernel-fltcreatecommunicationport.md", "MaxConnections is greater than zero.");
    let setup = Setup::new();
    let filter = setup.filter();
    assert_eq!(create(&setup, filter, ObjectFlags::empty(), 1).unwrap().0, NtStatus::INVALID_PARAMETER);
    assert_eq!(create(&setup, filter, ObjectFlags::KERNEL_HANDLE, 0).unwrap().0, NtStatus::INVALID_PARAMETER);
    assert_eq!(create(&setup, filter, ObjectFlags::KERNEL_HANDLE, -1).unwrap().0, NtStatus::INVALID_PARAMETER);
}

#[test]
fn a_second_port_of_the_same_name_collides() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatecommunicationport.md",
        "A name that is in use is STATUS_OBJECT_NAME_COLLISION."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    let port = port(&setup, filter);
    assert_eq!(create(&setup, filter, ObjectFlags::KERNEL_HANDLE, 1).unwrap().0, NtStatus::OBJECT_NAME_COLLISION);
    close_port(&setup, port).unwrap();
}

#[test]
fn connects_beyond_the_limit_are_refused() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatecommunicationport.md",
        "No more than MaxConnections clients are connected at the same time."
    );
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
    conforms!(
        "fltkernel/nf-fltkernel-fltbuilddefaultsecuritydescriptor.md",
        "Only users with system or administrator rights have access to an object with the default descriptor."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    port(&setup, filter);
    let user = setup.bench.machine().process("user.exe").plain_user().start().unwrap();
    assert_eq!(user.connect(r"\TestPort", b"").map(|_| ()), Err(NtStatus::ACCESS_DENIED));
    assert_eq!(CLIENT.get(), 0, "the driver is not even asked");
}

#[test]
fn a_name_without_a_port_is_not_found() {
    conforms!(
        "sdk:fltuser/nf-fltuser-filterconnectcommunicationport.md",
        "A name without a port cannot be connected to."
    );
    let setup = Setup::new();
    assert_eq!(setup.process().connect(r"\NoPort", b"").map(|_| ()), Err(NtStatus::OBJECT_NAME_NOT_FOUND));
}

#[test]
fn a_refused_connection_gets_no_disconnect() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatecommunicationport.md",
        "The connect callback can refuse a connection; the program gets its status."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    port(&setup, filter);
    assert_eq!(setup.process().connect(r"\TestPort", b"bad").map(|_| ()), Err(NtStatus::INVALID_PARAMETER));
    assert_eq!(DISCONNECTS.get(), 0);
    assert_eq!(setup.bench.machine().filters()[0].ports[0].connections, 0);
}

#[test]
fn buffers_above_user_memory_never_reach_the_driver() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatecommunicationport.md",
        "The buffers of a message are probed before the driver gets them, and nothing else is done with them."
    );
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
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatecommunicationport.md",
        "The disconnect callback is called when the program's last handle is closed, also by its end."
    );
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
    conforms!(
        "fltkernel/nf-fltkernel-fltclosecommunicationport.md",
        "New connections are refused; existing ones are not affected."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltclosecommunicationport.md",
        "The port handle is not valid any more after the close."
    );
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
    conforms!(
        "docs:ifs/closing-the-communication-server-port.md",
        "The server port is closed before FltUnregisterFilter, which would wait for ever otherwise."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    port(&setup, filter);
    let stopped = setup.bench.run(|| ddi!(FltUnregisterFilter: fn(usize))(filter)).unwrap_err();
    assert_eq!(stopped.0.rule, Rule::Deadlock);
    assert!(stopped.0.message.contains(r"\TestPort"), "{}", stopped.0.message);
}

#[test]
fn unregistering_disconnects_clients_that_are_left() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatecommunicationport.md",
        "The disconnect callback is called for clients that are left when the filter is unloaded."
    );
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
    conforms!("fltkernel/nf-fltkernel-fltcloseclientport.md", "The port variable is not NULL on input.");
    let setup = Setup::new();
    let filter = setup.filter();
    let mut cell = 0usize;
    let cell_at = (&raw mut cell).expose_provenance();
    let outcome = setup.run(|| ddi!(FltCloseClientPort: fn(usize, usize))(filter, cell_at));
    assert_eq!(outcome, Err(Rule::BadArgument));
}

static RAN_ON: AtomicUsize = AtomicUsize::new(0);

unsafe extern "efiapi" fn routine(item: flt::PFLT_GENERIC_WORKITEM, object: PVOID, context: PVOID) {
    assert!(!object.is_null() && Thread::current().process().is_none());
    RAN_ON.store(context.addr(), Ordering::SeqCst);
    ddi!(FltFreeGenericWorkItem: fn(usize))(item.addr());
}

#[test]
fn unregistering_waits_for_queued_work() {
    conforms!(
        "fltkernel/nf-fltkernel-fltqueuegenericworkitem.md",
        "The work routine runs in a system thread with the object and the context; the filter is not gone before."
    );
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
    conforms!(
        "fltkernel/nf-fltkernel-fltfreesecuritydescriptor.md",
        "Only descriptors of FltBuildDefaultSecurityDescriptor are freed, once each."
    );
    let setup = Setup::new();
    assert_eq!(setup.run(|| ddi!(FltFreeSecurityDescriptor: fn(usize))(0x1000)), Err(Rule::BadArgument));
}

unsafe extern "efiapi" fn send_there(_: *const flt::FLT_RELATED_OBJECTS, _: u32, _: u32, _: i32) -> NtStatus {
    let (filter, mut cell) = (FILTER.get(), 0usize);
    let cell_at = (&raw mut cell).expose_provenance();
    let data = b"ping".as_ptr().expose_provenance();
    ddi!(FltSendMessage: fn(usize, usize, usize, u32, usize, usize, usize) -> NtStatus)(
        filter, cell_at, data, 4, 0, 0, 0,
    )
}

#[test]
fn sending_from_a_setup_callback_is_found() {
    conforms!(
        "fltkernel/nc-fltkernel-pflt_instance_setup_callback.md",
        "No communication with other processes in the callback: it can deadlock."
    );
    let setup = Setup::new();
    let registration = FLT_REGISTRATION { InstanceSetupCallback: Some(send_there), ..FLT_REGISTRATION::EMPTY };
    let (_, filter) = setup.register(&registration).unwrap();
    FILTER.set(filter);
    assert_eq!(setup.start(filter), Err(Rule::Deadlock));
}

#[test]
fn port_names_are_matched_exactly_unless_the_port_says_otherwise() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatecommunicationport.md",
        "OBJ_CASE_INSENSITIVE makes the look-up of the name ignore case; without it the match is exact."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    let port = port(&setup, filter);
    let process = setup.process();
    assert_eq!(process.connect(r"\testport", b"").map(|_| ()), Err(NtStatus::OBJECT_NAME_NOT_FOUND));
    close_port(&setup, port).unwrap();
    let flags = ObjectFlags::KERNEL_HANDLE | ObjectFlags::CASE_INSENSITIVE;
    assert_eq!(create(&setup, filter, flags, 1).unwrap().0, NtStatus::SUCCESS);
    assert!(process.connect(r"\testport", b"").is_ok());
}

#[test]
fn a_closed_client_port_is_null_and_ends_the_connection() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcloseclientport.md",
        "The port variable receives NULL, and this one connection is cut."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    port(&setup, filter);
    let connection = setup.process().connect(r"\TestPort", b"").unwrap();
    let mut cell = CLIENT.replace(0);
    let cell_at = (&raw mut cell).expose_provenance();
    setup.run(|| ddi!(FltCloseClientPort: fn(usize, usize))(filter, cell_at)).unwrap();
    assert_eq!(Raw::<usize>::at(cell_at).read(), 0);
    assert_eq!(connection.send_message(b"abc", 3), Err(NtStatus::PORT_DISCONNECTED));
    assert_eq!(connection.get_message(Duration::ZERO), Err(NtStatus::PORT_DISCONNECTED));
}

#[test]
fn a_context_has_a_documented_limit() {
    conforms!(
        "sdk:fltuser/nf-fltuser-filterconnectcommunicationport.md",
        "The size of the context is a WORD: 65,535 bytes at most."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    port(&setup, filter);
    let process = setup.process();
    let refused = process.connect(r"\TestPort", &vec![0; 0x1_0000]).map(|_| ());
    assert_eq!(refused, Err(NtStatus::INVALID_PARAMETER));
    let connection = process.connect(r"\TestPort", &vec![0; 0xFFFF]).unwrap();
    assert_eq!(CONTEXT.get(), 0xFFFF);
    drop(connection);
}

unsafe extern "efiapi" fn create_late(_: *const flt::FLT_RELATED_OBJECTS, _: u32) {
    let text = wide(r"\LatePort");
    let name = UNICODE_STRING::from_utf16(&text).unwrap();
    let attributes = OBJECT_ATTRIBUTES::new(&raw const name, ObjectFlags::KERNEL_HANDLE);
    let attributes_at = (&raw const attributes).expose_provenance();
    let create = ddi!(FltCreateCommunicationPort: fn(
        usize, usize, usize, usize,
        flt::PFLT_CONNECT_NOTIFY, flt::PFLT_DISCONNECT_NOTIFY, flt::PFLT_MESSAGE_NOTIFY, i32
    ) -> NtStatus);
    let filter = FILTER.get();
    let status = with_out(|out| create(filter, out, attributes_at, 0, Some(connect), Some(disconnect), None, 1)).0;
    LATE.set(status);
}

thread_local! {
    static LATE: Cell<NtStatus> = const { Cell::new(NtStatus::PENDING) };
}

#[test]
fn a_filter_that_goes_gets_no_port() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatecommunicationport.md",
        "STATUS_FLT_DELETING_OBJECT while the filter is torn down."
    );
    let setup = Setup::new();
    let filter = setup
        .filter_with(&FLT_REGISTRATION { InstanceTeardownStartCallback: Some(create_late), ..FLT_REGISTRATION::EMPTY });
    FILTER.set(filter);
    setup.unregister(filter).unwrap();
    assert_eq!(LATE.get(), NtStatus::FLT_DELETING_OBJECT);
}

#[test]
fn without_a_message_callback_messages_are_refused() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatecommunicationport.md",
        "Without a MessageNotifyCallback a message from user mode gets an error."
    );
    let setup = Setup::new();
    let filter = setup.filter();
    let text = wide(r"\MutePort");
    let name = UNICODE_STRING::from_utf16(&text).unwrap();
    let attributes = OBJECT_ATTRIBUTES::new(&raw const name, ObjectFlags::KERNEL_HANDLE);
    let attributes_at = (&raw const attributes).expose_provenance();
    let create = ddi!(FltCreateCommunicationPort: fn(
        usize, usize, usize, usize,
        flt::PFLT_CONNECT_NOTIFY, flt::PFLT_DISCONNECT_NOTIFY, flt::PFLT_MESSAGE_NOTIFY, i32
    ) -> NtStatus);
    FILTER.set(filter);
    let (status, _) = with_out(|out| {
        setup.run(|| create(filter, out, attributes_at, 0, Some(connect), Some(disconnect), None, 1)).unwrap()
    });
    assert_eq!(status, NtStatus::SUCCESS);
    let connection = setup.process().connect(r"\MutePort", b"").unwrap();
    assert_eq!(connection.send_message(b"abc", 3), Err(NtStatus::INVALID_DEVICE_REQUEST));
}

#[test]
fn callbacks_of_a_port_are_required() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatecommunicationport.md",
        "ConnectNotifyCallback and DisconnectNotifyCallback are required."
    );
    let create = ddi!(FltCreateCommunicationPort: fn(
        usize, usize, usize, usize,
        flt::PFLT_CONNECT_NOTIFY, flt::PFLT_DISCONNECT_NOTIFY, flt::PFLT_MESSAGE_NOTIFY, i32
    ) -> NtStatus);
    let cases: [(flt::PFLT_CONNECT_NOTIFY, flt::PFLT_DISCONNECT_NOTIFY); 2] =
        [(None, Some(disconnect)), (Some(connect), None)];
    for (connect, disconnect) in cases {
        let setup = Setup::new();
        let filter = setup.filter();
        let outcome = setup.run(|| create(filter, 0, 0, 0, connect, disconnect, Some(message), 1));
        assert_eq!(outcome, Err(Rule::BadArgument));
    }
}

#[test]
fn ports_are_for_passive_level() {
    conforms!(
        "fltkernel/nf-fltkernel-fltcreatecommunicationport.md",
        "FltCreateCommunicationPort is called at PASSIVE_LEVEL."
    );
    conforms!(
        "fltkernel/nf-fltkernel-fltclosecommunicationport.md",
        "FltCloseCommunicationPort is called at PASSIVE_LEVEL."
    );
    conforms!("fltkernel/nf-fltkernel-fltcloseclientport.md", "FltCloseClientPort is called at PASSIVE_LEVEL.");
    let close = ddi!(FltCloseCommunicationPort: fn(usize));
    for name in ["FltCreateCommunicationPort", "FltCloseCommunicationPort", "FltCloseClientPort"] {
        let setup = Setup::new();
        let outcome = setup.call(name, || {
            Thread::current().set_irql(1);
            // The IRQL is checked before anything else, by the export that the call counts as.
            close(0);
        });
        assert_eq!(outcome, Err(Rule::IrqlTooHigh), "{name}");
    }
}

#[test]
fn a_default_descriptor_is_paged_and_to_be_freed() {
    conforms!(
        "fltkernel/nf-fltkernel-fltbuilddefaultsecuritydescriptor.md",
        "The descriptor comes from paged pool; FltFreeSecurityDescriptor frees it."
    );
    let setup = Setup::new();
    let build = ddi!(FltBuildDefaultSecurityDescriptor: fn(usize, u32) -> NtStatus);
    let (status, descriptor) = with_out(|out| setup.run(|| build(out, flt::FLT_PORT_CONNECT)).unwrap());
    assert_eq!(status, NtStatus::SUCCESS);
    assert_eq!(setup.leaks().len(), 1);
    setup.run(|| ddi!(FltFreeSecurityDescriptor: fn(usize))(descriptor)).unwrap();
    assert_eq!(setup.leaks(), Vec::<String>::new());
}
