//! How modules come to a stack and leave it: `FilterAttach`, `FilterDetach`.

use std::sync::Arc;

use ndis::NdisStatus;
use ndis::raw::{
    NDIS_FILTER_ATTACH_PARAMETERS, NDIS_FILTER_ATTRIBUTES, NDIS_OBJECT_HEADER,
    NDIS_OBJECT_TYPE_FILTER_ATTACH_PARAMETERS, NDIS_OBJECT_TYPE_FILTER_ATTRIBUTES, NDIS_PAUSE_NDIS_INTERNAL,
    NDIS_SIZEOF_FILTER_ATTRIBUTES_REVISION_1, NdisHaltDeviceDisabled,
};

use super::Filter;
use super::module::{FilterState, Module};
use crate::ddi::{Call, exports};
use crate::finding::Rule;
use crate::machine::Inner;
use crate::ndis::adapter::{AdapterError, AdapterState};
use crate::ndis::lifecycle::completion_time;
use crate::ndis::port::Port;
use crate::ndis::protocol;
use crate::ndis::scratch::{Scratch, Text};
use crate::ndis::{end_handle, new_handle};
use crate::nt::raw::{Raw, field};
use crate::thread::Thread;

exports! { pub(in crate::ndis) EXPORTS in "ndis.sys":
    NdisFSetAttributes(max 0, fails RETURNS_NDIS_FAILURE) = set_attributes;
}

impl Port {
    /// Puts a filter that comes while the adapter is there into its stack.
    pub(super) fn insert_filter(
        self: &Arc<Self>,
        thread: &Arc<Thread>,
        filter: &Arc<Filter>,
    ) -> Result<(), AdapterError> {
        self.gate.enter(thread.machine())?;
        let is_there = !matches!(self.state(), AdapterState::Initializing | AdapterState::Halted);
        let is_wanted = is_there && filter.place.fits(self) && self.module_of(filter).is_none();
        let inserted = if is_wanted { self.insert_alone(thread, filter) } else { Ok(()) };
        self.gate.leave();
        inserted
    }

    fn insert_alone(self: &Arc<Self>, thread: &Arc<Thread>, filter: &Arc<Filter>) -> Result<(), AdapterError> {
        let inserted = self.change_stack(thread, filter.place.is_mandatory, || self.attach_paused(thread, filter));
        if filter.place.is_mandatory && matches!(inserted, Err(AdapterError::Status(_))) {
            // The page "Mandatory Filter Drivers": without it, the stack is torn down.
            self.tear_down(thread, NdisHaltDeviceDisabled)?;
        }
        inserted
    }

    /// Takes a filter out of the stack; nothing when it is not there.
    pub(super) fn extract_filter(
        self: &Arc<Self>,
        thread: &Arc<Thread>,
        filter: &Arc<Filter>,
    ) -> Result<(), AdapterError> {
        self.gate.enter(thread.machine())?;
        let extracted = match self.module_of(filter) {
            Some(module) => self.change_stack(thread, filter.place.is_mandatory, || module.detach(thread)),
            None => Ok(()),
        };
        self.gate.leave();
        extracted
    }

    /// Changes a stack while it is paused. For the sake of a mandatory filter, the protocols unbind, and bind again.
    fn change_stack(
        self: &Arc<Self>,
        thread: &Arc<Thread>,
        rebinds: bool,
        change: impl FnOnce() -> Result<(), AdapterError>,
    ) -> Result<(), AdapterError> {
        let was_running = self.pause_stack(thread, NDIS_PAUSE_NDIS_INTERNAL)?;
        let bound: Vec<_> =
            self.bindings(thread.machine()).iter().map(|binding| Arc::clone(&binding.protocol)).collect();
        if rebinds {
            self.unbind_paused(thread)?;
        }
        let changed = change();
        if rebinds && changed.is_ok() {
            protocol::bind_again(thread, self, &bound)?;
        }
        if was_running && (changed.is_ok() || !rebinds) && !matches!(changed, Err(AdapterError::Stopped(_))) {
            self.restart_stack(thread)?;
        }
        changed
    }

    /// The module of a filter in this stack.
    pub(super) fn module_of(&self, filter: &Filter) -> Option<Arc<Module>> {
        self.all_modules().into_iter().find(|module| module.filter.handle == filter.handle)
    }

    /// `FilterAttach` in a paused stack. The failure of an optional filter is nobody's business but its own.
    pub(super) fn attach_paused(
        self: &Arc<Self>,
        thread: &Arc<Thread>,
        filter: &Arc<Filter>,
    ) -> Result<(), AdapterError> {
        match self.attach(thread, filter) {
            Err(AdapterError::Status(_)) if !filter.place.is_mandatory => Ok(()),
            attached => attached,
        }
    }

    fn attach(self: &Arc<Self>, thread: &Arc<Thread>, filter: &Arc<Filter>) -> Result<(), AdapterError> {
        const CALLBACK: &str = "FilterAttach";
        let Some(handler) = filter.callbacks.0.AttachHandler else { return Ok(()) };
        let handle = new_handle(thread.machine());
        let module = Arc::new(Module::new(handle, filter, self));
        let parameters = if handle == 0 { None } else { Parameters::new(thread.machine(), &module) };
        let parameters = parameters.ok_or(AdapterError::Status(NdisStatus::RESOURCES))?;
        thread.machine().ndis.lock().modules.insert(handle, Arc::clone(&module));
        self.insert_module(Arc::clone(&module), |other| other.filter.place.class > filter.place.class);
        let (module_handle, context) = (Raw::at(handle).pointer(), Raw::at(filter.context).pointer());
        let status = module.call(thread, CALLBACK, 0, || {
            // SAFETY: the driver's callback, with the arguments that its page documents.
            unsafe { handler(module_handle, context, parameters.structure.raw().pointer()) }
        })?;
        match status {
            NdisStatus::SUCCESS if module.lock().context.is_some() => {
                module.set_state(FilterState::Paused);
                Ok(())
            }
            NdisStatus::SUCCESS => {
                let message = "returned success without NdisFSetAttributes".to_owned();
                Err(module.find(thread, Rule::BadState, CALLBACK, message))
            }
            NdisStatus::PENDING => {
                let message = "returned NDIS_STATUS_PENDING; an attach cannot be pended".to_owned();
                Err(module.find(thread, Rule::BadState, CALLBACK, message))
            }
            refused => {
                module.check_released(thread, CALLBACK)?;
                module.forget(thread.machine());
                Err(AdapterError::Status(refused))
            }
        }
    }

    /// Detaches every filter, from the protocols downwards: the adapter goes away.
    pub(in crate::ndis) fn detach_all(&self, thread: &Arc<Thread>) -> Result<(), AdapterError> {
        self.modules().iter().rev().try_for_each(|module| module.detach(thread))
    }
}

impl Module {
    /// `FilterDetach`, of a paused module.
    pub(super) fn detach(&self, thread: &Arc<Thread>) -> Result<(), AdapterError> {
        const CALLBACK: &str = "FilterDetach";
        // A filter that keeps a request for ever cannot be detached.
        let own = self.port.requests_by(self).pop().map(|request| request.to_string());
        let time = completion_time(thread.machine());
        if let Some(request) = self.requests.drain(thread.machine(), time).or(own) {
            let message = format!("the module cannot be detached: {request} is not complete");
            return Err(self.find(thread, Rule::Deadlock, "FilterOidRequest", message));
        }
        let Some(handler) = self.callbacks().DetachHandler else { return Ok(()) };
        let context = self.context();
        self.set_state(FilterState::Detached);
        self.call(thread, CALLBACK, 0, || {
            // SAFETY: the driver's callback, with the argument that its page documents.
            unsafe { handler(context) }
        })?;
        self.check_released(thread, CALLBACK)?;
        self.forget(thread.machine());
        Ok(())
    }

    /// Stops when the module still owns what it must not own from now on.
    fn check_released(&self, thread: &Thread, callback: &str) -> Result<(), AdapterError> {
        match thread.machine().ndis.owned_by(self.handle) {
            Some((rule, left)) => {
                let message = format!("returned with {left} of module {} still there", self.name);
                Err(self.find(thread, rule, callback, message))
            }
            None => Ok(()),
        }
    }

    /// Ends the handle.
    fn forget(&self, machine: &Inner) {
        self.set_state(FilterState::Detached);
        self.port.remove_module(self.handle);
        if machine.ndis.lock().modules.remove(&self.handle).is_some() {
            end_handle(machine, self.handle);
        }
    }
}

extern "efiapi" fn set_attributes(
    handle: usize,
    context: usize,
    attributes: Raw<NDIS_FILTER_ATTRIBUTES>,
) -> NdisStatus {
    let call = Call::enter();
    let module = call.machine().ndis.module(&call, handle);
    let header: NDIS_OBJECT_HEADER = field!(attributes, NDIS_FILTER_ATTRIBUTES, Header).read();
    if header.Type != NDIS_OBJECT_TYPE_FILTER_ATTRIBUTES
        || header.Revision == 0
        || header.Size < NDIS_SIZEOF_FILTER_ATTRIBUTES_REVISION_1
    {
        return NdisStatus::FAILURE;
    }
    if module.state() != FilterState::Attaching {
        call.stop(Rule::BadState, format!("legal only within FilterAttach; the module is {:?}", module.state()));
    }
    module.lock().context = Some(context);
    NdisStatus::SUCCESS
}

/// What `FilterAttach` is told: the structure and the strings that it points at.
struct Parameters {
    structure: Scratch,
    _strings: [Text; 3],
}

/// The revision of the structure for an NDIS 6 minor version, and its size.
fn revision(minor: u8) -> (u8, u16) {
    match minor {
        0 => (1, 164),
        1 => (2, 176),
        2..30 => (3, 200),
        _ => (4, 224),
    }
}

impl Parameters {
    fn new(machine: &Arc<Inner>, module: &Module) -> Option<Self> {
        let port = &module.port;
        let general = port.attributes().general?;
        let (revision, size) = revision(module.callbacks().MinorNdisVersion);
        let name = Text::new(machine, &module.name)?;
        let instance = Text::new(machine, &port.name)?;
        let device = Text::new(machine, &port.device_name)?;
        let structure = Scratch::new(machine, size_of::<NDIS_FILTER_ATTACH_PARAMETERS>())?;
        let mut address = [0; 32];
        for (to, from) in address.iter_mut().zip(&general.mac_address) {
            *to = *from;
        }
        let none = std::ptr::null_mut();
        structure.raw().write(NDIS_FILTER_ATTACH_PARAMETERS {
            Header: NDIS_OBJECT_HEADER::new(NDIS_OBJECT_TYPE_FILTER_ATTACH_PARAMETERS, revision, size),
            // Modules have no interfaces of their own here: they go by the miniport's.
            IfIndex: port.index,
            NetLuid: port.luid(),
            FilterModuleGuidName: name.string(),
            BaseMiniportIfIndex: port.index,
            BaseMiniportInstanceName: instance.string(),
            BaseMiniportName: device.string(),
            MediaConnectState: general.connect_state,
            MediaDuplexState: general.duplex_state,
            XmitLinkSpeed: general.xmit_speed,
            RcvLinkSpeed: general.rcv_speed,
            MiniportMediaType: general.media,
            MiniportPhysicalMediaType: general.physical_medium,
            MiniportMediaSpecificAttributes: none,
            DefaultOffloadConfiguration: none,
            MacAddressLength: general.mac_address.len() as u16,
            CurrentMacAddress: address,
            BaseMiniportNetLuid: port.luid(),
            LowerIfIndex: port.index,
            LowerIfNetLuid: port.luid(),
            Flags: 0,
            HDSplitCurrentConfig: none,
            ReceiveFilterCapabilities: none,
            MiniportPhysicalDeviceObject: none,
            NicSwitchCapabilities: none,
            BaseMiniportIfConnectorPresent: general.has_connector,
            SriovCapabilities: none,
            NicSwitchArray: none,
        });
        Some(Self { structure, _strings: [name, instance, device] })
    }
}
