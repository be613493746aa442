//! Requests that the machine itself makes, as NDIS does on behalf of WMI and of itself.

use std::sync::Arc;

use ndis::NdisStatus;
use ndis::raw::{
    NDIS_OBJECT_HEADER, NDIS_OBJECT_TYPE_OID_REQUEST, NDIS_OID_METHOD, NDIS_OID_REQUEST, NDIS_OID_TRANSFER,
    NDIS_SIZEOF_OID_REQUEST_REVISION_1, NdisRequestMethod, NdisRequestQueryInformation, NdisRequestSetInformation,
};

use super::{Request, Transfer};
use crate::finding::Rule;
use crate::ndis::adapter::{AdapterError, AdapterState};
use crate::ndis::lifecycle::completion_time;
use crate::ndis::port::Port;
use crate::ndis::scratch::Scratch;
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

/// A request and its buffer, in kernel memory that ends where they end, so that a miniport that writes too far faults.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) request: Scratch,
    pub(super) buffer: Scratch,
}

impl Memory {
    /// A query or set whose buffer holds `value`.
    pub(super) fn transfer(thread: &Thread, kind: u32, oid: u32, value: &[u8]) -> Option<Self> {
        let memory = Self::new(thread, kind, value)?;
        field!(memory.raw(), NDIS_OID_REQUEST, DATA).cast().write(NDIS_OID_TRANSFER {
            Oid: oid,
            InformationBuffer: memory.buffer.raw().pointer(),
            InformationBufferLength: value.len() as u32,
            BytesDone: 0,
            BytesNeeded: 0,
        });
        Some(memory)
    }

    fn method(thread: &Thread, oid: u32, method: u32, input: &[u8], output: usize) -> Option<Self> {
        let mut value = input.to_vec();
        value.resize(input.len().max(output), 0);
        let memory = Self::new(thread, NdisRequestMethod, &value)?;
        field!(memory.raw(), NDIS_OID_REQUEST, DATA).cast().write(NDIS_OID_METHOD {
            Oid: oid,
            InformationBuffer: memory.buffer.raw().pointer(),
            InputBufferLength: input.len() as u32,
            OutputBufferLength: output as u32,
            MethodId: method,
            BytesWritten: 0,
            BytesRead: 0,
            BytesNeeded: 0,
        });
        Some(memory)
    }

    fn new(thread: &Thread, kind: u32, value: &[u8]) -> Option<Self> {
        // Revision 1 has no switch, virtual port and flags; what lies behind is out of bounds.
        let length = usize::from(NDIS_SIZEOF_OID_REQUEST_REVISION_1);
        let request = Scratch::new(thread.machine(), length)?;
        let buffer = Scratch::bytes(thread.machine(), value)?;
        let header = NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_OID_REQUEST, 1, NDIS_SIZEOF_OID_REQUEST_REVISION_1);
        field!(request.raw(), NDIS_OID_REQUEST, Header).write(header);
        field!(request.raw(), NDIS_OID_REQUEST, RequestType).write(kind);
        Some(Self { request, buffer })
    }

    pub(super) fn raw(&self) -> Raw<NDIS_OID_REQUEST> {
        self.request.raw()
    }
}

impl Port {
    /// Asks for an object's value.
    pub(in crate::ndis) fn query(&self, thread: &Thread, oid: u32, length: usize) -> Result<Vec<u8>, AdapterError> {
        self.ask(thread, Memory::transfer(thread, NdisRequestQueryInformation, oid, &vec![0; length]))
    }

    /// Sets an object.
    pub(in crate::ndis) fn set(&self, thread: &Thread, oid: u32, value: &[u8]) -> Result<(), AdapterError> {
        self.ask(thread, Memory::transfer(thread, NdisRequestSetInformation, oid, value)).map(|_| ())
    }

    /// Has a method of an object carried out.
    pub(in crate::ndis) fn method(
        &self,
        thread: &Thread,
        oid: u32,
        method: u32,
        input: &[u8],
        output: usize,
    ) -> Result<Vec<u8>, AdapterError> {
        self.ask(thread, Memory::method(thread, oid, method, input, output))
    }

    /// One request from start to completion; what was written on success.
    fn ask(&self, thread: &Thread, memory: Option<Memory>) -> Result<Vec<u8>, AdapterError> {
        let refuse = |status| Err(AdapterError::Status(status));
        let Some(memory) = memory else { return refuse(NdisStatus::RESOURCES) };
        let Some(transfer) = Transfer::of(memory.raw()) else { return refuse(NdisStatus::INVALID_PARAMETER) };
        let state = self.state();
        if matches!(state, AdapterState::Initializing | AdapterState::Halted) || self.lock().is_closing {
            return refuse(NdisStatus::ADAPTER_NOT_READY);
        }
        let mut request = Request::new(memory.request.address(), transfer, None);
        // As what the system asks through WMI does: from the top of the stack.
        request.server = self.below(None, |module| module.callbacks().OidRequestHandler.is_some());
        let request = Arc::new(request);
        let queue = self.queue_of(&request);
        queue.add(&request);
        if !queue.wait_turn(thread.machine(), &request)? {
            return refuse(NdisStatus::REQUEST_ABORTED);
        }
        let mut status = self.hand_over(thread, &request)?;
        if status == NdisStatus::PENDING {
            let time = completion_time(thread.machine());
            let Some(completed) = request.outcome(thread.machine(), time)? else {
                let message = format!("{request} is pended, and not completed within {time:?}");
                return Err(match &request.server {
                    Some(module) => module.find(thread, Rule::Deadlock, "FilterOidRequest", message),
                    None => self.find(thread, Rule::Deadlock, "MiniportOidRequest", message),
                });
            };
            status = completed;
        }
        match status {
            NdisStatus::SUCCESS => {
                let written = transfer.done(memory.raw()).written as usize;
                Ok(memory.buffer.raw::<u8>().read_bytes(written))
            }
            refused => refuse(refused),
        }
    }
}
