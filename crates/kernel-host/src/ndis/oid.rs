//! OID requests to an adapter, and their completion.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ndis::NdisStatus;
use ndis::raw::{
    NDIS_OBJECT_HEADER, NDIS_OBJECT_TYPE_OID_REQUEST, NDIS_OID_REQUEST, NDIS_OID_TRANSFER,
    NDIS_SIZEOF_OID_REQUEST_REVISION_1, NdisRequestQueryInformation, NdisRequestSetInformation,
};

use super::adapter::{AdapterError, AdapterState, Port};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Inner;
use crate::nt::arena::{Access, PAGE, pages_for};
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

exports! { pub(super) EXPORTS in "ndis.sys":
    NdisMOidRequestComplete(max 2) = complete;
}

/// How long a miniport may take to complete a request that it pended.
const COMPLETION_TIME: Duration = Duration::from_secs(10);

/// The request that an adapter works on.
#[derive(Clone, Debug)]
pub(super) struct InFlight {
    request: usize,
    outcome: Arc<Outcome>,
}

#[derive(Debug, Default)]
struct Outcome {
    status: Mutex<Option<NdisStatus>>,
    changed: Condvar,
}

impl Outcome {
    fn lock(&self) -> MutexGuard<'_, Option<NdisStatus>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request and its buffer, in kernel memory that ends where they end, so that a miniport that writes too far faults.
struct Memory<'machine> {
    machine: &'machine Inner,
    request: Raw<NDIS_OID_REQUEST>,
    buffer: Raw<u8>,
    runs: [(usize, usize); 2],
}

impl<'machine> Memory<'machine> {
    fn new(machine: &'machine Inner, kind: u32, oid: u32, value: &[u8]) -> Option<Self> {
        let arena = machine.nt.arena();
        // Revision 1 has no switch, virtual port and flags; what lies behind is out of bounds.
        let request_bytes = usize::from(NDIS_SIZEOF_OID_REQUEST_REVISION_1).next_multiple_of(8);
        let pages = [pages_for(request_bytes), pages_for(value.len()).max(1)];
        let first = arena.allocate(pages[0], Access::ReadWrite)?;
        let Some(second) = arena.allocate(pages[1], Access::ReadWrite) else {
            arena.release(first, pages[0]);
            return None;
        };
        let request = Raw::at(first + pages[0] * PAGE - request_bytes);
        let buffer = Raw::<u8>::at(second + pages[1] * PAGE - value.len());
        let header = NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_OID_REQUEST, 1, NDIS_SIZEOF_OID_REQUEST_REVISION_1);
        field!(request, NDIS_OID_REQUEST, Header).write(header);
        field!(request, NDIS_OID_REQUEST, RequestType).write(kind);
        buffer.write_bytes(value);
        let memory = Self { machine, request, buffer, runs: [(first, pages[0]), (second, pages[1])] };
        memory.transfer().write(NDIS_OID_TRANSFER {
            Oid: oid,
            InformationBuffer: buffer.cast().pointer(),
            InformationBufferLength: value.len() as u32,
            BytesDone: 0,
            BytesNeeded: 0,
        });
        Some(memory)
    }

    fn transfer(&self) -> Raw<NDIS_OID_TRANSFER> {
        field!(self.request, NDIS_OID_REQUEST, DATA).cast()
    }
}

impl Drop for Memory<'_> {
    fn drop(&mut self) {
        for (run, pages) in self.runs {
            self.machine.nt.arena().release(run, pages);
        }
    }
}

impl Port {
    /// Asks for an object's value.
    pub(super) fn query(&self, thread: &Thread, oid: u32, length: usize) -> Result<Vec<u8>, AdapterError> {
        let memory = self.request(thread, NdisRequestQueryInformation, oid, &vec![0; length])?;
        let done = memory.transfer().read().BytesDone as usize;
        if done > length {
            let message = format!("OID {oid:#010x}: BytesWritten is {done}, the buffer has {length} bytes");
            return Err(self.find(thread, Rule::BadArgument, "MiniportOidRequest", message));
        }
        Ok(memory.buffer.read_bytes(done))
    }

    /// Sets an object.
    pub(super) fn set(&self, thread: &Thread, oid: u32, value: &[u8]) -> Result<(), AdapterError> {
        let memory = self.request(thread, NdisRequestSetInformation, oid, value)?;
        let done = memory.transfer().read().BytesDone as usize;
        if done > value.len() {
            let message = format!("OID {oid:#010x}: BytesRead is {done}, the buffer has {} bytes", value.len());
            return Err(self.find(thread, Rule::BadArgument, "MiniportOidRequest", message));
        }
        Ok(())
    }

    /// One request from start to completion; its memory on success.
    fn request<'m>(&self, thread: &'m Thread, kind: u32, oid: u32, value: &[u8]) -> Result<Memory<'m>, AdapterError> {
        let refuse = |status| Err(AdapterError::Status(status));
        let Some(handler) = self.miniport.callbacks.0.OidRequestHandler else {
            return refuse(NdisStatus::NOT_SUPPORTED);
        };
        let _one = self.one_request.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(self.state(), AdapterState::Initializing | AdapterState::Halted) {
            return refuse(NdisStatus::ADAPTER_NOT_READY);
        }
        let Some(memory) = Memory::new(thread.machine(), kind, oid, value) else {
            return refuse(NdisStatus::RESOURCES);
        };
        let outcome = Arc::new(Outcome::default());
        let in_flight = InFlight { request: memory.request.address(), outcome: Arc::clone(&outcome) };
        self.set_in_flight(Some(in_flight));
        let (context, pointer) = (self.context(), memory.request.pointer());
        let returned = self.call(thread, "MiniportOidRequest", || {
            // SAFETY: the driver's callback, with the arguments that its page documents.
            unsafe { handler(context, pointer) }
        });
        let status =
            returned.map_err(AdapterError::from).and_then(|status| self.outcome(thread, oid, status, &outcome));
        self.set_in_flight(None);
        match status? {
            NdisStatus::SUCCESS => Ok(memory),
            refused => refuse(refused),
        }
    }

    fn set_in_flight(&self, request: Option<InFlight>) {
        *self.in_flight.lock().unwrap_or_else(PoisonError::into_inner) = request;
    }

    /// The final status of a request for which the callback returned `returned`.
    fn outcome(
        &self,
        thread: &Thread,
        oid: u32,
        returned: NdisStatus,
        outcome: &Outcome,
    ) -> Result<NdisStatus, AdapterError> {
        let find = |rule, message: &str| {
            Err(self.find(thread, rule, "MiniportOidRequest", format!("OID {oid:#010x}: {message}")))
        };
        let mut status = outcome.lock();
        if returned == NdisStatus::PENDING {
            let waiting = outcome.changed.wait_timeout_while(status, COMPLETION_TIME, |status| status.is_none());
            status = waiting.unwrap_or_else(PoisonError::into_inner).0;
        }
        let completed = *status;
        drop(status);
        match (returned, completed) {
            (NdisStatus::PENDING, Some(status)) => Ok(status),
            (NdisStatus::PENDING, None) => find(Rule::Deadlock, "pended, and not completed within 10 seconds"),
            (_, Some(_)) => find(Rule::BadState, "completed with a call, although the callback did not return PENDING"),
            (status, None) => Ok(status),
        }
    }
}

extern "efiapi" fn complete(handle: usize, request: usize, status: NdisStatus) {
    let call = Call::enter();
    let port = call.machine().ndis.port(&call, handle);
    call.detail(status);
    if status == NdisStatus::PENDING {
        call.stop(Rule::BadArgument, "NDIS_STATUS_PENDING is no final status");
    }
    let in_flight = port.in_flight.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(in_flight) = in_flight.filter(|in_flight| in_flight.request == request) else {
        call.stop(Rule::BadState, format!("{request:#x} is no request that adapter {} works on", port.name));
    };
    let mut slot = in_flight.outcome.lock();
    let twice = slot.is_some();
    slot.get_or_insert(status);
    drop(slot);
    if twice {
        call.stop(Rule::BadState, "the request is completed already");
    }
    in_flight.outcome.changed.notify_all();
}
