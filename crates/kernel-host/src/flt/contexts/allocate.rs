//! FltAllocateContext, FltReferenceContext, FltReleaseContext, and the end of a context.

use std::sync::Arc;

use nt_types::{APC_LEVEL, NtStatus, PVOID};

use super::definition::{Definition, Kind, MAX_SIZE};
use super::{Context, Hold, Unused, with_context};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::flt::filter::Filter;
use crate::flt::object;
use crate::nt::pool::{PoolKind, Request};
use crate::nt::raw::Raw;
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltAllocateContext(max 1, fails RESOURCES) = flt_allocate_context;
    FltReferenceContext(max 2) = flt_reference_context;
    FltReleaseContext(max 2) = flt_release_context;
}

/// Bytes of FltMgr's part, which lies before the filter's: a context is not the start of a pool block.
const HEADER: usize = 64;

/// What FltMgr's part is filled with, to see whether the filter wrote there.
const UNTOUCHED: u8 = 0xC7;

/// `POOL_TYPE`: `NonPagedPool`, `PagedPool`, `NonPagedPoolNx`.
const NON_PAGED_POOL: i32 = 0;
const PAGED_POOL: i32 = 1;
const NON_PAGED_POOL_NX: i32 = 512;

extern "efiapi" fn flt_allocate_context(
    filter: usize,
    kind: u16,
    size: usize,
    pool_type: i32,
    returned: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    let filter = object::filter(&call, filter);
    match allocate(&call, &filter, kind, size, pool_type) {
        Ok(address) => {
            returned.write(address);
            NtStatus::SUCCESS
        }
        Err(status) => {
            call.detail(status);
            status
        }
    }
}

fn allocate(call: &Call, filter: &Arc<Filter>, kind: u16, size: usize, pool_type: i32) -> Result<usize, NtStatus> {
    let kind = Kind::from_bits(kind).ok_or(NtStatus::INVALID_PARAMETER)?;
    call.detail(kind);
    if size == 0 {
        return Err(NtStatus::INVALID_PARAMETER);
    }
    if size > MAX_SIZE {
        return Err(NtStatus::INVALID_BUFFER_SIZE);
    }
    if !matches!(pool_type, NON_PAGED_POOL | PAGED_POOL | NON_PAGED_POOL_NX) {
        call.stop(
            Rule::BadArgument,
            format!("pool type {pool_type}: NonPagedPool, PagedPool and NonPagedPoolNx are allowed for contexts"),
        );
    }
    if kind == Kind::Volume && pool_type == PAGED_POOL {
        return Err(NtStatus::FLT_MUST_BE_NONPAGED_POOL);
    }
    if filter.rundown.is_ending() {
        return Err(NtStatus::FLT_DELETING_OBJECT);
    }
    let definition = filter.registration.contexts.select(kind, size);
    let definition = definition.ok_or(NtStatus::FLT_CONTEXT_ALLOCATION_NOT_FOUND)?;
    let block = allocate_block(call, filter, &definition, size, pool_type).ok_or(NtStatus::INSUFFICIENT_RESOURCES)?;
    Raw::<u8>::at(block).fill(UNTOUCHED, HEADER);
    let context = Context {
        filter: Arc::clone(filter),
        definition,
        size,
        paged: pool_type == PAGED_POOL,
        block,
        stack: call.site().stack(),
        holds: vec![Hold::of(call.site())],
        place: None,
        was_set: false,
    };
    let address = block + HEADER;
    call.machine().flt.contexts.lock().contexts.insert(address, context);
    Ok(address)
}

/// Memory for a context with FltMgr's part: one pool block, or what the filter's own callback returns.
fn allocate_block(call: &Call, filter: &Filter, definition: &Definition, size: usize, pool_type: i32) -> Option<usize> {
    let length = HEADER + size;
    if let Some(callback) = definition.allocate {
        let irql = call.thread().irql();
        let memory = call.thread().call_driver(&filter.driver, "ContextAllocateCallback", irql, || {
            // SAFETY: the driver registered the function with this signature, and is loaded.
            unsafe { callback(pool_type, length, definition.kind.bits()) }
        });
        return memory.ok().map(|memory| Raw::of(memory).address()).filter(|address| *address != 0);
    }
    let request = Request {
        // Nothing runs out of a context: NonPagedPool need not be executable.
        kind: if pool_type == PAGED_POOL { PoolKind::Paged } else { PoolKind::NonPaged },
        length,
        tag: definition.tag,
        // Windows 11 promises it for variable sizes. A lookaside list may hand out what was used before.
        zeroed: !definition.is_fixed(),
        cache_aligned: false,
    };
    let address = call.machine().nt.pool().allocate(call, request);
    (address != 0).then_some(address)
}

extern "efiapi" fn flt_reference_context(address: usize) {
    let call = Call::enter();
    with_context(&call, address, |state| {
        if let Some(context) = state.contexts.get_mut(&address) {
            context.holds.push(Hold::of(call.site()));
        }
    });
}

extern "efiapi" fn flt_release_context(address: usize) {
    let call = Call::enter();
    release(&call, address);
}

/// Drops one reference of the driver's; frees the context with the last.
///
/// Stops when the driver holds none, or where the memory could not be touched.
pub(super) fn release(call: &Call, address: usize) {
    let irql = call.thread().irql();
    let released = with_context(call, address, |state| {
        let context = state.contexts.get_mut(&address).ok_or((Rule::BadArgument, String::new()))?;
        if context.paged && irql > APC_LEVEL {
            let message = format!("a {} in paged pool is released at IRQL {irql}", context.kind());
            return Err((Rule::IrqlTooHigh, message));
        }
        // Which of them goes makes no difference to the count; the report names those that are left.
        if context.holds.pop().is_none() {
            let kind = context.kind();
            let message = format!("the {kind} {address:#x} is released once more than it was referenced");
            return Err((Rule::ReferenceUnderflow, message));
        }
        Ok(state.take_if_unused(address, &format!("{} released it", call.site().export.name)))
    });
    match released {
        Err((rule, message)) => call.stop(rule, message),
        Ok(None) => {}
        Ok(Some(unused)) if irql > APC_LEVEL => free_later(call, unused),
        Ok(Some(unused)) => free(call.thread(), unused),
    }
}

/// Frees at PASSIVE_LEVEL, in a system thread.
fn free_later(call: &Call, unused: Unused) {
    let machine = Arc::clone(call.machine());
    let filter = Arc::clone(&unused.1.filter);
    // FltUnregisterFilter waits for it.
    let entered = filter.rundown.enter();
    std::thread::spawn(move || {
        Thread::enter(&machine, |thread| free(thread, unused));
        if entered.is_ok() {
            filter.rundown.leave();
        }
    });
}

/// Frees contexts that have left the table.
pub(super) fn free_all(thread: &Thread, unused: Vec<Unused>) {
    for context in unused {
        free(thread, context);
    }
}

/// The end: ContextCleanupCallback, then the memory.
pub(super) fn free(thread: &Thread, (address, context): Unused) {
    let (driver, irql) = (&context.filter.driver, thread.irql());
    let kind = context.kind();
    let pointer: PVOID = Raw::at(address).pointer();
    if let Some(callback) = context.definition.cleanup {
        // A stop is seen by whoever caused the end.
        let _stopped = thread.call_driver(driver, "ContextCleanupCallback", irql, || {
            // SAFETY: the driver registered the function with this signature, and is loaded.
            unsafe { callback(pointer, kind.bits()) }
        });
    }
    let machine = thread.machine();
    let broken = |rule, message| {
        crate::flt::record(machine, driver, "ContextCleanupCallback", rule, message);
        thread.leave_if_stopped();
    };
    if Raw::<u8>::at(context.block).read_bytes(HEADER).iter().any(|byte| *byte != UNTOUCHED) {
        let message = format!("bytes before the context {address:#x} were written: {}", context.describe());
        return broken(Rule::PoolCorruption, message);
    }
    if let Some(callback) = context.definition.free {
        let block: PVOID = Raw::at(context.block).pointer();
        let _stopped = thread.call_driver(driver, "ContextFreeCallback", irql, || {
            // SAFETY: as above.
            unsafe { callback(block, kind.bits()) }
        });
    } else if let Err((rule, message)) = machine.nt.pool().reclaim(context.block) {
        broken(rule, format!("{message}; it held a {}", context.describe()));
    }
}
