//! Callbacks that call exports and never return: see [`crate::watchdog`].

use super::Thread;
use crate::ddi::CallSite;
use crate::finding::Rule;
use crate::nt::threads::START_ROUTINE;
use crate::watchdog;

impl Thread {
    /// Stops a callback that has taken too long and still calls exports. A system thread may run for ever.
    pub(crate) fn stop_if_late(&self, site: &CallSite) {
        let Some(time) = watchdog::is_late() else { return };
        let outermost = self.entries.with(|entries| entries.first().map(|entry| entry.callback));
        if let Some(callback) = outermost.filter(|callback| *callback != START_ROUTINE) {
            let name = site.export.name;
            let message = format!("{callback} has not returned for more than {time:?}, and still calls {name}");
            self.stop(Rule::NeverReturns, message, Some(site));
        }
    }
}
