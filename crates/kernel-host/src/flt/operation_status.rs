//! FltRequestOperationStatusCallback: what the file system answered to the packet, as the thread that sent it sees it.

use std::sync::Arc;
use std::sync::PoisonError;

use fltmgr::raw::{FLT_CALLBACK_DATA, FLT_IO_PARAMETER_BLOCK, PFLT_GET_OPERATION_STATUS_CALLBACK};
use nt_types::{NtStatus, PVOID};

use super::flight::{Flight, Stage};
use super::major;
use super::object::FltObject;
use super::operation::Kind;
use super::stack::Running;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Driver;
use crate::nt::raw::Raw;
use crate::thread::Thread;

exports! { pub(crate) EXPORTS in "fltmgr.sys":
    FltRequestOperationStatusCallback(max 1, fails RESOURCES) = flt_request_operation_status_callback;
}

/// Who wants to know what becomes of a packet, and what its file system said.
#[derive(Default)]
pub(super) struct Inquiries {
    requests: Vec<Request>,
    /// What sending the packet to the file system gave, and the object of the thread that sent it.
    sent: Option<(NtStatus, usize)>,
}

struct Request {
    driver: Arc<Driver>,
    callback: unsafe extern "efiapi" fn(
        *const fltmgr::raw::FLT_RELATED_OBJECTS,
        *const FLT_IO_PARAMETER_BLOCK,
        NtStatus,
        PVOID,
    ),
    context: PVOID,
    /// The parameters when the request was made.
    snapshot: FLT_IO_PARAMETER_BLOCK,
    /// Keeps the instance until the callback has returned.
    instance: Running,
}

extern "efiapi" fn flt_request_operation_status_callback(
    data: Raw<FLT_CALLBACK_DATA>,
    callback: PFLT_GET_OPERATION_STATUS_CALLBACK,
    context: PVOID,
) -> NtStatus {
    let call = Call::enter();
    let flight = Flight::of(&call, data);
    let Some(callback) = callback else { call.stop(Rule::BadArgument, "the status callback is NULL") };
    if !flight.is_in(Stage::Pre) || flight.kind != Kind::Irp || flight.major() == major::CLOSE {
        return NtStatus::INVALID_PARAMETER;
    }
    let Some(FltObject::Instance(instance)) = call.machine().flt.objects.get(flight.last_instance()) else {
        return NtStatus::FLT_DELETING_OBJECT;
    };
    if let Err(status) = instance.rundown.enter() {
        return status;
    }
    let (driver, snapshot) = (Arc::clone(call.driver()), flight.block().read());
    let request = Request { driver, callback, context, snapshot, instance: Running(instance) };
    flight.inquiries.lock().unwrap_or_else(PoisonError::into_inner).requests.push(request);
    NtStatus::SUCCESS
}

impl Flight {
    /// The packet went to the file system, which returned `status`.
    pub(super) fn note_sent(&self, thread: &Thread, status: NtStatus) {
        let mut inquiries = self.inquiries.lock().unwrap_or_else(PoisonError::into_inner);
        if !inquiries.requests.is_empty() {
            inquiries.sent = Some((status, thread.object().addr()));
        }
    }
}

/// Calls those who asked, once the packet was sent from this thread. A packet that never got to the file system is none of
/// which there is something to tell (general knowledge, no page: there was no IoCallDriver that could have returned).
pub(super) fn tell(thread: &Thread, flight: &Flight) {
    let me = thread.object().addr();
    let (requests, status) = {
        let mut inquiries = flight.inquiries.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((status, _)) = inquiries.sent.take_if(|(_, sender)| *sender == me) else { return };
        (std::mem::take(&mut inquiries.requests), status)
    };
    for Request { driver, callback, context, snapshot, instance } in requests {
        let related = instance.0.related(snapshot.TargetFileObject.addr());
        // A stop reaches whoever drives the machine.
        let _stopped = thread.call_driver(&driver, "OperationStatusCallback", thread.irql(), || {
            // SAFETY: the driver passed the function with this signature; both structures live until it returns.
            unsafe { callback(&raw const related, &raw const snapshot, status, context) }
        });
    }
}
