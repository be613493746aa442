//! Activity identifiers of operations, for trace-aware filters: what belongs to one request, on whatever thread.

use std::sync::{MutexGuard, PoisonError};

use fltmgr::raw::FLT_CALLBACK_DATA;
use nt_types::NtStatus;

use super::flight::Flight;
use super::operation::Kind;
use crate::ddi::{Call, exports};
use crate::nt::etw::activity;
use crate::nt::raw::Raw;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltGetActivityIdCallbackData(max 2) = flt_get_activity_id_callback_data;
    FltSetActivityIdCallbackData(max 2) = flt_set_activity_id_callback_data;
    FltPropagateActivityIdToThread(max 2) = flt_propagate_activity_id_to_thread;
    FltPropagateIrpExtension(max 2, fails RESOURCES) = flt_propagate_irp_extension;
}

/// A GUID as it lies in memory.
type Guid = [u8; 16];

fn of(flight: &Flight) -> MutexGuard<'_, Option<Guid>> {
    flight.activity.lock().unwrap_or_else(PoisonError::into_inner)
}

extern "efiapi" fn flt_get_activity_id_callback_data(data: Raw<FLT_CALLBACK_DATA>, out: Raw<Guid>) -> NtStatus {
    let call = Call::enter();
    let flight = Flight::of(&call, data);
    if flight.kind != Kind::Irp {
        return NtStatus::NOT_SUPPORTED;
    }
    let Some(activity) = *of(&flight) else { return NtStatus::NOT_FOUND };
    out.write(activity);
    NtStatus::SUCCESS
}

extern "efiapi" fn flt_set_activity_id_callback_data(data: Raw<FLT_CALLBACK_DATA>, guid: Raw<Guid>) -> NtStatus {
    let call = Call::enter();
    let flight = Flight::of(&call, data);
    if flight.kind != Kind::Irp {
        return NtStatus::NOT_SUPPORTED;
    }
    let Some(activity) = guid.some().map(Raw::read).or_else(activity::of_thread) else {
        return NtStatus::NOT_SUPPORTED;
    };
    *of(&flight) = Some(activity);
    NtStatus::SUCCESS
}

extern "efiapi" fn flt_propagate_activity_id_to_thread(
    data: Raw<FLT_CALLBACK_DATA>,
    propagated: Raw<Guid>,
    original: Raw<usize>,
) -> NtStatus {
    let call = Call::enter();
    let flight = Flight::of(&call, data);
    if flight.kind != Kind::Irp {
        return NtStatus::NOT_SUPPORTED;
    }
    let Some(activity) = *of(&flight) else { return NtStatus::NOT_FOUND };
    propagated.write(activity);
    original.write(activity::set(propagated).address());
    NtStatus::SUCCESS
}

extern "efiapi" fn flt_propagate_irp_extension(
    source: Raw<FLT_CALLBACK_DATA>,
    target: Raw<FLT_CALLBACK_DATA>,
    flags: u32,
) -> NtStatus {
    let call = Call::enter();
    let (source, target) = (Flight::of(&call, source), Flight::of(&call, target));
    if source.kind != Kind::Irp || target.kind != Kind::Irp || flags != 0 {
        return NtStatus::INVALID_PARAMETER;
    }
    // Only what is there is copied.
    let activity = *of(&source);
    if activity.is_some() {
        *of(&target) = activity;
    }
    NtStatus::SUCCESS
}
