//! Where a walk over driver frames goes on when it meets the host's own.
//!
//! Driver code runs below host code in two ways. The dispatcher calls filters and `__finally` blocks: an exception in one of
//! them goes on with the frames that the dispatcher was looking at. And exports call callbacks: an exception that no frame
//! of the callback takes goes on with the frame that called the export, if the export lets it pass. It then never returns:
//! what it would have dropped is dropped here, in its place.

use std::any::Any;
use std::cell::RefCell;
use std::sync::Arc;

use super::context::Context;
use crate::ddi::{Call, CallSite};
use crate::machine::Driver;
use crate::thread::Thread;

/// Exceptions may leave these exports: on Windows their frames hold nothing, and unwind like a driver's. They call
/// their callbacks through [`call_out`], so that no host frame owns anything meanwhile.
const TRANSPARENT: [&str; 24] = [
    "ExAllocateFromLookasideListEx",
    "ExAllocateFromNPagedLookasideList",
    "ExAllocateFromPagedLookasideList",
    "IoCallDriver",
    "IofCallDriver",
    "KeExpandKernelStackAndCallout",
    "KeExpandKernelStackAndCalloutEx",
    "PoCallDriver",
    "RtlDeleteElementGenericTable",
    "RtlDeleteElementGenericTableAvl",
    "RtlInsertElementGenericTable",
    "RtlInsertElementGenericTableAvl",
    "RtlInsertElementGenericTableFull",
    "RtlInsertElementGenericTableFullAvl",
    "RtlLookupElementGenericTable",
    "RtlLookupElementGenericTableAvl",
    "RtlLookupElementGenericTableFull",
    "RtlLookupElementGenericTableFullAvl",
    "RtlLookupFirstMatchingElementGenericTableAvl",
    "RtlQueryRegistryValues",
    "RtlQueryRegistryValuesEx",
    "RtlRunOnceExecuteOnce",
    "bsearch",
    "qsort",
];

/// A filter or termination handler that runs now.
#[derive(Clone, Copy)]
struct Bridge {
    /// An address in the host's frame that called it.
    stack: usize,
    /// The frame at which the walk goes on.
    outer: *const Context,
    /// First scope of that frame that still counts.
    scope_index: u32,
    is_filter: bool,
}

thread_local! {
    /// Innermost last. Some may have been jumped over; they lie below what runs.
    static BRIDGES: RefCell<Vec<Bridge>> = const { RefCell::new(Vec::new()) };
    /// Calls of transparent exports that wait for a callback, and what else is theirs. Boxed, as callbacks that call back in
    /// turn must not move them.
    static WAITING: RefCell<Vec<Box<dyn Waiting>>> = const { RefCell::new(Vec::new()) };
}

/// A call that waits for a callback.
trait Waiting: Any {
    /// The driver's stack pointer at the call.
    fn stack_pointer(&self) -> usize;
}

/// The call itself, and what is dropped with it when the callback raises.
struct Kept<K> {
    call: Call,
    state: K,
}

impl<K: 'static> Waiting for Kept<K> {
    fn stack_pointer(&self) -> usize {
        self.call.site().stack_pointer
    }
}

/// What is beyond the host's frames.
#[derive(Clone, Copy)]
pub(super) enum Beyond {
    /// The frames that the dispatcher was looking at when the filter or handler that was left raised.
    Dispatch { context: Context, scope_index: u32, is_filter: bool },
    /// The caller of an export that called back; how many calls were open before that one.
    Export { context: Context, index: usize },
    /// An export that exceptions do not pass.
    Opaque { export: &'static str },
    /// Nothing: the host entered driver code here.
    Nothing,
}

/// Runs a filter or a termination handler.
///
/// `outer` stays where it is while the handler runs.
pub(super) fn run<R>(outer: *const Context, scope_index: u32, is_filter: bool, handler: impl FnOnce() -> R) -> R {
    let here = 0_u8;
    let stack = (&raw const here).addr();
    BRIDGES.with_borrow_mut(|bridges| {
        bridges.retain(|bridge| bridge.stack > stack);
        bridges.push(Bridge { stack, outer, scope_index, is_filter });
    });
    let result = handler();
    BRIDGES.with_borrow_mut(|bridges| bridges.retain(|bridge| bridge.stack > stack));
    result
}

/// How many filters are being run for exceptions that were raised in filters.
pub(super) fn nested_filters() -> usize {
    BRIDGES.with_borrow(|bridges| bridges.iter().filter(|bridge| bridge.is_filter).count())
}

/// What is beyond the host's frames that a walk met at stack pointer `rsp`.
pub(super) fn beyond(rsp: u64) -> Beyond {
    let Some(stack) = Thread::driver_stack() else { return Beyond::Nothing };
    let rsp = rsp as usize;
    let bridge = BRIDGES.with_borrow(|bridges| {
        let live = |bridge: &&Bridge| bridge.stack >= rsp && stack.has_room_below(bridge.stack);
        bridges.iter().rev().find(live).copied()
    });
    let call = Thread::current().outer_call(rsp).filter(|(_, site)| stack.has_room_below(site.stack_pointer));
    match (bridge, call) {
        (Some(bridge), call) if call.as_ref().is_none_or(|(_, site)| bridge.stack < site.stack_pointer) => {
            // SAFETY: the handler's caller waits for it on this stack, and keeps the context for as long.
            let context = unsafe { bridge.outer.read() };
            Beyond::Dispatch { context, scope_index: bridge.scope_index, is_filter: bridge.is_filter }
        }
        (_, Some((index, site))) => {
            if is_waiting(&site) {
                Beyond::Export { context: Context::after_call(&site.registers), index }
            } else {
                Beyond::Opaque { export: site.export.name }
            }
        }
        _ => Beyond::Nothing,
    }
}

/// Leaves an export for good whose callback raised: it was the one at `index` of the thread's open calls.
pub(super) fn abandon(index: usize, rsp: u64) {
    Thread::current().abandon_calls(index + 1);
    WAITING.with_borrow_mut(|waiting| waiting.retain(|call| call.stack_pointer() >= rsp as usize));
}

fn is_waiting(site: &CallSite) -> bool {
    TRANSPARENT.contains(&site.export.name)
        && WAITING.with_borrow(|all| all.iter().any(|call| call.stack_pointer() == site.stack_pointer))
}

/// Calls a callback from an export that exceptions may leave.
///
/// While it runs, the export's `call` is kept where the dispatcher finds it. The export itself must own nothing else
/// that needs dropping: `body`, its result and whatever else is in its frame are plain values.
pub(crate) fn call_out<R: Copy>(call: Call, callback: &'static str, body: impl FnOnce() -> R + Copy) -> (Call, R) {
    let (call, (), result) = call_out_keeping(call, (), |call, ()| call.driver(), callback, |()| body());
    (call, result)
}

/// As [`call_out`], for an export that owns more than its call, in `state`, and for a callback of any `driver`.
pub(crate) fn call_out_keeping<K: 'static, R: Copy>(
    call: Call,
    state: K,
    driver: for<'a> fn(&'a Call, &'a K) -> &'a Arc<Driver>,
    callback: &'static str,
    body: impl FnOnce(&K) -> R + Copy,
) -> (Call, K, R) {
    let irql = call.thread().irql();
    let waiting = Box::new(Kept { call, state });
    let kept: *const Kept<K> = &raw const *waiting;
    WAITING.with_borrow_mut(|all| all.push(waiting));
    // SAFETY: the box is in the list until the callback has returned; if it is dropped before, control does not come back here.
    let kept = unsafe { &*kept };
    let thread = kept.call.thread();
    let result = thread.call_driver(driver(&kept.call, &kept.state), callback, irql, || body(&kept.state));
    // A stop leaves driver code altogether, and does not come back here either.
    let result = result.unwrap_or_else(|_| kept.call.thread().leave());
    let waiting = WAITING.with_borrow_mut(Vec::pop).expect("callbacks return in the reverse order of their calls");
    let waiting: Box<dyn Any> = waiting;
    let kept = waiting.downcast::<Kept<K>>().expect("callbacks return in the reverse order of their calls");
    let Kept { call, state } = *kept;
    (call, state, result)
}
