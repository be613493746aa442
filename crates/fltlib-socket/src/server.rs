//! The server's half: what kernel-host needs to serve clients, framing and identity included.

use std::io;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use crate::call::{Answer, Call, Reply};
use crate::frame::{FrameKind, MAX_DATA_BYTES, read_frame, write_frame};
use crate::{HResult, WireError};

/// How long a new connection may take to say hello, and any client to take its reply. A request itself may come any time later.
const PATIENCE: Duration = Duration::from_secs(10);

/// One client, which has said hello.
#[derive(Debug)]
pub struct ServerConnection {
    stream: UnixStream,
    hello_id: u64,
    image_name: String,
    client_process_id: u32,
    administrator: bool,
}

/// One request, which must get exactly one reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Goes back with the reply.
    pub id: u64,
    /// What is asked for. Never hello.
    pub call: Call,
    /// Context or message bytes.
    pub data: Vec<u8>,
}

/// Listens at `path`, taking the place of a socket that nobody listens at any more.
///
/// A socket somebody does listen at stays theirs: the error is `AddrInUse`.
pub fn bind(path: &Path) -> io::Result<UnixListener> {
    match UnixListener::bind(path) {
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            // Only a refusal proves that the socket is dead; anything else is not ours to remove.
            match UnixStream::connect(path) {
                Err(refused) if refused.kind() == io::ErrorKind::ConnectionRefused => {
                    std::fs::remove_file(path)?;
                    UnixListener::bind(path)
                }
                _ => Err(error),
            }
        }
        other => other,
    }
}

impl ServerConnection {
    /// Waits for hello on a stream just accepted, and decides what its process may do.
    ///
    /// It is an administrator where it asks to be, and the peer's user is root or the one that runs the machine. The kernel
    /// recorded that user when the peer connected; nothing that the client sends can change it.
    pub fn accept(mut stream: UnixStream) -> Result<Self, WireError> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let peer = rustix::net::sockopt::socket_peercred(&stream).map_err(io::Error::from)?;
        let trusted = peer.uid.is_root() || peer.uid == rustix::process::geteuid();
        let frame = read_frame::<Call>(&mut stream, FrameKind::Request)?.ok_or(WireError::Ended)?;
        let Call::Hello { image_name, process_id, administrator } = frame.json else {
            let refusal = Reply::failure(HResult::INVALID_PARAMETER, "the first call must be hello");
            write_frame(&mut stream, FrameKind::Reply, frame.id, &refusal, &[])?;
            return Err(WireError::OutOfTurn);
        };
        stream.set_read_timeout(None)?;
        Ok(Self {
            stream,
            hello_id: frame.id,
            image_name,
            client_process_id: process_id,
            administrator: administrator && trusted,
        })
    }

    /// Image name that the client gave itself, such as `fwbctl.exe`.
    #[must_use]
    pub fn image_name(&self) -> &str {
        &self.image_name
    }

    /// Process id that the client says it has on its own system.
    #[must_use]
    pub const fn client_process_id(&self) -> u32 {
        self.client_process_id
    }

    /// Whether the simulated process gets an administrator's token.
    #[must_use]
    pub const fn administrator(&self) -> bool {
        self.administrator
    }

    /// Answers hello, now that the simulated process exists.
    pub fn welcome(&mut self, process_id: u32) -> Result<(), WireError> {
        let answer = Answer::Process { process_id, administrator: self.administrator };
        self.write_reply(self.hello_id, &Reply::success(answer), &[])
    }

    /// The next request; `None` when the client has ended the connection. An output buffer above
    /// [`MAX_DATA_BYTES`] is an error.
    pub fn read_request(&mut self) -> Result<Option<Incoming>, WireError> {
        let Some(frame) = read_frame(&mut self.stream, FrameKind::Request)? else {
            return Ok(None);
        };
        match frame.json {
            Call::Hello { .. } => return Err(WireError::OutOfTurn),
            // The output could not be sent back, so the host need not even make room for it.
            Call::FilterSendMessage { out_length, .. } if out_length > MAX_DATA_BYTES => {
                return Err(WireError::TooLarge { bytes: out_length.into(), limit: MAX_DATA_BYTES });
            }
            _ => {}
        }
        Ok(Some(Incoming { id: frame.id, call: frame.json, data: frame.data }))
    }

    /// Answers the request `id`. `data` is the output of a message, else empty.
    pub fn write_reply(&mut self, id: u64, reply: &Reply, data: &[u8]) -> Result<(), WireError> {
        write_frame(&mut self.stream, FrameKind::Reply, id, reply, data)
    }

    /// A second handle to the stream, with which another thread can end a wait in
    /// [`read_request`](Self::read_request) by shutting the stream down.
    pub fn stream(&self) -> io::Result<UnixStream> {
        self.stream.try_clone()
    }
}
