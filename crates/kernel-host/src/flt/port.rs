//! Communication ports, the driver's side: creating and closing them, connections coming and going.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};

use fltmgr::raw::{FLT_PORT_CONNECT, PFLT_CONNECT_NOTIFY, PFLT_DISCONNECT_NOTIFY, PFLT_MESSAGE_NOTIFY};
use nt_types::{NtStatus, OBJECT_ATTRIBUTES, ObjectFlags, PVOID, UNICODE_STRING};

use super::filter::Filter;
use super::message::Outbox;
use super::object::{self, FltObject, ObjectTable, Rundown};
use super::security;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Inner;
use crate::nt::arena::{Access, PAGE, pages_for};
use crate::nt::ob::{ObjectBody, ObjectRef};
use crate::nt::raw::Raw;
use crate::nt::security::descriptor::Descriptor;
use crate::nt::unicode;
use crate::process::Process;
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltCreateCommunicationPort(max 0, fails RESOURCES) = flt_create_communication_port;
    FltCloseCommunicationPort(max 0) = flt_close_communication_port;
    FltCloseClientPort(max 0) = flt_close_client_port;
}

/// Bytes of the body of a port object; nobody looks inside.
const BODY: usize = 16;

/// A server port.
#[derive(Debug)]
pub(crate) struct ServerPort {
    address: usize,
    pub(crate) filter: Arc<Filter>,
    pub(crate) name: String,
    /// The driver's pointer, which is never followed here.
    cookie: usize,
    connect: PFLT_CONNECT_NOTIFY,
    disconnect: PFLT_DISCONNECT_NOTIFY,
    pub(super) message: PFLT_MESSAGE_NOTIFY,
    access: Descriptor,
    case_sensitive: bool,
    max_connections: i32,
    connections: AtomicI32,
    /// Connects under way: the port's close ends and awaits them, so that an unload sees every connection whole.
    connecting: Rundown,
}

/// Payload of the named object that stands for a server port.
#[derive(Debug)]
struct PortObject(Arc<ServerPort>);

impl ObjectBody for PortObject {
    fn type_name(&self) -> &'static str {
        "FilterConnectionPort"
    }
}

/// One connection: the driver knows it as `PFLT_PORT`, the program by a handle.
#[derive(Debug)]
pub(crate) struct ClientPort {
    address: usize,
    pub(super) server: Arc<ServerPort>,
    cookie: AtomicUsize,
    /// FltCloseClientPort was called, or the program is gone: nothing can be sent either way.
    pub(super) disconnected: AtomicBool,
    notified: AtomicBool,
    /// Message callbacks under way. A disconnect ends it first: none begins with a cookie that the driver has given up.
    pub(super) calls: Rundown,
    pub(super) outbox: Outbox,
}

/// Payload of the object behind the program's handle.
#[derive(Debug)]
pub(crate) struct Connection(pub(super) Arc<ClientPort>);

impl ObjectBody for Connection {
    fn type_name(&self) -> &'static str {
        "FilterCommunicationPort"
    }

    fn on_last_handle_close(&self, _object: &ObjectRef, process: &Arc<Process>) {
        if let Some(machine) = process.machine() {
            Thread::enter(&machine, |thread| {
                let before = thread.set_process(Some(Arc::clone(process)));
                self.0.disconnect(thread);
                thread.set_process(before);
            });
        }
    }
}

impl ServerPort {
    /// Connections that exist now.
    pub(crate) fn connections(&self) -> u32 {
        self.connections.load(Ordering::Acquire).max(0).unsigned_abs()
    }

    /// Most connections at the same time.
    pub(crate) fn max_connections(&self) -> u32 {
        self.max_connections.max(0).unsigned_abs()
    }

    fn take_connection(&self) -> Result<(), NtStatus> {
        let free = |count| (count < self.max_connections).then_some(count + 1);
        let taken = self.connections.fetch_update(Ordering::AcqRel, Ordering::Acquire, free);
        taken.map(drop).map_err(|_| NtStatus::CONNECTION_COUNT_LIMIT)
    }
}

impl ClientPort {
    /// The filter it leads to.
    pub(crate) fn filter(&self) -> &Arc<Filter> {
        &self.server.filter
    }

    /// What the driver's connect callback gave for it.
    pub(super) fn cookie(&self) -> PVOID {
        Raw::at(self.cookie.load(Ordering::Acquire)).pointer()
    }

    /// Nothing goes through any more, either way.
    fn cut(&self) {
        self.calls.start_ending();
        self.disconnected.store(true, Ordering::Release);
        self.outbox.wake();
    }

    /// The program's last handle is closed, or the filter unloads: tells the driver, once.
    fn disconnect(&self, thread: &Thread) {
        if self.notified.swap(true, Ordering::AcqRel) {
            return;
        }
        self.cut();
        if let Some(callback) = self.server.disconnect {
            let cookie = self.cookie();
            // The filter's end waits for this callback; when it is the one that disconnects, it knows.
            let entered = self.filter().rundown.enter();
            // A stop is seen by the next operation of whoever closed the handle.
            let _stopped = thread.call_driver(&self.filter().driver, "DisconnectNotifyCallback", 0, || {
                // SAFETY: the driver registered the function with this signature, and is loaded.
                unsafe { callback(cookie) }
            });
            if entered.is_ok() {
                self.filter().rundown.leave();
            }
        }
        self.server.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Disconnects every connection of a filter that is about to go.
pub(super) fn disconnect_all(thread: &Thread, filter: &Arc<Filter>) {
    for (object, _) in thread.machine().flt.objects.all() {
        if let FltObject::ClientPort(port) = object
            && Arc::ptr_eq(port.filter(), filter)
        {
            port.disconnect(thread);
        }
    }
}

extern "efiapi" fn flt_create_communication_port(
    filter: usize,
    port: Raw<usize>,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    cookie: usize,
    connect: PFLT_CONNECT_NOTIFY,
    disconnect: PFLT_DISCONNECT_NOTIFY,
    message: PFLT_MESSAGE_NOTIFY,
    max_connections: i32,
) -> NtStatus {
    let call = Call::enter();
    let filter = object::filter(&call, filter);
    if connect.is_none() || disconnect.is_none() {
        call.stop(Rule::BadArgument, "the connect and the disconnect callback are required");
    }
    let Some(attributes) = attributes.some() else {
        call.stop(Rule::BadArgument, "the object attributes are required");
    };
    let attributes = attributes.read();
    if filter.rundown.is_ending() {
        return NtStatus::FLT_DELETING_OBJECT;
    }
    let built = (|| {
        if attributes.Attributes & ObjectFlags::KERNEL_HANDLE.bits() == 0 || max_connections <= 0 {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        let name = unicode::name(Raw::<UNICODE_STRING>::of(attributes.ObjectName))?;
        if name.is_empty() {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        let access = match Raw::of(attributes.SecurityDescriptor).address() {
            // Without a descriptor the creator's default list applies: the system's.
            0 => security::administrators_only(fltmgr::raw::FLT_PORT_ALL_ACCESS),
            address => security::capture(address)?,
        };
        Ok(ServerPort {
            address: ObjectTable::reserve(call.machine())?,
            filter: Arc::clone(&filter),
            name,
            cookie,
            connect,
            disconnect,
            message,
            access,
            case_sensitive: attributes.Attributes & ObjectFlags::CASE_INSENSITIVE.bits() == 0,
            max_connections,
            connections: AtomicI32::new(0),
            connecting: Rundown::default(),
        })
    })();
    match built.and_then(|built| name_port(call.machine(), Arc::new(built))) {
        Ok(created) => {
            call.detail(&created.name);
            port.write(created.address);
            filter.lock().ports.push(created);
            NtStatus::SUCCESS
        }
        Err(status) => {
            call.detail(status);
            status
        }
    }
}

/// Puts the port into the namespace.
fn name_port(machine: &Inner, port: Arc<ServerPort>) -> Result<Arc<ServerPort>, NtStatus> {
    let objects = machine.nt.objects();
    let object = objects.create(BODY, Arc::new(PortObject(Arc::clone(&port))))?;
    objects.namespace().insert_object(&port.name, &object)?;
    machine.flt.objects.insert(port.address, FltObject::ServerPort(Arc::clone(&port)));
    Ok(port)
}

extern "efiapi" fn flt_close_communication_port(address: usize) {
    let call = Call::enter();
    let machine = call.machine();
    let port = match machine.flt.objects.get(address) {
        Some(FltObject::ServerPort(port)) => port,
        other => object::wrong(&call, address, "PFLT_PORT (server)", other.as_ref()),
    };
    call.detail(&port.name);
    port.connecting.start_ending();
    if port.connecting.wait_for_callbacks().is_err() {
        call.stop(Rule::Deadlock, "FltCloseCommunicationPort waits for ever: a ConnectNotifyCallback does not return");
    }
    // Nobody else removes the name while the port is open.
    let _removed = machine.nt.objects().namespace().remove_object(&port.name);
    port.filter.lock().ports.retain(|other| !Arc::ptr_eq(other, &port));
    machine.flt.objects.remove(machine, address);
}

extern "efiapi" fn flt_close_client_port(filter: usize, cell: Raw<usize>) {
    let call = Call::enter();
    let filter = object::filter(&call, filter);
    let address = cell.read();
    if address == 0 {
        call.stop(Rule::BadArgument, "*ClientPort is NULL already: the port was closed before");
    }
    let machine = call.machine();
    let port = match machine.flt.objects.get(address) {
        Some(FltObject::ClientPort(port)) => port,
        other => object::wrong(&call, address, "PFLT_PORT (client)", other.as_ref()),
    };
    if !Arc::ptr_eq(port.filter(), &filter) {
        call.stop(Rule::BadArgument, "the port belongs to another filter");
    }
    port.cut();
    machine.flt.objects.remove(machine, address);
    cell.write(0);
}

/// FilterConnectCommunicationPort: the handle in `process`.
///
/// # Errors
/// `OBJECT_NAME_NOT_FOUND` and its like, `ACCESS_DENIED` by the port's descriptor, `CONNECTION_COUNT_LIMIT`, and what the
/// driver's connect callback answers.
pub(super) fn connect(
    machine: &Arc<Inner>,
    process: &Arc<Process>,
    name: &str,
    context: &[u8],
) -> Result<usize, NtStatus> {
    let found = machine.nt.objects().namespace().lookup(name)?;
    let server = found.object.payload::<PortObject>().ok_or(NtStatus::OBJECT_TYPE_MISMATCH)?;
    let server = &server.0;
    if !found.rest.is_empty() || (server.case_sensitive && server.name != name) {
        return Err(NtStatus::OBJECT_NAME_NOT_FOUND);
    }
    security::check_connect(machine, &server.access, process)?;
    server.connecting.enter().map_err(|_| NtStatus::OBJECT_NAME_NOT_FOUND)?;
    let result = server.take_connection().and_then(|()| {
        let port = ask_driver(machine, process, server, context);
        port.inspect_err(|_| {
            server.connections.fetch_sub(1, Ordering::AcqRel);
        })
    });
    server.connecting.leave();
    match result {
        Ok(port) => {
            let object = machine.nt.objects().create(BODY, Arc::new(Connection(port)))?;
            Ok(process.handles().insert(&object, FLT_PORT_CONNECT, None))
        }
        Err(status) => Err(status),
    }
}

fn ask_driver(
    machine: &Arc<Inner>,
    process: &Arc<Process>,
    server: &Arc<ServerPort>,
    context: &[u8],
) -> Result<Arc<ClientPort>, NtStatus> {
    let callback = server.connect.ok_or(NtStatus::INVALID_PARAMETER)?;
    let port = Arc::new(ClientPort {
        address: ObjectTable::reserve(machine)?,
        server: Arc::clone(server),
        cookie: AtomicUsize::new(0),
        disconnected: AtomicBool::new(false),
        notified: AtomicBool::new(false),
        calls: Rundown::default(),
        outbox: Outbox::default(),
    });
    machine.flt.objects.insert(port.address, FltObject::ClientPort(Arc::clone(&port)));
    // The context travels in the create request: the driver sees a kernel copy, whose last byte ends a page here.
    let pages = pages_for(context.len());
    let run = if pages == 0 { 0 } else { machine.nt.arena().allocate(pages, Access::ReadWrite).unwrap_or(0) };
    let copy = if run == 0 { 0 } else { run + pages * PAGE - context.len() };
    if copy != 0 {
        Raw::<u8>::at(copy).write_bytes(context);
    }
    let pointer: PVOID = Raw::at(copy).pointer();
    let mut cookie: PVOID = std::ptr::null_mut();
    let cookie_at = &raw mut cookie;
    let status = Thread::enter(machine, |thread| {
        let before = thread.set_process(Some(Arc::clone(process)));
        let status = thread.call_driver(&server.filter.driver, "ConnectNotifyCallback", 0, || {
            // SAFETY: the driver registered the function with this signature; all it gets lives until it returns.
            unsafe {
                callback(
                    Raw::at(port.address).pointer(),
                    Raw::at(server.cookie).pointer(),
                    pointer,
                    context.len() as u32,
                    cookie_at,
                )
            }
        });
        thread.set_process(before);
        status
    });
    if run != 0 {
        machine.nt.arena().release(run, pages);
    }
    let status = status.unwrap_or(super::MACHINE_STOPPED);
    if !status.is_success() {
        machine.flt.objects.remove(machine, port.address);
        return Err(status);
    }
    port.cookie.store(Raw::of(cookie).address(), Ordering::Release);
    Ok(port)
}
