//! What NDIS says of the system: version, clocks, processors, routines; and atomic helpers.

use std::sync::atomic::{AtomicI32, AtomicU8, Ordering};

use ndis::NdisStatus;
use ndis::raw::{NDIS_OBJECT_HEADER, NDIS_OBJECT_TYPE_DEFAULT, NDIS_RSS_PROCESSOR, NDIS_RSS_PROCESSOR_INFO};
use nt_types::UNICODE_STRING;

use super::VERSION;
use super::memory::check_handle;
use crate::ddi::{Call, exports};
use crate::image::late::routine;
use crate::nt::raw::Raw;
use crate::nt::slist;
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
    // An NDIS_SPIN_LOCK begins with the lock itself.
    NdisInterlockedAddUlong(max 31) = slist::add_ulong;
    NdisInterlockedInsertHeadList(max 31) = slist::insert_head_list;
    NdisInterlockedInsertTailList(max 31) = slist::insert_tail_list;
    NdisInterlockedRemoveHeadList(max 31) = slist::remove_head_list;
    NdisGroupActiveProcessorMask(max 31) = group_processor_mask;
    NdisCurrentGroupAndProcessor(max 31) = current_processor_number;
    NdisGetCurrentProcessorCpuUsage(max 2) = cpu_usage;
    NdisGetCurrentProcessorCounts(max 2) = processor_counts;
    NdisGetRssProcessorInformation(max 2) = rss_processors;
}

/// Intervals of 100 ns in a millisecond.
const MILLISECOND: u64 = 10_000;

/// Intervals of 100 ns in a tick of the clock.
const TICK: u64 = 156_250;

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

extern "efiapi" fn group_processor_mask(group: u16) -> usize {
    let _call = Call::enter();
    usize::from(group == 0)
}

/// A `PROCESSOR_NUMBER`: group and number are 0.
extern "efiapi" fn current_processor_number() -> u32 {
    let _call = Call::enter();
    0
}

/// Percent. Nobody measures the simulated processor: it is idle.
extern "efiapi" fn cpu_usage(percent_out: Raw<u32>) {
    let _call = Call::enter();
    percent_out.write(0);
}

/// Time that passes on the processor is idle time; all times are in clock ticks.
extern "efiapi" fn processor_counts(idle_out: Raw<u32>, busy_out: Raw<u32>, index_out: Raw<u32>) {
    let _call = Call::enter();
    idle_out.write((interrupt_time() / TICK) as u32);
    busy_out.write(0);
    index_out.write(0);
}

extern "efiapi" fn rss_processors(handle: usize, info: Raw<NDIS_RSS_PROCESSOR_INFO>, size: Raw<usize>) -> NdisStatus {
    let call = Call::enter();
    check_handle(&call, handle);
    let header = size_of::<NDIS_RSS_PROCESSOR_INFO>();
    let needed = header + size_of::<NDIS_RSS_PROCESSOR>();
    let room = size.read();
    size.write(needed);
    if room < needed || info.is_null() {
        return NdisStatus::BUFFER_TOO_SHORT;
    }
    info.write(NDIS_RSS_PROCESSOR_INFO {
        Header: NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_DEFAULT, 1, header as u16),
        Flags: 0,
        RssBaseProcessor: 0,
        MaxNumRssProcessors: 1,
        PreferredNumaNode: 0,
        RssProcessorArrayOffset: header as u32,
        RssProcessorCount: 1,
        RssProcessorEntrySize: size_of::<NDIS_RSS_PROCESSOR>() as u32,
    });
    let processor = info.cast::<NDIS_RSS_PROCESSOR>().field::<NDIS_RSS_PROCESSOR>(header);
    processor.write(NDIS_RSS_PROCESSOR { ProcNum: 0, PreferenceIndex: 0, Reserved: 0 });
    NdisStatus::SUCCESS
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
