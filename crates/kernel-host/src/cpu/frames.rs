//! Exports that look at frames: which function is at an address, who called.

use super::context::{Context, RSP, restore};
use super::unwind::step;
use crate::ddi::{Call, exports};
use crate::image::find;
use crate::nt::raw::Raw;
use crate::thread::{StackBounds, Thread};

exports! { pub(super) TABLE in "ntoskrnl.exe":
    RtlCaptureContext(max 31) = rtl_capture_context;
    RtlRestoreContext(max 31) = rtl_restore_context;
    RtlLookupFunctionEntry(max 31) = rtl_lookup_function_entry;
    RtlVirtualUnwind(max 31) = rtl_virtual_unwind;
    RtlPcToFileHeader(max 31) = rtl_pc_to_file_header;
    RtlCaptureStackBackTrace(max 31) = rtl_capture_stack_back_trace;
    RtlWalkFrameChain(max 31) = rtl_walk_frame_chain;
    IoGetStackLimits(max 31) = io_get_stack_limits;
    IoGetRemainingStackSize(max 31) = io_get_remaining_stack_size;
}

/// Frames that a back trace may have: the page's limit.
const MOST_FRAMES: u32 = 63;
/// Bytes of stack that a Windows driver has on x64. The host's are far larger, as its exports run on them too.
const KERNEL_STACK: usize = 0x6000;

extern "efiapi" fn rtl_capture_context(context: Raw<Context>) {
    let call = Call::enter();
    // Volatile registers have no meaning after a call; the rest is as it will be.
    context.write(Context::after_call(&call.site().registers));
}

extern "efiapi" fn rtl_restore_context(context: Raw<Context>, _record: usize) {
    let call = Call::enter();
    let context = context.read();
    drop(call);
    // SAFETY: the driver says that the context is one of its frames on this stack; nothing of this function's is alive.
    unsafe { restore(&raw const context) }
}

extern "efiapi" fn rtl_lookup_function_entry(pc: usize, base: Raw<usize>, _history: usize) -> usize {
    let _call = Call::enter();
    let Some(module) = find(pc) else { return 0 };
    base.write(module.base());
    let entry = module.function_at((pc - module.base()) as u32);
    entry.map_or(0, |(_, offset)| module.base() + offset as usize)
}

extern "efiapi" fn rtl_virtual_unwind(
    handler_type: u32,
    _base: usize,
    pc: u64,
    _entry: usize,
    context: Raw<Context>,
    handler_data: Raw<u64>,
    establisher: Raw<u64>,
    _pointers: usize,
) -> u64 {
    let _call = Call::enter();
    let mut walk = context.read();
    walk.rip = pc;
    let Some(frame) = step(&mut walk) else { return 0 };
    context.write(walk);
    establisher.write(frame.establisher);
    if u32::from(frame.flags) & handler_type == 0 {
        return 0;
    }
    handler_data.write(frame.handler_data);
    frame.handler
}

extern "efiapi" fn rtl_pc_to_file_header(pc: usize, base: Raw<usize>) -> usize {
    let _call = Call::enter();
    let found = find(pc).map_or(0, |module| module.base());
    base.write(found);
    found
}

/// Return addresses of the caller's frames, outwards.
fn callers(call: &Call, skip: u32, most: u32) -> Vec<usize> {
    let all = crate::cpu::addresses_from_call(&call.site().registers);
    all.into_iter().skip(skip as usize).take(most as usize).collect()
}

extern "efiapi" fn rtl_capture_stack_back_trace(skip: u32, most: u32, trace: Raw<usize>, hash: Raw<u32>) -> u16 {
    let call = Call::enter();
    let frames = callers(&call, skip, most.min(MOST_FRAMES));
    for (index, frame) in frames.iter().enumerate() {
        trace.index(index).write(*frame);
    }
    hash.write_if_some(frames.iter().fold(0, |sum, frame| sum.wrapping_add(*frame as u32)));
    frames.len() as u16
}

extern "efiapi" fn rtl_walk_frame_chain(callers_out: Raw<usize>, count: u32, flags: u32) -> u32 {
    let call = Call::enter();
    // The upper bits say how many frames to skip.
    let frames = callers(&call, flags >> 8, count);
    for (index, frame) in frames.iter().enumerate() {
        callers_out.index(index).write(*frame);
    }
    frames.len() as u32
}

extern "efiapi" fn io_get_stack_limits(low: Raw<usize>, high: Raw<usize>) {
    let _call = Call::enter();
    let limits = Thread::driver_stack().map_or((0, 0), StackBounds::limits);
    low.write(limits.0);
    high.write(limits.1);
}

extern "efiapi" fn io_get_remaining_stack_size() -> usize {
    let call = Call::enter();
    let mut context = Context::after_call(&call.site().registers);
    let here = context.integer[RSP] as usize;
    // What the driver's own frames take is gone; the host's are not counted.
    for _ in 0..MOST_FRAMES {
        if step(&mut context).is_none() {
            break;
        }
    }
    let used = (context.integer[RSP] as usize).saturating_sub(here);
    KERNEL_STACK.saturating_sub(used)
}
