//! Filters as tests and tools see them.

use std::sync::Arc;

use ndis::NdisStatus;

use super::module::Module;
use super::{FilterClass, FilterState, find};
use crate::machine::Machine;
use crate::ndis::adapter::{Adapter, AdapterError};
use crate::thread::Thread;

/// A registered filter driver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterDriverSummary {
    /// Service name in its characteristics.
    pub name: String,
    /// What people call it.
    pub friendly_name: String,
    /// Image name of its driver.
    pub driver: String,
    /// Where in a stack it belongs.
    pub class: FilterClass,
    /// Whether it may change what passes (`FilterType` 2).
    pub is_modifying: bool,
    /// Whether stacks are torn down without it (`FilterRunType` 1).
    pub is_mandatory: bool,
    /// Its modules.
    pub modules: Vec<FilterModuleSummary>,
}

/// A filter in an adapter's stack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterModuleSummary {
    /// Service name of the filter.
    pub filter: String,
    /// Name of the adapter.
    pub adapter: String,
    /// Name of the module, as `FilterAttach` was told.
    pub name: String,
    /// Where the module is in its life.
    pub state: FilterState,
}

impl From<&Module> for FilterModuleSummary {
    fn from(module: &Module) -> Self {
        Self {
            filter: module.filter.name.clone(),
            adapter: module.port.name.clone(),
            name: module.name.clone(),
            state: module.state(),
        }
    }
}

impl Adapter {
    /// Filter modules in the adapter's stack, from the miniport upwards.
    #[must_use]
    pub fn filters(&self) -> Vec<FilterModuleSummary> {
        self.port().all_modules().iter().map(|module| FilterModuleSummary::from(&**module)).collect()
    }
}

impl Machine {
    /// Filter drivers that are registered now.
    #[must_use]
    pub fn filter_drivers(&self) -> Vec<FilterDriverSummary> {
        let filters: Vec<_> = self.inner().ndis.lock().filters.values().cloned().collect();
        let ports = self.inner().ndis.all_ports();
        let summary = |filter: &Arc<super::Filter>| FilterDriverSummary {
            name: filter.name.clone(),
            friendly_name: filter.friendly_name.clone(),
            driver: filter.driver.name.clone(),
            class: filter.place.class,
            is_modifying: filter.place.is_modifying,
            is_mandatory: filter.place.is_mandatory,
            modules: ports
                .iter()
                .filter_map(|port| port.module_of(filter))
                .map(|module| FilterModuleSummary::from(&*module))
                .collect(),
        };
        filters.iter().map(summary).collect()
    }

    /// Attaches a filter to an adapter, as ticking the box in the adapter's properties does. Nothing happens when it is there.
    ///
    /// # Errors
    /// `NDIS_STATUS_ADAPTER_NOT_FOUND` when there is no such filter or adapter; the refusal of a mandatory filter; a finding.
    pub fn attach_ndis_filter(&self, filter: &str, adapter: &str) -> Result<(), AdapterError> {
        let missing = || AdapterError::Status(NdisStatus::ADAPTER_NOT_FOUND);
        let filter = find(self.inner(), filter).ok_or_else(missing)?;
        let port = self.inner().ndis.port_named(adapter).ok_or_else(missing)?;
        Thread::enter(self.inner(), |thread| port.insert_filter(thread, &filter))
    }

    /// Detaches a filter from an adapter, as clearing that box does.
    ///
    /// # Errors
    /// `NDIS_STATUS_ADAPTER_NOT_FOUND` when the filter is not attached to such an adapter; a finding.
    pub fn detach_ndis_filter(&self, filter: &str, adapter: &str) -> Result<(), AdapterError> {
        let missing = || AdapterError::Status(NdisStatus::ADAPTER_NOT_FOUND);
        let filter = find(self.inner(), filter).ok_or_else(missing)?;
        let port = self.inner().ndis.port_named(adapter).ok_or_else(missing)?;
        port.module_of(&filter).ok_or_else(missing)?;
        Thread::enter(self.inner(), |thread| port.extract_filter(thread, &filter))
    }
}
