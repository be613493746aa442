//! Whether drivers say the same about a request in two places: what a dispatch routine returns, and whether it marked
//! the request as pending. Page: `wdm/nf-wdm-iomarkirppending`; Driver Verifier's I/O checks look at the same.

use std::sync::{Arc, Mutex, PoisonError};

use nt_types::NtStatus;

use crate::finding::Rule;
use crate::machine::Driver;
use crate::thread::Thread;

/// One entry into a dispatch routine, until both the routine has returned and its stack location was left behind.
/// Either comes first: another thread may complete the request while the routine still runs.
#[derive(Debug)]
pub(crate) struct Dispatched {
    driver: Arc<Driver>,
    name: &'static str,
    irp: usize,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    returned: Option<NtStatus>,
    marked: Option<bool>,
    /// Set when the routine's driver itself completed the request here: with this status.
    completed: Option<NtStatus>,
}

impl Dispatched {
    pub(super) fn new(driver: &Arc<Driver>, name: &'static str, irp: usize) -> Arc<Self> {
        Arc::new(Self { driver: Arc::clone(driver), name, irp, state: Mutex::default() })
    }

    /// The driver whose routine it is.
    pub(super) fn driver(&self) -> &Arc<Driver> {
        &self.driver
    }

    /// The dispatch routine returned.
    pub(super) fn returned(&self, thread: &Thread, status: NtStatus) {
        self.update(thread, |state| state.returned = Some(status));
    }

    /// Completion went past the routine's stack location, which was `marked` as pending or not.
    /// `completed` is the final status where this is the location whose driver called `IoCompleteRequest`.
    pub(super) fn left_behind(&self, thread: &Thread, marked: bool, completed: Option<NtStatus>) {
        self.update(thread, |state| (state.marked, state.completed) = (Some(marked), completed));
    }

    fn update(&self, thread: &Thread, change: impl FnOnce(&mut State)) {
        let broken = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            change(&mut state);
            state.broken()
        };
        let Some(why) = broken else { return };
        let message = format!("{} of the IRP {:#x}: {why}", self.name, self.irp);
        let mut finding = thread.finding(Rule::BadState, message, None);
        self.driver.name.clone_into(&mut finding.driver);
        self.name.clone_into(&mut finding.call);
        thread.machine().record(finding);
    }
}

impl State {
    fn broken(&self) -> Option<String> {
        let (returned, marked) = (self.returned?, self.marked?);
        match (returned == NtStatus::PENDING, marked) {
            (true, false) => Some(
                "the dispatch routine returned STATUS_PENDING, but nobody called IoMarkIrpPending (a completion \
                 routine that does not propagate PendingReturned does that, too)"
                    .to_owned(),
            ),
            (false, true) => {
                Some(format!("it was marked with IoMarkIrpPending, but the dispatch routine returned {returned}"))
            }
            (false, false) => self.completed.filter(|completed| *completed != returned).map(|completed| {
                format!("it was completed with {completed}, but the dispatch routine returned {returned}")
            }),
            (true, true) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(returned: NtStatus, marked: bool, completed: Option<NtStatus>) -> bool {
        State { returned: Some(returned), marked: Some(marked), completed }.broken().is_some()
    }

    #[test]
    fn pending_is_returned_exactly_when_it_was_marked() {
        assert!(broken(NtStatus::PENDING, false, None));
        assert!(broken(NtStatus::SUCCESS, true, None));
        assert!(!broken(NtStatus::PENDING, true, Some(NtStatus::SUCCESS)));
        assert!(!broken(NtStatus::SUCCESS, false, None));
    }

    #[test]
    fn who_completes_returns_the_status_of_the_completion() {
        assert!(broken(NtStatus::SUCCESS, false, Some(NtStatus::ACCESS_DENIED)));
        assert!(!broken(NtStatus::ACCESS_DENIED, false, Some(NtStatus::ACCESS_DENIED)));
    }
}
