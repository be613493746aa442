//! Gathers what a driver holds, from every subsystem.

use std::sync::Arc;

use super::{Driver, Inner};
use crate::leak::{LeakReport, LeakSource};

impl Inner {
    /// Everything that `driver` has not given back at this moment.
    pub(crate) fn leaks_of(self: &Arc<Self>, driver: &Driver) -> LeakReport {
        let sources: [&dyn LeakSource; 3] = [&self.nt, &self.flt, &self.ndis];
        let leaks = sources.into_iter().flat_map(|source| source.leaks(driver)).collect();
        LeakReport { driver: driver.name.clone(), leaks }
    }
}
