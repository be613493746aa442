//! What NDIS says of the system: version, clocks, processors, routines; and atomic helpers.

use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};

use nt_types::UNICODE_STRING;

use super::VERSION;
use crate::ddi::{Call, exports};
use crate::image::late::routine;
use crate::nt::raw::Raw;
use crate::nt::time::{interrupt_time, system_time};
use crate::nt::unicode;

exports! { pub(super) EXPORTS in "ndis.sys":
    NdisGetVersion(max 2) = get_version;
    NdisGetSystemUpTimeEx(max 31) = get_system_up_time;
    NdisGetCurrentSystemTime(max 31) = get_current_system_time;
    NdisGetRoutineAddress(max 0) = get_routine_address;
    NdisSystemProcessorCount(max 0) = processor_count;
    NdisSystemActiveProcessorCount(max 31) = active_processor_count;
    NdisGroupActiveProcessorCount(max 31) = group_processor_count;
    NdisGroupMaxProcessorCount(max 31) = group_processor_count;
    NdisActiveGroupCount(max 31) = group_count;
    NdisMaxGroupCount(max 31) = group_count;
    NdisCurrentProcessorIndex(max 2) = current_processor;
    NdisGetSharedDataAlignment(max 2) = shared_data_alignment;
    NdisGeneratePartialCancelId(max 2) = partial_cancel_id;
    NdisInterlockedIncrement(max 31) = interlocked_increment;
    NdisInterlockedDecrement(max 31) = interlocked_decrement;
}

/// Intervals of 100 ns in a millisecond.
const MILLISECOND: u64 = 10_000;

/// Bytes of a cache line.
const CACHE_LINE: u32 = 64;

extern "efiapi" fn get_version() -> u32 {
    let _call = Call::enter();
    u32::from(VERSION.0) << 16 | u32::from(VERSION.1)
}

extern "efiapi" fn get_system_up_time(time: Raw<u64>) {
    let _call = Call::enter();
    time.write(interrupt_time() / MILLISECOND);
}

extern "efiapi" fn get_current_system_time(time: Raw<i64>) {
    let _call = Call::enter();
    time.write(system_time());
}

extern "efiapi" fn get_routine_address(name: Raw<UNICODE_STRING>) -> usize {
    let call = Call::enter();
    let name = unicode::name(name).unwrap_or_default();
    call.detail(&*name);
    routine(call.driver(), "ndis.sys", &name).unwrap_or(0)
}

/// The machine has one processor, as far as drivers can count.
extern "efiapi" fn processor_count() -> i8 {
    let _call = Call::enter();
    1
}

extern "efiapi" fn active_processor_count(affinity: Raw<usize>) -> u32 {
    let _call = Call::enter();
    affinity.write_if_some(1);
    1
}

extern "efiapi" fn group_processor_count(_group: u16) -> u32 {
    let _call = Call::enter();
    1
}

extern "efiapi" fn group_count() -> u16 {
    let _call = Call::enter();
    1
}

extern "efiapi" fn current_processor() -> u32 {
    let _call = Call::enter();
    0
}

extern "efiapi" fn shared_data_alignment() -> u32 {
    let _call = Call::enter();
    CACHE_LINE
}

/// The high-order byte of cancel ids, one value a driver.
extern "efiapi" fn partial_cancel_id() -> u8 {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let _call = Call::enter();
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn counter<'a>(counter: Raw<i32>) -> &'a AtomicI32 {
    // SAFETY: the driver's counter, see `Raw`; it is aligned as a LONG, and all host code uses atomics on it.
    unsafe { AtomicI32::from_ptr(counter.pointer()) }
}

extern "efiapi" fn interlocked_increment(addend: Raw<i32>) -> i32 {
    let _call = Call::enter();
    counter(addend).fetch_add(1, Ordering::AcqRel).wrapping_add(1)
}

extern "efiapi" fn interlocked_decrement(addend: Raw<i32>) -> i32 {
    let _call = Call::enter();
    counter(addend).fetch_sub(1, Ordering::AcqRel).wrapping_sub(1)
}
