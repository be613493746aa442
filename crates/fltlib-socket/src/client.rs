//! The client: one connection, which is one simulated process.

use std::collections::BTreeMap;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::call::{Answer, Call, Parameter, Reply};
use crate::frame::{Frame, FrameKind, read_frame, write_frame};
use crate::status::{MachineStatus, Target, TraceEntry, UnloadReport};
use crate::{HResult, WireError};

/// A connection to kernel-host. Calls block, and give up when the time is up.
///
/// After an error of the wire the connection is of no use any more: what comes next on it is unknown. It says so from
/// then on with [`WireError::Broken`].
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    next_id: u64,
    broken: bool,
    process_id: u32,
    administrator: bool,
}

/// Result of a call that got through: what it gave back, or the refusal with the host's text for people.
pub type Sent<T> = Result<T, (HResult, String)>;

impl Connection {
    /// Connects to the socket at `path` as a process of the image `image_name`, with an administrator's token where the
    /// server allows it. Each call may take as long as `timeout`.
    pub fn connect(path: &Path, image_name: &str, administrator: bool, timeout: Duration) -> Result<Self, WireError> {
        let stream = UnixStream::connect(path)?;
        stream.set_read_timeout(Some(timeout))?;
        stream.set_write_timeout(Some(timeout))?;
        Self::over(stream, image_name, administrator)
    }

    /// Says hello over a stream that is connected already.
    pub fn over(stream: UnixStream, image_name: &str, administrator: bool) -> Result<Self, WireError> {
        let mut connection = Self { stream, next_id: 1, broken: false, process_id: 0, administrator: false };
        let hello = Call::Hello { image_name: image_name.into(), process_id: std::process::id(), administrator };
        match connection.call(&hello, &[])?.json.answer {
            Answer::Process { process_id, administrator } => {
                connection.process_id = process_id;
                connection.administrator = administrator;
                Ok(connection)
            }
            _ => Err(WireError::OutOfTurn),
        }
    }

    /// Process id that the client has inside the machine.
    #[must_use]
    pub const fn process_id(&self) -> u32 {
        self.process_id
    }

    /// Whether the server gave the process an administrator's token.
    #[must_use]
    pub const fn administrator(&self) -> bool {
        self.administrator
    }

    /// `FilterLoad`.
    pub fn filter_load(&mut self, service: &str) -> Result<Sent<()>, WireError> {
        self.done(&Call::FilterLoad { service: service.into() })
    }

    /// `FilterUnload`.
    pub fn filter_unload(&mut self, service: &str) -> Result<Sent<()>, WireError> {
        self.done(&Call::FilterUnload { service: service.into() })
    }

    /// `FilterConnectCommunicationPort`; returns the port's handle.
    pub fn filter_connect_communication_port(
        &mut self,
        port_name: &str,
        options: u32,
        context: &[u8],
    ) -> Result<Sent<u64>, WireError> {
        let call = Call::FilterConnectCommunicationPort { port_name: port_name.into(), options };
        self.call(&call, context)?.json.expect(|answer| match answer {
            Answer::Port { port } => Some(port),
            _ => None,
        })
    }

    /// `FilterSendMessage`; returns the bytes that the driver wrote.
    pub fn filter_send_message(
        &mut self,
        port: u64,
        input: &[u8],
        out_length: u32,
    ) -> Result<Sent<Vec<u8>>, WireError> {
        let frame = self.call(&Call::FilterSendMessage { port, out_length }, input)?;
        let data = frame.data;
        frame.json.expect(|answer| match answer {
            Answer::Message { bytes_returned }
                if bytes_returned <= out_length && data.len() == bytes_returned as usize =>
            {
                Some(data)
            }
            _ => None,
        })
    }

    /// `CloseHandle` of a port.
    pub fn close_handle(&mut self, port: u64) -> Result<Sent<()>, WireError> {
        self.done(&Call::CloseHandle { port })
    }

    /// What there is in the machine.
    pub fn status(&mut self) -> Result<Sent<MachineStatus>, WireError> {
        self.call(&Call::Status, &[])?.json.expect(|answer| match answer {
            Answer::Status(status) => Some(status),
            _ => None,
        })
    }

    /// Starts a driver that is no minifilter.
    pub fn load_driver(&mut self, driver: &str) -> Result<Sent<()>, WireError> {
        self.done(&Call::LoadDriver { driver: driver.into() })
    }

    /// Stops a driver that is no minifilter.
    pub fn unload_driver(&mut self, driver: &str) -> Result<Sent<()>, WireError> {
        self.done(&Call::UnloadDriver { driver: driver.into() })
    }

    /// Plugs in a network adapter.
    pub fn add_adapter(
        &mut self,
        driver: &str,
        name: &str,
        parameters: BTreeMap<String, Parameter>,
    ) -> Result<Sent<()>, WireError> {
        self.done(&Call::AddAdapter { driver: driver.into(), name: name.into(), parameters })
    }

    /// Unplugs a network adapter.
    pub fn remove_adapter(&mut self, name: &str) -> Result<Sent<()>, WireError> {
        self.done(&Call::RemoveAdapter { name: name.into() })
    }

    /// What unloaded drivers have left behind, oldest first.
    pub fn unload_reports(&mut self) -> Result<Sent<Vec<UnloadReport>>, WireError> {
        self.call(&Call::UnloadReports, &[])?.json.expect(|answer| match answer {
            Answer::UnloadReports { reports } => Some(reports),
            _ => None,
        })
    }

    /// DDI calls from sequence number `since` on, at most `limit`, and where to go on.
    pub fn trace(&mut self, since: u64, limit: u32) -> Result<Sent<(Vec<TraceEntry>, u64)>, WireError> {
        self.call(&Call::Trace { since, limit }, &[])?.json.expect(|answer| match answer {
            Answer::Trace { entries, next } => Some((entries, next)),
            _ => None,
        })
    }

    /// Where the machine's files are on the host.
    pub fn target(&mut self) -> Result<Sent<Target>, WireError> {
        self.call(&Call::Target, &[])?.json.expect(|answer| match answer {
            Answer::Target(target) => Some(target),
            _ => None,
        })
    }

    /// Stops the machine.
    pub fn shutdown(&mut self) -> Result<Sent<()>, WireError> {
        self.done(&Call::Shutdown)
    }

    fn done(&mut self, call: &Call) -> Result<Sent<()>, WireError> {
        self.call(call, &[])?.json.expect(|answer| matches!(answer, Answer::Done).then_some(()))
    }

    fn call(&mut self, call: &Call, data: &[u8]) -> Result<Frame<Reply>, WireError> {
        if std::mem::replace(&mut self.broken, true) {
            return Err(WireError::Broken);
        }
        let id = self.next_id;
        self.next_id += 1;
        write_frame(&mut self.stream, FrameKind::Request, id, call, data)?;
        let frame = read_frame(&mut self.stream, FrameKind::Reply)?.ok_or(WireError::Ended)?;
        if frame.id != id {
            return Err(WireError::OutOfTurn);
        }
        self.broken = false;
        Ok(frame)
    }
}
