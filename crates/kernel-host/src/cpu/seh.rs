//! `__C_specific_handler`: the language handler of C's (and of our assembly's) `__try`, and the exports beside it.
//!
//! A function's scope table lists its `__try` blocks, innermost first, as image-relative addresses: begin, end, filter, and
//! target. A target of 0 marks a `__finally` block, whose address is then in the filter's place. A filter of 1 stands for
//! the constant `EXCEPTION_EXECUTE_HANDLER`.

use super::bridge;
use super::context::{
    Context, DispatcherContext, EXCEPTION_TARGET_UNWIND, EXCEPTION_UNWINDING, ExceptionPointers, ExceptionRecord,
};
use super::dispatch::{CONTINUE_EXECUTION, CONTINUE_SEARCH, unwind_to};
use super::memory::try_read;
use crate::ddi::exports;
use crate::thread::Pcr;

exports! { pub(super) TABLE in "ntoskrnl.exe":
    __C_specific_handler(max 31) = c_specific_handler;
}

/// `EXCEPTION_EXECUTE_HANDLER` where a filter's address would be.
const ALWAYS: u32 = 1;

/// `SCOPE_TABLE` entry.
struct Scope {
    begin: u32,
    end: u32,
    filter: u32,
    target: u32,
}

type Filter = unsafe extern "efiapi" fn(*mut ExceptionPointers, u64) -> i32;
type Finally = unsafe extern "efiapi" fn(u8, u64);

impl Scope {
    fn read(table: u64, index: u32) -> Option<Self> {
        let entry = table + 4 + 16 * u64::from(index);
        let word = |at: u64| Some(u32::from_le_bytes(try_read(entry + at)?));
        Some(Self { begin: word(0)?, end: word(4)?, filter: word(8)?, target: word(12)? })
    }
}

/// Called by the dispatcher through the driver's own import, once per frame and pass.
///
/// Not a [`crate::ddi::Call`]: it is part of the processor's work, and it is left by a jump when a handler takes the exception.
unsafe extern "efiapi" fn c_specific_handler(
    record: *mut ExceptionRecord,
    frame: u64,
    context: *mut Context,
    dispatcher: *mut DispatcherContext,
) -> i32 {
    // The thunk left a record that no call will take.
    let _ = Pcr::of_this_linux_thread().take_gate_record();
    // SAFETY: the dispatcher made it for this call.
    let dispatcher = unsafe { &mut *dispatcher };
    // SAFETY: as above.
    let flags = unsafe { (*record).flags };
    let Some(count) = try_read(dispatcher.handler_data).map(u32::from_le_bytes) else {
        return CONTINUE_SEARCH;
    };
    if flags & EXCEPTION_UNWINDING != 0 {
        run_finally_blocks(dispatcher, frame, count, flags & EXCEPTION_TARGET_UNWIND != 0);
        return CONTINUE_SEARCH;
    }
    let pc = (dispatcher.control_pc - dispatcher.image_base) as u32;
    for index in dispatcher.scope_index..count {
        let Some(scope) = Scope::read(dispatcher.handler_data, index) else {
            break;
        };
        if !(scope.begin..scope.end).contains(&pc) || scope.target == 0 {
            continue;
        }
        let mut pointers = ExceptionPointers { record, context };
        let verdict = match scope.filter {
            ALWAYS => 1,
            filter => {
                let address = dispatcher.image_base + u64::from(filter);
                bridge::run(context, 0, true, || run_filter(address, &mut pointers, frame))
            }
        };
        if verdict < 0 {
            return CONTINUE_EXECUTION;
        }
        if verdict > 0 {
            let target = dispatcher.image_base + u64::from(scope.target);
            // SAFETY: the dispatcher's record outlives the dispatch.
            let record = unsafe { &mut *record };
            // SAFETY: likewise its context, which nothing changes any more.
            let context = unsafe { &*context };
            let code = u64::from(record.code.cast_unsigned());
            unwind_to(frame, target, record, code, context);
        }
    }
    CONTINUE_SEARCH
}

/// Whether a frame's language handler may take an exception at the frame's position: whether there is an `__except` around it.
///
/// What a filter would say is not known before it is asked, so it counts as a yes. So does a handler that is not C's (C++ has
/// one of its own), except for MSVC's plain check of stack cookies.
pub(super) fn may_take(dispatcher: &DispatcherContext) -> bool {
    let Some(scopes) = scopes_of(dispatcher) else {
        let address = dispatcher.language_handler as usize;
        let name = crate::image::find(address).map(|module| module.name_address(address)).unwrap_or_default();
        return !name.contains("!__GSHandlerCheck+");
    };
    let pc = (dispatcher.control_pc - dispatcher.image_base) as u32;
    scopes
        .iter()
        .skip(dispatcher.scope_index as usize)
        .any(|scope| scope.target != 0 && (scope.begin..scope.end).contains(&pc))
}

/// The frame's scope table, if its handler's data look like one. MSVC's handlers that check stack cookies call C's, and have
/// the same table in front of their own data.
fn scopes_of(dispatcher: &DispatcherContext) -> Option<Vec<Scope>> {
    /// More `__try` blocks than a function has.
    const MOST: u32 = 4096;
    let module = crate::image::find(dispatcher.image_base as usize)?;
    let is_inside = |offset: u32| (offset as usize) < module.size();
    let count = try_read(dispatcher.handler_data).map(u32::from_le_bytes).filter(|count| *count <= MOST)?;
    let read = |index| {
        let scope = Scope::read(dispatcher.handler_data, index)?;
        let Scope { begin, end, filter, target } = scope;
        (begin < end && [end, filter, target].into_iter().all(is_inside)).then_some(scope)
    };
    (0..count).map(read).collect()
}

fn run_filter(address: u64, pointers: &mut ExceptionPointers, frame: u64) -> i32 {
    // SAFETY: the scope table of a loaded image names a filter; they all have this signature.
    let filter = unsafe { std::mem::transmute::<*const (), Filter>(address as *const ()) };
    // SAFETY: the pointers are valid for the call.
    unsafe { filter(pointers, frame) }
}

/// Runs the `__finally` blocks around the frame's position, innermost first, up to the block that control goes to.
fn run_finally_blocks(dispatcher: &mut DispatcherContext, frame: u64, count: u32, is_target: bool) {
    let pc = (dispatcher.control_pc - dispatcher.image_base) as u32;
    let target = dispatcher.target_ip.wrapping_sub(dispatcher.image_base);
    while dispatcher.scope_index < count {
        let Some(scope) = Scope::read(dispatcher.handler_data, dispatcher.scope_index) else {
            return;
        };
        dispatcher.scope_index += 1;
        if !(scope.begin..scope.end).contains(&pc) {
            continue;
        }
        let stays_inside = u64::from(scope.begin) <= target && target < u64::from(scope.end);
        if is_target && (stays_inside || u64::from(scope.target) == target) {
            return;
        }
        if scope.target == 0 {
            let address = (dispatcher.image_base + u64::from(scope.filter)) as *const ();
            // SAFETY: the scope table of a loaded image names a termination handler; they all have this signature.
            let finally = unsafe { std::mem::transmute::<*const (), Finally>(address) };
            let (outer, next_scope) = (dispatcher.context_record, dispatcher.scope_index);
            // SAFETY: the frame is alive; the unwinder leaves it only later.
            bridge::run(outer, next_scope, false, || unsafe { finally(1, frame) });
        }
    }
}
