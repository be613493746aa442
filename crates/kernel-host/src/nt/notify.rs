//! Notify routines: drivers hear of processes, threads and images.
//!
//! Pages: `ntddk/nf-ntddk-pssetcreateprocessnotifyroutineex`, `ntddk/nf-ntddk-pssetcreatethreadnotifyroutine`,
//! `ntddk/nf-ntddk-pssetloadimagenotifyroutine` and their neighbours. Simulated programs map no images, so that the image routines
//! hear of drivers only; a process notification names its image, but has no file object for it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use nt_types::{CLIENT_ID, NtStatus, UNICODE_STRING};

use super::raw::{Raw, field};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::leak::{Leak, LeakKind};
use crate::machine::{Driver, Inner};
use crate::origin::Origin;
use crate::process::Process;
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "ntoskrnl.exe":
    PsSetCreateProcessNotifyRoutine(max 0) = ps_set_create_process_notify_routine;
    PsSetCreateProcessNotifyRoutineEx(max 0) = ps_set_create_process_notify_routine_ex;
    PsSetCreateProcessNotifyRoutineEx2(max 0) = ps_set_create_process_notify_routine_ex2;
    PsSetCreateThreadNotifyRoutine(max 0, fails RESOURCES) = ps_set_create_thread_notify_routine;
    PsSetCreateThreadNotifyRoutineEx(max 0, fails RESOURCES) = ps_set_create_thread_notify_routine_ex;
    PsRemoveCreateThreadNotifyRoutine(max 1) = ps_remove_create_thread_notify_routine;
    PsSetLoadImageNotifyRoutine(max 0, fails RESOURCES) = ps_set_load_image_notify_routine;
    PsSetLoadImageNotifyRoutineEx(max 0, fails RESOURCES) = ps_set_load_image_notify_routine_ex;
    PsRemoveLoadImageNotifyRoutine(max 1) = ps_remove_load_image_notify_routine;
}

/// Routines of one kind that the system takes.
const LIMIT: usize = 64;

/// `IMAGE_DLLCHARACTERISTICS_FORCE_INTEGRITY`, and where an image's headers say such things.
const FORCE_INTEGRITY: u16 = 0x0080;
const HEADER_OFFSET: usize = 0x3C;
const CHARACTERISTICS: usize = 4 + 20 + 70;

/// `IMAGE_INFO::Properties`: addressing mode, and that the image is the system's.
const IMAGE_ADDRESSING_MODE_32BIT: u32 = 3;
const SYSTEM_MODE_IMAGE: u32 = 0x100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Process,
    ProcessEx,
    Thread,
    Image,
}

impl Kind {
    fn callback(self) -> &'static str {
        match self {
            Self::Process => "PCREATE_PROCESS_NOTIFY_ROUTINE",
            Self::ProcessEx => "PCREATE_PROCESS_NOTIFY_ROUTINE_EX",
            Self::Thread => "PCREATE_THREAD_NOTIFY_ROUTINE",
            Self::Image => "PLOAD_IMAGE_NOTIFY_ROUTINE",
        }
    }
}

/// The registered routines of a machine.
#[derive(Debug, Default)]
pub(crate) struct Notify(Mutex<Vec<Arc<Entry>>>);

#[derive(Debug)]
struct Entry {
    kind: Kind,
    driver: Arc<Driver>,
    routine: usize,
    site: Origin,
    /// Calls under way; removing waits for them.
    running: AtomicUsize,
}

/// `PS_CREATE_NOTIFY_INFO`.
#[repr(C)]
#[derive(Clone, Copy)]
struct CreateInfo {
    size: usize,
    flags: u64,
    parent: usize,
    creator: CLIENT_ID,
    file: usize,
    image: *const UNICODE_STRING,
    command_line: *const UNICODE_STRING,
    status: NtStatus,
}

const _: () = assert!(size_of::<CreateInfo>() == 72);

/// `IMAGE_INFO`.
#[repr(C)]
#[derive(Clone, Copy)]
struct ImageInfo {
    properties: u32,
    base: usize,
    selector: u32,
    size: usize,
    section: u32,
}

const _: () = assert!(size_of::<ImageInfo>() == 40);

impl Notify {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Entry>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Routines of `driver` that are still registered.
    pub(crate) fn leaks(&self, driver: &Driver) -> Vec<Leak> {
        let entries = self.lock();
        let mine = entries.iter().filter(|entry| std::ptr::eq(Arc::as_ptr(&entry.driver), driver));
        let leak = |entry: &Arc<Entry>| Leak {
            kind: LeakKind::Registration,
            count: 1,
            bytes: 0,
            detail: format!(
                "the {} {:#x} is still registered, from {}",
                entry.kind.callback(),
                entry.routine,
                entry.site
            ),
        };
        mine.map(leak).collect()
    }

    /// Calls every routine of a kind, as the pages say: at `PASSIVE_LEVEL`, in a critical region.
    fn each(&self, thread: &Thread, kind: Kind, mut call: impl FnMut(usize)) {
        let entries: Vec<_> = self.lock().iter().filter(|entry| entry.kind == kind).cloned().collect();
        for entry in entries {
            entry.running.fetch_add(1, Ordering::AcqRel);
            // A stop is recorded in the machine; the next call of anything sees it.
            let _ = in_critical_region(thread, &entry.driver, kind.callback(), || call(entry.routine));
            entry.running.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

/// Calls a driver as many callbacks' pages say: at `PASSIVE_LEVEL`, with normal kernel APCs disabled. `None` when the machine
/// stopped, which it remembers.
pub(super) fn in_critical_region<R>(
    thread: &Thread,
    driver: &Arc<Driver>,
    callback: &'static str,
    body: impl FnOnce() -> R,
) -> Option<R> {
    let regions = thread.critical_regions();
    thread.set_critical_regions(regions + 1);
    let result = thread.call_driver(driver, callback, 0, body);
    thread.set_critical_regions(regions);
    result.ok()
}

fn add(call: &Call, kind: Kind, routine: usize) -> Result<(), NtStatus> {
    if routine == 0 {
        call.stop(Rule::BadArgument, "the notify routine is NULL");
    }
    let mut entries = call.machine().nt.notify().lock();
    let is_process = |kind| matches!(kind, Kind::Process | Kind::ProcessEx);
    let same = |entry: &Arc<Entry>| entry.routine == routine && is_process(entry.kind) && is_process(kind);
    if entries.iter().any(same) {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    if entries.iter().filter(|entry| entry.kind == kind).count() >= LIMIT {
        return Err(if is_process(kind) { NtStatus::INVALID_PARAMETER } else { NtStatus::INSUFFICIENT_RESOURCES });
    }
    let (driver, site) = (Arc::clone(call.driver()), Origin::of(call.site()));
    entries.push(Arc::new(Entry { kind, driver, routine, site, running: AtomicUsize::new(0) }));
    Ok(())
}

/// Removes a routine and waits until it does not run any more; `missing` when there is none.
fn remove(call: &Call, kind: Kind, routine: usize, missing: NtStatus) -> NtStatus {
    let removed = {
        let mut entries = call.machine().nt.notify().lock();
        let found = entries.iter().position(|entry| entry.kind == kind && entry.routine == routine);
        found.map(|index| entries.remove(index))
    };
    let Some(removed) = removed else { return missing };
    if call.thread().is_inside(kind.callback()) {
        call.stop(Rule::Deadlock, format!("a {} removes itself: the call waits for its end", kind.callback()));
    }
    let idle = || removed.running.load(Ordering::Acquire) == 0;
    call.machine().nt.dispatcher().wait(call, None, idle);
    NtStatus::SUCCESS
}

fn status(result: Result<(), NtStatus>) -> NtStatus {
    result.map_or_else(|status| status, |()| NtStatus::SUCCESS)
}

fn set_process(call: &Call, kind: Kind, routine: usize, removes: u8) -> NtStatus {
    if removes != 0 {
        remove(call, kind, routine, NtStatus::INVALID_PARAMETER)
    } else {
        status(add(call, kind, routine))
    }
}

pub(super) extern "efiapi" fn ps_set_create_process_notify_routine(routine: usize, removes: u8) -> NtStatus {
    set_process(&Call::enter(), Kind::Process, routine, removes)
}

pub(super) extern "efiapi" fn ps_set_create_process_notify_routine_ex(routine: usize, removes: u8) -> NtStatus {
    set_ex(&Call::enter(), routine, removes)
}

/// The only type of routine there is, `PsCreateProcessNotifySubsystems`, is the Ex form's.
extern "efiapi" fn ps_set_create_process_notify_routine_ex2(kind: u32, routine: usize, removes: u8) -> NtStatus {
    let call = Call::enter();
    if kind != 0 {
        return NtStatus::INVALID_PARAMETER;
    }
    set_ex(&call, routine, removes)
}

fn set_ex(call: &Call, routine: usize, removes: u8) -> NtStatus {
    if removes == 0 && !is_integrity_checked(routine) {
        return NtStatus::ACCESS_DENIED;
    }
    set_process(call, Kind::ProcessEx, routine, removes)
}

/// Whether the image that a routine is in was linked with `/INTEGRITYCHECK`. An address in no image has no header to ask.
pub(super) fn is_integrity_checked(routine: usize) -> bool {
    let Some(module) = crate::image::registry::find(routine) else { return true };
    let header = Raw::<u32>::at(module.base() + HEADER_OFFSET).read() as usize;
    Raw::<u16>::at(module.base() + header + CHARACTERISTICS).read() & FORCE_INTEGRITY != 0
}

pub(super) extern "efiapi" fn ps_set_create_thread_notify_routine(routine: usize) -> NtStatus {
    status(add(&Call::enter(), Kind::Thread, routine))
}

/// `PsCreateThreadNotifyNonSystem` (0) and `PsCreateThreadNotifySubsystems` (1) differ in context only, which is the new thread's.
extern "efiapi" fn ps_set_create_thread_notify_routine_ex(kind: u32, routine: usize) -> NtStatus {
    let call = Call::enter();
    if kind > 1 {
        return NtStatus::INVALID_PARAMETER;
    }
    status(add(&call, Kind::Thread, routine))
}

pub(super) extern "efiapi" fn ps_remove_create_thread_notify_routine(routine: usize) -> NtStatus {
    remove(&Call::enter(), Kind::Thread, routine, NtStatus::PROCEDURE_NOT_FOUND)
}

pub(super) extern "efiapi" fn ps_set_load_image_notify_routine(routine: usize) -> NtStatus {
    status(add(&Call::enter(), Kind::Image, routine))
}

extern "efiapi" fn ps_set_load_image_notify_routine_ex(routine: usize, _flags: usize) -> NtStatus {
    status(add(&Call::enter(), Kind::Image, routine))
}

pub(super) extern "efiapi" fn ps_remove_load_image_notify_routine(routine: usize) -> NtStatus {
    remove(&Call::enter(), Kind::Image, routine, NtStatus::PROCEDURE_NOT_FOUND)
}

/// A process starts, with its first thread.
///
/// # Errors
/// What a routine stored in `CreationStatus`: the process is not to start.
pub(crate) fn process_starts(machine: &Arc<Inner>, process: &Process, thread_id: u32) -> Result<(), NtStatus> {
    type Plain = unsafe extern "efiapi" fn(usize, usize, u8);
    type Extended = unsafe extern "efiapi" fn(usize, usize, *mut CreateInfo);
    if machine.nt.notify().lock().is_empty() {
        return Ok(());
    }
    let units: Vec<u16> = process.image_path().encode_utf16().collect();
    let image = UNICODE_STRING::from_utf16(&units).ok_or(NtStatus::OBJECT_NAME_INVALID)?;
    let (id, parent) = (process.id() as usize, process.parent_id() as usize);
    Thread::enter(machine, |thread| {
        let mut info = CreateInfo {
            size: size_of::<CreateInfo>(),
            flags: 0,
            parent,
            creator: CLIENT_ID {
                UniqueProcess: std::ptr::without_provenance_mut(parent),
                UniqueThread: std::ptr::without_provenance_mut(thread.id() as usize),
            },
            file: 0,
            image: &raw const image,
            command_line: &raw const image,
            status: NtStatus::SUCCESS,
        };
        let info = Raw::of(&raw mut info);
        machine.nt.notify().each(thread, Kind::Process, |routine| {
            // SAFETY: the address of a PCREATE_PROCESS_NOTIFY_ROUTINE.
            let routine = unsafe { std::mem::transmute::<usize, Plain>(routine) };
            // SAFETY: three numbers.
            unsafe { routine(parent, id, 1) }
        });
        machine.nt.notify().each(thread, Kind::ProcessEx, |routine| {
            // SAFETY: the address of a PCREATE_PROCESS_NOTIFY_ROUTINE_EX.
            let routine = unsafe { std::mem::transmute::<usize, Extended>(routine) };
            let pointer = info.pointer();
            // SAFETY: a process object and a structure that live during the call.
            unsafe { routine(process.object(), id, pointer) }
        });
        field!(info, CreateInfo, status).read().ok()?;
        thread_changes(thread, id, thread_id as usize, true);
        Ok(())
    })
}

/// A process ends: its thread first.
pub(crate) fn process_ends(machine: &Arc<Inner>, process: &Process, thread_id: u32) {
    type Plain = unsafe extern "efiapi" fn(usize, usize, u8);
    type Extended = unsafe extern "efiapi" fn(usize, usize, *mut CreateInfo);
    let (id, parent) = (process.id() as usize, process.parent_id() as usize);
    Thread::enter(machine, |thread| {
        thread_changes(thread, id, thread_id as usize, false);
        machine.nt.notify().each(thread, Kind::Process, |routine| {
            // SAFETY: the address of a PCREATE_PROCESS_NOTIFY_ROUTINE.
            let routine = unsafe { std::mem::transmute::<usize, Plain>(routine) };
            // SAFETY: three numbers.
            unsafe { routine(parent, id, 0) }
        });
        machine.nt.notify().each(thread, Kind::ProcessEx, |routine| {
            // SAFETY: the address of a PCREATE_PROCESS_NOTIFY_ROUTINE_EX.
            let routine = unsafe { std::mem::transmute::<usize, Extended>(routine) };
            // SAFETY: a process object that lives during the call; NULL says that the process ends.
            unsafe { routine(process.object(), id, std::ptr::null_mut()) }
        });
    });
}

/// A thread starts or ends.
pub(crate) fn thread_changes(thread: &Thread, process_id: usize, thread_id: usize, starts: bool) {
    type Routine = unsafe extern "efiapi" fn(usize, usize, u8);
    thread.machine().nt.notify().each(thread, Kind::Thread, |routine| {
        // SAFETY: the address of a PCREATE_THREAD_NOTIFY_ROUTINE.
        let routine = unsafe { std::mem::transmute::<usize, Routine>(routine) };
        // SAFETY: three numbers.
        unsafe { routine(process_id, thread_id, starts.into()) }
    });
}

/// A driver's image was mapped.
pub(crate) fn image_loaded(thread: &Thread, path: &str, base: usize, size: usize) {
    type Routine = unsafe extern "efiapi" fn(*const UNICODE_STRING, usize, *mut ImageInfo);
    let units: Vec<u16> = path.encode_utf16().collect();
    let Some(name) = UNICODE_STRING::from_utf16(&units) else { return };
    let properties = IMAGE_ADDRESSING_MODE_32BIT | SYSTEM_MODE_IMAGE;
    let mut info = ImageInfo { properties, base, selector: 0, size, section: 0 };
    let info = Raw::of(&raw mut info);
    thread.machine().nt.notify().each(thread, Kind::Image, |routine| {
        // SAFETY: the address of a PLOAD_IMAGE_NOTIFY_ROUTINE.
        let routine = unsafe { std::mem::transmute::<usize, Routine>(routine) };
        let pointer = info.pointer();
        // SAFETY: a string and a structure that live during the call; process 0 stands for a driver's image.
        unsafe { routine(&raw const name, 0, pointer) }
    });
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;
    use crate::conformance::conforms;
    use crate::ddi::testing::Bench;

    thread_local! {
        static SEEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
    }

    fn seen() -> Vec<String> {
        SEEN.take()
    }

    extern "efiapi" fn on_process(parent: usize, id: usize, create: u8) {
        assert_eq!(Thread::current().critical_regions(), 1);
        SEEN.with_borrow_mut(|seen| seen.push(format!("process {parent} {id} {create}")));
    }

    extern "efiapi" fn on_process_ex(_: usize, id: usize, info: Raw<CreateInfo>) {
        let image = info.some().map(|info| {
            crate::nt::unicode::name(Raw::of(field!(info, CreateInfo, image).read().cast_mut())).expect("UTF-16")
        });
        SEEN.with_borrow_mut(|seen| seen.push(format!("ex {id} {}", image.unwrap_or_default())));
    }

    extern "efiapi" fn veto(_: usize, _: usize, info: Raw<CreateInfo>) {
        if let Some(info) = info.some() {
            field!(info, CreateInfo, status).write(NtStatus::ACCESS_DENIED);
        }
    }

    extern "efiapi" fn on_thread(process: usize, _: usize, create: u8) {
        SEEN.with_borrow_mut(|seen| seen.push(format!("thread {process} {create}")));
    }

    extern "efiapi" fn remove_itself(_: usize, _: usize, _: u8) {
        let _ = ps_set_create_process_notify_routine(remove_itself as *const () as usize, 1);
    }

    #[test]
    fn processes_are_told_with_their_threads_until_the_routine_is_removed() {
        conforms!(
            "ntddk/nf-ntddk-pssetcreateprocessnotifyroutine.md",
            "The routine hears of each process's start and end until it is removed."
        );
        conforms!(
            "ntddk/nf-ntddk-pssetcreateprocessnotifyroutine.md",
            "Registering a routine twice is STATUS_INVALID_PARAMETER."
        );
        conforms!("ntddk/nf-ntddk-pssetcreatethreadnotifyroutine.md", "The routine hears of each thread.");
        conforms!(
            "ntddk/nf-ntddk-psremovecreatethreadnotifyroutine.md",
            "A routine that is not registered is STATUS_PROCEDURE_NOT_FOUND."
        );
        let bench = Bench::new();
        let (process, thread) = (on_process as *const () as usize, on_thread as *const () as usize);
        bench
            .run(|| {
                assert_eq!(ps_set_create_process_notify_routine(process, 0), NtStatus::SUCCESS);
                assert_eq!(ps_set_create_process_notify_routine(process, 0), NtStatus::INVALID_PARAMETER);
                assert_eq!(ps_set_create_thread_notify_routine(thread), NtStatus::SUCCESS);
            })
            .unwrap();
        assert_eq!(bench.machine().inner().nt.notify().leaks(bench.driver()).len(), 2);
        let program = bench.machine().process("p.exe").start().unwrap();
        let id = program.id();
        assert_eq!(seen(), [format!("process 4 {id} 1"), format!("thread {id} 1")]);
        program.terminate();
        assert_eq!(seen(), [format!("thread {id} 0"), format!("process 4 {id} 0")]);
        bench
            .run(|| {
                assert_eq!(ps_set_create_process_notify_routine(process, 1), NtStatus::SUCCESS);
                assert_eq!(ps_set_create_process_notify_routine(process, 1), NtStatus::INVALID_PARAMETER);
                assert_eq!(ps_remove_create_thread_notify_routine(thread), NtStatus::SUCCESS);
                assert_eq!(ps_remove_create_thread_notify_routine(thread), NtStatus::PROCEDURE_NOT_FOUND);
            })
            .unwrap();
        bench.machine().process("q.exe").start().unwrap().terminate();
        assert!(seen().is_empty());
    }

    #[test]
    fn the_extended_routine_gets_the_image_and_can_refuse_the_process() {
        conforms!(
            "ntddk/ns-ntddk-_ps_create_notify_info.md",
            "An error that the routine stores in CreationStatus keeps the process from starting."
        );
        let bench = Bench::new();
        let (look, refuse) = (on_process_ex as *const () as usize, veto as *const () as usize);
        bench.run(|| assert!(ps_set_create_process_notify_routine_ex(look, 0).is_success())).unwrap();
        let program = bench.machine().process("p.exe").start().unwrap();
        let id = program.id();
        assert_eq!(seen(), [format!(r"ex {id} \Device\HarddiskVolume1\Windows\System32\p.exe")]);
        program.terminate();
        assert_eq!(seen(), [format!("ex {id} ")]);
        bench.run(|| assert!(ps_set_create_process_notify_routine_ex(refuse, 0).is_success())).unwrap();
        assert_eq!(bench.machine().process("q.exe").start().err(), Some(NtStatus::ACCESS_DENIED));
        seen();
    }

    #[test]
    fn an_image_without_an_integrity_check_is_denied() {
        conforms!(
            "ntddk/nf-ntddk-pssetcreateprocessnotifyroutineex.md",
            "A routine in an image without IMAGE_DLLCHARACTERISTICS_FORCE_INTEGRITY is STATUS_ACCESS_DENIED."
        );
        let bench = Bench::new();
        let image = crate::image::testing::load_on(&bench);
        let inside = image.entry();
        bench.run(|| assert_eq!(ps_set_create_process_notify_routine_ex(inside, 0), NtStatus::ACCESS_DENIED)).unwrap();
    }

    #[test]
    fn a_routine_that_removes_itself_is_found() {
        conforms!("ntddk/nf-ntddk-pssetcreateprocessnotifyroutine.md", "A routine is not removed from within itself.");
        let bench = Bench::new();
        let routine = remove_itself as *const () as usize;
        bench.run(|| assert!(ps_set_create_process_notify_routine(routine, 0).is_success())).unwrap();
        let _ = bench.machine().process("p.exe").start();
        assert_eq!(bench.machine().finding().unwrap().rule, Rule::Deadlock);
    }

    #[test]
    fn image_routines_are_set_and_removed() {
        conforms!(
            "ntddk/nf-ntddk-psremoveloadimagenotifyroutine.md",
            "A routine that is not registered is STATUS_PROCEDURE_NOT_FOUND."
        );
        Bench::new()
            .run(|| {
                assert_eq!(ps_set_load_image_notify_routine(1), NtStatus::SUCCESS);
                assert_eq!(ps_remove_load_image_notify_routine(1), NtStatus::SUCCESS);
                assert_eq!(ps_remove_load_image_notify_routine(1), NtStatus::PROCEDURE_NOT_FOUND);
            })
            .unwrap();
    }
}
