//! Exception dispatch: which frame of the driver handles an exception, and how control gets there.
//!
//! As on Windows, in two passes. The first walks outwards and asks each frame's language handler; the answer is to go on
//! where the exception happened, to look further, or (the handler itself starts the second pass) to unwind to a frame,
//! running the termination handlers of the frames in between. Driver code that runs meanwhile (filters and
//! `__finally` blocks) runs below the frames it looks at, which stay as they are until control is handed over.
//!
//! Where the host's own frames come in between, `bridge` says how the walk goes on.
//!
//! Functions here that do not return are left by a jump into the driver. Nothing in them owns anything at that point.

use std::fmt::Write as _;
use std::ptr::null_mut;

use nt_types::NtStatus;

use super::bridge::{self, Beyond};
use super::context::{
    Context, DispatcherContext, EXCEPTION_EXIT_UNWIND, EXCEPTION_NONCONTINUABLE, EXCEPTION_TARGET_UNWIND,
    EXCEPTION_UNWINDING, ExceptionRecord, RAX, restore,
};
use super::seh::may_take;
use super::unwind::{EXCEPTION_HANDLER, Frame, TERMINATION_HANDLER, step};
use crate::finding::Rule;
use crate::thread::Thread;

/// Frames walked before the stack counts as damaged.
const MOST_FRAMES: usize = 1024;

/// `EXCEPTION_DISPOSITION`: go on where the exception happened.
pub(super) const CONTINUE_EXECUTION: i32 = 0;
/// `EXCEPTION_DISPOSITION`: not my exception.
pub(super) const CONTINUE_SEARCH: i32 = 1;

/// `EXCEPTION_ROUTINE`: a language handler.
type LanguageHandler = unsafe extern "efiapi" fn(
    record: *mut ExceptionRecord,
    establisher: u64,
    context: *mut Context,
    dispatcher: *mut DispatcherContext,
) -> i32;

/// What a handler is told about its frame. Holds plain addresses only, so that it may be jumped over.
fn dispatcher_context(frame: &Frame, target_ip: u64, context: *mut Context) -> DispatcherContext {
    DispatcherContext {
        control_pc: frame.control_pc,
        image_base: frame.module.base() as u64,
        function_entry: frame.function_entry,
        establisher_frame: frame.establisher,
        target_ip,
        context_record: context,
        language_handler: frame.handler,
        handler_data: frame.handler_data,
        history_table: null_mut(),
        scope_index: 0,
        fill: 0,
    }
}

/// Walks one frame and drops what the walk held: the rest of a frame's treatment may be jumped over.
fn step_plain(
    context: &mut Context,
    pass: u8,
    target_ip: u64,
    seen: *mut Context,
) -> Option<(DispatcherContext, bool)> {
    let frame = step(context)?;
    Some((dispatcher_context(&frame, target_ip, seen), frame.flags & pass != 0))
}

/// Calls a language handler.
fn ask(record: &mut ExceptionRecord, context: *mut Context, dispatcher: &mut DispatcherContext) -> i32 {
    let address = dispatcher.language_handler as *const ();
    // SAFETY: the address comes from the unwind data of a loaded image, whose handlers have this signature; if it is wrong
    // the call faults in driver code, which is what would happen on Windows.
    let handler = unsafe { std::mem::transmute::<*const (), LanguageHandler>(address) };
    // SAFETY: all pointers are valid for the call and exclusive to it.
    unsafe { handler(record, dispatcher.establisher_frame, context, dispatcher) }
}

/// Filters that may be under way at a time, each for an exception in the one before.
const MOST_NESTED_FILTERS: usize = 8;

/// A walk over driver frames, outwards, through the host's frames where exceptions may pass them.
struct Walk {
    context: Context,
    /// Scopes of the next frame that count no more: its `__finally` blocks that have run.
    scope_index: u32,
}

impl Walk {
    /// Looks at the next frame that is the driver's; `context` is then its caller's. `None` at the end of driver code.
    ///
    /// `leaves` says that frames which are passed are left for good.
    fn step(
        &mut self,
        pass: u8,
        target_ip: u64,
        seen: *mut Context,
        leaves: bool,
    ) -> Option<(DispatcherContext, bool)> {
        while !crate::image::is_driver_address(self.context.rip as usize) {
            match bridge::beyond(self.context.rsp()) {
                Beyond::Dispatch { context, scope_index, .. } => {
                    (self.context, self.scope_index) = (context, scope_index);
                }
                Beyond::Export { context, index } => {
                    if leaves {
                        bridge::abandon(index, context.rsp());
                    }
                    (self.context, self.scope_index) = (context, 0);
                }
                Beyond::Opaque { .. } | Beyond::Nothing => return None,
            }
        }
        if !seen.is_null() {
            // SAFETY: the caller's own context, which it lends for the walk.
            unsafe { seen.write(self.context) };
        }
        let (mut dispatcher, has_handler) = step_plain(&mut self.context, pass, target_ip, seen)?;
        dispatcher.scope_index = std::mem::take(&mut self.scope_index);
        Some((dispatcher, has_handler))
    }
}

/// First pass. Control goes to a handler, back to where the exception happened, or the machine stops.
pub(super) fn dispatch(record: &mut ExceptionRecord, context: &mut Context) -> ! {
    if bridge::nested_filters() > MOST_NESTED_FILTERS {
        unhandled(record, context);
    }
    let mut walk = Walk { context: *context, scope_index: 0 };
    for _ in 0..MOST_FRAMES {
        let Some((mut dispatcher, has_handler)) = walk.step(EXCEPTION_HANDLER, 0, null_mut(), false) else {
            break;
        };
        if !has_handler {
            continue;
        }
        dispatcher.context_record = &raw mut walk.context;
        match ask(record, context, &mut dispatcher) {
            CONTINUE_SEARCH => {}
            CONTINUE_EXECUTION if record.flags & EXCEPTION_NONCONTINUABLE == 0 => {
                // SAFETY: the context is where the exception happened, on this stack, above our frames.
                unsafe { restore(context) }
            }
            CONTINUE_EXECUTION => {
                let mut message = describe(record);
                message += "; a filter wants to go on, but the exception is noncontinuable";
                stop(Rule::UnhandledException, message, context)
            }
            _ => break,
        }
    }
    unhandled(record, context)
}

/// Whether a frame may take an exception that happens at `context`. Filters are not asked.
pub(super) fn is_guarded(context: &Context) -> bool {
    let mut walk = Walk { context: *context, scope_index: 0 };
    let frames = std::iter::from_fn(|| walk.step(EXCEPTION_HANDLER, 0, null_mut(), false)).take(MOST_FRAMES);
    frames.into_iter().any(|(dispatcher, has_handler)| has_handler && may_take(&dispatcher))
}

/// Second pass: leaves all frames up to the one that `target_frame` names, and goes on there at `target_ip`.
pub(super) fn unwind_to(
    target_frame: u64,
    target_ip: u64,
    record: &mut ExceptionRecord,
    result: u64,
    start: &Context,
) -> ! {
    // The frame at hand, as handlers see it, and the walk, which is one frame further out.
    let mut here = *start;
    let mut walk = Walk { context: *start, scope_index: 0 };
    record.flags |= EXCEPTION_UNWINDING;
    if target_frame == 0 {
        record.flags |= EXCEPTION_EXIT_UNWIND;
    }
    for _ in 0..MOST_FRAMES {
        let here_pointer = &raw mut here;
        let Some((mut dispatcher, has_handler)) = walk.step(TERMINATION_HANDLER, target_ip, here_pointer, true) else {
            break;
        };
        let is_target = dispatcher.establisher_frame == target_frame;
        if is_target {
            record.flags |= EXCEPTION_TARGET_UNWIND;
            here.integer[RAX] = result;
        }
        // A termination handler must not divert control (a return out of __finally is an unwind of its own).
        if has_handler && ask(record, here_pointer, &mut dispatcher) != CONTINUE_SEARCH {
            break;
        }
        record.flags &= !EXCEPTION_TARGET_UNWIND;
        if is_target {
            here.integer[RAX] = result;
            here.rip = target_ip;
            // SAFETY: `here` is the target's frame on this stack, found by walking outwards from the exception.
            unsafe { restore(&raw const here) }
        }
    }
    unhandled(record, start)
}

fn describe(record: &ExceptionRecord) -> String {
    let ExceptionRecord { code, address, parameters, parameter_count, .. } = *record;
    let mut message = format!("exception {} at {}", super::exception_name(code), super::place(address));
    if matches!(NtStatus(code), NtStatus::ACCESS_VIOLATION | NtStatus::IN_PAGE_ERROR) && parameter_count >= 2 {
        let access = match parameters[0] {
            0 => "reading",
            1 => "writing",
            _ => "executing",
        };
        let _ =
            write!(message, ", {access} {:#x}{}", parameters[1], super::user_access::explain(parameters[1] as usize));
    }
    message
}

/// Nobody took it: on Windows a bug check, here a finding.
fn unhandled(record: &ExceptionRecord, context: &Context) -> ! {
    let mut message = describe(record);
    let mut walk = *context;
    for _ in 0..MOST_FRAMES {
        if step(&mut walk).is_none() {
            break;
        }
    }
    match bridge::beyond(walk.rsp()) {
        Beyond::Opaque { export } => {
            let callback = Thread::current().entry().map_or("a callback", |entry| entry.callback);
            let _ = write!(message, "; nothing in {callback} took it, and it cannot pass {export}, which called that");
        }
        Beyond::Dispatch { is_filter: true, .. } => {
            message += "; it was raised in an exception filter, and no handler took it";
        }
        _ => message += "; no handler took it",
    }
    stop(Rule::UnhandledException, message, context)
}

/// Stops the machine with the driver's stack as it was at `context`.
pub(super) fn stop(rule: Rule, message: String, context: &Context) -> ! {
    let thread = Thread::current();
    let mut finding = thread.finding(rule, message, None);
    finding.stack = super::stack_from(context);
    finding.stack.extend(thread.outer_stacks(0));
    if let Some(module) = crate::image::find(context.rip as usize) {
        module.name().clone_into(&mut finding.driver);
    }
    thread.machine().record(finding);
    thread.leave()
}
