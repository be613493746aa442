//! An adapter's stack as a whole: protocols above, filters between, the miniport below.

use std::sync::Arc;

use ndis::NdisStatus;
use ndis::raw::{
    NDIS_PAUSE_LOW_POWER, NDIS_PAUSE_NDIS_INTERNAL, NdisDeviceStateD0, NdisDeviceStateD3, NetEventCancelRemoveDevice,
    NetEventQueryPower, NetEventQueryRemoveDevice, NetEventSetPower, OID_PNP_SET_POWER,
};

use super::adapter::{AdapterError, AdapterState};
use super::port::Port;
use crate::thread::Thread;

impl Port {
    /// Pauses the bindings, then the filters, then the miniport: the order of the page "Pausing a Driver Stack". Whether it was running.
    pub(super) fn pause_stack(&self, thread: &Arc<Thread>, reason: u32) -> Result<bool, AdapterError> {
        if self.state() != AdapterState::Running {
            return Ok(false);
        }
        for binding in self.bindings(thread.machine()) {
            binding.pause(thread, reason)?;
        }
        self.pause_modules(thread)?;
        self.pause(thread, reason)?;
        Ok(true)
    }

    /// Restarts the miniport, then the filters, then the bindings: the order of the page "Restarting a Driver Stack".
    pub(super) fn restart_stack(&self, thread: &Arc<Thread>) -> Result<(), AdapterError> {
        self.restart(thread)?;
        if let Err(error) = self.restart_modules(thread) {
            if error.status().is_some() {
                // A stack without its mandatory filter does not run.
                self.pause_modules(thread)?;
                self.pause(thread, NDIS_PAUSE_NDIS_INTERNAL)?;
            }
            return Err(error);
        }
        for binding in self.bindings(thread.machine()) {
            binding.restart(thread)?;
        }
        Ok(())
    }

    /// Asks every protocol whether the device may be removed; takes the question back when one says no.
    pub(super) fn query_remove(&self, thread: &Arc<Thread>) -> Result<(), AdapterError> {
        let status = self.tell_net_event(thread, None, NetEventQueryRemoveDevice, &[])?;
        if status != NdisStatus::SUCCESS {
            self.tell_all(thread, NetEventCancelRemoveDevice, &[])?;
            return Err(AdapterError::Status(status));
        }
        Ok(())
    }

    /// Takes the device to a low power state: the protocols are asked and told, the stack is paused, the miniport sets the power.
    pub(super) fn sleep(&self, thread: &Arc<Thread>) -> Result<(), AdapterError> {
        let state = NdisDeviceStateD3.to_le_bytes();
        self.tell_all(thread, NetEventQueryPower, &state)?;
        self.tell_all(thread, NetEventSetPower, &state)?;
        self.pause_stack(thread, NDIS_PAUSE_LOW_POWER)?;
        self.set(thread, OID_PNP_SET_POWER, &state)?;
        self.lock().is_asleep = true;
        Ok(())
    }

    /// Brings it back: the miniport sets the power, the stack is restarted, the protocols are told.
    pub(super) fn wake(&self, thread: &Arc<Thread>) -> Result<(), AdapterError> {
        let state = NdisDeviceStateD0.to_le_bytes();
        self.lock().is_asleep = false;
        self.set(thread, OID_PNP_SET_POWER, &state)?;
        self.tell_power_profile(thread)?;
        self.restart_stack(thread)?;
        self.tell_all(thread, NetEventSetPower, &state)
    }

    fn tell_all(&self, thread: &Arc<Thread>, event: u32, buffer: &[u8]) -> Result<(), AdapterError> {
        // None of these events can be refused.
        self.tell_net_event(thread, None, event, buffer).map(|_| ())
    }
}
