//! Status indications: `NdisMIndicateStatusEx`, and those of NDIS itself.

use std::sync::Arc;

use ndis::NdisStatus;
use ndis::raw::{
    NDIS_OBJECT_HEADER, NDIS_OBJECT_TYPE_STATUS_INDICATION, NDIS_SIZEOF_STATUS_INDICATION_REVISION_1,
    NDIS_STATUS_INDICATION,
};

use super::adapter::AdapterError;
use super::filter::Module;
use super::port::Port;
use super::scratch::Scratch;
use crate::ddi::{Call, exports};
use crate::finding::{Rule, Stopped};
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

exports! { pub(super) EXPORTS in "ndis.sys":
    NdisMIndicateStatusEx(max 2) = indicate_status;
}

/// Longest status buffer that is remembered, in bytes.
const REMEMBERED_BYTES: u32 = 4096;

/// A status indication that an adapter made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatusIndication {
    /// What was indicated.
    pub status: NdisStatus,
    /// The data that came with it; at most 4 KiB of them.
    pub data: Vec<u8>,
    /// How many bindings were told; a filter may have kept it from them.
    pub told: usize,
}

extern "efiapi" fn indicate_status(handle: usize, indication: Raw<NDIS_STATUS_INDICATION>) {
    let call = Call::enter();
    let port = call.machine().ndis.port(&call, handle);
    check_indication(&call, indication);
    let status = field!(indication, NDIS_STATUS_INDICATION, StatusCode).read();
    call.detail(status);
    if port.attributes().context.is_none() {
        call.stop(Rule::BadState, "legal only after the registration attributes are set");
    }
    if matches!(status, NdisStatus::RESET_START | NdisStatus::RESET_END) {
        call.stop(Rule::BadState, format!("{status} is indicated by NDIS, not by miniports"));
    }
    let source = field!(indication, NDIS_STATUS_INDICATION, SourceHandle).read().addr();
    if source != handle {
        let message = format!("SourceHandle is {source:#x}; it must be the handle {handle:#x} of the adapter");
        call.stop(Rule::BadArgument, message);
    }
    // A stop does not come back here.
    let _ = port.indicate(call.thread(), None, indication);
}

/// The header says what the structure is; a wrong one is a wrong structure.
pub(super) fn check_indication(call: &Call, indication: Raw<NDIS_STATUS_INDICATION>) {
    let header = field!(indication, NDIS_STATUS_INDICATION, Header).read();
    if header.Type != NDIS_OBJECT_TYPE_STATUS_INDICATION
        || header.Revision == 0
        || header.Size < NDIS_SIZEOF_STATUS_INDICATION_REVISION_1
    {
        let NDIS_OBJECT_HEADER { Type, Revision, Size } = header;
        let message =
            format!("{indication:?} is no NDIS_STATUS_INDICATION: type {Type:#x}, revision {Revision}, size {Size}");
        call.stop(Rule::BadArgument, message);
    }
}

impl Port {
    /// An indication of NDIS's own.
    pub(super) fn indicate_by_ndis(&self, thread: &Arc<Thread>, status: NdisStatus) -> Result<(), AdapterError> {
        let memory = Scratch::new(thread.machine(), size_of::<NDIS_STATUS_INDICATION>());
        let memory = memory.ok_or(AdapterError::Status(NdisStatus::RESOURCES))?;
        let size = NDIS_SIZEOF_STATUS_INDICATION_REVISION_1;
        let header = NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_STATUS_INDICATION, 1, size);
        field!(memory.raw(), NDIS_STATUS_INDICATION, Header).write(header);
        field!(memory.raw(), NDIS_STATUS_INDICATION, StatusCode).write(status);
        field!(memory.raw(), NDIS_STATUS_INDICATION, SourceHandle).write(Raw::at(self.handle).pointer());
        Ok(self.indicate(thread, None, memory.raw())?)
    }

    /// Tells the next filter above `from` that takes indications, at the present IRQL; else the bindings: all, or the one that the
    /// indication names.
    pub(super) fn indicate(
        &self,
        thread: &Thread,
        from: Option<&Module>,
        indication: Raw<NDIS_STATUS_INDICATION>,
    ) -> Result<(), Stopped> {
        let next = self.above(from, |module| module.callbacks().StatusHandler.is_some());
        let of_module = next.as_ref().and_then(|module| Some((module, module.callbacks().StatusHandler?)));
        if let Some((module, handler)) = of_module {
            let context = module.context();
            return module.call(thread, "FilterStatus", thread.irql(), || {
                // SAFETY: the driver's callback, with the arguments that its page documents.
                unsafe { handler(context, indication.pointer()) }
            });
        }
        let status = field!(indication, NDIS_STATUS_INDICATION, StatusCode).read();
        let only = field!(indication, NDIS_STATUS_INDICATION, DestinationHandle).read().addr();
        let length = field!(indication, NDIS_STATUS_INDICATION, StatusBufferSize).read().min(REMEMBERED_BYTES);
        let data = Raw::<u8>::of(field!(indication, NDIS_STATUS_INDICATION, StatusBuffer).read().cast());
        let data = data.read_bytes(length as usize);
        let mut told = 0;
        for binding in self.bindings(thread.machine()) {
            let is_meant = only == 0 || only == binding.handle;
            let Some(handler) = binding.protocol.callbacks.0.StatusHandlerEx.filter(|_| is_meant) else { continue };
            told += 1;
            let context = Raw::at(binding.context).pointer();
            thread.call_driver(&binding.protocol.driver, "ProtocolStatusEx", thread.irql(), || {
                // SAFETY: the driver's callback, with the arguments that its page documents.
                unsafe { handler(context, indication.pointer()) }
            })?;
        }
        self.remember(StatusIndication { status, data, told });
        Ok(())
    }
}
