//! Gathers what a driver holds, from every subsystem.

use std::sync::Arc;

use super::{Driver, Inner};
use crate::leak::{Leak, LeakKind, LeakReport, LeakSource};

impl Inner {
    /// Everything that `driver` has not given back at this moment.
    pub(crate) fn leaks_of(self: &Arc<Self>, driver: &Driver) -> LeakReport {
        let mut leaks = self.kernel_leaks(driver);
        let sources: [&dyn LeakSource; 2] = [&self.flt, &self.ndis];
        leaks.extend(sources.into_iter().flat_map(|source| source.leaks(driver)));
        LeakReport { driver: driver.name.clone(), leaks }
    }

    /// The kernel's own part. Kernel handles are in the system process's table, which belongs to the machine.
    fn kernel_leaks(self: &Arc<Self>, driver: &Driver) -> Vec<Leak> {
        let one = |kind| move |detail| Leak { kind, count: 1, bytes: 0, detail };
        let handles = self.nt.system_process(self).handles().opened_by(driver);
        let references = self.nt.objects().references_of(driver);
        let mut leaks = self.nt.pool().leaks(driver);
        leaks.extend(self.nt.mappings().leaks(driver));
        leaks.extend(self.nt.physical().leaks(driver));
        leaks.extend(self.nt.io().leaks(driver));
        leaks.extend(handles.into_iter().map(one(LeakKind::Handle)));
        leaks.extend(references.into_iter().map(one(LeakKind::Reference)));
        leaks
    }
}
