//! Waits that end when an operation is cancelled: FltCancellableWaitForSingleObject and its twin for several objects.

use std::sync::{Arc, PoisonError};

use fltmgr::raw::FLT_CALLBACK_DATA;
use nt_types::{DISPATCHER_HEADER, NtStatus};

use super::flight::Flight;
use super::operation::Kind;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::nt::raw::Raw;
use crate::nt::wait::{self, Several};

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltCancellableWaitForSingleObject(max 1) = flt_cancellable_wait_for_single_object;
    FltCancellableWaitForMultipleObjects(max 1) = flt_cancellable_wait_for_multiple_objects;
}

/// The packet whose cancellation ends the wait. Other operations cannot be cancelled, and so never end one.
fn packet(call: &Call, data: Raw<FLT_CALLBACK_DATA>) -> Option<Arc<Flight>> {
    let flight = Flight::of(call, data.some()?);
    if flight.kind != Kind::Irp {
        return None;
    }
    if call.thread().irql() > 0 {
        call.stop(Rule::IrqlTooHigh, "a wait that the cancellation of a packet ends is made at PASSIVE_LEVEL");
    }
    if flight.cancellation.lock().unwrap_or_else(PoisonError::into_inner).has_routine() {
        call.stop(
            Rule::BadState,
            "the operation has a cancel routine (FltSetCancelCompletion), which would win the race",
        );
    }
    Some(flight)
}

extern "efiapi" fn flt_cancellable_wait_for_single_object(
    object: Raw<DISPATCHER_HEADER>,
    timeout: Raw<i64>,
    data: Raw<FLT_CALLBACK_DATA>,
) -> NtStatus {
    let call = Call::enter();
    let flight = packet(&call, data);
    wait::wait_unless(&call, object, timeout, || flight.as_ref().is_some_and(|flight| flight.is_cancelled()))
}

extern "efiapi" fn flt_cancellable_wait_for_multiple_objects(
    count: u32,
    objects: Raw<Raw<DISPATCHER_HEADER>>,
    wait_type: i32,
    timeout: Raw<i64>,
    wait_blocks: Raw<u8>,
    data: Raw<FLT_CALLBACK_DATA>,
) -> NtStatus {
    let call = Call::enter();
    let flight = packet(&call, data);
    let several = Several { count, objects, wait_type, timeout, wait_blocks };
    wait::wait_for_several(&call, &several, nt_types::KERNEL_MODE, || {
        flight.as_ref().is_some_and(|flight| flight.is_cancelled())
    })
}
