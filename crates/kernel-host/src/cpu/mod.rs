//! What the processor and the kernel's trap handlers do on Windows: privileged instructions, faults, exception dispatch.
//!
//! `signal` catches, `fault` decides what a fault means, `dispatch` finds a handler in the driver by walking its frames with
//! `unwind`, `seh` is the handler of C's `__try`. `user_access` judges touches of programs' memory; `backtrace` finds a driver's
//! callers quickly, where nothing has to be unwound.

use std::sync::Arc;

use nt_types::NtStatus;

use crate::ddi::Export;
use crate::finding::Rule;
use crate::nt::arena::PAGE;
use crate::thread::Thread;

pub(crate) mod backtrace;
pub(crate) mod bridge;
mod context;
mod dispatch;
mod epilogue;
mod fault;
mod frames;
pub(crate) mod memory;
mod raise;
#[cfg(test)]
pub(crate) use raise::dbg_break_point;
pub(crate) mod registers;
mod seh;
mod shared_data;
mod signal;
mod signal_stack;
#[cfg(test)]
mod tests;
mod unwind;
pub(crate) mod user_access;

use context::{Context, EXCEPTION_NONCONTINUABLE, ExceptionRecord};
use registers::NonVolatile;
pub(crate) use shared_data::FEATURES;
pub(crate) use signal::install_handlers;

/// Frames in a report.
const MOST_FRAMES_SHOWN: usize = 32;

/// What drivers can import from here.
pub(crate) fn exports() -> impl Iterator<Item = &'static Export> {
    [seh::TABLE, raise::TABLE, frames::TABLE].into_iter().flatten()
}

/// Raises `status` as an exception at the call that `registers` describe, as `ExRaiseStatus` does.
///
/// # Safety
/// The calling export owns nothing any more: its frames are jumped over.
pub(crate) unsafe fn raise_from_call(registers: &NonVolatile, status: NtStatus) -> ! {
    let mut context = Context::after_call(registers);
    let mut record = ExceptionRecord {
        code: status.0,
        flags: EXCEPTION_NONCONTINUABLE,
        nested: std::ptr::null_mut(),
        address: context.rip,
        parameter_count: 0,
        parameters: [0; 15],
    };
    dispatch::dispatch(&mut record, &mut context)
}

/// Goes on in the driver after the call that `registers` describe, with `result` in RAX.
///
/// # Safety
/// As for [`raise_from_call`].
pub(crate) unsafe fn return_from_call(registers: &NonVolatile, result: u64) -> ! {
    let mut context = Context::after_call(registers);
    context.integer[context::RAX] = result;
    // SAFETY: the place is in driver code, just behind the call; the caller's promise is the rest.
    unsafe { context::restore(&raw const context) }
}

/// The driver's stack at a call of an export, as `image!symbol+0xoffset`.
pub(crate) fn stack_from_call(registers: &NonVolatile) -> Vec<String> {
    stack_from(&Context::after_call(registers))
}

/// As [`stack_from_call`], as bare addresses.
pub(crate) fn addresses_from_call(registers: &NonVolatile) -> Vec<usize> {
    addresses_from(&Context::after_call(registers))
}

/// The driver's stack from `context` outwards, up to where the host entered driver code.
fn stack_from(context: &Context) -> Vec<String> {
    addresses_from(context).into_iter().map(|address| place(address as u64)).collect()
}

fn addresses_from(context: &Context) -> Vec<usize> {
    let mut walk = *context;
    let mut stack = Vec::new();
    while stack.len() < MOST_FRAMES_SHOWN && crate::image::is_driver_address(walk.rip as usize) {
        stack.push(walk.rip as usize);
        if unwind::step(&mut walk).is_none() {
            break;
        }
    }
    stack
}

/// Names an address: `image!symbol+0xoffset` in a driver, else the number.
fn place(address: u64) -> String {
    match crate::image::find(address as usize) {
        Some(module) => module.name_address(address as usize),
        None => format!("{address:#x}"),
    }
}

/// An exception code by its status name.
fn exception_name(code: i32) -> String {
    NtStatus(code).to_string()
}

/// What is known about an address that faulted, to be appended to a message.
fn explain(address: u64) -> String {
    let address = address as usize;
    if address <= crate::process::HIGHEST_USER_ADDRESS {
        return user_access::explain(address);
    }
    if let Some(module) = crate::image::find(address) {
        let name = module.name();
        return if module.is_unloaded() {
            format!(", which was in {name} before it was unloaded")
        } else if let Some(section) = module.discarded_section(address) {
            format!(", in the section {section} of {name}, which went away when DriverEntry had returned")
        } else {
            format!(", in {name} (read-only there?)")
        };
    }
    let Some(thread) = Thread::try_current().filter(|thread| thread.machine().nt.arena().contains(address)) else {
        return String::new();
    };
    // A block ends at its last page's end; the page behind it is the guard.
    match thread.machine().nt.pool().containing(address.wrapping_sub(PAGE)) {
        Some((start, length)) => {
            let past = address.wrapping_sub(start + length);
            format!(", {past} bytes past the end of the pool block of {length} bytes at {start:#x}")
        }
        None => ", which is freed or guarded kernel memory".to_owned(),
    }
}

/// The rule that an access to a bad kernel address breaks.
fn rule_of(address: u64) -> Rule {
    let is_pool = |thread: Arc<Thread>| thread.machine().nt.arena().contains(address as usize);
    if Thread::try_current().is_some_and(is_pool) { Rule::PoolCorruption } else { Rule::UnhandledException }
}
