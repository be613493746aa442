//! Who runs: the current process and thread, and threads that drivers start.

use std::cell::Cell;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use nt_types::{CLIENT_ID, NtStatus, OBJECT_ATTRIBUTES};

use super::dispatcher::{Kind, initialise, state};
use super::ob::{ObjectBody, ObjectRef};
use super::ob_exports::make_handle;
use super::raw::{Raw, field};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::leak::{Leak, LeakKind};
use crate::machine::{Driver, Inner};
use crate::origin::Origin;
use crate::process::{Process, SYSTEM_PROCESS_ID};
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    PsGetCurrentThread(max 31) = ke_get_current_thread;
    KeGetCurrentThread(max 31) = ke_get_current_thread;
    PsGetCurrentThreadId(max 31) = ps_get_current_thread_id;
    PsGetThreadId(max 2) = ps_get_thread_id;
    PsLookupThreadByThreadId(max 1) = ps_lookup_thread_by_thread_id;
    PsIsSystemThread(max 2) = ps_is_system_thread;
    PsIsThreadTerminating(max 2) = ps_is_thread_terminating;
    KeSetPriorityThread(max 0) = ke_set_priority_thread;
    KeQueryPriorityThread(max 0) = ke_query_priority_thread;
    KeSetBasePriorityThread(max 0) = ke_set_base_priority_thread;
    ExGetPreviousMode(max 2) = ex_get_previous_mode;
    PsCreateSystemThread(max 0, fails RESOURCES) = ps_create_system_thread;
    PsTerminateSystemThread(max 0) = ps_terminate_system_thread;
}

/// Bytes of a thread object's body: a dispatcher header, the rest opaque.
const ETHREAD_LENGTH: usize = 0x800;
/// Bytes of the part that the dispatcher header counts.
const KTHREAD_BYTES: usize = 0x100;

/// What a system thread begins with, as findings name it.
pub(crate) const START_ROUTINE: &str = "KSTART_ROUTINE";

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
    site: Origin,
}

impl Threads {
    pub(crate) fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = running.iter().filter(|thread| std::ptr::eq(Arc::as_ptr(&thread.driver), driver));
        let leak = |thread: &Running| Leak {
            kind: LeakKind::Execution,
            count: 1,
            bytes: 0,
            detail: format!(
                "the system thread of {:#x} still runs, started by PsCreateSystemThread from {}",
                thread.routine, thread.site
            ),
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

/// Payload of a thread object.
#[derive(Debug)]
pub(crate) struct ThreadBody {
    id: u32,
    /// While a Linux thread runs it.
    thread: Mutex<Weak<Thread>>,
    /// The program whose first thread it is: no Linux thread stands for that one.
    program: Weak<Process>,
}

impl ThreadBody {
    /// The process that it belongs to, while it runs.
    fn owner(&self, machine: &Arc<Inner>) -> Option<Arc<Process>> {
        let program = self.program.upgrade().filter(|program| !program.has_exited());
        program.or_else(|| self.thread().map(|thread| machine.nt.owner_of(&thread)))
    }

    fn thread(&self) -> Option<Arc<Thread>> {
        self.thread.lock().unwrap_or_else(PoisonError::into_inner).upgrade()
    }
}

impl ObjectBody for ThreadBody {
    fn type_name(&self) -> &'static str {
        "Thread"
    }
}

/// Makes a thread object that is not signalled.
///
/// # Errors
/// `STATUS_INSUFFICIENT_RESOURCES`.
pub(crate) fn new_object(machine: &Inner, id: u32) -> Result<ObjectRef, NtStatus> {
    object_of(machine, id, Weak::new())
}

/// The object of a program's first thread. Errors as for [`new_object`].
pub(crate) fn first_of(machine: &Inner, id: u32, program: &Arc<Process>) -> Result<ObjectRef, NtStatus> {
    object_of(machine, id, Arc::downgrade(program))
}

fn object_of(machine: &Inner, id: u32, program: Weak<Process>) -> Result<ObjectRef, NtStatus> {
    let payload = Arc::new(ThreadBody { id, thread: Mutex::default(), program });
    let object = machine.nt.objects().create(ETHREAD_LENGTH, payload)?;
    initialise(Raw::at(object.body()), Kind::Thread, KTHREAD_BYTES, 0);
    Ok(object)
}

/// Tells a thread object which thread it stands for.
pub(crate) fn set_thread(object: &ObjectRef, thread: &Arc<Thread>) {
    if let Some(body) = object.payload_ref::<ThreadBody>() {
        *body.thread.lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(thread);
    }
}

/// The thread behind a `PETHREAD`; stops when there is none.
pub(crate) fn thread_at(call: &Call, body: usize) -> Arc<Thread> {
    let payload = call.machine().nt.objects().payload::<ThreadBody>(body);
    let thread = payload.and_then(|payload| payload.thread());
    thread.unwrap_or_else(|| {
        call.stop(Rule::BadArgument, format!("{body:#x} is no thread object, or one whose thread has ended"))
    })
}

/// The process of the thread behind a `PETHREAD`; stops when there is none.
pub(super) fn owner_at(call: &Call, body: usize) -> Arc<Process> {
    let payload = call.machine().nt.objects().payload::<ThreadBody>(body);
    let owner = payload.and_then(|payload| payload.owner(call.machine()));
    owner.unwrap_or_else(|| {
        call.stop(Rule::BadArgument, format!("{body:#x} is no thread object, or one whose thread has ended"))
    })
}

/// The process that the thread with an id belongs to.
pub(super) fn process_id_of(machine: &Arc<Inner>, id: u64) -> Option<u64> {
    let object = machine.nt.objects().find(|body: &ThreadBody| u64::from(body.id) == id)?;
    object.payload::<ThreadBody>()?.owner(machine).map(|process| process.id())
}

/// A program's first thread has ended.
pub(crate) fn first_ended(machine: &Inner, object: &ObjectRef) {
    state(Raw::at(object.body())).store(1, Ordering::Release);
    machine.nt.dispatcher().wake();
}

pub(crate) extern "efiapi" fn ke_get_current_thread() -> usize {
    Call::enter().thread().object().addr()
}

extern "efiapi" fn ps_get_current_thread_id() -> u64 {
    u64::from(Call::enter().thread().id())
}

extern "efiapi" fn ps_get_thread_id(thread: usize) -> u64 {
    let call = Call::enter();
    owner_at(&call, thread);
    call.machine().nt.objects().payload::<ThreadBody>(thread).map_or(0, |body| u64::from(body.id))
}

extern "efiapi" fn ps_lookup_thread_by_thread_id(id: u64, thread: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    let objects = call.machine().nt.objects();
    let is_it = |body: &ThreadBody| u64::from(body.id) == id & !3 && body.owner(call.machine()).is_some();
    let Some(found) = objects.find(is_it) else { return NtStatus::INVALID_PARAMETER };
    thread.write(objects.give(&found, &call));
    NtStatus::SUCCESS
}

pub(crate) extern "efiapi" fn ps_is_system_thread(thread: usize) -> u8 {
    let call = Call::enter();
    u8::from(owner_at(&call, thread).is_system())
}

extern "efiapi" fn ps_is_thread_terminating(thread: usize) -> u8 {
    let call = Call::enter();
    let Some(body) = call.machine().nt.objects().payload::<ThreadBody>(thread) else {
        call.stop(Rule::BadArgument, format!("{thread:#x} is no thread object"));
    };
    let runs = body.owner(call.machine()).is_some_and(|process| !process.has_exited());
    u8::from(!runs)
}

/// `KTHREAD::Priority`, `BasePriority`: where the body keeps them; opaque to drivers.
const PRIORITY: usize = 0xC3;
const BASE_PRIORITY: usize = 0xC4;
/// Priorities of ordinary threads begin here; `LOW_REALTIME_PRIORITY` and `HIGH_PRIORITY` bound the real-time ones.
const NORMAL_PRIORITY: u8 = 8;
const HIGH_PRIORITY: i32 = 31;

/// `MEMORY_PRIORITY_NORMAL` and `IoPriorityNormal`.
const NORMAL_PAGE_PRIORITY: u8 = 5;
const NORMAL_IO_PRIORITY: u8 = 2;

/// The priorities of a thread. The host's threads all run alike: they are remembered, and nothing else.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Priority {
    Thread,
    /// `MEMORY_PRIORITY_*`.
    Page,
    /// `IO_PRIORITY_HINT`.
    Io,
}

impl Priority {
    /// Where the body keeps it, and what an ordinary thread has.
    fn place(self) -> (usize, u8) {
        match self {
            Self::Thread => (PRIORITY, NORMAL_PRIORITY),
            Self::Page => (0xC5, NORMAL_PAGE_PRIORITY),
            Self::Io => (0xC6, NORMAL_IO_PRIORITY),
        }
    }
}

/// A priority of the thread that a driver passes; stops when it is none.
pub(crate) fn priority(call: &Call, thread: usize, which: Priority) -> u8 {
    let (place, normal) = which.place();
    if let Priority::Thread = which {
        return priority_of(call, thread, place).read();
    }
    thread_at(call, thread);
    // Zero is the lowest of both kinds, and what a new thread has here: so it is kept one higher.
    Raw::<u8>::at(thread).field::<u8>(place).read().checked_sub(1).unwrap_or(normal)
}

/// Changes one; the caller has checked the value.
pub(crate) fn set_priority(call: &Call, thread: usize, which: Priority, value: u8) {
    let (place, _) = which.place();
    match which {
        Priority::Thread => priority_of(call, thread, place).write(value),
        Priority::Page | Priority::Io => {
            thread_at(call, thread);
            Raw::<u8>::at(thread).field::<u8>(place).write(value.saturating_add(1));
        }
    }
}

/// The priority byte of a thread; the host's threads all run alike, so it is remembered and nothing else.
fn priority_of(call: &Call, thread: usize, field: usize) -> Raw<u8> {
    thread_at(call, thread);
    let priority = Raw::<u8>::at(thread).field::<u8>(field);
    if priority.read() == 0 {
        priority.write(NORMAL_PRIORITY);
    }
    priority
}

/// `ThreadPriority` of `ZwSetInformationThread`: the same by another way, with a status.
pub(super) fn try_set_priority(call: &Call, thread: usize, new: i32) -> NtStatus {
    if !(1..=HIGH_PRIORITY).contains(&new) {
        return NtStatus::INVALID_PARAMETER;
    }
    priority_of(call, thread, PRIORITY).write(new.unsigned_abs() as u8);
    NtStatus::SUCCESS
}

extern "efiapi" fn ke_set_priority_thread(thread: usize, new: i32) -> i32 {
    let call = Call::enter();
    if !(1..=HIGH_PRIORITY).contains(&new) {
        call.stop(
            Rule::BadArgument,
            format!("priority {new}: LOW_PRIORITY is the system's, {HIGH_PRIORITY} the highest"),
        );
    }
    let priority = priority_of(&call, thread, PRIORITY);
    let before = priority.read();
    priority.write(new.unsigned_abs() as u8);
    before.into()
}

extern "efiapi" fn ke_query_priority_thread(thread: usize) -> i32 {
    let call = Call::enter();
    priority_of(&call, thread, PRIORITY).read().into()
}

extern "efiapi" fn ke_set_base_priority_thread(thread: usize, increment: i32) -> i32 {
    let call = Call::enter();
    let base = priority_of(&call, thread, BASE_PRIORITY);
    let before = i32::from(base.read()) - i32::from(NORMAL_PRIORITY);
    base.write((i32::from(NORMAL_PRIORITY) + increment).clamp(1, HIGH_PRIORITY).unsigned_abs() as u8);
    before
}

pub(crate) extern "efiapi" fn ex_get_previous_mode() -> i8 {
    let call = Call::enter();
    // Threads of programs are entered for a system call; the drivers' own belong to the system process. Attaching to
    // another process changes nothing in that.
    if call.thread().own_process().is_none() { nt_types::KERNEL_MODE } else { nt_types::USER_MODE }
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
    let id = call.machine().next_thread_id();
    let object = match new_object(call.machine(), id) {
        Ok(object) => object,
        Err(status) => return status,
    };
    let flags = attributes.some().map_or(0, |attributes| field!(attributes, OBJECT_ATTRIBUTES, Attributes).read());
    let (machine, driver) = (Arc::clone(call.machine()), Arc::clone(call.driver()));
    machine.nt.threads().add(Running {
        body: object.body(),
        driver: Arc::clone(&driver),
        routine,
        site: Origin::of(call.site()),
    });
    super::notify::thread_changes(call.thread(), SYSTEM_PROCESS_ID as usize, id as usize, true);
    let thread_object = object.clone();
    let spawned = std::thread::Builder::new()
        .name(driver.name.clone())
        .spawn(move || run(&machine, &driver, &thread_object, id, (routine, context)));
    if spawned.is_err() {
        call.machine().nt.threads().remove(object.body());
        return NtStatus::INSUFFICIENT_RESOURCES;
    }
    client_id.write_if_some(CLIENT_ID {
        UniqueProcess: std::ptr::without_provenance_mut(SYSTEM_PROCESS_ID as usize),
        UniqueThread: std::ptr::without_provenance_mut(id as usize),
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
fn run(machine: &Arc<Inner>, driver: &Arc<Driver>, object: &ObjectRef, id: u32, (routine, context): (usize, usize)) {
    type Start = unsafe extern "efiapi" fn(usize);
    // SAFETY: the address of the driver's KSTART_ROUTINE, whose type its page gives.
    let start = unsafe { std::mem::transmute::<usize, Start>(routine) };
    IS_SYSTEM_THREAD.set(true);
    Thread::enter_as(machine, Some((object.clone(), id)), |thread| {
        // A stop is recorded in the machine; this thread just ends.
        // SAFETY: the driver gave the routine and its context for this.
        let _ = thread.enter_driver(driver, START_ROUTINE, 0, || unsafe { start(context) });
        super::notify::thread_changes(thread, SYSTEM_PROCESS_ID as usize, id as usize, false);
    });
    state(Raw::at(object.body())).store(1, Ordering::Release);
    machine.nt.threads().remove(object.body());
    machine.nt.dispatcher().wake();
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conformance::conforms;
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
        conforms!(
            "wdm/nf-wdm-psterminatesystemthread.md",
            "The routine does not return to a system thread, and returns an error to any other."
        );
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
    fn a_system_thread_runs_in_the_system_process_and_its_object_is_signalled_at_the_end() {
        conforms!(
            "wdm/nf-wdm-pscreatesystemthread.md",
            "Without a process handle the thread belongs to the system process; its handle is to be closed."
        );
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
