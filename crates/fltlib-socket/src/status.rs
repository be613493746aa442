//! What kernel-host tells about its machine.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Everything there is in a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MachineStatus {
    /// Loaded drivers, in load order.
    pub drivers: Vec<DriverStatus>,
    /// Registered minifilters, highest altitude first.
    pub filters: Vec<FilterStatus>,
    /// Communication ports.
    pub ports: Vec<PortStatus>,
    /// Network adapters.
    pub adapters: Vec<AdapterStatus>,
    /// Report of the last unload of a driver.
    pub last_unload: Option<UnloadReport>,
    /// The finding on which the machine stopped, if it did: it serves nothing else any more.
    pub stopped: Option<String>,
}

/// A loaded driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DriverStatus {
    /// Image file name, such as `fwbroker.sys`.
    pub name: String,
    /// Service name, such as `FwBroker`.
    pub service: String,
    /// Image size in memory in bytes.
    pub image_bytes: u64,
    /// Pool bytes allocated now.
    pub pool_bytes: u64,
    /// Nanoseconds that `DriverEntry` took.
    pub entry_nanoseconds: u64,
}

/// A registered minifilter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FilterStatus {
    /// Name of the filter, which is its service's.
    pub name: String,
    /// Altitude of its default instance, as a decimal string.
    pub altitude: String,
    /// Volumes to which it is attached.
    pub volumes: Vec<String>,
    /// Whether `FltStartFiltering` has been called.
    pub filtering: bool,
}

/// A communication port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortStatus {
    /// Name in the object namespace.
    pub name: String,
    /// The filter that made it.
    pub filter: String,
    /// Clients connected now.
    pub connections: u32,
    /// Most clients at once.
    pub max_connections: u32,
}

/// A network adapter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdapterStatus {
    /// Name.
    pub name: String,
    /// Image file name of its miniport driver.
    pub driver: String,
    /// State in NDIS's own words, such as `Running`.
    pub state: String,
}

/// What a driver has left behind when it was unloaded. A clean driver leaves nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnloadReport {
    /// Image file name.
    pub driver: String,
    /// Kernel handles still open.
    pub handles: u64,
    /// Pool bytes still allocated.
    pub pool_bytes: u64,
    /// Pool blocks still allocated.
    pub pool_blocks: u64,
    /// Object references still held.
    pub references: u64,
    /// One line for each of the above and for all else that is left, with its origin.
    pub details: Vec<String>,
}

impl UnloadReport {
    /// Whether nothing was left.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.handles == 0
            && self.pool_bytes == 0
            && self.pool_blocks == 0
            && self.references == 0
            && self.details.is_empty()
    }
}

/// One DDI call of a driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceEntry {
    /// Number in the order in which calls ended, from 1.
    pub sequence: u64,
    /// Image file name of the calling driver.
    pub driver: String,
    /// The DDI's name.
    pub name: String,
    /// What it was about, such as a file name; may be empty.
    pub detail: String,
    /// Bytes that it moved.
    pub bytes: u64,
    /// How long it took.
    pub nanoseconds: u64,
}

/// Where the machine's files are on the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Host folder of each volume, by its drive letter and colon, such as `C:`.
    pub volumes: BTreeMap<String, PathBuf>,
    /// Host folder that is `\SystemRoot`.
    pub system_root: PathBuf,
    /// Host folder that is `\SystemRoot\System32\drivers`, where `NdisOpenFile` looks.
    pub drivers: PathBuf,
}
