//! The kernel as the broker sees it.

use super::event::Event;
use super::irql::RaiseToDispatch;
use super::pages::SealedPages;
use super::{time, upcase};
use broker::{Platform, Time};

/// The one platform of the driver.
pub(crate) struct Kernel;

impl Platform for Kernel {
    type Irql = RaiseToDispatch;
    type Memory = SealedPages;
    type Completion = Event;

    fn now() -> Time {
        time::now()
    }

    fn upcase(unit: u16) -> u16 {
        upcase::upcase(unit)
    }
}
