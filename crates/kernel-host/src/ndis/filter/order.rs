//! Where in a stack a filter belongs, as its INF says.

use crate::machine::Inner;
use crate::ndis::port::Port;
use crate::nt::hive::Value;

/// `FilterClass` of a filter's INF, from the bottom of the stack to its top.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FilterClass {
    /// `provider_address`.
    ProviderAddress,
    /// `custom`.
    Custom,
    /// `diagnostic`.
    Diagnostic,
    /// `failover`.
    Failover,
    /// `loadbalance`.
    LoadBalance,
    /// `vpn`.
    Vpn,
    /// `compression`.
    Compression,
    /// `encryption`.
    Encryption,
    /// `scheduler`: next to the protocols.
    Scheduler,
}

/// What the INF says of a filter, and what holds when it was installed without one.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) class: FilterClass,
    /// `FilterType` 2: it may change what passes. Monitoring filters (1) have no class, and may be anywhere.
    pub(super) is_modifying: bool,
    /// `FilterRunType` 1: the stack does not work without it.
    pub(super) is_mandatory: bool,
    /// `FilterMediaTypes`, in lower case; empty for every medium.
    media: Vec<String>,
}

impl Place {
    /// Reads the `Ndi` key of the package of a service.
    pub(super) fn of(machine: &Inner, name: &str, service: &str) -> Self {
        let state = machine.ndis.lock();
        let defaults = state.defaults.get(&name.to_lowercase()).or_else(|| state.defaults.get(&service.to_lowercase()));
        let ndi = defaults.and_then(|defaults| defaults.open("Ndi").ok());
        drop(state);
        let value = |name: &str| ndi.as_ref().and_then(|ndi| ndi.value(name).ok());
        let interfaces = ndi.as_ref().and_then(|ndi| ndi.open("Interfaces").ok());
        let media = interfaces.and_then(|key| key.value("FilterMediaTypes").ok()?.as_text()).unwrap_or_default();
        Self {
            class: value("FilterClass").and_then(|value| class_of(&value)).unwrap_or(FilterClass::Custom),
            is_modifying: value("FilterType").and_then(|value| value.as_dword()) != Some(1),
            is_mandatory: value("FilterRunType").and_then(|value| value.as_dword()) == Some(1),
            media: media
                .split(',')
                .map(|medium| medium.trim().to_lowercase())
                .filter(|text| !text.is_empty())
                .collect(),
        }
    }

    /// Whether the filter is for adapters of this kind.
    pub(super) fn fits(&self, port: &Port) -> bool {
        // NdisMedium802_3, and the names that the page "Specifying Filter Driver Binding Relationships" has for the others.
        let name = match port.attributes().general.map(|general| general.media) {
            Some(0) => "ethernet",
            Some(3) => "wan",
            Some(9) => "flpp4",
            Some(16) => "wlan",
            Some(19) => "ppip",
            _ => return self.media.is_empty(),
        };
        self.media.is_empty() || self.media.iter().any(|medium| medium == name)
    }
}

fn class_of(value: &Value) -> Option<FilterClass> {
    Some(match value.as_text()?.to_lowercase().as_str() {
        "scheduler" => FilterClass::Scheduler,
        "encryption" => FilterClass::Encryption,
        "compression" => FilterClass::Compression,
        "vpn" => FilterClass::Vpn,
        "loadbalance" => FilterClass::LoadBalance,
        "failover" => FilterClass::Failover,
        "diagnostic" => FilterClass::Diagnostic,
        "provider_address" => FilterClass::ProviderAddress,
        _ => FilterClass::Custom,
    })
}
