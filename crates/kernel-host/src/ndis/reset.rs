//! Hung adapters: `MiniportCheckForHangEx`, `MiniportResetEx`, `NdisMResetComplete`.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use ndis::NdisStatus;
use ndis::raw::OID_GEN_CURRENT_PACKET_FILTER;
use nt_types::DISPATCH_LEVEL;

use super::adapter::{AdapterError, AdapterState};
use super::lifecycle::completion_time;
use super::port::Port;
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Inner;
use crate::thread::Thread;

exports! { pub(super) EXPORTS in "ndis.sys":
    NdisMResetComplete(max 2) = reset_complete;
}

/// Interval of the checks where the registration attributes say 0, in seconds.
const DEFAULT_SECONDS: u32 = 2;

/// Checks that a request may survive before the adapter is reset.
const MOST_CHECKS: u32 = 2;

/// How often the watching thread looks whether it is still wanted.
const NAP: Duration = Duration::from_millis(50);

/// The first NDIS 6 minor version whose miniports must complete their requests before a reset is complete.
const COMPLETES_REQUESTS_FIRST: u8 = 30;

impl Port {
    /// One check, and a reset when the miniport asks for it or keeps a request too long. Whether there was one.
    pub(super) fn check_for_hang(self: &Arc<Self>, thread: &Arc<Thread>) -> Result<bool, AdapterError> {
        let Some(handler) = self.miniport.callbacks.0.CheckForHangHandlerEx else { return Ok(false) };
        let context = self.context();
        let hangs = self.call(thread, "MiniportCheckForHangEx", || {
            // SAFETY: the driver's callback, with the argument that its page documents.
            unsafe { handler(context) }
        })?;
        let mut state = self.lock();
        if self.requests.at_work().is_some() {
            state.hang_checks += 1;
        } else {
            state.hang_checks = 0;
        }
        let is_late = state.hang_checks > MOST_CHECKS;
        drop(state);
        if hangs == 0 && !is_late {
            return Ok(false);
        }
        self.reset(thread)?;
        Ok(true)
    }

    /// Resets the adapter: protocols are told, `MiniportResetEx` runs, its settings are restored, protocols are told again.
    pub(super) fn reset(self: &Arc<Self>, thread: &Arc<Thread>) -> Result<(), AdapterError> {
        self.gate.enter(thread.machine())?;
        let reset = self.reset_alone(thread);
        self.gate.leave();
        reset
    }

    fn reset_alone(&self, thread: &Arc<Thread>) -> Result<(), AdapterError> {
        const CALLBACK: &str = "MiniportResetEx";
        let Some(handler) = self.miniport.callbacks.0.ResetHandlerEx else {
            return Err(AdapterError::Status(NdisStatus::NOT_RESETTABLE));
        };
        let mut state = self.lock();
        state.is_resetting = true;
        state.reset = None;
        drop(state);
        self.indicate_by_ndis(thread, NdisStatus::RESET_START)?;
        let mut addressing = 0;
        let (context, addressing_out) = (self.context(), &raw mut addressing);
        let returned = thread.call_driver(&self.miniport.driver, CALLBACK, DISPATCH_LEVEL, || {
            // SAFETY: the driver's callback, with the arguments that its page documents.
            unsafe { handler(context, addressing_out) }
        })?;
        let (status, restores) = self.reset_outcome(thread, CALLBACK, returned, addressing != 0)?;
        let request = self.requests.at_work();
        if self.miniport.callbacks.0.MinorNdisVersion >= COMPLETES_REQUESTS_FIRST
            && let Some(request) = request
        {
            let message = format!("the reset is complete, and {request} is not; NDIS 6.30 miniports complete it first");
            return Err(self.find(thread, Rule::BadState, CALLBACK, message));
        }
        let mut state = self.lock();
        state.is_resetting = false;
        state.hang_checks = 0;
        drop(state);
        if restores {
            self.restore(thread)?;
        }
        self.indicate_by_ndis(thread, NdisStatus::RESET_END)?;
        match status {
            // Soft errors are errors that are over.
            NdisStatus::SUCCESS | NdisStatus::SOFT_ERRORS => Ok(()),
            refused => Err(AdapterError::Status(refused)),
        }
    }

    /// Final status of a reset, and whether NDIS has to restore addresses.
    fn reset_outcome(
        &self,
        thread: &Thread,
        callback: &str,
        returned: NdisStatus,
        addressing: bool,
    ) -> Result<(NdisStatus, bool), AdapterError> {
        let time = completion_time(thread.machine());
        let mut state = self.lock();
        if returned == NdisStatus::PENDING {
            let waiting = self.changed.wait_timeout_while(state, time, |state| state.reset.is_none());
            state = waiting.unwrap_or_else(PoisonError::into_inner).0;
        }
        let completed = state.reset.take();
        drop(state);
        match (returned, completed) {
            (NdisStatus::PENDING, Some(outcome)) => Ok(outcome),
            (NdisStatus::PENDING, None) => {
                let message = format!("pended, and not completed within {time:?}");
                Err(self.find(thread, Rule::Deadlock, callback, message))
            }
            (_, Some(_)) => {
                let message = format!("completed with a call, although it returned {returned}");
                Err(self.find(thread, Rule::BadState, callback, message))
            }
            (status, None) => Ok((status, addressing)),
        }
    }

    /// Sets again what the reset has lost: what all bindings together want to receive.
    fn restore(&self, thread: &Thread) -> Result<(), AdapterError> {
        let bindings = self.bindings(thread.machine());
        let filter = bindings.iter().fold(0, |all, binding| all | binding.packet_filter());
        match self.set(thread, OID_GEN_CURRENT_PACKET_FILTER, &filter.to_le_bytes()) {
            // A refusal is the miniport's right.
            Ok(()) | Err(AdapterError::Status(_)) => Ok(()),
            Err(stopped) => Err(stopped),
        }
    }

    /// Checks for hangs from now on, as often as the miniport asked for, until it is halted.
    pub(super) fn watch(self: &Arc<Self>, machine: &Arc<Inner>) {
        if self.miniport.callbacks.0.CheckForHangHandlerEx.is_none() {
            return;
        }
        let seconds = match self.attributes().hang_seconds {
            0 => DEFAULT_SECONDS,
            seconds => seconds,
        };
        let (machine, port) = (Arc::downgrade(machine), Arc::downgrade(self));
        std::thread::spawn(move || {
            let mut waited = Duration::ZERO;
            loop {
                std::thread::sleep(NAP);
                waited += NAP;
                let (Some(machine), Some(port)) = (machine.upgrade(), port.upgrade()) else { return };
                if machine.stopped().is_some() || port.state() == AdapterState::Halted {
                    return;
                }
                if waited < Duration::from_secs(u64::from(seconds)) || port.gate.is_taken() {
                    continue;
                }
                waited = Duration::ZERO;
                // A stop is recorded in the machine; the next round ends the thread.
                let _ = Thread::enter(&machine, |thread| port.check_for_hang(thread));
            }
        });
    }
}

extern "efiapi" fn reset_complete(handle: usize, status: NdisStatus, addressing: u8) {
    let call = Call::enter();
    let port = call.machine().ndis.port(&call, handle);
    call.detail(status);
    if status == NdisStatus::PENDING {
        call.stop(Rule::BadArgument, "NDIS_STATUS_PENDING is no final status");
    }
    let mut state = port.lock();
    if !state.is_resetting || state.reset.is_some() {
        drop(state);
        port.wrong_state(&call, "there is no reset to complete");
    }
    state.reset = Some((status, addressing != 0));
    drop(state);
    port.changed.notify_all();
}
