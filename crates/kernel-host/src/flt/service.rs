//! Other filters: loading, unloading and finding them, and FltMgr's exports by name.

use std::sync::Arc;

use nt_types::{NtStatus, UNICODE_STRING};

use super::volumes::{give, give_list};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::image::late::routine;
use crate::machine::{DriverError, Machine};
use crate::nt::raw::Raw;
use crate::nt::unicode;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltLoadFilter(max 0, fails RESOURCES) = flt_load_filter;
    FltUnloadFilter(max 0, fails BUSY) = flt_unload_filter;
    FltGetFilterFromName(max 1, fails BUSY) = flt_get_filter_from_name;
    FltEnumerateFilters(max 1) = flt_enumerate_filters;
    FltGetRoutineAddress(max 2) = flt_get_routine_address;
}

/// Longest name of a routine that is looked for, in bytes.
const MAX_ROUTINE_NAME: usize = 128;

extern "efiapi" fn flt_load_filter(name: Raw<UNICODE_STRING>) -> NtStatus {
    let call = Call::enter();
    let Ok(name) = unicode::name(name) else { return NtStatus::INVALID_PARAMETER };
    call.detail(&name);
    let outcome = Machine::of(call.machine()).load_driver(&name);
    call.thread().leave_if_stopped();
    match outcome {
        Ok(()) => NtStatus::SUCCESS,
        // What DriverEntry said is not passed on.
        Err(DriverError::EntryFailed { .. }) => NtStatus::FAILED_DRIVER_ENTRY,
        Err(error) => error.status(),
    }
}

extern "efiapi" fn flt_unload_filter(name: Raw<UNICODE_STRING>) -> NtStatus {
    let call = Call::enter();
    let Ok(name) = unicode::name(name) else { return NtStatus::INVALID_PARAMETER };
    call.detail(&name);
    let Some(filter) = call.machine().flt.filter_named(&name) else { return NtStatus::FLT_FILTER_NOT_FOUND };
    if Arc::ptr_eq(&filter.driver, call.driver()) {
        call.stop(
            Rule::BadState,
            "FltUnloadFilter is not for the calling filter itself: its code would go under its feet",
        );
    }
    if filter.rundown.is_ending() {
        return NtStatus::FLT_DELETING_OBJECT;
    }
    // The machine's own list of references ends here, so that the unload waits for the others' only.
    let service = filter.driver.service.clone();
    drop(filter);
    let outcome = Machine::of(call.machine()).unload_driver(&service, false);
    call.thread().leave_if_stopped();
    match outcome {
        Ok(_) => NtStatus::SUCCESS,
        // Somebody else unloads it.
        Err(DriverError::NotLoaded(_)) => NtStatus::FLT_DELETING_OBJECT,
        Err(error) => error.status(),
    }
}

extern "efiapi" fn flt_get_filter_from_name(name: Raw<UNICODE_STRING>, out: Raw<usize>) -> NtStatus {
    let call = Call::enter();
    let Ok(name) = unicode::name(name) else { return NtStatus::INVALID_PARAMETER };
    call.detail(&name);
    match call.machine().flt.filter_named(&name) {
        Some(filter) => give(&call, &filter.rundown, filter.address, out),
        None => NtStatus::FLT_FILTER_NOT_FOUND,
    }
}

extern "efiapi" fn flt_enumerate_filters(list: Raw<usize>, size: u32, returned: Raw<u32>) -> NtStatus {
    let call = Call::enter();
    let filters = call.machine().flt.filters().clone();
    let found: Vec<_> = filters.iter().map(|filter| (&filter.rundown, filter.address)).collect();
    give_list(&call, &found, list, size, returned)
}

extern "efiapi" fn flt_get_routine_address(name: Raw<u8>) -> usize {
    let call = Call::enter();
    if name.is_null() {
        call.stop(Rule::BadArgument, "the routine's name is NULL");
    }
    let bytes: Vec<u8> =
        (0..MAX_ROUTINE_NAME).map(|index| name.index(index).read()).take_while(|byte| *byte != 0).collect();
    let wanted = String::from_utf8_lossy(&bytes);
    call.detail(&wanted);
    routine(call.driver(), "fltmgr.sys", &wanted).unwrap_or(0)
}
