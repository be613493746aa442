//! One connection: its simulated process, its ports, its calls.

use std::collections::HashMap;
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use fltlib_socket::{Answer, Call, HResult, Incoming, Parameter, Reply, ServerConnection, WireError};
use nt_types::NtStatus;

use super::{Server, describe};
use crate::flt::program::PortConnection;
use crate::machine::{DriverError, PlugInError};
use crate::process::{Process, Token};
use crate::thread::Thread;

/// A client that has said hello.
pub(super) struct Session<'a> {
    server: &'a Server,
    process: Arc<Process>,
    administrator: bool,
    /// Open ports by handle value.
    ports: HashMap<u64, PortConnection>,
}

/// A reply, and the raw bytes that go with it.
type Outcome = Result<(Answer, Vec<u8>), Refusal>;

/// Why a call failed.
#[derive(Debug)]
struct Refusal {
    hresult: HResult,
    message: String,
}

impl Refusal {
    fn new(hresult: HResult, message: impl Into<String>) -> Self {
        Self { hresult, message: message.into() }
    }
}

impl From<NtStatus> for Refusal {
    fn from(status: NtStatus) -> Self {
        Self::new(HResult::from_status(status), String::new())
    }
}

impl From<DriverError> for Refusal {
    fn from(error: DriverError) -> Self {
        Self::new(HResult::from_status(error.status()), error.to_string())
    }
}

impl From<PlugInError> for Refusal {
    fn from(error: PlugInError) -> Self {
        match error {
            PlugInError::Driver(error) => error.into(),
            PlugInError::Adapter(error) => Self::new(HResult::DEVICE_NOT_AVAILABLE, error.to_string()),
        }
    }
}

impl<'a> Session<'a> {
    /// Serves a connection from hello to its end.
    pub(super) fn serve(server: &'a Server, stream: UnixStream) -> Result<(), WireError> {
        let mut connection = ServerConnection::accept(stream)?;
        let administrator = connection.administrator();
        let token = if administrator { Token::Administrator } else { Token::User };
        let process = server.machine.process(connection.image_name()).token(token).start();
        let process = process.map_err(|status| std::io::Error::other(status.to_string()))?;
        let process_id = u32::try_from(process.id()).unwrap_or(u32::MAX);
        let mut session = Session { server, process, administrator, ports: HashMap::new() };
        let result = connection.welcome(process_id).and_then(|()| session.answer_all(&mut connection));
        session.end();
        result
    }

    fn answer_all(&mut self, connection: &mut ServerConnection) -> Result<(), WireError> {
        while let Some(request) = connection.read_request()? {
            let id = request.id;
            let shutdown = matches!(request.call, Call::Shutdown);
            let outcome = self.answer(request);
            let done = outcome.is_ok();
            let (reply, data) = match outcome {
                Ok((answer, data)) => (Reply::success(answer), data),
                Err(refusal) => (Reply::failure(refusal.hresult, self.explain(refusal.message)), Vec::new()),
            };
            connection.write_reply(id, &reply, &data)?;
            if shutdown && done {
                self.server.stop();
                return Ok(());
            }
        }
        Ok(())
    }

    /// Where the machine has stopped, its finding says more than any status.
    fn explain(&self, message: String) -> String {
        match self.server.machine.finding() {
            Some(finding) if message.is_empty() => format!("the machine stopped: {finding}"),
            _ => message,
        }
    }

    fn answer(&mut self, request: Incoming) -> Outcome {
        let machine = &self.server.machine;
        let done = Ok((Answer::Done, Vec::new()));
        match request.call {
            Call::Hello { .. } => Err(Refusal::new(HResult::INVALID_PARAMETER, "hello was said already")),
            Call::FilterLoad { service } => {
                self.require_privilege()?;
                machine.load_driver(&service)?;
                done
            }
            Call::FilterUnload { service } => {
                self.require_privilege()?;
                if machine.inner().flt.filter_named(&service).is_none() {
                    return Err(NtStatus::FLT_FILTER_NOT_FOUND.into());
                }
                machine.unload_driver(&service, false)?;
                done
            }
            Call::LoadDriver { driver } => {
                self.require_privilege()?;
                machine.load_driver(&driver)?;
                done
            }
            Call::UnloadDriver { driver } => {
                self.require_privilege()?;
                machine.unload_driver(&driver, true)?;
                done
            }
            Call::FilterConnectCommunicationPort { port_name, options } => {
                self.connect(&port_name, options, &request.data)
            }
            Call::FilterSendMessage { port, out_length } => self.send(port, out_length, &request.data),
            Call::CloseHandle { port } => {
                let closed = self.ports.remove(&port);
                closed.map(|_closed| (Answer::Done, Vec::new())).ok_or_else(|| NtStatus::INVALID_HANDLE.into())
            }
            Call::AddAdapter { driver, name, parameters } => {
                self.require_privilege()?;
                self.add_adapter(&driver, &name, parameters)
            }
            Call::RemoveAdapter { name } => {
                self.require_privilege()?;
                let adapter = self.server.adapters().remove(&name);
                let adapter =
                    adapter.ok_or_else(|| Refusal::new(HResult::FILE_NOT_FOUND, format!("no adapter {name}")))?;
                adapter.remove().map_err(|error| Refusal::from(PlugInError::from(error)))?;
                done
            }
            Call::Status => Ok((Answer::Status(describe::status(machine)), Vec::new())),
            Call::UnloadReports => {
                let reports = machine.unload_reports().iter().map(describe::report).collect();
                Ok((Answer::UnloadReports { reports }, Vec::new()))
            }
            Call::Trace { since, limit } => Ok((describe::trace(machine, since, limit), Vec::new())),
            Call::Target => match describe::target(machine) {
                Some(target) => Ok((Answer::Target(target), Vec::new())),
                None => Err(Refusal::new(HResult::FILE_NOT_FOUND, "the machine has no volume")),
            },
            Call::Shutdown => {
                self.require_privilege()?;
                done
            }
        }
    }

    /// SeLoadDriverPrivilege, which only administrators hold.
    fn require_privilege(&self) -> Result<(), Refusal> {
        if self.administrator {
            return Ok(());
        }
        Err(Refusal::new(HResult::PRIVILEGE_NOT_HELD, "the process's token does not hold SeLoadDriverPrivilege"))
    }

    fn connect(&mut self, port_name: &str, options: u32, context: &[u8]) -> Outcome {
        /// `FLT_PORT_FLAG_SYNC_HANDLE`: all there is, since calls over the socket are synchronous.
        const SYNC_HANDLE: u32 = 1;
        if options & !SYNC_HANDLE != 0 {
            return Err(Refusal::new(HResult::INVALID_PARAMETER, "unknown option"));
        }
        let connection = self.process.connect(port_name, context)?;
        let port = connection.handle() as u64;
        self.ports.insert(port, connection);
        Ok((Answer::Port { port }, Vec::new()))
    }

    fn send(&self, port: u64, out_length: u32, input: &[u8]) -> Outcome {
        if out_length > fltlib_socket::frame::MAX_DATA_BYTES {
            return Err(Refusal::new(HResult::INVALID_PARAMETER, "the output buffer is larger than a frame"));
        }
        let connection = self.ports.get(&port).ok_or(NtStatus::INVALID_HANDLE)?;
        let output = connection.send_message(input, out_length as usize)?;
        Ok((Answer::Message { bytes_returned: output.len() as u32 }, output))
    }

    fn add_adapter(
        &self,
        driver: &str,
        name: &str,
        parameters: std::collections::BTreeMap<String, Parameter>,
    ) -> Outcome {
        let taken = self.server.machine.inner().ndis.adapters().iter().any(|(known, ..)| known == name);
        if taken {
            return Err(Refusal::new(HResult::ALREADY_EXISTS, format!("there is an adapter {name} already")));
        }
        let texts: Vec<(String, String)> = parameters
            .into_iter()
            .map(|(key, value)| match value {
                Parameter::Dword(number) => (key, number.to_string()),
                Parameter::Text(text) => (key, text),
            })
            .collect();
        let borrowed: Vec<(&str, &str)> = texts.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let adapter = self.server.machine.plug_in(driver, name, &borrowed)?;
        self.server.adapters().insert(name.to_owned(), adapter);
        Ok((Answer::Done, Vec::new()))
    }

    /// The process ends; what it still holds is closed in its own context.
    fn end(self) {
        Thread::enter(self.server.machine.inner(), |thread| {
            let before = thread.set_process(Some(Arc::clone(&self.process)));
            self.process.exit();
            thread.set_process(before);
        });
    }
}
