//! A driver in a few lines, that speaks the real protocol over an in-process port. It exists to show what the
//! program makes of answers; whether the driver gives them is what the system tests show.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::rc::Rc;

use fwbctl::{Error, FilterLibrary, HResult, Hasher, LibraryError, Port};
use protocol::{
    BufferTooSmall, Detail, HandleEntry, HelloReply, Kind, ListEntry, ListWriter, Name, OpenReply, Phase, QueryReply,
    Quota, ReadReply, ReadRequest, Reason, Request, RequestBody, RevokeReply, RevokeRequest, RevokeScope, SessionEntry,
    StageReply, StageRequest, Target, UnstageReply, wire, write_close, write_failure,
};

/// State shared by the library, its ports and the test.
#[derive(Default)]
pub(crate) struct State {
    /// Files by NT path.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// Staged images: number, name, bytes.
    pub(crate) images: Vec<(u64, String, Vec<u8>)>,
    /// Open handles: path of each.
    pub(crate) handles: BTreeMap<u64, String>,
    /// Only the port for users lets anybody in, and administrators' requests are refused.
    pub(crate) only_users: bool,
    /// HRESULT with which load, unload and connect fail.
    pub(crate) fail_calls: Option<u32>,
    /// Changes the bytes that reads return, from the second pass over a file on.
    pub(crate) tamper: bool,
    /// Where `NdisOpenFile` looks.
    pub(crate) drivers_folder: PathBuf,
    /// Requests seen, by kind.
    pub(crate) seen: Vec<&'static str>,
    /// Bytes sent back instead of the next reply.
    pub(crate) garbage: Option<Vec<u8>>,
    next: u64,
    passes: u32,
}

#[derive(Clone, Default)]
pub(crate) struct Fake(pub(crate) Rc<RefCell<State>>);

impl Fake {
    pub(crate) fn with_file(path: &str, bytes: &[u8]) -> Self {
        let fake = Self::default();
        fake.0.borrow_mut().files.insert(path.into(), bytes.into());
        fake
    }

    /// Runs the program; returns exit code, standard output, standard error.
    pub(crate) fn run(&self, args: &[&str]) -> (u8, String, String) {
        use clap::Parser as _;
        let cli = fwbctl::cli::Cli::try_parse_from([&["fwbctl"], args].concat()).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut library = || -> Result<Box<dyn FilterLibrary>, Error> { Ok(Box::new(self.clone())) };
        let code = fwbctl::cli::run(&cli, &mut library, &mut out, &mut err);
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    /// Runs the program with `--json`; returns exit code and the object.
    pub(crate) fn json(&self, args: &[&str]) -> (u8, serde_json::Value) {
        let (code, out, err) = self.run(&[args, &["--json"]].concat());
        assert_eq!(err, "", "JSON mode prints nothing beside the object");
        (code, serde_json::from_str(&out).unwrap())
    }

    fn outcome(&self) -> Result<(), LibraryError> {
        match self.0.borrow().fail_calls {
            Some(bits) => Err(LibraryError::Failed { hresult: HResult(bits.cast_signed()), text: String::new() }),
            None => Ok(()),
        }
    }
}

impl FilterLibrary for Fake {
    fn load(&mut self, _: &str) -> Result<(), LibraryError> {
        self.outcome()
    }

    fn unload(&mut self, _: &str) -> Result<(), LibraryError> {
        self.outcome()
    }

    fn connect(&mut self, port_name: &str) -> Result<Box<dyn Port>, LibraryError> {
        match (port_name, self.0.borrow().only_users) {
            (protocol::PORT_NAME, true) => return Err(denied()),
            (protocol::PORT_NAME | protocol::USER_PORT_NAME, _) => {}
            (other, _) => panic!("there is no port {other}"),
        }
        self.outcome().map(|()| Box::new(self.clone()) as Box<dyn Port>)
    }

    fn drivers_folder(&mut self) -> Result<PathBuf, LibraryError> {
        Ok(self.0.borrow().drivers_folder.clone())
    }
}

fn denied() -> LibraryError {
    LibraryError::Failed { hresult: HResult(0x8007_0005_u32.cast_signed()), text: String::new() }
}

impl Port for Fake {
    fn send_message(&mut self, input: &[u8], out_length: u32) -> Result<Vec<u8>, LibraryError> {
        let mut out = vec![0; out_length as usize];
        let request = Request::parse(input).unwrap();
        let state = &mut *self.0.borrow_mut();
        state.seen.push(request.body.kind().name());
        if let Some(garbage) = state.garbage.take() {
            return Ok(garbage);
        }
        let used = match state.answer(request.id, &request.body, &mut out) {
            Ok(used) => used,
            Err((status, reason, phase)) => {
                let kind = request.body.kind().code();
                let detail = Detail::new(phase, 0);
                let status = status.cast_signed();
                write_failure(&mut out, kind, request.id, status, Some(reason), detail).unwrap()
            }
        };
        out.truncate(used);
        Ok(out)
    }
}

/// Session and process that all handles belong to.
const SESSION: u64 = 7;
const PROCESS: u64 = 4711;

/// NTSTATUS bits, reason, phase.
type Refusal = (u32, Reason, Option<Phase>);

impl State {
    /// Most bytes one read returns; small, so that reads take several pieces.
    pub(crate) const PIECE: u32 = 1000;

    fn answer(&mut self, id: u64, body: &RequestBody<'_>, out: &mut [u8]) -> Result<usize, Refusal> {
        Ok(match body {
            RequestBody::Hello(_) => HelloReply {
                version: 1,
                driver: [0, 1, 0],
                policy: 1,
                max_request_bytes: protocol::MAX_REQUEST_BYTES,
                max_read_bytes: Self::PIECE,
                max_image_bytes: 1 << 26,
                max_name_bytes: protocol::MAX_NAME_BYTES,
                max_handles_per_session: 16,
                max_staged_bytes: 1 << 28,
                session_id: 7,
            }
            .write(out, id),
            RequestBody::Open(open) => {
                let path = text(open.name);
                let size = self.file(&path)?.len() as u64;
                self.next += 1;
                self.handles.insert(self.next, path);
                OpenReply { handle: self.next, size }.write(out, id)
            }
            RequestBody::Query(handle) => QueryReply {
                size: self.file(&self.path(*handle)?)?.len() as u64,
                allocation_size: 4096,
                change_time: 133_800_768_000_000_000,
                volume_serial: 0x1234_ABCD,
                file_id: 0x123_u128.to_le_bytes(),
                attributes: 0x20,
                number_of_links: 1,
                kind: 1,
            }
            .write(out, id),
            RequestBody::Read(read) => self.read(read, id, out)?,
            RequestBody::Close(handle) => {
                self.path(*handle)?;
                self.handles.remove(handle);
                write_close(out, id)
            }
            RequestBody::Stage(stage) => self.stage(stage, id, out)?,
            RequestBody::Unstage(target) => {
                let found = self.images.iter().position(|(image_id, name, _)| match target {
                    Target::Image(wanted) => image_id == wanted,
                    Target::Name(wanted) => *name == text(*wanted),
                });
                let at = found.ok_or((0xC000_0225, Reason::ImageNotFound, None))?;
                let (image_id, _, bytes) = self.images.remove(at);
                UnstageReply { image_id, size: bytes.len() as u64 }.write(out, id)
            }
            RequestBody::List(cursor) => self.list(*cursor, id, out),
            RequestBody::Handles(_) if self.only_users => {
                return Err((0xC000_0022, Reason::NotAdministrator, None));
            }
            RequestBody::Handles(cursor) => self.list_handles(*cursor, id, out),
            RequestBody::Sessions(cursor) => {
                let mut writer = ListWriter::new(Kind::Sessions, out).unwrap();
                if *cursor < SESSION {
                    writer.push(&self.session()).unwrap();
                }
                writer.finish(id, 0, 1)
            }
            RequestBody::Revoke(revoke) => self.revoke(revoke)?.write(out, id),
        }
        .unwrap())
    }

    fn read(&mut self, read: &ReadRequest, id: u64, out: &mut [u8]) -> Result<Result<usize, BufferTooSmall>, Refusal> {
        assert!(read.length <= Self::PIECE);
        let mut data = self.file(&self.path(read.handle)?)?.clone();
        self.passes += u32::from(read.offset == 0);
        if self.tamper && self.passes > 1 {
            data[0] ^= 1;
        }
        let rest = data.get(read.offset as usize..).unwrap_or_default();
        if rest.is_empty() {
            return Err((0xC000_0011, Reason::EndOfFile, None));
        }
        let piece = &rest[..rest.len().min(read.length as usize)];
        ReadReply::data_mut(out).unwrap()[..piece.len()].copy_from_slice(piece);
        Ok(ReadReply::finish(out, id, piece.len() as u32))
    }

    fn stage(
        &mut self,
        stage: &StageRequest<'_>,
        id: u64,
        out: &mut [u8],
    ) -> Result<Result<usize, BufferTooSmall>, Refusal> {
        let path = text(stage.name);
        let bytes = self.file(&path)?.clone();
        let mut hasher = Hasher::default();
        hasher.update(&bytes);
        let sha256 = hasher.finish().0;
        match stage.sha256 {
            None => {
                return Err((0xC000_0022, Reason::DigestRequired, Some(Phase::Opening)));
            }
            Some(expected) if expected != sha256 => {
                return Err((0xC000_0428, Reason::DigestMismatch, Some(Phase::Verifying)));
            }
            Some(_) => {}
        }
        let size = bytes.len() as u64;
        let there = self.images.iter().find(|image| image.2 == bytes).map(|image| image.0);
        let image_id = there.unwrap_or(self.images.len() as u64 + 1);
        if there.is_none() {
            self.images.push((image_id, path, bytes));
        }
        let reply = StageReply { image_id, size, sha256, shared: there.is_some() };
        Ok(reply.write(out, id))
    }

    /// One entry a reply, so that the client has to follow the cursor.
    fn list(&self, cursor: u64, id: u64, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        let mut writer = ListWriter::new(Kind::List, out).unwrap();
        if let Some((image_id, name, bytes)) = self.images.get(cursor as usize) {
            let name: Vec<u16> = name.encode_utf16().collect();
            let size = bytes.len() as u64;
            let entry = ListEntry {
                image_id: *image_id,
                phase: Phase::Ready.code(),
                size,
                bytes_done: size,
                sha256: [0xab; 32],
                open_count: 1,
                name: Name::from_units(&name),
                handed_to: Name::from_bytes(b"s\0y\0s\0").unwrap(),
            };
            writer.push(&entry).unwrap();
        }
        let next = cursor + 1;
        let next = if next < self.images.len() as u64 { next } else { 0 };
        writer.finish(id, next, self.images.len() as u32)
    }

    /// One entry a reply; numbers of handles are those of the handles plus a thousand. The first page is empty.
    fn list_handles(&self, cursor: u64, id: u64, out: &mut [u8]) -> Result<usize, BufferTooSmall> {
        let mut writer = ListWriter::new(Kind::Handles, out).unwrap();
        let found = if cursor == 0 { None } else { self.handles.range(cursor..).next() };
        if let Some((handle, path)) = found {
            let name: Vec<u16> = path.encode_utf16().collect();
            let owner: Vec<u16> = r"\Device\HarddiskVolume3\agent.exe".encode_utf16().collect();
            let entry = HandleEntry {
                id: handle + 1000,
                kind: 1,
                phase: 2,
                session_id: SESSION,
                process_id: PROCESS,
                opened_at: 133_800_768_000_000_000,
                size: 8,
                pins: 1,
                owner: Name::from_units(&owner),
                name: Name::from_units(&name),
            };
            writer.push(&entry).unwrap();
        }
        let next = match (cursor, found) {
            (0, _) if !self.handles.is_empty() => 1,
            (_, Some((handle, _))) if self.handles.range(handle + 1..).next().is_some() => handle + 1,
            _ => 0,
        };
        writer.finish(id, next, self.handles.len() as u32)
    }

    fn session(&self) -> SessionEntry<'static> {
        SessionEntry {
            session_id: SESSION,
            process_id: PROCESS,
            connected_at: 133_800_768_000_000_000,
            flags: wire::SESSION_ADMINISTRATOR,
            handles: Quota { used: self.handles.len() as u32, limit: 16 },
            bytes: Quota { used: 100, limit: 1000 },
            jobs: Quota { used: 0, limit: 8 },
            requests: 1,
            revoked: 0,
            owner: Name::default(),
        }
    }

    fn revoke(&mut self, request: &RevokeRequest) -> Result<RevokeReply, Refusal> {
        let before = self.handles.len();
        match request.scope {
            RevokeScope::Handle => {
                let handle = self.handles.remove(&request.id.wrapping_sub(1000));
                handle.ok_or((0xC000_0225, Reason::HandleNotFound, None))?;
            }
            RevokeScope::Session if request.id == SESSION => self.handles.clear(),
            RevokeScope::Process if request.id == PROCESS => self.handles.clear(),
            _ => return Err((0xC000_0225, Reason::SessionNotFound, None)),
        }
        Ok(RevokeReply { revoked: (before - self.handles.len()) as u32, kept: u32::from(before > 2) })
    }

    fn file(&self, path: &str) -> Result<&Vec<u8>, Refusal> {
        self.files.get(path).ok_or((0xC000_000F, Reason::FileNotFound, None))
    }

    fn path(&self, handle: u64) -> Result<String, Refusal> {
        self.handles.get(&handle).cloned().ok_or((0xC000_0008, Reason::HandleInvalid, None))
    }
}

fn text(name: Name<'_>) -> String {
    String::from_utf16(&name.units().collect::<Vec<u16>>()).unwrap()
}
