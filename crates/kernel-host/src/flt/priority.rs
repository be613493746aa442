//! Hints of how urgent an operation is: in its packet, in its file object, in its thread.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use fltmgr::raw::FLT_CALLBACK_DATA;
use nt_types::{FILE_OBJECT, NtStatus};

use super::create::file_object;
use super::flight::Flight;
use super::operation::Kind;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::raw::{Raw, field};
use crate::nt::threads::{self, Priority};

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltGetIoPriorityHint(max 2) = flt_get_io_priority_hint;
    FltGetIoPriorityHintFromCallbackData(max 2) = flt_get_io_priority_hint_from_callback_data;
    FltGetIoPriorityHintFromFileObject(max 2) = flt_get_io_priority_hint_from_file_object;
    FltGetIoPriorityHintFromThread(max 2) = flt_get_io_priority_hint_from_thread;
    FltSetIoPriorityHintIntoCallbackData(max 2) = flt_set_io_priority_hint_into_callback_data;
    FltSetIoPriorityHintIntoFileObject(max 2) = flt_set_io_priority_hint_into_file_object;
    FltSetIoPriorityHintIntoThread(max 2) = flt_set_io_priority_hint_into_thread;
    FltRetrieveIoPriorityInfo(max 2) = flt_retrieve_io_priority_info;
    FltApplyPriorityInfoThread(max 2) = flt_apply_priority_info_thread;
}

/// `IO_PRIORITY_HINT`: `IoPriorityNormal`, and how many there are.
const NORMAL: u32 = 2;
const HINTS: u32 = 5;

/// `IO_PRIORITY_INFO`. Page: `ns-ntifs-_io_priority_info`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct PriorityInfo {
    size: u32,
    thread_priority: u32,
    page_priority: u32,
    io_priority: u32,
}

/// `ThreadPriority` and `PagePriority` that change nothing, as IoInitializePriorityInfo of `ntifs.h` has them.
const KEEP_THREAD: u32 = 0xFFFF;
const KEEP_PAGE: u32 = 0;
/// `HIGH_PRIORITY`, and `MEMORY_PRIORITY_NORMAL`, the highest of its kind.
const HIGHEST: u32 = 31;
const HIGHEST_PAGE: u32 = 5;

fn of_data(flight: &Flight) -> Option<u32> {
    let hint = *flight.priority.lock().unwrap_or_else(PoisonError::into_inner);
    hint.filter(|_| flight.kind == Kind::Irp)
}

fn of_file(call: &Call, file: Raw<FILE_OBJECT>) -> Option<u32> {
    let (_, payload) = file_object(call, file);
    // One more than the hint; 0 is none.
    u32::from(payload.io_priority.load(Ordering::Relaxed)).checked_sub(1)
}

fn of_thread(call: &Call, thread: usize) -> u32 {
    threads::priority(call, thread, Priority::Io).into()
}

extern "efiapi" fn flt_get_io_priority_hint(data: Raw<FLT_CALLBACK_DATA>) -> u32 {
    let call = Call::enter();
    let flight = Flight::of(&call, data);
    let file = Raw::<FILE_OBJECT>::at(flight.target());
    let thread = Raw::of(field!(data, FLT_CALLBACK_DATA, Thread).read());
    of_data(&flight)
        .or_else(|| of_file(&call, file.some()?))
        .or_else(|| Some(of_thread(&call, thread.some()?.address())))
        .unwrap_or(NORMAL)
}

extern "efiapi" fn flt_get_io_priority_hint_from_callback_data(data: Raw<FLT_CALLBACK_DATA>) -> u32 {
    let call = Call::enter();
    of_data(&Flight::of(&call, data)).unwrap_or(NORMAL)
}

extern "efiapi" fn flt_get_io_priority_hint_from_file_object(file: Raw<FILE_OBJECT>) -> u32 {
    let call = Call::enter();
    of_file(&call, file).unwrap_or(NORMAL)
}

extern "efiapi" fn flt_get_io_priority_hint_from_thread(thread: usize) -> u32 {
    let call = Call::enter();
    of_thread(&call, thread)
}

extern "efiapi" fn flt_set_io_priority_hint_into_callback_data(data: Raw<FLT_CALLBACK_DATA>, hint: u32) -> NtStatus {
    let call = Call::enter();
    let flight = Flight::of(&call, data);
    if flight.kind != Kind::Irp {
        // The page: fast I/O has nowhere to keep it, and that is no error.
        return NtStatus::SUCCESS;
    }
    if hint >= HINTS {
        return NtStatus::INVALID_PARAMETER;
    }
    *flight.priority.lock().unwrap_or_else(PoisonError::into_inner) = Some(hint);
    NtStatus::SUCCESS
}

extern "efiapi" fn flt_set_io_priority_hint_into_file_object(file: Raw<FILE_OBJECT>, hint: u32) -> NtStatus {
    let call = Call::enter();
    let (_, payload) = file_object(&call, file);
    if hint >= HINTS {
        return NtStatus::INVALID_PARAMETER;
    }
    payload.io_priority.store(hint as u8 + 1, Ordering::Relaxed);
    NtStatus::SUCCESS
}

extern "efiapi" fn flt_set_io_priority_hint_into_thread(thread: usize, hint: u32) -> NtStatus {
    let call = Call::enter();
    if hint >= HINTS {
        return NtStatus::INVALID_PARAMETER;
    }
    threads::set_priority(&call, thread, Priority::Io, hint as u8);
    NtStatus::SUCCESS
}

extern "efiapi" fn flt_retrieve_io_priority_info(
    data: Raw<FLT_CALLBACK_DATA>,
    file: Raw<FILE_OBJECT>,
    thread: usize,
    info: Raw<PriorityInfo>,
) -> NtStatus {
    let call = Call::enter();
    if info.read().size as usize != size_of::<PriorityInfo>() {
        call.stop(Rule::BadArgument, "the IO_PRIORITY_INFO was not initialised (IoInitializePriorityInfo)");
    }
    let from_data = data.some().and_then(|data| of_data(&Flight::of(&call, data)));
    let io_priority = from_data
        .or_else(|| of_file(&call, file.some()?))
        .or_else(|| (thread != 0).then(|| of_thread(&call, thread)))
        .unwrap_or(NORMAL);
    let (thread_priority, page_priority) = match thread {
        0 => (KEEP_THREAD, KEEP_PAGE),
        thread => (
            threads::priority(&call, thread, Priority::Thread).into(),
            threads::priority(&call, thread, Priority::Page).into(),
        ),
    };
    info.write(PriorityInfo { thread_priority, page_priority, io_priority, ..info.read() });
    NtStatus::SUCCESS
}

extern "efiapi" fn flt_apply_priority_info_thread(
    input: Raw<PriorityInfo>,
    output: Raw<PriorityInfo>,
    thread: usize,
) -> NtStatus {
    let call = Call::enter();
    let new = input.read();
    let valid = new.size as usize == size_of::<PriorityInfo>()
        && ((1..=HIGHEST).contains(&new.thread_priority) || new.thread_priority == KEEP_THREAD)
        && new.page_priority <= HIGHEST_PAGE
        && new.io_priority < HINTS;
    if !valid {
        return NtStatus::INVALID_PARAMETER_1;
    }
    let before = PriorityInfo {
        size: size_of::<PriorityInfo>() as u32,
        thread_priority: threads::priority(&call, thread, Priority::Thread).into(),
        page_priority: threads::priority(&call, thread, Priority::Page).into(),
        io_priority: of_thread(&call, thread),
    };
    if new.thread_priority != KEEP_THREAD {
        threads::set_priority(&call, thread, Priority::Thread, new.thread_priority as u8);
    }
    if new.page_priority != KEEP_PAGE {
        threads::set_priority(&call, thread, Priority::Page, new.page_priority as u8);
    }
    threads::set_priority(&call, thread, Priority::Io, new.io_priority as u8);
    // Only now: both parameters may be the same structure.
    output.write_if_some(before);
    NtStatus::SUCCESS
}
