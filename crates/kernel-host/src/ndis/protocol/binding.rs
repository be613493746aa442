//! One protocol on one adapter.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::Protocol;
use crate::ddi::Call;
use crate::finding::{Rule, Stopped};
use crate::machine::Inner;
use crate::ndis::Ndis;
use crate::ndis::port::Port;

/// How long a wait sleeps before it looks whether the machine has stopped.
const NAP: Duration = Duration::from_millis(20);

/// States of a binding, as the page "Protocol Binding States and Operations" names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BindingState {
    /// `ProtocolBindAdapterEx` was called and the adapter is not open yet.
    Opening,
    /// Open, no data flows.
    Paused,
    /// `NetEventRestart` is being handled.
    Restarting,
    /// Data may flow.
    Running,
    /// `NetEventPause` is being handled.
    Pausing,
    /// `ProtocolUnbindAdapterEx` was called.
    Closing,
    /// Gone.
    Unbound,
}

/// What `NdisOpenAdapterEx` made.
#[derive(Debug)]
pub(in crate::ndis) struct Binding {
    pub(in crate::ndis) handle: usize,
    pub(in crate::ndis) protocol: Arc<Protocol>,
    pub(in crate::ndis) port: Arc<Port>,
    /// `ProtocolBindingContext`.
    pub(in crate::ndis) context: usize,
    changing: Mutex<Changing>,
    changed: Condvar,
}

#[derive(Debug)]
struct Changing {
    state: BindingState,
    open: Access,
    /// A bind or unbind operation is under way, within which the binding may be closed.
    may_close: bool,
    packet_filter: u32,
    multicast_list: Vec<u8>,
}

/// How far opening and closing are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// `NdisOpenAdapterEx` returned pending; the completion is still to come.
    Opening,
    /// Open.
    Open,
    /// `NdisCloseAdapterEx` returned pending; the completion is still to come.
    Closing,
    /// The completion callback of the close runs: the driver may complete its unbind.
    Completing,
    /// Closed.
    Closed,
}

impl Binding {
    pub(super) fn new(handle: usize, protocol: &Arc<Protocol>, port: &Arc<Port>, context: usize) -> Self {
        Self {
            handle,
            protocol: Arc::clone(protocol),
            port: Arc::clone(port),
            context,
            changing: Mutex::new(Changing {
                state: BindingState::Opening,
                open: Access::Opening,
                may_close: true,
                packet_filter: 0,
                multicast_list: Vec::new(),
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Changing> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::ndis) fn state(&self) -> BindingState {
        self.lock().state
    }

    pub(super) fn set_state(&self, state: BindingState) {
        self.lock().state = state;
    }

    pub(super) fn open(&self) -> Access {
        self.lock().open
    }

    pub(super) fn set_open(&self, open: Access) {
        self.lock().open = open;
        self.changed.notify_all();
    }

    /// Whether the open is complete and no close has begun.
    pub(in crate::ndis) fn is_open(&self) -> bool {
        self.open() == Access::Open
    }

    pub(super) fn may_close(&self) -> bool {
        self.lock().may_close
    }

    pub(super) fn set_may_close(&self, may: bool) {
        self.lock().may_close = may;
    }

    /// The binding's own `OID_GEN_CURRENT_PACKET_FILTER`.
    pub(in crate::ndis) fn packet_filter(&self) -> u32 {
        self.lock().packet_filter
    }

    pub(in crate::ndis) fn set_packet_filter(&self, filter: u32) {
        self.lock().packet_filter = filter;
    }

    /// The binding's own `OID_802_3_MULTICAST_LIST`.
    pub(in crate::ndis) fn multicast_list(&self) -> Vec<u8> {
        self.lock().multicast_list.clone()
    }

    pub(in crate::ndis) fn set_multicast_list(&self, list: Vec<u8>) {
        self.lock().multicast_list = list;
    }

    /// Waits until the binding is closed and the callback that said so has returned; false when it takes longer than `time`.
    ///
    /// # Errors
    /// The machine has stopped.
    pub(super) fn wait_closed(&self, machine: &Inner, time: Duration) -> Result<bool, Stopped> {
        let deadline = Instant::now() + time;
        let mut state = self.lock();
        while state.open != Access::Closed {
            if let Some(stopped) = machine.stopped() {
                return Err(stopped);
            }
            if deadline <= Instant::now() {
                return Ok(false);
            }
            state = self.changed.wait_timeout(state, NAP).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(true)
    }
}

impl Ndis {
    /// The binding behind a handle that a driver passed. Stops on a handle that is none, or not of this driver.
    pub(in crate::ndis) fn binding(&self, call: &Call, handle: usize) -> Arc<Binding> {
        let binding = self.lock().bindings.iter().find(|binding| binding.handle == handle).cloned();
        match binding {
            Some(binding) if Arc::ptr_eq(&binding.protocol.driver, call.driver()) => binding,
            Some(_) => call.stop(Rule::InvalidHandle, format!("{handle:#x} is another driver's binding")),
            None => call.stop(
                Rule::InvalidHandle,
                format!("{handle:#x} is no binding, or one whose close has begun: NdisCloseAdapterEx ends the handle"),
            ),
        }
    }

    /// The protocol behind a handle that a driver passed. Stops on a handle that is none, or not of this driver.
    pub(in crate::ndis) fn protocol(&self, call: &Call, handle: usize) -> Arc<Protocol> {
        let protocol = self.lock().protocols.get(&handle).cloned();
        protocol.filter(|protocol| Arc::ptr_eq(&protocol.driver, call.driver())).unwrap_or_else(|| {
            call.stop(Rule::InvalidHandle, format!("{handle:#x} is no protocol of this driver, or one that is over"))
        })
    }
}
