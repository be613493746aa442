//! What a program does with other programs: handles to them, their memory, their end.

use std::sync::Arc;

use nt_types::NtStatus;

use super::{Process, Token};
use crate::machine::Inner;
use crate::nt::ob_callbacks::{Duplication, Operation};
use crate::thread::Thread;

/// `PROCESS_ALL_ACCESS` and `THREAD_ALL_ACCESS`.
pub(crate) const ALL_ACCESS: u32 = 0x1F_FFFF;
/// `PROCESS_TERMINATE`, `PROCESS_VM_READ`, `PROCESS_VM_WRITE | PROCESS_VM_OPERATION`, `PROCESS_DUP_HANDLE`.
const TERMINATE: u32 = 0x0001;
const VM_READ: u32 = 0x0010;
const VM_WRITE: u32 = 0x0028;
const DUPLICATE: u32 = 0x0040;
/// What everybody gets: `PROCESS_QUERY_LIMITED_INFORMATION | SYNCHRONIZE`.
const HARMLESS: u32 = 0x10_1000;
/// `MAXIMUM_ALLOWED`, and the generic rights.
const MAXIMUM_ALLOWED: u32 = 0x0200_0000;
const GENERIC: u32 = 0xF000_0000;

/// The rights that an open of `target` gets; `subject` is whose rights count, `None` for the kernel's.
///
/// Who may do what is decided by the tokens' kinds: everything with processes of the same kind or a lesser one, as their
/// default descriptors have it, and an administrator's debug privilege makes no difference.
///
/// # Errors
/// `STATUS_ACCESS_DENIED`; `STATUS_INVALID_PARAMETER` for rights that processes do not have.
pub(crate) fn granted(subject: Option<&Process>, target: &Process, access: u32) -> Result<u32, NtStatus> {
    if access & !(ALL_ACCESS | MAXIMUM_ALLOWED | GENERIC) != 0 {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    let asked = if access & (GENERIC | MAXIMUM_ALLOWED) == 0 { access } else { ALL_ACCESS };
    let allowed = match subject {
        Some(subject) if rank(subject.token()) < rank(target.token()) => HARMLESS,
        _ => ALL_ACCESS,
    };
    if access & MAXIMUM_ALLOWED != 0 {
        return Ok(asked & allowed);
    }
    if asked & !allowed == 0 { Ok(asked) } else { Err(NtStatus::ACCESS_DENIED) }
}

fn rank(token: Token) -> u8 {
    match token {
        Token::User => 0,
        Token::Administrator => 1,
        Token::System => 2,
    }
}

impl Process {
    /// `OpenProcess`: a handle to the process with this id. Drivers' object callbacks may take rights out of it.
    ///
    /// # Errors
    /// `STATUS_INVALID_CID` without such a process, `STATUS_ACCESS_DENIED`, `STATUS_INVALID_PARAMETER`.
    pub fn open_process(self: &Arc<Self>, id: u64, access: u32) -> Result<usize, NtStatus> {
        self.within(|thread| {
            let machine = thread.machine();
            let target = machine.nt.process(id & !3).ok_or(NtStatus::INVALID_CID)?;
            let object = machine.nt.objects().lookup(target.object()).ok_or(NtStatus::INVALID_CID)?;
            let access = granted(Some(self), &target, access)?;
            let operation = Operation { object: &object, access, is_kernel: false, duplication: None };
            Ok(operation.carry_out(thread, |access| self.handles().insert(&object, access, None)))
        })
    }

    /// `OpenThread`, of the thread that the process with this id started with. Errors as for
    /// [`open_process`](Self::open_process).
    pub fn open_first_thread(self: &Arc<Self>, id: u64, access: u32) -> Result<usize, NtStatus> {
        self.within(|thread| {
            let target = thread.machine().nt.process(id & !3).ok_or(NtStatus::INVALID_CID)?;
            let object = target.first_thread_object().ok_or(NtStatus::INVALID_CID)?;
            let access = granted(Some(self), &target, access)?;
            let operation = Operation { object: &object, access, is_kernel: false, duplication: None };
            Ok(operation.carry_out(thread, |access| self.handles().insert(&object, access, None)))
        })
    }

    /// The rights that a handle of this process has.
    ///
    /// # Errors
    /// `STATUS_INVALID_HANDLE`.
    pub fn granted_access(&self, handle: usize) -> Result<u32, NtStatus> {
        self.handles().entry(handle).map(|entry| entry.access).ok_or(NtStatus::INVALID_HANDLE)
    }

    /// `DuplicateHandle`: takes a handle of the process behind `source_process` over into this one, with `access`.
    ///
    /// # Errors
    /// `STATUS_INVALID_HANDLE`, `STATUS_ACCESS_DENIED` without the right to duplicate or for more rights than the handle has.
    pub fn duplicate_from(
        self: &Arc<Self>,
        source_process: usize,
        handle: usize,
        access: u32,
    ) -> Result<usize, NtStatus> {
        let source = self.behind(source_process, DUPLICATE)?;
        let entry = source.handles().entry(handle).ok_or(NtStatus::INVALID_HANDLE)?;
        if access & !entry.access != 0 {
            return Err(NtStatus::ACCESS_DENIED);
        }
        self.within(|thread| {
            let between = Duplication { source: source.object(), target: self.object() };
            let object = &entry.object;
            let operation = Operation { object, access, is_kernel: false, duplication: Some(between) };
            Ok(operation.carry_out(thread, |access| self.handles().insert(object, access, None)))
        })
    }

    /// `TerminateProcess`: the process behind a handle ends with `status`.
    ///
    /// # Errors
    /// `STATUS_INVALID_HANDLE`, `STATUS_ACCESS_DENIED` without `PROCESS_TERMINATE`, `STATUS_PROCESS_IS_TERMINATING`.
    pub fn terminate_process(self: &Arc<Self>, handle: usize, status: NtStatus) -> Result<(), NtStatus> {
        let target = self.behind(handle, TERMINATE)?;
        if target.has_exited() {
            return Err(NtStatus::PROCESS_IS_TERMINATING);
        }
        target.terminate_with(status);
        Ok(())
    }

    /// `ReadProcessMemory`.
    ///
    /// # Errors
    /// `STATUS_INVALID_HANDLE`, `STATUS_ACCESS_DENIED` without `PROCESS_VM_READ`, and those of a read.
    pub fn read_memory_of(self: &Arc<Self>, handle: usize, address: usize, length: usize) -> Result<Vec<u8>, NtStatus> {
        self.behind(handle, VM_READ)?.memory().read_vec(address, length)
    }

    /// `WriteProcessMemory`.
    ///
    /// # Errors
    /// `STATUS_INVALID_HANDLE`, `STATUS_ACCESS_DENIED` without `PROCESS_VM_WRITE` and `PROCESS_VM_OPERATION`, and those of a write.
    pub fn write_memory_of(self: &Arc<Self>, handle: usize, address: usize, bytes: &[u8]) -> Result<(), NtStatus> {
        self.behind(handle, VM_WRITE)?.memory().write(address, bytes)
    }

    fn behind(&self, handle: usize, access: u32) -> Result<Arc<Self>, NtStatus> {
        let entry = self.handles().reference(handle, access, Some("Process"))?;
        Ok(entry.object.payload::<super::ProcessBody>().ok_or(NtStatus::OBJECT_TYPE_MISMATCH)?.process())
    }

    /// Runs kernel code for the program: on a thread of the machine, in this process's context.
    pub(crate) fn within<R>(
        self: &Arc<Self>,
        body: impl FnOnce(&Thread) -> Result<R, NtStatus>,
    ) -> Result<R, NtStatus> {
        let machine: Arc<Inner> = self.machine().ok_or(NtStatus::PROCESS_IS_TERMINATING)?;
        if self.has_exited() {
            return Err(NtStatus::PROCESS_IS_TERMINATING);
        }
        Thread::enter(&machine, |thread| crate::nt::io::file::in_context(thread, Some(self), || body(thread)))
    }
}
