//! Pause and restart of modules, and the options that they may change in between.

use std::sync::{Arc, PoisonError};

use ndis::NdisStatus;
use ndis::raw::{
    NDIS_FILTER_PARTIAL_CHARACTERISTICS, NDIS_FILTER_PAUSE_PARAMETERS, NDIS_FILTER_RESTART_PARAMETERS,
    NDIS_OBJECT_HEADER, NDIS_OBJECT_TYPE_FILTER_PARTIAL_CHARACTERISTICS, NDIS_OBJECT_TYPE_FILTER_PAUSE_PARAMETERS,
    NDIS_OBJECT_TYPE_FILTER_RESTART_PARAMETERS, NDIS_PAUSE_NDIS_INTERNAL,
    NDIS_SIZEOF_FILTER_PARTIAL_CHARACTERISTICS_REVISION_1,
};

use super::module::{FilterState, Handlers, Module};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::ndis::adapter::AdapterError;
use crate::ndis::lifecycle::{completion_time, final_status};
use crate::ndis::port::Port;
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

exports! { pub(in crate::ndis) EXPORTS in "ndis.sys":
    NdisFPauseComplete(max 2) = pause_complete;
    NdisFRestartComplete(max 0) = restart_complete;
    NdisFRestartFilter(max 2, fails RETURNS_NDIS_FAILURE) = restart_filter;
}

impl Port {
    /// `FilterPause` of each module, from the protocols downwards.
    pub(in crate::ndis) fn pause_modules(&self, thread: &Arc<Thread>) -> Result<(), AdapterError> {
        self.modules().iter().rev().try_for_each(|module| module.pause(thread))
    }

    /// `FilterSetModuleOptions` of all modules, then `FilterRestart` of each, from the miniport upwards.
    ///
    /// A module that does not restart is detached; the failure of a mandatory one is that of the stack.
    pub(in crate::ndis) fn restart_modules(&self, thread: &Arc<Thread>) -> Result<(), AdapterError> {
        let modules = self.modules();
        modules.iter().try_for_each(|module| module.set_options(thread))?;
        for module in modules {
            match module.restart(thread) {
                Err(AdapterError::Status(status)) => {
                    module.detach(thread)?;
                    if module.filter.place.is_mandatory {
                        return Err(AdapterError::Status(status));
                    }
                }
                restarted => restarted?,
            }
        }
        Ok(())
    }
}

impl Module {
    fn pause(&self, thread: &Arc<Thread>) -> Result<(), AdapterError> {
        const CALLBACK: &str = "FilterPause";
        let Some(handler) = self.callbacks().PauseHandler else { return Ok(()) };
        if self.state() != FilterState::Running {
            return Ok(());
        }
        self.set_state(FilterState::Pausing);
        let mut parameters = NDIS_FILTER_PAUSE_PARAMETERS {
            Header: NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_FILTER_PAUSE_PARAMETERS, 1, 12),
            Flags: 0,
            PauseReason: NDIS_PAUSE_NDIS_INTERNAL,
        };
        let (context, parameters) = (self.context(), &raw mut parameters);
        let status = self.call(thread, CALLBACK, 0, || {
            // SAFETY: the driver's callback, with the arguments that its page documents.
            unsafe { handler(context, parameters) }
        })?;
        let status = self.completion(thread, CALLBACK, status)?;
        if status != NdisStatus::SUCCESS {
            let message = format!("returned {status}; a pause cannot fail");
            return Err(self.find(thread, Rule::BadState, CALLBACK, message));
        }
        thread.machine().ndis.find_in_flight(thread, &self.filter.driver, self.handle, CALLBACK)?;
        self.set_state(FilterState::Paused);
        Ok(())
    }

    fn set_options(&self, thread: &Thread) -> Result<(), AdapterError> {
        let Some(handler) = self.callbacks().SetFilterModuleOptionsHandler else { return Ok(()) };
        let context = self.context();
        self.lock().optioner = Some(thread.id());
        let status = self.call(thread, "FilterSetModuleOptions", 0, || {
            // SAFETY: the driver's callback, with the argument that its page documents.
            unsafe { handler(context) }
        });
        self.lock().optioner = None;
        // A failure only means that the options are what they were. General knowledge, no page.
        let _ = status?;
        Ok(())
    }

    fn restart(&self, thread: &Arc<Thread>) -> Result<(), AdapterError> {
        const CALLBACK: &str = "FilterRestart";
        let Some(handler) = self.callbacks().RestartHandler else { return Ok(()) };
        if self.state() != FilterState::Paused {
            return Ok(());
        }
        self.set_state(FilterState::Restarting);
        let general = self.port.attributes().general;
        let mut parameters = NDIS_FILTER_RESTART_PARAMETERS {
            Header: NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_FILTER_RESTART_PARAMETERS, 1, 44),
            MiniportMediaType: general.as_ref().map_or(0, |general| general.media),
            MiniportPhysicalMediaType: general.as_ref().map_or(0, |general| general.physical_medium),
            // No attributes are propagated: the page allows NULL, which says that there is nothing to change.
            RestartAttributes: std::ptr::null_mut(),
            LowerIfIndex: self.port.index,
            LowerIfNetLuid: self.port.luid(),
            Flags: 0,
        };
        let (context, parameters) = (self.context(), &raw mut parameters);
        let status = self.call(thread, CALLBACK, 0, || {
            // SAFETY: the driver's callback, with the arguments that its page documents.
            unsafe { handler(context, parameters) }
        })?;
        let status = self.completion(thread, CALLBACK, status)?;
        let is_running = status == NdisStatus::SUCCESS;
        self.set_state(if is_running { FilterState::Running } else { FilterState::Paused });
        if is_running { Ok(()) } else { Err(AdapterError::Status(status)) }
    }

    /// The final status of a pause or restart that returned `status`.
    fn completion(&self, thread: &Thread, callback: &str, status: NdisStatus) -> Result<NdisStatus, AdapterError> {
        let time = completion_time(thread.machine());
        let mut state = self.lock();
        if status == NdisStatus::PENDING {
            let waiting = self.changed.wait_timeout_while(state, time, |state| state.completed.is_none());
            state = waiting.unwrap_or_else(PoisonError::into_inner).0;
        }
        let completed = state.completed.take();
        drop(state);
        final_status(status, completed, time).map_err(|(rule, message)| self.find(thread, rule, callback, message))
    }

    fn complete(&self, call: &Call, expected: FilterState, status: NdisStatus) {
        let mut state = self.lock();
        let now = state.state;
        if now == expected && state.completed.is_none() {
            state.completed = Some(status);
            self.changed.notify_all();
            return;
        }
        drop(state);
        call.stop(Rule::BadState, format!("module {} is {now:?}: there is nothing to complete", self.name));
    }
}

extern "efiapi" fn pause_complete(handle: usize) {
    let call = Call::enter();
    call.machine().ndis.module(&call, handle).complete(&call, FilterState::Pausing, NdisStatus::SUCCESS);
}

extern "efiapi" fn restart_complete(handle: usize, status: NdisStatus) {
    let call = Call::enter();
    if status == NdisStatus::PENDING {
        call.stop(Rule::BadArgument, "NDIS_STATUS_PENDING is no final status");
    }
    call.machine().ndis.module(&call, handle).complete(&call, FilterState::Restarting, status);
}

extern "efiapi" fn restart_filter(handle: usize) -> NdisStatus {
    let call = Call::enter();
    let module = call.machine().ndis.module(&call, handle);
    module.check_attached(&call, "a restart is asked for");
    let machine = Arc::clone(call.machine());
    // A stop is recorded in the machine; the thread just ends.
    std::thread::spawn(move || Thread::enter(&machine, |thread| module.port.pause_and_restart(thread).ok()));
    NdisStatus::SUCCESS
}

impl Port {
    /// A pause and a restart of the whole stack, for the sake of one module.
    pub(super) fn pause_and_restart(&self, thread: &Arc<Thread>) -> Result<(), AdapterError> {
        self.gate.enter(thread.machine())?;
        let paused = self.pause_stack(thread, NDIS_PAUSE_NDIS_INTERNAL);
        let restarted = paused.and_then(|was_running| if was_running { self.restart_stack(thread) } else { Ok(()) });
        self.gate.leave();
        restarted
    }
}

/// `NdisSetOptionalHandlers` for a module.
pub(in crate::ndis) fn set_data_handlers(call: &Call, module: &Module, raw: Raw<NDIS_OBJECT_HEADER>) -> NdisStatus {
    if module.lock().optioner != Some(call.thread().id()) {
        call.stop(Rule::BadState, "modules set their handlers within FilterSetModuleOptions, on its thread");
    }
    let header = raw.read();
    if header.Type != NDIS_OBJECT_TYPE_FILTER_PARTIAL_CHARACTERISTICS {
        return NdisStatus::NOT_SUPPORTED;
    }
    if header.Revision == 0 || header.Size < NDIS_SIZEOF_FILTER_PARTIAL_CHARACTERISTICS_REVISION_1 {
        return NdisStatus::FAILURE;
    }
    let raw = raw.cast::<NDIS_FILTER_PARTIAL_CHARACTERISTICS>();
    module.lock().data = Handlers(NDIS_FILTER_PARTIAL_CHARACTERISTICS {
        Header: header,
        Flags: 0,
        SendNetBufferListsHandler: field!(raw, NDIS_FILTER_PARTIAL_CHARACTERISTICS, SendNetBufferListsHandler).read(),
        SendNetBufferListsCompleteHandler: field!(
            raw,
            NDIS_FILTER_PARTIAL_CHARACTERISTICS,
            SendNetBufferListsCompleteHandler
        )
        .read(),
        CancelSendNetBufferListsHandler: field!(
            raw,
            NDIS_FILTER_PARTIAL_CHARACTERISTICS,
            CancelSendNetBufferListsHandler
        )
        .read(),
        ReceiveNetBufferListsHandler: field!(raw, NDIS_FILTER_PARTIAL_CHARACTERISTICS, ReceiveNetBufferListsHandler)
            .read(),
        ReturnNetBufferListsHandler: field!(raw, NDIS_FILTER_PARTIAL_CHARACTERISTICS, ReturnNetBufferListsHandler)
            .read(),
    });
    NdisStatus::SUCCESS
}
