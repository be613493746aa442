//! One filter in one adapter's stack.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use ndis::NdisStatus;
use ndis::raw::{NDIS_FILTER_DRIVER_CHARACTERISTICS, NDIS_FILTER_PARTIAL_CHARACTERISTICS};

use super::Filter;
use crate::ddi::Call;
use crate::finding::{Rule, Stopped};
use crate::ndis::Ndis;
use crate::ndis::adapter::AdapterError;
use crate::ndis::oid::Requests;
use crate::ndis::port::Port;
use crate::nt::raw::Raw;
use crate::thread::Thread;

/// States of a filter module, as the page "Filter Module States and Operations" names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterState {
    /// `FilterAttach` runs.
    Attaching,
    /// Attached, no data flows.
    Paused,
    /// `FilterRestart` was called and is not complete.
    Restarting,
    /// Data may flow.
    Running,
    /// `FilterPause` was called and is not complete.
    Pausing,
    /// Gone.
    Detached,
}

/// A filter module.
#[derive(Debug)]
pub(in crate::ndis) struct Module {
    pub(in crate::ndis) handle: usize,
    pub(in crate::ndis) filter: Arc<Filter>,
    pub(in crate::ndis) port: Arc<Port>,
    /// Name of the module: the adapter's GUID, the filter's GUID and a number.
    pub(super) name: String,
    /// OID requests that wait for the filter, and those that it works on.
    pub(in crate::ndis) requests: Requests,
    changing: Mutex<Changing>,
    pub(super) changed: Condvar,
}

/// What changes of a module.
#[derive(Debug)]
pub(super) struct Changing {
    pub(super) state: FilterState,
    /// `FilterModuleContext`, once `NdisFSetAttributes` has set it.
    pub(super) context: Option<usize>,
    /// Status of a pended pause or restart.
    pub(super) completed: Option<NdisStatus>,
    /// The thread that `FilterSetModuleOptions` runs on.
    pub(super) optioner: Option<u32>,
    /// The data handlers, which the module may change.
    pub(super) data: Handlers,
}

/// Data handlers of a module.
#[derive(Clone, Copy)]
pub(in crate::ndis) struct Handlers(pub(in crate::ndis) NDIS_FILTER_PARTIAL_CHARACTERISTICS);

impl std::fmt::Debug for Handlers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "data handlers")
    }
}

impl Module {
    pub(super) fn new(handle: usize, filter: &Arc<Filter>, port: &Arc<Port>) -> Self {
        let of = &filter.callbacks.0;
        let data = NDIS_FILTER_PARTIAL_CHARACTERISTICS {
            Header: of.Header,
            Flags: 0,
            SendNetBufferListsHandler: of.SendNetBufferListsHandler,
            SendNetBufferListsCompleteHandler: of.SendNetBufferListsCompleteHandler,
            CancelSendNetBufferListsHandler: of.CancelSendNetBufferListsHandler,
            ReceiveNetBufferListsHandler: of.ReceiveNetBufferListsHandler,
            ReturnNetBufferListsHandler: of.ReturnNetBufferListsHandler,
        };
        let adapter = port.device_name.rsplit('\\').next().unwrap_or_default();
        Self {
            handle,
            filter: Arc::clone(filter),
            port: Arc::clone(port),
            name: format!("{adapter}-{}-0000", filter.unique_name),
            requests: Requests::default(),
            changing: Mutex::new(Changing {
                state: FilterState::Attaching,
                context: None,
                completed: None,
                optioner: None,
                data: Handlers(data),
            }),
            changed: Condvar::new(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Changing> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(in crate::ndis) fn state(&self) -> FilterState {
        self.lock().state
    }

    pub(super) fn set_state(&self, state: FilterState) {
        self.lock().state = state;
    }

    /// Whether requests, indications and events pass through the module.
    pub(in crate::ndis) fn is_attached(&self) -> bool {
        !matches!(self.state(), FilterState::Attaching | FilterState::Detached)
    }

    pub(in crate::ndis) fn callbacks(&self) -> &NDIS_FILTER_DRIVER_CHARACTERISTICS {
        &self.filter.callbacks.0
    }

    /// The data handlers of now.
    pub(in crate::ndis) fn data_handlers(&self) -> NDIS_FILTER_PARTIAL_CHARACTERISTICS {
        self.lock().data.0
    }

    /// `FilterModuleContext` for callbacks.
    pub(in crate::ndis) fn context(&self) -> *mut std::ffi::c_void {
        Raw::at(self.lock().context.unwrap_or(0)).pointer()
    }

    /// Calls a callback of the filter.
    pub(in crate::ndis) fn call<R>(
        &self,
        thread: &Thread,
        callback: &'static str,
        irql: u8,
        body: impl FnOnce() -> R,
    ) -> Result<R, Stopped> {
        thread.call_driver(&self.filter.driver, callback, irql, body)
    }

    /// Records a finding against the filter, outside of driver code.
    pub(in crate::ndis) fn find(&self, thread: &Thread, rule: Rule, callback: &str, message: String) -> AdapterError {
        AdapterError::Stopped(crate::ndis::find(thread, &self.filter.driver, rule, callback, message))
    }

    /// Stops on what is legal only for an attached module.
    pub(super) fn check_attached(&self, call: &Call, what: &str) {
        let state = self.state();
        if !self.is_attached() {
            call.stop(Rule::BadState, format!("{what} while the module {} is {state:?}", self.name));
        }
    }
}

impl Ndis {
    /// The module behind a handle that a driver passed. Stops on a handle that is none, or not of this driver.
    pub(in crate::ndis) fn module(&self, call: &Call, handle: usize) -> Arc<Module> {
        let module = self.lock().modules.get(&handle).cloned();
        module.filter(|module| Arc::ptr_eq(&module.filter.driver, call.driver())).unwrap_or_else(|| {
            call.stop(
                Rule::InvalidHandle,
                format!("{handle:#x} is no filter module of this driver, or one that is detached"),
            )
        })
    }
}

impl Port {
    /// Modules of the adapter that are attached, from the miniport upwards.
    pub(in crate::ndis) fn modules(&self) -> Vec<Arc<Module>> {
        self.all_modules().into_iter().filter(|module| module.is_attached()).collect()
    }

    /// The next module below `module` (below the protocols, without one) of which `takes` holds; `None` for the miniport.
    pub(in crate::ndis) fn below(
        &self,
        module: Option<&Module>,
        takes: impl Fn(&Module) -> bool,
    ) -> Option<Arc<Module>> {
        let all = self.all_modules();
        let position = module.and_then(|module| all.iter().position(|other| other.handle == module.handle));
        let below = all.get(..position.unwrap_or(all.len())).unwrap_or_default();
        below.iter().rev().find(|module| module.is_attached() && takes(module)).cloned()
    }

    /// The next module above `module` (above the miniport, without one) of which `takes` holds; `None` for the protocols.
    pub(in crate::ndis) fn above(
        &self,
        module: Option<&Module>,
        takes: impl Fn(&Module) -> bool,
    ) -> Option<Arc<Module>> {
        let all = self.all_modules();
        let position = module.and_then(|module| all.iter().position(|other| other.handle == module.handle));
        let above = all.get(position.map_or(0, |position| position + 1)..).unwrap_or_default();
        above.iter().find(|module| module.is_attached() && takes(module)).cloned()
    }
}
