//! Ports, the program's side: what fltlib's functions do in a simulated process.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use nt_types::NtStatus;

use super::message::Message;
use super::object::Rundown;
use super::port::{self, ClientPort, Connection};
use crate::finding::Rule;
use crate::machine::{Inner, Machine};
use crate::nt::arena::PAGE;
use crate::nt::raw::Raw;
use crate::process::{HIGHEST_USER_ADDRESS, Placement, Process, Protection};
use crate::thread::Thread;

/// An open port in a simulated process. Dropping it closes the handle.
#[derive(Debug)]
pub struct PortConnection {
    process: Arc<Process>,
    handle: usize,
}

/// A callback under way.
struct Calling<'a>(&'a Rundown);

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// What `ProbeForRead` and `ProbeForWrite` check: the range ends in the user part of the address space.
fn probe(address: usize, length: u32) -> Result<(), NtStatus> {
    // They check nothing for a length of 0.
    let end = address.checked_add(length as usize);
    let in_range = length == 0 || end.is_some_and(|end| end <= HIGHEST_USER_ADDRESS + 1);
    if in_range { Ok(()) } else { Err(NtStatus::ACCESS_VIOLATION) }
}

impl Process {
    /// FilterConnectCommunicationPort: connects to `port_name` (such as `\FwBrokerPort`), with `context` for the driver.
    ///
    /// # Errors
    /// `OBJECT_NAME_NOT_FOUND` without such a port, `ACCESS_DENIED` when its descriptor does not let this token in,
    /// `CONNECTION_COUNT_LIMIT`, `INVALID_PARAMETER` for a context above 65,535 bytes, or the driver's own answer.
    pub fn connect(self: &Arc<Self>, port_name: &str, context: &[u8]) -> Result<PortConnection, NtStatus> {
        let machine = self.machine().ok_or(NtStatus::PROCESS_IS_TERMINATING)?;
        if context.len() > usize::from(u16::MAX) {
            return Err(NtStatus::INVALID_PARAMETER);
        }
        if self.has_exited() {
            return Err(NtStatus::PROCESS_IS_TERMINATING);
        }
        let handle = port::connect(&machine, self, port_name, context)?;
        Ok(PortConnection { process: Arc::clone(self), handle })
    }
}

impl PortConnection {
    /// The handle's value in the process.
    #[must_use]
    pub fn handle(&self) -> usize {
        self.handle
    }

    /// FilterSendMessage with buffers allocated in the process: the output that the driver returned.
    ///
    /// # Errors
    /// As [`send_raw`](Self::send_raw).
    pub fn send_message(&self, input: &[u8], output_length: usize) -> Result<Vec<u8>, NtStatus> {
        let input = self.process.buffer(input)?;
        let output = self.process.allocate(output_length, Protection::ReadWrite, Placement::Aligned)?;
        let output_at = if output_length == 0 { 0 } else { output.address() };
        let length = u32::try_from(output_length).map_err(|_| NtStatus::INVALID_PARAMETER)?;
        let returned = self.send_raw(input.address(), input.len() as u32, output_at, length)?;
        let mut bytes = output.read()?;
        bytes.truncate(returned as usize);
        Ok(bytes)
    }

    /// FilterSendMessage with any addresses and lengths: bytes returned.
    ///
    /// Both ranges are probed against the end of user memory, unless their length is 0; nothing else is checked, and the
    /// driver gets the addresses as they are.
    ///
    /// # Errors
    /// `ACCESS_VIOLATION` by the probe, `INVALID_HANDLE`, `PORT_DISCONNECTED`, `INVALID_DEVICE_REQUEST` when the driver takes no
    /// messages, or the driver's own answer when that is a warning or an error.
    pub fn send_raw(
        &self,
        input: usize,
        input_length: u32,
        output: usize,
        output_length: u32,
    ) -> Result<u32, NtStatus> {
        let port = self.port()?;
        probe(input, input_length)?;
        probe(output, output_length)?;
        let callback = port.server.message.ok_or(NtStatus::INVALID_DEVICE_REQUEST)?;
        let machine = self.process.machine().ok_or(NtStatus::PROCESS_IS_TERMINATING)?;
        // The filter's end waits for the callback, and none begins after a disconnect.
        port.calls.enter().map_err(|_| NtStatus::PORT_DISCONNECTED)?;
        let _calling = Calling(&port.calls);
        port.filter().rundown.enter()?;
        let calling = Calling(&port.filter().rundown);
        let (mut returned, driver) = (0u32, &port.filter().driver);
        let returned_at = &raw mut returned;
        let cookie = port.cookie();
        self.let_pages_vanish(&machine, &driver.name, [(input, input_length), (output, output_length)]);
        let status = Thread::enter(&machine, |thread| {
            let before = thread.set_process(Some(Arc::clone(&self.process)));
            let status = thread.call_driver(driver, "MessageNotifyCallback", 0, || {
                // SAFETY: the driver registered the function with this signature; that the buffers are raw user addresses is its
                // contract.
                unsafe {
                    callback(
                        cookie,
                        Raw::at(input).pointer(),
                        input_length,
                        Raw::at(output).pointer(),
                        output_length,
                        returned_at,
                    )
                }
            });
            thread.set_process(before);
            status
        });
        drop(calling);
        let status = status.unwrap_or(super::MACHINE_STOPPED);
        if status.is_success() && returned > output_length {
            let message = format!("{returned} bytes returned in an output buffer of {output_length}");
            super::record(&machine, driver, "MessageNotifyCallback", Rule::BadArgument, message);
            return Err(super::MACHINE_STOPPED);
        }
        status.ok()?;
        Ok(returned)
    }

    /// Fault injection: another thread of the program frees a page of a buffer after the probe, for each buffer at its
    /// start and at its end, where that is another page.
    fn let_pages_vanish(&self, machine: &Inner, driver: &str, buffers: [(usize, u32); 2]) {
        const WHAT: [[&str; 2]; 2] = [
            ["the start of the input buffer vanishes", "the end of the input buffer vanishes"],
            ["the start of the output buffer vanishes", "the end of the output buffer vanishes"],
        ];
        for ((start, length), what) in buffers.into_iter().zip(WHAT) {
            let Some(last) = start.checked_add(length.saturating_sub(1) as usize).filter(|_| length != 0) else {
                continue;
            };
            let ends: &[usize] = if start / PAGE == last / PAGE { &[start] } else { &[start, last] };
            for (address, what) in ends.iter().zip(what) {
                if machine.faults.of_callback(driver, "MessageNotifyCallback", what) {
                    // A page that the program never had is as good as gone.
                    let _vanished = self.process.memory().protect(*address, 1, Protection::NoAccess);
                }
            }
        }
    }

    /// FilterGetMessage: the driver's next message, waited for at most `patience`.
    ///
    /// # Errors
    /// `TIMEOUT` when none came, `PORT_DISCONNECTED`, `INVALID_HANDLE`.
    pub fn get_message(&self, patience: Duration) -> Result<Message, NtStatus> {
        let port = self.port()?;
        port.outbox.fetch(&port, patience)
    }

    /// FilterReplyMessage.
    ///
    /// # Errors
    /// `FLT_NO_WAITER_FOR_REPLY` when nobody waits for the reply (any more), `INVALID_HANDLE`.
    pub fn reply(&self, id: u64, status: NtStatus, data: &[u8]) -> Result<(), NtStatus> {
        self.port()?.outbox.reply(id, status, data.to_vec())
    }

    fn port(&self) -> Result<Arc<ClientPort>, NtStatus> {
        let entry = self.process.handles().reference(self.handle, 0, Some("FilterCommunicationPort"))?;
        let connection = entry.object.payload::<Connection>().ok_or(NtStatus::OBJECT_TYPE_MISMATCH)?;
        Ok(Arc::clone(&connection.0))
    }
}

impl Drop for PortConnection {
    fn drop(&mut self) {
        // Fails only when the process exited meanwhile, which closed the handle.
        if let Some(machine) = self.process.machine() {
            Thread::enter(&machine, |thread| {
                let before = thread.set_process(Some(Arc::clone(&self.process)));
                let _closed = self.process.close_handle(self.handle);
                thread.set_process(before);
            });
        }
    }
}

/// A registered filter, for lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterSummary {
    /// Service name.
    pub name: String,
    /// Altitude of its default instance.
    pub altitude: String,
    /// Device names of the volumes it is attached to.
    pub volumes: Vec<String>,
    /// Whether it has called FltStartFiltering.
    pub filtering: bool,
    /// Its open server ports.
    pub ports: Vec<PortSummary>,
}

/// An open server port, for lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortSummary {
    /// Name in the namespace.
    pub name: String,
    /// Connections that exist now.
    pub connections: u32,
    /// Most connections at the same time.
    pub max_connections: u32,
}

impl Machine {
    /// The registered filters.
    #[must_use]
    pub fn filters(&self) -> Vec<FilterSummary> {
        let filters = self.inner().flt.filters().clone();
        let describe = |filter: &Arc<super::Filter>| {
            let state = filter.lock();
            FilterSummary {
                name: filter.name.clone(),
                altitude: filter.definitions.first().map(|first| first.altitude.text().to_owned()).unwrap_or_default(),
                volumes: state.instances.iter().map(|instance| instance.volume.volume.device_name()).collect(),
                filtering: filter.started.load(Ordering::Acquire),
                ports: state
                    .ports
                    .iter()
                    .map(|port| PortSummary {
                        name: port.name.clone(),
                        connections: port.connections(),
                        max_connections: port.max_connections(),
                    })
                    .collect(),
            }
        };
        filters.iter().map(describe).collect()
    }

    /// FilterDetach: takes a filter off a volume, when it agrees.
    ///
    /// # Errors
    /// `FLT_FILTER_NOT_FOUND`, `FLT_INSTANCE_NOT_FOUND`, `FLT_DO_NOT_DETACH`, or the filter's own answer.
    pub fn filter_detach(&self, filter: &str, drive: &str) -> Result<(), NtStatus> {
        let machine = self.inner();
        let filter = machine.flt.filter_named(filter).ok_or(NtStatus::FLT_FILTER_NOT_FOUND)?;
        let letter = drive.chars().next().map(|letter| letter.to_ascii_uppercase());
        let instances = filter.lock().instances.clone();
        let instance = instances.into_iter().find(|instance| Some(instance.volume.volume.letter) == letter);
        let instance = instance.ok_or(NtStatus::FLT_INSTANCE_NOT_FOUND)?;
        Thread::enter(machine, |thread| super::instance::detach_manually(thread, &instance))
    }
}
