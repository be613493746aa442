//! A driver touches user memory: whether it may, and whether it survives when the program takes the memory away.
//!
//! User pages are hidden from drivers (`process/exposure.rs`), so that the first touch of one that is there faults. What counts
//! then is what would happen if the page were not there: is there a frame on the driver's stack whose `__except` could take
//! the exception? If not, any program can crash the system, and the machine stops. If so, the page is shown and the
//! access tried again.
//!
//! An address that belongs to another process than the one whose address space the thread is in is as bad as one that is not
//! there, which is what it would be on Windows. The system process's own user memory is nobody's to take away.
//!
//! Exports touch user memory on their caller's behalf: `RtlCopyUnicodeString` with a program's buffer is as unguarded as the
//! driver's own loop. Their accesses are let through in the signal handler, since their frames cannot be left halfway, and
//! judged when the call ends. What the host does as file systems and the I/O manager do, with guards of their own, goes through
//! the second view and never comes here.

use std::cell::Cell;
use std::sync::Arc;

use super::context::Context;
use super::dispatch::{is_guarded, stop};
use crate::ddi::CallSite;
use crate::finding::Rule;
use crate::image::is_driver_address;
use crate::process::Process;
use crate::process::memory::view::owner_of;
use crate::thread::Thread;

/// An access that an export made for its caller.
#[derive(Clone, Copy, Debug)]
struct Touch {
    address: usize,
    write: bool,
    irql: u8,
}

thread_local! {
    /// The first touch in the call under way that nobody has judged yet.
    static TOUCHED: Cell<Option<Touch>> = const { Cell::new(None) };
}

/// Serves a fault of host code, in signal context: true when the access may be tried again.
///
/// `survives` says that the access is one that may fail, made by the host for itself.
pub(super) fn serve_host(address: usize, write: bool, survives: bool) -> bool {
    let Some(memory) = owner_of(address).filter(|memory| memory.lets(address, write)) else { return false };
    if Thread::is_serving_call() && !survives {
        let Some(thread) = Thread::try_current() else { return false };
        if !process_of(&thread).memory().is(&memory) {
            return false;
        }
        if TOUCHED.get().is_none() {
            TOUCHED.set(Some(Touch { address, write, irql: thread.irql() }));
        }
    }
    memory.open(address)
}

/// Serves a fault of driver code: true when the access may be tried again, false when the address is a bad one. Stops the
/// machine when nothing guards the access. `context` is the driver's, at the access or at its call of a copy routine.
pub(super) fn serve_driver(address: usize, write: bool, context: &Context) -> bool {
    let Some(memory) = owner_of(address).filter(|memory| memory.lets(address, write)) else { return false };
    let thread = Thread::current();
    let process = process_of(&thread);
    if !process.memory().is(&memory) {
        return false;
    }
    if needs_guard(&thread, &process) && !is_guarded(context) {
        stop(Rule::UnguardedUserAccess, describe(&super::place(context.rip), address, write, &process), context);
    }
    memory.open(address)
}

/// An export has ended: was what it touched for its caller guarded by that?
pub(crate) fn judge(site: &CallSite, thread: &Thread) {
    let Some(Touch { address, write, irql }) = TOUCHED.take() else { return };
    let process = process_of(thread);
    if !needs_guard(thread, &process) || !is_driver_address(site.return_address) {
        return;
    }
    let name = site.export.name;
    if irql > nt_types::APC_LEVEL {
        let message = format!("{name} was given user address {address:#x} at IRQL {irql}, where it may not be there");
        thread.stop(Rule::IrqlTooHigh, message, Some(site));
    }
    if !is_guarded(&Context::after_call(&site.registers)) {
        let who = format!("{name}, for {},", super::place(site.return_address as u64));
        thread.stop(Rule::UnguardedUserAccess, describe(&who, address, write, &process), Some(site));
    }
}

/// Whether a call that may raise an exception for a user address is made where one would be taken. Always so where it cannot
/// be told.
pub(crate) fn is_call_guarded(site: &CallSite, thread: &Thread) -> bool {
    let is_watched = crate::process::exposure::is_watched() && thread.machine().user_memory_watch.is_on();
    !is_watched || !is_driver_address(site.return_address) || is_guarded(&Context::after_call(&site.registers))
}

/// Whose memory a user address is in, where that explains why it cannot be touched; else nothing.
pub(super) fn explain(address: usize) -> String {
    let Some(thread) = Thread::try_current() else { return String::new() };
    let Some(memory) = owner_of(address).filter(|memory| memory.lets(address, false)) else { return String::new() };
    let here = process_of(&thread);
    if here.memory().is(&memory) {
        return String::new();
    }
    let owner = thread.machine().nt.process_with(&memory);
    let owner = owner.map_or_else(|| "of another machine's process".to_owned(), |owner| format!("of {}", name(&owner)));
    format!(", memory {owner}, while the thread is in the address space of {}", name(&here))
}

fn needs_guard(thread: &Thread, process: &Process) -> bool {
    thread.machine().user_memory_watch.is_on() && !process.is_system()
}

/// The process whose address space the thread is in.
fn process_of(thread: &Thread) -> Arc<Process> {
    thread.process().unwrap_or_else(|| Arc::clone(thread.machine().nt.system_process(thread.machine())))
}

fn name(process: &Process) -> String {
    if process.is_system() {
        return "the system process".to_owned();
    }
    format!("{} (process {})", process.image_name(), process.id())
}

fn describe(who: &str, address: usize, write: bool, process: &Process) -> String {
    let verb = if write { "writes" } else { "reads" };
    format!(
        "{who} {verb} user address {address:#x} of {} outside of __try: the memory is there now, but the program may free or \
         protect it at any moment, and nothing on the stack would take the exception. Touch it inside __try/__except (after \
         ProbeForRead or ProbeForWrite), or lock it with MmProbeAndLockPages and use its system address",
        name(process)
    )
}
