//! Processes as drivers see them: `PEPROCESS`, identifiers, image names, attaching.
//!
//! Pages: `ntifs/nf-ntifs-selocateprocessimagename`, `ntifs/nf-ntifs-pslookupprocessbyprocessid`,
//! `ntifs/nf-ntifs-kestackattachprocess` and their neighbours.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use nt_types::{HANDLE, KERNEL_MODE, NtStatus, UNICODE_STRING};

use super::dispatcher::{Kind, initialise, state};
use super::ob_exports::open_entry;
use super::pool::{PoolKind, Request};
use super::raw::Raw;
use super::threads::owner_at;
use super::{current_process, unicode};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Inner;
use crate::process::{EPROCESS_LENGTH, Process, ProcessBody};

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    PsGetCurrentProcess(max 31) = io_get_current_process;
    IoGetCurrentProcess(max 31) = io_get_current_process;
    PsGetCurrentProcessId(max 31) = ps_get_current_process_id;
    PsGetProcessId(max 31) = ps_get_process_id;
    PsGetProcessInheritedFromUniqueProcessId(max 31) = ps_get_process_parent_id;
    PsGetProcessCreateTimeQuadPart(max 31) = ps_get_process_create_time_quad_part;
    PsGetProcessExitStatus(max 1) = ps_get_process_exit_status;
    PsGetProcessExitTime(max 2) = ps_get_process_exit_time;
    PsGetProcessImageFileName(max 31) = ps_get_process_image_file_name;
    PsIsSystemProcess(max 31) = ps_is_system_process;
    PsLookupProcessByProcessId(max 1) = ps_lookup_process_by_process_id;
    SeLocateProcessImageName(max 0, fails RESOURCES) = se_locate_process_image_name;
    IoThreadToProcess(max 2) = io_thread_to_process;
    PsGetThreadProcess(max 31) = io_thread_to_process;
    PsGetThreadProcessId(max 31) = ps_get_thread_process_id;
    KeStackAttachProcess(max 1) = ke_stack_attach_process;
    KeUnstackDetachProcess(max 1) = ke_unstack_detach_process;
}

/// Where the body keeps the file name; the real place changes with every build, and no driver may rely on it.
const IMAGE_FILE_NAME: usize = 0x180;
/// Bytes of `EPROCESS::ImageFileName`; the last one is a terminator.
const IMAGE_FILE_NAME_BYTES: usize = 15;

/// Bytes of a process's dispatcher part, as its header counts them.
const KPROCESS_BYTES: usize = 0x100;

/// `KAPC_STATE::Process`, and the bytes of the structure: opaque to drivers, but theirs to allocate.
const APC_STATE_PROCESS: usize = 0x20;
const APC_STATE_BYTES: usize = 0x30;

const _: () = assert!(IMAGE_FILE_NAME + IMAGE_FILE_NAME_BYTES < EPROCESS_LENGTH);

/// A process has ended: whoever waits for its object goes on.
pub(crate) fn ended(machine: &Inner, body: usize) {
    state(Raw::at(body)).store(1, Ordering::Release);
    machine.nt.dispatcher().wake();
}

/// Fills a new process object's body.
pub(crate) fn fill(body: usize, image_name: &str) {
    initialise(Raw::at(body), Kind::Process, KPROCESS_BYTES, 0);
    let name: Vec<u8> = image_name.bytes().take(IMAGE_FILE_NAME_BYTES - 1).collect();
    Raw::<u8>::at(body).field::<u8>(IMAGE_FILE_NAME).write_bytes(&name);
}

/// The process behind a `PEPROCESS`; stops when there is none.
pub(crate) fn process_at(call: &Call, body: usize) -> Arc<Process> {
    let payload = call.machine().nt.objects().payload::<ProcessBody>(body);
    let Some(payload) = payload else {
        call.stop(Rule::BadArgument, format!("{body:#x} is no process object, or one that is deleted"));
    };
    payload.process()
}

/// The process behind a handle, `NtCurrentProcess()` included.
///
/// # Errors
/// Those of the handle.
pub(crate) fn process_of_handle(call: &Call, handle: HANDLE) -> Result<Arc<Process>, NtStatus> {
    let entry = open_entry(call, handle.addr(), 0, Some("Process"), KERNEL_MODE)?;
    Ok(entry.object.payload::<ProcessBody>().ok_or(NtStatus::OBJECT_TYPE_MISMATCH)?.process())
}

extern "efiapi" fn io_get_current_process() -> usize {
    current_process(&Call::enter()).object()
}

extern "efiapi" fn ps_get_current_process_id() -> u64 {
    current_process(&Call::enter()).id()
}

extern "efiapi" fn ps_get_process_id(process: usize) -> u64 {
    let call = Call::enter();
    process_at(&call, process).id()
}

extern "efiapi" fn ps_get_process_parent_id(process: usize) -> u64 {
    let call = Call::enter();
    process_at(&call, process).parent_id()
}

extern "efiapi" fn ps_get_process_create_time_quad_part(process: usize) -> i64 {
    let call = Call::enter();
    process_at(&call, process).created()
}

extern "efiapi" fn ps_get_process_exit_status(process: usize) -> NtStatus {
    let call = Call::enter();
    process_at(&call, process).exit_status()
}

/// Of the current process; 0 while it runs.
extern "efiapi" fn ps_get_process_exit_time() -> i64 {
    let call = Call::enter();
    current_process(&call).exit_time()
}

/// Undocumented, and in every other driver: at most 14 characters of the file name.
extern "efiapi" fn ps_get_process_image_file_name(process: usize) -> usize {
    let call = Call::enter();
    process_at(&call, process);
    process + IMAGE_FILE_NAME
}

extern "efiapi" fn ps_is_system_process(process: usize) -> u8 {
    let call = Call::enter();
    u8::from(process_at(&call, process).is_system())
}

extern "efiapi" fn ps_lookup_process_by_process_id(id: u64, process: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    let objects = call.machine().nt.objects();
    // Handles and ids share one table, in which the two low bits do not count.
    let found = call.machine().nt.process(id & !3).and_then(|process| objects.lookup(process.object()));
    let Some(found) = found else { return NtStatus::INVALID_PARAMETER };
    process.write(objects.give(&found, &call));
    NtStatus::SUCCESS
}

extern "efiapi" fn se_locate_process_image_name(process: usize, name: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    let path = unicode::bytes_of(process_at(&call, process).image_path());
    let request = Request {
        kind: PoolKind::Paged,
        length: size_of::<UNICODE_STRING>() + path.len() + 2,
        tag: u32::from_le_bytes(*b"SeOn"),
        zeroed: true,
        cache_aligned: false,
    };
    // The caller frees it with ExFreePool: it counts as the caller's.
    let block = call.machine().nt.pool().allocate(&call, request);
    if block == 0 {
        return NtStatus::INSUFFICIENT_RESOURCES;
    }
    let characters = Raw::<u8>::at(block + size_of::<UNICODE_STRING>());
    characters.write_bytes(&path);
    let length = path.len() as u16;
    Raw::at(block).write(UNICODE_STRING {
        Length: length,
        MaximumLength: length + 2,
        Buffer: characters.cast().pointer(),
    });
    name.write(block);
    NtStatus::SUCCESS
}

extern "efiapi" fn io_thread_to_process(thread: usize) -> usize {
    let call = Call::enter();
    owner_at(&call, thread).object()
}

pub(super) extern "efiapi" fn ps_get_thread_process_id(thread: usize) -> u64 {
    let call = Call::enter();
    owner_at(&call, thread).id()
}

extern "efiapi" fn ke_stack_attach_process(process: usize, state: Raw<u8>) {
    let call = Call::enter();
    let target = process_at(&call, process);
    state.fill(0, APC_STATE_BYTES);
    let depth = call.thread().attach(if target.is_system() { None } else { Some(target) });
    state.field::<usize>(APC_STATE_PROCESS).write(depth);
}

extern "efiapi" fn ke_unstack_detach_process(state: Raw<u8>) {
    let call = Call::enter();
    let depth = state.field::<usize>(APC_STATE_PROCESS).read();
    if !call.thread().detach(depth) {
        call.stop(
            Rule::BadState,
            "the APC state is not that of the thread's last KeStackAttachProcess: attaches and detaches must nest",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;
    use crate::nt::ob_exports::obf_dereference_object;
    use crate::nt::threads::{ex_get_previous_mode, ke_get_current_thread};

    #[test]
    fn the_current_process_is_the_one_whose_memory_is_seen() {
        conforms!(
            "ntddk/nf-ntddk-psgetcurrentprocessid.md",
            "PsGetCurrentProcessId names the process of the current thread."
        );
        let bench = Bench::new();
        let program = bench.machine().process("p.exe").start().expect("room");
        bench
            .run(|| {
                assert_eq!((ps_get_current_process_id(), ex_get_previous_mode()), (4, 0));
                let thread = Call::enter().thread().clone();
                thread.set_process(Some(Arc::clone(&program)));
                assert_eq!((ps_get_current_process_id(), ex_get_previous_mode()), (program.id(), 1));
                assert_eq!(ps_get_process_id(io_get_current_process()), program.id());
                assert_eq!(io_thread_to_process(ke_get_current_thread()), program.object());
                thread.set_process(None);
            })
            .unwrap();
    }

    #[test]
    fn a_process_that_exited_is_not_found() {
        conforms!(
            "ntifs/nf-ntifs-pslookupprocessbyprocessid.md",
            "An id that no process has is STATUS_INVALID_PARAMETER; a process found comes with a reference."
        );
        let bench = Bench::new();
        let program = bench.machine().process("p.exe").start().expect("room");
        let id = program.id();
        let mut found = 0;
        let out = Raw::of(&raw mut found);
        bench
            .run(|| {
                assert_eq!(ps_lookup_process_by_process_id(id, out), NtStatus::SUCCESS);
                assert_eq!(ps_get_process_exit_status(out.read()), NtStatus::PENDING);
                obf_dereference_object(out.read());
            })
            .unwrap();
        bench.enter(|_| program.exit());
        assert_eq!(bench.run(|| ps_lookup_process_by_process_id(id, out)).unwrap(), NtStatus::INVALID_PARAMETER);
    }

    #[test]
    fn an_image_name_is_a_pool_block_that_the_caller_frees() {
        conforms!(
            "ntifs/nf-ntifs-selocateprocessimagename.md",
            "SeLocateProcessImageName allocates the string and its characters in one block, which the caller frees."
        );
        let bench = Bench::new();
        let program = bench.machine().process("p.exe").start().expect("room");
        let other =
            bench.machine().process("q.exe").image_path(r"\Device\HarddiskVolume2\q.exe").start().expect("room");
        let mut name = 0_usize;
        let out = Raw::of(&raw mut name);
        let machine = bench.machine().inner();
        bench
            .run(|| {
                for (process, path) in [
                    (&program, r"\Device\HarddiskVolume1\Windows\System32\p.exe"),
                    (&other, r"\Device\HarddiskVolume2\q.exe"),
                ] {
                    assert_eq!(se_locate_process_image_name(process.object(), out), NtStatus::SUCCESS);
                    assert_eq!(unicode::name(Raw::at(out.read())).unwrap(), path);
                    assert_eq!(machine.nt.pool().leaks(bench.driver()).len(), 1);
                    let call = Call::enter();
                    machine.nt.pool().free(&call, out.read(), 0);
                }
                let short = ps_get_process_image_file_name(other.object());
                assert_eq!(Raw::<u8>::at(short).read_bytes(6), b"q.exe\0");
            })
            .unwrap();
    }

    #[test]
    fn an_attached_thread_sees_the_other_process_and_stays_its_own_process_s_thread() {
        conforms!(
            "ntifs/nf-ntifs-kestackattachprocess.md",
            "Attaching changes the address space, nests, and each attach is matched by a detach."
        );
        let bench = Bench::new();
        let program = bench.machine().process("p.exe").start().expect("room");
        let mut states = [[0_u8; APC_STATE_BYTES]; 2];
        let [one, two] = &mut states;
        let (one, two) = (Raw::of(one.as_mut_ptr()), Raw::of(two.as_mut_ptr()));
        bench
            .run(|| {
                ke_stack_attach_process(program.object(), one);
                assert_eq!((ps_get_current_process_id(), ex_get_previous_mode()), (program.id(), 0));
                assert_eq!(ps_get_process_id(io_thread_to_process(ke_get_current_thread())), 4);
                let system = bench.machine().inner().nt.system_process(bench.machine().inner()).object();
                ke_stack_attach_process(system, two);
                assert_eq!(ps_get_current_process_id(), 4);
                ke_unstack_detach_process(two);
                ke_unstack_detach_process(one);
                assert_eq!(ps_get_current_process_id(), 4);
            })
            .unwrap();
        let crossed = bench.run(|| {
            ke_stack_attach_process(program.object(), one);
            ke_stack_attach_process(program.object(), two);
            ke_unstack_detach_process(one);
        });
        assert_eq!(crossed.unwrap_err().0.rule, Rule::BadState);
    }

    #[test]
    fn a_callback_that_returns_attached_is_found() {
        let bench = Bench::new();
        let program = bench.machine().process("p.exe").start().expect("room");
        let mut state = [0_u8; APC_STATE_BYTES];
        let state = Raw::of(state.as_mut_ptr());
        let stopped = bench.run(|| ke_stack_attach_process(program.object(), state));
        assert_eq!(stopped.unwrap_err().0.rule, Rule::BadState);
    }
}
