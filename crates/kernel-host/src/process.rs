//! Simulated processes: who runs a program, its handles, and its user memory.
//!
//! A process is the context in which drivers are entered on behalf of a program. Its user memory lies at low addresses,
//! below `MmHighestUserAddress`, and is real memory of this Linux process: drivers touch it directly, and fault
//! where a program's memory would make them fault.

pub(crate) mod exposure;
pub(crate) mod memory;
pub(crate) mod others;
mod slices;

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use nt_types::NtStatus;

use crate::machine::{Inner, Machine};
use crate::nt::handles::{HandleTable, is_kernel_handle};
use crate::nt::ob::{ObjectBody, ObjectRef};
use crate::thread::Thread;

pub use exposure::UserMemoryChecks;
pub use memory::{Placement, Protection, UserBuffer, UserMemory};
pub use slices::{HIGHEST_USER_ADDRESS, guard_page_hit};

/// Bytes of a process object's body. Drivers treat `EPROCESS` as opaque; only the dispatcher header at its start is used.
pub(crate) const EPROCESS_LENGTH: usize = 0x200;

/// Folder of programs of which only the file name is known.
const PROGRAMS: &str = "\\Device\\HarddiskVolume1\\Windows\\System32";

/// Identifier of the system process.
pub const SYSTEM_PROCESS_ID: u64 = 4;

/// Whose rights a process has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Token {
    /// `LocalSystem`: the system process and services.
    System,
    /// A member of Administrators, elevated.
    Administrator,
    /// An ordinary user.
    User,
}

impl Token {
    /// Whether the token is an administrator's or better: what an administrators-only descriptor lets in.
    #[must_use]
    pub fn is_administrator(self) -> bool {
        matches!(self, Self::System | Self::Administrator)
    }
}

/// One simulated process.
pub struct Process {
    id: u64,
    image_name: String,
    image_path: String,
    /// Who started it.
    parent: u64,
    /// System time, in 100 ns since 1601.
    created: i64,
    token: Token,
    machine: Weak<Inner>,
    handles: HandleTable,
    memory: UserMemory,
    exited: AtomicBool,
    /// `STATUS_PENDING` while it runs, as `GetExitCodeProcess` has it.
    exit_status: AtomicI32,
    /// System time, in 100 ns since 1601; 0 while it runs.
    exit_time: AtomicI64,
    /// Whether drivers heard of its start, and so will hear of its end.
    announced: AtomicBool,
    /// Id of the thread that a program starts with.
    first_thread: u32,
    /// The object of that thread, while a started program runs.
    first_thread_object: Mutex<Option<ObjectRef>>,
    object: OnceLock<usize>,
    primary_token: OnceLock<ObjectRef>,
}

impl Process {
    /// Process identifier: a multiple of four.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// File name of the program, such as `fwbctl.exe`.
    pub fn image_name(&self) -> &str {
        &self.image_name
    }

    /// NT path of the program's image, such as `\Device\HarddiskVolume1\Windows\System32\fwbctl.exe`; empty for the system process.
    pub fn image_path(&self) -> &str {
        &self.image_path
    }

    /// Identifier of the process that started it; the system's own is 0.
    pub fn parent_id(&self) -> u64 {
        self.parent
    }

    /// When it was started: system time, in 100 ns since 1601.
    pub fn created(&self) -> i64 {
        self.created
    }

    /// Whose rights it has.
    pub fn token(&self) -> Token {
        self.token
    }

    /// The machine it runs in; `None` while that is being torn down.
    pub fn machine(&self) -> Option<Arc<Inner>> {
        self.machine.upgrade()
    }

    /// Handles of this process (kernel handles, for the system process).
    pub fn handles(&self) -> &HandleTable {
        &self.handles
    }

    /// User memory of this process.
    pub fn memory(&self) -> &UserMemory {
        &self.memory
    }

    /// Whether this is the system process, in which kernel handles live.
    pub fn is_system(&self) -> bool {
        self.id == SYSTEM_PROCESS_ID
    }

    /// Whether the process ended.
    pub fn has_exited(&self) -> bool {
        self.exited.load(Ordering::Acquire)
    }

    /// The status that it ended with; `STATUS_PENDING` while it runs.
    pub fn exit_status(&self) -> NtStatus {
        NtStatus(self.exit_status.load(Ordering::Acquire))
    }

    /// When it ended: system time, in 100 ns since 1601; 0 while it runs.
    pub fn exit_time(&self) -> i64 {
        self.exit_time.load(Ordering::Acquire)
    }

    /// Identifier of the thread that a program starts with.
    pub fn first_thread_id(&self) -> u32 {
        self.first_thread
    }

    /// The object of that thread, while the program runs.
    pub(crate) fn first_thread_object(&self) -> Option<ObjectRef> {
        self.first_thread_object.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Address of the process object's body (`PEPROCESS`).
    pub fn object(&self) -> usize {
        self.object.get().copied().unwrap_or_default()
    }

    /// Its token as an object, made on first use.
    pub(crate) fn primary_token(
        &self,
        create: impl FnOnce() -> Result<ObjectRef, NtStatus>,
    ) -> Result<ObjectRef, NtStatus> {
        if let Some(token) = self.primary_token.get() {
            return Ok(token.clone());
        }
        // Two threads may make one each; the first stays.
        let made = create()?;
        Ok(self.primary_token.get_or_init(|| made).clone())
    }

    /// Allocates user memory and fills it with `bytes`, at the end of its pages, so that an overrun faults.
    ///
    /// # Errors
    /// `STATUS_NO_MEMORY` when the process's address space is exhausted.
    pub fn buffer(self: &Arc<Self>, bytes: &[u8]) -> Result<UserBuffer, NtStatus> {
        let buffer = self.allocate(bytes.len(), Protection::ReadWrite, Placement::Aligned)?;
        self.memory.write(buffer.address(), bytes)?;
        Ok(buffer)
    }

    /// Allocates `length` bytes of zeroed user memory. Errors as for [`buffer`](Self::buffer).
    pub fn allocate(
        self: &Arc<Self>,
        length: usize,
        protection: Protection,
        placement: Placement,
    ) -> Result<UserBuffer, NtStatus> {
        let address = self.memory.allocate(length, protection, placement)?;
        Ok(UserBuffer::new(Arc::clone(self), address, length))
    }

    /// Ends the process: its handles are closed (drivers see the cleanups in its context), then its memory goes.
    ///
    /// Must run on a thread that belongs to the machine, in this process's context. A second call does nothing.
    pub fn exit(self: &Arc<Self>) {
        self.exit_with(NtStatus::SUCCESS);
    }

    fn exit_with(self: &Arc<Self>, status: NtStatus) {
        if self.exited.swap(true, Ordering::AcqRel) {
            return;
        }
        self.exit_status.store(status.0, Ordering::Release);
        self.exit_time.store(crate::nt::time::system_time(), Ordering::Release);
        if let Some(machine) = self.machine() {
            crate::nt::io::cancel::cancel_all(&machine, &Thread::current(), self.id);
            if self.announced.load(Ordering::Acquire) {
                crate::nt::notify::process_ends(&machine, self, self.first_thread);
            }
        }
        self.handles.close_all(self);
        if let Some(machine) = self.machine() {
            machine.nt.mappings().process_ends(&machine, self);
            machine.nt.sections().process_ends(&machine, self);
        }
        self.memory.free_all();
        let first_thread = self.first_thread_object.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(machine) = self.machine() {
            if let Some(thread) = &first_thread {
                crate::nt::threads::first_ended(&machine, thread);
            }
            crate::nt::processes::ended(&machine, self.object());
            machine.nt.process_exited(self);
        }
    }

    /// Ends the process from outside, as a debugger or a crash does: [`exit`](Self::exit) in its own context.
    pub fn terminate(self: &Arc<Self>) {
        self.terminate_with(NtStatus::SUCCESS);
    }

    /// As [`terminate`](Self::terminate), with the status that it is to have ended with.
    pub fn terminate_with(self: &Arc<Self>, status: NtStatus) {
        let Some(machine) = self.machine() else { return };
        Thread::enter(&machine, |thread| {
            let before = thread.set_process(Some(Arc::clone(self)));
            self.exit_with(status);
            thread.set_process(before);
        });
    }

    /// The table in which `handle` would be: the system's for a kernel handle, when the caller is in kernel mode.
    ///
    /// # Errors
    /// `STATUS_INVALID_HANDLE` when a program passes a kernel handle.
    pub fn table_of(self: &Arc<Self>, handle: usize, mode: nt_types::KPROCESSOR_MODE) -> Result<Arc<Self>, NtStatus> {
        if !is_kernel_handle(handle) {
            return Ok(Arc::clone(self));
        }
        if mode != nt_types::KERNEL_MODE {
            return Err(NtStatus::INVALID_HANDLE);
        }
        let machine = self.machine().ok_or(NtStatus::INVALID_HANDLE)?;
        Ok(Arc::clone(machine.nt.system_process(&machine)))
    }

    /// Closes a handle of this process the way the program itself would (`NtClose`).
    ///
    /// # Errors
    /// `STATUS_INVALID_HANDLE`.
    pub fn close_handle(self: &Arc<Self>, handle: usize) -> Result<(), NtStatus> {
        self.handles.close(handle, self)
    }

    pub(crate) fn create(machine: &Arc<Inner>, id: u64, image: &str, token: Token) -> Result<Arc<Self>, NtStatus> {
        let is_system = id == SYSTEM_PROCESS_ID;
        let process = Arc::new(Self {
            id,
            image_name: image.rsplit('\\').next().unwrap_or_default().to_owned(),
            image_path: match image.starts_with('\\') {
                _ if is_system => String::new(),
                true => image.to_owned(),
                false => format!("{PROGRAMS}\\{image}"),
            },
            parent: if is_system { 0 } else { SYSTEM_PROCESS_ID },
            created: crate::nt::time::system_time(),
            token,
            machine: Arc::downgrade(machine),
            handles: HandleTable::new(is_system),
            memory: UserMemory::new(Arc::clone(&machine.user_memory_watch))?,
            exited: AtomicBool::new(false),
            exit_status: AtomicI32::new(NtStatus::PENDING.0),
            exit_time: AtomicI64::new(0),
            announced: AtomicBool::new(false),
            first_thread: machine.next_thread_id(),
            first_thread_object: Mutex::default(),
            object: OnceLock::new(),
            primary_token: OnceLock::new(),
        });
        let payload = Arc::new(ProcessBody(Arc::clone(&process)));
        let object = machine.nt.objects().create(EPROCESS_LENGTH, payload)?;
        crate::nt::processes::fill(object.body(), &process.image_name);
        // Set once, here, before anybody else can see the process.
        let _ = process.object.set(object.body());
        machine.nt.keep_process(&process, object);
        Ok(process)
    }
}

impl fmt::Debug for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {:?})", self.image_name, self.id, self.token)
    }
}

/// Payload of a process object.
#[derive(Debug)]
pub struct ProcessBody(Arc<Process>);

impl ProcessBody {
    /// The process; one that has exited is there as long as somebody has its object.
    #[must_use]
    pub fn process(&self) -> Arc<Process> {
        Arc::clone(&self.0)
    }
}

impl ObjectBody for ProcessBody {
    fn type_name(&self) -> &'static str {
        "Process"
    }
}

/// Describes a process before it starts.
#[derive(Debug)]
pub struct ProcessBuilder<'a> {
    machine: &'a Machine,
    /// File name or NT path.
    image: String,
    token: Token,
}

impl ProcessBuilder<'_> {
    /// Whose rights it has; an administrator's unless said otherwise.
    #[must_use]
    pub fn token(mut self, token: Token) -> Self {
        self.token = token;
        self
    }

    /// Where its image lies, as an NT path: what `SeLocateProcessImageName` answers.
    #[must_use]
    pub fn image_path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.image);
        self
    }

    /// Runs it with an ordinary user's rights.
    #[must_use]
    pub fn plain_user(self) -> Self {
        self.token(Token::User)
    }

    /// Starts it.
    ///
    /// # Errors
    /// `STATUS_NO_MEMORY`, `STATUS_INSUFFICIENT_RESOURCES` when address space is exhausted; the status with which a
    /// driver's notify routine refuses the process.
    pub fn start(self) -> Result<Arc<Process>, NtStatus> {
        let inner = self.machine.inner();
        let id = inner.nt.next_id();
        let process = Process::create(inner, id, &self.image, self.token)?;
        let thread = crate::nt::threads::first_of(inner, process.first_thread, &process)?;
        *process.first_thread_object.lock().unwrap_or_else(PoisonError::into_inner) = Some(thread);
        if let Err(status) = crate::nt::notify::process_starts(inner, &process, process.first_thread) {
            process.terminate();
            return Err(status);
        }
        process.announced.store(true, Ordering::Release);
        Ok(process)
    }
}

impl Machine {
    /// A new simulated process that runs `image_name`: `machine.process("fwbctl.exe").start()?`.
    #[must_use]
    pub fn process(&self, image_name: &str) -> ProcessBuilder<'_> {
        ProcessBuilder { machine: self, image: image_name.to_owned(), token: Token::Administrator }
    }
}
