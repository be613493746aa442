//! Who runs: the current process and thread, and threads that drivers start.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use nt_types::{CLIENT_ID, NtStatus, OBJECT_ATTRIBUTES};

use super::current_process;
use super::dispatcher::{Kind, initialise, state};
use super::ob::{ObjectBody, ObjectRef};
use super::ob_exports::make_handle;
use super::raw::{Raw, field};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::leak::{Leak, LeakKind};
use crate::machine::{Driver, Inner};
use crate::process::{Process, ProcessBody};
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    PsGetCurrentProcess(max 31) = io_get_current_process;
    IoGetCurrentProcess(max 31) = io_get_current_process;
    PsGetCurrentProcessId(max 31) = ps_get_current_process_id;
    PsGetProcessId(max 31) = ps_get_process_id;
    PsGetCurrentThread(max 31) = ke_get_current_thread;
    KeGetCurrentThread(max 31) = ke_get_current_thread;
    PsGetCurrentThreadId(max 31) = ps_get_current_thread_id;
    PsLookupProcessByProcessId(max 1) = ps_lookup_process_by_process_id;
    ExGetPreviousMode(max 2) = ex_get_previous_mode;
    PsCreateSystemThread(max 0, fails RESOURCES) = ps_create_system_thread;
    PsTerminateSystemThread(max 0) = ps_terminate_system_thread;
}

/// Bytes of a thread object's body: a dispatcher header, the rest opaque.
const ETHREAD_LENGTH: usize = 0x100;

thread_local! {
    /// Whether a driver started this Linux thread.
    static IS_SYSTEM_THREAD: Cell<bool> = const { Cell::new(false) };
}

/// Threads that drivers started and that still run.
#[derive(Debug, Default)]
pub(crate) struct Threads(Mutex<Vec<Running>>);

#[derive(Debug)]
struct Running {
    body: usize,
    driver: Arc<Driver>,
    routine: usize,
}

impl Threads {
    pub(crate) fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = running.iter().filter(|thread| std::ptr::eq(Arc::as_ptr(&thread.driver), driver));
        let leak = |thread: &Running| Leak {
            kind: LeakKind::Execution,
            count: 1,
            bytes: 0,
            detail: format!("the system thread of {:#x} still runs", thread.routine),
        };
        mine.map(leak).collect()
    }

    fn add(&self, thread: Running) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(thread);
    }

    fn remove(&self, body: usize) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|thread| thread.body != body);
    }
}

/// Payload of a thread that a driver started.
#[derive(Debug)]
struct ThreadBody;

impl ObjectBody for ThreadBody {
    fn type_name(&self) -> &'static str {
        "Thread"
    }
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

/// The process behind a `PEPROCESS`; stops when there is none.
fn process_at(call: &Call, body: usize) -> Arc<Process> {
    let payload = call.machine().nt.objects().payload::<ProcessBody>(body);
    payload.and_then(|payload| payload.process()).unwrap_or_else(|| {
        call.stop(Rule::BadArgument, format!("{body:#x} is no process object, or one whose process is gone"))
    })
}

extern "efiapi" fn ke_get_current_thread() -> usize {
    Call::enter().thread().object().addr()
}

extern "efiapi" fn ps_get_current_thread_id() -> u64 {
    u64::from(Call::enter().thread().id())
}

extern "efiapi" fn ps_lookup_process_by_process_id(id: u64, process: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    let objects = call.machine().nt.objects();
    let found = call.machine().nt.process(id).and_then(|process| objects.lookup(process.object()));
    let Some(found) = found else { return NtStatus::INVALID_PARAMETER };
    process.write(objects.give(&found, &call));
    NtStatus::SUCCESS
}

extern "efiapi" fn ex_get_previous_mode() -> i8 {
    let call = Call::enter();
    // Threads of programs are entered for a system call; the drivers' own run in the system process.
    if current_process(&call).is_system() { nt_types::KERNEL_MODE } else { nt_types::USER_MODE }
}

extern "efiapi" fn ps_create_system_thread(
    handle: Raw<usize>,
    desired_access: u32,
    attributes: Raw<OBJECT_ATTRIBUTES>,
    _process: usize,
    client_id: Raw<CLIENT_ID>,
    routine: usize,
    context: usize,
) -> NtStatus {
    let call = Call::enter();
    let object = match call.machine().nt.objects().create(ETHREAD_LENGTH, Arc::new(ThreadBody)) {
        Ok(object) => object,
        Err(status) => return status,
    };
    initialise(Raw::at(object.body()), Kind::Thread, ETHREAD_LENGTH, 0);
    let flags = attributes.some().map_or(0, |attributes| field!(attributes, OBJECT_ATTRIBUTES, Attributes).read());
    let (machine, driver) = (Arc::clone(call.machine()), Arc::clone(call.driver()));
    machine.nt.threads().add(Running { body: object.body(), driver: Arc::clone(&driver), routine });
    let id = Arc::new((Mutex::new(None), std::sync::Condvar::new()));
    let (started, thread_object) = (Arc::clone(&id), object.clone());
    let spawned = std::thread::Builder::new().name(driver.name.clone()).spawn(move || {
        run(&machine, &driver, &thread_object, (routine, context), |id| {
            *started.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(id);
            started.1.notify_all();
        });
    });
    if spawned.is_err() {
        call.machine().nt.threads().remove(object.body());
        return NtStatus::INSUFFICIENT_RESOURCES;
    }
    let mut known = id.0.lock().unwrap_or_else(PoisonError::into_inner);
    while known.is_none() {
        known = id.1.wait(known).unwrap_or_else(PoisonError::into_inner);
    }
    let thread_id = known.unwrap_or_default();
    drop(known);
    client_id.write_if_some(CLIENT_ID {
        UniqueProcess: std::ptr::without_provenance_mut(crate::process::SYSTEM_PROCESS_ID as usize),
        UniqueThread: std::ptr::without_provenance_mut(thread_id as usize),
    });
    handle.write(make_handle(&call, &object, desired_access, flags));
    NtStatus::SUCCESS
}

extern "efiapi" fn ps_terminate_system_thread(_exit_status: NtStatus) -> NtStatus {
    let call = Call::enter();
    if !IS_SYSTEM_THREAD.get() {
        return NtStatus::INVALID_PARAMETER;
    }
    // What is on this stack is abandoned, so nothing counted may be: the thread itself stays, being current.
    let thread: *const Thread = Arc::as_ptr(call.thread());
    drop(call);
    // SAFETY: the current thread's own record, held by its Linux thread for as long as that runs.
    unsafe { &*thread }.leave()
}

/// The new thread: runs the routine in the system process, then signals the thread object.
fn run(
    machine: &Arc<Inner>,
    driver: &Arc<Driver>,
    object: &ObjectRef,
    (routine, context): (usize, usize),
    started: impl FnOnce(u32),
) {
    type Start = unsafe extern "efiapi" fn(usize);
    // SAFETY: the address of the driver's KSTART_ROUTINE, whose type its page gives.
    let start = unsafe { std::mem::transmute::<usize, Start>(routine) };
    IS_SYSTEM_THREAD.set(true);
    Thread::enter(machine, |thread| {
        started(thread.id());
        // A stop is recorded in the machine; this thread just ends.
        // SAFETY: the driver gave the routine and its context for this.
        let _ = thread.enter_driver(driver, "KSTART_ROUTINE", 0, || unsafe { start(context) });
    });
    state(Raw::at(object.body())).store(1, Ordering::Release);
    machine.nt.threads().remove(object.body());
    machine.nt.dispatcher().wake();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ddi::testing::Bench;
    use crate::nt::wait::wait_for;

    extern "efiapi" fn note(context: Raw<u64>) {
        let call = Call::enter();
        context.write(u64::from(call.thread().id()));
    }

    extern "efiapi" fn end_early(context: Raw<u64>) {
        context.write(1);
        let _ = ps_terminate_system_thread(NtStatus::SUCCESS);
        context.write(2);
    }

    #[test]
    fn a_system_thread_can_end_itself_and_others_cannot() {
        let bench = Bench::new();
        let (mut handle, mut seen) = (0_usize, 0_u64);
        let (out, context) = (Raw::of(&raw mut handle), Raw::of(&raw mut seen));
        bench
            .run(|| {
                assert_eq!(ps_terminate_system_thread(NtStatus::SUCCESS), NtStatus::INVALID_PARAMETER);
                let routine = end_early as *const () as usize;
                let _ = ps_create_system_thread(out, 0, Raw::NULL, 0, Raw::NULL, routine, context.address());
                let call = Call::enter();
                let entry = crate::nt::ob_exports::open_entry(&call, out.read(), 0, None, 0).unwrap();
                let mut timeout = -50_000_000;
                let status = wait_for(&call, Raw::at(entry.object.body()), Raw::of(&raw mut timeout));
                assert_eq!(status, NtStatus::SUCCESS);
                assert_eq!(crate::nt::ob_exports::close(&call, out.read(), 0), NtStatus::SUCCESS);
            })
            .unwrap();
        assert_eq!(context.read(), 1);
    }

    #[test]
    fn the_current_process_is_the_one_whose_memory_is_seen() {
        let bench = Bench::new();
        let program = bench.machine().process("p.exe").start().expect("room");
        bench
            .run(|| {
                assert_eq!((ps_get_current_process_id(), ex_get_previous_mode()), (4, 0));
                let thread = Call::enter().thread().clone();
                thread.set_process(Some(Arc::clone(&program)));
                assert_eq!((ps_get_current_process_id(), ex_get_previous_mode()), (program.id(), 1));
                assert_eq!(ps_get_process_id(io_get_current_process()), program.id());
                thread.set_process(None);
            })
            .unwrap();
    }

    #[test]
    fn a_process_that_exited_is_not_found() {
        let bench = Bench::new();
        let program = bench.machine().process("p.exe").start().expect("room");
        let id = program.id();
        let mut found = 0;
        let out = Raw::of(&raw mut found);
        bench
            .run(|| {
                assert_eq!(ps_lookup_process_by_process_id(id, out), NtStatus::SUCCESS);
                crate::nt::ob_exports::obf_dereference_object(out.read());
            })
            .unwrap();
        bench.enter(|_| program.exit());
        assert_eq!(bench.run(|| ps_lookup_process_by_process_id(id, out)).unwrap(), NtStatus::INVALID_PARAMETER);
    }

    #[test]
    fn a_system_thread_runs_in_the_system_process_and_its_object_is_signalled_at_the_end() {
        let bench = Bench::new();
        let (mut handle, mut seen) = (0_usize, 0_u64);
        let (out, context) = (Raw::of(&raw mut handle), Raw::of(&raw mut seen));
        let mut id = CLIENT_ID { UniqueProcess: std::ptr::null_mut(), UniqueThread: std::ptr::null_mut() };
        let client = Raw::of(&raw mut id);
        bench
            .run(|| {
                let routine = note as *const () as usize;
                let status = ps_create_system_thread(out, 0x1F_FFFF, Raw::NULL, 0, client, routine, context.address());
                assert_eq!(status, NtStatus::SUCCESS);
                let call = Call::enter();
                let entry = crate::nt::ob_exports::open_entry(&call, out.read(), 0, Some("Thread"), 0).unwrap();
                let mut timeout = -50_000_000;
                let status = wait_for(&call, Raw::at(entry.object.body()), Raw::of(&raw mut timeout));
                assert_eq!(status, NtStatus::SUCCESS);
                assert_eq!(crate::nt::ob_exports::close(&call, out.read(), 0), NtStatus::SUCCESS);
            })
            .unwrap();
        assert_eq!(context.read(), client.read().UniqueThread.addr() as u64);
        assert_ne!(context.read(), 0);
    }
}
