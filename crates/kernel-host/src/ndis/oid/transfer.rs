//! What an `NDIS_OID_REQUEST` asks, copied out of it once.
#![expect(non_upper_case_globals, reason = "matches on constants in the spelling of ndis.h")]

use std::fmt;

use ndis::NdisStatus;
use ndis::raw::{
    NDIS_OID_METHOD, NDIS_OID_REQUEST, NDIS_OID_TRANSFER, NdisRequestMethod, NdisRequestQueryInformation,
    NdisRequestQueryStatistics, NdisRequestSetInformation,
};

use crate::nt::raw::{Raw, field};

/// The question of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ndis) struct Transfer {
    /// `NdisRequest*`.
    pub(in crate::ndis) kind: u32,
    pub(in crate::ndis) oid: u32,
    /// Address of the information buffer.
    pub(in crate::ndis) buffer: usize,
    /// Bytes of input: of sets and methods.
    pub(in crate::ndis) input: u32,
    /// Room for output: of queries and methods.
    pub(in crate::ndis) output: u32,
}

impl Transfer {
    /// Reads the question; `None` for a kind of request that does not exist.
    pub(in crate::ndis) fn of(request: Raw<NDIS_OID_REQUEST>) -> Option<Self> {
        let kind = field!(request, NDIS_OID_REQUEST, RequestType).read();
        if kind == NdisRequestMethod {
            let method = method(request).read();
            return Some(Self {
                kind,
                oid: method.Oid,
                buffer: method.InformationBuffer.addr(),
                input: method.InputBufferLength,
                output: method.OutputBufferLength,
            });
        }
        let data = data(request).read();
        let (input, output) = match kind {
            NdisRequestQueryInformation | NdisRequestQueryStatistics => (0, data.InformationBufferLength),
            NdisRequestSetInformation => (data.InformationBufferLength, 0),
            _ => return None,
        };
        Some(Self { kind, oid: data.Oid, buffer: data.InformationBuffer.addr(), input, output })
    }

    pub(in crate::ndis) fn is_query(self) -> bool {
        matches!(self.kind, NdisRequestQueryInformation | NdisRequestQueryStatistics)
    }

    pub(in crate::ndis) fn is_set(self) -> bool {
        self.kind == NdisRequestSetInformation
    }

    /// What the answer says of bytes read, written and needed.
    pub(in crate::ndis) fn done(self, request: Raw<NDIS_OID_REQUEST>) -> Done {
        if self.kind == NdisRequestMethod {
            let method = method(request).read();
            return Done { read: method.BytesRead, written: method.BytesWritten, needed: method.BytesNeeded };
        }
        let data = data(request).read();
        let (read, written) = if self.is_set() { (data.BytesDone, 0) } else { (0, data.BytesDone) };
        Done { read, written, needed: data.BytesNeeded }
    }

    /// Writes that to another structure for the same question.
    pub(in crate::ndis) fn set_done(self, request: Raw<NDIS_OID_REQUEST>, done: Done) {
        if self.kind == NdisRequestMethod {
            let to = method(request);
            field!(to, NDIS_OID_METHOD, BytesRead).write(done.read);
            field!(to, NDIS_OID_METHOD, BytesWritten).write(done.written);
            field!(to, NDIS_OID_METHOD, BytesNeeded).write(done.needed);
            return;
        }
        let to = data(request);
        field!(to, NDIS_OID_TRANSFER, BytesDone).write(if self.is_set() { done.read } else { done.written });
        field!(to, NDIS_OID_TRANSFER, BytesNeeded).write(done.needed);
    }

    /// What is wrong with an answer, if anything is.
    pub(in crate::ndis) fn fault(self, status: NdisStatus, done: Done) -> Option<String> {
        if status == NdisStatus::SUCCESS && done.written > self.output && !self.is_set() {
            return Some(format!("{self}: BytesWritten is {}, the buffer has {} bytes", done.written, self.output));
        }
        if status == NdisStatus::SUCCESS && done.read > self.input && !self.is_query() {
            return Some(format!("{self}: BytesRead is {}, the buffer has {} bytes", done.read, self.input));
        }
        if status == NdisStatus::BUFFER_TOO_SHORT && done.needed <= self.input.max(self.output) {
            let (needed, room) = (done.needed, self.input.max(self.output));
            return Some(format!("{self}: too short, and BytesNeeded is {needed}; the buffer has {room} bytes"));
        }
        None
    }
}

/// What an answer says of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::ndis) struct Done {
    pub(in crate::ndis) read: u32,
    pub(in crate::ndis) written: u32,
    pub(in crate::ndis) needed: u32,
}

fn data(request: Raw<NDIS_OID_REQUEST>) -> Raw<NDIS_OID_TRANSFER> {
    field!(request, NDIS_OID_REQUEST, DATA).cast()
}

fn method(request: Raw<NDIS_OID_REQUEST>) -> Raw<NDIS_OID_METHOD> {
    field!(request, NDIS_OID_REQUEST, DATA).cast()
}

impl fmt::Display for Transfer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            NdisRequestQueryInformation => "query",
            NdisRequestSetInformation => "set",
            NdisRequestQueryStatistics => "statistics query",
            _ => "method",
        };
        write!(f, "the {kind} of OID {:#010x}", self.oid)
    }
}
